"""Which backup a restore begins with, and which it passes over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.backups.pgbackrest import position
from ansible.module_utils.dastern.backups.records import Check, Record
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Output
from ansible.module_utils.dastern.restores import target as restore_target
from ansible.module_utils.dastern.restores.target import Archive, Stretch, live_at

NOW = "2026-03-31T00:00:00+00:00"
BAD = Check(NOW, False, 1, "damaged: bundle/1")


def record(label: str, verified: Check | None = None, drilled: Check | None = None) -> Record:
    return Record(
        label=label, kind="physical", type="full", database="d", system="1", server="17.12", tool="t", began=NOW, seconds=1,
        bytes=1, stored=1, census={}, exact=True, verified=verified or Check(NOW, True, 1), drilled=drilled,
    )  # fmt: skip


def archive(*needs: str, **changes: Any) -> Archive:
    """The sets `a`, `b` and so on, each built upon the one that is named for it."""
    backups = [
        {
            "label": "abcd"[n], "reference": [base] if base else None, "prior": base or None, "timestamp": {"stop": n},
            "archive": {"start": f"{1:08X}{n:016X}"}, "lsn": {"stop": f"0/{n}000000"}, **changes,
        }
        for n, base in enumerate(needs)
    ]  # fmt: skip
    site: Any = SimpleNamespace()
    return Archive(site, "17-1", "7", backups, {1: dict.fromkeys(range(9), 0.0)})


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


def test_a_bad_backup_is_chosen_if_no_good_one_reaches_the_target() -> None:
    words = "from backup b, which isn't good (no good backup leads there): damaged: bundle/1"
    assert chosen(archive("", ""), record("b", BAD)) == words
    gap = archive("", "")
    del gap.segments[1][1]
    assert chosen(gap, record("a"), record("b", BAD)) == words
    own = archive("", "a")
    assert chosen(own, record("a", drilled=BAD), record("b")).endswith("leads there): it needs a, which isn't good")


def test_pages_that_were_damaged_before_anybody_looked_at_them() -> None:
    own = archive("", "")
    own.backups[1]["error"] = True
    assert chosen(own, record("a"), record("b")) == "from backup a; b is damaged and passed over"


def test_a_timeline_whose_history_cant_be_read() -> None:
    own = archive("")
    own.damaged = {1: "/backups/received/7-00000001/00000001.history"}
    with pytest.raises(DasTernError, match=r"00000001\.history, the history of timeline 1, is damaged"):
        chosen(own, record("a"))


def stretch(number: int, *minutes: float) -> Stretch:
    return Stretch(number, minutes[0] * 60, minutes[-1] * 60)


UNDONE = {1: [(3, 0, 9), (4, 10, 19), (5, 40, 49)], 2: [(4, 20, 29), (5, 30, 39)]}
"""Minutes by timeline and segment: timeline 2 came with a restore at 20, which was taken back at 40."""
PUT_BACK = {1: [(3, 0, 9), (4, 10, 59)], 2: [(4, 30, 70)]}
"""By the clock, which was put back, timeline 2 began while 1 still ran."""


def logged(lines: dict[int, list[tuple[int, float, float]]], empty: int = 99) -> Archive:
    """An archive whose segments hold transactions of these minutes; `empty` is one without."""
    own = archive("")
    own.segments = {line: dict.fromkeys([*(one[0] for one in of), empty], 0.0) for line, of in lines.items()}
    asked: list[int] = []

    def stretches(wanted: Any) -> Any:
        asked.append(len(wanted))
        assert len(set(wanted)) == len(wanted)
        return {
            (line, number): next((stretch(*one) for one in lines[line] if one[0] == number), None)
            for line, number in wanted
        }

    own.stretches, own.asked = stretches, asked  # type: ignore[method-assign,attr-defined]
    return own


@pytest.mark.parametrize(
    ("minute", "line"), [(-1, None), (0, 1), (9.5, 1), (19.9, 1), (20, 2), (29.5, 2), (39.5, 2), (40, 1), (99, 1)]
)
def test_the_timeline_that_was_live(minute: float, line: int | None) -> None:
    around = logged(UNDONE).around(minute * 60)
    assert live_at(minute * 60, around) == line


@pytest.mark.parametrize("minute", [30, 45, 65])
def test_times_that_overlap_tell_no_timeline(minute: float) -> None:
    assert live_at(minute * 60, logged(PUT_BACK).around(minute * 60)) is None
    assert live_at(5 * 60, logged(PUT_BACK).around(5 * 60)) == 1


def test_what_is_around_a_moment_is_found_among_many_segments() -> None:
    """In few readings, whatever segments in between have no transaction."""
    many = {1: [(n, n, n + 0.5) for n in range(0, 2000, 2)], 7: [(3, 5000.0, 5001.0)]}
    own = logged(many)
    own.segments[1] |= dict.fromkeys(range(2000), 0.0)
    around = own.around(1234.2 * 60)
    assert around == {1: (stretch(1234, 1234, 1234.5), stretch(1236, 1236, 1236.5)), 7: (None, stretch(3, 5000, 5001))}
    assert len(own.asked) < 9  # type: ignore[attr-defined]
    assert own.around(-60.0)[1] == (None, stretch(0, 0, 0.5))
    assert own.around(9999 * 60.0)[1] == (stretch(1998, 1998, 1998.5), None)


def test_the_files_times_count_where_they_fit_those_of_the_backups() -> None:
    own = archive("", archive={"start": f"{1:08X}{0:016X}", "stop": f"{1:08X}{1:016X}"}, timestamp={"stop": 1000})
    own.segments = {1: {0: 900.0, 1: 1002.0}, 2: {1: 2000.0}}
    assert (own.dated, own.newest(), own.line_at(950), own.line_at(1500), own.line_at(3000)) == (True, 2, 1, 2, None)
    own.segments = {1: {0: 2000.0, 1: 2000.0}, 2: {1: 2000.0}}  # of a copy without times
    assert (own.dated, own.newest()) == (False, None)
    del own.segments[2]
    assert own.newest() == 1


def test_the_refusal_names_each_timeline_with_its_command() -> None:
    own = logged(PUT_BACK)
    own.forks = {2: [(1, 4 << 24)]}
    refusal = own.ambiguous("Time x", lambda line: f"restore {line}", own.around(45 * 60))
    assert refusal.facts == {"timelines": [1, 2]}
    first, second = (line for line in refusal.message.split("\n") if line.strip().startswith("timeline "))
    assert "backups a;" in first
    assert "`restore 1`" in first
    assert "left timeline 1" in second
    assert "`restore 2`" in second


LOG = [
    "rmgr: Transaction len (rec/tot): 34/ 34, tx:  740, lsn: 0/01000028, prev 0/0, desc: COMMIT 2026-11-30 01:00:00 UTC",
    "rmgr: XLOG len (rec/tot): 98/ 98, tx:    0, lsn: 0/01000128, prev 0/0, desc: RESTORE_POINT 2026-11-30 before cleanup",
    "rmgr: XLOG len (rec/tot): 98/ 98, tx:    0, lsn: 0/01000228, prev 0/0, desc: RESTORE_POINT 2026",
    "rmgr: XLOG len (rec/tot): 98/ 98, tx:    0, lsn: 0/01000328, prev 0/0, desc: RESTORE_POINT 741",
]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("740", ("0/01000028", "The commit of transaction 740")),
        ("741", ("0/01000328", "Restore point `741`")),
        ("2026", ("0/01000228", "Restore point `2026`")),
        ("2026-11-30 before cleanup", ("0/01000128", "Restore point `2026-11-30 before cleanup`")),
    ],
)
def test_a_restore_point_is_found_whatever_its_name_looks_like(target: str, found: tuple[str, str]) -> None:
    assert restore_target._moment(target) is None

    def once(_: str, pattern: str, *__: str, stdin: str) -> Output:
        line = next(line for line in LOG if re.search(pattern, line))
        return Output(0, f"{stdin.split()[0]} {line}\n", "")

    assert restore_target._searched(SimpleNamespace(once=once), archive(""), 1, target, True) == found  # type: ignore[arg-type]


def test_a_name_that_begins_with_a_date_and_isnt_found_may_be_a_time() -> None:
    site: Any = SimpleNamespace(once=lambda *_, **__: Output(0, "", ""), records=lambda _: [])
    with pytest.raises(DasTernError, match=r'For 10:30 in Phnom Penh write `-e target="2026-02-08 10:30:00 \+07:00"`'):
        restore_target._searched(site, archive(""), 1, "2026-02-08 10:30 ICT", True)


@pytest.mark.parametrize("text", ["2026-02-30 10:00:00+07", "2026-02-08 25:00:00 +07:00", "2026-02-08T10:30:00,5,5Z"])
def test_a_wrong_time_is_no_name(text: str) -> None:
    with pytest.raises(DasTernError, match="is not a time. For 10:30 in Phnom Penh write.* Nothing was done"):
        restore_target._moment(text)


@pytest.mark.parametrize("timeline", [9, "two", "-1"])
def test_a_timeline_that_there_isnt_is_refused_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, timeline: int | str
) -> None:
    own = logged(UNDONE)
    monkeypatch.setattr(restore_target.Archive, "read", lambda _: own)
    with pytest.raises(DasTernError) as refusal:
        restore_target.resolve(
            SimpleNamespace(records=lambda _: []),  # type: ignore[arg-type]
            "latest", check_mode=True, timeline=timeline, again=lambda line: f"restore {line}",
        )  # fmt: skip
    assert refusal.value.facts == {"timelines": [1, 2]}
    assert refusal.value.message.startswith(
        f"`timeline` is {timeline}, which the archive doesn't have. Nothing was done."
    )
    assert "`restore 1`" in refusal.value.message


@pytest.fixture
def archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The histories of a repository as `pgbackrest repo-get` gives them; an exception is raised."""
    told = {"backup": [], "archive": [{"id": "17-1"}], "db": [{"system-id": 7}]}
    monkeypatch.setattr(restore_target, "info", lambda _: told)

    def read(repository: int = 1, **histories: Any) -> Archive:
        def pgbackrest(command: str, *words: str) -> str:
            if command == "repo-ls":
                return json.dumps({f"17-1/{name}.history": {} for name in histories})
            found = histories[Path(words[0]).stem]
            if isinstance(found, DasTernError):
                raise found
            return str(found)

        site: Any = SimpleNamespace(backups=tmp_path, pgbackrest=pgbackrest, repository=repository)
        return Archive.read(site)

    return read


