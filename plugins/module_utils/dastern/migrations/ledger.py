"""Prisma Migrate's ledger: the table `_prisma_migrations` and the advisory lock that guards it.

All knowledge of this table is in this file. Source: Prisma's schema engine (`sql_migration_persistence.rs`,
`flavour/postgres`), engines 6.2 to 7.9.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..common.errors import DasTernError
from ..common.migration_files import ADVISORY_LOCK, LEDGER
from ..common.sql_values import identifier, literal
from ..server.advisory_lock import AdvisoryLock, Held, who
from ..server.connection import one_message

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

if TYPE_CHECKING:
    from ..common.migration_files import MigrationFile

_CREATE = """
CREATE TABLE {table} (
    id varchar(36) PRIMARY KEY NOT NULL,
    checksum varchar(64) NOT NULL,
    finished_at timestamptz,
    migration_name varchar(255) NOT NULL,
    logs text,
    rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    applied_steps_count integer NOT NULL DEFAULT 0
)
"""
# The ledger keeps milliseconds.
_NOW = "date_trunc('milliseconds', clock_timestamp())"
_APPLIED = "finished_at IS NOT NULL AND rolled_back_at IS NULL"
_OPEN = "migration_name = %s AND finished_at IS NULL AND rolled_back_at IS NULL"


@dataclass(frozen=True)
class Row:
    """One row of the ledger; times carry a zone."""

    name: str
    checksum: str
    started_at: datetime
    finished_at: datetime | None
    rolled_back_at: datetime | None
    logs: str | None = None
    transaction: int = 0
    """The transaction that last wrote the row; unlike times, its number doesn't depend on anybody's clock."""

    @property
    def applied(self) -> bool:
        return self.finished_at is not None and self.rolled_back_at is None

    @property
    def resolved(self) -> bool:
        """Whether the row was only marked as applied: its times don't tell when the migration ran."""
        return self.applied and self.logs == "" and self.started_at == self.finished_at

    @property
    def failed(self) -> bool:
        """Failed, killed, or running at this moment under somebody's lock."""
        return self.finished_at is None and self.rolled_back_at is None


