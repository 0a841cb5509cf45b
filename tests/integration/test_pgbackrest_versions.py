"""The newest pgBackRest that the project works with, which is Debian 14's, in an image of its own; and one that is too old.

All other tests run with the oldest, which is Debian 13's. Where Debian 14 has a still newer one by now, that is tried, and
backups have to say so. For the whole suite: `DASTERN_TEST_IMAGE=dastern-test/postgres:pgbackrest-newest`.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils.dastern.backups import health
from ansible.module_utils.dastern.backups.health import examine
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server import pgbackrest_version
from conftest import IMAGE, Play, docker, instance_variables, remove_instance
from migrating import wait_until
from test_backup import (  # noqa: F401 - fixtures, and tests that run here once more
    SET_UP,
    Backups,
    damage,
    elsewhere,
    kept,
    test_encrypted_and_in_a_second_repository,
    test_what_is_missing_is_found,
)
from test_backup import backups as usual  # noqa: F401

NEWEST = "dastern-test/postgres:pgbackrest-newest"
POSTGRESQL, PGBACKREST = "trixie", "forky"
"""The releases whose PostgreSQL 17 and whose pgBackRest are in it, in what else is the second of them."""
OLDER = "dastern-test/postgres:pgbackrest-older"
OLD = f"""
FROM {IMAGE}
USER root
RUN printf '#!/bin/sh\\necho pgBackRest 2.54.2\\n' > /usr/bin/pgbackrest
USER postgres
"""
SERVER = "- hosts: dastern\n  gather_facts: false\n  roles: [postgres]\n"
BUILD = "- hosts: dastern\n  gather_facts: false\n  roles: [docker_engine, postgres_image]\n"


def sources() -> str:
    """Return the `deb` lines of both releases, from where the host's apt takes its own."""
    fields = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Identifier: Packages")
    own = platform.freedesktop_os_release().get("VERSION_CODENAME")
    told = subprocess.run(fields, capture_output=True, text=True, check=True).stdout.split("\n")
    uri = next(line.split()[0] for line in told if line.endswith(f" {own} main"))
    return "\n".join(f"deb {uri} {suite} main" for suite in (POSTGRESQL, PGBACKREST))


@pytest.fixture(scope="module")
def backups(usual: Backups, play: Callable[..., Play]) -> Backups:  # noqa: F811
    """A repository that the oldest began, and that the newest goes on with: what is taken builds upon the other's backup."""
    if platform.freedesktop_os_release().get("ID") != "debian" or os.geteuid() != 0:
        pytest.skip("the image is built from Debian's packages by root")
    if docker("image", "inspect", NEWEST, check=False).returncode:
        own = {"source": "build", "local": NEWEST, "suite": PGBACKREST, "mirror": sources()}
        made = play(BUILD, {f"postgres_image_{name}": value for name, value in own.items()})
        assert made.rc == 0, made.stdout
    usual.variables |= image_variables(NEWEST)
    replaced = play(SET_UP, usual.variables)
    assert replaced.rc == 0, replaced.stdout
    usual.take("incr")
    assert [one.tool for one in usual.records] == [f"pgBackRest {version_in(image)}" for image in (NEWEST, IMAGE)]
    assert {check["ok"] for check in usual.verify()["checks"].values()} == {True}
    return usual


def image_variables(image: str) -> dict[str, str]:
    return {
        "docker_engine_endpoint": "unix:///var/run/docker.sock",
        "postgres_image_reference": image,
        "postgres_image_id": docker("image", "inspect", "-f", "{{.Id}}", image).stdout.strip(),
    }


def version_in(image: str) -> str:
    """Return the version of pgBackRest in an image."""
    return docker("run", "--rm", "--entrypoint", "pgbackrest", image, "version").stdout.split()[1]


