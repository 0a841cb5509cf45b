"""Statements that break what the running application relies on: names, rights, checks, and bounds on waiting.

They lose no row and make nobody wait, but the application finds another database than it was written for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ..common.sql_code import Read
from ..common.sql_reader import Reader, Token, altered, line, name_of, outside, upper
from ..common.sql_text import Statement, tokens
from . import history, squawk
from .dangers import BUT_SAY, NewTables, Problem, no_writes
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
_FIRST_WORDS = {"ALTER", "DROP", "GRANT", "REVOKE", "REASSIGN", "SET", "CREATE", "SELECT", "PERFORM"}
"""First words of the statements that `_of_statement` knows."""
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


Defaults = dict[tuple[tuple[str, ...], str], int]
"""By table and column, the offset of the last statement that sets a default."""


def contract(read: Read, new_tables: NewTables) -> Iterator[Problem]:
    """Yield the problems that this module's rules find in the statements of a file and in the code that it runs."""
    every = [statement for top, code in read for statement in (top, *code)]
    new = Objects(every)
    defaults = _defaults_set(every)
    for top, code in read:
        for statement in (top, *code):
            if statement.first in _FIRST_WORDS:
                yield from _of_statement(statement, list(tokens(statement.text)), new_tables, new, defaults)
            new.run(statement, certain=statement is top)
        new_tables.run(top, code)


