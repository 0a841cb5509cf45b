"""The folder of the backups on the host, and who may write to its parts.

    <backup_dir>/              root alone: locks, and notes of restores and of the job. No container mounts it
      records/                 root alone: the records of all backups
      logical/                 root writes, the server's container reads: logical backups
      repository/              the backup container writes: pgBackRest's repository
      transfer/                the server's container writes: dumps on their way in or out, nothing of lasting value
      received/                the receiver of zero loss writes, the others read

Root works by path only where nobody else can write, which `refuse_untrusted` ensures. In the containers' folders root
opens nothing by path: `adopt` and `remove_tree` start at a checked folder and follow no link.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.files import absolute, sync_folder, write
from ..docker.containers import Containers

UID = 999
"""User and group `postgres` in every image that the server may run."""
LOGICAL, RECORDS, REPOSITORY, TRANSFER, RECEIVED = "logical", "records", "repository", "transfer", "received"
OURS = {".", "..", LOGICAL, RECORDS, TRANSFER, RECEIVED}
"""Names that no further repository may have."""
OF_CONTAINERS = (REPOSITORY, TRANSFER, RECEIVED)
PGBACKREST, ARCHIVED = "pgbackrest", "archived"
"""Folders of `postgres_config_dir`: the backup container's configuration of pgBackRest, and its notes on the log."""
IDENTITY = "identity.json"
"""Name of a file that holds the same `id` in the folder of the backups and in its server's `postgres_config_dir`."""
PROVISION = "ansible-playbook playbooks/provision.yml"
_EXPECTED = {
    ".": (0, 0o700), RECORDS: (0, 0o700), LOGICAL: (0, 0o755), **dict.fromkeys(OF_CONTAINERS, (UID, 0o700)),
}  # fmt: skip


def refuse_untrusted(folder: Path) -> None:
    """Refuse a folder that anybody but root and this user can write to, or has such a folder above it.

    Whoever can write there can put a link in place of a file that is about to be written or deleted.
    """
    real = Path(os.path.realpath(folder))
    for path in dict.fromkeys((folder, *folder.parents, real, *real.parents)):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DasTernError(f"{path} can't be read: {error.strerror}. Run the play as root.") from None
        loose = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid != 0)
        if path == folder and status.st_uid == UID:
            raise DasTernError(
                f"{folder} belongs to user {UID} of the containers, as in earlier versions; expected root. Nothing was done. "
                f"`{PROVISION}` takes it over, with everything in it."
            )
        if status.st_uid not in (0, os.geteuid()) or (loose and not status.st_mode & stat.S_ISVTX):
            raise DasTernError(
                f"{path} belongs to user {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}: others could put something "
                f"else in place of {folder}. Nothing was done. Expected: a folder of root's that nobody else can write. Run "
                f"`chown root {quote(str(path))} && chmod go-w {quote(str(path))}`, or set another `postgres_backup_dir`.",
                path=str(path),
            )


def steps(params: Mapping[str, Any], *, check_mode: bool) -> list[str]:
    """Ensure that the folders exist with the right owners and modes; return the steps that were or would be taken.

    `params` has `backup_dir` and `config_dir`. Raise `DasTernError` for a folder that isn't this server's (`elsewhere`), unless
    `new_folder` is set, and, with a `container` and its `endpoint`, for a folder that this container still writes into.
    """
    absolute("postgres_backup_dir", params["backup_dir"])
    absolute("postgres_config_dir", params["config_dir"])
    folder, config = (Path(os.path.realpath(os.path.expanduser(params[name]))) for name in ("backup_dir", "config_dir"))
    for path in (folder, config):
        refuse_untrusted(path.parent)
    if not params.get("new_folder"):
        refuse_another(folder, str(config), "Nothing was done.")
    if params.get("container") and folder.exists() and folder.stat().st_uid == UID:
        _refuse_in_use(params, folder)
    try:
        return [
            *_ensured(config, {".": (0, 0o700), PGBACKREST: (0, 0o755), ARCHIVED: (UID, 0o700)}, check_mode),
            *_ensured(folder, _EXPECTED, check_mode),
            *_taken_over(folder, check_mode),
            *_identified(folder, config, check_mode),
        ]  # fmt: skip
    except OSError as error:
        raise DasTernError(
            f"{error.filename or folder} can't be created, or its owner and mode can't be set: {error.strerror}. Run the play as root."
        ) from None


