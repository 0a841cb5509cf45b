"""Every verb in the controller's own process and as a module on the host: the same report, environment, paths and masks."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Play, instance_variables, remove_instance

NAME, PORT = "dastern-test-ways", 25820
AS_MODULE = {"ansible_python_interpreter": f"{sys.executable}3"}
"""The same Python by another name, for which every action plugin ships its module to the host."""
VERBS: list[tuple[str, dict[str, Any], tuple[str, ...], int]] = [
    ("provision", {}, (), 0),
    ("provision", {"postgres_settings_extra": {"work_mem": "5MB"}}, ("--check", "--diff"), 0),
    ("migrate", {}, (), 0),
    ("migrate", {"migrations_lock_timeout": "soon"}, (), 2),
    ("migration_status", {}, (), 0),
    ("rehearse", {}, ("--check",), 0),
    ("drift", {}, (), 0),
    ("schema", {}, ("--check",), 0),
    ("baseline", {}, ("--check",), 0),
    ("rollback", {"to": "0"}, ("--check",), 2),
    ("resolve_migration", {"applied": "20260208074559_init"}, (), 0),
    ("reset", {}, (), 2),
    ("seed", {"seed_allowed": True}, (), 0),
    ("seed", {"seed_allowed": True, "seed_lock_timeout": "soon"}, (), 2),
    ("backup", {}, ("--check",), 0),
    ("list_backups", {}, (), 0),
    ("verify_backups", {}, (), 0),
    ("restore", {}, ("--check",), 0),
    ("restore", {"target": "no such"}, (), 2),
    ("restore_drill", {"target": "no such"}, (), 2),
    ("plain_sql", {"out": "/nowhere/plain.sql"}, (), 2),
    ("backup_schedule", {}, ("--check",), 0),
    ("status", {}, (), 0),
]
_PASSING = re.compile(r"\(.{1,20} ago\)|\d[\d.,:]*(?: ?(?:ms|s|min|h|d|bytes|kB|MB|GB|%)\b)?")
"""Durations, sizes, times, counts and folders of a run: every number may be another in the next."""


def lasting(report: Any) -> Any:
    """Return a report without what differs between two runs of the same verb."""
    if isinstance(report, dict):
        return {
            name: lasting(value)
            for name, value in report.items()
            if name != "next"  # commands that name the inventory of the run
            if not isinstance(value, (int, float)) or isinstance(value, bool)
        }
    if isinstance(report, list):
        return [lasting(value) for value in report]
    return (
        _PASSING.sub("…", report.replace(f"{sys.executable}3", sys.executable)) if isinstance(report, str) else report
    )


@pytest.fixture(scope="module")
def variables(
    play: Callable[..., Play], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A server with a migration, rows and a backup."""
    remove_instance(NAME)
    config_dir = tmp_path_factory.mktemp("ways") / "config"
    own = {**image, **instance_variables(NAME, PORT, config_dir), "postgres_wal_archive": True}
    made = play("playbooks/site.yml", {**own, "backup_schedule_state": "absent", "seed_allowed": True})
    assert made.rc == 0, made.stdout
    yield own
    remove_instance(NAME)


@pytest.mark.parametrize(
    ("verb", "given", "arguments", "code"),
    VERBS,
    ids=[" ".join([verb, *given, *args]) for verb, given, args, _ in VERBS],
)
def test_a_verb_reports_the_same(
    play: Callable[..., Play],
    variables: dict[str, Any],
    verb: str,
    given: dict[str, Any],
    arguments: tuple[str, ...],
    code: int,
) -> None:
    runs = [
        play(f"playbooks/{verb}.yml", {**variables, **given, **way}, *arguments)  # the same words on both command lines
        for way in ({"ansible_python_interpreter": sys.executable}, AS_MODULE)
    ]
    assert [run.rc for run in runs] == [code, code], runs[0].stdout + runs[1].stdout
    here, shipped = (lasting({host: found["sections"] for host, found in run.report["hosts"].items()}) for run in runs)
    assert here == shipped
    assert [run.changed for run in runs] == [runs[0].changed] * 2


def run_task(play: Callable[..., Play], variables: dict[str, Any], way: dict[str, str], task: dict[str, Any]) -> Play:
    """Run a task in a playbook of somebody's own, whose variables stand below those of the task."""
    own = {"postgres_database": "dastern", **variables}
    playbook = {"hosts": "dastern", "gather_facts": False, "vars": own, "tasks": [{"name": "Do it", **task}]}
    return play([playbook], way)


@pytest.mark.parametrize("way", [{}, AS_MODULE], ids=["in the controller's process", "as a module"])
class TestAlike:
    def test_the_environment_of_a_task(self, play: Callable[..., Play], variables: dict[str, Any], way: Any) -> None:
        own = {name: value for name, value in variables.items() if name != "docker_engine_endpoint"}
        task = {"backup": {}, "check_mode": True}
        assert run_task(play, own, way, task).rc == 0
        away = run_task(play, own, way, {**task, "environment": {"DOCKER_HOST": "unix:///nowhere.sock"}})
        assert away.rc == 2
        assert "/nowhere.sock" in away.stdout

    def test_a_home_is_the_hosts(
        self, play: Callable[..., Play], variables: dict[str, Any], way: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "b").symlink_to(variables["postgres_backup_dir"])
        task = {"backup_list": {}, "vars": {"postgres_backup_dir": "~/b"}}
        found = run_task(play, variables, way, {**task, "environment": {"HOME": str(tmp_path)}})
        assert found.rc == 0
        assert found.section("backups")["backups"]
        nothing = run_task(play, variables, way, {**task, "environment": {"HOME": "/nowhere"}})
        assert not nothing.section("backups").get("backups")

    def test_a_secret_is_masked(self, play: Callable[..., Play], variables: dict[str, Any], way: Any) -> None:
        """The container's name is the password here, and is named in the refusal."""
        options = {
            "container": "not-there-at-all",
            "app_password": "not-there-at-all",
            "app_user": "a",
            "readonly_user": "b",
            "database": "d",
        }
        tasks = [{"name": "Keep the roles", "postgres_access": options}]
        done = play([{"hosts": "dastern", "gather_facts": False, "tasks": tasks}], {**variables, **way})
        assert done.rc == 2
        assert "********" in done.stdout
        assert "not-there-at-all" not in done.stdout