def _of_statement(
    statement: Statement, parts: list[Token], new_tables: NewTables, new: Objects, defaults: Defaults
) -> Iterator[Problem]:
    words = upper(parts)
    match words:
        case ["ALTER", "TABLE", *_] | ["ALTER", "FOREIGN", "TABLE", *_]:
            table, actions = altered(parts)
            if not new_tables.all_of([table]):
                for action in actions:
                    yield from _of_action(statement, action, table, defaults)
            if words[1] == "FOREIGN":
                yield from _renamed(statement, words, parts, new)
        case ["ALTER", "DOMAIN", *_] if not new.made(named(parts)):
            yield from _of_domain(statement, words)
        case ["ALTER", "SEQUENCE", *_] if not new.made(named(parts)) and any(
            (word in _NEXT_NUMBERS and before != "NO") or (before == "AS" and word not in ("BIGINT", "INT8"))
            for before, word in pairwise(words)
        ):
            yield _sequence(statement.start, statement)
        case ["ALTER", "POLICY", *rest] if "RENAME" not in rest and not new_tables.all_of([_on(parts)]):
            yield _access(statement, "changes which rows are visible")
        case ["CREATE", "POLICY", *rest] if "RESTRICTIVE" in rest and not new_tables.all_of([_on(parts)]):
            yield _access(statement, "hides rows that were visible")
        case ["ALTER", "VIEW", *rest] if "SECURITY_INVOKER" in rest and not new.made(named(parts)):
            yield _access(statement, "makes it read its tables with the rights of another role")
        case ["ALTER", "FUNCTION" | "PROCEDURE" | "ROUTINE", *_] if not new.made(named(parts)) and (
            {("SECURITY", "DEFINER"), ("SECURITY", "INVOKER")} & set(pairwise(upper(outside(parts))))
        ):
            yield _access(statement, "makes it run with the rights of another role")
        case ["ALTER", "EXTENSION", _, "ADD", *_]:
            yield (
                statement.start, "joins-extension", "danger",
                f"`{statement.short}`: from then on pg_dump leaves it out, with its rows, and DROP EXTENSION drops it.",
                f"Leave it out; or {BUT_SAY}",
            )  # fmt: skip
        case ["ALTER", "COLLATION" | "DATABASE", *_] if words[-2:] in (
            ["REFRESH", "VERSION"],
            ["COLLATION", "VERSION"],
        ):
            yield (
                statement.start, "switches-off-checks", "warning",
                f"`{statement.short}` silences the server's warning that indexes were sorted by another version.", "REINDEX them first.",
            )  # fmt: skip
        case ["ALTER", "TEXT", "SEARCH", "CONFIGURATION" | "DICTIONARY", *rest] if "MAPPING" in rest or "(" in rest:
            if not new.made(named(parts)):
                yield _meaning(statement, "later searches may no longer match stored search vectors")
        case ["CREATE", "CAST", *_] if words[-2:] == ["AS", "IMPLICIT"]:
            yield _meaning(statement, "unambiguous queries may become ambiguous and fail")
        case ["CREATE", *rest] if "RULE" in rest[:3] and _rewrites(
            words, new=new.made([("TABLE", _on(parts, "TO"), ())])
        ):
            yield (
                statement.start, "rewrites-statements", "danger",
                f"`{statement.short}` makes the server do something else than the application asks for; with INSTEAD, RETURNING and MERGE fail as well.",
                f"Use a trigger; or {BUT_SAY}",
            )  # fmt: skip
        case ["CREATE" | "ALTER", "PUBLICATION", _, "FOR" | "ADD" | "SET", "TABLE", *_]:
            yield _published(
                statement.start, statement, "UPDATE and DELETE fail on a published table without a primary key"
            )
        case ["ALTER", "PUBLICATION", _, "DROP", *_]:
            yield _used(statement.start, statement)
        case ["DROP", "POLICY", *_] if not new.made(named(parts)):
            yield _access(
                statement, "drops a policy: rows that it allowed are hidden, or rows that it hid become visible"
            )
        case ["DROP", *rest] if words[-1] != "CASCADE" and not new.unused(named(parts)):
            if (
                (rest and rest[0] in _CODE | {"MATERIALIZED"})
                or rest[:2] == ["USER", "MAPPING"]
                or rest[:2] == ["TEXT", "SEARCH"]
            ):
                yield _used(statement.start, statement)
        case ["GRANT", *_] if "PUBLIC" in _roles(words, "TO") and not new.made(granted(parts, "TO")):
            yield _access(statement, "opens it to every role that can connect")
        case ["REVOKE", *_] if (
            "ON" in words and _roles(words, "FROM") - {"PUBLIC"} and not new.made(granted(parts, "FROM"))
        ):
            yield _access(statement, "revokes a right that the application may need")
        case ["ALTER", "DEFAULT", "PRIVILEGES", *_] if "GRANT" in words and "PUBLIC" in _roles(words, "TO"):
            yield _access(statement, "opens later objects to every role that can connect")
        case ["ALTER", "DEFAULT", "PRIVILEGES", *_] if "REVOKE" in words and _roles(words, "FROM") - {"PUBLIC"}:
            yield _access(statement, "closes later objects to a role that may need them")
        case ["REASSIGN", "OWNED", *_]:
            yield _access(statement, "gives everything that a role owns to another owner")
        case ["SET", "ROLE", *rest] | ["SET", "LOCAL" | "SESSION", "ROLE", *rest] if rest != ["NONE"]:
            yield _access(statement, "makes later objects belong to another role")
        case ["SET", *_] if "SESSION_REPLICATION_ROLE" in words:
            yield _off(statement, "switches off triggers and foreign keys")
        case ["SET", *_] if hit := _WAITS.match(statement.text):
            yield (
                statement.start, "unbounded-wait", "warning", f"`{statement.short}` removes the bound {hit[1]}: a statement that waits here blocks everybody behind it.",
                "Leave it out; `migrations_lock_timeout` and `migrations_statement_timeout` set the bounds of a run.",
            )  # fmt: skip
        case ["CREATE", "UNIQUE", "INDEX", *_] if not new_tables.all_of([_on(parts)]):
            yield _unique(statement.start, statement)
        case ["SELECT" | "PERFORM", *_] if "SETVAL" in words and "MAX" not in words:
            yield _sequence(statement.start, statement)
    if words[0] == "ALTER" and len(words) > 3 and "TABLE" not in words[1:3]:
        yield from _of_alter(statement, words, parts, new)


