"""Physical backups: taken, verified, listed, pruned; killed, damaged and on a full disk."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import pgbackrest, physical
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups import setup as backup_setup
from ansible.module_utils.dastern.backups.pgbackrest import PgBackRest
from ansible.module_utils.dastern.backups.records import Place, Record
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.restores.drill import ARGUMENT_SPEC as DRILL_SPEC
from ansible.module_utils.dastern.restores.drill import drill
from ansible.module_utils.dastern.restores.request import ARGUMENT_SPEC as RESTORE_SPEC
from ansible.module_utils.dastern.restores.restored_server import RestoredServer, Site
from ansible.module_utils.dastern.restores.run import restore
from ansible.module_utils.dastern.restores.target import Archive, Target
from ansible.module_utils.dastern.server import cluster
from conftest import IMAGE, Play, docker, instance_variables, remove_instance
from migrating import ROOT, wait_until
from remote_repository import Bucket, SftpHost

SET_UP = """
- hosts: dastern
  gather_facts: false
  roles: [postgres, backup]
"""
AT_ONCE = {"full": {"count": 1, "days": 0}, "diff": {"count": 0, "days": 0}, "incr": {"count": 0, "days": 0}}


@dataclass
class Backups:
    """The backups of one server."""

    container: str
    folder: Path
    config_dir: Path
    variables: dict[str, Any]

    def params(self, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
        defaults = {name: option.get("default") for name, option in spec.items()}
        own = {"endpoint": "", "container": self.container, "database": "dastern", "backup_dir": str(self.folder)}
        return {**defaults, **own, "wait": 20, **changes}

    def take(self, kind: str = "", *, check_mode: bool = False, say: Any = lambda _: None, **changes: Any) -> Any:
        params = self.params(backup_run.ARGUMENT_SPEC, backup_type=kind, **changes)
        return backup_run.take(params, check_mode, say)

    def verify(self, **changes: Any) -> dict[str, Any]:
        return backup_run.verify(self.params(backup_run.VERIFY_SPEC), say=lambda _: None, **changes)

    def drill(self, label: str, **changes: Any) -> dict[str, Any]:
        own = {"config_dir": str(self.config_dir), "volume": f"{self.container}-data", "target": label, **changes}
        return drill(self.params(DRILL_SPEC, **own))

    def restore(self, *, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        own = {"config_dir": str(self.config_dir), "volume": f"{self.container}-data", **changes}
        return restore(self.params(RESTORE_SPEC, **own), check_mode=check_mode)

    def listed(self) -> dict[str, Any]:
        return backup_run.listed(self.params({}))

    def set_up(self, check_mode: bool = False, **changes: Any) -> dict[str, Any]:
        own = {"config_dir": str(self.config_dir), "wal_archive": True, "network": f"{self.container}-net", **changes}
        return backup_setup.setup(self.params(backup_setup.ARGUMENT_SPEC, **own), check_mode, lambda _: None)

    def sql(self, sql: str) -> str:
        words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "dastern"]
        return docker("exec", "-i", "-u", "postgres", self.container, *words, stdin=sql).stdout.strip()

    @property
    def conf(self) -> Path:
        return self.config_dir / "pgbackrest" / "pgbackrest.conf"

    @property
    def place(self) -> Place:
        return Place(self.params({}))

    @property
    def program(self) -> PgBackRest:
        return PgBackRest(self.place.containers, self.keeper)

    @property
    def keeper(self) -> str:
        """The container that has the repository."""
        return self.place.keeper

    @property
    def records(self) -> list[Record]:
        return self.place.records()

    @property
    def sets(self) -> Path:
        return self.folder / "repository" / "backup" / "dastern"

    def segments(self) -> list[Path]:
        return sorted((self.folder / "repository" / "archive" / "dastern").glob("17-*/*/*.zst"))

    def segment(self, name: str) -> Path:
        return next(path for path in self.segments() if path.name.startswith(name))

    def state(self) -> dict[str, Any]:
        """Everything that a refusal must leave as it was."""
        info = self.program.info()
        return {"sets": info.sets, "records": self.records, "conf": self.conf.read_text()}


@pytest.fixture(scope="module")
def backups(
    play: Callable[..., Play], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backups]:
    """A server with an archive and a first backup; looked at in check mode before it was there."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    given = os.environ.get("DASTERN_TEST_INSTANCE", f"dastern-test-pg{worker}:{25180 + worker}")
    container, _, port = given.partition(":")
    container += "-backups"
    remove_instance(container)
    config_dir = tmp_path_factory.mktemp("backups") / "config"
    variables = {**image, **instance_variables(container, int(port), config_dir), "postgres_wal_archive": True}
    own = Backups(container, Path(variables["postgres_backup_dir"]), config_dir, variables)
    check = play(SET_UP, variables, "--check", "--diff")
    assert check.rc == 0, check.stdout
    assert f"would write {own.conf}" in check.section("backup")["lines"]
    assert "would take a first full backup" in check.section("backup")["lines"]
    assert "once container" in own.take(check_mode=True)["lines"][0]
    assert own.listed()["lines"] == [f"no backups in {own.folder}"]
    assert not own.folder.exists()
    made = play(SET_UP, variables)
    assert made.rc == 0, made.stdout
    own.sql(
        "SET ROLE dastern_user; CREATE TABLE noted AS SELECT i, md5(i::text) AS words FROM generate_series(1, 20000) AS i"
    )
    yield own
    remove_instance(container)


@pytest.fixture
def kept(backups: Backups, tmp_path: Path) -> Iterator[Backups]:
    """The folder is as it was when the test is over: it may damage what it likes."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", f"{backups.folder}/.", str(copy)], check=True)
    yield backups
    # Segments that came meanwhile stay: the server won't archive them again.
    shutil.rmtree(backups.folder / "records")
    shutil.rmtree(backups.sets)
    subprocess.run(["cp", "-a", f"{copy}/.", str(backups.folder)], check=True)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 :]
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(content)


def damage_at(path: Path, position: int) -> None:
    """Flip a bit; once more, and it is as it was."""
    with path.open("r+b") as file:
        file.seek(position)
        (found,) = file.read(1)
        file.seek(position)
        file.write(bytes([found ^ 1]))


def refused(backups: Backups, call: Callable[[], Any]) -> str:
    """The message of a refusal that changed nothing."""
    before = backups.state()
    with pytest.raises(DasTernError) as refusal:
        call()
    assert backups.state() == before
    return refusal.value.message


def at_work(backups: Backups) -> bool:
    """Whether pgBackRest has begun to copy."""
    return ":local" in docker("exec", backups.keeper, "sh", "-c", "cat /proc/[0-9]*/cmdline", check=False).stdout


@pytest.fixture
def elsewhere(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A test may configure another repository; configuration and container are as they were when it is over."""
    before = backups.conf.read_text()
    # The first repository isn't gone: another path is given to it for a while.
    monkeypatch.setattr(Place, "put_aside", lambda _: None)
    yield monkeypatch
    monkeypatch.undo()
    backups.conf.write_text(before)
    backups.set_up()


