"""What a chain of migrations says of its tables, as far as lint needs it to know better than a look at one statement."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .migration_dangers import Made, tables
from .sql_code import with_code
from .sql_reader import Reader, Token, altered, name_of, outside, split, upper
from .sql_text import Statement, each_statement, tokens

Span = tuple[int, int, int]
"""Number of the file, and the offsets in it between which something stands."""
Checks = dict[tuple[str, str], tuple[str, int, int | None]]
"""By table and name of a CHECK that a column is not null: the column, the file that adds it, and the first file for which it is
valid without having been read under the lock of that file's ADD; None while it is NOT VALID."""
_BEHIND_DEFAULT = {
    "CONSTRAINT", "NOT", "UNIQUE", "PRIMARY", "CHECK", "REFERENCES", "COLLATE", "GENERATED", "DEFERRABLE", "INITIALLY",
}  # fmt: skip


@dataclass
class History:
    """What statements of the chain do, given what was there before them."""

    proven: list[Span] = field(default_factory=list)
    """`SET NOT NULL` of a column that a validated CHECK shows to have none: the table isn't read."""
    constant: list[Span] = field(default_factory=list)
    """A column added with a default that is the same in each row: no row is written."""
    partitioned: list[Span] = field(default_factory=list)
    """An index on a partitioned table with its partitions, which can't be built CONCURRENTLY."""
    alone: list[Span] = field(default_factory=list)
    """An index on a partitioned table ONLY: nothing is read."""
    rewritten: list[Span] = field(default_factory=list)
    """A column added whose type is a domain with a constraint: each row is written anew, even without a default."""
    renamed: list[Span] = field(default_factory=list)
    """`ALTER INDEX ... RENAME` of what no file makes as an index: the server renames a table by it, too."""


def read(files: Sequence[str]) -> History:
    """Read the texts of a chain in order."""
    history = History()
    checks: Checks = {}
    partitioned: set[str] = set()
    domains: set[str] = set()
    relations = _Relations()
    for number, sql in enumerate(files):
        made = Made()
        for top, code in with_code(each_statement(sql)):
            for one in (*code, top):
                if relations.renames_another(one) and not made.all_of(tables(one)):
                    history.renamed.append((number, one.start, one.end))
                relations.run(one)
            before = dict(checks)
            for one in code:
                _follow(history, number, one, checks, partitioned, domains, made)
            if code:  # which may not have run: what it takes away counts, what it adds doesn't
                checks = {key: before[key] for key in checks if key in before}
            _follow(history, number, top, checks, partitioned, domains, made)
            made.run(top, code)
    return history


_LONGEST = 63
_IMPLICIT = re.compile(r"_(?:pkey|key|idx|excl)[0-9]*$")


class _Relations:
    """The names of tables and their like, and those of indexes, which are told apart by what makes them; schemas aside."""

    def __init__(self) -> None:
        self._others: set[str] = set()
        self._indexes: set[str] = set()

    def renames_another(self, one: Statement) -> bool:
        """Whether an ALTER INDEX renames what isn't known to be an index."""
        name = self._renamed(one)[0] if one.words[:2] == ("ALTER", "INDEX") else ""
        return name != "" and not self._is_index(name)

    def run(self, one: Statement) -> None:
        if one.first not in ("CREATE", "ALTER", "DROP"):
            return
        reader = Reader(one.text)
        kinds = set(one.words[1:4]) & {"TABLE", "VIEW", "SEQUENCE", "INDEX"}
        while not reader.done and not {reader.word} & kinds:
            reader.skip()
        reader.skip()
        reader.take("CONCURRENTLY")
        reader.take("IF", "NOT", "EXISTS") or reader.take("IF", "EXISTS")
        if not kinds or reader.done:
            return
        if one.first == "DROP":
            names = {Reader(part).name() for part in split(reader.rest)}
            self._others -= names
            self._indexes -= names
        elif one.first == "ALTER":
            old, new = self._renamed(one)
            known = self._indexes if not old or self._is_index(old) else self._others
            known.discard(old)
            known.add(new)
        elif reader.word != "ON":
            (self._indexes if "INDEX" in kinds else self._others).add(reader.name())
        for (_, word, _), behind in pairwise(tokens(one.text)):
            if word.upper() == "CONSTRAINT":
                self._indexes.add(name_of(behind))

    def _is_index(self, name: str) -> bool:
        implicit = _IMPLICIT.search(name) and any(
            name[:at] in self._others for at, letter in enumerate(name[:_LONGEST]) if letter == "_"
        )
        return name not in self._others and (name in self._indexes or bool(implicit))

    def _renamed(self, one: Statement) -> tuple[str, str]:
        """The old and the new name, of a constraint the new one; empty where the statement does something else."""
        reader = Reader(one.text)
        while not reader.done and reader.word != "RENAME":
            reader.skip()
        if reader.take("RENAME", "CONSTRAINT"):
            reader.path()
            return "", reader.name() if reader.take("TO") else ""
        return ("".join(tables(one)[0][-1:]), reader.name()) if reader.take("RENAME", "TO") else ("", "")


