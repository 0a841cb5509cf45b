"""A database of the live server, filled from a backup, with what belongs to the database itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from . import backup_logical
from .backup_folders import TRANSFER, remove_tree
from .backup_records import Place, Record
from .census import Census, parts, schema_of
from .commands import playbook
from .comparison import Comparison, compared
from .connection import conninfo
from .errors import DasTernError
from .psql import Psql
from .restore_target import Target
from .restored_server import LONGEST, RestoredServer, Site
from .sql_values import identifier, literal
from .survey import BACKUPS

_DUMP = 'pg_dump -Fd -j 2 --compress=zstd:1 --no-sync -f "$1" -d "$2"'
_DUMP_TABLE = """
set -eu
pg_dump -Fc --section=pre-data -f "$1.schema" -d "$2"
pg_dump -Fd --section=data -t "$3" --compress=zstd:1 --no-sync -f "$1" -d "$2"
"""
# `grantee=privileges/grantor`, as PostgreSQL writes it; PUBLIC is nothing.
_ACL_ITEM = re.compile(r'("(?:[^"]|"")*"|[^"=]*)=[^/]*/("(?:[^"]|"")*"|[^"/]+)')
_OWNER = "SELECT to_json(pg_get_userbyid(datdba)) FROM pg_database WHERE datname = {database}"
_TABLESPACES = "SELECT json_agg(spcname) FROM pg_tablespace"
APPLICATION = "das-tern put back"
AGAIN = "_again_"
"""Before its time, in the name of a database that is made to see what a restore makes of a schema."""
_ACL = """
SELECT json_agg(json_build_object('privilege', privilege_type, 'option', is_grantable,
  'grantee', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) ORDER BY n)
