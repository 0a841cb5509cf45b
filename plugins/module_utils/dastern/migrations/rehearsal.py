"""Run pending migrations on a copy of the live database and measure the cost of each statement there.

The copy is of the live database or of its newest logical backup. It is made inside the server's container, by pg_dump
as the superuser, who sees everything, and by pg_restore as the owner, because restoring evaluates the application's
code. CREATE DATABASE ... TEMPLATE fails while the application is connected. The copy is a scratch database and is
removed like one.

Only a rehearsal splits files into statements. A transaction holds all its locks until its end, so that after each
statement pg_locks shows exactly which locks it added. A file that can't be split is run whole, as `migrate` does, while
a second connection samples its locks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from ..backups.logical import restore, why
from ..backups.records import WAIT, Place, Record
from ..catalogue.census import lines_of
from ..catalogue.comparison import SHOWN, RestoreFailure, failures_of, reports_of, tables_of
from ..catalogue.scratch import LEFTOVER_AFTER, scratch_database, without_shared
from ..common.errors import DasTernError
from ..common.migration_files import ARGUMENT_SPEC as FOLDER
from ..common.migration_files import LEDGER, SCRIPT, MigrationFile, of_params
from ..common.quantities import amount, cut
from ..common.sql_text import Statement, statements
from ..common.sql_values import duration, identifier, literal, seconds
from ..common.text import shown
from ..docker.containers import Output
from ..server.blockers import in_the_way
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect, conninfo, detail_of
from ..server.psql import LONGEST, Psql, session_options, superuser_there
from .backup import DIRECTORY, listed
from .ledger import Ledger
from .migrate import POLICIES, advice_for, checked_plan, place
from .rehearsal_record import (
    MODES,
    WINDOW,
    Lock,
    Rehearsed,
    Step,
    forget,
    keep,
    lines,
    mode_of,
    record_path,
    rehearsed,
    target,
    verdict,
)
from .run import CLEAN_SESSION, Failure, Refused, Runner

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

APPLICATION = "das-tern rehearsal"
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    **FOLDER,
    "on_edited": {"type": "str", "choices": POLICIES, "default": "fail"},
    "on_missing": {"type": "str", "choices": POLICIES, "default": "fail"},
    "on_out_of_order": {"type": "str", "choices": POLICIES, "default": "warn"},
    "allow_empty": {"type": "bool", "default": False},
    "environment": {"type": "str", "default": ""},
    "lock_timeout": {"type": "str", "default": "10s"},
    "statement_timeout": {"type": "str", "default": "0"},
    "lock_wait": {"type": "int", "default": 300},
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "required": True},
    "config_dir": {"type": "path", "required": True},
    "source": {"type": "str", "choices": ["live", "backup"], "default": "live"},
    "backup_dir": DIRECTORY,
    "limit": {"type": "str", "default": "1s"},
    "fail": {"type": "bool", "default": False},
    "as_superuser": {"type": "bool", "default": False},
}

# Both exit codes count, and `sh` has no pipefail. Without track_counts no autovacuum starts, which would distort the
# measurement. Without VACUUM the first statement that reads a table would write all of it once more.
_COPY = """
from=$1 to=$2 wait=$3 owner=$4 options=$5 own=$6
shift 6
codes=$( { { pg_dump -Fc --compress=none --no-subscriptions --lock-wait-timeout="$wait" "$@" -d "$from"; echo $? >&3; } |
  { PGUSER=$owner PGOPTIONS=$options pg_restore $own -d "$to" >&2; echo $? >&3; }; } 3>&1 )
