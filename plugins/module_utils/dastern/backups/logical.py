"""Logical backups of one database: `<backup_dir>/logical/<label>/` holds the output of pg_dump's directory format, and with it
`globals.sql` (the roles, without passwords) and `database.sql` (what pg_dump leaves out: the database's own properties).

pg_dump runs inside the server's container and writes into /backups/transfer: only there do program and data have the same
version, and only a directory can be written by two jobs. The dump is moved to where the container can't write
(`backup_folders`) before it is read, hashed and counted. One psql session holds the snapshot that pg_dump reads and the
census counts. zstd in a dump has no checksum, and an emptied data file is restored without a word. So all of the dump is
decoded once, its rows are compared with the census, and the record keeps a SHA-256 of each file.

While a backup's folder has its final name and the run has yet to write its record, or has deleted it, the file
`<label>.incomplete` lies beside it. A folder with neither record nor mark is a backup whose record was lost, and is kept.

All functions but `verify` and `unknown` need `Place.alone`, so that leftovers of another run can be told from what a run is
writing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from ..catalogue.census import LISTS, LOCK, LONGEST, SCHEMA, SNAPSHOT, Census, Locks, lines_of, of_snapshot
from ..catalogue.comparison import Comparison, RestoreFailure, compared, failures_of, reports_of
from ..common.errors import DasTernError
from ..common.files import sync_folder
from ..common.quantities import amount, cut
from ..common.sql_values import duration, identifier, literal
from ..server.backup_folders import LOGICAL, PROVISION, TRANSFER, adopt, empty, remove_tree
from ..server.blockers import in_the_way
from ..server.connection import conninfo, refusal_of_closed, refusal_of_limit
from ..server.psql import SUPERUSER, Psql, words_of
from ..server.survey import BACKUPS
from .records import Check, Place, Record, now

APPLICATION = "das-tern backup"
RESTORING = "das-tern restore"

IN_CONTAINER = f"{BACKUPS}/{LOGICAL}"
"""Where the server's container sees the backups, without being able to write."""
HOLDERS = 1.5
"""Factor by which the locks are counted: three sessions hold each, and PostgreSQL has room for twice as many holders as locks."""
_LABEL = re.compile(r"\d{8}-\d{6}L")
_PARTIAL, _INCOMPLETE = ".partial", ".incomplete"
_DUMP = "pg_dump --format=directory --jobs=2 --compress=zstd:1 --no-subscriptions"
_DUMPED = "das-tern: dumped"
_TAKE = """
umask 077
export FOLDER="$1" TO="$2" LOCK_WAIT="$3" COUNT="$4"
exec psql -XqAt -v ON_ERROR_STOP=1 -v VERBOSITY=terse -d "$TO"
"""
# Runs in psql's `\\!`, while the session holds its snapshot. One table is most of the database, and pg_dump reads a table by
# one process, so the rows are counted at the same time.
_SHELL = f"""printf %s "$COUNT" | psql -XqAt -v ON_ERROR_STOP=1 -v VERBOSITY=terse -d "$TO" & count=$!;
 {_DUMP} --snapshot="$SNAPSHOT" --lock-wait-timeout="$LOCK_WAIT" -d "$TO" -f "$FOLDER" && wait $count &&
 pg_dumpall --globals-only --no-role-passwords -d "$TO" -f "$FOLDER/globals.sql" && echo '{_DUMPED}' &&
 {" ".join(SCHEMA)} --snapshot="$SNAPSHOT" --lock-wait-timeout="$LOCK_WAIT" -d "$TO" && echo '{_DUMPED}' ||
 {{ kill $count; wait $count; }} 2>/dev/null""".replace("\n", "")
