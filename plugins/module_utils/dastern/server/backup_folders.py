"""The folder of the backups on the host, and who may write what in it.

    <backup_dir>/              root alone: locks, records, notes of restores and of the job. No container mounts it
      records/                 root alone: what is known of each backup
      logical/                 root writes, the server's container reads: logical backups
      repository/              the backup container writes: pgBackRest's repository
      transfer/                the server's container writes: dumps on their way in or out, nothing that counts
      received/                the receiver of zero loss writes, the others read

Root works by path only where nobody else can write: `refuse_untrusted` sees to it. In the folders of the containers root
opens nothing by path: `adopt` and `remove_tree` go from a checked folder on, and follow no link.
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
"""User and group `postgres` in every image that serves here."""
LOGICAL, RECORDS, REPOSITORY, TRANSFER, RECEIVED = "logical", "records", "repository", "transfer", "received"
OURS = {".", "..", LOGICAL, RECORDS, TRANSFER, RECEIVED}
"""Names that no further repository may have."""
OF_CONTAINERS = (REPOSITORY, TRANSFER, RECEIVED)
PGBACKREST, ARCHIVED = "pgbackrest", "archived"
"""Folders of `postgres_config_dir`: pgBackRest's configuration, which the backup container reads, and what it says of the log."""
IDENTITY = "identity.json"
"""In the folder of the backups, and in `postgres_config_dir` of the server whose folder it is: both have one `id`."""
PROVISION = "ansible-playbook playbooks/provision.yml"
_WANTED = {
    ".": (0, 0o700), RECORDS: (0, 0o700), LOGICAL: (0, 0o755), **dict.fromkeys(OF_CONTAINERS, (UID, 0o700)),
}  # fmt: skip