class Ledger:
    """The ledger of one schema over one connection; `lock` is the lock that Prisma takes, too."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self.lock = AdvisoryLock(connection, ADVISORY_LOCK)
        self._connection = connection
        self._schema = schema
        self._table = identifier(schema, LEDGER)

    def hold_lock(self, seconds: float) -> None:
        """Take the migration lock within `seconds`, or raise `DasTernError`; closing the connection releases it."""
        try:
            self.lock.take(seconds)
        except Held as held:
            raise DasTernError(
                f"The migration lock is held by {who(held.holder)} (P1002). Run again when it is done.",
                code="P1002",
                locked_by=held.holder,
            ) from None

    def rows(self) -> list[Row] | None:
        """Return all rows by `started_at`; None when there is no ledger yet."""
        if self._value("SELECT to_regclass(%s)", self._table) is None:
            return None
        return [
            Row(*row)
            for row in self._connection.execute(
                "SELECT migration_name, checksum, started_at, finished_at, rolled_back_at, logs, xmin::text::bigint "  # type: ignore[arg-type]
                f"FROM {self._table} ORDER BY started_at, migration_name"
            )
        ]

    def schema_exists(self) -> bool:
        return self._value("SELECT to_regnamespace(quote_ident(%s))", self._schema) is not None

    def tables(self) -> list[str]:
        """Return the tables of the schema besides the ledger: a schema with tables but no ledger needs a baseline."""
        query = "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> %s ORDER BY 1"
        return [name for (name,) in self._connection.execute(query, (self._schema, LEDGER))]

    def create(self) -> None:
        self._connection.execute(_CREATE.format(table=self._table))  # type: ignore[arg-type]

    def commit_applied(self, migration: MigrationFile, started_at: str, transaction: str) -> bool:
        """Write the row of a migration that has just run, commit both, and return True.

        Return False and do neither if the migration ended `transaction`, the id of the one that it began in, or gave
        the lock away and another run had it meanwhile: then the row gets no id, which its table refuses, and the server
        does nothing of a message after an error.
        """
        name = literal(migration.name)
        still_ours = (
            f"pg_current_xact_id_if_assigned()::text = {literal(transaction)} AND {self.lock.again} "
            f"AND NOT EXISTS (SELECT FROM {self._table} WHERE migration_name = {name} AND {_APPLIED})"
        )
        try:
            one_message(
                self._connection,
                f"RESET ROLE; INSERT INTO {self._table} "
                "(id, checksum, finished_at, migration_name, logs, rolled_back_at, started_at, applied_steps_count) "
                f"VALUES (CASE WHEN {still_ours} THEN {literal(str(uuid.uuid4()))} END, {literal(migration.checksum)}, {_NOW}, "
                f"{name}, NULL, NULL, {literal(started_at)}, 1); COMMIT",
            )
        except psycopg.errors.NotNullViolation as error:
            if (error.diag.table_name, error.diag.column_name) != (LEDGER, "id"):
                raise
            return False
        return True

    def record_started(self, migration: MigrationFile) -> str:
        """Write the row of a migration that isn't finished yet; return the row's id."""
        row = str(uuid.uuid4())
        self._connection.execute(
            f"INSERT INTO {self._table} (id, checksum, migration_name, started_at) "  # type: ignore[arg-type]
            f"VALUES (%s, %s, %s, {_NOW})",
            (row, migration.checksum, migration.name),
        )
        return row

    def finish(self, row: str) -> None:
        self._update(f"finished_at = {_NOW}, applied_steps_count = 1", "id = %s", row)

    def finish_open(self, name: str) -> int:
        """Finish the open rows of `name`; return how many there were."""
        return self._update(f"finished_at = {_NOW}, applied_steps_count = 1, logs = NULL", _OPEN, name)

    def record_failed(self, row: str, logs: str) -> None:
        self._update("logs = %s", "id = %s", logs, row)

    def roll_back(self, name: str) -> int:
        """Mark the open rows of `name` as rolled back (Prisma's `resolve --rolled-back`); return their number."""
        return self._update(f"rolled_back_at = {_NOW}", _OPEN, name)

    def take_back(self, name: str) -> None:
        """Mark the applied row of `name` as rolled back."""
        self._update(f"rolled_back_at = {_NOW}", f"migration_name = %s AND {_APPLIED}", name)

    def forget(self, row: str) -> None:
        """Delete the row of a migration that left nothing behind."""
        self._connection.execute(f"DELETE FROM {self._table} WHERE id = %s", (row,))  # type: ignore[arg-type]

    def record_resolved(self, migration: MigrationFile) -> None:
        """Write the row of a migration that an operator declares applied (Prisma's `resolve --applied`)."""
        self._connection.execute(
            f"INSERT INTO {self._table} (id, checksum, migration_name, logs, started_at, finished_at) "  # type: ignore[arg-type]
            f"SELECT %s, %s, %s, '', now, now FROM {_NOW} AS now",  # reading the clock twice could give two times
            (str(uuid.uuid4()), migration.checksum, migration.name),
        )

    def rename(self, former: str, name: str) -> None:
        self._update("migration_name = %s", "migration_name = %s", name, former)

    def set_checksum(self, name: str, checksum: str) -> None:
        self._update(
            "checksum = %s",
            f"migration_name = %s AND {_APPLIED}",
            checksum,
            name,
        )

    def _update(self, assignments: str, where: str, *values: Any) -> int:
        query = f"UPDATE {self._table} SET {assignments} WHERE {where}"
        return self._connection.execute(query, values).rowcount  # type: ignore[arg-type]

    def _value(self, query: str, *values: Any) -> Any:
        row = self._connection.execute(query, values or None).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None