def test_backups_and_status_name_only_a_version_that_is_newer_than_those_tried(
    backups: Backups,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = backups.program.version()
    assert pgbackrest_version.release(version) >= pgbackrest_version.NEWEST
    told = pgbackrest_version.untested(version)
    assert bool(told) == (pgbackrest_version.release(version) > pgbackrest_version.NEWEST)
    assert [line for line in backups.take("incr")["lines"] if "pgBackRest" in line] == told
    params = backups.params(health.ARGUMENT_SPEC, wal_archive=True, drill_days=0)
    found = examine(params)
    assert (found.pgbackrest, found.problems) == (version, [])
    monkeypatch.setattr(pgbackrest_version, "NEWEST", (2, 55))
    (told,) = pgbackrest_version.untested(version)
    assert told in backups.take("incr", check_mode=True)["lines"]
    assert told in backups.verify()["lines"]
    assert told in examine(params).lines()
    monkeypatch.setattr(pgbackrest_version, "OLDEST", (2, 99))
    (problem,) = examine(params).problems
    assert (problem.kind, problem.found) == ("pgbackrest", version)
    for verb in (backups.take, backups.verify, lambda: backups.restore(check_mode=True)):
        with pytest.raises(DasTernError) as refusal:
            verb()
        assert refusal.value.facts["pgbackrest"] == version
        assert pgbackrest_version.FIX in refusal.value.message


def test_damage_is_found_and_fails_its_drill(kept: Backups) -> None:  # noqa: F811
    damaged, *others = [record.label for record in kept.records]
    damage(kept.sets / damaged / "bundle" / "1", "flip")
    result = kept.verify()
    assert result["damaged"] == [damaged]
    assert f"{damaged}: damaged: bundle/1" in result["msg"]
    assert all(result["checks"][label]["ok"] for label in others)
    assert kept.drill(damaged)["failed"] is True


def test_a_backup_with_damaged_pages_comes_back_as_far_as_it_goes(backups: Backups) -> None:
    """Of itself, 2.60 refuses to restore it."""
    backups.sql("CREATE TABLE torn AS SELECT i, md5(i::text) FROM generate_series(1, 5000) AS i; CHECKPOINT")
    file = backups.sql("SELECT pg_relation_filepath('torn')")
    docker("stop", "-t", "60", backups.container)
    write = f"printf torn | dd of=/v/pgdata/{file} bs=1 seek=21000 conv=notrunc"
    volume = f"{backups.container}-data:/v"
    docker("run", "--rm", "-u", "postgres", "-v", volume, "--entrypoint", "sh", NEWEST, "-c", write)
    docker("start", backups.container)
    wait_until(lambda: docker("exec", backups.container, "pg_isready", check=False).returncode == 0)
    with pytest.raises(DasTernError) as refusal:
        backups.take()
    assert "pages of the live database itself were damaged" in refusal.value.message
    assert "FAILED its drill: pg_amcheck: " in backups.drill(refusal.value.facts["label"])["lines"][-1]
    backups.sql("DROP TABLE torn")


def test_a_drill_and_a_restore_of_the_cluster(backups: Backups) -> None:
    full = backups.take("full")["label"]
    assert "failed" not in backups.drill(full)
    backups.sql("INSERT INTO noted SELECT i, 'kept' FROM generate_series(1, 10) AS i")
    incr = backups.take("incr")["label"]
    backups.sql("DELETE FROM noted")
    backups.restore(target=incr, confirm="dastern")
    assert backups.sql("SELECT count(*) FROM noted") == "20010"
    assert backups.records[0].prior == full
    backups.take("incr")


@pytest.fixture
def older(tmp_path: Path) -> Iterator[dict[str, object]]:
    """The variables of a server whose image has a pgBackRest that is too old."""
    docker("build", "-q", "-t", OLDER, "-", stdin=OLD)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    given = os.environ.get("DASTERN_TEST_INSTANCE", f"dastern-test-pg{worker}:{25180 + worker}")
    container, _, port = given.partition(":")
    container += "-older"
    remove_instance(container)
    yield {
        **instance_variables(container, int(port) + 20, tmp_path / "config"),
        **image_variables(OLDER),
    }
    remove_instance(container)
    docker("rmi", OLDER)


def test_an_older_one_is_refused_before_the_server_is_touched(
    play: Callable[..., Play], older: dict[str, object]
) -> None:
    """Also where the server that runs didn't archive its log."""
    archiving = {**older, "postgres_wal_archive": True}
    refused = play(SERVER, archiving)
    assert refused.rc != 0
    assert not docker("ps", "-aq", "--filter", f"name=^{older['postgres_container_name']}$").stdout
    made = play(SERVER, older)
    assert made.rc == 0, made.stdout
    container = docker("inspect", "-f", "{{.Id}}", str(older["postgres_container_name"])).stdout
    for told in (refused, play(SERVER, archiving, "--check"), play(SERVER, archiving)):
        assert told.rc != 0
        for words in (OLDER, "pgBackRest 2.54.2", pgbackrest_version.RANGE, "postgres_image_source=build"):
            assert words in told.flat
    assert docker("inspect", "-f", "{{.Id}}", str(older["postgres_container_name"])).stdout == container
