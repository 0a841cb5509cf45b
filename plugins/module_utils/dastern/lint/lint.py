"""Lint migrations before they are applied, with rules of our own, about migration runs, and those of squawk.

Lint runs on the controller, on files alone; it makes no connection.
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
from .dangers import BUT_SAY, NewTables, Problem, dangers, tables
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
    """A problem to consider before a file is applied; `line` and `column` count from 1."""

    migration: str
    file: str
    line: int
    column: int
    rule: str
    severity: str
    """Either `danger` or `warning`."""
    message: str
    mend: str

    def __str__(self) -> str:
        return shown(f"{self.place}: {self.severity}: {self.rule}: {self.message} {self.mend}")

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Ignore:
    """A rule to ignore, in one migration or, where that is None, in all; `why` is for people."""

    rule: str
    migration: str | None
    why: str

    def covers(self, finding: Finding) -> bool:
        return self.rule == finding.rule and self.migration in (None, finding.migration)


def lint_folder(folder: str | os.PathLike[str], program: Path | None = None) -> list[Finding]:
    """Return all findings in all migrations of `folder`; a file that can't be read is the only finding."""
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
    """Return the findings in those of `files` whose names are in `names`, in order; the other files are their history.

    `together` tells that these are applied in one run: then a table that one of them creates holds no rows for the next.
    `program` is squawk's path, by default the installed one. Raise `DasTernError` for an unusable `lint.yml`.
    """
    ignored = read_ignores(folder)
    pending = [file for file in files if file.name in names]
    if not pending:
        return []
    history = cache(
        lambda: lint_history.read(
            [file.outline.text for file in files],
            {number for number, file in enumerate(files) if together and file.name in names},
        )
    )  # the chain is read only if a rule needs it
    findings = [
        *_squawk(pending, folder, program or squawk.find(), together),
        *_foreign_keys(files, names, folder),
        *_concurrently_partitioned(files, names, folder, history),
        *_of_history(files, names, folder, history),
    ]
    new_tables = NewTables() if together else None
    for file in pending:
        findings += _own(file, folder, new_tables)
        if new_tables is not None:
            new_tables.next_file()
    needless = _needless(findings, files)
    findings = [
        finding
        for finding in findings
        if (finding.rule, finding.migration, finding.line, finding.column) not in needless
    ]
    findings = _corrected_by_history(findings, files, history)
    order = {file.name: number for number, file in enumerate(files)}
    findings.sort(key=lambda finding: (order.get(finding.migration, -1), finding.line, finding.column, finding.rule))
    return [finding for finding in findings if not any(ignore.covers(finding) for ignore in ignored)]


def read_ignores(folder: str | os.PathLike[str]) -> list[Ignore]:
    """Return the rules to ignore from the file `lint.yml` beside the migrations.

    It is a list of `rule`, `why` and, unless it is for all migrations, `migration`. A comment inside an applied migration
    can't serve: its checksum is in the ledger. Prisma ignores plain files in this folder.
    """
    path = Path(folder, IGNORE_FILE)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DasTernError(f"{path} can't be read: {' '.join(str(error).split())}. Correct the file.") from None
    expected = "Expected: a list of `rule`, `why` and, unless it is for all migrations, `migration`"
    if content is not None and not isinstance(content, list):
        raise DasTernError(f"{path} holds a {type(content).__name__}. {expected}.")
    ignores = []
    for number, item in enumerate(content or [], 1):
        texts = isinstance(item, dict) and all(isinstance(value, str) and value.strip() for value in item.values())
        if not texts or not {"rule", "why"} <= set(item) <= {"rule", "why", "migration"}:
            raise DasTernError(f"{path}, entry {number} is {item!r}. {expected}, each of them a text.")
        if item["rule"] not in (*OWN_RULES, *squawk.RULES):
            raise DasTernError(
                f"{path}, entry {number}: there is no rule {item['rule']!r}. Expected: one of "
                f"{', '.join(sorted((*OWN_RULES, *squawk.RULES)))}."
            )
        ignores.append(Ignore(item["rule"], item.get("migration"), item["why"]))
    return ignores


