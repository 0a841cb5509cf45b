"""The statements that the code in a file runs, as far as they are literal.

Four kinds of code are read: the bodies of `DO` blocks and of functions and procedures that the file makes and calls, in
PL/pgSQL and SQL; the queries of cursors; a single string given to `EXECUTE`, also through a `format` without a `%`; and the
statements behind `EXPLAIN ANALYZE` and `PREPARE`. A statement that is put together at run time isn't read: it stays a
statement that begins with EXECUTE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from .sql_reader import Reader, Token, name_of, outside, split, upper
from .sql_text import Statement, edge_of, literal_value, pieces, statement_at, statements, tokens

Read = Sequence[tuple[Statement, list[Statement]]]
"""The statements of a file, each with those that its code runs."""
Item = tuple[Statement | str, int]
"""A statement, or a text that may call functions, with the number of blocks and functions around it."""
Made = dict[str, dict[str, Item]]
"""The functions and procedures that a file makes, by name and by arguments.

The empty name is a key, too, if any name isn't a plain word.
"""
_STRINGS = ("string", "escape", "dollar")
_QUERY = {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "EXECUTE", "EXPLAIN"}
_CONDITION = {"IF", "ELSIF", "ELSEIF", "WHEN", "CASE"}
_NOTHING = {"END", "RETURN", "RAISE", "EXIT", "CONTINUE", "NULL", "ASSERT", "FETCH", "MOVE", "CLOSE", "GET"}
_CALLS_NOTHING = {"CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE", "SECURITY", "RAISE"}
_HOLDS_CODE = re.compile(r"\b(?:do|function|procedure|explain|prepare)\b", re.IGNORECASE)
_FILLS = {"INSERT", "UPDATE", "MERGE", "COPY", "WITH"}
_CURSOR = re.compile(r"(?:(?:NO )?SCROLL )?CURSOR (?:\(|FOR\b|IS\b)")
_WORD = re.compile(r"[\w$]+")
DEEPEST = 32
"""The deepest nesting of blocks and functions that is read."""


class Unread(Statement):
    """A statement whose code isn't read because it is nested too deeply."""


def with_code(of_file: Iterable[Statement]) -> Iterator[tuple[Statement, list[Statement]]]:
    """Yield each statement of a file with those that its code runs, in the order in which the server runs them.

    Offsets and lines are those of the file. A function's statements belong to its first call.
    """
    made: Made = {}
    by_rows: set[str] = set()
    for statement in of_file:
        yield statement, _run_by(statement, made, by_rows)


def holds_code(sql: str) -> bool:
    """Return whether a file may hold code at all."""
    return _HOLDS_CODE.search(sql) is not None


def _run_by(top: Statement, made: Made, by_rows: set[str]) -> list[Statement]:
    """Return the statements that the code in a statement runs, including those of code inside that code.

    `by_rows` collects the functions that this file's defaults and checks call when rows are written.
    """
    run: list[Statement] = []
    ahead: list[Item] = [(top, 0)]
    while ahead:
        item, depth = ahead.pop()
        if isinstance(item, str):
            inner = _of_called(_called(item, made), made)
        else:
            if depth >= DEEPEST and (item.first in ("DO", "EXPLAIN", "PREPARE") or makes_function(item)):
                item = Unread(item.text, item.start, item.end, item.line)
            if item is not top:
                run.append(item)
            inner = [] if isinstance(item, Unread) else _directly(item, depth, made, by_rows)
        ahead += reversed(inner)
    return run


def makes_function(statement: Statement) -> bool:
    return statement.first == "CREATE" and bool({"FUNCTION", "PROCEDURE"} & set(statement.words[1:4]))


