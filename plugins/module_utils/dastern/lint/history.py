"""Facts about tables from a whole chain of migrations, where lint needs more than a look at one statement."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..common.sql_code import with_code
from ..common.sql_reader import Reader, Token, altered, name_of, outside, split, upper
from ..common.sql_text import Statement, each_statement, tokens
from .dangers import NewTables, tables

Span = tuple[int, int, int]
"""Number of the file, and the offsets of begin and end in it."""
Path = tuple[str, ...]
"""A table with its schema, except `public`, which most files leave out."""
Checks = dict[tuple[Path, str], tuple[str, int, int | None]]
"""By table and name of a CHECK that a column is not null: the column, the file that adds it, and the first file for which the
check is valid without having been validated under the lock of that file's ADD; None while it is NOT VALID."""
_BEHIND_DEFAULT = {
    "CONSTRAINT", "NOT", "UNIQUE", "PRIMARY", "CHECK", "REFERENCES", "COLLATE", "GENERATED", "DEFERRABLE", "INITIALLY",
}  # fmt: skip
# The start of the transaction or the statement is the same for all rows.
_TIMES = {"CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP"}
_TIME_CALLS = {"NOW", "STATEMENT_TIMESTAMP", "TRANSACTION_TIMESTAMP"}


@dataclass
class History:
    """Statements of the chain whose effect depends on earlier ones."""

    proven: list[Span] = field(default_factory=list)
    """`SET NOT NULL` of a column for which a validated CHECK excludes nulls: the table isn't read."""
    constant: list[Span] = field(default_factory=list)
    """New columns with a default that is the same in each row: no row is written."""
    partitioned: list[Span] = field(default_factory=list)
    """Indexes on a partitioned table with its partitions, which can't be built CONCURRENTLY."""
    alone: list[Span] = field(default_factory=list)
    """Indexes on a partitioned table ONLY: nothing is read."""
    rewritten: list[Span] = field(default_factory=list)
    """New columns of a domain with a constraint, or with a default that calls a function: each row is rewritten."""
    searched: list[Span] = field(default_factory=list)
    """New partitions beside a default one, which is searched for rows that belong in the new partition."""
    keys: list[tuple[Span, str, str]] = field(default_factory=list)
    """Dropped constraints that the chain created as keys: place, name, and `PRIMARY` or `UNIQUE`."""
    renamed: list[Span] = field(default_factory=list)
    """`ALTER INDEX ... RENAME` of an object that no file creates as an index: it renames a table, too."""


@dataclass
class _Known:
    """Facts about the database from the chain so far. A fact that lessens a danger holds for one schema, others for all."""

    checks: dict[str, Checks] = field(default_factory=dict)
    """Checks by the name of the table without its schema."""
    partitioned: dict[str, set[Path]] = field(default_factory=dict)
    """Partitioned tables by the name without the schema."""
    domains: dict[str, str] = field(default_factory=dict)
    """Domains whose new columns are written into each row, each with the reason: `constraint` or `default`."""
    defaults: dict[str, dict[Path, Path]] = field(default_factory=dict)
    """By the name of a partitioned table without its schema, the table and its default partition as it was written."""
    parents: dict[Path, Path] = field(default_factory=dict)
    """The partitioned table of each default partition."""
    keys: dict[str, str] = field(default_factory=dict)
    """`PRIMARY` or `UNIQUE`, by name of the constraint."""
    temporary: set[Path] = field(default_factory=set)
    """Temporary tables, which end with the file."""

    def checks_of(self, table: Path) -> Checks:
        return self.checks.setdefault(_last(table), {})

    def forget_checks(self, table: Path, name: str | None = None, column: str | None = None) -> None:
        """Forget the checks of a table in any schema: all, or one by its name, or those of a column."""
        checks = self.checks_of(table)
        for key, (checked, _, _) in list(checks.items()):
            if name in (None, key[1]) and column in (None, checked):
                del checks[key]

    def forget(self, table: Path) -> None:
        """Forget a table that is dropped or created again."""
        self.forget_checks(table)
        self.partitioned.get(_last(table), set()).discard(table)
        self.parents.pop(_plain(self.defaults.get(_last(table), {}).pop(table, ())), None)
        self.detach(table)

    def attach(self, parent: Path, default: Path) -> None:
        self.defaults.setdefault(_last(parent), {})[parent] = default
        self.parents[_plain(default)] = parent

    def detach(self, partition: Path) -> None:
        parent = self.parents.pop(partition, ())
        self.defaults.get(_last(parent), {}).pop(parent, None)

    def leave(self) -> None:
        """Forget facts about tables that may be different tables of the same name in another schema."""
        self.checks.clear()
        self.partitioned.clear()