FROM aclexplode(ARRAY[{acl}]::aclitem[]) WITH ORDINALITY AS a(grantor, grantee, privilege_type, is_grantable, n)
"""


def create(psql: Psql, name: str, census: Census) -> None:
    """Make `name`, empty, as the database of `census` was: locale, tablespace, owner, privileges, settings, comment."""
    properties = census.properties
    provider, locale, collate, ctype = str(properties["locale"]).split(" ")
    providers = {"b": ("builtin", "BUILTIN_LOCALE"), "i": ("icu", "ICU_LOCALE")}
    special = (
        f" LOCALE_PROVIDER {providers[provider][0]} {providers[provider][1]} {literal(locale)}"
        if provider in providers
        else ""
    )
    # One that the server doesn't have is a difference, which the comparison says.
    if (tablespace := properties.get("tablespace", "pg_default")) in psql.value(_TABLESPACES):
        special += f" TABLESPACE {identifier(tablespace)}"
    if properties.get("is_template"):
        special += " IS_TEMPLATE true"
    quoted = identifier(name)
    _make_roles_known(psql, properties)
    psql.run(
        f"CREATE DATABASE {quoted} TEMPLATE template0 OWNER {identifier(properties['owner'])} "
        f"ENCODING {literal(properties['encoding'])} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)}{special} "
        f"CONNECTION LIMIT {int(properties['connection_limit'])};"
    )
    psql.run("\n".join(_properties(psql, quoted, properties)))


def _make_roles_known(psql: Psql, properties: dict[str, Any]) -> None:
    """Refuse where the server lacks a role that the database names: it would be restored without it."""
    wanted = {properties["owner"], *(role for role in properties["settings"] or {} if role)}
    for item in properties["acl"] or []:
        named = _ACL_ITEM.fullmatch(item)
        wanted |= {_unquoted(role) for role in named.groups() if role} if named else set()
    there = set(psql.value("SELECT json_agg(rolname) FROM pg_roles"))
    if missing := sorted(wanted - there):
        raise DasTernError(
            f"The live server has no role {', '.join(missing)}, which the backed-up database names. Make it first: "
            "`ansible-playbook playbooks/provision.yml`, or `postgres_app_user` as it was then."
        )


def _unquoted(role: str) -> str:
    return role[1:-1].replace('""', '"') if role.startswith('"') else role


def _properties(psql: Psql, quoted: str, properties: dict[str, Any]) -> list[str]:
    statements = []
    if properties["acl"]:
        owner = identifier(properties["owner"])
        statements.append(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC; REVOKE ALL ON DATABASE {quoted} FROM {owner};")
        acl = ", ".join(literal(item) for item in properties["acl"])
        for one in psql.value(_ACL.format(acl=acl)) or []:
            option = " WITH GRANT OPTION" if one["option"] else ""
            statements.append(f"GRANT {one['privilege']} ON DATABASE {quoted} TO {one['grantee']}{option};")
    if properties["comment"]:
        statements.append(f"COMMENT ON DATABASE {quoted} IS {literal(properties['comment'])};")
    for role, given in (properties["settings"] or {}).items():
        of = f"ALTER ROLE {identifier(role)} IN DATABASE {quoted}" if role else f"ALTER DATABASE {quoted}"
        for setting in given:
            statements.append(f"{of} SET {assignment(setting)};")
    return statements


def assignment(setting: str) -> str:
    """Return an entry of `pg_db_role_setting` as `SET` takes it: each part of the name, and each value, quoted by itself."""
    key, values = parts(setting)
    return f"{identifier(*key.split('.'))} TO {', '.join(literal(one).strip() for one in values)}"


def from_logical(
    place: Place, record: Record, name: str, table: str, instead: str, session: Psql | None = None
) -> Comparison:
    """Make database `name` of a logical backup, all of it or one table; `session` is as in `backup_logical.restore`.

    Return what it holds, and what it has otherwise than the backup. Raises `DasTernError` where that is damage; `instead`
    says then what to do.
    """
    expected = Census.of(record.census)
    tables = (table_of(expected, table),) if table else ()
    create(place.superuser, name, expected)
    session = session or place.superuser.as_owner(expected.properties["owner"])
    told = backup_logical.restore(place, record, name, tables, session, instead)
    archive = f"{backup_logical.IN_CONTAINER}/{record.label}"
    return _explained(told, place.superuser, session, name, expected, archive)


def from_physical(
    site: Site, record: Record, goal: Target, database: str, name: str, table: str, stamp: str,
    *, check: Callable[[Psql, str, Record, Target], Comparison], instead: str, session: Psql | None = None,
) -> Comparison:  # fmt: skip
    """Make database `name` of a physical backup, by way of a server made of it; the dump goes through the backups' folder.

    `session` restores it, the owner's unless said otherwise. What is returned and raised is as in `from_logical`.
    """
    volume, name_there = f"{site.helper}-data", f"restore-{stamp}"
    folder = f"{BACKUPS}/{TRANSFER}/{name_there}"
    site.make_volume(volume, "restore")
    server = RestoredServer(site, volume, "pgdata")
    try:
        try:
            server.fill(goal.label, goal.timeline, instead)
            psql = server.serve(goal.settings(server), dumped=True)
            recovered = check(psql, database, record, goal)
            expected = recovered.found
            if not expected.properties:
                raise DasTernError(
                    f"The rows of backup {record.label} couldn't be counted when it was taken, and can't be now, because of damaged "
                    f"pages: a {'table' if table else 'database'} of it can't be copied and compared. `{playbook('restore', target='latest', what='database')}` begins with a "
                    f"good backup if one leads there; all of this one comes back as it is by `{playbook('restore', what='cluster', target=record.label)}`."
                )
            tables = (table_of(expected, table),) if table else ()
            script = f'mkdir -m 0700 "$(dirname "$1")"\n{_DUMP_TABLE if table else _DUMP}'
            dumped = psql.execute(
                ["sh", "-c", script, "sh", f"{folder}/dump", conninfo(database, backup_logical.RESTORING), *tables],
                silence=LONGEST,
            )
            if dumped.rc:
                raise DasTernError(f"The restored database can't be dumped: {dumped.last_words}.", **dumped.outside)
        finally:
            server.discard()
        create(site.psql, name, expected)
        session = session or site.psql.as_owner(expected.properties["owner"])
        failures = []
        for archive in [f"{folder}/dump.schema", f"{folder}/dump"] if table else [f"{folder}/dump"]:
            failures += backup_logical.fill(session, site.psql, name, archive, database)
        told = compared(site.psql, name, expected, failures, tables, f"the copy of {record.label}", instead)
        copy = _explained(told, site.psql, session, name, expected, f"{folder}/dump")
        copy.incomplete = recovered.incomplete + copy.incomplete
        copy.differences = recovered.differences + copy.differences
        return copy
    finally:
        remove_tree(site.place.folder, TRANSFER, name_there)


def _explained(
    told: Comparison, superuser: Psql, session: Psql, name: str, expected: Census, archive: str
) -> Comparison:
    """Say what of the schema of database `name`, which `archive` made, is harmless; return the comparison `told`."""
    if told.schema_differs:
        was, now = backup_logical.schema_of_archive(session, archive), schema_of(superuser, name)
        told.explain(was, now, _once_more(superuser, session, name, expected, archive))
    return told


def _once_more(superuser: Psql, session: Psql, name: str, expected: Census, archive: str) -> str:
    """The schema that the archive makes in another new database, as pg_dump writes it."""
    head, _, stamp = name.rpartition("_restored_")
    other = f"{head}{AGAIN}{stamp}"
    create(superuser, other, expected)
    try:
        backup_logical.fill(session, superuser, other, archive, name, schema_only=True)
        return schema_of(superuser, other)
    finally:
        superuser.drop_database(other)


# Those that a row is made of; what is generated comes by itself.
_COLUMNS = """
SELECT pg_catalog.json_build_object(
  'columns', (SELECT coalesce(pg_catalog.json_agg(attname ORDER BY attnum), '[]') FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass({table}) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''),
  'forced', (SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({table})),
  'key', (SELECT coalesce(pg_catalog.json_agg(attname ORDER BY attnum), '[]') FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
    WHERE c.conrelid = pg_catalog.to_regclass({table}) AND c.contype = 'p'))