def _rewrites(words: list[str], *, new: bool) -> bool:
    """Return whether a rule, on a `new` table or view or an old one, writes rows that no statement asked for, or omits some."""
    does = words[words.index("DO") + 1 :] if "DO" in words else []
    actions: list[list[str]] = [[]]
    for before, word in pairwise(["ALSO", *does]):
        if word == ";":
            actions.append([])
        elif word == "WHERE" or (word in ("DELETE", "UPDATE") and before in ("ALSO", "INSTEAD", "(", ")", ";")):
            actions[-1].append(word)
    writes = [action for action in actions if {"DELETE", "UPDATE"} & set(action)]
    return any("WHERE" not in action for action in writes) or (not new and ("INSTEAD" in does or bool(writes)))


def _of_alter(statement: Statement, words: list[str], parts: list[Token], new: Objects) -> Iterator[Problem]:
    """Yield the problems with an ALTER of the owner, the name or the schema of anything but a table."""
    known = new.made(named(parts))
    pairs = list(pairwise(words))
    if ("OWNER", "TO") in pairs and not known:
        yield _access(statement, "gives it to another owner")
    if words[1] in (*_NAMED, "MATERIALIZED") or words[1:4] == ["TEXT", "SEARCH", "CONFIGURATION"]:
        yield from _renamed(statement, words, parts, new)
    # squawk reports the others.
    if ("SET", "SCHEMA") in pairs and words[1] in ("COLLATION", "OPERATOR", "TEXT") and not known:
        yield _asked(statement)


def _defaults_set(every: Sequence[Statement]) -> Defaults:
    """Return the columns to which a file gives a default, as Prisma does again where an enum loses a value."""
    defaults: Defaults = {}
    for statement in every:
        if statement.words[:2] != ("ALTER", "TABLE"):
            continue
        table, actions = altered(statement.text)
        for action in actions:
            reader = Reader(action)
            if reader.take("ALTER"):
                reader.take("COLUMN")
                column = reader.name()
                if reader.take("SET", "DEFAULT"):
                    defaults[table, column] = statement.start
    return defaults


