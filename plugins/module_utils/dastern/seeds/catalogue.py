"""The database's catalogue about the tables to seed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ..common.errors import DasTernError
from ..common.quantities import ZONE
from .rows import Declared, Row, mark

if TYPE_CHECKING:
    import psycopg

_SERVER = """
SELECT (now() AT TIME ZONE %(zone)s)::date,
    extract(epoch FROM now() AT TIME ZONE %(zone)s - now() AT TIME ZONE 'UTC')::int / 60,
    current_setting('dastern.environment', true)
"""
_TABLES = """
SELECT c.relname::text,
    (
        SELECT jsonb_agg(
            jsonb_build_object(
                'name', a.attname,
                'type', format_type(a.atttypid, a.atttypmod),
                'base', t.typname,
                'list', t.typcategory = 'A',
                'required', a.attnotnull AND d.adbin IS NULL AND a.attidentity = '',
                'default', pg_get_expr(d.adbin, d.adrelid),
                'generated', a.attgenerated <> '' OR a.attidentity = 'a',
                'labels', (SELECT jsonb_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid)
            ) ORDER BY a.attnum
        )
        FROM pg_attribute AS a
        JOIN pg_type AS t ON t.oid = a.atttypid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ),
    (
        SELECT jsonb_agg((
            SELECT jsonb_agg(a.attname)
            FROM pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
        ))
        FROM pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    )
FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relname = ANY (%(tables)s) AND c.relkind IN ('r', 'p')
"""


@dataclass(frozen=True)
class Server:
    """Facts of the server at this moment: the day and the offset from UTC in `ZONE`, and its environment."""

    today: date
    offset: str
    environment: str | None


@dataclass(frozen=True)
class Column:
    """One column: `type` as SQL writes it, `labels` of an enum, and whether it is `required`, not null without a default."""

    name: str
    type: str
    base: str
    list: bool
    required: bool
    default: str | None
    generated: bool
    labels: tuple[str, ...] | None

    @property
    def json(self) -> bool:
        return self.base in ("json", "jsonb")


@dataclass(frozen=True)
class Table:
    """One table: columns by name, in the table's order, and the unique column sets."""

    name: str
    columns: dict[str, Column]
    unique: tuple[frozenset[str], ...]


def server(connection: psycopg.Connection[Any]) -> Server:
    row = connection.execute(_SERVER, {"zone": ZONE}).fetchone()
    assert row is not None
    today, minutes, environment = row
    hours, rest = divmod(abs(minutes), 60)
    return Server(today, f"{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}", environment or None)


def tables(connection: psycopg.Connection[Any], schema: str, names: list[str]) -> dict[str, Table]:
    """Return those of the tables `names` that exist in `schema`."""
    known: dict[str, Table] = {}
    for name, columns, unique in connection.execute(_TABLES, {"schema": schema, "tables": names}):
        known[name] = Table(
            name,
            {c["name"]: Column(**{**c, "labels": tuple(c["labels"]) if c["labels"] else None}) for c in columns or []},
            tuple(frozenset(columns) for columns in unique or []),
        )
    return known


def check(declared: Declared, tables: dict[str, Table]) -> None:
    """Refuse declared rows that the tables can't hold; the caller handles tables that don't exist."""
    for row in declared.rows:
        table = tables.get(row.table)
        if table is None:
            continue
        _check_table(row, table)
        for column, value in row.values.items():
            if column not in table.columns:
                raise DasTernError(
                    f"{row.place}: the table {row.table} has no column `{column}`."
                    f"{near(column, list(table.columns))} Correct the file, or apply the migration that adds the column: "
                    "`ansible-playbook migrate.yml`."
                )
            _check_value(row, table.columns[column], value)


def _check_table(row: Row, table: Table) -> None:
    identifier = table.columns.get("id")
    if identifier is None or identifier.type != "uuid":
        raise DasTernError(
            f"{row.place}: the table {row.table} has no column `id uuid`. Use an SQL seed (`*.sql`) for it instead."
        )
    if row.key and frozenset(row.key) not in table.unique:
        keys = " or ".join(f"[{', '.join(sorted(columns))}]" for columns in table.unique if columns != {"id"})
        raise DasTernError(
            f"{row.place}: the key [{', '.join(row.key)}] is not unique in {row.table}. "
            + (
                f"Expected: one of {keys}, or a `_name` in each row."
                if keys
                else "Give each row a `_name` instead of a key."
            )
        )


def _check_value(row: Row, column: Column, value: Any) -> None:
    kind = mark(value)
    shown = masked(column.name, value)
    if column.generated:
        raise DasTernError(f"{row.place}: the database computes `{column.name}`. Remove it from the file.")
    if column.json:
        return
    if kind == "ref" and column.type != "uuid":
        raise DasTernError(f"{row.place}: `{column.name}` is {column.type} and can't refer to a row: {shown}.")
    if kind == "at" and column.base not in ("timestamptz", "timestamp", "date"):
        raise DasTernError(f"{row.place}: `{column.name}` is {column.type} and can't hold a time: {shown}.")
    if kind is None and (isinstance(value, dict) or (isinstance(value, list) and not column.list)):
        raise DasTernError(f"{row.place}: `{column.name}` is {column.type} and takes one value, not {shown}.")
    if kind is None and value is not None and column.labels is not None and value not in column.labels:
        raise DasTernError(
            f"{row.place}: `{column.name}` is {shown}. Expected: one of {', '.join(column.labels)} (22P02)."
            f"{near(str(value), list(column.labels))}",
            sqlstate="22P02",
            column=column.name,
        )


def near(word: str, words: list[str]) -> str:
    """Return ` Did you mean ...?` where one of `words` is similar to `word`, or ''."""
    lower = {known.lower(): known for known in words}
    matches = difflib.get_close_matches(word.lower(), list(lower), 1)
    return f" Did you mean `{lower[matches[0]]}`?" if matches else ""


def secret(column: str) -> bool:
    """Return whether a column's values are never shown."""
    return column.lower().endswith("hash")


def masked(column: str, value: Any) -> str:
    """Return `value` for a message: shortened, and hidden if it is a hash."""
    if secret(column):
        return "(hidden)"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
