"""What the benchmarks share: running a playbook, contestants in turn, and the table of targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ANSIBLE_PLAYBOOK = str(Path(sys.prefix) / "bin" / "ansible-playbook")
TARGETS_HEAD = "| target | measured | allowed | ratio | |\n" + "|---" * 5 + "|"

T = TypeVar("T")


class Failed(Exception):
    """A measurement that didn't do what it should."""


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def run(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Run to the end in the root of the project; gives the seconds it took."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PG"))}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**clean, **(environment or {})}, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise Failed(f"{Path(command[0]).name} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return seconds


def run_and_weigh(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, int]:
    """`run`, and the most memory in bytes that one of its processes had at once."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PG"))}
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**clean, **(environment or {})}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise Failed(f"{Path(command[0]).name} ended with {process.returncode}:\n{output.read()[-3000:]}")
    return seconds, usage.ru_maxrss * 1024


def playbook(path: str, variables: dict[str, Any]) -> None:
    run([ANSIBLE_PLAYBOOK, path, "-e", json.dumps(variables)])


def in_turn(everybody: Sequence[T], number: int) -> list[T]:
    """The order of round `number`: everybody is first, second, ... in turn."""
    begin = number % len(everybody)
    return [*everybody[begin:], *everybody[:begin]]


def row(words: str, measured: float, floor: float, factor: float) -> str:
    verdict = "met" if measured <= factor * floor else "**missed**"
    return f"| {words} | {measured:.2f} | {factor * floor:.2f} | {measured / floor:.2f} | {verdict} |"


def keep(result: Path, text: str) -> None:
    result.parent.mkdir(exist_ok=True)
    result.write_text(text, "utf-8")
    say(f"Written to {result.relative_to(ROOT)}")
