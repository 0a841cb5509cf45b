"""One of PostgreSQL's advisory locks, taken by polling, with its holder in words.

It is never taken by waiting inside `pg_advisory_lock`, where a waiter deadlocks with CREATE INDEX CONCURRENTLY.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timezone
from typing import TYPE_CHECKING, Any

from ..common.quantities import local

if TYPE_CHECKING:
    import psycopg

_HOLDER = """
SELECT l.pid, a.application_name, host(a.client_addr) AS client, a.backend_start AS since
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %s AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Held(Exception):
    """Another session held the lock for the whole time allowed."""

    def __init__(self, holder: dict[str, Any] | None, seconds: float) -> None:
        super().__init__()
        self.holder = holder
        self.seconds = seconds


class AdvisoryLock:
    """The lock `key` (0 to 2^31 - 1) of the connection's database, held by the session or by the `transaction`."""

    def __init__(self, connection: psycopg.Connection[Any], key: int, *, transaction: bool = False) -> None:
        self._connection = connection
        self._key = key
        self._try = "SELECT pg_try_advisory_xact_lock(%s)" if transaction else "SELECT pg_try_advisory_lock(%s)"

    def take(self, seconds: float, waiting: Callable[[str], None] | None = None) -> dict[str, Any] | None:
        """Take the lock within `seconds`, else raise `Held`. Return the holder it waited for, and how many `seconds`.

        `waiting` is called once, with the holder in words.
        """
        began = time.monotonic()
        pause = 0.05
        holder: dict[str, Any] | None = None
        while not self._row(self._try)[0]:
            current = self.holder()
            if current and holder is None and waiting:
                waiting(who(current))
            holder = current or holder
            waited = time.monotonic() - began
            # A holder that was never seen released the lock between two queries.
            if waited >= seconds and (holder or waited > 5):
                raise Held(holder, waited)
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        return {**holder, "seconds": round(time.monotonic() - began, 1)} if holder else None

    @property
    def again(self) -> str:
        """Return an SQL expression that is true if the lock is ours, or was free and is taken by it again."""
        return self._try.removeprefix("SELECT ").replace("%s", str(self._key))

    def holder(self) -> dict[str, Any] | None:
        """Return the holder's pid, application_name, client and time of connection; None if the lock is free."""
        row = self._row(_HOLDER)
        if row is None:
            return None
        pid, application, client, since = row
        return {
            "pid": pid,
            "application_name": application or "unknown",
            "client": client or "local",
            "since": since.astimezone(timezone.utc).isoformat(timespec="seconds") if since else "unknown",
        }

    def _row(self, query: str) -> Any:
        return self._connection.execute(query, (self._key,)).fetchone()  # type: ignore[arg-type]


def who(holder: dict[str, Any] | None) -> str:
    """Return a lock's holder in words."""
    if not holder:
        return "a session that has ended meanwhile"
    return f"pid {holder['pid']} ({holder['application_name']}, client {holder['client']}, connected since {local(holder['since'])})"