def read(files: Sequence[str], together: Collection[int] = ()) -> History:
    """Read the texts of a chain in order; a table that one of the files `together` creates holds no rows for the next."""
    history = History()
    known = _Known()
    relations = _Relations()
    of_together = NewTables()
    for number, sql in enumerate(files):
        new_tables = of_together if number in together else NewTables()
        moved = False
        for top, code in with_code(each_statement(sql)):
            moved = moved or any(
                statement.first != "CREATE" and "search_path" in statement.text.lower() for statement in (top, *code)
            )
            if moved:
                known.leave()
            for statement in (*code, top):
                if relations.renames_another(statement) and not new_tables.all_of(tables(statement)):
                    history.renamed.append((number, statement.start, statement.end))
                relations.run(statement)
            before = {name: dict(checks) for name, checks in known.checks.items()} if code else {}
            for statement in code:
                _follow(history, number, statement, known, new_tables)
            if code:  # it may not run: its removals count, its additions don't
                known.checks = {
                    name: {key: check for key, check in before[name].items() if key in known.checks[name]}
                    for name in before.keys() & known.checks.keys()
                }
            _follow(history, number, top, known, new_tables)
            new_tables.run(top, code)
        new_tables.next_file()
        if moved:
            known.leave()
        while known.temporary:
            known.forget_checks(known.temporary.pop())
    return history


_LONGEST = 63
_IMPLICIT = re.compile(r"_(?:pkey|key|idx|excl)[0-9]*$")


class _Relations:
    """The names of tables and the like, and those of indexes, without schemas, as the creating statements distinguish them."""

    def __init__(self) -> None:
        self._others: set[str] = set()
        self._indexes: set[str] = set()

    def renames_another(self, statement: Statement) -> bool:
        """Return whether an ALTER INDEX renames an object that isn't known to be an index."""
        name = self._renamed(statement)[0] if statement.words[:2] == ("ALTER", "INDEX") else ""
        return name != "" and not self._is_index(name)

    def run(self, statement: Statement) -> None:
        if statement.first not in ("CREATE", "ALTER", "DROP"):
            return
        reader = Reader(statement.text)
        kinds = set(statement.words[1:4]) & {"TABLE", "VIEW", "SEQUENCE", "INDEX"}
        while not reader.done and not {reader.word} & kinds:
            reader.skip()
        reader.skip()
        reader.take("CONCURRENTLY")
        reader.take("IF", "NOT", "EXISTS") or reader.take("IF", "EXISTS")
        if not kinds or reader.done:
            return
        if statement.first == "DROP":
            names = {Reader(part).name() for part in split(reader.rest)}
            self._others -= names
            self._indexes -= names
        elif statement.first == "ALTER":
            old, new = self._renamed(statement)
            known = self._indexes if not old or self._is_index(old) else self._others
            known.discard(old)
            known.add(new)
        elif reader.word != "ON":
            (self._indexes if "INDEX" in kinds else self._others).add(reader.name())
        for (_, word, _), behind in pairwise(tokens(statement.text)):
            if word.upper() == "CONSTRAINT":
                self._indexes.add(name_of(behind))

    def _is_index(self, name: str) -> bool:
        implicit = _IMPLICIT.search(name) and any(
            name[:at] in self._others for at, letter in enumerate(name[:_LONGEST]) if letter == "_"
        )
        return name not in self._others and (name in self._indexes or bool(implicit))

    def _renamed(self, statement: Statement) -> tuple[str, str]:
        """Return the old and the new name, of a constraint only the new one; '' where the statement does something else."""
        reader = Reader(statement.text)
        while not reader.done and reader.word != "RENAME":
            reader.skip()
        if reader.take("RENAME", "CONSTRAINT"):
            reader.path()
            return "", reader.name() if reader.take("TO") else ""
        return ("".join(tables(statement)[0][-1:]), reader.name()) if reader.take("RENAME", "TO") else ("", "")


