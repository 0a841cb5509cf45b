"""A database of the live server that is filled from a backup, with the properties of the database itself."""

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
# `grantee=privileges/grantor`, as PostgreSQL writes it; an empty grantee is PUBLIC.
_ACL_ITEM = re.compile(r'("(?:[^"]|"")*"|[^"=]*)=[^/]*/("(?:[^"]|"")*"|[^"/]+)')
_OWNER = "SELECT to_json(pg_get_userbyid(datdba)) FROM pg_database WHERE datname = {database}"
_TABLESPACES = "SELECT json_agg(spcname) FROM pg_tablespace"
APPLICATION = "das-tern put back"
AGAIN = "_again_"
"""The part before the timestamp in the name of a database that is made to see how a restore changes a schema."""
_ACL = """
SELECT json_agg(json_build_object('privilege', privilege_type, 'option', is_grantable,
  'grantee', CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) ORDER BY n)
FROM aclexplode(ARRAY[{acl}]::aclitem[]) WITH ORDINALITY AS a(grantor, grantee, privilege_type, is_grantable, n)
"""


def create(psql: Psql, name: str, census: Census) -> None:
    """Create the empty database `name` like that of `census`: locale, tablespace, owner, privileges, settings, comment.

    `limit_connections` sets its limit once it is filled.
    """
    properties = census.properties
    provider, locale, collate, ctype = str(properties["locale"]).split(" ")
    providers = {"b": ("builtin", "BUILTIN_LOCALE"), "i": ("icu", "ICU_LOCALE")}
    special = (
        f" LOCALE_PROVIDER {providers[provider][0]} {providers[provider][1]} {literal(locale)}"
        if provider in providers
        else ""
    )
    # The comparison reports a tablespace that the server lacks as a difference.
    if (tablespace := properties.get("tablespace", "pg_default")) in psql.value(_TABLESPACES):
        special += f" TABLESPACE {identifier(tablespace)}"
    if properties.get("is_template"):
        special += " IS_TEMPLATE true"
    quoted = identifier(name)
    _refuse_missing_roles(psql, properties)
    psql.run(
        f"CREATE DATABASE {quoted} TEMPLATE template0 OWNER {identifier(properties['owner'])} "
        f"ENCODING {literal(properties['encoding'])} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)}{special};"
    )
    psql.run("\n".join(_properties(psql, quoted, properties)))


def limit_connections(psql: Psql, name: str, census: Census) -> None:
    """Set the connection limit of `census` on `name`; set earlier, it could have kept the owner from filling it."""
    psql.run(f"ALTER DATABASE {identifier(name)} CONNECTION LIMIT {int(census.properties['connection_limit'])};")


def _refuse_missing_roles(psql: Psql, properties: dict[str, Any]) -> None:
    """Refuse if the server lacks a role that the database names: the restored one would lack that role's part."""
    needed = {properties["owner"], *(role for role in properties["settings"] or {} if role)}
    for item in properties["acl"] or []:
        match = _ACL_ITEM.fullmatch(item)
        needed |= {_unquoted(role) for role in match.groups() if role} if match else set()
    existing = set(psql.value("SELECT json_agg(rolname) FROM pg_roles"))
    if missing := sorted(needed - existing):
        raise DasTernError(
            f"The live server has no role {', '.join(missing)}, which the backed-up database names. Create it first: "
            "`ansible-playbook playbooks/provision.yml`, or set `postgres_app_user` as it was then."
        )


def _unquoted(role: str) -> str:
    return role[1:-1].replace('""', '"') if role.startswith('"') else role


