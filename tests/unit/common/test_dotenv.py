"""`.env` files: one variable set, every other byte as it was."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from ansible.module_utils.dastern.common.dotenv import edited, url, value_of
from ansible.module_utils.dastern.common.errors import DasTernError

NAME = "DATABASE_URL"
NEW = "postgresql://u:p@h:1/d?schema=public"


def set_in(content: bytes) -> bytes:
    result = edited(content, NAME, NEW)
    assert result.changed
    again = edited(result.content, NAME, NEW)
    assert not again.changed
    assert again.content == result.content
    return result.content


LINE = f'DATABASE_URL="{NEW}"'.encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", LINE + b"\n"),
        (b"A=1\n", b"A=1\n" + LINE + b"\n"),
        (b"A=1", b"A=1\n" + LINE),
        (b"A=1\r\nB=2\r\n", b"A=1\r\nB=2\r\n" + LINE + b"\r\n"),
        (b"A=1\r\nB=2", b"A=1\r\nB=2\r\n" + LINE),
        (b"DATABASE_URL=old\nB=2", LINE + b"\nB=2"),
        (b"DATABASE_URL=old\r\nB=2\r\n", LINE + b"\r\nB=2\r\n"),
        (b"DATABASE_URL=\nB=2\n", LINE + b"\nB=2\n"),
        (b"DATABASE_URL=", LINE),
        (b"DATABASE_URL='old # no comment' # a comment\n", LINE + b" # a comment\n"),
        (b"DATABASE_URL=old # a comment\n", LINE + b" # a comment\n"),
        (b"export DATABASE_URL=old\n", b"export " + LINE + b"\n"),
        (b"  DATABASE_URL = `old`\n", b'  DATABASE_URL = "' + NEW.encode() + b'"\n'),
        (b"DATABASE_URL: old\n", b'DATABASE_URL: "' + NEW.encode() + b'"\n'),
        (b"# DATABASE_URL=old\n", b"# DATABASE_URL=old\n" + LINE + b"\n"),
        (b"MY_DATABASE_URL=x\nDATABASE_URL_2=y\n", b"MY_DATABASE_URL=x\nDATABASE_URL_2=y\n" + LINE + b"\n"),
        (b'KEY="first\nDATABASE_URL=inside\n"\n', b'KEY="first\nDATABASE_URL=inside\n"\n' + LINE + b"\n"),
        (b"\xef\xbb\xbfDATABASE_URL=old\n", b"\xef\xbb\xbf" + LINE + b"\n"),
        (b"A=\xff\xfe caf\xe9\nDATABASE_URL=old\n", b"A=\xff\xfe caf\xe9\n" + LINE + b"\n"),
        (b"DATABASE_URL=one\nDATABASE_URL=two\n", b"DATABASE_URL=one\n" + LINE + b"\n"),
        (b'DATABASE_URL="two\nlines"\nB=1\n', LINE + b"\nB=1\n"),
        (b"A=it's\nDATABASE_URL=old\nB=it's\n", b"A=it's\n" + LINE + b"\nB=it's\n"),
    ],
)
def test_only_the_variable_changes(before: bytes, after: bytes) -> None:
    assert set_in(before) == after


@pytest.mark.parametrize("quotes", ["", "'", '"', "`"])
def test_the_same_value_is_left_in_its_own_quotes(quotes: str) -> None:
    content = f"DATABASE_URL={quotes}{NEW}{quotes}\n".encode()
    assert edited(content, NAME, NEW).content == content
    assert not edited(content, NAME, NEW).changed


def test_the_lines_of_all_assignments_are_told() -> None:
    assert edited(b"DATABASE_URL=1\nA=2\nexport DATABASE_URL=3\n", NAME, NEW).lines == [1, 3]


def test_a_file_that_is_no_text_is_refused() -> None:
    with pytest.raises(DasTernError, match="NUL bytes"):
        edited("DATABASE_URL=x".encode("utf-16"), NAME, NEW)


@pytest.mark.parametrize("password", ["p@ss/w:rd?#[]%&= +", "'\"`$\\{}<>|^~", "simple", "a%20b"])
def test_a_url_gives_back_what_went_in(password: str) -> None:
    made = url("user@x", password, "127.0.0.1", 5432, "data base/1", "public")
    assert not set(made) & set("'\"`$\\# ")
    parts = urlsplit(made)
    assert unquote(parts.password or "") == password
    assert unquote(parts.username or "") == "user@x"
    assert unquote(parts.path) == "/data base/1"
    assert (parts.hostname, parts.port, parts.query) == ("127.0.0.1", 5432, "schema=public")


def test_an_ipv6_host_stands_in_brackets() -> None:
    assert url("u", "p", "::1", 5432, "d", "public") == "postgresql://u:p@[::1]:5432/d?schema=public"


@pytest.mark.parametrize(
    ("former", "parameters"),
    [
        (
            "postgresql://a:b@c/d?host=/run&password=old&user=x&sslmode=require&schema=old&connection_limit=5&pool_timeout=2",
            "schema=public&connection_limit=5&pool_timeout=2",
        ),
        ("postgres://a:b@c:1/d?pgbouncer=true", "schema=public&pgbouncer=true"),
        ("postgresql://a:b@c:1/d?x=$HOME&y='1'", "schema=public"),
        ("postgresql://a:b[c@d/e?connection_limit=5", "schema=public&connection_limit=5"),
        ("mysql://a:b@c:1/d?connection_limit=5", "schema=public"),
        ("", "schema=public"),
    ],
)
def test_other_parameters_of_the_former_url_stay(former: str, parameters: str) -> None:
    made = url("u", "p", "h", 1, "d", "public", former)
    assert made.partition("?")[2] == parameters
    assert url("u", "p", "h", 1, "d", "public", made) == made


def test_the_value_that_counts_is_read() -> None:
    assert value_of(b"\xef\xbb\xbfDATABASE_URL='one'\n", NAME) == "one"
    assert value_of(b"DATABASE_URL=one\nDATABASE_URL=two # comment\n", NAME) == "two"
    assert value_of(b"OTHER=one\n", NAME) == ""
