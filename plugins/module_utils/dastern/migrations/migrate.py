"""Bring a schema forward: all pending migrations over one connection, each in one transaction with its ledger row.

Prisma sends a file first and writes its ledger row afterwards, so that the two can disagree after a crash. Here they
can't, and a migration that fails leaves no row behind.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timezone
from itertools import islice
from shlex import quote
from typing import Any

from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.migration_files import ARGUMENT_SPEC as FOLDER
from ..common.migration_files import SCRIPT, MigrationFile, of_params
from ..common.quantities import cut
from ..common.sql_text import Statement, each_statement, line_and_column
from ..common.sql_values import duration, identifier
from ..server.advisory_lock import Held, who
from ..server.blockers import Blockers
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect, detail_of
from .guards import ARGUMENT_SPEC as GUARDS
from .guards import refusals, time_of_day
from .ledger import Ledger, Row
from .new_migration import why_empty
from .plan import Plan, make_plan, reset_words
from .rehearsal_record import target
from .run import Failure, Refused, Runner, own_transactions, refuse_copy, refuse_psql, resolve_words

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

APPLICATION = "das-tern migrate"
POLICIES = ["fail", "warn", "ignore"]
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    "state": {"type": "str", "choices": ["latest", "status", "plan"], "default": "latest"},
    **FOLDER,
    **GUARDS,
    "on_edited": {"type": "str", "choices": POLICIES, "default": "fail"},
    "on_missing": {"type": "str", "choices": POLICIES, "default": "fail"},
    "on_out_of_order": {"type": "str", "choices": POLICIES, "default": "warn"},
    "lock_timeout": {"type": "str", "default": "10s"},
    "statement_timeout": {"type": "str", "default": "0"},
    "transaction_timeout": {"type": "str", "default": "0"},
    "lock_wait": {"type": "int", "default": 300},
    "lock_retries": {"type": "int", "default": 0},
    "assume_empty": {"type": "bool", "default": False},
    "exit_code": {"type": "bool", "default": False},
    "allow_empty": {"type": "bool", "default": False},
    "environment": {"type": "str", "default": ""},
    "lint": {"type": "str", "choices": ["warn", "fail", "off"], "default": "warn"},
    "backup": {"type": "bool", "default": False},
    "backup_dir": {"type": "path", "default": ""},
    "backup_keep": {"type": "int", "default": 5},
    "backup_drill": {"type": "bool", "default": False},
    "config_dir": {"type": "path", "default": ""},
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "default": ""},
}
ADVICE = {
    "25001": "This command (CONCURRENTLY, VACUUM and the like) refuses to run inside a transaction. Put it alone into a "
    "migration of its own: such a file runs outside a transaction.",
    "2D000": "A COMMIT or ROLLBACK in a DO block or procedure works only where no transaction surrounds it. Put that block "
    "alone into a migration of its own: such a file runs outside a transaction.",
    "3F000": "`migrations_schema` names a schema that doesn't exist: create it (`CREATE SCHEMA`), or correct the variable.",
    "57P01": "The server was stopped, or somebody ended this session. Run again when the server is back.",
    "55P04": "A new enum value can be used only after it was committed: move its use to a migration of its own.",
    "55P03": "Another session holds the lock that this statement needs for longer than `migrations_lock_timeout`. "
    "Run again when that session is done (`SELECT pg_terminate_backend(PID)`, as its user or a superuser, ends a forgotten one), "
    "or raise that variable.",
    "40P01": "This session and another waited for each other, and the server cancelled this session's statement. Run again.",
    "57014": "The statement ran longer than `migrations_statement_timeout`: raise it, or split the work.",
    "25P04": "The migration's transaction lasted longer than `migrations_transaction_timeout`: raise it, or split the work.",
    "53100": "The disk of the data volume is full: free space there, then run again.",
    "42501": "The role that migrates lacks a privilege: grant it, or let a superuser do this step.",
}

_ADVICE_ALONE = {
    "25001": "A block, function or procedure can't run this command. Write it as a statement of its own, alone in a migration: such a "
    "file runs outside a transaction.",
    "2D000": "A block with an EXCEPTION clause can't commit, nor can a procedure that it or a query calls. Take the COMMIT out of the "
    "part that EXCEPTION guards.",
}
"""The advice for statements that fail outside a transaction as well."""


_TIMEOUTS = ("lock_timeout", "statement_timeout", "transaction_timeout")


def migrate(params: dict[str, Any], *, check_mode: bool = False, diff: bool = False) -> dict[str, Any]:
    """Apply the pending migrations; the keys of `params` are the options of the module `migration`.

    Returns the module's result. If another session holds the migration lock and `lock_wait` is 0, returns
    `locked_by` and changes nothing. Raises `DasTernError`.
    """
    check_mode = check_mode or params["state"] == "plan"
    files = of_params(params)
    if params["state"] == "status":
        return _status(params, files)
    settings = {name: duration(f"migrations_{name}", params[name]) for name in _TIMEOUTS}
    if params["assume_empty"]:
        if not check_mode:
            raise DasTernError(
                "`assume_empty` is true without check mode; it is only for planning. Run with `--check`."
            )
        plan = make_plan(files, [])
        reasons = refusals(params, plan, time_of_day(None), None)
        if problems := _unfit(params, plan):
            raise DasTernError([*problems, *reasons], **_names(params, plan))
        return _planned(params, plan, diff, reasons)
    if check_mode:
        settings["default_transaction_read_only"] = "on"
    with _session(params, settings) as connection:
        ledger = Ledger(connection, params["schema"])

        def guards(plan: Plan) -> list[str]:
            return refusals(params, plan, time_of_day(connection), target(connection, params)) if plan.pending else []

        def guard(plan: Plan) -> None:
            if reasons := guards(plan):
                raise DasTernError([*reasons, "Nothing was applied."], **_names(params, plan))

        plan = checked_plan(params, ledger, files, locked=False, guards=guards)
        if check_mode:
            return _planned(params, plan, diff, guards(plan))
        guard(plan)
        # An unfinished row that passed the check belongs to another run, which is in progress.
        if not plan.pending and not plan.failed:
            return _result(params, plan, [])
        try:
            waited_for = _lock(ledger, params["lock_wait"])
        except Held as held:
            return {"changed": False, "locked_by": held.holder}
        plan = checked_plan(params, ledger, files, locked=True, guards=guards)
        guard(plan)  # the wait for the lock may have been long
        if backup := _backed_up(params, connection, plan):
            guard(plan)
        runner = Runner(connection, ledger)
        try:
            with Blockers(params, connection.info.backend_pid, params["lock_timeout"]) as blockers:
                applied = _apply(runner, plan, params, blockers)
        except DasTernError as failure:
            failure.facts.update(backup)
            raise
    result = {**_result(params, plan, applied), **backup}
    result["notices"] += runner.notices
    lock = {"waited_for": waited_for} if waited_for else {}
    return {**result, **lock, **(_diff(plan) if diff else {})}


@contextmanager
def _session(params: dict[str, Any], settings: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """Connect for the schema; turn errors of the server outside a migration's own file into a `DasTernError`."""
    # Half a million notices cost more than the migration that sends them, and nobody reads them.
    session = {"search_path": identifier(params["schema"]), "client_min_messages": "warning", **settings}
    with connect(params, APPLICATION, session) as connection:
        connection.prepare_threshold = None  # psycopg wouldn't notice that DEALLOCATE ALL drops its statements
        try:
            yield connection
        except psycopg.Error as error:
            advice = ADVICE.get(error.sqlstate or "", "`ansible-playbook playbooks/status.yml` shows the server.")
            if isinstance(error, (psycopg.errors.UndefinedColumn, psycopg.errors.WrongObjectType)):
                advice = "Its _prisma_migrations isn't as Prisma creates it: `migrations_schema` or `postgres_database` may be wrong."
            raise DasTernError(
                f"Reading the ledger of schema {params['schema']} in database {params['database']} failed: "
                f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}. {advice}",
                sqlstate=error.sqlstate,
            ) from None


