"""What a million synthetic dose events cost, beside other ways to write the same rows, in one run on one machine.

Each round measures every contestant once, in an order that rotates, each in a migrated database of its own that already
holds the patients, prescriptions and medications; only dose_events are written in the measured time.

    python benchmarks/seed_volume.py                      # a container of its own, removed at the end; about 10 minutes
    python benchmarks/seed_volume.py --patients 200 --rounds 1        # smoke run
    python benchmarks/seed_volume.py --url postgresql://user:pw@host/db   # a server that is there; needs CREATEDB

Contestants:
- generated: the module's way. INSERT ... SELECT in the server; secondary indexes and foreign keys made afterwards.
- generated, indexes kept: the same statement with indexes and foreign keys in place.
- COPY: the same rows from the client with COPY FROM STDIN, indexes and foreign keys in place. Rows are rendered beforehand.
- executemany: psycopg's pipelined INSERTs, in one transaction, of the first --sample rows; extrapolated.
- row by row: one INSERT per round trip, in one transaction, of the first --sample rows; extrapolated.

Extrapolated figures multiply the time of the sample by all/sample. That flatters them: the indexes of a small table stay
in memory. They are marked with a tilde.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ansible.module_utils
import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))

from ansible.module_utils.dastern.seeds import volume  # noqa: E402

SCHEMA = ROOT / "files" / "sql" / "migrations" / "20260208074559_init" / "migration.sql"
IMAGE, CONTAINER, PORT = "das-tern/postgres:17", "dastern-bench-seed", 25510
TUNING = {
    "max_connections": "20",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "64MB",
    "checkpoint_completion_target": "0.9",
    "wal_buffers": "16MB",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "timezone": "Asia/Phnom_Penh",
}
PARENTS, FULL = "bench_seed_parents", "bench_seed_full"
DAYS = 90


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """A URL to connect to."""
    if url:
        yield url
        return
    password = secrets.token_hex(16)
    subprocess.run(["docker", "rm", "-f", "-v", CONTAINER], capture_output=True)
    settings = [word for name, value in TUNING.items() for word in ("-c", f"{name}={value}")]
    command = ["docker", "run", "-d", "--name", CONTAINER, "-p", f"127.0.0.1:{PORT}:5432", "--shm-size", "256m"]
    command += ["-e", "POSTGRES_PASSWORD", IMAGE, "postgres", *settings]
    subprocess.run(
        command, check=True, capture_output=True, env={"POSTGRES_PASSWORD": password, "PATH": "/usr/bin:/bin"}
    )
    try:
        found = f"postgresql://postgres:{password}@127.0.0.1:{PORT}/postgres"
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(found).close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)
        yield found
    finally:
        subprocess.run(["docker", "rm", "-f", "-v", CONTAINER], capture_output=True)


class Bench:
    """The databases of one run of the benchmark."""

    def __init__(self, url: str, patients: int, sample: int) -> None:
        self.url, self.patients = url, patients
        self.events = patients * volume.events_per_patient(DAYS)
        self.sample = min(sample, self.events)
        self.rows: list[tuple[Any, ...]] = []
        self.copy = b""

    def connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, dbname=database, autocommit=True)

    def create(self, name: str, template: str = "template0") -> None:
        with psycopg.connect(self.url, autocommit=True) as home:
            drop(home, name)
            # file_copy ends with a checkpoint, so everybody begins with the same backlog.
            home.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )

    def prepare(self) -> None:
        """A database with the parents only, and the rows that all contestants write."""
        self.create(FULL)
        with self.connect(FULL) as connection:
            connection.execute(SCHEMA.read_bytes())
            fill(connection, self.patients)
            text = "COPY (SELECT * FROM dose_events ORDER BY id) TO STDOUT"
            with connection.cursor() as cursor, cursor.copy(text) as copy:
                self.copy = b"".join(bytes(block) for block in copy)
            query = sql.SQL("SELECT * FROM dose_events ORDER BY id LIMIT {}").format(sql.Literal(self.sample))
            self.rows = connection.execute(query).fetchall()
            connection.execute("TRUNCATE dose_events")
        self.create(PARENTS, FULL)

    def measure(self, write: Callable[[psycopg.Connection[Any]], float | None]) -> float:
        """Seconds that `write` takes in a fresh database with the parents in it."""
        self.create("bench_seed", PARENTS)
        with self.connect("bench_seed") as connection:
            began = time.perf_counter()
            seconds = write(connection)
            return time.perf_counter() - began if seconds is None else seconds

    def generated(self, rebuild: bool) -> Callable[[psycopg.Connection[Any]], float | None]:
        def write(connection: psycopg.Connection[Any]) -> None:
            plan = volume.plan(connection, "public", self.patients, DAYS)
            # The parents are there, so only the dose events are asked for.
            wanted = volume.VolumePlan(self.patients, DAYS, self.patients, f"{{[1,{self.patients + 1})}}", 0, "{}")
            assert plan.patients == 0
            with connection.transaction():
                volume.fill_events(connection, "public", wanted, rebuild=rebuild)

        return write

    def copied(self, connection: psycopg.Connection[Any]) -> None:
        with (
            connection.transaction(),
            connection.cursor() as cursor,
            cursor.copy("COPY dose_events FROM STDIN") as copy,
        ):
            copy.write(self.copy)

    def executed(self, many: bool) -> Callable[[psycopg.Connection[Any]], float | None]:
        def write(connection: psycopg.Connection[Any]) -> float:
            places = sql.SQL(", ").join([sql.Placeholder()] * len(self.rows[0]))
            insert = sql.SQL("INSERT INTO dose_events VALUES ({})").format(places)
            began = time.perf_counter()
            with connection.transaction(), connection.cursor() as cursor:
                if many:
                    cursor.executemany(insert, self.rows)
                else:
                    for row in self.rows:
                        cursor.execute(insert, row)
            return (time.perf_counter() - began) * self.events / self.sample

        return write


def drop(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def fill(connection: psycopg.Connection[Any], patients: int) -> None:
    with connection.transaction():
        volume.fill(connection, "public", volume.plan(connection, "public", patients, DAYS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a server that is there; the role needs CREATEDB")
    parser.add_argument("--patients", type=int, default=1761, help="1761 make a million dose events")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=20_000, help="rows of the row-by-row contestants")
    options = parser.parse_args()
    with server(options.url) as url:
        bench = Bench(url, options.patients, options.sample)
        bench.prepare()
        contestants: dict[str, Callable[[psycopg.Connection[Any]], float | None]] = {
            "generated (the module)": bench.generated(rebuild=True),
            "generated, indexes kept": bench.generated(rebuild=False),
            "COPY from the client": bench.copied,
            "executemany": bench.executed(many=True),
            "row by row": bench.executed(many=False),
        }
        times: dict[str, list[float]] = {name: [] for name in contestants}
        names = list(contestants)
        for number in range(options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                times[name].append(bench.measure(contestants[name]))
                print(f"round {number + 1}: {name} {times[name][-1]:.2f} s", file=sys.stderr)
        with psycopg.connect(url, autocommit=True) as home:
            for name in ("bench_seed", PARENTS, FULL):
                drop(home, name)
    floor = statistics.median(times[names[0]])
    print(
        f"\n{bench.events} dose events, medians of {options.rounds} rounds (~ extrapolated from {bench.sample} rows)\n"
    )
    print(f"| {'way':<26} | {'seconds':>9} | {'ratio':>7} | {'rows/s':>8} |")
    print(f"| {'-' * 26} | {'-' * 8}: | {'-' * 6}: | {'-' * 7}: |")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        tilde = "~" if name in ("executemany", "row by row") else ""
        print(f"| {name:<26} | {tilde + f'{median:.2f}':>9} | {median / floor:>7.2f} | {bench.events / median:>8.0f} |")


if __name__ == "__main__":
    main()
