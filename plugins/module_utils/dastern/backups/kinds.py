"""The kinds of backups and what each does in its own way: physical backups by pgBackRest, logical ones by pg_dump.

`of_type`, `of_label` and `KINDS` alone choose between them. Restoring a backup belongs to the room above, `restores`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..catalogue.census import EXACT, Locks
from ..common.quantities import cut
from ..server import pgbackrest_version
from . import keeper, logical, physical
from .pgbackrest import PgBackRest
from .physical import Findings
from .records import Check, Place, Record, now

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """The backup that an operator or the job asks for."""

    type: str
    """`full`, `diff`, `incr` or `logical`; empty for `incr`, or for `full` if there is none to build upon."""
    name: str
    reason: str
    lock_timeout: str

    def planned(self, kind: str, type_: str, database: str, prior: str = "") -> Record:
        """Return the record of a backup that isn't taken yet, as far as retention and `--diff` need it."""
        return Record(
            label="the new one", kind=kind, type=type_, database=database, system="", server="", tool="", began=now(),
            seconds=0, bytes=0, stored=0, census={}, exact=True, prior=prior, verified=Check(now(), True, 0), name=self.name,
        )  # fmt: skip


@dataclass(frozen=True)
class Kind(ABC):
    """The operations on the backups of one kind. All but `ready`, `plan` and `copy` need `Place.alone`."""

    name: ClassVar[str]
    """The `kind` of its records."""
    whole: ClassVar[str]
    """The type of backup that needs no other backup."""

    place: Place
    program: PgBackRest
    wait: float
    """Seconds to wait for other work to end."""
    say: Say

    def own(self, records: Sequence[Record]) -> list[Record]:
        """Return the records of this kind."""
        return [record for record in records if record.kind == self.name]

    @abstractmethod
    def ready(self) -> list[str]:
        """Refuse if the programs of this kind can't be used; return warnings about them."""

    @abstractmethod
    def plan(self, request: Request) -> tuple[Record, list[str]]:
        """Return the record that `take` would write, and what it would report."""

    @abstractmethod
    def take(self, request: Request) -> tuple[Record, list[str]]:
        """Take a backup and verify it; return its record, and a report of what else was done and why."""

    @abstractmethod
    def caveats(self, record: Record) -> list[str]:
        """Return what an operator should know about a new backup that is good."""

    @abstractmethod
    def copy(self, record: Record) -> tuple[list[int], list[str]]:
        """Take the same backup into the further repositories; return their numbers, and what failed."""

    @abstractmethod
    def verify(self, records: Sequence[Record], damaged: Sequence[str]) -> Findings:
        """Read all data of these backups; `damaged` are the labels of unreadable records."""

    @abstractmethod
    def expiring(self) -> Sequence[Kind]:
        """Return the kinds whose backups expire when one of this kind was taken."""

    @abstractmethod
    def needed(self) -> Sequence[str]:
        """Return the labels of backups that must stay because a backup without a record depends on them."""

    @abstractmethod
    def remove(self, records: Sequence[Record]) -> None:
        """Delete these backups, and what nothing needs without them."""