def test_a_history_that_cant_be_read_is_damaged_and_ends_nothing_else(archived: Any) -> None:
    whole, unread = "1\t0/A000060\tnone\n", DasTernError("pgBackRest can't read the repository: [095]: bad decrypt.")
    own = archived(**{"00000002": unread, "00000003": "", "00000004": whole, "00000005": whole[1:]})
    assert own.forks == {4: [(1, 0xA000060)]}
    assert own.damaged == {line: f"0000000{line}.history in the archive" for line in (2, 3, 5)}
    with pytest.raises(DasTernError, match="was ended"):
        archived(**{"00000002": DasTernError("It was ended from outside.", status=0)})


def test_a_history_on_a_line_that_broke_isnt_damaged(archived: Any) -> None:
    unread = DasTernError("pgBackRest can't read the repository: [095]: bad decrypt.")
    assert 2 in archived(repository=2, **{"00000002": unread}).damaged
    with pytest.raises(DasTernError, match="timeout"):
        archived(repository=2, **{"00000002": DasTernError("pgBackRest can't read the repository: [042]: timeout.")})


@pytest.mark.parametrize("target", ["2026-03-31 10:30:00 +07:00", "latest", "0/3000000", "a"])
@pytest.mark.parametrize(("cluster", "check_mode"), [(True, True), (True, False), (False, False)])
def test_an_archive_without_segments_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, cluster: bool, check_mode: bool
) -> None:
    """Whatever is asked for, and whether there is a data directory to read the log with."""
    told = {"backup": archive("").backups, "archive": [{"id": "17-1"}], "db": [{"system-id": 7}]}
    monkeypatch.setattr(restore_target, "info", lambda _: told)
    site: Any = SimpleNamespace(
        backups=tmp_path, repository=1, pgbackrest=lambda *_: "{}", answers=lambda: False, records=lambda _: [record("a")],
        look=lambda: {"cluster": cluster}, seen=lambda *_: Output(0, "7\n1\n", ""),
    )  # fmt: skip
    with pytest.raises(DasTernError, match="no segment of the write-ahead log") as refusal:
        restore_target.resolve(site, target, check_mode=check_mode, timeline=0)
    assert refusal.value.facts == {"timelines": []}


