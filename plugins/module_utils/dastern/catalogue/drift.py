"""Two catalogues compared, and the difference as a migration as far as that is certain.

`expected` is what the migrations produce, `live` what is there. Pure: the server isn't asked.
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

# What makes the object, in an order that a person would choose; dependencies come first.
_RANK = {kind: rank for rank, kind in enumerate((
    "schema", "extension", "collation", "enum", "composite type", "domain", "range type", "type", "sequence", "function",
    "procedure", "aggregate", "cast", "table", "foreign table", "column", "identity", "default", "not null", "sequence owner",
    "storage parameters", "column storage", "column compression", "column statistics", "column options", "index",
    "constraint", "clustered on", "replica identity", "view", "materialized view", "statistics object", "rule", "trigger",
    "trigger state", "row security", "policy", "owner", "privileges", "default privileges", "grant", "comment",
))}  # fmt: skip

# Kinds whose change replaces the text in place: the live one's `create` is enough.
_OVERWRITTEN = {
    "default",
    "not null",
    "column storage",
    "column compression",
    "column statistics",
    "comment",
}
# Kinds that may be dropped and made anew without losing rows, provided that nothing else hangs on them.
_REPLACED = {
    "index", "constraint", "trigger", "policy", "view", "materialized view", "function", "procedure", "aggregate", "rule",
    "row security", "grant", "default privileges", "sequence owner", "statistics object", "replica identity",
    "clustered on", "column options", "storage parameters", "trigger state", "cast",
}  # fmt: skip
# Kinds that can be taken away with nothing lost but themselves.
_DROPPED = _REPLACED | _OVERWRITTEN | {"identity"}
# Kinds that are made by a person whatever differs: a superuser's, another role's, or the inventory's matter.
_BY_HAND = {
    "setting": "A setting of the database belongs to an environment, not into a migration: `ALTER DATABASE ... SET` or RESET there.",
    "owner": "An owner is given by a superuser: `ansible-playbook playbooks/provision.yml` names the owner; correct it there.",
    "schema": "The schema itself is made before the migrations: `CREATE SCHEMA` by hand.",
    "type": "A base type is a superuser's, in C.",
    "event trigger": "Only a superuser makes event triggers.",
    "publication": "A publication belongs to an environment: make or drop it by hand.",
    "foreign table": "A foreign table hangs on a server and its secrets: write it by hand.",
    "column order": "The columns stand in another order. Nothing depends on it that names its columns; only a new table would change it.",
}


@dataclass(frozen=True)
class Difference:
    """What differs in one object; `expected` or `live` is None where it is `unexpected` or `missing`.

    `parts` are what came or went along with it: the columns of a table, the comment on an index.
    """

    what: str
    expected: Item | None
    live: Item | None
    parts: Sequence[Item] = field(default=())

    @property
    def item(self) -> Item:
        found = self.live or self.expected
        assert found is not None
        return found

    @property
    def weak(self) -> bool:
        """Whether it is told but isn't drift."""
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
    """All differences, in the order of kinds and names; what goes with a missing or unexpected object is part of it."""
    before = {item.key: item for item in expected}
    after = {item.key: item for item in live}
    found: dict[str, Difference] = {}
    parts: dict[str, list[Item]] = {}
    for key in before.keys() | after.keys():
        one, other = before.get(key), after.get(key)
        if one is not None and other is not None:
            if one.meaning != other.meaning and not _only_other_columns(one, other):
                found[key] = Difference("differs", one, other)
            continue
        here, there, item = (before, after, one) if one is not None else (after, before, other)
        assert item is not None
        top = _topmost(item, here, there)
        if top != key:
            parts.setdefault(top, []).append(item)
        else:
            found[key] = Difference("missing" if one is not None else "unexpected", one, other)
    rows = [
        Difference(one.what, one.expected, one.live, sorted(parts.get(key, []), key=_place))
        for key, one in found.items()
    ]
    return sorted(rows, key=lambda row: _place(row.item))


