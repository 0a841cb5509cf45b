"""A connection to PostgreSQL whose password comes from a file on this host.

Errors are `DasTernError` and name Prisma's code for the same case (P1000, P1001, P1003), so that a Prisma user can look the
case up. Source of the codes: Prisma's error reference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from ..common.errors import DasTernError
from ..common.sql_values import identifier

try:
    import psycopg
    from psycopg import pq
except ImportError as error:  # pragma: no cover - depends on the host
    psycopg = None  # type: ignore[assignment]
    PSYCOPG_ERROR: str | None = str(error)
else:
    PSYCOPG_ERROR = None

ARGUMENT_SPEC: dict[str, Any] = {
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 5432},
    "database": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "password_file": {"type": "path", "required": True, "no_log": False},
    "connect_timeout": {"type": "int", "default": 10},
}
"""The argument spec of every module that connects; the parameters of `connect` have the same names."""


def read_password(path: str) -> str:
    """Return the password in the file at `path`, without the last newline."""
    try:
        password = Path(os.path.expanduser(path)).read_text("utf-8").removesuffix("\n")
    except FileNotFoundError:
        raise DasTernError(
            f"The password file {path} does not exist on this host. "
            "`ansible-playbook playbooks/provision.yml` creates the database and this file."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DasTernError(
            f"The password file {path} can't be read: {error}. Run the play as the user who owns it."
        ) from None
    if not password.strip():
        raise DasTernError(
            f"The password file {path} is empty. `ansible-playbook playbooks/provision.yml` generates a password and sets it."
        )
    return password


def connect(
    params: dict[str, Any], application_name: str, settings: Mapping[str, str | int] | None = None
) -> psycopg.Connection[Any]:
    """Connect in autocommit mode; `params` has the options of `ARGUMENT_SPEC`, `settings` are session settings."""
    if psycopg is None:
        raise DasTernError(
            f"Python on this host has no psycopg 3 ({PSYCOPG_ERROR}). "
            "`ansible-playbook playbooks/provision.yml` installs it, or `apt-get install python3-psycopg`."
        )
    if not 1 <= params["port"] <= 65535:
        raise DasTernError(f"`postgres_port` is {params['port']}; expected 1 to 65535.")
    where = f"{params['host']}:{params['port']}"
    # The server notices within two seconds that its client was killed, and releases the client's locks.
    options = {"client_connection_check_interval": "2s", **(settings or {})}
    # libpq would take other parameters from PGHOSTADDR, PGSERVICE, PGSSLMODE and others of the operator's shell.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    connection = None
    try:
        connection = psycopg.connect(
            host=params["host"],
            port=params["port"],
            dbname=params["database"],
            user=params["user"],
            password=read_password(params["password_file"]),
            connect_timeout=params.get("connect_timeout", 10),
            application_name=application_name,
            client_encoding="UTF8",
            options=" ".join(f"-c {name}={escaped_option(str(value))}" for name, value in options.items()),
            autocommit=True,
        )
        # The protocol names the process that was reached; behind a pooler the server's process has another number.
        (process,) = one_message(connection, "SELECT pg_catalog.pg_backend_pid()")
    except psycopg.Error as error:
        if connection is not None:
            connection.close()
        raise _refusal(error, params, where) from None
    if int(process) != connection.info.backend_pid:
        connection.close()
        raise _pooler(params, where)
    return connection


def one_message(connection: psycopg.Connection[Any], text: str) -> list[str]:
    """Send statements as one message; return the last one's first row as text, [] if it has none.

    Two cursors fewer for each of a thousand small migrations save half a second. Raise `psycopg.Error` on failure.
    """
    result = connection.pgconn.exec_(text.encode())
    if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result, encoding="utf-8")
    values = [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []
    return [(value or b"").decode() for value in values]


def system_identifier(connection: psycopg.Connection[Any]) -> str:
    """Return the cluster's own identifier, because a name can outlive its cluster."""
    row = connection.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    assert row is not None
    return str(row[0])


def conninfo(database: str, application_name: str) -> str:
    """Return the connection string with which a client program in the server's container reaches `database`."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}' application_name='{application_name}'"


def escaped_option(value: str) -> str:
    """Return `value` as libpq's `options` takes it, with a backslash in front of blanks and backslashes."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def detail_of(error: psycopg.Error) -> str:
    """Return the detail of the server's error, or '' if that is a whole row, which may be a patient's.

    The detail of these violations (NOT NULL, CHECK, WITH CHECK OPTION) is `Failing row contains (...)`, in the server's language.
    """
    whole_row = error.sqlstate in ("23502", "23514", "44000")
    return "" if whole_row else error.diag.message_detail or ""


