from datetime import UTC, datetime

from ansible.module_utils.dastern.ledger import Row
from ansible.module_utils.dastern.migration_files import MigrationFile
from ansible.module_utils.dastern.migration_plan import make_plan

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
