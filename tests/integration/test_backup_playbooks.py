"""The playbooks of backups and restores on one server, as an operator runs them: what they do, report and hide.

With `become` Ansible ships every module and runs it, as it does over SSH; the other tests of backups have them in the
controller's own process. Each play runs at -vvv, and is watched from outside.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from ansible.module_utils.dastern.docker.containers import Containers
from conftest import Play, docker, instance_variables, remove_instance
from migrating import ROOT

NAME, PORT = "dastern-test-playbooks", 25890
HIDDEN = "hidden from everybody"
DECLARED = {
    "ansible_become": True,
    "postgres_wal_archive": True,
    "backup_cipher_pass": f"{HIDDEN} 1",
    "backup_repository_options": {
        "repo2-path": "/backups/second", "repo2-retention-full": 1, "repo2-cipher-type": "aes-256-cbc",
        "repo2-cipher-pass": f"{HIDDEN} 2",
    },
    "backup_repository_files": {"client.key": f"-----BEGIN PRIVATE KEY-----\n{HIDDEN} 3\n-----END PRIVATE KEY-----"},
}  # fmt: skip
ALL, FEW = "500", "100"
"""Rows of `doses`, before and after somebody's mistake."""


class Watch:
    """What every user of the machine sees while plays run: command lines, and `docker inspect` of our containers."""

    def __init__(self) -> None:
        self.commands: set[str] = set()
        self.containers: dict[str, str] = {}
        self._engine = Containers("unix:///var/run/docker.sock")

    @contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                self._look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                self.commands.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        for one in self._engine.listed(name=[NAME]):
            if one["Id"] not in self.containers and (found := self._engine.inspect("container", one["Id"])):
                self.containers[one["Id"]] = json.dumps(found)


class Server:
    """The server, and the plays that are run for it."""

    def __init__(self, play: Callable[..., Play], variables: dict[str, Any]) -> None:
        self._play, self._variables = play, variables
        self.watch = Watch()

    def run(self, playbook: str, module: str, *given: str) -> Play:
        """Run a playbook, which has `module` run on the host, and tells no secret to anybody."""
        words = [word for one in given for word in ("-e", one)]
        with self.watch.watching():
            done = self._play(f"playbooks/{playbook}.yml", self._variables, "-vvv", "--diff", *words)
        assert f"Using module file {ROOT}/plugins/modules/{module}.py" in done.stdout, done.stdout
        assert "Traceback" not in done.stdout
        folder = Path(self._variables["postgres_config_dir"])
        secrets = [HIDDEN, *((folder / f"{who}_password").read_text().strip() for who in ("app", "readonly"))]
        seen = [done.stdout, json.dumps(done.report), *self.watch.commands, *self.watch.containers.values()]
        assert not [text for text in seen for secret in secrets if secret in text]
        return done

    def report(self, section: str, changed: int, *run: str) -> dict[str, Any]:
        """The section of a play that succeeded."""
        done = self.run(*run)
        assert (done.rc, done.changed) == (0, changed), done.stdout
        return done.section(section)

    def sql(self, sql: str) -> str:
        words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "dastern"]
        return docker("exec", "-i", "-u", "postgres", NAME, *words, stdin=sql).stdout.strip()

    @property
    def rows(self) -> str:
        return self.sql("SELECT count(*) FROM doses")


@pytest.fixture(scope="module")
def server(
    play: Callable[..., Play], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    remove_instance(NAME)
    config_dir = tmp_path_factory.mktemp("playbooks") / "config"
    own = Server(play, {**image, **instance_variables(NAME, PORT, config_dir), **DECLARED})
    made = own.run("provision", "backup_setup")
    assert made.rc == 0, made.stdout
    assert made.section("backup")["lines"][-1] == "repository 2 has one as well"
    assert (config_dir / "pgbackrest/pgbackrest.conf").read_text().count(HIDDEN) == 2
    own.sql(f"SET ROLE dastern_user; CREATE TABLE doses AS SELECT i FROM generate_series(1, {ALL}) AS i")
    yield own
    remove_instance(NAME)


def test_a_backup_is_taken_verified_tried_and_listed(server: Server) -> None:
    label = server.report("backup", 1, "backup", "backup", "label=before-launch")["label"]
    verified = server.report("verification", 1, "verify_backups", "backup_verify")
    assert verified["checks"][label]["ok"]
    assert verified["damaged"] == verified["problems"] == []
    drilled = server.report("drill", 1, "restore_drill", "restore_drill")
    assert drilled["label"] == label
    assert drilled["lines"][1].startswith(f"as in its record: schema, 1 tables, {ALL} rows, ")
    listed = server.report("backups", 0, "list_backups", "backup_list")
    newest, first = listed["backups"]
    assert (newest["label"], newest["name"], newest["drilled"]["ok"]) == (label, "before-launch", True)
    assert (first["type"], first["drilled"]) == ("full", None)
    assert all(one["good"] for one in (newest, first, *listed["further"]["2"]))


def test_a_moment_comes_back_and_so_does_what_it_replaced(server: Server) -> None:
    moment = f"{datetime.now(ZoneInfo('Asia/Phnom_Penh')):%Y-%m-%d %H:%M:%S}+07"
    server.sql(f"DELETE FROM doses WHERE i > {FEW}")
    asked = ("restore", "restore", f"target={moment}", "what=database")
    refused = server.run(*asked, "confirm=another")
    assert (refused.rc, refused.changed, server.rows) == (2, 0, FEW)
    (failure,) = refused.report["failures"]
    assert "Nothing was done. `confirm` is 'another', expected 'dastern'." in failure["message"]
    assert f"""-e '{{"target": "{moment}"}}' -e what=database -e confirm=dastern""" in failure["message"]

    restored = server.report("restore", 1, *asked, "confirm=dastern")
    assert server.rows == ALL
    assert restored["target"].startswith(f"{moment.removesuffix('+07')} +07:00, from backup ")
    assert f"dastern: 1 tables, {ALL} rows, 0 migrations" in restored["lines"]
    (command,) = restored["next"]
    assert command.startswith("ansible-playbook -i ")
    assert command.endswith(" playbooks/restore.yml -e undo=true")
    assert f"-e postgres_container_name={NAME} " in command
    assert server.run("restore", "restore", "undo=true").section("restore")["confirm"] == "dastern"

    undone = server.report("restore", 1, "restore", "restore", "undo=true", "confirm=dastern")
    assert server.rows == FEW
    assert undone["lines"][0].startswith("brought back the database that was live before ")


def test_then_nothing_is_left_to_do(server: Server) -> None:
    assert server.report("backup", 0, "provision", "backup_setup")["lines"] == ["repository as declared"]
    # The watch is awake: it saw what works longest, and the container beside the live one.
    assert any("pgbackrest --stanza=dastern backup --repo=2" in one for one in server.watch.commands)
    assert any(json.loads(one)["Name"] == f"/{NAME}-restore" for one in server.watch.containers.values())
