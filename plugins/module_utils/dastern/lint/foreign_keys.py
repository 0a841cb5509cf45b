"""Foreign keys that a chain of SQL files leaves without an index, found in the files alone.

Deleting or changing a row of the table that a foreign key points to reads the whole pointing table where no index
begins with the key's columns (PostgreSQL manual, "Constraints", foreign keys). `CREATE`, `ALTER` and `DROP` of tables and
indexes are read, also in code that the file runs, as far as it is literal; schemas are not distinguished.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace

from ..common.sql_code import with_code
from ..common.sql_reader import Reader, Token, altered, name_of, split
from ..common.sql_text import each_statement

_PLAIN_INDEXES = ("BTREE", "HASH")


@dataclass(frozen=True)
class Place:
    """A place in the chain: the number of the file and the character offset in it."""

    file: int
    offset: int


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key; `place` is where it was created, or, if it `lost` its index, where that was dropped."""

    name: str
    table: str
    columns: tuple[str, ...]
    place: Place
    lost: bool = False


@dataclass(frozen=True)
class _Index:
    name: str
    columns: tuple[str | None, ...]
    """None stands for an expression."""

    def serves(self, key: ForeignKey) -> bool:
        return set(self.columns[: len(key.columns)]) == set(key.columns)


def without_index(files: list[str]) -> list[ForeignKey]:
    """Return the foreign keys that have no index after all of `files` (in order) have run."""
    catalogue = _Catalogue()
    for number, sql in enumerate(files):
        for statement in (inner for top, code in with_code(each_statement(sql)) for inner in (top, *code)):
            catalogue.run(statement.words, statement.text, Place(number, statement.start))
    return [key for key in catalogue.keys if not catalogue.served(key)]