PGUSER=$owner PGOPTIONS=$options psql -Xq -d "$to" -c 'VACUUM (ANALYZE)' >/dev/null 2>&1 || true
[ "$(echo $codes)" = '0 0' ]
"""
# Only a superuser can create these extensions; since the live database has them, one did.
_EXTENSIONS = """
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(x.extname, n.nspname)), '[]') FROM pg_catalog.pg_extension x
JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace
JOIN pg_catalog.pg_available_extension_versions v ON v.name = x.extname AND v.version = x.extversion WHERE v.superuser AND NOT v.trusted
"""
# Objects that belong to others than the database's owner, as `ALTER ... OWNER TO` names them. In the copy they belong
# to the owner at first, whose code may have changed them since. Given back to a role with more rights than the owner,
# such an object (a function with SECURITY DEFINER, a view, a rule) would run that code with these rights. So it goes to
# its role only if the owner can become that role anyway, and else to a role without rights: the predefined role named
# here only reserves connections, and nobody logs in as it.
_OF_OTHERS = """
SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('ALTER %s %s OWNER TO %I', CASE i.type WHEN 'composite type' THEN 'type'
    WHEN 'statistics object' THEN 'statistics' WHEN 'foreign-data wrapper' THEN 'foreign data wrapper' ELSE i.type END, i.identity,
    CASE WHEN pg_catalog.pg_has_role({owner}, o.owner, 'SET') THEN pg_catalog.pg_get_userbyid(o.owner)
      ELSE 'pg_use_reserved_connections' END) ORDER BY o.class, o.oid), '[]')
FROM (SELECT 'pg_class'::pg_catalog.regclass AS class, oid, relowner AS owner FROM pg_catalog.pg_class
      WHERE relkind IN ('r', 'p', 'v', 'm', 'f') OR (relkind = 'S' AND NOT EXISTS
        (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_class'::pg_catalog.regclass AND objid = pg_class.oid AND deptype IN ('a', 'i')))
  UNION ALL SELECT 'pg_proc'::pg_catalog.regclass, oid, proowner FROM pg_catalog.pg_proc
  UNION ALL SELECT 'pg_type'::pg_catalog.regclass, oid, typowner FROM pg_catalog.pg_type
    WHERE typtype IN ('d', 'e', 'r') OR typtype = 'c' AND EXISTS
      (SELECT FROM pg_catalog.pg_class WHERE pg_class.oid = typrelid AND relkind = 'c')
  UNION ALL SELECT 'pg_namespace'::pg_catalog.regclass, oid, nspowner FROM pg_catalog.pg_namespace
    WHERE nspname NOT LIKE 'pg\\_%'
  UNION ALL SELECT 'pg_statistic_ext'::pg_catalog.regclass, oid, stxowner FROM pg_catalog.pg_statistic_ext
  UNION ALL SELECT 'pg_collation'::pg_catalog.regclass, oid, collowner FROM pg_catalog.pg_collation
  ) AS o, pg_catalog.pg_identify_object(o.class, o.oid, 0) AS i
WHERE o.oid >= 16384 AND pg_catalog.pg_get_userbyid(o.owner) NOT IN ({owner}, 'pg_database_owner') AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
  WHERE classid = o.class AND objid = o.oid AND deptype = 'e')
"""
_ROOM = """
SELECT json_build_object('size', pg_database_size({database}), 'directory', current_setting('data_directory'),
  'wal', pg_size_bytes(current_setting('max_wal_size')))
"""
# Tables and other relations that are read like one, each by its name under the search_path.
_TABLES = """
SELECT c.oid, c.oid::pg_catalog.regclass::text, c.relfilenode, c.reltuples::bigint
FROM pg_catalog.pg_class AS c
WHERE c.relkind IN ('r', 'p', 'm', 'v') AND c.relpersistence <> 't'
  AND c.relnamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace)
  AND NOT (c.relname OPERATOR(pg_catalog.=) %s AND c.relnamespace = pg_catalog.to_regnamespace(%s))
"""
_LOCKS = """
SELECT relation, mode FROM pg_catalog.pg_locks WHERE pid = %s AND granted AND locktype = 'relation'
  AND relation = ANY (%s) AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""
_COUNTS = """
SELECT c.oid, c.relfilenode, c.reltuples::bigint, pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid),
  pg_catalog.pg_stat_get_xact_tuples_updated(c.oid), pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid)
FROM pg_catalog.pg_class AS c WHERE c.oid = ANY (%s)
"""
_SIZES = """
SELECT c.oid::pg_catalog.regclass::text, pg_catalog.pg_total_relation_size(c.oid) FROM pg_catalog.pg_class AS c
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
  AND c.relnamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace,
    'pg_toast'::pg_catalog.regnamespace)
"""


