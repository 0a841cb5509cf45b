"""Ask the server what a difference means, in a scratch database that has the expected schema.

The server answers three questions. Do two texts mean the same? PostgreSQL writes some expressions in another way once it has
read them from a dump (`CHECK (a IN ('x', 'y'))` on a varchar), so it gets both texts until they no longer change. Does a step
explain the difference: a renamed sequence, a detached or attached partition, an inherited parent? And what still differs
after a scaffolded migration has run?
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .drift import Difference, compare
from .objects import Item

if TYPE_CHECKING:
    import psycopg

try:
    from psycopg import Error
except ImportError:  # `connect` reports it
    pass

Read = Callable[[], list[Item]]
"""A function that returns the items of the scratch database as its open transaction sees them."""

_ROUNDS = 4
"""Maximum number of times that a text is given to the server; as far as known, it no longer changes the second time."""


# --- texts that mean the same


def without_equal(
    connection: psycopg.Connection[Any], differences: Sequence[Difference], read: Read
) -> list[Difference]:
    """Return those of `differences` that the server doesn't show to be two texts of the same meaning."""
    asked = [row for row in differences if row.what == "differs" and _can_be_asked(row)]
    live = _settled(connection, [row.live for row in asked if row.live], read)
    expected = _settled(
        connection, [row.expected for row in asked if row.expected and row.live and row.live.key in live], read
    )
    equal = {key for key, text in expected.items() if live[key] == text}
    return [row for row in differences if row.what != "differs" or row.item.key not in equal]


def _can_be_asked(row: Difference) -> bool:
    assert row.expected is not None
    assert row.live is not None
    if row.expected.broken or row.live.broken or _beside(row.expected) != _beside(row.live):
        return False
    return bool(_anew(row.live)) and bool(_anew(row.expected))


def _beside(item: Item) -> str:
    """Return the part of a definition that the server doesn't get again, and so never changes: all but a generated expression."""
    generated = item.facts.get("generated")
    return (
        item.definition.replace(f" GENERATED ALWAYS AS ({generated})", "", 1)
        if generated and item.kind == "column"
        else ""
    )


def _anew(item: Item) -> list[str]:
    """Return statements that make the server read a definition again beside the existing object; none without an expression."""
    create = item.create or item.definition
    match item.kind:
        case "view":
            return [create.replace("CREATE ", "CREATE OR REPLACE ", 1)]
        case "function" | "procedure" | "default":
            return [create]
        case "column" if "generated" in item.facts:
            column = f"ALTER TABLE {item.facts['table']} ALTER COLUMN {item.facts['quoted']}"
            return [f"{column} SET EXPRESSION AS ({item.facts['generated']})"]
        case "domain":  # on which other objects depend
            return [create.replace(f"DOMAIN {item.name} ", f"DOMAIN {_other_name(item)} ")]
        case "materialized view":
            return [create.replace(f" {item.name} ", f" {_other_name(item)} ", 1) + "\nWITH NO DATA"]
        case "constraint" if item.facts["type"] in ("c", "x"):
            return [item.undo, create]
        case "index" | "policy" | "rule" | "trigger" | "statistics object":
            return [item.undo, create]
    return []


def _settled(connection: psycopg.Connection[Any], items: Sequence[Item], read: Read) -> dict[str, str]:
    """Return the form in which each definition no longer changes when the server reads it; refused ones are left out."""
    settled: dict[str, str] = {}
    waiting = {item.key: item for item in items}
    for _ in range(_ROUNDS):
        if not waiting:
            break
        connection.execute("BEGIN")
        try:
            accepted = [item for item in waiting.values() if not _refused(connection, _anew(item))]
            now = {item.key: item for item in read()}
        finally:
            connection.execute("ROLLBACK")
        waiting = {}
        for item in accepted:
            again = now.get(item.key)
            if item.kind in ("domain", "materialized view"):
                other = now.get(f"{item.kind} {_other_name(item)}")
                again = other and _named(other, item)
            if again is None:
                continue
            if again.meaning == item.meaning:
                settled[item.key] = again.meaning
            else:
                waiting[item.key] = again
    return settled