def _follow(
    history: History, number: int, one: Statement, checks: Checks, partitioned: set[str], domains: set[str], made: Made
) -> None:
    match one.words:
        case ("CREATE" | "ALTER" | "DROP", "DOMAIN", *_):
            _domain(one, domains)
        case ("CREATE", *_):
            _create(history, number, one, partitioned)
        case ("ALTER", "TABLE", *_):
            _alter(history, number, one, checks, partitioned, set() if made.all_of(tables(one)) else domains)
        case ("DROP", "TABLE", *_):
            reader = Reader(one.text)
            reader.take("DROP", "TABLE")
            reader.take("IF", "EXISTS")
            for part in split(reader.rest):
                _forget(Reader(part).name(), checks, partitioned)


def _domain(one: Statement, domains: set[str]) -> None:
    """Note a domain that has a constraint, as far as it is told."""
    reader = Reader(one.text)
    reader.skip()
    reader.take("DOMAIN")
    reader.take("IF", "EXISTS")
    name = reader.name()
    plain = upper(outside(reader.rest))
    if one.words[0] == "DROP" or (
        one.words[0] == "CREATE" and "CHECK" not in plain and ("NOT", "NULL") not in pairwise(plain)
    ):
        domains.discard(name)
    elif one.words[0] == "CREATE" or plain[:1] == ["ADD"] or plain[:3] == ["SET", "NOT", "NULL"]:
        domains.add(name)
    elif plain[:2] == ["RENAME", "TO"] and name in domains:
        reader.take("RENAME", "TO")
        domains.add(reader.name())


def _create(history: History, number: int, one: Statement, partitioned: set[str]) -> None:
    reader = Reader(one.text)
    reader.take("CREATE")
    if reader.take("TABLE"):
        reader.take("IF", "NOT", "EXISTS")
        name = reader.name()
        partitioned.discard(name)
        if ("PARTITION", "BY") in pairwise(_outside(reader.rest)):
            partitioned.add(name)
        return
    reader.take("UNIQUE")
    if not reader.take("INDEX"):
        return
    while not reader.done and not reader.take("ON"):
        reader.skip()
    only = reader.take("ONLY")
    if reader.name() in partitioned:
        (history.alone if only else history.partitioned).append((number, one.start, one.end))


def _outside(parts: list[Token]) -> list[str]:
    """The words that stand outside of parentheses, up to an AS."""
    words, depth = [], 0
    for kind, text, _ in parts:
        depth += {"(": 1, ")": -1}.get(text, 0)
        if kind == "word" and depth == 0:
            if text.upper() == "AS":
                break
            words.append(text.upper())
    return words


