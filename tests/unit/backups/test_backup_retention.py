"""Which backups may go: by count and age, and never what is still needed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import pgbackrest, retention
from ansible.module_utils.dastern.backups.records import MIGRATING, PAGES, Check, Record
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.migrations import backup as migration_backup
from samples import NOW, record

KEEP = {kind: {"count": 2, "days": 7} for kind in retention.KEEP}


def gone(*records: Record, keep: Any = KEEP, needed: tuple[str, ...] = ()) -> list[str]:
    newest_first = sorted(records, key=lambda one: one.began, reverse=True)
    return [one.label for one in retention.surplus(newest_first, keep, datetime.fromisoformat(NOW), needed)]


def test_count_and_age_have_to_be_beyond() -> None:
    assert gone(*(record(day) for day in (1, 2, 3, 4))) == ["02", "01"]
    assert gone(*(record(day) for day in (26, 27, 28, 29))) == []
    assert gone(record(1), record(2)) == []


def test_each_type_has_its_own_count() -> None:
    assert gone(record(1), record(2), record(3, "logical"), record(4, "logical")) == []
    others = [record(day, "logical", database=name) for day, name in ((1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "b"))]
    assert gone(*others) == ["03"]


def test_what_a_kept_one_is_built_upon_stays() -> None:
    chain = [record(1), record(2, "incr", "01"), record(3, "incr", "02"), record(28, "incr", "03")]
    assert gone(*chain, record(5), record(6), record(7)) == ["05"]
    assert gone(*chain[:3], record(5), record(6), record(7), keep=KEEP | {"incr": {"count": 0, "days": 0}}) == [
        "05", "03", "02", "01",
    ]  # fmt: skip


def test_a_reason_takes_no_physical_one_out_of_sight() -> None:
    asked = "before migrating"
    assert gone(record(1), record(2, "incr", "01", reason=asked), *(record(day) for day in (26, 27, 28))) == []
    assert gone(*(record(day, "logical", reason=asked) for day in (1, 2, 3, 4))) == []


def test_bad_ones_push_no_good_one_out() -> None:
    assert gone(record(1), *(record(day, ok=False) for day in (2, 3, 4))) == []
    assert gone(record(1), *(record(day, ok=None) for day in (2, 3, 4))) == []
    drilled_bad = record(4, drilled=Check(NOW, False, 1))
    assert gone(record(1), record(2), record(3), drilled_bad) == ["01"]


def test_those_with_damaged_pages_push_out_each_other_and_no_good_one() -> None:
    torn = Check(NOW, False, 1, f"{PAGES}, in base/5/16384 (torn)")
    bad = [record(day, verified=torn) for day in range(10, 16)]
    assert gone(*bad) == ["13", "12", "11", "10"]
    assert gone(record(1), *bad) == ["13", "12", "11", "10"]
    assert gone(record(1), *bad, record(29, verified=torn)) == ["14", "13", "12", "11", "10"]
    assert gone(record(1), record(2), *bad[:2], record(20), record(21)) == ["11", "10", "02", "01"]
    # One that is damaged itself stands for none of them.
    assert gone(*bad[:2], record(20, verified=Check(NOW, False, 1, "damaged: bundle/1"))) == []
    nothing = {kind: {"count": 0, "days": 0} for kind in retention.KEEP}
    assert gone(record(1), record(2, "incr", "01", verified=torn), keep=nothing) == []
    assert gone(record(1), record(2, "incr", "01", verified=torn), record(3, verified=torn), keep=nothing) == ["02"]


def test_the_newest_good_one_stays_whatever_is_declared() -> None:
    nothing = {kind: {"count": 0, "days": 0} for kind in retention.KEEP}
    assert gone(record(1), record(2), record(3, "incr", "02"), keep=nothing) == ["01"]
    assert gone(record(1), record(2, ok=False), keep=nothing) == []


def test_a_clock_that_was_wrong_costs_no_good_one() -> None:
    nothing = {kind: {"count": 1, "days": 0} for kind in retention.KEEP}
    ahead = [record(day, began=f"2036-03-{day:02d}T00:00:00+00:00") for day in (28, 29)]
    assert gone(*ahead, record(1), record(2), keep=nothing) == ["01"]
    # Put back between 21 and 12, and again between 23 and 10.
    chain = [
        record(20),
        record(21, "incr", "20"),
        record(12, "incr", "21"),
        record(23, "incr", "12"),
        record(10, "incr", "23"),
    ]
    assert gone(*chain, record(24), record(25), keep=nothing | {"incr": {"count": 0, "days": 30}}) == ["24"]


def test_what_somebody_elses_set_is_built_upon_stays() -> None:
    assert gone(*(record(day) for day in (1, 2, 3, 4)), needed=("01",)) == ["02"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weekly": {"count": 1}}, "has weekly. It takes full, diff, incr, logical"),
        ({"full": {"weeks": 1}}, "has full.weeks"),
        ({"full": 3}, "`backup_keep.full` is `3`. Expected: `count` and `days`"),
        ({"full": {"count": 0}}, "`backup_keep.full.count` is `0`. Expected: a whole number, 1 or greater"),
        ({"incr": {"days": "x"}}, "`backup_keep.incr.days` is `x`. Expected: a whole number, 0 or greater"),
    ],
)
def test_a_retention_that_cant_be_meant_is_refused(given: Any, words: str) -> None:
    with pytest.raises(DasTernError, match="backup_keep") as refusal:
        retention.declared(given)
    assert words in refusal.value.message


def test_a_retention_is_filled_up_with_the_default() -> None:
    assert retention.declared({"full": {"count": "5"}})["full"] == {"count": 5, "days": 14}


@pytest.mark.parametrize(
    ("drilled", "drill", "left"),
    [
        ([None, True, True], True, "cba"),  # nobody could try the newest: the proved one behind it stays
        ([None, None, True], True, "ca"),
        ([True, True, True], True, "ca"),
        ([False, True, True], True, "cba"),
        ([False, False, None], True, "ca"),
        ([None, None, None], False, "ca"),
    ],
)
def test_before_migrations_what_was_never_tried_replaces_nothing_that_was(
    monkeypatch: pytest.MonkeyPatch, drilled: list[bool | None], drill: bool, left: str
) -> None:
    """`c` and `b` are of one history, `a` of another."""
    records = [
        record(
            9 - n, "logical", label=label, reason=MIGRATING, census={"migrations": [history]},
            drilled=None if ok is None else Check(NOW, ok, 1),
        )
        for n, (label, history, ok) in enumerate(zip("cba", ("m1 x", "m1 x", "m0 x"), drilled, strict=True))
    ]  # fmt: skip
    monkeypatch.setattr(migration_backup, "listed", lambda *_: records)
    monkeypatch.setattr(migration_backup, "remove", lambda *_: None)
    gone_ = migration_backup._prune(None, records[0], 5, drill)  # type: ignore[arg-type]
    assert gone_ == [label for label in "cba" if label not in left]


@pytest.mark.parametrize(("until", "gone"), [("2026-03-30", True), ("2026-03-31", True), ("2026-04-01", False)])
def test_what_a_restore_replaced_is_overdue_from_its_moment_on(until: str, gone: bool) -> None:
    entry = {"until": f"{until}T07:00:00+07:00"}
    assert retention.overdue([entry], datetime.fromisoformat(NOW)) == [entry] * gone


FILES = {
    line: {(name := f"{line:08X}00000000000000{number}"): Path(name) for number in numbers}
    for line, numbers in ((1, ("08", "09", "0A")), (2, ("0A", "0B")))
}


@pytest.mark.parametrize(
    ("archived", "oldest", "receiving", "gone"),
    [
        ([], "", True, []),
        ([], "00000001000000000000000A", True, ["1-08", "1-09"]),
        (["000000010000000000000009"], "", True, ["1-09"]),
        (["00000002000000000000000A"], "", True, ["1-0A", "2-0A"]),  # 1 was left within 0A, and 2 has all of it
        (["00000002000000000000000B"], "", True, []),
        (["00000002000000000000000B"], "", False, ["2-0B"]),
    ],
)
def test_received_segments_that_nothing_needs(
    archived: list[str], oldest: str, receiving: bool, gone: list[str]
) -> None:
    surplus = retention.received_surplus(FILES, [(1, 0xA000060)], 2, archived, oldest, receiving)
    assert [f"{int(path.name[:8])}-{path.name[-2:]}" for path in surplus] == gone


def test_names_of_wal_segments() -> None:
    assert pgbackrest.segment(1, "0/3000028") == "000000010000000000000003"
    assert pgbackrest.segment(2, "1/0") == "0000000200000000000000FF"
    assert (
        pgbackrest.segment_name(1, pgbackrest.segment_number("00000001000000020000000A") + 1)
        == "00000001000000020000000B"
    )


def test_a_shown_configuration_has_no_secret() -> None:
    options = {"repo2-s3-key-secret": "hidden1", "repo2-cipher-pass": "hidden2", "repo2-s3-bucket": "bucket"}
    text = pgbackrest.configuration(1, 2, "hidden3", {**options, "repo2-bundle": True})
    assert all(word in text for word in ("hidden1", "hidden2", "hidden3", "repo2-bundle=y"))
    shown = pgbackrest.masked(text)
    assert "hidden" not in shown
    assert "repo2-s3-bucket=bucket" in shown
