"""The measurements of a rehearsal, the verdict on them, and the record that stays on the host.

Source of the lock modes and of what each blocks: the manual's chapter "Explicit Locking".
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
"""The lock modes from the weakest to the strongest; those from SHARE on block writers, the last one readers, too."""
MANY_ROWS = 100_000
"""A statement that rewrites more rows, or updates or deletes more and keeps them locked too long, needs a window
whatever its locks."""
FOLDER = "rehearsals"


def mode_of(name: str) -> str:
    """Translate a mode of pg_locks such as `AccessExclusiveLock` into SQL's name for it."""
    return next(mode for mode in MODES if mode.title().replace(" ", "") + "Lock" == name)


@dataclass
class Lock:
    """A lock on a table that existed before, and the seconds from the statement that took it to the commit."""

    table: str
    mode: str
    seconds: float = 0.0

    @property
    def blocks(self) -> str:
        """The accesses that the lock blocks, in words; '' if none."""
        if self.mode == MODES[-1]:
            return "reads and writes"
        return "writes" if MODES.index(self.mode) >= MODES.index("SHARE") else ""


@dataclass
class Step:
    """One statement: its seconds, its locks, and the rows that it rewrote and changed, by table."""

    line: int
    text: str
    seconds: float
    locks: list[Lock] = field(default_factory=list)
    rewritten: dict[str, int] = field(default_factory=dict)
    changed_rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """For each table those of the counts `inserted`, `updated` and `deleted` that aren't 0."""
    held: float = 0.0
    """Seconds from its beginning to the commit, during which the rows that it changed are locked."""


@dataclass
class Rehearsed:
    """One file run in the copy; sizes are in bytes. `split` tells whether its statements were run one by one."""

    name: str
    checksum: str
    seconds: float = 0.0
    split: bool = True
    steps: list[Step] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """The growth of each table with its indexes, new tables included, if it isn't 0."""
    grown: int = 0
    """The growth of the database."""
    reasons: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return WINDOW if self.reasons else SAFE

    @property
    def locks(self) -> list[Lock]:
        """The strongest mode on each table, with the longest time of that mode."""
        strongest: dict[str, Lock] = {}
        for lock in (lock for step in self.steps for lock in step.locks):
            if lock.table not in strongest or _rank(lock) > _rank(strongest[lock.table]):
                strongest[lock.table] = lock
        return list(strongest.values())

    def judge(self, limit: float) -> None:
        """Fill `reasons` with whatever needs a window, such as locks that block the application beyond `limit` s."""
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
    """Return the verdict on all files together."""
    return WINDOW if any(file.reasons for file in files) else SAFE


def lines(files: Sequence[Rehearsed]) -> list[str]:
    """Return the report: a line for each file, below it the cost of its statements, and why it needs a window."""
    report: list[str] = []
    width = max((len(file.name) for file in files), default=0)
    for file in files:
        sign = "+" if file.grown >= 0 else "-"
        report.append(
            f"{file.name:<{width}}  {file.verdict:<14}  {file.seconds:7.1f} s  {sign}{amount(abs(file.grown))}"
        )
        notable = [step for step in file.steps if _is_notable(step)]
        for step in notable[:12]:
            report.append(f"  line {step.line:<4} {step.seconds:7.1f} s  {_short(step.text, 80)}")
            for lock in step.locks:
                if lock.blocks:
                    report.append(f"      {lock.mode} on {lock.table} for {lock.seconds:.1f} s: blocks {lock.blocks}")
            for table, rows in step.rewritten.items():
                report.append(f"      {rows:,} rows of {table} rewritten")
            for table, counts in step.changed_rows.items():
                report.append(f"      {table}: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items()))
        if notable[12:]:
            report.append(f"  and {len(notable) - 12} more statements: `-e report_file=PATH` lists them")
        if not file.split:
            report.append(
                "  run whole, because it can't be split: its locks were sampled, its changed rows weren't counted"
            )
        report += [f"  why: {reason}" for reason in file.reasons]
    return report


def _is_notable(step: Step) -> bool:
    return bool(any(lock.blocks for lock in step.locks) or step.rewritten or step.changed_rows or step.seconds >= 0.1)


def _short(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 4] + " ..."


def target(connection: psycopg.Connection[Any], params: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the cluster's system identifier, the database and the schema."""
    return system_identifier(connection), params["database"], params["schema"]


def record_path(config_dir: str, of: tuple[str, str, str], files: Sequence[MigrationFile]) -> Path:
    """Return the path of the record of rehearsing exactly these files, in this order, on a copy of the target `of`."""
    listed = "\n".join([*of, *(f"{file.name} {file.checksum}" for file in files)])
    name = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
    return Path(os.path.expanduser(config_dir), FOLDER, f"{name}.json")


def rehearsed(path: Path) -> dict[str, Any] | None:
    """Return the record of the last rehearsal at `path`, or None if that rehearsal didn't complete.

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
    """Remove the record: a completed rehearsal counts only until the next one begins."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DasTernError(f"{path} can't be removed: {error.strerror}. Run the play as its owner.") from None
