"""A file that root writes a secret into: never through a stranger's link, never readable by others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.guarded_file import GuardedFile

BACKEND, STRANGER = 1234, 4321
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of several owners")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The backend's own folder."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    os.chown(folder, BACKEND, BACKEND)
    return folder


def made(path: Path, owner: int, mode: int = 0o600, text: str = "A=1\n") -> Path:
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


def link(path: Path, target: Path | str, owner: int) -> Path:
    path.symlink_to(target)
    os.chown(path, owner, owner, follow_symlinks=False)
    return path


def write(path: Path, content: bytes = b"secret") -> Path:
    with GuardedFile("backend_env_file", path) as file:
        file.replace(content)
        return file.path


def state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


@pytest.mark.parametrize(
    ("mode", "after"), [(0o644, 0o600), (0o660, 0o600), (0o604, 0o600), (0o620, 0o600), (0o600, 0o600), (0o400, 0o400)]
)
def test_nobody_else_reads_it_and_the_owner_stays(home: Path, mode: int, after: int) -> None:
    file = made(home / ".env", BACKEND, mode)
    former = file.stat().st_ino
    with GuardedFile("f", file) as guarded:
        assert guarded.loose == (mode != after)
        assert guarded.content == b"A=1\n"
    write(file)
    assert state(file) == (after, BACKEND, BACKEND)
    assert file.read_bytes() == b"secret"
    assert file.stat().st_ino != former, "replaced in one step, not written in place"
    assert os.listdir(home) == [".env"]


def test_it_is_never_readable_for_a_moment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = os.fsync

    def look(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode) if stat.S_ISREG(os.fstat(descriptor).st_mode) else 0)
        real(descriptor)

    old = os.umask(0)
    try:
        monkeypatch.setattr(os, "fsync", look)
        write(home / ".env")
    finally:
        os.umask(old)
    assert seen == [0o600, 0]
    assert state(home / ".env")[:2] == (0o600, 0)


def test_a_stranger_s_link_to_a_file_of_root_is_refused(home: Path, tmp_path: Path) -> None:
    victim = made(tmp_path / "zz.sh", 0, 0o644, "echo\n")
    for path in (link(home / ".env", victim, BACKEND), link(home / "second", ".env", 0)):
        with pytest.raises(DasTernError, match=r"\.env is a link that 1234 set, and its target belongs to root"):
            write(path)
    folder = link(home / "config", tmp_path, BACKEND)
    with pytest.raises(DasTernError, match="config is a link that 1234 set"):
        write(folder / "new.env")
    with pytest.raises(DasTernError, match="home2 is a link that 4321 set"):
        write(link(tmp_path / "home2", home, STRANGER) / "new.env")
    assert (victim.read_text(), state(victim)) == ("echo\n", (0o644, 0, 0))
    assert sorted(os.listdir(home)) == [".env", "config", "second"]


def test_links_of_root_and_of_the_target_s_owner_are_followed(home: Path, tmp_path: Path) -> None:
    file = made(home / "real.env", BACKEND)
    assert write(link(home / "own", "real.env", BACKEND), b"1") == file
    assert write(link(tmp_path / "roots", "home/../home/./real.env", 0), b"2") == file
    assert write(link(tmp_path / "chain", tmp_path / "roots", 0), b"3") == file
    assert write(link(tmp_path / "folder", home, BACKEND) / "real.env", b"4") == file
    assert (file.read_bytes(), state(file)) == (b"4", (0o600, BACKEND, BACKEND))
    assert (home / "own").is_symlink()


def test_what_anybody_may_have_put_into_a_common_folder_is_refused(tmp_path: Path) -> None:
    common = tmp_path / "common"
    common.mkdir()
    common.chmod(0o1777)
    made(common / "planted.env", STRANGER, 0o644)
    (common / "app").mkdir()
    os.chown(common / "app", STRANGER, STRANGER)
    link(common / "link", made(tmp_path / "theirs", STRANGER), STRANGER)
    for path in (common / "planted.env", common / "app" / ".env", common / "link"):
        with pytest.raises(DasTernError, match="everybody may write to .*, and 4321 put"):
            write(path)
    write(common / "new.env")
    write(common / "new.env", b"again")
    assert state(common / "new.env") == (0o600, 0, 0)
    common.chmod(0o777)
    with pytest.raises(DasTernError, match="chmod o-w"):
        write(common / "new.env")
    assert (common / "new.env").read_bytes() == b"again"


def test_what_is_exchanged_meanwhile_changes_nothing(home: Path, tmp_path: Path) -> None:
    victim = made(tmp_path / "zz.sh", 0, 0o644, "echo\n")
    (tmp_path / "etc").mkdir()
    made(tmp_path / "etc" / ".env", 0, 0o644, "etc\n")
    file = made(home / ".env", BACKEND)
    with GuardedFile("f", file) as guarded:
        file.unlink()
        link(file, victim, BACKEND)
        home.rename(tmp_path / "moved")
        link(home, tmp_path / "etc", BACKEND)
        guarded.replace(b"secret")
    assert victim.read_text() == "echo\n"
    assert (tmp_path / "etc" / ".env").read_text() == "etc\n"
    written = tmp_path / "moved" / ".env"
    assert not written.is_symlink()
    assert (written.read_bytes(), state(written)) == (b"secret", (0o600, BACKEND, BACKEND))


def test_what_isn_t_a_file_is_refused(home: Path) -> None:
    os.mkfifo(home / "pipe")
    (home / "loop").symlink_to("loop")
    (home / "nowhere").symlink_to("none.env")
    made(home / "file", BACKEND)
    for path, words in (
        (home, "it is a directory"),
        (home / "pipe", "isn't a file"),
        (home / "loop", "leads only to itself"),
        (home / "nowhere", r"none\.env, which doesn't exist"),
        (home / "none" / ".env", "has no directory none"),
        (home / "file" / ".env", "isn't a directory"),
        (Path("/dev/null"), "isn't a file"),
    ):
        with pytest.raises(DasTernError, match=words):
            write(path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DasTernError):
        write(home / "pipe")
    assert len(os.listdir("/proc/self/fd")) == before, "nothing stays open"
