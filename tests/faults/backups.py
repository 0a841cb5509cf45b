#!/usr/bin/env python3
"""Backups and restores, each hit at a random moment by a kill -9; also round trips, and loss under load.

Usage: backups.py [--runs N] [--round-trips N] [--loss N] [--zero-loss] [--seed S] [--kinds play,pgbackrest,...]

The kinds of fault, each a SIGKILL: `play` of the run itself (the function in a process of its own; for every tenth
`ansible-playbook` and everything below it), `pgbackrest` and `pg_dump` (pg_restore, too) of these programs in the
containers, `container` of the server's, `helper` of the one beside it that restores, `engine` of a Docker Engine of the
campaign's own. What is hit: full, incremental and logical backups, restores of the cluster, of the database and into a copy,
and their undoing.

After each: no backup is shown as good that can't be verified, the live database serves with all its rows (after a restore:
wholly the old or wholly the restored ones), the next backup works, and nothing is left lying about.

`--round-trips`: a restore and its undoing, after each of which catalogue, census and rows are compared. `--loss`: an outside
client logs what was acknowledged, container and data volume are destroyed, the newest state is restored: what is lost must
be younger than `archive_timeout`; with `--zero-loss` it must be nothing. Ends with 1 if any end state is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ansible.module_utils

if __name__ == "__main__":  # as tests/conftest.py does
    TESTS = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(TESTS / "integration"), str(TESTS)]
    ansible.module_utils.__path__.append(str(TESTS.parent / "plugins" / "module_utils"))

import psycopg
from ansible.module_utils.dastern.backups import kept, retention
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups.kept import State
from ansible.module_utils.dastern.backups.records import Place, now
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores import request
from ansible.module_utils.dastern.restores.drill import drill
from ansible.module_utils.dastern.restores.run import restore
from catalogue import catalogue
from conftest import IMAGE, Instance, descendants, docker
from faults.campaign import FORK, Run, answers, command_line, kill, made, own_engine, provision
from faults.engine import Engine, wait_until
from migrating import Database

NAME = "dastern-faults-backups"
BACKUPS = ("full", "incr", "logical")
RESTORES = ("cluster", "database", "into", "undo")
WORKS = {
    "play": (*BACKUPS, *RESTORES),
    "pgbackrest": ("full", "incr", "cluster", "database"),
    "pg_dump": ("full", "logical", "database", "into"),
    "container": (*BACKUPS, *RESTORES),
    "helper": RESTORES,
    "engine": (*BACKUPS, *RESTORES),
}
"""By kind of fault, what it can hit."""
PROGRAMS = {"pgbackrest": ("pgbackrest",), "pg_dump": ("pg_dump", "pg_restore")}
KEEP = {kind: {"count": 1, "days": 0} for kind in retention.KEEP}
ARCHIVE_TIMEOUT = 10
ARCHIVER = 5.0
"""Seconds that the archiver may take from the end of a segment's time until it is in the repository."""
PLAYBOOK = 6.0
"""Seconds by which a playbook takes longer than its function."""
EARLY = 0.6
"""The part of a work after which its programs and helpers have done their share."""
COPY = "a_copy"
_ROWS = """
CREATE TYPE "State" AS ENUM ('TAKEN', 'MISSED');
CREATE TABLE patient (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE dose (id serial PRIMARY KEY, patient int NOT NULL REFERENCES patient, state "State" NOT NULL, note text);
CREATE TABLE journal (at timestamptz NOT NULL DEFAULT now());
CREATE TABLE load (n int PRIMARY KEY);
COMMENT ON TABLE dose IS 'ថ្នាំ';
INSERT INTO patient SELECT i, 'អ្នកជំងឺ ' || i FROM generate_series(1, 500) AS i;
INSERT INTO dose (patient, state, note) SELECT 1 + i % 500, 'TAKEN', md5(i::text) FROM generate_series(1, 30000) AS i;
CREATE INDEX ON dose (patient, state);
GRANT SELECT ON dose TO dastern_readonly;
"""
_SESSIONS = """
SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'das-tern%' OR application_name LIKE 'pgBackRest%'
"""


