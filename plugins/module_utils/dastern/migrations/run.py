"""Apply one migration, in the way that its statements allow, with its row in the ledger.

Nearly every file runs in one transaction together with its row. Two kinds can't:

- *alone*: a file of one statement that fails inside a transaction (CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM, a
  block that commits). The server reports that, and nothing of the statement remains.
- *own*: a file with BEGIN and COMMIT of its own, as Prisma writes when an enum value is removed.

For these a row without `finished_at` is written before the file runs and finished afterwards, as Prisma does for every
file. A run that is killed in between leaves that row. The next run picks it up if the catalogue shows how far the
migration got (`recover`); the rest is for an operator to resolve.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ..common.commands import playbook
from ..common.migration_files import MigrationFile
from ..common.sql_text import Statement, each_statement, tokens
from ..server.connection import one_message
from .concurrent_indexes import Build, read
from .ledger import Ledger

try:
    import psycopg
    from psycopg import generators, pq
except ImportError:  # `connect` reports it
    pass

# Resets everything that a migration may have left in the session. DISCARD ALL would also release the advisory lock.
CLEAN_SESSION = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "DEALLOCATE ALL; DISCARD TEMP; DISCARD SEQUENCES"
)
# 25001: the statement itself fails; 2D000: a COMMIT or ROLLBACK inside a block or procedure.
_REFUSES_TRANSACTION = ("25001", "2D000")
_CANT_COPY = "moves rows between server and client, which a migration can't feed. Write INSERT statements, or keep the rows in a seed."
_WARNINGS = 20
"""The number of a migration's warnings that are shown."""


