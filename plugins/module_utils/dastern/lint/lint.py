"""Lint of migrations before they are applied: own checks of what a migration run can and can't do, and squawk's.

Works on the controller, on files alone; no connection is made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import yaml

from ..common.errors import DasTernError
from ..common.migration_files import SCRIPT, MigrationFile, read_folder
from ..common.sql_code import Read, holds_code, makes_function, with_code
from ..common.sql_reader import Reader, altered, outside, upper
from ..common.sql_text import Statement, each_statement, literal_value, statements, tokens
from ..common.text import shown
from . import contract as lint_contract
from . import dangers as migration_dangers
from . import history as lint_history
from . import server_rules, squawk
from .contract import contract
from .dangers import BUT_SAY, Made, Said, dangers, short, tables
from .foreign_keys import without_index
from .server_rules import server
from .widening import widened

IGNORE_FILE = "lint.yml"
PG_VERSION = 17
OWN_RULES = (
    *lint_contract.RULES,
    *server_rules.RULES,
    *migration_dangers.RULES,
    "concurrently-partitioned",
    "empty",
    "enum-value-used",
    "foreign-key-without-index",
    "not-alone",
    "psql-command",
    "squawk",
    "transaction-control",
    "unreadable",
)


@dataclass(frozen=True)
class Finding:
    """Something to think about before this file is applied; `line` and `column` count from 1."""

    migration: str
    file: str
    line: int
    column: int
    rule: str
    severity: str
    """`danger` or `warning`"""
    message: str
    mend: str

    def __str__(self) -> str:
        return shown(f"{self.place}: {self.severity}: {self.rule}: {self.message} {self.mend}")

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Ignore:
    """A rule that is not to be reported, in one migration or, where that is None, in all; `why` is for people."""

    rule: str
    migration: str | None
    why: str

    def covers(self, finding: Finding) -> bool:
        return self.rule == finding.rule and self.migration in (None, finding.migration)


def lint_folder(folder: str | os.PathLike[str], program: Path | None = None) -> list[Finding]:
    """All findings in all migrations of `folder`; a file that can't be read is the only finding."""
    try:
        files = read_folder(folder)
    except DasTernError as refusal:
        return [Finding("", str(folder), 1, 1, "unreadable", "danger", refusal.message, "")]
    return lint(files, [file.name for file in files], folder, program)


def lint(
    files: Sequence[MigrationFile],
    names: Collection[str],
    folder: str | os.PathLike[str],
    program: Path | None = None,
    *,
    together: bool = False,
) -> list[Finding]:
    """The findings in those of `files` whose names are in `names`, in order; the others are their history.

    `together` is whether these are applied in one run: then a table that one of them makes holds no rows for the next.
    `program` is squawk's path, by default the installed one. Raises `DasTernError` for a lint file that can't be used.
    """
    ignored = read_ignores(folder)
    wanted = [file for file in files if file.name in names]
    if not wanted:
        return []
    history = cache(
        lambda: lint_history.read(
            [file.outline.text for file in files],
            {number for number, file in enumerate(files) if together and file.name in names},
        )
    )  # where nothing asks for it nothing is read
    found = [
        *_squawk(wanted, folder, program or squawk.find(), together),
        *_foreign_keys(files, names, folder),
        *_concurrently_partitioned(files, names, folder, history),
        *_of_history(files, names, folder, history),
    ]
    made = Made() if together else None
    for file in wanted:
        found += _own(file, folder, made)
        if made is not None:
            made.next_file()
    needless = _needless(found, files)
    found = [one for one in found if (one.rule, one.migration, one.line, one.column) not in needless]
    found = _known_better(found, files, history)
    order = {file.name: number for number, file in enumerate(files)}
    found.sort(key=lambda one: (order.get(one.migration, -1), one.line, one.column, one.rule))
    return [one for one in found if not any(ignore.covers(one) for ignore in ignored)]


