"""What a database holds, counted: a backup's manifest keeps it, and what was restored is compared with it.

Everything is asked inside the server's own container, by its own programs: a server without network can be asked, and no
program meets a server of another major version.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .connection import conninfo
from .errors import DasTernError
from .ledger import TABLE as LEDGER
from .psql import LONGEST, Psql
from .sql_values import literal

# What a LOCK of all tables ends with where they aren't quiet: its time is up, a lock_timeout of the database's own, a deadlock.
_BUSY = ("57014", "55P03", "40P01")
_UNHURRIED = "SET statement_timeout = 0; SET transaction_timeout = 0; "
# Since 17.6 a plain dump carries a random key; comments name versions; the owner of schema public is the server's own.
_NOISE = re.compile(r"^(\\(un)?restrict .*|--.*|)\n", re.MULTILINE)
# `CHECK (a IN ('x', 'y'))` of a varchar comes back from a dump with its casts and parentheses in other places.
_CASTS = re.compile(
    r'::(?:"[^"]+"|[a-z_]\w*)(?:\.(?:"[^"]+"|\w+))?(?:\(\d+(?:, ?\d+)?\))?(?: varying| precision| with(?:out)? time zone)?'
    r"(?:\(\d+\))?(?:\[\])*|[()]"
)

# What an extension makes of its own isn't in a dump.
_COUNTED = """
c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT EXISTS
  (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
"""
_TABLES = f"""
SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname) ORDER BY n.nspname, c.relname), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_COUNTED}
"""
LOCK = f"""
SELECT format('LOCK TABLE %s IN ACCESS SHARE MODE', string_agg(format('ONLY %I.%I', n.nspname, c.relname), ', '))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_COUNTED} HAVING count(*) > 0 \\gexec
"""
"""psql's statement that keeps what `SNAPSHOT` counts from being altered or truncated, for as long as its transaction lasts."""
_PROPERTIES = """
SELECT json_build_object(
  'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
  'acl', (SELECT json_agg(a::text ORDER BY a::text) FROM unnest(coalesce(datacl, acldefault('d', datdba))) AS a),
  'locale', concat_ws(' ', datlocprovider, coalesce(datlocale, datcollate), datcollate, datctype),
  'connection_limit', datconnlimit, 'comment', shobj_description(oid, 'pg_database'),
  'settings', (SELECT json_object_agg(coalesce(rolname, ''), setconfig ORDER BY rolname)
               FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole WHERE setdatabase = d.oid))
FROM pg_database d WHERE datname = current_database()
"""
_LEDGERS = "SELECT json_agg(format('%I.%I', n.nspname, c.relname) ORDER BY n.nspname, c.relname) FROM pg_class c " + (
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relname = {table}"
)
_APPLIED = (
    "SELECT coalesce(json_agg(migration_name || ' ' || checksum ORDER BY started_at, migration_name), '[]') FROM {table} "
    "WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
)
SNAPSHOT = f"""
SELECT coalesce('SELECT json_object_agg(t, n) FROM (' || string_agg(format(
    'SELECT %L::text AS t, count(*) AS n FROM ONLY %I.%I', format('%I.%I', n.nspname, c.relname), n.nspname, c.relname),
    ' UNION ALL ') || ') AS c', 'SELECT NULL')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_COUNTED} \\gexec
SELECT coalesce('SELECT json_agg(m) FROM (' || string_agg(format('SELECT json_array_elements_text((%s)) AS m',
    replace({literal(_APPLIED)}, '{{table}}', format('%I.%I', n.nspname, c.relname))),
    ' UNION ALL ' ORDER BY n.nspname, c.relname) || ') AS m', 'SELECT NULL')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relname = {literal(LEDGER)} \\gexec
{_PROPERTIES.strip()};
SELECT pg_database_size(current_database());
"""
"""psql's statements that count what the snapshot of their transaction holds: `of_snapshot` reads the four lines."""

SCHEMA = ("pg_dump", "-U", "postgres", "--schema-only", "--no-subscriptions")
"""Without subscriptions: a copy that has them fights with the live database for its slot."""


@dataclass(frozen=True)
class Census:
    """What one database holds."""

    database: str
    tables: dict[str, int]
    """Rows by table, as `schema.table`."""
    schema: str
    """SHA-256 of what `pg_dump --schema-only` writes, without its noise, casts and parentheses."""
    properties: dict[str, Any]
    """What belongs to the database itself: owner, privileges, settings, comment, locale."""
    migrations: list[str]
    """The applied ones, each with its checksum."""
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Census:
        return cls(**kept)

    @property
    def rows(self) -> int:
        return sum(self.tables.values())