def _status(params: dict[str, Any], files: list[MigrationFile]) -> dict[str, Any]:
    """Return which migrations are applied, pending and wrong; report findings and an unreachable server."""
    try:
        with _session(params, {"default_transaction_read_only": "on"}) as connection:
            ledger = Ledger(connection, params["schema"])
            rows = ledger.rows()
            holder = ledger.lock.holder()
            tables = ledger.tables() if rows is None else []
    except DasTernError as error:
        # A server that refuses a query is reachable.
        reachability = (
            {"reachable": True, "unreadable": error.message} if error.facts.get("sqlstate") else {"reachable": False}
        )
        return {
            "changed": False,
            **reachability,
            "message": error.message,
            **error.facts,
            "files": [file.name for file in files],
        }
    plan = make_plan(files, rows or [])
    names = _names(params, plan)
    # An unfinished migration is running while somebody holds the migration lock.
    running = {"running": plan.failed, "failed_before": []} if holder and plan.failed else {}
    return {
        "changed": False, "reachable": True, "locked_by": holder, "history": _history(rows or [], holder is not None),
        "tables_without_ledger": len(tables), **names, **running,
    }  # fmt: skip


def _history(rows: list[Row], held: bool) -> list[dict[str, Any]]:
    """Return each row of the ledger: name, state, when it ended or began, and the seconds that it ran.

    While somebody holds the lock (`held`), unfinished migrations are running.
    """
    unfinished = "running" if held else "failed"
    return [
        {
            "name": row.name,
            "state": "rolled back" if row.rolled_back_at else unfinished if row.failed else "applied",
            "at": (row.rolled_back_at or row.finished_at or row.started_at)
            .astimezone(timezone.utc)
            .isoformat(timespec="seconds"),
            # `resolve --applied` writes a row with logs that aren't NULL; then nothing ran.
            "seconds": (row.finished_at - row.started_at).total_seconds()
            if row.finished_at and row.logs is None
            else None,
        }
        for row in rows
    ]


