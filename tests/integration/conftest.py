"""What the integration tests share: `play` runs a playbook, `instance` is one running database for all of them.

Containers are named `dastern-test-*` and listen on 127.0.0.1:25000-25999; an outgoing connection can have taken a port from
32768 on. Set `DASTERN_TEST_IMAGE` to test another image than the one that the project builds,
`DASTERN_TEST_INSTANCE=NAME:PORT` to have two runs beside each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from migrating import Database

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("DASTERN_TEST_IMAGE", "das-tern/postgres:17")
INVENTORY = """\
dastern:
  hosts:
    localhost:
      ansible_connection: local
      ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""
LONGEST = 540
"""Seconds that a playbook may last."""
LONGEST_FIRST = (
    "test_backup", "test_postgres_role", "test_restore", "test_engine_and_image_roles", "test_pgbackrest_versions",
    "test_backup_playbooks", "test_rehearse", "test_backup_faults", "test_backup_schedule", "test_faults", "test_zero_loss",
    "test_timelines", "test_tablespaces", "test_drift", "test_backup_logical", "test_backup_before_migrating", "test_prisma",
    "test_drift_engine", "test_fault_campaign",
)  # fmt: skip
"""Files that take long, so that no process is left alone with one at the end (`--durations=0` measures them)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@dataclass
class Play:
    """What came of one `ansible-playbook` run; `report` is what the summary callback wrote."""

    rc: int
    stdout: str
    seconds: float
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many tasks of the only host came to what."""
        (host,) = self.report["hosts"].values()
        return dict(host["counts"])

    @property
    def changed(self) -> int:
        return self.counts["changed"]

    @property
    def flat(self) -> str:
        """The output with runs of blanks as one, so that a wrapped message is found."""
        return " ".join(self.stdout.split())

    def section(self, name: str) -> dict[str, Any]:
        """A section of the report of the only host."""
        hosts = list(self.report.get("hosts", {}).values())
        return hosts[0]["sections"].get(name, {}) if hosts else {}


class Playbooks:
    """Processes whose forks run playbooks (`forked_playbooks.py`): as many as playbooks run at once."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._idle: list[subprocess.Popen[str]] = []

    def run(self, output: Path, arguments: list[str]) -> tuple[int, str]:
        """Run ansible-playbook; return its exit code and what it wrote."""
        process = self._idle.pop() if self._idle else self._begun()
        assert process.stdin
        assert process.stdout
        print(json.dumps([str(output), *arguments]), file=process.stdin, flush=True)
        answered = select.select([process.stdout], [], [], LONGEST)[0]
        code = process.stdout.readline() if answered else ""
        if not code:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(
                f"A playbook ended its process, or lasted longer than {LONGEST} s: {output.read_text()}"
            )
        self._idle.append(process)
        return int(code), output.read_text()

    def close(self) -> None:
        for process in self._idle:
            assert process.stdin
            process.stdin.close()
            process.wait()

    def _begun(self) -> subprocess.Popen[str]:
        program = Path(__file__).with_name("forked_playbooks.py")
        return subprocess.Popen(
            [sys.executable, str(program)], cwd=REPOSITORY, env=self._environment, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip


@dataclass
class Instance:
    """A database that the `postgres` role made."""

    container: str
    host: str
    port: int
    database: str
    app_user: str
    password_file: Path
    config_dir: Path
    endpoint: str
    variables: dict[str, Any]

    @property
    def password(self) -> str:
        return self.password_file.read_text().removesuffix("\n")

    @property
    def url(self) -> str:
        return f"postgresql://{self.app_user}:{self.password}@{self.host}:{self.port}/{self.database}"

    def sql(self, sql: str, database: str | None = None) -> str:
        """`sql` as superuser over the container's socket; the output of psql, unaligned."""
        return docker(
            "exec", "-i", "-u", "postgres", self.container, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1",
            "-d", database or self.database, stdin=sql,
        ).stdout.strip()  # fmt: skip


def docker(*arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}")
    return done


