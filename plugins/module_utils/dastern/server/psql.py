"""Sessions inside the server's own container, over its socket, where `peer` identifies the user without a password.

A session is neutral: settings that the application can attach to its database or its role (`ALTER DATABASE ... SET`, `ALTER
ROLE ... SET`) have no effect in it. The settings below travel in the startup packet, which beats both. A superuser's session
resolves only PostgreSQL's own names without a schema, so that nothing that the application planted is evaluated.

A superuser's session enters the application's database to read catalogues, to count rows and to dump. Statements that
evaluate the application's code (constraints, defaults, triggers, index expressions, materialised views) run in a session
that logged in as the owner (`Psql.as_owner`), where `SET ROLE` and `RESET ROLE` gain no rights.

The statements go in over standard input, and the rows come back as JSON.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..common.errors import DasTernError
from ..common.sql_values import identifier, literal
from ..docker.containers import Containers, Output, Readable
from ..docker.engine import resolve
from .connection import conninfo, escaped_option, refusal_of_closed, refusal_of_limit, system_identifier
from .settings import READ_BACK

if TYPE_CHECKING:
    import psycopg

SUPERUSER = "postgres"
_NEUTRAL = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "row_security": "on",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "exit_on_error": "off",
    # These could make each query, or each page, arbitrarily slow.
    "vacuum_cost_delay": "0",
    "jit": "off",
    "debug_parallel_query": "off",
    "client_encoding": "UTF8",
    "client_min_messages": "notice",
    "datestyle": "ISO,YMD",
    "intervalstyle": "postgres",
    # A timestamptz is written with its offset, so that no zone changes a dump's meaning. UTC is the cheapest to write.
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "quote_all_identifiers": "off",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_table_access_method": "heap",
    "default_tablespace": "",
    "temp_tablespaces": "",
    "local_preload_libraries": "",
}
"""Settings that every session here begins with; any role may set them for its own session."""
_NEUTRAL_SUPERUSER = {
    "session_replication_role": "origin",
    # A policy that hides rows raises an error, instead of the rows being silently left out.
    "row_security": "off",
    "session_preload_libraries": "",
    "lc_messages": "C",
    # A login trigger can refuse anybody's session, and a ddl_command trigger evaluates its owner's code.
    "event_triggers": "off",
    # A table may become a view between two statements, and whoever reads a view evaluates its functions.
    "restrict_nonsystem_relation_kind": "view,foreign-table",
    # The superuser's work mustn't hang while a receiver that commits wait for is away.
    "synchronous_commit": "local",
}
"""Settings that only a superuser may set, or that would keep an owner from its own views."""
LONGEST = 24 * 3600.0
"""Seconds without output while a table is counted or dumped, files are copied, or a checkpoint is waited for."""
# Functions, operators, relations, types and casts that belong to no extension.
_PLANTED = """
SELECT coalesce(pg_catalog.json_agg(i.identity), '[]')
FROM (SELECT 'pg_proc'::pg_catalog.regclass AS class, oid FROM pg_catalog.pg_proc
  UNION ALL SELECT 'pg_operator'::pg_catalog.regclass, oid FROM pg_catalog.pg_operator
  UNION ALL SELECT 'pg_class'::pg_catalog.regclass, oid FROM pg_catalog.pg_class
  UNION ALL SELECT 'pg_type'::pg_catalog.regclass, oid FROM pg_catalog.pg_type
  UNION ALL SELECT 'pg_cast'::pg_catalog.regclass, oid FROM pg_catalog.pg_cast) AS o,
  pg_catalog.pg_identify_object(o.class, o.oid, 0) AS i