def checked_plan(
    params: dict[str, Any],
    ledger: Ledger,
    files: list[MigrationFile],
    *,
    locked: bool,
    guards: Callable[[Plan], list[str]] = lambda plan: [],
) -> Plan:
    """Return the plan, or refuse with all problems at once, including those that `guards` report.

    Without the lock another run may begin or end between two queries, so that their answers don't fit together: only
    problems that a second look still finds are refused.
    """
    plan, problems = _look(params, ledger, files, locked=locked)
    if problems and not locked:
        plan, problems = _look(params, ledger, files, locked=locked)
    if problems:
        raise DasTernError([*problems, *guards(plan)], **_names(params, plan))
    return plan


def _backed_up(params: dict[str, Any], connection: psycopg.Connection[Any], plan: Plan) -> dict[str, Any]:
    """Take the backup before the first statement if the inventory asks for one."""
    if not (params["backup"] and plan.pending):
        return {}
    # Imported here: nearly every run has nothing to back up and shouldn't wait for this import.
    from ..backups.records import MIGRATING
    from .backup import backed_up

    try:
        return backed_up(params, connection, MIGRATING, "Nothing was applied")
    except DasTernError as refusal:
        raise DasTernError(refusal.message, **{**_names(params, plan), **refusal.facts}) from None


def _look(
    params: dict[str, Any], ledger: Ledger, files: list[MigrationFile], *, locked: bool
) -> tuple[Plan, list[str]]:
    """Return the plan and the problems with it, as messages."""
    rows = ledger.rows()
    if rows is None and not ledger.schema_exists():
        raise DasTernError(f"Database {params['database']} has no schema {params['schema']}. {ADVICE['3F000']}")
    plan = make_plan(files, rows or [])
    holder = None if locked else ledger.lock.holder() if plan.failed or plan.pending else None
    problems: list[str] = []
    if plan.failed and holder is None:
        problems += [_failed_refusal(name) for name in plan.failed]
    if rows is None and plan.pending and (tables := ledger.tables()):
        problems.append(
            f"Schema {params['schema']} of database {params['database']} holds {len(tables)} tables "
            f"({', '.join(cut(tables, 5))}) but no ledger _prisma_migrations (P3005): "
            "the migrations that it already has are not known. `ansible-playbook playbooks/baseline.yml` finds out and records it; "
            "or point `postgres_database` at an empty database."
        )
    for finding, names in _findings(plan).items():
        if params[f"on_{finding}"] == "fail":
            problems += _each(names, [_refusal(params, plan, finding, name) for name in names[:3]])
    return plan, [*problems, *_unfit(params, plan)]


