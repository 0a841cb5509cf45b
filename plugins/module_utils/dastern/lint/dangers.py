"""Statements that lose rows or lock out reads and that squawk doesn't report, and the tables that they can't hurt."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ..common.sql_code import Read, Unread
from ..common.sql_reader import Reader, Token, altered, line, outside, split, upper
from ..common.sql_text import Statement, literal_value, tokens

Problem = tuple[int, str, str, str, str]
"""Offset in the file, rule, severity, message, advice."""

# Words that may change the meaning of a name without a schema, until the session is reset.
_ELSEWHERE = re.compile(r"search_path|\b(?:role|authorization|reset)\b", re.IGNORECASE)
BUT_SAY = "say in `lint.yml` why it is right."


class NewTables:
    """The tables and materialized views that a file itself has created so far: they hold nothing that can be lost.

    A name counts as it was written, with or without a schema, until a statement may give it to another object.
    """

    def __init__(self) -> None:
        self._paths: dict[str, set[tuple[str, ...]]] = {}
        """Written names, by the name without its schema."""
        self._passing: set[str] = set()
        self._changed = False

    def all_of(self, names: list[tuple[str, ...]]) -> bool:
        return bool(names) and all(path and path in self._paths.get(path[-1], ()) for path in names)

    def next_file(self) -> None:
        """Forget names that end with the session: temporary tables, and tables created under another search path."""
        for name in self._passing:
            self._paths.pop(name, None)
        self._passing.clear()
        self._changed = False

    def run(self, statement: Statement, code: Sequence[Statement] = ()) -> None:
        """Follow a statement, and the `code` that it runs, possibly only in part."""
        first = statement.first
        words = _words(statement) if first == "ALTER" else set()
        if first == "CREATE" and not code:
            self._create(Reader(statement.text))
        elif code or first in ("SET", "RESET", "DO") or "search_path" in statement.text.lower():
            self._paths.clear()
            self._changed = self._changed or any(_ELSEWHERE.search(executed.text) for executed in (statement, *code))
        elif self._paths and (
            first in ("ROLLBACK", "DISCARD")
            or statement.transaction_control
            or words & {"ATTACH", "INHERIT", "SCHEMA"}
            or statement.words[:2] in (("DROP", "SCHEMA"), ("DROP", "OWNED"))
        ):
            self._paths.clear()
        elif self._paths and (first == "DROP" or {"RENAME", "TO"} <= words):
            # The schema doesn't count: the same table may be written with it, without it, or with `pg_temp`.
            for path in tables(statement):
                self._paths.pop("".join(path[-1:]), None)

    def _create(self, reader: Reader) -> None:
        reader.take("CREATE")
        passing = self._changed
        while reader.word in ("TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED"):
            passing = passing or reader.word != "UNLOGGED"
            reader.skip()
        is_table = reader.take("TABLE") or reader.take("MATERIALIZED", "VIEW")
        if is_table and not reader.take("IF", "NOT", "EXISTS") and (path := reader.path()):
            self._paths.setdefault(path[-1], set()).add(path)
            if passing or path[0] == "pg_temp":
                self._passing.add(path[-1])


def _words(statement: Statement) -> set[str]:
    return {text.upper() for kind, text, _ in tokens(statement.text) if kind == "word"}


# ALTER INDEX, ALTER VIEW and the like rename tables, too.
_BEFORE_TABLES = {
    "DROP", "ALTER", "TRUNCATE", "LOCK", "CLUSTER", "REFRESH", "TABLE", "MATERIALIZED", "VIEW", "INDEX", "SEQUENCE", "FOREIGN",
}  # fmt: skip


def tables(statement: Statement) -> list[tuple[str, ...]]:
    """Return the objects that a DROP, ALTER, TRUNCATE, LOCK, CLUSTER or REFRESH names, each with its schema."""
    reader = Reader(statement.text)
    many = reader.word in ("DROP", "TRUNCATE", "LOCK")
    while reader.word in _BEFORE_TABLES:
        reader.skip()
    reader.group()
    reader.take("VERBOSE")
    reader.take("IF", "EXISTS")
    paths = []
    for part in split(reader.rest) if many else [reader.rest]:
        target = Reader(part)
        target.take("ONLY")
        paths.append(target.path())
    return paths


RULES = (
    "deletes-all-rows",
    "drop-cascade",
    "locks-out-reads",
    "locks-out-writes",
    "loses-data-in-code",
    "unlogged",
    "updates-all-rows",
)


def dangers(read: Read, new_tables: NewTables) -> Iterator[Problem]:
    """Yield the problems that this module's rules find in the statements of a file and in the code that it runs.

    `new_tables` holds the tables created before these statements, and follows them.
    """
    for top, code in read:
        for statement in (top, *code):
            if not _may_apply(statement):
                continue
            parts = list(tokens(statement.text))
            for offset, rule, severity, message, mend in (
                *_cascades(statement, parts),
                *_whole_tables(statement, parts, new_tables),
                *_locks(statement, parts, new_tables),
                *_unlogged(statement, parts),
            ):
                yield statement.start + offset, rule, severity, message, mend
        yield from _assembled(top, code)
        new_tables.run(top, code)


_WRITES = re.compile(r"delete|update|truncate|merge|share|lo_unlink", re.IGNORECASE)


def _may_apply(statement: Statement) -> bool:
    """Return whether a rule may apply to a statement."""
    if statement.first in ("DROP", "ALTER", "LOCK", "VACUUM", "CLUSTER", "REFRESH"):
        return True
    if statement.words[:2] == ("CREATE", "UNLOGGED"):
        return True
    if statement.first == "CREATE" and "TABLE" not in statement.words[1:4]:
        return False
    return _WRITES.search(statement.text) is not None


def _cascades(statement: Statement, parts: list[Token]) -> Iterator[Problem]:
    rule, mend = "drop-cascade", f"Name every object to drop, and leave CASCADE out; or {BUT_SAY}"
    if statement.words[:2] == ("DROP", "OWNED"):
        yield 0, rule, "danger", f"`{statement.short}` drops everything that the role owns without naming it.", mend
    elif statement.words[:1] in (("DROP",), ("ALTER",)):
        for part in [parts] if statement.words[0] == "DROP" else split(parts):
            words = upper(part)
            # ON DELETE CASCADE belongs to a foreign key that is added.
            if words[-1:] == ["CASCADE"] and "DROP" in words and "REFERENCES" not in words:
                yield (
                    part[0][2], rule, "danger",
                    f"`{statement.short}` also drops everything that depends on it, even columns with their values, without naming it.", mend,
                )  # fmt: skip


def _whole_tables(statement: Statement, parts: list[Token], new_tables: NewTables) -> Iterator[Problem]:
    # squawk reports TRUNCATE with CASCADE.
    words = upper(parts)
    if words[0] == "TRUNCATE" and words[-1] != "CASCADE" and not new_tables.all_of(tables(statement)):
        yield _deletes(0, statement.short)
    if words[0] == "CREATE":
        parts = _query(parts)
        words = upper(parts)
    if words[:1] in (["ALTER"], ["DO"], ["EXPLAIN"], ["PREPARE"]):
        return
    if "LO_UNLINK" in words and "FROM" in words and "WHERE" not in words:
        yield (
            0, "deletes-all-rows", "danger", f"`{statement.short}` deletes every large object that it reads.",
            f"Choose in a WHERE which ones to delete; or {BUT_SAY}",
        )  # fmt: skip
    read = 0
    for at in begins(words, *(("MERGE",) if words[:1] == ["MERGE"] else ("DELETE", "UPDATE", "MERGE"))):
        word = words[at]
        inner = _within(parts, at + 1)
        read += len(inner)
        if read > _NESTED * len(parts):
            yield _deletes(parts[at][2], statement.short)
            return
        rest = outside(inner)
        behind = upper(rest)
        if word == "MERGE":
            if ("THEN", "DELETE") in pairwise(behind):
                yield (
                    parts[at][2], "deletes-all-rows", "warning",
                    f"`{statement.short}` deletes each row that its condition matches or doesn't match.", "Count these rows first.",
                )  # fmt: skip
            continue
        if ("FROM" if word == "DELETE" else "SET") not in behind or _chooses(inner):
            continue
        reader = Reader(rest)
        reader.take("FROM")
        reader.take("ONLY")
        if new_tables.all_of([reader.path()]):
            continue
        if word == "DELETE":
            yield _deletes(parts[at][2], statement.short)
        else:
            yield (
                parts[at][2], "updates-all-rows", "warning",
                f"`{statement.short}` has no WHERE: it writes every row, and the old values are lost.",
                "Add a WHERE, or make sure that all rows are meant.",
            )  # fmt: skip


def _query(parts: list[Token]) -> list[Token]:
    """Return the query of a CREATE TABLE ... AS; empty where there is none, or where it isn't run."""
    words = upper(parts)
    tops = [offset for kind, text, offset in outside(parts) if kind == "word" and text.upper() == "AS"]
    if "TABLE" not in words[1:4] or not tops or words[-3:] == ["WITH", "NO", "DATA"]:
        return []
    return [token for token in parts if token[2] > tops[0]]


