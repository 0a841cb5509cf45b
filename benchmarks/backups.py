"""What backups and restores cost, beside the flow that users have, the best peers and the limits, in one run on one machine.

    python benchmarks/backups.py                              # an instance of its own with about 2 GB; about 25 minutes
    python benchmarks/backups.py --patients 300 --rounds 1    # smoke run
    python benchmarks/backups.py --write                      # ... into benchmarks/results/backups.md

Everybody is measured once per round, in an order that rotates; tables show medians. PostgreSQL's programs run in the server's
container and write into its /backups/transfer; `cat` and `cp` read the same files on the host. Ours is the function that the playbooks
call, with everything in it: census, archived log, verification, record, retention; for a restore preflight, checks and swap.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import ansible.module_utils
import psycopg
from common import ROOT, TARGETS_HEAD, Failed, in_turn, keep, playbook, row, run, say

ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))

from ansible.module_utils.dastern.backups import kept, logical, pgbackrest, physical  # noqa: E402
from ansible.module_utils.dastern.backups import run as backup_run  # noqa: E402
from ansible.module_utils.dastern.backups.records import Place  # noqa: E402
from ansible.module_utils.dastern.catalogue import census  # noqa: E402
from ansible.module_utils.dastern.common.errors import DasTernError  # noqa: E402
from ansible.module_utils.dastern.restores import plan as restore_plan  # noqa: E402
from ansible.module_utils.dastern.restores import request, restored_server, swap  # noqa: E402
from ansible.module_utils.dastern.restores import run as restore_run  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "backups.md"
NAME, DATABASE = "dastern-bench-backups", "dastern"
BACKUPS, CONFIG = Path(f"/var/backups/das-tern/{NAME}"), Path(f"/etc/das-tern/{NAME}")
WORK = BACKUPS / "transfer" / "bench"
INTERVAL = 0.01
"""Seconds from one transaction of the outside client to the next."""
SHARE = 100
"""One of so many rows is changed before an incremental backup."""
PAGE = 8192
FILLING = {"fsync": "off", "wal_level": "minimal", "max_wal_senders": 0, "max_wal_size": "8GB"}

# What the volume seed makes is in the order of patients, with consecutive ids that compress to nothing. The application's ids
# are random, and it writes the rows of all patients as time goes by.
PRODUCTION = r"""
BEGIN;
SET LOCAL session_replication_role = replica;
SET LOCAL maintenance_work_mem = '512MB';
SET LOCAL work_mem = '256MB';
CREATE TEMP TABLE ids ON COMMIT DROP AS
  SELECT id AS old, md5(id::text)::uuid AS new FROM (SELECT id FROM users UNION ALL SELECT id FROM prescriptions
    UNION ALL SELECT id FROM medications UNION ALL SELECT id FROM subscriptions) AS every
  WHERE id::text LIKE 'da57e400-%';
ANALYZE ids;
UPDATE users SET id = new FROM ids WHERE id = old;
UPDATE subscriptions AS t SET id = a.new, "userId" = b.new FROM ids AS a, ids AS b WHERE t.id = a.old AND "userId" = b.old;
UPDATE prescriptions AS t SET id = a.new, "patientId" = b.new, "doctorId" = c.new FROM ids AS a, ids AS b, ids AS c
  WHERE t.id = a.old AND "patientId" = b.old AND "doctorId" = c.old;
UPDATE medications AS t SET id = a.new, "prescriptionId" = b.new FROM ids AS a, ids AS b
  WHERE t.id = a.old AND "prescriptionId" = b.old;
CREATE TEMP TABLE events ON COMMIT DROP AS
  SELECT CASE WHEN b.new IS NULL THEN id ELSE md5(id::text)::uuid END AS id, coalesce(a.new, "prescriptionId") AS "prescriptionId",
    coalesce(b.new, "medicationId") AS "medicationId", coalesce(c.new, "patientId") AS "patientId", "scheduledTime", "timePeriod",
    "reminderTime", status, "takenAt", "skipReason", "wasOffline", "createdAt", "updatedAt"
  FROM dose_events LEFT JOIN ids AS a ON "prescriptionId" = a.old LEFT JOIN ids AS b ON "medicationId" = b.old
    LEFT JOIN ids AS c ON "patientId" = c.old;
