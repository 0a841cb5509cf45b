"""Bring a schema forward: all pending migrations over one connection, each in one transaction with its ledger row.

Differs from Prisma in that: Prisma sends a file first and writes its ledger row afterwards, so that the two can
disagree after a crash. Here they can't, and a migration that fails leaves no row behind.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from .connection import ARGUMENT_SPEC as CONNECTION
from .connection import connect
from .errors import DasTernError
from .ledger import Ledger
from .migration_files import SCRIPT, MigrationFile
from .migration_plan import Plan, make_plan
from .sql_text import Statement, line_and_column, statements

try:
    import psycopg
    from psycopg import generators, pq
except ImportError:  # `connect` says so in words
    pass

APPLICATION = "das-tern migrate"
POLICIES = ["fail", "warn", "ignore"]
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    "state": {"type": "str", "choices": ["latest", "status", "plan"], "default": "latest"},
    "folder": {"type": "str", "required": True},
    "migrations": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"name": {"type": "str", "required": True}, "sql": {"type": "str", "required": True}},
    },
    "schema": {"type": "str", "default": "public"},
    "on_edited": {"type": "str", "choices": POLICIES, "default": "fail"},
    "on_missing": {"type": "str", "choices": POLICIES, "default": "fail"},
    "on_out_of_order": {"type": "str", "choices": POLICIES, "default": "warn"},
    "lock_timeout": {"type": "str", "default": "10s"},
    "statement_timeout": {"type": "str", "default": "0"},
    "lock_wait": {"type": "int", "default": 300},
    "assume_empty": {"type": "bool", "default": False},
    "lint": {"type": "str", "choices": ["warn", "fail", "off"], "default": "warn"},
}
_DURATION = re.compile(r"\d+ ?(us|ms|s|min|h|d)?")
# What a migration may have left in the session. DISCARD ALL would also give back the advisory lock.
_CLEAN_SESSION = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "DEALLOCATE ALL; DISCARD TEMP; DISCARD SEQUENCES"
)
_WORDS_FOR = {
    "25001": "This command (CONCURRENTLY, VACUUM, DISCARD ALL and their like) refuses to run inside a transaction, and every "
    "migration runs in one together with its ledger row. Leave it out, or apply this one file with "
    "`npx prisma migrate deploy`.",
    "3F000": "`migrations_schema` names a schema that doesn't exist: create it (`CREATE SCHEMA`), or correct the variable.",
    "57P01": "The server was stopped meanwhile: run again when it is back.",
    "55P04": "A new enum value can be used only after it was committed: move its use to a migration of its own.",
    "55P03": "Another session holds the lock that this statement needs for longer than `migrations_lock_timeout`. "
    "Run again when it is quieter, or raise that variable.",
    "57014": "The statement ran longer than `migrations_statement_timeout`: raise it, or split the work.",
    "53100": "The disk of the data volume is full: free space there, then run again.",
    "42501": "The role that migrates lacks a privilege: give it, or have a superuser do this step.",
}


def migrate(params: dict[str, Any], *, check_mode: bool = False, diff: bool = False) -> dict[str, Any]:
    """Apply what is pending; the keys of `params` are the options of the module `migration`.

    Returns the module's result. Where somebody else holds the migration lock and `lock_wait` is 0, returns
    `locked_by` and changes nothing. Raises `DasTernError`.
    """
    check_mode = check_mode or params["state"] == "plan"
    settings = {name: _duration(params, name) for name in ("lock_timeout", "statement_timeout")}
    files = [MigrationFile(item["name"], item["sql"]) for item in params["migrations"]]
    if params["state"] == "status":
        return _status(params, files)
    if params["assume_empty"]:
        if not check_mode:
            raise DasTernError("`assume_empty` is a way to plan: it goes with check mode only.")
        return _planned(params, make_plan(files, []), diff)
    if check_mode:
        settings["default_transaction_read_only"] = "on"
    with _session(params, settings) as connection:
        ledger = Ledger(connection, params["schema"])
        plan = _checked_plan(params, ledger, files, locked=False)
        if check_mode:
            return _planned(params, plan, diff)
        if not plan.pending:
            return _result(params, plan, [])
        with _locked(ledger, params["lock_wait"]) as lock:
            if lock.get("locked_by"):
                return {"changed": False, **lock}
            plan = _checked_plan(params, ledger, files, locked=True)
            applied = _apply(connection, ledger, plan, params)
    return {**_result(params, plan, applied), **lock, **(_diff(plan) if diff else {})}


@contextmanager
def _session(params: dict[str, Any], settings: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """A connection for the schema; what the server refuses outside a migration's own file is refused in words."""
    with connect(params, APPLICATION, {"search_path": _quoted(params["schema"]), **settings}) as connection:
        connection.prepare_threshold = None  # DEALLOCATE ALL would leave psycopg believing in its statements
        try:
            yield connection
        except psycopg.Error as error:
            words = _WORDS_FOR.get(error.sqlstate or "", "`ansible-playbook playbooks/status.yml` shows the server.")
            raise DasTernError(
                f"Reading the ledger of schema {params['schema']} in database {params['database']} failed: "
                f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}. {words}"
            ) from None


