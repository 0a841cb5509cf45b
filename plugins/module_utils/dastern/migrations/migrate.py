"""Bring a schema forward: all pending migrations over one connection, each in one transaction with its ledger row.

Differs from Prisma in that: Prisma sends a file first and writes its ledger row afterwards, so that the two can
disagree after a crash. Here they can't, and a migration that fails leaves no row behind.
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
except ImportError:  # `connect` says so in words
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
WORDS_FOR = {
    "25001": "This command (CONCURRENTLY, VACUUM and their like) refuses to run inside a transaction. Put it alone into a "
    "migration of its own: such a file runs outside one.",
    "2D000": "A COMMIT or ROLLBACK in a DO block or procedure works only where no transaction surrounds it: put that block "
    "alone into a migration of its own, such a file runs outside one.",
    "3F000": "`migrations_schema` names a schema that doesn't exist: create it (`CREATE SCHEMA`), or correct the variable.",
    "57P01": "The server was stopped meanwhile, or somebody ended this session: run again when it is back.",
    "55P04": "A new enum value can be used only after it was committed: move its use to a migration of its own.",
    "55P03": "Another session holds the lock that this statement needs for longer than `migrations_lock_timeout`. "
    "Run again when that one is done (`SELECT pg_terminate_backend(PID)`, as its user or a superuser, ends a forgotten one), or "
    "raise that variable.",
    "40P01": "This session and another waited for each other, and the server ended this one's statement. Run again.",
    "57014": "The statement ran longer than `migrations_statement_timeout`: raise it, or split the work.",
    "53100": "The disk of the data volume is full: free space there, then run again.",
    "42501": "The role that migrates lacks a privilege: give it, or have a superuser do this step.",
}

_WORDS_ALONE = {
    "25001": "A block, function or procedure can't run this command. Write it as a statement of its own, alone in a migration: such a "
    "file runs outside a transaction.",
    "2D000": "A block can't commit where it has an EXCEPTION, nor can what is called from there, or from a query. Take the COMMIT out of "
    "the part that EXCEPTION guards.",
}
"""The same for what refuses outside a transaction as well."""


def migrate(params: dict[str, Any], *, check_mode: bool = False, diff: bool = False) -> dict[str, Any]:
    """Apply what is pending; the keys of `params` are the options of the module `migration`.

    Returns the module's result. Where somebody else holds the migration lock and `lock_wait` is 0, returns
    `locked_by` and changes nothing. Raises `DasTernError`.
    """
    check_mode = check_mode or params["state"] == "plan"
    settings = {name: duration(f"migrations_{name}", params[name]) for name in ("lock_timeout", "statement_timeout")}
    files = of_params(params)
    if params["state"] == "status":
        return _status(params, files)
    if params["assume_empty"]:
        if not check_mode:
            raise DasTernError("`assume_empty` is a way to plan: it goes with check mode only.")
        plan = make_plan(files, [])
        refused = refusals(params, plan, time_of_day(None), None)
        if wrong := _unfit(params, plan):
            raise DasTernError([*wrong, *refused], **_names(params, plan))
        return _planned(params, plan, diff, refused)
    if check_mode:
        settings["default_transaction_read_only"] = "on"
    with _session(params, settings) as connection:
        ledger = Ledger(connection, params["schema"])

        def guards(plan: Plan) -> list[str]:
            return refusals(params, plan, time_of_day(connection), target(connection, params)) if plan.pending else []

        def guard(plan: Plan) -> None:
            if found := guards(plan):
                raise DasTernError([*found, "Nothing was applied."], **_names(params, plan))

        plan = checked_plan(params, ledger, files, locked=False, guards=guards)
        if check_mode:
            return _planned(params, plan, diff, guards(plan))
        guard(plan)
        # An unfinished row that was let through is a run of somebody else's, under way at this moment.
        if not plan.pending and not plan.failed:
            return _result(params, plan, [])
        try:
            waited_for = _lock(ledger, params["lock_wait"])
        except Held as held:
            return {"changed": False, "locked_by": held.holder}
        plan = checked_plan(params, ledger, files, locked=True, guards=guards)
        guard(plan)  # the wait may have been long
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
    """A connection for the schema; what the server refuses outside a migration's own file is refused in words."""
    # Half a million notices cost more than the migration that sends them, and nobody reads them.
    session = {"search_path": identifier(params["schema"]), "client_min_messages": "warning", **settings}
    with connect(params, APPLICATION, session) as connection:
        connection.prepare_threshold = None  # DEALLOCATE ALL would leave psycopg believing in its statements
        try:
            yield connection
        except psycopg.Error as error:
            words = WORDS_FOR.get(error.sqlstate or "", "`ansible-playbook playbooks/status.yml` shows the server.")
            if isinstance(error, (psycopg.errors.UndefinedColumn, psycopg.errors.WrongObjectType)):
                words = "Its _prisma_migrations isn't as Prisma makes it: `migrations_schema` or `postgres_database` may be wrong."
            raise DasTernError(
                f"Reading the ledger of schema {params['schema']} in database {params['database']} failed: "
                f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}. {words}",
                sqlstate=error.sqlstate,
            ) from None


