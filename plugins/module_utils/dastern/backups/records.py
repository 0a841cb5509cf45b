"""The record of each backup, a file beside the repository that is written when the backup is complete and never before.

It is `<backup_dir>/records/<label>.json`. A backup without a record doesn't count: its run was killed, or somebody else made it.
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
"""Seconds to wait for another run that works with the backups."""
REASONS = MIGRATING, ROLLING_BACK = "before migrating", "before rolling back"
"""The reasons of backups that have a retention of their own, `retention.superseded`."""
ARGUMENT_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "backup_dir": {"type": "path", "required": True},
}
"""The options of every module that works with backups; `Place` reads them."""
WHOLE = ("full", "logical")
"""The types of backups that need no other backup."""
KEEPER = "-backup"
"""Suffix that makes the name of the server's container that of the backup container, which alone has the repository."""
PAGES = "pages of the live database itself were damaged when it was copied"
"""The finding about such pages, of which pgBackRest only warns."""
FORMER = "former"
"""Folder for the records of a repository that was moved away."""
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
"""Exceptions that a malformed record raises."""


@dataclass(frozen=True)
class Check:
    """The result of a verification, or of a trial restore (drill)."""

    at: str
    """UTC, ISO 8601."""
    ok: bool
    seconds: float
    message: str = ""
    """What is wrong, for a person."""
    differences: list[str] = field(default_factory=list)
    """Differences between restore and backup that an operator has to judge; they leave `ok` true."""


@dataclass(frozen=True)
class Record:
    """One complete backup."""

    label: str
    """pgBackRest's own label, or for a logical backup `<YYYYMMDD-HHMMSS>L`, UTC."""
    kind: str
    """`physical` or `logical`"""
    type: str
    """`full`, `diff`, `incr`, or `logical`"""
    database: str
    system: str
    """The system identifier of the cluster."""
    server: str
    """The version of the server."""
    tool: str
    """The program that took it, with its version."""
    began: str
    """UTC, ISO 8601."""
    seconds: float
    bytes: int
    """Size of the data that was backed up."""
    stored: int
    """Bytes that it added to the folder."""
    census: dict[str, Any]
    """`census.Census.as_dict()`"""
    exact: bool
    """Whether the census counts exactly what a restore brings back."""
    uncounted: str = ""
    """Why the census has no rows and no schema, so that a restore can't be compared."""
    name: str = ""
    """The name that the operator gave it."""
    reason: str = ""
    """Why it was taken, such as `before migrating`."""
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
    """Seconds until the drill had a server that answered."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.label} ({amount(self.stored)}, {local(self.began)})"

    @property
    def called(self) -> str:
        """The label, and the name if there is one."""
        return f"{self.label} ({self.name})" if self.name else self.label

    @property
    def physical(self) -> bool:
        """Whether this is a backup of the whole cluster, from which the log can be replayed."""
        return self.kind == "physical"

    def holds(self, database: str) -> bool:
        """Return whether this backup contains `database` of its server."""
        return self.physical or self.database == database

    def named(self, target: str) -> bool:
        """Return whether `target` is the label or the name of this backup."""
        return target in (self.label, self.name or None)

    @property
    def fault(self) -> str:
        """The known damage; empty if there is none."""
        checks = (self.verified, self.drilled)
        return next((check.message or "damaged" for check in checks if check and not check.ok), "")

    @property
    def good(self) -> bool:
        """Whether it was verified and no damage was found since."""
        return self.verified is not None and not self.fault

    @property
    def has_damaged_pages(self) -> bool:
        """Whether the damage was already in the live database."""
        return self.fault.startswith(PAGES)

    @property
    def migrations(self) -> list[str]:
        """The names of the migrations that the database had."""
        return [migration.partition(" ")[0] for migration in self.census["migrations"]]

    @property
    def restore_command(self) -> str:
        """The command that restores it as a database beside the live one."""
        return playbook("restore", target=self.label, what="database", into=f"{self.database}_restored")

    @property
    def text(self) -> str:
        fields = self.as_dict()
        return json.dumps({**fields, "sha256": _digest(fields)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, text: str, label: str) -> Record:
        """Return the record that `text` holds. Raise one of `UNREADABLE` if it isn't the record that was written."""
        fields = json.loads(text)
        if fields.pop("sha256") != _digest(fields) or fields["label"] != label or not _LABEL.fullmatch(label):
            raise ValueError("not what was written")
        return cls.of(fields)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Record:
        checks = {name: Check(**fields[name]) if fields.get(name) else None for name in ("verified", "drilled")}
        return cls(**{**fields, **checks})


_LABEL = re.compile(r"\w[\w.-]*")


