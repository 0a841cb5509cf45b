"""What a restored database has otherwise than its backup: damage, which nobody may use, and what an operator judges."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote

from ..common.errors import DasTernError
from ..common.migration_files import LEDGER
from ..common.quantities import cut
from ..server.psql import Psql
from .census import Census, count, parts, without_noise

SHOWN = 20
"""How many differences of a kind are told one by one."""
# How the server's own trouble begins, which says nothing of what is restored.
_OUTSIDE = re.compile(
    r"out of (?:shared )?memory|terminating connection|server closed the connection|connection to server|could not \w+ (?:\w+ )?file "
    r"|sorry, too many clients|remaining connection slots"
)
_ROOTS = """
SELECT coalesce(pg_catalog.json_object_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('%I.%I', rn.nspname, r.relname)), '{}')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class r ON r.oid = pg_catalog.pg_partition_root(c.oid) JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
WHERE c.relkind = 'r' AND c.relispartition
"""
_REPORTED = re.compile(r"^pg_restore: error: (.*?)(?=^pg_restore: |\Z)", re.MULTILINE | re.DOTALL)
_REFUSED = re.compile(r"could not execute query: (?:ERROR|FATAL):  ([^\n]*)")
_COPY = re.compile(r'COPY failed for table "(.*)": (?:ERROR|FATAL):  ([^\n]*)', re.DOTALL)
_HEADER = re.compile(r"^-- (?:Data for )?Name: (.*); Type: ([^;]*); Schema: ([^;]*); Owner: .*$", re.MULTILINE)


@dataclass(frozen=True)
class RestoreFailure:
    """What the server refused while an archive was restored."""

    reason: str
    """The first line of the server's words."""
    statement: str = ""
    """The first line of what was refused; of rows nothing."""
    table: str | None = None
    """The name, without schema and quotes, of the table whose rows were refused."""

    def __str__(self) -> str:
        return f"{self.statement or f'the rows of {self.table}'}: {self.reason}"


def failures_of(said: str) -> list[RestoreFailure] | None:
    """Read what pg_restore, told to go on after errors, says of them; None where it didn't get to its end.

    pg_restore has no other form for it. Only the first line of an error is kept: behind it the server quotes rows.
    """
    failures = reports_of(said)
    if "errors ignored on restore" not in said or any(_OUTSIDE.match(one.reason) for one in failures):
        return None
    return failures


def reports_of(said: str) -> list[RestoreFailure]:
    """Read the errors that pg_restore reports."""
    failures = []
    for report in _REPORTED.findall(said):
        if refused := _REFUSED.match(report):
            statement = report.partition("\nCommand was: ")[2].strip().partition("\n")[0][:200]
            failures.append(RestoreFailure(refused[1], statement or "a statement"))
        elif copied := _COPY.match(report):
            failures.append(RestoreFailure(copied[2], table=copied[1]))
        else:
            failures.append(RestoreFailure(report.strip().partition("\n")[0], "pg_restore"))
    return failures


def tables_of(failures: Sequence[RestoreFailure]) -> list[str]:
    """Return the tables whose rows were refused."""
    return sorted({one.table for one in failures if one.table is not None})