_BESIDE = f"""
\\getenv snapshot SNAPSHOT
\\getenv lock_wait LOCK_WAIT
SET lock_timeout = :'lock_wait';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET TRANSACTION SNAPSHOT :'snapshot';
{SNAPSHOT}COMMIT;
"""
SESSION = (
    "SET lock_timeout = {lock_wait};\n"
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n"
    "SELECT pg_export_snapshot() AS snapshot \\gset\n"
    "\\setenv SNAPSHOT :snapshot\n"
)
"""Begin the transaction that pg_dump reads; `$SNAPSHOT` names its snapshot to programs that `\\!` runs."""
# Whoever restores chooses the name: `psql -v database=NAME -f database.sql`. In settings that are lists, each element is
# quoted by itself, as pg_dump does.
_PROPERTIES = f"""
WITH d AS (SELECT * FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), lines AS (
  SELECT 1 AS place, 0 AS at, pg_catalog.format('ALTER DATABASE :"database" OWNER TO %I;', pg_catalog.pg_get_userbyid(datdba)) AS line FROM d
  UNION ALL SELECT 2, 0, pg_catalog.format('ALTER DATABASE :"database" CONNECTION LIMIT %s;', datconnlimit) FROM d
  UNION ALL SELECT 2, 1, pg_catalog.format('ALTER DATABASE :"database" SET TABLESPACE %I;', spcname) FROM d JOIN pg_catalog.pg_tablespace t ON t.oid = dattablespace
    WHERE spcname <> 'pg_default'
  UNION ALL SELECT 2, 2, 'ALTER DATABASE :"database" IS_TEMPLATE true;' FROM d WHERE datistemplate
  UNION ALL SELECT 3, 0, pg_catalog.format('COMMENT ON DATABASE :"database" IS %s;', pg_catalog.quote_nullable(pg_catalog.shobj_description(oid, 'pg_database'))) FROM d
  UNION ALL SELECT 4, 0, pg_catalog.format('REVOKE ALL ON DATABASE :"database" FROM PUBLIC, %I;', pg_catalog.pg_get_userbyid(datdba)) FROM d
  UNION ALL SELECT 5, a.at, pg_catalog.concat(
      CASE WHEN a.grantor <> datdba THEN pg_catalog.format('SET SESSION AUTHORIZATION %I; ', pg_catalog.pg_get_userbyid(a.grantor)) END,
      pg_catalog.format('GRANT %s ON DATABASE :"database" TO %s%s;', a.privilege_type,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END),
      CASE WHEN a.grantor <> datdba THEN ' RESET SESSION AUTHORIZATION;' END)
    FROM d, pg_catalog.aclexplode(coalesce(datacl, pg_catalog.acldefault('d', datdba))) WITH ORDINALITY
      AS a (grantor, grantee, privilege_type, is_grantable, at)
  UNION ALL SELECT 6, pg_catalog.row_number() OVER (ORDER BY setrole, c.at),
      pg_catalog.format('ALTER %s SET %I TO %s;', CASE setrole WHEN 0 THEN 'DATABASE :"database"'
        ELSE pg_catalog.format('ROLE %I IN DATABASE :"database"', pg_catalog.pg_get_userbyid(setrole)) END, pg_catalog.split_part(c.one, '=', 1), v.value)
    FROM d JOIN pg_catalog.pg_db_role_setting ON setdatabase = d.oid, pg_catalog.unnest(setconfig) WITH ORDINALITY AS c (one, at),
    LATERAL (SELECT CASE WHEN pg_catalog.split_part(c.one, '=', 1) = ANY ('{{{",".join(sorted(LISTS))}}}')
      THEN (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(coalesce(pg_catalog.replace(m[1], '""', '"'), m[2])), ', ' ORDER BY n)
        FROM pg_catalog.regexp_matches(pg_catalog.substr(c.one, pg_catalog.strpos(c.one, '=') + 1), '"((?:[^"]|"")*)"|([^,[:space:]]+)', 'g') WITH ORDINALITY AS e (m, n))
      ELSE pg_catalog.quote_literal(pg_catalog.substr(c.one, pg_catalog.strpos(c.one, '=') + 1)) END AS value) AS v)
SELECT pg_catalog.string_agg(line, E'\\n' ORDER BY place, at) FROM lines
"""
# Rows of a table that belongs to an extension are dumped only if the extension's author declared it; an owner may have added
# a table of the application to an extension.
_LEFT_OUT = """
SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%s (extension %s)', c.oid::pg_catalog.regclass, x.extname) ORDER BY c.oid), '[]')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
WHERE c.relkind = 'r' AND c.oid <> ALL (coalesce(x.extconfig, '{}')) AND pg_catalog.pg_relation_size(c.oid) > 0
"""
_LOOK = """
SELECT json_build_object('size', (SELECT pg_database_size(oid) FROM pg_database WHERE datname = {database}),
  'version', current_setting('server_version'), 'system', (SELECT system_identifier::text FROM pg_control_system()),
  'ended', (SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = {application}))
"""
_EMPTY = """
SELECT pg_catalog.json_build_object('tables', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') AND relnamespace NOT IN
  ('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace)), 'version', pg_catalog.current_setting('server_version'))
"""
# Prints how many rows the COPY of each table has: one line is one row. A name can hold anything, even line ends and the words
# of a COPY, so a statement goes on until its quotes are closed.
_COUNT = r"""
set -o pipefail
pg_restore --data-only -f - "$1" | awk '
  inside { if ($0 == "\\.") { print n " " statement; statement = ""; inside = 0 } else n++; next }
  statement == "" && (/^(--|\\)/ || !NF) { next }
  {
    statement = statement == "" ? $0 : statement "\\n" $0
    plain = statement; doubled = gsub(/"/, "", plain); single = gsub("\047", "", plain)
    if (doubled % 2) next
    if (statement ~ /^COPY .* FROM stdin;$/) { n = 0; inside = 1 }
    else if (single % 2 == 0 && statement ~ /;$/) statement = ""
  }'
"""
_RESTORE = ("pg_restore", "--no-subscriptions", "-L", "/dev/stdin")
# A materialised view may read another view, even when a superuser restores.
_VIEWS = {"restrict_nonsystem_relation_kind": ""}
_SECTIONS = ("pre-data", "data", "post-data")
# Entries of an archive's list.
_ROWS = re.compile(r"\d+; \d+ \d+ TABLE DATA ")
_ATTACH = re.compile(r"\d+; \d+ \d+ INDEX ATTACH ")
_NAME = r'(?:"(?:[^"]|"")+"|[^\s".]+)'
_ATTACHED = re.compile(rf"^ALTER TABLE ONLY ({_NAME}\.{_NAME}) ATTACH PARTITION ({_NAME}\.{_NAME}) ", re.MULTILINE)
_PRIVILEGES = re.compile(r"\d+; \d+ \d+ (?:DEFAULT )?ACL ")
_LAST = re.compile(r"\d+; \d+ \d+ (?:MATERIALIZED VIEW DATA|(?:COMMENT - )?EVENT TRIGGER) ")
_DERIVED_ROWS = re.compile(r"\d+; \d+ \d+ MATERIALIZED VIEW DATA ")
_MADE_EXTENSION = re.compile(
    r'^CREATE EXTENSION IF NOT EXISTS ("(?:[^"]|"")+"|\w+) WITH SCHEMA ("(?:[^"]|"")+"|\w+);$', re.MULTILINE
)
# The extensions that only a superuser can create, and whether the database has them.
_EXTENSIONS = """
SELECT coalesce(pg_catalog.json_object_agg(v.name, x.oid IS NOT NULL), '{}') FROM pg_catalog.pg_available_extensions a
JOIN pg_catalog.pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
LEFT JOIN pg_catalog.pg_extension x ON x.extname = v.name WHERE v.superuser AND NOT v.trusted
"""
AS_SUPERUSER = (
    "What the owner can't restore, the superuser can; the backup's own code then runs with the superuser's rights. If you trust "
    "everybody who could write it, add `-e restore_as_superuser=true`."
)


