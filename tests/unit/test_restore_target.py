"""Which backup a restore begins with, and which it passes over."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern.backup_records import Check, Record
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.restore_target import Archive

NOW = "2026-03-31T00:00:00+00:00"
BAD = Check(NOW, False, 1, "damaged: bundle/1")


def record(label: str, verified: Check | None = None, drilled: Check | None = None) -> Record:
    return Record(
        label=label, kind="physical", type="full", database="d", system="1", server="17.12", tool="t", began=NOW, seconds=1,
        bytes=1, stored=1, census={}, exact=True, verified=verified or Check(NOW, True, 1), drilled=drilled,
    )  # fmt: skip


def archive(*needs: str, **changes: Any) -> Archive:
    """The sets `a`, `b` and so on, each built upon the one that is named for it."""
    own = Archive.__new__(Archive)
    own.backups = [
        {
            "label": "abcd"[n], "reference": [base] if base else None, "prior": base or None, "timestamp": {"stop": n},
            "archive": {"start": f"{1:08X}{n:016X}"}, "lsn": {"stop": f"0/{n}000000"}, **changes,
        }
        for n, base in enumerate(needs)
    ]  # fmt: skip
    own.forks, own.damaged, own.segments = {}, {}, {1: dict.fromkeys(range(9), 0.0)}
    return own


def chosen(own: Archive, *records: Record) -> str:
    backup, words = own.choose(list(records), 1, lambda _: True, 8, "The newest state")
    assert words.startswith(f"from backup {backup['label']}")
    return words


def test_the_newest_that_is_not_known_to_be_wrong() -> None:
    assert chosen(archive("", ""), record("a"), record("b")) == "from backup b"
    for wrong in (record("b", BAD), record("b", drilled=BAD)):
        assert chosen(archive("", ""), record("a"), wrong) == "from backup a; b is damaged and passed over"
    own = archive("", "", "b")
    assert chosen(own, record("a"), record("b", BAD), record("c")) == "from backup a; c, b are damaged and passed over"


def test_one_that_is_wrong_where_no_other_leads_there() -> None:
    words = "from backup b, which isn't good, as no other that leads there is: damaged: bundle/1"
    assert chosen(archive("", ""), record("b", BAD)) == words
    gap = archive("", "")
    del gap.segments[1][1]
    assert chosen(gap, record("a"), record("b", BAD)) == words
    own = archive("", "a")
    assert chosen(own, record("a", drilled=BAD), record("b")).endswith("is: it needs a, which isn't right")


def test_pages_that_were_damaged_before_anybody_looked_at_them() -> None:
    own = archive("", "")
    own.backups[1]["error"] = True
    assert chosen(own, record("a"), record("b")) == "from backup a; b is damaged and passed over"


def test_a_timeline_whose_history_cant_be_read() -> None:
    own = archive("")
    own.damaged = {1: "/backups/received/7-00000001/00000001.history"}
    with pytest.raises(DasTernError, match=r"00000001\.history, the history of timeline 1, isn't what was written"):
        chosen(own, record("a"))
