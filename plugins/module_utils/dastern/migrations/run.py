"""One migration applied, in the way that its statements allow, with its row in the ledger.

Nearly every file runs in one transaction together with its row. Two kinds can't:

- *alone*: a file of one statement that refuses a transaction (CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM, a block
  that commits). It is the server that says so, and nothing of the statement remains.
- *own*: a file with BEGIN and COMMIT of its own, as Prisma writes when an enum value is removed.

For these a row without `finished_at` is written before and finished afterwards, as Prisma does for every file. A run
that is killed in between leaves that row. What can be told from the catalogue is picked up by the next run
(`recover`), the rest is for a person to resolve.
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
except ImportError:  # `connect` says so in words
    pass

# What a migration may have left in the session. DISCARD ALL would also give back the advisory lock.
CLEAN_SESSION = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "DEALLOCATE ALL; DISCARD TEMP; DISCARD SEQUENCES"
)
# 25001: the statement itself; 2D000: a COMMIT or ROLLBACK inside a block or procedure.
_REFUSES_TRANSACTION = ("25001", "2D000")
_CANT_COPY = "moves rows between server and client, which a migration can't feed. Write INSERT statements, or keep the rows in a seed."
_WARNINGS = 20
"""How many warnings of a migration are shown."""


class Failure(Exception):
    """A migration that the server refused.

    `done` is the number of its statements that had succeeded, None where that isn't known; `remains` says in words
    what it left behind, '' if nothing of it remains. `alone` is whether it ran outside a transaction.
    """

    def __init__(self, error: psycopg.Error, done: int | None, remains: str, *, alone: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.done = done
        self.remains = remains
        self.alone = alone


class Refused(Exception):
    """A file did something that can't be part of a migration; its message goes on after the migration's name."""


class _StatementError(Exception):
    def __init__(self, error: psycopg.Error, done: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.done = done


def own_transactions(migration: MigrationFile) -> list[Statement]:
    """The statements of a file that begin and end transactions of its own.

    A COMMIT without a BEGIN ends the transaction that the server makes of what is sent together: Prisma deploys such files.
    Raises `Refused` for a BEGIN without COMMIT, which loses everything while Prisma reports success, and for other control.
    """
    begun: Statement | None = None
    for one in migration.control:
        if one.words[0] in ("BEGIN", "START") and begun is None:
            begun = one
        elif one.words[0] in ("COMMIT", "END") and not {"CHAIN", "PREPARED"} & set(one.words):
            begun = None
        else:
            raise Refused(
                f"`{one.text}` in line {one.line}: of transaction control a migration may hold BEGIN and COMMIT and nothing else."
            )
    if begun is not None:
        raise Refused(
            f"`{begun.text}` in line {begun.line} has no COMMIT: everything after it would be lost without a word."
        )
    return migration.control


def refuse_copy(migration: MigrationFile) -> None:
    """Raise `Refused` for a file that moves rows between server and client."""
    if "copy" not in migration.words or not {"stdin", "stdout"} & migration.words:
        return
    for one in each_statement(migration.outline.text):
        if one.words[:1] == ("COPY",) and {"STDIN", "STDOUT"} & _words(one):
            raise Refused(f"the COPY in line {one.line} {_CANT_COPY}")


def _words(one: Statement) -> set[str]:
    return {token.upper() for kind, token, _ in tokens(one.text) if kind == "word"}


def refuse_psql(migration: MigrationFile) -> None:
    """Raise `Refused` for a file with commands of psql, which the server doesn't know."""
    for offset, command in migration.psql:
        line, _ = migration.places.line_and_column(offset)
        raise Refused(
            f"`{command}` in line {line} is a command of psql, and not SQL: neither the server nor Prisma knows it. Take it out; what it "
            "includes or sets has to stand in the file itself."
        )


