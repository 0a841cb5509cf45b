"""What a difference means, by the server's own word: asked in a scratch database that has the expected schema.

Three questions are put to it. Whether two texts mean the same: PostgreSQL writes some expressions otherwise once it has read them
from a dump (`CHECK (a IN ('x', 'y'))` of a varchar), so both are given back to it until they stay as they are. Whether a step
explains what differs: a sequence was renamed, a partition detached or attached, a parent inherited. And what is left when a
scaffolded migration has run.
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
except ImportError:  # `connect` says so in words
    pass

Read = Callable[[], list[Item]]
"""The items of the scratch database as its open transaction sees them."""

_ROUNDS = 4
"""How often a text is given back to the server at the most; the second time it stays, as far as known."""


# --- whether two texts mean the same


def without_equal(
    connection: psycopg.Connection[Any], differences: Sequence[Difference], read: Read
) -> list[Difference]:
    """Those of `differences` that the server doesn't show to be two texts of one meaning."""
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
    """What the server isn't given anew of a definition, and so never changes: of a generated column all but its expression."""
    generated = item.facts.get("generated")
    return (
        item.definition.replace(f" GENERATED ALWAYS AS ({generated})", "", 1)
        if generated and item.kind == "column"
        else ""
    )


def _anew(item: Item) -> list[str]:
    """Statements that have the server read a definition anew, while the object of that name is there; none if it holds no expression."""
    create = item.create or item.definition
    match item.kind:
        case "view":
            return [create.replace("CREATE ", "CREATE OR REPLACE ", 1)]
        case "function" | "procedure" | "default":
            return [create]
        case "column" if "generated" in item.facts:
            column = f"ALTER TABLE {item.facts['table']} ALTER COLUMN {item.facts['quoted']}"
            return [f"{column} SET EXPRESSION AS ({item.facts['generated']})"]
        case "domain":  # on which others hang
            return [create.replace(f"DOMAIN {item.name} ", f"DOMAIN {_other_name(item)} ")]
        case "materialized view":
            return [create.replace(f" {item.name} ", f" {_other_name(item)} ", 1) + "\nWITH NO DATA"]
        case "constraint" if item.facts["type"] in ("c", "x"):
            return [item.undo, create]
        case "index" | "policy" | "rule" | "trigger" | "statistics object":
            return [item.undo, create]
    return []


def _settled(connection: psycopg.Connection[Any], items: Sequence[Item], read: Read) -> dict[str, str]:
    """What the server makes of each definition when it is given it again and again; those that it doesn't take are left out."""
    found: dict[str, str] = {}
    waiting = {item.key: item for item in items}
    for _ in range(_ROUNDS):
        if not waiting:
            break
        connection.execute("BEGIN")
        try:
            made = [item for item in waiting.values() if not _refused(connection, _anew(item))]
            now = {item.key: item for item in read()}
        finally:
            connection.execute("ROLLBACK")
        waiting = {}
        for item in made:
            again = now.get(item.key)
            if item.kind in ("domain", "materialized view"):
                other = now.get(f"{item.kind} {_other_name(item)}")
                again = other and _named(other, item)
            if again is None:
                continue
            if again.meaning == item.meaning:
                found[item.key] = again.meaning
            else:
                waiting[item.key] = again
    return found


def _named(other: Item, item: Item) -> Item:
    text = other.definition.replace(f" {_other_name(item)} ", f" {item.name} ")
    return Item(item.kind, item.name, text, create=text, undo=item.undo, facts=item.facts, parent=item.parent)


def _other_name(item: Item) -> str:
    """A name for what is made beside `item`, in the same schema."""
    return item.facts["prefix"] + "das_tern_" + hashlib.sha256(item.key.encode()).hexdigest()[:32]


def _refused(connection: psycopg.Connection[Any], statements: Iterable[str]) -> str:
    """Run statements of the open transaction as one; what the server says if it refuses one, which leaves none."""
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
    """A statement, and what it explains."""

    statement: str
    row: Difference


def explain(
    connection: psycopg.Connection[Any], expected: list[Item], live: list[Item], read: Read
) -> tuple[list[Step], list[Item]]:
    """The steps that were taken in the scratch database, and its items afterwards."""
    taken: list[Step] = []
    for step in _steps({item.key: item for item in expected}, {item.key: item for item in live}):
        connection.execute("BEGIN")
        refused = _refused(connection, [step.statement])
        connection.execute("ROLLBACK" if refused else "COMMIT")
        if not refused:
            taken.append(step)
    return taken, _now(connection, read) if taken else expected


def explained(steps: Iterable[Step]) -> list[Difference]:
    """What the steps explain; an object may need more than one."""
    return list({step.row.item.key: step.row for step in steps}.values())


