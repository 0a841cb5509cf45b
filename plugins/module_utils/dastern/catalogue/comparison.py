"""Differences between a restored database and its backup: damage that forbids its use, and findings for an operator to judge."""

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
"""Number of differences of a kind that are listed one by one."""
# Messages about the server's own trouble begin so; they say nothing about the restored contents.
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
    """An error of the server while an archive was restored."""

    reason: str
    """The first line of the server's message."""
    statement: str = ""
    """The first line of the refused statement; empty for rows."""
    table: str | None = None
    """The name, without schema and quotes, of the table whose rows were refused."""

    def __str__(self) -> str:
        return f"{self.statement or f'the rows of {self.table}'}: {self.reason}"


def failures_of(output: str) -> list[RestoreFailure] | None:
    """Return the errors in the output of a pg_restore that goes on after errors; None where it didn't reach its end.

    pg_restore has no other form of output. Only the first line of an error is kept: in further lines the server quotes rows.
    """
    failures = reports_of(output)
    if "errors ignored on restore" not in output or any(_OUTSIDE.match(failure.reason) for failure in failures):
        return None
    return failures


def reports_of(output: str) -> list[RestoreFailure]:
    """Return the errors that pg_restore reports in its output."""
    failures = []
    for report in _REPORTED.findall(output):
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
    return sorted({failure.table for failure in failures if failure.table is not None})


