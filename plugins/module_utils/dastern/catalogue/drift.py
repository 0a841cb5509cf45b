"""Compare two catalogues, and turn the difference into a migration as far as that is certain.

`expected` is the catalogue that the migrations produce, `live` the one in the database. Pure: the server isn't asked.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..common.text import shown
from .objects import KINDS_BY_DEFAULT, WEAK, Item, Privileges, granted

# Kinds in the order in which a person would create them; dependencies come first.
_RANK = {kind: rank for rank, kind in enumerate((
    "schema", "extension", "collation", "enum", "composite type", "domain", "range type", "type", "sequence", "function",
    "procedure", "aggregate", "cast", "table", "foreign table", "column", "identity", "default", "not null", "sequence owner",
    "storage parameters", "column storage", "column compression", "column statistics", "column options", "index",
    "constraint", "clustered on", "replica identity", "view", "materialized view", "statistics object", "rule", "trigger",
    "trigger state", "row security", "policy", "owner", "privileges", "default privileges", "grant", "comment",
))}  # fmt: skip

# Kinds that are changed in place: the `create` of the live item is enough.
_OVERWRITTEN = {
    "default",
    "not null",
    "column storage",
    "column compression",
    "column statistics",
    "comment",
}
# Kinds that may be dropped and created again without losing rows, provided that nothing else depends on them.
_REPLACED = {
    "index", "constraint", "trigger", "policy", "view", "materialized view", "function", "procedure", "aggregate", "rule",
    "row security", "grant", "default privileges", "sequence owner", "statistics object", "replica identity",
    "clustered on", "column options", "storage parameters", "trigger state", "cast",
}  # fmt: skip
# Kinds that can be dropped without losing anything else.
_DROPPED = _REPLACED | _OVERWRITTEN | {"identity"}
# Kinds that a person has to change: they belong to a superuser, to another role or to the inventory.
_BY_HAND = {
    "setting": "A setting of the database belongs to an environment, not to a migration: use `ALTER DATABASE ... SET` or RESET there.",
    "owner": "Only a superuser changes an owner: `ansible-playbook playbooks/provision.yml` names the owner; correct it there.",
    "schema": "The schema itself is created before the migrations: run `CREATE SCHEMA` by hand.",
    "type": "A base type is written in C, and only a superuser creates it.",
    "event trigger": "Only a superuser creates event triggers.",
    "publication": "A publication belongs to an environment: create or drop it by hand.",
    "foreign table": "A foreign table depends on a server and its secrets: write it by hand.",
    "column order": "The columns are in another order. Harmless for queries that name their columns; only recreating the table changes the order.",
}


_NO_STATEMENT = "Write this kind of object by hand."


@dataclass(frozen=True)
class Difference:
    """A difference in one object; `expected` is None where the object is `unexpected`, `live` where it is `missing`.

    `parts` are the items that came or went along with it: the columns of a table, the comment on an index.
    """

    what: str
    expected: Item | None
    live: Item | None
    parts: Sequence[Item] = field(default=())

    @property
    def item(self) -> Item:
        item = self.live or self.expected
        assert item is not None
        return item

    @property
    def weak(self) -> bool:
        """Return whether the difference is reported but isn't drift."""
        return self.item.kind in WEAK

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.item.kind,
            "object": self.item.name,
            "what": self.what,
            "weak": self.weak,
            "expected": self.expected.shown if self.expected else None,
            "live": self.live.shown if self.live else None,
            "parts": [item.key for item in self.parts],
        }


def compare(expected: Iterable[Item], live: Iterable[Item]) -> list[Difference]:
    """Return all differences by kind and name; items below a missing or unexpected object are parts of its difference."""
    before = {item.key: item for item in expected}
    after = {item.key: item for item in live}
    differences: dict[str, Difference] = {}
    parts: dict[str, list[Item]] = {}
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old is not None and new is not None:
            if old.meaning != new.meaning and not _only_other_columns(old, new):
                differences[key] = Difference("differs", old, new)
            continue
        own_side, other_side, item = (before, after, old) if old is not None else (after, before, new)
        assert item is not None
        top = _topmost(item, own_side, other_side)
        if top != key:
            parts.setdefault(top, []).append(item)
        else:
            differences[key] = Difference("missing" if old is not None else "unexpected", old, new)
    rows = [
        Difference(row.what, row.expected, row.live, sorted(parts.get(key, []), key=_place))
        for key, row in differences.items()
    ]
    return sorted(rows, key=lambda row: _place(row.item))