def descendants(pid: int) -> list[int]:
    """A process and all below it; the workers of ansible-playbook leave its process group."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in descendants(int(child)))]


def remove_instance(container: str) -> None:
    """Everything that the role makes under this name, but for the config directory."""
    docker(
        "rm", "-f", "-v", container, f"{container}-init", f"{container}-receiver", f"{container}-backup", check=False
    )
    docker("volume", "rm", "-f", f"{container}-data", check=False)
    for network in docker("network", "ls", "-q", "--filter", f"name=^{container}-net$").stdout.split():
        docker("network", "rm", network, check=False)


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Play]]:
    """`play(playbook, extra_vars, *args)`: run a playbook given as a path or as YAML text.

    Without an environment or a program before it, it runs in a fork of a process that has imported Ansible.
    The inventory is one host in group `dastern`, without group variables: roles are seen with their own defaults.
    """

    usual = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }
    playbooks = Playbooks(usual)

    def run(
        playbook: str | Path | list[Any],
        extra_vars: dict[str, Any] | None = None,
        *args: str,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Play:
        folder = tmp_path_factory.mktemp("play")
        (folder / "hosts.yml").write_text(INVENTORY)
        if isinstance(playbook, list) or "\n" in str(playbook):
            text = playbook if isinstance(playbook, str) else yaml.safe_dump(playbook, sort_keys=False)
            path = folder / "playbook.yml"
            path.write_text(str(text))
        else:
            path = REPOSITORY / playbook
        report = folder / "report.json"
        variables = folder / "variables.json"
        variables.write_text(
            json.dumps({"dastern_environment": "development", "report_file": str(report), **(extra_vars or {})})
        )
        arguments = ["-i", str(folder / "hosts.yml"), "-e", f"@{variables}", *args, str(path)]
        began = time.monotonic()
        if prefix or env:
            program = str(Path(sys.executable).parent / "ansible-playbook")
            done = subprocess.run(
                [*prefix, program, *arguments], cwd=REPOSITORY, env={**usual, **(env or {})},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST,
            )  # fmt: skip
            code, output = done.returncode, done.stdout
        else:
            code, output = playbooks.run(folder / "output", arguments)
        result = Play(code, output, time.monotonic() - began)
        if report.exists():
            result.report = json.loads(report.read_text())
        return result

    yield run
    playbooks.close()


@pytest.fixture(scope="session")
def image(play: Callable[..., Play]) -> dict[str, str]:
    """What the roles before `postgres` leave as facts; makes the image first if it isn't there."""
    if docker("image", "inspect", IMAGE, check=False).returncode:
        made = play("- hosts: dastern\n  gather_facts: false\n  roles:\n    - docker_engine\n    - postgres_image\n")
        assert made.rc == 0, made.stdout
    return {
        "docker_engine_endpoint": "unix:///var/run/docker.sock",
        "postgres_image_reference": IMAGE,
        "postgres_image_id": docker("image", "inspect", "-f", "{{.Id}}", IMAGE).stdout.strip(),
    }


def instance_variables(container: str, port: int, config_dir: Path) -> dict[str, Any]:
    return {
        "postgres_container_name": container,
        "postgres_port": port,
        "postgres_config_dir": str(config_dir),
        "postgres_backup_dir": str(config_dir.with_name(f"{config_dir.name}-backups")),
        "postgres_app_createdb": True,
        "backup_cpus": 0,
    }


@pytest.fixture(scope="session")
def instance(
    play: Callable[..., Play], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """A running, empty database for the tests of everything that works inside a database."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    given = os.environ.get("DASTERN_TEST_INSTANCE", f"dastern-test-pg{worker}:{25100 + int(worker)}")
    container, _, number = given.partition(":")
    port = int(number)
    remove_instance(container)
    config_dir = tmp_path_factory.mktemp("instance") / "config"
    variables = {**image, **instance_variables(container, port, config_dir)}
    made = play("- hosts: dastern\n  gather_facts: false\n  roles:\n    - postgres\n", variables)
    assert made.rc == 0, made.stdout
    yield Instance(
        container=container,
        host="127.0.0.1",
        port=port,
        database="dastern",
        app_user="dastern_user",
        password_file=config_dir / "app_password",
        config_dir=config_dir,
        endpoint=image["docker_engine_endpoint"],
        variables=variables,
    )
    remove_instance(container)


@pytest.fixture
def database(instance: Instance, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    name = "m_" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    own = Database(instance, name, tmp_path)
    own.create()
    yield own
    own.drop()


@pytest.fixture
def chain(database: Database) -> Database:
    """Five migrations, each with a table, an index and a row."""
    for number in range(1, 6):
        database.write(
            **{
                f"_{number}_step": f'CREATE TABLE "t{number}" (id int PRIMARY KEY, note text);\n'
                f'CREATE INDEX "t{number}_note_idx" ON "t{number}" (note);\n'
                f"INSERT INTO \"t{number}\" VALUES ({number}, 'ថ្នាំ');\n"
            }
        )
    return database