def rehearse(
    params: Mapping[str, Any], *, check_mode: bool = False, leftover_after: float = LEFTOVER_AFTER
) -> dict[str, Any]:
    """Rehearse the pending migrations; the keys of `params` are the options of the module `migration_rehearsal`.

    Returns `changed` (whether the record changes), `verdict`, `files`, `copy_seconds`, `size` and `lines`; with `fail`,
    the verdict that a window is needed is a failure. Raises `DasTernError`; the copy is removed in every case.
    """
    files = of_params(params)
    session: dict[str, str | int] = {"search_path": identifier(params["schema"]), "idle_session_timeout": 0}
    session |= {name: duration(f"migrations_{name}", params[name]) for name in ("lock_timeout", "statement_timeout")}
    limit = seconds("migrations_rehearsal_limit", params["limit"])
    read_only = {"default_transaction_read_only": "on"} if check_mode else {}
    try:
        with connect(dict(params), APPLICATION, {**session, **read_only}) as connection:
            ledger = Ledger(connection, params["schema"])
            plan = checked_plan(dict(params), ledger, files, locked=False)
            if plan.pending and not check_mode and params["source"] == "live":
                # A migration that began during the copy would wait for pg_dump, and the application behind it.
                ledger.hold_lock(params["lock_wait"])
                plan = checked_plan(dict(params), ledger, files, locked=True)
            pending = plan.pending
            if not pending:
                return {**_nothing(), "lines": ["nothing is pending: nothing to rehearse"]}
            omitted: list[str] = []
            rehearsable = []
            for file in pending:
                own_file, notes = without_shared(
                    file,
                    _path(params, file),
                    "apply it without a rehearsal, or leave that to provisioning",
                    settings_only=True,
                )
                rehearsable.append(own_file)
                omitted += notes
            superuser = superuser_there(params, connection, "A copy")
            size = _room(params, superuser)
            of = target(connection, params)
            backup = _newest(params, of[0], plan.applied) if params["source"] == "backup" else None
            since = [
                file for file in files if file.name in plan.applied and backup and file.name not in backup.migrations
            ]
            since = [
                without_shared(file, _path(params, file), "rehearse on a copy of the live database (`-e source=live`)")[
                    0
                ]
                for file in since
            ]
            record = record_path(params["config_dir"], of, pending)
            known = rehearsed(record)
            if check_mode:
                steps = [f"would be made: a copy of {_named(params, backup, size)}, removed afterwards"]
                steps += [f"{file.name} would be rehearsed" for file in pending]
                return {**_nothing(), "changed": known is None, "size": size, "lines": steps}
            extensions = [] if params["as_superuser"] else superuser.value(_EXTENSIONS, params["database"])
            if apart := [f"{name} (schema {schema})" for name, schema in extensions if schema != "public"]:
                raise DasTernError(
                    f"Extension {', '.join(apart)} of database {params['database']} can only be created by a superuser, in a schema of its "
                    "own, and the copy is filled by the owner. Nothing was copied. If you trust everybody who could write the "
                    "application's functions: `-e migrations_rehearsal_as_superuser=true`."
                )
            with scratch_database(
                connection, params, superuser=superuser, settings=session, extensions=extensions,
                leftover_after=leftover_after,
            ) as own:  # fmt: skip
                began = time.monotonic()
                if backup:
                    backups = Place(dict(params))
                    with backups.alone(WAIT, "a rehearsal"):
                        restored = restore(
                            backups,
                            backup,
                            own.info.dbname,
                            session=superuser if params["as_superuser"] else superuser.as_owner(own.info.user),
                        )
                    refused, without_rows = restored.incomplete, restored.without_rows
                    _catch_up(own, params, since)
                else:
                    failures = _copy(own, params, superuser, [name for name, _ in extensions])
                    refused, without_rows = [str(failure) for failure in failures], tables_of(failures)
                omitted += [f"the copy is incomplete: {line}" for line in cut(refused, SHOWN)]
                copied = {"copy_seconds": round(time.monotonic() - began, 1), "size": size, "backup": str(backup or "")}
                copy = f"copy of {_named(params, backup, size)} made in {copied['copy_seconds']:.1f} s, removed again"
                connection.execute("SELECT pg_advisory_unlock_all()")
                forget(record)
                try:
                    done = _Rehearsal(own, params, plan.interrupted).run(rehearsable, limit)
                except DasTernError as refusal:
                    raise DasTernError([*refusal.message.split("\n"), *omitted], **refusal.facts) from None
    except psycopg.Error as error:
        raise DasTernError(
            f"Rehearsing migrations on a copy of database {params['database']} failed: "
            f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}. The live database was only read."
        ) from None
    result = _result(params, record, pending, done, known, copied, copy, without_rows)
    return {**result, "lines": [*result["lines"], *omitted]}


