"""Pending migrations run on a copy of the live database, and what each statement cost there.

The copy is of the live database or of its newest logical backup. It is made inside the server's container, by pg_dump as
superuser, who sees all, and by pg_restore as the owner, as that evaluates the application's code: CREATE DATABASE ...
TEMPLATE refuses while the application is connected. It is a scratch database and goes as they go.

Only here are files split into statements. All locks of a transaction are held until its end, so that after each statement
pg_locks shows exactly which it added. A file that can't be split is run whole, as `migrate` does, while a second
connection looks at its locks.
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
from .backup import DIRECTORY, applied, listed
from .ledger import Ledger
from .migrate import POLICIES, checked_plan, mend_words, place
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
except ImportError:  # `connect` says so in words
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

# Both exit codes count, and `sh` has no pipefail. What isn't counted (track_counts) calls no autovacuum, which would be in
# the way of what is measured. Without VACUUM the first statement that reads a table would write all of it once more.
_COPY = """
from=$1 to=$2 wait=$3 owner=$4 options=$5 own=$6
shift 6
codes=$( { { pg_dump -Fc --compress=none --no-subscriptions --lock-wait-timeout="$wait" "$@" -d "$from"; echo $? >&3; } |
  { PGUSER=$owner PGOPTIONS=$options pg_restore $own -d "$to" >&2; echo $? >&3; }; } 3>&1 )