def _only_other_columns(one: Item, other: Item) -> bool:
    """Whether an order of columns differs because columns came or went, which is a difference of its own."""
    return one.kind == "column order" and sorted(one.definition.split(", ")) != sorted(other.definition.split(", "))


def _topmost(item: Item, here: Mapping[str, Item], there: Mapping[str, Item]) -> str:
    """The key of the highest ancestor that the other side lacks as well."""
    key = item.key
    while item.parent and item.parent not in there:
        item = here[item.parent]
        key = item.key
    return key


def _place(item: Item) -> tuple[int, str]:
    return _RANK.get(item.kind, len(_RANK)), item.name


@dataclass(frozen=True)
class Scaffold:
    """`statements` without their semicolons, in order; `by_hand` is what a person must write, in words.

    `notes` are words about what the statements can't know. `left` is what still differs where they were tried, in words;
    None as long as they weren't.
    """

    statements: Sequence[str]
    by_hand: Sequence[str]
    notes: Sequence[str] = ()
    left: Sequence[str] | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to a person; known only where it was tried."""
        return not self.by_hand and self.left is not None and not self.left

    def text(self, heading: Sequence[str]) -> str:
        """The file: a heading in comments, what is left to a person, the statements.

        As long as something is left the file refuses to be applied, so that half of a change never counts as done.
        """
        lines = [f"-- {line}" for line in heading]
        lines += [f"-- Note: {line}" for note in self.notes for line in note.splitlines()]
        if self.complete:
            lines.append("-- It is complete: tried in a scratch database with the migrations, it leaves no difference.")
        if self.left:
            lines += ["--", "-- Not complete: tried in a scratch database with the migrations, it leaves this."]
            lines += [f"--   {shown(words)}" for words in self.left]
        if self.by_hand:
            lines += ["--", "-- A person must write the following."]
            lines += [f"--   {line}" for entry in self.by_hand for line in entry.splitlines()]
        if self.by_hand or self.left:
            lines += [
                "-- When that is done, remove these lines and the DO statement.",
                "DO $$ BEGIN RAISE EXCEPTION 'this migration is a draft: see the comments in it'; END $$;",
            ]
        return "\n".join(lines) + "\n" + "".join(f"\n{statement};\n" for statement in self.statements)


def tried(made: Scaffold, refused: Sequence[tuple[str, str]], rest: Sequence[Difference]) -> Scaffold:
    """`made`, whose statements are those that ran, after it was tried: what was `refused`, and in which words, is a person's; `rest` is what still differs."""
    words = {"missing": "is still there", "unexpected": "isn't made", "differs": "isn't made as it is live"}
    return replace(
        made,
        by_hand=[*made.by_hand, *(f"The server refuses this statement ({why}):\n{one};" for one, why in refused)],
        left=[f"{row.item.key} {words[row.what]}" for row in rest],
    )


def scaffold(differences: Sequence[Difference], expected: Iterable[Item], live: Iterable[Item]) -> Scaffold:
    """What brings a database that has only the migrations to the live state, as far as no row and no choice is at stake."""
    before = {item.key: item for item in expected}
    after = {item.key: item for item in live}
    drops: dict[str, Item] = {}
    makes: dict[str, Item] = {}
    texts: dict[str, str] = {}
    hand: list[str] = []
    replaced: set[str] = set()
    for row in differences:
        if row.weak:
            continue
        if row.what == "differs" and _ancestor(row.item, after, replaced):
            continue
        if row.item.kind == "grant" and row.what != "unexpected":
            makes |= _grants_on_columns(row.item, after)
        words = _by_hand(row, before, after)
        if words:
            hand.append(words)
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
        hand.append(f"{key}: {_refused(makes[key])}")
        for child in [one for one in makes if one == key or _ancestor(makes[one], after, {key})]:
            del makes[child]
    new = [item for key, item in makes.items() if key not in texts]
    makes |= {item.key: item for item in against_defaults(new, before.values(), after.values())}
    first, last = _dropping(drops, before, replaced)
    counted, notes = _counted(new, before, after)
    notes += [
        f"{key} goes with its counter: ids of deleted rows may be given again, unless `setval` has taken it over."
        for key, item in drops.items() if item.kind == "identity" and item.parent in after
    ]  # fmt: skip
    statements = [*first, *(texts.get(key, text) for key, text in ordered(makes.values())), *counted, *last]
    return _enum_values_apart(Scaffold(statements, hand, notes), differences)