def begins(words: list[str], *verbs: str) -> list[int]:
    """Return where one of `verbs` begins the statement, a statement inside WITH, or the main statement after WITH."""
    return [
        at
        for at, word in enumerate(words)
        if word in verbs
        and (not at or words[at - 1] in ("(", ")") or words[max(at - 2, 0)] in ("SET", "USING"))  # SEARCH and CYCLE
    ]


# Words that may occur in a condition that is the same for each row.
_CONSTANT = {
    "TRUE", "AND", "OR", "NOT", "IS", "IN", "BETWEEN", "DISTINCT", "FROM", "UNKNOWN", "CAST", "AS", "BOOL", "BOOLEAN", "INT", "INTEGER",
    "TEXT", "SELECT", "EXISTS", "VALUES", "ANY", "ALL", "LIKE", "FALSE", "NULL",
}  # fmt: skip


_NESTED = 50
"""Average number of times that a token may be read: no statement that the server accepts is nested so deeply."""


def _within(parts: list[Token], at: int) -> list[Token]:
    """Return the tokens from `at` to the parenthesis that closes around them."""
    depth = 0
    for end in range(at, len(parts)):
        depth += {"(": 1, ")": -1}.get(parts[end][1], 0)
        if depth < 0:
            return parts[at:end]
    return parts[at:]


