"""Zero loss on a server of its own: every commit at the receiver, the receiver away, the data destroyed, turned off."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.backups import health, zero_loss
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups.records import Place
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores import request
from ansible.module_utils.dastern.restores import run as restore_run
from conftest import Play, docker, instance_variables, remove_instance
from migrating import wait_until

NAME, PORT = "dastern-test-zero-loss", 25880
RECEIVER = f"{NAME}-receiver"
SET_UP = """
- hosts: dastern
  gather_facts: false
  roles: [postgres, backup]
"""


class Server:
    """A server with zero loss, whose backups have a small disk of their own."""

    def __init__(self, variables: dict[str, Any]) -> None:
        self.variables = variables
        self.folder = Path(variables["postgres_backup_dir"])
        self.config_dir = Path(variables["postgres_config_dir"])

    def params(self, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
        defaults = {name: option.get("default") for name, option in spec.items()}
        own = {"endpoint": "", "container": NAME, "database": "dastern", "backup_dir": str(self.folder)}
        return {**defaults, **own, "config_dir": str(self.config_dir), "wait": 20, **changes}

    def keep(self, check_mode: bool = False, **changes: Any) -> list[str]:
        result = self.kept(check_mode, **changes)
        assert result["changed"] == bool(result["steps"]) == bool(result["diff"])
        return list(result["steps"])

    def kept(self, check_mode: bool, **changes: Any) -> dict[str, Any]:
        own = {"network": f"{NAME}-net", "wal_archive": True, "enabled": True, **changes}
        return zero_loss.keep(self.params(zero_loss.ARGUMENT_SPEC, **own), check_mode, lambda _: None)

    def restore(self, **changes: Any) -> dict[str, Any]:
        own = {"volume": f"{NAME}-data", "image": self.variables["postgres_image_reference"], **changes}
        return restore_run.restore(self.params(request.ARGUMENT_SPEC, confirm="dastern", **own))

    def health(self, *, declared: bool = True) -> tuple[str, list[str]]:
        """What status says of zero loss: its line and its problems."""
        params = self.params(health.ARGUMENT_SPEC, drill_days=0, zero_loss=declared)
        found = health.examine(params)
        problems = [one.found for one in found.problems if one.kind == "zero_loss"]
        return next((line for line in found.lines() if line.startswith("zero loss")), ""), problems

    def on(self) -> bool:
        return self.sql("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'") == "sync"

    def sql(self, sql: str) -> str:
        words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "dastern"]
        return docker("exec", "-i", "-u", "postgres", NAME, *words, stdin=sql).stdout.strip()

    def connect(self) -> psycopg.Connection[Any]:
        password = (self.config_dir / "app_password").read_text().strip()
        words = {"host": "127.0.0.1", "port": PORT, "user": "dastern_user", "dbname": "dastern", "password": password}
        return psycopg.connect(**words, autocommit=True)

    def received(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("received/*/*"))


@pytest.fixture(scope="module")
def server(
    play: Callable[..., Play], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    docker("rm", "-f", RECEIVER, check=False)
    remove_instance(NAME)
    config_dir = tmp_path_factory.mktemp("zero-loss") / "config"
    own = {
        "postgres_wal_archive": True, "backup_zero_loss": True, "postgres_settings_extra": {"max_slot_wal_keep_size": "64MB"},
    }  # fmt: skip
    one = Server({**image, **instance_variables(NAME, PORT, config_dir), **own})
    one.folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=0700", "tmpfs", str(one.folder)], check=True)
    made = play(SET_UP, one.variables)
    assert made.rc == 0, made.stdout
    assert "made commits wait for it" in made.section("zero_loss")["lines"]
    with one.connect() as connection:
        connection.execute("CREATE TABLE doses (id int PRIMARY KEY)")
    yield one
    docker("rm", "-f", RECEIVER, check=False)
    remove_instance(NAME)
    subprocess.run(["umount", "--lazy", str(one.folder)], check=True)


def test_it_is_on_and_a_second_run_changes_nothing(server: Server, play: Callable[..., Play]) -> None:
    assert server.on()
    assert server.health() == ("zero loss: on; the receiver is 0 B behind", [])
    assert server.keep(check_mode=True) == []
    off = server.kept(check_mode=True, enabled=False)["diff"]
    assert (
        off["before"] == "receiver: running\nsynchronous_standby_names = 'das_tern_receiver'\nwhile it is away: block\n"
    )
    assert off["after"] == "receiver: none\nsynchronous_standby_names = ''\nwhile it is away: -\n"
    again = play(SET_UP, server.variables)
    assert (again.rc, again.changed) == (0, 0), again.stdout
    found = json.loads(docker("inspect", RECEIVER).stdout)[0]
    passfile = server.config_dir / "receiver" / "passfile"
    password = passfile.read_text().strip().rpartition(":")[2]
    assert passfile.stat().st_mode & 0o777 == 0o600
    assert password not in json.dumps(found)
    assert password not in again.stdout
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["Config"]["User"] == "postgres"


def test_what_is_refused(server: Server) -> None:
    with pytest.raises(DasTernError, match="`postgres_wal_archive` is false.*Nothing was changed"):
        server.keep(wal_archive=False)
    docker("rename", RECEIVER, f"{RECEIVER}-ours")
    docker("create", "--name", RECEIVER, server.variables["postgres_image_reference"])
    try:
        with pytest.raises(DasTernError, match="isn't ours.*Nothing was done. Rename it: `docker rename"):
            server.keep()
    finally:
        docker("rm", RECEIVER)
        docker("rename", f"{RECEIVER}-ours", RECEIVER)
    assert server.on()
    assert server.keep(check_mode=True) == []


def test_block_commits_wait_until_the_receiver_is_back(server: Server) -> None:
    docker("kill", "-s", "KILL", RECEIVER)
    with server.connect() as connection:
        commit = threading.Thread(target=lambda: connection.execute("INSERT INTO doses VALUES (-1)"), daemon=True)
        commit.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        wait_until(lambda: server.sql(waits) == "1")
        line, problems = server.health()
        assert line == ""
        assert "COMMITS WAIT, 1 of them now" in problems[0]
        with pytest.raises(DasTernError, match="wait for the receiver.*Nothing was done. `ansible-playbook"):
            server.restore(what="database", into="meanwhile")
        # A password that nobody has any more: what mends it mustn't wait itself.
        server.sql("SET synchronous_commit = local; ALTER ROLE das_tern_receiver PASSWORD 'another'")
        assert server.keep(check_mode=True) == [
            "change role das_tern_receiver", f"start container {RECEIVER}", "make commits wait for it"
        ]  # fmt: skip
        assert commit.is_alive()
        server.keep()
        commit.join(60)
        assert not commit.is_alive()
    assert server.on()
    assert server.health()[1] == []


def test_continue_commits_go_on_and_zero_loss_comes_back(server: Server) -> None:
    assert server.keep(away="continue") == [f"write {server.config_dir}/server/zero-loss"]
    # It doesn't answer: no connection is broken.
    docker("pause", RECEIVER)
    with server.connect() as connection:
        commit = threading.Thread(target=lambda: connection.execute("INSERT INTO doses VALUES (-2)"), daemon=True)
        commit.start()
        commit.join(60)
        assert not commit.is_alive()
    wait_until(lambda: "commits go on without it" in "".join(server.health()[1]))
    # What is kept for it is bounded; it begins anew behind what was removed, which is all archived.
    for number in range(10, 17):
        server.sql(f"INSERT INTO doses VALUES (-{number}); SELECT pg_switch_wal()")
    ready = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    wait_until(lambda: server.sql(ready) == "0")
    server.sql("CHECKPOINT")
    assert "its slot was given up" in server.health()[1][0]
    docker("unpause", RECEIVER)
    wait_until(server.on)
    assert server.keep(away="block") == [f"write {server.config_dir}/server/zero-loss"]


def test_without_a_receiver_the_log_kept_for_it_is_bounded(server: Server) -> None:
    """As after a restore: neither line is there, and the receiver is away before commits waited for it again."""
    docker("pause", RECEIVER)
    delete = "sed -i -E '/^(synchronous_standby_names|max_slot_wal_keep_size) *=/d' $PGDATA/postgresql.auto.conf"
    docker("exec", "-u", "postgres", NAME, "sh", "-c", delete)
    server.sql("SELECT pg_reload_conf(), pg_terminate_backend(pid) FROM pg_stat_replication")
    noted = (
        "SELECT setting FROM pg_file_settings WHERE name = 'max_slot_wal_keep_size' AND sourcefile LIKE '%auto.conf'"
    )
    wait_until(lambda: server.sql(noted) == "1GB")
    assert server.sql("SHOW synchronous_standby_names") == ""
    docker("unpause", RECEIVER)
    wait_until(server.on)


def test_its_disk_is_full(server: Server) -> None:
    server.keep(away="continue")
    filler = server.folder / "filler"
    with filler.open("wb") as file:
        for _ in range((shutil.disk_usage(server.folder).free >> 20) - 4):
            file.write(bytes(1 << 20))
    for number in range(40, 43):
        server.sql(f"INSERT INTO doses VALUES (-{number}); SELECT pg_switch_wal()")
    wait_until(lambda: "commits go on without it" in "".join(server.health()[1]))
    assert "No space left on device" in docker("logs", "--tail", "20", RECEIVER).stdout
    server.sql("INSERT INTO doses VALUES (-43)")
    filler.unlink()
    wait_until(server.on)
    assert server.health()[1] == []
    server.keep(away="block")


def test_where_nothing_is_to_do_nobody_is_waited_for(server: Server) -> None:
    with Place(server.params({})).alone(0, "a test"):
        assert server.keep(wait=0) == []


def test_a_backup_deletes_what_is_archived(server: Server) -> None:
    server.sql("SELECT pg_switch_wal()")
    backup_run.take(server.params(backup_run.ARGUMENT_SPEC), say=lambda _: None)
    assert len(server.received()) == 1  # the newest
    assert server.on()


def test_nothing_acknowledged_is_lost_with_the_data(server: Server, play: Callable[..., Play]) -> None:
    """From outside, under load: what was acknowledged is there, though the archive doesn't have it."""
    acknowledged: list[int] = []

    def write(first: int) -> None:
        try:
            with server.connect() as connection:
                for number in range(first, 10**8, 4):
                    connection.execute(f"INSERT INTO doses VALUES ({number})")
                    acknowledged.append(number)
        except psycopg.Error:
            pass

    writers = [threading.Thread(target=write, args=(first,)) for first in range(1, 5)]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(acknowledged) > 200)
    switched = server.sql("SELECT pg_walfile_name(pg_switch_wal())")
    reached = len(acknowledged)
    wait_until(lambda: len(acknowledged) > reached + 200)
    docker("kill", "-s", "KILL", NAME)
    for writer in writers:
        writer.join()
    docker("rm", "-f", "-v", NAME, f"{NAME}-backup")
    docker("volume", "rm", f"{NAME}-data")
    restored = server.restore()
    assert "the end of the received log" in restored["target"]
    assert server.received()[-1] > switched
    made = play(SET_UP, server.variables)
    assert made.rc == 0, made.stdout
    there = {int(number) for number in server.sql("SELECT id FROM doses").split()}
    assert set(acknowledged) - there == set()
    assert len(there) <= len(acknowledged) + 4 + 13  # in flight; the tests above
    assert server.on()


