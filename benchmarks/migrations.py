"""What bringing a schema forward costs, beside other ways to do it, in one run on one machine.

Each round measures every contestant once, in an order that rotates from round to round, so that a slow minute of the
machine hits all of them; the table shows medians. Before a fresh apply the contestant gets a database of its own,
created with STRATEGY file_copy: that ends with a checkpoint, so that everybody begins with the same (empty) backlog
of the checkpointer. What is measured is the whole process, from its start to its end.

    python benchmarks/migrations.py            # an instance of its own, about 12 minutes
    python benchmarks/migrations.py --quick    # smoke run
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from common import (
    ANSIBLE_PLAYBOOK,
    HERE,
    ROOT,
    TARGETS_HEAD,
    Failed,
    in_turn,
    keep,
    playbook,
    row,
    run,
    run_and_weigh,
    say,
)

PRISMA = ROOT / "tests" / "prisma"
RESULTS = HERE / "results" / "migrations.md"
CONTAINER, PORT = "dastern-bench", 25500
INSTANCE = {"postgres_container_name": CONTAINER, "postgres_port": PORT}
REMOVE = {**INSTANCE, "postgres_remove_volume": True, "postgres_remove_volume_confirm": f"{CONTAINER}-data"}

STARTS = "Ansible starts, reads playbooks, roles and inventory"

NOOP_MODULE = """\
from ansible.module_utils.basic import AnsibleModule


def main():
    AnsibleModule(argument_spec={}, supports_check_mode=True).exit_json(changed=False)


if __name__ == "__main__":
    main()
"""
NOOP_PLAYBOOK = """\
- hosts: dastern
  gather_facts: false
  tasks:
    - name: Do nothing
      bench_noop:
"""
EMPTY_PLAYBOOK = "- hosts: dastern\n  gather_facts: false\n  tasks: []\n"


@dataclass(frozen=True)
class Server:
    host: str
    port: int
    user: str
    password: str
    database: str  # to connect to while others are created and dropped
    variables: dict[str, Any]  # what tells our playbooks about it

    def environment(self, database: str) -> dict[str, str]:
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
        }

    def connect(self, database: str | None = None) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database or self.database,
            autocommit=True,
        )

    def url(self, database: str) -> str:
        return (
            f"postgres://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{self.host}:{self.port}/{database}"
            "?sslmode=disable"
        )


@dataclass
class Contestant:
    """One way to do it: `command(folder, database)` gives arguments and further environment."""

    name: str
    command: Callable[[Path, str], tuple[list[str], dict[str, str]]]
    ledger: str | None = "_prisma_migrations"  # None: it needs no database
    fewer: bool = False  # measured in half of the rounds
    missing: str | None = None  # why it can't run here
    status: Callable[[Path, str], tuple[list[str], dict[str, str]]] | None = None  # asks what is applied and pending
    database: str = ""
    seconds: dict[tuple[int, str], list[float]] = field(default_factory=dict)

    def median(self, size: int, operation: str) -> float | None:
        values = self.seconds.get((size, operation))
        return statistics.median(values) if values else None


def main() -> int:
    options = arguments()
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="dastern-bench-") as name, instance(options, Path(name)) as server:
        work = Path(name)
        field_ = contestants(work, server)
        report = [heading(server)]
        if options.sizes:
            compare(options, work, server, field_)
            report += [migrations_table(options.sizes, field_), targets_table(options.sizes, field_)]
        if options.big:
            report.append(big(options, work, server, field_))
        if options.make_up:
            report.append(make_up(options, work, field_))
    text = "\n".join(report)
    print(text)
    if options.write:
        keep(RESULTS, text)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="numbers of migrations (default: 1,100,1000), or an empty string")
    parser.add_argument("--rounds", type=int, help="rounds of fresh applies (default: 5; 3 from 500 migrations on)")
    parser.add_argument("--noop-rounds", type=int, default=7, help="rounds of runs with nothing to do (default: 7)")
    parser.add_argument("--big", action="store_true", help="also: one big file, many statements, many files")
    parser.add_argument("--make-up", action="store_true", help="also: where the time of a second `make up` goes")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 1 and 10 migrations, one round")
    parser.add_argument("--write", action="store_true", help="write the result to benchmarks/results/migrations.md")
    parser.add_argument("--keep", action="store_true", help="leave the instance dastern-bench running afterwards")
    parser.add_argument("--server", metavar="HOST:PORT", help="use this server instead of an instance of its own")
    parser.add_argument("--user", default="dastern_user", help="with --server: a role with CREATEDB")
    parser.add_argument("--password-file", type=Path, help="with --server")
    parser.add_argument("--database", default="dastern", help="with --server: a database to connect to")
    options = parser.parse_args()
    if options.server and not options.password_file:
        parser.error("--server needs --password-file")
    if options.server and options.make_up:
        parser.error("--make-up measures an instance of its own: leave out --server")
    if options.sizes is None:
        options.sizes = "1,10" if options.quick else "1,100,1000"
    if options.quick:
        options.rounds = options.noop_rounds = 1
    options.sizes = [int(size) for size in options.sizes.split(",") if size]
    return options


# ---------------------------------------------------------------------------------------------- where it runs


@contextmanager
def instance(options: argparse.Namespace, work: Path) -> Iterator[Server]:
    """The server to measure on: a given one, or an instance made for this run and removed afterwards."""
    if options.server:
        host, _, port = options.server.rpartition(":")
        config = work / "config"
        config.mkdir(mode=0o700)
        password_file = config / "app_password"
        password_file.touch(0o600)
        password_file.write_text(options.password_file.read_text("utf-8"), "utf-8")
        variables: dict[str, Any] = {"postgres_port": int(port), "postgres_config_dir": str(config)}
        variables |= {"postgres_app_user": options.user} if options.user != "dastern_user" else {}
        variables |= {"postgres_host": host} if host != "127.0.0.1" else {}
        password = password_file.read_text("utf-8").removesuffix("\n")
        yield Server(host, int(port), options.user, password, options.database, variables)
        return
    say(f"Providing the instance {CONTAINER}")
    try:
        playbook("playbooks/provision.yml", INSTANCE)
        password = (Path("/etc/das-tern") / CONTAINER / "app_password").read_text("utf-8").removesuffix("\n")
        yield Server("127.0.0.1", PORT, "dastern_user", password, "dastern", INSTANCE)
    finally:
        if not options.keep:
            say(f"Removing the instance {CONTAINER}")
            try:
                playbook("playbooks/remove.yml", REMOVE)
            except Failed as error:
                say(f"It is still there: {error}")


# ---------------------------------------------------------------------------------------------- what takes part


def contestants(work: Path, server: Server) -> list[Contestant]:
    (work / "library").mkdir()
    (work / "library" / "bench_noop.py").write_text(NOOP_MODULE, "utf-8")
    (work / "noop.yml").write_text(NOOP_PLAYBOOK, "utf-8")
    (work / "empty.yml").write_text(EMPTY_PLAYBOOK, "utf-8")
    # The same Python by another path: the action plugin takes it for another host's and runs the module.
    (work / "other").symlink_to(sys.prefix)
    npm_missing = install_npm()

    def ours(folder: Path, database: str, **more: Any) -> tuple[list[str], dict[str, str]]:
        variables = {**server.variables, "postgres_database": database, "migrations_dir": str(folder), **more}
        return [ANSIBLE_PLAYBOOK, "migrate.yml", "-e", json.dumps(variables)], {}

    def status(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        command, environment = ours(folder, database)
        return [command[0], "playbooks/migration_status.yml", *command[2:]], environment

    def empty(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        return [ANSIBLE_PLAYBOOK, str(work / "empty.yml")], {}

    def module_mode(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        return ours(folder, database, ansible_python_interpreter=str(work / "other" / "bin" / "python"))

    def loop(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, str(HERE / "psycopg_loop.py"), str(folder)], server.environment(database)

    def noop(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        return [ANSIBLE_PLAYBOOK, str(work / "noop.yml")], {}

    def dbmate(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        binary = next(iter(sorted((HERE / "node_modules" / "@dbmate").glob("*/bin/dbmate"))))
        return [
            str(binary),
            "--no-dump-schema",
            "--migrations-dir",
            str(folder.with_name(folder.name + "-dbmate")),
            "migrate",
        ], {"DATABASE_URL": server.url(database)}

    def prisma(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        return ["node", str(PRISMA / "engine.mjs"), "7", "deploy", str(folder)], server.environment(database)

    return [
        Contestant("ours", ours, status=status),
        Contestant("ours, module process", module_mode, fewer=True),
        Contestant("(a) psycopg loop", loop),
        Contestant("(b) no-op module", noop, ledger=None, status=noop),
        Contestant("(c) dbmate", dbmate, ledger="schema_migrations", missing=npm_missing),
        Contestant("(d) Prisma engine", prisma, missing=npm_missing),
        Contestant("no task at all", empty, ledger=None, fewer=True, status=empty),
    ]


def install_npm() -> str | None:
    """Install what the two package.json name; gives the reason where that isn't possible."""
    if not (shutil.which("node") and shutil.which("npm")):
        return "node and npm are not installed"
    command = ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--prefer-offline"]
    for folder in (HERE, PRISMA):
        say(f"npm install in {folder.relative_to(ROOT)}")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            return "`npm install` failed: " + " ".join(done.stderr.split())[-200:]
    return None