def _nothing() -> dict[str, Any]:
    return {
        "changed": False,
        "verdict": "",
        "files": [],
        "copy_seconds": 0.0,
        "size": 0,
        "backup": "",
        "without_rows": [],
    }


def _result(
    params: Mapping[str, Any],
    record: Path,
    pending: list[MigrationFile],
    done: list[Rehearsed],
    known: Mapping[str, Any] | None,
    copied: Mapping[str, Any],
    copy: str,
    without_rows: Sequence[str],
) -> dict[str, Any]:
    """Judge the rehearsal, write its record, and return the result; write no record if the copy lacks rows."""
    judgement = verdict(done)
    not_measured = (
        f"The copy is without the rows of {', '.join(cut([shown(table) for table in without_rows], SHOWN))}: the cost of the migrations "
        "there isn't known, and this doesn't count as a rehearsal. Fix what the server refused, or, if you trust everybody who "
        "could write the application's functions, fill the copy with a superuser's rights (`-e migrations_rehearsal_as_superuser=true`)."
        if without_rows
        else ""
    )
    # The record of an earlier rehearsal has been removed already.
    if not without_rows:
        keep(record, {
            "database": params["database"],
            "schema": params["schema"],
            "backup": copied["backup"],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "verdict": judgement,
            "reasons": [f"{file.name}: {reason}" for file in done for reason in file.reasons],
            "seconds": round(sum(file.seconds for file in done), 3),
            "migrations": [{"name": file.name, "checksum": file.checksum} for file in pending],
        })  # fmt: skip
    result = {
        **copied,
        "changed": known is not None if without_rows else known is None or known.get("verdict") != judgement,
        "verdict": judgement,
        "files": [file.as_dict() for file in done],
        "lines": [
            copy,
            *lines(done),
            f"verdict: {judgement} (limit {params['limit']})",
            *([not_measured] if not_measured else []),
        ],
        "without_rows": list(without_rows),
    }
    if not_measured and params["fail"]:
        result |= {"failed": True, "msg": not_measured}
    if judgement == WINDOW and params["fail"]:
        result["failed"] = True
        result["msg"] = "\n".join([
            f"The {len(done)} pending migrations of database {params['database']} need a window:",
            *(shown(f"  {file.name}: {reason}") for file in done for reason in file.reasons),
            "Apply them while the application is stopped, or write them differently (`CREATE INDEX CONCURRENTLY` alone in a "
            "file, `ADD CONSTRAINT ... NOT VALID` and `VALIDATE CONSTRAINT` in two files, rows in batches).",
            *([not_measured] if not_measured else []),
        ])  # fmt: skip
    return result


def _named(params: Mapping[str, Any], backup: Record | None, size: int) -> str:
    return f"the backup {backup}" if backup else f"{params['database']} ({amount(size)})"


def _newest(params: Mapping[str, Any], system: str, names: Sequence[str]) -> Record:
    """Return the newest backup whose migrations the live database all has."""
    backups = listed(Place(dict(params)), params["database"], system)
    for backup in backups:
        if set(backup.migrations) <= set(names):
            return backup
    raise DasTernError(
        f"There are {len(backups)} logical backups of database {params['database']} in {params['backup_dir']}"
        f"{', all with migrations that it no longer has' if backups else ''}: rehearse on a copy of the live database "
        "instead (`-e source=live`)."
    )


def _catch_up(own: psycopg.Connection[Any], params: Mapping[str, Any], since: Sequence[MigrationFile]) -> None:
    """Apply the migrations that the live database has applied since the backup."""
    runner = Runner(own, Ledger(own, params["schema"]))
    for file in since:
        try:
            runner.apply(file)
        except (Failure, Refused) as failure:
            message = failure.error.diag.message_primary if isinstance(failure, Failure) else None
            raise DasTernError(
                f"Migration {file.name}, applied since the backup, can't be applied to its copy: "
                f"{message or ' '.join(str(failure).split())}. Rehearse on a copy of the live database (`-e source=live`)."
            ) from None
    own.execute("SELECT pg_advisory_unlock_all()")


