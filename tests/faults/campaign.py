#!/usr/bin/env python3
"""Runs of a chain of sixty migrations, each hit at a random moment by a kill -9; a rerun must always heal.

Usage: campaign.py [--runs N] [--seed S] [--kinds play,terminate,backend,container,engine]

The kinds of fault: `play` is SIGKILL of the run itself (the function `migrate` in a process of its own; for every tenth
`ansible-playbook migrate.yml` and everything below it), `terminate` pg_terminate_backend, `backend` SIGKILL of the
server process that migrates, after which all of the server starts anew, `container` SIGKILL of all of it, `engine`
SIGKILL of a Docker Engine of the campaign's own with its containerd. Every fourth run is hit a second time, while it
heals.

After its faults each run is repeated until it ends well. Then catalogue and rows must be those of a run that nobody
disturbed, each file must have exactly one applied row, and nothing may be left to do. What a rerun can't decide, an
interrupted file with a COMMIT of its own, is decided as an operator would: by looking at the catalogue. Ends with 1 if
any end state is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker import engine as docker_engine
from ansible.module_utils.dastern.migrations.migrate import APPLICATION, migrate
from ansible.module_utils.dastern.migrations.resolve import ARGUMENT_SPEC as RESOLVE_OPTIONS
from ansible.module_utils.dastern.migrations.resolve import resolve
from catalogue import catalogue
from conftest import IMAGE, Instance, descendants, docker, instance_variables, remove_instance
from faults.chain import OWN, chain
from faults.engine import Engine, wait_until
from migrating import ROOT, Database

KINDS = ("play", "terminate", "backend", "container", "engine")
CHAIN = chain()
NAME = "dastern-faults"
FORK = multiprocessing.get_context("fork")
_INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
_OPEN = "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NULL AND rolled_back_at IS NULL"


class Run:
    """One run in a process of its own: of a function, or of a playbook's command line."""

    def __init__(self, what: Callable[[], Any] | list[str], log: Path, *, together: Any = None) -> None:
        self.log = log
        if isinstance(what, list):
            with log.open("wb") as output:
                self._process: Any = subprocess.Popen(what, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        else:
            log.write_text("")
            self._process = FORK.Process(target=_call, args=(what, log, together))
            self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def running(self) -> bool:
        ended = self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode
        return ended is None

    def ended(self) -> bool:
        """Wait for its end; whether that was a good one."""
        wait_until(lambda: not self.running, "the run's end", 400)
        return not (self._process.returncode if isinstance(self._process, subprocess.Popen) else self._process.exitcode)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _migration(database: Database, *, playbook: bool) -> Callable[[], Any] | list[str]:
    return database.playbook() if playbook else partial(migrate, database.params())


def _call(function: Callable[[], Any], log: Path, together: Any) -> None:
    if together:
        together.wait()
    try:
        function()
    except DasTernError as error:
        log.write_text(error.message)
        sys.exit(1)
    except Exception:
        log.write_text(traceback.format_exc())
        sys.exit(1)


class Server:
    """The server whose container and processes are killed; `engine` is the one of our own that may be killed, too."""

    def __init__(self, instance: Instance, engine: Engine | None = None) -> None:
        self.instance = instance
        self.engine = engine
        self._docker = docker_engine.Engine(docker_engine.resolve(os.environ, os.path.expanduser("~"), os.getuid()))
        self._first_process = self._pid()

    def _pid(self) -> int:
        return int(docker("inspect", "-f", "{{.State.Pid}}", self.instance.container).stdout)

    def hit(self, kind: str, run: Run, watch: psycopg.Connection[Any]) -> None:
        """The fault itself, with as little as possible between its moment and it."""
        match kind:
            case "play":
                for pid in descendants(run.pid):
                    kill(pid)
            case "terminate":
                watch.execute(f"SELECT pg_terminate_backend(pid) FROM ({_BACKENDS}) AS b", (APPLICATION,))
            case "backend":
                inside = {pid for (pid,) in watch.execute(_BACKENDS, (APPLICATION,))}
                for pid in descendants(self._first_process):
                    if _pid_inside(pid) in inside:
                        kill(pid)
            case "container":
                self._docker.request("POST", f"/containers/{self.instance.container}/kill?signal=KILL").read()
            case "engine":
                assert self.engine is not None
                self.engine.kill()

    def heal(self, kind: str, database: Database) -> None:
        """Have the server back, and nothing else: what was interrupted stays as it is."""
        if kind == "engine":
            assert self.engine is not None
            self.engine.start()
        if kind in ("container", "engine"):
            wait_until(
                lambda: docker("start", self.instance.container, check=False).returncode == 0, "the container", 120
            )
        wait_until(lambda: answers(database), "the server", 180)
        self._first_process = self._pid()


_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _pid_inside(pid: int) -> int:
    """The number that a process has in its container."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def answers(database: Database) -> bool:
    try:
        return database.query("SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False


@dataclass
class Moment:
    """When a fault hits: once the ledger has `row` rows, and then `pause` seconds later."""

    row: int
    pause: float


def _reached(moment: Moment, run: Run, watch: psycopg.Connection[Any]) -> bool:
    """Wait for the moment; False if the run ended before."""
    while run.running:
        try:
            row = watch.execute("SELECT count(*) FROM _prisma_migrations WHERE rolled_back_at IS NULL").fetchone()
        except psycopg.errors.UndefinedTable:
            row = (0,)
        assert row is not None
        if row[0] >= moment.row and (moment.row or watch.execute(_BACKENDS, (APPLICATION,)).fetchone()):
            time.sleep(moment.pause)
            return True
        time.sleep(0.001)
    return False


@dataclass
class Result:
    """What came of one run and its faults."""

    kind: str
    faults: int = 0
    hits: int = 0
    """Faults after which the run had failed before its last file."""
    reruns: int = 0
    picked_up: list[str] = field(default_factory=list)
    """Interrupted files that a rerun picked up by itself."""
    resolved: list[str] = field(default_factory=list)
    """Interrupted files that were decided by name, each with the decision."""
    wrong: list[str] = field(default_factory=list)


def disturbed(
    server: Server, database: Database, kind: str, moments: list[Moment], undisturbed: dict[str, Any], *, playbook: bool
) -> Result:
    """Migrate an empty database, with a fault at each of the moments, until it is done."""
    result = Result(kind)
    waiting = list(moments)
    log = database.folder.parent / f"{database.name}.log"
    while True:
        moment = waiting.pop(0) if waiting else None
        with contextlib.closing(database.connect()) as watch:
            run = Run(_migration(database, playbook=playbook), log)
            hit = moment is not None and _reached(moment, run, watch)
            if hit:
                result.faults += 1
                server.hit(kind, run, watch)
        good = run.ended()
        if hit:
            server.heal(kind, database)
        said = run.said
        if "Traceback" in said:
            result.wrong.append(said)
        if good:
            break
        result.reruns += 1
        applied, unfinished = _ledger(database)
        if hit:
            result.hits += len(applied) < len(CHAIN)
            result.picked_up += [name for name in unfinished if name not in OWN]
        elif "P3009" in said and unfinished:
            result.resolved += [_decided(database, name, playbook=playbook) for name in unfinished]
        else:
            result.wrong.append(f"nobody disturbed this run: {said}")
        if result.reruns > 6:
            result.wrong.append("it doesn't come to its end")
            break
    if left := [name for (name,) in database.query(_INVALID) if name.startswith("pg_toast.")]:
        # The run said so: only a superuser can drop these.
        database.instance.sql(f"DROP INDEX {', '.join(left)}", database.name)
        result.resolved.append("copies of TOAST indexes dropped")
    result.wrong += wrong_end(database, undisturbed)
    return result


def _ledger(database: Database) -> tuple[list[str], list[str]]:
    """The names of the applied rows, and of the unfinished ones."""
    if database.query("SELECT to_regclass('_prisma_migrations')") == [(None,)]:
        return [], []
    applied = "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
    return [name for (name,) in database.query(applied)], [name for (name,) in database.query(_OPEN)]


def _decided(database: Database, name: str, *, playbook: bool) -> str:
    """What an operator does about an interrupted file with a COMMIT of its own."""
    own = OWN[name]
    decision, by_hand = "rolled_back", ""
    if database.query(own.committed) == [(True,)]:
        decision = "applied"
        if database.query(own.tail_there) != [(True,)]:
            database.query(own.tail)
            by_hand = " after its tail was done by hand"
    if playbook:
        command = database.playbook(playbook="playbooks/resolve_migration.yml", **{decision: name})
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    else:
        options = {option: spec.get("default") for option, spec in RESOLVE_OPTIONS.items()}
        given = {option: value for option, value in database.params().items() if option in options}
        resolve({**options, **given, "decision": decision, "name": name})
    return f"{name} {decision}{by_hand}"


def state(database: Database) -> dict[str, Any]:
    """Everything that the chain makes: the catalogue, INVALID indexes, and the rows of every table."""
    found = catalogue(database.query)
    found["others"].sort()
    found["invalid"] = database.query(_INVALID)
    found["rows"] = {table: sorted(map(str, database.query(f'SELECT * FROM "{table}"'))) for table in found["columns"]}
    return found


def wrong_end(database: Database, undisturbed: dict[str, Any]) -> list[str]:
    """What differs from a run that nobody disturbed, in words."""
    found = state(database)
    wrong = [f"{key}: {_difference(found[key], value)}" for key, value in undisturbed.items() if found[key] != value]
    applied, unfinished = _ledger(database)
    if sorted(applied) != list(CHAIN):
        wrong.append(f"applied rows: {_difference(Counter(applied), Counter(list(CHAIN)))}")
    wrong += [f"unfinished: {name}" for name in unfinished]
    if not wrong and migrate(database.params())["changed"]:
        wrong.append("a rerun found something to do")
    return wrong


def _difference(found: Any, wanted: Any) -> str:
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        return "; ".join(f"{key}: {found.get(key)!s:.300} instead of {wanted.get(key)!s:.300}" for key in keys)
    return f"{found!s:.600} instead of {wanted!s:.600}"


@contextlib.contextmanager
def fresh(instance: Instance, name: str, folder: Path) -> Iterator[Database]:
    """An empty database, and the chain in a folder."""
    database = Database(instance, name, folder / "chain")
    database.folder.mkdir(exist_ok=True)
    database.write(**{f"_{file}": text for file, text in CHAIN.items()})
    database.create()
    yield database
    database.drop()


def undisturbed_state(instance: Instance, folder: Path) -> dict[str, Any]:
    with fresh(instance, "undisturbed", folder) as database:
        migrate(database.params())
        found = state(database)
        assert not wrong_end(database, found)
        assert found["rows"]["tally"] == ["(12,)"]
        assert len(found["rows"]["journal"]) == 11
    return found


def campaign(
    server: Server, folder: Path, runs: int, kinds: list[str], dice: random.Random, undisturbed: dict[str, Any]
) -> list[Result]:
    """`runs` runs, the kinds in turn; the moments of each kind are spread over all of the chain."""
    plan: list[tuple[str, Moment]] = []
    for number, kind in enumerate(kinds):
        share = len(range(number, runs, len(kinds)))
        plan += [
            (kind, Moment(int(len(CHAIN) * (i + dice.random()) / share), dice.uniform(0, 0.02))) for i in range(share)
        ]
    dice.shuffle(plan)
    results = []
    for number, (kind, moment) in enumerate(plan):
        playbook = number % 10 == 9
        moments = [moment]
        if number % 4 == 3:
            moments.append(Moment(dice.randrange(moment.row, len(CHAIN)), dice.uniform(0, 0.02)))
        with fresh(server.instance, f"run_{kind}_{number}", folder) as database:
            result = disturbed(server, database, kind, moments, undisturbed, playbook=playbook)
        results.append(result)
        print(
            f"{number + 1:4} {kind:<10}{'playbook' if playbook else 'function'}  rows "
            + ", ".join(f"{one.row}+{one.pause * 1000:.0f}ms" for one in moments)
            + f": {result.hits} of {result.faults} hit, {result.reruns} reruns"
            + "".join(f", {name} picked up" for name in result.picked_up)
            + "".join(f", {words}" for words in result.resolved)
            + "".join(f"\n     WRONG {words}" for words in result.wrong),
            flush=True,
        )
    return results


def at_once(
    instance: Instance, folder: Path, undisturbed: dict[str, Any], *, playbook: bool = False, runs: int = 10
) -> Result:
    """Ten runs of one empty database at the same time: none fails, each file is applied once."""
    result = Result("at once")
    with fresh(instance, "at_once", folder) as database:
        together = None if playbook else FORK.Barrier(runs)
        what = _migration(database, playbook=playbook)
        started = [Run(what, folder / f"{number}.log", together=together) for number in range(runs)]
        for run in started:
            if not run.ended():
                result.wrong.append(f"one of ten failed: {run.said}")
        result.wrong += wrong_end(database, undisturbed)
        rows = database.query("SELECT count(*) FROM _prisma_migrations")
        if rows != [(len(CHAIN),)]:
            result.wrong.append(f"{rows} rows in the ledger")
    print(
        f"     ten at once, {'playbook' if playbook else 'function'}"
        + "".join(f"\n     WRONG {x}" for x in result.wrong)
    )
    return result


def table(results: list[Result]) -> str:
    """The counts by kind of fault."""
    lines = [f"{'':<12}{'runs':>6}{'faults':>8}{'hit':>6}{'reruns':>8}{'picked up':>11}{'resolved':>10}{'wrong':>7}"]
    for kind in [*dict.fromkeys(result.kind for result in results), "all"]:
        of = [result for result in results if kind in (result.kind, "all")]
        lines.append(
            f"{kind:<12}{len(of):>6}{sum(r.faults for r in of):>8}{sum(r.hits for r in of):>6}"
            f"{sum(r.reruns for r in of):>8}{sum(len(r.picked_up) for r in of):>11}"
            f"{sum(len(r.resolved) for r in of):>10}{sum(bool(r.wrong) for r in of):>7}"
        )
    return "\n".join(lines)


def provision(variables: dict[str, Any]) -> None:
    command = command_line("provision", {**variables, "docker_engine_install": False})
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def command_line(name: str, variables: dict[str, Any]) -> list[str]:
    """The command line of one of the project's playbooks."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return [program, f"playbooks/{name}.yml", "-e", json.dumps(variables)]


@contextlib.contextmanager
def made(container: str, port: int, folder: Path, *, keep: Sequence[Any], **more: Any) -> Iterator[Instance]:
    """A server as `provision.yml` makes it, which stays for a look where an end state was wrong."""
    remove_instance(container)
    variables = {**instance_variables(container, port, folder / "config"), **more}
    provision(variables)
    yield Instance(
        container=container, host="127.0.0.1", port=port, database="dastern", app_user="dastern_user",
        password_file=folder / "config" / "app_password", config_dir=folder / "config",
        endpoint=os.environ.get("DOCKER_HOST", ""), variables=variables,
    )  # fmt: skip
    if not any(result.wrong for result in keep):
        remove_instance(container)


@contextlib.contextmanager
def own_engine(name: str = NAME) -> Iterator[Engine]:
    """An engine of our own, and this process with all that it starts inside that engine's network."""
    engine = Engine(name)
    engine.make(IMAGE)
    os.environ.update(engine.environment)
    set_namespace = ctypes.CDLL(None, use_errno=True).setns
    with Path("/proc/self/ns/net").open() as home, engine.namespace.open() as there:
        assert set_namespace(there.fileno(), 0) == 0
        try:
            yield engine
        finally:
            assert set_namespace(home.fileno(), 0) == 0
            for variable in engine.environment:
                del os.environ[variable]
            engine.remove()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--port", type=int, default=25250)
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no kind of fault: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    print(f"seed {given.seed}", flush=True)
    dice = random.Random(given.seed)
    quick = [kind for kind in kinds if kind != "engine"]
    # An engine takes long to come back, so that it is killed less often.
    slow = (given.runs if not quick else max(given.runs // 20, 1)) if "engine" in kinds else 0
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix=NAME) as temporary:
        folder = Path(temporary)
        if quick:
            with made(NAME, given.port, folder, keep=results) as instance:
                wanted = undisturbed_state(instance, folder)
                results += campaign(Server(instance), folder, given.runs - slow, quick, dice, wanted)
                results += [at_once(instance, folder, wanted) for _ in range(max(given.runs // 20, 1))]
                results.append(at_once(instance, folder, wanted, playbook=True))
        if slow:
            with own_engine() as engine, made(f"{NAME}-inner", given.port, folder, keep=[]) as instance:
                wanted = undisturbed_state(instance, folder)
                results += campaign(Server(instance, engine), folder, slow, ["engine"], dice, wanted)
    print(f"\nseed {given.seed}\n{table(results)}")
    return int(any(result.wrong for result in results))


if __name__ == "__main__":
    sys.exit(main())
