"""What is wrong with the backups: each finding, and Prometheus' file."""

from __future__ import annotations

import fcntl
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import health as backup_health
from ansible.module_utils.dastern.backups import metrics
from ansible.module_utils.dastern.backups.health import ARGUMENT_SPEC, KINDS, Health, examine
from ansible.module_utils.dastern.backups.pgbackrest import Info, PgBackRest
from ansible.module_utils.dastern.backups.records import Check, Place, Record
from ansible.module_utils.dastern.docker.containers import Containers, Output
from ansible.module_utils.dastern.server import pgbackrest_version

NOW = datetime(2026, 2, 8, 12, 0, tzinfo=UTC)
GOOD = Check((NOW - timedelta(hours=2)).isoformat(), True, 1.0)
ARCHIVING = {
    "mode": "on", "archived": 10, "failed": 0, "last": NOW.timestamp() - 30, "last_failed": None, "failed_wal": None,
    "waiting": 0, "waiting_seconds": 0, "wal_bytes": 1 << 26,
}  # fmt: skip
RECEIVING = {"names": "", "streaming": False, "behind": 0, "away": None, "lost": False, "waiting": 0}


class Backups:
    """A folder with records, and a server that says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.params: dict[str, Any] = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        self.params |= {"endpoint": f"unix://{folder}/none.sock", "container": "pg", "database": "dastern"}
        self.params |= {"backup_dir": str(folder), "disk_free": 0}
        self.place = Place(self.params)

    def add(self, hours: float = 3, kind: str = "full", **changes: Any) -> Record:
        values: dict[str, Any] = {
            "label": f"{kind}{hours}", "kind": "logical" if kind == "logical" else "physical", "type": kind,
            "database": "dastern", "system": "1", "server": "17", "tool": "t",
            "began": (NOW - timedelta(hours=hours)).isoformat(), "seconds": 60, "bytes": 1000_000, "stored": 100_000,
            "census": {}, "exact": True, "verified": GOOD, "drilled": GOOD, "restore_seconds": 4.5,
        }  # fmt: skip
        record = Record(**(values | changes))
        self.place.save(record)
        return record

    def status(self, **deeds: Any) -> None:
        (self.place.folder / "status.json").write_text(json.dumps(deeds))

    def look(self, **params: Any) -> Health:
        return examine({**self.params, **params}, NOW)

    def found(self, **params: Any) -> dict[str, str]:
        return {one.kind: str(one) for one in self.look(**params).problems}


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the server says."""
    told = {**ARCHIVING, **RECEIVING}
    monkeypatch.setattr(
        "ansible.module_utils.dastern.server.psql.Psql.value",
        lambda _, query, *__: [] if "NOT active" in query else dict(told),
    )
    return told


@pytest.mark.parametrize(
    ("printed", "version", "problem"),
    [
        (Output(0, "pgBackRest 2.55.1\n", ""), "2.55.1", ""),
        (Output(0, "pgBackRest 2.99.0\n", ""), "2.99.0", ""),
        (Output(0, "pgBackRest 2.54.2\n", ""), "", "2.54.2"),
        (Output(127, "", "sh: 1: pgbackrest: not found"), "", "none is there"),
        (Output(137, "", ""), "", ""),
    ],
)
def test_the_version_of_pgbackrest(
    backups: Backups,
    archive: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    printed: Output,
    version: str,
    problem: str,
) -> None:
    monkeypatch.setattr(backup_health.keeper, "there", lambda _: True)
    monkeypatch.setattr(Containers, "execute", lambda *_, **__: printed)
    health = backups.look()
    assert (health.pgbackrest, health.as_dict()["pgbackrest"]) == (version, version)
    found = [one for one in health.problems if one.kind == "pgbackrest"]
    assert [(one.found, one.wanted, one.command) for one in found] == (
        [(problem, pgbackrest_version.RANGE, pgbackrest_version.FIX)] if problem else []
    )
    assert [line for line in health.lines() if "newer than" in line] == pgbackrest_version.untested(version)


