"""scripts/setup: a virtual environment made, left alone, mended, and what it says where something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("requirements.txt", "requirements-dev.txt", "scripts/setup")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def setup(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return subprocess.run(
        ["/bin/sh", "scripts/setup", *args],
        cwd=folder,
        env={**clean, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_make_leave_alone_mend(checkout: Path) -> None:
    made = setup(checkout)
    assert made.returncode == 0, made.stdout
    assert (checkout / ".venv/bin/ansible-playbook").exists()

    again = setup(checkout)
    assert (again.returncode, again.stdout) == (0, "")

    # Interrupted: no stamp. And half of it gone.
    (checkout / ".venv/.das-tern").unlink()
    shutil.rmtree(checkout / ".venv/bin")
    mended = setup(checkout)
    assert mended.returncode == 0, mended.stdout
    assert "making .venv anew" in mended.stdout
    done = subprocess.run([checkout / ".venv/bin/ansible-playbook", "--version"], capture_output=True, text=True)
    assert f"core {'2.19' if 'python version = 3.11' in done.stdout else '2.21'}." in done.stdout

    # A changed requirement is brought in without starting over.
    with (checkout / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    changed = setup(checkout)
    assert (changed.returncode, "installing" in changed.stdout, "anew" in changed.stdout) == (0, True, False)

    # The system's python3 became another version.
    stamp = checkout / ".venv/.das-tern"
    stamp.write_text(stamp.read_text().replace(str((checkout / ".venv/bin/python").resolve()), "/usr/bin/python3.10"))
    upgraded = setup(checkout)
    assert (upgraded.returncode, "making .venv anew" in upgraded.stdout) == (0, True)


def tools(folder: Path, *names: str) -> str:
    """A PATH that holds only these and what the script itself calls."""
    folder.mkdir()
    for name in ("sh", "dirname", "sha256sum", "cut", "cat", "id", "readlink", "basename", "tr", "sed", *names):
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


@pytest.mark.parametrize(
    ("there", "missing", "command"),
    [
        (["git"], "missing: make python ", "the system's package manager, for: make python3"),
        (["make"], "missing: git python ", "the system's package manager, for: git python3"),
    ],
)
def test_what_is_missing_is_named(checkout: Path, tmp_path: Path, there: list[str], missing: str, command: str) -> None:
    (checkout / ".venv/.das-tern").unlink(missing_ok=True)
    done = setup(checkout, PATH=tools(tmp_path / "bin", *there))
    assert done.returncode == 1
    assert missing in done.stdout
    assert command in done.stdout


@pytest.mark.parametrize(("manager", "command"), [("dnf", "dnf install make python3"), ("apk", "apk add make python3")])
def test_the_command_is_the_one_of_the_system(checkout: Path, tmp_path: Path, manager: str, command: str) -> None:
    (checkout / ".venv/.das-tern").unlink(missing_ok=True)
    path = tools(tmp_path / "bin", "git")
    (tmp_path / "bin" / manager).symlink_to("/bin/false")
    done = setup(checkout, PATH=path)
    assert done.returncode == 1
    assert f"Install it: {command}" in done.stdout


def test_a_python_that_is_too_old_is_not_taken(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv/.das-tern").unlink(missing_ok=True)
    path = tools(tmp_path / "bin", "git", "make")
    old = tmp_path / "bin" / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")  # what python 3.10 answers to the question whether it is 3.11
    old.chmod(0o755)
    done = setup(checkout, PATH=path)
    assert done.returncode == 1
    assert "missing: python (python means version 3.11 or newer)" in done.stdout


def test_a_python_with_a_supported_ansible_core_is_preferred(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin", "git", "make", "rm")
    for name, minor in (("python3", 11), ("python3.13", 13)):
        fake = tmp_path / "bin" / name
        fake.write_text(
            f"#!/bin/sh\ncase $* in *'(3, 12)'*) exit {int(minor < 12)} ;; *venv\\ .venv) echo {name} makes it; exit 1 ;; esac\n"
        )
        fake.chmod(0o755)
    done = setup(checkout, PATH=path, SETUP_NO_UV="1")
    assert "python3.13 makes it" in done.stdout


def test_wrong_argument(checkout: Path) -> None:
    done = setup(checkout, "--bogus")
    assert (done.returncode, done.stdout.strip()) == (2, "usage: scripts/setup [--dev]")
