"""What a chain of migrations says of its tables, as far as lint needs it to know better than a look at one statement."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..common.sql_code import with_code
from ..common.sql_reader import Reader, Token, altered, name_of, outside, split, upper
from ..common.sql_text import Statement, each_statement, tokens
from .dangers import Made, tables

Span = tuple[int, int, int]
"""Number of the file, and the offsets in it between which something stands."""
Path = tuple[str, ...]
"""A table with its schema, but for `public`, which most files leave out."""
Checks = dict[tuple[Path, str], tuple[str, int, int | None]]
"""By table and name of a CHECK that a column is not null: the column, the file that adds it, and the first file for which it is
valid without having been read under the lock of that file's ADD; None while it is NOT VALID."""
_BEHIND_DEFAULT = {
    "CONSTRAINT", "NOT", "UNIQUE", "PRIMARY", "CHECK", "REFERENCES", "COLLATE", "GENERATED", "DEFERRABLE", "INITIALLY",
}  # fmt: skip
# The time at which the transaction or the statement began is the same for all rows.
_TIMES = {"CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP"}
_TIME_CALLS = {"NOW", "STATEMENT_TIMESTAMP", "TRANSACTION_TIMESTAMP"}


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
    """A column added whose type is a domain with a constraint, or with a default that calls: each row is written anew."""
    searched: list[Span] = field(default_factory=list)
    """A partition added beside a default one, which is searched for rows that belong into the new one."""
    keys: list[tuple[Span, str, str]] = field(default_factory=list)
    """A constraint dropped that the chain made as a key: where, its name, and `PRIMARY` or `UNIQUE`."""
    renamed: list[Span] = field(default_factory=list)
    """`ALTER INDEX ... RENAME` of what no file makes as an index: the server renames a table by it, too."""


@dataclass
class _Known:
    """What the chain so far says of the database. What lessens a danger holds for one schema, what adds one for all."""

    checks: dict[str, Checks] = field(default_factory=dict)
    """By the name of the table without its schema."""
    partitioned: dict[str, set[Path]] = field(default_factory=dict)
    """Likewise."""
    domains: dict[str, str] = field(default_factory=dict)
    """Domains for which a new column is written into each row, because of their `constraint` or their `default`."""
    defaults: dict[str, dict[Path, Path]] = field(default_factory=dict)
    """By partitioned table, likewise, its default partition as it was written."""
    parents: dict[Path, Path] = field(default_factory=dict)
    """By default partition the partitioned table."""
    keys: dict[str, str] = field(default_factory=dict)
    """By name of a constraint, `PRIMARY` or `UNIQUE`."""
    temporary: set[Path] = field(default_factory=set)
    """Tables of the session, which end with the file."""

    def checks_of(self, table: Path) -> Checks:
        return self.checks.setdefault(_last(table), {})

    def forget_checks(self, table: Path, name: str | None = None, column: str | None = None) -> None:
        """Forget the checks of a table in whatever schema: all, or one by its name, or those of a column."""
        checks = self.checks_of(table)
        for key, (of, _, _) in list(checks.items()):
            if name in (None, key[1]) and column in (None, of):
                del checks[key]

    def forget(self, table: Path) -> None:
        """Forget a table that is dropped, or made anew."""
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
        """Forget what was said of tables that may have been others than those of the same name elsewhere."""
        self.checks.clear()
        self.partitioned.clear()


def read(files: Sequence[str], together: Collection[int] = ()) -> History:
    """Read the texts of a chain in order; a table that one of those `together` makes holds no rows for the next."""
    history = History()
    known = _Known()
    relations = _Relations()
    of_together = Made()
    for number, sql in enumerate(files):
        made = of_together if number in together else Made()
        moved = False
        for top, code in with_code(each_statement(sql)):
            moved = moved or any(one.first != "CREATE" and "search_path" in one.text.lower() for one in (top, *code))
            if moved:
                known.leave()
            for one in (*code, top):
                if relations.renames_another(one) and not made.all_of(tables(one)):
                    history.renamed.append((number, one.start, one.end))
                relations.run(one)
            before = {name: dict(checks) for name, checks in known.checks.items()} if code else {}
            for one in code:
                _follow(history, number, one, known, made)
            if code:  # which may not have run: what it takes away counts, what it adds doesn't
                known.checks = {
                    name: {key: check for key, check in before[name].items() if key in known.checks[name]}
                    for name in before.keys() & known.checks.keys()
                }
            _follow(history, number, top, known, made)
            made.run(top, code)
        made.next_file()
        if moved:
            known.leave()
        while known.temporary:
            known.forget_checks(known.temporary.pop())
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


def _follow(history: History, number: int, one: Statement, known: _Known, made: Made) -> None:
    match one.words:
        case ("CREATE" | "ALTER" | "DROP", "DOMAIN", *_):
            _domain(one, known.domains)
        case ("CREATE", *_):
            _create(history, number, one, known, made)
        case ("ALTER", "TABLE", *_):
            _alter(history, number, one, known, made)
        case ("ALTER", "INDEX", *_):  # which renames the constraint that it belongs to
            reader = Reader(one.text)
            reader.take("ALTER", "INDEX")
            reader.take("IF", "EXISTS")
            _key_renamed(reader.name(), reader, known)
        case ("DROP", "TABLE", *_):
            reader = Reader(one.text)
            reader.take("DROP", "TABLE")
            reader.take("IF", "EXISTS")
            for part in split(reader.rest):
                known.forget(_plain(Reader(part).path()))


