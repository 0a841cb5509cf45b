"""How one migration is applied, and what its ledger row says afterwards; with a server that pretends."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.migrations import run as migration_run
from ansible.module_utils.dastern.migrations.ledger import Ledger
from ansible.module_utils.dastern.migrations.run import Failure, Refused, Runner
from fake_session import Result, Rows, Session

BLOCK = MigrationFile("2_b", "DO $$ BEGIN COMMIT; END $$;")
TWO = MigrationFile("2_b", "SELECT 1; SELECT 2;")
OWN = MigrationFile("2_b", "BEGIN; SELECT 1; COMMIT; SELECT 2;")
INDEX = "public.i"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration_run.generators, "send", lambda _: None)


@pytest.fixture
def ledger() -> Mock:
    kept = Mock(spec=Ledger)
    kept.lock = Mock(again="ours_again()")
    kept.rows.return_value = []
    kept.record_started.return_value = "the row"
    kept.commit_applied.return_value = True
    return kept


def noted(ledger: Mock) -> list[str]:
    """What was done with the rows of the ledger."""
    return [name for name, *_ in ledger.method_calls if name != "rows"]


def status(said: str) -> Any:
    """Answer what became of a transaction."""
    return lambda query: [(said,)] if "pg_xact_status" in query else []


def test_a_file_and_its_row_are_one_transaction(ledger: Mock) -> None:
    session = Session("")
    Runner(session, ledger).apply(TWO)  # type: ignore[arg-type]
    begin, sent = session.sent
    assert begin.startswith(migration_run.CLEAN_SESSION)
    assert "ours_again()" in begin
    assert sent == TWO.sql
    ledger.commit_applied.assert_called_once_with(TWO, "2026-02-08T00:00:00.000Z", "7")


def test_nothing_is_sent_where_another_run_has_the_lock_by_now(ledger: Mock) -> None:
    session = Session("", message=lambda _: Result("7", "2026-02-08T00:00:00.000Z", "false"))
    with pytest.raises(Refused, match="another run has it now"):
        Runner(session, ledger).apply(TWO)  # type: ignore[arg-type]
    assert len(session.sent) == 1
    assert noted(ledger) == []


@pytest.mark.parametrize("state", ["25001", "2D000"])
def test_a_statement_that_refuses_a_transaction_is_sent_again_outside_one(ledger: Mock, state: str) -> None:
    session = Session(state, "", answer=status("aborted"))
    Runner(session, ledger).apply(BLOCK)  # type: ignore[arg-type]
    assert session.sent.count(BLOCK.sql) == 2
    assert noted(ledger) == ["record_started", "finish"]
    ledger.finish.assert_called_once_with("the row")


@pytest.mark.parametrize(("migration", "state"), [(BLOCK, "42P01"), (TWO, "25001"), (TWO, "2D000")])
def test_other_failures_are_not_sent_again(ledger: Mock, migration: MigrationFile, state: str) -> None:
    session = Session(state, "", answer=status("aborted"))
    with pytest.raises(Failure) as failure:
        Runner(session, ledger).apply(migration)  # type: ignore[arg-type]
    assert (failure.value.error.sqlstate, failure.value.done, failure.value.remains) == (state, 0, "")
    assert session.sent.count(migration.sql) == 1
    assert noted(ledger) == []


def test_a_failure_behind_a_commit_of_its_own_says_what_remains(ledger: Mock) -> None:
    with pytest.raises(Failure) as failure:
        Runner(Session("42P01", answer=status("committed")), ledger).apply(TWO)  # type: ignore[arg-type]
    assert "is committed" in failure.value.remains


@pytest.mark.parametrize(
    ("said", "words"), [("committed", "ended the transaction"), ("aborted", "gave the migration lock")]
)
def test_a_row_that_could_not_be_written_is_no_success(ledger: Mock, said: str, words: str) -> None:
    ledger.commit_applied.return_value = False
    with pytest.raises(Refused, match=words):
        Runner(Session("", answer=status(said)), ledger).apply(TWO)  # type: ignore[arg-type]


@pytest.mark.parametrize(("done", "calls"), [(1, ["forget"]), (3, ["record_failed"])])
def test_a_file_of_its_own_transactions_blocks_the_rest_once_it_committed(
    ledger: Mock, monkeypatch: pytest.MonkeyPatch, done: int, calls: list[str]
) -> None:
    """Without a COMMIT nothing remains, and no row either."""
    session = Session("42P01")
    first = session.send_query

    def send(content: bytes) -> None:
        first(content)
        session._results += [Result()] * done

    monkeypatch.setattr(session, "send_query", send)
    with pytest.raises(Failure) as failure:
        Runner(session, ledger).apply(OWN)  # type: ignore[arg-type]
    assert (failure.value.done, bool(failure.value.remains)) == (done, calls == ["record_failed"])
    assert noted(ledger) == ["record_started", *calls]


CREATE = "CREATE INDEX CONCURRENTLY i ON t (a)"
DROP = "DROP INDEX CONCURRENTLY i"


@pytest.mark.parametrize(
    ("sql", "valid", "again"),
    [
        (CREATE, True, False), (CREATE, False, True), (CREATE, None, True),
        (DROP, None, False), (DROP, True, True), (DROP, False, True),
    ],
)  # fmt: skip
def test_an_interrupted_build_is_finished_or_begun_again(
    ledger: Mock, sql: str, valid: bool | None, again: bool
) -> None:
    """`valid` is the index as it was left; None where there is none."""

    def answer(query: str) -> Rows:
        if "indisvalid" not in query or valid is None:
            return []
        return [(valid,)] if sql == DROP else [(INDEX, valid)]

    session = Session(answer=answer)
    assert Runner(session, ledger).recover(MigrationFile("1_a", sql)) is again  # type: ignore[arg-type]
    assert noted(ledger) == ["roll_back" if again else "finish_open"]
    dropped = [one for one in session.sent if one.startswith("DROP")]
    assert dropped == ([f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}"] if (sql, valid) == (CREATE, False) else [])