def _status(params: dict[str, Any], files: list[MigrationFile]) -> dict[str, Any]:
    """What is applied, pending and wrong; findings are reported, not refused, and so is a server that is away."""
    try:
        with _session(params, {"default_transaction_read_only": "on"}) as connection:
            ledger = Ledger(connection, params["schema"])
            rows = ledger.rows()
            holder = ledger.lock.holder()
            tables = ledger.tables() if rows is None else []
    except DasTernError as error:
        # A server that refuses to be read is there.
        known = (
            {"reachable": True, "unreadable": error.message} if error.facts.get("sqlstate") else {"reachable": False}
        )
        return {
            "changed": False,
            **known,
            "message": error.message,
            **error.facts,
            "files": [file.name for file in files],
        }
    plan = make_plan(files, rows or [])
    names = _names(params, plan)
    # What is unfinished while somebody migrates is what runs at this moment.
    running = {"running": plan.failed, "failed_before": []} if holder and plan.failed else {}
    return {
        "changed": False, "reachable": True, "locked_by": holder, "history": _history(rows or [], holder is not None),
        "tables_without_ledger": len(tables), **names, **running,
    }  # fmt: skip


def _history(rows: list[Row], held: bool) -> list[dict[str, Any]]:
    """Each row of the ledger: name, state, when it ended or began, and for one that ran, the seconds it took.

    While somebody holds the lock, what is unfinished is running.
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
    """The plan, or a refusal that lists at once everything that is wrong and what `guards` say of it.

    Without the lock another run may begin or end between two questions, so that they don't fit together: only what is
    still wrong when they are asked again is refused.
    """
    plan, wrong = _look(params, ledger, files, locked=locked)
    if wrong and not locked:
        plan, wrong = _look(params, ledger, files, locked=locked)
    if wrong:
        raise DasTernError([*wrong, *guards(plan)], **_names(params, plan))
    return plan


def _backed_up(params: dict[str, Any], connection: psycopg.Connection[Any], plan: Plan) -> dict[str, Any]:
    """The backup before the first statement, where the inventory wants one."""
    if not (params["backup"] and plan.pending):
        return {}
    # Imported here: nearly every run has nothing to back up, and shouldn't wait for this.
    from ..backups.records import MIGRATING
    from .backup import backed_up

    try:
        return backed_up(params, connection, MIGRATING, "Nothing was applied")
    except DasTernError as refusal:
        raise DasTernError(refusal.message, **{**_names(params, plan), **refusal.facts}) from None


def _look(
    params: dict[str, Any], ledger: Ledger, files: list[MigrationFile], *, locked: bool
) -> tuple[Plan, list[str]]:
    """The plan, and what is wrong with it in words."""
    rows = ledger.rows()
    if rows is None and not ledger.schema_exists():
        raise DasTernError(f"Database {params['database']} has no schema {params['schema']}. {WORDS_FOR['3F000']}")
    plan = make_plan(files, rows or [])
    holder = None if locked else ledger.lock.holder() if plan.failed or plan.pending else None
    wrong: list[str] = []
    if plan.failed and holder is None:
        wrong += [_failed_refusal(name) for name in plan.failed]
    if rows is None and plan.pending and (tables := ledger.tables()):
        wrong.append(
            f"Schema {params['schema']} of database {params['database']} holds {len(tables)} tables "
            f"({', '.join(cut(tables, 5))}) but no ledger _prisma_migrations (P3005): "
            "which migrations it already has is not known. `ansible-playbook playbooks/baseline.yml` finds out and records it; "
            "or point `postgres_database` at an empty database."
        )
    for finding, names in _findings(plan).items():
        if params[f"on_{finding}"] == "fail":
            wrong += _each(names, [_refusal(params, plan, finding, name) for name in names[:3]])
    return plan, [*wrong, *_unfit(params, plan)]


def _each(names: list[str], words: list[str]) -> list[str]:
    """`words` of the first of `names`, and how many more there are."""
    rest = names[len(words) :]
    return [*words, f"The same of {len(rest)} more: {', '.join(rest)}."] if rest else words


def _unfit(params: dict[str, Any], plan: Plan) -> list[str]:
    """What of the pending files themselves is wrong, in words."""
    empty = _empty(params, plan)
    wrong = _each(
        [migration.name for migration in empty],
        [
            f"Migration {migration.name} is pending and empty: {path} {why_empty(migration.sql)}. Applied like that it could "
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
            wrong.append(f"Migration {migration.name}: {_path(params, migration.name)}: {refusal}")
    return wrong


def _empty(params: dict[str, Any], plan: Plan) -> list[MigrationFile]:
    """Those of the pending migrations that hold no statement and that nobody allowed to."""
    return [] if params["allow_empty"] else [migration for migration in plan.pending if migration.empty]


_REFUSALS = {
    "edited": "Migration {name} was edited after it was applied: the checksum of {path} is not the one in the ledger. "
    "Put the file back as it was (`git log -- {quoted}` shows its history) and write the change as a new migration; "
    "`-e migrations_on_edited=warn` goes on regardless.",
    "missing": "Migration {name} is applied in the database, but {path} does not exist. Get the file back (is "
    "`migrations_dir` right, is the checkout current?); `-e migrations_on_missing=warn` goes on regardless.",
    "out_of_order": "Migration {name} is pending but older than the newest applied one. Give its directory a newer time "
    "stamp if nobody applied it anywhere yet; `-e migrations_on_out_of_order=warn` applies it now.",
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
    words = _REFUSALS[finding].format(name=name, path=path, quoted=quote(path))
    return words + (reset_words(params) if finding == "edited" else "")


def _findings(plan: Plan) -> dict[str, list[str]]:
    return {"edited": plan.edited, "missing": plan.missing, "out_of_order": plan.out_of_order}


def _failed_refusal(name: str) -> str:
    return (
        f"Migration {name} failed before and blocks the rest (P3009): the ledger has a row for it that is neither finished "
        f"nor rolled back. {resolve_words(name)}"
    )


def _lock(ledger: Ledger, lock_wait: float) -> dict[str, Any] | None:
    """Take the migration lock; gives whom it waited for. Raises `Held` only where `lock_wait` is 0.

    Closing the connection gives the lock back, whatever happens.
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
            # Of an interrupted one only the end of its row may have been missing.
            again = migration not in plan.interrupted or runner.recover(migration)
            applied.append({"name": migration.name, "ms": _patiently(runner, migration, params) if again else 0.0})
        except Failure as failure:
            raise _failure(failure, migration, plan, applied, params, blockers, runner.heard()) from None
        except psycopg.Error as error:
            # Before a file of its own transactions was sent, or while an interrupted one was picked up.
            raise _failure(
                Failure(error, None, ""), migration, plan, applied, params, blockers, runner.heard()
            ) from None
        except Refused as error:
            raise DasTernError(
                f"Migration {migration.name}: {error}", changed=bool(applied), applied_before=applied
            ) from None
    return applied


