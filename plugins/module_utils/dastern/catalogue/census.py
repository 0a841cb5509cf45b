"""Count what a database holds. A backup's manifest keeps the counts, and a restored database is compared with them.

All queries run inside the server's own container, with its own programs: this reaches a server without network, and no
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

from ..common.errors import DasTernError
from ..common.migration_files import LEDGER
from ..common.sql_values import literal
from ..server.connection import conninfo
from ..server.psql import LONGEST, Psql

LOCK_TIMEOUT = "10s"
"""How long a table may stay locked before the count is given up."""
EXACT = 1.5
"""Locks reckoned per table while all tables are locked against writes, so that the application has room, too."""
QUIET = 15.0
"""Seconds within which a database has to be quiet for 200 ms for an exact count."""
# SQLSTATEs that end a LOCK of all tables while they are in use: its time is up, or a deadlock.
_BUSY = ("57014", "40P01")
_LOCKED = "55P03"
# Since 17.6 a plain dump carries a random key, its comments name versions, and the owner of schema public is the server's own.
_NOISE = re.compile(r"^(\\(un)?restrict .*|--.*|)\n", re.MULTILINE)
# `CHECK (a IN ('x', 'y'))` on a varchar comes back from a dump with its casts and parentheses in other places.
_CASTS = re.compile(
    r'::(?:"[^"]+"|[a-z_]\w*)(?:\.(?:"[^"]+"|\w+))?(?:\(\d+(?:, ?\d+)?\))?(?: varying| precision| with(?:out)? time zone)?'
    r"(?:\(\d+\))?(?:\[\])*|[()]"
)

# Settings that hold a list of names, each quoted on its own where necessary (GUC_LIST_QUOTE in PostgreSQL's source).
LISTS = {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}
# A dump leaves out the tables that an extension makes.
_COUNTED = """
c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT EXISTS
  (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_class'::pg_catalog.regclass AND objid = c.oid AND deptype = 'e')
"""
_TABLES = f"""
SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', n.nspname, c.relname) ORDER BY n.nspname, c.relname), '[]')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE {_COUNTED}
"""
LOCK = f"""
SELECT pg_catalog.format('LOCK TABLE %s IN ACCESS SHARE MODE', pg_catalog.string_agg(pg_catalog.format('ONLY %I.%I', n.nspname, c.relname), ', '))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_COUNTED} HAVING pg_catalog.count(*) > 0 \\gexec
"""
"""psql's statement that protects the tables that `SNAPSHOT` counts from ALTER and TRUNCATE until its transaction ends."""
_PROPERTIES = """
SELECT pg_catalog.json_build_object(
  'owner', pg_catalog.pg_get_userbyid(datdba), 'encoding', pg_catalog.pg_encoding_to_char(encoding),
  'acl', (SELECT pg_catalog.json_agg(a::pg_catalog.text ORDER BY a::pg_catalog.text) FROM pg_catalog.unnest(coalesce(datacl, pg_catalog.acldefault('d', datdba))) AS a),
  'locale', pg_catalog.concat_ws(' ', datlocprovider, coalesce(datlocale, datcollate), datcollate, datctype),
  'tablespace', (SELECT spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = dattablespace), 'is_template', datistemplate,
  'connection_limit', datconnlimit, 'comment', pg_catalog.shobj_description(oid, 'pg_database'),
  'settings', (SELECT pg_catalog.json_object_agg(coalesce(rolname, ''), setconfig ORDER BY rolname)
               FROM pg_catalog.pg_db_role_setting LEFT JOIN pg_catalog.pg_roles r ON r.oid = setrole WHERE setdatabase = d.oid))
FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()
"""
_LEDGER_COLUMNS = ("migration_name", "checksum", "started_at", "finished_at", "rolled_back_at")
# Read by COPY, which evaluates nothing: in an expression, even of PostgreSQL's own operators, a column's user-defined type
# could bring a cast of its own.
_LEDGERS = f"""
SELECT pg_catalog.format('COPY %I.%I ({", ".join(_LEDGER_COLUMNS)}) TO STDOUT', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relname = {literal(LEDGER)} AND {len(_LEDGER_COLUMNS)} = (SELECT pg_catalog.count(*)
  FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname = ANY ('{{{",".join(_LEDGER_COLUMNS)}}}') AND attgenerated = '')
ORDER BY n.nspname, c.relname \\gexec
"""
# Also by COPY: planning a SELECT evaluates the expressions of a table's indexes, statistics and partitions. COPY writes one
# line per row, and no line of it begins with a tab. The narrowest column is enough, and so are its raw bytes. The lock of a
# counted table is released: all locks at once may be more than the server has room for.
COUNTS = rf"""
SAVEPOINT counted;
\o |awk 'BEGIN {{ printf "{{" }} /^\t/ {{ if (at) printf "%.0f,", n; printf "%s:", substr($0, 2); at = 1; n = 0; next }} {{ n++ }} END {{ if (at) printf "%.0f", n; print "}}" }}'
SELECT pg_catalog.format('SELECT %L', pg_catalog.concat(E'\t', pg_catalog.to_json(pg_catalog.format('%I.%I', n.nspname, c.relname)))), pg_catalog.format('COPY %I.%I %s TO STDOUT (ENCODING ''SQL_ASCII'')',
  n.nspname, c.relname, (SELECT pg_catalog.format('(%I)', attname) FROM pg_catalog.pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attlen < 0, attlen, attnum LIMIT 1)),
  'ROLLBACK TO SAVEPOINT counted'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_COUNTED} \gexec
\o
"""
"""psql's statements that print the row counts of all tables as one line of JSON, and then direct psql's output to stdout.

They have to run in a transaction, and hold one lock at a time.
"""
_REST = f"""{_PROPERTIES.strip()};
SELECT pg_catalog.pg_database_size(pg_catalog.current_database());
{_LEDGERS}"""
SNAPSHOT = COUNTS + _REST
"""psql's statements that count the contents of their transaction's snapshot; `of_snapshot` reads their output."""

