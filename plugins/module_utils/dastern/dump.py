"""Logical backups of one database: files of pg_dump in a folder of the host, each read back whole before it counts.

A backup is two files, `<database>-<UTC stamp>.dump` (pg_dump's custom format) and a manifest of the same name with
`.json`; only the two together are one. `pg_restore --list` reads only the table of contents, and
zstd in a dump has no checksum, so all of it is decoded once and the manifest keeps its SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote as escaped

from .connection import conninfo
from .errors import DasTernError
from .files import absolute, sync_folder, write
from .psql import Psql, superuser_there
from .quantities import amount
from .sql_values import literal

if TYPE_CHECKING:
    import psycopg

APPLICATION = "das-tern backup"
DIRECTORY: dict[str, Any] = {"type": "path", "default": ""}
ARGUMENT_SPEC: dict[str, Any] = {
    "backup": {"type": "bool", "default": False},
    "backup_dir": DIRECTORY,
    "backup_keep": {"type": "int", "default": 5},
}
"""The options of what changes the live database; `backed_up` reads them."""
LONGEST = 24 * 3600.0
"""Seconds; while indexes are built nothing is said."""
_DUMP = ("pg_dump", "-U", "postgres", "--format=custom", "--compress=zstd:1")
_RESTORE = """
export PGOPTIONS='-c synchronous_commit=off -c idle_session_timeout=0 -c track_counts=off'
pg_restore -U postgres --exit-on-error --no-subscriptions -d "$1" && exec psql -XqU postgres -d "$1" -c 'VACUUM (ANALYZE)'
"""
_STAMP = r"\d{8}T\d{6}\.\d{3}Z"
# The one before was killed, but not its pg_dump, whose locks would be in a migration's way.
_END_LEFTOVERS = """
SELECT json_build_object('ended', count(pg_terminate_backend(pid)), 'size', pg_database_size({database}),
  'version', current_setting('server_version'), 'system', (SELECT system_identifier::text FROM pg_control_system()))
FROM pg_stat_activity WHERE datname = {database} AND application_name = {application}
"""


@dataclass(frozen=True)
class Backup:
    """One backup that was read back; what its manifest says."""

    file: str
    """Path on the host."""
    database: str
    at: str
    """When it was begun, UTC, ISO 8601."""
    applied: tuple[str, ...]
    """The migrations that the database had."""
    system: str
    """The cluster's own identifier."""
    reason: str
    bytes: int
    sha256: str
    server: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.file} ({amount(self.bytes)}, {self.at})"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def restore_command(self, container: str, owner: str) -> str:
        """A command for the host that restores it as a database beside the live one."""
        name = f"{self.database}_restored"
        into = f"docker exec -u postgres {quote(container)} createdb -O {quote(owner)} -T template0 {quote(name)}"
        return (
            f"{into} && docker exec -i -u postgres {quote(container)} pg_restore --exit-on-error --no-subscriptions "
            f"-d {quote(name)} < {quote(self.file)}"
        )


def backed_up(
    params: Mapping[str, Any], connection: psycopg.Connection[Any], applied: Sequence[str], reason: str, nothing: str
) -> dict[str, Any]:
    """Take a backup and delete those that are too many, where `params` want one; gives what a module returns of it.

    `connection` holds the migration lock. `nothing` says in a refusal what wasn't done.
    """
    if not params["backup"]:
        return {}
    try:
        superuser = superuser_there(params, connection, "A backup")
        backup = take(superuser, params["database"], params["backup_dir"], applied, reason, params["lock_timeout"])
        gone = prune(backup, params["backup_keep"])
    except DasTernError as refusal:
        raise DasTernError(f"{refusal.message} {nothing} (`migrations_backup` is true).", **refusal.facts) from None
    return {"backup": backup.as_dict(), "backups_deleted": gone}


