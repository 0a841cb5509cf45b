"""Physical backups: what one is built upon, when it counts, and what a verification finds; with a repository that pretends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import kept, physical
from ansible.module_utils.dastern.backups.pgbackrest import MARK, Info, Verified
from ansible.module_utils.dastern.backups.physical import effective, leftovers, needed, verify
from ansible.module_utils.dastern.backups.records import PAGES, Check, Place, Record
from ansible.module_utils.dastern.common.errors import DasTernError
from samples import NOW, record

SUM = "a" * 64
ARCHIVE = "17-1"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    own = {"endpoint": f"unix://{tmp_path}/none.sock", "container": "pg", "database": "d", "backup_dir": str(tmp_path)}
    return Place(own)


def a_set(label: str, kind: str = "full", **more: Any) -> dict[str, Any]:
    return {"label": label, "type": kind, "in": ARCHIVE, "archive": {"start": f"{1:08X}{1:016X}"}, **more}


def info(*sets: dict[str, Any]) -> Info:
    return Info(True, "42", {1: ["42"]}, ARCHIVE, list(sets), [])


def own(label: str, **changes: Any) -> Record:
    """A record whose backup begins and ends in segments 1 and 3."""
    facts = {"lsn": "0/4000000", "timeline": 1, "files": {physical.MANIFEST[0]: {"sha256": SUM}}, **changes}
    return replace(record(1), label=label, **facts)


class Program:
    """A repository in which all is right but for what a test changes."""

    def __init__(self, *sets: dict[str, Any]) -> None:
        self.sets = list(sets)
        self.told = Verified({one["label"]: True for one in sets})
        self.segments = {f"{1:08X}{number:016X}" for number in (1, 2, 3)}
        self.changed: dict[str, str] = {}
        self.did: list[str] = []

    def info(self, **_: Any) -> Info:
        return info(*self.sets)

    def sums(self, *files: str, **_: Any) -> dict[str, str]:
        return {file: self.changed.get(file.rpartition("/")[2], SUM) for file in files}

    def verify(self, *_: str, **__: Any) -> Verified:
        return self.told

    def archived(self, _: int = 1) -> dict[str, set[str]]:
        return {ARCHIVE: self.segments}

    def histories(self, *_: Any) -> set[str]:
        return set()

    def mark(self, label: str, word: str) -> None:
        self.did.append(f"{label} {word}")


def checked(place: Place, program: Program, one: Record) -> Check:
    return verify(place, program, [one]).checks[one.label]  # type: ignore[arg-type]


def test_a_backup_that_is_right(place: Place) -> None:
    check = checked(place, Program(a_set("a")), own("a"))
    assert (check.ok, check.message) == (True, "")


@pytest.mark.parametrize("file", physical.MANIFEST)
def test_each_manifest_has_to_be_what_was_written(place: Place, file: str) -> None:
    """pgBackRest reads the files by the one, and takes the other where that is damaged."""
    program = Program(a_set("a"))
    program.changed = {file: "b" * 64}
    check = checked(place, program, own("a"))
    assert (check.ok, check.message) == (False, f"damaged: {file}")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_segment_that_a_backup_needs_has_to_be_there_and_whole(place: Place, number: int) -> None:
    name = f"{1:08X}{number:016X}"
    missing, damaged = Program(a_set("a")), Program(a_set("a"))
    missing.segments.remove(name)
    damaged.told.wal.add((ARCHIVE, name))
    assert checked(place, missing, own("a")).message == f"its WAL is missing: {name}"
    assert checked(place, damaged, own("a")).message == f"its WAL is damaged: {name}"


def test_one_that_pgbackrest_finds_damaged_or_lost_takes_those_that_need_it_along(place: Place) -> None:
    program = Program(a_set("a"), a_set("b", "incr", reference=["a"], prior="a"))
    program.told.sets["a"] = False
    found = verify(place, program, [own("a"), own("b", prior="a")])  # type: ignore[arg-type]
    assert [check.ok for check in found.checks.values()] == [False, False]
    assert "it needs a" in found.checks["b"].message
    program.sets.pop(0)
    assert "isn't in the repository any more" in checked(place, program, own("a")).message


def test_a_gap_behind_all_backups_is_a_problem_and_one_before_them_a_note(place: Place) -> None:
    program = Program(a_set("a"))
    program.segments |= {f"{1:08X}{number:016X}" for number in (4, 6)}
    found = verify(place, program, [own("a")])  # type: ignore[arg-type]
    (problem,) = found.problems
    assert f"{1:08X}{5:016X}" in problem
    program.sets.append(a_set("b", archive={"start": f"{1:08X}{6:016X}"}))
    found = verify(place, program, [own("a")])  # type: ignore[arg-type]
    assert (found.problems, len(found.notes)) == ([], 1)


BAD = Check(NOW, False, 1, "damaged: bundle/1")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "incr"), ({"verified": BAD}, "full"), ({"verified": None}, "full"), ({"drilled": BAD}, "full"),
        ({"drilled": Check(NOW, True, 1)}, "incr"),
    ],
)  # fmt: skip
def test_only_what_is_known_to_be_right_is_built_upon(place: Place, changes: dict[str, Any], kind: str) -> None:
    place.save(record(1, label="a", **changes))
    for asked in ("", "incr", "diff"):
        found, why = effective(place, info(a_set("a")), asked)
        assert found == (kind if kind == "full" or not asked else asked)
        assert ("a, which it would build upon" in why) == (kind == "full")
    assert effective(place, info(a_set("a")), "full") == ("full", "")


def test_nothing_is_built_upon_a_set_without_a_record_or_of_another_cluster(place: Place) -> None:
    place.save(record(1, label="a"))
    assert effective(place, info(a_set("a"), a_set("b")), "")[0] == "full"
    assert effective(place, info(a_set("a", **{"in": "17-2"})), "incr")[0] == "full"
    swept = a_set("c", annotation={MARK: "incomplete"})
    assert effective(place, info(a_set("a"), swept), "") == ("incr", "")


def test_a_leftover_that_others_need_or_that_is_the_last_full_one_stays(place: Place) -> None:
    left = a_set("a", annotation={MARK: "incomplete"})
    assert leftovers(place, info(left, a_set("b"))) == ["a"]
    assert leftovers(place, info(left)) == []
    assert leftovers(place, info(left, a_set("b"), a_set("c", "incr", reference=["a"], prior="a"))) == []
    assert needed(place, info(left, a_set("b", "incr", reference=["a"], prior="a"))) == ["a", "a"]


@pytest.mark.parametrize(
    ("check", "counts"),
    [
        (Check(NOW, True, 1), True), (Check(NOW, False, 1, "damaged: bundle/1"), False),
        (Check(NOW, False, 1, f"{PAGES}, in base/5/1"), True),
    ],
)  # fmt: skip
def test_a_backup_counts_when_it_was_read_back(
    place: Place, monkeypatch: pytest.MonkeyPatch, check: Check, counts: bool
) -> None:
    """Damaged pages of the live database are known of it; anything else that is wrong makes it none."""
    program = Program()
    monkeypatch.setattr(place.superuser, "run", lambda _: None)
    monkeypatch.setattr(place.superuser, "value", lambda _: [])
    monkeypatch.setattr(physical, "_copied", lambda *_: "a")
    monkeypatch.setattr(physical, "_counted", lambda *_: own("a"))
    monkeypatch.setattr(physical, "verify", lambda *_: physical.Findings({"a": check}))
    server = physical.Server("42", "17.12", True)
    arguments: Any = (place, program, server, "full", "", "", 0, lambda _: None)
    if counts:
        assert physical.take(*arguments).verified == check
        assert [one.verified for one in place.records()] == [check]
        assert program.did == ["a complete"]
    else:
        with pytest.raises(DasTernError, match="doesn't count: damaged: bundle/1") as refusal:
            physical.take(*arguments)
        assert refusal.value.facts == {"label": "a"}
        assert (place.records(), program.did) == ([], [])


def test_what_a_restore_kept_goes_only_when_it_is_overdue_and_no_swap_is_under_way(place: Place) -> None:
    state = kept.State(place)
    entry = {"what": "cluster", "incoming": "", "words": "", "database": "d", "volume": "", "at": "then"}
    old, new = ({**entry, "kept": f"replaced-{year}", "until": f"{year}-03-01T00:00:00+00:00"} for year in (2025, 2999))
    state.kept = [old, new]
    assert state.overdue == [old]
    state.pending = {**entry, "kept": "x", "until": "2999-03-01T00:00:00+00:00"}
    assert state.overdue == []