def take(place: Place, database: str, name: str, reason: str, lock_wait: str) -> Record:
    """Back `database` up. Refuse if a table is locked for longer than `lock_wait`.

    After a `DasTernError` there is no new backup, and nothing else was changed.
    """
    duration("lock_wait", lock_wait)
    facts = look(place, database)
    refuse_elsewhere(place, TRANSFER, LOGICAL)
    refuse_full_disk(place.folder, int(facts["size"]), database)
    _refuse_too_many(place, database)
    began, moment = time.monotonic(), datetime.now(UTC)
    folder = place.logical_folder
    try:
        _remove_leftovers(place)
        label = _label(place, folder, moment)
        partial, mark = folder / f"{label}{_PARTIAL}", folder / f"{label}{_INCOMPLETE}"
        try:
            census = _dump(place, database, label, lock_wait)
            adopt(place.folder, label, partial)
            with ThreadPoolExecutor(1) as beside:
                hashing = beside.submit(_synced, partial)
                fault = _misread(place, partial.name, census.tables)
                files = hashing.result()
            if fault:
                raise DasTernError(f"The backup of database {database} can't be read back, and was deleted: {fault}.")
            checked = Check(now(), True, round(time.monotonic() - began, 1))
            mark.touch(0o600)
            partial.rename(folder / label)
            sync_folder(folder)
            stored = sum(file["bytes"] for file in files.values())
            record = Record(
                label=label, kind="logical", type="logical", database=database, system=facts["system"],
                server=facts["version"], tool=f"pg_dump (PostgreSQL) {facts['version']}", began=moment.isoformat(timespec="milliseconds"),
                seconds=checked.seconds, bytes=int(facts["size"]), stored=stored, census=census.as_dict(), exact=True,
                name=name, reason=reason, files=files, verified=checked,
            )  # fmt: skip
            place.save(record)
            with contextlib.suppress(OSError):  # beside a record the mark means nothing
                mark.unlink()
        except BaseException:
            with contextlib.suppress(DasTernError):
                look(place, database)
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                remove_tree(place.folder, TRANSFER, label)
            raise
    except OSError as error:
        raise DasTernError(
            f"Database {database} can't be backed up into {place.folder}: {error.strerror or error}. Free space there, or set "
            "`postgres_backup_dir` to another folder of the host."
        ) from None
    return record