def _status(params: dict[str, Any], files: list[MigrationFile]) -> dict[str, Any]:
    """What is applied, pending and wrong; findings are reported, not refused, and so is a server that is away."""
    try:
        with _session(params, {"default_transaction_read_only": "on"}) as connection:
            ledger = Ledger(connection, params["schema"])
            rows = ledger.rows()
            holder = ledger.lock_holder()
    except DasTernError as error:
        return {"changed": False, "reachable": False, "message": error.message, "files": [file.name for file in files]}
    plan = make_plan(files, rows or [])
    return {"changed": False, "reachable": True, "locked_by": holder, **_names(plan)}


def _checked_plan(params: dict[str, Any], ledger: Ledger, files: list[MigrationFile], *, locked: bool) -> Plan:
    """The plan, or a refusal that lists everything that is wrong at once."""
    rows = ledger.rows()
    plan = make_plan(files, rows or [])
    holder = None if locked else ledger.lock_holder() if plan.failed or plan.pending else None
    wrong: list[str] = []
    if plan.failed and holder is None:
        wrong += [_failed_refusal(name) for name in plan.failed]
    if rows is None and plan.pending and (tables := ledger.tables()):
        wrong.append(
            f"Schema {params['schema']} of database {params['database']} holds {len(tables)} tables "
            f"({', '.join(tables[:5])}{', ...' if len(tables) > 5 else ''}) but no ledger _prisma_migrations (P3005): "
            "which migrations it already has is not known. Record those with `npx prisma migrate resolve --applied NAME`, "
            "or point `postgres_database` at an empty database."
        )
    for finding, names in _findings(plan).items():
        if params[f"on_{finding}"] == "fail":
            wrong += [_REFUSALS[finding].format(name=name, path=_path(params, name)) for name in names]
    for migration in plan.pending:
        wrong += _own_transaction(params, migration)
    if wrong:
        raise DasTernError("\n".join(wrong), **_names(plan))
    return plan


_REFUSALS = {
    "edited": "Migration {name} was edited after it was applied: the checksum of {path} is not the one in the ledger. "
    "Put the file back as it was (`git log -- {path}` shows its history) and write the change as a new migration; "
    "`-e migrations_on_edited=warn` goes on regardless.",
    "missing": "Migration {name} is applied in the database, but {path} does not exist. Get the file back (is "
    "`migrations_dir` right, is the checkout current?); `-e migrations_on_missing=warn` goes on regardless.",
    "out_of_order": "Migration {name} is pending but older than the newest applied one. Give its directory a newer time "
    "stamp if nobody applied it anywhere yet; `-e migrations_on_out_of_order=warn` applies it now.",
}


def _findings(plan: Plan) -> dict[str, list[str]]:
    return {"edited": plan.edited, "missing": plan.missing, "out_of_order": plan.out_of_order}


def _failed_refusal(name: str) -> str:
    return (
        f"Migration {name} failed before and blocks the rest (P3009): the ledger has a row for it that is neither finished "
        f"nor rolled back. Look at what it left behind, then `npx prisma migrate resolve --rolled-back {name}` to have it "
        f"applied again, or `--applied {name}` if all of it is there."
    )


def _own_transaction(params: dict[str, Any], migration: MigrationFile) -> list[str]:
    """A refusal for a file that begins or ends a transaction itself, which would end ours unnoticed."""
    if not re.search(r"begin|commit|rollback|abort|transaction|\bend\b", migration.sql, re.IGNORECASE):
        return []
    found = next((one for one in statements(migration.sql) if one.transaction_control), None)
    if found is None:
        return []
    return [
        f"Migration {migration.name} controls transactions itself: `{found.text}` at {_path(params, migration.name)}, line "
        f"{found.line}. Every migration runs in one transaction together with its ledger row. Apply this one file with "
        "`npx prisma migrate deploy`; or, if nobody applied it anywhere yet, remove the statement."
    ]


