"""The rows that a seed folder declares, in a form that travels as JSON, and every check that needs no database.

A row's id is UUID v5 of `NAMESPACE` and "<table>:<key>", where the key is its natural key's values joined by "/", or its
symbolic `_name` in a table without one. So ids are the same on every machine and in every run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..common.errors import DasTernError
from .time import is_day_expression

NAMESPACE = uuid.UUID("8f2c9b99-b059-552f-bd50-989d6c9e37d8")
"""UUID v5 of the URL https://example.com/das-tern/seed. Never change it: every seeded id would change with it."""

MARKS = ("ref", "at", "literal")
"""`{ref: users/dara}`, `{at: today 08:00}`, and `{literal: ...}` for a JSON object that looks like one of them."""


@dataclass
class Row:
    """One declared row; `values` maps the declared columns to plain values or to marks."""

    file: str
    line: int
    table: str
    key: tuple[str, ...]
    name: str | None
    values: dict[str, Any]
    key_text: str = ""
    id: str = ""
    found_id: str | None = None
    """The id of this row in the database; None while it doesn't exist or hasn't been looked up."""

    @property
    def label(self) -> str:
        return f"{self.table}/{self.name or self.key_text}"

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}, row {self.label}"

    @property
    def real_id(self) -> str:
        return self.found_id or self.id


@dataclass
class Script:
    """One `*.sql` seed."""

    file: str
    sql: str


@dataclass
class Segment:
    """Rows between two SQL files: read and written table by table, `tables` in the order of their references."""

    tables: dict[str, list[Row]] = field(default_factory=dict)


def mark(value: Any) -> str | None:
    """Return which mark `value` is, or None."""
    if isinstance(value, dict) and len(value) == 1:
        name = next(iter(value))
        return name if name in MARKS else None
    return None


