"""What the receiver wrote: found by cluster and timeline, and deleted when nothing needs it any more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import physical
from ansible.module_utils.dastern.backups.received import Received, forks, prune

FIRST, SECOND = "7-00000001", "7-00000002"
SEGMENTS = [f"0000000100000000000000{number}" for number in ("08", "09", "0A")]


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    """A cluster whose first timeline was left within segment 0A, and another cluster."""
    for name in (
        *(f"{FIRST}/{segment}" for segment in SEGMENTS[:2]), f"{FIRST}/{SEGMENTS[2]}.partial",
        f"{SECOND}/00000002000000000000000A", f"{SECOND}/00000002000000000000000B.partial", f"8-00000001/{SEGMENTS[0]}",
    ):  # fmt: skip
        path = tmp_path / "received" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "received" / SECOND / "00000002.history").write_text("1\t0/A000060\tno recovery target specified\n")
    return tmp_path


def left(backups: Path) -> list[str]:
    return sorted(str(path.relative_to(backups / "received")) for path in backups.glob("received/*/*"))


def test_segments_by_timeline_and_number(backups: Path) -> None:
    found = Received(backups, "7")
    assert {line: sorted(numbers) for line, numbers in found.times().items()} == {1: [8, 9, 10], 2: [10, 11]}
    assert found.forks == {2: [(1, 0xA000060)]}
    assert Received(backups, "9").times() == {}


def test_what_is_not_archived_stays(backups: Path) -> None:
    before = left(backups)
    prune(backups, "7", 2, set(), "")
    assert left(backups) == before
    prune(backups, "7", 2, {SEGMENTS[0]}, "")
    assert left(backups) == [name for name in before if name != f"{FIRST}/{SEGMENTS[0]}"]


def test_a_timeline_goes_when_its_end_is_archived_under_the_next_ones_name(backups: Path) -> None:
    prune(backups, "7", 2, {*SEGMENTS[:2], "00000002000000000000000A"}, "")
    assert left(backups) == [
        f"{SECOND}/00000002.history", f"{SECOND}/00000002000000000000000B.partial", f"8-00000001/{SEGMENTS[0]}",
    ]  # fmt: skip
    assert not (backups / "received" / FIRST).exists()


def test_the_newest_stays_though_it_is_archived(backups: Path) -> None:
    prune(backups, "7", 1, SEGMENTS, "")
    assert [name for name in left(backups) if name.startswith(FIRST)] == [f"{FIRST}/{SEGMENTS[2]}.partial"]


@pytest.mark.parametrize(
    ("starts", "waiting", "receiving", "kept"),
    [
        (["00000001000000000000000B"], [], True, []),
        # By number, not by timeline: from the second one the log is needed from 09 on.
        (["00000001000000000000000B", "000000020000000000000009"], [], True, SEGMENTS[1:2]),
        ([], SEGMENTS[:1], True, SEGMENTS[:1]),
        ([], SEGMENTS[:1], False, SEGMENTS[:1]),
    ],
)
def test_what_is_archived_goes_but_not_what_waits_for_another_repository(
    backups: Path, starts: list[str], waiting: list[str], receiving: bool, kept: list[str]
) -> None:
    archived = {"17-1": {SEGMENTS[0], "00000002000000000000000A"} if not starts else set()}
    sets = [{"in": "17-1", "archive": {"start": start}} for start in starts]
    place: Any = SimpleNamespace(
        folder=backups, container="pg",
        superuser=SimpleNamespace(value=lambda _: ["7", "00000002", waiting]),
        containers=SimpleNamespace(inspect=lambda *_: {} if receiving else None),
    )  # fmt: skip
    program: Any = SimpleNamespace(info=lambda: SimpleNamespace(archive="17-1", sets=sets), archived=lambda: archived)
    physical.forget_received(place, program)
    first = [Path(name).name for name in left(backups) if name.startswith(FIRST)]
    assert [name for name in first if name in SEGMENTS[: 3 if starts else 1]] == kept


def test_what_no_backup_reaches_goes(backups: Path) -> None:
    prune(backups, "7", 2, set(), "00000001000000000000000A")
    assert [name for name in left(backups) if name.startswith(FIRST)] == [f"{FIRST}/{SEGMENTS[2]}.partial"]


def test_once_nothing_is_received_only_what_is_not_archived_stays(backups: Path) -> None:
    prune(backups, "7", 1, SEGMENTS, "", receiving=False)
    assert [name for name in left(backups) if name.startswith(FIRST)] == []


@pytest.mark.parametrize(
    "damaged",
    [
        b"1\t0/A0000\xe0\tno recovery target\n", b"1\t0?A000060\tno recovery target\n", b"", b"# nothing\n",
        b"3\t0/A000060\tno recovery target\n", b"1\t0/A000060\tnone\n1\t0/B000060\tnone\n",
    ],
)  # fmt: skip
def test_a_history_that_is_damaged_is_known_and_lets_nothing_be_deleted(backups: Path, damaged: bytes) -> None:
    history = backups / "received" / SECOND / "00000002.history"
    history.write_bytes(damaged)
    found = Received(backups, "7")
    assert (found.forks, found.damaged) == ({}, {2: history})
    before = left(backups)
    prune(backups, "7", 2, {"00000002000000000000000A"}, "")
    assert left(backups) == [name for name in before if not name.endswith("/00000002000000000000000A")]


def test_a_history_of_a_recovery_that_ended_before_its_timeline_began() -> None:
    text = "1\t0/A000060\tno recovery target specified\n\n2\t0/5000028\tbefore 2026-03-01 00:00:00+00\n"
    assert forks(text, 3) == [(1, 0xA000060), (2, 0x5000028)]