def grouped(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as plain data, one entry for all places of the same problem."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.rule, finding.severity, finding.message, finding.mend), []).append(finding.place)
    names = ("rule", "severity", "message", "mend")
    return [{**dict(zip(names, key, strict=True)), "places": places} for key, places in groups.items()]


def refusal(findings: Sequence[Finding]) -> str:
    """Return the dangers among the findings as one message to an operator; '' where there are none."""
    dangers = [str(finding) for finding in findings if finding.severity == "danger"]
    if not dangers:
        return ""
    return "\n".join(
        [
            f"Lint reports {len(dangers)} {'danger' if len(dangers) == 1 else 'dangers'} in the pending migrations, and "
            "`migrations_lint` is fail: nothing was applied.",
            *dangers,
            f"Correct the files; or add the rule, the migration and the reason to {IGNORE_FILE} beside the migrations; or, "
            "for this run, use `-e migrations_lint=warn`.",
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
        mend = "`scripts/setup` installs it." if error.missing else "Only the other rules were checked."
        return [Finding("", str(folder), 1, 1, "squawk", "danger", f"{error}.", mend)]
    remarks = [remark for remark in remarks if remark.number < len(files)] + [
        replace(remark, number=coded[remark.number - len(files)][0])
        for remark in remarks
        if remark.number >= len(files)
        # Code that squawk can't read is PL/pgSQL.
        and remark.rule != "syntax-error"
        and any(begin <= (remark.line, remark.column) <= end for begin, end in coded[remark.number - len(files)][1])
    ]
    harmless = _harmless(files, {remark.number for remark in remarks if remark.rule in _LOCAL}, together)
    return [
        Finding(
            files[remark.number].name,
            _path(folder, files[remark.number].name),
            remark.line,
            remark.column,
            remark.rule,
            remark.severity,
            remark.message,
            remark.mend,
        )
        for remark in remarks
        if not any(
            remark.rule in rules and begin <= (remark.line, remark.column) <= end
            for rules, (begin, end) in harmless.get(remark.number, ())
        )
    ]


Place = tuple[int, int]
"""A line and a column, both from 1."""
_CODE_OF_SQUAWK = {"ALTER", "CREATE", "DROP", "REINDEX", "TRUNCATE"}


def _code(file: MigrationFile) -> tuple[list[tuple[Place, Place]], str] | None:
    """Return the places of statements for squawk in the code of a file, and its text with only these in place of that code.

    Return None where there are none. Every statement keeps its place.
    """
    sql, place = file.outline.text, file.places.line_and_column
    if not holds_code(sql):
        return None
    tops = statements(sql)
    inner = sorted(
        (
            statement
            for _, code in with_code(tops)
            for statement in code
            # A function that is created there contains its own code.
            if statement.first in _CODE_OF_SQUAWK and not makes_function(statement)
        ),
        key=lambda statement: statement.start,
    )
    if not inner:
        return None
    inner.reverse()
    pieces: list[str] = []
    spans: list[tuple[Place, Place]] = []
    at = 0
    for top in tops:
        if not inner or inner[-1].start >= top.end:
            continue
        blank = list(re.sub(r"[^\n]", " ", sql[top.start : top.end]))
        while inner and inner[-1].start < top.end:
            statement = inner.pop()
            begin = statement.start - top.start
            end = begin + len(statement.text)
            behind = "".join(blank[end : end + 1])
            # A line break is kept; where the outer statement ends as well, its own semicolon follows.
            blank[begin : end + 1] = [*statement.text, ";\n" if behind == "\n" else behind and ";"]
            spans.append((place(statement.start), place(statement.end)))
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
    """Return, by number of a file in `numbers`, the places where rules of squawk don't apply: the rules, begin and end.

    Statements there drop or change only tables that these files themselves create, or add a column without values, or a check
    that old rows needn't pass.
    """
    new_tables = NewTables()
    harmless: dict[int, list[tuple[Collection[str], tuple[Place, Place]]]] = {}
    for number, file in enumerate(files):
        new_tables = new_tables if together else NewTables()
        if number not in numbers and not (together and numbers):
            continue
        spans = harmless.setdefault(number, [])
        for top, code in with_code(each_statement(file.outline.text)):
            for statement in (top, *code):
                if statement.words[:2] == ("ALTER", "DOMAIN") and upper(list(tokens(statement.text)))[-2:] == [
                    "NOT",
                    "VALID",
                ]:
                    spans.append(
                        (("ban-alter-domain-with-add-constraint",), _places(file, statement.start, statement.end))
                    )
                elif statement.first == "REINDEX" and new_tables.all_of([_reindexed(statement)]):
                    spans.append((("require-concurrent-reindex",), _places(file, statement.start, statement.end)))
                elif statement.words[:2] in (("ALTER", "TABLE"), ("DROP", "TABLE")) and new_tables.all_of(
                    tables(statement)
                ):
                    spans.append((squawk.ON_ROWS, _places(file, statement.start, statement.end)))
                elif statement.words[:2] == ("ALTER", "TABLE") and "REFERENCES" in statement.text.upper():
                    for action in altered(statement.text)[1]:
                        words = upper(outside(action))
                        if (
                            words[0] == "ADD"
                            and "REFERENCES" in words
                            and not {"FOREIGN", "DEFAULT", "GENERATED"} & set(words)
                        ):
                            end = action[-1][2] + len(action[-1][1])
                            place = _places(file, statement.start + action[0][2], statement.start + end)
                            spans.append((("adding-foreign-key-constraint",), place))
            new_tables.run(top, code)
        new_tables.next_file()
    return harmless


def _reindexed(statement: Statement) -> tuple[str, ...]:
    reader = Reader(statement.text)
    reader.take("REINDEX")
    reader.group()
    return reader.path() if reader.take("TABLE") else ()


def _places(file: MigrationFile, begin: int, end: int) -> tuple[Place, Place]:
    return file.places.line_and_column(begin), file.places.line_and_column(end)


def _needless(findings: Sequence[Finding], files: Sequence[MigrationFile]) -> set[tuple[str, str, int, int]]:
    """Return rule, migration, line and column of remarks of squawk that the whole chain or a rule of our own refutes."""
    # squawk advises NOT VALID, which a constraint with EXCLUDE can't have.
    needless = {
        ("constraint-missing-not-valid", finding.migration, finding.line, finding.column)
        for finding in findings
        if finding.rule == "locks-out-reads"
    }
    if any(finding.rule == "changing-column-type" for finding in findings):
        for number, offset in widened([file.outline.text for file in files]):
            place = files[number].places.line_and_column(offset)
            needless.add(("changing-column-type", files[number].name, *place))
    return needless


_PARTITIONED = (
    "Only its partitions can be indexed CONCURRENTLY: `CREATE INDEX ... ON ONLY` the table, then create one on each partition "
    "CONCURRENTLY, each alone in a migration, then `ALTER INDEX ... ATTACH PARTITION`."
)
_OF_HISTORY = {"adding-not-nullable-field", "adding-field-with-default", "require-concurrent-index-creation"}


def _corrected_by_history(
    findings: list[Finding], files: Sequence[MigrationFile], read_history: Callable[[], lint_history.History]
) -> list[Finding]:
    """Return findings without those that the earlier chain shows to be harmless, and with the advice for partitioned tables."""
    if not any(finding.rule in _OF_HISTORY for finding in findings):
        return findings
    history = read_history()
    numbers = {file.name: number for number, file in enumerate(files)}

    def within(finding: Finding, spans: list[lint_history.Span]) -> bool:
        number = numbers[finding.migration]
        place = files[number].places.line_and_column
        return any(
            file == number and place(begin) <= (finding.line, finding.column) <= place(end)
            for file, begin, end in spans
        )

    harmless = {
        "adding-not-nullable-field": history.proven,
        "adding-field-with-default": history.constant,
        "require-concurrent-index-creation": history.alone,
    }
    kept = [
        finding for finding in findings if finding.rule not in harmless or not within(finding, harmless[finding.rule])
    ]
    return [
        replace(finding, mend=_PARTITIONED)
        if finding.rule == "require-concurrent-index-creation" and within(finding, history.partitioned)
        else finding
        for finding in kept
    ]


def _concurrently_partitioned(
    files: Sequence[MigrationFile],
    names: Collection[str],
    folder: str | os.PathLike[str],
    read_history: Callable[[], lint_history.History],
) -> Iterator[Finding]:
    """Yield findings on statements that the server refuses although they follow lint's own advice."""
    if not any({"concurrently", "index"} <= file.words for file in files if file.name in names):
        return
    for number, begin, end in read_history().partitioned:
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
    read_history: Callable[[], lint_history.History],
) -> Iterator[Finding]:
    """Yield findings that depend on objects of earlier files: domains, default partitions, keys, indexes."""
    per_file = [file.words for file in files if file.name in names]
    every = frozenset().union(*(file.words for file in files))
    if not (
        ("domain" in every and any("add" in words for words in per_file))
        or ({"partition", "default"} <= every and any("partition" in words for words in per_file))
        or any({"drop", "constraint"} <= words or {"index", "rename"} <= words for words in per_file)
    ):
        return
    history = read_history()
    problems: list[tuple[lint_history.Span, tuple[str, str, str, str]]] = [
        *((span, _OF_DOMAIN) for span in history.rewritten),
        *((span, _SEARCHED) for span in history.searched),
        *((span, _RENAMED) for span in history.renamed),
        *(
            (span, lint_contract.drops_key(name, kind))
            for span, name, kind in history.keys
            if not lint_contract.kind_of_key(name)  # the rule on dropped keys reports these
        ),
    ]
    for (number, begin, _), (rule, severity, message, mend) in problems:
        file = files[number]
        if file.name in names:
            line, column = file.places.line_and_column(begin)
            yield Finding(file.name, _path(folder, file.name), line, column, rule, severity, message, mend)


_OF_DOMAIN = (
    "locks-out-reads", "danger",
    "A new column of a domain with a constraint, or with a default that calls a function, is written into each row while "
    "nobody can read the table.",
    "Add it with the domain's own type, fill it in batches, and add a CHECK with NOT VALID that is validated in the next "
    f"migration; or {BUT_SAY}",
)  # fmt: skip
_SEARCHED = (
    "locks-out-reads", "danger",
    "Before the server adds a partition, it searches the default partition for rows that belong in the new one, while nobody "
    "can read it.",
    f"In earlier migrations, give the default partition a CHECK with NOT VALID that excludes the new bounds, and validate that; or {BUT_SAY}",
)  # fmt: skip
_RENAMED = (
    "renames-what-is-used", "danger",
    "`ALTER INDEX ... RENAME` of an object that no migration creates as an index: the statement renames a table or view, too.",
    f"Make sure that it is an index, and {BUT_SAY}",
)  # fmt: skip


def _foreign_keys(
    files: Sequence[MigrationFile], names: Collection[str], folder: str | os.PathLike[str]
) -> Iterator[Finding]:
    # Nothing else can leave a key without an index, so the whole chain is read only then.
    if not any({"references", "drop"} & file.words for file in files if file.name in names):
        return
    for key in without_index([file.outline.text for file in files]):
        file = files[key.place.file]
        if file.name not in names:
            continue
        line, column = file.places.line_and_column(key.place.offset)
        columns = ", ".join(f'"{name}"' for name in key.columns)
        how = "is left without its index" if key.lost else "has no index that begins with its columns"
        yield Finding(
            file.name,
            _path(folder, file.name),
            line,
            column,
            "foreign-key-without-index",
            "warning",
            f'The foreign key "{key.name}" of "{key.table}" ({columns}) {how}: every DELETE and key change in the table '
            "that it points to reads this whole table.",
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
# The words above cover tables, indexes and enums; a view may be created, replaced and dropped like a table.
_KIND = re.compile(
    r"""\b(?:(?:create|alter|drop)(?:\s|--.*\n)+(?:or(?:\s|--.*\n)+replace(?:\s|--.*\n)+)?
      (?!(?:table|index|unique|column|constraint|not|default|if)\b|type\s+[\w."]+\s+as\b)[a-z]+
    | comment(?:\s|--.*\n)+on(?:\s|--.*\n)+(?!(?:table|column|index|type|constraint)\b)[a-z]+)""",
    re.VERBOSE | re.IGNORECASE,
)


_BESIDE = re.compile(r"\badd\s+(?!constraint\b|foreign\b)|,\s*(?:add|drop|alter|validate)\b", re.IGNORECASE)
_NULL_DEFAULT = re.compile(r"\bdefault(?:[\s(]|--[^\n]{0,200}\n)+null\b", re.IGNORECASE)


def _own(file: MigrationFile, folder: str | os.PathLike[str], new_tables: NewTables | None) -> Iterator[Finding]:
    """Yield the findings of our own rules in one file; `new_tables` follows it, and is None where each file stands alone."""
    # Most files hold none of these words, and reading a thousand of them statement by statement takes a second.
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
        if new_tables is not None:
            for statement in each_statement(sql):
                new_tables.run(statement)
        return
    tops = statements(sql)
    read = list(with_code(tops))
    for offset, rule, severity, message, mend in (
        *_empty(tops),
        *_psql(file.psql),
        *_transaction_control(tops),
        *_not_alone(read, file.outline.left_out),
        *_enum_value_used(read),
        *server(read),
        *contract(read, NewTables() if new_tables is None else deepcopy(new_tables)),
        *dangers(read, NewTables() if new_tables is None else new_tables),
    ):
        line, column = file.places.line_and_column(offset)
        yield Finding(file.name, _path(folder, file.name), line, column, rule, severity, message, mend)


def _empty(tops: list[Statement]) -> Iterator[Problem]:
    if not tops:
        yield (
            0, "empty", "danger",
            "The file holds no statement: it would be recorded as applied, and couldn't be completed later.",
            "Write its statements, or remove its directory.",
        )  # fmt: skip


def _psql(commands: list[tuple[int, str]]) -> Iterator[Problem]:
    for offset, command in commands:
        yield (
            offset, "psql-command", "danger", f"`{command}` is a command of psql: neither the server nor Prisma knows it.",
            "Remove it; the file itself has to contain what the command includes or sets.",
        )  # fmt: skip


def _transaction_control(tops: list[Statement]) -> Iterator[Problem]:
    rule = "transaction-control"
    begin: Statement | None = None
    reported = False
    for statement in (statement for statement in tops if statement.transaction_control):
        first, *rest = statement.words
        if "PREPARED" in rest or first == "PREPARE":
            yield (
                statement.start, rule, "danger", f"`{statement.short}` works with a prepared transaction, which outlives the migration.",
                "Leave it out.",
            )  # fmt: skip
        elif first in ("BEGIN", "START"):
            if begin is not None:
                yield (
                    statement.start, rule, "danger",
                    f"`{statement.short}` inside the transaction that line {begin.line} began: the first COMMIT ends both.",
                    "Leave one of them out.",
                )  # fmt: skip
            begin = begin or statement
        elif begin is None:
            yield (
                statement.start, rule, "danger",
                f"`{statement.short}` without a BEGIN in this file ends the transaction that the migration runs in: later "
                "statements can fail on their own.",
                "Leave it out: every migration already is one transaction.",
            )  # fmt: skip
        elif first in ("ROLLBACK", "ABORT"):
            yield (
                statement.start, rule, "danger",
                f"`{statement.short}` undoes everything since line {begin.line}, and the migration counts as applied.",
                "Leave out BEGIN and ROLLBACK.",
            )  # fmt: skip
            begin = None
        else:
            if not reported:
                yield (
                    begin.start, rule, "warning",
                    f"The file has its own transaction (lines {begin.line} to {statement.line}): it and its ledger row can't be "
                    "one.",
                    "Leave out BEGIN and COMMIT, unless Prisma wrote them (it does where an enum value is removed).",
                )  # fmt: skip
                reported = True
            begin = begin if "CHAIN" in rest and "NO" not in rest else None
    if begin is not None:
        yield (
            begin.start, rule, "danger",
            f"`{begin.short}` without a COMMIT: everything after it would be undone, and count as applied.",
            "Leave it out: every migration already is one transaction.",
        )  # fmt: skip


def _not_alone(read: Read, left_out: int) -> Iterator[Problem]:
    number = len(read) + left_out
    for top, code in read:
        if number > 1 and refuses_transaction(top):
            yield (
                top.start, "not-alone", "danger",
                f"`{top.short}` can't run in a transaction, and this file holds {number} statements, which run in one.",
                "Put it into a migration of its own.",
            )  # fmt: skip
        for statement in code if top.first not in ("EXPLAIN", "PREPARE") else ():
            if refuses_transaction(statement):
                yield (
                    statement.start, "not-alone", "danger", f"`{statement.short}` can't run in code, which is always in a transaction.",
                    "Write it as a statement of its own, in a migration of its own.",
                )  # fmt: skip
            elif statement.first in ("COMMIT", "ROLLBACK") and number > 1:
                yield (
                    statement.start, "not-alone", "danger",
                    f"`{statement.short}` in code can't end a transaction that was begun outside, and this file holds {number} "
                    "statements, which run in one (2D000).",
                    "Leave it out, or put that block into a migration of its own.",
                )  # fmt: skip
            elif statement.first == "ROLLBACK":
                yield (
                    statement.start, "transaction-control", "danger",
                    f"`{statement.short}` in code undoes what was done before it, and the migration counts as applied.",
                    "Leave it out, or raise an exception, which stops the migration.",
                )  # fmt: skip
            elif statement.first == "COMMIT":
                yield (
                    statement.start, "transaction-control", "warning",
                    f"`{statement.short}` in code: the migration and its ledger row can't be one transaction.",
                    "Leave it out, unless there are too many rows for one transaction.",
                )  # fmt: skip


def refuses_transaction(statement: Statement) -> bool:
    """Return whether PostgreSQL refuses a statement inside a transaction (callers of `PreventInTransactionBlock`)."""
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
            # Without a table, it clusters all tables.
            return not set(names[1:]) - {"VERBOSE", "verbose"}
    return False


_ALONE = {"concurrently", "vacuum", "reindex", "cluster", "discard", "database", "tablespace", "subscription", "system"}


def _outside_transaction(file: MigrationFile) -> bool:
    """Return whether a file is a single statement that can't run in a transaction, so that none is opened for it."""
    if not _ALONE & file.words:
        return False
    tops = list(islice(each_statement(file.outline.text), 2))
    return len(tops) == 1 and refuses_transaction(tops[0])


def _enum_value_used(read: Read) -> Iterator[Problem]:
    """Yield uses of a new enum value before it is committed (55P04), except of a type that is new as well."""
    added: dict[str, Statement] = {}
    new_types: set[str] = set()
    reported = -1  # the end of the reported statement: its code is a part of it
    for statement in (inner for top, code in read for inner in (top, *code)):
        if statement.transaction_control and statement.words[0] in ("COMMIT", "END"):
            added.clear()
            continue
        if statement.first == "COMMENT" or not (added or statement.first in ("CREATE", "ALTER")):
            continue
        of_type = statement.words[:2] in (("CREATE", "TYPE"), ("ALTER", "TYPE"))
        if not (of_type or added):
            continue
        parts = list(tokens(statement.text))
        if of_type:
            name = Reader(parts[2:]).name()
            if statement.words[0] == "CREATE":
                new_types.add(name)
                continue
            values = [text for kind, text, _ in parts if kind in ("string", "escape", "dollar")]
            if "ADD" in statement.words and values:
                if name not in new_types:
                    added[literal_value(values[0])] = statement
                continue
        for value, offset in _literals(statement, parts) if added else ():
            if value in added and reported < statement.start:
                reported = max(reported, statement.end)
                yield (
                    statement.start + offset, "enum-value-used", "danger",
                    f"The value '{value}' is used in the file that adds it (line {added[value].line}): a new enum value can be "
                    "used only after it was committed (55P04).",
                    "Move its use into the next migration.",
                )  # fmt: skip
                break


def _literals(statement: Statement, parts: list[tuple[str, str, int]]) -> Iterator[tuple[str, int]]:
    """Yield the string constants of a statement, with their offsets in it.

    The bodies of a `DO` block and of a function in SQL are searched, because they are executed or checked at once; the body
    of a function in PL/pgSQL isn't, before it is called.
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
                    for inner_kind, inner, _ in tokens(literal_value(text))
                    if inner_kind in ("string", "escape")
                )