def _properties(psql: Psql, quoted: str, properties: dict[str, Any]) -> list[str]:
    statements = []
    if properties["acl"]:
        owner = identifier(properties["owner"])
        statements.append(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC; REVOKE ALL ON DATABASE {quoted} FROM {owner};")
        acl = ", ".join(literal(item) for item in properties["acl"])
        for grant in psql.value(_ACL.format(acl=acl)) or []:
            option = " WITH GRANT OPTION" if grant["option"] else ""
            statements.append(f"GRANT {grant['privilege']} ON DATABASE {quoted} TO {grant['grantee']}{option};")
    if properties["comment"]:
        statements.append(f"COMMENT ON DATABASE {quoted} IS {literal(properties['comment'])};")
    for role, settings in (properties["settings"] or {}).items():
        alter = f"ALTER ROLE {identifier(role)} IN DATABASE {quoted}" if role else f"ALTER DATABASE {quoted}"
        for setting in settings:
            statements.append(f"{alter} SET {assignment(setting)};")
    return statements


def assignment(setting: str) -> str:
    """Return an entry of `pg_db_role_setting` in the form of `SET`, each part of the name and each value quoted."""
    key, values = parts(setting)
    return f"{identifier(*key.split('.'))} TO {', '.join(literal(value).strip() for value in values)}"


def from_logical(
    place: Place, record: Record, name: str, table: str, instead: str, session: Psql | None = None
) -> Comparison:
    """Make database `name` from a logical backup, all of it or one table; `session` is as in `logical.restore`.

    Return the comparison of its content with the backup. Raises `DasTernError` if the differences are damage; `instead`
    then tells what to do.
    """
    expected = Census.of(record.census)
    session = session or place.superuser.as_owner(expected.properties["owner"])
    archive = f"{logical.IN_CONTAINER}/{record.label}"
    tables = tables_of(expected, table, lambda: logical.partitions(session, archive))[1] if table else []
    create(place.superuser, name, expected)
    comparison = logical.restore(place, record, name, tables, session, instead)
    comparison = _explained(comparison, place.superuser, session, name, expected, archive)
    if not table:
        limit_connections(place.superuser, name, expected)
    return comparison


def from_physical(
    site: Site, record: Record, goal: Target, database: str, name: str, table: str, stamp: str,
    *, check: Callable[[Psql, str, Record, Target], Comparison], instead: str, session: Psql | None = None,
) -> Comparison:  # fmt: skip
    """Make database `name` from a physical backup, by way of a server made from it; the dump goes through the backups'
    folder.

    `session` restores the dump, by default the owner's. Results and errors are as in `from_logical`.
    """
    volume, transfer = f"{site.helper}-data", f"restore-{stamp}"
    folder = f"{BACKUPS}/{TRANSFER}/{transfer}"
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
                    f"The rows of backup {record.label} couldn't be counted when it was taken, and can't be counted now, because of "
                    f"damaged pages: a {'table' if table else 'database'} of it can't be copied and compared. "
                    f"`{playbook('restore', target='latest', what='database')}` begins with a good backup if one leads there; "
                    f"`{playbook('restore', what='cluster', target=record.label)}` restores the whole backup as it is."
                )
            tables = tables_of(expected, table, lambda: partitions(psql, database))[1] if table else []
            script = f'mkdir -m 0700 "$(dirname "$1")"\n{_DUMP_TABLES if table else _DUMP}'
            dump = psql.execute(
                ["sh", "-c", script, "sh", f"{folder}/dump", conninfo(database, logical.RESTORING), *tables],
                silence=LONGEST,
            )
            if dump.rc:
                raise DasTernError(f"The restored database can't be dumped: {dump.last_words}.", **dump.outside)
        finally:
            server.discard()
        create(site.psql, name, expected)
        session = session or site.psql.as_owner(expected.properties["owner"])
        failures = []
        for archive in [f"{folder}/dump.schema", f"{folder}/dump"] if table else [f"{folder}/dump"]:
            failures += logical.fill(session, site.psql, name, archive, database)
        comparison = compared(site.psql, name, expected, failures, tables, f"the copy of {record.label}", instead)
        comparison = _explained(comparison, site.psql, session, name, expected, f"{folder}/dump")
        comparison.incomplete = recovered.incomplete + comparison.incomplete
        comparison.differences = recovered.differences + comparison.differences
        if not table:
            limit_connections(site.psql, name, expected)
        return comparison
    finally:
        remove_tree(site.place.folder, TRANSFER, transfer)


def _explained(
    comparison: Comparison, superuser: Psql, session: Psql, name: str, expected: Census, archive: str
) -> Comparison:
    """Explain the harmless schema differences of database `name`, restored from `archive`; return `comparison`."""
    if comparison.schema_differs:
        before, after = logical.schema_of_archive(session, archive), schema_of(superuser, name)
        comparison.explain(before, after, _schema_restored_again(superuser, session, name, expected, archive))
    return comparison


