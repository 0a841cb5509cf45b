"""What is shown of text that others wrote, and moments as people read them."""

from __future__ import annotations

import json
import sys
import unicodedata
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.catalogue.drift import Difference, table
from ansible.module_utils.dastern.catalogue.objects import Item
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.quantities import local
from ansible.module_utils.dastern.common.text import presentable, shown, shown_json
from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.restores import target
from ansible.module_utils.dastern.server.advisory_lock import who
from samples import callback

FORGED = "t\nnext         rm -rf /\x1b[2J\u202e\u2066\x9b1m\u2028\x7f"
ESCAPED = r"t\nnext         rm -rf /\x1b[2J\u202e\u2066\x9b1m\u2028\x7f"
# Khmer with the zero-width space between its words, a joined emoji, and letters with marks.
READABLE = "ថ្នាំ\u200bពេទ្យ 👩\u200d⚕️ Ünïcödé \\n \\ é"


def test_what_a_terminal_obeys_is_escaped_and_nothing_else() -> None:
    assert shown(FORGED) == ESCAPED
    assert shown(shown(FORGED)) == ESCAPED
    assert shown(READABLE) == READABLE
    assert shown("a\tb\r\nc\x1b", lines=True) == "a\tb\\r\nc\\x1b"
    assert shown("\udc80\U000e0041") == r"\udc80\U000e0041"


def test_no_character_that_moves_or_hides_gets_through() -> None:
    kept = {"\u200b", "\u200c", "\u200d"}
    for number in range(sys.maxunicode + 1):
        one = chr(number)
        kind = unicodedata.category(one)
        obeyed = kind in ("Cc", "Zl", "Zp", "Cs") or unicodedata.bidirectional(one) in (
            "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
        )  # fmt: skip
        assert (shown(one) != one) >= obeyed, hex(number)
        if kind not in ("Cc", "Cf", "Zl", "Zp", "Cs", "Cn") or one in kept:
            assert shown(one) == one, hex(number)


def test_json_is_of_the_same_value() -> None:
    value = {"name": FORGED + READABLE + "\udc80\U000e0041"}
    text = shown_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert shown(text, lines=True) == text
    assert "ថ្នាំ" in text


def test_a_refusal_is_the_lines_that_it_was_given() -> None:
    assert DasTernError(f"table {FORGED}").message == f"table {ESCAPED}"
    assert DasTernError(["one", f"table {FORGED}"]).message == f"one\ntable {ESCAPED}"


def test_a_result_is_fit_for_a_terminal() -> None:
    diff = {"before": "", "after": f"{FORGED}\n", "after_header": FORGED}
    found = presentable({"msg": "one\ntwo\x1b", "lines": [FORGED], "next": [FORGED], "diff": [diff], "raw": FORGED})
    assert found["msg"] == "one\ntwo\\x1b"
    assert found["lines"] == found["next"] == [ESCAPED]
    assert found["diff"][0]["after"] == ESCAPED.replace("\\n", "\n") + "\n"
    assert found["diff"][0]["after_header"] == ESCAPED
    assert found["raw"] == FORGED, "what a role goes on with"
    failed = presentable({"failed": True, "raw": {FORGED: [FORGED]}, "code": 7})
    assert failed == {"failed": True, "raw": {ESCAPED: [ESCAPED.replace("\\n", "\n")]}, "code": 7}


def test_an_action_escapes_what_its_function_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    class Action(HostAction):
        ARGUMENT_SPEC: dict[str, Any] = {}  # noqa: RUF012

        def act(self, params: dict[str, Any]) -> dict[str, Any]:
            return {"lines": [FORGED], "msg": FORGED}

        def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
            return {"backups": {"lines": result["lines"]}}

    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *_: {})
    monkeypatch.setattr(Action, "validate_argument_spec", lambda *_, **__: (SimpleNamespace(_no_log_values=set()), {}))
    action = Action.__new__(Action)
    action._task = SimpleNamespace(args={}, _role=None)
    result = action.run()
    assert result["lines"] == [ESCAPED]
    # Ansible prints it where a task fails.
    assert result["ansible_stats"]["data"]["dastern_report"]["backups"]["lines"] == [ESCAPED]


def test_the_summary_has_no_line_that_a_name_made() -> None:
    own, lines = callback("dastern_report").CallbackModule(), []
    own._display = SimpleNamespace(display=lambda line, color: lines.append(line))
    own._ours, own._failures = True, [{"host": "here", "message": f"failed at \x1b[2J {READABLE}"}]
    section = {"lines": [f"largest: {FORGED}"], "next": [f"docker logs {FORGED}"]}
    summary = {
        "failed": True,
        "changed": 0,
        "counts": {"unreachable": 0},
        "sections": {"postgres": section},
        "next": section["next"],
    }
    own._show("here", summary, 1.0)
    assert [line.strip() for line in lines[1:]] == [
        f"postgres     largest: {ESCAPED}",
        f"failed       failed at \\x1b[2J {READABLE}",
        f"next         docker logs {ESCAPED}",
    ]


def test_drift_forges_no_line() -> None:
    (line,) = table([Difference("unexpected", None, Item("table", FORGED, ""))])
    assert ESCAPED in line


NOON = datetime(2026, 11, 30, 6, 38, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("when", "now", "words"),
    [
        (NOON, None, "2026-11-30 13:38:00 +07:00"),
        (NOON.isoformat(), NOON + timedelta(minutes=16), "2026-11-30 13:38:00 +07:00 (16 min ago)"),
        (NOON.timestamp(), NOON - timedelta(hours=3), "2026-11-30 13:38:00 +07:00 (in 3 h 0 min)"),
        ("2026-11-30T13:38:00+07:00", None, "2026-11-30 13:38:00 +07:00"),
        ("unknown", NOON, "unknown"),
        ("2026-11-30T13:38:00", NOON, "2026-11-30T13:38:00"),
    ],
)
def test_a_moment_has_one_form(when: Any, now: datetime | None, words: str) -> None:
    assert local(when, now) == words


def test_a_moment_that_is_shown_is_a_target() -> None:
    for moment in (
        datetime(2026, 2, 8, 6, 38, tzinfo=timezone.utc),
        datetime(2026, 2, 8, 6, 38, 1, 250000, timezone.utc),
    ):
        assert target._moment(local(moment, exact=True)) == moment
    for text in ("2026-02-08 13:38:00+07", "2026-02-08T06:38:00Z", "2026-02-08 13:38:00 +0700"):
        assert target._moment(text) == datetime(2026, 2, 8, 6, 38, tzinfo=timezone.utc)
    with pytest.raises(DasTernError, match="has no offset"):
        target._moment("2026-02-08 13:38:00")


def test_who_holds_a_lock_is_one_line() -> None:
    holder = {"pid": 7, "application_name": "psql", "client": "local", "since": NOON.isoformat()}
    assert who(holder) == "pid 7 (psql, client local, connected since 2026-11-30 13:38:00 +07:00)"