@dataclass
class Comparison:
    """The contents of a restored database, compared with those of its backup."""

    found: Census
    damage: list[str] = field(default_factory=list)
    """Rows or tables that are missing for no reported reason: the restored database mustn't be used."""
    incomplete: list[str] = field(default_factory=list)
    """Objects and rows that the server refused during the restore; everything else is intact."""
    without_rows: list[str] = field(default_factory=list)
    """The tables whose rows the server refused, without schema and quotes."""
    differences: list[str] = field(default_factory=list)
    """Differences without a known reason."""
    harmless: list[str] = field(default_factory=list)
    """Differences that PostgreSQL makes in every restore of this backup."""
    schema: tuple[str, str] = ("", "")
    """The text of the schema, backed up and restored, where they differ."""
    schema_differs: bool = False

    @property
    def to_judge(self) -> list[str]:
        """Return the findings that an operator has to accept before the restored database becomes live."""
        return self.incomplete + self.differences

    @property
    def lines(self) -> list[str]:
        """Return all findings but the damage, one line each."""
        lines = []
        for kind, findings in (
            ("incomplete", self.incomplete),
            ("differs", self.differences),
            ("harmless", self.harmless),
        ):
            lines += [f"{kind}: {finding}" for finding in cut(findings, SHOWN)]
        return lines

    @property
    def diff(self) -> list[str]:
        """Return a unified diff of the schema."""
        before, after = (text.splitlines() for text in self.schema)
        return list(difflib.unified_diff(before, after, "backed up", "restored", lineterm="", n=1))

    def explain(self, expected: str, restored: str, again: str) -> None:
        """Sort the objects that differ between two texts of the schema into harmless ones and differences.

        `again` is the text of the backup's schema restored once more: an object that comes out the same twice is written in
        PostgreSQL's own way. A missing object is never harmless.
        """
        was, now, twice = objects(expected), objects(restored), objects(again)
        changed = [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
        harmless = [name for name in changed if name in now and now[name] == twice.get(name)]
        rest = [name for name in changed if name not in harmless]
        if harmless:
            self.harmless.append(
                f"PostgreSQL writes these in another way after every restore: {', '.join(cut(harmless, SHOWN))}"
            )
        missing = [name for name in rest if name not in now]
        (self.incomplete if self.incomplete else self.differences).extend(f"{name} is missing" for name in missing)
        self.differences += [
            f"{name} {'differs' if name in was else 'is there in addition'}" for name in rest if name in now
        ]
        self.schema = without_noise(expected), without_noise(restored)


def objects(schema: str) -> dict[str, str]:
    """Return the text that pg_dump wrote for each object, by `type schema.name`; the text before the first is `settings`."""
    schema = re.sub(r"^\\(?:un)?restrict .*$", "", schema, flags=re.MULTILINE)
    texts: dict[str, str] = {}
    name, begin = "settings", 0
    for header in _HEADER.finditer(schema):
        texts[name] = texts.get(name, "") + without_noise(schema[begin : header.start()])
        where = "" if header[3] == "-" else f"{header[3]}."
        name, begin = f"{header[2].lower()} {where}{header[1]}", header.end()
    texts[name] = texts.get(name, "") + without_noise(schema[begin:])
    return texts


def compare(
    expected: Census, restored: Census, *, rows: bool = True, schema: bool = True, failures: Sequence[RestoreFailure] = (),
    roots: Mapping[str, str] | None = None,
) -> Comparison:  # fmt: skip
    """Compare `restored`, whose database may have another name, with `expected`; `failures` explain missing objects and rows.

    `roots` maps each partition to its partitioned table: the hash of an enum differs between databases, so that a row may
    come back in another partition of the same table.
    Without `rows`, row counts aren't compared; without `schema`, only tables and row counts are. Where the schema differs,
    the caller has yet to call `explain` on the result.
    """
    comparison = Comparison(restored, incomplete=sorted(map(str, failures)), without_rows=tables_of(failures))
    refused = [failure.statement for failure in failures if failure.table is None]
    for table in sorted(expected.tables.keys() | restored.tables.keys()):
        before, after = expected.tables.get(table), restored.tables.get(table)
        if before is None:
            comparison.differences.append(f"table {table} is there in addition")
        elif after is None:
            name, space = table.partition("\n")[0], table[: -len(_relation(table)) - 1]
            is_named = any(name in failure or failure.startswith(f"CREATE SCHEMA {space};") for failure in refused)
            (comparison.incomplete if is_named else comparison.damage).append(f"table {table} is missing")
        elif rows and before != after:
            if _sum(expected, table, roots) == _sum(restored, table, roots):
                comparison.harmless.append(
                    f"rows of {(roots or {})[table]} are in other partitions: {table} has {after} instead of {before}"
                )
                continue
            times = sum(failure.table is not None and _is(table, failure.table) for failure in failures)
            # pg_restore doesn't name the schema: the failures may explain as many tables of this name as there are failures.
            explained = times >= sum(
                expected.tables[other] != restored.tables.get(other)
                for other in expected.tables
                if _relation(other) == _relation(table)
            )
            (comparison.incomplete if explained else comparison.damage).append(
                f"table {table} has {after} rows instead of {before}"
            )
    if not schema:
        return comparison
    comparison.schema_differs = bool(expected.schema and restored.schema and expected.schema != restored.schema)
    for name, value in expected.properties.items():
        if _meant(name, restored.properties.get(name)) != _meant(name, value):
            comparison.differences.append(
                f"{name} of the database is {restored.properties.get(name)} instead of {value}"
            )
    if expected.migrations != restored.migrations:
        message = f"it has {len(restored.migrations)} applied migrations instead of {len(expected.migrations)}, or different ones"
        (comparison.incomplete if any(failure.table == LEDGER for failure in failures) else comparison.damage).append(
            message
        )
    return comparison


def compared(
    superuser: Psql, database: str, expected: Census, failures: Sequence[RestoreFailure], tables: Sequence[str], description: str,
    instead: str,
) -> Comparison:  # fmt: skip
    """Count what was restored into `database` and compare it with `expected`; with `tables`, only the rows of these.

    Damage is refused with a message that calls the database `description` and gives the advice `instead`.
    """
    restored, roots = count(superuser, database), superuser.value(_ROOTS, database)
    if tables:
        # Rows of a table that is partitioned by the hash of an enum can only be restored through the whole table.
        if root := _strayed(tables, restored, roots):
            raise DasTernError(
                f"Rows of {', '.join(cut(list(tables), 5))} came back in other partitions of {root}, because the hash that it is "
                f"partitioned by differs between databases. Restore the whole table: `-e {quote(f'table={root}')}`."
            )
        rows = {table: expected.tables[table] for table in tables}
        restored = replace(
            restored, tables={table: restored.tables[table] for table in tables if table in restored.tables}
        )
        own = [
            failure
            for failure in failures
            if failure.table is not None and any(_is(table, failure.table) for table in tables)
        ]
        comparison = compare(replace(expected, tables=rows), restored, schema=False, failures=own, roots=roots)
        if comparison.incomplete:
            raise DasTernError(
                f"{'; '.join(comparison.incomplete)}. Rows that depend on rows of other tables need the whole database: restore it "
                "beside the live one (`-e what=database -e into=NAME`).",
                differences=comparison.incomplete,
            )
    else:
        # The connection limit is set last, when the owner has filled the database.
        unlimited = {**expected.properties, "connection_limit": restored.properties["connection_limit"]}
        comparison = compare(replace(expected, properties=unlimited), restored, failures=failures, roots=roots)
    refuse_damage(comparison, f"Database {database}, {description},", instead)
    return comparison


def refuse_damage(comparison: Comparison, description: str, instead: str) -> None:
    """Refuse a damaged database, called `description`, with the advice `instead`."""
    if comparison.damage:
        raise DasTernError(
            f"{description} doesn't match its backup: {'; '.join(cut(comparison.damage, SHOWN))}. Don't use it. {instead}",
            differences=comparison.damage,
        )


def _strayed(chosen: Sequence[str], restored: Census, roots: Mapping[str, str]) -> str:
    """Return a partitioned table that has rows in partitions besides those `chosen` and filled, or ''."""
    filled = {roots[table] for table in chosen if table in roots}
    others = restored.tables.keys() - set(chosen)
    return next((roots[table] for table in others if roots.get(table) in filled and restored.tables[table]), "")


def _sum(census: Census, table: str, roots: Mapping[str, str] | None) -> int:
    """Return the number of rows in all partitions of the table that this one is a partition of."""
    root = (roots or {}).get(table)
    return sum(
        rows for name, rows in census.tables.items() if name == table or (root and (roots or {}).get(name) == root)
    )


def _relation(table: str) -> str:
    """Return the name in `schema.name`, with the quotes that it needs."""
    return re.sub(r'^(?:"(?:[^"]|"")*"|[^".]*)\.', "", table)


def _is(table: str, name: str) -> bool:
    """Return whether `table`, as `schema.name` with the quotes that it needs, has the name `name`."""
    quoted = name.replace('"', '""')
    return _relation(table) in (name, f'"{quoted}"')


def _meant(name: str, value: object) -> object:
    """Return a property in a normal form: `SET ... FROM CURRENT` keeps a list as somebody typed it."""
    if name != "settings" or not isinstance(value, Mapping):
        return value
    return {role: [parts(setting) for setting in entries] for role, entries in value.items()}
