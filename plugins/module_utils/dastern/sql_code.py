"""The statements that the code in a file runs, as far as they are literal.

Read are the bodies of `DO` blocks and of functions and procedures that the file makes and calls, in PL/pgSQL and SQL; what
`EXECUTE` is given as one string, also through a `format` without a `%`; and what stands behind `EXPLAIN ANALYZE` and
`PREPARE`. What is put together at run time isn't: it stays one statement that begins with EXECUTE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from .sql_reader import Reader, Token, name_of, outside, split, upper
from .sql_text import Statement, literal_value, statements, tokens

Read = Sequence[tuple[Statement, list[Statement]]]
"""The statements of a file, each with those that its code runs."""
Made = dict[str, dict[str, Statement]]
"""The functions and procedures that a file makes, by name and by arguments."""
_STRINGS = ("string", "escape", "dollar")
_QUERY = {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "EXECUTE"}
_CONDITION = {"IF", "ELSIF", "ELSEIF", "WHEN", "CASE"}
_NOTHING = {"END", "RETURN", "RAISE", "EXIT", "CONTINUE", "NULL", "ASSERT", "OPEN", "FETCH", "MOVE", "CLOSE", "GET"}
_CALLS_NOTHING = {"CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE", "SECURITY", "RAISE"}
_HOLDS_CODE = re.compile(r"\b(?:do|function|procedure|explain|prepare)\b", re.IGNORECASE)
# A line break isn't made: lines are counted.
_ESCAPES = {"n": "  ", "t": "  ", "r": "  ", "b": "  ", "f": "  ", "\\": "\\ "}
_ESCAPED = re.compile(r"''''|''|\\.", re.DOTALL)


def with_code(found: Iterable[Statement]) -> Iterator[tuple[Statement, list[Statement]]]:
    """Each statement of a file, with those that its code runs, in the order in which the server runs them.

    Offsets and lines are those of the file; a function counts where it is called first.
    """
    made: Made = {}
    for one in found:
        yield one, _run_by(one, made)
        if one.first == "CREATE" and {"FUNCTION", "PROCEDURE"} & set(one.words[1:4]):
            name, arguments = _function(one)
            made.setdefault(name, {})[arguments] = one


def holds_code(sql: str) -> bool:
    """Whether a file may hold code at all."""
    return _HOLDS_CODE.search(sql) is not None


def _run_by(one: Statement, made: Made) -> list[Statement]:
    """What the code in a statement runs, and in turn the code in that."""
    direct: list[Statement] = []
    if one.first == "DO":
        direct = _of_body(one, made)
    elif one.first in ("EXPLAIN", "PREPARE"):
        direct = list(_held(one))
    elif one.first not in _CALLS_NOTHING:
        direct = _of_called(one.text, made)
    elif one.words[:2] == ("CREATE", "SCHEMA"):
        direct = [inner for inner in _elements(one) if inner.first == "GRANT"]  # the others are about the new schema
    elif made and one.first in ("CREATE", "ALTER"):
        direct = [inner for text in _evaluated(one) for inner in _of_called(text, made)]
    return [each for inner in direct for each in (inner, *_run_by(inner, made))]


def _of_body(one: Statement, made: Made) -> list[Statement]:
    """The statements in the body of a DO block or a function, and of the functions that are called in what controls them."""
    language, text, offset = _body(one)
    line = one.line + one.text.count("\n", 0, offset)
    if language == "plpgsql":
        return [*_moved(_of_plpgsql(text), one.start + offset, line), *_of_called(text, made)]
    return list(_moved(statements(text), one.start + offset, line)) if language == "sql" else []


def _of_called(text: str, made: Made) -> list[Statement]:
    """What those of the functions `made` run that a text calls."""
    lower = text.lower() if made else ""
    if not any(name.lower() in lower for name in made):
        return []
    called = [
        name_of(token)
        for token, behind in pairwise(tokens(text))
        if behind[1] == "(" and token[0] in ("word", "ident") and name_of(token) in made
    ]
    found: list[Statement] = []
    for name in dict.fromkeys(called):
        for one in made.pop(name, {}).values():
            found += _of_body(one, made)
    return found


def _evaluated(one: Statement) -> Iterator[str]:
    """What a CREATE or an ALTER evaluates at once: the query of a new table, what is done to a table or domain that is there."""
    words = one.words[1:3]
    if one.first == "ALTER" and words[:1] in (("TABLE",), ("DOMAIN",)):
        for part in split(list(tokens(one.text))):
            if ("SET", "DEFAULT") not in pairwise(upper(part)):
                yield " ".join(text for _, text, _ in part)
    elif one.first == "CREATE" and ({"TABLE", "MATERIALIZED"} & set(one.words[1:4])):
        parts = list(tokens(one.text))
        queries = [offset for kind, text, offset in outside(parts) if kind == "word" and text.upper() == "AS"]
        if queries and upper(parts)[-3:] != ["WITH", "NO", "DATA"]:
            yield one.text[queries[0] :]


def _function(one: Statement) -> tuple[str, str]:
    """The name of the function or procedure that a statement makes, and its arguments."""
    reader = Reader(one.text)
    reader.take("CREATE")
    reader.take("OR", "REPLACE")
    reader.skip()
    return reader.name(), ", ".join(" ".join(text for _, text, _ in part) for part in reader.group())


def _elements(one: Statement) -> Iterator[Statement]:
    """The statements inside a CREATE SCHEMA."""
    parts = outside(list(tokens(one.text)))
    words = upper(parts)
    starts = [
        parts[at][2]
        for at, word in enumerate(words)
        if at and word in ("CREATE", "GRANT") and words[at - 1] not in (".", "AS")
    ]
    line = counted = 0
    for start, end in pairwise([*starts, len(one.text)]):
        line += one.text.count("\n", counted, start)
        counted = start
        yield from _moved(statements(one.text[start:end])[:1], one.start + start, one.line + line)


def _held(one: Statement) -> Iterator[Statement]:
    """The statement behind EXPLAIN ANALYZE or PREPARE."""
    parts = list(tokens(one.text))
    reader = Reader(parts)
    if reader.take("PREPARE"):
        if reader.word == "TRANSACTION":
            return
        while not reader.done and not reader.take("AS"):
            reader.skip()
    else:
        reader.take("EXPLAIN")
        asked = {reader.word}
        options = [[text.upper() for _, text, _ in option] for option in reader.group()]
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
        line = one.line + one.text.count("\n", 0, start)
        yield from _moved(statements(one.text[start:]), one.start + start, line)


def _body(one: Statement) -> tuple[str, str, int]:
    """Language, text and offset of the body of a DO block or a function; no language where there is none to read."""
    parts = list(tokens(one.text))
    words = [text.upper() if kind == "word" else "" for kind, text, _ in parts]
    block = words[0] == "DO"
    language, at = "plpgsql" if block else "sql", -1
    if "LANGUAGE" in words[:-1]:
        at = words.index("LANGUAGE") + 1
        kind, text, _ = parts[at]
        language = (literal_value(text) if kind in _STRINGS else name_of(parts[at])).lower()
    if not block and "ATOMIC" in words:
        begin = parts[words.index("ATOMIC")][2] + len("ATOMIC")
        end = next((parts[place][2] for place in range(len(parts) - 1, 0, -1) if words[place] == "END"), len(one.text))
        return language, one.text[begin:end], begin
    for place, (kind, text, offset) in enumerate(parts):
        if kind in _STRINGS and place != at and (block or words[place - 1] == "AS"):
            return language, _value(kind, text), offset + _edge(text)
    return "", "", 0


def _moved(inner: Sequence[Statement], offset: int, line: int) -> Iterator[Statement]:
    """Statements of a text that itself begins at `offset`, in `line`."""
    for one in inner:
        yield replace(one, start=one.start + offset, end=one.end + offset, line=one.line + line - 1)


def _of_plpgsql(body: str) -> list[Statement]:
    """The statements of SQL in a body of PL/pgSQL, those that EXECUTE is given, and declarations and assignments."""
    found: list[Statement] = []
    line, counted = 1, 0
    for begin, end in _spans(body):
        line += body.count("\n", counted, begin)
        counted = begin
        for one in statements(body[begin:end])[:1]:
            executed = _executed(one) if one.first == "EXECUTE" else None
            found += _moved([one] if executed is None else executed, begin, line)
    return found


def _spans(body: str) -> Iterator[tuple[int, int]]:
    """Where the statements in a body of PL/pgSQL begin and end, without the words that control which of them run."""
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
            if word == "RETURN" and [one[1].upper() for one in parts[at + 1 : at + 2]] == ["QUERY"]:
                if at + 2 < end:
                    yield _span(parts, at + 2, end)
            elif word not in _NOTHING:
                yield start, _span(parts, at, end)[1]
            at = end + 1


def _next(parts: list[Token], at: int, wanted: str) -> int:
    """Where `wanted` stands next, outside of parentheses and of the CASE ... END of an expression."""
    depth = cases = 0
    for place in range(at, len(parts)):
        kind, text, _ = parts[place]
        word = text.upper() if kind == "word" else text
        if depth <= 0 and cases <= 0 and word == wanted:
            return place
        depth += {"(": 1, ")": -1}.get(text, 0)
        cases += {"CASE": 1, "END": -1}.get(word, 0) if wanted != ";" else 0
        if word == ";" and depth <= 0:
            return place
    return len(parts)


def _span(parts: list[Token], at: int, end: int) -> tuple[int, int]:
    _, text, start = parts[end - 1]
    return parts[at][2], start + len(text)


def _executed(one: Statement) -> list[Statement] | None:
    """The statements that an EXECUTE is given as one string; None where it is put together at run time."""
    parts = list(tokens(one.text))[1:]
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
    kind, text, offset = given[0]
    value = _value(kind, text)
    if called and "%" in value:
        return None
    edge = _edge(text)
    return list(_moved(statements(value), one.start + offset + edge, one.line + one.text.count("\n", 0, offset + edge)))


def _edge(token: str) -> int:
    """How many characters of a string constant stand before its value."""
    return token.index("$", 1) + 1 if token.startswith("$") else token.index("'") + 1


def _value(kind: str, token: str) -> str:
    """The value of a string constant, in which everything stands where it stands in the file: blanks fill what is shorter."""
    if kind == "dollar":
        return literal_value(token)
    opens = nested = False

    def value(match: re.Match[str]) -> str:
        nonlocal opens, nested
        text = match[0]
        if text[0] == "\\" and (kind != "escape" or text[1] != "'"):
            return _ESCAPES.get(text[1], text) if kind == "escape" else text
        if len(text) > 2 and opens:  # a quote inside a string of this text
            nested = not nested
            return f"  {text[:2]}" if nested else f"{text[:2]}  "
        if len(text) > 2:
            return f" {text[:2]} "
        opens = not opens
        return " '" if opens else "' "

    return _ESCAPED.sub(value, token[token.index("'") + 1 : -1])