class Place:
    """Where the backups of one server are: a folder on the host, and the containers that write into parts of it.

    Raises `DasTernError` if anybody but root could replace that folder.
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
        """Return this place as another server sees it, such as that of a drill."""
        place = copy.copy(self)
        place.container, place.superuser, place.containers = superuser.container, superuser, superuser.containers
        return place

    @property
    def keeper(self) -> str:
        """The name of the backup container, which alone has the repository."""
        return f"{self.container}{KEEPER}"

    def pending_swap(self) -> dict[str, Any] | None:
        """Return the swap that a restore began and hasn't finished."""
        return swaps.noted(self.folder, "pending")

    def waiting_copy(self) -> dict[str, Any] | None:
        """Return the copy that a restore left beside the live data until somebody judges its differences."""
        return swaps.noted(self.folder, "waiting")

    def record_path(self, label: str) -> Path:
        return self.records_folder / f"{label}.json"

    def records(self) -> list[Record]:
        """Return the records of all complete backups, the newest first, without those that can't be read."""
        return self._read()[0]

    def damaged(self) -> list[str]:
        """Return the labels whose record is damaged."""
        return self._read()[1]

    def _read(self) -> tuple[list[Record], list[str]]:
        records, damaged = [], []
        try:
            names = [name for name in os.listdir(self.records_folder) if name.endswith(".json") and name[0] != "."]
            for path in map(self.records_folder.joinpath, names):
                try:
                    records.append(Record.read(path.read_text("utf-8"), path.stem))
                except PermissionError:
                    raise
                except (OSError, *UNREADABLE):
                    damaged.append(path.stem)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DasTernError(f"{error.filename} can't be read: {error.strerror}. Run the play as root.") from None
        return sorted(records, key=lambda record: (record.began, record.label), reverse=True), sorted(damaged)

    def find(self, target: str, records: list[Record] | None = None, where: str = "") -> Record:
        """Return the backup with the label `target`, or else the newest of that name; `latest` is the newest of all.

        `records` are those of a further repository, which `where` names. Raise `DasTernError` if no backup matches.
        """
        records = self.records() if records is None else records
        for record in records:
            if record.named(target) or target == "latest":
                return record
        if target in self.damaged():
            raise DasTernError(
                f"The record of backup `{target}`, {self.record_path(target)}, is damaged. Use another backup: "
                "`ansible-playbook playbooks/list_backups.yml` shows all."
            )
        labels = ", ".join(cut([record.called for record in records], 10)) or "none"
        raise DasTernError(
            f"No backup `{target}` is in {where or self.folder}. Backups there: {labels}. `ansible-playbook playbooks/list_backups.yml` shows all."
        )

    def save(self, record: Record) -> None:
        """Write a record atomically."""
        path = self.record_path(record.label)
        try:
            self.records_folder.mkdir(mode=0o700, exist_ok=True)
            write(path, record.text.encode())
        except OSError as error:
            raise DasTernError(f"{path} can't be written: {error.strerror}. Make room there, then run again.") from None

    def note(self, label: str, **changes: Any) -> None:
        """Change fields of an existing record."""
        self.save(replace(self.find(label), **changes))

    def put_aside(self) -> None:
        """Move the records of physical backups aside: their repository isn't here any more, so nobody may count on them."""
        folder = self.records_folder / FORMER
        try:
            for record in self.records():
                if record.physical:
                    folder.mkdir(mode=0o700, exist_ok=True)
                    self.record_path(record.label).replace(folder / f"{record.label}.json")
        except OSError as error:
            raise DasTernError(
                f"Records can't be moved into {folder}: {error.strerror}. Fix that, then run again."
            ) from None

    def forget(self, label: str) -> None:
        path = self.record_path(label)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DasTernError(f"{path} can't be deleted: {error.strerror}. Fix that, then run again.") from None

    @contextlib.contextmanager
    def alone(self, seconds: float, what: str) -> Iterator[None]:
        """Hold the lock of the backups: only one run at a time takes, deletes, verifies or restores them.

        Wait up to `seconds` for the current holder. The lock file says who holds it (`what`), and the kernel releases the
        lock when its holder dies.
        """
        try:
            refuse_untrusted(self.folder)
            lock = open_lock(self.folder / ".lock")
        except FileNotFoundError:
            raise DasTernError(
                f"{self.folder} doesn't exist. Is its disk mounted (`findmnt -T {quote(str(self.folder))}`)? If it never existed, "
                f"`{PROVISION}` creates it. Nothing was done."
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
                            f"Another run works with the backups in {self.folder}: {lock.read().strip() or 'unknown'}. "
                            "Run again when it has finished."
                        ) from None
                    time.sleep(0.2)
            # On a full disk backups can still be deleted. A buffer would be written once more at the end.
            with contextlib.suppress(OSError):
                os.ftruncate(lock.fileno(), 0)
                os.write(lock.fileno(), f"{what}, process {os.getpid()} since {local(now())}\n".encode())
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.ftruncate(lock.fileno(), 0)


def _digest(fields: dict[str, Any]) -> str:
    """Return a checksum: with a flipped digit a record would still be JSON."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
