"""Where the statements of an SQL file begin and end, as far as diagnosis needs it.

Files are always sent to the server whole; nothing here decides what is executed. The rules are those of the manual's
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

# String constants separated only by blanks, comments and a line break are one constant. A comment matches in one way only, so
# that no text makes the search slow.
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

# Rows as programs write them: constants that are inserted, and one row that is changed or deleted by constants. There is one way
# to match each of these, so that no text makes the search slow. A longer name is cut by PostgreSQL, which lint reports.
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
"""A statement without comments, backslashes, dollars, and parentheses within those within others: most of them, found by one look."""
_ADDS = re.compile(r"\badd\b", re.IGNORECASE)
_BEGINS = re.compile("begin", re.IGNORECASE)
_SIMPLE_LENGTH = 4096
_WORDS = 6
_FIRST_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?![A-Za-z0-9_$\u0080-\U0010ffff'])")
_CONTROL = ("BEGIN", "COMMIT", "END", "ABORT", "START", "PREPARE", "ROLLBACK")
_FEW = 1 << 14
"""How long a text has to be before a look for its rows saves time."""


def tokens(sql: str, position: int = 0) -> Iterator[tuple[str, str, int]]:
    """Kind, text and character offset of each token of `sql` from `position` on, without blanks and comments.

    The kinds are `word`, `ident`, `string`, `escape`, `dollar` and `other`; a dollar-quoted string is one token.
    """
    while position < len(sql):
        # What a pattern can't tell the end of stops the search, which goes on behind it.
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
    """One statement: `text` without its semicolon, `start` and `end` as character offsets, `line` from 1."""

    text: str
    start: int
    end: int
    line: int

    @cached_property
    def first(self) -> str:
        """The first of its words, empty where there is none."""
        word = _FIRST_WORD.match(self.text)
        return word[0].upper() if word else next(iter(self.words), "")

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Its first unquoted words in upper case, six at the most."""
        return tuple(islice((token.upper() for kind, token, _ in tokens(self.text) if kind == "word"), _WORDS))

    @cached_property
    def short(self) -> str:
        """At most 60 characters of it in one line."""
        text = " ".join(self.text.split())
        return text if len(text) <= 60 else text[:57] + "..."

    @property
    def transaction_control(self) -> bool:
        """Whether it begins or ends a transaction (savepoints do neither)."""
        if self.first not in _CONTROL:
            return False
        match self.words[:2]:
            case ("BEGIN" | "COMMIT" | "END" | "ABORT", *_) | ("START", "TRANSACTION") | ("PREPARE", "TRANSACTION"):
                return True
            case ("ROLLBACK", *_):
                return "TO" not in self.words[1:3]
        return False


def statements(sql: str) -> list[Statement]:
    """The statements of `sql` in order; empty ones (only comments or blanks) are left out, as the server does."""
    return list(each_statement(sql))


def each_statement(sql: str) -> Iterator[Statement]:
    """The statements of `sql` in order, one at a time: a list of those of a big file is several times its size."""
    line, counted, position = 1, 0, 0
    while found := statement_at(sql, position):
        start, end, position = found
        # Counted onwards from the statement before: from the start of the file it would be quadratic.
        line += sql.count("\n", counted, start)
        counted = start
        yield Statement(sql[start:end], start, end, line)


def statement_at(sql: str, position: int) -> tuple[int, int, int] | None:
    """Where the next statement begins and ends, and the offset behind its semicolon."""
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
    """The text of a file with blanks for most of its rows, so that the rest stays in its lines and columns."""

    text: str
    left_out: int = 0
    """How many statements aren't in it."""


def outline(sql: str, least: int = _FEW) -> Outline:
    """`sql` without the rows that say nothing which isn't said by those that stay; a short text stays as it is.

    Of statements on rows that follow each other two stay, and of an INSERT its first row: a text keeps one statement, or
    several. Rows that call a function that the text makes, or hold an enum value that it adds, stay as well.
    """
    if len(sql) < least:
        return Outline(sql)
    runs = list(_runs_of_rows(sql))
    short = _blanked(sql, runs)
    # Where a file makes functions and enum values, these few words of it say what its rows have to be searched for.
    if needles := set(_matters_in_rows(short.text)):
        runs = [run for run in runs if not _holds(sql[run[0] : run[1]].lower(), needles)]
        short = _blanked(sql, runs)
    return short


