"""The job on the host: what it takes, what it notes, what it says; with backups and trial restores that only pretend."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import run
from ansible.module_utils.dastern.backups.records import Check, Record
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.jobs import job, schedule
from ansible.module_utils.dastern.restores import drill

# A Sunday, 02:40 in Phnom Penh.
NOW = datetime(2026, 2, 7, 19, 40, tzinfo=UTC)


class Host:
    """A database host with the job's files, and what the job asked for."""

    def __init__(self, folder: Path) -> None:
        self.backups = folder / "backups"
        self.backups.mkdir()
        params = {name: option.get("default") for name, option in schedule.ARGUMENT_SPEC.items()}
        params |= {"endpoint": f"unix://{folder}/none.sock", "container": "pg", "database": "dastern", "disk_free": 0}
        params |= {"backup_dir": str(self.backups), "config_dir": str(folder), "delay": 0, "wal_archive": True}
        params |= {"take": {"wait": 7}, "drill": {"volume": "pg-data"}}
        self.path = folder / "backup.json"
        self.config = schedule.config(params)
        self.configure()
        os.utime(self.path, (NOW.timestamp() - 7 * 86400,) * 2)
        self.now = NOW
        self.asked: list[str] = []
        self.targets: list[str] = []
        """What was drilled."""
        self.error: BaseException | None = None

    def configure(self, **changes: Any) -> None:
        self.config |= changes
        self.path.write_text(json.dumps(self.config))

    def take(self, params: dict[str, Any], check_mode: bool = False, say: Any = print) -> dict[str, Any]:
        assert params["wait"] == 7
        assert params["reason"] == "scheduled"
        self.asked.append(params["backup_type"])
        assert self.status["run"]["outcome"] == "running"
        if self.error:
            raise self.error
        say("half way")
        self.add(params["backup_type"])
        return {"changed": True, "lines": [f"took {params['backup_type']}", "deleted\nnothing"]}

    def drill(self, params: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
        assert params["volume"] == "pg-data"
        self.asked.append("drill")
        self.targets.append(params["target"])
        self.add("full", drilled=Check(self.now.isoformat(), True, 1))
        return {"changed": True, "lines": ["restored"]}

    def add(self, kind: str, at: datetime | None = None, **changes: Any) -> None:
        at = at or self.now
        values: dict[str, Any] = {
            "label": f"{at:%d%H%M}{kind}", "kind": "logical" if kind == "logical" else "physical", "type": kind,
            "database": "dastern", "system": "1", "server": "17", "tool": "t", "began": at.isoformat(), "seconds": 1, "bytes": 9, "stored": 9, "census": {},
            "exact": True, "verified": Check(at.isoformat(), True, 1),
        }  # fmt: skip
        self.job.place.save(Record(**(values | changes)))

    @property
    def job(self) -> job.Job:
        return job.Job(job.read_config(self.path), self.path)

    @property
    def status(self) -> dict[str, Any]:
        found = json.loads((self.backups / "status.json").read_text())
        assert isinstance(found, dict)
        return found

    def call(self, *arguments: str) -> int:
        sys.argv = ["das-tern-backup", *arguments]
        return job.main(str(self.path))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setattr(run, "take", made.take)
    monkeypatch.setattr(drill, "drill", made.drill)
    monkeypatch.setattr(job, "_now", lambda: made.now)
    monkeypatch.setattr(job.Job, "_wait_for_server", lambda _: None)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(job.signal, "signal", lambda *_: None)
    monkeypatch.setattr(job.syslog, "syslog", lambda *_: None)
    return made


def test_a_run_says_one_line_and_notes_it(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.call("run") == 0
    assert host.asked == ["full", "drill"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "took full; deleted nothing; restored; next 2026-02-09 02:30:00 +07:00"
    assert host.status["run"] == {
        "type": "full", "began": "2026-02-07T19:40:00+00:00", "tries": 1, "outcome": "ok",
        "message": "took full; deleted nothing", "seconds": 0.0,
    }  # fmt: skip
    assert host.status["drill"]["outcome"] == "ok"
    assert host.status["next"] == "2026-02-09T02:30:00+07:00"
    metrics = host.backups / "metrics.prom"
    assert stat.S_IMODE(metrics.stat().st_mode) == 0o644
    assert stat.S_IMODE((host.backups / "status.json").stat().st_mode) == 0o600
    assert "dastern_backup_run_success" in metrics.read_text()


def test_the_type_of_each_day(host: Host) -> None:
    host.configure(drill_days=0)
    for _ in range(8):
        host.call("run")
        host.now += timedelta(days=1)
    assert host.asked == ["full", *["incr"] * 6, "full"]
    host.asked.clear()
    host.now += timedelta(days=6, hours=12)  # Sunday was missed
    host.call("run")
    host.configure(full="daily")
    host.now += timedelta(days=1)
    host.call("run")
    host.configure(wal_archive=False)
    host.call("run")
    host.call("run", "--type", "diff")
    assert host.asked == ["full", "full", "logical", "diff"]


def test_a_damaged_full_backup_is_taken_again(host: Host) -> None:
    host.add("full", verified=Check(NOW.isoformat(), False, 1, "a page"))
    host.call("run")
    assert host.asked[0] == "full"


def test_a_full_backup_dated_in_the_future_does_not_count(host: Host) -> None:
    later = NOW + timedelta(days=3)
    host.add("full", later, drilled=Check(later.isoformat(), True, 1))
    host.call("run")
    assert host.asked == ["full", "drill"]


def test_trial_restores_on_their_days(host: Host) -> None:
    host.configure(drill_days=2)
    for _ in range(5):
        host.asked.clear()
        host.call("run")
        host.now += timedelta(days=1, minutes=-3)
    assert host.asked[-1] == "drill"
    host.asked.clear()
    host.call("run")
    assert host.asked == ["incr"]
    host.call("run", "--type", "full")  # by hand
    assert host.asked == ["incr", "full"]
    assert host.call("drill") == 0
    assert host.asked == ["incr", "full", "drill"]


def test_a_logical_one_is_drilled_for_no_physical_one(host: Host) -> None:
    host.add("logical", drilled=Check(NOW.isoformat(), True, 1))
    assert host.call("run") == 0
    assert host.asked == ["full", "drill"]
    host.now += timedelta(days=1)
    host.add("logical", host.now + timedelta(minutes=1))
    assert host.call("drill") == 0
    host.configure(wal_archive=False)
    assert host.call("drill") == 0
    assert host.targets == ["071940full", "071940full", "081941logical"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DasTernError(["The disk", "is full."]), "The disk is full."),
        (ZeroDivisionError("division by zero"), r"ZeroDivisionError: division by zero (test_backup_job.py:"),
        (KeyboardInterrupt("signal 15"), "it was ended by signal 15"),
    ],
)
def test_a_failure_is_one_line_and_noted(
    host: Host, error: BaseException, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.error = error
    assert host.call("run") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(words)
    assert err.count("\n") == 1
    assert host.status["run"]["outcome"] == "failed"
    assert host.status["run"]["message"] == err.strip()
    assert 'kind="run"} 1' in (host.backups / "metrics.prom").read_text()


def test_a_trial_restore_that_fails_is_a_failure_beside_a_good_backup(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drill, "drill", lambda *_, **__: {"failed": True, "msg": "rows differ", "lines": []})
    assert host.call("run") == 1
    assert capsys.readouterr().err == "rows differ\n"
    assert host.status["run"]["outcome"] == "ok"
    assert host.status["drill"]["outcome"] == "failed"


def test_a_backup_that_lacks_elsewhere_is_a_failure_and_is_tried(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.error = DasTernError("It isn't right.", label="the new one")
    assert host.call("run") == 1
    assert "drill" not in host.status
    capsys.readouterr()
    host.error = DasTernError("It isn't in repository 2.", label="the new one", lines=[])
    assert host.call("run") == 1
    assert capsys.readouterr().err == "It isn't in repository 2.\n"
    assert (host.status["run"]["outcome"], host.status["drill"]["outcome"]) == ("failed", "ok")


def test_never_two_at_a_time(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with (host.backups / job.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert host.call("run") == 1
        assert capsys.readouterr().err == "Another job works on these backups. Run again when it has finished.\n"
        assert host.call("due") == 0
    assert host.asked == []
    assert not (host.backups / "status.json").exists()


def test_cron_calls_and_the_job_knows_when(host: Host) -> None:
    """Each half hour for two days: one run a day, at the first call after the time."""
    host.configure(drill_days=0)
    os.utime(host.path, (NOW.timestamp() - 60,) * 2)
    host.now = NOW - timedelta(minutes=1)
    began = []
    for _ in range(2 * 24 * 2 + 1):
        before = len(host.asked)
        assert host.call("due") == 0
        if len(host.asked) > before:
            began.append(host.now.isoformat())
        host.now += timedelta(minutes=30)
    assert began == ["2026-02-08T19:39:00+00:00", "2026-02-09T19:39:00+00:00"]


def test_cron_s_delay_is_the_host_s_own(host: Host) -> None:
    host.configure(delay=3600, drill_days=0)
    delay = host.job._delay()
    assert 0 < delay <= 3600
    assert delay == host.job._delay()
    host.now = datetime(2026, 2, 7, 19, 30, tzinfo=UTC) + timedelta(seconds=delay - 1)
    host.add("full", host.now - timedelta(days=1))
    (host.backups / "status.json").write_text(
        json.dumps({"run": {"began": (host.now - timedelta(days=1)).isoformat(), "outcome": "ok"}})
    )
    assert not host.job.due()
    host.now += timedelta(seconds=1)
    assert host.job.due()


def test_what_was_missed_is_made_up_for_once(host: Host) -> None:
    host.call("run")
    host.now += timedelta(days=3, hours=9)
    assert host.job.due()
    host.call("due")
    assert not host.job.due()


def test_a_run_that_was_cut_is_begun_again_but_not_forever(host: Host) -> None:
    host.configure(drill_days=0)
    host.call("run")
    for tries in (2, 3):
        cut = host.status
        cut["run"]["outcome"] = "running"
        (host.backups / "status.json").write_text(json.dumps(cut))
        assert host.call("due") == 0
        assert host.status["run"]["tries"] == tries
    cut["run"] |= {"outcome": "running", "tries": 3}
    (host.backups / "status.json").write_text(json.dumps(cut))
    assert not host.job.due()


def test_a_clock_that_was_set_back_leads_to_no_run_at_each_call(host: Host) -> None:
    host.now += timedelta(days=400)
    host.call("run")
    host.now = NOW
    host.call("due")
    count = len(host.asked)
    host.call("due")
    assert len(host.asked) == count


def test_health_ends_with_2(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.call("health") == 2
    assert "problem: no backup: there is none" in capsys.readouterr().out


def test_on_failure(host: Host, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    host.configure(on_failure=f'printf "%s" "$DASTERN_CONTAINER: $DASTERN_MESSAGE" > {tmp_path}/told')
    host.error = DasTernError("no server")
    host.call("run")
    assert host.call("failed") == 0
    assert (tmp_path / "told").read_text() == "pg: no server"
    assert "backup of pg failed: no server" in capfd.readouterr().out
    host.configure(on_failure="exit 3")
    assert host.call("failed") == 1
    assert "backup_on_failure_command ended with 3: exit 3" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"endpoint": 1}'])
def test_an_unreadable_configuration_fails_in_one_line(
    host: Host, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host.path.write_text(text)
    assert host.call("run") == 1
    err = capsys.readouterr().err
    assert "can't be read" in err
    assert "playbooks/backup_schedule.yml" in err
    assert err.count("\n") == 1


def test_the_folder_is_missing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.configure(backup_dir=str(host.backups / "unmounted"), metrics_file=str(host.backups / "m.prom"))
    assert host.call("run") == 1
    assert "unmounted can't be written: No such file or directory" in capsys.readouterr().err
    assert not (host.backups / "unmounted").exists()


def test_a_metrics_file_that_can_t_be_written(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.configure(metrics_file=str(host.backups / "absent" / "m.prom"))
    assert host.call("run") == 1
    assert "backup_metrics_file" in capsys.readouterr().err
    assert host.status["run"]["outcome"] == "ok"
    assert host.call("due") == 0  # not a mail every five minutes
