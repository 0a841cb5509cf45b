"""What a rehearsal measured, what follows from it, and the record of it that stays on the host.

The modes of locks and what each blocks: the manual's chapter "Explicit Locking".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import DasTernError
from ..common.files import write
from ..common.migration_files import MigrationFile
from ..common.quantities import amount
from ..server.connection import system_identifier

if TYPE_CHECKING:
    import psycopg

SAFE, WINDOW = "safe online", "needs a window"
MODES = (
    "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)  # fmt: skip
"""From the weakest to the strongest; those from SHARE on keep writers out, the last one readers, too."""
MANY_ROWS = 100_000
"""A rewrite of more rows, and an UPDATE or DELETE of more that is held too long, needs a window whatever the locks say."""
FOLDER = "rehearsals"


def mode_of(name: str) -> str:
    """`AccessExclusiveLock` of pg_locks as SQL says it."""
    return next(mode for mode in MODES if mode.title().replace(" ", "") + "Lock" == name)


@dataclass
class Lock:
    """A lock on a table that was there before, and the seconds from the statement that took it to the commit."""

    table: str
    mode: str
    seconds: float = 0.0

    @property
    def blocks(self) -> str:
        """Whom it keeps out, in words; '' where that is nobody."""
        if self.mode == MODES[-1]:
            return "reads and writes"
        return "writes" if MODES.index(self.mode) >= MODES.index("SHARE") else ""


@dataclass
class Step:
    """One statement: what it took, seconds, and the rows that it rewrote and changed, by table."""

    line: int
    text: str
    seconds: float
    locks: list[Lock] = field(default_factory=list)
    rewritten: dict[str, int] = field(default_factory=dict)
    changed_rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each table what of `inserted`, `updated` and `deleted` isn't 0."""
    held: float = 0.0
    """Seconds from its beginning to the commit, for as long as the rows that it changed are locked."""


@dataclass
class Rehearsed:
    """One file in the copy; sizes in bytes. `split` tells whether its statements were run one by one."""

    name: str
    checksum: str
    seconds: float = 0.0
    split: bool = True
    steps: list[Step] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """What each table with its indexes grew by, where that isn't 0; new ones, too."""
    grown: int = 0
    """What the database grew by."""
    reasons: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return WINDOW if self.reasons else SAFE

    @property
    def locks(self) -> list[Lock]:
        """The strongest mode on each table, with the longest time of that mode."""
        found: dict[str, Lock] = {}
        for lock in (lock for step in self.steps for lock in step.locks):
            if lock.table not in found or _rank(lock) > _rank(found[lock.table]):
                found[lock.table] = lock
        return list(found.values())

    def judge(self, limit: float) -> None:
        """Say in `reasons` what in it needs a window: locks that keep the application out for more than `limit` s."""
        for step in self.steps:
            where = f"`{_short(step.text, 60)}` (line {step.line})"
            for lock in step.locks:
                if lock.blocks and lock.seconds > limit:
                    self.reasons.append(
                        f"{where} held {lock.mode} on {lock.table} for {lock.seconds:.1f} s, which blocks its {lock.blocks}"
                    )
            for table, rows in step.rewritten.items():
                if rows > MANY_ROWS:
                    self.reasons.append(f"{where} rewrote {rows:,} rows of {table}")
            for table, counts in step.changed_rows.items():
                rows = counts.get("updated", 0) + counts.get("deleted", 0)
                if rows > MANY_ROWS and step.held > limit:
                    self.reasons.append(f"{where} kept {rows:,} rows of {table} locked for {step.held:.1f} s")

    def as_dict(self) -> dict[str, Any]:
        locks = [asdict(lock) for lock in self.locks]
        return {**asdict(self), "verdict": self.verdict, "locks": locks}


def _rank(lock: Lock) -> tuple[int, float]:
    return MODES.index(lock.mode), lock.seconds


def verdict(files: Sequence[Rehearsed]) -> str:
    """The verdict on all of them together."""
    return WINDOW if any(file.reasons for file in files) else SAFE


def lines(files: Sequence[Rehearsed]) -> list[str]:
    """The report: for each file a line, below it what its statements took, and why it needs a window."""
    found: list[str] = []
    width = max((len(file.name) for file in files), default=0)
    for file in files:
        sign = "+" if file.grown >= 0 else "-"
        found.append(
            f"{file.name:<{width}}  {file.verdict:<14}  {file.seconds:7.1f} s  {sign}{amount(abs(file.grown))}"
        )
        told = [step for step in file.steps if _telling(step)]
        for step in told[:12]:
            found.append(f"  line {step.line:<4} {step.seconds:7.1f} s  {_short(step.text, 80)}")
            for lock in step.locks:
                if lock.blocks:
                    found.append(f"      {lock.mode} on {lock.table} for {lock.seconds:.1f} s: blocks {lock.blocks}")
            for table, rows in step.rewritten.items():
                found.append(f"      {rows:,} rows of {table} rewritten")
            for table, counts in step.changed_rows.items():
                found.append(f"      {table}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
        if told[12:]:
            found.append(f"  and {len(told) - 12} more statements: `-e report_file=PATH` has them")
        if not file.split:
            found.append(
                "  run whole, because it can't be split: its locks were sampled, its changed rows weren't counted"
            )
        found += [f"  why: {reason}" for reason in file.reasons]
    return found


def _telling(step: Step) -> bool:
    return bool(any(lock.blocks for lock in step.locks) or step.rewritten or step.changed_rows or step.seconds >= 0.1)


def _short(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 4] + " ..."


def target(connection: psycopg.Connection[Any], params: Mapping[str, Any]) -> tuple[str, str, str]:
    """The cluster's own identifier, database and schema."""
    return system_identifier(connection), params["database"], params["schema"]


def record_path(config_dir: str, of: tuple[str, str, str], files: Sequence[MigrationFile]) -> Path:
    """Where the record of a rehearsal of exactly these files, in this order, on a copy of the target `of` is."""
    listed = "\n".join([*of, *(f"{file.name} {file.checksum}" for file in files)])
    name = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
    return Path(os.path.expanduser(config_dir), FOLDER, f"{name}.json")


def rehearsed(path: Path) -> dict[str, Any] | None:
    """The record of the last rehearsal that belongs at `path`, if it ran through; else None.

    It has `database`, `schema`, `at` (UTC), `verdict`, `reasons`, `seconds` and `migrations` (each `name`, `checksum`).
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def keep(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record, readable by its owner only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise DasTernError(f"{path} can't be written: {error.strerror}. Run the play as its owner.") from None


def forget(path: Path) -> None:
    """What ran through once counts only until it is tried again."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DasTernError(f"{path} can't be removed: {error.strerror}. Run the play as its owner.") from None
