"""Compare one table's rows with the database and write them: one statement reads and compares, one inserts, one updates.

The rows travel as one JSON parameter, and the server itself turns each value into the column's type
(`jsonb_populate_record`), so that values are compared as their types are: `timestamptz(3)` to the millisecond, `jsonb`
whatever its spelling, `numeric` whatever its scale.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ..common.errors import DasTernError
from ..server.connection import detail_of
from .catalogue import Column, Table, masked, secret
from .rows import Row

try:
    import psycopg
    from psycopg import sql
except ImportError:  # `connect` reports it
    pass


@dataclass
class Change:
    """One row to write: `columns` maps the columns that differ to their values before and after, as JSON has them."""

    row: Row
    action: str
    columns: dict[str, tuple[Any, Any]]

    def shown(self, values: bool) -> dict[str, Any]:
        """Return the change for the result; values of hashes are always hidden, other values unless `values`."""
        shown: dict[str, Any] = {
            "table": self.row.table,
            "row": self.row.label,
            "file": self.row.file,
            "line": self.row.line,
        }
        shown["action"] = self.action
        if values:
            shown["columns"] = {
                name: {"before": "(hidden)", "after": "(hidden, another)"}
                if secret(name)
                else {"before": before, "after": after}
                for name, (before, after) in self.columns.items()
            }
            if self.action == "insert":
                shown["columns"] = {
                    name: "(hidden)" if secret(name) else pair["after"] for name, pair in shown["columns"].items()
                }
        else:
            shown["columns"] = sorted(self.columns)
        return shown


@dataclass
class TablePlan:
    """The changes to write to one table."""

    table: Table
    inserts: list[tuple[Change, dict[str, Any]]] = field(default_factory=list)
    updates: list[tuple[Change, dict[str, Any]]] = field(default_factory=list)
    unchanged: int = 0

    @property
    def changes(self) -> list[Change]:
        return [change for change, _ in self.inserts + self.updates]


_FROM = """
FROM jsonb_array_elements(%(rows)s::jsonb) WITH ORDINALITY AS e(item, ord)
CROSS JOIN LATERAL jsonb_populate_record(NULL::{table}, e.item) AS r
"""


def read(
    connection: psycopg.Connection[Any], schema: str, table: Table, rows: list[tuple[Row, dict[str, Any]]]
) -> TablePlan:
    """Look every row up by its key, else by its id, compare the declared columns, and set `Row.found_id`."""
    columns = [table.columns[name] for name in table.columns if any(name in values for _, values in rows)]
    name = sql.Identifier(schema, table.name)
    key = rows[0][0].key
    by_id: sql.Composable = sql.SQL("SELECT t.* FROM {table} AS t WHERE t.id = r.id").format(table=name)
    lookup = by_id
    if key:
        match = sql.SQL(" AND ").join(sql.SQL("t.{c} = r.{c}").format(c=sql.Identifier(column)) for column in key)
        lookup = sql.SQL("(SELECT t.* FROM {table} AS t WHERE {match}) UNION ALL ({by_id}) LIMIT 1").format(
            table=name, match=match, by_id=by_id
        )
    hidden = [column.name for column in columns if secret(column.name)]
    query = sql.SQL(
        "SELECT f.id::text, d.names, CASE WHEN d.names <> '{{}}' THEN to_jsonb(f) - %(hidden)s::text[] END, "
        "CASE WHEN d.names <> '{{}}' THEN to_jsonb(r) - %(hidden)s::text[] END"
        + _FROM
        + "LEFT JOIN LATERAL ({found}) AS f ON true CROSS JOIN LATERAL "
        "(SELECT CASE WHEN f.id IS NULL THEN '{{}}' ELSE array_remove(ARRAY[{differs}]::text[], NULL) END AS names) AS d "
        "ORDER BY e.ord"
    ).format(table=name, found=lookup, differs=sql.SQL(", ").join(map(_differs, columns)))
    declared = [{**values, "id": row.id} for row, values in rows]
    plan = TablePlan(table)
    answers = connection.execute(query, {"rows": json.dumps(declared), "hidden": hidden}).fetchall()
    for (row, values), item, (found_id, names, before, after) in zip(rows, declared, answers, strict=True):
        row.found_id = found_id
        if found_id is None:
            _check_required(row, table, values)
            change = Change(row, "insert", {column: (None, value) for column, value in values.items()})
            plan.inserts.append((change, item))
        elif names:
            change = Change(row, "update", {column: (before.get(column), after.get(column)) for column in names})
            plan.updates.append((change, {"id": found_id, **{column: values[column] for column in names}}))
        else:
            plan.unchanged += 1
    return plan


def write(connection: psycopg.Connection[Any], schema: str, plan: TablePlan) -> None:
    """Write the inserts and updates of `plan`, each in one statement."""
    if plan.inserts:
        _write(connection, _insert(schema, plan), plan, plan.inserts)
    if plan.updates:
        _write(connection, _update(schema, plan), plan, plan.updates)


def _differs(column: Column) -> sql.Composed:
    # The type json has no equality operator.
    cast = sql.SQL("::jsonb" if column.base == "json" else "")
    return sql.SQL("CASE WHEN e.item ? {name} AND f.{c}{cast} IS DISTINCT FROM r.{c}{cast} THEN {name} END").format(
        name=sql.Literal(column.name), c=sql.Identifier(column.name), cast=cast
    )


def _insert(schema: str, plan: TablePlan) -> sql.Composed:
    table = plan.table
    items = [item for _, item in plan.inserts]
    names: list[sql.Composable] = []
    values: list[sql.Composable] = []
    value: sql.Composable
    for column in table.columns.values():
        if column.name == "updatedAt":
            value = sql.SQL("now()")
        elif all(column.name in item for item in items):
            value = sql.SQL("r.{}").format(sql.Identifier(column.name))
        elif any(column.name in item for item in items):
            # The default is text from the catalogue.
            value = sql.SQL("CASE WHEN e.item ? {name} THEN r.{c} ELSE {default} END").format(
                name=sql.Literal(column.name),
                c=sql.Identifier(column.name),
                default=sql.SQL(column.default or "NULL"),  # type: ignore[arg-type]
            )
        else:
            continue
        names.append(sql.Identifier(column.name))
        values.append(value)
    return sql.SQL("INSERT INTO {table} ({names}) SELECT {values}" + _FROM + "ORDER BY e.ord").format(
        table=sql.Identifier(schema, table.name), names=sql.SQL(", ").join(names), values=sql.SQL(", ").join(values)
    )


def _update(schema: str, plan: TablePlan) -> sql.Composed:
    written = {column for _, item in plan.updates for column in item} - {"id"}
    parts: list[sql.Composable] = [
        sql.SQL("{c} = CASE WHEN e.item ? {name} THEN r.{c} ELSE t.{c} END").format(
            name=sql.Literal(column), c=sql.Identifier(column)
        )
        for column in plan.table.columns
        if column in written
    ]
    if "updatedAt" in plan.table.columns:
        parts.append(sql.SQL('"updatedAt" = now()'))
    return sql.SQL("UPDATE {table} AS t SET {parts}" + _FROM + "WHERE t.id = r.id").format(
        table=sql.Identifier(schema, plan.table.name), parts=sql.SQL(", ").join(parts)
    )


def _write(
    connection: psycopg.Connection[Any],
    query: sql.Composed,
    plan: TablePlan,
    changes: list[tuple[Change, dict[str, Any]]],
) -> None:
    try:
        with connection.transaction():
            count = connection.execute(query, {"rows": json.dumps([item for _, item in changes])}).rowcount
    except psycopg.Error as error:
        raise _write_error(connection, query, plan, changes, error) from None
    if count != len(changes):
        raise DasTernError(
            f"{plan.table.name}: only {count} of {len(changes)} rows were written, because somebody deleted the others "
            "meanwhile. Nothing was changed: run `ansible-playbook playbooks/seed.yml` again."
        )


def _write_error(
    connection: psycopg.Connection[Any],
    query: sql.Composed,
    plan: TablePlan,
    changes: list[tuple[Change, dict[str, Any]]],
    error: psycopg.Error,
) -> DasTernError:
    """Return the error of the refused row, found by writing the rows one by one; the caller's transaction is rolled back."""
    if error.sqlstate and error.sqlstate[:2] in ("22", "23"):
        for change, item in changes:
            try:
                with connection.transaction():
                    connection.execute(query, {"rows": json.dumps([item])})
            except psycopg.Error as again:
                return row_error(change.row, plan.table, again)
    return server_error(f"{changes[0][0].row.file}: writing to {plan.table.name}", error)


