"""A database of the live server, filled from a backup, with what belongs to the database itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..backups import logical
from ..backups.records import Place, Record
from ..catalogue.census import Census, parts, schema_of
from ..catalogue.comparison import Comparison, compared
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.sql_values import identifier, literal
from ..server.backup_folders import TRANSFER, remove_tree
from ..server.connection import conninfo, refusal_of_limit
from ..server.psql import Psql, words_of
from ..server.survey import BACKUPS
from .restored_server import LONGEST, RestoredServer, Site
from .target import Target

_DUMP = 'pg_dump -Fd -j 2 --compress=zstd:1 --no-sync -f "$1" -d "$2"'
_DUMP_TABLES = """
set -eu
into=$1 from=$2
shift 2
pg_dump -Fc --section=pre-data -f "$into.schema" -d "$from"
for table; do set -- "$@" -t "$table"; shift; done
pg_dump -Fd --section=data "$@" --compress=zstd:1 --no-sync -f "$into" -d "$from"
"""
_PARTITIONS = """
SELECT coalesce(pg_catalog.json_object_agg(pg_catalog.format('%I.%I', n.nspname, c.relname),
  (SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', ln.nspname, l.relname)), '[]') FROM pg_catalog.pg_partition_tree(c.oid) AS t
    JOIN pg_catalog.pg_class l ON l.oid = t.relid JOIN pg_catalog.pg_namespace ln ON ln.oid = l.relnamespace WHERE l.relkind = 'r')), '{}')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p'
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
    """Make `name`, empty, as the database of `census` was: locale, tablespace, owner, privileges, settings, comment.

    `limit_connections` gives it its limit when it is filled.
    """
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
        f"ENCODING {literal(properties['encoding'])} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)}{special};"
    )
    psql.run("\n".join(_properties(psql, quoted, properties)))