def _follow(history: History, number: int, statement: Statement, known: _Known, new_tables: NewTables) -> None:
    match statement.words:
        case ("CREATE" | "ALTER" | "DROP", "DOMAIN", *_):
            _domain(statement, known.domains)
        case ("CREATE", *_):
            _create(history, number, statement, known, new_tables)
        case ("ALTER", "TABLE", *_):
            _alter(history, number, statement, known, new_tables)
        case ("ALTER", "INDEX", *_):  # this renames the constraint of the index, too
            reader = Reader(statement.text)
            reader.take("ALTER", "INDEX")
            reader.take("IF", "EXISTS")
            _key_renamed(reader.name(), reader, known)
        case ("DROP", "TABLE", *_):
            reader = Reader(statement.text)
            reader.take("DROP", "TABLE")
            reader.take("IF", "EXISTS")
            for part in split(reader.rest):
                known.forget(_plain(Reader(part).path()))


def _plain(path: Path) -> Path:
    """Return a name in the form for comparison: `public.t` is `t`."""
    return path[-1:] if path[-2:-1] == ("public",) else path[-2:]


def _last(path: Path) -> str:
    return path[-1] if path else ""


def _domain(statement: Statement, domains: dict[str, str]) -> None:
    """Note a domain that has a constraint, or a default that calls a function, as far as the statement shows."""
    reader = Reader(statement.text)
    reader.skip()
    reader.take("DOMAIN")
    reader.take("IF", "EXISTS")
    name = reader.name()
    plain = upper(outside(reader.rest))
    default = default_of(reader.rest)
    calls = "default" if default and not _constant(default) else ""
    if statement.words[0] == "DROP":
        domains.pop(name, None)
    elif statement.words[0] == "CREATE":
        reader.take("AS")
        inherited = domains.get(reader.name(), "")
        bound = inherited == "constraint" or "CHECK" in plain or ("NOT", "NULL") in pairwise(plain)
        domains[name] = "constraint" if bound else calls or ("" if default else inherited)
    elif plain[:1] == ["ADD"] or plain[:3] == ["SET", "NOT", "NULL"]:
        domains[name] = "constraint"
    elif calls and not domains.get(name):
        domains[name] = calls
    elif plain[:2] == ["RENAME", "TO"] and name in domains:
        reader.take("RENAME", "TO")
        domains[reader.name()] = domains[name]


def _create(history: History, number: int, statement: Statement, known: _Known, new_tables: NewTables) -> None:
    reader = Reader(statement.text)
    reader.take("CREATE")
    of_session = False
    while reader.word in ("LOCAL", "GLOBAL", "TEMP", "TEMPORARY", "UNLOGGED", "FOREIGN"):
        of_session = of_session or reader.word in ("TEMP", "TEMPORARY")
        reader.skip()
    if reader.take("TABLE"):
        if not reader.take("IF", "NOT", "EXISTS") and not of_session:
            known.forget(_plain(Reader(reader.rest).path()))
        written = reader.path()
        table = _plain(written)
        if of_session:
            known.forget_checks(table)
            known.temporary.add(table)
        plain = _outside(reader.rest)
        if ("PARTITION", "BY") in pairwise(plain):
            known.partitioned.setdefault(_last(table), set()).add(table)
        _note_keys(reader.rest, known.keys)
        if reader.take("PARTITION", "OF"):
            parent = reader.path()
            _partition(history, (number, statement.start, statement.end), parent, written, plain, known, new_tables)
        return
    reader.take("UNIQUE")
    if not reader.take("INDEX"):
        return
    while not reader.done and not reader.take("ON"):
        reader.skip()
    only = reader.take("ONLY")
    table = _plain(reader.path())
    partitioned = known.partitioned.get(_last(table))
    if only and partitioned and table in partitioned:
        history.alone.append((number, statement.start, statement.end))
    elif not only and partitioned:
        history.partitioned.append((number, statement.start, statement.end))


