"""SQL as superuser: psql inside the server's own container, over the socket, where `peer` knows who asks.

The statements go in over standard input, the rows come back as JSON; no password is involved.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .containers import Containers
from .errors import DasTernError

_ERROR = re.compile(r"^(?:psql:[^\n]*?: )?(ERROR|FATAL|PANIC):  (?:([0-9A-Z]{5}): )?(.*)$", re.MULTILINE)


class Psql:
    """The server in a running container."""

    def __init__(self, containers: Containers, container: str) -> None:
        self.containers = containers
        self.container = container

    def run(self, sql: str, database: str = "postgres") -> str:
        """What psql prints, unaligned; DasTernError with the server's message and SQLSTATE at the first error."""
        done = self.containers.execute(
            self.container,
            ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-U", "postgres", "-d", database],
            sql + "\n",
        )
        if done.rc == 0:
            return done.out
        found = _ERROR.search(done.err)
        if found is None:
            raise DasTernError(f"psql in container {self.container} failed ({done.rc}): {done.last_words}.")
        sqlstate = found[2] or ""
        raise DasTernError(
            f"PostgreSQL in container {self.container}, database {database}: {found[3]}"
            + (f" (SQLSTATE {sqlstate})." if sqlstate else "."),
            sqlstate=sqlstate,
        )

    def value(self, query: str, database: str = "postgres") -> Any:
        """The one JSON value that `query` selects."""
        text = self.run(query + ";", database).strip()
        return json.loads(text) if text else None
