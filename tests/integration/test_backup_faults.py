"""A short form of the campaign of faults on backups and restores, and what a machine does to them besides kills."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import health as backup_health
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.restores.drill import drill
from ansible.module_utils.dastern.restores.request import ARGUMENT_SPEC, SITE_SPEC
from ansible.module_utils.dastern.restores.restored_server import Site
from ansible.module_utils.dastern.restores.run import restore
from conftest import IMAGE, Instance, Play, docker, instance_variables, remove_instance
from faults.backups import WORKS, Live, campaign, round_trip
from migrating import wait_until

SET_UP = """
- hosts: dastern
  gather_facts: false
  roles: [postgres, backup]
"""


def test_a_container_that_is_ended_while_it_speaks_has_no_result(image: dict[str, str]) -> None:
    name = f"dastern-test-ended-{os.getpid()}"
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(
            Containers("unix:///var/run/docker.sock").run_once, IMAGE, "echo said; sleep 60", name=name
        )
        wait_until(lambda: "said" in docker("logs", name, check=False).stdout)
        docker("kill", name)
        found = running.result()
    assert (found.rc, found.out) == (-1, "")
    assert "ended from outside" in found.err


@pytest.fixture(scope="module")
def live(play: Callable[..., Play], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with a backup of each kind; its data and its backups have small disks of their own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    given = os.environ.get("DASTERN_TEST_INSTANCE", f"dastern-test-pg{worker}:{25190 + worker}")
    container, _, port = given.partition(":")
    container += "-faults"
    remove_instance(container)
    folder = tmp_path_factory.mktemp("faults")
    variables = {
        **image, **instance_variables(container, int(port), folder / "config"), "postgres_wal_archive": True,
        "postgres_archive_timeout": "10s",
    }  # fmt: skip
    disks = {folder / "data": "600m", Path(variables["postgres_backup_dir"]): "300m"}
    for path, size in disks.items():
        path.mkdir()
        options = f"size={size},uid=999,gid=999,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    device = f"device={folder / 'data'}"
    docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", device, f"{container}-data")
    try:
        made = play(SET_UP, variables)
        assert made.rc == 0, made.stdout
        own = Live(
            Instance(
                container=container, host="127.0.0.1", port=int(port), database="dastern", app_user="dastern_user",
                password_file=folder / "config" / "app_password", config_dir=folder / "config", endpoint="",
                variables=variables,
            ),
            folder,
        )  # fmt: skip
        own.fill()
        yield own
    finally:
        remove_instance(container)
        for path in disks:
            subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def full(disk: Path, left: int = 4096) -> Iterator[None]:
    """A file takes all of a disk but `left` bytes."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - left)
    try:
        yield
    finally:
        filler.unlink()


def refused(live: Live, call: Callable[[], Any]) -> str:
    """The message of a refusal that changed nothing and left nothing."""
    before, records = live.glance(), live.place.records()
    with pytest.raises(DasTernError) as refusal:
        call()
    assert (live.glance(), live.place.records(), live.left("filler")) == (before, records, [])
    return refusal.value.message


def asked(live: Live, **changes: Any) -> dict[str, Any]:
    return live.params(ARGUMENT_SPEC, target=live.target("cluster"), confirm="dastern", **changes)


def test_each_fault_is_healed(live: Live) -> None:
    live.seconds = dict.fromkeys((*WORKS["play"],), 2.0)
    kinds = [kind for kind in WORKS if kind != "engine"]
    results = campaign(live, 5, kinds, random.Random(1))
    assert [result.wrong for result in results] == [[]] * 5
    assert len({result.kind for result in results if result.hits}) > 2


def test_a_restore_and_its_undoing(live: Live) -> None:
    assert round_trip(live, "cluster").wrong == []


def test_the_disk_of_the_data_is_full(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled by others after the preflight has found room."""
    look = Site.look
    monkeypatch.setattr(Site, "look", lambda site: {**look(site), "free": 1 << 40})
    with full(live.folder / "data", 8 * 1024**2):
        message = refused(live, lambda: restore(asked(live)))
    assert "data has no space left: make room there" in message
    assert "The live database was not touched and serves; the restored copy was removed" in message


def test_the_disk_of_the_backups_is_full(live: Live) -> None:
    """The restore can't note its swap, and so doesn't begin it."""
    with full(live.place.folder, 0):
        message = refused(live, lambda: restore(asked(live)))
    assert "restore.json can't be written: No space left on device" in message
    assert "Nothing was swapped." in message
    assert "left by a restore that didn't end, was removed" in message


def test_another_major_version(live: Live) -> None:
    record = live.place.find(live.target("cluster"))
    live.place.save(replace(record, server="16.9"))
    try:
        for call in (lambda: restore(asked(live)), lambda: drill(live.params(SITE_SPEC, target=record.label))):
            assert "is of PostgreSQL 16.9, and the image of container" in refused(live, call)
    finally:
        live.place.save(record)


def test_the_password_of_another_repository(live: Live) -> None:
    conf = live.instance.config_dir / "pgbackrest" / "pgbackrest.conf"
    before = conf.read_text()
    secret = "of another repository"
    conf.write_text(before.replace("\n[", f"\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={secret}\n[", 1))
    try:
        for call in (live.call("incr"), lambda: restore(asked(live))):
            message = refused(live, call)
            assert "can't be read with this `backup_cipher_pass`" in message
            assert secret not in message
    finally:
        conf.write_text(before)
        live.instance.sql("SELECT pg_reload_conf()")


def test_a_clock_that_was_ahead(live: Live) -> None:
    """Backups of years to come neither push the newest one out nor pass for it."""
    full_one, logical = (next(one for one in live.place.records() if one.type == k) for k in ("full", "logical"))
    ahead = [
        replace(full_one, label="20360101-000000F", began="2036-01-01T00:00:00+00:00"),
        replace(logical, label="20360101-000000L", began="2036-01-01T00:00:00+00:00"),
    ]
    for record in ahead:
        live.place.save(record)
    try:
        for kind in ("logical", "incr"):
            label = live.take(kind)
            assert label in [one.label for one in live.place.records()]
        health = backup_health.examine(live.params(backup_health.ARGUMENT_SPEC, expected_hours=26))
        words = [str(one) for one in health.problems]
        assert sum("which is in the future" in one for one in words) == 2, words
        assert not [one for one in words if one.startswith("no ")]
    finally:
        for record in ahead:
            live.place.forget(record.label)


def test_a_clock_that_was_put_back(live: Live) -> None:
    """pgBackRest refuses a label that is older than its newest: the refusal says what that means."""
    history = live.place.folder / "repository" / "backup" / "dastern" / "backup.history"
    later = history / "2036"
    shutil.copytree(next(history.glob("20*")), later)
    os.chown(later, 999, 999)
    try:
        next(later.glob("*F.manifest.*")).rename(later / "20360101-000000F.manifest.gz")
        message = refused(live, live.call("full"))
    finally:
        shutil.rmtree(later)
    assert "set it right (`timedatectl`)" in message