def _partition(
    history: History, span: Span, parent: Path, partition: Path, plain: list[str], known: _Known, new_tables: NewTables
) -> None:
    """Follow a partition that is created for a table or attached to it; `plain` are the words outside parentheses."""
    if "DEFAULT" in plain:
        known.attach(_plain(parent), partition)
        return
    of_its_name = known.defaults.get(_last(parent), {})
    default = of_its_name.get(_plain(parent)) or next(iter(of_its_name.values()), None)
    if default and not new_tables.all_of([parent]) and not new_tables.all_of([default]):
        history.searched.append(span)


def _note_keys(parts: list[Token], keys: dict[str, str]) -> None:
    """Note the names of the primary keys and unique constraints in a definition."""
    words = upper(parts)
    for at, word in enumerate(words):
        if word == "CONSTRAINT" and words[at + 2 : at + 3] in (["PRIMARY"], ["UNIQUE"]):
            keys[name_of(parts[at + 1])] = words[at + 2]
    behind = words[2:] if words[:2] == ["ADD", "PRIMARY"] else words[1:]
    if words[:1] == ["ADD"] and behind[1:3] == ["USING", "INDEX"] and len(behind) > 3:
        keys[name_of(parts[-len(behind) + 3])] = words[1]


def _key_renamed(old: str, reader: Reader, known: _Known) -> None:
    if (reader.take("RENAME", "TO") or reader.take("TO")) and old in known.keys:
        known.keys[reader.name()] = known.keys.pop(old)


def _outside(parts: list[Token]) -> list[str]:
    """Return the words outside parentheses, up to an AS."""
    words, depth = [], 0
    for kind, text, _ in parts:
        depth += {"(": 1, ")": -1}.get(text, 0)
        if kind == "word" and depth == 0:
            if text.upper() == "AS":
                break
            words.append(text.upper())
    return words


def _alter(history: History, number: int, statement: Statement, known: _Known, new_tables: NewTables) -> None:
    written, parts = altered(statement.text)
    table, new = _plain(written), new_tables.all_of(tables(statement))
    spans = [(number, statement.start + part[0][2], statement.start + part[-1][2] + len(part[-1][1])) for part in parts]
    for part, span in zip(parts, spans, strict=True):  # the server runs these before all other actions of the statement
        inner = Reader(part)
        if inner.take("DROP", "CONSTRAINT"):
            inner.take("IF", "EXISTS")
            name = inner.name()
            known.forget_checks(table, name=name)
            if name in known.keys and not new:
                history.keys.append((span, name, known.keys[name]))
        elif inner.take("DROP"):
            inner.take("COLUMN")
            inner.take("IF", "EXISTS")
            known.forget_checks(table, column=inner.name())
    for part, span in zip(parts, spans, strict=True):
        inner = Reader(part)
        if inner.take("RENAME"):
            _renamed(inner, table, known)
        elif inner.take("SET", "SCHEMA"):
            known.forget_checks(table)
        elif inner.take("VALIDATE", "CONSTRAINT"):
            key, checks = (table, inner.name()), known.checks_of(table)
            if key in checks and checks[key][2] is None:
                column, added, _ = checks[key]
                checks[key] = (column, added, max(number, added + 1))
        elif inner.take("ATTACH", "PARTITION"):
            partition = inner.path()
            # A partition that isn't new is read as well; another rule reports that from the statement alone.
            if new_tables.all_of([partition]) or inner.word == "DEFAULT":
                _partition(history, span, written, partition, upper(outside(inner.rest)), known, new_tables)
        elif inner.take("DETACH", "PARTITION"):
            known.detach(_plain(inner.path()))
        elif inner.take("ALTER"):
            inner.take("COLUMN")
            column = inner.name()
            valid = [
                since
                for (on, _), (checked, _, since) in known.checks_of(table).items()
                if (on, checked) == (table, column)
            ]
            if inner.take("SET", "NOT", "NULL") and any(since is not None and since <= number for since in valid):
                history.proven.append(span)
        elif inner.take("ADD"):
            _note_keys(part, known.keys)
            if inner.take("CONSTRAINT"):
                name = inner.name()
                if inner.take("CHECK") and (column := _not_null(inner)):
                    pairs = list(pairwise(upper(inner.rest)))
                    if ("NO", "INHERIT") not in pairs:  # such a check doesn't hold for children
                        known.checks_of(table)[table, name] = (
                            column,
                            number,
                            None if ("NOT", "VALID") in pairs else number + 1,
                        )
            else:
                if _constant_default(part):
                    history.constant.append(span)
                kind = "" if new else known.domains.get(_type(inner), "")
                if kind == "constraint" or (kind and "DEFAULT" not in upper(part)):
                    history.rewritten.append(span)