def test_a_restore_and_its_undo_keep_it(server: Server) -> None:
    server.restore(target=backup_run.listed(server.params({}))["backups"][0]["label"])
    wait_until(server.on)
    server.sql("INSERT INTO doses VALUES (-20)")
    server.restore(undo=True)
    wait_until(server.on)
    server.sql("INSERT INTO doses VALUES (-21)")
    assert server.sql("SELECT count(*) FROM doses WHERE id IN (-20, -21)") == "1"


def server_label(server: Server) -> str:
    return backup_run.listed(server.params({}))["backups"][0]["label"]


def test_turned_off_nothing_is_left(server: Server) -> None:
    steps = server.keep(check_mode=True, enabled=False)
    system = server.sql("SELECT system_identifier FROM pg_control_system()")
    timeline = server.sql("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
    only = server.folder / "received" / f"{system}-00000009" / "0000000900000000000000FE"
    only.parent.mkdir()
    only.write_bytes(b"not in the archive")
    assert server.on()
    assert "commits wait" in server.health(declared=False)[1][0]
    assert server.keep(enabled=False) == steps
    assert server.keep(enabled=False) == []
    assert docker("ps", "-aq", "--filter", f"name=^{RECEIVER}$").stdout == ""
    assert server.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'das_tern_receiver'") == "0"
    assert server.sql("SELECT count(*) FROM pg_replication_slots") == "0"
    assert only.exists(), "it may be the only copy"
    assert not (server.folder / "received" / f"{system}-{timeline}").exists()
    shutil.rmtree(only.parent)
    assert not (server.config_dir / "receiver").exists()
    assert "max_slot_wal_keep_size" not in server.sql("SELECT pg_read_file('postgresql.auto.conf')")
    assert server.health(declared=False) == ("", [])
    # The one that the undo put aside waited for the receiver when it was live.
    server.restore(undo=True)
    assert server.sql("SHOW synchronous_standby_names") == ""
    server.sql("INSERT INTO doses VALUES (-30)")