def _alter(
    history: History, number: int, one: Statement, checks: Checks, partitioned: set[str], domains: set[str]
) -> None:
    path, parts = altered(one.text)
    table = path[-1] if path else ""
    for part in parts:  # the server does these before all others of the statement
        inner = Reader(part)
        if inner.take("DROP", "CONSTRAINT"):
            inner.take("IF", "EXISTS")
            checks.pop((table, inner.name()), None)
        elif inner.take("DROP"):
            inner.take("COLUMN")
            inner.take("IF", "EXISTS")
            column = inner.name()
            for key in [key for key, (of, _, _) in checks.items() if key[0] == table and of == column]:
                del checks[key]
    for part in parts:
        span = (number, one.start + part[0][2], one.start + part[-1][2] + len(part[-1][1]))
        inner = Reader(part)
        if inner.take("RENAME"):
            _renamed(inner, table, checks, partitioned)
        elif inner.take("VALIDATE", "CONSTRAINT"):
            key = (table, inner.name())
            if key in checks and checks[key][2] is None:
                column, added, _ = checks[key]
                checks[key] = (column, added, max(number, added + 1))
        elif inner.take("ALTER"):
            inner.take("COLUMN")
            column = inner.name()
            valid = [since for (on, _), (of, _, since) in checks.items() if (on, of) == (table, column)]
            if inner.take("SET", "NOT", "NULL") and any(since is not None and since <= number for since in valid):
                history.proven.append(span)
        elif inner.take("ADD"):
            if inner.take("CONSTRAINT"):
                name = inner.name()
                if inner.take("CHECK") and (column := _not_null(inner)):
                    checks[table, name] = (column, number, None if inner.take("NOT", "VALID") else number + 1)
            else:
                if _constant_default(part):
                    history.constant.append(span)
                if _type(inner) in domains:
                    history.rewritten.append(span)


def _renamed(reader: Reader, table: str, checks: Checks, partitioned: set[str]) -> None:
    """What is known of a table goes with its new name; of a renamed column or constraint nothing is known."""
    if not reader.take("TO"):
        for key in [key for key in checks if key[0] == table]:
            del checks[key]
        return
    name = reader.name()
    _forget(name, checks, partitioned)
    if table in partitioned:
        partitioned.discard(table)
        partitioned.add(name)
    for key in [key for key in checks if key[0] == table]:
        checks[name, key[1]] = checks.pop(key)


def _not_null(reader: Reader) -> str:
    """The column of `(column IS NOT NULL)`; empty where the CHECK says something else."""
    groups = reader.group()
    parts = groups[0] if len(groups) == 1 else []
    while len(parts) > 2 and parts[0][1] == "(" and parts[-1][1] == ")":
        parts = parts[1:-1]
    words = [text.upper() for _, text, _ in parts[1:]]
    return name_of(parts[0]) if words == ["IS", "NOT", "NULL"] else ""


def _constant_default(part: list[Token]) -> bool:
    """Whether a column that is added has a default without a call: what is written there counts once, for all rows."""
    expression = list(_default(part))
    return bool(expression) and not any(
        kind in ("word", "ident") and behind[1] == "(" and before[1] != ":"
        for before, (kind, _, _), behind in zip([("", "", 0), *expression], expression, expression[1:], strict=False)
    )


def _type(reader: Reader) -> str:
    """The type of a column that is added; empty for an array."""
    reader.take("COLUMN")
    reader.take("IF", "NOT", "EXISTS")
    reader.name()
    name = reader.name()
    return "" if not reader.done and (reader.rest[0][1] == "[" or reader.word == "ARRAY") else name


def _default(part: list[Token]) -> Iterator[Token]:
    """The tokens between DEFAULT and the next constraint of the column."""
    words = [text.upper() if kind == "word" else text for kind, text, _ in part]
    if "DEFAULT" not in words or "GENERATED" in words:
        return
    depth = 0
    for at in range(words.index("DEFAULT") + 1, len(part)):
        depth += {"(": 1, ")": -1}.get(words[at], 0)
        if depth == 0 and words[at] in _BEHIND_DEFAULT:
            return
        yield part[at]


def _forget(table: str, checks: Checks, partitioned: set[str]) -> None:
    partitioned.discard(table)
    for key in [key for key in checks if key[0] == table]:
        del checks[key]