def _counted(new: Iterable[Item], before: Mapping[str, Item], after: Mapping[str, Item]) -> tuple[list[str], list[str]]:
    """Statements by which new sequences go on behind what rows have that are there already, and what they can't know."""
    statements, notes = [], []
    for item in new:
        if "sequence" not in item.facts:
            continue
        columns = [
            f"column {one.name}" for one in after.values() if one.kind == "default" and item.key in one.needs
        ] if item.kind == "sequence" else [f"column {item.name}"]  # fmt: skip
        step, least, most = item.facts["range"]
        last = "max" if step > 0 else "min"
        counted = []
        for column in [after[key] for key in sorted(columns) if key in after and key in before]:
            if column.facts["type"] not in ("smallint", "integer", "bigint"):
                notes.append(f"{item.key} begins anew; whether {column.key} holds values of it already can't be known.")
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
            notes.append(f"{item.key} begins anew: no default takes from it, so that its value can't be known.")
    return statements, notes


def _ancestor(item: Item, all_items: Mapping[str, Item], keys: Collection[str]) -> bool:
    """Whether one of `keys` is above `item`."""
    parent = item.parent
    while parent:
        if parent in keys:
            return True
        parent = all_items[parent].parent if parent in all_items else ""
    return False


def _by_hand(row: Difference, before: Mapping[str, Item], after: Mapping[str, Item]) -> str:
    """Why a difference is a person's to write; '' if it isn't."""
    item, kind = row.item, row.item.kind
    head = f"{row.item.key} ({row.what}): "
    if kind == "schema" and not item.facts["first"]:
        return head + (
            "a migration makes it or puts something into it. Live it is gone, and what it held with it: make it anew by hand "
            "(`CREATE SCHEMA`, and what the migrations make in it), or write a migration that drops it."
        )
    if kind in _BY_HAND or kind not in _RANK:
        return head + _BY_HAND.get(kind, "this kind of object is written by hand.")
    if item.facts.get("of_database"):
        return (
            head
            + "privileges on the database are the inventory's: `ansible-playbook playbooks/provision.yml`, or by hand."
        )
    if row.live is not None and row.live.broken:
        return (
            head + f"{row.live.broken} on the live database. Fix it there first: {_repair(row.live)}; then look again."
        )
    if row.what == "unexpected":
        required = any(part.kind == "not null" for part in row.parts)
        filled = any(part.kind in ("default", "identity") for part in row.parts)
        if kind == "column" and required and not filled and "GENERATED ALWAYS" not in item.definition:
            return (
                head
                + f"{item.definition} NOT NULL without a default: what do rows get that are there already?"
                + _rename(row, before, after)
            )
        return ""
    if row.what == "missing":
        if kind in _DROPPED and item.undo:
            return ""
        words = (
            "dropping it loses what is in it."
            if kind in ("table", "column", "sequence")
            else "dropping it may take other things along."
        )
        return head + words + _rename(row, before, after)
    assert row.expected is not None
    assert row.live is not None
    if kind in _OVERWRITTEN or _changed_in_place(row.expected, row.live) is not None:
        return ""
    if kind in _REPLACED:
        users = [
            one.key
            for one in [*before.values(), *after.values()]
            if item.key in one.needs and not _ancestor(one, {**before, **after}, {item.key})
        ]
        if not users:
            return ""
        return (
            head
            + f"{sorted(set(users))[0]} hangs on it, so that it can't be made anew by itself. Live it is:\n{row.live.definition}"
        )
    return (
        head + f"from {row.expected.definition} to {row.live.definition}: whether rows survive is a person's judgement."
    )