def _of_action(
    statement: Statement, part: list[Token], table: tuple[str, ...], defaults: Defaults
) -> Iterator[Problem]:
    """Yield the problems with an action of ALTER TABLE."""
    words = upper(part)
    at = statement.start + part[0][2]
    text = statement.text[part[0][2] : part[-1][2] + len(part[-1][1])]
    column = words[2:] if words[:2] == ["ALTER", "COLUMN"] else words[1:] if words[0] == "ALTER" else []
    match words:
        case ["DISABLE", "ROW", *_] | ["NO", "FORCE", *_]:
            yield _off(statement, "shows all rows to every role with the right to read", at)
        case ["DISABLE", "TRIGGER" | "RULE", *_] | ["ENABLE", "REPLICA", *_]:
            yield _off(statement, "switches off a trigger or rule that keeps the rows consistent", at)
        case ["ENABLE", "ROW", *_]:
            yield _hides(at, "warning", statement, "every role but the owner sees only rows that a policy allows")
        case ["FORCE", "ROW", *_]:
            yield _hides(
                at,
                "danger",
                statement,
                "the owner, too, sees only rows that a policy allows, and none without a policy",
            )
        case ["NO", "INHERIT", *_] | ["DETACH", "PARTITION", *_] if words[-1] != "FINALIZE":
            yield _hides(at, "warning", statement, "queries of the other table no longer find its rows")
        case ["REPLICA", "IDENTITY", "NOTHING"]:
            yield _published(at, statement, "UPDATE and DELETE fail if the table is published")
        case ["OWNER", "TO", *_]:
            yield _access(statement, "gives it to another owner", at)
        case ["DROP", "CONSTRAINT", *_]:
            reader = Reader(part)
            reader.take("DROP", "CONSTRAINT")
            reader.take("IF", "EXISTS")
            key = reader.name()
            if kind := kind_of_key(key):
                yield (at, *drops_key(key, kind))
    name = name_of(part[-len(column)]) if column else ""
    match column[1:]:
        case ["DROP", "DEFAULT" | "EXPRESSION", *_] if defaults.get((table, name), -1) < statement.start:
            yield _default(at, statement)
        case ["DROP", "IDENTITY", *_]:
            yield _identity(at, statement, "an INSERT that leaves the column out fails")
        case ["ADD", "GENERATED", *_]:
            yield _identity(at, statement, "it counts from 1, whichever rows exist")
        case ["SET", "GENERATED", "ALWAYS", *_]:
            yield _identity(at, statement, "an INSERT that provides a value fails")
        case ["RESTART", *_] | ["SET", "INCREMENT" | "MAXVALUE" | "MINVALUE" | "CYCLE", *_]:
            yield _sequence(at, statement)
    if words[0] == "ADD" and _null_refused(part):
        yield (
            at, "adding-required-field", "danger", f"`{statement.short}` fails as soon as the table holds a row.",
            squawk.RULES["adding-required-field"][1],
        )  # fmt: skip
    if re.search(r"^ADD (?:CONSTRAINT \S+ )?UNIQUE (?:NULLS (?:NOT )?DISTINCT )?\(", line(part)):
        yield _unique(at, statement)
    elif _TO_ZONED.search(text) and not _ZONE.search(text) and column:
        yield (
            at, "converts-time", "danger", f"`{statement.short}` interprets times without a zone in the zone of the session that runs the migration.",
            "Say which zone they are in: `USING column AT TIME ZONE 'UTC'` (Prisma writes UTC).",
        )  # fmt: skip


def _null_refused(part: list[Token]) -> bool:
    """Return whether a column is added with NOT NULL and NULL as its default."""
    value = [text for text in upper(history.default_of(part)) if text not in ("(", ")")]
    plain = upper(outside(part))
    required = ("NOT", "NULL") in pairwise(plain) or "PRIMARY" in plain
    return required and value[:1] == ["NULL"] and value[1:2] in ([], [":"])


def kind_of_key(name: str) -> str:
    """Return the kind of a constraint whose name the server chose: `PRIMARY`, `UNIQUE`, or '' for any other."""
    hit = re.search(r"_(p?)key\d*$", name, re.IGNORECASE)
    return ("PRIMARY" if hit[1] else "UNIQUE") if hit else ""


def drops_key(name: str, kind: str) -> tuple[str, str, str, str]:
    """Return rule, severity, message and advice for a primary key or a unique constraint that is dropped."""
    if kind == "UNIQUE":
        return (
            "drops-what-is-used", "warning", f"The unique constraint `{name}` is dropped: an `ON CONFLICT` that relies on it fails.",
            "Make the application stop using it first.",
        )  # fmt: skip
    return (
        "drops-primary-key", "danger",
        f"The primary key `{name}` is dropped: rows can be duplicated, and `ON CONFLICT` and replication that rely on it fail.",
        f"Add the new one first, as a unique index; or {BUT_SAY}",
    )  # fmt: skip


def _of_domain(statement: Statement, words: list[str]) -> Iterator[Problem]:
    pairs = list(pairwise(words))
    if ("DROP", "DEFAULT") in pairs:
        yield _default(statement.start, statement)
    elif ("VALIDATE", "CONSTRAINT") in pairs or words[-3:] == ["SET", "NOT", "NULL"]:
        offset, *problem = no_writes(
            statement, "Run it while there are few writes: it reads all tables with a column of this domain."
        )
        yield (statement.start + offset, *problem)  # type: ignore[misc]