def read_ignores(folder: str | os.PathLike[str]) -> list[Ignore]:
    """What the file `lint.yml` beside the migrations says is not to be reported.

    It is a list of `rule`, `why` and, unless it is meant for all, `migration`. A comment inside an applied migration
    can't say so: its checksum is in the ledger. Prisma ignores plain files in this folder.
    """
    path = Path(folder, IGNORE_FILE)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DasTernError(f"{path} can't be read: {' '.join(str(error).split())}. Correct it.") from None
    wanted = "wanted is a list of `rule`, `why` and, unless it is meant for all migrations, `migration`"
    if content is not None and not isinstance(content, list):
        raise DasTernError(f"{path} holds a {type(content).__name__}; {wanted}.")
    ignores = []
    for number, item in enumerate(content or [], 1):
        texts = isinstance(item, dict) and all(isinstance(value, str) and value.strip() for value in item.values())
        if not texts or not {"rule", "why"} <= set(item) <= {"rule", "why", "migration"}:
            raise DasTernError(f"{path}, entry {number} is {item!r}; {wanted}, each of them words.")
        if item["rule"] not in (*OWN_RULES, *squawk.RULES):
            raise DasTernError(
                f"{path}, entry {number}: no rule is called {item['rule']!r}; the rules that are on are "
                f"{', '.join(sorted((*OWN_RULES, *squawk.RULES)))}."
            )
        ignores.append(Ignore(item["rule"], item.get("migration"), item["why"]))
    return ignores


