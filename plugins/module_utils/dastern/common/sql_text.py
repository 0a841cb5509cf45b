"""Where the statements of an SQL file begin and end, as far as diagnosis needs it.

Files are always sent to the server whole, so that nothing here decides what is executed. The rules are those of the manual's
"Lexical Structure" chapter and of psql's scanner: quotes, escape strings, dollar quotes, nested comments, parentheses,
and the `BEGIN ATOMIC ... END` body of an SQL-standard function.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice

# String constants that only blanks, comments and a line break separate are one constant. A comment matches in one way
# only, so that no text makes the search slow.
_SPACE, _COMMENT = r"[ \t\n\r\f\v]", r"--[^\n\r]*(?=[\n\r])"
_JOINT = rf"'(?:[ \t\f\v]|{_COMMENT})*[\n\r](?:{_SPACE}|{_COMMENT})*'"
_BETWEEN = rf"(?:{_SPACE}|{_COMMENT}|/\*(?:[^*]|\*(?!/))*\*/)*"
_UESCAPE = rf"{_BETWEEN}(?i:UESCAPE){_BETWEEN}'[^'\"]'"
_STRING = rf"'[^']*(?:(?:''|{_JOINT})[^']*)*(?:'|\Z)"
_IDENT = r'"[^"]*(?:""[^"]*)*(?:"|\Z)'
_TOKEN = re.compile(
    rf"""
    (?P<space>{_SPACE}+|--[^\n\r]*)
  | (?P<block>/\*)
  | (?P<escape>[eE]'(?:[^'\\]|\\.|''|{_JOINT})*(?:'|\Z))
  | (?P<string>{_STRING}|[uU]&{_STRING}(?:{_UESCAPE})?)
  | (?P<ident>{_IDENT}|[uU]&{_IDENT}(?:{_UESCAPE})?)
  | (?P<dollar>\$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$)
  | (?P<word>[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_ENDS_IN_UESCAPE = re.compile(rf"(?<=['\"]){_UESCAPE}\Z")
_CODES = {
    "E": r"\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)",
    "U": r"[0-9A-Fa-f]{4}|\+[0-9A-Fa-f]{6}",
}
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

# Rows as programs write them: inserted constants, and a row that constants change or delete. Each of these matches in
# one way only, so that no text makes the search slow. PostgreSQL cuts longer names, which lint reports.
_CALLED = ("now", "gen_random_uuid")
_BLANK, _GAP = r"[ \t\n\r\f\v]*", r"[ \t\n\r\f\v]+"
_ENDS = r"""(?=[ \t\n\r\f\v"'(),.:;=])"""
_NAME = rf'(?:[A-Za-z_][A-Za-z0-9_$]{{0,62}}{_ENDS}|"[ !#-~]{{1,63}}")'
_PATH = rf"{_NAME}(?:\.{_NAME})?"
_CONSTANT = rf"""(?:
    [+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?!\.){_ENDS}
  | '[^']*(?:''[^']*)*'
  | [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'
  | (?i:NULL|TRUE|FALSE|DEFAULT|CURRENT_TIMESTAMP){_ENDS}
  | (?i:{"|".join(_CALLED)})\(\)
)(?:::{_PATH}(?:\[\])?)?"""
_COLUMNS = rf"\({_BLANK}{_NAME}{_BLANK}(?:,{_BLANK}{_NAME}{_BLANK})*\)"
_TUPLE = rf"\({_BLANK}{_CONSTANT}{_BLANK}(?:,{_BLANK}{_CONSTANT}{_BLANK})*\)"
_IS = rf"{_PATH}{_BLANK}={_BLANK}{_CONSTANT}"
_WHERE = rf"(?i:WHERE){_GAP}(?!(?i:TRUE|FALSE){_ENDS}){_IS}(?:{_GAP}(?i:AND){_GAP}{_IS})*"  # TRUE is no column
_ROW = rf"""
    (?i:INSERT){_GAP}(?i:INTO){_GAP}{_PATH}{_BLANK}(?:{_COLUMNS}{_BLANK})?(?i:VALUES){_BLANK}{_TUPLE}
  | (?i:UPDATE){_GAP}{_PATH}{_GAP}(?i:SET){_GAP}{_IS}(?:{_BLANK},{_BLANK}{_IS})*{_GAP}{_WHERE}
  | (?i:DELETE){_GAP}(?i:FROM){_GAP}{_PATH}{_GAP}{_WHERE}
"""
_FURTHER_ROW = rf"{_BLANK},{_BLANK}{_TUPLE}"
_GIVES = rf"{_NAME}{_BLANK}={_BLANK}(?:(?i:EXCLUDED)\.{_NAME}|{_CONSTANT})"
_END_OF_ROWS = rf"""
    {_BLANK}
    (?: (?i:ON){_GAP}(?i:CONFLICT)(?:{_BLANK}{_COLUMNS}{_BLANK}|{_GAP})(?i:DO){_GAP}
        (?: (?i:NOTHING) | (?i:UPDATE){_GAP}(?i:SET){_GAP}{_GIVES}(?:{_BLANK},{_BLANK}{_GIVES})* )
        {_BLANK}
    )?;
"""
_BEFORE_STATEMENT = re.compile(r"(?:[ \t\n\r\f\v;]+|--[^\n\r]*)*")
_PLAIN = r"[^'\"$;/\\()-]*"
_PIECE = r"""'[^'\\]*'|"[^"]*"|-(?!-)|/(?!\*)"""
_INNER = rf"\({_PLAIN}(?:(?:{_PIECE}){_PLAIN})*\)"
_GROUP = rf"\({_PLAIN}(?:(?:{_PIECE}|{_INNER}){_PLAIN})*\)"
_SIMPLE = re.compile(rf"{_PLAIN}(?:(?:{_PIECE}|{_GROUP}){_PLAIN})*;")
"""A statement without comments, backslashes, dollars and a third level of parentheses. It matches most statements."""
_ADDS = re.compile(r"\badd\b", re.IGNORECASE)
_BEGINS = re.compile("begin", re.IGNORECASE)
_SIMPLE_LENGTH = 4096
_WORDS = 6
_FIRST_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?![A-Za-z0-9_$\u0080-\U0010ffff'])")
_CONTROL = ("BEGIN", "COMMIT", "END", "ABORT", "START", "PREPARE", "ROLLBACK")
_FEW = 1 << 14
"""Shortest text whose search for rows saves time, in characters."""


def tokens(sql: str, position: int = 0) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and character offset of each token of `sql` from `position` on, without blanks and comments.

    The kinds are `word`, `ident`, `string`, `escape`, `dollar` and `other`. A dollar-quoted string is one token.
    """
    while position < len(sql):
        # A pattern can't find the end of a block comment or a dollar quote: the search stops and resumes behind it.
        for match in _TOKEN.finditer(sql, position):
            kind = match.lastgroup or "other"
            if kind == "space":
                continue
            if kind == "block":
                position = _after_block_comment(sql, match.end())
                break
            if kind == "dollar":
                closing = sql.find(match.group(), match.end())
                position = len(sql) if closing < 0 else closing + len(match.group())
                yield kind, sql[match.start() : position], match.start()
                break
            yield kind, match.group(), match.start()
        else:
            return


@dataclass(frozen=True)
class Statement:
    """One statement: `text` without its semicolon, the character offsets `start` and `end`, and `line` from 1."""

    text: str
    start: int
    end: int
    line: int

    @cached_property
    def first(self) -> str:
        """Return the statement's first word, or '' if it has none."""
        word = _FIRST_WORD.match(self.text)
        return word[0].upper() if word else next(iter(self.words), "")

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Return the first unquoted words in upper case, six at most."""
        return tuple(islice((token.upper() for kind, token, _ in tokens(self.text) if kind == "word"), _WORDS))

    @cached_property
    def short(self) -> str:
        """Return at most 60 characters of the statement, in one line."""
        text = " ".join(self.text.split())
        return text if len(text) <= 60 else text[:57] + "..."

    @property
    def transaction_control(self) -> bool:
        """Return whether the statement begins or ends a transaction (savepoints do neither)."""
        if self.first not in _CONTROL:
            return False
        match self.words[:2]:
            case ("BEGIN" | "COMMIT" | "END" | "ABORT", *_) | ("START", "TRANSACTION") | ("PREPARE", "TRANSACTION"):
                return True
            case ("ROLLBACK", *_):
                return "TO" not in self.words[1:3]
        return False


def statements(sql: str) -> list[Statement]:
    """Return the statements of `sql` in order. Like the server, skip empty ones (only comments or blanks)."""
    return list(each_statement(sql))


def each_statement(sql: str) -> Iterator[Statement]:
    """Yield the statements of `sql` in order. A list of a big file's statements would be several times its size."""
    line, counted, position = 1, 0, 0
    while edges := statement_at(sql, position):
        start, end, position = edges
        # Lines are counted from the previous statement on: counting from the start of the file would be quadratic.
        line += sql.count("\n", counted, start)
        counted = start
        yield Statement(sql[start:end], start, end, line)


def statement_at(sql: str, position: int) -> tuple[int, int, int] | None:
    """Return the offsets where the next statement begins and ends, and the one behind its semicolon."""
    before = _BEFORE_STATEMENT.match(sql, position)
    position = before.end() if before else position
    if simple := _SIMPLE.match(sql, position, position + _SIMPLE_LENGTH):
        text = simple[0][:-1].rstrip(" \t\n\r\f\v")
        if text and not (_BEGINS.search(text) and "create" in text.lower()):
            return position, position + len(text), simple.end()
    start: int | None = None
    last = position
    words: list[str] = []
    depth, body, previous = 0, False, ""
    for kind, token, begin in tokens(sql, position):
        if token == ";" and depth <= 0 and not body:
            if start is not None:
                return start, last, begin + 1
            depth = 0
            continue
        if kind == "word":
            word = token.upper()
            if len(words) < _WORDS:
                words.append(word)
            if body:
                # No statement begins with END: elsewhere it belongs to a CASE, or is a name.
                body = word != "END" or previous != ";"
            elif word == "ATOMIC" and previous == "BEGIN" and depth == 0:
                body = words[0] == "CREATE" and bool({"FUNCTION", "PROCEDURE"} & set(words))
                word = ";" if body else word
            previous = word
        else:
            depth += {"(": 1, ")": -1}.get(token, 0)
            previous = token
        if start is None:
            start = begin
        last = begin + len(token)
    return None if start is None else (start, last, len(sql))


@dataclass(frozen=True)
class Outline:
    """The text of a file with blanks in place of most of its rows, so that the rest keeps its lines and columns."""

    text: str
    left_out: int = 0
    """Number of statements that aren't in it."""


def outline(sql: str, least: int = _FEW) -> Outline:
    """Return `sql` without the rows that add nothing to the rows that stay. A short text stays as it is.

    Two of several successive statements on rows stay, and the first row of an INSERT: one statement stays one statement,
    and several stay several. Rows that call a function that the text makes, or hold an enum value that it adds, stay, too.
    """
    if len(sql) < least:
        return Outline(sql)
    runs = list(_runs_of_rows(sql))
    short = _blanked(sql, runs)
    # Where a file makes functions and enum values, the words that stayed name what its rows have to be searched for.
    if needles := set(_matters_in_rows(short.text)):
        runs = [run for run in runs if not _holds(sql[run[0] : run[1]].lower(), needles)]
        short = _blanked(sql, runs)
    return short


def _runs_of_rows(sql: str) -> Iterator[tuple[int, int, int]]:
    """Yield the start and end of each part that may be left out, and how many statements it holds."""
    position = kept = 0
    begun: tuple[int, int, int] | None = None
    while True:
        before = _BEFORE_STATEMENT.match(sql, position)
        assert before is not None  # the empty string matches, too
        position = before.end()
        if begun and (";" in before[0] or "-" in before[0]):
            yield begun
            begun = None
        if ends := _rows(sql, position):
            first, last, position = ends
            kept += 1
            if kept > 2:
                begin, _, number = begun or (before.end(), 0, 0)
                begun = begin, position, number + 1
            elif first < last:
                yield first, last, 0
            continue
        if begun:
            yield begun
        kept, begun = 0, None
        if not (statement := statement_at(sql, position)):
            return
        position = statement[2]


@cache
def _patterns() -> list[re.Pattern[str]]:
    """Return the patterns of rows, compiled when needed: that takes longer than importing the rest of this module."""
    return [re.compile(text, re.VERBOSE | re.DOTALL) for text in (_ROW, _FURTHER_ROW, _END_OF_ROWS)]


def _rows(sql: str, position: int) -> tuple[int, int, int] | None:
    """Return the ends of the first row, the last row and the statement, if a statement at `position` writes rows."""
    row, further_row, end_of_rows = _patterns()
    if not (first := row.match(sql, position)):
        return None
    last = first.end()
    while further := further_row.match(sql, last):
        last = further.end()
    end = end_of_rows.match(sql, last)
    return (first.end(), last, end.end()) if end else None


def _blanked(sql: str, runs: list[tuple[int, int, int]]) -> Outline:
    parts, kept = [], 0
    for begin, end, _ in runs:
        newline = sql.rfind("\n", begin, end)
        lines = sql.count("\n", begin, end)
        parts += [sql[kept:begin], "\n" * lines, " " * (end - max(newline + 1, begin))]
        kept = end
    return Outline("".join([*parts, sql[kept:]]) if runs else sql, sum(number for _, _, number in runs))


def _holds(text: str, needles: Collection[str]) -> bool:
    return any(needle in text for needle in needles)


def _matters_in_rows(text: str) -> Iterator[str]:
    """Yield the calls of functions and the enum values that a text makes, in lower case, as they stand in a row."""
    for statement in each_statement(text):
        makes = statement.first == "CREATE" and {"FUNCTION", "PROCEDURE"} & set(statement.words)
        if makes:
            heading = islice(tokens(statement.text), 12)
            names = [token.strip('"') for kind, token, _ in heading if kind in ("word", "ident")]
            # FUNCTION or PROCEDURE is followed by the name, or by its schema and the name.
            yield from (
                f"{name.lower()}("
                for before in (1, 2)
                for kind, name in zip(names, names[before:], strict=False)
                if kind.upper() in ("FUNCTION", "PROCEDURE") and name.lower() in _CALLED
            )
        alters_type = statement.first == "ALTER" and statement.words[1:2] == ("TYPE",)
        if (makes or alters_type or statement.first == "DO") and _ADDS.search(statement.text):
            yield from (f"'{value}'".lower() for value in _strings(statement.text))


def _strings(text: str, depth: int = 4) -> Iterator[str]:
    """Yield the string constants in a text and in code that is itself such a constant, with quotes doubled."""
    if not depth:
        return
    for kind, token, _ in tokens(text):
        if kind in ("string", "escape", "dollar"):
            value = literal_value(token)
            yield value.replace("'", "''")
            yield from _strings(value, depth - 1)


def psql_commands(sql: str) -> Iterator[tuple[int, str]]:
    """Yield offset and text of psql's own commands, which begin with a backslash outside of quotes and comments."""
    if "\\" not in sql:
        return
    for kind, token, offset in tokens(sql):
        if kind == "other" and token == "\\":
            yield offset, sql[offset:].split("\n", 1)[0].strip()[:60]


def literal_value(token: str) -> str:
    """Return the value of a string constant or of a quoted name."""
    return "".join(value for value, _ in pieces(token))


def pieces(token: str) -> Iterator[tuple[str, str]]:
    """Yield the value of a string constant or quoted name in pieces, each with its spelling within the quotes."""
    if token.startswith("$"):
        edge = token.index("$", 1) + 1
        yield token[edge:-edge], token[edge:-edge]
        return
    escape = "\\"
    if token[0] in "uU" and (clause := _ENDS_IN_UESCAPE.search(token)):
        escape, token = token[-2], token[: clause.start()]
    begin = edge_of(token)
    quote = token[begin - 1]
    for match in _pieces(token[0].upper(), quote, escape).finditer(token, begin, len(token) - 1):
        yield _unescaped(match[0], token[0].upper(), quote, escape), match[0]


def edge_of(token: str) -> int:
    """Return the number of characters in front of the value of a string constant or a quoted name."""
    if token.startswith("$"):
        return token.index("$", 1) + 1
    return {"E": 2, "U": 3}.get(token[0].upper(), 1)


@cache
def _pieces(kind: str, quote: str, escape: str) -> re.Pattern[str]:
    special = re.escape(escape)
    code = {"E": _CODES["E"], "U": rf"{special}(?:{_CODES['U']}|{special})"}.get(kind, r"(?!)")
    other = rf"[^{quote}{special}]+" if kind in "EU" else rf"[^{quote}]+"
    return re.compile(rf"{quote}{quote}|{_JOINT}|{code}|{other}|.", re.DOTALL)


def _unescaped(written: str, kind: str, quote: str, escape: str) -> str:
    """Return the value of one piece of a string constant or a quoted name."""
    if written[0] == quote:
        return quote if written == quote * 2 else ""
    if kind not in "EU" or written[0] != escape or len(written) == 1:
        return written
    code = written[1:]
    if kind == "U":
        return escape if code == escape else _character(code, 16)
    if code[0] in "01234567":
        return _character(code, 8)
    return _character(code[1:], 16) if len(code) > 1 else _CONTROLS.get(code, code)


def _character(number: str, base: int) -> str:
    value = int(number, base)
    return chr(value) if 0 < value < 0xD800 or 0xDFFF < value < 0x110000 else "\N{REPLACEMENT CHARACTER}"


class Places:
    """Lines and columns of a text in which many places are looked up."""

    def __init__(self, sql: str) -> None:
        self._newlines = [match.start() for match in re.finditer("\n", sql)]

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """Return what the function `line_and_column` returns for this text."""
        before = bisect_left(self._newlines, offset)
        return before + 1, offset - (self._newlines[before - 1] if before else -1)


def line_and_column(sql: str, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of the character at `offset` (from 0)."""
    line = sql.count("\n", 0, offset) + 1
    return line, offset - (sql.rfind("\n", 0, offset) + 1) + 1


def _after_block_comment(sql: str, position: int) -> int:
    """Return the offset behind the comment that opened just before `position`. Comments nest in PostgreSQL."""
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position