class Runner:
    """Applies migrations over one connection whose session holds the migration lock."""

    def __init__(self, connection: psycopg.Connection[Any], ledger: Ledger) -> None:
        self._connection = connection
        self._ledger = ledger
        self._has_ledger = ledger.rows() is not None
        self.notices: list[str] = []
        """What an operator should know of migrations that were applied all the same."""
        self._warned: list[str] = []
        self._name, self._warnings = "", 0
        connection.add_notice_handler(self._heard)

    def apply(self, migration: MigrationFile) -> float:
        """Apply it and write its row; gives milliseconds. Raises `Failure` or `Refused`."""
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
                self._warned, self._warnings = [], 0  # it says all of it again
                self._alone(migration, failure.error)
        self._has_ledger = True
        self.heard()
        return round((time.monotonic() - began) * 1000, 1)

    def heard(self) -> list[str]:
        """Return `notices` with what the migration at hand has warned of."""
        more = [f"and {self._warnings - _WARNINGS} more"] if self._warnings > _WARNINGS else []
        self.notices += [f"Migration {self._name}: WARNING: {text}" for text in [*self._warned, *more]]
        self._warned, self._warnings = [], 0
        return self.notices

    def _heard(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        """Keep what the server, or the file itself by RAISE WARNING, warns of."""
        # A COMMIT that ends what the server made a transaction of warns that there is none.
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
                        "it ended the transaction that it ran in. What it did up to there is committed, its ledger row is "
                        "not written: look at what it left, remove what ends the transaction, then run again."
                    )
                raise Refused(
                    "it gave the migration lock away (pg_advisory_unlock_all), and another run had it meanwhile. Nothing of "
                    "it remains: remove that, then run again."
                )
        except _StatementError as failure:
            raise Failure(failure.error, failure.done, self._committed(transaction)) from None
        except psycopg.Error as error:
            raise Failure(error, None, self._committed(transaction)) from None

    def _begin(self) -> tuple[str, str]:
        """Begin a transaction in a session as good as new; gives its id, and when it began, ISO 8601.

        All in one message: a thousand small migrations are a thousand times as many waits for the server. The lock is
        taken once more, in case the migration before gave it away.
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
                "run has it now. Nothing of this one was done: run again."
            )
        return transaction, started_at

    def _committed(self, transaction: str | None) -> str:
        """Whether the transaction that a failed file ran in was committed by that file itself, in words."""
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
            "after it had ended its own transaction: what it did up to there is committed, no row of it is in the ledger. "
            "Undo that by hand, and remove what ends the transaction."
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
                    f"after its own COMMIT in line {committed.line}: what stands up to there is committed, and it blocks the rest "
                    f"(P3009). {resolve_words(migration.name)}",
                ) from None  # fmt: skip
            self._connection.execute(CLEAN_SESSION)
            self._ledger.finish(row)
        except psycopg.Error as error:
            raise Failure(error, None, f"and left an unfinished row. {resolve_words(migration.name)}") from None

    def _alone(self, migration: MigrationFile, within: psycopg.Error) -> None:
        """Run a file of one statement outside any transaction; `within` is what it failed with in one."""
        build = _build_of(migration)
        before = build.invalid(self._connection) if build else []
        row = self._start(migration)
        try:
            if "concurrently" in migration.words:
                # It waits for old transactions without being in anybody's way; cut short, it leaves an INVALID index.
                self._connection.execute("SET lock_timeout = 0")
            try:
                self._send(migration)
            except _StatementError as failure:
                # In a transaction it got as far as its first COMMIT. No further this time, it committed nothing.
                no_further = _where(failure.error) == _where(within)
                if self._may_have_committed(migration) and not no_further:
                    self._ledger.record_failed(row, str(failure.error))
                    raise Failure(
                        failure.error, failure.done, f"and may have committed a part of its work. {resolve_words(migration.name)}"
                    ) from None  # fmt: skip
                left = (
                    self._drop([one for one in build.invalid(self._connection) if one not in before]) if build else ""
                )
                self._ledger.forget(row)
                remains = f"and was taken back. {left}" if left else ""
                if build and build.verb == "DROP" and build.valid(self._connection) is False:
                    remains = "and left the index INVALID; a second run drops it."
                raise Failure(failure.error, failure.done, remains, alone=True) from None
            if build and build.verb == "CREATE" and build.name and build.valid(self._connection) is False:
                self._ledger.forget(row)
                raise Refused(
                    f"the index {build.name} was there already and is INVALID, so that IF NOT EXISTS built none. "
                    f"`DROP INDEX CONCURRENTLY {build.name}`, then run again."
                )
            self._ledger.finish(row)
        except psycopg.Error as error:
            mend = "The next run picks it up." if repeatable(migration) else resolve_words(migration.name)
            raise Failure(error, None, f"and left an unfinished row. {mend}") from None

    def _may_have_committed(self, migration: MigrationFile) -> bool:
        """Whether a failed file of one statement can have committed a part: a block or call, a pending DETACH."""
        one = _only_statement(migration)
        if one is None or one.words[0] in ("DO", "CALL"):
            return True
        pending = "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhdetachpending)"
        return "detach" in migration.words and self._connection.execute(pending).fetchone() == (True,)

    def _drop(self, indexes: list[str]) -> str:
        """Drop what a concurrent build left; gives in words what couldn't be dropped.

        REINDEX CONCURRENTLY builds the index of a TOAST table, too, whose schema is closed to all but superusers.
        """
        left = []
        for index in indexes:
            try:
                self._connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")  # type: ignore[arg-type]
            except psycopg.errors.InsufficientPrivilege:
                left.append(index)
        return (
            f"It left INVALID indexes that only a superuser can drop: `DROP INDEX {', '.join(left)}`; until then they do "
            "no harm but cost time when rows are written."
            if left
            else ""
        )

    def recover(self, migration: MigrationFile) -> bool:
        """Whether an interrupted *alone* migration can be applied again; if it had ended, its row is finished.

        An INVALID index that it left is dropped, and its open row counts as rolled back.
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
        """Write the row of a migration whose statements can't share a transaction with it; gives the row's id."""
        self._begin()
        if not self._has_ledger:
            self._ledger.create()
        row = self._ledger.record_started(migration)
        self._connection.execute("COMMIT")
        self._has_ledger = True
        return row

    def _send(self, migration: MigrationFile) -> None:
        """Send the whole file as one simple query, as Prisma does.

        The results are read one by one, so that a failure is known by the number of statements before it, and none is kept:
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
            # What the server said before it ended the session says more than that it did.
            if failure is None:
                raise
        if failure is not None:
            raise failure

    def _result(self, pgconn: pq.abc.PGconn) -> pq.abc.PGresult | None:
        """The next result, which is waited for only where it isn't there yet."""
        return self._connection.wait(generators.fetch(pgconn)) if pgconn.is_busy() else pgconn.get_result()