class Physical(Kind):
    """Backups of the whole cluster, with the log between them."""

    name = "physical"
    whole = "full"

    def ready(self) -> list[str]:
        keeper.refuse_away(self.place)
        return pgbackrest_version.untested(self.program.version())

    def plan(self, request: Request) -> tuple[Record, list[str]]:
        _, info = physical.usable(self.place, self.program)
        type_, why = physical.effective(self.place, info, request.type)
        good = [record for record in self.own(self.place.records()) if record.good]
        bases = {"incr": good, "diff": [record for record in good if record.type == self.whole]}.get(type_, [])
        lines = pgbackrest_version.untested(self.program.version()) + ([f"a full one, because {why}"] if why else [])
        left = physical.leftovers(self.place, info, type_)
        lines += [f"would delete {label}, which a killed run left incomplete" for label in left]
        prior = bases[0].label if bases else ""
        return request.planned(self.name, type_, self.place.database, prior), lines

    def take(self, request: Request) -> tuple[Record, list[str]]:
        self.program.alone(self.wait, self.say)
        server, info = physical.usable(self.place, self.program)
        physical.forget_received(self.place, self.program)  # it may fill the disk that the backup needs
        swept = physical.sweep(self.place, self.program, info)
        type_, why = physical.effective(self.place, info, request.type)
        record = physical.take(
            self.place, self.program, server, type_, request.name, request.reason, self.wait, self.say
        )
        swept += physical.sweep(self.place, self.program, self.program.info())
        lines = [f"a full one, because {why}"] if why else []
        return record, lines + [f"deleted {label}, which a killed run left incomplete" for label in swept]

    def caveats(self, record: Record) -> list[str]:
        if record.uncounted:
            return [f"its rows weren't counted, so a restore can't be compared with it: {record.uncounted}"]
        if record.exact and record.census["schema"]:
            return []
        locks = Locks.of(self.place.superuser, self.place.database)
        if locks.fit(EXACT):
            return ["the database was never quiet for 200 ms, so its rows were counted a little later"]
        parts = [*([] if record.exact else ["its rows"]), *([] if record.census["schema"] else ["its schema"])]
        return [
            f"{' and '.join(parts)} can't be compared when it is restored: for {locks.tables} tables that takes "
            f"{locks.wanted(EXACT)}"
        ]

    def copy(self, record: Record) -> tuple[list[int], list[str]]:
        return self.program.further(), physical.further(self.place, self.program, record, self.say)

    def verify(self, records: Sequence[Record], damaged: Sequence[str]) -> Findings:
        if not (records or damaged):
            return Findings()
        if not self.program.info().system:
            lost = Check(now(), False, 0, f"{self.place.folder} has no repository any more")
            return Findings({record.label: lost for record in records})
        with physical.telling(lambda: "verifying the repository", self.say):
            return physical.verify(self.place, self.program, records)

    def expiring(self) -> Sequence[Kind]:
        return Logical(self.place, self.program, self.wait, self.say), self

    def needed(self) -> Sequence[str]:
        return physical.needed(self.place, self.program.info())

    def remove(self, records: Sequence[Record]) -> None:
        physical.remove(self.place, self.program, [record.label for record in records])
        physical.trim(self.program)
        physical.forget_received(self.place, self.program)


class Logical(Kind):
    """Backups of one database."""

    name = "logical"
    whole = "logical"

    def ready(self) -> list[str]:
        return []

    def plan(self, request: Request) -> tuple[Record, list[str]]:
        return request.planned(self.name, self.whole, self.place.database), []

    def take(self, request: Request) -> tuple[Record, list[str]]:
        with physical.telling(lambda: "logical backup", self.say):
            database = self.place.database
            return logical.take(self.place, database, request.name, request.reason, request.lock_timeout), []

    def caveats(self, record: Record) -> list[str]:
        left_out = logical.left_out(self.place, record.database)
        return [
            f"not in a logical backup: the rows of {', '.join(cut(left_out, 10))}; a physical one has them, and "
            "`ALTER EXTENSION ... DROP TABLE ...` makes the table the application's again"
        ] if left_out else []  # fmt: skip

    def copy(self, record: Record) -> tuple[list[int], list[str]]:
        return [], []

    def verify(self, records: Sequence[Record], damaged: Sequence[str]) -> Findings:
        checks = {}
        for record in records:
            with physical.telling(lambda label=record.label: f"verifying {label}", self.say):  # type: ignore[misc]
                checks[record.label] = logical.verify(self.place, record)
        return Findings(checks)

    def expiring(self) -> Sequence[Kind]:
        return (self,)

    def needed(self) -> Sequence[str]:
        return ()

    def remove(self, records: Sequence[Record]) -> None:
        for record in records:
            logical.remove(self.place, record)


KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (Physical, Logical)}
"""The kinds by the `kind` of their records."""


def of_type(type_: str) -> type[Kind]:
    """Return the kind that a type of backup belongs to; an empty type is physical."""
    return Logical if type_ == Logical.whole else Physical


def of_label(label: str) -> type[Kind]:
    """Return the kind of the backup `label`, even if its record can't be read."""
    return Logical if label.endswith("L") else Physical
