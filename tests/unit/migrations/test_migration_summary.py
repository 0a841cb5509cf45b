"""What the summary of a migration run says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

PLUGIN = Path(__file__).resolve().parents[3] / "plugins" / "action" / "migration.py"
PARAMS = {"state": "latest", "exit_code": False, "on_out_of_order": "warn", "folder": "m"}
NAMES = [f"{number}_x" for number in range(45)]


def section(result: dict[str, Any], *, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("migration_action", PLUGIN)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    action = object.__new__(module.ActionModule)
    action._task = SimpleNamespace(check_mode=check_mode)
    found: dict[str, Any] = action.sections({**PARAMS, **changes}, result)["migrations"]
    return found


@pytest.mark.parametrize("count", [20, 21, 45])
def test_a_list_that_is_cut_says_how_many_more(count: int) -> None:
    names = NAMES[:count]
    more = [] if count == 20 else [f"... and {count - 20} more"]
    failed = section({"failed": True, "msg": "x", "not_tried": names})
    assert f"not tried: {', '.join([*names[:20], *more])}" in failed["lines"]
    planned = section({"pending": names, "applied": []}, check_mode=True)
    shown = [line for line in planned["lines"] if line.startswith(("would apply", "..."))]
    assert shown == [*(f"would apply {name}" for name in names[:20]), *more]
    missing = section({"failed": True, "msg": "x", "missing": names})
    assert f"missing: {', '.join([*names[:20], *more])}" in missing["lines"]


def test_a_check_says_what_would_refuse_and_not_what_would_be_applied() -> None:
    found = section(
        {"pending": ["1_x"], "applied": [], "refused": ["window", "1 danger:\nm/1_x: drop"]}, check_mode=True
    )
    assert found["lines"][:4] == [
        "pending 1_x",
        "would be refused: window",
        "would be refused: 1 danger:",
        "  m/1_x: drop",
    ]
    assert (found["exit_code"], found["next"]) == (2, [])


@pytest.mark.parametrize(("result", "code"), [({"empty": ["1_x"], "pending": ["1_x"]}, 2), ({"pending": ["1_x"]}, 3)])
def test_status_ends_with_a_code(result: dict[str, Any], code: int) -> None:
    found = section({"applied": [], "pending": [], **result}, state="status", exit_code=True)
    assert found["exit_code"] == code