def _only_other_columns(old: Item, new: Item) -> bool:
    """Return whether the order of columns differs because columns came or went, which is a difference of its own."""
    return old.kind == "column order" and sorted(old.definition.split(", ")) != sorted(new.definition.split(", "))


def _topmost(item: Item, own_side: Mapping[str, Item], other_side: Mapping[str, Item]) -> str:
    """Return the key of the highest ancestor that the other side lacks as well."""
    key = item.key
    while item.parent and item.parent not in other_side:
        item = own_side[item.parent]
        key = item.key
    return key


def _place(item: Item) -> tuple[int, str]:
    return _RANK.get(item.kind, len(_RANK)), item.name


@dataclass(frozen=True)
class Scaffold:
    """A drafted migration: `statements` in order, without their semicolons; `by_hand` describes what a person must write.

    `notes` describe what the statements can't know. `left` describes what still differs after the statements were tried;
    None before they were.
    """

    statements: Sequence[str]
    by_hand: Sequence[str]
    notes: Sequence[str] = ()
    left: Sequence[str] | None = None

    @property
    def complete(self) -> bool:
        """Return whether nothing is left to a person, which is known only after a trial."""
        return not self.by_hand and self.left is not None and not self.left

    def text(self, heading: Sequence[str]) -> str:
        """Return the migration file: `heading` as comments, the work that is left to a person, the statements.

        As long as such work is left, the file refuses to be applied, so that half of a change never counts as done.
        """
        lines = [f"-- {line}" for line in heading]
        lines += [f"-- Note: {line}" for note in self.notes for line in note.splitlines()]
        if self.complete:
            lines.append("-- This file is complete: in a scratch database with all migrations it leaves no difference.")
        if self.left:
            lines += ["--", "-- Not complete: in a scratch database with all migrations it leaves these differences."]
            lines += [f"--   {shown(difference)}" for difference in self.left]
        if self.by_hand:
            lines += ["--", "-- Write the following by hand."]
            lines += [f"--   {line}" for entry in self.by_hand for line in entry.splitlines()]
        if self.by_hand or self.left:
            lines += [
                "-- Then remove these lines and the DO statement.",
                "DO $$ BEGIN RAISE EXCEPTION 'this migration is a draft: see the comments in it'; END $$;",
            ]
        return "\n".join(lines) + "\n" + "".join(f"\n{statement};\n" for statement in self.statements)


def tried(draft: Scaffold, refused: Sequence[tuple[str, str]], rest: Sequence[Difference]) -> Scaffold:
    """Return `draft`, whose statements ran in a trial, with its outcome: `refused` ones with the reason, and differences in `rest`."""
    states = {"missing": "is still there", "unexpected": "is not created", "differs": "is not as in the live database"}
    return replace(
        draft,
        by_hand=[
            *draft.by_hand,
            *(f"The server refuses this statement ({why}):\n{statement};" for statement, why in refused),
        ],
        left=[f"{row.item.key} {states[row.what]}" for row in rest],
    )


