"""The schedule on two real hosts, one with systemd and one with cron; the job by a bare Python; the state of real backups.

The hosts are containers of Debian, reached by `community.docker.docker`. What takes a backup there only pretends: that is
tested elsewhere. It is asked for by the real job, which speaks to the real engine and server before.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.dastern.backups import health as backup_health
from ansible.module_utils.dastern.backups import pgbackrest
from ansible.module_utils.dastern.backups.calendar import Calendar
from ansible.module_utils.dastern.backups.keeper import Keeper
from ansible.module_utils.dastern.backups.pgbackrest import PgBackRest
from ansible.module_utils.dastern.backups.records import Place
from ansible.module_utils.dastern.jobs import schedule as backup_schedule
from conftest import Instance, Play, docker, instance_variables, remove_instance
from migrating import ROOT, wait_until

IMAGE = "dastern-test/systemd:bookworm"
PLAYBOOK = "playbooks/backup_schedule.yml"
PRETENDED = """\
import os

def take(params, check_mode=False, say=print):
    if os.path.exists("/srv/backups/fail"):
        raise ZeroDivisionError("a mistake of ours")
    return {"lines": ["took a " + params["backup_type"] + " one"]}
"""
Runner = Callable[..., Play]


@dataclass
class Box:
    """One of the hosts."""

    name: str
    instance: Instance

    def sh(self, script: str) -> str:
        return docker("exec", self.name, "sh", "-c", script).stdout.strip()

    def there(self, path: str) -> bool:
        return docker("exec", self.name, "test", "-e", path, check=False).returncode == 0

    @property
    def library(self) -> str:
        return f"/usr/local/lib/das-tern/{self.instance.container}"

    @property
    def status(self) -> dict[str, Any]:
        found = json.loads(self.sh("cat /srv/backups/status.json 2>/dev/null || echo '{}'"))
        assert isinstance(found, dict)
        return found


def made_image() -> None:
    """Debian with systemd and cron; it costs half a minute, so it stays."""
    if docker("image", "inspect", IMAGE, check=False).returncode == 0:
        return
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    if os.geteuid() != 0 or release["ID"] != "debian":
        pytest.skip("makes its hosts from the host's Debian, as root")
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    mirror = next(line.split()[0] for line in targets if line.split()[1] == release["VERSION_CODENAME"])
    root = subprocess.Popen(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd,systemd-sysv,python3,dbus,cron,tzdata",
         "--aptopt=Acquire::Check-Valid-Until \"false\"", "bookworm", "-", mirror],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    done = subprocess.run(["docker", "import", "-", IMAGE], stdin=root.stdout, capture_output=True, text=True)
    assert root.wait() == 0
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server(play: Runner, image: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A server that archives its WAL, into a repository that nobody has made yet."""
    name, _, port = os.environ.get("DASTERN_TEST_INSTANCE", "dastern-test:25210").partition(":")
    container, number = f"{name}-archiving", int(port) + 1
    remove_instance(container)
    config_dir = tmp_path_factory.mktemp("archiving") / "config"
    variables = {**image, **instance_variables(container, number, config_dir), "postgres_wal_archive": True}
    made = play("- hosts: dastern\n  gather_facts: false\n  roles:\n    - postgres\n", variables)
    assert made.rc == 0, made.stdout
    yield Instance(
        container, "127.0.0.1", number, "dastern", "dastern_user", config_dir / "app_password", config_dir,
        image["docker_engine_endpoint"], variables,
    )  # fmt: skip
    remove_instance(container)


@pytest.fixture(scope="module")
def boxes(server: Instance) -> Iterator[dict[str, Box]]:
    """`systemd` and `cron`; both see the engine's socket."""
    made_image()
    boxes = {name: Box(f"{server.container}-{name}", server) for name in ("systemd", "cron")}
    common = ["-d", "-v", "/var/run/docker.sock:/srv/docker.sock", "-v", "/srv/backups"]
    privileged = [
        "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined", "--security-opt",
        "apparmor=unconfined", "--cgroupns=host", "--tmpfs", "/run", "--tmpfs", "/run/lock",
        "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw",
    ]  # fmt: skip
    for box in boxes.values():
        docker("rm", "-f", "-v", box.name, check=False)
    try:
        docker("run", *common, *privileged, "--name", boxes["systemd"].name, IMAGE, "/sbin/init")
        docker("run", *common, "--name", boxes["cron"].name, IMAGE, "sleep", "infinity")
        asked = ("exec", boxes["systemd"].name, "systemctl", "is-system-running")
        wait_until(lambda: docker(*asked, check=False).stdout.strip() in ("running", "degraded"), 120)
        yield boxes
    finally:
        for box in boxes.values():
            docker("rm", "-f", "-v", box.name, check=False)