def generate(folder: Path, size: int) -> None:
    """`size` migrations, each a table, an index and an insert; and the same with dbmate's headers beside them."""
    folder.mkdir()
    (folder / "migration_lock.toml").write_text('provider = "postgresql"\n', "utf-8")
    for_dbmate = folder.with_name(folder.name + "-dbmate")
    for_dbmate.mkdir()
    for number in range(1, size + 1):
        stamp = (datetime(2025, 1, 1) + timedelta(minutes=number)).strftime("%Y%m%d%H%M%S")
        table = f'"bench_{number}"'
        text = (
            f'CREATE TABLE {table} (\n    "id" INTEGER NOT NULL,\n    "label" TEXT NOT NULL,\n'
            '    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,\n'
            f'    CONSTRAINT "bench_{number}_pkey" PRIMARY KEY ("id")\n);\n\n'
            f'CREATE INDEX "bench_{number}_label_idx" ON {table}("label");\n\n'
            f"INSERT INTO {table} (\"id\", \"label\") VALUES (1, 'one'), (2, 'two'), (3, 'three');\n"
        )
        (folder / f"{stamp}_bench_{number}").mkdir()
        (folder / f"{stamp}_bench_{number}" / "migration.sql").write_text(text, "utf-8")
        (for_dbmate / f"{stamp}_bench_{number}.sql").write_text(f"-- migrate:up\n{text}\n-- migrate:down\n", "utf-8")


# ---------------------------------------------------------------------------------------------- the measurement


def compare(options: argparse.Namespace, work: Path, server: Server, field_: list[Contestant]) -> None:
    with server.connect() as admin:
        measurement = Measurement(server, admin)
        try:
            warm_up(measurement, work, field_)
            for size in options.sizes:
                folder = work / f"migrations-{size}"
                generate(folder, size)
                rounds = options.rounds or (3 if size >= 500 else 5)
                for number in range(rounds):
                    for one in turn(field_, number):
                        measurement.fresh(one, folder, size)
                for number in range(options.noop_rounds):
                    for one in turn(field_, number):
                        measurement.noop(one, folder, size)
                        if one.status:
                            measurement.status(one, folder, size)
                measurement.drop_all()
        finally:
            measurement.drop_all()


def turn(field_: list[Contestant], number: int) -> list[Contestant]:
    """Who takes part in round `number`, in its order."""
    return [one for one in in_turn(field_, number) if not one.missing and not (one.fewer and number % 2)]