def left_out(place: Place, database: str) -> list[str]:
    """Return the tables whose rows no logical backup has, each with the extension that it belongs to."""
    return list(place.superuser.value(_LEFT_OUT, database))


def verify(place: Place, record: Record) -> Check:
    """Check that all files are there as they were written, with none added, and that all of them can be decoded."""
    began = time.monotonic()
    refuse_elsewhere(place, LOGICAL)
    fault = damage(place, record) or _misread(place, record.label, Census.of(record.census).tables)
    return Check(now(), not fault, round(time.monotonic() - began, 1), fault)


def remove(place: Place, record: Record) -> None:
    """Delete a backup. Its record goes first, without which the backup doesn't count."""
    if not _LABEL.fullmatch(record.label):
        raise DasTernError(f"{record.label!r} isn't the label of a logical backup, so nothing was deleted.")
    mark = place.logical_folder / f"{record.label}{_INCOMPLETE}"
    with contextlib.suppress(OSError):  # on a full disk backups can still be deleted
        mark.touch(0o600)
    place.forget(record.label)
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(place.logical_folder / record.label)
        mark.unlink(missing_ok=True)
    except OSError as error:
        raise DasTernError(f"The old backup {record.label} can't be deleted: {error.strerror}.") from None


def unknown(place: Place) -> list[str]:
    """Return the labels of folders that look complete and have no record. They are kept.

    The record was lost, or somebody else put the folder there.
    """
    names = {path.name for path in place.logical_folder.glob("*L*")}
    return sorted(
        name
        for name in names
        if _LABEL.fullmatch(name) and f"{name}{_INCOMPLETE}" not in names and not place.record_path(name).exists()
    )


def restore(
    place: Place,
    record: Record,
    database: str,
    tables: Sequence[str] = (),
    session: Psql | None = None,
    instead: str = "Use another: `ansible-playbook playbooks/list_backups.yml` shows all.",
) -> Comparison:
    """Fill the empty `database` from a backup and compare it with the backup's census. Refuse damage.

    Checksums are compared before anything is sent. With `tables` (`schema.table`, or the name alone) only these get their
    rows: the other tables are created empty, with all types, sequences, indexes and views, and without foreign keys.
    Owner, privileges, settings and comment of the database stay as they are.

    `session` restores; by default it is the owner of the backed-up database. A backup holds code of the application
    (constraints, triggers, index expressions), which runs with the rights of that session.

    A backup of another cluster is restored, as that is its purpose; one of another major version is refused. After a
    `DasTernError`, `database` may be partly filled and has to be dropped.
    """
    own = place.logical_folder / record.label  # the server of a drill sees no other backup
    refuse_elsewhere(place, f"{LOGICAL}/{record.label}" if own.is_dir() else LOGICAL)
    expected = Census.of(record.census)
    session = session or place.superuser.as_owner(expected.properties["owner"])
    chosen = [_table(record, expected, table) for table in tables]
    facts = place.superuser.value(_EMPTY, database)
    if _major(facts["version"]) != _major(record.server):
        raise DasTernError(
            f"Backup {record.label} is of PostgreSQL {record.server}, the server in container {place.container} is "
            f"{facts['version']}: another major version. Restore it to a server of version {_major(record.server)}."
        )
    if facts["tables"]:
        raise DasTernError(
            f"Database {database} isn't empty: it has {facts['tables']} tables. A backup is restored into an empty one."
        )
    if fault := damage(place, record):
        raise DasTernError(f"Backup {record.label} is damaged: {fault}. Nothing was restored. {instead}")
    try:
        failures = fill(session, place.superuser, database, f"{IN_CONTAINER}/{record.label}", place.database, chosen)
    except DasTernError as refusal:
        role = re.search(r'role "[^"]*" does not exist', refusal.message)
        hint = f" The roles are in {place.logical_folder}/{record.label}/globals.sql." if role else ""
        raise DasTernError(
            f"Backup {record.label} could not be restored: {refusal.message}{hint}", **refusal.facts
        ) from None
    return compared(
        place.superuser, database, expected, failures, chosen, f"restored from backup {record.label}", instead
    )