# The tables that pg_dump locks, and the sessions that share a pool of `max_locks_per_transaction` locks for each of them.
_LOCKS = """
SELECT pg_catalog.json_build_object('tables', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384),
  'each', pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int4, 'sessions', (SELECT pg_catalog.sum(setting::pg_catalog.int4)
    FROM pg_catalog.pg_settings WHERE name IN ('max_connections', 'max_prepared_transactions', 'autovacuum_max_workers', 'max_worker_processes', 'max_wal_senders')))
"""
_OTHERS = 200
"""Locks that a program takes besides those on the tables, such as those on catalogues."""
SCHEMA = ("pg_dump", "--schema-only", "--no-subscriptions")
"""Command that dumps the schema; without subscriptions, because a copy with them fights with the live database for its slot."""


@dataclass(frozen=True)
class Census:
    """The counted contents of one database."""

    database: str
    tables: dict[str, int]
    """Rows by table, as `schema.table`."""
    schema: str
    """SHA-256 of the output of `pg_dump --schema-only`, without its noise, casts and parentheses; '' where the server has no
    room for pg_dump's locks."""
    properties: dict[str, Any]
    """The database's own attributes: owner, privileges, settings, comment, locale, tablespace, whether it is a template."""
    migrations: list[str]
    """The applied migrations, each with its checksum."""
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Census:
        return cls(**record)

    @property
    def rows(self) -> int:
        return sum(self.tables.values())