def _each(names: list[str], messages: list[str]) -> list[str]:
    """Return `messages` about the first of `names`, and a line that lists the rest."""
    rest = names[len(messages) :]
    return [*messages, f"The same applies to {len(rest)} more: {', '.join(rest)}."] if rest else messages


def _unfit(params: dict[str, Any], plan: Plan) -> list[str]:
    """Return the problems of the pending files themselves, as messages."""
    empty = _empty(params, plan)
    problems = _each(
        [migration.name for migration in empty],
        [
            f"Migration {migration.name} is pending and empty: {path} {why_empty(migration.sql)}. Once applied it could "
            f"never be filled in. Write its statements, or remove its directory (`rm -r {quote(os.path.dirname(path))}`); "
            "`-e migrations_allow_empty=true` applies it as it is."
            for migration in empty[:3]
            for path in [_path(params, migration.name)]
        ],
    )
    for migration in plan.pending:
        try:
            own_transactions(migration)
            refuse_copy(migration)
            refuse_psql(migration)
        except Refused as refusal:
            problems.append(f"Migration {migration.name}: {_path(params, migration.name)}: {refusal}")
    return problems


def _empty(params: dict[str, Any], plan: Plan) -> list[MigrationFile]:
    """Return the pending migrations without a statement, unless `allow_empty` lets them pass."""
    return [] if params["allow_empty"] else [migration for migration in plan.pending if migration.empty]


_REFUSALS = {
    "edited": "Migration {name} was edited after it was applied: the checksum of {path} is not the one in the ledger. "
    "Put the file back as it was (`git log -- {quoted}` shows its history) and write the change as a new migration; "
    "`-e migrations_on_edited=warn` continues regardless.",
    "missing": "Migration {name} is applied in the database, but {path} does not exist. Get the file back (is "
    "`migrations_dir` right, is the checkout current?); `-e migrations_on_missing=warn` continues regardless.",
    "out_of_order": "Migration {name} is pending but older than the newest applied one. Give its directory a newer "
    "timestamp if nobody applied it anywhere yet; `-e migrations_on_out_of_order=warn` applies it now.",
}


def _refusal(params: dict[str, Any], plan: Plan, finding: str, name: str) -> str:
    if finding == "missing" and len(plan.missing) == len(plan.applied) > 1:
        return (
            f"Migration {name} is applied in the database, and like all {len(plan.applied)} applied ones it isn't in "
            f"{params['folder']}: does `migrations_dir` point to the right folder?"
        )
    if finding == "missing" and (file := plan.renamed.get(name)):
        return (
            f"Migration {name} is applied in the database, and its content is in the folder as {file}. If the directory was "
            f"renamed, `{playbook('resolve_migration', adopt=file)}`."
        )
    path = _path(params, name)
    refusal = _REFUSALS[finding].format(name=name, path=path, quoted=quote(path))
    return refusal + (reset_words(params) if finding == "edited" else "")


def _findings(plan: Plan) -> dict[str, list[str]]:
    return {"edited": plan.edited, "missing": plan.missing, "out_of_order": plan.out_of_order}


def _failed_refusal(name: str) -> str:
    return (
        f"Migration {name} failed before and blocks the rest (P3009): the ledger has a row for it that is neither finished "
        f"nor rolled back. {resolve_words(name)}"
    )


def _lock(ledger: Ledger, lock_wait: float) -> dict[str, Any] | None:
    """Take the migration lock; return the session that it waited for. Raises `Held` only if `lock_wait` is 0.

    Closing the connection releases the lock, whatever happens.
    """
    try:
        return ledger.lock.take(lock_wait)
    except Held as held:
        if not lock_wait:
            raise
        raise DasTernError(
            f"The migration lock is still held after {held.seconds:.0f} s (P1002) by {who(held.holder)}. Run again when that "
            "session is done, or raise `migrations_lock_wait`.",
            locked_by=held.holder,
        ) from None