def _schema_restored_again(superuser: Psql, session: Psql, name: str, expected: Census, archive: str) -> str:
    """Restore the archive's schema into another new database, and return it as pg_dump writes it."""
    head, _, stamp = name.rpartition("_restored_")
    other = f"{head}{AGAIN}{stamp}"
    create(superuser, other, expected)
    try:
        logical.fill(session, superuser, other, archive, name, schema_only=True)
        return schema_of(superuser, other)
    finally:
        superuser.drop_database(other)


# The columns to insert; generated ones fill themselves. The sequences are those of the table's own columns and, as a
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
# A pipe joins two programs. The statements come as arguments, so that the shell interprets nothing of the table's.
_PUT_BACK = """
from=$1 to=$2 read=$3
shift 3
for statement; do set -- "$@" -c "$statement"; shift; done
exec 4>&1
codes=$( { { psql -Xq -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -d "$from" -c "$read"; echo $? >&3; } |
  { psql -XqAt -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -1 -d "$to" "$@" >&4; echo $? >&3; }; } 3>&1 )
[ "$codes" = "$(printf '0\\n0')" ]
"""


@dataclass(frozen=True)
class RowsPutBack:
    """The effects of `put_back`."""

    inserted: int
    """The number of rows inserted; the others existed already."""
    sequences: dict[str, int]
    """The sequences that were behind the rows, each with the value after which it continues."""


def put_back(superuser: Psql, copy: str, live: str, table: str, rows: int) -> RowsPutBack:
    """Insert those of the `rows` of `table` in database `copy` whose primary key the same table of database `live`
    lacks.

    No other row is changed, and sequences only go forward. `table` is qualified and quoted as PostgreSQL writes it. The
    owner of `live` inserts the rows in one transaction: if a row breaks a constraint, such as a foreign key or another
    unique one, or a trigger keeps it out, nothing changes. Raises `DasTernError`.
    """
    present, backed_up = (superuser.value(_COLUMNS.format(table=literal(table)), name) for name in (live, copy))
    beside = "Restore the table beside it (`-e into=NAME`), and bring its rows over by hand."
    nothing = f"Nothing was put back. {beside}"
    if missing := [name for name in backed_up["columns"] if name not in present["columns"]]:
        raise DasTernError(
            f"Table {table} of the live database {live} "
            + (f"lacks {', '.join(missing)}, which the backup has" if present["columns"] else "doesn't exist")
            + f". {nothing}"
        )
    if not present["key"] or set(present["key"]) - set(backed_up["columns"]):
        raise DasTernError(
            f"Table {table} of the live database {live} has no primary key whose columns the backup has, too, so that the "
            f"missing rows can't be determined. {nothing}"
        )
    if present["forced"] or backed_up["forced"]:
        raise DasTernError(
            f"Table {table} has FORCE ROW LEVEL SECURITY, so that its owner sees and writes only the rows that its policies allow. {nothing}"
        )
    if present["rules"]:
        raise DasTernError(
            f"Table {table} of the live database {live} has a rule on INSERT ({', '.join(present['rules'])}), which may send the rows "
            f"elsewhere. {nothing}"
        )
    columns = ", ".join(identifier(name) for name in backed_up["columns"])
    source = f"(SELECT {columns} FROM {table})" if backed_up["partitioned"] else f"{table} ({columns})"
    same = " AND ".join(f"live.{identifier(name)} = put_back.{identifier(name)}" for name in present["key"])
    lost = f"SELECT count(*) FROM pg_temp.put_back WHERE NOT EXISTS (SELECT FROM {table} AS live WHERE {same})"
    owner = superuser.as_owner(str(superuser.value(_OWNER.format(database=literal(live)))))
    done = owner.execute(
        [
            "sh", "-c", _PUT_BACK, "sh", conninfo(copy, APPLICATION), conninfo(live, APPLICATION),
            f"COPY {source} TO STDOUT",
            f"CREATE TEMPORARY TABLE put_back ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA",
            f"COPY pg_temp.put_back ({columns}) FROM STDIN",
            # To a COPY, a reader that was killed in the middle looks like one that has finished.
            _unless("SELECT count(*) FROM pg_temp.put_back", rows, "the rows of the copy ended too early"),
            "WITH existing AS (DELETE FROM pg_temp.put_back WHERE EXISTS "
            f"(SELECT FROM {table} AS live WHERE {same}) RETURNING 1) SELECT count(*) FROM existing",
            f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM pg_temp.put_back",
            "SET CONSTRAINTS ALL IMMEDIATE",
            _unless(lost, 0, "rows that were inserted are not in the table: one of its triggers discards or redirects them"),
            *(_set_forward(table, sequence) for sequence in present["sequences"]),
        ],
        silence=LONGEST,
        # The table's own triggers and checks run as for the application; their notices may contain rows.
        settings={"search_path": '"$user",public', "client_min_messages": "error"},
    )  # fmt: skip
    output = done.out.removesuffix("\n").split("\n")
    if refusal := refusal_of_limit(done.err, owner.container) if done.rc else None:
        raise refusal
    if done.rc or not output[0].isdecimal():
        raise DasTernError(
            f"The rows of {table} can't be put back into database {live}: {words_of(done)}. Nothing changed there. {beside}",
            **done.outside,
        )
    set_to = zip((sequence["name"] for sequence in present["sequences"]), output[1:], strict=True)
    return RowsPutBack(rows - int(output[0]), {name: int(value) for name, value in set_to if value})


