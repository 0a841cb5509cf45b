"""What a machine does to a run: a full disk, an engine that dies, a play that is killed. A rerun must always heal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGE, INVENTORY, REPOSITORY, Play, descendants, docker, remove_instance
from faults.engine import Engine, wait_until

SITE = "playbooks/site.yml"


def variables(container: str, port: int, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "postgres_container_name": container,
        "postgres_volume_name": f"{container}-data",
        "postgres_port": port,
        "postgres_config_dir": str(tmp_path / "config"),
        "postgres_backup_dir": str(tmp_path / "backups"),
        "postgres_app_createdb": True,
        "seed_allowed": True,
        **more,
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 MB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_disk_full_in_the_middle_of_a_migration(
    play: Callable[..., Play], image: dict[str, str], small_disk: Path, tmp_path: Path
) -> None:
    container = "dastern-test-full"
    remove_instance(container)
    os.chown(small_disk, 999, 999)
    docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={small_disk}", f"{container}-data")
    folder = tmp_path / "migrations"
    for name, text in (
        ("1_before", "CREATE TABLE before_it ();"),
        ("2_large", "CREATE TABLE large AS SELECT repeat(md5(i::text), 30) AS x FROM generate_series(1, 350000) AS i;"),
        ("3_after", "CREATE TABLE after_it ();"),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "migration.sql").write_text(text)
    wanted = variables(container, 25900, tmp_path, migrations_dir=str(folder), seed_allowed=False)
    try:
        failed = play(SITE, wanted)
        assert failed.rc != 0
        assert "Traceback" not in failed.stdout
        assert any(words in failed.flat for words in ("53100", "The connection was lost while migration 2_large")), (
            failed.stdout
        )
        section = failed.section("migrations")
        assert [one["name"] for one in section.get("applied_before", [])] == ["1_before"]

        subprocess.run(["mount", "-o", "remount,size=2000m", str(small_disk)], check=True)
        healed = play(SITE, wanted)
        assert healed.rc == 0, healed.stdout
        assert healed.section("migrations")["applied"] == ["1_before", "2_large", "3_after"]
        assert [one["name"] for one in healed.section("migrations")["applied_now"]] == ["2_large", "3_after"]
        again = play(SITE, wanted)
        assert (again.rc, again.changed) == (0, 0), again.stdout
    finally:
        remove_instance(container)


@pytest.fixture(scope="module")
def engine(image: dict[str, str]) -> Iterator[Engine]:
    own = Engine("dastern-test")
    own.make(IMAGE)
    yield own
    own.remove()


def test_engine_dies_at_any_moment(play: Callable[..., Play], engine: Engine, tmp_path: Path) -> None:
    """Also proves that an engine named by DOCKER_HOST is used, and no other."""
    wanted = variables("dastern-test-engine", 25910, tmp_path, docker_engine_install=False)
    for moment in ("_init", "healthy"):
        began = start(wanted, engine.folder, engine)
        wait_until(lambda moment=moment: reached(engine, moment), moment)
        engine.kill()
        output, _ = began.communicate(timeout=300)
        assert began.returncode != 0, output
        assert "Traceback (most recent call last)" not in output
        engine.start()
    made = play(SITE, wanted, env=engine.environment, prefix=engine.inside)
    assert made.rc == 0, made.stdout
    assert made.section("migrations")["applied"] == ["20260208074559_init"]
    again = play(SITE, wanted, env=engine.environment, prefix=engine.inside)
    assert (again.rc, again.changed) == (0, 0), again.stdout
    assert docker("inspect", "dastern-test-engine", check=False).returncode != 0


def reached(engine: Engine, moment: str) -> bool:
    """Whether the run came as far as its initialisation, or as its server."""
    listed = engine.docker("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout
    return any(
        "init" in name if moment == "_init" else name == "dastern-test-engine" and moment in status
        for name, _, status in (line.partition(" ") for line in listed.splitlines())
    )


def start(wanted: dict[str, Any], folder: Path, engine: Engine | None = None) -> subprocess.Popen[str]:
    (folder / "hosts.yml").write_text(INVENTORY)
    (folder / "variables.json").write_text(json.dumps({"dastern_environment": "development", **wanted}))
    return subprocess.Popen(
        [
            *(engine.inside if engine else ()), str(Path(sys.executable).with_name("ansible-playbook")),
            "-i", str(folder / "hosts.yml"), "-e", f"@{folder / 'variables.json'}", SITE,
        ],
        cwd=REPOSITORY, env={**os.environ, **(engine.environment if engine else {})},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("moment", ["its network", "the server"])
def test_play_killed_when_something_is_there(
    play: Callable[..., Play], image: dict[str, str], tmp_path: Path, moment: str
) -> None:
    container = "dastern-test-killed"
    remove_instance(container)
    wanted = variables(container, 25920, tmp_path)
    try:
        kind, name = {"its network": ("network", f"{container}-net"), "the server": ("container", container)}[moment]
        began = start(wanted, tmp_path)
        wait_until(lambda: docker(kind, "inspect", name, check=False).returncode == 0, moment)
        for pid in descendants(began.pid):
            os.kill(pid, signal.SIGKILL)
        assert began.wait() == -signal.SIGKILL
        made = play(SITE, wanted)
        assert made.rc == 0, made.stdout
        again = play(SITE, wanted)
        assert (again.rc, again.changed) == (0, 0), again.stdout
        assert again.section("migrations")["applied"] == ["20260208074559_init"]
    finally:
        remove_instance(container)
