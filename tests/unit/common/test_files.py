"""Files of the host: what is on disk when a write returns, and whom a lock keeps out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.common import files
from ansible.module_utils.dastern.common.errors import DasTernError


def deeds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed to disk and renamed from now on, in order: the name of the file or folder."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def renamed(source: str, target: Any) -> None:
        done.append(f"rename {Path(source).name} {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return done


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    done = deeds(monkeypatch)
    files.write(path, b"new")
    sync, rename, folder = done
    temporary = sync.removeprefix("sync ")
    assert temporary.startswith(".record.json.")
    assert rename == f"rename {temporary} record.json"
    assert folder == f"sync {tmp_path.name}"
    assert (path.read_text(), path.stat().st_mode & 0o777, os.listdir(tmp_path)) == ("new", 0o600, ["record.json"])


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, b"new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["record.json"])


def test_two_runs_that_provision_keep_each_other_out(tmp_path: Path) -> None:
    with files.alone(tmp_path), pytest.raises(DasTernError, match="provisioning for 0 s"), files.alone(tmp_path, 0):
        pass
    with files.alone(tmp_path, 0):
        pass


@pytest.mark.parametrize(("mode", "loose"), [(0o600, False), (0o640, True), (0o604, True), (0o400, False)])
def test_a_password_that_others_may_read_is_written_anew(tmp_path: Path, mode: int, loose: bool) -> None:
    path = tmp_path / "app_password"
    path.write_text("a-password-of-some-length\n")
    path.chmod(mode)
    secret = files.Secret(path, "")
    assert (secret.value, secret.generated, secret.differs) == ("a-password-of-some-length", False, loose)
    secret.save()
    assert path.stat().st_mode & 0o777 == 0o600