def _committed_by(done: Iterable[Statement]) -> Statement | None:
    """The last COMMIT among statements that ran, before which there was something to commit."""
    something, last = False, None
    for one in done:
        something = something or not one.transaction_control
        if something and one.transaction_control and one.words[0] in ("COMMIT", "END"):
            last = one
    return last


def _where(error: psycopg.Error) -> tuple[str | None, str | None]:
    return error.sqlstate, error.diag.context


def repeatable(migration: MigrationFile) -> bool:
    """Whether an interrupted run of it can be told from the catalogue, or does no harm twice."""
    if not {"concurrently", "vacuum", "analyze"} & migration.words:
        return False
    one = _only_statement(migration)
    if one is None:
        return False
    if one.words[0] in ("VACUUM", "ANALYZE"):
        return True
    build = read(one)
    # An index that the server names can't be told from one that was there.
    return build is not None and (build.verb == "REINDEX" or build.name is not None)


def _only_statement(migration: MigrationFile) -> Statement | None:
    """The statement of a file that holds no other."""
    found = list(islice(each_statement(migration.outline.text), 2))
    return found[0] if len(found) == 1 else None


def _build_of(migration: MigrationFile) -> Build | None:
    """What a file builds or drops concurrently, if that is all that it does."""
    one = _only_statement(migration)
    return read(one) if one else None


def resolve_words(name: str) -> str:
    """What a person does about a migration that neither ended nor left nothing."""
    return (
        f"Look at what it left behind, then `{playbook('resolve_migration', rolled_back=name)}` to have "
        f"it applied again, or `{playbook('resolve_migration', applied=name)}` if all of it is there."
    )
