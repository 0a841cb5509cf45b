"""A real PgBouncer between the verbs and the server: each of them says so and does nothing."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.connection import connect
from conftest import Instance, Play
from migrating import LOCK, Database, wait_until

PORT = 25930
VERBS = {
    "migrate": {},
    "baseline": {},
    "drift": {},
    "rehearse": {},
    "reset": {"confirm": "pooled"},
    "resolve_migration": {"rolled_back": "20260101000000_a"},
    "rollback": {"to": "20260101000000_a"},
    "schema": {},
    "seed": {"seed_environment": "development", "seed_allowed": True},
}


@pytest.fixture(scope="module")
def pooled(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., None]]:
    """`pooled(pool_mode=..., ...)` runs PgBouncer on PORT with these settings and one connection to the server."""
    folder = tmp_path_factory.mktemp("pgbouncer")
    os.chmod(folder, 0o711)
    started: list[subprocess.Popen[bytes]] = []

    def stop() -> None:
        while started:
            one = started.pop()
            one.terminate()
            one.wait(30)

    def start(**settings: str) -> None:
        stop()
        users = folder / "users.txt"
        users.write_text(f'"{instance.app_user}" "{instance.password}"\n')
        values = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(PORT),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(users),
            "default_pool_size": "1",
            **settings,
        }
        lines = ["[databases]", f"* = host={instance.host} port={instance.port}", "[pgbouncer]"]
        configuration = folder / "pgbouncer.ini"
        configuration.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in values.items())]) + "\n")
        for path in (users, configuration):
            path.chmod(0o644)  # of a database that ends with the tests
        # It refuses to run as root.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (folder / "log").open("wb") as log:
            started.append(subprocess.Popen(["pgbouncer", *user, str(configuration)], stdout=log, stderr=log))
        wait_until(answers, 30)

    yield start
    stop()


def answers() -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", PORT)) == 0


@pytest.fixture
def database(instance: Instance, tmp_path: Path) -> Iterator[Database]:
    folder = tmp_path / "migrations"
    folder.mkdir()
    database = Database(instance, "pooled", folder)
    database.create()
    database.write(_20260101000000_a="CREATE TABLE a (id int);")
    yield database
    database.drop()


@pytest.mark.parametrize(
    "settings",
    [
        {"pool_mode": "transaction"},
        {"pool_mode": "transaction", "ignore_startup_parameters": "options"},
        {"pool_mode": "session", "ignore_startup_parameters": "options"},
    ],
    ids=["refuses options", "drops options", "whole sessions"],
)
def test_a_pooler_is_told_from_the_server(
    database: Database, pooled: Callable[..., None], settings: dict[str, str]
) -> None:
    pooled(**settings)
    before = database.state()

    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refusal:
            database.migrate(check_mode=check_mode, port=PORT)
        assert (refusal.value.facts["code"], refusal.value.facts["pooler"]) == ("P1001", True)
        for name in ("postgres_host", "postgres_port", f"127.0.0.1:{PORT}"):
            assert name in refusal.value.message
    assert database.migrate(state="status", port=PORT)["reachable"] is False

    assert database.state() == before
    assert database.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", LOCK) == []
    assert database.migrate()["changed"]


def test_the_server_itself_is_taken_for_it(database: Database) -> None:
    with connect(database.params(), "tests") as connection:
        assert connection.execute("SHOW client_connection_check_interval").fetchone() == ("2s",)


def test_a_pooler_that_does_not_know_the_database(database: Database, pooled: Callable[..., None]) -> None:
    pooled(ignore_startup_parameters="options", pool_mode="transaction")
    with pytest.raises(DasTernError) as refusal:
        connect(database.params(port=PORT, database="nowhere"), "tests")
    assert refusal.value.facts["code"] in ("P1001", "P1003")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_so_and_does_nothing(
    database: Database, pooled: Callable[..., None], play: Callable[..., Play], instance: Instance, verb: str
) -> None:
    pooled(pool_mode="transaction", ignore_startup_parameters="options")
    before = database.state(), instance.sql("SELECT array_agg(datname ORDER BY 1) FROM pg_database")
    variables: dict[str, Any] = {
        **instance.variables,
        "postgres_port": PORT,
        "postgres_database": database.name,
        "postgres_app_user": instance.app_user,
        "migrations_dir": str(database.folder),
        **VERBS[verb],
    }

    done = play(f"playbooks/{verb}.yml", variables)

    assert done.rc == 2, done.stdout
    assert "(P1001)" in done.flat, done.stdout
    assert "connection pooler" in done.flat, done.stdout
    assert before == (database.state(), instance.sql("SELECT array_agg(datname ORDER BY 1) FROM pg_database"))


def test_a_pooler_loses_what_a_session_holds(database: Database, pooled: Callable[..., None]) -> None:
    """The reason for the refusal: without it the lock would be another client's."""
    pooled(pool_mode="transaction", ignore_startup_parameters="options")
    address = {**psycopg.conninfo.conninfo_to_dict(f"host=127.0.0.1 port={PORT} dbname={database.name}")}
    address |= {"user": database.instance.app_user, "password": database.instance.password}
    with psycopg.connect(**address, autocommit=True, prepare_threshold=None) as one:
        one.execute("SELECT pg_advisory_lock(1)")
    with psycopg.connect(**address, autocommit=True, prepare_threshold=None) as other:
        held = other.execute("SELECT pid = pg_backend_pid() FROM pg_locks WHERE locktype = 'advisory' AND objid = 1")
        assert held.fetchone() == (True,)