def _room(params: Mapping[str, Any], superuser: Psql) -> int:
    """Return the live database's size in bytes; refuse if a copy could fill the disk and stop the live server."""
    server = superuser.value(_ROOM.format(database=literal(params["database"])))
    output = superuser.containers.execute(superuser.container, ["df", "-Pk", server["directory"]])
    try:
        free = int(output.out.splitlines()[1].split()[3]) * 1024
    except (IndexError, ValueError):
        raise DasTernError(
            f"The free space of {server['directory']} in container {superuser.container} isn't known: df reported "
            f"{output.last_words!r}. Look at the container: `docker exec {quote(superuser.container)} df -Pk`."
        ) from None
    size = int(server["size"])
    # The copy, all of it rewritten once more, and the write-ahead log of both until the next checkpoint.
    needed = 2 * size + min(2 * size, int(server["wal"]))
    if free < needed:
        raise DasTernError(
            f"A copy of database {params['database']} ({amount(size)}) and its rehearsal can take {amount(needed)}, and the "
            f"disk of {server['directory']} in container {superuser.container} has {amount(free)} free: a full disk would stop "
            "the live server. Nothing was copied. Free space there, or rehearse on another server with this data.",
            needed=needed,
            free=free,
        )
    return size


def _error_of(done: Output) -> str:
    """Return the errors of pg_dump and pg_restore about a failed copy, without the rows that pg_restore quotes."""
    dump = [line for line in lines_of(done.err) if line.startswith(("pg_dump: error: ", "pg_dump: detail: "))]
    reports = reports_of(done.err)
    return " / ".join(dump[-6:]) or (reports[-1].reason if reports else done.last_words)


def _copy(
    own: psycopg.Connection[Any], params: Mapping[str, Any], superuser: Psql, extensions: Sequence[str]
) -> list[RestoreFailure]:
    """Copy the live database into the scratch one, which has the `extensions`; return what the server refused."""
    owner = superuser.user if params["as_superuser"] else superuser.as_owner(own.info.user).user
    of_others = [] if params["as_superuser"] else superuser.value(
        _OF_OTHERS.format(owner=literal(owner)), params["database"]
    )  # fmt: skip
    superuser.run(f"ALTER DATABASE {identifier(own.info.dbname)} SET track_counts = off;")
    arguments = [
        conninfo(params["database"], APPLICATION), conninfo(own.info.dbname, APPLICATION), params["lock_timeout"], owner,
        session_options(owner, synchronous_commit="off"), "" if params["as_superuser"] else "--no-owner",
        *(f"--exclude-extension={identifier(name)}" for name in extensions),
    ]  # fmt: skip
    done = superuser.execute(["sh", "-c", _COPY, "sh", *arguments], silence=LONGEST)
    refused = failures_of(done.err) if done.rc and "pg_dump: error" not in done.err else []
    if refused is None or (done.rc and not refused):
        raise DasTernError([
            f"Database {params['database']} could not be copied: {_error_of(done)}.{why(done.err)} The copy is removed, the live "
            "database was only read. The copy is filled with the rights of the owner; `-e migrations_rehearsal_as_superuser=true` "
            "includes objects that only a superuser can create: use it if you trust everybody who could write the application's functions.",
            *(in_the_way(superuser, params["database"]) if why(done.err) else []),
        ])  # fmt: skip
    superuser.run("".join(f"{statement};\n" for statement in of_others), own.info.dbname)
    return refused