def repository_in(elsewhere: pytest.MonkeyPatch, folder: str) -> None:
    """Have the first repository in another folder of the backups."""
    elsewhere.setattr(pgbackrest, "REPOSITORY", f"/backups/{folder}")
    elsewhere.setattr(physical, "REPOSITORY", folder)


@contextmanager
def locked(backups: Backups, table: str) -> Iterator[int]:
    """A session of somebody's that keeps a table locked; its process."""
    words = ["docker", "exec", "-i", "-u", "postgres", backups.container, "psql", "-XAtq", "-d", "dastern"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdin
        assert session.stdout
        session.stdin.write(f"BEGIN; LOCK TABLE {table}; SELECT pg_backend_pid();\n")
        session.stdin.flush()
        yield int(session.stdout.readline())
        session.stdin.close()


@contextmanager
def closed(backups: Backups) -> Iterator[None]:
    """The database takes no connections, as its owner can have it."""
    backups.place.superuser.run("ALTER DATABASE dastern ALLOW_CONNECTIONS false")
    try:
        yield
    finally:
        backups.place.superuser.run("ALTER DATABASE dastern ALLOW_CONNECTIONS true")


@pytest.fixture
def slow(backups: Backups) -> Iterator[None]:
    """A backup takes many seconds instead of one."""
    before = backups.conf.read_text()
    backups.conf.write_text(f"{before}[global:backup]\ncompress-level=22\nprocess-max=1\n")
    yield
    backups.conf.write_text(before)


def test_the_first_run_made_everything(backups: Backups) -> None:
    stat = backups.conf.stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (999, 999, 0o600)
    (first,) = backups.records
    assert (first.type, first.reason, first.exact) == ("full", "the first", True)
    assert first.verified
    assert first.verified.ok
    assert backups.set_up()["changed"] is False
    assert backups.set_up(check_mode=True)["changed"] is False
    assert backups.records == [first]
    assert backup_setup.setup(backups.params(backup_setup.ARGUMENT_SPEC, config_dir="/x", wal_archive=False)) == {
        "changed": False,
        "steps": [],
        "lines": ["`postgres_wal_archive` is false: there are only logical backups, no WAL and no restore to a moment"],
        "next": [],
    }


def test_a_database_with_a_line_end_in_its_name_is_named_with_the_command_that_renames_it(backups: Backups) -> None:
    """Its owner may make it, and pgBackRest couldn't read such a backup again."""
    backups.sql('CREATE DATABASE "nl\nx\'"')
    message = refused(backups, backups.take)
    _, *words = shlex.split(message.split("`")[1])
    assert docker(*words).returncode == 0
    backups.sql("DROP DATABASE nl_x_")


@pytest.mark.parametrize(("cpus", "check_mode"), [(-1.0, True), (0.09, False), (4096.0, False)])
def test_a_number_of_processors_that_there_isnt(backups: Backups, cpus: float, check_mode: bool) -> None:
    before = docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", backups.keeper).stdout
    assert "`backup_cpus` is" in refused(backups, lambda: backups.set_up(check_mode, cpus=cpus))
    assert docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", backups.keeper).stdout == before


def test_each_type_is_taken_verified_and_recorded(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physical, "TELL_SECONDS", 0.05)
    told: list[str] = []
    for kind, wanted in (("", "incr"), ("diff", "diff"), ("full", "full")):
        before = backups.records
        planned = backups.take(kind, check_mode=True, name=f"my {kind}")
        assert (planned["backup_type"], backups.records) == (wanted, before)
        taken = backups.take(kind, name=f"my {kind}", say=told.append)
        newest = backups.records[0]
        assert planned["diff"]["after"] == taken["diff"]["after"].replace(newest.label, "the new one", 1)
        assert taken["diff"]["before"] == planned["diff"]["before"] == taken["diff"]["after"].partition("\n")[2]
        assert (newest.label, newest.type, newest.name) == (taken["label"], wanted, f"my {kind}")
        assert newest.census["tables"]["public.noted"] == 20000
        assert newest.restore_point == f"das-tern-{newest.label}"
        assert newest.prior == ("" if wanted == "full" else before[0 if wanted == "incr" else -1].label)
        info = backups.program.info().set(newest.label)
        assert info
        assert info["annotation"] == {"das-tern": "complete"}
        assert newest.verified
        assert newest.verified.ok
    assert any("full backup: " in line for line in told), told
    same = f"{backups.records[0].label} has the same name, my full; as a target it means the newest"
    assert same in backups.take(name="my full")["lines"]
    assert backups.program.archived()[backups.program.info().archive] >= {
        pgbackrest.segment(one.timeline, one.lsn) for one in backups.records
    }
    verified = backups.verify()
    assert {check["ok"] for check in verified["checks"].values()} == {True}
    assert verified["problems"] == verified["notes"] == []
    shown = backups.listed()
    assert [one["label"] for one in shown["backups"]] == [one.label for one in backups.records]
    assert all(one["good"] and one["drilled"] is None and not one["missing"] for one in shown["backups"])
    assert len(shown["lines"]) == 3 + len(backups.records)
    assert "no physical backup was ever restored for trial" in shown["lines"][-1]
    assert "never" in shown["lines"][1]


def test_the_playbooks(backups: Backups, play: Callable[..., Play]) -> None:
    taken = play("playbooks/backup.yml", {**backups.variables, "label": "by play", "backup_type": "incr"})
    assert taken.rc == 0, taken.stdout
    assert backups.records[0].name == "by play"
    assert taken.section("backup")["label"] == backups.records[0].label
    verified = play("playbooks/verify_backups.yml", backups.variables)
    assert verified.rc == 0, verified.stdout
    assert verified.section("verification")["damaged"] == []
    shown = play("playbooks/list_backups.yml", backups.variables)
    assert (shown.rc, shown.changed) == (0, 0), shown.stdout
    assert [one["label"] for one in shown.section("backups")["backups"]] == [one.label for one in backups.records]
    assert backups.records[0].label in shown.stdout


DAMAGES = {
    "bundle": (lambda b: b.sets / b.records[0].label / "bundle" / "1", "damaged: bundle/1"),
    "manifest": (lambda b: b.sets / b.records[0].label / "backup.manifest", "damaged: backup.manifest"),
    "copy": (lambda b: b.sets / b.records[0].label / "backup.manifest.copy", "damaged: backup.manifest.copy"),
    "WAL": (lambda b: b.segment(pgbackrest.segment(1, b.records[0].lsn)), "its WAL is damaged: "),
    "record": (lambda b: b.place.records_folder / f"{b.records[0].label}.json", "its record is damaged"),
}


@pytest.mark.parametrize("how", ["flip", "cut"])
@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_and_named(kept: Backups, what: str, how: str) -> None:
    path, words = DAMAGES[what]
    damaged, *others = [record.label for record in kept.records]
    damage(path(kept), how)
    result = kept.verify()
    assert result["failed"] is True
    assert result["damaged"] == [damaged]
    assert f"{damaged}: " in result["msg"]
    assert words in result["msg"]
    assert all(result["checks"][label]["ok"] for label in others)
    assert [one["label"] for one in kept.listed()["backups"] if one["good"]] == others
    assert kept.listed()["damaged"] == ([damaged] if what == "record" else [])


def test_a_manifest_that_ends_pgbackrest_hides_no_other_damage(kept: Backups) -> None:
    wrong, other, whole = (kept.take(kind)["label"] for kind in ("incr", "diff", "full"))
    manifest = kept.sets / wrong / "backup.manifest"
    content = manifest.read_bytes()
    assert b'"reference":"20' in content
    manifest.write_bytes(content.replace(b'"reference":"20', b'"reference":"30', 1))
    damage(kept.sets / other / "bundle" / "1", "flip")
    result = kept.verify()
    assert f"{wrong}: damaged: backup.manifest" in result["msg"]
    assert f"{other}: damaged: bundle/1" in result["msg"]
    assert result["problems"] == [
        "a damaged manifest ended `pgbackrest verify`, so this wasn't read: the WAL between the backups"
    ]
    assert {other, wrong} <= set(result["damaged"])
    assert result["checks"][whole]["ok"] is True
    damage(kept.sets / whole / "bundle" / "1", "flip")
    kept.place.forget(wrong)
    result = kept.verify()
    assert f"{whole}: damaged: bundle/1" in result["msg"]
    assert result["problems"][0].endswith(f"wasn't read: the WAL between the backups, {wrong}")


def test_a_backup_that_pgbackrest_says_nothing_of_isnt_right(kept: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PgBackRest, "verify", lambda *_, **__: pgbackrest.Verified({}, ok=False))
    result = kept.verify()
    assert set(result["damaged"]) == {one.label for one in kept.records}
    assert "pgBackRest didn't read it" in result["msg"]


def test_what_is_missing_is_found(kept: Backups) -> None:
    full = next(one for one in kept.records if one.type == "full")
    wal = kept.segment(pgbackrest.segment(1, full.lsn))
    wal.unlink()
    result = kept.verify()
    assert result["damaged"] == [full.label]
    assert f"its WAL is missing: {wal.name[:24]}" in result["msg"]
    shutil.rmtree(kept.sets / full.label)
    before = kept.records
    result = kept.verify(check_mode=True)
    assert (result["changed"], kept.records) == (True, before)
    assert "it isn't in the repository any more" in result["checks"][full.label]["message"]


def test_a_break_in_the_wal_ends_what_can_be_restored(kept: Backups) -> None:
    """Behind the newest backup it is to be mended by a new one; before that it is only told."""
    for _ in range(2):
        kept.sql("SELECT pg_create_restore_point('x')")
        physical.archive_all(kept.place)
    last = kept.segments()[-2]
    last.unlink()
    result = kept.verify()
    assert (result["damaged"], result["failed"]) == ([], True)
    assert f"WAL {last.name[:24]} is missing or damaged" in result["msg"]
    kept.take()
    result = kept.verify()
    assert "failed" not in result
    assert result["notes"] == [f"WAL {last.name[:24]} is missing or damaged: no backup from before it leads beyond it"]


@pytest.mark.parametrize("content", ["", "1\t0/3000000?\tnone\n", "2\t0/3000000\tnone\n"])
def test_a_damaged_history_is_found_and_hides_no_backup(kept: Backups, content: str) -> None:
    """Of a timeline that no backup is of, as one that was restored to and left again."""
    archive, label = kept.program.info().archive, kept.records[0].label
    history = kept.folder / "repository/archive/dastern" / archive / "00000002.history"
    before = kept.verify()["problems"]  # such as a segment that went while another test had the archive
    try:
        history.write_text(content)
        result = kept.verify()
        assert (result["failed"], result["damaged"]) == (True, [])
        (told,) = set(result["problems"]) - set(before)
        assert f"the history {archive}/{history.name} is damaged" in told
        told = kept.restore(target=label, what="database", into="whole", check_mode=True)["target"]
        assert told == f"backup {label} at its own restore point; along timeline 1"
        history.write_text("1\t0/3000000\tnone\n")
        assert kept.verify()["problems"] == before
    finally:
        history.unlink()


def test_nothing_is_built_upon_a_damaged_backup(kept: Backups) -> None:
    full = next(one for one in kept.records if one.type == "full")
    above = kept.take("diff")["label"]
    damage(kept.sets / full.label / "bundle" / "1", "flip")
    result = kept.verify()
    assert {full.label, above} <= set(result["damaged"])
    assert f"it needs {full.label}, which is damaged" in result["checks"][above]["message"]
    taken = kept.take("incr", keep=AT_ONCE)
    assert taken["record"]["type"] == "full"
    assert any("isn't verified" in line for line in taken["lines"])


@pytest.mark.parametrize("barred", ["locked", "closed"])
def test_what_the_application_bars_is_backed_up_without_its_rows(
    backups: Backups, monkeypatch: pytest.MonkeyPatch, barred: str
) -> None:
    monkeypatch.setattr(census, "LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(census, "QUIET", 0)
    words = f"docker exec -u postgres {backups.container} psql -c 'ALTER DATABASE \"dastern\" ALLOW_CONNECTIONS true'"
    with locked(backups, "noted") if barred == "locked" else closed(backups) as pid:
        taken = backups.take("incr")
    record = backups.records[0]
    assert (record.label, record.exact, record.census["tables"]) == (taken["label"], False, {})
    assert (f"in the way: pid {pid} (user " if pid else words) in record.uncounted
    assert record.good
    assert "failed" not in backups.drill(record.label)
    planned = backups.restore(check_mode=True, target=record.label)
    assert record.uncounted.rstrip(".") in " ".join(planned["lines"])


@pytest.fixture
def many_tables(backups: Backups) -> Iterator[int]:
    """More tables than the server, as it is declared, has room for locks: how many there are in all."""
    make = "SELECT format('CREATE TABLE many_%s (id int); INSERT INTO many_%1$s VALUES (1)', i) FROM generate_series(1, 3000) AS i"
    backups.sql(f"SET ROLE dastern_user; {make} \\gexec")
    yield int(backups.sql("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '^(many_|noted)'"))
    backups.sql("SELECT format('DROP TABLE many_%s', i) FROM generate_series(1, 3000) AS i \\gexec")


def test_more_tables_than_there_is_room_for_locks(backups: Backups, many_tables: int) -> None:
    """A physical one counts them one by one, a logical one is refused before any lock is taken."""
    taken = backups.take("incr")
    record = backups.records[0]
    assert (len(record.census["tables"]), sum(record.census["tables"].values())) == (
        many_tables,
        many_tables - 1 + 20000,
    )
    assert (record.exact, record.uncounted, record.census["schema"]) == (False, "", "")
    locks = census.Locks.of(backups.place.superuser, "dastern")
    assert not locks.fit()
    assert any(locks.wanted(census.EXACT) in line for line in taken["lines"])
    drilled = backups.drill(record.label)
    assert "failed" not in drilled, drilled
    with pytest.raises(DasTernError, match="max_locks_per_transaction: 192") as refusal:
        backups.take("logical")
    assert refusal.value.facts == {"tables": many_tables, "room": locks.room}
    copied = backups.restore(what="database", into="copied", target=record.label)
    backups.place.superuser.drop_database("copied")
    assert any(f"{many_tables} tables" in line for line in copied["lines"])


def test_damaged_pages_of_the_live_database_are_told_and_their_backup_is_kept(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pgBackRest warns of them and ends well."""
    good = backups.take()["label"]
    backups.sql(
        "SET ROLE dastern_user; CREATE TABLE torn AS SELECT i, md5(i::text) FROM generate_series(1, 5000) AS i; RESET ROLE; CHECKPOINT"
    )
    file = backups.sql("SELECT pg_relation_filepath('torn')")
    docker("stop", "-t", "60", backups.container)
    containers, volume = Containers("unix:///var/run/docker.sock"), f"{backups.container}-data"
    write = f"printf torn | dd of=/v/pgdata/{file} bs=1 seek=21000 conv=notrunc"
    assert containers.run_once(IMAGE, write, host_config={"Binds": [f"{volume}:/v"]}).rc == 0
    docker("start", backups.container)
    wait_until(lambda: docker("exec", backups.container, "pg_isready", check=False).returncode == 0)
    with pytest.raises(DasTernError) as refusal:
        backups.take(keep=AT_ONCE)
    label = refusal.value.facts["label"]
    words = f"pages of the live database itself were damaged when it was copied, in {file} (public.torn)"
    assert f"Backup {label} was taken and is kept, but isn't good: {words}." in refusal.value.message
    assert f"The newest good one is {good}" in refusal.value.message
    shown = {one["label"]: one["good"] for one in backups.listed()["backups"]}
    assert (shown[label], shown[good], backups.listed()["incomplete"]) == (False, True, [])
    # It isn't built upon, and pushes no good one out.
    planned = backups.take(check_mode=True, keep=AT_ONCE)
    assert planned["backup_type"] == "full"
    assert backups.verify()["checks"][label]["message"] == words
    # It can be asked for, and is said to be what it is; the newest state comes from before it.
    told = backups.restore(target=label, what="database", into="whole", check_mode=True)["target"]
    assert told == f"backup {label} at its own restore point, which isn't good: {words}; along timeline 1"
    for asked in ({"what": "database"}, {"what": "table", "table": "noted"}):
        with pytest.raises(
            DasTernError, match="can't be copied and compared.* -e what=cluster -e target=.*not touched"
        ):
            backups.restore(target=label, into="whole", **asked)
    told = backups.restore(what="database", into="whole")["target"]
    assert f"from backup {good}; {label} is damaged and passed over" in told
    count = ["psql", "-XAtq", "-U", "postgres", "-d", "whole", "-c", "SELECT count(*) FROM torn"]
    assert docker("exec", backups.container, *count).stdout.strip() == "5000"
    # It comes back as far as it goes: the rows that nobody can read are no reason to be without all others.
    assert "FAILED its drill: pg_amcheck: " in backups.drill(label)["lines"][-1]
    # Those that come behind push it out and no good one, and provisioning takes none.
    with pytest.raises(DasTernError) as refusal:
        backups.take(keep=AT_ONCE)
    there = {one.label: one for one in backups.records if one.kind == "physical"}
    newer = there[refusal.value.facts["label"]]
    assert (newer.type, label in there, good in there) == ("full", False, True)
    with monkeypatch.context() as patch:
        patch.setattr(Place, "records", lambda _: [newer])
        assert [backups.set_up(check_mode)["changed"] for check_mode in (True, False)] == [False, False]
    for statement in ("DROP DATABASE whole", "DROP TABLE torn"):
        backups.sql(statement)
    backups.take("full", keep=AT_ONCE)
    assert newer.label not in [one.label for one in backups.records]


def test_damage_at_the_end_of_the_log_isnt_taken_for_its_end(backups: Backups) -> None:
    before = backups.conf.read_text()
    backups.conf.write_text(f"{before}[global:archive-push]\ncompress-type=none\n")  # a segment is there as it is
    try:
        backups.sql(
            "SET ROLE dastern_user; CREATE TABLE last AS SELECT md5(i::text) FROM generate_series(1, 5000) AS i"
        )
        timeline, lsn = physical.archive_all(backups.place)
    finally:
        backups.conf.write_text(before)
    backups.sql("DROP TABLE last")
    name = pgbackrest.segment(timeline, lsn)
    (home,) = backups.folder.glob(f"repository/archive/dastern/17-*/*/{name}-*")
    own = {"config_dir": str(backups.config_dir), "volume": f"{backups.container}-data"}
    site = Site(backups.params(RESTORE_SPEC, **own), backups.place)
    received = backups.folder / "received" / f"{backups.records[0].system}-{timeline:08X}" / name
    received.parent.mkdir(parents=True)
    partial = received.with_name(f"{name}.partial")

    def end() -> str:
        target = Target("", "", timeline, {}, segment=name, sums=Archive.read(site).sums)
        return target.settings(RestoredServer(site, site.volume, "pgdata"))["recovery_target_lsn"]

    whole = end()
    damage_at(segment := home, 100_000)
    try:
        for path in (home, received):
            segment = segment.rename(path)
            with pytest.raises(DasTernError) as refusal:
                end()
            assert f"WAL segment {name} is damaged" in refusal.value.message
            (readable,) = re.findall(r"To restore up to there: `[^`]* -e target=(\S+)`", refusal.value.message)
            assert pgbackrest.position(readable) < pgbackrest.position(whole)
        # One that was still being written ends anywhere.
        segment = segment.rename(partial)
        assert end() == readable
        segment = segment.rename(received)
        damage_at(segment, 100_000)
        assert end() == whole
    finally:
        segment.rename(home)
        shutil.rmtree(received.parent)


@pytest.mark.usefixtures("slow")
def test_pgbackrest_killed(backups: Backups) -> None:
    before = backups.records
    failures: list[str] = []

    def take() -> None:
        try:
            backups.take("full")
        except DasTernError as refusal:
            failures.append(refusal.message)

    thread = threading.Thread(target=take)
    thread.start()
    wait_until(lambda: at_work(backups))
    docker("exec", "-u", "postgres", backups.keeper, "sh", "-c", kill_script("KILL"))
    thread.join()
    assert "pgBackRest was killed during `backup`" in failures[0]
    assert backups.records == before
    assert [one["label"] for one in backups.listed()["backups"]] == [one.label for one in before]
    assert backups.take()["record"]["verified"]["ok"] is True


MAIN, COPIES = '"pgbackrest "*" backup "*', '"pgbackrest "*backup:local*'


def kill_script(how: str, which: str = f"{MAIN} | {COPIES}") -> str:
    return (
        'for p in /proc/[0-9]*; do c=$(tr "\\0" " " <"$p/cmdline"); '
        f'case $c in {which}) kill -{how} "${{p#/proc/}}";; esac; done; true'
    )


def test_the_container_restarted_meanwhile(backups: Backups, slow: None) -> None:
    before = backups.records
    failures: list[str] = []

    def take() -> None:
        try:
            backups.take("full")
        except DasTernError as refusal:
            failures.append(refusal.message)

    thread = threading.Thread(target=take)
    thread.start()
    wait_until(lambda: at_work(backups))
    docker("restart", "-t", "20", backups.keeper)
    thread.join()
    assert len(failures) == 1
    assert backups.records == before
    assert backups.take()["record"]["verified"]["ok"] is True


def test_the_run_killed_and_its_pgbackrest_left_behind(backups: Backups, slow: None) -> None:
    script = "import json, sys; from dastern.backups import run; run.take(json.load(sys.stdin), say=lambda _: None)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins/module_utils")},
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(json.dumps(backups.params(backup_run.ARGUMENT_SPEC, backup_type="full")).encode())
    process.stdin.close()
    wait_until(lambda: at_work(backups))
    process.send_signal(signal.SIGKILL)
    process.wait()
    told: list[str] = []
    backups.conf.write_text(backups.conf.read_text().partition("[global:backup]")[0])
    taken = backups.take(say=told.append)
    assert (taken["label"], taken["record"]["type"]) == (backups.records[0].label, "incr")
    # What was left is ended unless it ended by itself meanwhile, and in no case taken for somebody else's.
    assert not [line for line in told if line.startswith("Waiting for another pgBackRest")]
    assert backups.listed()["incomplete"] == []


def test_killed_before_the_record_was_written(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    before = backups.records

    def killed(*_: Any) -> None:
        raise DasTernError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(census, "count_at", killed)
        with pytest.raises(DasTernError, match="killed here"):
            backups.take()
    assert backups.records == before
    (left,) = backups.listed()["incomplete"]
    assert f"{left} is incomplete: it isn't a backup, and the next one deletes it" in backups.listed()["lines"]
    taken = backups.take()
    assert f"deleted {left}, which a killed run left incomplete" in taken["lines"]
    assert taken["record"]["prior"] == before[0].label
    assert backups.program.info().set(left) is None


def test_somebody_elses_pgbackrest_is_waited_for(backups: Backups, slow: None) -> None:
    before = backups.records
    command = ["pgbackrest", "--stanza=dastern", "backup", "--type=full"]
    docker("exec", "-d", "-u", "postgres", backups.keeper, *command)
    wait_until(lambda: at_work(backups))
    told: list[str] = []
    with pytest.raises(DasTernError) as refusal:
        backups.take(wait=0, say=told.append)
    assert "Another pgBackRest works in container" in refusal.value.message
    assert f"Waiting for another pgBackRest in container {backups.keeper}" in told[0]
    assert (backups.records, at_work(backups)) == (before, True)
    # Its own process alone is killed, and what copies for it goes on, with the lock.
    for how, which in (("STOP", COPIES), ("KILL", MAIN)):
        docker("exec", "-u", "postgres", backups.keeper, "sh", "-c", kill_script(how, which))
    told.clear()
    backups.conf.write_text(backups.conf.read_text().partition("[global:backup]")[0])
    assert backups.take(say=told.append)["record"]["prior"] == before[0].label
    assert told[0] == "Ending what is left of a backup whose own process was killed ..."
    assert at_work(backups) is False


def test_never_two_at_a_time(backups: Backups) -> None:
    with backups.place.alone(0, "a restore"):
        assert "Another run works with the backups" in refused(backups, lambda: backups.take(wait=0))


def test_what_is_too_much_is_deleted_with_its_wal(backups: Backups) -> None:
    planned = backups.take("full", check_mode=True, keep=AT_ONCE)
    before = [record.label for record in backups.records]
    assert sorted(planned["deleted"]) == sorted(before)
    taken = backups.take("full", keep=AT_ONCE)
    assert sorted(taken["deleted"]) == sorted(before)
    (only,) = backups.records
    assert [one["label"] for one in backups.program.info().sets] == [only.label]
    info = backups.program.info().set(only.label)
    assert info
    assert backups.segments()[0].name.startswith(info["archive"]["start"])
    assert "failed" not in backups.verify()


def test_a_set_of_somebody_else_is_shown_and_kept(backups: Backups) -> None:
    backups.program.run("backup", "--type=incr")
    strange = backups.program.info().sets[-1]["label"]
    below = backups.records[0].label
    assert backups.listed()["unknown"] == [strange]
    taken = backups.take(keep=AT_ONCE)
    assert any(f"{strange}, which it would build upon, isn't verified" in line for line in taken["lines"])
    assert backups.program.info().set(strange)
    assert below in [one.label for one in backups.records], "what the unknown one is built upon stays"
    backups.program.expire(strange)


def test_another_password_is_refused(backups: Backups) -> None:
    for check_mode in (True, False):
        words = refused(backups, lambda mode=check_mode: backups.set_up(mode, cipher_pass="another one entirely"))
        assert "can't be read with this `backup_cipher_pass`" in words
    assert "Expected: printable ASCII" in refused(backups, lambda: backups.set_up(cipher_pass="short"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repo1-path": "/x"}, "has repo1-path. Expected: names of options of a further repository"),
        ({"pg1-path": "/x"}, "has pg1-path"),
        ({"repo2-host": "other"}, "would have to be started on that host"),
        ({"repo2-path": "/x\nrepo1-path=/y"}, "repo2-path is empty, or isn't one line"),
        ({"repo2-path": ""}, "repo2-path is empty"),
        ({"repo2-typ": "posix"}, "configuration file contains invalid option 'repo2-typ'"),
        (
            {"repo2-type": "s4", "repo2-path": "/x"},
            "'s4' is not allowed for 'repo2-type' option. Set `backup_repository_options` right",
        ),
    ],
)
def test_options_that_arent_a_further_repositorys_are_refused(backups: Backups, options: Any, words: str) -> None:
    assert words in refused(backups, lambda: backups.set_up(repository_options=options))


def test_another_cluster_is_refused(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(physical, "server", lambda _: physical.Server("42", "17.12", True))
        assert "runs cluster 42. If the data of the former was lost" in refused(backups, backups.take)
    with monkeypatch.context() as patch:
        patch.setattr(physical, "server", lambda _: physical.Server("42", "17.12", False))
        assert "doesn't archive its WAL (archive_mode is off)" in refused(backups, lambda: backups.take("full"))
    other = {
        "Names": ["/other"],
        "Mounts": [{"Destination": "/backups/transfer", "Source": str(backups.folder / "transfer")}],
    }
    with monkeypatch.context() as patch:
        patch.setattr(Containers, "listed", lambda *_, **__: [other])
        assert "is also that of container other" in refused(backups, backups.set_up)


def test_a_server_that_doesnt_run(backups: Backups) -> None:
    docker("pause", backups.container)
    try:
        for call in (backups.take, backups.verify, backups.set_up):
            with pytest.raises(DasTernError, match="doesn't run, and its programs are needed"):
                call()
        assert backups.listed()["backups"]
        assert "once container" in backups.take(check_mode=True)["lines"][0]
    finally:
        docker("unpause", backups.container)


def test_encrypted_and_in_a_second_repository(backups: Backups, elsewhere: pytest.MonkeyPatch) -> None:
    repository_in(elsewhere, "encrypted")
    secret = "hidden in the file only"
    options = {"repo2-path": "/backups/second", "repo2-retention-full": 1, "repo2-cipher-pass": f"{secret} 2"}
    declared = {"cipher_pass": secret, "repository_options": {**options, "repo2-cipher-type": "aes-256-cbc"}}
    check = backups.set_up(True, **declared)
    assert check["steps"] == [
        *(f"make {backups.folder / name}" for name in ("encrypted", "second")), f"replace container {backups.keeper}",
        f"change {backups.conf}", "make the repository", "take a first full backup",
    ]  # fmt: skip
    made = backups.set_up(**declared)
    assert secret in backups.conf.read_text()
    assert secret not in str((check, made))
    assert backups.set_up(**declared)["changed"] is False
    assert len(list((backups.folder / "second/backup/dastern").glob("*F"))) == 1
    record = backups.records[0]
    assert record.label == made["record"]["label"]
    result = physical.verify(backups.place, backups.program, [record])
    assert (result.checks[record.label].ok, result.problems) == (True, [])
    listed = backups.listed()
    (further,) = listed["further"]["2"]
    assert (further["type"], further["verified"], further["drilled"]) == ("full", None, None)
    assert any(line.startswith(further["label"]) and line.count("never") == 2 for line in listed["lines"])
    elsewhere_found = physical.verify_further(backups.place, backups.program, 20, True)
    assert (elsewhere_found.problems, elsewhere_found.notes) == ([], [])
    assert backups.listed()["further"]["2"][0]["verified"]["ok"] is True
    with pytest.raises(
        DasTernError, match=f"No backup `{record.label}` is in repository 2. Backups there: {further['label']}"
    ):
        backups.drill(record.label, repository=2)
    assert backups.drill("", repository=2)["label"] == further["label"]
    assert backups.listed()["further"]["2"][0]["drilled"]["ok"] is True
    assert backups.records == [record, *backups.records[1:]], "the first repository's are as they were"
    for words, changed in (("without", ""), ("another one", "not the right one")):
        assert words in refused(backups, lambda value=changed: backups.set_up(**{**declared, "cipher_pass": value}))
    other = {"repository_options": {**declared["repository_options"], "repo2-cipher-pass": "not the right one"}}
    assert "Repository 2 can't be read with this" in refused(backups, lambda: backups.set_up(**declared | other))
    push = "printf '1\\t0/3000000\\tnone\\n' > /tmp/$1; pgbackrest --stanza=dastern archive-push --no-archive-async /tmp/$1"
    docker("exec", "-u", "postgres", backups.keeper, "sh", "-c", push, "sh", "00000002.history")
    (history,) = (backups.folder / "encrypted").glob("archive/dastern/17-*/00000002.history")
    whole = history.read_bytes()
    for how in ("flip", "cut"):
        damage(history, how)
        (told,) = physical.verify(backups.place, backups.program, [record]).problems
        assert f"/{history.name} is damaged" in told
        assert "failed" not in backups.drill(record.label), "a history of another timeline"
        history.write_bytes(whole)
    damage(backups.folder / "encrypted/backup/dastern" / record.label / "backup.manifest", "flip")
    damage(next((backups.folder / "second/backup/dastern").glob("*F/bundle/1")), "flip")
    result = physical.verify(backups.place, backups.program, [record])
    assert "damaged: backup.manifest" in result.checks[record.label].message
    (told,) = physical.verify_further(backups.place, backups.program, 20, True).problems
    assert f"repository 2: {further['label']} is damaged: damaged: bundle/1" in told
    assert any("DAMAGED" in line for line in backups.listed()["lines"])
    assert "FAILED its drill" in backups.drill("", repository=2)["lines"][-1]
    backups.place.forget(record.label)


@pytest.fixture
def address(backups: Backups) -> str:
    """Where the server's container reaches this machine."""
    return docker(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", backups.container
    ).stdout.strip()


@pytest.mark.parametrize("kind", [SftpHost, Bucket])
def test_a_repository_elsewhere(
    backups: Backups, address: str, elsewhere: pytest.MonkeyPatch, tmp_path: Path, kind: type[SftpHost | Bucket]
) -> None:
    remote = kind(address, tmp_path)
    declared = {"repository_options": {**remote.options, "repo2-retention-full": 2}, "repository_files": remote.files}
    folder = backups.conf.parent / "files"
    check = backups.set_up(True, **declared)
    assert check["steps"] == [*(f"write {folder / name}" for name in remote.files), f"change {backups.conf}"]
    with remote.serving():
        made = backups.set_up(**declared)
        assert made["changed"] is True
        assert not any(content.strip() in str((check, made)) for content in remote.files.values())
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in folder.iterdir())
        assert backups.set_up(**declared)["changed"] is False
        label = backups.take()["label"]
        (there,) = backups.program.info(repository=2).sets
        assert (there["type"], there["label"] != label) == ("full", True), "a repository has its own names"
        backups.sql("INSERT INTO noted SELECT i, 'behind it' FROM generate_series(1, 500) AS i")
        for target, rows in ((there["label"], "20000"), ("latest", "20500")):
            copy = backups.restore(target=target, what="database", into="from_afar", repository=2)
            assert there["label"] in copy["target"]
            assert backups.sql("\\c from_afar\nSELECT count(*) FROM noted") == rows
            backups.sql("DROP DATABASE from_afar")
        backups.sql("DELETE FROM noted WHERE words = 'behind it'")
        assert backups.verify()["lines"]
        assert backups.drill(label)["label"] == label
    first = next(iter(remote.files))
    (folder / first).write_text("another")
    assert backups.set_up(True, **declared)["steps"] == [f"write {folder / first}"]
    steps = backups.set_up()["steps"]
    assert sorted(steps) == [f"change {backups.conf}", *(f"delete {folder / name}" for name in sorted(remote.files))]
    assert list(folder.iterdir()) == []


def test_a_repository_elsewhere_that_is_away(
    backups: Backups, address: str, elsewhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first repository gets its backups and all of its log; the other one catches up."""
    elsewhere.setattr(pgbackrest, "IO_TIMEOUT", 2)
    elsewhere.setattr(pgbackrest, "ARCHIVE_IO_TIMEOUT", 2)
    remote = SftpHost(address, tmp_path)
    declared = {"repository_options": {**remote.options, "repo2-retention-full": 2}, "repository_files": remote.files}
    assert "repository 2 can't be read" in refused(backups, lambda: backups.set_up(**declared))
    assert list((backups.conf.parent / "files").iterdir()) == []
    with remote.serving():
        backups.set_up(**declared)
    for _ in range(3):
        backups.sql("INSERT INTO noted SELECT i, 'away' FROM generate_series(1, 1000) AS i; SELECT pg_switch_wal()")
    with pytest.raises(
        DasTernError, match="was taken and verified, but not in every repository: repository 2"
    ) as refusal:
        backups.take()
    label = refusal.value.facts["label"]
    assert backups.records[0].label == label
    verified = backups.verify()
    assert verified["checks"][label]["ok"]
    assert "repository 2: Repository 2 can't be read" in verified["problems"][-1]
    assert backups.drill(label)["label"] == label
    copy = backups.restore(target="latest", what="database", into="meanwhile")
    assert "the present state of the live server" in copy["target"]
    backups.sql("DROP DATABASE meanwhile")
    again = backups.set_up(**declared)
    assert again["changed"] is False
    assert "repository 2 can't be read" in again["lines"][-1]
    with remote.serving():
        assert backups.take()["changed"] is True
        newest = max(path.name for path in backups.segments())[:24]
        wait_until(lambda: list(remote.folder.glob(f"das-tern/archive/dastern/17-1/*/{newest}-*")))
    backups.set_up()


def test_a_backup_goes_before_a_copy_elsewhere_that_is_under_way(
    backups: Backups, address: str, elsewhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote = SftpHost(address, tmp_path)
    declared = {"repository_options": {**remote.options, "repo2-retention-full": 2}, "repository_files": remote.files}
    told: list[str] = []
    running = ["exec", backups.keeper, "sh", "-c", "cat /proc/[0-9]*/cmdline"]
    with remote.serving():
        backups.set_up(**declared)
        remote.delay = 10
        with ThreadPoolExecutor(1) as beside:
            first = beside.submit(backups.take)
            wait_until(lambda: "--repo=2" in docker(*running, check=False).stdout)
            remote.delay = 0
            second = backups.take(say=told.append)
            with pytest.raises(DasTernError, match="verified, but not in every repository: repository 2") as refusal:
                first.result()
        assert len(backups.program.info(repository=2).sets) == 1
    assert any("Ending the backup into a further repository" in line for line in told), told
    assert [one.label for one in backups.records[:2]] == [second["label"], refusal.value.facts["label"]]
    backups.set_up()


@pytest.fixture
def small_disk(backups: Backups) -> Iterator[Path]:
    """A disk of 24 MB for a repository."""
    path = backups.folder / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,uid=999,gid=999,mode=0700", "none", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
    path.rmdir()


def test_disk_full_in_the_repository(backups: Backups, small_disk: Path, elsewhere: pytest.MonkeyPatch) -> None:
    before = backups.records
    repository_in(elsewhere, small_disk.name)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(23 * 1024**2))
    with pytest.raises(DasTernError) as refusal:
        backups.set_up()
    assert re.search(r"Its disk has .*B left: make room in `postgres_backup_dir`", refusal.value.message)
    assert backups.records == before
    filler.unlink()
    made = backups.set_up()
    assert made["record"]["verified"]["ok"] is True
    assert backups.records[1:] == before
    backups.place.forget(made["record"]["label"])


def test_a_disk_that_isnt_mounted_gets_no_second_repository(backups: Backups, play: Callable[..., Play]) -> None:
    """Whatever stands in its place; with it back all goes on."""
    away, before = backups.folder.with_name("away"), backups.state()
    backups.folder.rename(away)
    try:
        for mounted in (False, True):
            if mounted:  # the mount point, and what the engine makes for containers that it starts
                (backups.folder / "repository").mkdir(parents=True)
            there = sorted(backups.folder.rglob("*"))
            for playbook, given in (
                (SET_UP, {}),
                ("playbooks/backup.yml", {"backup_type": "logical"}),
                ("playbooks/backup.yml", {}),
            ):
                done = play(playbook, {**backups.variables, **given})
                assert (done.rc, "findmnt -T" in done.flat) == (2, True), done.stdout
            assert sorted(backups.folder.rglob("*")) == there
            told = play("playbooks/status.yml", {**backups.variables, "backup_exit_code": False}).section("backup")
            assert {one["kind"]: one["command"] for one in told["problems"]}["folder"] == f"findmnt -T {backups.folder}"
    finally:
        shutil.rmtree(backups.folder, ignore_errors=True)
        away.rename(backups.folder)
    assert backups.state() == before
    again = play(SET_UP, backups.variables)
    assert (again.rc, again.changed) == (0, 0), again.stdout
    backups.take("incr")


def test_status_knows_a_gap_behind_the_newest_backup(backups: Backups, play: Callable[..., Play]) -> None:
    backups.take("incr")
    for _ in range(3):
        backups.sql("CREATE TABLE IF NOT EXISTS gap (); DROP TABLE gap; SELECT pg_switch_wal()")
    ready = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    wait_until(lambda: backups.sql(ready) == "0")

    def gaps() -> list[str]:
        told = play("playbooks/status.yml", {**backups.variables, "backup_exit_code": False}).section("backup")
        return [one["found"] for one in told["problems"] if one["kind"] == "gap"]

    assert gaps() == []
    lost = backups.segments()[-2]
    aside = lost.rename(backups.folder / "aside")
    try:
        (found,) = gaps()
        assert lost.name[:24] in found
    finally:
        aside.rename(lost)


def test_a_cluster_that_replaced_the_former_one(backups: Backups) -> None:
    """Its backups begin anew, those of the former one stay and are still verified."""
    backups.take("full", keep=AT_ONCE)
    (former,) = backups.records
    docker("stop", "-t", "20", backups.container)
    containers, volume = Containers("unix:///var/run/docker.sock"), f"{backups.container}-data"
    emptied = containers.run_once(IMAGE, "rm -rf /v/pgdata", host_config={"Binds": [f"{volume}:/v"]})
    assert emptied.rc == 0, emptied.err
    assert cluster.initialise(containers, IMAGE, volume, backups.container)
    docker("start", backups.container)
    ready = ["exec", "-u", "postgres", backups.container, "createdb", "dastern"]
    wait_until(lambda: docker(*ready, check=False).returncode == 0)
    assert "If the data of the former was lost" in refused(backups, backups.take)
    # A cluster that nobody has backups of may be what came after a lost disk: the former one can be brought back.
    for check_mode in (True, False):
        assert f"(the newest is {former.label})" in refused(backups, lambda mode=check_mode: backups.set_up(mode))
    assert backups.set_up(True, assume_absent=True)["lines"] == [
        f"would use the repository of cluster {former.system}, if that cluster runs then: a new one is refused without "
        "`backup_new_cluster`, because of its backups"
    ]
    # What a restore reads the repository by may be lost, too, and the server be there that came instead.
    backups.conf.unlink()
    assert backups.set_up(lost=True)["lines"] == [f"wrote {backups.conf}"]
    assert backups.set_up(lost=True)["changed"] is False
    system = "SELECT system_identifier FROM pg_control_system()"
    with pytest.raises(DasTernError, match="without the data directory of its cluster"):
        backups.restore(target="some point", check_mode=True)
    backups.restore(confirm="dastern")
    assert backups.sql(system) == former.system
    assert backups.set_up()["changed"] is False
    backups.restore(undo=True, confirm="dastern")
    assert backups.sql(system) != former.system
    assert "would take in cluster" in backups.set_up(True, new_cluster=True)["lines"][0]
    done = backups.set_up(new_cluster=True)
    assert f"which replaced {former.system}" in done["lines"][0]
    assert [one.system == former.system for one in backups.records] == [False, True]
    verified = backups.verify()
    assert {check["ok"] for check in verified["checks"].values()} == {True}
    assert backups.set_up()["changed"] is False


def test_everything_is_lost_but_the_repository_elsewhere(
    backups: Backups, play: Callable[..., Play], tmp_path: Path
) -> None:
    """Another machine brings it back: without server, data, configuration and first repository."""
    # Of an engine that was started again the bridge has no gateway in this list; it is the first address.
    subnet = docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge").stdout.strip()
    address = str(ipaddress.ip_network(subnet)[1])
    remote = SftpHost(address, tmp_path)
    secret = "hidden in the file, too"
    variables = backups.variables | {
        "backup_repository_files": remote.files,
        "backup_repository_options": {
            **remote.options, "repo2-retention-full": 2, "repo2-cipher-type": "aes-256-cbc", "repo2-cipher-pass": secret,
        },
    }  # fmt: skip

    def lose() -> None:
        remove_instance(backups.container)
        shutil.rmtree(backups.folder)
        shutil.rmtree(backups.config_dir)

    with remote.serving():
        made = play(SET_UP, variables)
        assert made.rc == 0, made.stdout
        backups.sql("SET ROLE dastern_user; CREATE TABLE afar AS SELECT i FROM generate_series(1, 3000) AS i")
        taken = play("playbooks/backup.yml", variables, "-e", "label=before-launch")
        assert taken.rc == 0, taken.stdout
        backups.sql("INSERT INTO afar SELECT i FROM generate_series(3001, 5000) AS i")
        backups.sql("SELECT pg_switch_wal()")
        waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
        wait_until(lambda: backups.sql(waiting) == "0")
        lose()

        anew = play(SET_UP, variables)
        assert anew.rc != 0
        assert "Repository 2 has the backups of cluster" in anew.flat
        assert "restore.yml -e repository=2" in anew.flat
        assert not backups.conf.exists()
        lose()

        check = play("playbooks/restore.yml", variables, "-e", "repository=2", "--check")
        assert check.rc == 0, check.stdout
        assert "once pgBackRest's configuration is as declared" in check.section("restore")["lines"][0]
        assert not backups.conf.exists()
        assert (
            "Repository 3 isn't configured; further repositories: 2"
            in play("playbooks/restore.yml", variables, "-e", "repository=3", "-e", "confirm=dastern").flat
        )
        options = variables["backup_repository_options"]
        wrong = variables | {"backup_repository_options": options | {"repo2-cipher-pass": "another one, too"}}
        told = play("playbooks/restore.yml", wrong, "-e", "repository=2").flat
        assert "can't be read with this `repo2-cipher-pass` (`backup_repository_options`)" in told
        asked = play("playbooks/restore.yml", variables, "-e", "repository=2", "-e", "target=before-launch")
        assert "-e target=before-launch -e what=cluster -e repository=2 -e confirm=dastern" in asked.flat
        check = play("playbooks/restore.yml", variables, "-e", "repository=2", "--check")
        assert "the end of the archive" in check.section("restore")["target"]
        done = play("playbooks/restore.yml", variables, "-e", "repository=2", "-e", "confirm=dastern")
        assert done.rc == 0, done.stdout
        assert secret not in asked.stdout + done.stdout
        assert docker("ps", "-aq", "--filter", f"name={backups.container}").stdout == ""
        made = play(SET_UP, variables)
        assert made.rc == 0, made.stdout
        assert backups.sql("SELECT count(*) FROM afar") == "5000"
        assert play(SET_UP, variables).changed == 0
        assert backups.records[0].type == "full"

        # The disk of the backups was carried to another machine.
        remove_instance(backups.container)
        shutil.rmtree(backups.config_dir)
        done = play("playbooks/restore.yml", variables, "-e", "confirm=dastern")
        assert done.rc == 0, done.stdout
        assert f"wrote {backups.conf}" in done.section("backup")["lines"]
        made = play(SET_UP, variables)
        assert made.rc == 0, made.stdout
        assert backups.sql("SELECT count(*) FROM afar") == "5000"

        # A repository that begins on a later timeline, whose history the server archived into the former one.
        former = backups.records
        (backups.folder / "repository").rename(backups.folder / "repository.former")
        made = play(SET_UP, variables)
        assert made.rc == 0, made.stdout
        (anew,) = backups.records
        assert anew.timeline > 1
        assert {path.stem for path in (backups.folder / "records/former").iterdir()} == {one.label for one in former}
        assert backups.drill("")["label"] == anew.label
        history = next((backups.folder / "repository").glob(f"archive/dastern/17-1/{anew.timeline:08X}.history"))
        history.unlink()
        assert f"{history.name} is missing" in backups.verify()["checks"][anew.label]["message"]
        assert backups.take()["record"]["verified"]["ok"]
        assert backups.verify()["problems"] == []
        history.write_text("")
        assert f"{history.name} is damaged" in backups.verify()["checks"][anew.label]["message"]
        assert backups.take()["record"]["verified"]["ok"]
        assert backups.verify()["problems"] == []