def _repair(item: Item) -> str:
    """Say what ends the state that `item.broken` names."""
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
    """A hint where a column or table of the same making came while this one went."""
    item = row.item
    here, there = (before, after) if row.live is None else (after, before)
    same = [
        one.name
        for key, one in there.items()
        if key not in here
        and one.kind == item.kind
        and one.parent == item.parent
        and one.definition == item.definition
        and one.kind == "column"
    ]
    return f" Was it renamed ({', '.join(same)})?" if same else ""


def _refused(item: Item) -> str:
    """Why an item can't be made by a statement."""
    return (
        ""
        if (item.kind in _RANK and item.kind not in _BY_HAND) or item.kind in WEAK
        else _BY_HAND.get(item.kind, "this kind of object is written by hand.")
    )


def _changed_in_place(one: Item, other: Item) -> str | None:
    """The statement that changes `one` into `other` without dropping it; None if there is none."""
    if one.kind in _OVERWRITTEN:
        return other.create
    if one.kind in ("function", "procedure"):
        # Neither the result nor names of parameters can be replaced.
        same_head = one.definition.splitlines()[:2] == other.definition.splitlines()[:2]
        return other.create if same_head else None
    if one.kind == "sequence":
        if other.definition.split()[1:2] == one.definition.split()[1:2]:
            return other.definition.replace("CREATE ", "ALTER ", 1)
        return None
    if one.kind == "enum":
        return _added_values(one, other)
    return None


def _added_values(one: Item, other: Item) -> str | None:
    """ALTER TYPE ... ADD VALUE where values only came; None if one went or they stand in another order."""
    old, new = list(one.facts["labels"]), list(other.facts["labels"])
    if [label for label in new if label in old] != old:
        return None
    statements = []
    for place, label in enumerate(new):
        if label not in old:
            where = f" AFTER {_text(new[place - 1])}" if place else f" BEFORE {_text(old[0])}" if old else ""
            statements.append(f"ALTER {other.target} ADD VALUE {_text(label)}{where}")
    return ";\n".join(statements)


def _text(label: str) -> str:
    return "'" + label.replace("'", "''") + "'"


def _enum_values_apart(made: Scaffold, differences: Sequence[Difference]) -> Scaffold:
    """A new value can be used only after it was committed: what names one goes into a migration of its own."""
    fresh = [
        f"{_text(label)}::{row.live.target.removeprefix('TYPE ')}"
        for row in differences
        if row.what == "differs" and row.expected and row.live and row.live.kind == "enum"
        for label in row.live.facts["labels"]
        if label not in row.expected.facts["labels"]
    ]
    later = [text for text in made.statements if any(one in text for one in fresh)]
    if not later:
        return made
    words = "Uses an enum value that this migration adds; in a migration of its own, behind this one:"
    return replace(made, statements=[text for text in made.statements if text not in later],
                   by_hand=[*made.by_hand, *(f"{words}\n{text};" for text in later)])  # fmt: skip


def _dropping(
    drops: Mapping[str, Item], before: Mapping[str, Item], replaced: Collection[str]
) -> tuple[list[str], list[str]]:
    """Statements to run before anything is made, and those that have to wait until what hung on them is changed."""
    users: dict[str, set[str]] = {}
    for item in before.values():
        for need in item.needs:
            users.setdefault(need, set()).add(item.key)
    first: list[str] = []
    last: list[str] = []
    for key, _ in reversed(_sorted(drops)):
        if _ancestor(drops[key], before, drops):
            continue  # goes with what it belongs to
        others = {
            one for one in users.get(key, set()) if one not in drops and not _ancestor(before[one], before, {key})
        }
        (last if others and key not in replaced else first).append(drops[key].undo)
    return first, last


