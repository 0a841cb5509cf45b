"""Who keeps a statement waiting for its lock.

The server's error names neither the other session nor, often, the table. So a second connection looks while the statement waits;
where a client program waited, it is seen afterwards who has locked tables against everybody.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..common.errors import DasTernError
from ..common.quantities import local
from ..common.sql_values import seconds
from ..common.text import shown as text_shown
from .connection import connect
from .psql import Psql

try:
    import psycopg
except ImportError:  # `connect` says so in words
    pass

_LONGEST = 200
# Without a privilege the server shows of another role's session no more than pid, role and application.
_BLOCKERS = """
SELECT b.pid, a.usename::text, a.application_name, a.state, to_char(coalesce(a.xact_start, a.state_change), 'YYYY-MM-DD HH24:MI:SSOF'),
  CASE WHEN a.query IS DISTINCT FROM '<insufficient privilege>' THEN a.query END
FROM pg_catalog.pg_stat_activity w, LATERAL (SELECT DISTINCT pid FROM unnest(pg_catalog.pg_blocking_pids(w.pid)) pid) b
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
WHERE w.pid = %s AND w.wait_event_type = 'Lock' ORDER BY 1
"""
# Who has locked a table of this database against everybody, or waits to, and whom these wait for. A transaction that was
# prepared holds its locks without a session.
_IN_THE_WAY = """
WITH asked AS (
  SELECT coalesce(l.pid, 0) AS pid, bool_and(l.granted) AS granted FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
  WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.mode = 'AccessExclusiveLock' AND c.relpersistence <> 't' AND c.oid >= 16384 GROUP BY 1),
every AS (SELECT pid, granted FROM asked UNION SELECT unnest(pg_blocking_pids(pid)), true FROM asked WHERE NOT granted)
SELECT json_agg(DISTINCT jsonb_build_object('pid', e.pid, 'user', a.usename, 'application', a.application_name,
  'state', CASE WHEN e.granted THEN a.state ELSE 'waits for a lock itself' END,
  'since', to_char(coalesce(a.xact_start, a.state_change), 'YYYY-MM-DD HH24:MI:SSOF')))
FROM every e LEFT JOIN pg_stat_activity a ON a.pid = e.pid
"""


class Blockers:
    """While the block lasts, looks every now and then who blocks the session `pid`.

    `lock_timeout` is how long that session waits, as PostgreSQL writes it. The first look comes after a fraction of it, a second
    at most: a short run makes no second connection. Where none can be made, nobody is seen.
    """

    def __init__(self, params: Mapping[str, Any], pid: int, lock_timeout: str) -> None:
        self._params, self._pid = dict(params), pid
        wait = seconds("migrations_lock_timeout", lock_timeout)
        self._pause = min(max(wait / 5, 0.02), 1.0) if wait else 1.0
        self._seen: list[dict[str, Any]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Blockers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(2)

    def forget(self) -> None:
        """What comes next waits for others."""
        self._seen = []

    @property
    def seen(self) -> list[dict[str, Any]]:
        """Who blocked it when it waited last: `pid`, `user`, `application`, `state`, `since` and `query`.

        None is what the server doesn't show.
        """
        return self._seen

    @property
    def lines(self) -> list[str]:
        """The same in words, one line for each; how it is with nobody."""
        return [f"  blocked by: {_words(one)}" for one in self._seen] or [
            "  blocked by: nobody any more when it was looked; it had let go between two looks"
        ]

    def named(self, refusal: DasTernError) -> DasTernError:
        """`refusal` with who it was, where it is one for want of a lock."""
        if refusal.facts.get("sqlstate") != "55P03":
            return refusal
        return DasTernError([*refusal.message.split("\n"), *self.lines], **{**refusal.facts, "blockers": self.seen})

    def _look(self) -> None:
        if self._over.wait(self._pause):
            return
        names = ("pid", "user", "application", "state", "since", "query")
        try:
            with connect(self._params, "das-tern blockers", {"lock_timeout": "1s", "statement_timeout": "5s"}) as own:
                while True:
                    rows = own.execute(_BLOCKERS, (self._pid,)).fetchall()
                    if rows:
                        self._seen = [dict(zip(names, row, strict=True)) for row in rows]
                    if self._over.wait(self._pause):
                        return
        except (DasTernError, psycopg.Error):
            return


@contextmanager
def watching(
    params: Mapping[str, Any], connection: psycopg.Connection[Any], lock_timeout: str, doing: str
) -> Iterator[None]:
    """Refuse, and name who it was, where a statement of `connection` gets no lock; `doing` says what failed."""
    with Blockers(params, connection.info.backend_pid, lock_timeout) as blockers:
        try:
            yield
        except psycopg.errors.LockNotAvailable as error:
            words = f"{doing}: 55P03: {error.diag.message_primary}."
            raise blockers.named(DasTernError(words, sqlstate="55P03")) from None


def in_the_way(superuser: Psql, database: str) -> list[str]:
    """Return who keeps others from tables of `database`, one line for each: none where nobody is seen, or it can't be asked.

    Without their queries: these hold rows, and the lines may go into a record or an alert.
    """
    try:
        seen = superuser.value(_IN_THE_WAY, database) or []
    except DasTernError:  # what is to be said besides mustn't get lost
        return []
    return [f"  in the way: {_words(one)}" for one in seen]


def _words(one: Mapping[str, Any]) -> str:
    if not one["pid"]:
        return "a prepared transaction: `SELECT * FROM pg_prepared_xacts` shows it"
    since = f", since {local(one['since'])}" if one["since"] else ""
    query = ""
    if "query" in one:
        query = ", query not visible to this role" if one["query"] is None else f", query: {shown(one['query'])}"
    return (
        f"pid {one['pid']} (user {shown(one['user'] or 'unknown')}, application {shown(one['application'] or 'unknown')}, "
        f"{one['state'] or 'state not visible'}{since}{query})"
    )


def shown(text: str) -> str:
    """Text of another session in one line, without characters that steer a terminal, cut to a length."""
    safe = text_shown(" ".join(text.split()))
    return safe if len(safe) <= _LONGEST else safe[: _LONGEST - 4] + " ..."