def _renamed(statement: Statement, words: list[str], parts: list[Token], new: Objects) -> Iterator[Problem]:
    # The name of a constraint is in no query; squawk reports columns and attributes.
    behind = words[words.index("RENAME") + 1] if "RENAME" in words[:-1] else ""
    if behind == "VALUE" or (behind == "TO" and not new.unused(named(parts))):
        yield _asked(statement)


def _asked(statement: Statement) -> Problem:
    return (
        statement.start, "renames-what-is-used", "danger", f"`{statement.short}`: the application that runs at this moment uses the old name.",
        f"Add the new one beside it, change the application, then drop the old one; or {BUT_SAY}",
    )  # fmt: skip


def _roles(words: list[str], behind: str) -> set[str]:
    """Return the roles that a GRANT or REVOKE names."""
    if behind not in words:
        return set()
    named = words[words.index(behind) + 1 :]
    end = next((at for at, word in enumerate(named) if word in ("WITH", "GRANTED", "CASCADE", "RESTRICT")), len(named))
    return {word for word in named[:end] if word not in (",", "GROUP")}


def _on(parts: list[Token], word: str = "ON") -> tuple[str, ...]:
    """Return the table after ON, of an index or a policy; after TO, of a rule."""
    reader = Reader(parts)
    while not reader.done and not reader.take(word):
        reader.skip()
    reader.take("ONLY")
    return reader.path()


def _unique(at: int, statement: Statement) -> Problem:
    return (
        at, "unique-may-fail", "warning", f"`{statement.short}` fails where two rows have the same values.",
        "Look for duplicates first: `SELECT columns, count(*) FROM table GROUP BY columns HAVING count(*) > 1`.",
    )  # fmt: skip


def _default(at: int, statement: Statement) -> Problem:
    return (
        at, "drops-default", "warning", f"`{statement.short}`: an INSERT that leaves the column out gets NULL, or fails.",
        "Make sure that the application provides a value.",
    )  # fmt: skip


def _used(at: int, statement: Statement, why: str = "whatever uses it fails from then on") -> Problem:
    return (
        at,
        "drops-what-is-used",
        "warning",
        f"`{statement.short}`: {why}.",
        "Make the application stop using it first.",
    )


def _hides(at: int, severity: str, statement: Statement, why: str) -> Problem:
    return (
        at,
        "hides-rows",
        severity,
        f"`{statement.short}`: {why}.",
        "Make sure that this is intended, and create the policy first.",
    )


def _identity(at: int, statement: Statement, why: str) -> Problem:
    return (
        at,
        "changes-identity",
        "warning",
        f"`{statement.short}`: {why}.",
        "Change the application first, and set the sequence beyond the existing rows.",
    )


def _sequence(at: int, statement: Statement) -> Problem:
    return (
        at, "sets-sequence", "warning", f"`{statement.short}`: a number that is too low makes the next INSERT fail.",
        "Compute it from the rows: `SELECT setval('s', (SELECT coalesce(max(id), 0) + 1 FROM t), false)`.",
    )  # fmt: skip


def _meaning(statement: Statement, why: str) -> Problem:
    return (
        statement.start,
        "changes-meaning",
        "warning",
        f"`{statement.short}`: {why}.",
        "Try the application's queries first.",
    )


def _published(at: int, statement: Statement, why: str) -> Problem:
    return (
        at,
        "needs-replica-identity",
        "warning",
        f"`{statement.short}`: {why}.",
        "Give each published table a primary key first.",
    )


def _access(statement: Statement, does: str, at: int | None = None) -> Problem:
    return (
        statement.start if at is None else at, "changes-access", "danger", f"`{statement.short}` {does}.",
        f"Leave rights to provisioning; or {BUT_SAY}",
    )  # fmt: skip


def _off(statement: Statement, does: str, at: int | None = None) -> Problem:
    return (
        statement.start if at is None else at, "switches-off-checks", "danger", f"`{statement.short}` {does}.",
        f"Leave it out; or {BUT_SAY}",
    )  # fmt: skip