class _Catalogue:
    """Foreign keys and indexes of tables, as far as the statements so far show."""

    def __init__(self) -> None:
        self.keys: list[ForeignKey] = []
        self.indexes: defaultdict[str, list[_Index]] = defaultdict(list)
        """Indexes by table: with a thousand tables, searching one list for each key would take minutes."""

    def served(self, key: ForeignKey) -> bool:
        return any(index.serves(key) for index in self.indexes[key.table])

    def run(self, words: tuple[str, ...], text: str, place: Place) -> None:
        served = [key for key in self.keys if self.served(key)] if re.search(r"\bdrop\b", text, re.IGNORECASE) else []
        match words:
            case ("CREATE", *rest) if "TABLE" in rest[:3]:
                self._create_table(Reader(text), place)
            case ("CREATE", *rest) if "INDEX" in rest[:2]:
                self._create_index(Reader(text))
            case ("ALTER", "TABLE", *_):
                self._alter_table(text, place)
            case ("ALTER", "INDEX", *_):
                self._rename_index(Reader(text))
            case ("DROP", "INDEX" | "TABLE", *_):
                self._drop(Reader(text), words[1])
        if lost := {id(key) for key in served if not self.served(key)}:
            self.keys = [replace(key, place=place, lost=True) if id(key) in lost else key for key in self.keys]

    def _create_table(self, reader: Reader, place: Place) -> None:
        while not reader.take("TABLE"):
            reader.skip()
        reader.take("IF", "NOT", "EXISTS")
        table = reader.name()
        for element in reader.group():
            self._element(table, element, place)

    def _create_index(self, reader: Reader) -> None:
        reader.take("CREATE")
        reader.take("UNIQUE")
        reader.take("INDEX")
        reader.take("CONCURRENTLY")
        reader.take("IF", "NOT", "EXISTS")
        name = "" if reader.take("ON") else reader.name()
        if name:
            reader.take("ON")
        reader.take("ONLY")
        table = reader.name()
        method = reader.name().upper() if reader.take("USING") else "BTREE"
        columns = tuple(_column(element) for element in reader.group())
        while not reader.done and not reader.take("WHERE"):
            reader.skip()
        # An index on some of the rows serves only a condition that every look-up by the key fulfils.
        every_row = reader.done or [name_of(token) for token in reader.rest] == [columns[0], "is", "not", "null"]
        if every_row and method in _PLAIN_INDEXES:
            self.indexes[table].append(_Index(name or _default_name(table, columns, "idx"), columns))

    def _alter_table(self, text: str, place: Place) -> None:
        path, actions = altered(text)
        table = path[-1] if path else ""
        for action in actions:
            part = Reader(action)
            if part.take("ADD"):
                self._element(table, _added(part), place)
            elif part.take("DROP", "CONSTRAINT"):
                part.take("IF", "EXISTS")
                name = part.name()
                self.keys = [key for key in self.keys if (key.table, key.name) != (table, name)]
                self.indexes[table] = [index for index in self.indexes[table] if index.name != name]
            elif part.take("DROP"):
                part.take("COLUMN")
                part.take("IF", "EXISTS")
                column = part.name()
                self.keys = [key for key in self.keys if key.table != table or column not in key.columns]
                self.indexes[table] = [index for index in self.indexes[table] if column not in index.columns]
            elif part.take("RENAME", "TO"):
                self._rename_table(table, part.name())
            elif part.take("RENAME", "CONSTRAINT"):
                old, new = part.name(), (part.take("TO"), part.name())[1]
                self.keys = [
                    replace(key, name=new) if (key.table, key.name) == (table, old) else key for key in self.keys
                ]
                self._rename(old, new)
            elif part.take("RENAME"):
                part.take("COLUMN")
                old, new = part.name(), (part.take("TO"), part.name())[1]
                self._rename_column(table, old, new)

    def _element(self, table: str, element: list[Token], place: Place) -> None:
        """Follow a column or a constraint of a table."""
        if not element:
            return
        place = Place(place.file, place.offset + element[0][2])
        reader = Reader(element)
        name = reader.name() if reader.take("CONSTRAINT") else ""
        if reader.word in ("PRIMARY", "UNIQUE", "FOREIGN", "CHECK", "EXCLUDE", "LIKE", "NOT"):
            self._constraint(table, name, reader, None, place)
            return
        column = reader.name()
        while not reader.done:
            if reader.take("CONSTRAINT"):
                name = reader.name()
            elif reader.word in ("PRIMARY", "UNIQUE", "REFERENCES"):
                self._constraint(table, name, reader, column, place)
                name = ""
            else:
                reader.skip()

    def _constraint(self, table: str, name: str, reader: Reader, column: str | None, place: Place) -> None:
        """Follow a constraint from the word for its kind on; `column` is set where the constraint follows a column's type."""
        kind = reader.word
        reader.skip()
        if kind == "REFERENCES" and column is not None:
            self._add_key(table, name, (column,), place)
            return
        if kind not in ("PRIMARY", "UNIQUE", "FOREIGN"):
            return
        if kind != "UNIQUE":
            reader.take("KEY")
        reader.take("NULLS", "NOT", "DISTINCT")
        if reader.take("USING", "INDEX"):
            # The constraint gives its name to the existing index.
            old = reader.name()
            self._rename(old, name or old)
            return
        columns: tuple[str | None, ...] = (column,) if column else tuple(_column(element) for element in reader.group())
        if kind == "FOREIGN":
            self._add_key(table, name, tuple(name for name in columns if name), place)
        else:
            default = f"{table}_pkey" if kind == "PRIMARY" else _default_name(table, columns, "key")
            self.indexes[table].append(_Index(name or default, columns))

    def _add_key(self, table: str, name: str, columns: tuple[str, ...], place: Place) -> None:
        self.keys.append(ForeignKey(name or _default_name(table, columns, "fkey"), table, columns, place))

    def _drop(self, reader: Reader, kind: str) -> None:
        reader.take("DROP", kind)
        reader.take("CONCURRENTLY")
        reader.take("IF", "EXISTS")
        names = {Reader(part).name() for part in split(reader.rest)}
        if kind == "TABLE":
            self.keys = [key for key in self.keys if key.table not in names]
            for table in names:
                self.indexes.pop(table, None)
            return
        for table, indexes in self.indexes.items():
            self.indexes[table] = [index for index in indexes if index.name not in names]

    def _rename_index(self, reader: Reader) -> None:
        reader.take("ALTER", "INDEX")
        reader.take("IF", "EXISTS")
        old = reader.name()
        if reader.take("RENAME", "TO"):
            self._rename(old, reader.name())

    def _rename(self, old: str, new: str) -> None:
        for table, indexes in self.indexes.items():
            self.indexes[table] = [replace(index, name=new) if index.name == old else index for index in indexes]

    def _rename_table(self, old: str, new: str) -> None:
        self.keys = [replace(key, table=new) if key.table == old else key for key in self.keys]
        self.indexes[new] = self.indexes.pop(old, [])

    def _rename_column(self, table: str, old: str, new: str) -> None:
        self.keys = [
            replace(key, columns=tuple(new if column == old else column for column in key.columns))
            if key.table == table
            else key
            for key in self.keys
        ]
        self.indexes[table] = [
            replace(index, columns=tuple(new if column == old else column for column in index.columns))
            for index in self.indexes[table]
        ]


def _added(reader: Reader) -> list[Token]:
    """Return the tokens after ADD, ADD COLUMN or ADD COLUMN IF NOT EXISTS."""
    reader.take("COLUMN")
    reader.take("IF", "NOT", "EXISTS")
    return reader.rest


def _column(element: list[Token]) -> str | None:
    """Return the column that an element of an index or a key names; None for an expression."""
    is_name = bool(element) and element[0][0] in ("word", "ident")
    return name_of(element[0]) if is_name and [text for _, text, _ in element[1:2]] != ["("] else None


def _default_name(table: str, columns: tuple[str | None, ...], ending: str) -> str:
    """Return the name that PostgreSQL gives where the statement has none."""
    return "_".join([table, *(column or "expr" for column in columns), ending])