def _directly(statement: Statement, depth: int, made: Made, by_rows: set[str]) -> list[Item]:
    """Return the items that the code in a statement runs, without those that they run in turn."""
    if statement.first == "DO":
        return _of_body(statement, depth)
    if statement.first in ("EXPLAIN", "PREPARE"):
        return [(inner, depth + 1) for inner in _held(statement)]
    if makes_function(statement):
        name, arguments = _function(statement)
        made.setdefault(name, {})[arguments] = statement, depth
        if not _WORD.fullmatch(name):
            made.setdefault("", {})
    if statement.words[:2] == ("CREATE", "SCHEMA"):
        # Its other elements concern only the new schema.
        return [(inner, depth + 1) for inner in _elements(statement) if inner.first == "GRANT"]
    if not made:
        return []
    if statement.first in _FILLS:
        return _of_called([*_called(statement.text, made), *(by_rows & made.keys())], made)
    if statement.first not in _CALLS_NOTHING:
        return _of_called(_called(statement.text, made), made)
    if statement.first in ("CREATE", "ALTER"):
        now = [name for text in _evaluated(statement) for name in _called(text, made)]
        if "TABLE" in statement.words[1:4]:
            by_rows.update(_called(statement.text, made))
        return _of_called(now, made)
    return []


def _of_body(statement: Statement, depth: int) -> list[Item]:
    """Return the statements of a body, and its whole text last: conditions and assignments may call functions, too."""
    language, text, offset = _body(statement)
    line = statement.line + statement.text.count("\n", 0, offset)
    in_body = _of_plpgsql(text) if language == "plpgsql" else statements(text) if language == "sql" else []
    inner: list[Item] = [(each, depth + 1) for each in _moved(in_body, statement.start + offset, line)]
    return [*inner, (text, depth)] if language == "plpgsql" else inner


def _called(text: str, made: Made) -> list[str]:
    """Return the names of the functions in `made` that a text calls."""
    words = _WORD.findall(text) if made else []
    quoted = '"' in text and ("" in made or 'u&"' in text.lower())
    if not quoted and not any(word in made or word.lower() in made for word in words):
        return []
    names = []
    keyword, before = "", ""  # the word in front of a name with its schema, and the token in front
    for token, behind in pairwise(tokens(text)):
        if "." not in (token[1], before):
            keyword = before.upper()
        before = token[1]
        named = token[0] in ("word", "ident") and keyword not in ("FUNCTION", "PROCEDURE")
        if named and behind[1] == "(" and name_of(token) in made:
            names.append(name_of(token))
    return names


def _of_called(names: Iterable[str], made: Made) -> list[Item]:
    """Return the items that functions run, and take the functions out of `made`, so that each counts once."""
    return [
        item
        for name in dict.fromkeys(names)
        for statement, depth in made.pop(name, {}).values()
        if isinstance(statement, Statement)
        for item in _of_body(statement, depth)
    ]


def _evaluated(statement: Statement) -> Iterator[str]:
    """Yield the texts that a CREATE or an ALTER evaluates at once.

    These are a new table's query, and the actions on an existing table or domain.
    """
    words = statement.words[1:3]
    if statement.first == "ALTER" and words[:1] in (("TABLE",), ("DOMAIN",)):
        for part in split(list(tokens(statement.text))):
            if ("SET", "DEFAULT") not in pairwise(upper(part)):
                yield " ".join(text for _, text, _ in part)
    elif statement.first == "CREATE" and ({"TABLE", "MATERIALIZED"} & set(statement.words[1:4])):
        parts = list(tokens(statement.text))
        queries = [offset for kind, text, offset in outside(parts) if kind == "word" and text.upper() == "AS"]
        if queries and upper(parts)[-3:] != ["WITH", "NO", "DATA"]:
            yield statement.text[queries[0] :]


def _function(statement: Statement) -> tuple[str, str]:
    """Return the name of the function or procedure that a statement makes, and its arguments."""
    reader = Reader(statement.text)
    reader.take("CREATE")
    reader.take("OR", "REPLACE")
    reader.skip()
    return reader.name(), ", ".join(" ".join(text for _, text, _ in part) for part in reader.group())


def _elements(statement: Statement) -> Iterator[Statement]:
    """Yield the statements inside a CREATE SCHEMA."""
    parts = outside(list(tokens(statement.text)))
    words = upper(parts)
    starts = [
        parts[at][2]
        for at, word in enumerate(words)
        if at and word in ("CREATE", "GRANT") and words[at - 1] not in (".", "AS")
    ]
    line = counted = 0
    for start, end in pairwise([*starts, len(statement.text)]):
        line += statement.text.count("\n", counted, start)
        counted = start
        yield from _moved(statements(statement.text[start:end])[:1], statement.start + start, statement.line + line)


