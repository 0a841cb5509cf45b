"""What the schedule puts onto a host, and takes away; below a root of the test's own."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.jobs import schedule as backup_schedule
from ansible.module_utils.dastern.jobs.schedule import ARGUMENT_SPEC, schedule

PACKAGE = Path(backup_schedule.__file__).parents[1]


class Host:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        for name in ("SYSTEMD", "UNITS", "LIBRARY", "CRON", "STAMPS", "CRON_PROGRAM", "CRONTABS", "CRON_NOTE"):
            monkeypatch.setattr(backup_schedule, name, root / str(getattr(backup_schedule, name)).lstrip("/"))
        backup_schedule.CRON.mkdir(parents=True)
        self.systemctl: list[str] = []
        self.active = False
        monkeypatch.setattr(backup_schedule, "_systemctl", lambda *words: self.systemctl.append(" ".join(words)))
        monkeypatch.setattr(backup_schedule, "_is", lambda *_: self.active)
        monkeypatch.setattr(backup_schedule.os, "geteuid", lambda: 0)
        self.params = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        self.params |= {"container": "pg.one", "database": "dastern", "config_dir": str(root / "etc/das-tern")}
        self.params |= {
            "backup_dir": str(root / "backups"),
            "sources": backup_schedule.packed(PACKAGE),
            "wal_archive": True,
        }
        (root / "backups").mkdir()

    def schedule(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        return schedule({**self.params, **changes}, check_mode)

    def files(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.root)): path.read_text() for path in self.root.rglob("*") if path.is_file()
        }  # fmt: skip


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.fixture
def with_systemd(host: Host) -> Host:
    backup_schedule.SYSTEMD.mkdir(parents=True)
    return host


def test_cron_four_times(host: Host) -> None:
    before = host.files()
    assert host.schedule(check_mode=True)["changed"]
    assert host.files() == before
    assert host.schedule()["changed"]
    assert not host.schedule()["changed"]
    assert not host.schedule(check_mode=True)["changed"]
    files = host.files()
    cron = files["etc/cron.d/das-tern-backup-pg_one"]  # cron reads no file with a dot
    program = f"{host.root}/usr/local/lib/das-tern/pg.one/das-tern-backup"
    assert cron.splitlines()[-1] == f"*/5 * * * * root {program} --syslog due || {program} --syslog failed"
    assert not any("systemd" in name for name in files)
    assert {name for name in files if "/dastern/" in name} == {
        f"usr/local/lib/das-tern/pg.one/dastern/{name}" for name in backup_schedule.imported(PACKAGE)
    }
    settings = host.root / "etc/das-tern/backup.json"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert json.loads(settings.read_text())["metrics_file"] == str(host.root / "backups/metrics.prom")
    assert stat.S_IMODE(Path(program).stat().st_mode) == 0o755


def test_a_changed_file_a_strange_one_and_a_loose_mode_are_mended(host: Host) -> None:
    host.schedule()
    files = host.files()
    code = host.root / "usr/local/lib/das-tern/pg.one/dastern"
    (code / "gone.py").write_text("")
    (code / "__pycache__").mkdir()
    (code / "psql.py").write_text("")
    (host.root / "etc/das-tern/backup.json").chmod(0o644)
    result = host.schedule()
    assert result["changed"]
    assert [Path(one["after_header"]).name for one in result["diff"]] == ["backup.json", "pg.one"]
    assert result["diff"][-1]["after"].count("\n") == 1
    assert result["diff"][-1]["after"] != result["diff"][-1]["before"]
    assert host.files() == files
    assert not host.schedule()["changed"]


def test_systemd(with_systemd: Host) -> None:
    host = with_systemd
    assert host.schedule(check_mode=True)["changed"]
    assert host.systemctl == []
    assert host.schedule()["lines"][0] == "scheduled with systemd"
    timers = "das-tern-backup-pg.one.timer das-tern-backup-metrics@pg.one.timer"
    assert host.systemctl == ["daemon-reload", f"enable {timers}", f"restart {timers}"]
    host.active = True
    host.systemctl.clear()
    assert not host.schedule()["changed"]
    assert host.systemctl == []
    assert host.schedule(expected_hours=30)["changed"]  # only the configuration
    assert host.systemctl == []
    assert host.schedule(expected_hours=30, time="04:00")["changed"]
    assert host.systemctl[0] == "daemon-reload"
    assert host.systemctl[-1] == "restart das-tern-backup-pg.one.timer"
    timer = (backup_schedule.UNITS / "das-tern-backup-pg.one.timer").read_text()
    assert "OnCalendar=*-*-* 04:00:00 Asia/Phnom_Penh\nPersistent=true\nRandomizedDelaySec=900\n" in timer
    host.active = False  # somebody stopped it
    assert host.schedule(expected_hours=30, time="04:00")["changed"]


def test_a_host_without_zone_files_is_told_utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backup_schedule, "_ZONES", tmp_path)
    assert backup_schedule.on_calendar("02:30") == "*-*-* 19:30:00 UTC"
    assert backup_schedule.on_calendar("23:05") == "*-*-* 16:05:00 UTC"


def test_the_service_may_write_where_it_has_to_and_nowhere_else(with_systemd: Host) -> None:
    host = with_systemd
    host.schedule(backup_dir="/srv/back ups%", metrics_file="/var/lib/node/das.prom")
    unit = (backup_schedule.UNITS / "das-tern-backup-pg.one.service").read_text()
    assert 'ReadWritePaths="-/srv/back ups%%" "-/var/lib/node"\n' in unit
    assert "OnFailure=das-tern-backup-failed@pg.one.service\n" in unit
    assert "PrivateNetwork=true\n" in unit
    host.schedule(endpoint="tcp://127.0.0.1:2375", backup_dir="/root/backups")
    unit = (backup_schedule.UNITS / "das-tern-backup-pg.one.service").read_text()
    assert "PrivateNetwork=false\n" in unit
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n" in unit
    assert "ProtectHome=read-only\n" in unit


@pytest.mark.parametrize("systemd", [False, True])
def test_absent_leaves_nothing(host: Host, systemd: bool) -> None:
    if systemd:
        backup_schedule.SYSTEMD.mkdir(parents=True)
    before = host.files()
    host.schedule()
    host.active = True
    for name in (".job.lock", "status.json", "metrics.prom"):
        (host.root / "backups" / name).write_text("")
    backup_schedule.STAMPS.mkdir(parents=True, exist_ok=True)
    (backup_schedule.STAMPS / "stamp-das-tern-backup-pg.one.timer").write_text("")
    assert host.schedule(container="other")["changed"]
    with_both = host.files()
    host.systemctl.clear()
    assert host.schedule(check_mode=True, state="absent")["changed"]
    assert host.files() == with_both
    assert host.schedule(state="absent")["lines"] == [
        f"removed: the job and its calls by {'systemd' if systemd else 'cron'}"
    ]
    if systemd:
        timers = "das-tern-backup-pg.one.timer das-tern-backup-metrics@pg.one.timer"
        assert host.systemctl == [f"disable --now {timers}", "daemon-reload"]
        assert "etc/systemd/system/das-tern-backup-failed@.service" in host.files()  # the other one's, too
    assert not [name for name in host.files() if "pg.one" in name or "pg_one" in name]
    assert not host.schedule(state="absent")["changed"]
    assert host.schedule(state="absent", container="other")["changed"]
    assert host.files() == before
    assert host.schedule(state="absent")["lines"] == ["nothing is scheduled"]


def test_a_check_says_what_would_be_written_and_started(with_systemd: Host) -> None:
    host = with_systemd
    planned, done = host.schedule(check_mode=True), host.schedule()
    timers = "das-tern-backup-pg.one.timer, das-tern-backup-metrics@pg.one.timer"
    assert (planned["lines"][-1], done["lines"][-1]) == (f"would start {timers}", f"started {timers}")
    for result, head in ((planned, "would write "), (done, "wrote ")):
        (line,) = (line for line in result["lines"] if line.startswith(head))
        for path in ("systemd/system/das-tern-backup-pg.one.timer", "das-tern/backup.json", "das-tern/pg.one"):
            assert path in line
    headers = {Path(one["after_header"]).name for one in planned["diff"]}
    assert {"backup.json", "das-tern-backup-pg.one.timer", "pg.one"} < headers
    assert len(headers) == 7, "five units, the settings, the job"
    (code,) = (one for one in planned["diff"] if one["after_header"].endswith("/pg.one"))
    assert (code["before"], code["after"].count("\n")) == ("", 1)


class TestCronItself:
    @pytest.mark.parametrize(
        ("steps", "planned", "done"),
        [
            (["installed", "started"], "would install and start cron", "installed and started cron"),
            (["started"], "would start cron", "started cron"),
        ],
    )
    def test_what_is_done_to_it_is_said(self, host: Host, steps: list[str], planned: str, done: str) -> None:
        assert planned in host.schedule(check_mode=True, cron=steps)["lines"]
        assert not backup_schedule.CRON_NOTE.exists()
        assert done in host.schedule(cron=steps)["lines"]
        assert backup_schedule.CRON_NOTE.exists() == ("installed" in steps)
        assert not any("cron" in line for line in host.schedule()["lines"][1:])

    def test_what_was_installed_for_the_schedule_goes_with_it(self, host: Host) -> None:
        (backup_schedule.CRON / "e2scrub_all").write_text("")  # came with the package
        host.schedule(cron=["installed", "started"])
        planned = host.schedule(check_mode=True, state="absent")
        assert (planned["remove_cron"], planned["lines"][-1]) == (
            True,
            "cron, which was installed for the schedule, would be removed",
        )
        assert host.schedule(state="absent")["remove_cron"]
        # The package couldn't be removed, say; the next run tries again.
        assert host.schedule(state="absent")["remove_cron"]

    @pytest.mark.parametrize("user", ["etc/cron.d/theirs", "var/spool/cron/crontabs/anna", "another schedule"])
    def test_cron_stays_if_something_else_uses_it(self, host: Host, user: str) -> None:
        host.schedule(cron=["installed", "started"])
        if user == "another schedule":
            host.schedule(container="other")
            user = "etc/cron.d/das-tern-backup-other"
        else:
            (host.root / user).parent.mkdir(parents=True, exist_ok=True)
            (host.root / user).write_text("")
        result = host.schedule(state="absent")
        assert not result["remove_cron"]
        assert str(host.root / user) in result["lines"][-1]
        (host.root / user).unlink()
        assert host.schedule(state="absent")["remove_cron"]

    def test_one_that_was_there_before_stays(self, host: Host) -> None:
        backup_schedule.CRON_PROGRAM.parent.mkdir(parents=True)
        backup_schedule.CRON_PROGRAM.write_text("")
        host.schedule(cron=["started"])
        result = host.schedule(state="absent")
        assert not result["remove_cron"]
        assert result["lines"][-1] == "cron stays: it was on this host before the schedule"

    def test_with_systemd_cron_is_not_removed(self, with_systemd: Host) -> None:
        with_systemd.schedule()
        assert not with_systemd.schedule(state="absent")["remove_cron"]


def test_from_cron_to_systemd(host: Host) -> None:
    host.schedule()
    backup_schedule.SYSTEMD.mkdir(parents=True)
    host.schedule()
    assert not list(backup_schedule.CRON.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time": "1350"}, "backup_schedule_time"),
        ({"full": "never"}, "backup_schedule_full"),
        ({"delay": -1}, "`backup_schedule_delay` is -1. Expected: a number, 0 or greater"),
        ({"drill_days": 10**9}, "`backup_schedule_drill_days` is 1000000000. Expected: a number up to 3660"),
        ({"expected_hours": 0}, "`backup_expected_hours` is 0"),
        ({"size_factor": 1.0}, "`backup_size_factor` is 1.0. Expected: a number above 1"),
        ({"take": {"lock_timeout": "soon"}}, "`backup_lock_timeout` is 'soon'; expected a duration"),
        ({"take": {"keep": {"full": {"count": 0}}}}, "`backup_keep.full.count` is `0`"),
        ({"metrics_file": "/srv/dastern.txt"}, "ends in .prom"),
        ({"metrics_file": "dastern.prom"}, "backup_metrics_file is `dastern.prom`; expected an absolute path"),
    ],
)
def test_what_is_refused(host: Host, changes: dict[str, Any], words: str) -> None:
    before = host.files()
    for check_mode in (True, False):
        with pytest.raises(DasTernError, match=words.replace("(", r"\(")):
            host.schedule(check_mode, **changes)
    assert host.files() == before


def test_only_root_schedules(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_schedule.os, "geteuid", lambda: 1000)
    before = host.files()
    with pytest.raises(DasTernError, match="ansible_become=true"):
        host.schedule()
    assert host.files() == before


def test_an_old_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told = subprocess.CompletedProcess([], 0, "3.10 False\n")
    monkeypatch.setattr(backup_schedule.subprocess, "run", lambda *_, **__: told)
    with pytest.raises(DasTernError, match=r"3\.11 or newer: /usr/bin/python3 is 3\.10"):
        backup_schedule.interpreter()


def test_the_job_has_what_it_imports_and_no_more() -> None:
    files = backup_schedule.imported(PACKAGE)
    assert {"jobs/job.py", "backups/run.py", "restores/drill.py", "common/errors.py", "backups/__init__.py"} <= set(
        files
    )
    assert not {file.partition("/")[0] for file in files} & {"lint", "seeds", "migrations", "controller"}


def test_the_job_needs_the_standard_library_alone(tmp_path: Path) -> None:
    """Import all that the job may import with a Python that has no environment and no installed packages."""
    package = tmp_path / "dastern"
    for name, text in backup_schedule.unpacked(backup_schedule.packed(PACKAGE)).items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    modules = [file.removesuffix(".py").replace("/", ".") for file in backup_schedule.imported(PACKAGE)]
    words = f"import sys, importlib; sys.path.insert(0, {str(tmp_path)!r})\n" + "\n".join(
        f"importlib.import_module('dastern.{module.removesuffix('.__init__')}')"
        for module in modules
        if module != "__init__"
    )
    done = subprocess.run(
        [backup_schedule.interpreter(), "-ISBc", words], env={}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