@dataclass
class Comparison:
    """What was found in a restored database, held against what was backed up."""

    found: Census
    damage: list[str] = field(default_factory=list)
    """Rows or tables that are missing, and nothing said why: what was restored mustn't be used."""
    incomplete: list[str] = field(default_factory=list)
    """What the server refused while it was restored; the rest stands."""
    without_rows: list[str] = field(default_factory=list)
    """The tables whose rows it refused, without schema and quotes."""
    differences: list[str] = field(default_factory=list)
    """What is otherwise, for no reason that is known."""
    harmless: list[str] = field(default_factory=list)
    """What PostgreSQL writes otherwise after every restore of this backup."""
    schema: tuple[str, str] = ("", "")
    """The schema as text, as it was and as it is, where it differs."""
    schema_differs: bool = False

    @property
    def to_judge(self) -> list[str]:
        """What an operator has to accept before it becomes live."""
        return self.incomplete + self.differences

    @property
    def lines(self) -> list[str]:
        """All but the damage, one line for each."""
        told = []
        for kind, words in (
            ("incomplete", self.incomplete),
            ("differs", self.differences),
            ("harmless", self.harmless),
        ):
            told += [f"{kind}: {one}" for one in cut(words, SHOWN)]
        return told

    @property
    def diff(self) -> list[str]:
        """The lines of the schema that differ."""
        before, after = (text.splitlines() for text in self.schema)
        return list(difflib.unified_diff(before, after, "backed up", "restored", lineterm="", n=1))

    def explain(self, expected: str, restored: str, again: str) -> None:
        """Say of each object of the schema that differs whether it is harmless, by the schema as text.

        `again` is that of the backup's schema restored once more: what comes out the same twice is PostgreSQL's own way to
        write it. An object that isn't there isn't written otherwise.
        """
        was, now, twice = objects(expected), objects(restored), objects(again)
        changed = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
        harmless = [name for name in changed if name in now and now[name] == twice.get(name)]
        rest = [name for name in changed if name not in harmless]
        if harmless:
            self.harmless.append(
                f"PostgreSQL writes it otherwise after every restore: {', '.join(cut(harmless, SHOWN))}"
            )
        missing = [name for name in rest if name not in now]
        (self.incomplete if self.incomplete else self.differences).extend(f"{name} isn't there" for name in missing)
        self.differences += [
            f"{name} {'is another one' if name in was else 'is there besides'}" for name in rest if name in now
        ]
        self.schema = without_noise(expected), without_noise(restored)


def objects(schema: str) -> dict[str, str]:
    """Return what pg_dump wrote of each object, by `type schema.name`; what stands before the first is `settings`."""
    schema = re.sub(r"^\\(?:un)?restrict .*$", "", schema, flags=re.MULTILINE)
    found: dict[str, str] = {}
    name, begin = "settings", 0
    for header in _HEADER.finditer(schema):
        found[name] = found.get(name, "") + without_noise(schema[begin : header.start()])
        where = "" if header[3] == "-" else f"{header[3]}."
        name, begin = f"{header[2].lower()} {where}{header[1]}", header.end()
    found[name] = found.get(name, "") + without_noise(schema[begin:])
    return found


def compare(
    expected: Census, found: Census, *, rows: bool = True, schema: bool = True, failures: Sequence[RestoreFailure] = (),
    roots: Mapping[str, str] | None = None,
) -> Comparison:  # fmt: skip
    """Hold `found`, whose name may be another one, against `expected`; `failures` explain what is missing.

    `roots` has the partitioned table of each partition: the hash of an enum is another one in each database, so that a row
    may come back in another partition of it.
    Without `rows` those aren't compared, without `schema` only tables and rows are. Where the schema differs its comparison has
    yet to be explained.
    """
    told = Comparison(found, incomplete=sorted(map(str, failures)), without_rows=tables_of(failures))
    refused = [one.statement for one in failures if one.table is None]
    for table in sorted(expected.tables.keys() | found.tables.keys()):
        before, after = expected.tables.get(table), found.tables.get(table)
        if before is None:
            told.differences.append(f"table {table} is there besides")
        elif after is None:
            name, space = table.partition("\n")[0], table[: -len(_relation(table)) - 1]
            is_named = any(name in one or one.startswith(f"CREATE SCHEMA {space};") for one in refused)
            (told.incomplete if is_named else told.damage).append(f"table {table} is missing")
        elif rows and before != after:
            if _sum(expected, table, roots) == _sum(found, table, roots):
                told.harmless.append(
                    f"rows of {(roots or {})[table]} are in other partitions: {table} has {after} instead of {before}"
                )
                continue
            times = sum(one.table is not None and _is(table, one.table) for one in failures)
            # Their schema isn't said: of as many as were refused nobody knows more.
            explained = times >= sum(
                expected.tables[other] != found.tables.get(other)
                for other in expected.tables
                if _relation(other) == _relation(table)
            )
            (told.incomplete if explained else told.damage).append(
                f"table {table} has {after} rows instead of {before}"
            )
    if not schema:
        return told
    told.schema_differs = bool(expected.schema and found.schema and expected.schema != found.schema)
    for name, value in expected.properties.items():
        if _meant(name, found.properties.get(name)) != _meant(name, value):
            told.differences.append(f"{name} of the database is {found.properties.get(name)} instead of {value}")
    if expected.migrations != found.migrations:
        words = f"it has {len(found.migrations)} applied migrations instead of {len(expected.migrations)}, or others"
        (told.incomplete if any(one.table == LEDGER for one in failures) else told.damage).append(words)
    return told