def forked() -> Archive:
    """Timeline 2 left timeline 1 in the middle of segment 2: `a` and `b` end before that, `c` and `d` behind it."""
    own = archive("", "", "", "")
    own.forks = {2: [(1, position("0/2800000"))]}
    own.segments = {1: dict.fromkeys(range(9), 0.0), 2: dict.fromkeys(range(2, 9), 0.0)}
    own.backups[2]["lsn"]["stop"] = "0/2900000"
    return own


@pytest.mark.parametrize(("timeline", "label"), [(1, "d"), (2, "b")])
def test_a_backup_from_behind_the_end_of_its_timeline_leads_to_no_other(timeline: int, label: str) -> None:
    own = forked()
    backup, words = own.choose([record(one) for one in "abcd"], timeline, lambda _: True, 8, "The newest state")
    assert (backup["label"], words) == (label, f"from backup {label}")


def test_a_backup_that_ends_where_its_timeline_was_left_leads_to_the_next() -> None:
    own = forked()
    own.backups[2]["lsn"]["stop"] = "0/2800000"
    backup, _ = own.choose([record(one) for one in "abcd"], 2, lambda _: True, 8, "The newest state")
    assert backup["label"] == "c"


def test_a_timeline_that_isnt_in_the_history_leads_nowhere() -> None:
    with pytest.raises(DasTernError, match="is older than the oldest backup that leads there"):
        forked().choose([record(one) for one in "abcd"], 3, lambda _: True, 8, "The newest state")


@pytest.mark.parametrize(("number", "line"), [(0, 1), (1, 1), (2, 2), (3, 2)])
def test_the_segment_in_which_a_timeline_was_left_is_read_from_its_heir(number: int, line: int) -> None:
    """PostgreSQL copies the beginning of that segment into the new timeline's own."""
    assert forked().holder(2, number) == line
    assert forked().holder(1, number) == 1


def test_what_is_reached_goes_over_to_the_heir_and_ends_before_a_gap() -> None:
    own = forked()
    assert own.reach("a", 2) == (8, False)
    del own.segments[2][2]
    assert own.reach("a", 2) == (1, True)


def test_backups_without_a_record_are_not_chosen() -> None:
    with pytest.raises(DasTernError, match="None of the 4 backups in the repository has a record"):
        forked().choose([], 1, lambda _: True, 8, "The newest state")
