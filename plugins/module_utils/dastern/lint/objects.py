"""What a file has made, given another name, and gives a name again: of that the application knows nothing, or nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from ..common.sql_reader import Reader, Token, split, upper
from ..common.sql_text import Statement, tokens

Path = tuple[str, ...]
Object = tuple[str, Path, Path]
"""Kind, name with its schema as it was written, and the table of a policy, trigger or rule."""
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
# One name stands for one of them.
_ALIKE = {
    "VIEW": "TABLE", "MATERIALIZED VIEW": "TABLE", "FOREIGN TABLE": "TABLE", "SEQUENCE": "TABLE", "DOMAIN": "TYPE",
    "PROCEDURE": "FUNCTION", "ROUTINE": "FUNCTION", "AGGREGATE": "FUNCTION", "FOREIGN SERVER": "SERVER",
}  # fmt: skip
_WITHOUT_NAME = ("", "CAST", "OPERATOR", "TRANSFORM", "USER MAPPING")


class Objects:
    """Follows the statements of a file, of which `every` is the list in the order in which they run."""

    def __init__(self, every: Iterable[Statement]) -> None:
        self._made: dict[tuple[str, str], set[Object]] = {}
        self._renamed: set[Object] = set()
        self._given: dict[Object, int] = {}
        """By what a name is given to, how many statements run up to the last one that gives it."""
        self._at = 0
        for at, one in enumerate(every):
            for given in named(list(tokens(one.text))) if one.first in ("CREATE", "ALTER") else ():
                if made := given if one.first == "CREATE" else _renamed_to(one, given):
                    self._given[_public(made)] = at + 1

    def made(self, objects: list[Object]) -> bool:
        """Whether the file has made all of these anew: they have no rights yet, no rows, and nobody uses them."""
        return bool(objects) and all(one in self._made.get(_key(one), ()) for one in objects)

    def unused(self, objects: list[Object]) -> bool:
        """Whether the file has made or renamed all of these, or gives their names again further down."""
        return bool(objects) and all(
            self.made([one]) or _public(one) in self._renamed or self._given.get(_public(one), 0) > self._at
            for one in objects
        )

    def run(self, one: Statement, *, certain: bool) -> None:
        """Follow the next statement; one in code isn't `certain`, it may not run."""
        self._at += 1
        parts = list(tokens(one.text)) if one.first in ("CREATE", "ALTER", "DROP") else []
        objects = named(parts)
        if one.first == "CREATE":
            # What is temporary may be gone again at any time, and its name means something else.
            known = "OR REPLACE" in (words := " ".join(one.words)) or "IF NOT" in words or " TEMP" in words
            for each in objects if certain and not known else ():
                self._made.setdefault(_key(each), set()).add(each)
        elif objects:
            moved = one.first == "DROP" or ("SET", "SCHEMA") in pairwise(upper(parts))
            for each in objects:
                new = _renamed_to(one, each)
                fresh = self.made([each])
                if new or moved:
                    self._made.pop(_key(each), None)
                if new:
                    self._renamed.add(_public(new))
                if new and fresh and certain:
                    self._made.setdefault(_key(new), set()).add(new)
        elif (
            one.first in ("RESET", "DISCARD", "ROLLBACK")
            or (one.first == "SET" and {"ROLE", "AUTHORIZATION"} & set(one.words))
            or "search_path" in one.text.lower()
        ):
            self._made.clear()


def named(parts: list[Token]) -> list[Object]:
    """What a CREATE, ALTER or DROP names; nothing where it is more than a name that tells one from another."""
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
    """What a GRANT or REVOKE is about; nothing where it is all of a schema."""
    reader = Reader(parts)
    while not reader.done and not reader.take("ON"):
        reader.skip()
    behind = [text.upper() for _, text, _ in reader.rest[1:2]]
    # A name may be the word of a kind.
    kind = _kind(reader) if reader.word and behind not in ([], ["."], [","], [until]) else "TABLE"
    rest = reader.rest
    end = next((at for at, (of, text, _) in enumerate(rest) if of == "word" and text.upper() == until), len(rest))
    return [(kind, path, ()) for part in split(rest[:end]) if (path := Reader(part).path())]


def _kind(reader: Reader) -> str:
    several = next((words for words in _SEVERAL_WORDS if reader.take(*words)), ())
    kind = " ".join(several) or reader.word
    if not several:
        reader.skip()
    return _ALIKE.get(kind, kind)


def _renamed_to(one: Statement, old: Object) -> Object | None:
    """What an ALTER ... RENAME TO makes of `old`."""
    if one.first != "ALTER" or "rename" not in one.text.lower():
        return None
    reader = Reader(one.text)
    while not reader.done and not reader.take("RENAME", "TO"):
        reader.skip()
    kind, path, table = old
    return None if reader.done else (kind, (*path[:-1], reader.name()), table)


def _key(one: Object) -> tuple[str, str]:
    return one[0], "".join(one[1][-1:])


def _public(one: Object) -> Object:
    """The same without the schema `public`, which Prisma writes in some statements of a file and not in others."""
    kind, path, table = one
    return kind, path[path[:-1] == ("public",) :], table[table[:-1] == ("public",) :]
