"""A session with a server that isn't there, for unit tests of what is sent and of what follows from the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from psycopg import Rollback, pq, sql

Rows = list[tuple[Any, ...]]


class Result:
    """The server's answer to one statement: a row of texts, or an error."""

    def __init__(self, *values: str, error: str = "", table: str = "", column: str = "") -> None:
        self.values = values
        self.status = pq.ExecStatus.FATAL_ERROR if error else pq.ExecStatus.TUPLES_OK
        self.ntuples, self.nfields = 1, len(values)
        field = pq.DiagnosticField
        self._fields = {
            field.SQLSTATE: error, field.SEVERITY_NONLOCALIZED: "ERROR", field.MESSAGE_PRIMARY: error,
            field.TABLE_NAME: table, field.COLUMN_NAME: column,
        }  # fmt: skip

    def get_value(self, _: int, column: int) -> bytes:
        return self.values[column].encode()

    def error_field(self, field: pq.DiagnosticField) -> bytes | None:
        return self._fields[field].encode() if self._fields.get(field) else None

    def get_error_message(self, _: str) -> str:
        return self._fields[pq.DiagnosticField.SQLSTATE]


class Cursor:
    """The rows of a query."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.rowcount = rows, len(rows)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None

    def fetchall(self) -> Rows:
        return self.rows


class Session:
    """A connection that keeps the texts it is sent, in `sent`.

    `answer` gives the rows of a query, as many as an INSERT or UPDATE is to have written. A whole file gets the next of `files`, '' or the SQLSTATE with which it fails;
    several statements in one message get `message`.
    """

    closed = False
    prepare_threshold: int | None = None

    def __init__(
        self, *files: str, answer: Callable[[str], Rows] = lambda _: [], message: Callable[[str], Result] | None = None
    ) -> None:
        self.sent: list[str] = []
        self.pgconn = self
        self.info = SimpleNamespace(backend_pid=42)
        self._files, self._results = list(files), [None]
        self._answer, self._message = answer, message or (lambda _: Result("7", "2026-02-08T00:00:00.000Z", "true"))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.sent.append("BEGIN")
        try:
            yield
        except BaseException as error:
            self.sent.append("ROLLBACK")
            if not isinstance(error, Rollback):
                raise
        else:
            self.sent.append("COMMIT")

    def add_notice_handler(self, _: Any) -> None:
        pass

    def execute(self, query: str | sql.Composable, *_: Any) -> Cursor:
        text = query if isinstance(query, str) else query.as_string()
        self.sent.append(text)
        return Cursor(self._answer(text))

    def exec_(self, message: bytes) -> Result:
        self.sent.append(message.decode())
        return self._message(message.decode())

    def send_query(self, content: bytes) -> None:
        self.sent.append(content.decode())
        self._results: list[Result | None] = [None, Result(error=self._files.pop(0))]

    def wait(self, _: Any) -> None:
        pass

    def is_busy(self) -> bool:
        return False

    def get_result(self) -> Result | None:
        return self._results.pop()