def damage(place: Place, record: Record, *, hashes: bool = True) -> str:
    """Return how a backup's files differ from those that were written, or nothing. Without `hashes`, compare names and sizes."""
    folder = place.logical_folder / record.label
    faults = []
    try:
        present = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
        faults += [f"file {path} is missing" for path in record.files if path not in present]
        faults += [f"file {path} was added" for path in present if path not in record.files]
        for path, written in record.files.items():
            size = present[path].stat().st_size if path in present else written["bytes"]
            if size != written["bytes"]:
                faults.append(f"file {path} has {size} bytes instead of {written['bytes']}")
            elif hashes and path in present and _hashed(present[path]) != written:
                faults.append(f"file {path} has another SHA-256 than when it was written")
    except OSError as error:
        faults.append(f"{error.filename} can't be read: {error.strerror}")
    if not record.files:
        faults.append("its record names no files")
    return "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if faults[5:] else "")


def refuse_elsewhere(place: Place, *names: str, container: str = "") -> None:
    """Refuse a container that doesn't see these folders of the host: it would read and write somewhere else."""
    container = container or place.container
    folders = {f"{BACKUPS}/{name}": place.folder / name for name in names}
    seen = place.containers.execute(container, ["stat", "-c", "%d %i", *folders])
    with contextlib.suppress(OSError):
        states = [path.stat() for path in folders.values()]
        if seen.out.splitlines() == [f"{state.st_dev} {state.st_ino}" for state in states]:
            return
    raise DasTernError(
        f"Container {container} doesn't see {place.folder} as {BACKUPS}. `{PROVISION}` creates it as `postgres_backup_dir` "
        "says."
    )


def refuse_full_disk(
    folder: Path, size: int, database: str, fix: str = "set `postgres_backup_dir` to another folder of the host"
) -> None:
    """Refuse if `size` bytes may not fit into `folder`; `fix` says what else can be done."""
    # A dump is nearly always smaller than its database; the disk that it fills could be the live server's.
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise DasTernError(
            f"A backup of database {database} ({amount(size)}) may not fit into {folder}, which has {amount(free)} free. Free "
            f"space there, or {fix}.",
            needed=size,
            free=free,
        )


def _refuse_too_many(place: Place, database: str) -> None:
    """Refuse a database with more tables than can be locked: halfway through, the application would get no locks either."""
    locks = Locks.of(place.superuser, database)
    if not locks.fit(HOLDERS):
        raise DasTernError(
            f"Database {database} has {locks.tables} tables, and a logical backup locks each by pg_dump, by its jobs and by the session "
            f"that holds their snapshot: {locks.wanted(HOLDERS)}. Nothing was backed up. A physical backup needs no such locks.",
            tables=locks.tables,
            room=locks.room,
        )


def why(error: str) -> str:
    """Return what pg_dump's error means if a lock is the reason."""
    if any(text in error for text in ("due to statement timeout", "due to lock timeout")):
        return " Another session keeps one of its tables locked. Run again when it has finished."
    if "could not obtain lock on relation" in error:
        return " Another session waits to change one of its tables. Run again when it has finished."
    return ""


def look(place: Place, database: str) -> dict[str, Any]:
    """Return facts of the server and the database. End the pg_dump of a killed run: its locks would block a migration."""
    query = _LOOK.format(database=literal(database), application=literal(APPLICATION))
    facts = dict(place.superuser.value(query))
    if facts["size"] is None:
        raise DasTernError(
            f"Database {database} does not exist in container {place.container}. `ansible-playbook playbooks/status.yml` "
            "shows what runs there."
        )
    return facts


def _remove_leftovers(place: Place) -> None:
    """Delete what was never complete, and backups whose deletion was cut short; the mark goes last."""
    folder = place.logical_folder
    empty(place.folder, TRANSFER)
    for path in folder.glob("*L.*"):
        if not _LABEL.fullmatch(path.stem):
            continue
        if path.suffix == _PARTIAL:
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == _INCOMPLETE:
            recorded, left = place.record_path(path.stem).exists(), folder / path.stem
            if not recorded:
                shutil.rmtree(left, ignore_errors=True)
            if recorded or not left.exists():
                path.unlink(missing_ok=True)


def _label(place: Place, folder: Path, moment: datetime) -> str:
    while (folder / (label := f"{moment:%Y%m%d-%H%M%S}L")).exists() or place.record_path(label).exists():
        moment += timedelta(seconds=1)
    return label


