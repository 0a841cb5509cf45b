"""What is known of each backup: a record beside the repository, written when the backup is complete and never before.

`<backup_dir>/records/<label>.json`. A backup without a record isn't one: its run was killed, or somebody else made it.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from ..common import swaps
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.files import absolute, open_lock, write
from ..common.quantities import amount, cut, local
from ..docker.containers import Containers
from ..docker.engine import resolve
from ..server.backup_folders import LOGICAL, PROVISION, RECORDS, refuse_untrusted
from ..server.psql import Psql

WAIT = 300.0
"""Seconds for somebody else who works with the backups."""
REASONS = MIGRATING, ROLLING_BACK = "before migrating", "before rolling back"
"""What was taken for one of these is pruned here and nowhere else."""
ARGUMENT_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "backup_dir": {"type": "path", "required": True},
}
"""The options of every module that works with backups; `Place` reads them."""
WHOLE = ("full", "logical")
"""The types of backups that need no other one."""
KEEPER = "-backup"
"""What is added to the server's container's name for that of the container that alone has the repository."""
PAGES = "pages of the live database itself were damaged when it was copied"
"""pgBackRest only warns of them."""
FORMER = "former"
"""Folder of the records whose repository was moved away."""
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
"""What reading a record raises that isn't what was written."""


@dataclass(frozen=True)
class Check:
    """A backup that was verified, or restored for trial (drilled)."""

    at: str
    """UTC, ISO 8601."""
    ok: bool
    seconds: float
    message: str = ""
    """What was wrong; for a person."""
    differences: list[str] = field(default_factory=list)
    """What a restore had otherwise than the backup and an operator judges; it is `ok` all the same."""


