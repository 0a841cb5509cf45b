"""Where the statements of an SQL file begin and end, as far as diagnosis needs it.

Files are always sent to the server whole; nothing here decides what is executed. The rules are those of the manual's
"Lexical Structure" chapter and of psql's scanner: quotes, escape strings, dollar quotes, nested comments, parentheses,
and the `BEGIN ATOMIC ... END` body of an SQL-standard function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n\r]*)
  | (?P<block>/\*)
  | (?P<escape>[eE]'(?:[^'\\]|\\.|''|'[ \t\f\v]*[\n\r]\s*')*(?:'|\Z))
  | (?P<string>'[^']*(?:''[^']*)*(?:'|\Z))
  | (?P<ident>"[^"]*(?:""[^"]*)*(?:"|\Z))
  | (?P<dollar>\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$)
  | (?P<word>[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")


def tokens(sql: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and character offset of each token of `sql`, without blanks and comments.

    The kinds are `word`, `ident`, `string`, `escape`, `dollar` and `other`; a dollar-quoted string is one token.
    """
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        assert match is not None  # `other` takes any character
        kind, start = match.lastgroup or "other", position
        position = match.end()
        if kind in ("space", "comment"):
            continue
        if kind == "block":
            position = _after_block_comment(sql, position)
            continue
        if kind == "dollar":
            closing = sql.find(match.group(), position)
            position = len(sql) if closing < 0 else closing + len(match.group())
        yield kind, sql[start:position], start


@dataclass(frozen=True)
class Statement:
    """One statement: `text` without its semicolon, `start` and `end` as character offsets, `line` from 1."""

    text: str
    start: int
    end: int
    line: int
    words: tuple[str, ...]
    """Its first unquoted words in upper case, six at the most."""

    @property
    def transaction_control(self) -> bool:
        """Whether it begins or ends a transaction (savepoints do neither)."""
        match self.words[:2]:
            case ("BEGIN" | "COMMIT" | "END" | "ABORT", *_) | ("START", "TRANSACTION") | ("PREPARE", "TRANSACTION"):
                return True
            case ("ROLLBACK", *_):
                return "TO" not in self.words[1:3]
        return False


def statements(sql: str) -> list[Statement]:
    """The statements of `sql` in order; empty ones (only comments or blanks) are left out, as the server does."""
    found: list[Statement] = []
    start: int | None = None
    last = 0
    words: list[str] = []
    depth = body = 0
    line, counted = 1, 0

    def found_one(start: int) -> None:
        # Counted onwards from the statement before: from the start of the file it would be quadratic.
        nonlocal line, counted
        line += sql.count("\n", counted, start)
        counted = start
        found.append(Statement(sql[start:last], start, last, line, tuple(words)))

    for kind, token, begin in tokens(sql):
        if token == ";" and depth <= 0 and body <= 0:
            if start is not None:
                found_one(start)
            start, words, depth, body = None, [], 0, 0
            continue
        if kind == "word":
            word = token.upper()
            if len(words) < 6:
                words.append(word)
            if body or (
                word == "BEGIN" and depth == 0 and words[0] == "CREATE" and {"FUNCTION", "PROCEDURE"} & set(words)
            ):
                body += {"BEGIN": 1, "CASE": 1, "END": -1}.get(word, 0)
        elif token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
        if start is None:
            start = begin
        last = begin + len(token)
    if start is not None:
        found_one(start)
    return found


def psql_commands(sql: str) -> Iterator[tuple[int, str]]:
    """Offset and text of what begins with a backslash outside of quotes and comments: to psql it is a command of its own."""
    if "\\" not in sql:
        return
    for kind, token, offset in tokens(sql):
        if kind == "other" and token == "\\":
            yield offset, sql[offset:].split("\n", 1)[0].strip()[:60]


def literal_value(token: str) -> str:
    """The value of a string constant; backslash escapes are left as they are."""
    if token.startswith("$"):
        edge = token.index("$", 1) + 1
        return token[edge:-edge]
    return token[token.index("'") + 1 : -1].replace("''", "'")


def line_and_column(sql: str, offset: int) -> tuple[int, int]:
    """Line and column, both from 1, of the character at `offset` (from 0)."""
    line = sql.count("\n", 0, offset) + 1
    return line, offset - (sql.rfind("\n", 0, offset) + 1) + 1


def _after_block_comment(sql: str, position: int) -> int:
    """The offset behind the comment that opened just before `position`; comments nest in PostgreSQL."""
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position
