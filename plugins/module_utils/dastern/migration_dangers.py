"""Statements that lose rows or lock out reads, which squawk doesn't report, and the tables that they can't hurt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from .sql_reader import Reader, Token, split
from .sql_text import Statement, literal_value, tokens

Said = tuple[int, str, str, str, str]
"""Offset in the file, rule, severity, message, mend."""

BUT_SAY = "say in `lint.yml` why it is right."


class Made:
    """The tables and materialized views that a file itself has made so far: they hold nothing that can be lost.

    They count under the name as it was written, schema and all; whatever may give such a name to something else ends it.
    """

    def __init__(self) -> None:
        self._names: set[tuple[str, ...]] = set()

    def all_of(self, names: list[tuple[str, ...]]) -> bool:
        return bool(names) and self._names.issuperset(names)

    def run(self, statement: Statement) -> None:
        if statement.first == "CREATE":
            self._create(Reader(statement.text))
        elif self._names:
            first = statement.first
            words = _words(statement) if first == "ALTER" else set()
            if (
                first in ("SET", "RESET", "ROLLBACK", "DO")
                or statement.transaction_control
                or "search_path" in statement.text.lower()
                or words & {"ATTACH", "INHERIT", "SCHEMA"}
            ):
                self._names.clear()
            elif statement.words[:2] == ("DROP", "TABLE") or {"RENAME", "TO"} <= words:
                self._names.difference_update(tables(statement))

    def _create(self, reader: Reader) -> None:
        reader.take("CREATE")
        while reader.word in ("TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED"):
            reader.skip()
        made = reader.take("TABLE") or reader.take("MATERIALIZED", "VIEW")
        if made and not reader.take("IF", "NOT", "EXISTS"):
            self._names.add(reader.path())


def _words(statement: Statement) -> set[str]:
    return {text.upper() for kind, text, _ in tokens(statement.text) if kind == "word"}


def tables(statement: Statement) -> list[tuple[str, ...]]:
    """What the statement names behind DROP TABLE, ALTER TABLE, TRUNCATE, LOCK, CLUSTER or REFRESH, each with its schema."""
    reader = Reader(statement.text)
    many = reader.word in ("DROP", "TRUNCATE", "LOCK")
    while reader.word in ("DROP", "ALTER", "TRUNCATE", "LOCK", "CLUSTER", "REFRESH", "TABLE", "MATERIALIZED", "VIEW"):
        reader.skip()
    reader.group()
    reader.take("VERBOSE")
    reader.take("IF", "EXISTS")
    found = []
    for part in split(reader.rest) if many else [reader.rest]:
        one = Reader(part)
        one.take("ONLY")
        found.append(one.path())
    return found


def dangers(statements: list[Statement], made: Made) -> Iterator[Said]:
    """What the rules `drop-cascade`, `deletes-all-rows`, `updates-all-rows`, `loses-data-in-code`, `locks-out-reads` find.

    `made` is what was made before these statements, and goes on.
    """
    code: dict[str, str] = {}
    for one in statements:
        if code or _spoken_of(one):
            parts = list(tokens(one.text))
            for offset, rule, severity, message, mend in (
                *_cascades(one, parts),
                *_whole_tables(one, parts, made),
                *_code(one, parts, code),
                *_locks(one, parts, made),
            ):
                yield one.start + offset, rule, severity, message, mend
        made.run(one)


_WRITES = re.compile(r"delete|update|truncate|merge", re.IGNORECASE)


def _spoken_of(one: Statement) -> bool:
    """Whether a rule may have something to say of a statement, while there is no function that loses rows."""
    if one.first in ("DROP", "ALTER", "DO", "LOCK", "VACUUM", "CLUSTER", "REFRESH"):
        return True
    if one.first == "CREATE":
        return bool({"FUNCTION", "PROCEDURE"} & set(one.words))
    return _WRITES.search(one.text) is not None


def short(statement: Statement) -> str:
    text = " ".join(statement.text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def _upper(parts: list[Token]) -> list[str]:
    return [text.upper() if kind == "word" else text for kind, text, _ in parts]


def _cascades(one: Statement, parts: list[Token]) -> Iterator[Said]:
    rule, mend = "drop-cascade", f"Drop by name what is to go, and leave CASCADE out; or {BUT_SAY}"
    if one.words[:2] == ("DROP", "OWNED"):
        yield 0, rule, "danger", f"`{short(one)}` drops all that the role owns, and doesn't say what that is.", mend
    elif one.words[:1] in (("DROP",), ("ALTER",)):
        for part in [parts] if one.words[0] == "DROP" else split(parts):
            words = _upper(part)
            # ON DELETE CASCADE belongs to a foreign key that is added.
            if words[-1:] == ["CASCADE"] and "DROP" in words and "REFERENCES" not in words:
                yield (
                    part[0][2], rule, "danger",
                    f"`{short(one)}` takes along whatever depends on it, columns and their rows too, and doesn't say what.", mend,
                )  # fmt: skip


def _whole_tables(one: Statement, parts: list[Token], made: Made) -> Iterator[Said]:
    # With CASCADE squawk says it.
    words = _upper(parts)
    if words[0] == "TRUNCATE" and words[-1] != "CASCADE" and not made.all_of(tables(one)):
        yield _deletes(0, short(one))
    if words[0] == "MERGE" and ("THEN", "DELETE") in pairwise(words):
        yield (
            0, "deletes-all-rows", "warning", f"`{short(one)}` deletes each row that its condition finds or doesn't find.",
            "Count beforehand what that is.",
        )  # fmt: skip
    if words[0] in ("CREATE", "ALTER", "DO", "MERGE"):
        return
    for at in begins(words, "DELETE", "UPDATE"):
        word = words[at]
        rest = _same_depth(parts[at + 1 :])
        behind = _upper(rest)
        some = "WHERE" in behind and behind[behind.index("WHERE") + 1 :] not in (["TRUE"], ["1", "=", "1"])
        if some or ("FROM" if word == "DELETE" else "SET") not in behind:
            continue
        reader = Reader(rest)
        reader.take("FROM")
        reader.take("ONLY")
        if made.all_of([reader.path()]):
            continue
        if word == "DELETE":
            yield _deletes(parts[at][2], short(one))
        else:
            yield (
                parts[at][2], "updates-all-rows", "warning",
                f"`{short(one)}` has no WHERE: it writes every row, and what stood there is gone.",
                "Say WHERE, or make sure that all rows are meant.",
            )  # fmt: skip


def begins(words: list[str], *verbs: str) -> list[int]:
    """Where one of `verbs` begins the statement, one inside WITH, or the one behind that."""
    return [at for at, word in enumerate(words) if word in verbs and (not at or words[at - 1] in ("(", ")"))]


def _deletes(offset: int, words: str) -> Said:
    return (
        offset, "deletes-all-rows", "danger", f"`{words}` deletes every row of a table that this file didn't make.",
        f"Say in a WHERE which rows are to go; or {BUT_SAY}",
    )  # fmt: skip


def _same_depth(parts: list[Token]) -> list[Token]:
    """`parts` up to the parenthesis that closes around them, without what stands in parentheses."""
    found, depth = [], 0
    for token in parts:
        depth += {"(": 1, ")": -1}.get(token[1], 0)
        if depth < 0:
            break
        if depth == 0 and token[1] != ")":
            found.append(token)
    return found


# By words, because what is executed may be put together from strings. In ALTER TABLE the word COLUMN may be left out.
_LOSES = re.compile(
    r"""\b(?:
      drop\s+(?:foreign\s+)?(?:table|column|schema|database|owned)\b
    | truncate\b(?!\s*[(,]|'|\s+on\b)
    | drop\s[^;]*(?<!on\sdelete\s)(?<!on\supdate\s)\bcascade\b
    | alter\s+(?:foreign\s+)?table\s[^;]*\bdrop\s+(?!constraint\b|not\b|default\b|expression\b|identity\b)
    | delete\s+from\b(?![^;]*\bwhere\b)
    )""",
    re.VERBOSE | re.IGNORECASE,
)


def _code(one: Statement, parts: list[Token], code: dict[str, str]) -> Iterator[Said]:
    """Bodies that the file runs: those of DO, and those of functions that it makes and then calls.

    `code` collects what the functions made so far would do, by their names.
    """
    rule, mend = "loses-data-in-code", f"Write it as a statement of its own, which lint can read; or {BUT_SAY}"
    if one.words[:1] == ("DO",):
        if said := _lost_in(parts):
            yield 0, rule, "danger", f"The DO block says `{said}`.", mend
    elif one.words[:1] == ("CREATE",):
        kind = next((at for at, word in enumerate(_upper(parts)[:4]) if word in ("FUNCTION", "PROCEDURE")), None)
        if kind is not None and (said := _lost_in(parts)):
            code[Reader(parts[kind + 1 :]).name()] = said
        return
    if one.words[:1] not in (("DO",), ("SELECT",), ("CALL",), ("WITH",), ("INSERT",), ("UPDATE",)):
        return
    for name, said in code.items():
        if re.search(rf"\b{re.escape(name)}\b\"?\s*\(", one.text, re.IGNORECASE):
            yield 0, rule, "danger", f"`{short(one)}` calls {name}, which says `{said}`.", mend


def _lost_in(parts: list[Token]) -> str:
    """The words in a body, given as one of the strings among `parts`, that lose data; empty if there are none."""
    for kind, text, _ in parts:
        if kind in ("string", "escape", "dollar"):
            # Without its comments.
            body = " ".join(inner for _, inner, _ in tokens(literal_value(text)))
            if found := _LOSES.search(" ".join(body.split())):
                return found.group()[:60]
    return ""


def _locks(one: Statement, parts: list[Token], made: Made) -> Iterator[Said]:
    words = _upper(parts)
    at = 0
    match words:
        case ["LOCK", *rest]:
            said = "IN" not in rest or ("ACCESS", "EXCLUSIVE") in pairwise(rest)
            mend = "Leave it out: what follows takes the lock it needs."
        case ["VACUUM", *rest]:
            said = "FULL" in rest
            mend = "Leave FULL out."
        case ["CLUSTER", *_]:
            said = True
            mend = "Leave it out, or run it by hand while nobody is there."
        case ["REFRESH", *rest]:
            said = "CONCURRENTLY" not in rest
            mend = "Write it with CONCURRENTLY, which needs a unique index on the view."
        case ["ALTER", "TABLE" | "INDEX" | "MATERIALIZED", *_]:
            hit = next((part for part in split(parts) if _LOCKING.search(" ".join(_upper(part)))), None)
            said = hit is not None
            at = next((offset for _, text, offset in hit or () if text.upper() in ("ADD", "SET")), 0)
            mend = "Make a new table or column, copy in batches, then change over."
        case _:
            return
    if said and not made.all_of(tables(one)):
        yield (
            at, "locks-out-reads", "danger",
            f"`{short(one)}` locks out reads, for as long as it takes or until the migration ends.",
            f"{mend[:-1]}; or {BUT_SAY}",
        )  # fmt: skip


# A column of type serial takes a new number in each row, which rewrites the table; other such columns are squawk's.
_LOCKING = re.compile(
    r"\bSET (?:UNLOGGED|LOGGED|TABLESPACE|ACCESS METHOD)\b|\bADD (?:CONSTRAINT \S+ )?EXCLUDE\b"
    r"|\bADD (?:COLUMN )?(?:IF NOT EXISTS )?\S+ (?:SMALL|BIG)?SERIAL[248]?\b"
)