def _held(statement: Statement) -> Iterator[Statement]:
    """Yield the statement behind EXPLAIN ANALYZE or PREPARE."""
    parts = list(tokens(statement.text))
    reader = Reader(parts)
    if reader.take("PREPARE"):
        if reader.word == "TRANSACTION":
            return
        while not reader.done and not reader.take("AS"):
            reader.skip()
    else:
        reader.take("EXPLAIN")
        asked = {reader.word}
        options = [[name_of(token).upper() for token in option] for option in reader.group()]
        while reader.word in ("ANALYZE", "ANALYSE", "VERBOSE"):
            asked.add(reader.word)
            reader.skip()
        on = any(
            option[0] in ("ANALYZE", "ANALYSE") and option[1:] not in (["FALSE"], ["OFF"], ["0"])
            for option in options
            if option
        )
        if not on and not asked & {"ANALYZE", "ANALYSE"}:
            return
    if not reader.done:
        start = reader.rest[0][2]
        line = statement.line + statement.text.count("\n", 0, start)
        yield from _moved(statements(statement.text[start:]), statement.start + start, line)


def _body(statement: Statement) -> tuple[str, str, int]:
    """Return language, text and offset of the body of a DO block or a function; the language is '' if it has none."""
    parts = list(tokens(statement.text))
    words = [text.upper() if kind == "word" else "" for kind, text, _ in parts]
    block = words[0] == "DO"
    language, at = "plpgsql" if block else "sql", -1
    if "LANGUAGE" in words[:-1]:
        at = words.index("LANGUAGE") + 1
        kind, text, _ = parts[at]
        language = (literal_value(text) if kind in _STRINGS else name_of(parts[at])).lower()
    begin = next(
        (
            after[2] + len(after[1])
            for before, after in pairwise(outside(parts))
            if upper([before, after]) == ["BEGIN", "ATOMIC"]
        ),
        0,
    )
    if begin and not block:
        end = next(
            (parts[place][2] for place in range(len(parts) - 1, 0, -1) if words[place] == "END"), len(statement.text)
        )
        return language, statement.text[begin:end], begin
    for place, (kind, text, offset) in enumerate(parts):
        if kind in _STRINGS and place != at and (block or words[place - 1] == "AS"):
            return language, _value(text), offset + edge_of(text)
    returned = [offset for kind, text, offset in outside(parts) if kind == "word" and text.upper() == "RETURN"]
    return (language, statement.text[returned[0] :], returned[0]) if returned and not block else ("", "", 0)


def _moved(inner: Sequence[Statement], offset: int, line: int) -> Iterator[Statement]:
    """Yield the statements of a text with the places that they have if the text begins at `offset`, in `line`."""
    for statement in inner:
        yield replace(
            statement, start=statement.start + offset, end=statement.end + offset, line=statement.line + line - 1
        )


def _of_plpgsql(body: str) -> list[Statement]:
    """Return the SQL statements in a body of PL/pgSQL, those given to EXECUTE, and its declarations and assignments."""
    in_body: list[Statement] = []
    line, counted = 1, 0
    for begin, end in _spans(body):
        line += body.count("\n", counted, begin)
        counted = begin
        for statement in statements(body[begin:end])[:1]:
            executed = _executed(statement) if statement.first == "EXECUTE" else None
            in_body += _moved([statement] if executed is None else executed, begin, line)
    return in_body