def grouped(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """`found` as plain data, where the same is said of many places once."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        groups.setdefault((one.rule, one.severity, one.message, one.mend), []).append(one.place)
    names = ("rule", "severity", "message", "mend")
    return [{**dict(zip(names, key, strict=True)), "places": places} for key, places in groups.items()]


def refusal(found: Sequence[Finding]) -> str:
    """The dangers among `found` as one message to an operator; empty where there are none."""
    dangers = [str(one) for one in found if one.severity == "danger"]
    if not dangers:
        return ""
    return "\n".join(
        [
            f"{len(dangers)} {'finding' if len(dangers) == 1 else 'findings'} of the class danger in what is pending, and "
            "`migrations_lint` is fail: nothing was applied.",
            *dangers,
            f"Mend the files; or write a rule, the migration and why it is right there into {IGNORE_FILE} beside the "
            "migrations; or, for this run, `-e migrations_lint=warn`.",
        ]
    )


def _path(folder: str | os.PathLike[str], name: str) -> str:
    return str(Path(folder, name, SCRIPT))


def _squawk(
    files: Sequence[MigrationFile], folder: str | os.PathLike[str], program: Path | None, together: bool
) -> list[Finding]:
    texts = [(file.outline.text, not _outside_transaction(file)) for file in files]
    coded = [
        (number, spans, text)
        for number, file in enumerate(files)
        if (spans_text := _code(file))
        for spans, text in [spans_text]
    ]
    try:
        remarks = squawk.run(program, [*texts, *((text, True) for _, _, text in coded)], PG_VERSION)
    except squawk.Unusable as error:
        mend = "`scripts/setup` installs it." if error.missing else "Its rules were not checked; the others were."
        return [Finding("", str(folder), 1, 1, "squawk", "danger", f"{error}.", mend)]
    remarks = [one for one in remarks if one.number < len(files)] + [
        replace(one, number=coded[one.number - len(files)][0])
        for one in remarks
        if one.number >= len(files)
        # What squawk can't read in code is PL/pgSQL's.
        and one.rule != "syntax-error"
        and any(begin <= (one.line, one.column) <= end for begin, end in coded[one.number - len(files)][1])
    ]
    harmless = _harmless(files, {one.number for one in remarks if one.rule in _LOCAL}, together)
    return [
        Finding(
            files[one.number].name,
            _path(folder, files[one.number].name),
            one.line,
            one.column,
            one.rule,
            one.severity,
            one.message,
            one.mend,
        )
        for one in remarks
        if not any(
            one.rule in rules and begin <= (one.line, one.column) <= end
            for rules, (begin, end) in harmless.get(one.number, ())
        )
    ]


Place = tuple[int, int]
"""Line and column, both from 1."""
_CODE_OF_SQUAWK = {"ALTER", "CREATE", "DROP", "REINDEX", "TRUNCATE"}


def _code(file: MigrationFile) -> tuple[list[tuple[Place, Place]], str] | None:
    """Where statements for squawk stand in the code of a file, and its text with nothing but these in place of that code.

    None where there are none. Every statement stays where it is.
    """
    sql, place = file.outline.text, file.places.line_and_column
    if not holds_code(sql):
        return None
    found = statements(sql)
    inner = sorted(
        (
            one
            for _, code in with_code(found)
            for one in code
            # What a function that is made there runs stands in it.
            if one.first in _CODE_OF_SQUAWK and not makes_function(one)
        ),
        key=lambda one: one.start,
    )
    if not inner:
        return None
    inner.reverse()
    pieces: list[str] = []
    spans: list[tuple[Place, Place]] = []
    at = 0
    for top in found:
        if not inner or inner[-1].start >= top.end:
            continue
        blank = list(re.sub(r"[^\n]", " ", sql[top.start : top.end]))
        while inner and inner[-1].start < top.end:
            one = inner.pop()
            begin = one.start - top.start
            end = begin + len(one.text)
            behind = "".join(blank[end : end + 1])
            # A line break stays; where the outer statement ends as well, its own semicolon follows.
            blank[begin : end + 1] = [*one.text, ";\n" if behind == "\n" else behind and ";"]
            spans.append((place(one.start), place(one.end)))
        pieces += [sql[at : top.start], "".join(blank)]
        at = top.end
    return spans, "".join([*pieces, sql[at:]])


_LOCAL = {
    *squawk.ON_ROWS,
    "adding-foreign-key-constraint",
    "ban-alter-domain-with-add-constraint",
    "require-concurrent-reindex",
}


def _harmless(
    files: Sequence[MigrationFile], numbers: Collection[int], together: bool
) -> dict[int, list[tuple[Collection[str], tuple[Place, Place]]]]:
    """Where statements do no harm of the kind that rules of squawk speak of, by the number of the file: rules, from and to.

    They drop or change nothing but tables that these files themselves make, add a column that holds nothing yet, or a check
    that old rows needn't pass. Of the files only `numbers` are wanted.
    """
    made = Made()
    found: dict[int, list[tuple[Collection[str], tuple[Place, Place]]]] = {}
    for number, file in enumerate(files):
        made = made if together else Made()
        if number not in numbers and not (together and numbers):
            continue
        spans = found.setdefault(number, [])
        for top, code in with_code(each_statement(file.outline.text)):
            for one in (top, *code):
                if one.words[:2] == ("ALTER", "DOMAIN") and upper(list(tokens(one.text)))[-2:] == ["NOT", "VALID"]:
                    spans.append((("ban-alter-domain-with-add-constraint",), _places(file, one.start, one.end)))
                elif one.first == "REINDEX" and made.all_of([_reindexed(one)]):
                    spans.append((("require-concurrent-reindex",), _places(file, one.start, one.end)))
                elif one.words[:2] in (("ALTER", "TABLE"), ("DROP", "TABLE")) and made.all_of(tables(one)):
                    spans.append((squawk.ON_ROWS, _places(file, one.start, one.end)))
                elif one.words[:2] == ("ALTER", "TABLE") and "REFERENCES" in one.text.upper():
                    for action in altered(one.text)[1]:
                        words = upper(outside(action))
                        if (
                            words[0] == "ADD"
                            and "REFERENCES" in words
                            and not {"FOREIGN", "DEFAULT", "GENERATED"} & set(words)
                        ):
                            end = action[-1][2] + len(action[-1][1])
                            place = _places(file, one.start + action[0][2], one.start + end)
                            spans.append((("adding-foreign-key-constraint",), place))
            made.run(top, code)
        made.next_file()
    return found


def _reindexed(one: Statement) -> tuple[str, ...]:
    reader = Reader(one.text)
    reader.take("REINDEX")
    reader.group()
    return reader.path() if reader.take("TABLE") else ()


def _places(file: MigrationFile, begin: int, end: int) -> tuple[Place, Place]:
    return file.places.line_and_column(begin), file.places.line_and_column(end)


def _needless(found: Sequence[Finding], files: Sequence[MigrationFile]) -> set[tuple[str, str, int, int]]:
    """Rule, migration, line and column of what squawk says and the whole chain or a rule of our own knows better."""
    # NOT VALID, which squawk advises, isn't for a constraint with EXCLUDE.
    needless = {
        ("constraint-missing-not-valid", one.migration, one.line, one.column)
        for one in found
        if one.rule == "locks-out-reads"
    }
    if any(one.rule == "changing-column-type" for one in found):
        for number, offset in widened([file.outline.text for file in files]):
            place = files[number].places.line_and_column(offset)
            needless.add(("changing-column-type", files[number].name, *place))
    return needless


_PARTITIONED = (
    "Its partitions can be indexed CONCURRENTLY, itself it can't: `CREATE INDEX ... ON ONLY` it, then one on each partition "
    "CONCURRENTLY, each alone in a migration, then `ALTER INDEX ... ATTACH PARTITION`."
)
_OF_HISTORY = {"adding-not-nullable-field", "adding-field-with-default", "require-concurrent-index-creation"}


def _known_better(
    found: list[Finding], files: Sequence[MigrationFile], read: Callable[[], lint_history.History]
) -> list[Finding]:
    """`found` without what the chain before shows to be harmless, and with the way that a partitioned table has."""
    if not any(one.rule in _OF_HISTORY for one in found):
        return found
    history = read()
    numbers = {file.name: number for number, file in enumerate(files)}

    def within(one: Finding, spans: list[lint_history.Span]) -> bool:
        number = numbers[one.migration]
        place = files[number].places.line_and_column
        return any(of == number and place(begin) <= (one.line, one.column) <= place(end) for of, begin, end in spans)

    harmless = {
        "adding-not-nullable-field": history.proven,
        "adding-field-with-default": history.constant,
        "require-concurrent-index-creation": history.alone,
    }
    kept = [one for one in found if one.rule not in harmless or not within(one, harmless[one.rule])]
    return [
        replace(one, mend=_PARTITIONED)
        if one.rule == "require-concurrent-index-creation" and within(one, history.partitioned)
        else one
        for one in kept
    ]


def _concurrently_partitioned(
    files: Sequence[MigrationFile],
    names: Collection[str],
    folder: str | os.PathLike[str],
    read: Callable[[], lint_history.History],
) -> Iterator[Finding]:
    """What the server refuses, although it is written as lint advises elsewhere."""
    if not any({"concurrently", "index"} <= file.words for file in files if file.name in names):
        return
    for number, begin, end in read().partitioned:
        file = files[number]
        words = file.outline.text[begin:end].upper().split()
        if file.name in names and "CONCURRENTLY" in words[:4]:
            line, column = file.places.line_and_column(begin)
            yield Finding(
                file.name, _path(folder, file.name), line, column, "concurrently-partitioned", "danger",
                "The server builds no index CONCURRENTLY on a partitioned table.", _PARTITIONED,
            )  # fmt: skip


def _of_history(
    files: Sequence[MigrationFile],
    names: Collection[str],
    folder: str | os.PathLike[str],
    read: Callable[[], lint_history.History],
) -> Iterator[Finding]:
    """What a statement does because of what the files before made: domains, default partitions, keys, indexes."""
    words = [file.words for file in files if file.name in names]
    every = frozenset().union(*(file.words for file in files))
    if not (
        ("domain" in every and any("add" in one for one in words))
        or ({"partition", "default"} <= every and any("partition" in one for one in words))
        or any({"drop", "constraint"} <= one or {"index", "rename"} <= one for one in words)
    ):
        return
    history = read()
    said: list[tuple[lint_history.Span, tuple[str, str, str, str]]] = [
        *((span, _OF_DOMAIN) for span in history.rewritten),
        *((span, _SEARCHED) for span in history.searched),
        *((span, _RENAMED) for span in history.renamed),
        *(
            (span, lint_contract.drops_key(name, kind))
            for span, name, kind in history.keys
            if not lint_contract.kind_of_key(name)  # of which its rule speaks
        ),
    ]
    for (number, begin, _), (rule, severity, message, mend) in said:
        file = files[number]
        if file.name in names:
            line, column = file.places.line_and_column(begin)
            yield Finding(file.name, _path(folder, file.name), line, column, rule, severity, message, mend)


_OF_DOMAIN = (
    "locks-out-reads", "danger",
    "A new column of a domain with a constraint, or with a default that calls a function, is written into each row, while "
    "nobody can read the table.",
    "Add it with the domain's own type, fill it in batches, and add a CHECK with NOT VALID that is validated in the next "
    f"migration; or {BUT_SAY}",
)  # fmt: skip
_SEARCHED = (
    "locks-out-reads", "danger",
    "A new partition beside a default one has the server search that one for rows that belong into the new one, while nobody "
    "can read it.",
    f"Give the default partition a CHECK that excludes the new bounds, NOT VALID, and validate that, in migrations before; or {BUT_SAY}",
)  # fmt: skip
_RENAMED = (
    "renames-what-is-used", "danger",
    "`ALTER INDEX ... RENAME` of what no migration makes as an index: the server renames a table or view by it, too.",
    f"Make sure that it is an index, and {BUT_SAY}",
)  # fmt: skip


def _foreign_keys(
    files: Sequence[MigrationFile], names: Collection[str], folder: str | os.PathLike[str]
) -> Iterator[Finding]:
    # Nothing else can leave a key without an index; the whole chain is read only then.
    if not any({"references", "drop"} & file.words for file in files if file.name in names):
        return
    for key in without_index([file.outline.text for file in files]):
        file = files[key.place.file]
        if file.name not in names:
            continue
        line, column = file.places.line_and_column(key.place.offset)
        columns = ", ".join(f'"{one}"' for one in key.columns)
        how = "is left without its index" if key.lost else "has no index that begins with its columns"
        yield Finding(
            file.name,
            _path(folder, file.name),
            line,
            column,
            "foreign-key-without-index",
            "warning",
            f'The foreign key "{key.name}" of "{key.table}" ({columns}) {how}: every DELETE and key change in the table '
            "that it points to reads this one whole.",
            f'Add an index on "{key.table}" ({columns}), in Prisma `@@index`.',
        )


_HAS_STATEMENT = re.compile(r"^\s*[A-Za-z]", re.MULTILINE)
_NOTEWORTHY = {
    "begin", "start", "commit", "end", "rollback", "abort", "prepare", "prepared", "transaction",
    "concurrently", "vacuum", "reindex", "cluster", "discard", "value", "truncate", "owned", "do", "lock", "refresh", "logged", "unlogged",
    "exclude", "rename", "disable", "force", "owner", "grant", "revoke", "setval", "unique", "merge", "explain", "security", "attach",
    "detach", "inherit", "replica", "identity", "restart", "expression", "copy", "load", "checkpoint", "import", "reassign",
    "pg_advisory_unlock_all", "pg_advisory_unlock", "lo_unlink", "transaction_read_only", "increment", "minvalue", "maxvalue", "session_replication_role", "lock_timeout", "statement_timeout", "transaction_timeout", "timestamptz",
}  # fmt: skip
_NOTEWORTHY_TOGETHER = (
    {"time", "zone"}, {"drop", "cascade"}, {"drop", "default"}, {"drop", "constraint"}, {"drop", "select"}, {"drop", "call"}, {"delete", "from"}, {"update", "set"},
    {"add", "check"}, {"validate", "constraint"}, {"for", "update"}, {"for", "share"}, {"alter", "generated"}, {"access", "method"}, {"set", "tablespace"},
    {"set", "role"}, {"set", "session"}, {"set", "local"}, {"set", "cycle"},
    *({"add", f"{size}serial{number}"} for size in ("", "small", "big") for number in ("", "2", "4", "8")),
)  # fmt: skip
# Of tables, indexes and enums the words above tell; a view may be made, replaced and dropped like a table.
_KIND = re.compile(
    r"""\b(?:(?:create|alter|drop)(?:\s|--.*\n)+(?:or(?:\s|--.*\n)+replace(?:\s|--.*\n)+)?
      (?!(?:table|index|unique|column|constraint|not|default|if)\b|type\s+[\w."]+\s+as\b)[a-z]+
    | comment(?:\s|--.*\n)+on(?:\s|--.*\n)+(?!(?:table|column|index|type|constraint)\b)[a-z]+)""",
    re.VERBOSE | re.IGNORECASE,
)


_BESIDE = re.compile(r"\badd\s+(?!constraint\b|foreign\b)|,\s*(?:add|drop|alter|validate)\b", re.IGNORECASE)
_NULL_DEFAULT = re.compile(r"\bdefault(?:[\s(]|--[^\n]{0,200}\n)+null\b", re.IGNORECASE)


def _own(file: MigrationFile, folder: str | os.PathLike[str], made: Made | None) -> Iterator[Finding]:
    """What our own rules find in one file; `made` is what the files before it made, and goes on, where that counts."""
    # Most files hold none of these words, and to read a thousand of them statement by statement takes a second.
    sql = file.outline.text
    noteworthy = (
        bool(_NOTEWORTHY & file.words)
        or any(words <= file.words for words in _NOTEWORTHY_TOGETHER)
        or _KIND.search(sql) is not None
        # A foreign key that isn't alone in its ALTER TABLE.
        or ({"add", "null"} <= file.words and _NULL_DEFAULT.search(sql) is not None)
        or ("references" in file.words and _BESIDE.search(sql) is not None)
    )
    if "/*" not in sql and "\\" not in sql and _HAS_STATEMENT.search(sql) and not noteworthy:
        if made is not None:
            for one in each_statement(sql):
                made.run(one)
        return
    found = statements(sql)
    read = list(with_code(found))
    for offset, rule, severity, message, mend in (
        *_empty(found),
        *_psql(file.psql),
        *_transaction_control(found),
        *_not_alone(read, file.outline.left_out),
        *_enum_value_used(read),
        *server(read),
        *contract(read, Made() if made is None else deepcopy(made)),
        *dangers(read, Made() if made is None else made),
    ):
        line, column = file.places.line_and_column(offset)
        yield Finding(file.name, _path(folder, file.name), line, column, rule, severity, message, mend)


def _empty(found: list[Statement]) -> Iterator[Said]:
    if not found:
        yield (
            0, "empty", "danger",
            "The file holds no statement: it would be recorded as applied, and can't be filled in afterwards.",
            "Write its statements, or remove its directory.",
        )  # fmt: skip


def _psql(commands: list[tuple[int, str]]) -> Iterator[Said]:
    for offset, command in commands:
        yield (
            offset, "psql-command", "danger", f"`{command}` is a command of psql: neither the server nor Prisma knows it.",
            "Take it out; what it includes or sets has to stand in the file itself.",
        )  # fmt: skip


def _transaction_control(found: list[Statement]) -> Iterator[Said]:
    rule = "transaction-control"
    begun: Statement | None = None
    told = False
    for one in (one for one in found if one.transaction_control):
        first, *rest = one.words
        if "PREPARED" in rest or first == "PREPARE":
            yield (
                one.start, rule, "danger", f"`{short(one)}` works with a prepared transaction, which outlives the migration.",
                "Leave it out.",
            )  # fmt: skip
        elif first in ("BEGIN", "START"):
            if begun is not None:
                yield (
                    one.start, rule, "danger",
                    f"`{short(one)}` inside the transaction that line {begun.line} began: the first COMMIT ends both.",
                    "Leave one of them out.",
                )  # fmt: skip
            begun = begun or one
        elif begun is None:
            yield (
                one.start, rule, "danger",
                f"`{short(one)}` without a BEGIN in this file ends the transaction that the migration runs in: what follows "
                "can fail on its own.",
                "Leave it out: every migration is one transaction already.",
            )  # fmt: skip
        elif first in ("ROLLBACK", "ABORT"):
            yield (
                one.start, rule, "danger",
                f"`{short(one)}` undoes everything since line {begun.line}, and the migration counts as applied.",
                "Leave out BEGIN and ROLLBACK.",
            )  # fmt: skip
            begun = None
        else:
            if not told:
                yield (
                    begun.start, rule, "warning",
                    f"The file brings its own transaction (lines {begun.line} to {one.line}): it and its ledger row can't be "
                    "one.",
                    "Leave out BEGIN and COMMIT, unless Prisma wrote them (it does where an enum value is removed).",
                )  # fmt: skip
                told = True
            begun = begun if "CHAIN" in rest and "NO" not in rest else None
    if begun is not None:
        yield (
            begun.start, rule, "danger",
            f"`{short(begun)}` without a COMMIT: everything behind it would be undone, and count as applied.",
            "Leave it out: every migration is one transaction already.",
        )  # fmt: skip


def _not_alone(read: Read, left_out: int) -> Iterator[Said]:
    number = len(read) + left_out
    for top, code in read:
        if number > 1 and refuses_transaction(top):
            yield (
                top.start, "not-alone", "danger",
                f"`{short(top)}` can't run in a transaction, and this file holds {number} statements, which run in one.",
                "Put it into a migration of its own.",
            )  # fmt: skip
        for one in code if top.first not in ("EXPLAIN", "PREPARE") else ():
            if refuses_transaction(one):
                yield (
                    one.start, "not-alone", "danger", f"`{short(one)}` can't run in code, which is always in a transaction.",
                    "Write it as a statement of its own, in a migration of its own.",
                )  # fmt: skip
            elif one.first in ("COMMIT", "ROLLBACK") and number > 1:
                yield (
                    one.start, "not-alone", "danger",
                    f"`{short(one)}` in code can't end a transaction that was begun outside, and this file holds {number} "
                    "statements, which run in one (2D000).",
                    "Leave it out, or put that block into a migration of its own.",
                )  # fmt: skip
            elif one.first == "ROLLBACK":
                yield (
                    one.start, "transaction-control", "danger",
                    f"`{short(one)}` in code undoes what was done before it, and the migration counts as applied.",
                    "Leave it out, or raise an exception, which stops the migration.",
                )  # fmt: skip
            elif one.first == "COMMIT":
                yield (
                    one.start, "transaction-control", "warning",
                    f"`{short(one)}` in code: the migration and its ledger row can't be one transaction.",
                    "Leave it out, unless there are more rows than one transaction should hold.",
                )  # fmt: skip


def refuses_transaction(statement: Statement) -> bool:
    """Whether PostgreSQL refuses this statement inside a transaction (callers of `PreventInTransactionBlock`)."""
    match statement.words:
        case ("VACUUM" | "REINDEX" | "CREATE" | "DROP" | "ALTER" | "CLUSTER" | "DISCARD", *_):
            pass
        case _:
            return False
    parts = list(tokens(statement.text))
    words = [text.upper() for kind, text, _ in parts if kind == "word"]
    names = [text for kind, text, _ in parts if kind in ("word", "ident")]
    match words:
        case ["VACUUM", *_] | ["ALTER", "SYSTEM", *_] | ["DISCARD", "ALL", *_]:
            return True
        case ["CREATE" | "DROP", "DATABASE" | "TABLESPACE" | "SUBSCRIPTION", *_]:
            return True
        case ["CREATE", "INDEX", "CONCURRENTLY", *_] | ["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY", *_]:
            return True
        case ["DROP", "INDEX", "CONCURRENTLY", *_]:
            return True
        case ["REINDEX", *rest]:
            return bool({"CONCURRENTLY", "DATABASE", "SYSTEM", "SCHEMA"} & set(rest))
        case ["ALTER", "DATABASE", *rest]:
            return "TABLESPACE" in rest
        case ["ALTER", "SUBSCRIPTION", *rest]:
            return "REFRESH" in rest
        case ["ALTER", "TABLE", *rest]:
            return "DETACH" in rest and rest[-1] == "CONCURRENTLY"
        case ["CLUSTER", *_]:
            # Without a table it is all of them.
            return not set(names[1:]) - {"VERBOSE", "verbose"}
    return False


_ALONE = {"concurrently", "vacuum", "reindex", "cluster", "discard", "database", "tablespace", "subscription", "system"}


def _outside_transaction(file: MigrationFile) -> bool:
    """Whether a file is one statement that can't run in a transaction, so that none is opened for it."""
    if not _ALONE & file.words:
        return False
    found = list(islice(each_statement(file.outline.text), 2))
    return len(found) == 1 and refuses_transaction(found[0])


def _enum_value_used(read: Read) -> Iterator[Said]:
    """A new enum value can be used only after it was committed (55P04), unless its type is as new as it is."""
    added: dict[str, Statement] = {}
    made: set[str] = set()
    told = -1  # the end of the statement of which it was said: what its code runs is a part of it
    for one in (each for top, code in read for each in (top, *code)):
        if one.transaction_control and one.words[0] in ("COMMIT", "END"):
            added.clear()
            continue
        if one.first == "COMMENT" or not (added or one.first in ("CREATE", "ALTER")):
            continue
        of_type = one.words[:2] in (("CREATE", "TYPE"), ("ALTER", "TYPE"))
        if not (of_type or added):
            continue
        parts = list(tokens(one.text))
        if of_type:
            name = Reader(parts[2:]).name()
            if one.words[0] == "CREATE":
                made.add(name)
                continue
            values = [text for kind, text, _ in parts if kind in ("string", "escape", "dollar")]
            if "ADD" in one.words and values:
                if name not in made:
                    added[literal_value(values[0])] = one
                continue
        for value, offset in _literals(one, parts) if added else ():
            if value in added and told < one.start:
                told = max(told, one.end)
                yield (
                    one.start + offset, "enum-value-used", "danger",
                    f"The value '{value}' is used in the file that adds it (line {added[value].line}): a new enum value can be "
                    "used only after it was committed (55P04).",
                    "Move its use into the next migration.",
                )  # fmt: skip
                break


def _literals(statement: Statement, parts: list[tuple[str, str, int]]) -> Iterator[tuple[str, int]]:
    """The string constants of a statement, with their offsets in it.

    Looks into the body of a `DO` block and of a function in SQL, which are executed or checked at once; the body of a
    function in PL/pgSQL is not before it is called.
    """
    words = [text.upper() for kind, text, _ in parts if kind in ("word", "ident")]
    language = next((after.strip('"') for word, after in pairwise(words) if word == "LANGUAGE"), "")
    looked_at_once = statement.words[:1] == ("DO",) or language == "SQL"
    for kind, text, offset in parts:
        if kind in ("string", "escape", "dollar"):
            yield literal_value(text), offset
            if looked_at_once and kind == "dollar":
                yield from (
                    (literal_value(inner), offset)
                    for of, inner, _ in tokens(literal_value(text))
                    if of in ("string", "escape")
                )