def _patiently(runner: Runner, migration: MigrationFile, params: dict[str, Any]) -> float:
    """Apply a migration; one that can't have its lock within `lock_timeout` lets the application pass, and tries again.

    So does one that was ended in a deadlock, such as of an index with a Prisma that waits for the migration lock.
    """
    for tried in range(params["lock_retries"] + 1):
        try:
            return runner.apply(migration)
        except Failure as failure:
            if failure.error.sqlstate not in ("55P03", "40P01") or failure.remains or tried == params["lock_retries"]:
                raise
        time.sleep(min(2**tried, 30))
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
    """The server's words with file, line and statement around them."""
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
    # The end of a session may have come at its COMMIT: then only the ledger knows whether that was before or after it.
    if diag.sqlstate is None or diag.severity_nonlocalized in ("FATAL", "PANIC"):
        words = [
            f"The connection was lost while migration {migration.name} ran: {' '.join(str(error).split())}",
            f"It ran outside a transaction {failure.remains}"
            if failure.remains
            else "It is either applied whole or not at all: `ansible-playbook playbooks/status.yml` shows the server, "
            "a second run goes on from where this one stopped.",
        ]
        return DasTernError(words, **facts)
    where, statement = place(migration.sql, diag.statement_position, done)
    facts.update(sqlstate=diag.sqlstate, **where)
    words = [
        f"Migration {migration.name} failed (P3018) {failure.remains}"
        if failure.remains
        else f"Migration {migration.name} failed (P3018) and was rolled back: nothing of it remains, no row of it is in the "
        "ledger.",
        f"  file:       {path}" + (f", line {where['line']}" if "line" in where else ""),
        f"  error:      {diag.severity} {diag.sqlstate}: {diag.message_primary}",
    ]
    if statement:
        facts["statement"] = statement.text
        text = " ".join(statement.text.split())
        words.insert(2, f"  statement:  {text[:300]}{' ...' if len(text) > 300 else ''}")
    for label, more in (("detail", detail_of(error)), ("hint", diag.message_hint), ("context", diag.context)):
        if more:
            facts[label] = more
            words.append(f"  {label + ':':<11} {' / '.join(more.splitlines())}")
    if diag.sqlstate == "55P03":
        facts["blockers"] = blockers.seen
        words += blockers.lines
    if diag.sqlstate == "57014" and "timeout" in str(diag.message_primary) and params["statement_timeout"] == "0":
        words.append(
            "The file, the role or the database sets a statement_timeout of its own: raise that, or split the work."
        )
    elif own := mend_words(failure):
        words.append(own)
    elif not failure.remains:
        words.append("Mend the file, then run `ansible-playbook migrate.yml` again.")
    words += [f"  {notice}" for notice in notices]
    words.append(f"Applied before it in this run: {len(applied)}. Not tried: {len(rest)}.")
    return DasTernError(words, **facts)


