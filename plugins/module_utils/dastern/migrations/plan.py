"""The plan of a run and its problems, from the files and the ledger alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from shlex import quote
from typing import Any

from ..common.migration_files import MigrationFile, look_alikes
from .ledger import Row
from .run import repeatable


@dataclass
class Plan:
    """The comparison of a folder with a ledger; all names in the byte order of the folder."""

    pending: list[MigrationFile] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    interrupted: list[MigrationFile] = field(default_factory=list)
    """The pending migrations that a killed run left unfinished and that can be picked up."""
    rolled_back: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    """Missing names, each with the pending file that has the same checksum."""
    look_alikes: list[list[str]] = field(default_factory=list)

    @property
    def pending_names(self) -> list[str]:
        return [migration.name for migration in self.pending]


def make_plan(files: Sequence[MigrationFile], rows: Sequence[Row]) -> Plan:
    """Compare `files` (sorted) with `rows`.

    A name is applied if one of its rows is finished and not rolled back, and failed if one is neither; a rolled-back
    row counts as absent (Prisma's rule).
    """
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    applied = {name: row for name, named in by_name.items() for row in named if row.applied}
    plan = Plan(
        applied=_in_order(applied),
        failed=_in_order(name for name, named in by_name.items() if any(row.failed for row in named)),
        rolled_back=_in_order(name for name, named in by_name.items() if all(row.rolled_back_at for row in named)),
        missing=_in_order(set(applied) - {file.name for file in files}),
        look_alikes=look_alikes([file.name for file in files]),
    )
    newest = os.fsencode(plan.applied[-1]) if plan.applied else b""
    unfinished = {row.name: row for row in rows if row.failed}
    for file in files:
        open_row = None if file.name in applied else unfinished.get(file.name)
        if open_row and not open_row.logs and file.matches(open_row.checksum) and repeatable(file):
            plan.failed.remove(file.name)
            plan.interrupted.append(file)
        if file.name in applied:
            if not file.matches(applied[file.name].checksum):
                plan.edited.append(file.name)
        elif file.name not in plan.failed:
            plan.pending.append(file)
            if os.fsencode(file.name) < newest:
                plan.out_of_order.append(file.name)
    for name in plan.missing:
        same = next((file.name for file in plan.pending if file.matches(applied[name].checksum)), None)
        if same:
            plan.renamed[name] = same
    return plan


def in_order_of_application(rows: Sequence[Row]) -> list[str]:
    """Return the names of the applied migrations in order of application, as far as that can be known.

    Times come from the machine that ran a migration, whose clock may be behind; transaction numbers come from the
    server, and a repair gives a row a new one. Of these two orders the one nearer to the order of names counts. A
    migration that was only marked as applied goes where its name belongs.
    """
    applied = {row.name: row for row in rows if row.applied}
    ran = [row for row in applied.values() if not row.resolved]
    by_time = [row.name for row in sorted(ran, key=lambda row: (row.started_at, os.fsencode(row.name)))]
    by_transaction = [row.name for row in sorted(ran, key=lambda row: row.transaction)]
    names = min(by_time, by_transaction, key=_descents)
    for name in _in_order(row.name for row in applied.values() if row.resolved):
        later = (index for index, other in enumerate(names) if os.fsencode(other) > os.fsencode(name))
        names.insert(next(later, len(names)), name)
    return names


def _descents(names: Sequence[str]) -> int:
    return sum(os.fsencode(first) > os.fsencode(second) for first, second in pairwise(names))


def reset_words(params: Mapping[str, Any]) -> str:
    """Return a sentence on resetting the schema, the fix for an edited file in development only; '' elsewhere."""
    if params.get("environment") != "development":
        return ""
    return (
        " In development, where nobody needs the rows: `ansible-playbook playbooks/reset.yml -e "
        f"confirm={quote(params['database'])}` empties the schema and applies all files as they are now."
    )


def _in_order(names: object) -> list[str]:
    return sorted(names, key=os.fsencode)  # type: ignore[call-overload, no-any-return]