def _plain(path: Path) -> Path:
    """A name as it is compared: `public.t` is `t`."""
    return path[-1:] if path[-2:-1] == ("public",) else path[-2:]


def _last(path: Path) -> str:
    return path[-1] if path else ""


def _domain(one: Statement, domains: dict[str, str]) -> None:
    """Note a domain that has a constraint, or a default that calls, as far as it is told."""
    reader = Reader(one.text)
    reader.skip()
    reader.take("DOMAIN")
    reader.take("IF", "EXISTS")
    name = reader.name()
    plain = upper(outside(reader.rest))
    default = default_of(reader.rest)
    calls = "default" if default and not _constant(default) else ""
    if one.words[0] == "DROP":
        domains.pop(name, None)
    elif one.words[0] == "CREATE":
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


def _create(history: History, number: int, one: Statement, known: _Known, made: Made) -> None:
    reader = Reader(one.text)
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
            _partition(history, (number, one.start, one.end), parent, written, plain, known, made)
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
        history.alone.append((number, one.start, one.end))
    elif not only and partitioned:
        history.partitioned.append((number, one.start, one.end))


def _partition(
    history: History, span: Span, parent: Path, partition: Path, plain: list[str], known: _Known, made: Made
) -> None:
    """A partition that is made for a table or attached to it; `plain` are the words of that outside of parentheses."""
    if "DEFAULT" in plain:
        known.attach(_plain(parent), partition)
        return
    of_its_name = known.defaults.get(_last(parent), {})
    default = of_its_name.get(_plain(parent)) or next(iter(of_its_name.values()), None)
    if default and not made.all_of([parent]) and not made.all_of([default]):
        history.searched.append(span)


def _note_keys(parts: list[Token], keys: dict[str, str]) -> None:
    """Note the names of the primary keys and unique constraints that stand in what is made."""
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
    """The words that stand outside of parentheses, up to an AS."""
    words, depth = [], 0
    for kind, text, _ in parts:
        depth += {"(": 1, ")": -1}.get(text, 0)
        if kind == "word" and depth == 0:
            if text.upper() == "AS":
                break
            words.append(text.upper())
    return words


def _alter(history: History, number: int, one: Statement, known: _Known, made: Made) -> None:
    written, parts = altered(one.text)
    table, new = _plain(written), made.all_of(tables(one))
    spans = [(number, one.start + part[0][2], one.start + part[-1][2] + len(part[-1][1])) for part in parts]
    for part, span in zip(parts, spans, strict=True):  # the server does these before all others of the statement
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
            # One that isn't new is read as well, which a rule says of the statement alone.
            if made.all_of([partition]) or inner.word == "DEFAULT":
                _partition(history, span, written, partition, upper(outside(inner.rest)), known, made)
        elif inner.take("DETACH", "PARTITION"):
            known.detach(_plain(inner.path()))
        elif inner.take("ALTER"):
            inner.take("COLUMN")
            column = inner.name()
            valid = [since for (on, _), (of, _, since) in known.checks_of(table).items() if (on, of) == (table, column)]
            if inner.take("SET", "NOT", "NULL") and any(since is not None and since <= number for since in valid):
                history.proven.append(span)
        elif inner.take("ADD"):
            _note_keys(part, known.keys)
            if inner.take("CONSTRAINT"):
                name = inner.name()
                if inner.take("CHECK") and (column := _not_null(inner)):
                    pairs = list(pairwise(upper(inner.rest)))
                    if ("NO", "INHERIT") not in pairs:  # which says nothing of its children
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
    """What is known of a table goes with its new name; of a renamed column nothing is known."""
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
    """The column of `(column IS NOT NULL)`; empty where the CHECK says something else."""
    groups = reader.group()
    parts = groups[0] if len(groups) == 1 else []
    while len(parts) > 2 and parts[0][1] == "(" and parts[-1][1] == ")":
        parts = parts[1:-1]
    words = [text.upper() for _, text, _ in parts[1:]]
    return name_of(parts[0]) if words == ["IS", "NOT", "NULL"] else ""


def _constant_default(part: list[Token]) -> bool:
    """Whether a column that is added has a default that counts once, for all rows."""
    expression = default_of(part)
    return bool(expression) and _constant(expression)


def _constant(expression: list[Token]) -> bool:
    """Whether an expression is without a call, but for those that tell when the transaction or the statement began."""
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
    """The type of a column that is added; empty for an array."""
    reader.take("COLUMN")
    reader.take("IF", "NOT", "EXISTS")
    reader.name()
    name = reader.name()
    return "" if not reader.done and (reader.rest[0][1] == "[" or reader.word == "ARRAY") else name


def default_of(part: list[Token]) -> list[Token]:
    """The tokens between DEFAULT and the next constraint of the column."""
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