WHERE o.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = o.class AND objid = o.oid AND deptype IN ('e', 'i', 'a'))
"""
# SQLSTATE of DROP DATABASE on a template: wrong_object_type.
_IS_TEMPLATE = "42809"
_ERROR = re.compile(r"^(?:psql:[^\n]*?: )?(ERROR|FATAL|PANIC):  (?:([0-9A-Z]{5}): )?(.*)$", re.MULTILINE)
_STATED = re.compile(r"^[^:\n]+: +([0-9A-Z]{5}): (.*)$", re.MULTILINE)


def session_options(user: str = SUPERUSER, **more: str) -> str:
    """Return `PGOPTIONS` for a neutral session of `user`; `more` are settings in which the session differs."""
    values = {**_NEUTRAL, **(_NEUTRAL_SUPERUSER if user == SUPERUSER else {}), **more}
    return " ".join(f"-c {name}={escaped_option(value)}" for name, value in values.items())


def session_environment(user: str = SUPERUSER, **more: str) -> dict[str, str]:
    """Return the environment in which a client program has neutral sessions of `user`."""
    return {"PGUSER": user, "PGOPTIONS": session_options(user, **more)}


def superuser_of(params: Mapping[str, Any]) -> Psql | None:
    """Return access to the superuser, which connects only when used; None if no `container` is named."""
    if not params["container"]:
        return None
    endpoint = resolve(os.environ, os.path.expanduser("~"), os.geteuid(), params["endpoint"])
    return Psql(Containers(endpoint.url), params["container"])


def superuser_there(params: Mapping[str, Any], connection: psycopg.Connection[Any], product: str) -> Psql:
    """Return access to the superuser of the connection's server; refuse if `product` would be another server's."""
    superuser = superuser_of(params)
    if superuser is None:
        raise DasTernError(
            f"{product} is made by the superuser in the server's container, but `postgres_container_name` is empty. Set it."
        )
    if superuser.run("SELECT system_identifier FROM pg_control_system();").strip() != system_identifier(connection):
        raise DasTernError(
            f"The server at {params['host']}:{params['port']} isn't the one in container {params['container']}: {product.lower()} "
            "would be of another database. Correct `postgres_container_name`, or `postgres_host` and `postgres_port`."
        )
    return superuser


def words_of(done: Output) -> str:
    """Return the first error that psql, with `VERBOSITY=verbose`, wrote about a statement on rows, without their values.

    DETAIL and CONTEXT quote rows, and so does a data exception (class 22) itself. The server may write in any language.
    """
    for state, words in _STATED.findall(done.err):
        if state[:2] not in ("00", "01"):  # a notice or a warning
            shown = re.sub(r'".*("|$)', '"..."', words) if state.startswith("22") else words
            return f"{shown} (SQLSTATE {state})"
    return done.last_words


class Psql:
    """Access to the server in a running container, as one of its roles."""

    def __init__(self, containers: Containers, container: str, user: str = SUPERUSER) -> None:
        self.containers = containers
        self.container = container
        self.user = user

    def as_owner(self, role: str) -> Psql:
        """Return access as `role`, which logs in: `pg_ident.conf` allows that to the container's own superuser.

        Refuse a role that is a superuser itself: the application's code mustn't run with such rights.
        """
        if self.value(f"SELECT to_json(EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(role)} AND rolsuper))"):
            raise DasTernError(
                f"Role {role}, which owns the database, is a superuser in container {self.container}: the application's code "
                "would run with its rights. Give the database an owner without them (`postgres_app_user`, then "
                "`ansible-playbook playbooks/provision.yml`).",
                superuser=role,
            )
        return Psql(self.containers, self.container, role)

    def of_throwaway(self, role: str) -> Psql:
        """Return access as a role of a throwaway server, where any role may log in and do anything."""
        return Psql(self.containers, self.container, role)

    def execute(self, command: Sequence[str], stdin: str | Readable = "", **options: Any) -> Output:
        """Run a client program with neutral sessions of this role; `options` are those of `Containers.execute`.

        The further option `settings` holds settings in which these sessions differ.
        """
        environment = session_environment(self.user, **options.pop("settings", {}))
        return self.containers.execute(self.container, command, stdin, environment=environment, **options)

    def run(self, sql: str, database: str = "postgres", silence: float = 0) -> str:
        """Return psql's unaligned output. Raise `DasTernError` with the server's message and SQLSTATE at the first error.

        `silence` is as in `Containers.execute`: a statement that counts or copies prints nothing for long.
        """
        command = [
            "psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-d",
            conninfo(database, "das-tern"),
        ]
        done = self.execute(command, sql + "\n", silence=silence)
        if done.rc == 0:
            return done.out
        error = _ERROR.search(done.err)
        if error is None:
            raise DasTernError(
                f"psql in container {self.container} failed ({done.rc}): {done.last_words}.", **done.outside
            )
        sqlstate, message = error[2] or "", error[3]
        if closed := refusal_of_closed(database, self.container, message):
            raise closed
        if limited := refusal_of_limit(done.err, self.container):
            raise limited
        if self.user != SUPERUSER and ("authentication failed" in message or "pg_hba.conf" in message):
            raise DasTernError(
                f"Role {self.user} can't log in inside container {self.container}: {message}. "
                "`ansible-playbook playbooks/provision.yml` writes the rules that allow it (pg_hba.conf, pg_ident.conf)."
            )
        more = ""
        if sqlstate == "53200" and "max_locks_per_transaction" in done.err:
            more = (
                " The server has no room for more locks: raise `max_locks_per_transaction` in `postgres_settings_extra` and run "
                "`ansible-playbook playbooks/provision.yml`, which restarts the server."
            )
        raise DasTernError(
            f"PostgreSQL in container {self.container}, database {database}: {message}"
            + (f" (SQLSTATE {sqlstate}).{more}" if sqlstate else "."),
            sqlstate=sqlstate,
        )

    def databases(self) -> list[str]:
        """Return the names of all databases of the server."""
        return list(self.value("SELECT json_agg(datname) FROM pg_database") or [])

    def has_database(self, name: str) -> bool:
        return bool(self.value(f"SELECT to_json(EXISTS (SELECT FROM pg_database WHERE datname = {literal(name)}))"))

    def settings(self) -> dict[str, Any]:
        """Return the result of `settings.READ_BACK`, from a session without settings of its own but the search path.

        The session is in database `postgres`, which is the superuser's.
        """
        command = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", READ_BACK]
        own = {"PGUSER": self.user, "PGOPTIONS": "-c search_path=pg_catalog,pg_temp -c event_triggers=off"}
        done = self.containers.execute(self.container, command, environment=own)
        if done.rc:
            raise DasTernError(
                f"The settings in container {self.container} can't be read: {done.last_words}.", **done.outside
            )
        return dict(json.loads(done.out))

    def create_extension(self, database: str, name: str, schema: str, owner: str) -> None:
        """Create an extension in a database that is still empty. If its schema has to be created, it becomes `owner`'s.

        An extension's script runs with a superuser's rights and could meet objects that the application planted. So nobody
        else can connect meanwhile, existing sessions are ended, and a database that isn't empty is refused.
        """
        quoted = identifier(database)
        limit = self.value(f"SELECT to_json(datconnlimit) FROM pg_database WHERE datname = {literal(database)}")
        self.run(
            f"ALTER DATABASE {quoted} CONNECTION LIMIT 0;\n"
            f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = {literal(database)} AND usename <> {literal(SUPERUSER)};"
        )
        try:
            if planted := self.value(_PLANTED, database):
                raise DasTernError(
                    f"Somebody put {', '.join(planted[:5])} into the new database {database} before extension {name} was created there. "
                    "Nothing was created. See who connects to databases of that name (`pg_stat_activity`), then run again.",
                    planted=planted,
                )
            at = identifier(schema)
            make = (
                ""
                if schema in ("public", "pg_catalog")
                else f"CREATE SCHEMA IF NOT EXISTS {at} AUTHORIZATION {identifier(owner)};\n"
            )
            self.run(f"{make}CREATE EXTENSION IF NOT EXISTS {identifier(name)} WITH SCHEMA {at};", database)
        finally:
            self.run(f"ALTER DATABASE {quoted} CONNECTION LIMIT {int(limit)};")

    def drop_database(self, name: str) -> None:
        """Ensure that there is no database of that name, ending sessions in it. This waits for a checkpoint."""
        drop = f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE);"
        try:
            self.run(drop, silence=LONGEST)
        except DasTernError as refusal:
            if refusal.facts.get("sqlstate") != _IS_TEMPLATE:
                raise
            self.run(f"ALTER DATABASE {identifier(name)} IS_TEMPLATE false;\n{drop}", silence=LONGEST)

    def value(self, query: str, database: str = "postgres", silence: float = 0) -> Any:
        """Return the single JSON value that `query` selects."""
        text = self.run(query + ";", database, silence).strip()
        return json.loads(text) if text else None