def _renamed(reader: Reader, table: Path, known: _Known) -> None:
    """Move the facts about a table to its new name; after a renamed column, forget the checks."""
    if not reader.take("TO"):
        known.forget_checks(table)
        if reader.take("CONSTRAINT"):
            _key_renamed(reader.name(), reader, known)
        return
    name = (*table[:-1], reader.name())
    moved = {(name, key[1]): check for key, check in known.checks_of(table).items() if key[0] == table}
    partitioned = table in known.partitioned.get(_last(table), ())
    default, parent = known.defaults.get(_last(table), {}).get(table), known.parents.get(table)
    known.forget(table)
    known.forget(name)
    known.checks_of(name).update(moved)
    if partitioned:
        known.partitioned.setdefault(_last(name), set()).add(name)
    if default:
        known.attach(name, default)
    if parent:
        known.attach(parent, name)


def _not_null(reader: Reader) -> str:
    """Return the column of `(column IS NOT NULL)`; '' for any other CHECK."""
    groups = reader.group()
    parts = groups[0] if len(groups) == 1 else []
    while len(parts) > 2 and parts[0][1] == "(" and parts[-1][1] == ")":
        parts = parts[1:-1]
    words = [text.upper() for _, text, _ in parts[1:]]
    return name_of(parts[0]) if words == ["IS", "NOT", "NULL"] else ""


def _constant_default(part: list[Token]) -> bool:
    """Return whether a new column has a default that is computed once for all rows."""
    expression = default_of(part)
    return bool(expression) and _constant(expression)


def _constant(expression: list[Token]) -> bool:
    """Return whether an expression calls no function except those for the start of the transaction or the statement."""
    edge = ("", "", 0)
    return not any(
        kind in ("word", "ident")
        and behind[1] == "("
        and before[1] != ":"
        and not (text.upper() in _TIMES or (text.upper() in _TIME_CALLS and next_[1] == ")" and before[1] != "."))
        for before, (kind, text, _), behind, next_ in zip(
            [edge, *expression], expression, [*expression[1:], edge], [*expression[2:], edge, edge], strict=False
        )
    )


def _type(reader: Reader) -> str:
    """Return the type of a new column; '' for an array."""
    reader.take("COLUMN")
    reader.take("IF", "NOT", "EXISTS")
    reader.name()
    name = reader.name()
    return "" if not reader.done and (reader.rest[0][1] == "[" or reader.word == "ARRAY") else name


def default_of(part: list[Token]) -> list[Token]:
    """Return the tokens between DEFAULT and the next constraint of the column."""
    words = [text.upper() if kind == "word" else text for kind, text, _ in part]
    if "DEFAULT" not in words or "GENERATED" in words:
        return []
    depth = 0
    start = words.index("DEFAULT") + 1
    for at in range(start, len(part)):
        depth += {"(": 1, ")": -1}.get(words[at], 0)
        if depth == 0 and words[at] in _BEHIND_DEFAULT:
            return part[start:at]
    return part[start:]