def refuse_untrusted(folder: Path) -> None:
    """Refuse a folder in which, or above which, somebody else than root and this user can write.

    Whoever can write there can put a link in the place of a file that is about to be written or deleted.
    """
    real = Path(os.path.realpath(folder))
    for path in dict.fromkeys((folder, *folder.parents, real, *real.parents)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DasTernError(f"{path} can't be read: {error.strerror}. Run the play as root.") from None
        loose = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
        if path == folder and found.st_uid == UID:
            raise DasTernError(
                f"{folder} belongs to user {UID}, the container's, as it did in earlier versions; wanted is root's. Nothing "
                f"was done. `{PROVISION}` takes it over, with all that is in it."
            )
        if found.st_uid not in (0, os.geteuid()) or (loose and not found.st_mode & stat.S_ISVTX):
            raise DasTernError(
                f"{path} belongs to user {found.st_uid} and has mode {stat.S_IMODE(found.st_mode):04o}: others could put something "
                f"else in the place of {folder}. Nothing was done. Wanted is a folder of root's that nobody else can write: "
                f"`chown root {quote(str(path))} && chmod go-w {quote(str(path))}`, or another `postgres_backup_dir`.",
                path=str(path),
            )


def steps(params: Mapping[str, Any], *, check_mode: bool) -> list[str]:
    """Ensure that the folders are there and belong to whom they should; return what was or would be done.

    Without `new_folder` one that isn't this server's is refused (`elsewhere`).

    `params` has `backup_dir` and `config_dir`; with a `container` (and its `endpoint`), a folder that this one still writes into
    is refused. Raises `DasTernError`.
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
            *_ensured(folder, _WANTED, check_mode),
            *_taken_over(folder, check_mode),
            *_known(folder, config, check_mode),
        ]  # fmt: skip
    except OSError as error:
        raise DasTernError(
            f"{error.filename or folder} can't be made as it should be: {error.strerror}. Run the play as root."
        ) from None


def elsewhere(folder: Path, config: Path) -> str:
    """Say, in words, that a folder isn't the one that a server's backups are in; "" where it is, or none was there yet.

    Where a disk isn't mounted its folder looks like a new one: what would be written there is on another disk, and what
    is then missing in the right one nobody would know.
    """
    known, found = _identity(config), _identity(folder)
    # Of an earlier version, which noted nothing.
    before = known or ({"folder": str(folder)} if (config / PGBACKREST / "pgbackrest.conf").exists() else None)
    if (
        before is None
        or (known and found and known["id"] == found["id"])
        or (not known and (found or (folder / RECORDS).is_dir()))
    ):
        return ""
    there = "has those of another server" if found else "has none" if folder.exists() else "isn't there"
    moved = "" if before["folder"] == str(folder) else f" They were in {before['folder']}: `cp -a` brings them along."
    try:
        others = further((config / PGBACKREST / "pgbackrest.conf").read_text("utf-8"))
    except OSError:
        others = []
    back = "".join(
        f"where the data is lost as well, `{playbook('restore', repository=number, backup_new_cluster='true')}` first brings it back from "
        "the further repository; " for number in others[:1]
    )  # fmt: skip
    return (
        f"The backups of this server aren't in {folder}, which {there}.{moved} Is its disk mounted (`findmnt -T {quote(str(folder))}`)? "
        f"Mount it, then run this again. Only if they are lost for good: {back}`{PROVISION} -e backup_new_cluster=true` begins anew there, "
        "and what was written since the last backup can be restored by none."
    )


def further(text: str) -> list[int]:
    """Numbers of the repositories besides the first, in pgBackRest's configuration."""
    return sorted({int(number) for number in re.findall(r"(?m)^repo(\d+)-", text)} - {1})


def refuse_another(folder: Path, config_dir: str, nothing: str) -> None:
    """Refuse a folder that isn't the one of this server's backups; `nothing` says what wasn't done."""
    if config_dir and (words := elsewhere(folder, Path(os.path.expanduser(config_dir)))):
        raise DasTernError(f"{words} {nothing}".strip(), elsewhere=str(folder))


def _identity(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / IDENTITY).read_text("utf-8"))
        return {name: str(found[name]) for name in ("id", "folder")}
    except FileNotFoundError:
        return None
    except PermissionError:
        raise DasTernError(f"{folder / IDENTITY} can't be read. Run the play as root.") from None
    except (OSError, ValueError, KeyError, TypeError):
        return {"id": "", "folder": str(folder)}


def _known(folder: Path, config: Path, check_mode: bool) -> Iterator[str]:
    """Ensure that folder and server know each other."""
    there = (_identity(folder) or {}).get("id") or secrets.token_hex(16)
    wanted = {"id": there, "folder": str(folder)}
    for path in (folder, config):
        if _identity(path) != wanted:
            yield f"write {path / IDENTITY}"
            if not check_mode:
                write(path / IDENTITY, (json.dumps(wanted) + "\n").encode())


def _refuse_in_use(params: Mapping[str, Any], folder: Path) -> None:
    """Refuse to take a folder over that a running container of an earlier version still writes into."""
    found = Containers(params["endpoint"]).inspect("container", params["container"])
    if found and found["State"]["Running"] and any(mount["Destination"] == "/backups" for mount in found["Mounts"]):
        raise DasTernError(
            f"{folder} is as an earlier version made it, and container {params['container']} writes into it. Nothing was changed. "
            f"`{PROVISION}` takes it over together with the container."
        )


