"""A database's schema as SQL, by PostgreSQL's own word: `pg_dump --schema-only` of the server's image.

Some expressions are written otherwise once they were restored (`CHECK (a IN ('x', 'y'))` of a varchar), and the column
order of an inheritance child may change. So what is kept is the dump of a scratch database that the dump of the live one
was loaded into: it is the same before and after a restore, and it is known to load. No version, time or random key is in
it, and nothing that provisioning gives.
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
except ImportError:  # `connect` says so in words
    pass

OPTIONS = ("--no-owner", "--no-publications", f'--exclude-table=*."{LEDGER}"')
# What is before the first setting and behind the last object names versions, and since 17.6 holds a random key.
_BEGIN, _END = "\nSET statement_timeout = 0;\n", "\n--\n-- PostgreSQL database dump complete\n--\n"
# What is said of schema `public` is the template's; the words of an extension change with its version. A mapping of a
# user may hold a password.
_LEFT_OUT = (
    ("COMMENT", "ON", "SCHEMA", "PUBLIC"),
    ("REVOKE", "USAGE", "ON", "SCHEMA", "PUBLIC"),
    ("COMMENT", "ON", "EXTENSION"),
    ("CREATE", "USER", "MAPPING"),
)
# What only a superuser makes, of what the live database has: made beforehand, while the scratch one is empty.
_EXTENSIONS = """
SELECT x.extname, n.nspname FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace
JOIN pg_catalog.pg_available_extension_versions v ON v.name = x.extname AND v.version = x.extversion
WHERE v.superuser AND NOT v.trusted ORDER BY x.oid
"""


@dataclass(frozen=True)
class Dump:
    """`sql` makes the schema; `refused` is what the database's owner can't load of it, in words.

    `items` is the catalogue as it was loaded; where something is refused it is None, and `sql`
    the dump of the live database as it is.
    """

    sql: str
    refused: Sequence[str]
    items: list[Item] | None


def dump(connection: psycopg.Connection[Any], params: Mapping[str, Any], closed: Sequence[str] = ()) -> Dump:
    """Return the schema of the connection's database, loaded for trial.

    `closed` are statements for tables that the read-only role may not read although provisioning would let it: they stand
    before all other privileges, with names as in schema `params["schema"]`. Raises `DasTernError`.
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
    """Run each statement of `text` by itself; return those that the server refuses, each with its words, in one line.

    A schema that is there already isn't made: it was made for an extension.
    """
    refused = []
    schemas = {name for (name,) in connection.execute("SELECT nspname FROM pg_catalog.pg_namespace").fetchall()}
    for one in statements(text):
        if one.words[:2] == ("CREATE", "SCHEMA") and _schema_made(one) in schemas:
            continue
        try:
            connection.execute(one.text)  # type: ignore[arg-type]
        except psycopg.Error as error:
            if connection.closed:
                raise
            head = " ".join(one.text.split())
            refused.append(shown(f"{head[:100]}: {error.sqlstate}: {error.diag.message_primary}"))
    return refused


def _schema_made(one: Statement) -> str:
    reader = Reader(one.text)
    reader.take("CREATE", "SCHEMA")
    return reader.name()


def normalised(text: str, readonly_user: str) -> str:
    """A plain dump without versions and keys, and without what provisioning gives and what a server has anyway."""
    text = text[text.index(_BEGIN) + 1 : text.rindex(_END)]
    given = _provisioned(readonly_user)
    parts, end, heading = [], 0, ""
    for one in statements(text):
        before = heading or text[end : one.start]
        end = one.end + 1  # behind its semicolon
        if _is_left_out(one) or (given and given.fullmatch(" ".join(one.text.split()))):
            # Statements of one object stand under one heading.
            heading = before if text[end : end + 2] != "\n\n" else ""
        else:
            parts.append(f"{before}{one.text};")
            heading = ""
    return "".join(parts).rstrip("\n") + "\n"


def _is_left_out(one: Statement) -> bool:
    # `words` are unquoted ones: a schema "PUBLIC" is another one.
    return any(one.words[: len(words)] == words for words in _LEFT_OUT)


def _provisioned(readonly_user: str) -> re.Pattern[str] | None:
    """What the role `postgres` gives the read-only role: SELECT on each table, USAGE of the schema."""
    if not readonly_user:
        return None
    role = f"(?:{re.escape(readonly_user)}|{re.escape(identifier(readonly_user))})"
    defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE .* GRANT SELECT ON TABLES"
    return re.compile(rf"(?:GRANT SELECT ON TABLE .*|GRANT USAGE ON SCHEMA public|{defaults}) TO {role}")


def _with_privileges(text: str, closed: Sequence[str], schema: str) -> str:
    """`text` with the statements `closed` between its objects and their privileges: a REVOKE takes those on columns along."""
    if not closed:
        return text
    place = 0
    for one in each_statement(text):
        if one.first in ("GRANT", "REVOKE") or one.words[:3] == ("ALTER", "DEFAULT", "PRIVILEGES"):
            break
        place = one.end + 1  # event triggers stand behind the privileges
    path = "SELECT pg_catalog.set_config('search_path', {}, false);"
    lines = [path.format(literal(identifier(schema))), *(f"{one};" for one in closed), path.format("''")]
    return text[:place] + "\n\n\n" + "\n".join(lines) + "\n" + text[place:]


def _dumped(superuser: Psql, database: str) -> str:
    try:
        return schema_of(superuser, database, *OPTIONS)
    except DasTernError as refusal:
        if refusal.facts.get("sqlstate") != "55P03":
            raise
        raise DasTernError([refusal.message, *in_the_way(superuser, database)], **refusal.facts) from None