@pytest.fixture(scope="module")
def schedule(play: Runner, boxes: dict[str, Box], tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Run the playbook on both."""
    inventory = tmp_path_factory.mktemp("boxes") / "boxes.yml"
    hosts = {
        name: {
            "ansible_connection": "community.docker.docker",
            "ansible_host": box.name,
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        for name, box in boxes.items()
    }
    inventory.write_text(yaml.safe_dump({"dastern": {"hosts": hosts}}))
    variables = {
        "docker_engine_host": "unix:///srv/docker.sock",
        "postgres_container_name": boxes["systemd"].instance.container,
        "postgres_wal_archive": True,
        "postgres_backup_dir": "/srv/backups",
        "backup_schedule_drill_days": 0,
        "backup_on_failure_command": 'echo "$DASTERN_CONTAINER: $DASTERN_MESSAGE" > /srv/told',
    }

    def run(*arguments: str, playbook: str = PLAYBOOK, **more: Any) -> Play:
        return play(playbook, {**variables, **more}, "-i", str(inventory), "--limit", "systemd,cron", *arguments)

    return run


def changed(run: Play) -> dict[str, int]:
    assert run.rc == 0, run.stdout
    return {name: host["changed"] for name, host in run.report["hosts"].items()}


@pytest.fixture(scope="module")
def scheduled(schedule: Runner, boxes: dict[str, Box]) -> dict[str, Box]:
    """Both hosts with the schedule, which was declared twice; then the backups only pretend."""
    boxes["cron"].sh("mv /usr/sbin/cron /usr/sbin/away")
    planned = schedule("--check", "--diff")
    assert changed(planned) == {"systemd": 1, "cron": 2}
    assert "would install cron and start it" in planned.stdout
    told = planned.report["hosts"]["cron"]["sections"]["schedule"]["lines"]
    assert "would install and start cron" in told
    assert "containers.py" not in planned.stdout, "the job's code is one line of the diff"
    assert "+OnCalendar=*-*-* 02:30:00 Asia/Phnom_Penh" in planned.stdout
    assert not any(box.there(box.library) for box in boxes.values())
    boxes["cron"].sh("mv /usr/sbin/away /usr/sbin/cron")
    assert changed(schedule()) == {"systemd": 1, "cron": 2}
    assert changed(schedule()) == {"systemd": 0, "cron": 0}
    for box in boxes.values():
        docker("exec", "-i", box.name, "sh", "-c", f"cat > {box.library}/dastern/backups/run.py", stdin=PRETENDED)
    # As if cron had been told days ago: a run was missed. Each minute, lest a test takes five; it passes meanwhile.
    boxes["cron"].sh("touch -d '3 days ago' /etc/das-tern/*/backup.json")
    boxes["cron"].sh("sed -i 's,^[*]/5 ,* ,' /etc/cron.d/das-tern-backup-*")
    return boxes


def test_systemd_calls_at_the_time_in_phnom_penh(scheduled: dict[str, Box]) -> None:
    box = scheduled["systemd"]
    name = f"das-tern-backup-{box.instance.container}"
    units = f"{name}.service {name}.timer das-tern-backup-metrics@{box.instance.container}.service"
    done = docker("exec", box.name, "sh", "-c", f"cd /etc/systemd/system && systemd-analyze verify {units}")
    assert (done.stdout, done.stderr) == ("", "")
    timers = {one["unit"]: one["next"] for one in json.loads(box.sh("systemctl list-timers --output=json"))}
    due = Calendar("02:30", "sunday").next(datetime.now(UTC))
    following = datetime.fromtimestamp(timers[f"{name}.timer"] / 1e6, UTC)
    assert due <= following <= due + timedelta(seconds=900 + 60)
    assert f"das-tern-backup-metrics@{box.instance.container}.timer" in timers
    exposure = box.sh(f"systemd-analyze security --no-pager {name}.service | tail -1")
    assert "OK" in exposure, exposure


def test_the_service_runs_hardened_and_its_failure_is_told(scheduled: dict[str, Box]) -> None:
    box = scheduled["systemd"]
    service = f"das-tern-backup-{box.instance.container}.service"
    box.sh(f"systemctl start {service}")
    assert box.status["run"]["message"] == "took a full one"
    assert box.sh("stat -c %a /srv/backups/metrics.prom /srv/backups/status.json") == "644\n600"
    assert 'kind="run"} 0' in box.sh("cat /srv/backups/metrics.prom")
    assert "dastern_backup_archive_known" in box.sh("cat /srv/backups/metrics.prom")  # it reached the server

    box.sh("touch /srv/backups/fail")
    assert docker("exec", box.name, "systemctl", "start", service, check=False).returncode != 0
    wait_until(lambda: box.there("/srv/told"))
    words = "ZeroDivisionError: a mistake of ours (run.py:5)"
    assert box.sh("cat /srv/told") == f"{box.instance.container}: {words}"
    assert box.status["run"]["outcome"] == "failed"
    journal = box.sh("journalctl --sync; journalctl -o cat -t das-tern-backup")
    assert "took a full one; next " in journal
    assert words in journal.splitlines()
    assert "Traceback" not in box.sh("journalctl -o cat --no-pager")
    assert "def take(" not in box.sh("journalctl -o cat --no-pager")  # nor what a module was called with
    box.sh("rm /srv/backups/fail")


@pytest.fixture
def real(server: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options that put the job of a real server into a folder of the test's own."""
    for name in ("SYSTEMD", "UNITS", "LIBRARY", "CRON", "STAMPS", "CRON_PROGRAM", "CRONTABS", "CRON_NOTE"):
        monkeypatch.setattr(backup_schedule, name, tmp_path / name)
    params = {name: option.get("default") for name, option in backup_schedule.ARGUMENT_SPEC.items()}
    params |= {"container": server.container, "database": "dastern", "config_dir": str(tmp_path), "wal_archive": True}
    params |= {"backup_dir": server.variables["postgres_backup_dir"], "endpoint": server.endpoint, "drill_days": 0}
    params |= {
        "sources": backup_schedule.packed(Path(backup_schedule.__file__).parents[1]),
        "archive_lag": 1,
        "disk_free": 0,
    }
    return params


def called(server: Instance, command: str) -> subprocess.CompletedProcess[str]:
    """The job, by the host's Python in an empty environment."""
    program = backup_schedule.LIBRARY / server.container / "das-tern-backup"
    return subprocess.run([str(program), command], env={}, cwd="/", capture_output=True, text=True)


def test_the_archive_of_a_real_server(server: Instance, real: dict[str, Any]) -> None:
    """Nothing archives its log, then a backup container is made, and it does."""
    backup_schedule.schedule(real)

    def health() -> str:
        done = called(server, "health")
        assert done.returncode == 2, done.stderr  # no backup
        return done.stdout

    server.sql("CREATE TABLE t (); SELECT pg_switch_wal()")
    wait_until(lambda: server.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t")
    wait_until(lambda: "problem: WAL archive: 1 segments wait" in health())
    assert f"problem: container {server.container}-backup: doesn't run" in health()

    conf = server.config_dir / "pgbackrest" / "pgbackrest.conf"
    conf.write_text(pgbackrest.configuration(1, 1, "", {}))
    os.chown(conf, 999, 999)
    place = Place(real)
    own = {"config_dir": str(server.config_dir), "network": f"{server.container}-net", "cpus": 0}
    Keeper(own, place, conf.read_text()).ensure(check_mode=False)
    PgBackRest(place.containers, place.keeper).run("stanza-create")
    server.sql(
        "CREATE TABLE u (); SELECT pg_switch_wal()"
    )  # wakes the archiver, which rests a minute after three failures
    wait_until(lambda: "WAL archive: 0 segments wait" in health(), 120)
    assert not re.search("archive_command|container", health())
    metrics = Path(real["backup_dir"], "metrics.prom").read_text()
    assert 'kind="archive_failing"} 0' in metrics
    assert f'dastern_backup_archive_waiting_segments{{container="{server.container}",database="dastern"}} 0' in metrics


def test_status_shows_it_and_ends_with_2(play: Runner, server: Instance) -> None:
    shown = play("playbooks/status.yml", {**server.variables, "backup_scheduled": True})
    assert (shown.rc, shown.counts["failures"]) == (2, 0), shown.stdout
    found = shown.section("backup")
    assert {one["kind"] for one in found["problems"]} >= {"age"}
    assert found["next"][0].endswith(" playbooks/backup.yml")
    assert "problem: no backup: there is none; expected: one in the last 26 h (backup_expected_hours)" in shown.flat


def test_a_run_and_its_trial_restore_at_a_real_server(server: Instance, real: dict[str, Any]) -> None:
    """With what the role gives it."""
    given = {"keep": {}, "wait": 60, "nice": 0, "lock_timeout": "10s", "image": "", "target": ""}
    given |= {"volume": f"{server.container}-data", "config_dir": str(server.config_dir)}
    tasks = yaml.safe_load((ROOT / "roles/backup/tasks/schedule.yml").read_text())
    (task,) = (one["backup_schedule"] for one in tasks if "backup_schedule" in one)
    own = {part: {name: given[name] for name in task[part]} for part in ("take", "drill")}
    backup_schedule.schedule({**real, **own, "drill_days": 7})
    done = called(server, "run")
    assert done.returncode == 0, done.stderr
    (record,) = Place(real).records()
    assert record.reason == "scheduled"
    assert record.drilled
    assert record.drilled.ok
    assert f"took {record.label}" in done.stdout


def test_cron_calls_and_the_job_decides(scheduled: dict[str, Box]) -> None:
    box = scheduled["cron"]
    assert "is running" in box.sh("service cron status")
    wait_until(lambda: (box.status.get("run") or {}).get("outcome") == "ok", 150)
    began = box.status["run"]["began"]
    line = box.sh("tail -1 /etc/cron.d/das-tern-backup-*").partition(" root ")[2]
    box.sh(f"env -i {line.partition(' || ')[0]}")
    assert box.status["run"]["began"] == began  # once
    box.sh("touch /srv/backups/fail; rm /srv/backups/status.json")
    box.sh(f"env -i sh -c '{line}' 2>/dev/null")
    wait_until(lambda: box.there("/srv/told"), 150)  # by this call, or by cron's own at the same moment
    assert box.sh("cat /srv/told").endswith("ZeroDivisionError: a mistake of ours (run.py:5)")
    box.sh("service cron stop")


def test_a_restore_on_a_new_machine_begins_with_the_engine(boxes: dict[str, Box], schedule: Runner) -> None:
    new = schedule("--check", "--limit", "cron", playbook="playbooks/restore.yml", docker_engine_host="")
    assert new.rc == 0, new.stdout
    assert "would install docker.io" in new.flat
    assert "would restore latest" in new.flat
    assert not boxes["cron"].there("/usr/bin/dockerd")


def test_absent_takes_all_away(scheduled: dict[str, Box], schedule: Runner) -> None:
    gone = schedule(state="absent")
    assert changed(gone) == {"systemd": 1, "cron": 1}
    lines = {name: host["sections"]["schedule"]["lines"] for name, host in gone.report["hosts"].items()}
    assert lines["cron"][-1] == "cron stays: it was on this host before the schedule"
    assert not any("cron" in line for line in lines["systemd"])
    for box in scheduled.values():
        assert box.sh("find / -xdev -name '*das-tern-backup*' -not -path '/proc/*'; ls /srv/backups") in ("", "fail")
        assert not box.there(box.library)
    timers = scheduled["systemd"].sh("systemctl list-timers --all")
    assert "das-tern" not in timers


def test_health_of_a_stopped_server(server: Instance) -> None:
    params = {name: option.get("default") for name, option in backup_health.ARGUMENT_SPEC.items()}
    params |= {"container": server.container, "database": "dastern", "endpoint": server.endpoint}
    params |= {"backup_dir": server.variables["postgres_backup_dir"]}
    docker("stop", "-t", "30", server.container)
    began = time.monotonic()
    health = backup_health.examine(params)
    assert time.monotonic() - began < 10
    assert "is not running" in health.unasked
    assert "archive_known" not in [one.kind for one in health.problems]


def test_cron_goes_with_the_schedule_that_it_was_installed_for(boxes: dict[str, Box], schedule: Runner) -> None:
    box = boxes["cron"]
    there = json.dumps(box.sh("ls -A /etc/cron.d").split())
    box.sh(f"mkdir -p /var/lib/das-tern; echo '{{\"there\": {there}}}' > /var/lib/das-tern/cron.json")
    assert changed(schedule())["cron"] > 0
    planned = schedule("--check", state="absent")
    assert changed(planned) == {"systemd": 1, "cron": 2}
    lines = planned.report["hosts"]["cron"]["sections"]["schedule"]["lines"]
    assert lines[-1] == "cron, which was installed for the schedule, would be removed"
    box.sh("echo '# anna' > /etc/cron.d/anna")
    assert changed(schedule(state="absent")) == {"systemd": 1, "cron": 1}
    assert box.there("/usr/sbin/cron")
