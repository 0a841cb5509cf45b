"""Finds the sessions that keep a statement waiting for its lock.

The server's error names neither the other session nor, often, the table. So a second connection looks while the statement
waits. If a client program waited, the sessions that lock tables against everybody are looked up afterwards.
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
except ImportError:  # `connect` reports it
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
# Sessions that have locked a table of this database against everybody, or wait to, and the sessions that these wait
# for. A prepared transaction holds its locks without a session.
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
    """A watch that looks, as long as its block lasts, for sessions that block the session `pid`.

    `lock_timeout` is how long that session waits, as PostgreSQL writes it. The first look comes after a fraction of it, a second
    at most, so that a short run needs no second connection. If that connection can't be made, no blocker is seen.
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
        """Forget the blockers seen so far: the next statement has others."""
        self._seen = []

    @property
    def seen(self) -> list[dict[str, Any]]:
        """Return who blocked the session at its last wait: `pid`, `user`, `application`, `state`, `since` and `query`.

        A value that the server doesn't show is None.
        """
        return self._seen

    @property
    def lines(self) -> list[str]:
        """Return one line for each blocker, or a line that says that none was seen."""
        return [f"  blocked by: {_described(session)}" for session in self._seen] or [
            "  blocked by: a session that released the lock before it could be seen"
        ]

    def named(self, refusal: DasTernError) -> DasTernError:
        """Return `refusal`, with the blockers if its cause is a lock that couldn't be had."""
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
    """Refuse, naming the blockers, if a statement of `connection` gets no lock; `doing` begins the message."""
    with Blockers(params, connection.info.backend_pid, lock_timeout) as blockers:
        try:
            yield
        except psycopg.errors.LockNotAvailable as error:
            message = f"{doing}: 55P03: {error.diag.message_primary}."
            raise blockers.named(DasTernError(message, sqlstate="55P03")) from None


def in_the_way(superuser: Psql, database: str) -> list[str]:
    """Return one line for each session that keeps others from tables of `database`; none if the server can't be asked.

    Queries are left out: they hold rows, and the lines may go into a record or an alert.
    """
    try:
        sessions = superuser.value(_IN_THE_WAY, database) or []
    except DasTernError:  # it mustn't hide the error that these lines are added to
        return []
    return [f"  in the way: {_described(session)}" for session in sessions]


def _described(session: Mapping[str, Any]) -> str:
    if not session["pid"]:
        return "a prepared transaction: `SELECT * FROM pg_prepared_xacts` shows it"
    since = f", since {local(session['since'])}" if session["since"] else ""
    query = ""
    if "query" in session:
        text = session["query"]
        query = ", query not visible to this role" if text is None else f", query: {shown(text)}"
    user, application = (shown(session[name] or "unknown") for name in ("user", "application"))
    state = session["state"] or "state not visible"
    return f"pid {session['pid']} (user {user}, application {application}, {state}{since}{query})"


def shown(text: str) -> str:
    """Return another session's text in one line, cut to a length, without characters that steer a terminal."""
    safe = text_shown(" ".join(text.split()))
    return safe if len(safe) <= _LONGEST else safe[: _LONGEST - 4] + " ..."