def _runs_of_rows(sql: str) -> Iterator[tuple[int, int, int]]:
    """What may be left out, from where to where, and how many statements that are."""
    position = kept = 0
    begun: tuple[int, int, int] | None = None
    while True:
        before = _BEFORE_STATEMENT.match(sql, position)
        assert before is not None  # nothing, too
        position = before.end()
        if begun and (";" in before[0] or "-" in before[0]):
            yield begun
            begun = None
        if found := _rows(sql, position):
            first, last, position = found
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
    """Compiled where they are needed: it takes longer than the import of all else here."""
    return [re.compile(text, re.VERBOSE | re.DOTALL) for text in (_ROW, _FURTHER_ROW, _END_OF_ROWS)]


def _rows(sql: str, position: int) -> tuple[int, int, int] | None:
    """Where the first of the rows ends that a statement at `position` writes, where the last one, and the statement itself."""
    a_row, further_row, end_of_rows = _patterns()
    if not (first := a_row.match(sql, position)):
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
    """Calls of functions, and enum values, that a text makes; in lower case as they stand in a row."""
    for one in each_statement(text):
        makes = one.first == "CREATE" and {"FUNCTION", "PROCEDURE"} & set(one.words)
        if makes:
            names = [token.strip('"') for kind, token, _ in islice(tokens(one.text), 12) if kind in ("word", "ident")]
            # Behind that word stands the name, or its schema and the name.
            yield from (
                f"{name.lower()}("
                for before in (1, 2)
                for kind, name in zip(names, names[before:], strict=False)
                if kind.upper() in ("FUNCTION", "PROCEDURE") and name.lower() in _CALLED
            )
        if (makes or one.first == "DO" or (one.first == "ALTER" and one.words[1:2] == ("TYPE",))) and _ADDS.search(
            one.text
        ):
            yield from (f"'{value}'".lower() for value in _strings(one.text))


def _strings(text: str, depth: int = 4) -> Iterator[str]:
    """The constants in a text, and those in the code that is such a constant; quotes are doubled as in a text."""
    if not depth:
        return
    for kind, token, _ in tokens(text):
        if kind in ("string", "escape", "dollar"):
            value = literal_value(token)
            yield value.replace("'", "''")
            yield from _strings(value, depth - 1)


def psql_commands(sql: str) -> Iterator[tuple[int, str]]:
    """Offset and text of what begins with a backslash outside of quotes and comments: to psql it is a command of its own."""
    if "\\" not in sql:
        return
    for kind, token, offset in tokens(sql):
        if kind == "other" and token == "\\":
            yield offset, sql[offset:].split("\n", 1)[0].strip()[:60]


def literal_value(token: str) -> str:
    """Return the value of a string constant or a quoted name."""
    return "".join(value for value, _ in pieces(token))


def pieces(token: str) -> Iterator[tuple[str, str]]:
    """Split the value of a string constant or a quoted name into pieces, each with its spelling between the outer quotes."""
    if token.startswith("$"):
        edge = token.index("$", 1) + 1
        yield token[edge:-edge], token[edge:-edge]
        return
    escape = "\\"
    if token[0] in "uU" and (said := _ENDS_IN_UESCAPE.search(token)):
        escape, token = token[-2], token[: said.start()]
    begin = edge_of(token)
    quote = token[begin - 1]
    for match in _pieces(token[0].upper(), quote, escape).finditer(token, begin, len(token) - 1):
        yield _meant(match[0], token[0].upper(), quote, escape), match[0]


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


def _meant(written: str, kind: str, quote: str, escape: str) -> str:
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
    """Lines and columns of one text that is asked for many of them."""

    def __init__(self, sql: str) -> None:
        self._newlines = [match.start() for match in re.finditer("\n", sql)]

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """What `line_and_column` gives for this text."""
        before = bisect_left(self._newlines, offset)
        return before + 1, offset - (self._newlines[before - 1] if before else -1)


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