def elsewhere(folder: Path, config: Path) -> str:
    """Return a message if a folder isn't the one with the server's backups; "" if it is, or the server has none yet.

    Without its disk mounted, a folder looks like a new one: backups would go to the wrong disk, and nobody would notice that
    they are missing on the right one.
    """
    noted, current = _identity(config), _identity(folder)
    # An earlier version noted no identity.
    before = noted or ({"folder": str(folder)} if (config / PGBACKREST / "pgbackrest.conf").exists() else None)
    if (
        before is None
        or (noted and current and noted["id"] == current["id"])
        or (not noted and (current or (folder / RECORDS).is_dir()))
    ):
        return ""
    state = "has those of another server" if current else "has none" if folder.exists() else "doesn't exist"
    moved = "" if before["folder"] == str(folder) else f" They were in {before['folder']}: `cp -a` copies them."
    try:
        others = further((config / PGBACKREST / "pgbackrest.conf").read_text("utf-8"))
    except OSError:
        others = []
    back = "".join(
        f"if the data is lost, too, first restore it from the further repository: "
        f"`{playbook('restore', repository=number, backup_new_cluster='true')}`; then " for number in others[:1]
    )  # fmt: skip
    return (
        f"The backups of this server aren't in {folder}, which {state}.{moved} Is its disk mounted (`findmnt -T {quote(str(folder))}`)? "
        f"Mount it, then run this again. Only if the backups are lost for good: {back}`{PROVISION} -e backup_new_cluster=true` starts anew "
        "there. No backup will then hold what was written since the last one."
    )


def further(text: str) -> list[int]:
    """Return the numbers of the repositories besides the first in pgBackRest's configuration."""
    return sorted({int(number) for number in re.findall(r"(?m)^repo(\d+)-", text)} - {1})


def refuse_another(folder: Path, config_dir: str, nothing: str) -> None:
    """Refuse a folder without this server's backups; `nothing` is the sentence on the work that wasn't done."""
    if config_dir and (message := elsewhere(folder, Path(os.path.expanduser(config_dir)))):
        raise DasTernError(f"{message} {nothing}".strip(), elsewhere=str(folder))


def _identity(folder: Path) -> dict[str, str] | None:
    try:
        identity = json.loads((folder / IDENTITY).read_text("utf-8"))
        return {name: str(identity[name]) for name in ("id", "folder")}
    except FileNotFoundError:
        return None
    except PermissionError:
        raise DasTernError(f"{folder / IDENTITY} can't be read. Run the play as root.") from None
    except (OSError, ValueError, KeyError, TypeError):
        return {"id": "", "folder": str(folder)}


def _identified(folder: Path, config: Path, check_mode: bool) -> Iterator[str]:
    """Ensure that the folder and its server hold the same identity."""
    number = (_identity(folder) or {}).get("id") or secrets.token_hex(16)
    expected = {"id": number, "folder": str(folder)}
    for path in (folder, config):
        if _identity(path) != expected:
            yield f"write {path / IDENTITY}"
            if not check_mode:
                write(path / IDENTITY, (json.dumps(expected) + "\n").encode())


def _refuse_in_use(params: Mapping[str, Any], folder: Path) -> None:
    """Refuse to take over a folder that a running container of an earlier version still writes into."""
    container = Containers(params["endpoint"]).inspect("container", params["container"])
    mounts = container["Mounts"] if container and container["State"]["Running"] else []
    if any(mount["Destination"] == "/backups" for mount in mounts):
        raise DasTernError(
            f"{folder} was made by an earlier version, and container {params['container']} writes into it. Nothing was changed. "
            f"`{PROVISION}` takes over both the folder and the container."
        )


def _ensured(folder: Path, expected: Mapping[str, tuple[int, int]], check_mode: bool) -> Iterator[str]:
    if not folder.parent.exists():
        yield f"make {folder.parent}"
        if not check_mode:
            folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, (owner, mode) in expected.items():
        path = folder / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            yield f"make {path}"
            if not check_mode:
                path.mkdir(mode=mode)
                _give(path, owner, mode)
            continue
        if not stat.S_ISDIR(status.st_mode) and not (name == "." and path.is_dir()):
            raise DasTernError(
                f"{path} exists and isn't a folder. It wasn't touched. Look at it (`ls -ld {quote(str(path))}`), and "
                "remove it or name another folder in the inventory."
            )
        own = owner or (0 if os.geteuid() == 0 else status.st_uid)
        if (status.st_uid, stat.S_IMODE(status.st_mode)) != (own, mode):
            yield f"give {path} to {'root' if own == 0 else f'user {own}'}, mode {mode:04o}"
            if not check_mode:
                _give(path, owner, mode)


