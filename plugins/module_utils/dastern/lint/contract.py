"""Statements that break what the running application counts on: names, rights, checks, and what bounds a wait.

No row is lost by them, and nobody waits: the application meets something else than it was written for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ..common.sql_code import Read
from ..common.sql_reader import Reader, Token, altered, line, name_of, outside, upper
from ..common.sql_text import Statement, tokens
from . import history, squawk
from .dangers import BUT_SAY, Made, Said, no_writes, short
from .objects import Objects, granted, named

RULES = (
    "changes-access",
    "changes-identity",
    "changes-meaning",
    "converts-time",
    "drops-primary-key",
    "drops-default",
    "drops-what-is-used",
    "hides-rows",
    "joins-extension",
    "needs-replica-identity",
    "renames-what-is-used",
    "rewrites-statements",
    "sets-sequence",
    "switches-off-checks",
    "unbounded-wait",
    "unique-may-fail",
)
_CODE = {
    "VIEW",
    "FUNCTION",
    "PROCEDURE",
    "ROUTINE",
    "AGGREGATE",
    "TYPE",
    "DOMAIN",
    "SEQUENCE",
    "TRIGGER",
    "RULE",
    "OPERATOR",
    "CAST",
    "COLLATION",
    "CONVERSION",
    "EXTENSION",
    "PUBLICATION",
    "SERVER",
}
_SPOKEN_OF = {"ALTER", "DROP", "GRANT", "REVOKE", "REASSIGN", "SET", "CREATE", "SELECT", "PERFORM"}
"""What the statements begin with that `_of_statement` knows."""
_NAMED = {
    "VIEW",
    "FUNCTION",
    "PROCEDURE",
    "ROUTINE",
    "AGGREGATE",
    "SEQUENCE",
    "TYPE",
    "DOMAIN",
    "COLLATION",
    "SCHEMA",
    "PUBLICATION",
}
_WAITS = re.compile(
    r"^\s*SET\s+(?:LOCAL\s+|SESSION\s+)?(lock_timeout|statement_timeout|transaction_timeout)\s*(?:=|\bTO\b)\s*'?0\w*'?\s*$",
    re.IGNORECASE,
)
_TO_ZONED = re.compile(r"\bTYPE\s+(?:timestamptz|timestamp\s*(?:\(\s*\d\s*\)\s*)?with\s+time\s+zone)", re.IGNORECASE)
_ZONE = re.compile(r"\bAT\s+TIME\s+ZONE\b", re.IGNORECASE)
_NEXT_NUMBERS = {"RESTART", "INCREMENT", "MAXVALUE", "MINVALUE", "CYCLE"}


Given = dict[tuple[tuple[str, ...], str], int]
"""By table and column, where the last statement stands that gives a default."""


def contract(read: Read, made: Made) -> Iterator[Said]:
    """What the rules of this module find in the statements of a file, and in the code that it runs."""
    every = [one for top, code in read for one in (top, *code)]
    new = Objects(every)
    given = _given(every)
    for top, code in read:
        for one in (top, *code):
            if one.first in _SPOKEN_OF:
                yield from _of_statement(one, list(tokens(one.text)), made, new, given)
            new.run(one, certain=one is top)
        made.run(top, code)


def _of_statement(one: Statement, parts: list[Token], made: Made, new: Objects, given: Given) -> Iterator[Said]:
    words = upper(parts)
    match words:
        case ["ALTER", "TABLE", *_] | ["ALTER", "FOREIGN", "TABLE", *_]:
            table, actions = altered(parts)
            if not made.all_of([table]):
                for action in actions:
                    yield from _of_action(one, action, table, given)
            if words[1] == "FOREIGN":
                yield from _renamed(one, words, parts, new)
        case ["ALTER", "DOMAIN", *_] if not new.made(named(parts)):
            yield from _of_domain(one, words)
        case ["ALTER", "SEQUENCE", *_] if not new.made(named(parts)) and any(
            (word in _NEXT_NUMBERS and before != "NO") or (before == "AS" and word not in ("BIGINT", "INT8"))
            for before, word in pairwise(words)
        ):
            yield _sequence(one.start, one)
        case ["ALTER", "POLICY", *rest] if "RENAME" not in rest and not made.all_of([_on(parts)]):
            yield _access(one, "changes which rows are found")
        case ["CREATE", "POLICY", *rest] if "RESTRICTIVE" in rest and not made.all_of([_on(parts)]):
            yield _access(one, "hides rows that were found")
        case ["ALTER", "VIEW", *rest] if "SECURITY_INVOKER" in rest and not new.made(named(parts)):
            yield _access(one, "has it read its tables with the rights of another role")
        case ["ALTER", "FUNCTION" | "PROCEDURE" | "ROUTINE", *_] if not new.made(named(parts)) and (
            {("SECURITY", "DEFINER"), ("SECURITY", "INVOKER")} & set(pairwise(upper(outside(parts))))
        ):
            yield _access(one, "has it run with the rights of another role")
        case ["ALTER", "EXTENSION", _, "ADD", *_]:
            yield (
                one.start, "joins-extension", "danger",
                f"`{short(one)}`: from then on pg_dump leaves it out, with its rows, and DROP EXTENSION drops it.",
                f"Leave it out; or {BUT_SAY}",
            )  # fmt: skip
        case ["ALTER", "COLLATION" | "DATABASE", *_] if words[-2:] in (
            ["REFRESH", "VERSION"],
            ["COLLATION", "VERSION"],
        ):
            yield (
                one.start, "switches-off-checks", "warning",
                f"`{short(one)}` has the server no longer say that indexes were sorted by another version.", "REINDEX them first.",
            )  # fmt: skip
        case ["ALTER", "TEXT", "SEARCH", "CONFIGURATION" | "DICTIONARY", *rest] if "MAPPING" in rest or "(" in rest:
            if not new.made(named(parts)):
                yield _meaning(one, "what was stored is no longer found by what is asked for from then on")
        case ["CREATE", "CAST", *_] if words[-2:] == ["AS", "IMPLICIT"]:
            yield _meaning(one, "queries that were clear may become ambiguous, and fail")
        case ["CREATE", *rest] if "RULE" in rest[:3] and _rewrites(
            words, new=new.made([("TABLE", _on(parts, "TO"), ())])
        ):
            yield (
                one.start, "rewrites-statements", "danger",
                f"`{short(one)}` has something else done than the application asks for; behind INSTEAD also RETURNING and MERGE fail.",
                f"Use a trigger; or {BUT_SAY}",
            )  # fmt: skip
        case ["CREATE" | "ALTER", "PUBLICATION", _, "FOR" | "ADD" | "SET", "TABLE", *_]:
            yield _published(one.start, one, "UPDATE and DELETE fail in a published table without a primary key")
        case ["ALTER", "PUBLICATION", _, "DROP", *_]:
            yield _used(one.start, one)
        case ["DROP", "POLICY", *_] if not new.made(named(parts)):
            yield _access(one, "drops a policy: rows that it let through are hidden, or those that it hid are shown")
        case ["DROP", *rest] if words[-1] != "CASCADE" and not new.unused(named(parts)):
            if (
                (rest and rest[0] in _CODE | {"MATERIALIZED"})
                or rest[:2] == ["USER", "MAPPING"]
                or rest[:2] == ["TEXT", "SEARCH"]
            ):
                yield _used(one.start, one)
        case ["GRANT", *_] if "PUBLIC" in _roles(words, "TO") and not new.made(granted(parts, "TO")):
            yield _access(one, "opens it to every role that can connect")
        case ["REVOKE", *_] if (
            "ON" in words and _roles(words, "FROM") - {"PUBLIC"} and not new.made(granted(parts, "FROM"))
        ):
            yield _access(one, "takes a right away that the application may need")
        case ["ALTER", "DEFAULT", "PRIVILEGES", *_] if "GRANT" in words and "PUBLIC" in _roles(words, "TO"):
            yield _access(one, "opens what is made later to every role that can connect")
        case ["ALTER", "DEFAULT", "PRIVILEGES", *_] if "REVOKE" in words and _roles(words, "FROM") - {"PUBLIC"}:
            yield _access(one, "closes what is made later to a role that may need it")
        case ["REASSIGN", "OWNED", *_]:
            yield _access(one, "gives all that a role owns to another owner")
        case ["SET", "ROLE", *rest] | ["SET", "LOCAL" | "SESSION", "ROLE", *rest] if rest != ["NONE"]:
            yield _access(one, "has what is made from there on belong to another role")
        case ["SET", *_] if "SESSION_REPLICATION_ROLE" in words:
            yield _off(one, "switches off triggers and foreign keys")
        case ["SET", *_] if hit := _WAITS.match(one.text):
            yield (
                one.start, "unbounded-wait", "warning", f"`{short(one)}` takes away {hit[1]}: what waits here blocks everybody behind it.",
                "Leave it out; `migrations_lock_timeout` and `migrations_statement_timeout` set the bounds of a run.",
            )  # fmt: skip
        case ["CREATE", "UNIQUE", "INDEX", *_] if not made.all_of([_on(parts)]):
            yield _unique(one.start, one)
        case ["SELECT" | "PERFORM", *_] if "SETVAL" in words and "MAX" not in words:
            yield _sequence(one.start, one)
    if words[0] == "ALTER" and len(words) > 3 and "TABLE" not in words[1:3]:
        yield from _of_alter(one, words, parts, new)


def _rewrites(words: list[str], *, new: bool) -> bool:
    """Whether a rule, on a `new` table or view or not, has rows written that nobody asked for, or those not that were."""
    does = words[words.index("DO") + 1 :] if "DO" in words else []
    actions: list[list[str]] = [[]]
    for before, word in pairwise(["ALSO", *does]):
        if word == ";":
            actions.append([])
        elif word == "WHERE" or (word in ("DELETE", "UPDATE") and before in ("ALSO", "INSTEAD", "(", ")", ";")):
            actions[-1].append(word)
    writes = [action for action in actions if {"DELETE", "UPDATE"} & set(action)]
    return any("WHERE" not in action for action in writes) or (not new and ("INSTEAD" in does or bool(writes)))


def _of_alter(one: Statement, words: list[str], parts: list[Token], new: Objects) -> Iterator[Said]:
    """What ALTER does to the owner, the name and the schema of anything but a table."""
    known = new.made(named(parts))
    pairs = list(pairwise(words))
    if ("OWNER", "TO") in pairs and not known:
        yield _access(one, "gives it to another owner")
    if words[1] in (*_NAMED, "MATERIALIZED") or words[1:4] == ["TEXT", "SEARCH", "CONFIGURATION"]:
        yield from _renamed(one, words, parts, new)
    # Of the others squawk says it.
    if ("SET", "SCHEMA") in pairs and words[1] in ("COLLATION", "OPERATOR", "TEXT") and not known:
        yield _asked(one)


def _given(every: Sequence[Statement]) -> Given:
    """The columns to which a file gives a default, as Prisma does anew where an enum loses a value."""
    given: Given = {}
    for one in every:
        if one.words[:2] != ("ALTER", "TABLE"):
            continue
        table, actions = altered(one.text)
        for action in actions:
            reader = Reader(action)
            if reader.take("ALTER"):
                reader.take("COLUMN")
                column = reader.name()
                if reader.take("SET", "DEFAULT"):
                    given[table, column] = one.start
    return given


def _of_action(one: Statement, part: list[Token], table: tuple[str, ...], given: Given) -> Iterator[Said]:
    """What an action of ALTER TABLE does."""
    words = upper(part)
    at = one.start + part[0][2]
    text = one.text[part[0][2] : part[-1][2] + len(part[-1][1])]
    column = words[2:] if words[:2] == ["ALTER", "COLUMN"] else words[1:] if words[0] == "ALTER" else []
    match words:
        case ["DISABLE", "ROW", *_] | ["NO", "FORCE", *_]:
            yield _off(one, "shows all rows to every role with the right to read", at)
        case ["DISABLE", "TRIGGER" | "RULE", *_] | ["ENABLE", "REPLICA", *_]:
            yield _off(one, "switches off what keeps the rows right", at)
        case ["ENABLE", "ROW", *_]:
            yield _hides(at, "warning", one, "every role but the owner finds only rows that a policy lets through")
        case ["FORCE", "ROW", *_]:
            yield _hides(
                at,
                "danger",
                one,
                "the owner, too, finds only rows that a policy lets through, none where there is no policy",
            )
        case ["NO", "INHERIT", *_] | ["DETACH", "PARTITION", *_] if words[-1] != "FINALIZE":
            yield _hides(at, "warning", one, "queries of the other table no longer find its rows")
        case ["REPLICA", "IDENTITY", "NOTHING"]:
            yield _published(at, one, "UPDATE and DELETE fail if the table is published")
        case ["OWNER", "TO", *_]:
            yield _access(one, "gives it to another owner", at)
        case ["DROP", "CONSTRAINT", *_]:
            reader = Reader(part)
            reader.take("DROP", "CONSTRAINT")
            reader.take("IF", "EXISTS")
            key = reader.name()
            if kind := kind_of_key(key):
                yield (at, *drops_key(key, kind))
    name = name_of(part[-len(column)]) if column else ""
    match column[1:]:
        case ["DROP", "DEFAULT" | "EXPRESSION", *_] if given.get((table, name), -1) < one.start:
            yield _default(at, one)
        case ["DROP", "IDENTITY", *_]:
            yield _identity(at, one, "an INSERT that leaves the column out fails")
        case ["ADD", "GENERATED", *_]:
            yield _identity(at, one, "it counts from 1, whatever rows are there")
        case ["SET", "GENERATED", "ALWAYS", *_]:
            yield _identity(at, one, "an INSERT that gives a value fails")
        case ["RESTART", *_] | ["SET", "INCREMENT" | "MAXVALUE" | "MINVALUE" | "CYCLE", *_]:
            yield _sequence(at, one)
    if words[0] == "ADD" and _null_refused(part):
        yield (
            at, "adding-required-field", "danger", f"`{short(one)}` fails as soon as the table holds a row.",
            squawk.RULES["adding-required-field"][1],
        )  # fmt: skip
    if re.search(r"^ADD (?:CONSTRAINT \S+ )?UNIQUE (?:NULLS (?:NOT )?DISTINCT )?\(", line(part)):
        yield _unique(at, one)
    elif _TO_ZONED.search(text) and not _ZONE.search(text) and column:
        yield (
            at, "converts-time", "danger", f"`{short(one)}` reads times without a zone in the zone of whoever runs the migration.",
            "Say which zone they are in: `USING column AT TIME ZONE 'UTC'` (Prisma writes UTC).",
        )  # fmt: skip


def _null_refused(part: list[Token]) -> bool:
    """Whether a column is added with NOT NULL and NULL as its default."""
    value = [text for text in upper(history.default_of(part)) if text not in ("(", ")")]
    plain = upper(outside(part))
    required = ("NOT", "NULL") in pairwise(plain) or "PRIMARY" in plain
    return required and value[:1] == ["NULL"] and value[1:2] in ([], [":"])


def kind_of_key(name: str) -> str:
    """What a constraint is by the name that the server gives: `PRIMARY`, `UNIQUE`, or empty for any other."""
    hit = re.search(r"_(p?)key\d*$", name, re.IGNORECASE)
    return ("PRIMARY" if hit[1] else "UNIQUE") if hit else ""


def drops_key(name: str, kind: str) -> tuple[str, str, str, str]:
    """Rule, class, message and mend of a primary key or a unique constraint that is dropped."""
    if kind == "UNIQUE":
        return (
            "drops-what-is-used", "warning", f"The unique constraint `{name}` is dropped: `ON CONFLICT` that counts on it fails.",
            "Let the application stop using it first.",
        )  # fmt: skip
    return (
        "drops-primary-key", "danger",
        f"The primary key `{name}` is dropped: rows can be doubled, and `ON CONFLICT` and replication that count on it fail.",
        f"Add the new one first, as a unique index; or {BUT_SAY}",
    )  # fmt: skip


def _of_domain(one: Statement, words: list[str]) -> Iterator[Said]:
    pairs = list(pairwise(words))
    if ("DROP", "DEFAULT") in pairs:
        yield _default(one.start, one)
    elif ("VALIDATE", "CONSTRAINT") in pairs or words[-3:] == ["SET", "NOT", "NULL"]:
        offset, *said = no_writes(one, "Do it while few write: all tables with a column of this domain are read.")
        yield (one.start + offset, *said)  # type: ignore[misc]


def _renamed(one: Statement, words: list[str], parts: list[Token], new: Objects) -> Iterator[Said]:
    # The name of a constraint is in no query; of columns and attributes squawk says it.
    behind = words[words.index("RENAME") + 1] if "RENAME" in words[:-1] else ""
    if behind == "VALUE" or (behind == "TO" and not new.unused(named(parts))):
        yield _asked(one)


def _asked(one: Statement) -> Said:
    return (
        one.start, "renames-what-is-used", "danger", f"`{short(one)}`: the application that runs at this moment asks for the old name.",
        f"Add the new one beside it, change the application, then drop the old one; or {BUT_SAY}",
    )  # fmt: skip


def _roles(words: list[str], behind: str) -> set[str]:
    """The roles that a GRANT or REVOKE names."""
    if behind not in words:
        return set()
    named = words[words.index(behind) + 1 :]
    end = next((at for at, word in enumerate(named) if word in ("WITH", "GRANTED", "CASCADE", "RESTRICT")), len(named))
    return {word for word in named[:end] if word not in (",", "GROUP")}


def _on(parts: list[Token], word: str = "ON") -> tuple[str, ...]:
    """The table that stands behind ON: of an index or a policy; behind TO: of a rule."""
    reader = Reader(parts)
    while not reader.done and not reader.take(word):
        reader.skip()
    reader.take("ONLY")
    return reader.path()


def _unique(at: int, one: Statement) -> Said:
    return (
        at, "unique-may-fail", "warning", f"`{short(one)}` fails where two rows have the same.",
        "Look for them first: `SELECT columns, count(*) FROM table GROUP BY columns HAVING count(*) > 1`.",
    )  # fmt: skip


def _default(at: int, one: Statement) -> Said:
    return (
        at, "drops-default", "warning", f"`{short(one)}`: an INSERT that leaves the column out gets NULL, or fails.",
        "Make sure that the application gives it.",
    )  # fmt: skip


def _used(at: int, one: Statement, why: str = "whatever asks for it fails from then on") -> Said:
    return at, "drops-what-is-used", "warning", f"`{short(one)}`: {why}.", "Let the application stop using it first."


def _hides(at: int, severity: str, one: Statement, why: str) -> Said:
    return (
        at,
        "hides-rows",
        severity,
        f"`{short(one)}`: {why}.",
        "Make sure that this is meant; a policy has to be there first.",
    )


def _identity(at: int, one: Statement, why: str) -> Said:
    return (
        at,
        "changes-identity",
        "warning",
        f"`{short(one)}`: {why}.",
        "Change the application first, and set the sequence behind the rows.",
    )


def _sequence(at: int, one: Statement) -> Said:
    return (
        at, "sets-sequence", "warning", f"`{short(one)}`: a number that is too low makes the next INSERT fail.",
        "Compute it from the rows: `SELECT setval('s', (SELECT coalesce(max(id), 0) + 1 FROM t), false)`.",
    )  # fmt: skip


def _meaning(one: Statement, why: str) -> Said:
    return one.start, "changes-meaning", "warning", f"`{short(one)}`: {why}.", "Try the application's queries first."


def _published(at: int, one: Statement, why: str) -> Said:
    return (
        at,
        "needs-replica-identity",
        "warning",
        f"`{short(one)}`: {why}.",
        "Give each published table a primary key first.",
    )


def _access(one: Statement, does: str, at: int | None = None) -> Said:
    return (
        one.start if at is None else at, "changes-access", "danger", f"`{short(one)}` {does}.",
        f"Leave rights to provisioning; or {BUT_SAY}",
    )  # fmt: skip


def _off(one: Statement, does: str, at: int | None = None) -> Said:
    return (
        one.start if at is None else at, "switches-off-checks", "danger", f"`{short(one)}` {does}.",
        f"Leave it out; or {BUT_SAY}",
    )  # fmt: skip
