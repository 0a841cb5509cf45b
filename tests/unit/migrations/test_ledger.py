"""The row of a migration, and when it is refused; with a server that pretends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import ADVISORY_LOCK, LEDGER, MigrationFile
from ansible.module_utils.dastern.migrations.ledger import Ledger, Row
from fake_session import Result, Session

FILE = MigrationFile("1_it's", "SELECT 1")


def commit(session: Session) -> bool:
    ledger: Any = Ledger(session, "public")  # type: ignore[arg-type]
    return bool(ledger.commit_applied(FILE, "2026-02-08T00:00:00.000Z", "7"))


def test_a_row_has_an_id_only_in_its_own_transaction_under_the_lock_and_once() -> None:
    """What has no id its table refuses, and the COMMIT behind it isn't reached."""
    session = Session()
    assert commit(session)
    (sent,) = session.sent
    condition = sent[sent.index("CASE WHEN ") : sent.index(" END,")]
    assert "pg_current_xact_id_if_assigned()::text = '7' AND " in condition
    assert f" AND pg_try_advisory_lock({ADVISORY_LOCK}) AND " in condition
    assert "AND NOT EXISTS" in condition
    assert "migration_name = '1_it''s' AND finished_at IS NOT NULL AND rolled_back_at IS NULL" in condition
    assert "ELSE" not in condition
    assert sent.endswith("; COMMIT")


def test_a_row_without_an_id_wasnt_written() -> None:
    assert not commit(Session(message=lambda _: Result(error="23502", table=LEDGER, column="id")))
    for table, column in ((LEDGER, "checksum"), ("other", "id")):
        with pytest.raises(psycopg.errors.NotNullViolation):
            commit(
                Session(message=lambda _, table=table, column=column: Result(error="23502", table=table, column=column))
            )


def test_the_lock_is_waited_for_and_its_holder_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.module_utils.dastern.server.advisory_lock.time.sleep", lambda _: None)
    tried: list[bool] = []

    def answer(query: str) -> list[tuple[Any, ...]]:
        if "pg_try_advisory_lock" in query:
            tried.append(True)
            return [(len(tried) > 3,)]
        return [(99, "prisma", None, None)]

    Ledger(Session(answer=answer), "public").hold_lock(60)  # type: ignore[arg-type]
    assert len(tried) == 4
    tried.clear()
    with pytest.raises(DasTernError) as refusal:
        Ledger(Session(answer=answer), "public").hold_lock(0)  # type: ignore[arg-type]
    assert (refusal.value.facts["code"], refusal.value.facts["locked_by"]["pid"]) == ("P1002", 99)


def test_what_somebody_marked_as_applied_is_known_from_what_ran() -> None:
    session = Session()
    Ledger(session, "public").record_resolved(FILE)  # type: ignore[arg-type]
    assert "'', now, now" in session.sent[0]
    at = datetime(2026, 2, 8, tzinfo=UTC)
    marked, ran = (Row("1", "c", at, at, None, logs) for logs in ("", None))
    assert (marked.applied, marked.resolved, ran.applied, ran.resolved) == (True, True, True, False)