class Measurement:
    def __init__(self, server: Server, admin: psycopg.Connection[Any]) -> None:
        self._server, self._admin = server, admin
        self._databases: list[str] = []

    def fresh(self, one: Contestant, folder: Path, size: int) -> None:
        if one.ledger:
            if one.database:
                self._drop(one.database)
            one.database = self.create()
        self._measure(one, folder, size, "fresh")

    def noop(self, one: Contestant, folder: Path, size: int) -> None:
        self._measure(one, folder, size, "no-op")

    def status(self, one: Contestant, folder: Path, size: int) -> None:
        self._measure(one, folder, size, "status")

    def _measure(self, one: Contestant, folder: Path, size: int, operation: str) -> None:
        command = one.status if operation == "status" and one.status else one.command
        seconds = run(*command(folder, one.database))
        self._check(one, size)
        one.seconds.setdefault((size, operation), []).append(seconds)
        say(f"{size:>5} {operation:<6} {one.name:<22} {seconds:7.2f} s")

    def _check(self, one: Contestant, size: int) -> None:
        """All migrations and nothing else must be in the ledger and in the schema."""
        if not one.ledger:
            return
        with self._server.connect(one.database) as connection:
            recorded = connection.execute(f"SELECT count(*) FROM {one.ledger}").fetchone()  # type: ignore[arg-type]
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'bench%'").fetchone()
        if recorded != (size,) or tables != (size,):
            raise Failed(f"{one.name}: {recorded} migrations recorded, {tables} tables; wanted are {size} of each")

    def create(self) -> str:
        name = f"bench_{secrets.token_hex(4)}"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")  # type: ignore[arg-type]
        self._databases.append(name)
        return name

    def _drop(self, name: str) -> None:
        # Not WITH (FORCE): an ordinary role may not end an autovacuum worker by it. Without it the server waits
        # up to five seconds for those who still leave, and stops that worker itself.
        self._admin.execute(f"DROP DATABASE IF EXISTS {name}")  # type: ignore[arg-type]

    def drop_all(self) -> None:
        while self._databases:
            self._drop(self._databases.pop())


def warm_up(measurement: Measurement, work: Path, field_: list[Contestant]) -> None:
    """One unmeasured run of everybody fills the caches; who can't run is out, unless it is ours to run."""
    folder = work / "migrations-warm-up"
    generate(folder, 1)
    for one in field_:
        if one.missing:
            continue
        try:
            measurement.fresh(one, folder, 1)
        except Failed as error:
            if not one.name.startswith(("(c)", "(d)")):
                raise
            one.missing = " ".join(str(error).split())[-200:]
        one.seconds.clear()
    for one in field_:
        if one.missing:
            say(f"NOT AVAILABLE: {one.name}: {one.missing}")


# ---------------------------------------------------------------------------------------------- the report


def heading(server: Server) -> str:
    with server.connect() as connection:
        postgres = connection.info.parameter_status("server_version")
    names = [
        f"{os.cpu_count()} cores",
        f"PostgreSQL {postgres}",
        f"Python {platform.python_version()}",
        f"ansible-core {version('ansible-core')}",
        f"psycopg {version('psycopg')} ({psycopg.pq.__impl__})",
    ]
    packages = {
        name: pinned
        for folder in (HERE, PRISMA)
        for name, pinned in json.loads((folder / "package.json").read_text("utf-8"))["dependencies"].items()
    }
    names += [f"dbmate {packages['dbmate']}", f"Prisma {packages['@prisma/adapter-pg']}"]
    if node := shutil.which("node"):
        names.append("Node " + subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()[1:])
    return f"# Migrations: what they cost\n\n{date.today().isoformat()}; {', '.join(names)}.\n"


def migrations_table(sizes: list[int], field_: list[Contestant]) -> str:
    lines = [
        "Seconds, medians; in brackets what ours takes as a multiple of it.\n",
        "| migrations | | " + " | ".join(one.name for one in field_) + " |",
        "|---" * (len(field_) + 2) + "|",
    ]
    for size in sizes:
        for operation in ("fresh", "no-op", "status"):
            ours = field_[0].median(size, operation)
            cells = [cell(one, ours, size, operation, one is field_[0]) for one in field_]
            lines.append(f"| {size} | {operation} | " + " | ".join(cells) + " |")
    lines += ["", *(f"**NOT AVAILABLE here:** {one.name}: {one.missing}" for one in field_ if one.missing)]
    return "\n".join(lines) + "\n"


def cell(one: Contestant, ours: float | None, size: int, operation: str, is_ours: bool) -> str:
    median = one.median(size, operation)
    if median is None or ours is None:
        return "" if operation == "status" else "NOT AVAILABLE"
    return f"{median:.2f}" if is_ours else f"{median:.2f} (× {ours / median:.2f})"


