"""The contract of the built image: what the official one does, ours does."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import psycopg
import pytest
from docker.errors import APIError
from docker.models.containers import Container

PORT = 25810
# What the postgres role runs it with.
HARDENED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "", "/var/run/postgresql": "uid=999,gid=999,mode=2775"},
}


@pytest.fixture(scope="module")
def client(image: dict[str, str]) -> docker.DockerClient:
    return docker.from_env()


class Box:
    """Containers and volumes of one test, removed after it."""

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self.client, self.image = client, image
        self.name = f"dastern-test-image-{uuid.uuid4().hex[:8]}"
        self.containers: list[Container] = []
        self.volume = client.volumes.create(self.name)

    def run(
        self, command: list[str] | str | None = None, *, files: dict[str, bytes] | None = None, **options: Any
    ) -> Container:
        container = self.client.containers.create(
            self.image,
            command,
            name=f"{self.name}-{len(self.containers)}",
            volumes={self.volume.name: {"bind": "/var/lib/postgresql/data", "mode": "rw"}},
            **options,
        )
        self.containers.append(container)
        if files:
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for path, content in files.items():
                    member = tarfile.TarInfo(path)
                    member.size, member.mode = len(content), 0o755 if path.endswith(".x.sh") else 0o644
                    tar.addfile(member, io.BytesIO(content))
            container.put_archive("/", archive.getvalue())
        container.start()
        return container

    def close(self) -> None:
        for container in self.containers:
            container.remove(force=True, v=True)
        self.volume.remove()


@pytest.fixture
def box(client: docker.DockerClient, image: dict[str, str]) -> Iterator[Box]:
    made = Box(client, image["postgres_image_reference"])
    yield made
    made.close()


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.05)


def ready(container: Container) -> None:
    """Asked over TCP: the initialising server has no TCP port."""

    def answered() -> bool:
        container.reload()
        assert container.status == "running", container.logs().decode()
        return execute(container, "pg_isready", "-q", "-h", "127.0.0.1")[0] == 0

    until(answered)


def execute(container: Container, *command: str) -> tuple[int, str]:
    try:
        done = container.exec_run(list(command))
    except APIError as error:
        return 1, str(error)
    return done.exit_code, done.output.decode().strip()


def sql(container: Container, text: str, database: str = "postgres", user: str = "postgres") -> str:
    code, output = execute(container, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-c", text)
    assert code == 0, output
    return output


def ended(container: Container, seconds: float = 30) -> tuple[int, str]:
    return container.wait(timeout=seconds)["StatusCode"], container.logs().decode()


class TestFirstStart:
    def test_password_file_database_and_arguments(self, box: Box) -> None:
        container = box.run(
            ["-c", "timezone=Asia/Phnom_Penh", "-c", "application_name=it's here"],
            files={"run-secret": b'it\'s "secret" 100%\n'},
            environment={
                "POSTGRES_PASSWORD_FILE": "/run-secret",
                "POSTGRES_USER": "chief",
                "POSTGRES_DB": "das tern",
                "POSTGRES_INITDB_ARGS": "--data-checksums --encoding=UTF8 --locale-provider=icu --icu-locale='km-KH'",
            },
            ports={"5432/tcp": ("127.0.0.1", PORT)},
        )
        ready(container)
        with psycopg.connect(
            host="127.0.0.1", port=PORT, user="chief", password='it\'s "secret" 100%', dbname="das tern"
        ) as connection:
            row = connection.execute(
                "select current_setting('data_checksums'), current_setting('timezone'), daticulocale, "
                "rolpassword like 'SCRAM-SHA-256$%', current_setting('application_name') "
                "from pg_authid, (select datlocale as daticulocale from pg_database where datname = 'das tern') d "
                "where rolname = 'chief'"
            ).fetchone()
        assert row is not None
        assert row[:4] == ("on", "Asia/Phnom_Penh", "km-KH", True)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(host="127.0.0.1", port=PORT, user="chief", password="wrong", dbname="das tern")
        # Inside the container too: only the socket trusts.
        code, output = execute(
            container, "psql", "-w", "-h", "127.0.0.1", "-U", "chief", "-d", "das tern", "-c", "select 1"
        )
        assert code != 0
        assert "no password supplied" in output
        assert "secret" not in container.logs().decode()
        assert "secret" not in execute(container, "sh", "-c", "tr '\\0' '\\n' </proc/1/environ")[1].replace(
            "run-secret", ""
        )

    def test_no_password_is_refused(self, box: Box) -> None:
        code, log = ended(box.run())
        assert code == 1
        assert "POSTGRES_PASSWORD_FILE" in log
        # Nothing was begun: the same volume takes a proper start.
        ready(box.run(environment={"POSTGRES_PASSWORD": "x"}))

    def test_password_twice_is_refused(self, box: Box) -> None:
        code, log = ended(box.run(environment={"POSTGRES_PASSWORD": "x", "POSTGRES_PASSWORD_FILE": "/etc/hostname"}))
        assert code == 1
        assert "both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE" in log

    def test_unreadable_password_file_is_refused(self, box: Box) -> None:
        code, log = ended(box.run(environment={"POSTGRES_PASSWORD_FILE": "/etc/shadow"}))
        assert code == 1
        assert "/etc/shadow" in log

    def test_trust_needs_no_password(self, box: Box) -> None:
        container = box.run(environment={"POSTGRES_HOST_AUTH_METHOD": "trust"})
        ready(container)
        assert execute(container, "psql", "-wXAt", "-h", "127.0.0.1", "-U", "postgres", "-c", "select 1") == (0, "1")

    def test_foreign_files_are_not_touched(self, box: Box) -> None:
        container = box.run(
            files={"var/lib/postgresql/data/precious.txt": b"keep"}, environment={"POSTGRES_PASSWORD": "x"}
        )
        code, log = ended(container)
        assert code == 1
        assert "holds precious.txt but no cluster" in log

    def test_scripts_run_in_order_and_only_once(self, box: Box) -> None:
        folder = "docker-entrypoint-initdb.d"
        environment = {"POSTGRES_PASSWORD": "x", "POSTGRES_DB": "dastern"}
        container = box.run(
            environment=environment,
            files={
                f"{folder}/1.sql": b"create table t (v text); insert into t values ('sql');",
                f"{folder}/2.sql.gz": gzip.compress(b"insert into t values ('gz');"),
                f"{folder}/3.sh": b"psql -U $POSTGRES_USER -d $POSTGRES_DB -c \"insert into t values ('read')\"\n"
                b'echo "work_mem = 5MB" >>"$PGDATA/postgresql.conf"\n',
                f"{folder}/4.x.sh": b"#!/bin/sh\npsql -U postgres -d dastern -c \"insert into t values ('run')\"\n",
                f"{folder}/5.txt": b"nothing to run",
            },
        )
        ready(container)
        assert sql(container, "select string_agg(v, ' ') from t", "dastern") == "sql gz read run"
        assert sql(container, "show work_mem") == "5MB"
        container.restart()
        ready(container)
        assert sql(container, "select count(*) from t", "dastern") == "4"

    @pytest.mark.parametrize(
        ("name", "content"),
        [("1.sql", b"create table t (v text); select broken;"), ("1.sql.gz", gzip.compress(b"select 1;" * 99)[:-4])],
        ids=["broken SQL", "cut archive"],
    )
    def test_a_failing_script_leaves_nothing_that_would_be_served(self, box: Box, name: str, content: bytes) -> None:
        container = box.run(
            environment={"POSTGRES_PASSWORD": "x"}, files={f"docker-entrypoint-initdb.d/{name}": content}
        )
        code, log = ended(container)
        assert code != 0
        assert "the next start begins it anew" in log
        again = box.run(environment={"POSTGRES_PASSWORD": "x"})
        ready(again)
        assert sql(again, "select to_regclass('t') is null") == "t"


class TestInterruption:
    @pytest.mark.parametrize("after", ["initialising a cluster", "database system is ready"])
    def test_killed_initialisation_begins_anew(self, box: Box, after: str) -> None:
        container = box.run(
            environment={"POSTGRES_PASSWORD": "x"},
            files={"docker-entrypoint-initdb.d/1.sh": b"sleep 60\n"},
        )
        until(lambda: after in container.logs().decode())
        container.kill("SIGKILL")
        again = box.run(environment={"POSTGRES_PASSWORD": "x", "POSTGRES_DB": "dastern"})
        ready(again)
        assert sql(again, "select count(*) from pg_database where datname = 'dastern'") == "1"
        assert execute(again, "sh", "-c", "ls -A $PGDATA | grep -c '^[.]'")[1] == "0"

    def test_the_last_step_is_finished_by_the_next_start(self, box: Box) -> None:
        first = box.run(environment={"POSTGRES_PASSWORD": "x"})
        ready(first)
        sql(first, "create table kept (v int)")
        first.stop()
        # As if killed while the files moved up: some are there, the others and PG_VERSION are not.
        shuffle = "cd $PGDATA && mkdir .ready && mv PG_VERSION base pg_wal postgresql.conf .ready/"
        assert ended(box.run(["sh", "-c", shuffle]))[0] == 0
        again = box.run()
        ready(again)
        assert sql(again, "select to_regclass('kept')") == "kept"
        assert "finishing an initialisation" in again.logs().decode()

    def test_stop_during_initialisation(self, box: Box) -> None:
        container = box.run(
            environment={"POSTGRES_PASSWORD": "x"}, files={"docker-entrypoint-initdb.d/1.sql": b"select pg_sleep(2);"}
        )
        until(lambda: "running /docker-entrypoint-initdb.d/1.sql" in container.logs().decode())
        container.stop(timeout=20)
        code, log = ended(container)
        assert code == 130
        assert "the next start begins it anew" in log


class TestSignals:
    def start(self, box: Box) -> Container:
        container = box.run(environment={"POSTGRES_PASSWORD": "x"})
        ready(container)
        assert execute(container, "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline")[1].startswith("postgres")
        return container

    def test_the_stop_signal_is_a_fast_shutdown(self, box: Box) -> None:
        container = self.start(box)
        session = container.client.api.exec_create(
            container.id, ["psql", "-U", "postgres", "-c", "select pg_sleep(60)"]
        )
        container.client.api.exec_start(session["Id"], detach=True)
        asleep = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'"
        until(lambda: sql(container, asleep) == "1")
        began = time.monotonic()
        container.stop(timeout=20)
        assert time.monotonic() - began < 5
        code, log = ended(container)
        assert code == 0
        assert "received fast shutdown request" in log

    def test_sigterm_is_a_smart_shutdown(self, box: Box) -> None:
        container = self.start(box)
        container.kill("SIGTERM")
        code, log = ended(container)
        assert code == 0
        assert "received smart shutdown request" in log


class TestHardened:
    @pytest.mark.parametrize("user", ["999", "postgres", "999:999"])
    def test_read_only_without_capabilities(self, box: Box, user: str) -> None:
        container = box.run(environment={"POSTGRES_PASSWORD": "x", "POSTGRES_DB": "d"}, user=user, **HARDENED)
        ready(container)
        assert execute(container, "id", "-u") == (0, "999")
        assert execute(container, "stat", "-c", "%u:%g %a", "/var/lib/postgresql/data")[1] == "999:999 700"
        assert sql(container, "select 1", "d") == "1"

    def test_started_as_root_it_gives_root_up(self, box: Box) -> None:
        container = box.run(environment={"POSTGRES_PASSWORD": "x"}, user="root")
        ready(container)
        assert execute(container, "stat", "-c", "%u", "/proc/1")[1] == "999"

    def test_a_directory_that_it_may_not_write(self, box: Box, tmp_path: Path) -> None:
        container = box.client.containers.create(
            box.image,
            environment={"POSTGRES_PASSWORD": "x"},
            name=f"{box.name}-bind",
            volumes={str(tmp_path): {"bind": "/var/lib/postgresql/data", "mode": "rw"}},
        )
        box.containers.append(container)
        container.start()
        code, log = ended(container)
        assert code == 1
        assert "chown 999:999" in log


class TestContent:
    def test_configuration(self, client: docker.DockerClient, image: dict[str, str]) -> None:
        attributes = client.images.get(image["postgres_image_reference"]).attrs
        config = attributes["Config"]
        environment = dict(item.split("=", 1) for item in config["Env"])
        assert config["User"] == "postgres"
        assert config["StopSignal"] == "SIGINT"
        assert config["ExposedPorts"] == {"5432/tcp": {}}
        assert config["Volumes"] == {"/var/lib/postgresql/data": {}}
        assert environment["PG_MAJOR"] == "17"
        assert environment["PGDATA"] == "/var/lib/postgresql/data"
        assert config["Labels"]["org.dastern.image"] == "postgres"
        assert attributes["Size"] < 300_000_000

    def test_everything_left_finds_its_libraries(self, box: Box) -> None:
        look = (
            "find / -xdev -type f \\( -perm -u+x -o -name '*.so*' \\) 2>/dev/null | while read -r f; do "
            'ldd "$f" 2>/dev/null | grep -q "not found" && echo "$f"; done; true'
        )
        code, output = ended(box.run(["bash", "-c", look], user="root"), 120)
        assert (code, output) == (0, "")

    def test_nothing_needs_what_was_left_out(self, box: Box) -> None:
        look = (
            "command -v perl; find / -xdev \\( -iname '*llvm*' -o -name 'libz3*' -o -name 'libperl*' \\) 2>/dev/null; "
            "grep -rlIE '^#! ?/usr/bin/(env )?(perl|python)' /usr/bin /usr/sbin /usr/lib/postgresql 2>/dev/null; "
            "find / -xdev -xtype l -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null; "
            "find / -xdev -name '*.key' -o -xdev -name '*snakeoil*' 2>/dev/null; true"
        )
        code, output = ended(box.run(["bash", "-c", look], user="root"), 120)
        assert code == 0
        assert [line for line in output.splitlines() if line != "/etc/mtab"] == []

    def test_programs(self, box: Box) -> None:
        container = box.run(environment={"POSTGRES_PASSWORD": "x"})
        ready(container)
        for program in (
            "psql", "pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pg_receivewal", "pg_verifybackup",
            "pg_combinebackup", "pg_amcheck", "pg_checksums", "pg_upgrade", "pg_waldump", "pg_rewind", "pgbench",
            "pg_isready", "vacuumdb", "reindexdb",
        ):  # fmt: skip
            code, output = execute(container, program, "--version")
            assert (code, " 17." in output) == (0, True), output
        assert execute(container, "pgbackrest", "version")[1].startswith("pgBackRest 2.")
        assert execute(container, "pg_amcheck", "-U", "postgres", "--install-missing", "-a")[0] == 0
        assert (
            execute(container, "bash", "-c", "set -o pipefail; pg_dump -U postgres -Fc -Z zstd | pg_restore -l")[0] == 0
        )

    def test_extensions_time_zones_and_collations(self, box: Box) -> None:
        container = box.run(environment={"POSTGRES_PASSWORD": "x"})
        ready(container)
        names = sql(container, "select string_agg(name, ' ') from pg_available_extensions").split()
        assert len(names) > 40
        for name in names:
            sql(container, f'create extension if not exists "{name}" cascade')
        assert sql(container, "set timezone = 'Asia/Phnom_Penh'; select '2026-01-01 00:00+00'::timestamptz") == (
            "2026-01-01 07:00:00+07"
        )
        ordered = "select string_agg(v, '' order by v collate \"km-x-icu\") from unnest(array['ខ', 'ក', 'គ']) v"
        assert sql(container, ordered) == "កខគ"
        assert sql(container, "select xmlparse(document '<a>ក</a>')") == "<a>ក</a>"
        assert sql(
            container, "set jit = on; set jit_above_cost = 0; select sum(g) from generate_series(1, 1000) g"
        ) == ("500500")
