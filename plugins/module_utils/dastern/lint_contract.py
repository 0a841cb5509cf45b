"""Statements that break what the running application counts on: names, rights, checks, and what bounds a wait.

No row is lost by them, and nobody waits: the application meets something else than it was written for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from .migration_dangers import BUT_SAY, Made, Said, short, tables
from .sql_reader import Reader, Token, split
from .sql_text import Statement, inner_statements, tokens

RULES = (
    "changes-access",
    "converts-time",
    "drops-primary-key",
    "drops-default",
    "drops-what-is-used",
    "renames-what-is-used",
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
}
_KINDS = _CODE | {
    "MATERIALIZED", "TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED", "TABLE", "POLICY", "SCHEMA", "UNIQUE", "INDEX", "CONCURRENTLY",
}  # fmt: skip
_SPOKEN_OF = {"ALTER", "DROP", "GRANT", "REVOKE", "SET", "CREATE", "SELECT", "PERFORM"}
"""What the statements begin with that `_of_statement` knows."""
_NAMED = {"VIEW", "FUNCTION", "PROCEDURE", "ROUTINE", "SEQUENCE", "TYPE", "DOMAIN"}
_WAITS = re.compile(
    r"^\s*SET\s+(?:LOCAL\s+|SESSION\s+)?(lock_timeout|statement_timeout|transaction_timeout)\s*(?:=|\bTO\b)\s*'?0\w*'?\s*$",
    re.IGNORECASE,
)
_SET_DEFAULT = re.compile(r'\bALTER\s+(?:COLUMN\s+)?("(?:[^"]|"")+"|\w+)\s+SET\s+DEFAULT\b', re.IGNORECASE)
_TO_ZONED = re.compile(r"\bTYPE\s+(?:timestamptz|timestamp\s*(?:\(\s*\d\s*\)\s*)?with\s+time\s+zone)", re.IGNORECASE)
_ZONE = re.compile(r"\bAT\s+TIME\s+ZONE\b", re.IGNORECASE)


def contract(found: Sequence[Statement], made: Made) -> Iterator[Said]:
    """What the rules of this module find in the statements of a file, and in its DO blocks as far as they are literal."""
    new = _names_of(found)
    given = {column for one in found for column in _SET_DEFAULT.findall(one.text)}
    for one in found:
        for inner in (one, *inner_statements(one)):
            if inner.first in _SPOKEN_OF:
                yield from _of_statement(inner, list(tokens(inner.text)), made, new, given)
        made.run(one)


def _of_statement(one: Statement, parts: list[Token], made: Made, new: set[str], given: set[str]) -> Iterator[Said]:
    words = [text.upper() if kind == "word" else text for kind, text, _ in parts]
    match words:
        case ["ALTER", "TABLE", *_]:
            if not made.all_of(tables(one)):
                for part in split(parts):
                    yield from _of_action(one, part, given)
        case ["ALTER", noun, *_] if noun in (*_NAMED, "MATERIALIZED", "SCHEMA"):
            yield from _renamed(one, words, new)
            if ("OWNER", "TO") in pairwise(words) and _subject(parts) not in new:
                yield _access(one, "gives it to another owner")
        case ["DROP", "POLICY", *_] if _subject(parts) not in new:
            yield _access(one, "drops a policy: rows that it let through are hidden, or those that it hid are shown")
        case ["DROP", noun, *_] if noun in (*_CODE, "MATERIALIZED") and words[-1] != "CASCADE":
            if _subject(parts) not in new:
                yield (
                    one.start, "drops-what-is-used", "warning", f"`{short(one)}`: whatever asks for it fails from then on.",
                    "Let the application stop using it first.",
                )  # fmt: skip
        case ["GRANT", *_] if "PUBLIC" in _roles(words, "TO") and not _of_new(parts, "TO", new):
            yield _access(one, "opens it to every role that can connect")
        case ["REVOKE", *_] if _roles(words, "FROM") - {"PUBLIC"} and not _of_new(parts, "FROM", new):
            yield _access(one, "takes a right away that the application may need")
        case ["ALTER", "DEFAULT", "PRIVILEGES", *_] if "GRANT" in words and "PUBLIC" in _roles(words, "TO"):
            yield _access(one, "opens what is made later to every role that can connect")
        case ["SET", *_] if "SESSION_REPLICATION_ROLE" in words:
            yield _off(one, "switches off triggers and foreign keys")
        case ["SET", *_] if hit := _WAITS.match(one.text):
            yield (
                one.start, "unbounded-wait", "warning", f"`{short(one)}` takes away {hit[1]}: what waits here blocks everybody behind it.",
                "Leave it out; `migrations_lock_timeout` and `migrations_statement_timeout` set the bounds of a run.",
            )  # fmt: skip
        case ["CREATE", "UNIQUE", "INDEX", *_] if not made.all_of([_indexed(parts)]):
            yield _unique(one.start, one)
        case ["SELECT" | "PERFORM", *_] if "SETVAL" in words and "MAX" not in words:
            yield (
                one.start, "sets-sequence", "warning", f"`{short(one)}`: a number that is too low makes the next INSERT fail.",
                "Compute it from the rows: `SELECT setval('s', (SELECT coalesce(max(id), 0) + 1 FROM t), false)`.",
            )  # fmt: skip


def _of_action(one: Statement, part: list[Token], given: set[str]) -> Iterator[Said]:
    """What an action of ALTER TABLE does; `given` are columns to which the file gives a default, as Prisma does anew."""
    words = [text.upper() if kind == "word" else text for kind, text, _ in part]
    at = one.start + (part[0][2] if part else 0)
    joined = " ".join(words)
    text = one.text[part[0][2] : part[-1][2] + len(part[-1][1])] if part else ""
    if "DISABLE ROW LEVEL SECURITY" in joined or "NO FORCE ROW LEVEL SECURITY" in joined:
        yield _off(one, "shows all rows to every role with the right to read", at)
    elif "DISABLE TRIGGER" in joined or "DISABLE RULE" in joined:
        yield _off(one, "switches off what keeps the rows right", at)
    elif "OWNER TO" in joined:
        yield _access(one, "gives it to another owner", at)
    elif re.search(r'DROP CONSTRAINT (?:IF EXISTS )?"?\w*_PKEY\b', joined, re.IGNORECASE):
        yield (
            at, "drops-primary-key", "danger", f"`{short(one)}` drops a primary key: rows can be doubled, and `ON CONFLICT` and "
            "replication that count on it fail.", f"Add the new one first, as a unique index; or {BUT_SAY}",
        )  # fmt: skip
    elif "DROP DEFAULT" in joined and not any(text in given for _, text, _ in part):
        yield (
            at, "drops-default", "warning", f"`{short(one)}`: an INSERT that leaves the column out gets NULL, or fails.",
            "Make sure that the application gives it.",
        )  # fmt: skip
    elif re.search(r"\bADD (?:CONSTRAINT \S+ )?UNIQUE \(", joined):
        yield _unique(at, one)
    elif _TO_ZONED.search(text) and not _ZONE.search(text):
        yield (
            at, "converts-time", "danger", f"`{short(one)}` reads times without a zone in the zone of whoever runs the migration.",
            "Say which zone they are in: `USING column AT TIME ZONE 'UTC'` (Prisma writes UTC).",
        )  # fmt: skip


def _renamed(one: Statement, words: list[str], new: set[str]) -> Iterator[Said]:
    if "RENAME" not in words:
        return
    reader = Reader(one.text)
    reader.skip()
    while reader.word in (*_NAMED, "MATERIALIZED"):
        reader.skip()
    reader.take("IF", "EXISTS")
    if reader.name() in new and "VALUE" not in words:
        return
    yield (
        one.start, "renames-what-is-used", "danger", f"`{short(one)}`: the application that runs at this moment asks for the old name.",
        f"Add the new one beside it, change the application, then drop the old one; or {BUT_SAY}",
    )  # fmt: skip


def _names_of(found: Sequence[Statement]) -> set[str]:
    """Names that a file makes, gives, or gives again: as Prisma does where an enum loses a value."""
    names: set[str] = set()
    for one in found:
        if one.first not in ("CREATE", "ALTER"):
            continue
        reader = Reader(one.text)
        if reader.take("CREATE"):
            reader.take("OR", "REPLACE")
            while reader.word in _KINDS:
                reader.skip()
            reader.take("IF", "NOT", "EXISTS")
            names.add(reader.name())
        elif one.first == "ALTER":
            while not reader.done and not reader.take("RENAME", "TO"):
                reader.skip()
            if not reader.done:
                names.add(reader.name())
    return names


def _subject(parts: list[Token]) -> str:
    """What a statement of ALTER or DROP names."""
    reader = Reader(parts)
    reader.skip()
    while reader.word in _KINDS:
        reader.skip()
    reader.take("IF", "EXISTS")
    return reader.name()


def _roles(words: list[str], behind: str) -> set[str]:
    """The roles that a GRANT or REVOKE names."""
    if behind not in words:
        return set()
    named = words[words.index(behind) + 1 :]
    end = next((at for at, word in enumerate(named) if word in ("WITH", "GRANTED", "CASCADE", "RESTRICT")), len(named))
    return {word for word in named[:end] if word not in (",", "GROUP")}


def _of_new(parts: list[Token], until: str, new: set[str]) -> bool:
    """Whether all that a GRANT or REVOKE is about was made by the file itself."""
    reader = Reader(parts)
    while not reader.done and not reader.take("ON"):
        reader.skip()
    while reader.word in _KINDS:
        reader.skip()
    rest = reader.rest
    end = next((at for at, (kind, text, _) in enumerate(rest) if kind == "word" and text.upper() == until), len(rest))
    names = [Reader(part).name() for part in split(rest[:end])]
    return bool(names) and all(name in new for name in names)


def _indexed(parts: list[Token]) -> tuple[str, ...]:
    reader = Reader(parts)
    while not reader.done and not reader.take("ON"):
        reader.skip()
    reader.take("ONLY")
    return reader.path()


def _unique(at: int, one: Statement) -> Said:
    return (
        at, "unique-may-fail", "warning", f"`{short(one)}` fails where two rows have the same.",
        "Look for them first: `SELECT columns, count(*) FROM table GROUP BY columns HAVING count(*) > 1`.",
    )  # fmt: skip


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