def scaffold(differences: Sequence[Difference], expected: Iterable[Item], live: Iterable[Item]) -> Scaffold:
    """Draft the migration from the migrations' schema to the live one, as far as no rows and no choice are at stake."""
    before = {item.key: item for item in expected}
    after = {item.key: item for item in live}
    drops: dict[str, Item] = {}
    makes: dict[str, Item] = {}
    texts: dict[str, str] = {}
    by_hand: list[str] = []
    replaced: set[str] = set()
    for row in differences:
        if row.weak:
            continue
        if row.what == "differs" and _ancestor(row.item, after, replaced):
            continue
        if row.item.kind == "grant" and row.what != "unexpected":
            makes |= _grants_on_columns(row.item, after)
        reason = _by_hand(row, before, after)
        if reason:
            by_hand.append(reason)
        elif row.what == "unexpected":
            makes |= {item.key: item for item in [row.item, *row.parts]}
        elif row.what == "missing":
            drops[row.item.key] = row.item
        else:
            assert row.expected is not None
            assert row.live is not None
            text = _changed_in_place(row.expected, row.live)
            makes[row.live.key] = row.live
            if text is not None:
                texts[row.live.key] = text
            else:
                drops[row.expected.key] = row.expected
                replaced.add(row.live.key)
                makes |= {item.key: item for item in after.values() if _ancestor(item, after, {row.live.key})}
    for key in [key for key, item in makes.items() if _refused(item)]:
        by_hand.append(f"{key}: {_refused(makes[key])}")
        for child in [other for other in makes if other == key or _ancestor(makes[other], after, {key})]:
            del makes[child]
    new = [item for key, item in makes.items() if key not in texts]
    makes |= {item.key: item for item in against_defaults(new, before.values(), after.values())}
    first, last = _dropping(drops, before, replaced)
    counted, notes = _counted(new, before, after)
    notes += [
        f"{key} is dropped with its counter: ids of deleted rows may be assigned again, unless `setval` has transferred the counter."
        for key, item in drops.items() if item.kind == "identity" and item.parent in after
    ]  # fmt: skip
    statements = [*first, *(texts.get(key, text) for key, text in ordered(makes.values())), *counted, *last]
    return _enum_values_apart(Scaffold(statements, by_hand, notes), differences)


def _counted(new: Iterable[Item], before: Mapping[str, Item], after: Mapping[str, Item]) -> tuple[list[str], list[str]]:
    """Return statements that set new sequences behind the values of existing rows, and notes on values that can't be known."""
    statements, notes = [], []
    for item in new:
        if "sequence" not in item.facts:
            continue
        columns = [
            f"column {default.name}" for default in after.values() if default.kind == "default" and item.key in default.needs
        ] if item.kind == "sequence" else [f"column {item.name}"]  # fmt: skip
        step, least, most = item.facts["range"]
        last = "max" if step > 0 else "min"
        counted = []
        for column in [after[key] for key in sorted(columns) if key in after and key in before]:
            if column.facts["type"] not in ("smallint", "integer", "bigint"):
                notes.append(
                    f"{item.key} starts from the beginning; whether {column.key} already holds values of it can't be known."
                )
                continue
            name, table_of = column.facts["quoted"], column.facts["table"]
            counted.append((f"{last}({name})", f"FROM {table_of} WHERE {name} BETWEEN {least} AND {most}"))
        setval = f"SELECT setval({_text(item.facts['sequence'])}, "
        if len(counted) == 1:
            statements.append(f"{setval}{counted[0][0]}) {counted[0][1]}")
        elif counted:
            of_each = ", ".join(f"(SELECT {value} {rows})" for value, rows in counted)
            statements.append(f"{setval}{'greatest' if step > 0 else 'least'}({of_each}))")
        if not columns:
            notes.append(f"{item.key} starts from the beginning: no default uses it, so that its value can't be known.")
    return statements, notes


def _ancestor(item: Item, all_items: Mapping[str, Item], keys: Collection[str]) -> bool:
    """Return whether one of `keys` is an ancestor of `item`."""
    parent = item.parent
    while parent:
        if parent in keys:
            return True
        parent = all_items[parent].parent if parent in all_items else ""
    return False