"""
# The statements come as arguments: a pipe joins two programs, and nothing of the table's is a word of the shell.
_PUT_BACK = """
from=$1 to=$2 read=$3 make=$4 fill=$5 whole=$6 put=$7
exec 4>&1
codes=$( { { psql -Xq -v ON_ERROR_STOP=1 -d "$from" -c "$read"; echo $? >&3; } |
  { psql -XqAt -v ON_ERROR_STOP=1 -1 -d "$to" -c "$make" -c "$fill" -c "$whole" -c "$put" >&4; echo $? >&3; }; } 3>&1 )
[ "$(echo $codes)" = '0 0' ]
"""


def put_back(superuser: Psql, copy: str, live: str, table: str, rows: int) -> int:
    """Insert those of the `rows` of `table` in database `copy` whose primary key the same table of database `live` lacks.

    Return how many came in; no other row is changed. `table` is qualified and quoted as PostgreSQL writes it. The owner of `live` does it, in one transaction: a row that breaks one of its constraints, such as a foreign
    key or another unique one, leaves all as it was. Raises `DasTernError`.
    """
    there, wanted = (superuser.value(_COLUMNS.format(table=literal(table)), name) for name in (live, copy))
    beside = "Nothing was put back. Restore the table beside it (`-e into=NAME`), and bring its rows over by hand."
    if missing := [name for name in wanted["columns"] if name not in there["columns"]]:
        raise DasTernError(
            f"Table {table} of the live database {live} "
            + (f"lacks {', '.join(missing)}, which the backup has" if there["columns"] else "isn't there")
            + f". {beside}"
        )
    if not there["key"] or set(there["key"]) - set(wanted["columns"]):
        raise DasTernError(
            f"Table {table} of the live database {live} has no primary key of columns that the backup has, so that nobody can tell "
            f"which rows it lacks. {beside}"
        )
    if there["forced"] or wanted["forced"]:
        raise DasTernError(
            f"Table {table} has FORCE ROW LEVEL SECURITY, by which its owner sees and writes only what its policies let through. {beside}"
        )
    columns = ", ".join(identifier(name) for name in wanted["columns"])
    same = " AND ".join(f"live.{identifier(name)} = put_back.{identifier(name)}" for name in there["key"])
    owner = superuser.as_owner(str(superuser.value(_OWNER.format(database=literal(live)))))
    done = owner.execute(
        [
            "sh", "-c", _PUT_BACK, "sh", conninfo(copy, APPLICATION), conninfo(live, APPLICATION),
            f"COPY {table} ({columns}) TO STDOUT",
            f"CREATE TEMPORARY TABLE put_back ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA",
            f"COPY pg_temp.put_back ({columns}) FROM STDIN",
            # To a COPY, a reader that was ended in the middle looks like one that is done.
            f"DO $$ BEGIN IF (SELECT count(*) FROM pg_temp.put_back) <> {rows:d} THEN RAISE 'the rows of the copy broke off'; END IF; END $$",
            f"WITH came AS (INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.put_back "
            f"WHERE NOT EXISTS (SELECT FROM {table} AS live WHERE {same}) RETURNING 1) SELECT count(*) FROM came",
        ],
        silence=LONGEST,
        # The table's own triggers and checks run as the application has them run.
        settings={"search_path": '"$user",public'},
    )  # fmt: skip
    came = done.out.strip()
    if done.rc or not came.isdecimal():
        raise DasTernError(
            f"The rows of {table} can't be put back into database {live}: {done.last_words}. It is as it was.",
            **done.outside,
        )
    return int(came)


def table_of(census: Census, table: str) -> str:
    """The table as PostgreSQL writes it; quotes may be left out."""
    if table in census.tables:
        return table
    plain = re.sub('"', "", table)
    near = [name for name in census.tables if re.sub('"', "", name) in (plain, f"public.{plain}")]
    if len(near) == 1:
        return near[0]
    if near:
        raise DasTernError(
            f"`{table}` may be {' or '.join(near)}: name the one that is meant as it is written here, with its quotes. Nothing was done."
        )
    raise DasTernError(
        f"The backed-up database has no table {table}; it has {', '.join(census.tables) or 'none'}. Write it with its "
        "schema: `-e table=public.users`."
    )
