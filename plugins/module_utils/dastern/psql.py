"""SQL as superuser: psql inside the server's own container, over the socket, where `peer` knows who asks.

The statements go in over standard input, the rows come back as JSON; no password is involved.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .connection import system_identifier
from .containers import Containers
from .docker_engine import resolve
from .errors import DasTernError
from .sql_values import identifier

if TYPE_CHECKING:
    import psycopg

LONGEST = 24 * 3600.0
"""Seconds; while a table is counted or dumped, files are copied, or a checkpoint is waited for, nothing is said."""
_ERROR = re.compile(r"^(?:psql:[^\n]*?: )?(ERROR|FATAL|PANIC):  (?:([0-9A-Z]{5}): )?(.*)$", re.MULTILINE)


def superuser_of(params: Mapping[str, Any]) -> Psql | None:
    """The way to the superuser, which is only gone where it is needed; None where no `container` is named."""
    if not params["container"]:
        return None
    endpoint = resolve(os.environ, os.path.expanduser("~"), os.geteuid(), params["endpoint"])
    return Psql(Containers(endpoint.url), params["container"])


def superuser_there(params: Mapping[str, Any], connection: psycopg.Connection[Any], what: str) -> Psql:
    """The superuser of the very server that `connection` leads to; a refusal where `what` would be of another one."""
    superuser = superuser_of(params)
    if superuser is None:
        raise DasTernError(
            f"{what} is made by the superuser in the server's container, and `postgres_container_name` is empty: name it."
        )
    if superuser.run("SELECT system_identifier FROM pg_control_system();").strip() != system_identifier(connection):
        raise DasTernError(
            f"The server at {params['host']}:{params['port']} isn't the one in container {params['container']}: {what.lower()} "
            "would be of another database. Set `postgres_container_name`, or `postgres_host` and `postgres_port`, right."
        )
    return superuser


class Psql:
    """The server in a running container."""

    def __init__(self, containers: Containers, container: str) -> None:
        self.containers = containers
        self.container = container

    def run(self, sql: str, database: str = "postgres", silence: float = 0) -> str:
        """What psql prints, unaligned; DasTernError with the server's message and SQLSTATE at the first error.

        `silence` is as in `Containers.execute`: what counts or copies says nothing for long.
        """
        done = self.containers.execute(
            self.container,
            # What is done here by the superuser must not hang where a receiver that commits wait for is away.
            [
                "env",
                "PGOPTIONS=-c synchronous_commit=local",
                "psql",
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-v",
                "VERBOSITY=verbose",
                "-U",
                "postgres",
                "-d",
                database,
            ],
            sql + "\n",
            silence=silence,
        )
        if done.rc == 0:
            return done.out
        found = _ERROR.search(done.err)
        if found is None:
            raise DasTernError(
                f"psql in container {self.container} failed ({done.rc}): {done.last_words}.", **done.outside
            )
        sqlstate = found[2] or ""
        raise DasTernError(
            f"PostgreSQL in container {self.container}, database {database}: {found[3]}"
            + (f" (SQLSTATE {sqlstate})." if sqlstate else "."),
            sqlstate=sqlstate,
        )

    def drop_database(self, name: str) -> None:
        """Have no database of that name, whoever is in it; it waits for a checkpoint."""
        self.run(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE);", silence=LONGEST)

    def value(self, query: str, database: str = "postgres", silence: float = 0) -> Any:
        """The one JSON value that `query` selects."""
        text = self.run(query + ";", database, silence).strip()
        return json.loads(text) if text else None