class _Rehearsal:
    """Files run in the copy over one connection."""

    def __init__(
        self, own: psycopg.Connection[Any], params: Mapping[str, Any], interrupted: Sequence[MigrationFile]
    ) -> None:
        self._own = own
        self._params = params
        self._interrupted = interrupted
        self._ledger = Ledger(own, params["schema"])
        self._ledger.lock.take(0)
        self._names: dict[int, str] = {}
        """The tables of the live database; a lock on any other table blocks nobody yet."""
        self._nodes: dict[int, tuple[int, int]] = {}
        self._look()
        self._names = {oid: name for oid, name, _, _ in self._tables()}

    def run(self, files: Sequence[MigrationFile], limit: float) -> list[Rehearsed]:
        """Run all files in order; raise `DasTernError` with the first failure."""
        done = []
        for file in files:
            result = self._file(file)
            result.judge(limit)
            done.append(result)
        return done

    def _file(self, file: MigrationFile) -> Rehearsed:
        result = Rehearsed(file.name, file.checksum)
        size, sizes = self._size(), self._sizes()
        try:
            # An interrupted migration may have lacked only the end of its row.
            if file in self._interrupted and not Runner(self._own, self._ledger).recover(file):
                return result
            groups = _transactions(file)
            if groups is None or not self._split(result, file, groups):
                self._whole(result, file)
        except Failure as failure:
            raise self._failure(failure, file, whole=not result.split) from None
        except Refused as refused:
            raise DasTernError(f"Rehearsal of migration {file.name}: {_path(self._params, file)}: {refused}") from None
        self._own.execute(f"{CLEAN_SESSION}; SELECT {self._ledger.lock.again}")  # type: ignore[arg-type]
        result.seconds = round(result.seconds, 3)
        after = self._sizes()
        changes = {name: after.get(name, 0) - sizes.get(name, 0) for name in sorted({*after, *sizes})}
        result.sizes = {name: change for name, change in changes.items() if change}
        result.grown = self._size() - size
        return result

    def _split(self, result: Rehearsed, file: MigrationFile, groups: list[list[Statement]]) -> bool:
        """Run statement by statement; return False if the first transaction fails, which leaves nothing behind."""
        for number, group in enumerate(groups):
            steps: list[Step] = []
            try:
                self._transaction(group, steps)
            except psycopg.Error as error:
                if not self._own.closed:
                    self._own.execute("ROLLBACK")
                    if number == 0:
                        return False
                # At the COMMIT no statement is left to name.
                failed = statements(file.sql).index(group[len(steps)]) if len(steps) < len(group) else None
                raise Failure(error, failed, "") from None
            result.steps += steps
            result.seconds += steps[0].held if steps else 0.0
        return True

    def _transaction(self, group: list[Statement], steps: list[Step]) -> None:
        """Run a transaction, and append each statement's step once the statement has ended."""
        self._own.execute("BEGIN")
        strongest: dict[int, int] = {}
        # The server's counters may still include those of the transaction before.
        counts = self._count(Step(0, "", 0.0), {}, moved=False)
        for statement in group:
            began = time.monotonic()
            self._own.execute(statement.text)  # type: ignore[arg-type]
            step = Step(statement.line, statement.text, time.monotonic() - began)
            for oid, mode in self._own.execute(_LOCKS, (self._own.info.backend_pid, list(self._names))).fetchall():
                rank = MODES.index(mode_of(mode))
                if rank > strongest.get(oid, -1):
                    strongest[oid] = rank
                    step.locks = [lock for lock in step.locks if lock.table != self._names[oid]]
                    step.locks.append(Lock(self._names[oid], MODES[rank]))
            counts = self._count(step, counts, moved=statement.words[:1] != ("TRUNCATE",))
            steps.append(step)
        began = time.monotonic()
        self._own.execute("COMMIT")
        held = time.monotonic() - began
        for step in reversed(steps):
            held += step.seconds
            step.held = round(held, 3)
            step.seconds = round(step.seconds, 3)
            for lock in step.locks:
                lock.seconds = step.held

    def _count(self, step: Step, before: Mapping[int, Sequence[int]], *, moved: bool) -> dict[int, Sequence[int]]:
        """Note in `step` the rows that it changed, and with `moved` those that changed their file (relfilenode)."""
        now = {}
        for oid, node, rows, *counts in self._own.execute(_COUNTS, (list(self._names),)).fetchall():
            former_node, former_rows = self._nodes.get(oid, (node, rows))
            if moved and node != former_node and former_rows > 0:
                step.rewritten[self._names[oid]] = former_rows
            self._nodes[oid], now[oid] = (node, rows), counts
            increases = [new - old for new, old in zip(counts, before.get(oid, (0, 0, 0)), strict=True)]
            changed = {
                kind: count
                for kind, count in zip(("inserted", "updated", "deleted"), increases, strict=True)
                if count > 0
            }
            if changed:
                step.changed_rows[self._names[oid]] = changed
        return now

    def _whole(self, result: Rehearsed, file: MigrationFile) -> None:
        """Run the file as `migrate` does, with its row in the copy's ledger; another connection samples its locks."""
        result.split = False
        self._look()
        before = dict(self._nodes)
        parsed = statements(file.sql)
        step = Step(parsed[0].line if parsed else 1, parsed[0].text if len(parsed) == 1 else "the whole file", 0.0)
        with self._watched(step):
            milliseconds = Runner(self._own, self._ledger).apply(file)
        self._look()
        step.seconds = step.held = result.seconds = milliseconds / 1000
        for oid, (node, rows) in before.items():
            now = self._nodes.get(oid, (node, rows))[0]
            if oid in self._names and now != node and rows > 0:
                step.rewritten[self._names[oid]] = rows
        result.steps.append(step)

    @contextmanager
    def _watched(self, step: Step) -> Iterator[None]:
        """Sample the first connection's locks over a second one every 20 ms, and note their time from first to last."""
        pid, over = self._own.info.backend_pid, threading.Event()
        seen: dict[tuple[int, str], list[float]] = {}

        def watch(connection: psycopg.Connection[Any]) -> None:
            try:
                while not over.wait(0.02):
                    for key in connection.execute(_LOCKS, (pid, list(self._names))).fetchall():
                        now = time.monotonic()
                        seen.setdefault((key[0], key[1]), [now, now])[1] = now
            except psycopg.Error:
                pass  # a failed run removes the copy

        with connect({**self._params, "database": self._own.info.dbname}, APPLICATION) as observer:
            thread = threading.Thread(target=watch, args=(observer,))
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
        step.locks = [
            Lock(self._names[oid], mode_of(mode), round(last - first, 3)) for (oid, mode), (first, last) in seen.items()
        ]

    def _failure(self, failure: Failure, file: MigrationFile, *, whole: bool) -> DasTernError:
        error, diag = failure.error, failure.error.diag
        position = diag.statement_position
        if position is not None and not whole and failure.done is not None:
            # The server counts from the beginning of what it was sent, which was this statement alone.
            position = str(int(position) + statements(file.sql)[failure.done].start)
        where, statement = place(file.sql, position, failure.done)
        lines = [
            f"Migration {file.name} fails (P3018) on a copy of database {self._params['database']}. The live database was only "
            "read, the copy is removed.",
            f"  file:       {_path(self._params, file)}" + (f", line {where['line']}" if "line" in where else ""),
        ]
        if statement:
            lines.append(f"  statement:  {' '.join(statement.text.split())[:300]}")
        lines.append(
            f"  error:      {error.sqlstate or 'connection lost'}: {diag.message_primary or ' '.join(str(error).split())}"
        )
        lines += [
            f"  {label + ':':<11} {' / '.join(text.splitlines())}"
            for label, text in (("detail", detail_of(error)), ("hint", diag.message_hint), ("context", diag.context))
            if text
        ]
        lines.append(advice_for(failure) or "Fix the file, or the rows that it fails on; then run again.")
        return DasTernError(lines, failed_migration=file.name, sqlstate=error.sqlstate or "", code="P3018", **where)

    def _look(self) -> None:
        """Note for each table the file of its rows and their number."""
        self._nodes = {oid: (node, rows) for oid, _, node, rows in self._tables()}

    def _tables(self) -> list[tuple[int, str, int, int]]:
        return self._own.execute(_TABLES, (LEDGER, identifier(self._params["schema"]))).fetchall()

    def _sizes(self) -> dict[str, int]:
        return dict(self._own.execute(_SIZES).fetchall())

    def _size(self) -> int:
        row = self._own.execute("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())").fetchone()
        assert row is not None
        return int(row[0])


def _transactions(file: MigrationFile) -> list[list[Statement]] | None:
    """Group the file's statements by transaction, without BEGIN and COMMIT; None if the file moves rows by COPY.

    In one simple query a BEGIN continues the open transaction, and the statement after a COMMIT begins the next one.
    """
    groups: list[list[Statement]] = [[]]
    for statement in statements(file.sql):
        if statement.words[:1] == ("COPY",):
            return None
        if not statement.transaction_control:
            groups[-1].append(statement)
        elif statement.words[0] in ("COMMIT", "END"):
            groups.append([])
    return [group for group in groups if group]


def _path(params: Mapping[str, Any], file: MigrationFile) -> str:
    return f"{params['folder']}/{file.name}/{SCRIPT}"