def _by_hand(row: Difference, before: Mapping[str, Item], after: Mapping[str, Item]) -> str:
    """Return why a person has to write a difference; '' if a statement can."""
    item, kind = row.item, row.item.kind
    head = f"{row.item.key} ({row.what}): "
    if kind == "schema" and not item.facts["first"]:
        return head + (
            "a migration creates it or puts something into it, but the live database lacks it with its contents: create them by "
            "hand (`CREATE SCHEMA`, and the objects that the migrations create in it), or write a migration that drops it."
        )
    if kind in _BY_HAND or kind not in _RANK:
        return head + _BY_HAND.get(kind, _NO_STATEMENT)
    if item.facts.get("of_database"):
        return (
            head
            + "the inventory declares privileges on the database: run `ansible-playbook playbooks/provision.yml`, or change them by hand."
        )
    if row.live is not None and row.live.broken:
        return (
            head
            + f"{row.live.broken} on the live database. Fix it there first: {_repair(row.live)}; then compare again."
        )
    if row.what == "unexpected":
        required = any(part.kind == "not null" for part in row.parts)
        filled = any(part.kind in ("default", "identity") for part in row.parts)
        if kind == "column" and required and not filled and "GENERATED ALWAYS" not in item.definition:
            return (
                head
                + f"{item.definition} NOT NULL without a default: which value do existing rows get?"
                + _rename(row, before, after)
            )
        return ""
    if row.what == "missing":
        if kind in _DROPPED and item.undo:
            return ""
        warning = (
            "dropping it loses its contents."
            if kind in ("table", "column", "sequence")
            else "dropping it may drop other objects along with it."
        )
        return head + warning + _rename(row, before, after)
    assert row.expected is not None
    assert row.live is not None
    if kind in _OVERWRITTEN or _changed_in_place(row.expected, row.live) is not None:
        return ""
    if kind in _REPLACED:
        users = [
            user.key
            for user in [*before.values(), *after.values()]
            if item.key in user.needs and not _ancestor(user, {**before, **after}, {item.key})
        ]
        if not users:
            return ""
        return (
            head
            + f"{sorted(set(users))[0]} depends on it, so that it can't be recreated on its own. The live definition is:\n{row.live.definition}"
        )
    return (
        head
        + f"from {row.expected.definition} to {row.live.definition}: a person has to judge whether the rows survive."
    )


def _repair(item: Item) -> str:
    """Return the advice that ends the state in `item.broken`."""
    if item.kind == "table":
        detach = f"ALTER TABLE {item.facts['partition_of']} DETACH PARTITION {item.name} FINALIZE"
        return f"`{detach}`, and ATTACH it again if its rows belong there"
    if item.kind == "identity":
        logged = "LOGGED" if item.broken.endswith("UNLOGGED") else "UNLOGGED"
        return f"`ALTER SEQUENCE {item.facts['sequence']} SET {logged}`"
    if item.kind == "index":
        return f"`REINDEX INDEX CONCURRENTLY {item.name}` or DROP it"
    if item.broken == "INVALID":
        return "it isn't enforced; DROP it and ADD it without ONLY, or attach an index of each partition (`ALTER INDEX ... ATTACH PARTITION`)"
    return "enable them (`ALTER TABLE ... ENABLE TRIGGER ALL`)"


def _rename(row: Difference, before: Mapping[str, Item], after: Mapping[str, Item]) -> str:
    """Return a hint where a column with the same definition came while this one went."""
    item = row.item
    own_side, other_side = (before, after) if row.live is None else (after, before)
    same = [
        other.name
        for key, other in other_side.items()
        if key not in own_side
        and other.kind == item.kind
        and other.parent == item.parent
        and other.definition == item.definition
        and other.kind == "column"
    ]
    return f" Was it renamed ({', '.join(same)})?" if same else ""


def _refused(item: Item) -> str:
    """Return why no statement creates an item; '' where one does."""
    return (
        ""
        if (item.kind in _RANK and item.kind not in _BY_HAND) or item.kind in WEAK
        else _BY_HAND.get(item.kind, _NO_STATEMENT)
    )


def _changed_in_place(old: Item, new: Item) -> str | None:
    """Return the statement that changes `one` into `other` without dropping it; None if there is none."""
    if old.kind in _OVERWRITTEN:
        return new.create
    if old.kind in ("function", "procedure"):
        # CREATE OR REPLACE can change neither the result type nor the names of parameters.
        same_head = old.definition.splitlines()[:2] == new.definition.splitlines()[:2]
        return new.create if same_head else None
    if old.kind == "sequence":
        if new.definition.split()[1:2] == old.definition.split()[1:2]:
            return new.definition.replace("CREATE ", "ALTER ", 1)
        return None
    if old.kind == "enum":
        return _added_values(old, new)
    return None