def count(superuser: Psql, database: str) -> Census:
    """Count `database`; nothing is kept from changing meanwhile."""
    counted = superuser.value(_UNHURRIED + _query(superuser, database), database, LONGEST)
    return _with_rows(superuser, database, _rows(counted))


def count_at(superuser: Psql, database: str, restore_point: str, seconds: float = 15) -> tuple[Census, bool]:
    """Write a named restore point, and count what `database` holds exactly there; whether that was possible.

    For a moment nobody may write: every table is locked in SHARE mode while the restore point is written and the snapshot
    is taken, then the locks are given back (by a savepoint) and the snapshot is counted at leisure. Nobody waits longer
    than 200 ms for that; a database that isn't quiet for so long within `seconds` is counted a little later, inexactly.
    """
    point = f"SELECT pg_create_restore_point({literal(restore_point)})"
    query = _query(superuser, database)
    tables = superuser.value(_TABLES, database)
    lock = f"LOCK TABLE {', '.join(tables)} IN SHARE MODE;" if tables else ""
    end = time.monotonic() + seconds
    while True:
        try:
            told = superuser.run(
                f"\\o /dev/null\n{_UNHURRIED}"
                "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = '200ms'; SAVEPOINT quiet; "
                f"{lock} {point}; ROLLBACK TO SAVEPOINT quiet; SET LOCAL statement_timeout = 0;\n\\o\n{query};\nCOMMIT;",
                database,
                LONGEST,
            )
            return _with_rows(superuser, database, _rows(json.loads(told))), True
        except DasTernError as refusal:
            if refusal.facts.get("sqlstate") not in _BUSY:
                raise
            if time.monotonic() > end:
                break
        time.sleep(0.5)
    superuser.run(f"{point};", database)
    return count(superuser, database), False


def of_snapshot(database: str, lines: Sequence[str], schema: str) -> Census:
    """The census that `SNAPSHOT` told; `schema` is what `SCHEMA` wrote of the same snapshot."""
    told: list[Any] = [json.loads(line) if line else None for line in lines]
    rows, migrations, properties, size = told
    return Census(database, _rows(rows), _fingerprint(schema), properties, migrations or [], size)


def differences(expected: Census, found: Census, *, rows: bool = True) -> list[str]:
    """In words what `found` lacks or has otherwise; its name may be another one. Without `rows` those aren't compared."""
    told = []
    for table in sorted(expected.tables.keys() | found.tables.keys()):
        before, after = expected.tables.get(table), found.tables.get(table)
        if before is None or after is None:
            told.append(f"table {table} {'is missing' if after is None else 'is there besides'}")
        elif rows and before != after:
            told.append(f"table {table} has {after} rows instead of {before}")
    if expected.schema != found.schema:
        told.append("its schema is another one (pg_dump --schema-only)")
    for name, value in expected.properties.items():
        if found.properties.get(name) != value:
            told.append(f"{name} of the database is {found.properties.get(name)} instead of {value}")
    if expected.migrations != found.migrations:
        told.append(
            f"it has {len(found.migrations)} applied migrations instead of {len(expected.migrations)}, or others"
        )
    return told


def _query(superuser: Psql, database: str) -> str:
    """One statement that counts every table of `database`."""
    parts = [
        f"SELECT {literal(table)}::text AS t, count(*) AS n FROM ONLY {table}"
        for table in superuser.value(_TABLES, database)
    ]
    return f"SELECT json_object_agg(t, n) FROM ({' UNION ALL '.join(parts)}) AS c" if parts else "SELECT '{}'::json"


def _rows(counted: Any) -> dict[str, int]:
    return dict(sorted((counted or {}).items()))


def _fingerprint(schema: str) -> str:
    return hashlib.sha256(_CASTS.sub("", _NOISE.sub("", schema)).encode()).hexdigest()


def _with_rows(superuser: Psql, database: str, rows: dict[str, int]) -> Census:
    dumped = superuser.containers.execute(
        superuser.container,
        [*SCHEMA, "-d", conninfo(database, "das-tern census")],
        silence=3600,
    )
    if dumped.rc != 0:
        raise DasTernError(
            f"The schema of database {database} can't be read: pg_dump: {dumped.last_words}.", **dumped.outside
        )
    migrations: list[str] = []
    for table in superuser.value(_LEDGERS.format(table=literal(LEDGER)), database) or []:
        migrations += superuser.value(_APPLIED.format(table=table), database)
    size = superuser.value("SELECT pg_database_size(current_database())", database)
    return Census(
        database, rows, _fingerprint(dumped.out), superuser.value(_PROPERTIES, database), migrations, int(size)
    )  # fmt: skip