@contextmanager
def _locked(ledger: Ledger, lock_wait: float) -> Iterator[dict[str, Any]]:
    """Hold the migration lock; yields whom it waited for, or `locked_by` alone if it is held and `lock_wait` is 0."""
    began = time.monotonic()
    pause = 0.05
    holder: dict[str, Any] | None = None
    while not ledger.try_lock():
        holder = ledger.lock_holder() or holder
        waited = time.monotonic() - began
        if holder and not lock_wait:
            yield {"locked_by": holder}
            return
        if lock_wait and waited > lock_wait:
            raise DasTernError(
                f"The migration lock is still held after {waited:.0f} s (P1002) by {who(holder)}. Run again when that "
                "session is done, or raise `migrations_lock_wait`.",
                locked_by=holder,
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)
    waited = round(time.monotonic() - began, 1)
    # Closing the connection gives the lock back, whatever happens.
    yield {"waited_for": {**holder, "seconds": waited}} if holder else {}


def who(holder: dict[str, Any] | None) -> str:
    """A lock's holder in words."""
    if not holder:
        return "a session that is gone by now"
    return f"pid {holder['pid']} ({holder['application_name']}, client {holder['client']}, connected since {holder['since']})"


def _apply(
    connection: psycopg.Connection[Any], ledger: Ledger, plan: Plan, params: dict[str, Any]
) -> list[dict[str, Any]]:
    applied: list[dict[str, Any]] = []
    has_ledger = ledger.rows() is not None
    for migration in plan.pending:
        began = time.monotonic()
        transaction = None
        try:
            transaction, started_at = _begin(connection)
            if not has_ledger:
                ledger.create()
            _run(connection, migration)
            if not ledger.record_applied(migration, started_at, transaction):
                raise _Refused(
                    "it ended the transaction that it ran in. What it did up to there is committed, its ledger row is "
                    f"not written: look at what it left, remove the transaction control from {SCRIPT}, then run again."
                )
            connection.execute("COMMIT")
        except _StatementError as failure:
            kept = _committed(connection, transaction)
            raise _failure(failure.error, failure.done, kept, migration, plan, applied, params) from None
        except psycopg.Error as error:
            kept = _committed(connection, transaction)
            raise _failure(error, None, kept, migration, plan, applied, params) from None
        except _Refused as error:
            raise DasTernError(f"Migration {migration.name}: {error}", applied_before=applied) from None
        has_ledger = True
        applied.append({"name": migration.name, "ms": round((time.monotonic() - began) * 1000, 1)})
    return applied


def _committed(connection: psycopg.Connection[Any], transaction: str | None) -> bool:
    """Whether the transaction that a failed file ran in was committed by that file itself."""
    if transaction is None or connection.closed:
        return False
    try:
        connection.execute("ROLLBACK")
        row = connection.execute("SELECT pg_xact_status(%s::xid8)", (transaction,)).fetchone()
    except psycopg.Error:
        return False
    return row == ("committed",)


class _StatementError(Exception):
    """The server's error while a file ran, and the number of statements that had succeeded before it."""

    def __init__(self, error: psycopg.Error, done: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.done = done


class _Refused(Exception):
    """A file did something that can't be part of a migration."""


def _begin(connection: psycopg.Connection[Any]) -> tuple[str, datetime]:
    """Begin a transaction in a session as good as new; gives its id, and when it began as the ledger keeps times.

    All in one message: a thousand small migrations are a thousand times as many waits for the server.
    """
    cursor = connection.execute(
        f"{_CLEAN_SESSION}; BEGIN; SELECT pg_current_xact_id()::text, date_trunc('milliseconds', clock_timestamp())"
    )
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    assert row is not None
    return row[0], row[1]


def _run(connection: psycopg.Connection[Any], migration: MigrationFile) -> None:
    """Send the whole file as one simple query inside the open transaction, as Prisma does.

    The results are read one by one, so that a failure is known by the number of statements before it.
    """
    pgconn = connection.pgconn
    pgconn.send_query(migration.sql.encode("utf-8"))
    results = connection.wait(generators.execute(pgconn))
    for done, result in enumerate(results):
        if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH):
            connection.close()
            raise _Refused(
                "it moves rows between server and client with COPY, which a migration can't feed. Write INSERT "
                "statements, or keep the rows in a seed. Nothing of it remains."
            )
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise _StatementError(psycopg.errors.error_from_result(result, encoding="utf-8"), done)