def _dump(place: Place, database: str, folder: str, lock_wait: str) -> Census:
    """Dump into `folder` below /backups/transfer; return the census of the same snapshot."""
    path = f"{BACKUPS}/{TRANSFER}/{folder}"
    script = (
        SESSION.format(lock_wait=literal(lock_wait))
        + f"{LOCK}\\! {_SHELL}\n\\o {path}/database.sql\n{_PROPERTIES};\n\\o\nCOMMIT;\n"
    )
    command = ["sh", "-c", _TAKE, "sh", path, conninfo(database, APPLICATION), lock_wait, _BESIDE]
    done = place.superuser.execute(command, script, silence=LONGEST)
    # The counts are JSON and COPY, where no name begins a line; in the schema after them the marker may be part of a name.
    counted, _, schema = done.out.partition(f"{_DUMPED}\n")
    if closed := refusal_of_closed(database, place.container, done.err):
        raise closed
    if done.rc != 0 or not schema.endswith(f"{_DUMPED}\n"):
        raise DasTernError([
            f"Database {database} could not be backed up: {done.last_words or 'it was ended from outside'}.{why(done.err)}",
            *(in_the_way(place.superuser, database) if why(done.err) else []),
        ])  # fmt: skip
    return of_snapshot(database, lines_of(counted), schema.removesuffix(f"{_DUMPED}\n"))