@dataclass(frozen=True)
class Record:
    """One complete backup."""

    label: str
    """pgBackRest's own label, or for a logical one `<YYYYMMDD-HHMMSS>L`, UTC."""
    kind: str
    """`physical` or `logical`"""
    type: str
    """`full`, `diff`, `incr`, or `logical`"""
    database: str
    system: str
    """The cluster's own identifier."""
    server: str
    """Version of the server."""
    tool: str
    """What made it, with its version."""
    began: str
    """UTC, ISO 8601."""
    seconds: float
    bytes: int
    """Size of what was backed up."""
    stored: int
    """Bytes that it added to the folder."""
    census: dict[str, Any]
    """`census.Census.as_dict()`"""
    exact: bool
    """Whether the census is of exactly what a restore brings back."""
    uncounted: str = ""
    """Why the census holds no rows and no schema, so that a restore can't be compared."""
    name: str = ""
    """What the operator called it."""
    reason: str = ""
    """What it was taken for, such as `before migrating`."""
    restore_point: str = ""
    """Physical: the named point of the WAL that the census belongs to."""
    lsn: str = ""
    timeline: int = 0
    prior: str = ""
    """Physical: the label of the backup that this one needs."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Logical: `bytes` and `sha256` of each file, by its path below the backup's folder."""
    verified: Check | None = None
    drilled: Check | None = None
    restore_seconds: float | None = None
    """How long the drill took to have a server that answers."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.label} ({amount(self.stored)}, {local(self.began)})"

    @property
    def called(self) -> str:
        """Its label, and what the operator called it."""
        return f"{self.label} ({self.name})" if self.name else self.label

    @property
    def physical(self) -> bool:
        """Whether it is of the whole cluster, and the log goes on from it."""
        return self.kind == "physical"

    def holds(self, database: str) -> bool:
        """Return whether `database` of its server is in it."""
        return self.physical or self.database == database

    def named(self, target: str) -> bool:
        """Return whether `target` is its label or its name."""
        return target in (self.label, self.name or None)

    @property
    def fault(self) -> str:
        """What is known to be wrong with it; empty where nothing is."""
        checks = (self.verified, self.drilled)
        return next((check.message or "damaged" for check in checks if check and not check.ok), "")

    @property
    def good(self) -> bool:
        """Whether it was verified, and nothing wrong was found since."""
        return self.verified is not None and not self.fault

    @property
    def has_damaged_pages(self) -> bool:
        """Whether the damage was already in the live database."""
        return self.fault.startswith(PAGES)

    @property
    def migrations(self) -> list[str]:
        """The names of the migrations that its database had."""
        return [migration.partition(" ")[0] for migration in self.census["migrations"]]

    @property
    def restore_command(self) -> str:
        """What restores it as a database beside the live one."""
        return playbook("restore", target=self.label, what="database", into=f"{self.database}_restored")

    @property
    def text(self) -> str:
        kept = self.as_dict()
        return json.dumps({**kept, "sha256": _digest(kept)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, text: str, label: str) -> Record:
        """Of a record's `text`; one of `UNREADABLE` where that isn't what is there."""
        kept = json.loads(text)
        if kept.pop("sha256") != _digest(kept) or kept["label"] != label or not _LABEL.fullmatch(label):
            raise ValueError("not what was written")
        return cls.of(kept)

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Record:
        checks = {name: Check(**kept[name]) if kept.get(name) else None for name in ("verified", "drilled")}
        return cls(**{**kept, **checks})


_LABEL = re.compile(r"\w[\w.-]*")


class Place:
    """Where the backups of one server are: its folder on the host, and the containers that write into parts of it.

    Raises `DasTernError` where somebody else than root could put something else in that folder's place.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        absolute("postgres_backup_dir", params["backup_dir"])
        refuse_untrusted(Path(os.path.expanduser(params["backup_dir"])))
        self.folder = Path(os.path.realpath(os.path.expanduser(params["backup_dir"])))
        self.records_folder = self.folder / RECORDS
        self.logical_folder = self.folder / LOGICAL
        self.database: str = params["database"]
        self.container: str = params["container"]
        endpoint = resolve(os.environ, os.path.expanduser("~"), os.geteuid(), params["endpoint"])
        self.containers = Containers(endpoint.url)
        self.superuser = Psql(self.containers, self.container)

    def served_by(self, superuser: Psql) -> Place:
        """Return the same place with another server in front of it, such as a drill's."""
        other = copy.copy(self)
        other.container, other.superuser, other.containers = superuser.container, superuser, superuser.containers
        return other

    @property
    def keeper(self) -> str:
        """Name of the container that alone has the repository."""
        return f"{self.container}{KEEPER}"

    def pending_swap(self) -> dict[str, Any] | None:
        """Return the swap that a restore began and hasn't ended."""
        return swaps.noted(self.folder, "pending")

    def waiting_copy(self) -> dict[str, Any] | None:
        """Return what a restore left beside the live one until somebody decides on what it has otherwise."""
        return swaps.noted(self.folder, "waiting")

    def record_path(self, label: str) -> Path:
        return self.records_folder / f"{label}.json"

    def records(self) -> list[Record]:
        """All complete backups, the newest first; a record that can't be read is left out."""
        return self._read()[0]

    def damaged(self) -> list[str]:
        """Labels whose record isn't what was written."""
        return self._read()[1]

    def _read(self) -> tuple[list[Record], list[str]]:
        found, damaged = [], []
        try:
            names = [name for name in os.listdir(self.records_folder) if name.endswith(".json") and name[0] != "."]
            for path in map(self.records_folder.joinpath, names):
                try:
                    found.append(Record.read(path.read_text("utf-8"), path.stem))
                except PermissionError:
                    raise
                except (OSError, *UNREADABLE):
                    damaged.append(path.stem)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DasTernError(f"{error.filename} can't be read: {error.strerror}. Run the play as root.") from None
        return sorted(found, key=lambda one: (one.began, one.label), reverse=True), sorted(damaged)

    def find(self, target: str, records: list[Record] | None = None, where: str = "") -> Record:
        """The backup called `target`, by label or by its newest of that name; `latest` is the newest. Refuses in words.

        `records` are those in a further repository, which is `where`.
        """
        records = self.records() if records is None else records
        for record in records:
            if record.named(target) or target == "latest":
                return record
        if target in self.damaged():
            raise DasTernError(
                f"The record of backup `{target}`, {self.record_path(target)}, isn't what was written. Use another backup: "
                "`ansible-playbook playbooks/list_backups.yml` shows all."
            )
        there = ", ".join(cut([record.called for record in records], 10)) or "none"
        raise DasTernError(
            f"No backup `{target}` is in {where or self.folder}; there: {there}. `ansible-playbook playbooks/list_backups.yml` shows all."
        )

    def save(self, record: Record) -> None:
        """Write a record, in one step."""
        path = self.record_path(record.label)
        try:
            self.records_folder.mkdir(mode=0o700, exist_ok=True)
            write(path, record.text.encode())
        except OSError as error:
            raise DasTernError(f"{path} can't be written: {error.strerror}. Make room there, then run again.") from None

    def note(self, label: str, **changes: Any) -> None:
        """Change fields of a record that is there."""
        self.save(replace(self.find(label), **changes))

    def put_aside(self) -> None:
        """Physical backups are those of a repository that isn't here any more: nobody is to count on them."""
        folder = self.records_folder / FORMER
        try:
            for record in self.records():
                if record.physical:
                    folder.mkdir(mode=0o700, exist_ok=True)
                    self.record_path(record.label).replace(folder / f"{record.label}.json")
        except OSError as error:
            raise DasTernError(
                f"Records can't be moved into {folder}: {error.strerror}. Mend that, then run again."
            ) from None

    def forget(self, label: str) -> None:
        path = self.record_path(label)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DasTernError(f"{path} can't be deleted: {error.strerror}. Mend that, then run again.") from None

    @contextlib.contextmanager
    def alone(self, seconds: float, what: str) -> Iterator[None]:
        """Never two at a time that take, delete, verify or restore backups here; another is waited for `seconds`.

        The lock's file says who holds it; the kernel gives it back when its holder dies.
        """
        try:
            refuse_untrusted(self.folder)
            lock = open_lock(self.folder / ".lock")
        except FileNotFoundError:
            raise DasTernError(
                f"{self.folder} isn't there. Is its disk mounted (`findmnt -T {quote(str(self.folder))}`)? If there never was one, "
                f"`{PROVISION}` makes it. Nothing was done."
            ) from None
        except OSError as error:
            raise DasTernError(f"{self.folder} can't be written: {error.strerror}. Run the play as root.") from None
        with lock:
            end = time.monotonic() + seconds
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        lock.seek(0)
                        raise DasTernError(
                            f"Somebody else works with the backups in {self.folder}: {lock.read().strip() or 'unknown'}. "
                            "Run again when that is done."
                        ) from None
                    time.sleep(0.2)
            # A full disk is no reason not to delete backups, and a buffer would be written once more at the end.
            with contextlib.suppress(OSError):
                os.ftruncate(lock.fileno(), 0)
                os.write(lock.fileno(), f"{what}, process {os.getpid()} since {local(now())}\n".encode())
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.ftruncate(lock.fileno(), 0)


def _digest(kept: dict[str, Any]) -> str:
    """A flipped digit would still be JSON."""
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