class Declared:
    """All files of a seed folder, checked. Raise `DasTernError` with file and row for any mistake."""

    def __init__(self, files: list[dict[str, Any]]) -> None:
        self.steps: list[Segment | Script] = []
        self._by_label: dict[str, Row] = {}
        self._step_of: dict[str, int] = {}
        for file in files:
            if "sql" in file:
                self.steps.append(Script(file["name"], file["sql"]))
                continue
            if not self.steps or isinstance(self.steps[-1], Script):
                self.steps.append(Segment())
            for block in file["blocks"]:
                for row in block["rows"]:
                    self._add(file["name"], block, row)
        self._identify_all()
        for index, step in enumerate(self.steps):
            self._step_of.update({row.id: index for row in _rows_of(step)})
        for row in self.rows:
            for column, value in row.values.items():
                self._check_value(row, column, value)
        for index, step in enumerate(self.steps):
            if isinstance(step, Segment):
                step.tables = self._in_order(step, index)

    @property
    def rows(self) -> list[Row]:
        return [row for step in self.steps for row in _rows_of(step)]

    @property
    def scripts(self) -> list[Script]:
        return [step for step in self.steps if isinstance(step, Script)]

    @property
    def tables(self) -> list[str]:
        return list(dict.fromkeys(row.table for row in self.rows))

    def target(self, reference: str) -> Row:
        """Return the row that `{ref: reference}` means."""
        return self._by_label[reference]

    def _add(self, file: str, block: dict[str, Any], block_row: dict[str, Any]) -> None:
        values = dict(block_row["values"])
        name = values.pop("_name", None)
        key = tuple(block.get("key") or ())
        row = Row(file, block_row["line"], block["table"], key, name, values)
        where = f"{file}, line {row.line}, a row of {row.table}"
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise DasTernError(
                f"{where}: `_name` is {name!r}. Expected: a text such as `dara/paracetamol/today-night`."
            )
        if not key and name is None:
            raise DasTernError(
                f"{where} has neither a natural key nor a name. Give its block a `key: [column, ...]` that is unique in "
                "the database, or the row a `_name: <any lasting name>` from which its id is made."
            )
        for column in key:
            if column not in values:
                raise DasTernError(f"{where}: the key column {column} is not declared. Add `{column}: <value>`.")
        for column, why in (("id", "is computed from the row's key"), ("updatedAt", "is set when the row is written")):
            if column in values:
                raise DasTernError(f"{where}: `{column}` {why} and can't be declared. Remove it from the file.")
        segment = self.steps[-1]
        assert isinstance(segment, Segment)
        segment.tables.setdefault(row.table, []).append(row)
        if name is not None:
            self._label(f"{row.table}/{name}", row)

    def _label(self, label: str, row: Row) -> None:
        other = self._by_label.setdefault(label, row)
        if other is not row:
            raise DasTernError(
                f"{row.file}, line {row.line}: the row {label} is declared twice, the first time in {other.file}, line "
                f"{other.line}. Remove one, or give it another key."
            )

    def _identify_all(self) -> None:
        """Give every row its id; a key that refers to another row waits until that row has its own."""
        waiting = self.rows
        while waiting:
            unidentified = [row for row in waiting if not self._identify(row)]
            if len(unidentified) == len(waiting):
                for row in unidentified:
                    for column in row.key:
                        if mark(row.values[column]) == "ref":
                            self._find(row, column, row.values[column]["ref"])
                raise DasTernError(
                    f"{unidentified[0].file}, line {unidentified[0].line}: the key of this row of {unidentified[0].table} refers to itself."
                )
            waiting = unidentified

    def _identify(self, row: Row) -> bool:
        parts = [self._key_part(row, column) for column in row.key]
        if any(part is None for part in parts):
            return False
        row.key_text = "/".join(str(part) for part in parts) if row.key else str(row.name)
        row.id = str(uuid.uuid5(NAMESPACE, f"{row.table}:{row.key_text}"))
        self._label(f"{row.table}/{row.key_text}", row)
        return True

    def _key_part(self, row: Row, column: str) -> str | None:
        """Return the text of one key value; None as long as the row that it refers to has no key text itself."""
        value = row.values[column]
        where = f"{row.file}, line {row.line}, a row of {row.table}: the key column {column}"
        kind = mark(value)
        if kind == "ref":
            target = self._by_label.get(value["ref"]) if isinstance(value["ref"], str) else None
            return target.key_text if target is not None and target.id else None
        if kind is not None:
            raise DasTernError(f"{where} is {value!r}, which differs from day to day. A key must never change.")
        if value is None or isinstance(value, (dict, list)):
            raise DasTernError(f"{where} is {value!r}; a key needs a plain value.")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _find(self, row: Row, column: str, reference: Any) -> Row:
        target = self._by_label.get(reference) if isinstance(reference, str) else None
        if target is None:
            raise DasTernError(
                f"{row.file}, line {row.line}, a row of {row.table}: {column} refers to {reference!r}, which no file of this "
                "folder declares. Write `{ref: <table>/<_name or key values joined by />}` of a declared row."
            )
        return target

    def _check_value(self, row: Row, column: str, value: Any) -> None:
        kind = mark(value)
        if kind == "ref":
            target = self._find(row, column, value["ref"])
            if self._step_of[target.id] > self._step_of[row.id]:
                raise DasTernError(
                    f"{row.place}: {column} refers to {value['ref']}, which {target.file} declares after a later SQL file. "
                    "Name the files so that this row comes first."
                )
        elif kind == "at":
            if not is_day_expression(value["at"]):
                raise DasTernError(
                    f"{row.place}: {column} is {{at: {value['at']}}}. Expected: `today`, `today 08:00`, `today-1d 20:00` "
                    "or `today+2w 07:30:15` (days and weeks; the clock of Asia/Phnom_Penh)."
                )
        elif kind is None:
            for child in _children(value):
                self._check_value(row, column, child)
        if isinstance(value, str) and ("\0" in value or not _encodable(value)):
            raise DasTernError(
                f"{row.place}: {column} holds a character that PostgreSQL can't store (NUL or a lone surrogate)."
            )

    def _in_order(self, segment: Segment, index: int) -> dict[str, list[Row]]:
        """Return the tables of `segment`, each after those that it refers to, otherwise in the order of the files."""
        needs: dict[str, dict[str, Row]] = {table: {} for table in segment.tables}
        for table, rows in segment.tables.items():
            for row in rows:
                for reference in _references(list(row.values.values())):
                    target = self._find(row, "", reference)
                    if self._step_of[target.id] != index:
                        continue
                    if target.table != table:
                        needs[table].setdefault(target.table, row)
                    elif target.key:
                        raise DasTernError(
                            f"{row.place} refers to {reference} of the same table, whose id is known only after the table "
                            "has been read. Put the two rows into files with an SQL file between them, or write an SQL seed."
                        )
        order: dict[str, list[Row]] = {}
        while len(order) < len(needs):
            free = [table for table in needs if table not in order and all(need in order for need in needs[table])]
            if not free:
                stuck = [table for table in needs if table not in order]
                row = next(iter(needs[stuck[0]].values()))
                raise DasTernError(
                    f"The rows of {', '.join(stuck)} refer to each other in a circle (one is {row.place}), so no order of "
                    "inserts exists. Break the circle: leave one reference out and set it in an SQL seed."
                )
            order[free[0]] = segment.tables[free[0]]
        return order


def resolved(declared: Declared, value: Any, moment: Any) -> Any:
    """Return `value` with its marks replaced: references by real ids, `at` by `moment(expression)`."""
    kind = mark(value)
    if kind == "ref":
        return declared.target(value["ref"]).real_id
    if kind == "at":
        return moment(value["at"])
    if kind == "literal":
        return value["literal"]
    if isinstance(value, dict):
        return {name: resolved(declared, child, moment) for name, child in value.items()}
    if isinstance(value, list):
        return [resolved(declared, child, moment) for child in value]
    return value


def _rows_of(step: Segment | Script) -> list[Row]:
    return [row for rows in step.tables.values() for row in rows] if isinstance(step, Segment) else []


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _references(values: list[Any]) -> Iterator[str]:
    for value in values:
        kind = mark(value)
        if kind == "ref":
            yield value["ref"]
        elif kind is None:
            yield from _references(_children(value))


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
