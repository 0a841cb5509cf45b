"""Columns of type varchar that a chain of SQL files makes wider, which neither rewrites nor reads the table.

PostgreSQL manual, "ALTER TABLE", notes: no rewrite where the old type is binary coercible to the new one. A check, an index
on an expression or on some of the rows that names the column would be read anew, so such a column is not counted.
"""

from __future__ import annotations

from .sql_code import with_code
from .sql_reader import Reader, Token, altered, name_of, split
from .sql_text import Statement, each_statement

_UNLIMITED = 1 << 30
Path = tuple[str, ...]


def widened(files: list[str]) -> set[tuple[int, int]]:
    """File number and offset of each TYPE, or SET DATA TYPE, that makes a varchar wider."""
    known: dict[tuple[Path, str], int] = {}
    """How long a column's text can be, by table and column; others aren't known well enough."""
    found: set[tuple[int, int]] = set()
    for number, sql in enumerate(files):
        for top, code in with_code(each_statement(sql)):
            for one in (*code, top):
                found |= {(number, one.start + offset) for offset in _run(one, known)}
    return found


def _run(one: Statement, known: dict[tuple[Path, str], int]) -> list[int]:
    """The offsets of what one statement makes wider."""
    reader = Reader(one.text)
    match one.words:
        case ("CREATE", "TABLE", *_):
            _create_table(reader, known)
        case ("CREATE", "INDEX" | "UNIQUE", *_):
            _create_index(reader, known)
        case ("ALTER", "TABLE", *_):
            return _alter_table(one.text, known)
        case ("DROP", "TABLE", *_):
            reader.take("DROP", "TABLE")
            reader.take("IF", "EXISTS")
            for part in split(reader.rest):
                _forget(known, Reader(part).path())
        case ("DO" | "SET" | "SELECT" | "CALL", *_) | ("ALTER", "SCHEMA", *_):
            # Code may not run, or do more than is read here; a name may mean another table from here on.
            if any(word in one.text.lower() for word in ("alter", "search_path", "schema")):
                known.clear()
    return []


def _create_table(reader: Reader, known: dict[tuple[Path, str], int]) -> None:
    reader.take("CREATE", "TABLE")
    if reader.take("IF", "NOT", "EXISTS"):
        _forget(known, reader.path())
        return
    table = reader.path()
    _forget(known, table)
    for element in sorted(reader.group(), key=_binds):
        _element(table, element, known)


def _create_index(reader: Reader, known: dict[tuple[Path, str], int]) -> None:
    while not reader.done and not reader.take("ON"):
        reader.skip()
    reader.take("ONLY")
    table, rest = reader.path(), reader.rest
    texts = [text.upper() for _, text, _ in rest]
    if "WHERE" in texts or texts.count("(") > 1:
        _forget(known, table, rest)


def _alter_table(text: str, known: dict[tuple[Path, str], int]) -> list[int]:
    table, actions = altered(text)
    found = []
    for action in actions:
        part = Reader(action)
        if part.take("ADD"):
            part.take("COLUMN")
            _element(table, part.rest, known)
            continue
        if part.take("ALTER"):
            part.take("COLUMN")
            column = part.name()
            offset = part.rest[0][2] if part.rest else 0
            if not (part.take("TYPE") or part.take("SET", "DATA", "TYPE")):
                continue
            old, new = known.pop((table, column), None), _length(part)
            # What else is said, USING or COLLATE, may have it all written anew.
            if new is not None and part.done:
                known[table, column] = new
                if old is not None and old <= new:
                    found.append(offset)
        elif part.word in ("RENAME", "DROP", "SET"):
            whole = part.word == "SET" or part.take("RENAME", "TO")
            _forget(known, table, None if whole else action)
    return found


def _element(table: Path, element: list[Token], known: dict[tuple[Path, str], int]) -> None:
    """A column, or something said about columns."""
    if _binds(element):
        _forget(known, table, element)
        return
    reader = Reader(element)
    if reader.word in ("IF", "CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "LIKE"):
        return
    column = reader.name()
    if (length := _length(reader)) is not None:
        known[table, column] = length


def _binds(element: list[Token]) -> bool:
    """Whether it makes a change of the type of a column that it names more than a word in the catalogue."""
    return bool({"CHECK", "GENERATED", "EXCLUDE", "COLLATE"} & {text.upper() for _, text, _ in element})


def _length(reader: Reader) -> int | None:
    """The most characters that the type at hand takes, if it is varchar or text, and nothing else such as an array of them."""
    if reader.take("TEXT"):
        length = _UNLIMITED
    elif reader.take("VARCHAR") or reader.take("CHARACTER", "VARYING"):
        group = reader.group()
        digits = "".join(text for _, text, _ in group[0]) if group else str(_UNLIMITED)
        if not digits.isdecimal():
            return None
        length = int(digits)
    else:
        return None
    return None if not reader.done and (reader.rest[0][1] == "[" or reader.word == "ARRAY") else length


def _forget(known: dict[tuple[Path, str], int], table: Path, of: list[Token] | None = None) -> None:
    """Of the columns that stand among the tokens `of`, or of all, no type is known any more."""
    names = None if of is None else {name_of(token) for token in of}
    for key in [key for key in known if key[0] == table and (names is None or key[1] in names)]:
        del known[key]