def _apply(runner: Runner, plan: Plan, params: dict[str, Any], blockers: Blockers) -> list[dict[str, Any]]:
    applied: list[dict[str, Any]] = []
    for migration in plan.pending:
        blockers.forget()
        try:
            # An interrupted migration may have lacked only the end of its row.
            due = migration not in plan.interrupted or runner.recover(migration)
            applied.append({"name": migration.name, "ms": _patiently(runner, migration, params) if due else 0.0})
        except Failure as failure:
            raise _failure(failure, migration, plan, applied, params, blockers, runner.heard()) from None
        except psycopg.Error as error:
            # Before a file with its own transactions was sent, or while an interrupted one was picked up.
            raise _failure(
                Failure(error, None, ""), migration, plan, applied, params, blockers, runner.heard()
            ) from None
        except Refused as error:
            raise DasTernError(
                f"Migration {migration.name}: {error}", changed=bool(applied), applied_before=applied
            ) from None
    return applied


def _patiently(runner: Runner, migration: MigrationFile, params: dict[str, Any]) -> float:
    """Apply a migration; if it can't get a lock within `lock_timeout`, let the application pass and try again.

    A deadlock is retried, too, such as that of an index build with a Prisma that waits for the migration lock.
    """
    for retries in range(params["lock_retries"] + 1):
        try:
            return runner.apply(migration)
        except Failure as failure:
            if failure.error.sqlstate not in ("55P03", "40P01") or failure.remains or retries == params["lock_retries"]:
                raise
        time.sleep(min(2**retries, 30))
    raise AssertionError  # the last try returned or raised


def _failure(
    failure: Failure,
    migration: MigrationFile,
    plan: Plan,
    applied: list[dict[str, Any]],
    params: dict[str, Any],
    blockers: Blockers,
    notices: list[str],
) -> DasTernError:
    """Return the server's error together with the file, line and statement."""
    error, done = failure.error, failure.done
    diag = error.diag
    names = plan.pending_names
    rest = names[names.index(migration.name) + 1 :]
    path = _path(params, migration.name)
    facts: dict[str, Any] = {
        "changed": bool(applied),
        "applied_before": applied,
        "failed_migration": migration.name,
        "not_tried": rest,
        "notices": notices,
        "file": path,
        "code": "P3018",
    }
    # A session may end during its COMMIT: then only the ledger knows whether that happened.
    if diag.sqlstate is None or diag.severity_nonlocalized in ("FATAL", "PANIC"):
        lines = [
            f"The connection was lost while migration {migration.name} ran: {' '.join(str(error).split())}",
            f"It ran outside a transaction {failure.remains}"
            if failure.remains
            else "It is either applied whole or not at all: `ansible-playbook playbooks/status.yml` shows the server, "
            "a second run continues where this one stopped.",
        ]
        if diag.sqlstate:
            facts["sqlstate"] = diag.sqlstate
        if advice := advice_for(failure):
            lines.append(advice)
        return DasTernError(lines, **facts)
    where, statement = place(migration.sql, diag.statement_position, done)
    facts.update(sqlstate=diag.sqlstate, **where)
    lines = [
        f"Migration {migration.name} failed (P3018) {failure.remains}"
        if failure.remains
        else f"Migration {migration.name} failed (P3018) and was rolled back: nothing of it remains, and the ledger has no "
        "row of it.",
        f"  file:       {path}" + (f", line {where['line']}" if "line" in where else ""),
        f"  error:      {diag.severity} {diag.sqlstate}: {diag.message_primary}",
    ]
    if statement:
        facts["statement"] = statement.text
        text = " ".join(statement.text.split())
        lines.insert(2, f"  statement:  {text[:300]}{' ...' if len(text) > 300 else ''}")
    for label, value in (("detail", detail_of(error)), ("hint", diag.message_hint), ("context", diag.context)):
        if value:
            facts[label] = value
            lines.append(f"  {label + ':':<11} {' / '.join(value.splitlines())}")
    if diag.sqlstate == "55P03":
        facts["blockers"] = blockers.seen
        lines += blockers.lines
    if diag.sqlstate == "57014" and "timeout" in str(diag.message_primary) and params["statement_timeout"] == "0":
        lines.append(
            "The file, the role or the database sets a statement_timeout of its own: raise that, or split the work."
        )
    elif advice := advice_for(failure):
        lines.append(advice)
    elif not failure.remains:
        lines.append("Fix the file, then run `ansible-playbook migrate.yml` again.")
    lines += [f"  {notice}" for notice in notices]
    lines.append(f"Applied before it in this run: {len(applied)}. Not tried: {len(rest)}.")
    return DasTernError(lines, **facts)