def limit_connections(psql: Psql, name: str, census: Census) -> None:
    """Give `name` the connection limit of `census`, which would have kept its owner from filling it."""
    psql.run(f"ALTER DATABASE {identifier(name)} CONNECTION LIMIT {int(census.properties['connection_limit'])};")


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
    """Make database `name` of a logical backup, all of it or one table; `session` is as in `logical.restore`.

    Return what it holds, and what it has otherwise than the backup. Raises `DasTernError` where that is damage; `instead`
    says then what to do.
    """
    expected = Census.of(record.census)
    session = session or place.superuser.as_owner(expected.properties["owner"])
    archive = f"{logical.IN_CONTAINER}/{record.label}"
    tables = tables_of(expected, table, lambda: logical.partitions(session, archive))[1] if table else []
    create(place.superuser, name, expected)
    told = logical.restore(place, record, name, tables, session, instead)
    copy = _explained(told, place.superuser, session, name, expected, archive)
    if not table:
        limit_connections(place.superuser, name, expected)
    return copy


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
            tables = tables_of(expected, table, lambda: partitions(psql, database))[1] if table else []
            script = f'mkdir -m 0700 "$(dirname "$1")"\n{_DUMP_TABLES if table else _DUMP}'
            dumped = psql.execute(
                ["sh", "-c", script, "sh", f"{folder}/dump", conninfo(database, logical.RESTORING), *tables],
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
            failures += logical.fill(session, site.psql, name, archive, database)
        told = compared(site.psql, name, expected, failures, tables, f"the copy of {record.label}", instead)
        copy = _explained(told, site.psql, session, name, expected, f"{folder}/dump")
        copy.incomplete = recovered.incomplete + copy.incomplete
        copy.differences = recovered.differences + copy.differences
        if not table:
            limit_connections(site.psql, name, expected)
        return copy
    finally:
        remove_tree(site.place.folder, TRANSFER, name_there)


def _explained(
    told: Comparison, superuser: Psql, session: Psql, name: str, expected: Census, archive: str
) -> Comparison:
    """Say what of the schema of database `name`, which `archive` made, is harmless; return the comparison `told`."""
    if told.schema_differs:
        was, now = logical.schema_of_archive(session, archive), schema_of(superuser, name)
        told.explain(was, now, _once_more(superuser, session, name, expected, archive))
    return told


def _once_more(superuser: Psql, session: Psql, name: str, expected: Census, archive: str) -> str:
    """The schema that the archive makes in another new database, as pg_dump writes it."""
    head, _, stamp = name.rpartition("_restored_")
    other = f"{head}{AGAIN}{stamp}"
    create(superuser, other, expected)
    try:
        logical.fill(session, superuser, other, archive, name, schema_only=True)
        return schema_of(superuser, other)
    finally:
        superuser.drop_database(other)


# Those that a row is made of; what is generated comes by itself. The sequences are those of the table's own columns and, as a
# partition draws from them, of the whole table's.
_COLUMNS = """
SELECT pg_catalog.json_build_object(
  'columns', (SELECT coalesce(pg_catalog.json_agg(attname ORDER BY attnum), '[]') FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass({table}) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''),
  'partitioned', (SELECT relkind = 'p' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({table})),
  'forced', (SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({table})),
  'rules', (SELECT coalesce(pg_catalog.json_agg(rulename ORDER BY rulename), '[]') FROM pg_catalog.pg_rewrite
    WHERE ev_class = pg_catalog.to_regclass({table}) AND ev_type = '3' AND ev_enabled <> 'D'),
  'sequences', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', pg_catalog.format('%I.%I', n.nspname, c.relname),
      'column', a.attname, 'lowest', s.seqmin, 'highest', s.seqmax, 'step', s.seqincrement) ORDER BY n.nspname, c.relname), '[]')
    FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.refobjid IN (pg_catalog.to_regclass({table}), pg_catalog.pg_partition_root(pg_catalog.to_regclass({table})))
      AND a.atttypid IN (20, 21, 23)),
  'key', (SELECT coalesce(pg_catalog.json_agg(attname ORDER BY attnum), '[]') FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
    WHERE c.conrelid = pg_catalog.to_regclass({table}) AND c.contype = 'p'))
"""
# The statements come as arguments: a pipe joins two programs, and nothing of the table's is a word of the shell.
_PUT_BACK = """
from=$1 to=$2 read=$3
shift 3
for statement; do set -- "$@" -c "$statement"; shift; done
exec 4>&1
codes=$( { { psql -Xq -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -d "$from" -c "$read"; echo $? >&3; } |
  { psql -XqAt -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -1 -d "$to" "$@" >&4; echo $? >&3; }; } 3>&1 )
[ "$(echo $codes)" = '0 0' ]
"""


@dataclass(frozen=True)
class RowsPutBack:
    """What `put_back` did."""

    came: int
    """How many rows came in; those besides were there."""
    sequences: dict[str, int]
    """The sequences that were behind the rows, each with the value that it goes on from."""


def put_back(superuser: Psql, copy: str, live: str, table: str, rows: int) -> RowsPutBack:
    """Insert those of the `rows` of `table` in database `copy` whose primary key the same table of database `live` lacks.

    No other row is changed, and a sequence only goes forward. `table` is qualified and quoted as PostgreSQL writes it. The owner of
    `live` does it, in one transaction: a row that breaks one of its constraints, such as a foreign key or another unique one, or
    that a trigger keeps out, leaves all as it was. Raises `DasTernError`.
    """
    there, wanted = (superuser.value(_COLUMNS.format(table=literal(table)), name) for name in (live, copy))
    beside = "Restore the table beside it (`-e into=NAME`), and bring its rows over by hand."
    nothing = f"Nothing was put back. {beside}"
    if missing := [name for name in wanted["columns"] if name not in there["columns"]]:
        raise DasTernError(
            f"Table {table} of the live database {live} "
            + (f"lacks {', '.join(missing)}, which the backup has" if there["columns"] else "isn't there")
            + f". {nothing}"
        )
    if not there["key"] or set(there["key"]) - set(wanted["columns"]):
        raise DasTernError(
            f"Table {table} of the live database {live} has no primary key of columns that the backup has, so that nobody can tell "
            f"which rows it lacks. {nothing}"
        )
    if there["forced"] or wanted["forced"]:
        raise DasTernError(
            f"Table {table} has FORCE ROW LEVEL SECURITY, by which its owner sees and writes only what its policies let through. {nothing}"
        )
    if there["rules"]:
        raise DasTernError(
            f"Table {table} of the live database {live} has a rule on INSERT ({', '.join(there['rules'])}), which may send the rows "
            f"elsewhere. {nothing}"
        )
    columns = ", ".join(identifier(name) for name in wanted["columns"])
    source = f"(SELECT {columns} FROM {table})" if wanted["partitioned"] else f"{table} ({columns})"
    same = " AND ".join(f"live.{identifier(name)} = put_back.{identifier(name)}" for name in there["key"])
    lost = f"SELECT count(*) FROM pg_temp.put_back WHERE NOT EXISTS (SELECT FROM {table} AS live WHERE {same})"
    owner = superuser.as_owner(str(superuser.value(_OWNER.format(database=literal(live)))))
    done = owner.execute(
        [
            "sh", "-c", _PUT_BACK, "sh", conninfo(copy, APPLICATION), conninfo(live, APPLICATION),
            f"COPY {source} TO STDOUT",
            f"CREATE TEMPORARY TABLE put_back ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA",
            f"COPY pg_temp.put_back ({columns}) FROM STDIN",
            # To a COPY, a reader that was ended in the middle looks like one that is done.
            _unless("SELECT count(*) FROM pg_temp.put_back", rows, "the rows of the copy broke off"),
            "WITH there AS (DELETE FROM pg_temp.put_back WHERE EXISTS "
            f"(SELECT FROM {table} AS live WHERE {same}) RETURNING 1) SELECT count(*) FROM there",
            f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.put_back",
            "SET CONSTRAINTS ALL IMMEDIATE",
            _unless(lost, 0, "rows that were inserted are not in the table: one of its triggers keeps or sends them elsewhere"),
            *(_set_forward(table, sequence) for sequence in there["sequences"]),
        ],
        silence=LONGEST,
        # The table's own triggers and checks run as the application has them run; what they say in passing may be of rows.
        settings={"search_path": '"$user",public', "client_min_messages": "error"},
    )  # fmt: skip
    told = done.out.removesuffix("\n").split("\n")
    if limited := refusal_of_limit(done.err, owner.container) if done.rc else None:
        raise limited
    if done.rc or not told[0].isdecimal():
        raise DasTernError(
            f"The rows of {table} can't be put back into database {live}: {words_of(done)}. It is as it was. {beside}",
            **done.outside,
        )
    set_to = zip((sequence["name"] for sequence in there["sequences"]), told[1:], strict=True)
    return RowsPutBack(rows - int(told[0]), {name: int(value) for name, value in set_to if value})


def _unless(query: str, count: int, words: str) -> str:
    """A statement that raises `words` unless `query` gives `count`."""
    return "DO " + literal(f"BEGIN IF ({query}) <> {count:d} THEN RAISE {literal(words)}; END IF; END")


def _set_forward(table: str, sequence: Mapping[str, Any]) -> str:
    """A query that sets a sequence behind the table's rows, and gives the value; nothing where it is there or further on.

    A row whose number the sequence can't give, or which would be its last, says nothing of it.
    """
    up = sequence["step"] > 0
    most, further = ("max", ">") if up else ("min", "<")
    column, name = identifier(sequence["column"]), sequence["name"]
    within = f"{column} >= {sequence['lowest']} AND {column} < {sequence['highest']}" if up else (
        f"{column} > {sequence['lowest']} AND {column} <= {sequence['highest']}"
    )  # fmt: skip
    return (
        f"SELECT (SELECT pg_catalog.setval({literal(name)}, outermost) FROM (SELECT {most}({column}) AS outermost FROM {table} WHERE {within}) AS found, "
        f"{name} AS sequence WHERE outermost {further} last_value OR (outermost = last_value AND NOT is_called))"
    )


def partitions(psql: Psql, database: str) -> dict[str, list[str]]:
    """Return the partitions that hold the rows of each partitioned table."""
    return dict(psql.value(_PARTITIONS, database))


def table_of(census: Census, table: str) -> str:
    """The table as PostgreSQL writes it; quotes may be left out."""
    return tables_of(census, table, dict)[0]


def tables_of(
    census: Census, table: str, partitioned: Callable[[], Mapping[str, Sequence[str]]]
) -> tuple[str, list[str]]:
    """Return the table as PostgreSQL writes it, and those that hold its rows: itself, or its partitions.

    `partitioned` gives the partitions of the partitioned tables, which a census doesn't name.
    """
    if own := _named(census.tables, table):
        return own, [own]
    parted = partitioned()
    if whole := _named(parted, table):
        return whole, [one for one in parted[whole] if one in census.tables]
    raise DasTernError(
        f"The backed-up database has no table {table}; it has {', '.join([*census.tables, *parted]) or 'none'}. Write it with its "
        "schema: `-e table=public.users`."
    )


def _named(names: Collection[str], table: str) -> str:
    """The one of `names` that is meant, '' where none is."""
    if table in names:
        return table
    plain = re.sub('"', "", table)
    near = [name for name in names if re.sub('"', "", name) in (plain, f"public.{plain}")]
    if near[1:]:
        raise DasTernError(
            f"`{table}` may be {' or '.join(near)}: name the one that is meant as it is written here, with its quotes. Nothing was done."
        )
    return near[0] if near else ""