def _ensured(folder: Path, wanted: Mapping[str, tuple[int, int]], check_mode: bool) -> Iterator[str]:
    if not folder.parent.exists():
        yield f"make {folder.parent}"
        if not check_mode:
            folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, (owner, mode) in wanted.items():
        path = folder / name
        try:
            found = path.lstat()
        except FileNotFoundError:
            yield f"make {path}"
            if not check_mode:
                path.mkdir(mode=mode)
                _give(path, owner, mode)
            continue
        if not stat.S_ISDIR(found.st_mode) and not (name == "." and path.is_dir()):
            raise DasTernError(
                f"{path} is there and isn't a folder. Nothing of it was touched. Look at it (`ls -ld {quote(str(path))}`), and "
                "remove it or name another folder in the inventory."
            )
        own = owner or (0 if os.geteuid() == 0 else found.st_uid)
        if (found.st_uid, stat.S_IMODE(found.st_mode)) != (own, mode):
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
    """What of an earlier version's files still belongs to the container; a link among them is refused."""
    top = folder / name
    if not top.is_dir():
        return
    for inside, folders, files in os.walk(top):
        for entry in [*folders, *files] if name != "." else files:
            path = Path(inside, entry)
            found = path.lstat()
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) or (
                stat.S_ISREG(found.st_mode) and found.st_nlink != 1
            ):
                raise DasTernError(
                    f"{path} isn't a file or folder of its own: it is a link, or has a second name. The container could write there "
                    "in earlier versions, and nobody of ours makes such. Nothing was followed or changed. Look at it (`ls -l "
                    f"{quote(str(path))}`) and remove it, then run again.",
                    path=str(path),
                )
            if found.st_uid == UID:
                yield path, mode
        if name == ".":
            return


def _give(path: Path, owner: int, mode: int) -> None:
    """Change owner and mode of what is there, and not of what a link there leads to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if os.geteuid() == 0:
            os.fchown(descriptor, owner, owner)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def make_for_containers(path: Path) -> None:
    """Make a folder that is the containers' to write. Raises `OSError`."""
    path.mkdir(mode=0o700)
    _give(path, UID, 0o700)


@contextmanager
def opened(folder: Path, name: str) -> Iterator[int]:
    """Open folder `name` of a trusted folder as a descriptor, and not what a link there leads to."""
    descriptor = os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def adopt(folder: Path, name: str, into: Path) -> None:
    """Move what a container wrote into folder `name` of `transfer/` to the new folder `into`, which is root's.

    Only plain files that have no second name are taken: of a link, or of what somebody else still names, nothing is known.
    Raises `DasTernError` and `OSError`.
    """
    into.mkdir(mode=0o755)
    with opened(folder, TRANSFER) as transfer:
        source = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=transfer)
        target = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for entry in os.listdir(source):
                os.rename(entry, entry, src_dir_fd=source, dst_dir_fd=target)
                # From here on nobody else can exchange it.
                found = os.stat(entry, dir_fd=target, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
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


def _refuse_writers(file: int, words: str) -> None:
    """Refuse a file that a program still has open for writing: it would go on writing into the backup, whoever owns it."""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise DasTernError(f"{words} of the container is still open for writing there, and isn't taken.") from None
        if error.errno not in (errno.EINVAL, errno.ENOLCK, errno.EACCES):  # this file system knows no leases
            raise


def remove_tree(folder: Path, inside: str, name: str) -> None:
    """Delete `name` in folder `inside` of a trusted folder, with all in it; nothing there is fine.

    No link is followed and no mount crossed, however deep it is. Raises `DasTernError`.
    """
    try:
        with opened(folder, inside) as parent:
            command = ["rm", "-rf", "--one-file-system", "--", f"/proc/self/fd/{parent}/{name}"]
            done = subprocess.run(command, pass_fds=(parent,), capture_output=True, text=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DasTernError(f"{folder / inside} can't be tidied up: {error.strerror}. Look at it (`ls -ld`).") from None
    if done.returncode:
        raise DasTernError(f"{folder / inside / name} can't be deleted: {' / '.join(done.stderr.splitlines()[:3])}.")


def empty(folder: Path, inside: str) -> list[str]:
    """Delete all in folder `inside`; return the names of what was there. Raises `DasTernError`."""
    try:
        with opened(folder, inside) as parent:
            names = sorted(os.listdir(parent))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DasTernError(f"{folder / inside} can't be tidied up: {error.strerror}. Look at it (`ls -ld`).") from None
    for name in names:
        remove_tree(folder, inside, name)
    return names