def _grants_on_columns(grant: Item, items: Mapping[str, Item]) -> dict[str, Item]:
    """The grants on columns that a REVOKE on their table takes along, for the same role."""
    to = f" to {grant.name.rpartition(' to ')[2]}"
    return {
        key: one
        for key, one in items.items()
        if one.kind == "grant" and key != grant.key and one.name.endswith(to) and _ancestor(one, items, {grant.parent})
    }


def against_defaults(new: Iterable[Item], *defaults: Iterable[Item]) -> list[Item]:
    """Grants that give `new` objects the privileges that they have, whichever of `defaults` holds when they are made.

    Default privileges add to a new object or take from it, unsaid: a table that a role may not read is one that it was
    revoked from. What differs from the server's own defaults is an item by itself and isn't written twice.
    """
    sets = [[one for one in some if one.kind == "default privileges" and one.facts] for some in defaults]
    made = []
    for item in new:
        if "acl" not in item.facts:
            continue
        acl, usual = item.facts["acl"], item.facts["usual"]
        given = [_when_made(item, usual, some) for some in sets]
        on = f"ON {granted(item.target, item.facts)}"
        for grantee in sorted({role for one in given for role in one}):
            has, always = acl.get(grantee, frozenset()), usual.get(grantee, frozenset())
            may = set().union(*(one.get(grantee, frozenset()) for one in given))
            sure = frozenset.intersection(*(frozenset(one.get(grantee, ())) for one in given))
            less = _names(may) - _names(has) - _names(always)
            option = {name for name, grantable in may if grantable and (name, True) not in has} & _names(has)
            more = {one for one in has & always if one[0] not in _names(sure)}
            statements = [f"REVOKE {', '.join(sorted(less))} {on} FROM {grantee}"] if less else []
            statements += [f"REVOKE GRANT OPTION FOR {', '.join(sorted(option))} {on} FROM {grantee}"] if option else []
            for grantable in (False, True):
                if names := sorted(name for name, flag in more if flag is grantable):
                    words = f"GRANT {', '.join(names)} {on} TO {grantee}"
                    statements.append(words + (" WITH GRANT OPTION" if grantable else ""))
            if statements:
                text = ";\n".join(statements)
                # Before its other grants: a REVOKE takes those on columns along.
                made.append(Item("privileges", f"of {grantee} on {item.key}", text, text, parent=item.key,
                                 needs=frozenset([item.key])))  # fmt: skip
    return made


def _when_made(item: Item, usual: Privileges, defaults: Iterable[Item]) -> Privileges:
    """What a new object has under default privileges (source: the manual's ALTER DEFAULT PRIVILEGES)."""
    kind, within = KINDS_BY_DEFAULT[item.kind], ("", item.facts["schema"])
    given = {role: set(privileges) for role, privileges in usual.items()}
    # Those of the whole database first: those of a schema come on top.
    for where in within:
        for one in defaults:
            if (one.facts["on"], one.facts["within"]) == (kind, where):
                own = given.setdefault(one.facts["grantee"], set())
                own.difference_update(one.facts["less"])
                own.update(one.facts["more"])
    return given


def _names(privileges: Iterable[tuple[str, bool]]) -> set[str]:
    return {name for name, _ in privileges}


def ordered(items: Iterable[Item]) -> list[tuple[str, str]]:
    """Key and statement for each item that is made by one, dependencies first, otherwise by kind and name.

    A table is made with its columns and primary key, a column with its default and NOT NULL.
    """
    made = {item.key: item for item in items if item.kind not in WEAK}
    inside = {key: _made_with(item, made) for key, item in made.items()}
    home = {key: _home(key, inside) for key in made}
    units: dict[str, list[Item]] = {}
    for key, item in made.items():
        units.setdefault(home[key], []).append(item)
    needs = {
        key: frozenset(home[need] for item in members for need in item.needs if need in home) - {key}
        for key, members in units.items()
    }
    return [(key, _statement(made[key], units[key])) for key, _ in _sorted({key: made[key] for key in units}, needs)]