def take(superuser: Psql, database: str, directory: str, applied: Sequence[str], reason: str, lock_wait: str) -> Backup:
    """Back `database` up into `directory`, which is made if need be; `lock_wait` is how long pg_dump waits for a lock.

    Raises `DasTernError`; then no new backup is there, and nothing else was changed.
    """
    folder = _folder(directory)
    looked = superuser.value(
        _END_LEFTOVERS.format(database=literal(database), application=literal(APPLICATION)), database
    )
    _refuse_full_disk(folder, int(looked["size"]), database)
    began, now = time.monotonic(), datetime.now(UTC)
    stem = f"{_stem(database)}{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z"
    file, partial = folder / f"{stem}.dump", folder / f".{stem}.dump.partial"
    try:
        for left in folder.glob(".*.partial"):
            if re.fullmatch(rf"\.{re.escape(_stem(database))}{_STAMP}\.dump\.partial", left.name):
                left.unlink()
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as dumped:
            _dump(superuser, database, lock_wait, dumped)
            os.fsync(dumped.fileno())
            dumped.seek(0)
            size, digest = _read_back(superuser, dumped, file)
        backup = Backup(
            str(file), database, now.isoformat(timespec="milliseconds"), tuple(applied), looked["system"], reason, size,
            digest, looked["version"], round(time.monotonic() - began, 1),
        )  # fmt: skip
        write(_manifest(file), (json.dumps(backup.as_dict(), indent=2, ensure_ascii=False) + "\n").encode())
        partial.rename(file)
        sync_folder(folder)
    except OSError as error:
        raise DasTernError(
            f"Database {database} can't be backed up into {folder}: {error.strerror or error}. Free space there, or set "
            "`migrations_backup_dir` to another folder of the host."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return backup


def listed(directory: str, database: str, system: str) -> list[Backup]:
    """The backups of `database` of this cluster whose files are there and as long as they were, the newest first."""
    found = []
    for path in Path(os.path.expanduser(directory)).glob("*.json"):
        try:
            told = json.loads(path.read_text("utf-8"))
            backup = Backup(**{**told, "applied": tuple(told["applied"]), "file": str(path.with_suffix(".dump"))})
            if (backup.database, backup.system) == (database, system) and os.stat(backup.file).st_size == backup.bytes:
                found.append(backup)
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sorted(found, key=lambda one: one.at, reverse=True)


def prune(newest: Backup, keep: int) -> list[str]:
    """Of the backups beside `newest` keep the newest of each of the last `keep` histories of migrations; gives what went.

    A migration that fails again and again is backed up each time: that mustn't cost the backups from before others.
    """
    gone = []
    histories: set[tuple[str, ...]] = set()
    for backup in listed(os.path.dirname(newest.file), newest.database, newest.system):
        if backup.applied not in histories and len(histories) < max(keep, 1):
            histories.add(backup.applied)
            continue
        try:
            Path(backup.file).unlink(missing_ok=True)
            _manifest(Path(backup.file)).unlink(missing_ok=True)
        except OSError as error:
            raise DasTernError(f"The old backup {backup.file} can't be deleted: {error.strerror}.") from None
        gone.append(backup.file)
    return gone


def restore(superuser: Psql, backup: Backup, database: str) -> None:
    """Fill the empty `database` from `backup`, whose checksum is compared before anything is sent; then VACUUM."""
    with open(backup.file, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != backup.sha256:
            raise DasTernError(
                f"The backup {backup.file} isn't what was written: its SHA-256 is another one. Use another."
            )
        file.seek(0)
        command = ["sh", "-c", _RESTORE, "sh", conninfo(database, APPLICATION)]
        done = superuser.containers.execute(superuser.container, command, stdin=file, silence=LONGEST)
    if done.rc != 0:
        raise DasTernError(f"The backup {backup.file} could not be restored: {done.last_words}.")


def _folder(directory: str) -> Path:
    absolute("`migrations_backup_dir`", directory)
    folder = Path(os.path.expanduser(directory))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DasTernError(f"The folder for backups {folder} can't be made: {error.strerror}.") from None
    return folder


def _refuse_full_disk(folder: Path, size: int, database: str) -> None:
    # A dump is smaller than its database nearly always; a disk that it filled could be the live server's.
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DasTernError(
            f"A backup of database {database} ({amount(size)}) may not fit into {folder}, which has {amount(free)} free. Free "
            "space there, or set `migrations_backup_dir` to another folder of the host.",
            needed=size,
            free=free,
        )


def _dump(superuser: Psql, database: str, lock_wait: str, into: BinaryIO) -> None:
    done = superuser.containers.execute(
        superuser.container, [*_DUMP, f"--lock-wait-timeout={lock_wait}", "-d", conninfo(database, APPLICATION)], into=into,
        silence=LONGEST,
    )  # fmt: skip
    if done.rc != 0:
        locked = " Another session keeps one of its tables locked." if "due to statement timeout" in done.err else ""
        raise DasTernError(f"Database {database} could not be backed up: pg_dump: {done.last_words}.{locked}")


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self.size += len(chunk)
        self.digest.update(chunk)
        return chunk


def _read_back(superuser: Psql, dumped: BinaryIO, file: Path) -> tuple[int, str]:
    """Decode all of it; gives bytes and SHA-256."""
    hashed = _Hashed(dumped)
    done = superuser.containers.execute(
        superuser.container, ["pg_restore", "--file=/dev/null"], stdin=hashed, silence=LONGEST
    )
    while hashed.read(1 << 20):  # what pg_restore didn't ask for
        pass
    if done.rc != 0:
        raise DasTernError(f"The backup {file} can't be read back, and was deleted: pg_restore: {done.last_words}.")
    return hashed.size, hashed.digest.hexdigest()


def _manifest(file: Path) -> Path:
    return file.with_suffix(".json")


def _stem(database: str) -> str:
    return f"{escaped(database, safe='')}-"
