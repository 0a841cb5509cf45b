"""Every shell program, in a file or in a string of the code, passes shellcheck.

What a module runs in a container stands in its code: Ansible ships a module's Python to the host, and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import ansible.module_utils.dastern as package
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = re.compile(r"\A#!|^(?:set -|cd |for |exec |umask |trap |printf |while )", re.MULTILINE)
"""How a line begins that only a shell program has."""
OTHER = re.compile(r"\A#!\{?python|\bBEGIN;|\[Unit\]", re.MULTILINE)
FINE = "SC2148"
"""A program in the code has no first line."""


def in_files() -> dict[str, str]:
    """Return the texts of the files that a shell runs, by path."""
    paths = [ROOT / ".ci" / "run", *ROOT.glob("scripts/*"), *ROOT.glob("roles/*/files/**/*")]
    texts = {path: path.read_bytes() for path in paths if path.is_file()}
    first = re.compile(rb"\A#!.*\b(?:sh|bash)\b")
    return {str(path.relative_to(ROOT)): text.decode() for path, text in texts.items() if first.search(text)}


def in_code() -> dict[str, str]:
    """Return the constants that hold a shell program, by module and name."""
    programs = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, str) and "\n" in value and PROGRAM.search(value) and not OTHER.search(value):
                programs[f"{module.name.removeprefix(f'{package.__name__}.')}.{name}"] = value
    return {name: value for name, value in programs.items() if not name.endswith("__doc__")}


PROGRAMS = in_files() | in_code()


def test_the_programs_are_found() -> None:
    """Those whose failure costs most."""
    names = {".ci/run", "roles/postgres_image/files/docker-entrypoint.sh", "scripts/setup"}
    names |= {f"backups.{name}" for name in ("zero_loss._WATCH", "zero_loss._RUN", "keeper._LISTEN", "kept.REMOVE")}
    names |= {f"restores.swap.{name}" for name in ("_SWAP", "_PUT_BACK", "_UNLINKED")}
    assert names <= set(PROGRAMS)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_passes_shellcheck(name: str) -> None:
    text = PROGRAMS[name]
    shell = "bash" if "bash" in text.partition("\n")[0] or name == "backups.zero_loss._WATCH" else "dash"
    program = shutil.which("shellcheck")
    assert program, "shellcheck is missing; `make setup-dev` installs it"
    done = subprocess.run(
        [program, f"--shell={shell}", "--severity=warning", f"--exclude={FINE}", "-"],
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