@pytest.mark.parametrize(
    ("declared", "found", "words"),
    [
        (True, {"names": "das_tern_receiver", "streaming": True, "behind": 5}, ""),
        (True, {"streaming": True}, "commits don't wait for it yet"),
        (True, {"names": "das_tern_receiver", "away": NOW.timestamp(), "waiting": 2},
         "the receiver is away since 2026-02-08 19:00:00 +07:00 (0 s ago): COMMITS WAIT, 2 of them now"),
        (True, {"away": NOW.timestamp(), "lost": True}, "and its slot was given up: commits go on without it"),
        (False, {"names": "das_tern_receiver", "streaming": True}, "commits wait for das_tern_receiver; expected: none"),
        (False, {"names": "another"}, ""),
    ],
)  # fmt: skip
def test_zero_loss(
    backups: Backups, archive: dict[str, Any], declared: bool, found: dict[str, Any], words: str
) -> None:
    backups.add()
    archive |= found
    problem = backups.found(zero_loss=declared).get("zero_loss", "")
    assert words in problem
    assert bool(words) == bool(problem)
    on = "zero loss: on; the receiver is 5 B behind" in backups.look(zero_loss=declared).lines()
    assert on == (declared and not words)
    page = metrics.page(backups.look(zero_loss=declared))
    assert ("dastern_backup_zero_loss_waits" in page) == (declared or found["names"] == "das_tern_receiver")


def test_all_is_well(backups: Backups, archive: dict[str, Any]) -> None:
    backups.add()
    health = backups.look()
    assert health.problems == []
    lines = "\n".join(health.lines())
    assert (
        "1 backups, the newest full3 (full, 98 kB of 977 kB, verified) 2026-02-08 16:01:00 +07:00 (2 h 59 min ago)"
        in lines
    )
    assert (
        "physical backup restored for trial 2026-02-08 17:00:00 +07:00 (2 h 0 min ago): full3, serving after 4.5 s"
        in lines
    )
    assert "WAL archive: 0 segments wait, the last archived 2026-02-08 18:59:30 +07:00 (30 s ago)" in lines


