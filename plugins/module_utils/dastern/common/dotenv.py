"""Sets one variable of a `.env` file and leaves everything else as it is, byte for byte.

A file is read as the dotenv package reads it (its README, "What rules does the parsing engine follow?"): `export` may
stand before the name, a value in ', " or ` may span several lines, and the last of several assignments counts. Text is
latin-1 here, one character for each byte, so that no encoding of the rest is assumed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from .errors import DasTernError

_ASSIGNMENT = re.compile(
    r"""
    ^(?P<head>[ \t]*(?:export[ \t]+)?(?P<name>[\w.-]+)(?:[ \t]*=|:[ \t])[ \t]*)
    (?P<value>'(?:\\'|[^'])*'|"(?:\\"|[^"])*"|`(?:\\`|[^`])*`|[^\#\r\n]*?)
    (?P<tail>[ \t]*(?:\#[^\r\n]*)?)(?=\r?\n|\r|\Z)
    """,
    re.VERBOSE | re.MULTILINE | re.ASCII,
)
# Parameters of Prisma's URL that say how to connect, not where to and as whom.
_PARAMETER = re.compile(
    r"(connection_limit|pool_timeout|connect_timeout|socket_timeout|pgbouncer|statement_cache_size|application_name"
    r"|max_idle_connection_lifetime|single_use_connections|options)=[\w.~%+-]*",
    re.ASCII,
)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf".decode("latin-1")


@dataclass(frozen=True)
class Edited:
    """The file's new content; `lines` are the numbers (from 1) of the lines that assigned the variable before."""

    content: bytes
    changed: bool
    lines: list[int]


def url(user: str, password: str, host: str, port: int, database: str, schema: str, former: str = "") -> str:
    """Return a URL as Prisma reads it, with every special character percent-encoded.

    It keeps the parameters of the `former` URL that say how to connect, such as `connection_limit`.
    """
    host = f"[{host}]" if ":" in host else host
    query = former.partition("?")[2] if re.match(r"postgres(ql)?://", former) else ""
    kept = [part for part in query.split("&") if _PARAMETER.fullmatch(part)]
    parameters = "&".join([f"schema={_encoded(schema)}", *kept])
    return f"postgresql://{_encoded(user)}:{_encoded(password)}@{host}:{port}/{_encoded(database)}?{parameters}"


def value_of(content: bytes, name: str) -> str:
    """Return the value of `name`; '' if it isn't set."""
    _, _, matches = _read(content, name)
    return _plain(matches[-1]["value"]) if matches else ""


def _encoded(text: str) -> str:
    return quote(text, safe="")


def edited(content: bytes, name: str, value: str) -> Edited:
    """Return `content` with `name` set to `value`, which mustn't hold quotes, `$` or backslashes.

    The last assignment is replaced, because it is the one that counts. Without any, a line is added at the end.
    """
    if b"\0" in content:
        raise DasTernError("it holds NUL bytes, so it isn't UTF-8 text (perhaps UTF-16)")
    mark, text, matches = _read(content, name)
    lines = [text.count("\n", 0, match.start()) + 1 for match in matches]
    if matches:
        last = matches[-1]
        if _plain(last["value"]) == value:
            return Edited(content, False, lines)
        result = text[: last.start("value")] + f'"{value}"' + text[last.end("value") :]
    else:
        newline = "\r\n" if "\r\n" in text else "\n"
        glue = "" if not text or text.endswith("\n") else newline
        ending = newline if not text or text.endswith("\n") else ""
        result = f'{text}{glue}{name}="{value}"{ending}'
    return Edited((mark + result).encode("latin-1"), True, lines)


def _read(content: bytes, name: str) -> tuple[str, str, list[re.Match[str]]]:
    """Return the byte order mark, the text behind it, and the assignments of `name`."""
    text = content.decode("latin-1")
    start = len(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else 0
    mark, text = text[:start], text[start:]
    return mark, text, [match for match in _ASSIGNMENT.finditer(text) if match["name"] == name]


def _plain(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] in "'\"`" and value[-1] == value[0] else value.strip()