@dataclass(frozen=True)
class Locks:
    """The number of tables in a database, and of locks that its server has room for (PostgreSQL's manual, 19.12)."""

    tables: int
    each: int
    """`max_locks_per_transaction` of the server."""
    sessions: int

    @classmethod
    def of(cls, superuser: Psql, database: str) -> Locks:
        return cls(**superuser.value(_LOCKS, database))

    @property
    def room(self) -> int:
        return self.each * self.sessions

    def fit(self, times: float = 1) -> bool:
        """Return whether `times` sessions can lock every table at once and still leave some room to others."""
        return self.tables * times + _OTHERS <= self.room

    def wanted(self, times: float = 1) -> str:
        """Return, for a message, the number of locks needed and the setting that makes room for them."""
        needed = int(self.tables * times) + _OTHERS
        setting = -(-needed * 5 // (4 * self.sessions * 64)) * 64
        return (
            f"{needed} locks at once, and the server has room for {self.room}. `postgres_settings_extra: "
            f"{{max_locks_per_transaction: {setting}}}` and `ansible-playbook playbooks/provision.yml`, which restarts it, make more"
        )


def count(superuser: Psql, database: str) -> Census:
    """Count `database` without protecting it from changes meanwhile.

    Raise `DasTernError` with `sqlstate` 55P03 where somebody keeps a table locked.
    """
    begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = {literal(LOCK_TIMEOUT)};"
    output = superuser.run(f"{begin}\n{COUNTS}COMMIT;", database, LONGEST)
    return _with_rows(superuser, database, output)


def count_at(superuser: Psql, database: str, restore_point: str) -> tuple[Census, bool]:
    """Write a named restore point and count `database` at exactly that point. Return the census and whether it is exact.

    For a moment nobody may write: every table is locked in SHARE mode while the restore point is written and the snapshot
    is taken. Then the locks are released (by a savepoint) and the snapshot is counted at leisure. Nobody waits longer than
    200 ms. The count is inexact, and taken a little later, where the database isn't quiet for that long within `QUIET`
    seconds, and where it has more tables than can be locked (`Locks`): the application would find no room for its own locks.
    Raise as `count` does; the restore point exists even then.
    """
    point = f"SELECT pg_catalog.pg_create_restore_point({literal(restore_point)})"
    if not Locks.of(superuser, database).fit(EXACT):
        superuser.run(f"{point};")
        return count(superuser, database), False
    tables = superuser.value(_TABLES, database)
    lock = f"LOCK TABLE {', '.join(tables)} IN SHARE MODE;" if tables else ""
    end = time.monotonic() + QUIET
    while True:
        try:
            output = superuser.run(
                "\\o /dev/null\n"
                "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = '200ms'; SAVEPOINT quiet; "
                f"{lock} {point}; ROLLBACK TO SAVEPOINT quiet; SET LOCAL statement_timeout = 0; "
                f"SET LOCAL lock_timeout = {literal(LOCK_TIMEOUT)};\n{COUNTS}COMMIT;",
                database,
                LONGEST,
            )
            return _with_rows(superuser, database, output), True
        except DasTernError as refusal:
            if refusal.facts.get("sqlstate") == _LOCKED:  # raised by the count, after the restore point was written
                break
            if refusal.facts.get("sqlstate") not in _BUSY:
                raise
            if time.monotonic() > end:
                superuser.run(f"{point};")
                break
        time.sleep(0.5)
    return count(superuser, database), False


def is_barred(refusal: DasTernError) -> bool:
    """Return whether `count` failed for a reason that the application can cause: a lock, or a database closed to connections."""
    return refusal.facts.get("sqlstate") == _LOCKED or "closed" in refusal.facts


def of_snapshot(database: str, lines: Sequence[str], schema: str) -> Census:
    """Return the census that `SNAPSHOT` printed; `schema` is the output of `SCHEMA` for the same snapshot."""
    rows, properties, size, *ledger = lines
    return Census(database, _rows(rows), _fingerprint(schema), json.loads(properties), applied(ledger), int(size))


def applied(ledger: Sequence[str]) -> list[str]:
    """Return the applied migrations, each with its checksum, from the lines that COPY wrote of `_LEDGER_COLUMNS`.

    They are in the order in which they began: times are in UTC and ISO 8601, so that their text sorts chronologically.
    """
    records = [line.split("\t") for line in ledger if line.count("\t") == len(_LEDGER_COLUMNS) - 1]
    rows = [(began, name, checksum) for name, checksum, began, finished, rolled_back in records
            if finished != "\\N" and rolled_back == "\\N"]  # fmt: skip
    return [f"{name} {checksum}" for _, name, checksum in sorted(rows)]


def parts(setting: str) -> tuple[str, list[str]]:
    """Return the name and the values of an entry of `pg_db_role_setting`; a setting that is no list has one value."""
    key, _, value = setting.partition("=")
    if key.lower() not in LISTS:
        return key, [value]
    matches = re.findall(r'"((?:[^"]|"")*)"|([^,\s]+)', value)
    return key, [quoted.replace('""', '"') or plain for quoted, plain in matches] or [""]


def lines_of(text: str) -> list[str]:
    """Return the lines of a program's output; `str.splitlines` would also split at characters that a name can hold."""
    return text.removesuffix("\n").split("\n") if text else []


def _rows(counted: str) -> dict[str, int]:
    return dict(sorted(json.loads(counted).items()))


def without_noise(schema: str) -> str:
    """Return the text of a schema without comments, empty lines and random keys."""
    return _NOISE.sub("", schema)


def _fingerprint(schema: str) -> str:
    return hashlib.sha256(_CASTS.sub("", without_noise(schema)).encode()).hexdigest()


def schema_of(superuser: Psql, database: str, *options: str) -> str:
    """Return the schema of `database` as pg_dump writes it, with further `options`. Raise `DasTernError` as `count` does."""
    command = [*SCHEMA, *options, f"--lock-wait-timeout={LOCK_TIMEOUT}", "-d", conninfo(database, "das-tern census")]
    dumped = superuser.execute(command, silence=3600)
    if dumped.rc != 0:
        locked = {"sqlstate": _LOCKED} if "due to statement timeout" in dumped.err else {}
        raise DasTernError(
            f"pg_dump can't read the schema of database {database}: {dumped.last_words}.",
            **dumped.outside,
            **locked,
        )
    return dumped.out


def _with_rows(superuser: Psql, database: str, counted: str) -> Census:
    # The schema is left out where pg_dump's locks would leave no room to anybody else.
    schema = _fingerprint(schema_of(superuser, database)) if Locks.of(superuser, database).fit() else ""
    properties, size, *ledger = lines_of(superuser.run(_REST, database))
    return Census(database, _rows(counted), schema, json.loads(properties), applied(ledger), int(size))
