"""A run of all pending migrations: what is asked, in which order, and what is tried again; with a server that pretends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.migrations import migrate as migration
from ansible.module_utils.dastern.migrations.ledger import Row
from ansible.module_utils.dastern.migrations.run import Failure
from fake_session import Session

AT = datetime(2026, 2, 8, tzinfo=UTC)
FILES = [MigrationFile("1_a", "SELECT 1"), MigrationFile("2_b", "SELECT 2")]


def row(name: str, finished: bool = True) -> Row:
    checksum = next(file.checksum for file in FILES if file.name == name)
    return Row(name, checksum, AT, AT if finished else None, None)


APPLIED, OPEN = [row("1_a"), row("2_b")], [row("1_a"), row("2_b", finished=False)]


class Server:
    """The ledger as it is at one look after the other, the lock, and how each attempt to apply a migration ends."""

    def __init__(self, *looks: Sequence[Row] | None, failures: Sequence[Failure] = (), holder: Any = None) -> None:
        self.looks, self.failures, self.seen = list(looks), list(failures), holder
        self.lock = SimpleNamespace(holder=lambda: self.seen, take=self.take)
        self.did: list[str] = []
        self.notices: list[str] = []

    def rows(self) -> Sequence[Row] | None:
        self.did.append("look")
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def take(self, _: float) -> None:
        self.did.append("lock")

    def schema_exists(self) -> bool:
        return True

    def tables(self) -> list[str]:
        return ["users"]

    def apply(self, file: MigrationFile) -> float:
        self.did.append(file.name)
        if self.failures:
            raise self.failures.pop(0)
        return 1.0

    def heard(self) -> list[str]:
        return self.notices


@pytest.fixture
def migrate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run against a server that pretends."""

    def run(server: Server, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        monkeypatch.setattr(migration, "Ledger", lambda *_: server)
        monkeypatch.setattr(migration, "Runner", lambda *_: server)
        params = {name: option.get("default") for name, option in migration.ARGUMENT_SPEC.items()}
        own = {"folder": "m", "database": "d", "password_file": "/nowhere", "migrations": FILES, **changes}
        return migration.migrate({**params, **own}, check_mode=check_mode)

    monkeypatch.setattr(migration, "connect", lambda *_: Session())
    monkeypatch.setattr(migration, "time_of_day", lambda _: time(12))
    monkeypatch.setattr(migration, "target", lambda *_: ("7591", "d", "public"))
    monkeypatch.setattr(migration.time, "sleep", lambda _: None)
    return run


def failure(state: str, remains: str = "") -> Failure:
    return Failure(psycopg.errors.lookup(state)(state), 0, remains)


def test_what_is_pending_is_applied_in_order_as_planned_under_the_lock(migrate: Any) -> None:
    server = Server([], [row("1_a")])
    result = migrate(server)
    assert server.did == ["look", "lock", "look", "2_b"]
    assert (result["changed"], [one["name"] for one in result["applied_now"]]) == (True, ["2_b"])


def test_where_nothing_is_pending_no_lock_is_taken(migrate: Any) -> None:
    server = Server(APPLIED)
    assert migrate(server)["changed"] is False
    assert server.did == ["look"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_run_that_ends_between_two_questions_is_no_failure(migrate: Any, check_mode: bool) -> None:
    """The row was open, and its run gave the lock back before it was asked for."""
    server = Server(OPEN, APPLIED)
    assert migrate(server, check_mode)["changed"] is False
    assert server.did == ["look", "look"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_what_is_still_wrong_at_the_second_look_is_refused(migrate: Any, check_mode: bool) -> None:
    server = Server(OPEN)
    with pytest.raises(DasTernError, match=r"2_b failed before and blocks the rest \(P3009\)") as refusal:
        migrate(server, check_mode)
    assert refusal.value.facts["failed_before"] == ["2_b"]
    assert server.did == ["look", "look"]


def test_under_the_lock_an_open_row_is_a_failure_at_once(migrate: Any) -> None:
    server = Server(OPEN, holder={"pid": 1, "application_name": "prisma", "client": "local", "since": "unknown"})
    with pytest.raises(DasTernError, match="P3009"):
        migrate(server)
    assert server.did == ["look", "lock", "look"]


def test_a_schema_with_tables_and_no_ledger_is_refused(migrate: Any) -> None:
    server = Server(None)
    with pytest.raises(DasTernError, match="P3005"):
        migrate(server)
    assert "lock" not in server.did


@pytest.mark.parametrize(("policy", "refused"), [("fail", True), ("warn", False)])
def test_a_file_that_was_edited_refuses_as_the_inventory_says(migrate: Any, policy: str, refused: bool) -> None:
    server = Server([Row("1_a", "0" * 64, AT, AT, None)])
    if refused:
        with pytest.raises(DasTernError) as refusal:
            migrate(server, on_edited=policy)
        assert refusal.value.facts["edited"] == ["1_a"]
        assert "2_b" not in server.did
    else:
        assert migrate(server, on_edited=policy)["edited"] == ["1_a"]
        assert server.did[-1] == "2_b"


@pytest.mark.parametrize("state", ["55P03", "40P01"])
def test_a_lock_that_others_have_is_tried_for_again(migrate: Any, state: str) -> None:
    server = Server([row("1_a")], failures=[failure(state), failure(state)])
    assert migrate(server, lock_retries=2)["changed"]
    assert server.did.count("2_b") == 3


@pytest.mark.parametrize(
    ("failed", "retries"), [(failure("55P03", "and left something"), 3), (failure("42P01"), 3), (failure("55P03"), 0)]
)
def test_what_left_something_or_failed_otherwise_isnt_tried_again(migrate: Any, failed: Failure, retries: int) -> None:
    server = Server([row("1_a")], failures=[failed])
    with pytest.raises(DasTernError) as refusal:
        migrate(server, lock_retries=retries)
    assert refusal.value.facts["failed_migration"] == "2_b"
    assert server.did.count("2_b") == 1


def test_the_backup_is_taken_before_the_first_statement_and_not_for_nothing(
    migrate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible.module_utils.dastern.migrations import backup

    server = Server([row("1_a")])
    monkeypatch.setattr(backup, "backed_up", lambda *_: server.did.append("backup") or {"backup": {}})
    migrate(server, backup=True)
    assert server.did == ["look", "lock", "look", "backup", "2_b"]
    migrate(Server(APPLIED), backup=True)
    assert server.did.count("backup") == 1