def refusal_of_closed(database: str, container: str, text: str) -> DasTernError | None:
    """Return a refusal if the server's `text` says that `database` takes no connections, not even a superuser's."""
    if "is not currently accepting connections" not in text:
        return None
    opening = f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS true"
    if container:
        opening = f"docker exec -u postgres {quote(container)} psql -c {quote(opening)}"
    return DasTernError(
        f"Database {database} takes no connections: its owner or the superuser set ALLOW_CONNECTIONS to false, or a restore was killed "
        f"while it swapped databases. After a restore, `ansible-playbook playbooks/restore.yml` reopens it; otherwise{'' if container else ', as the superuser'}: `{opening}`.",
        closed=database,
    )


def refusal_of_limit(text: str, container: str) -> DasTernError | None:
    """Return a refusal if the server's `text` says that a role or a database may have no more connections."""
    limited = re.search(r'too many connections for (role|database) "(.*)"', text)
    if limited is None:
        return None
    lifting = f"ALTER {limited[1].upper()} {identifier(limited[2])} CONNECTION LIMIT -1"
    if container:
        lifting = f"docker exec -u postgres {quote(container)} psql -c {quote(lifting)}"
    return DasTernError(
        f"{limited[1].capitalize()} {limited[2]} has a connection limit, which its owner or the superuser set: {limited[0]}. "
        f"`{lifting}` removes it.",
        code="P1001",
    )


def _pooler(params: dict[str, Any], where: str) -> DasTernError:
    """Return the refusal of a pooler, which would pass a session with its locks and settings on to another client."""
    container = params.get("container")
    hint = f" (`docker port {quote(container)} 5432` shows it)" if container else ""
    return DasTernError(
        f"A connection pooler such as PgBouncer answers at {where}, not the server itself (P1001): through it the migration lock would "
        "stay in a session that others get next, and timeouts and check mode's read-only transactions wouldn't hold. Set "
        f"`postgres_host` and `postgres_port` to the address that the server itself publishes{hint}. The application's DATABASE_URL "
        "may keep naming the pooler (a Prisma backend has `directUrl` for its migrations). Nothing was changed.",
        code="P1001",
        pooler=True,
    )


def _refusal(error: psycopg.Error, params: dict[str, Any], where: str) -> DasTernError:
    text = " ".join(str(error).split())
    # For a connection that was never established libpq gives the server's English text, no SQLSTATE (psycopg issue 40).
    if "password authentication failed" in text or "no pg_hba.conf entry" in text or "pg_hba.conf rejects" in text:
        return DasTernError(
            f"The server at {where} doesn't let {params['user']} in (P1000): {text}. The password is read from "
            f"{params['password_file']}; `ansible-playbook playbooks/provision.yml` gives the role the password of that file.",
            code="P1000",
        )
    # Only PgBouncer uses these words, not PostgreSQL: it takes no `options`, unless it is configured to ignore them.
    if "unsupported startup parameter" in text or "no such database: " in text:
        return _pooler(params, where)
    if closed := refusal_of_closed(params["database"], params.get("container") or "", text):
        return closed
    if "does not exist" in text and "database" in text:
        return DasTernError(
            f"Database {params['database']} does not exist at {where} (P1003). "
            "`ansible-playbook playbooks/provision.yml` creates it.",
            code="P1003",
        )
    if limited := refusal_of_limit(text, params.get("container") or ""):
        return limited
    if any(words in text for words in ("too many connections", "remaining connection slots", "too many clients")):
        return DasTernError(
            f"The server at {where} has no connection left for {params['user']}: {text}. "
            "`ansible-playbook playbooks/status.yml` shows how many are used. End sessions that nobody needs, or raise "
            "max_connections in `postgres_settings_extra`.",
            code="P1001",
        )
    if "invalid value for parameter" in text or "invalid command-line argument" in text:
        return DasTernError(
            f"The server at {where} refuses a setting of this session: {text}. Correct the setting's variable."
        )
    if "starting up" in text or "shutting down" in text or "recovery mode" in text:
        return DasTernError(f"The server at {where} isn't ready: {text}. Run again in a moment.", code="P1001")
    return DasTernError(
        f"No PostgreSQL server answers at {where} (P1001): {text}. `ansible-playbook playbooks/status.yml` shows what runs, "
        "`ansible-playbook playbooks/provision.yml` starts it.",
        code="P1001",
    )