def targets_table(sizes: list[int], field_: list[Contestant]) -> str:
    ours, loop, noop = field_[0], field_[2], field_[3]
    rows = []
    for size, factor in ((100, 1.15), (1000, 1.25)):
        if size in sizes:
            rows.append(
                target(f"no-op of {size}: ours ≤ {factor} × (b)", ours, noop.median(size, "no-op"), factor, size)
            )
    if 100 in sizes:
        words = "`migration_status.yml` of 100 ≤ 1.15 × (b)"
        rows.append(target(words, ours, noop.median(100, "status"), 1.15, 100, "status"))
    if 1000 in sizes:
        floor = (loop.median(1000, "fresh") or 0) + (noop.median(1000, "fresh") or 0)
        rows.append(target("fresh 1000: ours ≤ 1.10 × ((a) + (b))", ours, floor, 1.10, 1000, "fresh"))
    if not rows:
        return ""
    return "\n".join([TARGETS_HEAD, *rows]) + "\n"


def target(
    words: str, ours: Contestant, floor: float | None, factor: float, size: int, operation: str = "no-op"
) -> str:
    seconds = ours.median(size, operation)
    if seconds is None or not floor:
        return f"| {words} | | | | not measured |"
    return row(words, seconds, floor, factor)


# ---------------------------------------------------------------------------------------------- big files


def big(options: argparse.Namespace, work: Path, server: Server, field_: list[Contestant]) -> str:
    """A big file beside psql, many statements beside the server alone, and many files beside the loop."""
    ours, loop, noop = field_[0], field_[2], field_[3]
    rounds = 1 if options.quick else options.rounds or 3
    lines = [TARGETS_HEAD]

    def psql(folder: Path, database: str) -> tuple[list[str], dict[str, str]]:
        (file,) = folder.glob("*/migration.sql")
        return ["psql", "-qX1", "-v", "ON_ERROR_STOP=1", "-f", str(file)], server.environment(database)

    def medians(folder: Path, others: list[Callable[[Path, str], tuple[list[str], dict[str, str]]]]) -> list[float]:
        """Seconds of ours and the others on new databases, and the most memory that ours had."""
        everybody = [ours.command, *others]
        seconds: list[list[float]] = [[] for _ in everybody]
        memory = 0
        for number in range(rounds):
            for at in in_turn(range(len(everybody)), number):
                with new_database(server) as database:
                    took, weight = run_and_weigh(*everybody[at](folder, database))
                seconds[at].append(took)
                memory = max(memory, 0 if at else weight)
                say(f"{folder.name} {at if at else 'ours'} {took:.2f} s, {weight / 1e6:.0f} MB")
        return [*map(statistics.median, seconds), memory]

    small = work / "migrations-small"
    rows_file(small, 1000, 160)
    *_, least = medians(small, [])
    for megabytes in (2,) if options.quick else (20, 60):
        folder = work / f"file-of-{megabytes}-MB"
        size = rows_file(folder, megabytes * 1_000_000, 160)
        mine, direct, nothing, memory = medians(folder, [psql, noop.command])
        lines.append(row(f"{megabytes} MB: ours ≤ 1.3 × `psql -1 -f` + (b)", mine, 1.3 * direct + nothing, 1.0))
        lines.append(
            row(
                f"{megabytes} MB: memory above that for a small file ≤ 3 × its size, in MB",
                (memory - least) / 1e6,
                size / 1e6,
                3.0,
            )
        )
    folder = work / "file-of-many-statements"
    rows_file(folder, 1_300_000, 10)
    mine, direct, nothing, _ = medians(folder, [loop.command, noop.command])
    alone = statistics.median(server_alone(server, folder) for _ in range(rounds))
    lines.append(row("20,000 statements: ours ≤ 2 × the server alone + (b)", mine, 2 * alone + nothing, 1.0))
    lines.append(row("20,000 statements: ours beside (a) + (b), for comparison", mine, direct + nothing, 1.15))
    folder, size = work / "many-files", 20 if options.quick else 2000
    generate(folder, size)
    mine, direct, nothing, _ = medians(folder, [loop.command, noop.command])
    lines.append(row(f"fresh {size}: ours ≤ 1.15 × ((a) + (b))", mine, direct + nothing, 1.15))
    return "\n".join(["## Big files, many statements, many files\n", *lines]) + "\n"