def _unless(query: str, count: int, message: str) -> str:
    """Return a statement that raises `message` unless `query` gives `count`."""
    return "DO " + literal(f"BEGIN IF ({query}) <> {count:d} THEN RAISE {literal(message)}; END IF; END")


def _set_forward(table: str, sequence: Mapping[str, Any]) -> str:
    """Return a query that moves a sequence beyond the table's rows, and gives its value; nothing if it is there
    already.

    A row with a number that the sequence can't give, or that would be its last, isn't considered.
    """
    up = sequence["step"] > 0
    extreme, beyond = ("max", ">") if up else ("min", "<")
    column, name = identifier(sequence["column"]), sequence["name"]
    within = f"{column} >= {sequence['lowest']} AND {column} < {sequence['highest']}" if up else (
        f"{column} > {sequence['lowest']} AND {column} <= {sequence['highest']}"
    )  # fmt: skip
    return (
        f"SELECT (SELECT pg_catalog.setval({literal(name)}, outermost) FROM (SELECT {extreme}({column}) AS outermost FROM {table} WHERE {within}) AS found, "
        f"{name} AS sequence WHERE outermost {beyond} last_value OR (outermost = last_value AND NOT is_called))"
    )


def partitions(psql: Psql, database: str) -> dict[str, list[str]]:
    """Return the partitions that hold the rows of each partitioned table."""
    return dict(psql.value(_PARTITIONS, database))


def table_of(census: Census, table: str) -> str:
    """Return the table's name as PostgreSQL writes it; `table` may lack the quotes."""
    return tables_of(census, table, dict)[0]


def tables_of(
    census: Census, table: str, partitioned: Callable[[], Mapping[str, Sequence[str]]]
) -> tuple[str, list[str]]:
    """Return the table's name as PostgreSQL writes it, and the tables that hold its rows: itself, or its partitions.

    `partitioned` returns the partitions of the partitioned tables, which a census doesn't name.
    """
    if own := _named(census.tables, table):
        return own, [own]
    partitions = partitioned()
    if whole := _named(partitions, table):
        return whole, [partition for partition in partitions[whole] if partition in census.tables]
    raise DasTernError(
        f"The backed-up database has no table {table}. Its tables: {', '.join([*census.tables, *partitions]) or 'none'}. "
        "Name the table with its schema: `-e table=public.users`."
    )


def _named(names: Collection[str], table: str) -> str:
    """Return the name of `names` that `table` means, '' if none."""
    if table in names:
        return table
    plain = re.sub('"', "", table)
    matches = [name for name in names if re.sub('"', "", name) in (plain, f"public.{plain}")]
    if matches[1:]:
        raise DasTernError(
            f"`{table}` may be {' or '.join(matches)}. Nothing was done. Name the table as it is written here, with its quotes."
        )
    return matches[0] if matches else ""