def _added_values(old: Item, new: Item) -> str | None:
    """Return ALTER TYPE ... ADD VALUE where values were only added; None if one is gone or their order changed."""
    before, after = list(old.facts["labels"]), list(new.facts["labels"])
    if [label for label in after if label in before] != before:
        return None
    statements = []
    for place, label in enumerate(after):
        if label not in before:
            where = f" AFTER {_text(after[place - 1])}" if place else f" BEFORE {_text(before[0])}" if before else ""
            statements.append(f"ALTER {new.target} ADD VALUE {_text(label)}{where}")
    return ";\n".join(statements)


def _text(label: str) -> str:
    return "'" + label.replace("'", "''") + "'"


def _enum_values_apart(draft: Scaffold, differences: Sequence[Difference]) -> Scaffold:
    """Move statements that use a new enum value into a later migration: it can be used only after it is committed."""
    fresh = [
        f"{_text(label)}::{row.live.target.removeprefix('TYPE ')}"
        for row in differences
        if row.what == "differs" and row.expected and row.live and row.live.kind == "enum"
        for label in row.live.facts["labels"]
        if label not in row.expected.facts["labels"]
    ]
    later = [text for text in draft.statements if any(value in text for value in fresh)]
    if not later:
        return draft
    heading = "This uses an enum value that this migration adds; write it into a later migration of its own:"
    return replace(draft, statements=[text for text in draft.statements if text not in later],
                   by_hand=[*draft.by_hand, *(f"{heading}\n{text};" for text in later)])  # fmt: skip