def _named(other: Item, item: Item) -> Item:
    text = other.definition.replace(f" {_other_name(item)} ", f" {item.name} ")
    return Item(item.kind, item.name, text, create=text, undo=item.undo, facts=item.facts, parent=item.parent)


def _other_name(item: Item) -> str:
    """Return a name, in the same schema, for an object that is created beside `item`."""
    return item.facts["prefix"] + "das_tern_" + hashlib.sha256(item.key.encode()).hexdigest()[:32]


def _refused(connection: psycopg.Connection[Any], statements: Iterable[str]) -> str:
    """Run all statements in the open transaction, or none if the server refuses one; return its message, '' on success."""
    connection.execute("SAVEPOINT das_tern_step")
    try:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]
    except Error as error:
        if connection.closed:
            raise
        connection.execute("ROLLBACK TO SAVEPOINT das_tern_step")
        return f"{error.sqlstate}: {error.diag.message_primary}"
    connection.execute("RELEASE SAVEPOINT das_tern_step")
    return ""


# --- steps that explain a difference


@dataclass(frozen=True)
class Step:
    """A statement, and the difference that it explains."""

    statement: str
    row: Difference


def explain(
    connection: psycopg.Connection[Any], expected: list[Item], live: list[Item], read: Read
) -> tuple[list[Step], list[Item]]:
    """Return the steps that the scratch database accepted, and its items afterwards."""
    taken: list[Step] = []
    for step in _steps({item.key: item for item in expected}, {item.key: item for item in live}):
        connection.execute("BEGIN")
        refused = _refused(connection, [step.statement])
        connection.execute("ROLLBACK" if refused else "COMMIT")
        if not refused:
            taken.append(step)
    return taken, _now(connection, read) if taken else expected


def explained(steps: Iterable[Step]) -> list[Difference]:
    """Return the differences that the steps explain; an object may need more than one step."""
    return list({step.row.item.key: step.row for step in steps}.values())


def _steps(before: Mapping[str, Item], after: Mapping[str, Item]) -> list[Step]:
    return [*_renamed_sequences(before, after), *_other_parents(before, after)]


def _renamed_sequences(before: Mapping[str, Item], after: Mapping[str, Item]) -> list[Step]:
    """Return steps that rename the sequence of a column whose sequence now has another name: it goes on counting."""
    gone, come = _of_columns(before, after), _of_columns(after, before)
    steps = []
    for column in sorted(gone.keys() & come.keys()):
        old, new = gone[column], come[column]
        if (old.kind, old.facts["prefix"]) == (new.kind, new.facts["prefix"]):
            name = new.facts["sequence"].removeprefix(new.facts["prefix"])
            steps.append(
                Step(f"ALTER SEQUENCE {old.facts['sequence']} RENAME TO {name}", Difference("renamed", old, new))
            )
    return steps


def _of_columns(own_side: Mapping[str, Item], other_side: Mapping[str, Item]) -> dict[str, Item]:
    """Return, by column, its sequence in `own_side` without a namesake in `other_side`: of its identity, owned by it, or in its default."""
    sequences: dict[str, Item] = {}
    names = {item.facts["sequence"] for item in other_side.values() if "sequence" in item.facts}
    for item in own_side.values():
        if item.kind == "identity" and item.facts["sequence"] not in names:
            sequences[f"column {item.name}"] = item
        if item.kind == "sequence" and item.facts["sequence"] not in names:
            users = [
                default for default in own_side.values() if default.kind == "default" and item.key in default.needs
            ]
            column = item.facts["of_column"] or (users[0].name if len(users) == 1 else "")
            if column:
                sequences[f"column {column}"] = item
    return sequences


