from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.migrations.ledger import Row
from ansible.module_utils.dastern.migrations.plan import in_order_of_application, make_plan

NOW = datetime(2026, 2, 8, tzinfo=UTC)
FILES = [MigrationFile(name, f"SELECT '{name}';") for name in ("1_a", "2_b", "3_c", "4_d")]


def row(name: str, state: str = "applied", checksum: str | None = None) -> Row:
    own = next((file.checksum for file in FILES if file.name == name), "0" * 64)
    return Row(
        name=name,
        checksum=checksum or own,
        started_at=NOW,
        finished_at=NOW if state == "applied" else None,
        rolled_back_at=NOW if state == "rolled back" else None,
    )


def test_everything_pending_on_an_empty_ledger() -> None:
    plan = make_plan(FILES, [])
    assert plan.pending == FILES
    assert (plan.applied, plan.edited, plan.missing, plan.out_of_order, plan.failed) == ([], [], [], [], [])


def test_three_findings_are_kept_apart() -> None:
    plan = make_plan(FILES, [row("1_a"), row("2_b", checksum="f" * 64), row("4_d"), row("0_gone")])
    assert plan.edited == ["2_b"]
    assert plan.missing == ["0_gone"]
    assert plan.pending_names == plan.out_of_order == ["3_c"]


def test_a_rolled_back_row_counts_as_absent() -> None:
    plan = make_plan(FILES, [row("1_a"), row("2_b", "rolled back", checksum="f" * 64)])
    assert plan.pending_names == ["2_b", "3_c", "4_d"]
    assert plan.rolled_back == ["2_b"]
    assert (plan.edited, plan.failed, plan.out_of_order) == ([], [], [])


def test_rolled_back_then_applied() -> None:
    plan = make_plan(FILES, [row("1_a", "rolled back", checksum="f" * 64), row("1_a")])
    assert plan.applied == ["1_a"]
    assert (plan.edited, plan.rolled_back) == ([], [])


def test_a_failed_row_is_neither_pending_nor_applied() -> None:
    plan = make_plan(FILES, [row("1_a"), row("2_b", "failed")])
    assert plan.failed == ["2_b"]
    assert plan.pending_names == ["3_c", "4_d"]


def ran(name: str, minute: int, transaction: int, *, resolved: bool = False) -> Row:
    """A row of what was applied at a minute of somebody's clock; or what somebody marked as applied then."""
    at = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    return Row(
        name, "c", at, at if resolved else at + timedelta(seconds=1), None, "" if resolved else None, transaction
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([ran("1_a", 1, 10), ran("2_b", 2, 11), ran("3_c", 3, 12)], ["1_a", "2_b", "3_c"]),
        # The client of the second had a clock that was behind.
        ([ran("2_b", 0, 11), ran("1_a", 1, 10), ran("3_c", 3, 12)], ["1_a", "2_b", "3_c"]),
        # The checksum of the first was repaired later.
        ([ran("1_a", 1, 13), ran("2_b", 2, 11), ran("3_c", 3, 12)], ["1_a", "2_b", "3_c"]),
        # Restored from a dump: one transaction.
        ([ran("1_a", 1, 10), ran("3_c", 2, 10), ran("2_b", 3, 10)], ["1_a", "3_c", "2_b"]),
        # Really applied behind a newer one.
        ([ran("1_a", 1, 10), ran("3_c", 2, 11), ran("2_b", 3, 12)], ["1_a", "3_c", "2_b"]),
        # Squashed: the older one was marked when the newer one had long been applied.
        ([ran("3_c", 1, 10), ran("2_squashed", 9, 11, resolved=True)], ["2_squashed", "3_c"]),
        ([ran("3_c", 1, 10), ran("4_d", 9, 11, resolved=True), ran("1_a", 9, 12, resolved=True)], ["1_a", "3_c", "4_d"]),
    ],
)  # fmt: skip
def test_the_order_of_application_is_not_left_to_clocks(rows: list[Row], expected: list[str]) -> None:
    assert in_order_of_application(rows) == expected
    assert in_order_of_application([*rows, Row("0_failed", "c", rows[0].started_at, None, None)]) == expected