class Failure(Exception):
    """A migration that the server refused.

    `done` is the number of its statements that had succeeded, None if that isn't known. `remains` tells in words what
    the migration left behind, '' if nothing. `alone` tells whether it ran outside a transaction.
    """

    def __init__(self, error: psycopg.Error, done: int | None, remains: str, *, alone: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.done = done
        self.remains = remains
        self.alone = alone


class Refused(Exception):
    """A file does something that a migration can't; the message follows the migration's name in a sentence."""


class _StatementError(Exception):
    def __init__(self, error: psycopg.Error, done: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.done = done


def own_transactions(migration: MigrationFile) -> list[Statement]:
    """Return the statements with which a file begins and ends transactions of its own.

    A COMMIT without a BEGIN ends the transaction that the server makes of a whole message: Prisma deploys such files.
    Raises `Refused` for a BEGIN without COMMIT, which loses everything while Prisma reports success, and for other
    transaction control.
    """
    begin: Statement | None = None
    for statement in migration.control:
        if statement.words[0] in ("BEGIN", "START") and begin is None:
            begin = statement
        elif statement.words[0] in ("COMMIT", "END") and not {"CHAIN", "PREPARED"} & set(statement.words):
            begin = None
        else:
            raise Refused(
                f"`{statement.text}` in line {statement.line}: a migration may contain BEGIN and COMMIT, but no other "
                "transaction control."
            )
    if begin is not None:
        raise Refused(
            f"`{begin.text}` in line {begin.line} has no COMMIT: everything after it would be lost without an error."
        )
    return migration.control


def refuse_copy(migration: MigrationFile) -> None:
    """Raise `Refused` for a file that moves rows between server and client."""
    if "copy" not in migration.words or not {"stdin", "stdout"} & migration.words:
        return
    for statement in each_statement(migration.outline.text):
        if statement.words[:1] == ("COPY",) and {"STDIN", "STDOUT"} & _words(statement):
            raise Refused(f"the COPY in line {statement.line} {_CANT_COPY}")


def _words(statement: Statement) -> set[str]:
    return {token.upper() for kind, token, _ in tokens(statement.text) if kind == "word"}


def refuse_psql(migration: MigrationFile) -> None:
    """Raise `Refused` for a file with commands of psql, which the server doesn't know."""
    for offset, command in migration.psql:
        line, _ = migration.places.line_and_column(offset)
        raise Refused(
            f"`{command}` in line {line} is a command of psql, not SQL: neither the server nor Prisma knows it. Remove it, and write what it "
            "includes or sets into the file itself."
        )


class Runner:
    """Applies migrations over one connection whose session holds the migration lock."""

    def __init__(self, connection: psycopg.Connection[Any], ledger: Ledger) -> None:
        self._connection = connection
        self._ledger = ledger
        self._has_ledger = ledger.rows() is not None
        self.notices: list[str] = []
        """Warnings for the operator about migrations that were applied nevertheless."""
        self._warned: list[str] = []
        self._name, self._warnings = "", 0
        connection.add_notice_handler(self._collect)

    def apply(self, migration: MigrationFile) -> float:
        """Apply a migration, write its row, and return the milliseconds taken. Raises `Failure` or `Refused`."""
        began = time.monotonic()
        self._name, self._warned, self._warnings = migration.name, [], 0
        if own_transactions(migration):
            self._own(migration)
        else:
            try:
                self._in_transaction(migration)
            except Failure as failure:
                if failure.error.sqlstate not in _REFUSES_TRANSACTION or _only_statement(migration) is None:
                    raise
                self._warned, self._warnings = [], 0  # the second attempt repeats them
                self._alone(migration, failure.error)
        self._has_ledger = True
        self.heard()
        return round((time.monotonic() - began) * 1000, 1)

    def heard(self) -> list[str]:
        """Return `notices`, extended by the warnings of the current migration."""
        more = [f"and {self._warnings - _WARNINGS} more"] if self._warnings > _WARNINGS else []
        self.notices += [f"Migration {self._name}: WARNING: {text}" for text in [*self._warned, *more]]
        self._warned, self._warnings = [], 0
        return self.notices

    def _collect(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        """Keep the warnings of the server and of the file itself (RAISE WARNING)."""
        # A COMMIT that ends the server's implicit transaction warns that there is none.
        if diagnostic.severity_nonlocalized == "WARNING" and diagnostic.sqlstate != "25P01":
            self._warnings += 1
            if self._warnings <= _WARNINGS:
                self._warned.append(" ".join(str(diagnostic.message_primary).split()))

    def _in_transaction(self, migration: MigrationFile) -> None:
        transaction = None
        try:
            transaction, started_at = self._begin()
            if not self._has_ledger:
                self._ledger.create()
            self._send(migration)
            if not self._ledger.commit_applied(migration, started_at, transaction):
                if self._committed(transaction):
                    raise Refused(
                        "it ended the transaction that it ran in. Its work up to there is committed, its ledger row isn't "
                        "written. Look at what it left, remove the statement that ends the transaction, then run again."
                    )
                raise Refused(
                    "it gave the migration lock away (pg_advisory_unlock_all), and another run had it meanwhile. Nothing of "
                    "the migration remains. Remove that call, then run again."
                )
        except _StatementError as failure:
            raise Failure(failure.error, failure.done, self._committed(transaction)) from None
        except psycopg.Error as error:
            raise Failure(error, None, self._committed(transaction)) from None

    def _begin(self) -> tuple[str, str]:
        """Begin a transaction in a cleaned session; return its id and when it began, in ISO 8601.

        All of that is one message, as a thousand small migrations would multiply each round trip. The lock is taken
        once more, in case the migration before gave it away.
        """
        transaction, started_at, held = one_message(
            self._connection,
            f"{CLEAN_SESSION}; BEGIN; SELECT pg_current_xact_id(), "
            "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), "
            f"({self._ledger.lock.again})::text",
        )
        if held != "true":
            raise Refused(
                "the migration before it gave the migration lock away (pg_advisory_unlock_all, DISCARD ALL), and another "
                "run has it now. Nothing of this migration was done: run again."
            )
        return transaction, started_at

    def _committed(self, transaction: str | None) -> str:
        """Describe what remains if a failed file itself committed the transaction that it ran in; '' if it didn't."""
        if transaction is None or self._connection.closed:
            return ""
        try:
            self._connection.execute("ROLLBACK")
            row = self._connection.execute("SELECT pg_xact_status(%s::xid8)", (transaction,)).fetchone()
        except psycopg.Error:
            return ""
        if row != ("committed",):
            return ""
        return (
            "after it had ended its own transaction: its work up to there is committed, the ledger has no row of it. "
            "Undo that work by hand, and remove the statement that ends the transaction."
        )

    def _own(self, migration: MigrationFile) -> None:
        row = self._start(migration)
        try:
            try:
                self._send(migration)
            except _StatementError as failure:
                done = islice(each_statement(migration.sql), failure.done)
                self._connection.execute("ROLLBACK")
                self._connection.execute(CLEAN_SESSION)
                committed = _committed_by(done)
                if committed is None:
                    self._ledger.forget(row)
                    raise Failure(failure.error, failure.done, "") from None
                self._ledger.record_failed(row, str(failure.error))
                raise Failure(
                    failure.error, failure.done,
                    f"after its own COMMIT in line {committed.line}: the statements up to there are committed, and the migration blocks the rest "
                    f"(P3009). {resolve_words(migration.name)}",
                ) from None  # fmt: skip
            self._connection.execute(CLEAN_SESSION)
            self._ledger.finish(row)
        except psycopg.Error as error:
            raise Failure(error, None, f"and left an unfinished row. {resolve_words(migration.name)}") from None

    def _alone(self, migration: MigrationFile, within: psycopg.Error) -> None:
        """Run a file of one statement outside any transaction; `within` is its error inside a transaction."""
        build = _build_of(migration)
        before = build.invalid(self._connection) if build else []
        row = self._start(migration)
        try:
            if "concurrently" in migration.words:
                # The build waits for old transactions without blocking anybody; cut short, it leaves an INVALID index.
                self._connection.execute("SET lock_timeout = 0")
            try:
                self._send(migration)
            except _StatementError as failure:
                # In a transaction the file got as far as its first COMMIT. If it got no further now, it committed
                # nothing.
                no_further = _where(failure.error) == _where(within)
                if self._may_have_committed(migration) and not no_further:
                    self._ledger.record_failed(row, str(failure.error))
                    raise Failure(
                        failure.error, failure.done, f"and may have committed a part of its work. {resolve_words(migration.name)}"
                    ) from None  # fmt: skip
                left = (
                    self._drop([name for name in build.invalid(self._connection) if name not in before])
                    if build
                    else ""
                )
                self._ledger.forget(row)
                remains = f"and was rolled back. {left}" if left else ""
                if build and build.verb == "DROP" and build.valid(self._connection) is False:
                    remains = "and left the index INVALID; a second run drops it."
                raise Failure(failure.error, failure.done, remains, alone=True) from None
            if build and build.verb == "CREATE" and build.name and build.valid(self._connection) is False:
                self._ledger.forget(row)
                raise Refused(
                    f"the index {build.name} exists already and is INVALID, so that IF NOT EXISTS built none. "
                    f"`DROP INDEX CONCURRENTLY {build.name}`, then run again."
                )
            self._ledger.finish(row)
        except psycopg.Error as error:
            fix = "The next run picks it up." if repeatable(migration) else resolve_words(migration.name)
            raise Failure(error, None, f"and left an unfinished row. {fix}") from None

    def _may_have_committed(self, migration: MigrationFile) -> bool:
        """Return whether a failed file of one statement may have committed a part: a block, call or pending DETACH."""
        statement = _only_statement(migration)
        if statement is None or statement.words[0] in ("DO", "CALL"):
            return True
        pending = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)"
        return "detach" in migration.words and self._connection.execute(pending).fetchone() == (True,)

    def _drop(self, indexes: list[str]) -> str:
        """Drop the indexes that a concurrent build left; return a message about those that couldn't be dropped.

        REINDEX CONCURRENTLY builds the index of a TOAST table, too, whose schema is closed to all but superusers.
        """
        left = []
        for index in indexes:
            try:
                self._connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")  # type: ignore[arg-type]
            except psycopg.errors.InsufficientPrivilege:
                left.append(index)
        return (
            f"It left INVALID indexes that only a superuser can drop: `DROP INDEX {', '.join(left)}`. Until then they only "
            "slow down writes."
            if left
            else ""
        )

    def recover(self, migration: MigrationFile) -> bool:
        """Prepare an interrupted *alone* migration to be applied again and return True; finish its row if it had ended.

        An INVALID index that it left is dropped, and its open row is marked as rolled back.
        """
        build = _build_of(migration)
        if build is not None:
            if build.name is not None:
                valid = build.valid(self._connection)
                if valid is True if build.verb == "CREATE" else valid is None:
                    self._ledger.finish_open(migration.name)
                    return False
            if left := self._drop(build.invalid(self._connection)):
                self.notices.append(f"Migration {migration.name} was interrupted before. {left}")
        self._ledger.roll_back(migration.name)
        return True

    def _start(self, migration: MigrationFile) -> str:
        """Write the row of a migration whose statements can't share a transaction with it; return the row's id."""
        self._begin()
        if not self._has_ledger:
            self._ledger.create()
        row = self._ledger.record_started(migration)
        self._connection.execute("COMMIT")
        self._has_ledger = True
        return row

    def _send(self, migration: MigrationFile) -> None:
        """Send the whole file as one simple query, as Prisma does.

        The results are read one by one, so that the number of statements before a failure is known, and none is kept:
        a file may have a million.
        """
        pgconn = self._connection.pgconn
        pgconn.send_query(migration.content)
        self._connection.wait(generators.send(pgconn))
        failure: _StatementError | None = None
        done = 0
        try:
            while (result := self._result(pgconn)) is not None:
                if result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH):
                    self._connection.close()
                    raise Refused(f"a COPY {_CANT_COPY}")
                if result.status == pq.ExecStatus.FATAL_ERROR and failure is None:
                    failure = _StatementError(psycopg.errors.error_from_result(result, encoding="utf-8"), done)
                done += 1
        except psycopg.Error:
            # The error that the server sent before it ended the session tells more than the lost connection.
            if failure is None:
                raise
        if failure is not None:
            raise failure

    def _result(self, pgconn: pq.abc.PGconn) -> pq.abc.PGresult | None:
        """Return the next result; wait for it only if it hasn't arrived yet."""
        return self._connection.wait(generators.fetch(pgconn)) if pgconn.is_busy() else pgconn.get_result()


def _committed_by(done: Iterable[Statement]) -> Statement | None:
    """Return the last COMMIT among the executed statements that had something to commit."""
    has_work, last = False, None
    for statement in done:
        has_work = has_work or not statement.transaction_control
        if has_work and statement.transaction_control and statement.words[0] in ("COMMIT", "END"):
            last = statement
    return last


def _where(error: psycopg.Error) -> tuple[str | None, str | None]:
    return error.sqlstate, error.diag.context


def repeatable(migration: MigrationFile) -> bool:
    """Return whether the catalogue shows how far an interrupted run got, or running the file twice does no harm."""
    if not {"concurrently", "vacuum", "analyze"} & migration.words:
        return False
    statement = _only_statement(migration)
    if statement is None:
        return False
    if statement.words[0] in ("VACUUM", "ANALYZE"):
        return True
    build = read(statement)
    # An index that the server names can't be told from one that existed before.
    return build is not None and (build.verb == "REINDEX" or build.name is not None)


def _only_statement(migration: MigrationFile) -> Statement | None:
    """Return the statement of a file with only one; else None."""
    first_two = list(islice(each_statement(migration.outline.text), 2))
    return first_two[0] if len(first_two) == 1 else None


def _build_of(migration: MigrationFile) -> Build | None:
    """Return the index that a file builds or drops concurrently, if the file does nothing else."""
    statement = _only_statement(migration)
    return read(statement) if statement else None


def resolve_words(name: str) -> str:
    """Return the advice for a migration that did a part of its work."""
    return (
        f"Look at what it left behind, then run `{playbook('resolve_migration', rolled_back=name)}` to apply "
        f"it again, or `{playbook('resolve_migration', applied=name)}` if all of it is there."
    )
