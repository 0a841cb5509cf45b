"""What a chain of migrations says of its tables, as far as lint needs it to know better than a look at one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .sql_reader import Reader, Token, name_of, split
from .sql_text import Statement, statements

Span = tuple[int, int, int]
"""Number of the file, and the offsets in it between which something stands."""
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


def read(files: Sequence[str]) -> History:
    """Read the texts of a chain in order."""
    history = History()
    checks: dict[tuple[str, str], tuple[str, bool]] = {}
    partitioned: set[str] = set()
    for number, sql in enumerate(files):
        for one in statements(sql):
            if one.words[:1] == ("CREATE",):
                _create(history, number, one, partitioned)
            elif one.words[:2] == ("ALTER", "TABLE"):
                _alter(history, number, one, checks)
            elif one.words[:2] == ("DROP", "TABLE"):
                reader = Reader(one.text)
                reader.take("DROP", "TABLE")
                reader.take("IF", "EXISTS")
                for part in split(reader.rest):
                    _forget(Reader(part).name(), checks, partitioned)
    return history


def _create(history: History, number: int, one: Statement, partitioned: set[str]) -> None:
    reader = Reader(one.text)
    reader.take("CREATE")
    if reader.take("TABLE"):
        reader.take("IF", "NOT", "EXISTS")
        name = reader.name()
        words = [text.upper() for kind, text, _ in reader.rest if kind == "word"]
        if ("PARTITION", "BY") in pairwise(words):
            partitioned.add(name)
        return
    reader.take("UNIQUE")
    if not reader.take("INDEX"):
        return
    reader.take("CONCURRENTLY")
    while reader.word and reader.word != "ON":
        reader.skip()
    if not reader.take("ON") and not _quoted_before_on(reader):
        return
    only = reader.take("ONLY")
    if reader.name() in partitioned:
        (history.alone if only else history.partitioned).append((number, one.start, one.end))


def _quoted_before_on(reader: Reader) -> bool:
    """Step over an index name in quotes."""
    while not reader.done and reader.word != "ON":
        reader.skip()
    return reader.take("ON")


def _alter(history: History, number: int, one: Statement, checks: dict[tuple[str, str], tuple[str, bool]]) -> None:
    reader = Reader(one.text)
    reader.take("ALTER", "TABLE")
    reader.take("IF", "EXISTS")
    reader.take("ONLY")
    table = reader.name()
    for part in split(reader.rest):
        if not part:
            continue
        span = (number, one.start + part[0][2], one.start + part[-1][2] + len(part[-1][1]))
        inner = Reader(part)
        if inner.take("RENAME"):
            _forget(table, checks, set())
        elif inner.take("VALIDATE", "CONSTRAINT"):
            name = inner.name()
            if (table, name) in checks:
                checks[table, name] = (checks[table, name][0], True)
        elif inner.take("DROP", "CONSTRAINT"):
            inner.take("IF", "EXISTS")
            checks.pop((table, inner.name()), None)
        elif inner.take("ALTER"):
            inner.take("COLUMN")
            column = inner.name()
            proven = any(of == (column, True) for (on, _), of in checks.items() if on == table)
            if inner.take("SET", "NOT", "NULL") and proven:
                history.proven.append(span)
        elif inner.take("ADD"):
            if inner.take("CONSTRAINT"):
                name = inner.name()
                if inner.take("CHECK") and (column := _not_null(inner)):
                    checks[table, name] = (column, not inner.take("NOT", "VALID"))
            elif _constant_default(part):
                history.constant.append(span)


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


def _forget(table: str, checks: dict[tuple[str, str], tuple[str, bool]], partitioned: set[str]) -> None:
    partitioned.discard(table)
    for key in [key for key in checks if key[0] == table]:
        del checks[key]
