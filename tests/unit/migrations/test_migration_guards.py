"""Guard rails: when what is pending may be applied."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.migrations.guards import refusals, rollback_refusals, time_of_day, within
from ansible.module_utils.dastern.migrations.plan import Plan
from ansible.module_utils.dastern.migrations.rehearsal_record import keep, record_path

OFF = {
    "window": "", "require_approval": False, "approved": "", "require_rehearsal": False,
    "password_file": "/nowhere/app_password", "to": "0_a",
}  # fmt: skip
OF = ("7591", "d", "public")
PENDING = Plan(pending=[MigrationFile("1_a", ""), MigrationFile("2_b", "")])


@pytest.mark.parametrize(
    ("window", "now", "inside"),
    [
        ("22:00-05:00", "22:00", True),
        ("22:00-05:00", "04:59", True),
        ("22:00-05:00", "05:00", False),
        ("22:00-05:00", "12:00", False),
        ("09:30-10:00", "09:30", True),
        ("09:30-10:00", "10:00", False),
        ("09:30-10:00", "23:00", False),
        ("00:00-00:00", "12:00", True),
    ],
)
def test_a_window(window: str, now: str, inside: bool) -> None:
    assert within(window, time.fromisoformat(now)) is inside


@pytest.mark.parametrize("window", ["22-5", "25:00-01:00", "22:00 - 05:00", "at night"])
def test_a_malformed_window_is_refused(window: str) -> None:
    with pytest.raises(DasTernError, match="`migrations_window` is"):
        within(window, time(12))


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({}, []),
        ({"window": "22:00-05:00"}, ["`migrations_window`"]),
        ({"window": "11:00-13:00"}, []),
        ({"require_approval": True}, ["`ansible-playbook migrate.yml -e migrations_approved=2_b`"]),
        ({"require_approval": True, "approved": "1_a"}, ["`migrations_approved` is '1_a'"]),
        ({"require_approval": True, "approved": "2_b"}, []),
        ({"require_rehearsal": True}, ["`migrations_require_rehearsal`"]),
        ({"require_approval": True, "window": "01:00-02:00"}, ["`migrations_window`", "`migrations_require_approval`"]),
    ],
)
def test_each_refusal_names_its_switch(switches: dict[str, Any], words: list[str]) -> None:
    found = refusals({**OFF, **switches}, PENDING, time(12), OF)
    assert len(found) == len(words)
    assert all(word in message for word, message in zip(words, found, strict=True))
    assert refusals({**OFF, **switches}, Plan(), time(12), OF) == []


def test_all_refuse_at_once_also_where_there_is_no_database_yet() -> None:
    now = time_of_day(None)
    closed = f"{(now.hour + 2) % 24:02}:00-{(now.hour + 3) % 24:02}:00"
    switches = {**OFF, "window": closed, "require_approval": True, "require_rehearsal": True}
    found = refusals(switches, PENDING, now, None)
    names = ["`migrations_window`", "`migrations_require_approval`", "`migrations_require_rehearsal`"]
    assert len(found) == 3
    assert all(name in words for name, words in zip(names, found, strict=True))


def test_a_rehearsal_counts_for_exactly_these_files(tmp_path: Path) -> None:
    switches = {**OFF, "require_rehearsal": True, "password_file": str(tmp_path / "app_password")}
    keep(record_path(str(tmp_path), OF, PENDING.pending), {"verdict": "safe online"})
    assert refusals(switches, PENDING, time(12), OF) == []
    edited = Plan(pending=[PENDING.pending[0], MigrationFile("2_b", "SELECT 1")])
    assert len(refusals(switches, edited, time(12), OF)) == 1
    assert len(refusals(switches, PENDING, time(12), ("7592", "d", "public"))) == 1


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"require_rehearsal": True}, []),
        ({"window": "22:00-05:00"}, ["`migrations_window`"]),
        ({"require_approval": True}, ["2_b, 1_a would be rolled back, and nobody approved that"]),
        (
            {"require_approval": True, "approved": "2_b"},
            ["the newest: `ansible-playbook playbooks/rollback.yml -e to=0_a -e migrations_approved=0_a`"],
        ),
        ({"require_approval": True, "approved": "0_a", "window": "11:00-13:00"}, []),
    ],
)
def test_a_rollback_has_the_window_and_names_what_stays(switches: dict[str, Any], words: list[str]) -> None:
    found = rollback_refusals({**OFF, **switches}, ["2_b", "1_a"], time(12))
    assert len(found) == len(words)
    assert all(word in message for word, message in zip(words, found, strict=True))
    assert rollback_refusals({**OFF, **switches}, [], time(12)) == []