def compared(
    superuser: Psql, database: str, expected: Census, failures: Sequence[RestoreFailure], tables: Sequence[str], what: str,
    instead: str,
) -> Comparison:  # fmt: skip
    """Count what was restored into `database` and hold it against what has to be; with `tables` the rows of these alone.

    Damage is a refusal, which calls the database `what`, and `instead` says what to do.
    """
    found, roots = count(superuser, database), superuser.value(_ROOTS, database)
    if tables:
        # Those of a table that is partitioned by the hash of an enum come by way of the whole table.
        if root := _strayed(tables, found, roots):
            raise DasTernError(
                f"Rows of {', '.join(cut(list(tables), 5))} came back into other partitions of {root}, as the hash by which it is "
                f"partitioned is another one in each database. Restore all of it: `-e {quote(f'table={root}')}`."
            )
        rows = {table: expected.tables[table] for table in tables}
        found = replace(found, tables={table: found.tables[table] for table in tables if table in found.tables})
        own = [one for one in failures if one.table is not None and any(_is(table, one.table) for table in tables)]
        told = compare(replace(expected, tables=rows), found, schema=False, failures=own, roots=roots)
        if told.incomplete:
            raise DasTernError(
                f"{'; '.join(told.incomplete)}. Rows that need those of other tables come with the whole database: restore it "
                "beside the live one (`-e what=database -e into=NAME`).",
                differences=told.incomplete,
            )
    else:
        # Its connection limit comes last, as its owner fills it.
        unlimited = {**expected.properties, "connection_limit": found.properties["connection_limit"]}
        told = compare(replace(expected, properties=unlimited), found, failures=failures, roots=roots)
    refuse_damage(told, f"Database {database}, {what},", instead)
    return told


def refuse_damage(comparison: Comparison, what: str, instead: str) -> None:
    """Refuse what mustn't be used; `instead` says what to do."""
    if comparison.damage:
        raise DasTernError(
            f"{what} isn't what was backed up: {'; '.join(cut(comparison.damage, SHOWN))}. Don't use it. {instead}",
            differences=comparison.damage,
        )


def _strayed(chosen: Sequence[str], found: Census, roots: Mapping[str, str]) -> str:
    """A partitioned table of which other partitions than those `chosen`, which alone were filled, have rows; or ''."""
    filled = {roots[one] for one in chosen if one in roots}
    others = found.tables.keys() - set(chosen)
    return next((roots[one] for one in others if roots.get(one) in filled and found.tables[one]), "")


def _sum(census: Census, table: str, roots: Mapping[str, str] | None) -> int:
    """The rows of all partitions of the table that this one is a partition of."""
    root = (roots or {}).get(table)
    return sum(
        rows for name, rows in census.tables.items() if name == table or (root and (roots or {}).get(name) == root)
    )


def _relation(table: str) -> str:
    """Return the name of `schema.name` without its schema, with the quotes that it needs."""
    return re.sub(r'^(?:"(?:[^"]|"")*"|[^".]*)\.', "", table)


def _is(table: str, name: str) -> bool:
    """Return whether `table`, as `schema.name` with the quotes that it needs, has this name."""
    quoted = name.replace('"', '""')
    return _relation(table) in (name, f'"{quoted}"')


def _meant(name: str, value: object) -> object:
    """A property without what can be written in two ways: `SET ... FROM CURRENT` keeps a list as somebody typed it."""
    if name != "settings" or not isinstance(value, Mapping):
        return value
    return {role: [parts(setting) for setting in entries] for role, entries in value.items()}