def rows_file(folder: Path, size: int, width: int) -> int:
    """A migration of INSERTs, whose texts of at least `width` characters hold the words begin and end; gives its bytes."""
    path = folder / "20260101000000_rows" / "migration.sql"
    path.parent.mkdir(parents=True)
    (folder / "migration_lock.toml").write_text('provider = "postgresql"\n', "utf-8")
    written, number = 0, 0
    with path.open("w") as file:
        written += file.write('CREATE TABLE "bench_rows" ("id" INTEGER PRIMARY KEY, "label" TEXT NOT NULL);\n')
        while written < size:
            number += 1
            label = f"begin {number} " + "it''s not the end " * (width // 18) + "end"
            written += file.write(f'INSERT INTO "bench_rows" ("id", "label") VALUES ({number}, \'{label}\');\n')
    return written


@contextmanager
def new_database(server: Server) -> Iterator[str]:
    with server.connect() as admin:
        measurement = Measurement(server, admin)
        try:
            yield measurement.create()
        finally:
            measurement.drop_all()


def server_alone(server: Server, folder: Path) -> float:
    """Seconds from sending a file as one message to the server's last word on it."""
    (file,) = folder.glob("*/migration.sql")
    with new_database(server) as database, server.connect(database) as connection:
        began = time.perf_counter()
        result = connection.pgconn.exec_(file.read_bytes())
        seconds = time.perf_counter() - began
        if result.error_message:
            raise Failed(result.error_message.decode())
    return seconds


# ---------------------------------------------------------------------------------------------- the second `make up`


def make_up(options: argparse.Namespace, work: Path, field_: list[Contestant]) -> str:
    """`make up` where nothing is to do, beside (b); and where its time goes, task by task."""
    (noop, _), setup = field_[3].command(work, ""), ["make", "--silent", "setup"]
    words = " ".join(f"{name}={value}" for name, value in INSTANCE.items())
    command = ["make", "--silent", "up", f"E={words}"]
    if Path(sys.prefix) != ROOT / ".venv":
        say("Not run with .venv/bin/python (`make setup` makes it): site.yml is measured, without make and set-up")
        command, setup = [ANSIBLE_PLAYBOOK, "playbooks/site.yml", "-e", words], ["true"]
    times = work / "task-times.json"
    recorded = {
        "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT / 'plugins' / 'callback'}:{HERE / 'callback'}",
        "ANSIBLE_CALLBACKS_ENABLED": "dastern_report,task_times",
        "DASTERN_TASK_TIMES": str(times),
    }
    say(f"`make up` with migrations and seed to do: {run(command):.2f} s")
    floors, totals, setups = [], [], []
    parts: dict[str, list[float]] = {}
    for _ in range(1 if options.quick else 5):
        floors.append(run(noop))
        setups.append(run(setup))
        began = time.time()
        totals.append(run(command, recorded))
        for name, seconds in spans(json.loads(times.read_text("utf-8")), began, time.time()):
            parts.setdefault(name, []).append(seconds)
        say(f"(b) {floors[-1]:.2f} s, `make setup` {setups[-1]:.2f} s, `make up` {totals[-1]:.2f} s")
    total = statistics.median(totals)
    medians = {name: statistics.median(values) for name, values in parts.items()}
    medians["`make setup`"] = statistics.median(setups)
    medians[STARTS] -= medians["`make setup`"]
    large = {name: seconds for name, seconds in medians.items() if seconds >= 0.02 * total}
    rest = [seconds for name, seconds in medians.items() if name not in large]
    lines = [
        "## The second `make up`, with nothing to do\n",
        TARGETS_HEAD,
        row("second `make up` ≤ 6 × (b)", total, statistics.median(floors), 6.0),
        "\n| where the time goes | seconds | share |",
        "|---" * 3 + "|",
        *(f"| {name} | {seconds:.2f} | {seconds / total:.0%} |" for name, seconds in large.items()),
        f"| {len(rest)} others, each below 2 % | {sum(rest):.2f} | {sum(rest) / total:.0%} |",
    ]
    return "\n".join(lines) + "\n"


def spans(events: list[tuple[float, str]], began: float, ended: float) -> list[tuple[str, float]]:
    """From the moments at which things began, how long each took; names that occur twice get a number."""
    moments = [(began, STARTS), *events, (ended, "")]
    seen: dict[str, int] = {}
    found = []
    for (start, name), (end, _) in pairwise(moments):
        words = {"playbook": "before the first play", "end": "Ansible ends"}.get(name, name.replace("|", "\\|"))
        seen[words] = seen.get(words, 0) + 1
        found.append((words if seen[words] == 1 else f"{words} ({seen[words]})", end - start))
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as problem:
        sys.exit(f"The benchmark stopped: {problem}")
