"""What is shown of a server's words about rows: none of their values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.docker.containers import Output
from ansible.module_utils.dastern.migrations.rehearsal import _error_of
from ansible.module_utils.dastern.server.connection import detail_of, refusal_of_limit
from ansible.module_utils.dastern.server.psql import words_of

ROW = "DETAIL:  Failing row contains (1, Sok Dara).\nCONTEXT:  COPY v, line 1\nLOCATION:  ExecConstraints, execMain.c:2036\n"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (f'ERROR:  23514: new row for relation "v" violates check constraint "c"\n{ROW}',
         'new row for relation "v" violates check constraint "c" (SQLSTATE 23514)'),
        (f'FEHLER:  23514: neue Zeile verletzt "c"\n{ROW}', 'neue Zeile verletzt "c" (SQLSTATE 23514)'),
        (f'ERREUR :  23514: la nouvelle ligne viole "c"\n{ROW}', 'la nouvelle ligne viole "c" (SQLSTATE 23514)'),
        (f'WARNING:  01000: Sok Dara comes\n{ROW}ERROR:  40001: no\n', "no (SQLSTATE 40001)"),
        (f'ERROR:  22P02: invalid input syntax for type integer: "Sok "" Dara"\n{ROW}',
         'invalid input syntax for type integer: "..." (SQLSTATE 22P02)'),
        (f'ERROR:  22P02: invalid input syntax for type integer: "Sok\nDara"\n{ROW}',
         'invalid input syntax for type integer: "..." (SQLSTATE 22P02)'),
        ("psql: error: connection to server failed\n", "psql: error: connection to server failed"),
    ],
)  # fmt: skip
def test_an_error_about_rows_is_shown_without_them(said: str, words: str) -> None:
    assert words_of(Output(3, "", said)) == words


@pytest.mark.parametrize(
    ("sqlstate", "shown"), [("23514", False), ("23502", False), ("44000", False), ("23505", True), ("2BP01", True)]
)
def test_a_detail_is_shown_unless_it_is_a_row(sqlstate: str, shown: bool) -> None:
    error: Any = SimpleNamespace(sqlstate=sqlstate, diag=SimpleNamespace(message_detail="more"))
    assert detail_of(error) == ("more" if shown else "")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("pg_dump: error: query failed: ERROR:  canceling\npg_dump: detail: Query was: COPY\n",
         "pg_dump: error: query failed: ERROR:  canceling / pg_dump: detail: Query was: COPY"),
        ("", "ERROR: terminating connection"),
    ],
)  # fmt: skip
def test_a_copy_that_fails_shows_no_rows(said: str, words: str) -> None:
    refused = f'pg_restore: error: COPY failed for table "v": ERROR:  no\n{ROW}'
    lost = "pg_restore: error: ERROR: terminating connection\nDETAIL:  Failing row contains (1, Sok Dara).\n"
    assert _error_of(Output(1, "", refused + lost + said)) == words


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('FATAL:  too many connections for role "a "b"\n', "docker exec -u postgres pg psql -c 'ALTER ROLE \"a \"\"b\" CONNECTION LIMIT -1'"),
        ('FATAL:  too many connections for database "d"\n', "docker exec -u postgres pg psql -c 'ALTER DATABASE \"d\" CONNECTION LIMIT -1'"),
    ],
)  # fmt: skip
def test_a_connection_limit_is_named_with_the_command_that_lifts_it(text: str, command: str) -> None:
    refusal = refusal_of_limit(f"pg_restore: error: connection to server failed: {text}", "pg")
    assert refusal is not None
    assert f"`{command}` removes it." in refusal.message
    assert refusal_of_limit("FATAL:  sorry, too many clients already", "pg") is None