def _dropping(
    drops: Mapping[str, Item], before: Mapping[str, Item], replaced: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return the DROP statements to run first, and those that wait until the objects that depend on their targets are changed."""
    users: dict[str, set[str]] = {}
    for item in before.values():
        for need in item.needs:
            users.setdefault(need, set()).add(item.key)
    first: list[str] = []
    last: list[str] = []
    for key, _ in reversed(_sorted(drops)):
        if _ancestor(drops[key], before, drops):
            continue  # dropped along with its parent
        others = {
            user for user in users.get(key, set()) if user not in drops and not _ancestor(before[user], before, {key})
        }
        (last if others and key not in replaced else first).append(drops[key].undo)
    return first, last


def _grants_on_columns(grant: Item, items: Mapping[str, Item]) -> dict[str, Item]:
    """Return the grants on columns that a REVOKE on their table, for the same role, revokes as well."""
    to = f" to {grant.name.rpartition(' to ')[2]}"
    return {
        key: item
        for key, item in items.items()
        if item.kind == "grant"
        and key != grant.key
        and item.name.endswith(to)
        and _ancestor(item, items, {grant.parent})
    }


def against_defaults(new: Iterable[Item], *defaults: Iterable[Item]) -> list[Item]:
    """Return GRANTs and REVOKEs that give `new` objects their privileges whichever of `defaults` applies at their creation.

    Default privileges silently add to a new object or take from it: where a role may not read a table, it was revoked.
    Privileges that differ from the server's own defaults are items of their own and aren't written twice.
    """
    sets = [[item for item in items if item.kind == "default privileges" and item.facts] for items in defaults]
    grants = []
    for item in new:
        if "acl" not in item.facts:
            continue
        acl, usual = item.facts["acl"], item.facts["usual"]
        by_default = [_when_made(item, usual, items) for items in sets]
        on = f"ON {granted(item.target, item.facts)}"
        for grantee in sorted({role for privileges in by_default for role in privileges}):
            has, always = acl.get(grantee, frozenset()), usual.get(grantee, frozenset())
            may = set().union(*(privileges.get(grantee, frozenset()) for privileges in by_default))
            sure = frozenset.intersection(*(frozenset(privileges.get(grantee, ())) for privileges in by_default))
            less = _names(may) - _names(has) - _names(always)
            option = {name for name, grantable in may if grantable and (name, True) not in has} & _names(has)
            more = {(name, flag) for name, flag in has & always if name not in _names(sure)}
            statements = [f"REVOKE {', '.join(sorted(less))} {on} FROM {grantee}"] if less else []
            statements += [f"REVOKE GRANT OPTION FOR {', '.join(sorted(option))} {on} FROM {grantee}"] if option else []
            for grantable in (False, True):
                if names := sorted(name for name, flag in more if flag is grantable):
                    statement = f"GRANT {', '.join(names)} {on} TO {grantee}"
                    statements.append(statement + (" WITH GRANT OPTION" if grantable else ""))
            if statements:
                text = ";\n".join(statements)
                # This precedes its other grants: a REVOKE revokes those on columns as well.
                grants.append(Item("privileges", f"of {grantee} on {item.key}", text, text, parent=item.key,
                                   needs=frozenset([item.key])))  # fmt: skip
    return grants


def _when_made(item: Item, usual: Privileges, defaults: Iterable[Item]) -> Privileges:
    """Return the privileges that a new object gets from default privileges (source: the manual's ALTER DEFAULT PRIVILEGES)."""
    kind, within = KINDS_BY_DEFAULT[item.kind], ("", item.facts["schema"])
    privileges = {role: set(privileges) for role, privileges in usual.items()}
    # The default privileges of the whole database apply first, those of a schema on top of them.
    for where in within:
        for default in defaults:
            if (default.facts["on"], default.facts["within"]) == (kind, where):
                own = privileges.setdefault(default.facts["grantee"], set())
                own.difference_update(default.facts["less"])
                own.update(default.facts["more"])
    return privileges


def _names(privileges: Iterable[tuple[str, bool]]) -> set[str]:
    return {name for name, _ in privileges}


def ordered(items: Iterable[Item]) -> list[tuple[str, str]]:
    """Return key and statement of each item that has one, dependencies first, otherwise by kind and name.

    A table is created with its columns and primary key, a column with its default and NOT NULL.
    """
    by_key = {item.key: item for item in items if item.kind not in WEAK}
    inside = {key: _made_with(item, by_key) for key, item in by_key.items()}
    home = {key: _home(key, inside) for key in by_key}
    units: dict[str, list[Item]] = {}
    for key, item in by_key.items():
        units.setdefault(home[key], []).append(item)
    needs = {
        key: frozenset(home[need] for item in members for need in item.needs if need in home) - {key}
        for key, members in units.items()
    }
    return [
        (key, _statement(by_key[key], units[key])) for key, _ in _sorted({key: by_key[key] for key in units}, needs)
    ]


def _made_with(item: Item, items: Mapping[str, Item]) -> str:
    """Return the key of the item whose statement creates this one as well; '' if it has its own."""
    parent = items.get(item.parent)
    if parent is None:
        return ""
    if item.kind == "column" and "head" in parent.facts:
        return parent.key
    if item.kind in ("not null", "identity") and parent.kind == "column":
        return parent.key
    if item.kind == "default" and parent.kind == "column":
        # The function in a default may need the table.
        return "" if any(need.startswith(("function ", "procedure ")) for need in item.needs) else parent.key
    if item.kind == "constraint" and item.facts.get("type") == "p" and "head" in parent.facts:
        return parent.key
    return ""


def _home(key: str, inside: Mapping[str, str]) -> str:
    while inside[key]:
        key = inside[key]
    return key


def _statement(item: Item, members: Sequence[Item]) -> str:
    """Return `item.create` with the members that it creates along with the item."""
    by_parent: dict[str, dict[str, Item]] = {}
    for member in members:
        by_parent.setdefault(member.parent, {})[member.kind] = member
    if item.kind == "column":
        return item.create + _column_tail(by_parent.get(item.key, {}))
    if "head" not in item.facts:
        return item.create
    columns = sorted(
        (member for member in members if member.kind == "column"), key=lambda member: int(member.facts["number"])
    )
    lines = [
        f"{member.facts['quoted']} {member.definition}{_column_tail(by_parent.get(member.key, {}))}"
        for member in columns
    ]
    keys = [member for member in members if member.kind == "constraint"]
    lines += [f"CONSTRAINT {member.facts['quoted']} {member.definition}" for member in keys]
    body = "(\n    " + ",\n    ".join(lines) + "\n)" if lines else "()"
    return f"{item.facts['head']} {body}{item.facts['tail']}"


def _column_tail(attributes: Mapping[str, Item]) -> str:
    tail = ""
    if "identity" in attributes:
        tail += f" {attributes['identity'].definition}"
    if "default" in attributes:
        tail += f" DEFAULT {attributes['default'].definition}"
    return tail + (" NOT NULL" if "not null" in attributes else "")


def _sorted(items: Mapping[str, Item], needs: Mapping[str, frozenset[str]] | None = None) -> list[tuple[str, Item]]:
    """Return the items with dependencies first, then by kind and name; a circle is broken at its first kind."""
    waiting = {key: set((needs or {}).get(key, item.needs) & items.keys() - {key}) for key, item in items.items()}
    users: dict[str, list[str]] = {}
    for key, missing in waiting.items():
        for need in missing:
            users.setdefault(need, []).append(key)
    heap = [(_place(items[key]), key) for key, missing in waiting.items() if not missing]
    heapq.heapify(heap)
    done: list[tuple[str, Item]] = []
    while waiting:
        if not heap:
            key = min(waiting, key=lambda other: (_place(items[other]), other))
            heap = [(_place(items[key]), key)]
        _, key = heapq.heappop(heap)
        if key not in waiting:
            continue
        del waiting[key]
        done.append((key, items[key]))
        for user in users.get(key, []):
            if user in waiting:
                waiting[user].discard(key)
                if not waiting[user]:
                    heapq.heappush(heap, (_place(items[user]), user))
    return done


def table(differences: Sequence[Difference], width: int = 150) -> list[str]:
    """Return the differences as lines of text: what, kind, object, and both definitions in short."""
    rows = [(row.what, row.item.kind, shown(row.item.name), _shown(row)) for row in differences]
    sizes = [max((len(row[place]) for row in rows), default=0) for place in range(3)]
    lines = []
    for row in rows:
        head = "  ".join(word.ljust(size) for word, size in zip(row[:3], sizes, strict=True))
        room = max(width - len(head) - 2, 40)
        for number, text in enumerate(row[3]):
            text = text if len(text) <= room else text[: room - 4] + " ..."
            lines.append(f"{head if number == 0 else ' ' * len(head)}  {text}".rstrip())
    return lines


def _shown(row: Difference) -> list[str]:
    """Return the definitions, one per line; two long ones begin shortly before their first difference."""
    expected, live = (shown(re.sub(r"\s+", " ", item.shown)) if item else "" for item in (row.expected, row.live))
    if row.expected and row.live:
        if _seen(expected) == _seen(live):
            expected, live = _visible(row.expected.shown), _visible(row.live.shown)
        same = 0
        while same < min(len(expected), len(live)) and expected[same] == live[same]:
            same += 1
        cut = max(same - 30, 0) if max(len(expected), len(live)) > 60 else 0
        dots = "... " if cut else ""
        note = ["(a note, not drift)"] if row.weak else []
        return [f"expected {dots}{expected[cut:]}", f"live     {dots}{live[cut:]}", *note]
    counts: dict[str, int] = {}
    for part in row.parts:
        if part.kind not in WEAK:
            counts[part.kind] = counts.get(part.kind, 0) + 1
    along = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    return [(expected or live) + (f"  [with {along}]" if along else "")]


def _seen(text: str) -> str:
    """Return `text` without invisible characters: blanks, joiners, direction marks."""
    return "".join(character for character in text if not _is_unseen(character))


def _visible(text: str) -> str:
    """Return `text` in one line, with invisible characters other than the plain blank as escapes."""
    return "".join(
        character.encode("unicode_escape").decode() if character != " " and _is_unseen(character) else character
        for character in shown(text)
    )


def _is_unseen(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) == "Cf"