def _taken_over(folder: Path, check_mode: bool) -> Iterator[str]:
    left = [*_left(folder, RECORDS, 0o600), *_left(folder, LOGICAL, 0o644), *_left(folder, ".", 0o600)]
    if left:
        yield f"give {len(left)} files of {folder} to root, which an earlier version left to the container"
    if not check_mode:
        for path, mode in left:
            _give(path, 0, 0o755 if path.is_dir() else mode)
    if not check_mode:
        refuse_untrusted(folder)


def _left(folder: Path, name: str, mode: int) -> Iterator[tuple[Path, int]]:
    """Yield an earlier version's files and folders that still belong to the container. Refuse a link among them."""
    top = folder / name
    if not top.is_dir():
        return
    for inside, folders, files in os.walk(top):
        for entry in [*folders, *files] if name != "." else files:
            path = Path(inside, entry)
            status = path.lstat()
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)) or (
                stat.S_ISREG(status.st_mode) and status.st_nlink != 1
            ):
                raise DasTernError(
                    f"{path} isn't a file or folder of its own: it is a link, or has a second name. In earlier versions the container "
                    "could write there, and this project makes no links there. Nothing was followed or changed. Look at it (`ls -l "
                    f"{quote(str(path))}`) and remove it, then run again.",
                    path=str(path),
                )
            if status.st_uid == UID:
                yield path, mode
        if name == ".":
            return


def _give(path: Path, owner: int, mode: int) -> None:
    """Set owner and mode of `path` itself. Raise `OSError` if it is a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, owner, owner)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def make_for_containers(path: Path) -> None:
    """Create a folder that the containers may write. Raise `OSError` on failure."""
    path.mkdir(mode=0o700)
    _give(path, UID, 0o700)


@contextmanager
def opened(folder: Path, name: str) -> Iterator[int]:
    """Open folder `name` of a trusted folder as a descriptor. Raise `OSError` if it is a link."""
    descriptor = os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def adopt(folder: Path, name: str, into: Path) -> None:
    """Move a container's files from folder `name` of `transfer/` to the new folder `into`, which is root's.

    Only plain files without a second name are taken: nothing is known of the target of a link, or of a file that somebody
    else still has a name for. Raise `DasTernError` for others, and `OSError`.
    """
    into.mkdir(mode=0o755)
    with opened(folder, TRANSFER) as transfer:
        source = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=transfer)
        target = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for entry in os.listdir(source):
                os.rename(entry, entry, src_dir_fd=source, dst_dir_fd=target)
                # From here on nobody else can exchange the file.
                status = os.stat(entry, dir_fd=target, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    raise DasTernError(f"{name}/{entry!r} of the container isn't a plain file with one name.")
                file = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=target)
                try:
                    if os.geteuid() == 0:
                        os.fchown(file, 0, 0)
                    os.fchmod(file, 0o644)
                    _refuse_writers(file, f"{name}/{entry!r}")
                finally:
                    os.close(file)
            os.rmdir(name, dir_fd=transfer)
        finally:
            os.close(source)
            os.close(target)
    sync_folder(into)


def _refuse_writers(file: int, label: str) -> None:
    """Refuse a file that a program still has open: it would go on writing into the backup, whoever owns the file."""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise DasTernError(f"{label} of the container is still open for writing there, and isn't taken.") from None
        if error.errno not in (errno.EINVAL, errno.ENOLCK, errno.EACCES):  # this file system knows no leases
            raise


def remove_tree(folder: Path, inside: str, name: str) -> None:
    """Ensure that folder `inside` of a trusted folder has no `name`, deleting it with everything in it.

    At no depth is a link followed or a mount crossed. Raise `DasTernError` on failure.
    """
    try:
        with opened(folder, inside) as parent:
            command = ["rm", "-rf", "--one-file-system", "--", f"/proc/self/fd/{parent}/{name}"]
            done = subprocess.run(command, pass_fds=(parent,), capture_output=True, text=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DasTernError(f"{folder / inside} can't be emptied: {error.strerror}. Look at it (`ls -ld`).") from None
    if done.returncode:
        raise DasTernError(f"{folder / inside / name} can't be deleted: {' / '.join(done.stderr.splitlines()[:3])}.")


def empty(folder: Path, inside: str) -> list[str]:
    """Delete everything in folder `inside`; return the names that were there. Raise `DasTernError` on failure."""
    try:
        with opened(folder, inside) as parent:
            names = sorted(os.listdir(parent))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DasTernError(f"{folder / inside} can't be emptied: {error.strerror}. Look at it (`ls -ld`).") from None
    for name in names:
        remove_tree(folder, inside, name)
    return names
