"""Columns of type varchar or numeric that a chain of SQL files makes wider, which neither rewrites nor reads the table.

PostgreSQL manual, "ALTER TABLE", notes: there is no rewrite where the old type is binary coercible to the new one, or where a
numeric gets more digits with the same number after the point. A check, or an index on an expression or on some of the rows,
that names the column would be checked or built again, so such a column doesn't count.
"""

from __future__ import annotations

from ..common.sql_code import with_code
from ..common.sql_reader import Reader, Token, altered, name_of, split
from ..common.sql_text import Statement, each_statement

_UNLIMITED = 1 << 30
Path = tuple[str, ...]
Size = tuple[str, int]
"""The form of a type's values, and their maximum length."""
Known = dict[tuple[Path, str], Size]


def widened(files: list[str]) -> set[tuple[int, int]]:
    """Return file number and offset of each TYPE, or SET DATA TYPE, that makes a varchar or a numeric wider."""
    known: Known = {}
    """Sizes by table and column; other columns' types aren't known well enough."""
    places: set[tuple[int, int]] = set()
    for number, sql in enumerate(files):
        for top, code in with_code(each_statement(sql)):
            for statement in (*code, top):
                places |= {(number, statement.start + offset) for offset in _run(statement, known)}
    return places


def _run(statement: Statement, known: Known) -> list[int]:
    """Return the offsets of the types that one statement makes wider."""
    reader = Reader(statement.text)
    match statement.words:
        case ("CREATE", "TABLE", *_):
            _create_table(reader, known)
        case ("CREATE", "INDEX" | "UNIQUE", *_):
            _create_index(reader, known)
        case ("ALTER", "TABLE", *_):
            return _alter_table(statement.text, known)
        case ("DROP", "TABLE", *_):
            reader.take("DROP", "TABLE")
            reader.take("IF", "EXISTS")
            for part in split(reader.rest):
                _forget(known, Reader(part).path())
        case ("DO" | "SET" | "SELECT" | "CALL", *_) | ("ALTER", "SCHEMA", *_):
            # Code may not run, or may do more than is read here; from here on a name may mean another table.
            if any(word in statement.text.lower() for word in ("alter", "search_path", "schema")):
                known.clear()
    return []


def _create_table(reader: Reader, known: Known) -> None:
    reader.take("CREATE", "TABLE")
    if reader.take("IF", "NOT", "EXISTS"):
        _forget(known, reader.path())
        return
    table = reader.path()
    _forget(known, table)
    for element in sorted(reader.group(), key=_binds):
        _element(table, element, known)


def _create_index(reader: Reader, known: Known) -> None:
    while not reader.done and not reader.take("ON"):
        reader.skip()
    reader.take("ONLY")
    table, rest = reader.path(), reader.rest
    texts = [text.upper() for _, text, _ in rest]
    if "WHERE" in texts or texts.count("(") > 1:
        _forget(known, table, rest)


def _alter_table(text: str, known: Known) -> list[int]:
    table, actions = altered(text)
    offsets = []
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
            old, new = known.pop((table, column), None), _size(part)
            # Other clauses, USING or COLLATE, may rewrite the table.
            if new is not None and part.done:
                known[table, column] = new
                if old is not None and _holds(new, old):
                    offsets.append(offset)
        elif part.word in ("RENAME", "DROP", "SET"):
            whole = part.word == "SET" or part.take("RENAME", "TO")
            _forget(known, table, None if whole else action)
    return offsets


def _element(table: Path, element: list[Token], known: Known) -> None:
    """Follow a column, or a constraint on columns."""
    if _binds(element):
        _forget(known, table, element)
        return
    reader = Reader(element)
    if reader.word in ("IF", "CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "LIKE"):
        return
    column = reader.name()
    if (size := _size(reader)) is not None:
        known[table, column] = size


def _binds(element: list[Token]) -> bool:
    """Return whether a change of the type of a column that the element names is more than a change in the catalogue."""
    return bool({"CHECK", "GENERATED", "EXCLUDE", "COLLATE"} & {text.upper() for _, text, _ in element})


def _size(reader: Reader) -> Size | None:
    """Return the size of the next type if it is varchar, text or numeric, and no array of these."""
    kind, limits = "text", [str(_UNLIMITED)]
    if reader.take("VARCHAR") or reader.take("CHARACTER", "VARYING"):
        limits = _limits(reader) or limits
    elif reader.take("NUMERIC") or reader.take("DECIMAL"):
        kind = "numeric"
        if numbers := _limits(reader):
            limits, kind = numbers[:1], f"numeric, {','.join(numbers[1:]) or '0'} after the point"
    elif not reader.take("TEXT"):
        return None
    if len(limits) != 1 or not limits[0].isdecimal() or len(limits[0]) > 10:
        return None
    return None if not reader.done and (reader.rest[0][1] == "[" or reader.word == "ARRAY") else (kind, int(limits[0]))


def _limits(reader: Reader) -> list[str]:
    return ["".join(text for _, text, _ in part) for part in reader.group()]


def _holds(new: Size, old: Size) -> bool:
    """Return whether each value of the size `old` is, unchanged, a value of the size `new`."""
    free = new == ("numeric", _UNLIMITED) and old[0].startswith("numeric")
    return old[1] <= new[1] and (old[0] == new[0] or free)


def _forget(known: Known, table: Path, tokens: list[Token] | None = None) -> None:
    """Forget the types of the columns among `tokens`, or of all columns."""
    names = None if tokens is None else {name_of(token) for token in tokens}
    for key in [key for key in known if key[0] == table and (names is None or key[1] in names)]:
        del known[key]