@dataclass
class Result:
    """What came of one run and its fault."""

    work: str
    kind: str
    faults: int = 0
    hits: int = 0
    """Faults that the run didn't survive."""
    wrong: list[str] = field(default_factory=list)


class Live:
    """The live server, its backups, and what each of them has to bring back."""

    def __init__(self, instance: Instance, folder: Path, engine: Engine | None = None) -> None:
        self.instance, self.folder, self.engine = instance, folder, engine
        self.database = Database(instance, instance.database, folder)
        self.own = {
            "container": instance.container, "database": instance.database, "volume": f"{instance.container}-data",
            "image": IMAGE, "config_dir": str(instance.config_dir), "wait": 120, "nice": 0,
            "backup_dir": instance.variables["postgres_backup_dir"],
        }  # fmt: skip
        self.place = Place({**self.own, "endpoint": ""})
        self.states: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        """How long each work takes that nobody disturbs."""
        self._restores = 0

    def fill(self) -> None:
        """Rows, and a backup of each kind."""
        self.instance.sql(f"SET ROLE dastern_user;{_ROWS}")
        for kind in BACKUPS:
            self.states[str(self._timed(kind)["label"])] = self.state()

    def measure(self) -> None:
        """How long each restore takes."""
        for work in RESTORES:
            self.begun(work)
            self._timed(work)
        self.instance.sql(f"DROP DATABASE {COPY}", "postgres")

    def _timed(self, work: str) -> dict[str, Any]:
        began = time.monotonic()
        result: dict[str, Any] = self.call(work)()
        self.seconds[work] = time.monotonic() - began
        print(f"     {work:<9}{self.seconds[work]:5.1f} s", flush=True)
        return result

    def params(self, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
        defaults = {name: option.get("default") for name, option in spec.items()}
        return {**defaults, **{name: value for name, value in self.own.items() if name in spec}, **changes}

    def state(self, name: str = "") -> dict[str, Any]:
        """Catalogue, census, and the rows of every table."""
        name = name or self.database.name
        counted = census.count(self.place.superuser, name).as_dict()
        return {**self.glance(name), "census": {**counted, "database": "", "bytes": 0}}

    def glance(self, name: str = "") -> dict[str, Any]:
        """Catalogue and rows."""
        query = Database(self.instance, name or self.database.name, self.folder).query
        found = catalogue(query)
        found["others"].sort()
        found["rows"] = {
            table: query(f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} AS t")
            for table in found["columns"]
        }
        return found

    def call(self, work: str) -> Callable[[], Any]:
        """What does the work."""
        if work in BACKUPS:
            params = self.params(backup_run.ARGUMENT_SPEC, backup_type=work, keep=KEEP)
            return partial(backup_run.take, params, say=lambda words: None)
        return partial(restore, self.params(request.ARGUMENT_SPEC, confirm=self.database.name, **self._asked(work)))

    def _asked(self, work: str) -> dict[str, Any]:
        if work == "undo":
            return {"undo": True}
        what = {"what": "database" if work == "into" else work, "target": self.target(work)}
        return {**what, "into": COPY} if work == "into" else what

    def command(self, work: str) -> list[str]:
        """The playbook that does the work."""
        own = {**self.instance.variables, "backup_keep": KEEP, "backup_priority": 0}
        if work in BACKUPS:
            return command_line("backup", {**own, "backup_type": work})
        return command_line("restore", {**own, **self._asked(work), "confirm": self.database.name})

    def target(self, work: str) -> str:
        """The label of a backup that is restored; every third of a database is a logical one."""
        kind = "logical" if work in ("database", "into") and self._restores % 3 == 2 else "physical"
        return next(one.label for one in self.place.records() if one.kind == kind)

    def take(self, kind: str, holds: dict[str, Any] | None = None) -> str:
        """Take a backup of what the live database holds; its label.

        What restores replaced has been kept long enough before it: in the backup it would come back with the cluster.
        """
        with self.place.alone(60, "a test"):
            state = State(self.place)
            for one in state.kept:
                one["until"] = now()
            state.save()
            kept.expire_old(self.place)
        label = str(self.call(kind)()["label"])
        self.states[label] = holds or self.state()
        return label

    def drill(self, label: str) -> dict[str, Any]:
        return drill(self.params(request.SITE_SPEC, target=label))

    def begun(self, work: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the live database holds before a work and after it."""
        self._restores += 1
        # Each backup is older than the live database.
        self.instance.sql("INSERT INTO journal DEFAULT VALUES")
        before = self.state()
        if work == "undo":
            self.call("database" if self._restores % 2 else "cluster")()
            return self.state(), before
        return before, self.states[self.target(work)] if work in ("cluster", "database") else before

    def hit(self, kind: str, run: Run) -> bool:
        """The fault itself; whether there was something to hit."""
        match kind:
            case "play":
                victims = descendants(run.pid)
            case "pgbackrest" | "pg_dump":
                victims = self.processes(PROGRAMS[kind])
            case "container" | "helper":
                name = self.instance.container + ("-restore" if kind == "helper" else "")
                with contextlib.suppress(DasTernError):
                    self.place.containers.call("POST", f"/containers/{name}/kill?signal=KILL")
                    return True
                time.sleep(0.01)
                return False
            case _:
                assert self.engine is not None
                self.engine.kill()
                return True
        for pid in victims:
            kill(pid)
        return bool(victims)

    def processes(self, names: tuple[str, ...]) -> list[int]:
        """Processes of these programs in the server's container and in the one beside it."""
        spaces = set()
        for container in (self.instance.container, f"{self.instance.container}-restore"):
            with contextlib.suppress(OSError):
                if found := self.place.containers.inspect("container", container):
                    spaces.add(os.readlink(f"/proc/{found['State']['Pid']}/ns/pid"))
        pids = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "comm").read_text().strip() in names and os.readlink(path / "ns" / "pid") in spaces:
                    pids.append(int(path.name))
        return pids

    def strike(self, kind: str, run: Run, pause: float) -> bool:
        """Wait for the moment, and for something to hit; False if the run ended before."""
        moment = time.monotonic() + pause
        while run.running:
            if time.monotonic() >= moment and self.hit(kind, run):
                return True
            time.sleep(0.002)
        return False

    def heal(self, kind: str, work: str) -> list[str]:
        """Have the server back as an operator would; what is wrong about that."""
        if kind == "engine":
            assert self.engine is not None
            self.engine.start()
        if kind in ("engine", "container") and not State(self.place).pending:
            container = self.instance.container
            wait_until(lambda: docker("start", container, check=False).returncode == 0, "the container", 120)
            # Databases that a killed restore left are removed by the next one that has a server to ask.
            wait_until(lambda: answers(self.database), "the server", 60)
        if work in RESTORES:
            # It heals what was killed, and then does nothing else.
            try:
                restore(self.params(request.ARGUMENT_SPEC, target="2125-01-01 00:00:00+07"))
            except DasTernError as refusal:
                if "is in the future" not in refusal.message:
                    return [f"the next restore: {refusal.message}"]
        with contextlib.suppress(AssertionError):
            wait_until(lambda: answers(self.database), "the server", 60)
            return []
        return ["the live database doesn't serve"]

    def left(self, *expected: str) -> list[str]:
        """What lies about and must not; the archiver's own work passes by."""
        end = time.monotonic() + 30
        while (found := [one for one in self._left() if one not in expected]) and time.monotonic() < end:
            time.sleep(0.2)
        return found

    def _left(self) -> list[str]:
        name, place = self.instance.container, self.place
        own = (place.database, f"{name}-data", f"{name}-restore-data", str(place.folder))
        found = [
            f"container {one['Names'][0]} ({one['State']})" for one in place.containers.listed()
            if one["Names"][0] not in (f"/{name}", f"/{name}-receiver", f"/{name}-backup")
            and {mount.get(key) for mount in one["Mounts"] for key in ("Name", "Source")} & set(own)
        ]  # fmt: skip
        if place.containers.inspect("volume", f"{name}-restore-data"):
            found.append(f"volume {name}-restore-data")
        kept = {one["kept"] for one in State(place).kept}
        entries = set(docker("exec", name, "ls", "-A", "/var/lib/postgresql/data").stdout.split()) - {"pgdata"}
        databases = set(place.superuser.value("SELECT json_agg(datname) FROM pg_database"))
        entries |= databases - {place.database, "postgres", "template0", "template1"}
        found += sorted(entries - kept)
        labels = {one.label for one in place.records()}
        there = {
            "": {".lock", "repository", "records", "logical", "restore.json", "received", "transfer", "identity.json"},
            "records": {f"{label}.json" for label in labels},
            "logical": labels,
            "repository/backup/dastern": {*labels, "backup.info", "backup.info.copy", "backup.history", "latest"},
        }
        for folder, names in there.items():
            found += sorted({path.name for path in (place.folder / folder).glob("*")} - names)
        found += [str(path) for path in place.folder.rglob("*.tmp")]
        found += [f"process {pid}" for pid in self.processes(("pg_dump", "pg_restore", "pgbackrest"))]
        return found + [f"session {one}" for (one,) in self.database.query(_SESSIONS)]

    def checked(self) -> list[str]:
        """Whether what is shown as good can be verified, and is a backup."""
        params = self.params(backup_run.VERIFY_SPEC)
        shown = {one["label"] for one in backup_run.listed(params)["backups"] if one["good"] and not one["missing"]}
        verified = backup_run.verify(params, say=lambda words: None)
        right = {label for label, check in verified["checks"].items() if check["ok"]}
        wrong = [f"{label} is shown as good, and isn't right" for label in sorted(shown - right)]
        wrong += [f"{label} is right, and isn't shown so" for label in sorted(right - shown)]
        return [*wrong, verified["msg"]] if "failed" in verified else wrong


def disturbed(live: Live, work: str, kind: str, share: float, *, playbook: bool = False) -> Result:
    """Do a work, with a fault after `share` of the time that it takes, and look at what came of it."""
    result = Result(work, kind)
    before, after = live.begun(work)
    known = {one.label for one in live.place.records()}
    pause = share * (live.seconds[work] + playbook * PLAYBOOK)
    if kind in PROGRAMS or kind == "helper":
        pause *= EARLY
    run = Run(live.command(work) if playbook else live.call(work), live.folder / f"{work}.log")
    struck = live.strike(kind, run, pause)
    good = run.ended()
    result.faults, result.hits = int(struck), int(struck and not good)
    if "Traceback" in run.said or (not good and not struck):
        result.wrong.append(run.said)
    # Where neither the run nor the server was killed, the run itself leaves the live one serving.
    if struck and kind in (*PROGRAMS, "helper") and not answers(live.database):
        result.wrong.append(f"nobody is served: {run.said[-600:]}")
    try:
        result.wrong += live.heal(kind if struck else "", work)
        result.wrong += _wrong_end(live, work, good, before, after, known)
    except (DasTernError, AssertionError, psycopg.Error) as error:
        result.wrong.append(f"{error} (the run: {run.said[-600:]})")
    return result


def _wrong_end(
    live: Live, work: str, good: bool, before: dict[str, Any], after: dict[str, Any], known: set[str]
) -> list[str]:
    """What isn't as it has to be, in words."""
    found = live.state()
    allowed = [after] if good else [before, after]
    wrong = [] if found in allowed else [f"the live database: {_difference(found, before)}"]
    if work == "into":
        there = live.place.superuser.value(f"SELECT json_agg(datname) FROM pg_database WHERE datname = '{COPY}'")
        if there:
            if live.state(COPY) not in live.states.values():
                wrong.append("the copy isn't what a backup holds")
            live.instance.sql(f"DROP DATABASE {COPY} WITH (FORCE)", "postgres")
        elif good:
            wrong.append("there is no copy")
    new = [one.label for one in live.place.records() if one.label not in known]
    if good and work in BACKUPS and len(new) != 1:
        wrong.append(f"{len(new)} new backups")
    wrong += live.checked()
    for label in new:
        live.states[label] = found
        if not good:  # it was complete when the fault came
            wrong += [drilled["msg"]] if "failed" in (drilled := live.drill(label)) else []
    live.take(work if work in BACKUPS else "incr", found)
    return wrong + [f"left: {one}" for one in live.left()]


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    return "; ".join(
        f"{key}: {found[key]!s:.300} instead of {wanted[key]!s:.300}" for key in wanted if found[key] != wanted[key]
    )


def campaign(live: Live, runs: int, kinds: list[str], dice: random.Random) -> list[Result]:
    """`runs` runs, the kinds in turn; the moments of each kind are spread over all of the work."""
    plan: list[tuple[str, str, float]] = []
    for number, kind in enumerate(kinds):
        share = len(range(number, runs, len(kinds)))
        works = list(WORKS[kind])
        dice.shuffle(works)
        plan += [(works[i % len(works)], kind, (i + dice.random()) / share) for i in range(share)]
    dice.shuffle(plan)
    results = []
    for number, (work, kind, share) in enumerate(plan):
        playbook = number % 10 == 9
        result = disturbed(live, work, kind, share, playbook=playbook)
        results.append(result)
        print(
            f"{number + 1:4} {work:<9}{kind:<11}{'playbook' if playbook else 'function'} {share:4.0%}: "
            + ("hit" if result.hits else "not hit" if result.faults else "no fault")
            + "".join(f"\n     WRONG {words}" for words in result.wrong),
            flush=True,
        )
    return results


def round_trip(live: Live, what: str) -> Result:
    """A restore and its undoing."""
    result = Result("trip", what)
    before, after = live.begun(what)
    for work, wanted in ((what, after), ("undo", before)):
        live.call(work)()
        if (found := live.state()) != wanted:
            result.wrong.append(f"{work}: {_difference(found, wanted)}")
    live.take("incr")
    result.wrong += [f"left: {one}" for one in live.left()]
    return result


@dataclass
class Loss:
    """What a destroyed data volume cost."""

    acknowledged: int
    lost: int
    window: float
    """Seconds before the end, of which nothing is left."""
    seconds: float
    """From the command to a server that answers."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.lost} of {self.acknowledged} acknowledged rows lost, the last {self.window:.1f} s; restored in "
            f"{self.seconds:.1f} s" + "".join(f"\n     WRONG {words}" for words in self.wrong)
        )


def _load(database: Database, log: Path) -> None:
    """An outside client, until its server is gone."""
    with log.open("w") as file, database.connect() as connection, contextlib.suppress(psycopg.Error):
        for n in range(10**9):
            connection.execute("INSERT INTO load VALUES (%s)", (n,))
            file.write(f"{time.time()}\n")
            file.flush()


def loss(live: Live, seconds: float, *, zero_loss: bool) -> Loss:
    """Destroy container and data volume under load, and restore the newest state."""
    log, container = live.folder / "load.log", live.instance.container
    live.instance.sql("TRUNCATE load")
    live.take("incr")
    client = FORK.Process(target=_load, args=(live.database, log))
    client.start()
    time.sleep(seconds)
    live.place.containers.call("POST", f"/containers/{container}/kill?signal=KILL")
    ended = time.time()
    client.join()
    docker("rm", "-f", "-v", container, f"{container}-backup")
    docker("volume", "rm", f"{container}-data")
    began = time.monotonic()
    restore(live.params(request.ARGUMENT_SPEC, confirm=live.database.name))
    provision(live.instance.variables)
    took = time.monotonic() - began
    acknowledged = [float(line) for line in log.read_text().splitlines()]
    kept = {n for (n,) in live.database.query("SELECT n FROM load")}
    lost = [n for n in range(len(acknowledged)) if n not in kept]
    result = Loss(len(acknowledged), len(lost), ended - acknowledged[lost[0]] if lost else 0, took)
    if kept != set(range(len(kept))):
        result.wrong.append("there are gaps in what was restored")
    if result.window > (0 if zero_loss else ARCHIVE_TIMEOUT + ARCHIVER):
        result.wrong.append("that is too much")
    live.take("incr")
    return result


def table(results: list[Result]) -> str:
    """The counts by what was done and by kind of fault."""
    lines = [f"{'':<12}{'runs':>6}{'faults':>8}{'hit':>6}{'wrong':>7}"]
    kinds = sorted({result.kind for result in results})
    works = sorted({result.work for result in results})
    for name in [*works, *kinds, "all"]:
        of = [result for result in results if name in (result.work, result.kind, "all")]
        lines.append(
            f"{name:<12}{len(of):>6}{sum(r.faults for r in of):>8}{sum(r.hits for r in of):>6}"
            f"{sum(bool(r.wrong) for r in of):>7}"
        )
    return "\n".join(lines)


@contextlib.contextmanager
def server(container: str, port: int, keep: list[Any], engine: Engine | None = None, **more: Any) -> Iterator[Live]:
    """A server with an archive and a first backup of each kind."""
    folder = Path(tempfile.mkdtemp(prefix=NAME))
    variables = {"postgres_wal_archive": True, "postgres_archive_timeout": f"{ARCHIVE_TIMEOUT}s", **more}
    with made(container, port, folder, keep=keep, **variables) as instance:
        live = Live(instance, folder, engine)
        live.fill()
        yield live
    if not any(one.wrong for one in keep):
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--round-trips", type=int, default=50)
    parser.add_argument("--loss", type=int, default=5)
    parser.add_argument("--zero-loss", action="store_true")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kinds", default=",".join(WORKS))
    parser.add_argument("--container", default=NAME)
    parser.add_argument("--port", type=int, default=25260)
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    if unknown := set(kinds) - set(WORKS):
        parser.error(f"no kind of fault: {', '.join(unknown)}; there are {', '.join(WORKS)}")
    print(f"seed {given.seed}", flush=True)
    dice = random.Random(given.seed)
    more = {"backup_zero_loss": True} if given.zero_loss else {}
    quick = [kind for kind in kinds if kind != "engine"]
    # An engine takes long to come back, so that it is killed less often.
    slow = (given.runs if not quick else max(given.runs // 10, 1)) if "engine" in kinds and given.runs else 0
    done: list[Any] = []
    if given.runs > slow or given.round_trips or given.loss:
        with server(given.container, given.port, done, **more) as live:
            if given.runs > slow:
                live.measure()
                done += campaign(live, given.runs - slow, quick, dice)
            for number in range(given.round_trips):
                done.append(round_trip(live, ("cluster", "database")[number % 2]))
                words = "".join(f"\n     WRONG {one}" for one in done[-1].wrong)
                print(f"     round trip {number + 1}{words}", flush=True)
            for _ in range(given.loss):
                done.append(loss(live, dice.uniform(12, 25), zero_loss=given.zero_loss))
                print(f"     {done[-1]}", flush=True)
    if slow:
        with own_engine(NAME) as engine, server(given.container, given.port, done, engine, **more) as live:
            live.measure()
            done += campaign(live, slow, ["engine"], dice)
    print(f"\nseed {given.seed}\n{table([one for one in done if isinstance(one, Result)])}")
    print("".join(f"loss: {one}\n" for one in done if isinstance(one, Loss)), end="")
    return int(any(one.wrong for one in done))


if __name__ == "__main__":
    sys.exit(main())