PGUSER=$owner PGOPTIONS=$options psql -Xq -d "$to" -c 'VACUUM (ANALYZE)' >/dev/null 2>&1 || true
[ "$(echo $codes)" = '0 0' ]
"""
# Only a superuser makes these; that the live database has them says that one did.
_EXTENSIONS = """
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(x.extname, n.nspname)), '[]') FROM pg_catalog.pg_extension x
JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace
JOIN pg_catalog.pg_available_extension_versions v ON v.name = x.extname AND v.version = x.extversion WHERE v.superuser AND NOT v.trusted
"""
# What belongs to others than the database's owner, as `ALTER ... OWNER TO` names it. The owner's session makes it its own, and
# its code may have changed it since: in the name of a role that is more than the owner (a function with SECURITY DEFINER, a
# view, a rule) it would have that role's rights. So it goes to one that the owner can become anyway, or else to one that has
# none: that predefined role only reserves connections, and nobody logs in as it.
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
# Tables and what reads as one; `relation_name` is what search_path makes of it.
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
    """Rehearse what is pending; the keys of `params` are the options of the module `migration_rehearsal`.

    Returns `changed` (whether the record says something new), `verdict`, `files`, `copy_seconds`, `size` and `lines`; with
    `fail`, a window needed is a failure. Raises `DasTernError`; the copy is gone in every case.
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
            left_out: list[str] = []
            own_pending = []
            for file in pending:
                own_file, left = without_shared(
                    file,
                    _path(params, file),
                    "apply it without a rehearsal, or leave that to provisioning",
                    settings_only=True,
                )
                own_pending.append(own_file)
                left_out += left
            superuser = superuser_there(params, connection, "A copy")
            size = _room(params, superuser)
            of = target(connection, params)
            backup = _newest(params, of[0], plan.applied) if params["source"] == "backup" else None
            since = [
                file for file in files if file.name in plan.applied and backup and file.name not in applied(backup)
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
                told = [f"would be made: a copy of {_named(params, backup, size)}, removed afterwards"]
                told += [f"{file.name} would be rehearsed" for file in pending]
                return {**_nothing(), "changed": known is None, "size": size, "lines": told}
            extensions = [] if params["as_superuser"] else superuser.value(_EXTENSIONS, params["database"])
            if apart := [f"{name} (schema {schema})" for name, schema in extensions if schema != "public"]:
                raise DasTernError(
                    f"Extension {', '.join(apart)} of database {params['database']} can only be made by a superuser, in a schema of its "
                    "own, and the copy is filled by the owner. Nothing was copied. Where you trust whoever could write the "
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
                    refused, without_rows = [str(one) for one in failures], tables_of(failures)
                left_out += [f"the copy is incomplete: {one}" for one in cut(refused, SHOWN)]
                copied = {"copy_seconds": round(time.monotonic() - began, 1), "size": size, "backup": str(backup or "")}
                copy = f"copy of {_named(params, backup, size)} made in {copied['copy_seconds']:.1f} s, removed again"
                connection.execute("SELECT pg_advisory_unlock_all()")
                forget(record)
                try:
                    done = _Rehearsal(own, params, plan.interrupted).run(own_pending, limit)
                except DasTernError as refusal:
                    raise DasTernError([*refusal.message.split("\n"), *left_out], **refusal.facts) from None
    except psycopg.Error as error:
        raise DasTernError(
            f"Rehearsing migrations on a copy of database {params['database']} failed: "
            f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}. The live database was only read."
        ) from None
    result = _result(params, record, pending, done, known, copied, copy, without_rows)
    return {**result, "lines": [*result["lines"], *left_out]}


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
    """Judge, keep the record, and say it; there is no record where the copy is `without_rows` of some tables."""
    said = verdict(done)
    not_measured = (
        f"The copy is without the rows of {', '.join(cut([shown(one) for one in without_rows], SHOWN))}: what the migrations take there isn't "
        "known, and this doesn't count as a rehearsal. Mend what the server refused, or, where you trust whoever could write the "
        "application's functions, fill the copy with a superuser's rights (`-e migrations_rehearsal_as_superuser=true`)."
        if without_rows
        else ""
    )
    # The record of an earlier rehearsal is gone already.
    if not without_rows:
        keep(record, {
            "database": params["database"],
            "schema": params["schema"],
            "backup": copied["backup"],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "verdict": said,
            "reasons": [f"{file.name}: {reason}" for file in done for reason in file.reasons],
            "seconds": round(sum(file.seconds for file in done), 3),
            "migrations": [{"name": file.name, "checksum": file.checksum} for file in pending],
        })  # fmt: skip
    result = {
        **copied,
        "changed": known is not None if without_rows else known is None or known.get("verdict") != said,
        "verdict": said,
        "files": [file.as_dict() for file in done],
        "lines": [
            copy,
            *lines(done),
            f"verdict: {said} (limit {params['limit']})",
            *([not_measured] if not_measured else []),
        ],
        "without_rows": list(without_rows),
    }
    if not_measured and params["fail"]:
        result |= {"failed": True, "msg": not_measured}
    if said == WINDOW and params["fail"]:
        result["failed"] = True
        result["msg"] = "\n".join([
            f"The {len(done)} pending migrations of database {params['database']} need a window:",
            *(shown(f"  {file.name}: {reason}") for file in done for reason in file.reasons),
            "Apply them when the application is stopped, or write them another way (`CREATE INDEX CONCURRENTLY` alone in a "
            "file, `ADD CONSTRAINT ... NOT VALID` and `VALIDATE CONSTRAINT` in two files, rows in batches).",
            *([not_measured] if not_measured else []),
        ])  # fmt: skip
    return result


def _named(params: Mapping[str, Any], backup: Record | None, size: int) -> str:
    return f"the backup {backup}" if backup else f"{params['database']} ({amount(size)})"


def _newest(params: Mapping[str, Any], system: str, names: Sequence[str]) -> Record:
    """The newest backup that has no migration which the live database hasn't."""
    backups = listed(Place(dict(params)), params["database"], system)
    for backup in backups:
        if set(applied(backup)) <= set(names):
            return backup
    raise DasTernError(
        f"{len(backups)} logical backups of database {params['database']} are in {params['backup_dir']}"
        f"{', all with migrations that it no longer has' if backups else ''}: rehearse on a copy of the live one instead "
        "(`-e source=live`)."
    )


def _catch_up(own: psycopg.Connection[Any], params: Mapping[str, Any], since: Sequence[MigrationFile]) -> None:
    """Apply what the live database had applied since the backup."""
    runner = Runner(own, Ledger(own, params["schema"]))
    for file in since:
        try:
            runner.apply(file)
        except (Failure, Refused) as failure:
            said = failure.error.diag.message_primary if isinstance(failure, Failure) else None
            raise DasTernError(
                f"Migration {file.name}, applied since the backup, can't be applied to its copy: "
                f"{said or ' '.join(str(failure).split())}. Rehearse on a copy of the live database (`-e source=live`)."
            ) from None
    own.execute("SELECT pg_advisory_unlock_all()")


def _room(params: Mapping[str, Any], superuser: Psql) -> int:
    """The live database's size, in bytes; refuses where a copy of it could fill the disk, which stops the live server."""
    said = superuser.value(_ROOM.format(database=literal(params["database"])))
    shown = superuser.containers.execute(superuser.container, ["df", "-Pk", said["directory"]])
    try:
        free = int(shown.out.splitlines()[1].split()[3]) * 1024
    except (IndexError, ValueError):
        raise DasTernError(
            f"How much room {said['directory']} has in container {superuser.container} isn't known: df said "
            f"{shown.last_words!r}. Look at the container: `docker exec {quote(superuser.container)} df -Pk`."
        ) from None
    size = int(said["size"])
    # The copy, all of it rewritten once more, and the write-ahead log of both until the next checkpoint.
    needed = 2 * size + min(2 * size, int(said["wal"]))
    if free < needed:
        raise DasTernError(
            f"A copy of database {params['database']} ({amount(size)}) and its rehearsal can take {amount(needed)}, and the "
            f"disk of {said['directory']} in container {superuser.container} has {amount(free)} free: a full disk would stop "
            "the live server. Nothing was copied. Free space there, or rehearse on another server with this data.",
            needed=needed,
            free=free,
        )
    return size


def _words_of(done: Output) -> str:
    """What pg_dump and pg_restore said of a copy that wasn't made, without the rows that stand behind an error of the latter."""
    dump = [line for line in lines_of(done.err) if line.startswith(("pg_dump: error: ", "pg_dump: detail: "))]
    reports = reports_of(done.err)
    return " / ".join(dump[-6:]) or (reports[-1].reason if reports else done.last_words)


def _copy(
    own: psycopg.Connection[Any], params: Mapping[str, Any], superuser: Psql, extensions: Sequence[str]
) -> list[RestoreFailure]:
    """Fill the scratch database with the live one, but for `extensions`, which it has; what the server refused of it."""
    owner = superuser.user if params["as_superuser"] else superuser.as_owner(own.info.user).user
    of_others = [] if params["as_superuser"] else superuser.value(
        _OF_OTHERS.format(owner=literal(owner)), params["database"]
    )  # fmt: skip
    superuser.run(f"ALTER DATABASE {identifier(own.info.dbname)} SET track_counts = off;")
    given = [
        conninfo(params["database"], APPLICATION), conninfo(own.info.dbname, APPLICATION), params["lock_timeout"], owner,
        session_options(owner, synchronous_commit="off"), "" if params["as_superuser"] else "--no-owner",
        *(f"--exclude-extension={identifier(name)}" for name in extensions),
    ]  # fmt: skip
    done = superuser.execute(["sh", "-c", _COPY, "sh", *given], silence=LONGEST)
    refused = failures_of(done.err) if done.rc and "pg_dump: error" not in done.err else []
    if refused is None or (done.rc and not refused):
        raise DasTernError([
            f"Database {params['database']} could not be copied: {_words_of(done)}.{why(done.err)} The copy is removed, the live "
            "database was only read. It is filled with the rights of its owner; what only a superuser can make comes into it with "
            "`-e migrations_rehearsal_as_superuser=true`, where you trust whoever could write the application's functions.",
            *(in_the_way(superuser, params["database"]) if why(done.err) else []),
        ])  # fmt: skip
    superuser.run("".join(f"{one};\n" for one in of_others), own.info.dbname)
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
        """The tables that the live database has: what a lock on another one blocks isn't there yet."""
        self._nodes: dict[int, tuple[int, int]] = {}
        self._look()
        self._names = {oid: name for oid, name, _, _ in self._tables()}

    def run(self, files: Sequence[MigrationFile], limit: float) -> list[Rehearsed]:
        """All files in order; raises `DasTernError` with the first failure."""
        done = []
        for file in files:
            one = self._file(file)
            one.judge(limit)
            done.append(one)
        return done

    def _file(self, file: MigrationFile) -> Rehearsed:
        one = Rehearsed(file.name, file.checksum)
        grown, sizes = self._size(), self._sizes()
        try:
            # Of an interrupted one only the end of its row may have been missing.
            if file in self._interrupted and not Runner(self._own, self._ledger).recover(file):
                return one
            groups = _transactions(file)
            if groups is None or not self._split(one, file, groups):
                self._whole(one, file)
        except Failure as failure:
            raise self._failure(failure, file, whole=not one.split) from None
        except Refused as refused:
            raise DasTernError(f"Rehearsal of migration {file.name}: {_path(self._params, file)}: {refused}") from None
        self._own.execute(f"{CLEAN_SESSION}; SELECT {self._ledger.lock.again}")  # type: ignore[arg-type]
        one.seconds = round(one.seconds, 3)
        after = self._sizes()
        changes = {name: after.get(name, 0) - sizes.get(name, 0) for name in sorted({*after, *sizes})}
        one.sizes = {name: change for name, change in changes.items() if change}
        one.grown = self._size() - grown
        return one

    def _split(self, one: Rehearsed, file: MigrationFile, groups: list[list[Statement]]) -> bool:
        """Statement by statement; False where the first transaction fails, which leaves nothing behind."""
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
            one.steps += steps
            one.seconds += steps[0].held if steps else 0.0
        return True

    def _transaction(self, group: list[Statement], steps: list[Step]) -> None:
        """Run it, and append each statement's step once the statement has ended."""
        self._own.execute("BEGIN")
        strongest: dict[int, int] = {}
        # The server's counters may still hold those of the transaction before.
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
        """Put into `step` the rows that it changed, and with `moved` those that now are in another file (relfilenode)."""
        now = {}
        for oid, node, rows, *counts in self._own.execute(_COUNTS, (list(self._names),)).fetchall():
            former, there = self._nodes.get(oid, (node, rows))
            if moved and node != former and there > 0:
                step.rewritten[self._names[oid]] = there
            self._nodes[oid], now[oid] = (node, rows), counts
            more = [new - old for new, old in zip(counts, before.get(oid, (0, 0, 0)), strict=True)]
            changed = {
                what: count for what, count in zip(("inserted", "updated", "deleted"), more, strict=True) if count > 0
            }
            if changed:
                step.changed_rows[self._names[oid]] = changed
        return now

    def _whole(self, one: Rehearsed, file: MigrationFile) -> None:
        """As `migrate` runs it, with its row in the copy's ledger; its locks are seen from beside."""
        one.split = False
        self._look()
        before = dict(self._nodes)
        found = statements(file.sql)
        step = Step(found[0].line if found else 1, found[0].text if len(found) == 1 else "the whole file", 0.0)
        with self._watched(step):
            milliseconds = Runner(self._own, self._ledger).apply(file)
        self._look()
        step.seconds = step.held = one.seconds = milliseconds / 1000
        for oid, (node, rows) in before.items():
            now = self._nodes.get(oid, (node, rows))[0]
            if oid in self._names and now != node and rows > 0:
                step.rewritten[self._names[oid]] = rows
        one.steps.append(step)

    @contextmanager
    def _watched(self, step: Step) -> Iterator[None]:
        """Look every 20 ms from a second connection which locks the first one holds, from first seen to last."""
        pid, over = self._own.info.backend_pid, threading.Event()
        seen: dict[tuple[int, str], list[float]] = {}

        def watch(connection: psycopg.Connection[Any]) -> None:
            try:
                while not over.wait(0.02):
                    for key in connection.execute(_LOCKS, (pid, list(self._names))).fetchall():
                        now = time.monotonic()
                        seen.setdefault((key[0], key[1]), [now, now])[1] = now
            except psycopg.Error:
                pass  # the copy goes away with the run that failed

        with connect({**self._params, "database": self._own.info.dbname}, APPLICATION) as beside:
            thread = threading.Thread(target=watch, args=(beside,))
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
            # The server counts in what it was sent, which was this statement alone.
            position = str(int(position) + statements(file.sql)[failure.done].start)
        where, statement = place(file.sql, position, failure.done)
        words = [
            f"Migration {file.name} fails (P3018) on a copy of database {self._params['database']}. The live database was only "
            "read, the copy is removed.",
            f"  file:       {_path(self._params, file)}" + (f", line {where['line']}" if "line" in where else ""),
        ]
        if statement:
            words.append(f"  statement:  {' '.join(statement.text.split())[:300]}")
        words.append(
            f"  error:      {error.sqlstate or 'connection lost'}: {diag.message_primary or ' '.join(str(error).split())}"
        )
        words += [
            f"  {label + ':':<11} {' / '.join(more.splitlines())}"
            for label, more in (("detail", detail_of(error)), ("hint", diag.message_hint), ("context", diag.context))
            if more
        ]
        words.append(mend_words(failure) or "Mend the file, or the rows that it stumbles over; then run again.")
        return DasTernError(words, failed_migration=file.name, sqlstate=error.sqlstate or "", code="P3018", **where)

    def _look(self) -> None:
        """Where each table's rows are, and how many."""
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
    """The file's statements by transaction, without BEGIN and COMMIT; None where it moves rows by COPY.

    In one simple query a BEGIN goes on in the transaction that is there, and what follows a COMMIT begins the next.
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