def advice_for(failure: Failure) -> str:
    """Return what to do about an error that the server reports; '' if only the file itself shows it."""
    diag = failure.error.diag
    if missing := re.search(r'extension "([^"]+)" is not available', str(diag.message_primary)):
        return (
            f"The server's image lacks it. Name its package in `postgres_image_packages` (`apt-cache search postgresql-17` lists them), run "
            f"`ansible-playbook playbooks/provision.yml`, then run this again. `pg_available_extensions` shows whether {missing[1]} is there."
        )
    if failure.alone and diag.sqlstate in _ADVICE_ALONE:
        return _ADVICE_ALONE[diag.sqlstate]
    if diag.sqlstate == "57014" and "timeout" not in str(diag.message_primary):
        return ""  # somebody cancelled it
    return ADVICE.get(diag.sqlstate or "", "")


def place(sql: str, position: str | None, done: int | None) -> tuple[dict[str, int], Statement | None]:
    """Find an error's line, column and statement by the server's position (a character, from 1) or by `done`."""
    parsed = each_statement(sql)
    if position is not None:
        offset = int(position) - 1
        line, column = line_and_column(sql, offset)
        return {"line": line, "column": column}, next(
            (entry for entry in parsed if entry.start <= offset <= entry.end), None
        )
    if done is not None and (statement := next(islice(parsed, done, None), None)):
        return {"line": statement.line}, statement
    return {}, None


def _planned(params: dict[str, Any], plan: Plan, diff: bool, guards: list[str]) -> dict[str, Any]:
    """Return the result of check mode; `guards` are the reasons for which the run itself would be refused."""
    due = {"backup_due": params["backup_dir"]} if params["backup"] and plan.pending else {}
    return {**_result(params, plan, None), "refused": guards, **due, **(_diff(plan) if diff else {})}


def _result(params: dict[str, Any], plan: Plan, applied: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return the module's result; without `applied` the plan was not carried out."""
    done = [item["name"] for item in applied or []]
    result = {"changed": bool(plan.pending), "applied_now": applied or [], **_names(params, plan)}
    result["applied"] = sorted([*plan.applied, *done])
    result["pending"] = [name for name in plan.pending_names if name not in done]
    result["notices"] = [
        f"Migration {name} is {finding.replace('_', ' ')} (`migrations_on_{finding}` is warn)"
        for finding, names in _findings(plan).items()
        for name in names
        if params[f"on_{finding}"] == "warn"
    ] + [
        f"Migrations {' and '.join(group)} differ only in case or punctuation: versions of Prisma order them differently"
        for group in plan.look_alikes
    ]
    return result


def _names(params: dict[str, Any], plan: Plan) -> dict[str, Any]:
    return {
        "applied": plan.applied,
        "pending": plan.pending_names,
        "failed_before": plan.failed,
        "interrupted": [migration.name for migration in plan.interrupted],
        "rolled_back": plan.rolled_back,
        "empty": [migration.name for migration in _empty(params, plan)],
        **_findings(plan),
    }


def _diff(plan: Plan) -> dict[str, Any]:
    return {
        "diff": [
            {"before_header": "not applied", "after_header": migration.name, "before": "", "after": migration.sql}
            for migration in plan.pending
        ]
    }


def _path(params: dict[str, Any], name: str) -> str:
    return f"{params['folder']}/{name}/{SCRIPT}"