def _made_with(item: Item, made: Mapping[str, Item]) -> str:
    """The key of the item whose statement makes this one as well; '' if it has its own."""
    parent = made.get(item.parent)
    if parent is None:
        return ""
    if item.kind == "column" and "head" in parent.facts:
        return parent.key
    if item.kind in ("not null", "identity") and parent.kind == "column":
        return parent.key
    if item.kind == "default" and parent.kind == "column":
        # A function may need the table that it is a default in.
        return "" if any(need.startswith(("function ", "procedure ")) for need in item.needs) else parent.key
    if item.kind == "constraint" and item.facts.get("type") == "p" and "head" in parent.facts:
        return parent.key
    return ""


def _home(key: str, inside: Mapping[str, str]) -> str:
    while inside[key]:
        key = inside[key]
    return key


def _statement(item: Item, members: Sequence[Item]) -> str:
    """`item.create` with the members that it makes along."""
    by_parent: dict[str, dict[str, Item]] = {}
    for member in members:
        by_parent.setdefault(member.parent, {})[member.kind] = member
    if item.kind == "column":
        return item.create + _column_tail(by_parent.get(item.key, {}))
    if "head" not in item.facts:
        return item.create
    columns = sorted((one for one in members if one.kind == "column"), key=lambda one: int(one.facts["number"]))
    lines = [f"{one.facts['quoted']} {one.definition}{_column_tail(by_parent.get(one.key, {}))}" for one in columns]
    keys = [one for one in members if one.kind == "constraint"]
    lines += [f"CONSTRAINT {one.facts['quoted']} {one.definition}" for one in keys]
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
    """Dependencies first, then by kind and name; a circle is broken at its first kind."""
    waiting = {key: set((needs or {}).get(key, item.needs) & items.keys() - {key}) for key, item in items.items()}
    users: dict[str, list[str]] = {}
    for key, wanted in waiting.items():
        for need in wanted:
            users.setdefault(need, []).append(key)
    heap = [(_place(items[key]), key) for key, wanted in waiting.items() if not wanted]
    heapq.heapify(heap)
    done: list[tuple[str, Item]] = []
    while waiting:
        if not heap:
            key = min(waiting, key=lambda one: (_place(items[one]), one))
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
    """The differences as lines of text: what, kind, object, and both definitions in short."""
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
    """The definitions, each in one line; of two long ones only from shortly before where they part."""
    one, other = (shown(re.sub(r"\s+", " ", item.shown)) if item else "" for item in (row.expected, row.live))
    if row.expected and row.live:
        if _seen(one) == _seen(other):
            one, other = _visible(row.expected.shown), _visible(row.live.shown)
        same = 0
        while same < min(len(one), len(other)) and one[same] == other[same]:
            same += 1
        cut = max(same - 30, 0) if max(len(one), len(other)) > 60 else 0
        dots = "... " if cut else ""
        note = ["(a note, not drift)"] if row.weak else []
        return [f"expected {dots}{one[cut:]}", f"live     {dots}{other[cut:]}", *note]
    counts: dict[str, int] = {}
    for part in row.parts:
        if part.kind not in WEAK:
            counts[part.kind] = counts.get(part.kind, 0) + 1
    along = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    return [(one or other) + (f"  [with {along}]" if along else "")]


def _seen(text: str) -> str:
    """`text` without what can't be seen: blanks, joiners, marks of direction."""
    return "".join(one for one in text if not _is_unseen(one))


def _visible(text: str) -> str:
    """`text` in one line, with all that can't be seen but the plain blank as an escape."""
    return "".join(
        one.encode("unicode_escape").decode() if one != " " and _is_unseen(one) else one for one in shown(text)
    )


def _is_unseen(one: str) -> bool:
    return one.isspace() or unicodedata.category(one) == "Cf"