def bad_value(
    connection: psycopg.Connection[Any], table: Table, rows: list[tuple[Row, dict[str, Any]]], error: psycopg.Error
) -> DasTernError:
    """Return the error for the value that the server can't read as its column's type."""
    texts = [
        (index, name, text, table.columns[name].type)
        for index, (_, values) in enumerate(rows)
        for name, value in values.items()
        if (text := _as_text(value)) is not None and not table.columns[name].json
    ]
    query = (
        "SELECT c.index, c.name, p.message, p.hint, p.sql_error_code "
        "FROM unnest(%s::int[], %s::text[], %s::text[], %s::text[]) AS c(index, name, value, type) "
        "CROSS JOIN LATERAL pg_input_error_info(c.value, c.type) AS p WHERE p.message IS NOT NULL ORDER BY 1 LIMIT 1"
    )
    invalid = connection.execute(query, [list(column) for column in zip(*texts, strict=True)]).fetchone()
    if invalid is None:
        return server_error(f"{rows[0][0].file}: reading {table.name}", error)
    index, name, message, hint, sqlstate = invalid
    row, values = rows[index]
    reason = "the value is not valid" if secret(name) else message
    return DasTernError(
        f"{row.place}: `{name}` is {masked(name, values[name])}, which is no {table.columns[name].type}: {reason} ({sqlstate})."
        + (f" {hint}." if hint and not secret(name) else "")
        + " Correct the value in the file.",
        sqlstate=sqlstate,
        file=row.file,
        line=row.line,
        table=row.table,
        column=name,
    )


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, (dict, list)):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def row_error(row: Row, table: Table, error: psycopg.Error) -> DasTernError:
    """Return the server's error about one row, with advice."""
    diag = error.diag
    advice = _ADVICE.get(error.sqlstate or "", "Correct the row in the file.")
    columns = [diag.column_name] if diag.column_name else _columns_of(diag.message_detail or "", table)
    about = "".join(f" `{name}` is {masked(name, row.values[name])}." for name in columns if name in row.values)
    detail = "" if any(secret(name) for name in columns) else detail_of(error)
    return DasTernError(
        f"{row.place}: {diag.message_primary} ({error.sqlstate}).{' ' + detail if detail else ''}{about} {advice}",
        sqlstate=error.sqlstate,
        constraint=diag.constraint_name,
        file=row.file,
        line=row.line,
        table=row.table,
        column=columns[0] if columns else None,
    )


