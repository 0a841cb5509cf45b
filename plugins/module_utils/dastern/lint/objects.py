"""Objects that a file creates, renames, or names again: the application doesn't know them, or loses nothing."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from ..common.sql_reader import Reader, Token, split, upper
from ..common.sql_text import Statement, tokens

Path = tuple[str, ...]
Object = tuple[str, Path, Path]
"""Kind, name with its schema as written, and the table of a policy, trigger or rule."""
_HOW = {
    "TEMP",
    "TEMPORARY",
    "LOCAL",
    "GLOBAL",
    "UNLOGGED",
    "RECURSIVE",
    "UNIQUE",
    "CONSTRAINT",
    "TRUSTED",
    "PROCEDURAL",
}
_OF_TABLE = ("POLICY", "TRIGGER", "RULE")
_SEVERAL_WORDS = (
    ("MATERIALIZED", "VIEW"), ("FOREIGN", "TABLE"), ("FOREIGN", "SERVER"), ("FOREIGN", "DATA", "WRAPPER"),
    *(("TEXT", "SEARCH", kind) for kind in ("CONFIGURATION", "DICTIONARY", "PARSER", "TEMPLATE")),
    ("OPERATOR", "CLASS"), ("OPERATOR", "FAMILY"), ("USER", "MAPPING"), ("EVENT", "TRIGGER"), ("ACCESS", "METHOD"),
)  # fmt: skip
# Kinds that share their names.
_ALIKE = {
    "VIEW": "TABLE", "MATERIALIZED VIEW": "TABLE", "FOREIGN TABLE": "TABLE", "SEQUENCE": "TABLE", "DOMAIN": "TYPE",
    "PROCEDURE": "FUNCTION", "ROUTINE": "FUNCTION", "AGGREGATE": "FUNCTION", "FOREIGN SERVER": "SERVER",
}  # fmt: skip
_WITHOUT_NAME = ("", "CAST", "OPERATOR", "TRANSFORM", "USER MAPPING")


class Objects:
    """Objects that the statements of a file create or rename; `every` lists all statements in the order in which they run."""

    def __init__(self, every: Iterable[Statement]) -> None:
        self._made: dict[tuple[str, str], set[Object]] = {}
        self._renamed: set[Object] = set()
        self._given: dict[Object, int] = {}
        """By object that gets a name, the number of statements up to the last one that gives it."""
        self._at = 0
        for at, statement in enumerate(every):
            for new_object in named(list(tokens(statement.text))) if statement.first in ("CREATE", "ALTER") else ():
                if named_object := new_object if statement.first == "CREATE" else _renamed_to(statement, new_object):
                    self._given[_public(named_object)] = at + 1

    def made(self, objects: list[Object]) -> bool:
        """Return whether the file has created all of these: they have no grants and no rows yet, and nobody uses them."""
        return bool(objects) and all(item in self._made.get(_key(item), ()) for item in objects)

    def unused(self, objects: list[Object]) -> bool:
        """Return whether the file has created or renamed all of these, or gives their names again further down."""
        return bool(objects) and all(
            self.made([item]) or _public(item) in self._renamed or self._given.get(_public(item), 0) > self._at
            for item in objects
        )

    def run(self, statement: Statement, *, certain: bool) -> None:
        """Follow the next statement; a statement in code isn't `certain`, because it may not run."""
        self._at += 1
        parts = list(tokens(statement.text)) if statement.first in ("CREATE", "ALTER", "DROP") else []
        objects = named(parts)
        if statement.first == "CREATE":
            # A temporary object may be gone at any time, and then its name means something else.
            known = "OR REPLACE" in (words := " ".join(statement.words)) or "IF NOT" in words or " TEMP" in words
            for item in objects if certain and not known else ():
                self._made.setdefault(_key(item), set()).add(item)
        elif objects:
            moved = statement.first == "DROP" or ("SET", "SCHEMA") in pairwise(upper(parts))
            for item in objects:
                new = _renamed_to(statement, item)
                fresh = self.made([item])
                if new or moved:
                    self._made.pop(_key(item), None)
                if new:
                    self._renamed.add(_public(new))
                if new and fresh and certain:
                    self._made.setdefault(_key(new), set()).add(new)
        elif (
            statement.first in ("RESET", "DISCARD", "ROLLBACK")
            or (statement.first == "SET" and {"ROLE", "AUTHORIZATION"} & set(statement.words))
            or "search_path" in statement.text.lower()
        ):
            self._made.clear()


def named(parts: list[Token]) -> list[Object]:
    """Return the objects that a CREATE, ALTER or DROP names; none of kinds that a name alone doesn't identify."""
    reader = Reader(parts)
    first = reader.word
    reader.skip()
    reader.take("OR", "REPLACE")
    while reader.word in _HOW:
        reader.skip()
    kind = _kind(reader)
    reader.take("CONCURRENTLY")
    if not reader.take("IF", "NOT", "EXISTS"):
        reader.take("IF", "EXISTS")
    if kind in _WITHOUT_NAME or reader.done:
        return []
    if kind not in _OF_TABLE:
        return [
            (kind, path, ())
            for part in (split(reader.rest) if first == "DROP" else [reader.rest])
            if (path := Reader(part).path())
        ]
    name, rest = reader.path(), Reader(reader.rest)
    while not rest.done and not rest.take("TO" if (first, kind) == ("CREATE", "RULE") else "ON"):
        rest.skip()
    return [(kind, name, rest.path())]


def granted(parts: list[Token], until: str) -> list[Object]:
    """Return the objects of a GRANT or REVOKE; none where it is for all objects of a schema."""
    reader = Reader(parts)
    while not reader.done and not reader.take("ON"):
        reader.skip()
    behind = [text.upper() for _, text, _ in reader.rest[1:2]]
    # A name may be the same word as a kind.
    kind = _kind(reader) if reader.word and behind not in ([], ["."], [","], [until]) else "TABLE"
    rest = reader.rest
    end = next(
        (at for at, (token_kind, text, _) in enumerate(rest) if token_kind == "word" and text.upper() == until),
        len(rest),
    )
    return [(kind, path, ()) for part in split(rest[:end]) if (path := Reader(part).path())]


def _kind(reader: Reader) -> str:
    several = next((words for words in _SEVERAL_WORDS if reader.take(*words)), ())
    kind = " ".join(several) or reader.word
    if not several:
        reader.skip()
    return _ALIKE.get(kind, kind)


def _renamed_to(statement: Statement, old: Object) -> Object | None:
    """Return `old` with the name that an ALTER ... RENAME TO gives it."""
    if statement.first != "ALTER" or "rename" not in statement.text.lower():
        return None
    reader = Reader(statement.text)
    while not reader.done and not reader.take("RENAME", "TO"):
        reader.skip()
    kind, path, table = old
    return None if reader.done else (kind, (*path[:-1], reader.name()), table)


def _key(item: Object) -> tuple[str, str]:
    return item[0], "".join(item[1][-1:])


def _public(item: Object) -> Object:
    """Return an object without the schema `public`, which Prisma writes only in some statements of a file."""
    kind, path, table = item
    return kind, path[path[:-1] == ("public",) :], table[table[:-1] == ("public",) :]