def mend_words(failure: Failure) -> str:
    """What to do about a failure, by what the server says; '' where only the file itself tells."""
    diag = failure.error.diag
    if missing := re.search(r'extension "([^"]+)" is not available', str(diag.message_primary)):
        return (
            f"The server's image lacks it. Name its package in `postgres_image_packages` (`apt-cache search postgresql-17` lists them), run "
            f"`ansible-playbook playbooks/provision.yml`, then this again. `pg_available_extensions` shows whether {missing[1]} is there."
        )
    if failure.alone and diag.sqlstate in _WORDS_ALONE:
        return _WORDS_ALONE[diag.sqlstate]
    if diag.sqlstate == "57014" and "timeout" not in str(diag.message_primary):
        return ""  # somebody cancelled it
    return WORDS_FOR.get(diag.sqlstate or "", "")


def place(sql: str, position: str | None, done: int | None) -> tuple[dict[str, int], Statement | None]:
    """Line and column of an error, by the server's position (a character, from 1) or by counting statements."""
    found = each_statement(sql)
    if position is not None:
        offset = int(position) - 1
        line, column = line_and_column(sql, offset)
        return {"line": line, "column": column}, next((one for one in found if one.start <= offset <= one.end), None)
    if done is not None and (one := next(islice(found, done, None), None)):
        return {"line": one.line}, one
    return {}, None


def _planned(params: dict[str, Any], plan: Plan, diff: bool, guards: list[str]) -> dict[str, Any]:
    """The result of check mode; `guards` are why the run itself would be refused."""
    due = {"backup_due": params["backup_dir"]} if params["backup"] and plan.pending else {}
    return {**_result(params, plan, None), "refused": guards, **due, **(_diff(plan) if diff else {})}


def _result(params: dict[str, Any], plan: Plan, applied: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The module's result; `applied` None is a plan that was not carried out."""
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