_ADVICE = {
    "23505": "Another row of the database, which this seed does not own, already has this value: give the seed's row "
    "another value, or make that column the key if the two rows are the same thing.",
    "23503": "The row that it refers to does not exist: declare it and refer to it with `{ref: <table>/<key>}`.",
    "23502": "Declare a value for this column.",
    "23514": "The value violates a check of the table: correct it in the file.",
}
_SERVER_ADVICE = {
    "25006": "The session is read-only (`default_transaction_read_only`, or a standby), and there are rows to write: switch "
    "that off or seed the primary.",
    "55P03": "Another session has held a lock on these rows for longer than `seed_lock_timeout`. Run again when it has "
    "finished.",
    "57014": "The statement was cancelled or ran into `statement_timeout`. Run again.",
    "53100": "The disk of the data volume is full: free space there, then run again.",
    "42501": "The role that seeds lacks a privilege: seed as the owner of the tables (`postgres_app_user`).",
    "40P01": "Another session was writing the same rows. Run again.",
    "57P01": "The server was stopped, or somebody ended this session. `ansible-playbook playbooks/status.yml` shows whether "
    "it runs; run again.",
}


def server_error(doing: str, error: psycopg.Error) -> DasTernError:
    """Return an error of the server, or of the connection to it, that is not about a single row."""
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return DasTernError(
            f"{doing}: the connection was lost: {' '.join(str(error).split())}. Either everything was written or nothing: "
            "run again; `ansible-playbook playbooks/status.yml` shows whether the server runs."
        )
    message = error.diag.message_primary or " ".join(str(error).split())
    code = f" ({error.sqlstate})" if error.sqlstate else ""
    advice = _SERVER_ADVICE.get(error.sqlstate or "", "")
    hint = f" {error.diag.message_hint}" if error.diag.message_hint else ""
    return DasTernError(
        f"{doing}: {message}{code}.{hint} {advice}".rstrip() + " Nothing was changed.", sqlstate=error.sqlstate
    )


def _columns_of(detail: str, table: Table) -> list[str]:
    """Return the columns in `Key (a, "B")=(...)`."""
    inside = detail.partition("(")[2].partition(")")[0]
    names = [name.strip().strip('"') for name in inside.split(",")]
    return [name for name in names if name in table.columns]


def _check_required(row: Row, table: Table, values: dict[str, Any]) -> None:
    for column in table.columns.values():
        if column.required and column.name not in ("id", "updatedAt") and values.get(column.name) is None:
            raise DasTernError(
                f"{row.place}: `{column.name}` is required and {'null' if column.name in values else 'not declared'} (23502). "
                "Declare a value for this column.",
                sqlstate="23502",
                column=column.name,
            )