def _chooses(parts: list[Token]) -> bool:
    """Return whether the tokens after DELETE or UPDATE have a WHERE that isn't true of each row."""
    plain = [
        (at, word)
        for at, word, depth, before in _levels(parts)
        if depth == 0 and before != "." and parts[at][0] == "word"
    ]
    end = next((at for at, word in plain if word == "RETURNING"), len(parts))
    start = next((at for at, word in plain if word == "WHERE" and at < end), end)
    return start < end and not _always(parts[start + 1 : end])


def _always(parts: list[Token], nested: int = 8) -> bool:
    """Return whether a condition is evidently true of each row, whatever the columns hold."""
    while len(parts) > 2 and parts[0][1] == "(" and nested and not outside(parts[:-1]):
        parts, nested = parts[1:-1], nested - 1
    branches = _cut(parts, "OR")
    pieces = _cut(parts, "AND")
    if nested and len(branches) > 1:
        return any(_always(branch, nested - 1) for branch in branches)
    if nested and len(pieces) > 1:
        return all(_always(piece, nested - 1) for piece in pieces)
    words = upper(parts)
    left, right = (words[: words.index("=")], words[words.index("=") + 1 :]) if "=" in words else ([], words)
    if left == right:  # a column equals itself, too, except for its nulls
        return True
    if right in (["FALSE"], ["NULL"], ["'f'"], ["'false'"]) or ("".join(left).isdigit() and "".join(right).isdigit()):
        return False
    return all(kind != "ident" and (kind != "word" or text.upper() in _CONSTANT) for kind, text, _ in parts)


def _levels(parts: list[Token]) -> Iterator[tuple[int, str, int, str]]:
    """Yield the index of each token, its text with words in upper case, the number of open parentheses, and the text before it."""
    depth, before = 0, ""
    for at, word in enumerate(upper(parts)):
        depth += {"(": 1, ")": -1}.get(word, 0)
        yield at, word, depth, before
        before = word