def test_the_container_that_archives_is_away(
    backups: Backups, archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backups.add()
    for runs, words in ((True, None), (False, "container pg-backup: doesn't run; expected: running")):
        monkeypatch.setattr("ansible.module_utils.dastern.backups.keeper.there", lambda _, runs=runs: runs)
        assert (backups.found().get("archive_failing") or "").startswith(words or "")
        assert (words is None) == ("archive_failing" not in backups.found())


def test_nothing_is_there(tmp_path: Path) -> None:
    empty = Backups(tmp_path / "absent" / "folder")
    health = empty.look()
    assert [one.kind for one in health.problems] == ["age"]
    assert health.lines()[0] == "no backup"
    assert "doesn't answer" in health.unasked
    assert health.problems[0].command == "ansible-playbook playbooks/backup.yml"


def test_the_newest_is_too_old(backups: Backups) -> None:
    backups.add(hours=26.5)
    assert backups.found()["age"] == (
        "no recent backup: the newest ended 2026-02-07 16:31:00 +07:00 (1 d 2 h ago); expected: one in the last 26 h "
        "(backup_expected_hours)"
    )
    assert "age" not in backups.found(expected_hours=27)


def test_the_newest_is_not_verified_or_damaged(backups: Backups) -> None:
    backups.add(hours=5)
    backups.add(hours=3, verified=None)
    assert backups.found()["unverified"] == "backup full3: not verified; expected: verified"
    backups.add(hours=2, verified=Check(NOW.isoformat(), False, 1.0, "one page is wrong"))
    assert backups.found()["unverified"] == "backup full2: damaged: one page is wrong; expected: verified"


def test_trial_restores(backups: Backups) -> None:
    backups.add(drilled=None)
    assert backups.found()["drill"].startswith(
        "trial restore of a physical backup: never; expected: one that succeeded in the last 7 d"
    )
    assert "drill" not in backups.found(drill_days=0)
    backups.add(hours=200, drilled=Check((NOW - timedelta(days=8)).isoformat(), True, 1))
    assert "drill" not in backups.found()  # the next backup is due before one is missing
    backups.add(hours=200, drilled=Check((NOW - timedelta(days=9)).isoformat(), True, 1))
    assert backups.found()["drill"].startswith(
        "trial restore of a physical backup: 2026-01-30 19:00:00 +07:00 (9 d 0 h ago);"
    )
    backups.add(hours=4, drilled=Check(GOOD.at, False, 1, "no rows"))
    assert backups.found()["drill"].startswith("trial restore of a physical backup: full4 failed: no rows;")


def test_the_last_run_failed(backups: Backups) -> None:
    backups.add(hours=30)
    backups.status(run={"began": (NOW - timedelta(hours=3)).isoformat(), "outcome": "failed", "message": "no disk"})
    assert backups.found()["run"] == "the scheduled job's run: failed: no disk; expected: ok"
    backups.add(hours=1)  # by hand since
    assert "run" not in backups.found()


def test_a_logical_one_stands_for_no_physical_one(backups: Backups) -> None:
    backups.add(hours=30)
    backups.add(hours=1, kind="logical")
    backups.status(run={"began": (NOW - timedelta(hours=3)).isoformat(), "outcome": "failed", "message": "no disk"})
    assert not {"age", "run"} & backups.found().keys()
    found = backups.found(wal_archive=True)
    assert found["age"].startswith(
        "no recent physical backup: the newest ended 2026-02-07 13:01:00 +07:00 (1 d 5 h ago)"
    )
    assert "no disk" in found["run"]


def test_a_logical_one_proves_nothing_of_physical_ones(backups: Backups) -> None:
    backups.add(hours=200, drilled=Check((NOW - timedelta(days=9)).isoformat(), True, 1))
    backups.add(hours=3, kind="incr", drilled=None)
    backups.add(hours=1, kind="logical")
    drill = next(one for one in backups.look(wal_archive=True).problems if one.kind == "drill")
    assert drill.found == "2026-01-30 19:00:00 +07:00 (9 d 0 h ago)"
    assert drill.command == "ansible-playbook playbooks/restore_drill.yml -e target=incr3"
    backups.add(hours=3, kind="incr", drilled=Check(NOW.isoformat(), False, 1, "no rows"))
    assert backups.found(wal_archive=True)["drill"].startswith(
        "trial restore of a physical backup: incr3 failed: no rows"
    )
    backups.add(hours=3, kind="incr", verified=None)
    assert backups.found(wal_archive=True) == {"unverified": "backup incr3: not verified; expected: verified"}
    backups.add(hours=3, kind="incr")
    assert backups.found(wal_archive=True) == {}
    backups.place.forget("full200")
    backups.place.forget("incr3")
    assert "drill" not in backups.found(wal_archive=True)  # where there are no others it is all that there is


@pytest.mark.parametrize("wal_archive", [True, False])
def test_the_newest_of_each_kind_may_not_be_damaged(backups: Backups, wal_archive: bool) -> None:
    bad = Check(NOW.isoformat(), False, 1.0, "one page is wrong")
    for kinds in (("full", "logical"), ("logical", "full")):
        backups.add(2, kinds[0], verified=bad)
        backups.add(1, kinds[1])
        words = f"backup {kinds[0]}2: damaged: one page is wrong; expected: verified"
        assert backups.found(wal_archive=wal_archive)["unverified"] == words
        for one in backups.place.records():
            backups.place.forget(one.label)
    backups.add()
    backups.add(0.5, "logical", drilled=replace(bad, message="no rows"))
    assert "failed: no rows" in backups.found(wal_archive=wal_archive)["drill"]


def test_a_backup_dated_in_the_future_hides_no_problem(backups: Backups) -> None:
    backups.add(hours=-0.05)  # of a clock a little ahead
    assert backups.found() == {}
    backups.place.forget("full-0.05")
    backups.add(hours=30)
    backups.add(hours=-48, drilled=Check((NOW + timedelta(hours=48)).isoformat(), True, 1))
    drilled = backups.look().drilled
    assert drilled
    assert drilled[0].label == "full30"
    backups.status(run={"began": (NOW - timedelta(hours=3)).isoformat(), "outcome": "failed", "message": "no disk"})
    ages = [str(one) for one in backups.look().problems if one.kind == "age"]
    assert ages[0].startswith("backup full-48: of 2026-02-10 19:01:00 +07:00, which is in the future")
    assert ages[1].startswith("no recent backup: the newest ended 2026-02-07 13:01:00 +07:00 (1 d 5 h ago)")
    assert "no disk" in backups.found()["run"]


def test_a_run_that_was_cut_is_told_from_one_that_works(backups: Backups) -> None:
    backups.add(hours=30)
    backups.status(run={"began": (NOW - timedelta(hours=3)).isoformat(), "outcome": "running", "message": ""})
    with (backups.place.folder / backup_health.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "run" not in backups.found()
    assert "ended before it was done" in backups.found()["run"]


@pytest.mark.parametrize("text", ["", "[]", '{"run": 3}', "{"])
def test_an_unreadable_status_file_is_ignored(backups: Backups, text: str) -> None:
    backups.add()
    (backups.place.folder / "status.json").write_text(text)
    assert backups.look().problems == []


@pytest.mark.parametrize(("kind", "field"), [("full", "stored"), ("logical", "stored"), ("incr", "bytes")])
def test_a_size_far_from_its_predecessors(backups: Backups, kind: str, field: str) -> None:
    for hours in (10, 20, 30):
        backups.add(hours, kind)
    backups.add(2, "diff", **{field: 1})  # of another type
    assert "size" not in backups.found()
    backups.add(1, kind, **{field: 400_000_000})
    words = backups.found()["size"]
    assert words.startswith(f"size of {kind} backup {kind}1: 381 MB; expected: ")
    assert words.endswith("as its predecessors (backup_size_factor)")
    assert "size" not in backups.found(size_factor=10_000.0)
    backups.add(0.5, kind, **{field: 10})
    assert "10 B" in backups.found()["size"]


def test_another_database_s_logical_backup_is_none_of_this_one(backups: Backups) -> None:
    backups.add(hours=1, kind="logical", database="other")
    assert backups.found()["age"].startswith("no backup")


def test_the_archive(backups: Backups, archive: dict[str, Any]) -> None:
    backups.add()
    archive |= {"waiting": 3, "waiting_seconds": 400}
    assert backups.found()["archive_lag"] == (
        "WAL archive: 3 segments wait, the oldest for 6 min; expected: no longer than 300 s (backup_archive_lag)"
    )
    archive |= {"last_failed": NOW.timestamp() - 20, "failed_wal": "000000010000000000000007"}
    assert (
        "archive_command: fails on 000000010000000000000007, 2026-02-08 18:59:40 +07:00 (20 s ago)"
        in backups.found()["archive_failing"]
    )
    archive["last"] = NOW.timestamp() - 10
    assert "archive_failing" not in backups.found()
    archive["last"] = None
    assert "archive_failing" in backups.found()
    archive["mode"] = "off"
    assert backups.found() == {}
    assert "archive_mode is off" in backups.found(wal_archive=True)["archive_off"]


def test_the_log_has_to_reach_the_further_repositories_too(
    backups: Backups, archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(_: Any, __: str, command: list[str]) -> Output:
        return Output(0, "repo1-path=/a\nrepo2-type=s3\n" if command[0] == "cat" else "Avail Size\n 90 1000\n", "")

    monkeypatch.setattr(Containers, "execute", told)
    backups.add()
    archive |= {"last_failed": NOW.timestamp() - 20, "failed_wal": "000000010000000000000007"}
    assert "in repository 2 as well; or, if that stays away" in backups.found()["archive_failing"]
    assert backups.found(disk_free=9) == backups.found()
    assert (
        backups.found(disk_free=10)["disk"]
        == "disk of the data: 90 B of 1000 B free; expected: 10 % (backup_disk_free)"
    )


@pytest.mark.parametrize(("devices", "same"), [("66\n66\n", True), ("66\n51\n", False), ("66\n", False)])
def test_zero_loss_on_the_disk_of_the_data_is_told(
    backups: Backups, archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch, devices: str, same: bool
) -> None:
    told = {"cat": "", "df": "Avail Size\n 90 100\n", "stat": devices}
    monkeypatch.setattr(Containers, "execute", lambda _, __, command: Output(0, told[command[0]], ""))
    backups.add()
    archive |= {"names": "das_tern_receiver", "streaming": True}
    health = backups.look(zero_loss=True)
    assert health.problems == []
    (line,) = (line for line in health.lines() if line.startswith("zero loss"))
    assert ("on, but on the same disk as the data" in line) == same
    assert line.endswith("; the receiver is 0 B behind")


def test_the_disk_fills(backups: Backups) -> None:
    backups.add()
    assert "100 % (backup_disk_free)" in backups.found(disk_free=100)["disk"]
    backups.add(hours=2, stored=1 << 60)
    assert "and the last full backup's" in backups.found()["disk"]


# The exposition format, as far as the file uses it.
SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*",?)+)\} (-?\d+(?:\.\d+)?(?:e[+-]\d+)?)')


def parsed(text: str) -> dict[tuple[str, str], float]:
    """Samples by name and labels; refuses what node_exporter would."""
    assert text.endswith("\n")
    samples: dict[tuple[str, str], float] = {}
    seen: dict[str, str] = {}
    lines = text.splitlines()
    while lines:
        name = lines.pop(0).removeprefix("# HELP ").split(" ", 1)[0]
        found = re.fullmatch(rf"# TYPE {name} (gauge|counter)", lines.pop(0))
        assert found, name
        assert name not in seen, name
        assert (found[1] == "counter") == name.endswith("_total"), name
        assert re.fullmatch(r"dastern_backup_[a-z_]+", name), name
        seen[name] = found[1]
        while lines and not lines[0].startswith("#"):
            sample = SAMPLE.fullmatch(lines.pop(0))
            assert sample, name
            assert sample[1] == name
            assert (name, sample[2]) not in samples
            samples[name, sample[2]] = float(sample[3])
    return samples


def test_the_metrics(backups: Backups, archive: dict[str, Any]) -> None:
    backups.add()
    backups.add(hours=1, kind="incr", drilled=None)
    backups.status(
        run={"began": NOW.isoformat(), "outcome": "ok", "message": "", "seconds": 12.5},
        next="2026-02-09T02:30:00+07:00",
    )
    found = parsed(metrics.page(backups.look()))
    own = 'container="pg",database="dastern"'
    assert (
        found["dastern_backup_last_timestamp_seconds", f'{own},type="full"'] == (NOW - timedelta(hours=3)).timestamp()
    )
    assert found["dastern_backup_last_size_bytes", f'{own},type="incr"'] == 1000_000
    assert found["dastern_backup_run_success", own] == 1
    assert found["dastern_backup_run_duration_seconds", own] == 12.5
    assert (
        found["dastern_backup_next_run_timestamp_seconds", own] == datetime(2026, 2, 8, 19, 30, tzinfo=UTC).timestamp()
    )
    assert found["dastern_backup_archive_segments_total", own] == 10
    assert found["dastern_backup_check_timestamp_seconds", own] == NOW.timestamp()
    assert [found["dastern_backup_problem", f'{own},kind="{kind}"'] for kind in KINDS] == [0] * len(KINDS)


def test_the_metrics_of_nothing_and_of_strange_names(backups: Backups) -> None:
    backups.params["database"] = 'a"b\\c\nd ថ្នាំ'
    found = parsed(metrics.page(backups.look()))
    own = 'container="pg",database="a\\"b\\\\c\\nd ថ្នាំ"'
    assert found["dastern_backup_problem", f'{own},kind="age"'] == 1
    assert found["dastern_backup_archive_known", own] == 0
    assert not any("archive_waiting" in name or "_last_" in name for name, _ in found)


@pytest.mark.parametrize("kind", ["full", "logical"])
def test_what_a_drill_found_stays_a_problem_until_the_next_drill(backups: Backups, kind: str) -> None:
    """Backups are taken each night, and drilled once in a while."""
    at = (NOW - timedelta(hours=20)).isoformat()
    backups.add(hours=2.5)
    for check, words in (
        (Check(at, True, 1, "", ["table public.a: 3 rows fewer"]), "3 rows fewer"),
        (Check(at, False, 1, "no rows"), "failed: no rows"),
    ):
        backups.add(hours=25, kind=kind, drilled=check)
        backups.add(hours=1, kind=kind, drilled=None)
        if kind == "full":
            backups.place.forget("full2.5")
        (drill,) = (one for one in backups.look(wal_archive=True).problems if one.kind == "drill")
        assert words in drill.found
        assert drill.command == f"ansible-playbook playbooks/restore_drill.yml -e target={kind}1"
        backups.add(hours=1, kind=kind)
        assert backups.found(wal_archive=True) == {}


def test_the_jobs_failed_drill_is_hidden_by_its_own_failure_alone(backups: Backups) -> None:
    began = NOW - timedelta(hours=4)
    backups.status(drill={"began": began.isoformat(), "outcome": "failed", "message": "no room", "seconds": 60})
    during, before = (began + timedelta(minutes=n) for n in (0, -30))
    differing = Check(before.isoformat(), True, 1, "", ["table public.a: 3 rows fewer"])
    for drilled, told in (
        (differing, {"drill", "run"}),
        (None, {"drill", "run"}),
        (Check(before.isoformat(), False, 1, "no rows"), {"drill", "run"}),
        (Check(during.isoformat(), False, 1, "no rows"), {"drill"}),
        (replace(differing, at=during.isoformat()), {"drill"}),
        (Check(during.isoformat(), True, 1), set()),
    ):
        backups.add(hours=5, drilled=drilled)
        assert backups.found(wal_archive=True).keys() == told
    backups.add(hours=5, drilled=Check(during.isoformat(), False, 1, "no rows"))
    assert "no room" in backups.found(wal_archive=True, drill_days=0)["run"]
    # A logical one, which the job doesn't drill here, says nothing of it.
    backups.add(hours=5)
    backups.status(drill={"began": NOW.isoformat(), "outcome": "failed", "message": "no room", "seconds": 60})
    backups.add(hours=6, kind="logical", drilled=Check(NOW.isoformat(), False, 1, "no rows"))
    assert backups.found(wal_archive=True).keys() == {"drill", "run"}


def test_drills_are_told_by_kind(backups: Backups) -> None:
    backups.add(hours=2, drilled=None)
    backups.add(hours=1, kind="logical")
    health = backups.look(wal_archive=True)
    (drill,) = (one for one in health.problems if one.kind == "drill")
    assert (drill.what, drill.command.rpartition("=")[2]) == ("trial restore of a physical backup", "full2")
    assert drill.found.startswith("never (only logical logical1, 2026-02-08 17:00:00 +07:00 (2 h 0 min ago)")
    told = [line.partition(" restored for trial")[0] for line in health.lines() if "restored for trial" in line]
    assert told == ["logical backup"]
    assert backups.found(wal_archive=False) == {}  # there both count
    backups.add(hours=2)
    health = backups.look(wal_archive=True)
    assert health.problems == []
    told = [line.partition(" restored for trial")[0] for line in health.lines() if "restored for trial" in line]
    assert told == ["physical backup", "logical backup"]


def test_a_swap_that_was_begun_is_a_problem(backups: Backups) -> None:
    backups.add()
    swap = {"what": "cluster", "at": (NOW - timedelta(minutes=5)).isoformat()}
    (backups.place.folder / "restore.json").write_text(json.dumps({"kept": [], "pending": swap}))
    (found,) = (one for one in backups.look().problems if one.kind == "swap")
    assert found.command == "ansible-playbook playbooks/restore.yml"
    (backups.place.folder / "restore.json").write_text(json.dumps({"kept": [], "pending": None}))
    assert "swap" not in backups.found()
    (backups.place.folder / "restore.json").write_text("{")
    assert "swap" not in backups.found()


def test_another_disk_in_the_place_of_the_backups_is_a_problem(backups: Backups, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "identity.json").write_text(json.dumps({"id": "a", "folder": str(backups.place.folder)}))
    (found,) = (one for one in backups.look(config_dir=str(config)).problems if one.kind == "folder")
    assert found.command == f"findmnt -T {backups.place.folder}"
    (backups.place.folder / "identity.json").write_text((config / "identity.json").read_text())
    assert "folder" not in {one.kind for one in backups.look(config_dir=str(config)).problems}


def test_a_gap_behind_the_newest_backup_is_a_problem(
    backups: Backups, archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the log of a time when another disk was in its place; one from before it concerns no later backup."""
    backups.add()
    there = {f"{1:08X}{n:016X}" for n in (1, 3, 4, 5, 7)}
    newest = {"in": "17-1", "archive": {"start": f"{1:08X}{4:016X}"}}
    info = Info(True, "1", {}, "17-1", [{"in": "17-1", "archive": {"start": f"{1:08X}{1:016X}"}}, newest], [])
    monkeypatch.setattr("ansible.module_utils.dastern.backups.keeper.there", lambda _: True)
    monkeypatch.setattr(PgBackRest, "further", lambda _: [])
    monkeypatch.setattr(PgBackRest, "info", lambda _: info)
    monkeypatch.setattr(PgBackRest, "archived", lambda _: {"17-1": there})
    (found,) = (one for one in backups.look(wal_archive=True).problems if one.kind == "gap")
    assert f"{1:08X}{6:016X}" in found.found
    assert f"{1:08X}{2:016X}" not in found.found
    there.add(f"{1:08X}{6:016X}")
    assert "gap" not in {one.kind for one in backups.look(wal_archive=True).problems}


def test_a_slot_that_nobody_reads_from(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the log until the disk is full."""
    backups.add()
    idle = {"name": "old sub", "bytes": 3 << 30, "since": NOW.timestamp() - 60, "lost": False}
    fresh = {"name": "fresh", "bytes": 1 << 20, "since": NOW.timestamp() - 60, "lost": False}
    forgotten = {"name": "forgotten", "bytes": 1 << 20, "since": NOW.timestamp() - 7200, "lost": False}
    lost = {"name": "lost", "bytes": 0, "since": NOW.timestamp() - 60, "lost": True}
    monkeypatch.setattr(
        "ansible.module_utils.dastern.server.psql.Psql.value",
        lambda _, query, *__: [idle, fresh, forgotten, lost] if "NOT active" in query else {**ARCHIVING, **RECEIVING},
    )
    health = backups.look(wal_archive=True)
    found = [one for one in health.problems if one.kind == "slot"]
    assert [one.what.removeprefix("replication slot ") for one in found] == ["old sub", "forgotten", "lost"]
    assert "begin anew" in found[2].found
    told = metrics.page(health)
    labels = f'container="{health.container}",database="{health.database}"'
    assert f'dastern_backup_slot_kept_bytes{{{labels},slot="old sub"}} {float(3 << 30)!r}\n' in told
    assert f'dastern_backup_slot_lost{{{labels},slot="lost"}} 1.0\n' in told
    assert f'dastern_backup_problem{{{labels},kind="slot"}} 1.0\n' in told
    assert (
        found[0].command
        == "docker exec -u postgres pg psql -c 'SELECT pg_drop_replication_slot('\"'\"'old sub'\"'\"')'"
    )