def _steps(before: Mapping[str, Item], after: Mapping[str, Item]) -> list[Step]:
    return [*_renamed_sequences(before, after), *_other_parents(before, after)]


def _renamed_sequences(before: Mapping[str, Item], after: Mapping[str, Item]) -> list[Step]:
    """A sequence of a column whose sequence has another name now: it goes on counting."""
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


def _of_columns(here: Mapping[str, Item], there: Mapping[str, Item]) -> dict[str, Item]:
    """By column, the sequence that counts it `here` and has no namesake `there`: its identity, what it owns, or its default."""
    found: dict[str, Item] = {}
    names = {item.facts["sequence"] for item in there.values() if "sequence" in item.facts}
    for item in here.values():
        if item.kind == "identity" and item.facts["sequence"] not in names:
            found[f"column {item.name}"] = item
        if item.kind == "sequence" and item.facts["sequence"] not in names:
            users = [one for one in here.values() if one.kind == "default" and item.key in one.needs]
            column = item.facts["of_column"] or (users[0].name if len(users) == 1 else "")
            if column:
                found[f"column {column}"] = item
    return found


def _other_parents(before: Mapping[str, Item], after: Mapping[str, Item]) -> list[Step]:
    steps = []
    for key in sorted(before.keys() & after.keys()):
        old, new = before[key], after[key]
        if old.kind != "table" or old.definition == new.definition:
            continue
        here, there = ((one.facts.get("partition_of", ""), one.facts.get("bound", "")) for one in (old, new))
        if here != there:
            if here[0]:
                row = Difference("attached" if there[0] else "detached", old, new)
                steps.append(Step(f"ALTER TABLE {here[0]} DETACH PARTITION {old.name}", row))
            if there[0]:
                attach = f"ALTER TABLE {there[0]} ATTACH PARTITION {old.name} {there[1]}"
                steps.append(Step(attach, Difference("attached", old, new)))
        parents = [one.facts.get("inherits", ()) for one in (old, new)]
        for word, some, others in (("NO INHERIT", *parents), ("INHERIT", *reversed(parents))):
            row = Difference("differs", old, new)
            steps += [Step(f"ALTER TABLE {old.name} {word} {one}", row) for one in some if one not in others]
    return steps


# --- what a migration leaves


def run(connection: psycopg.Connection[Any], statements: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Run statements in one transaction: in the order in which they went through, and those that never did, with the server's words.

    What is refused is tried again behind the others: a function whose body is a text may need a table without saying so.
    """
    ran: list[str] = []
    waiting = [(statement, "") for statement in statements]
    connection.execute("BEGIN")
    try:
        while waiting:
            answers = [(statement, _refused(connection, [statement])) for statement, _ in waiting]
            ran += [statement for statement, words in answers if not words]
            refused = [(statement, words) for statement, words in answers if words]
            if len(refused) == len(waiting):
                break
            waiting = refused
        connection.execute("COMMIT")
    except BaseException:
        if not connection.closed:
            connection.execute("ROLLBACK")
        raise
    return ran, waiting


# --- what is made while the application runs


def partitions_made_since(
    differences: Sequence[Difference], expected: Iterable[Item], live: Iterable[Item]
) -> dict[str, str]:
    """By key, the tables that are partitions as their partitioned table makes them, each with that one's name.

    The partitioned table is one that the migrations make, or such a partition itself. Where a partition of the migrations was
    detached, attached or is gone, the others of its table are no matter of run time: one may have taken its place.
    """
    changed = {
        f"table {item.facts['partition_of']}"
        for row in differences if row.what in ("detached", "attached", "missing") or row.item.broken
        for item in (row.expected, row.live) if item is not None and item.facts.get("partition_of")
    }  # fmt: skip
    known = {item.key for item in expected if item.facts.get("is_partitioned")} - changed
    items = {item.key: item for item in live}
    rows = {row.item.key: row for row in differences if row.what == "unexpected" and row.item.facts.get("partition_of")}
    found: dict[str, str] = {}
    while more := [
        key for key, row in rows.items()
        if key not in found and f"table {row.item.facts['partition_of']}" in known and _is_of_its_parents_shape(row, items)
    ]:  # fmt: skip
        found |= {key: rows[key].item.facts["partition_of"] for key in more}
        known |= {key for key in more if rows[key].item.facts["is_partitioned"]}
    return found


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
    """What still differs from the live catalogue, but for what means the same."""
    return without_equal(connection, compare(_now(connection, read), live), read)


def _now(connection: psycopg.Connection[Any], read: Read) -> list[Item]:
    connection.execute("BEGIN")
    try:
        return read()
    finally:
        connection.execute("ROLLBACK")