def _synced(folder: Path) -> dict[str, dict[str, Any]]:
    """Sync the files of a backup to disk; return size and SHA-256 of each."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            files[str(path.relative_to(folder))] = _hashed(path, sync=True)
    sync_folder(folder)
    return files


def _hashed(path: Path, *, sync: bool = False) -> dict[str, Any]:
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _misread(place: Place, folder: str, tables: Mapping[str, int]) -> str:
    """Decode all of a backup and count its rows; return what is wrong, or nothing."""
    command = ["bash", "-c", _COUNT, "bash", f"{IN_CONTAINER}/{folder}"]
    done = place.containers.execute(place.container, command, silence=LONGEST)
    if done.rc != 0:
        return f"pg_restore: {done.last_words}"
    rows: dict[str, int] = {}
    for number, _, header in (line.partition(" ") for line in lines_of(done.out)):
        rows[header] = rows.get(header, 0) + int(number)
    routed: dict[str, int] = {}
    for table, expected in tables.items():
        begins = f"COPY {table} ".replace("\n", "\\n")
        own = next((header for header in rows if header.startswith(begins)), None)
        if own is None:
            routed[table] = expected
        elif (held := rows.pop(own)) != expected:
            return f"table {table} has {held} rows in it instead of {expected}"
    # pg_dump routes the rows of a partition through the whole table if that is partitioned by the hash of an enum. Other rows
    # that are left belong to unlogged tables, which nobody counted.
    held, expected = sum(rows.values()), sum(routed.values())
    if held < expected:
        return f"{', '.join(cut(list(routed), 5))} have {held} rows in it instead of {expected}"
    return ""


def fill(
    session: Psql, superuser: Psql, database: str, archive: str, live: str, chosen: Sequence[str] = (),
    *, otherwise: str = AS_SUPERUSER, schema_only: bool = False,
) -> list[RestoreFailure]:  # fmt: skip
    """Restore an archive of pg_dump, at a path of the container, into the new and empty `database`.

    `session` restores; an owner's session can't do what only a superuser may. Extensions that only a superuser can create
    are created beforehand if database `live` has them, as a superuser accepted them there. Anything else that the owner
    can't restore is refused by name before any of the archive runs; `otherwise` says what can be done then.

    Return what the server refused; the rest stands. Rows that depend on another table's rows (a CHECK may read them) are
    tried again after those. Raises `DasTernError`.
    """
    before, data, behind = (_listed(session, archive, f"--section={name}") for name in _SECTIONS)
    if session.user != SUPERUSER:
        before = _without_extensions(session, superuser, database, archive, live, before)
        if beyond := beyond_owner([*before, *data, *behind], session.user):
            more = f" and {len(beyond) - 10} more" if beyond[10:] else ""
            raise DasTernError(
                f"{session.user} owns the database, but not everything in it: {', '.join(beyond[:10])}{more}. Nothing was "
                f"restored. {otherwise}",
                beyond_owner=beyond,
            )
    if chosen:
        data, behind = ([line for line in lines if _wanted(line, chosen)] for lines in (data, behind))
    if schema_only:
        behind = [line for line in behind if not _DERIVED_ROWS.match(line)]
    target = ["--schema-only"] * schema_only + ["-d", conninfo(database, RESTORING), archive]

    def restored(lines: Sequence[str], jobs: int = 2) -> list[RestoreFailure]:
        return _restored(session, [f"--jobs={jobs}", *target], lines) if lines else []

    # Privileges come last: an owner may have taken from itself what a foreign key needs.
    privileges = [line for line in [*before, *data] if _PRIVILEGES.match(line)]
    failures = restored([line for line in before if not _PRIVILEGES.match(line)], jobs=1)
    rows = [line for line in data if _ROWS.match(line)]
    # Two programs instead of one with two processes, which write their messages into each other.
    with ThreadPoolExecutor(2) as both:
        for part in both.map(lambda lines: restored(lines, jobs=1), (rows[::2], rows[1::2])):
            failures += part
    # Large objects, which are created before they are filled, and sequences.
    other = [line for line in data if not _ROWS.match(line) and not _PRIVILEGES.match(line)]
    failures += restored(other, jobs=1)
    failures = _retried(failures, lambda refused: _rows_again(rows, refused), lambda lines: restored(lines, jobs=1))
    last = [line for line in behind if _LAST.match(line)]
    objects = [*privileges, *(line for line in behind if not _LAST.match(line))]
    # Two processes that attach indexes to one partitioned index may deadlock.
    attach = [at for at, line in enumerate(objects) if _ATTACH.match(line)]
    begin, end = (attach[0], attach[-1] + 1) if attach else (0, 0)
    failures += restored(objects[:begin]) + restored(objects[begin:end], jobs=1) + restored(objects[end:])
    # A materialised view may read another through a function, which no list shows.
    failures += _retried(restored(last), lambda refused: _views_again(last, refused), restored)
    if not schema_only:
        analysed = session.execute(
            ["psql", "-Xq", "-v", "VERBOSITY=verbose", "-d", conninfo(database, RESTORING), "-c", "VACUUM (ANALYZE)"],
            silence=LONGEST, settings=_VIEWS,
        )  # fmt: skip
        if analysed.rc:
            failures.append(RestoreFailure(words_of(analysed), "VACUUM (ANALYZE)"))
    return failures


def schema_of_archive(session: Psql, archive: str) -> str:
    """Return the schema that an archive of pg_dump creates, as pg_dump writes it."""
    lines = [line for line in _listed(session, archive) if not _DERIVED_ROWS.match(line)]
    done = session.execute([*_RESTORE, "--schema-only", "-f", "-", archive], "\n".join(lines) + "\n")
    if done.rc:
        raise DasTernError(f"pg_restore: {done.last_words}.", **done.outside)
    return done.out


def partitions(session: Psql, archive: str) -> dict[str, list[str]]:
    """Return the tables below each partitioned table of an archive of pg_dump, including those that are partitioned themselves."""
    lines = [line for line in _listed(session, archive) if _entry(line).startswith("TABLE ATTACH ")]
    sql = session.execute([*_RESTORE, "-f", "-", archive], "\n".join(lines) + "\n").out if lines else ""
    above = {part: whole for whole, part in _ATTACHED.findall(sql)}
    below: dict[str, list[str]] = {whole: [] for whole in above.values()}
    for part in above:
        whole = above.get(part)
        while whole is not None:
            below[whole].append(part)
            whole = above.get(whole)
    return below


def _listed(session: Psql, archive: str, *options: str) -> list[str]:
    """Return the entries of an archive, as `pg_restore --list` writes them."""
    listed = session.execute(["pg_restore", "--list", *options, archive])
    if listed.rc:
        raise DasTernError(f"pg_restore: {listed.last_words}.", **listed.outside)
    return [line for line in lines_of(listed.out) if line and not line.startswith(";")]


def _restored(session: Psql, target: Sequence[str], lines: Sequence[str]) -> list[RestoreFailure]:
    """Restore the entries `lines`; return what the server refused."""
    done = session.execute(
        [*_RESTORE, *target], "\n".join(lines) + "\n", silence=LONGEST, settings={**_VIEWS, "synchronous_commit": "off"}
    )
    failures = failures_of(done.err) if done.rc else []
    if failures is None:
        if limited := refusal_of_limit(done.err, session.container):
            raise limited
        reports = reports_of(done.err)
        raise DasTernError(f"pg_restore: {reports[-1].reason if reports else done.last_words}.", **done.outside)
    return failures


def _retried(
    failures: list[RestoreFailure],
    again: Callable[[list[RestoreFailure]], Mapping[RestoreFailure, Sequence[str]]],
    restore: Callable[[Sequence[str]], list[RestoreFailure]],
) -> list[RestoreFailure]:
    """Restore refused entries again as long as fewer are refused each time; return what stays refused.

    `again` returns those failures that another try may settle, each with the entries to restore.
    """
    while retry := again(failures):
        lines = list(dict.fromkeys(line for lines in retry.values() for line in lines))
        refused = restore(lines)
        failures = [failure for failure in failures if failure not in retry] + refused
        if len(refused) >= len(retry):
            break
    return failures


def _rows_again(lines: Sequence[str], failures: Sequence[RestoreFailure]) -> dict[RestoreFailure, list[str]]:
    """Return the refused rows whose entry is known, because only one entry has the table's name."""
    again = {}
    for failure in failures:
        if failure.table is not None:
            name = re.sub(r"[\n\r]", " ", failure.table)
            own = [line for line in lines if f" {name} " in line]
            if len(own) == 1:
                again[failure] = own
    return again


