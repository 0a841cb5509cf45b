"""The commands that `make` runs: what an operator typed reaches the playbook unchanged, and nothing else reads it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
NASTY = {
    "target": "2026-02-08 10:30:00+07",
    "label": """it's "quoted" \\ and \\n""",
    "confirm": "$HOME $$ $(shell touch made) `touch made` ${E}",
    "file": "a#b;c&d|e*f,(g)\th\ni",
    "into": "ឧបករណ៍",
    "out": "",
    "zzz'unheard\"of": "1",
}

PLAIN = ["env", "-u", "MAKEFLAGS", "-u", "MFLAGS", "-u", "MAKEOVERRIDES"]
"""Without these a playbook's environment has the words of the command line."""


def make(*words: str, cwd: Path = ROOT) -> str:
    """Return the commands of `make -n`, which runs none but those that begin with `+`."""
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", "-f", ROOT / "Makefile", *words],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    return done.stdout.replace("\\\n", "") if done.returncode == 0 else done.stderr


def command(*words: str, cwd: Path = ROOT) -> list[str]:
    """Return the words of the command behind `scripts/setup`, as the shell splits them."""
    setup, _, rest = make(*words, cwd=cwd).partition("\n")
    assert setup == "scripts/setup"
    words = shlex.split(rest)
    assert words[: len(PLAIN)] == PLAIN
    return words[len(PLAIN) :]


@pytest.mark.parametrize("target", ["migrate", "restore", "backup-schedule", "up"])
def test_words_of_the_command_line_reach_the_playbook_unchanged(target: str, tmp_path: Path) -> None:
    words = command(target, *(f"{name}={value}" for name, value in NASTY.items()), cwd=tmp_path)
    playbook = "site" if target == "up" else target.replace("-", "_")
    assert words[:2] == ["ansible-playbook", f"playbooks/{playbook}.yml"]
    assert set(words[2::2]) == {"--extra-vars"}
    variables: dict[str, str] = {}
    for text in words[3::2]:
        variables |= json.loads(text)
    assert variables == NASTY
    assert not (tmp_path / "made").exists()


def test_words_without_variables_add_nothing() -> None:
    assert command("status") == ["ansible-playbook", "playbooks/status.yml"]


def test_extra_variables_and_arguments_in_ansibles_own_form_stay() -> None:
    words = command("up", "E=postgres_port=5433 what=x", "ARGS=--check --diff", "label=a b")
    assert words[2:] == [
        "--extra-vars",
        "postgres_port=5433 what=x",
        "--extra-vars",
        '{"label": "a b"}',
        "--check",
        "--diff",
    ]


def test_a_word_in_capital_letters_is_a_word_for_the_playbook_too() -> None:
    assert command("restore", "TARGET=latest")[2:] == ["--extra-vars", '{"TARGET": "latest"}']


def test_settings_of_setup_and_pytest_are_no_variables() -> None:
    assert len(command("up", "SETUP_PYTHON=python3.13", "SETUP_NO_UV=1", "PYTEST_ARGS=-x")) == 2


def test_no_program_gets_a_word_from_its_environment(tmp_path: Path) -> None:
    words = [f"{name}={value}" for name, value in NASTY.items()]
    told = make(
        f"--eval=probe: ; +@{' '.join(PLAIN)} env -0 >environment",
        "probe",
        "SETUP_PYTHON=python3.13",
        *words,
        cwd=tmp_path,
    )
    assert "Error" not in told
    environment = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().split("\0") if line)
    assert not environment.keys() & NASTY.keys()
    assert environment["SETUP_PYTHON"] == "python3.13"
    assert not [value for value in environment.values() if "unheard" in value]
    assert not (tmp_path / "made").exists()


def test_the_console_is_the_read_only_role_of_the_instance() -> None:
    assert " ".join(shlex.split(make("console"))).endswith(
        "--user postgres dastern-postgres psql --username dastern_readonly --dbname dastern"
    )
    words = shlex.split(make("console", "postgres_container_name=it's", "postgres_database=a $b", "ARGS=-c 'SELECT 1'"))
    assert words[-8:] == ["it's", "psql", "-c", "SELECT 1", "--username", "dastern_readonly", "--dbname", "a $b"]
    assert "reads only" in make("console", "container=second")
    assert "reads only" in make("console", "E=postgres_container_name=second")


def test_every_word_is_a_variable() -> None:
    """Also one that is called as a variable of make's own loops might be."""
    assert command("status", "name=foo")[2:] == ["--extra-vars", '{"name": "foo"}']


def test_help_names_every_target() -> None:
    shown = subprocess.run(["sh", "-c", make("help")], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[1] for line in shown.splitlines() if line.startswith("  make ")}
    (declared,) = (line for line in make("-p", "help").splitlines() if line.startswith(".PHONY: "))
    assert targets | {"prepare"} == set(declared.split()[1:])
    assert all(len(line) <= 130 for line in shown.splitlines())
