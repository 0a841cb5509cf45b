"""Empty a schema of a development database, so that migrations and seeds fill it anew.

The schema itself stays with its grants, and so do extensions that another role created.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..common.commands import playbook
from ..common.confirmation import SPEC as CONFIRMATION
from ..common.confirmation import is_confirmed, wanted, word
from ..common.errors import DasTernError
from ..common.sql_values import identifier
from ..server.blockers import watching
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect
from .ledger import Ledger

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

LOCK_TIMEOUT = "10s"
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    "schema": {"type": "str", "default": "public"},
    "environment": {"type": "str", "required": True},
    **CONFIRMATION,
    "lock_wait": {"type": "int", "default": 300},
}

# Every object that depends directly on the schema; CASCADE drops the objects that depend on these.
_OBJECTS = """
SELECT CASE o.type WHEN 'aggregate' THEN 'routine'  -- one without arguments is `name()` to this and `name(*)` to the other
    ELSE replace(o.type, ' object', '') END, o.identity
FROM pg_depend AS d, pg_identify_object(d.classid, d.objid, 0) AS o
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace(quote_ident(%s)) AND d.deptype = 'n'
    AND d.classid NOT IN ('pg_default_acl'::regclass, 'pg_extension'::regclass)
    AND NOT EXISTS (
        SELECT FROM pg_depend AS e WHERE (e.classid, e.objid) = (d.classid, d.objid) AND e.deptype IN ('e', 'i')
            AND e.refobjid <> d.objid  -- a partitioned table depends on the columns of its own key
    )
ORDER BY 1, 2
"""
# Extensions that a migration created would be in its way; others are provisioned. Whoever creates a trusted extension
# owns it.
_EXTENSIONS = """
SELECT quote_ident(extname) FROM pg_extension
WHERE extnamespace = to_regnamespace(quote_ident(%s)) AND extowner = current_user::regrole ORDER BY 1
"""


def reset(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Drop everything in the schema, in one transaction; the keys of `params` are the options of `schema_reset`.

    Returns `changed` and `dropped`, the number of objects. Raises `DasTernError`.
    """
    database = params["database"]
    if params["environment"] != "development":
        raise DasTernError(
            f"`dastern_environment` is {params['environment']}: only a development database is ever reset, whatever other "
            "variables say."
        )
    if not is_confirmed(params, database):
        needed = word(params, database)
        raise DasTernError(
            f"A reset deletes everything in schema {params['schema']} of database {database}. Nothing was deleted. "
            f"{wanted(params, database)} To do it: `{playbook('reset', confirm=needed)}`.",
            confirm=needed,
        )
    settings = {"lock_timeout": LOCK_TIMEOUT, **({"default_transaction_read_only": "on"} if check_mode else {})}
    try:
        with connect(dict(params), "das-tern reset", settings) as connection:
            _refuse_other_than_development(connection, database)
            if not check_mode:
                Ledger(connection, params["schema"]).hold_lock(params["lock_wait"])
            objects = connection.execute(_OBJECTS, (params["schema"],)).fetchall()
            extensions = [name for (name,) in connection.execute(_EXTENSIONS, (params["schema"],))]
            if (objects or extensions) and not check_mode:
                failed = f"Resetting schema {identifier(params['schema'])} of database {database} failed, and nothing was deleted"
                with watching(params, connection, LOCK_TIMEOUT, failed):
                    _drop(connection, objects, extensions)
    except psycopg.Error as error:
        raise _failed(params, error) from None
    dropped = len(objects) + len(extensions)
    return {"changed": dropped > 0, "dropped": dropped}


def _drop(connection: psycopg.Connection[Any], objects: list[tuple[Any, ...]], extensions: list[str]) -> None:
    with connection.transaction():
        for kind, name in objects:
            connection.execute(f"DROP {kind} IF EXISTS {name} CASCADE")  # type: ignore[arg-type]
        if extensions:
            # All at once, as one may need another; without CASCADE, as other schemas may use their types.
            connection.execute(f"DROP EXTENSION {', '.join(extensions)}")  # type: ignore[arg-type]


def _failed(params: Mapping[str, Any], error: psycopg.Error) -> DasTernError:
    return DasTernError(
        f"Resetting schema {identifier(params['schema'])} of database {params['database']} failed, and nothing was deleted: "
        f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}.",
        sqlstate=error.sqlstate or "",
    )


def _refuse_other_than_development(connection: psycopg.Connection[Any], database: str) -> None:
    row = connection.execute("SELECT current_setting('dastern.environment', true)").fetchone()
    environment = row[0] if row else None
    if environment != "development":
        raise DasTernError(
            f"The setting dastern.environment of database {database} is {environment or 'empty'}, not development: the database "
            "isn't reset, whatever the inventory says."
        )
