"""A database's schema as SQL that PostgreSQL itself writes: `pg_dump --schema-only` of the server's image.

PostgreSQL writes some expressions in another way once they were restored (`CHECK (a IN ('x', 'y'))` on a varchar), and the
column order of an inheritance child may change. So the live database's dump is loaded into a scratch database, and that
database's dump is kept: it is the same before and after a restore, and it is known to load. It holds no version, time or
random key, and nothing that provisioning grants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import DasTernError
from ..common.migration_files import LEDGER
from ..common.sql_reader import Reader
from ..common.sql_text import Statement, each_statement, statements
from ..common.sql_values import identifier, literal
from ..common.text import shown
from ..server.blockers import in_the_way
from ..server.psql import Psql, superuser_there
from .census import schema_of
from .objects import Item, read_catalogue, schemas_besides
from .scratch import scratch_database

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

OPTIONS = ("--no-owner", "--no-publications", f'--exclude-table=*."{LEDGER}"')
# The text before the first setting and after the last object names versions and, since 17.6, holds a random key.
_BEGIN, _END = "\nSET statement_timeout = 0;\n", "\n--\n-- PostgreSQL database dump complete\n--\n"
# Comment and privileges of schema `public` come from the template; an extension's comment changes with its version. A user
# mapping may hold a password.
_LEFT_OUT = (
    ("COMMENT", "ON", "SCHEMA", "PUBLIC"),
    ("REVOKE", "USAGE", "ON", "SCHEMA", "PUBLIC"),
    ("COMMENT", "ON", "EXTENSION"),
    ("CREATE", "USER", "MAPPING"),
)
# Extensions of the live database that only a superuser creates: created first, while the scratch database is empty.
_EXTENSIONS = """
SELECT x.extname, n.nspname FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace
JOIN pg_catalog.pg_available_extension_versions v ON v.name = x.extname AND v.version = x.extversion
WHERE v.superuser AND NOT v.trusted ORDER BY x.oid
"""


@dataclass(frozen=True)
class Dump:
    """A dump: `sql` creates the schema; `refused` describes the statements that the database's owner can't load.

    `items` is the catalogue as loaded. Where a statement is refused, it is None, and `sql` is the dump of the live database.
    """

    sql: str
    refused: Sequence[str]
    items: list[Item] | None


def dump(connection: psycopg.Connection[Any], params: Mapping[str, Any], closed: Sequence[str] = ()) -> Dump:
    """Return the schema of the connection's database, after a trial load.

    `closed` are statements for tables that the read-only role may not read although provisioning would let it: they precede
    all other privileges, with names relative to schema `params["schema"]`. Raise `DasTernError`.
    """
    superuser = superuser_there(params, connection, "The schema as text")
    database, readonly, schema = str(params["database"]), str(params["readonly_user"]), str(params["schema"])
    text, items = normalised(_dumped(superuser, database), readonly), None
    with scratch_database(
        connection, params, superuser=superuser, settings={"synchronous_commit": "off"},
        extensions=connection.execute(_EXTENSIONS).fetchall(),
    ) as own:  # fmt: skip
        refused = load(own, text)
        if not refused:
            text = normalised(_dumped(superuser, own.info.dbname), readonly)
            items = read_catalogue(own, schema, schemas_besides(own, schema))
    return Dump(_with_privileges(text, closed, schema), refused, items)


def load(connection: psycopg.Connection[Any], text: str) -> list[str]:
    """Run each statement of `text` on its own; return the refused ones, each with the server's message, one line each.

    A schema that already exists was created for an extension and is skipped.
    """
    refused = []
    schemas = {name for (name,) in connection.execute("SELECT nspname FROM pg_catalog.pg_namespace").fetchall()}
    for statement in statements(text):
        if statement.words[:2] == ("CREATE", "SCHEMA") and _schema_made(statement) in schemas:
            continue
        try:
            connection.execute(statement.text)  # type: ignore[arg-type]
        except psycopg.Error as error:
            if connection.closed:
                raise
            head = " ".join(statement.text.split())
            refused.append(shown(f"{head[:100]}: {error.sqlstate}: {error.diag.message_primary}"))
    return refused


def _schema_made(statement: Statement) -> str:
    reader = Reader(statement.text)
    reader.take("CREATE", "SCHEMA")
    return reader.name()


def normalised(text: str, readonly_user: str) -> str:
    """Return a plain dump without versions, keys, privileges from provisioning, and objects that every server has."""
    text = text[text.index(_BEGIN) + 1 : text.rindex(_END)]
    provisioned = _provisioned(readonly_user)
    parts, end, heading = [], 0, ""
    for statement in statements(text):
        before = heading or text[end : statement.start]
        end = statement.end + 1  # after its semicolon
        if _is_left_out(statement) or (provisioned and provisioned.fullmatch(" ".join(statement.text.split()))):
            # The statements of one object share a heading.
            heading = before if text[end : end + 2] != "\n\n" else ""
        else:
            parts.append(f"{before}{statement.text};")
            heading = ""
    return "".join(parts).rstrip("\n") + "\n"


def _is_left_out(statement: Statement) -> bool:
    # `words` are unquoted: a schema "PUBLIC" is a different schema.
    return any(statement.words[: len(words)] == words for words in _LEFT_OUT)


def _provisioned(readonly_user: str) -> re.Pattern[str] | None:
    """Return the pattern of the role `postgres`'s grants to the read-only role: SELECT on each table, USAGE of the schema."""
    if not readonly_user:
        return None
    role = f"(?:{re.escape(readonly_user)}|{re.escape(identifier(readonly_user))})"
    defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE .* GRANT SELECT ON TABLES"
    return re.compile(rf"(?:GRANT SELECT ON TABLE .*|GRANT USAGE ON SCHEMA public|{defaults}) TO {role}")


def _with_privileges(text: str, closed: Sequence[str], schema: str) -> str:
    """Return `text` with `closed` between its objects and their privileges: a REVOKE revokes those on columns as well."""
    if not closed:
        return text
    place = 0
    for statement in each_statement(text):
        if statement.first in ("GRANT", "REVOKE") or statement.words[:3] == ("ALTER", "DEFAULT", "PRIVILEGES"):
            break
        place = statement.end + 1  # event triggers follow the privileges
    path = "SELECT pg_catalog.set_config('search_path', {}, false);"
    lines = [path.format(literal(identifier(schema))), *(f"{statement};" for statement in closed), path.format("''")]
    return text[:place] + "\n\n\n" + "\n".join(lines) + "\n" + text[place:]


def _dumped(superuser: Psql, database: str) -> str:
    try:
        return schema_of(superuser, database, *OPTIONS)
    except DasTernError as refusal:
        if refusal.facts.get("sqlstate") != "55P03":
            raise
        raise DasTernError([refusal.message, *in_the_way(superuser, database)], **refusal.facts) from None