def _spans(body: str) -> Iterator[tuple[int, int]]:
    """Yield where the statements in a body of PL/pgSQL begin and end, without the words that control their flow."""
    parts = list(tokens(body))
    at = 0
    while at < len(parts):
        kind, text, start = parts[at]
        word = text.upper() if kind == "word" else ""
        if text == "#":  # #variable_conflict, a directive to the end of its line
            end = body.find("\n", start)
            at = next((place for place in range(at, len(parts)) if 0 <= end < parts[place][2]), len(parts))
        elif text == "<":  # <<label>>
            at = _next(parts, at, ">") + 2
        elif text == ";" or word in ("BEGIN", "LOOP", "ELSE", "EXCEPTION", "DECLARE"):
            at += 1
        elif word in _CONDITION:
            at = _next(parts, at + 1, "THEN") + 1
        elif word in ("WHILE", "FOREACH"):
            at = _next(parts, at + 1, "LOOP") + 1
        elif word == "FOR":
            end = _next(parts, at + 1, "LOOP")
            query = _next(parts, at + 1, "IN") + 1
            if query < end and (parts[query][1].upper() in _QUERY or parts[query][1] == "("):
                yield _span(parts, query, end)
            at = end + 1
        else:
            end = _next(parts, at, ";")
            ahead = upper(parts[at + 1 : at + 5])
            query = at
            if word == "RETURN" and ahead[:1] == ["QUERY"]:
                query = at + 2
            elif word == "OPEN" or _CURSOR.match(" ".join(ahead)):
                query = _next(parts, at + 1, "FOR", "IS") + 1
            elif word == "CREATE" and {"FUNCTION", "PROCEDURE"} & set(ahead):
                behind = (statement_at(body, start) or (0, 0, 0))[1]
                end = next((place for place in range(end, len(parts)) if parts[place][2] >= behind), len(parts))
            elif word in _NOTHING:
                query = end
            if query < end:
                yield _span(parts, query, end)
            at = end + 1


def _next(parts: list[Token], at: int, *ends: str) -> int:
    """Return the position of the next of `ends` outside of parentheses.

    PL/pgSQL ends an expression there, even within a CASE or behind a dot.
    """
    depth = 0
    for place in range(at, len(parts)):
        kind, text, _ = parts[place]
        word = text.upper() if kind == "word" else text
        if depth <= 0 and word in ends:
            return place
        depth += {"(": 1, ")": -1}.get(text, 0)
        if word == ";" and depth <= 0:
            return place
    return len(parts)


def _span(parts: list[Token], at: int, end: int) -> tuple[int, int]:
    _, text, start = parts[end - 1]
    return parts[at][2], start + len(text)


def _executed(statement: Statement) -> list[Statement] | None:
    """Return the statements given to an EXECUTE as a single string; None if the string is put together at run time."""
    parts = list(tokens(statement.text))[1:]
    given, rest = parts, []
    for place, (kind, text, _) in enumerate(parts):
        if kind == "word" and text.upper() in ("INTO", "USING"):
            given, rest = parts[:place], parts[place:]
            break
    called = bool(given) and given[0][1].upper() == "FORMAT"
    given = given[1:] if called else given
    while len(given) > 2 and given[0][1] == "(" and given[-1][1] == ")":
        given = given[1:-1]
    if len(given) != 1 or given[0][0] not in _STRINGS or (rest and not given):
        return None
    _, text, offset = given[0]
    value = _value(text)
    if called and "%" in value:
        return None
    edge = edge_of(text)
    return list(
        _moved(
            statements(value),
            statement.start + offset + edge,
            statement.line + statement.text.count("\n", 0, offset + edge),
        )
    )


def _value(token: str) -> str:
    """Return the value of a string constant, padded so that each word stands where it stands in the file.

    Where a piece is shorter than its spelling, blanks follow the word or string that holds it, which itself may move by that
    much. An escaped line break becomes a carriage return, which also ends a comment and doesn't change the count of lines.
    """
    parts: list[str] = []
    missing: list[tuple[int, str]] = []
    length = 0
    for value, written in pieces(token):
        parts.append(value if value == written else value.replace("\n", "\r"))
        length += len(value)
        if len(value) < len(written):
            missing.append((length, re.sub(r"[^\n]", " ", written[len(value) :])))
    text = "".join(parts)
    if not missing:
        return text
    filled, at, place = [], 0, 0
    edges = [*((start, start + len(token)) for _, token, start in tokens(text)), (length, length)]
    for where, blanks in missing:
        while edges[place][1] < where:
            place += 1
        begin, end = edges[place]
        where = end if begin < where < end else where
        filled += [text[at:where], blanks]
        at = where
    return "".join([*filled, text[at:]])
