"""A rollback: what it does to rows, and what has to be confirmed; from hand-made facts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ansible.module_utils.dastern.catalogue.objects import Item
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.migrations import rollback as migration_rollback
from ansible.module_utils.dastern.migrations.ledger import Row
from ansible.module_utils.dastern.migrations.rollback import Loss
from fake_session import Session

PARAMS = {
    "to": "1_a",
    "database": "d",
    "confirm": "",
    "instance": "",
    "folder": "m",
    "allow_empty": False,
    "schema": "public",
}
ROWS = Loss("deletes rows of table t", 3, table="t")
TYPES = {"1": "23 -1"}
BEFORE: Any = {7: ("t", 100, 8192, TYPES, 1, 1)}


@pytest.mark.parametrize(
    ("after", "losses"),
    [
        (("t", 100, 8192, TYPES, 1, 1), []),
        (("t", 100, 8192, TYPES, 1, 4), [(3, "row")]),
        (("t", 100, 8192, TYPES, 3, 1), [(2, "row")]),
        (("t", 200, 8192, TYPES, 1, 1), [(8192, "byte")]),
        (("t", 200, 0, TYPES, 1, 1), [(8192, "byte")]),
        (("t", 200, 8192, {"1": "20 -1"}, 1, 1), [(8192, "byte")]),
        # A column that is added may write it anew, by which nothing is lost.
        (("t", 200, 8192, {**TYPES, "2": "23 -1"}, 1, 1), []),
        (("t", 200, 8192, {"1": "20 -1", "2": "23 -1"}, 1, 1), [(8192, "byte")]),
    ],
)
def test_what_the_server_counted_is_a_loss(after: Any, losses: list[tuple[int, str]]) -> None:
    found = migration_rollback._touched(BEFORE, {7: after})
    assert [(one.count, one.unit, one.table) for one in found] == [(*loss, "t") for loss in losses]
    assert migration_rollback._touched(BEFORE, {}) == []


@pytest.mark.parametrize(
    ("losses", "changes", "refused"),
    [
        ([ROWS], {}, True), ([ROWS], {"confirm": "d"}, False), ([ROWS], {"confirm": "d+rows"}, False), ([ROWS], {"confirm": "e"}, True),
        ([], {}, False), ([Loss("takes away table t", 0)], {}, False), ([Loss("takes away table t", 0), ROWS], {}, True),
    ],
)  # fmt: skip
def test_what_a_plan_loses_has_to_be_confirmed(losses: list[Loss], changes: dict[str, str], refused: bool) -> None:
    params = {**PARAMS, **changes}
    if not refused:
        migration_rollback._refuse_unconfirmed(params, losses)
        return
    with pytest.raises(DasTernError) as refusal:
        migration_rollback._refuse_unconfirmed(params, losses)
    assert refusal.value.facts == {"confirm": "d", "losses": [one.line for one in losses]}


@pytest.mark.parametrize(
    ("hidden", "named", "confirm", "refused"),
    [
        ([ROWS], [], "d", True), ([ROWS], [], "d+rows", False), ([ROWS], [ROWS], "d", False),
        ([ROWS], [Loss("x", 1, table="u")], "d", True), ([Loss("deletes rows of table t", 0, table="t")], [], "d", False), ([], [], "", False),
    ],
)  # fmt: skip
def test_what_no_plan_showed_has_a_confirmation_of_its_own(
    hidden: list[Loss], named: list[Loss], confirm: str, refused: bool
) -> None:
    params = {**PARAMS, "confirm": confirm}
    if not refused:
        migration_rollback._refuse_hidden(params, hidden, named)
        return
    with pytest.raises(DasTernError) as refusal:
        migration_rollback._refuse_hidden(params, hidden, named)
    assert refusal.value.facts == {"confirm": "d+rows", "losses": [ROWS.line]}


AT = datetime(2026, 2, 8, tzinfo=UTC)
FILES = {name: MigrationFile(name, f"SELECT '{name}'") for name in ("1_a", "2_b", "3_c")}
DOWNS = {"2_b": "DROP TABLE b", "3_c": "DROP TABLE c"}


def steps(downs: dict[str, str] = DOWNS, **changes: Any) -> tuple[list[str], list[str]]:
    rows = [Row(name, file.checksum, AT, AT, None, transaction=n) for n, (name, file) in enumerate(FILES.items())]
    ledger: Any = type("", (), {"rows": lambda _: changes.get("rows", rows)})()
    params = {**PARAMS, "backup_dir": "", **changes}
    return migration_rollback._steps(Session(answer=lambda _: [("7",)]), params, ledger, FILES, downs)  # type: ignore[arg-type]


def test_what_stays_and_what_goes() -> None:
    assert steps() == (["1_a"], ["2_b", "3_c"])
    assert steps(to="3_c") == (["1_a", "2_b", "3_c"], [])


@pytest.mark.parametrize(
    ("downs", "changes", "words"),
    [
        ({"3_c": "SELECT 1"}, {}, "2_b/down.sql"),
        ({**DOWNS, "2_b": "-- nothing"}, {}, "2_b/down.sql"),
        ({**DOWNS, "2_b": "DROP TABLE b; COMMIT"}, {}, "2_b/down.sql"),
        ({**DOWNS, "2_b": "BEGIN; DROP TABLE b; COMMIT"}, {}, "2_b/down.sql"),
        ({**DOWNS, "2_b": "DROP ROLE r"}, {}, "`DROP ROLE r` at m/2_b/down.sql, line 1"),
        (DOWNS, {"to": "0_gone"}, "P3011"),
        (DOWNS, {"rows": [Row("1_a", "0" * 64, AT, AT, None)]}, "1_a"),
        (DOWNS, {"rows": [Row("1_a", FILES["1_a"].checksum, AT, None, None)]}, "P3009"),
    ],
)
def test_what_cant_be_taken_back_whole_is_refused(downs: dict[str, str], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DasTernError) as refusal:
        steps(downs, **changes)
    assert words in refusal.value.message
    assert "Nothing was rolled back" in refusal.value.message


def test_a_down_that_doesnt_give_the_schema_that_was_there_is_refused() -> None:
    table = Item("table", "t", "CREATE TABLE t (...)", create="CREATE TABLE t (...)", target="TABLE t")
    migration_rollback._refuse_difference(PARAMS, "down", [table], [table])
    with pytest.raises(DasTernError, match="CREATE TABLE t"):
        migration_rollback._refuse_difference(PARAMS, "down", [], [table])