def _other_parents(before: Mapping[str, Item], after: Mapping[str, Item]) -> list[Step]:
    steps = []
    for key in sorted(before.keys() & after.keys()):
        old, new = before[key], after[key]
        if old.kind != "table" or old.definition == new.definition:
            continue
        old_bound, new_bound = (
            (parent.facts.get("partition_of", ""), parent.facts.get("bound", "")) for parent in (old, new)
        )
        if old_bound != new_bound:
            if old_bound[0]:
                row = Difference("attached" if new_bound[0] else "detached", old, new)
                steps.append(Step(f"ALTER TABLE {old_bound[0]} DETACH PARTITION {old.name}", row))
            if new_bound[0]:
                attach = f"ALTER TABLE {new_bound[0]} ATTACH PARTITION {old.name} {new_bound[1]}"
                steps.append(Step(attach, Difference("attached", old, new)))
        parents = [parent.facts.get("inherits", ()) for parent in (old, new)]
        for word, own, others in (("NO INHERIT", *parents), ("INHERIT", *reversed(parents))):
            row = Difference("differs", old, new)
            steps += [Step(f"ALTER TABLE {old.name} {word} {parent}", row) for parent in own if parent not in others]
    return steps


# --- differences that a migration leaves


def run(connection: psycopg.Connection[Any], statements: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Run statements in one transaction; return those that ran, in that order, and those refused, with the server's message.

    A refused statement is tried again after the others: a function whose body is a text may silently need a table.
    """
    ran: list[str] = []
    waiting = [(statement, "") for statement in statements]
    connection.execute("BEGIN")
    try:
        while waiting:
            answers = [(statement, _refused(connection, [statement])) for statement, _ in waiting]
            ran += [statement for statement, message in answers if not message]
            refused = [(statement, message) for statement, message in answers if message]
            if len(refused) == len(waiting):
                break
            waiting = refused
        connection.execute("COMMIT")
    except BaseException:
        if not connection.closed:
            connection.execute("ROLLBACK")
        raise
    return ran, waiting


# --- objects created while the application runs


def partitions_made_since(
    differences: Sequence[Difference], expected: Iterable[Item], live: Iterable[Item]
) -> dict[str, str]:
    """Return, by key, the tables that are partitions of the shape of their partitioned table, each with that table's name.

    The partitioned table is created by the migrations, or is itself such a partition. Where a partition of the migrations
    was detached or attached or is gone, no other partition of its table counts: it may have taken the place of that one.
    """
    changed = {
        f"table {item.facts['partition_of']}"
        for row in differences if row.what in ("detached", "attached", "missing") or row.item.broken
        for item in (row.expected, row.live) if item is not None and item.facts.get("partition_of")
    }  # fmt: skip
    known = {item.key for item in expected if item.facts.get("is_partitioned")} - changed
    items = {item.key: item for item in live}
    rows = {row.item.key: row for row in differences if row.what == "unexpected" and row.item.facts.get("partition_of")}
    partitions: dict[str, str] = {}
    while more := [
        key for key, row in rows.items()
        if key not in partitions and f"table {row.item.facts['partition_of']}" in known and _is_of_its_parents_shape(row, items)
    ]:  # fmt: skip
        partitions |= {key: rows[key].item.facts["partition_of"] for key in more}
        known |= {key for key in more if rows[key].item.facts["is_partitioned"]}
    return partitions


def _is_of_its_parents_shape(row: Difference, items: Mapping[str, Item]) -> bool:
    name, parent = row.item.name, row.item.facts["partition_of"]
    if not row.item.facts["is_plain"]:
        return False
    for part in row.parts:
        if part.kind == "column order":
            continue
        # A column's attribute is named table.column, a grant `table NAME to ROLE`.
        if part.kind == "grant":
            key, text = (
                part.key.replace(f"table {name}", f"table {parent}", 1),
                part.definition.replace(f" {name} ", f" {parent} "),
            )
        elif part.kind in ("default", "not null", "column storage", "column compression", "column statistics"):
            key, text = f"{part.kind} {parent}{part.name.removeprefix(name)}", part.definition
        else:
            return False
        if key not in items or items[key].definition != text:
            return False
    return True


def left(connection: psycopg.Connection[Any], live: list[Item], read: Read) -> list[Difference]:
    """Return the differences to the live catalogue, except texts that mean the same."""
    return without_equal(connection, compare(_now(connection, read), live), read)


def _now(connection: psycopg.Connection[Any], read: Read) -> list[Item]:
    connection.execute("BEGIN")
    try:
        return read()
    finally:
        connection.execute("ROLLBACK")