def _views_again(lines: Sequence[str], failures: Sequence[RestoreFailure]) -> dict[RestoreFailure, list[str]]:
    """Return the materialised views that couldn't be filled, each with the entries of all of them."""
    views = [line for line in lines if _DERIVED_ROWS.match(line)]
    return {failure: views for failure in failures if failure.statement.startswith("REFRESH ")}


def beyond_owner(entries: Sequence[str], owner: str) -> list[str]:
    """Return the entries of an archive's list, without their numbers, that don't belong to `owner`.

    The last word of an entry is its owner; an extension has none, and schema `public` is the database owner's.
    """
    return [
        entry for entry in map(_entry, entries)
        if not entry.endswith((f" {owner}", " pg_database_owner", " ")) and not entry.startswith(("EXTENSION ", "COMMENT - EXTENSION "))
    ]  # fmt: skip


def _without_extensions(
    session: Psql, superuser: Psql, database: str, archive: str, live: str, entries: list[str]
) -> list[str]:
    """Create the extensions that only a superuser can, if they were accepted before; return the other entries."""
    own = [line for line in entries if re.match(r"\d+; \d+ \d+ EXTENSION - ", line)]
    if not own:
        return entries
    sql = session.execute(["pg_restore", "-f", "-", "-L", "/dev/stdin", archive], "\n".join(own) + "\n").out
    accepted = superuser.value(_EXTENSIONS, live) if superuser.has_database(live) else {}
    present = superuser.value("SELECT json_agg(extname) FROM pg_extension", database)
    for quoted in _MADE_EXTENSION.findall(sql):
        plain, into = (re.sub(r'^"|"$', "", name).replace('""', '"') for name in quoted)
        if plain not in superuser.value(_EXTENSIONS, database):
            continue
        if not accepted.get(plain):
            raise DasTernError(
                f"Extension {plain} can only be created by a superuser, and the live database {live} doesn't have it. Nothing was "
                f"restored. To accept it: `docker exec -u postgres -e PGOPTIONS='-c search_path=pg_catalog' "
                f"{quote(superuser.container)} psql -d {quote(live)} -c {quote(f'CREATE EXTENSION {identifier(plain)} SCHEMA public')}`, then run again.",
                extension=plain,
            )
        if plain not in present:
            superuser.create_extension(database, plain, into, session.user)
        ours = (f"EXTENSION - {plain} ", f"COMMENT - EXTENSION {plain} ", f"SCHEMA - {into} ")
        entries = [line for line in entries if not f"{_entry(line)} ".startswith(ours)]
    return entries


def _wanted(line: str, chosen: Sequence[str]) -> bool:
    """Return whether an entry of an archive's list belongs to a restore of the `chosen` tables."""
    entry = _entry(line)
    if entry.startswith("TABLE DATA "):
        # Only the owner follows the name; another table's name may begin with this one.
        prefixes = (f"TABLE DATA {_bare(table)} " for table in chosen)
        return any(entry.startswith(prefix) and " " not in entry[len(prefix) :] for prefix in prefixes)
    return not entry.startswith(("FK CONSTRAINT ", "MATERIALIZED VIEW DATA "))


def _entry(line: str) -> str:
    """Return a line of an archive's list without its numbers. It begins with the kind, which a later name may hold as well."""
    return re.sub(r"^\d+; \d+ \d+ ", "", line)


def _bare(table: str) -> str:
    """Return `schema."a table"` as pg_restore lists it: `schema a table`, with a blank for a line end."""
    names = re.findall(r'"((?:[^"]|"")*)"|([^."]+)', table)
    return re.sub(r"[\n\r]", " ", " ".join(quoted.replace('""', '"') or plain for quoted, plain in names))


def _table(record: Record, census: Census, name: str) -> str:
    """Return the table of a backup that an operator means by `name`."""
    matches = [
        table for table in census.tables if name in (table, table.partition(".")[2], _bare(table).replace(" ", ".", 1))
    ]
    if len(matches) != 1:
        raise DasTernError(
            f"Backup {record.label} has {len(matches) or 'no'} tables `{name}`. Expected one of: {', '.join(census.tables)}."
        )
    return matches[0]


def _major(version: str) -> str:
    return version.partition(".")[0]