SELECT format('DROP INDEX %s', indexrelid::regclass) AS drop_it, pg_get_indexdef(indexrelid) AS make_it
  INTO TEMP indexes FROM pg_index WHERE indrelid = 'dose_events'::regclass AND NOT indisprimary;
ALTER TABLE dose_events DROP CONSTRAINT dose_events_pkey;
SELECT drop_it FROM indexes \gexec
TRUNCATE dose_events;
INSERT INTO dose_events SELECT * FROM events ORDER BY "scheduledTime", id;
ALTER TABLE dose_events ADD CONSTRAINT dose_events_pkey PRIMARY KEY (id);
SELECT make_it FROM indexes \gexec
COMMIT;
VACUUM (FULL, ANALYZE) users;
VACUUM (FULL, ANALYZE) subscriptions;
VACUUM (FULL, ANALYZE) prescriptions;
VACUUM (FULL, ANALYZE) medications;
VACUUM (FREEZE, ANALYZE);
CHECKPOINT;
"""


QUOTAS = {"ours, full, backup_cpus 0.5": 0.5, "ours, full, backup_cpus 0.3": 0.3}
ROOMY = "scattered, with room"
BASES = {"recent": "ours, full", "scattered": "ours, full", ROOMY: "ours, full, with room"}
"""By which rows are changed: the full backup that the incremental ones are compared with."""
ROOM = """
ALTER TABLE dose_events SET (fillfactor = 90);
VACUUM (FULL, FREEZE, ANALYZE) dose_events;
CHECKPOINT;
"""


def main() -> int:
    options = arguments()
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with instance(options) as bench:
        bench.restores_of_peers()
        bench.archiving()
        bench.taking()
        bench.application()
        bench.incremental()
        bench.restores_of_ours()
        text = report(bench)
        print(text, flush=True)
        if options.write:
            keep(RESULTS, text)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--patients", type=int, default=14_000, help="of the volume seed; 14000 (the default) make 2 GB"
    )
    parser.add_argument("--rounds", type=int, default=2, help="default: 2; `psql <` and `pg_restore` have one")
    parser.add_argument("--port", type=int, default=25520, help="of the instance (default: 25520)")
    parser.add_argument("--write", action="store_true", help="write the result to benchmarks/results/backups.md")
    parser.add_argument("--keep", action="store_true", help=f"leave the instance {NAME} running afterwards")
    return parser.parse_args()


# ---------------------------------------------------------------------------------------------- where it runs


@contextmanager
def instance(options: argparse.Namespace) -> Iterator[Bench]:
    """An instance made for this run, filled, and removed afterwards with its backups."""
    # What a quota costs and gives is measured beside the application, and nowhere else.
    variables = {"postgres_container_name": NAME, "postgres_port": options.port, "backup_cpus": 0}
    try:
        say(f"Providing the instance {NAME} with {options.patients} patients")
        provided = {**variables, "postgres_wal_archive": False}
        playbook("playbooks/site.yml", {**provided, "postgres_settings_extra": FILLING})
        playbook("playbooks/seed.yml", {**provided, "seed_scale": options.patients})
        say("Making its rows like production's")
        inside("psql -XqAtU postgres -v ON_ERROR_STOP=1 -d dastern", PRODUCTION)
        playbook("playbooks/provision.yml", provided)
        yield Bench(options.rounds, options.port, variables)
    finally:
        if not options.keep:
            say(f"Removing the instance {NAME}")
            try:
                remove = {"postgres_remove_volume": True, "postgres_remove_volume_confirm": f"{NAME}-data"}
                playbook("playbooks/remove.yml", {**variables, **remove})
                for folder in (BACKUPS, CONFIG):  # with its backups an instance leaves what reads them
                    shutil.rmtree(folder, ignore_errors=True)
            except Failed as error:
                say(f"It is still there: {error}")


def inside(script: str, stdin: str = "") -> str:
    """Run a script of the shell in the server's container."""
    command = ["docker", "exec", "-i", "-u", "postgres", NAME, "bash", "-c", f"set -e -o pipefail; {script}"]
    done = subprocess.run(command, capture_output=True, text=True, input=stdin)
    if done.returncode:
        raise Failed(f"{script}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def host(script: str) -> None:
    run(["bash", "-c", f"set -e -o pipefail; {script}"])


def size(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


# ---------------------------------------------------------------------------------------------- the measurement


class Bench:
    """The filled instance, and the figures of every contestant by name."""

    def __init__(self, rounds: int, port: int, variables: dict[str, Any]) -> None:
        self.rounds, self.port, self.variables = rounds, port, variables
        self.figures: dict[str, list[float]] = {}
        self.bytes: dict[str, list[int]] = {}
        self.parts: dict[str, dict[str, list[float]]] = {}
        """Of each of ours: the seconds of its parts."""
        self.latencies: dict[str, list[float]] = {}
        """p99 in milliseconds."""
        self.worst: dict[str, float] = {}
        inside("mkdir -p /backups/transfer/bench")
        place = {"endpoint": "", "container": NAME, "database": DATABASE, "backup_dir": str(BACKUPS)}
        self.place = Place(place)
        spec = {**backup_run.ARGUMENT_SPEC, **request.ARGUMENT_SPEC}
        self.params = {
            **{name: option.get("default") for name, option in spec.items()}, **place, "keep": {}, "volume": f"{NAME}-data",
            "config_dir": str(CONFIG), "confirm": DATABASE,
        }  # fmt: skip
        volume = self.place.containers.inspect("volume", f"{NAME}-data")
        assert volume is not None
        self.pgdata = Path(volume["Mountpoint"]) / "pgdata"
        with self.connect() as connection:
            found = connection.execute(
                "SELECT count(*), pg_database_size(current_database()) FROM dose_events"
            ).fetchone()
        assert found is not None
        self.events, self.size = found
        say(f"{self.events} dose events, {self.size / 1e6:.0f} MB")
        self.watch()

    def connect(self) -> psycopg.Connection[Any]:
        password = (CONFIG / "app_password").read_text("utf-8").strip()
        return psycopg.connect(
            host="127.0.0.1", port=self.port, dbname=DATABASE, user="dastern_user", password=password, autocommit=True
        )

    def measure(self, name: str, do: Callable[[], Any]) -> None:
        self.parts[""] = {}
        began = time.perf_counter()
        do()
        seconds = time.perf_counter() - began
        self.figures.setdefault(name, []).append(seconds)
        parts = self.parts.pop("")
        for part, taken in parts.items():
            self.parts.setdefault(name, {}).setdefault(part, []).append(sum(taken))
        told = ", ".join(f"{part} {sum(taken):.2f}" for part, taken in parts.items())
        say(f"{name:<40} {seconds:7.2f} s {f'({told})' if told else ''}")

    def median(self, name: str) -> float:
        return statistics.median(self.figures[name])

    def stored(self, name: str) -> float:
        return statistics.median(self.bytes[name])

    def watch(self) -> None:
        """Have the parts of ours timed."""
        watched: list[tuple[Any, Callable[..., Any], str]] = [
            (pgbackrest.PgBackRest, pgbackrest.PgBackRest.run, "pgbackrest "),
            (census, census.count_at, "rows counted at a restore point"),
            (physical, physical.archive_all, "the log archived"),
            (logical, logical._dump, "pg_dump and census"),
            (logical, logical._synced, "files synced and hashed"),
            (logical, logical._misread, "all data decoded"),
            (restore_run, restore_plan.preflight, "preflight, which counts the live rows"),
            (restored_server.RestoredServer, restored_server.RestoredServer.fill, "files back"),
            (restored_server.RestoredServer, restored_server.RestoredServer.serve, "recovered, the server answers"),
            (restore_run, request.checked, "rows counted and compared"),
            (restored_server.RestoredServer, restored_server.RestoredServer.stop, "stopped"),
            (restore_run, swap.swap_folders, "swap"),
        ]
        for owner, function, words in watched:
            setattr(owner, function.__name__, self.timed(function, words))

    def timed(self, function: Callable[..., Any], words: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if (parts := self.parts.get("")) is not None:
                    part = f"{words}{args[1]}" if words.endswith(" ") else words
                    parts.setdefault(part, []).append(time.perf_counter() - began)

        return wrapped

    # -------------------------------------------------------------------------------------- peers' restores

    def restores_of_peers(self) -> None:
        """On a server that doesn't archive, as users have it; the dumps are read by nobody else."""
        inside(
            "cd /backups/transfer/bench; pg_dump -U postgres -f plain.sql dastern; pg_dump -U postgres -Fd -j2 -Z zstd:1 -f fd dastern"
        )
        commands = {
            "psql < file": "psql -XqU postgres -v ON_ERROR_STOP=1 -o /dev/null restored < /backups/transfer/bench/plain.sql",
            "pg_restore -j2": "pg_restore -U postgres -j2 -d restored /backups/transfer/bench/fd",
        }
        for name, command in commands.items():
            inside("createdb -U postgres -T template0 -S file_copy restored")
            self.measure(name, lambda command=command: inside(command))  # type: ignore[misc]
            found = inside("psql -XAtU postgres -c 'SELECT count(*) FROM dose_events' restored")
            if found != str(self.events):
                raise Failed(f"{name}: {found} dose events instead of {self.events}")
            inside("dropdb -U postgres restored")
        inside("rm -r /backups/transfer/bench/*")

    def archiving(self) -> None:
        """From now on pgBackRest's archive has the log, and PostgreSQL's own incremental backups are possible."""
        playbook(
            "playbooks/provision.yml",
            {
                **self.variables,
                "postgres_settings_extra": {"summarize_wal": "on"},
                "postgres_hba_extra": ["local replication postgres peer"],
            },
        )
        host("sync")

    # -------------------------------------------------------------------------------------- taking

    def take(self, kind: str) -> None:
        record = backup_run.take({**self.params, "backup_type": kind}, say=lambda _: None)["record"]
        if record["type"] != kind:
            raise Failed(f"a {record['type']} backup was taken instead of {kind}")
        self.bytes.setdefault(f"ours, {kind}", []).append(record["stored"])

    def taking(self) -> None:
        def writes(name: str, where: Callable[[str], Any], script: str) -> Callable[[], None]:
            def do() -> None:
                where(script)
                self.bytes.setdefault(name, []).append(size(WORK / "out"))

            return do

        to = "/backups/transfer/bench/out"
        dump = "pg_dump -U postgres"
        scripts = {
            "pg_dump, gzip": f"{dump} {DATABASE} | gzip > {to}",
            "pg_dump -Fc, zstd:1": f"{dump} -Fc -Z zstd:1 -f {to} {DATABASE}",
            "pg_dump -Fd -j2, zstd:1": f"{dump} -Fd -j2 -Z zstd:1 -f {to} {DATABASE}",
            "pg_basebackup tar, zstd:1": f"pg_basebackup -U postgres -Ft -Z client-zstd:1 -c fast -D {to}",
        }
        files = f"find {self.pgdata} -path {self.pgdata}/pg_wal -prune -o -type f -print0"
        limits = {
            "limit: cat, zstd -1": f"{files} | xargs -0 cat | zstd -q -1 > {WORK}/out",
            "limit: cp": f"cp -r {self.pgdata}/base {WORK}/out",
        }
        contestants = {
            **{name: writes(name, inside, script) for name, script in scripts.items()},
            "ours, full": lambda: self.take("full"),
            "ours, logical": lambda: self.take("logical"),
            **{name: writes(name, host, script) for name, script in limits.items()},
        }
        for number in range(self.rounds):
            for name in in_turn(list(contestants), number):
                inside("psql -XqU postgres -c CHECKPOINT")
                self.measure(name, contestants[name])
                host(f"rm -rf {WORK}/out; sync")

    # -------------------------------------------------------------------------------------- the application meanwhile

    def application(self) -> None:
        """p99 of small transactions of a client outside, while nothing, ours and pg_dump run."""
        with self.connect() as connection:
            found = connection.execute("SELECT id FROM dose_events TABLESAMPLE BERNOULLI (1) LIMIT 5000").fetchall()
        ids = [one for (one,) in found]
        seconds = min(20, 5 + self.size / 5e7)
        dump = f"timeout {seconds:.0f} pg_dump -U postgres {DATABASE} | gzip > /dev/null || test $? = 124"
        contestants: dict[str, Callable[[], Any]] = {
            "quiet": lambda: time.sleep(seconds),
            "ours, full": self.full,
            **{name: partial(self.bounded, cpus) for name, cpus in QUOTAS.items()},
            "pg_dump, gzip": lambda: inside(dump),
        }
        for number in range(self.rounds):
            for name in in_turn(list(contestants), number):
                inside("psql -XqU postgres -c CHECKPOINT")
                taken = self.latency(ids, contestants[name])
                percentile = statistics.quantiles(taken, n=100)[-1]
                self.latencies.setdefault(name, []).append(percentile)
                self.worst[name] = max([self.worst.get(name, 0), *taken])
                say(f"p99, {name:<30} {percentile:7.2f} ms of {len(taken)}; worst {max(taken):.0f} ms")

    def full(self) -> None:
        backup_run.take({**self.params, "backup_type": "full"}, say=lambda _: None)

    def bounded(self, cpus: float) -> None:
        """Take a full backup while the backup container has that many processors, as the role gives them."""
        quota = ["docker", "update", f"{NAME}-backup", "--cpu-period", "10000", "--cpu-quota"]
        run([*quota, str(int(cpus * 10_000))])
        try:
            self.full()
        finally:
            run([*quota, "-1"])

    def latency(self, ids: list[Any], meanwhile: Callable[[], Any]) -> list[float]:
        """Milliseconds of each transaction, by a client with a process of its own."""
        context = multiprocessing.get_context("fork")
        done, (here, there) = context.Event(), context.Pipe(duplex=False)
        client = context.Process(target=self.client, args=(ids, done, there))
        client.start()
        there.close()  # it is the client's: without it there is an end to what comes
        try:
            meanwhile()
        finally:
            done.set()
        taken: list[float] = here.recv()
        client.join()
        return taken

    def client(self, ids: list[Any], done: Event, there: Connection) -> None:
        taken: list[float] = []
        with self.connect() as connection:
            planned = time.perf_counter()
            while not done.is_set():
                planned += INTERVAL
                time.sleep(max(planned - time.perf_counter(), 0))
                began = time.perf_counter()
                one = ids[len(taken) * 7919 % len(ids)]
                with connection.transaction():
                    connection.execute("SELECT * FROM dose_events WHERE id = %s", (one,))
                    connection.execute('UPDATE dose_events SET "updatedAt" = now() WHERE id = %s', (one,))
                taken.append((time.perf_counter() - began) * 1000)
        there.send(taken)

    # -------------------------------------------------------------------------------------- incremental

    def incremental(self) -> None:
        """Ours and PostgreSQL's own, after one row of `SHARE` was changed; each is built upon the one before.

        The recent ones first: what is scattered gets its new versions at the end of the table, where the recent rows are.
        """
        base = "pg_basebackup -U postgres -c fast -D /backups/transfer/bench/out"
        incremental = f"{base} --incremental=/backups/transfer/bench/manifest"
        self.take("full")
        inside(base)
        for kind in BASES:
            if kind == ROOMY:
                inside("psql -XqAtU postgres -v ON_ERROR_STOP=1 -d dastern", ROOM)
                physical.archive_all(self.place)
                for _ in range(self.rounds):
                    self.measure(BASES[kind], lambda: self.take("full"))
                    self.bytes.setdefault(BASES[kind], []).append(self.bytes["ours, full"].pop())
                inside(f"rm -r /backups/transfer/bench/*; {base}")
            for number in range(self.rounds):
                # Whoever reads a changed row first notes in its page that the change was committed: the page changes again.
                inside("psql -XqAtU postgres -c 'SELECT count(*) FROM dose_events' -c CHECKPOINT dastern > /dev/null")
                self.take("incr")
                inside(
                    "mv /backups/transfer/bench/out/backup_manifest /backups/transfer/bench/manifest; rm -r /backups/transfer/bench/out; "
                    f"{incremental}; mv /backups/transfer/bench/out/backup_manifest /backups/transfer/bench/manifest; rm -r /backups/transfer/bench/out"
                )
                before = self.change(kind, number)
                changed = changed_pages(self.pgdata / "base", before)
                self.bytes.setdefault(f"{kind}: pages changed", []).append(changed)
                ours, own, zstd = (f"{kind}: {one}" for one in ("ours, incr", "pg_basebackup", "pg_basebackup, zstd:1"))
                contestants: dict[str, Callable[[], Any]] = {
                    ours: lambda: self.take("incr"),
                    zstd: lambda: inside(f"{incremental.replace('out', 'zstd')} -Ft -Z client-zstd:1"),
                    own: lambda: inside(incremental),
                }
                for name in in_turn(list(contestants), number):
                    host("sync")
                    self.measure(name, contestants[name])
                self.bytes.setdefault(ours, []).append(self.bytes["ours, incr"][-1])
                self.bytes.setdefault(own, []).append(size(WORK / "out"))
                self.bytes.setdefault(zstd, []).append(size(WORK / "zstd"))
                host(f"rm -r {WORK}/zstd; sync")
        host(f"rm -r {WORK}/*")

    def change(self, kind: str, number: int) -> int:
        """The last rows of the table, or rows all over it; gives the position in the log before."""
        with self.connect() as connection:
            row_ = connection.execute(
                "SELECT pg_current_wal_lsn() - '0/0', pg_relation_size('dose_events') / 8192"
            ).fetchone()
            assert row_ is not None
            lsn, pages = row_
            where = f"ctid >= '({pages - pages // SHARE},0)'::tid"
            if kind != "recent":  # other ones each time: those that were changed before lie together at the end
                number += self.rounds * (kind == ROOMY)
                where = f"(hashtext(id::text) & 2147483647) % {SHARE} = {number}"
            done = connection.execute(f'UPDATE dose_events SET "updatedAt" = now() WHERE {where}')  # type: ignore[arg-type]
            say(f"{done.rowcount} rows changed, {kind}")
        inside("psql -XqU postgres -c CHECKPOINT")
        # In production that was a day's work, and not the second before the backup: its log is in the archive by now.
        physical.archive_all(self.place)
        return int(lsn)

    # -------------------------------------------------------------------------------------- our restores

    def restores_of_ours(self) -> None:
        label = next(one.label for one in self.place.records() if one.type == "full")

        def cluster() -> None:
            told = restore_run.restore({**self.params, "target": label})
            self.figures.setdefault("swap", []).append(told["refused_seconds"])

        def written() -> None:
            host(f"cp -r {self.pgdata}/base {self.pgdata}/../written; sync")

        contestants = {"ours, cluster": cluster, "limit: cp, sync": written}
        for number in range(self.rounds):
            for name in in_turn(list(contestants), number):
                host("sync")
                self.measure(name, contestants[name])
                if name == "ours, cluster":
                    restore_run.restore({**self.params, "undo": True, "keep_old_hours": 0})
                    kept.expire_old(self.place)
                host(f"rm -rf {self.pgdata}/../written; sync")


def changed_pages(base: Path, since: int) -> int:
    """Bytes of the pages that were changed since a position of the log: each page begins with its own."""
    changed = 0
    for path in base.glob("*/[0-9]*"):
        content = path.read_bytes()
        for at in range(0, len(content), PAGE):
            high, low = struct.unpack_from("<II", content, at)
            changed += PAGE if (high << 32) + low > since else 0
    return changed


# ---------------------------------------------------------------------------------------------- the report


def report(bench: Bench) -> str:
    return "\n".join(
        [heading(bench), taking_table(bench), incremental_table(bench), restoring_table(bench), application_table(bench),
         parts_table(bench), targets_table(bench)]
    )  # fmt: skip


def heading(bench: Bench) -> str:
    tools = inside("pgbackrest version; pg_dump --version").splitlines()
    zstd = subprocess.run(["zstd", "-qV"], capture_output=True, text=True).stdout.strip()
    names = [
        f"{os.cpu_count()} cores",
        f"PostgreSQL {tools[1].split()[2]}",
        tools[0],
        f"zstd {zstd} on the host",
        f"Python {platform.python_version()}",
        f"psycopg {version('psycopg')}",
    ]
    ratio = bench.size / bench.stored("pg_dump, gzip")
    return f"""# Backups: what they cost

{date.today().isoformat()}; {", ".join(names)}.

{bench.events} dose events, {bench.size / 1e6:.0f} MB with their indexes. The volume seed made them; then their ids were made random
and the rows put into the order of time, as the application writes them: `pg_dump | gzip` makes 1/{ratio:.1f} of it. Every page is
full. Medians of {bench.rounds} rounds; `psql <` and `pg_restore` have one, on a server that doesn't archive its log. Ours is the
function that the playbooks call; Ansible adds its start.
"""


def table(head: str, rows: list[str]) -> str:
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows]) + "\n"


def taking_table(bench: Bench) -> str:
    gzip = bench.median("pg_dump, gzip")
    rows = [
        f"| {name} | {bench.median(name):.1f} | {gzip / bench.median(name):.1f} | {bench.stored(name) / 1e6:.0f} |"
        for name in (
            "pg_dump, gzip", "pg_dump -Fc, zstd:1", "pg_dump -Fd -j2, zstd:1", "ours, logical", "pg_basebackup tar, zstd:1",
            "ours, full", "limit: cat, zstd -1", "limit: cp",
        )
    ]  # fmt: skip
    return table("| taking | seconds | × faster than `pg_dump`, gzip | MB |", rows)


def incremental_table(bench: Bench) -> str:
    rows = []
    for kind, base in BASES.items():
        full, stored = bench.median(base), bench.stored(base)
        changed = bench.stored(f"{kind}: pages changed")
        rows.append(
            f"| {kind}: pages that were changed | | | {changed / 1e6:.0f} | {changed / bench.size:.0%} of the database |"
        )
        for name in ("ours, incr", "pg_basebackup", "pg_basebackup, zstd:1"):
            seconds, size_ = bench.median(f"{kind}: {name}"), bench.stored(f"{kind}: {name}")
            ours = name.startswith("ours")
            rows.append(
                f"| {kind}: {name if ours else name.replace('backup', 'backup --incremental')} | {seconds:.1f} | "
                f"{f'{seconds / full:.2f}' if ours else ''} | {size_ / 1e6:.0f} | {f'{size_ / stored:.2f} of ours' if ours else ''} |"
            )
    words = (
        "\nAn update writes a new version of the row and, where its page is full, new entries into all indexes; those on random ids "
        "lie anywhere. So far more pages are changed than rows, and no tool that works by pages stores less than those; the smallest "
        "block of pgBackRest is a page. With room: after `ALTER TABLE dose_events SET (fillfactor = 90)` and a `VACUUM FULL` the new "
        "version lies beside the old one, and no index is touched unless one of its columns changes.\n"
    )
    return (
        table(
            f"| after 1/{SHARE} of the rows was changed | seconds | × ours, full | MB | share of the full one |", rows
        )
        + words
    )


def restoring_table(bench: Bench) -> str:
    psql = bench.median("psql < file")
    figures = {
        "`psql < file`": psql,
        "`pg_restore -j2`": bench.median("pg_restore -j2"),
        "ours, cluster: until the server answers": serving(bench),
        "ours, cluster: with preflight, comparison and swap": bench.median("ours, cluster"),
        "limit: the same bytes written, `sync`": bench.median("limit: cp, sync"),
    }
    rows = [f"| {words} | {seconds:.1f} | {psql / seconds:.1f} |" for words, seconds in figures.items()]
    rows.append(f"| ours: connections refused in the swap | {bench.median('swap'):.2f} | |")
    return table("| restoring | seconds | × faster than `psql <` |", rows)


def serving(bench: Bench) -> float:
    parts = bench.parts["ours, cluster"]
    return statistics.median(parts["files back"]) + statistics.median(parts["recovered, the server answers"])


def application_table(bench: Bench) -> str:
    quiet = statistics.median(bench.latencies["quiet"])
    rows = [
        f"| {name} | {statistics.median(taken):.1f} | {statistics.median(taken) / quiet:.2f} | {bench.worst[name]:.0f} |"
        for name, taken in bench.latencies.items()
    ]
    return table("| a client's small transactions, 100 a second | p99, ms | × quiet | slowest, ms |", rows)


def copied(bench: Bench, name: str) -> float:
    """Seconds of one of ours without its proof, as the peers' have none."""
    part = "pg_dump and census" if name.endswith("logical") else "pgbackrest backup"
    return statistics.median(bench.parts[name][part])


def parts_table(bench: Bench) -> str:
    rows = []
    for name, parts in bench.parts.items():
        found = {part: statistics.median(taken) for part, taken in parts.items()}
        told = ", ".join(f"{part} {seconds:.1f}" for part, seconds in found.items() if seconds >= 0.05)
        if told:
            rows.append(f"| {name} | {bench.median(name):.1f} | {told} |")
    return table("| where the time goes | seconds | of these |", rows)


def targets_table(bench: Bench) -> str:
    gzip, cat = bench.median("pg_dump, gzip"), bench.median("limit: cat, zstd -1")
    quiet = statistics.median(bench.latencies["quiet"])
    rows = []
    for which, seconds in (("copied", partial(copied, bench)), ("with its proof", bench.median)):
        full = seconds("ours, full")
        rows += [
            row(f"full, {which}: 6 × faster than `pg_dump`, gzip (s)", full, gzip, 1 / 6),
            row(f"full, {which}: ≤ 1.5 × `cat`, `zstd -1` (s)", full, cat, 1.5),
            row(f"logical, {which}: 3.5 × faster than `pg_dump`, gzip (s)", seconds("ours, logical"), gzip, 1 / 3.5),
            row(f"incremental, recent rows, {which}: ≤ 0.4 × full (s)", seconds("recent: ours, incr"), full, 0.4),
            row(f"incremental, scattered rows, {which}: ≤ 1 × full (s)", seconds("scattered: ours, incr"), full, 1),
        ]
    rows += [
        *(
            row(
                f"incremental, {kind} ≤ 0.35 × full (MB)",
                bench.stored(f"{kind}: ours, incr") / 1e6,
                bench.stored(base) / 1e6,
                0.35,
            )
            for kind, base in BASES.items()
            if kind != "recent"
        ),
        row("restored and serving: 12 × faster than `psql <` (s)", serving(bench), bench.median("psql < file"), 1 / 12),
        row("restored and serving ≤ 2 × writing the bytes (s)", serving(bench), bench.median("limit: cp, sync"), 2),
        *(
            row(f"p99 during {name} ≤ 2 × quiet (ms)", statistics.median(bench.latencies[name]), quiet, 2)
            for name in ("ours, full", *QUOTAS)
        ),
        row("connections refused in the swap ≤ 2 s", bench.median("swap"), 1, 2),
    ]
    return "\n".join([TARGETS_HEAD, *rows]) + "\n"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, DasTernError) as problem:
        sys.exit(f"The benchmark stopped: {problem}")