def _failure(
    error: psycopg.Error,
    done: int | None,
    committed: bool,
    migration: MigrationFile,
    plan: Plan,
    applied: list[dict[str, Any]],
    params: dict[str, Any],
) -> DasTernError:
    """The server's words with file, line and statement around them."""
    diag = error.diag
    names = plan.pending_names
    rest = names[names.index(migration.name) + 1 :]
    path = _path(params, migration.name)
    facts: dict[str, Any] = {
        "applied_before": applied,
        "failed_migration": migration.name,
        "not_tried": rest,
        "file": path,
        "code": "P3018",
    }
    if diag.sqlstate is None:
        words = [
            f"The connection was lost while migration {migration.name} ran: {' '.join(str(error).split())}",
            "It is either applied whole or not at all: `ansible-playbook playbooks/status.yml` shows the server, "
            "a second run goes on from where this one stopped.",
        ]
        return DasTernError("\n".join(words), **facts)
    where, statement = _place(migration.sql, diag.statement_position, done)
    facts.update(sqlstate=diag.sqlstate, **where)
    words = [
        f"Migration {migration.name} failed (P3018) after it had ended its own transaction: what it did up to there is "
        "committed, no row of it is in the ledger. Undo that by hand, and remove the transaction control."
        if committed
        else f"Migration {migration.name} failed (P3018) and was rolled back: nothing of it remains, no row of it is in the "
        "ledger.",
        f"  file:       {path}" + (f", line {where['line']}" if "line" in where else ""),
        f"  error:      {diag.severity} {diag.sqlstate}: {diag.message_primary}",
    ]
    if statement:
        facts["statement"] = statement.text
        text = " ".join(statement.text.split())
        words.insert(2, f"  statement:  {text[:300]}{' ...' if len(text) > 300 else ''}")
    for label, more in (("detail", diag.message_detail), ("hint", diag.message_hint), ("context", diag.context)):
        if more:
            facts[label] = more
            words.append(f"  {label + ':':<11} {more}")
    mend = "" if diag.sqlstate == "57014" and "timeout" not in str(diag.message_primary) else diag.sqlstate
    words.append(_WORDS_FOR.get(mend, "Mend the file, then run `ansible-playbook migrate.yml` again."))
    words.append(f"Applied before it in this run: {len(applied)}. Not tried: {len(rest)}.")
    return DasTernError("\n".join(words), **facts)


def _place(sql: str, position: str | None, done: int | None) -> tuple[dict[str, int], Statement | None]:
    """Line and column of an error, by the server's position (a character, from 1) or by counting statements."""
    found = statements(sql)
    if position is not None:
        offset = int(position) - 1
        line, column = line_and_column(sql, offset)
        return {"line": line, "column": column}, next((one for one in found if one.start <= offset <= one.end), None)
    if done is not None and done < len(found):
        return {"line": found[done].line}, found[done]
    return {}, None


def _planned(params: dict[str, Any], plan: Plan, diff: bool) -> dict[str, Any]:
    return {**_result(params, plan, None), **(_diff(plan) if diff else {})}


def _result(params: dict[str, Any], plan: Plan, applied: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The module's result; `applied` None is a plan that was not carried out."""
    done = [item["name"] for item in applied or []]
    result = {"changed": bool(plan.pending), "applied_now": applied or [], **_names(plan)}
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


def _names(plan: Plan) -> dict[str, Any]:
    return {
        "applied": plan.applied,
        "pending": plan.pending_names,
        "failed_before": plan.failed,
        "rolled_back": plan.rolled_back,
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


def _duration(params: dict[str, Any], name: str) -> str:
    """PostgreSQL's notation of a time; a bare number is milliseconds."""
    value = str(params[name])
    if not _DURATION.fullmatch(value):
        raise DasTernError(
            f"`migrations_{name}` is {value!r}; wanted is a time as PostgreSQL writes it, such as 500ms, 10s, 5min "
            "(0 switches it off)."
        )
    return value


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