def _cut(parts: list[Token], separator: str) -> list[list[Token]]:
    """Return `parts`, cut at each word `separator` outside parentheses."""
    places = [at for at, word, depth, _ in _levels(parts) if depth == 0 and word == separator]
    return [parts[begin + 1 : end] for begin, end in pairwise([-1, *places, len(parts)])]


def _deletes(offset: int, words: str) -> Problem:
    return (
        offset, "deletes-all-rows", "danger", f"`{words}` deletes every row of a table that this file didn't create.",
        f"Choose in a WHERE which rows to delete; or {BUT_SAY}",
    )  # fmt: skip


# Words are searched, because the executed text may be assembled from strings. ALTER TABLE may omit the word COLUMN.
_LOSES = re.compile(
    r"""\b(?:
      drop\s+(?:foreign\s+)?(?:table|column|schema|database|owned)\b
    | truncate\b(?!\s*[(,]|'|\s+on\b)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
# Pairs that lose rows only together, before the next semicolon: found one after the other, so that no text is searched twice.
_LOSES_WITH = (
    (
        re.compile(r"\bdrop\s", re.IGNORECASE),
        re.compile(r"(?<!on\sdelete\s)(?<!on\supdate\s)\bcascade\b", re.IGNORECASE),
    ),
    (
        re.compile(r"\balter\s+(?:foreign\s+)?table\s", re.IGNORECASE),
        re.compile(r"\bdrop\s+(?!constraint\b|not\b|default\b|expression\b|identity\b)", re.IGNORECASE),
    ),
)
_DELETES = re.compile(r"\b(?:(delete\s+from)|where)\b", re.IGNORECASE)
_LETTER = re.compile(r"[^\x00-\x7f]")


def _loses(text: str) -> str:
    """Return the first words of a text that lose rows if executed, at most 60 characters; '' where there are none."""
    plain = _LETTER.sub("_", text)  # PostgreSQL takes every non-ASCII character for a letter, even blanks
    match = _LOSES.search(plain)
    places = [match.span()] if match else []
    at = 0
    for part in plain.split(";"):
        end = at + len(part)
        for begins, goes_on in _LOSES_WITH:
            if (start := begins.search(plain, at, end)) and (then := goes_on.search(plain, start.end(), end)):
                places.append((start.start(), then.end()))
        # Only the last match counts: a WHERE after it follows the others, too.
        for last in deque(_DELETES.finditer(plain, at, end), maxlen=1):
            places += [last.span()] if last[1] else []
        at = end + 1
    begin, end = min(places, default=(0, 0))
    return text[begin:end][:60]


_STRINGS = ("string", "escape", "dollar")
_READ_BY_ITSELF = (
    "RAISE",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "COMMENT",
    "CREATE",
    "ALTER",
    "DROP",
    "GRANT",
    "REVOKE",
)


_CALLS = ("SELECT", "PERFORM", "CALL", "WITH", "VALUES")
# After these words a parenthesis is no call; these functions don't execute a string.
_NO_CALL = {
    "ALL", "AND", "ANY", "AS", "BY", "CAST", "DISTINCT", "ELSE", "EXCEPT", "EXISTS", "FILTER", "FROM", "HAVING", "ILIKE", "IN",
    "INTERSECT", "LATERAL", "LIKE", "MATERIALIZED", "NOT", "ON", "OR", "OVER", "ROW", "SELECT", "SOME", "THEN", "UNION", "USING", "VALUES",
    "WHEN", "WHERE",
    "COALESCE", "CONCAT", "CONCAT_WS", "FORMAT", "LENGTH", "LOWER", "MD5", "POSITION", "QUOTE_LITERAL", "REPLACE", "SET_CONFIG", "UPPER",
}  # fmt: skip


def _assembled(top: Statement, code: Sequence[Statement]) -> Iterator[Problem]:
    """Yield problems with SQL that is executed from strings: strings that code assembles, and arguments of functions.

    Without an EXECUTE in the code, its other strings are data.
    """
    executes = any(statement.first == "EXECUTE" for statement in code)
    for statement in (top, *code):
        may_call = statement.first in _CALLS
        strings: list[str] = []
        if isinstance(statement, Unread):
            yield (
                statement.start, "loses-data-in-code", "danger", f"`{statement.short}` is nested too deeply for lint to read.",
                f"Write it as a statement of its own, which lint can read; or {BUT_SAY}",
            )  # fmt: skip
        elif executes and statement is not top and statement.first not in _READ_BY_ITSELF:
            strings = _joined(list(tokens(statement.text)))
        elif may_call and "(" in statement.text:
            strings = [literal_value(string) for string in _argument_strings(statement)]
        if not strings:
            continue
        # Comments are left out; unknown text may follow each string.
        text = "".join(" ".join(inner for _, inner, _ in tokens(string)) + " x " for string in strings)
        if words := _loses(text):
            how = (
                "together and executes it" if executes and statement is not top else "into a call, which may execute it"
            )
            yield (
                statement.start, "loses-data-in-code", "danger", f"Code puts `{words}` {how}.",
                f"Write it as a statement of its own, which lint can read; or {BUT_SAY}",
            )  # fmt: skip


def _joined(parts: list[Token]) -> list[str]:
    """Return the values of string constants, joined where only `||` is between them."""
    groups: list[list[str]] = []
    for at, (kind, text, _) in enumerate(parts):
        if kind in _STRINGS:
            if at < 3 or upper(parts[at - 2 : at]) != ["|", "|"] or parts[at - 3][0] not in _STRINGS:
                groups.append([])
            groups[-1].append(literal_value(text))
    return ["".join(values) for values in groups]


def _argument_strings(statement: Statement) -> Iterator[str]:
    """Yield the string constants in the arguments of functions that a statement calls."""
    calls: list[bool] = []
    before = ("", "")
    for kind, text, _ in tokens(statement.text):
        if text == "(":
            calls.append(before[0] == "ident" or (before[0] == "word" and before[1].upper() not in _NO_CALL))
        elif text == ")" and calls:
            calls.pop()
        elif kind in _STRINGS and any(calls):
            yield text
        before = (kind, text)


def _locks(statement: Statement, parts: list[Token], new_tables: NewTables) -> Iterator[Problem]:
    words = upper(parts)
    match words:
        case ["LOCK", *rest] if not new_tables.all_of(tables(statement)):
            mode = rest[rest.index("IN") + 1 :] if "IN" in rest else ["ACCESS", "EXCLUSIVE"]
            if mode[:2] == ["ACCESS", "EXCLUSIVE"]:
                yield _no_reads(statement, 0, "Leave it out: each statement takes the lock that it needs.")
            elif mode[:1] == ["EXCLUSIVE"] or (mode[:1] == ["SHARE"] and mode[1:2] != ["UPDATE"]):
                yield no_writes(statement, "Leave it out: each statement takes the lock that it needs.")
        case ["VACUUM", *_] if _full(parts) and not new_tables.all_of(tables(statement)):
            yield _no_reads(statement, 0, "Leave FULL out.")
        case ["CLUSTER", *_] if not new_tables.all_of(tables(statement)):
            yield _no_reads(statement, 0, "Leave it out, or run it by hand while nobody uses the database.")
        case ["REFRESH", *rest] if "CONCURRENTLY" not in rest and not new_tables.all_of(tables(statement)):
            yield _no_reads(statement, 0, "Write it with CONCURRENTLY, which needs a unique index on the view.")
        case ["ALTER", "TABLE" | "INDEX" | "MATERIALIZED", *_] if not new_tables.all_of(tables(statement)):
            problems = [problem for part in split(parts) for problem in _of_part(statement, part, new_tables)]
            yield from problems or _with_others(statement, parts)
        case ["SELECT", *_] if _LOCKS_ROWS.search(line(outside(parts))) and "FROM" in words:
            if not {"WHERE", "LIMIT", "FETCH"} & set(words):
                yield no_writes(statement, "Choose in a WHERE which rows to lock.")


def _full(parts: list[Token]) -> bool:
    """Return whether a VACUUM is a VACUUM FULL."""
    reader = Reader(parts)
    reader.take("VACUUM")
    options = [upper(option) for option in reader.group()]
    return reader.word == "FULL" or any(
        option[:1] == ["FULL"] and option[1:] not in (["FALSE"], ["OFF"], ["0"]) for option in options
    )


def _of_part(statement: Statement, part: list[Token], new_tables: NewTables) -> Iterator[Problem]:
    """Yield problems with an action of ALTER TABLE that rewrites or reads a whole table while nobody else can read it."""
    words = upper(part)
    at = next((offset for _, text, offset in part if text.upper() in ("ADD", "SET", "ATTACH")), 0)
    if _LOCKING.search(line(part)):
        yield _no_reads(statement, at, "Create a new table or column, copy in batches, then switch over.")
    elif "ADD" in words and "CHECK" in (plain := upper(outside(part))) and ("NOT", "VALID") not in pairwise(plain):
        yield _no_reads(
            statement,
            at,
            "Add it here with NOT VALID, after a new column without it, and `VALIDATE CONSTRAINT` it in the next migration.",
        )
    elif words[1:2] != ["INDEX"] and ("ATTACH", "PARTITION") in pairwise(words):
        reader = Reader(part)
        while not reader.take("ATTACH", "PARTITION"):
            reader.skip()
        if not new_tables.all_of([reader.path()]):
            yield _no_reads(
                statement, at, "In earlier migrations, give it a CHECK of its bounds with NOT VALID, and validate that."
            )


def _with_others(statement: Statement, parts: list[Token]) -> Iterator[Problem]:
    """Yield a problem where an action that lets readers read shares a statement with one that locks them out for a moment."""
    if statement.words[1] != "TABLE":
        return
    actions = [(action, words) for action in altered(parts)[1] if (words := upper(outside(action)))]
    reads = [
        action[0][2]
        for action, words in actions
        if words[0] == "VALIDATE"
        or (words[0] == "ADD" and "FOREIGN" in words and ("NOT", "VALID") not in pairwise(words))
        or (
            words[0] == "ADD"
            and "REFERENCES" in words
            and {"DEFAULT", "GENERATED"} & set(words)
            and "FOREIGN" not in words
        )
    ]
    locks = [
        words
        for _, words in actions
        if words[0] not in ("VALIDATE", "CLUSTER")
        and "FOREIGN" not in words
        and words[0:2] not in (["SET", "("], ["RESET", "("])
    ]
    if reads and locks:
        yield _no_reads(
            statement,
            reads[0],
            "Write the action that reads the table as a statement of its own, in a migration of its own.",
        )


def _no_reads(statement: Statement, at: int, mend: str) -> Problem:
    return (
        at, "locks-out-reads", "danger",
        f"`{statement.short}` locks out reads while it runs or until the migration ends.",
        f"{mend[:-1]}; or {BUT_SAY}",
    )  # fmt: skip


def no_writes(statement: Statement, mend: str) -> Problem:
    return (
        0, "locks-out-writes", "warning",
        f"`{statement.short}` makes writes wait while it runs or until the migration ends.", mend,
    )  # fmt: skip


def _unlogged(statement: Statement, parts: list[Token]) -> Iterator[Problem]:
    words = upper(parts)
    new = words[0] == "CREATE" and words[1:2] == ["UNLOGGED"]
    if new or (words[0] == "ALTER" and words[1:2] != ["INDEX"] and ("SET", "UNLOGGED") in pairwise(words)):
        yield (
            0, "unlogged", "warning", f"`{statement.short}`: its contents are gone after a crash, and aren't in a physical backup.",
            "Leave UNLOGGED out, unless it can be filled again at any time.",
        )  # fmt: skip


# A column of type serial gets a new number in each row, which rewrites the table; squawk reports other such columns.
_LOCKING = re.compile(
    r"\bSET (?:UNLOGGED|LOGGED|TABLESPACE|ACCESS METHOD|EXPRESSION)\b|\bADD (?:CONSTRAINT \S+ )?EXCLUDE\b"
    r"|\bADD (?:COLUMN )?(?:IF NOT EXISTS )?\S+ (?:SMALL|BIG)?SERIAL[248]?\b"
)
_LOCKS_ROWS = re.compile(r" FOR (?:UPDATE|NO KEY UPDATE|SHARE|KEY SHARE)\b")
