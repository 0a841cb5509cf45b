"""Restores and drills against a real server and a real repository: round trips, refusals, and runs that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import kept, logical, pgbackrest
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups.health import examine
from ansible.module_utils.dastern.backups.keeper import Keeper
from ansible.module_utils.dastern.backups.kept import State, expire_old
from ansible.module_utils.dastern.backups.pgbackrest import PgBackRest
from ansible.module_utils.dastern.backups.records import Check, Place, Record, now
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.catalogue.comparison import Comparison, compare
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores import database_copy, request, restored_server
from ansible.module_utils.dastern.restores import plan as restore_plan
from ansible.module_utils.dastern.restores import swap as restore_swap
from ansible.module_utils.dastern.restores.drill import drill
from ansible.module_utils.dastern.restores.run import restore
from ansible.module_utils.dastern.restores.target import resolve
from conftest import docker, remove_instance
from migrating import wait_until

ROOT = Path(__file__).resolve().parents[2]
NAME, PORT = "dastern-test-restore", 25860
ROWS = """
CREATE EXTENSION pg_trgm;
SET ROLE dastern_user;
CREATE TYPE "DoseState" AS ENUM ('TAKEN', 'MISSED');
CREATE TABLE "doseEvents" (id serial PRIMARY KEY, state "DoseState" NOT NULL, note text);
CREATE TABLE users (id int PRIMARY KEY, name text);
COMMENT ON TABLE users IS 'ថ្នាំ';
CREATE INDEX ON users USING gin (name gin_trgm_ops);
INSERT INTO "doseEvents" (state, note) SELECT 'TAKEN', 'ថ្នាំ ' || g FROM generate_series(1, 500) g;
INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 50) g;
GRANT SELECT ON "doseEvents", users TO dastern_readonly;
CREATE TABLE _prisma_migrations (migration_name text, checksum text, started_at timestamptz DEFAULT now(),
  finished_at timestamptz DEFAULT now(), rolled_back_at timestamptz);
INSERT INTO _prisma_migrations (migration_name, checksum) VALUES ('20260101000000_begin', 'abc');
RESET ROLE;
COMMENT ON DATABASE dastern IS 'Das Tern';
ALTER DATABASE dastern SET statement_timeout = '11min';
ALTER DATABASE dastern SET search_path = public, "Other One";
ALTER ROLE dastern_user IN DATABASE dastern SET work_mem = '5MB';
"""
SEQUENCE = """SELECT last_value FROM "doseEvents_id_seq" """
KILLED = """
import json, os, signal, sys
sys.path.insert(0, {utils!r})
from dastern.backups import kept
from dastern.restores import restored_server, run, swap, waiting
from dastern.restores.restored_server import RestoredServer, Site
def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)
{where} = die
run.restore(json.loads(sys.argv[1]))
"""


class Server:
    """A live server with an archive, and what the tests do with it."""

    def __init__(self, params: dict[str, Any], variables: dict[str, Any]) -> None:
        self.params, self.variables = params, variables
        self.place = Place(params)
        self.name: str = params["container"]

    def sql(self, sql: str, database: str = "dastern") -> str:
        """As the superuser, in a session as anybody has it."""
        words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database]
        return docker("exec", "-i", "-u", "postgres", self.name, *words, stdin=sql).stdout.strip()

    def ensure_keeper(self) -> None:
        """Ensure the container that has the repository, without the role that makes it."""
        own = {"config_dir": self.params["config_dir"], "network": f"{self.name}-net", "cpus": 0}
        Keeper(own, self.place, pgbackrest.configuration(1, 1, "", {})).ensure(check_mode=False)

    def with_(self, **changes: Any) -> dict[str, Any]:
        return {**self.params, **changes}

    def restore(self, **changes: Any) -> dict[str, Any]:
        return restore(self.with_(confirm="dastern", **changes))

    def fingerprint(self, database: str = "dastern") -> dict[str, Any]:
        """Everything that has to survive; the size may be another one.

        A sequence may have gone on: its log runs ahead by up to 32 values, which a recovery skips.
        """
        counted = census.count(self.place.superuser, database).as_dict()
        assert (
            self.sql(
                f'SELECT last_value - (SELECT max(id) FROM "doseEvents") BETWEEN 0 AND 40 FROM ({SEQUENCE}) AS s',
                database,
            )
            == "t"
        )
        return {**counted, "database": "", "bytes": 0}

    def glance(self) -> tuple[str, list[str]]:
        """What a refusal must not change, told in a moment."""
        return self.sql(
            f"SELECT (SELECT count(*) FROM users), ({SEQUENCE}), (SELECT max(oid) FROM pg_database)"
        ), self.entries()

    def take(self, kind: str = "incr") -> Record:
        defaults = {name: option.get("default") for name, option in backup_run.ARGUMENT_SPEC.items()}
        told = backup_run.take({**defaults, **self.params, "wait": 60, "backup_type": kind}, say=lambda _: None)
        record = self.place.find(told["label"])
        assert record.exact
        return record

    def left(self) -> list[str]:
        """What a run must not leave behind."""
        found = docker("ps", "-aq", "--filter", f"name={self.name}-restore").stdout.split()
        found += docker("volume", "ls", "-q", "--filter", f"name={self.name}-restore").stdout.split()
        found += [path.name for path in (self.place.folder / "transfer").iterdir()]
        found += [name for name in self.entries() if name.startswith("restored-")]
        return found + [name for name in self.databases() if "_restored_" in name]

    def entries(self) -> list[str]:
        return docker("exec", self.name, "ls", "/var/lib/postgresql/data").stdout.split()

    def databases(self) -> list[str]:
        return self.sql("SELECT datname FROM pg_database ORDER BY 1").split()

    def killed(self, where: str, **changes: Any) -> None:
        """Run a restore that dies of kill -9 where it calls `where`."""
        script = KILLED.format(utils=str(ROOT / "plugins" / "module_utils"), where=where)
        params = json.dumps(self.with_(confirm="dastern", **changes))
        done = subprocess.run([sys.executable, "-c", script, params], capture_output=True, text=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr


@contextlib.contextmanager
def served(
    play: Callable[..., Any], image: dict[str, str], folder: Path, name: str, port: int, rows: str
) -> Iterator[Server]:
    """A server of that name with a repository, without the role that makes it, and a full backup of `rows` in it."""
    remove_instance(name)
    variables = {
        **image, "postgres_container_name": name, "postgres_port": port, "postgres_config_dir": str(folder / "config"),
        "postgres_backup_dir": str(folder / "backups"), "postgres_wal_archive": True,
    }  # fmt: skip
    made = play("- hosts: dastern\n  gather_facts: false\n  roles:\n    - postgres\n", variables)
    assert made.rc == 0, made.stdout
    conf = folder / "config" / "pgbackrest" / "pgbackrest.conf"
    conf.write_text(pgbackrest.configuration(1, 1, "", {}))
    os.chown(conf, 999, 999)
    defaults = {name: option.get("default") for name, option in request.ARGUMENT_SPEC.items()}
    own = Server(
        {
            **defaults, "container": name, "database": "dastern", "volume": f"{name}-data", "image": image["postgres_image_id"],
            "config_dir": str(folder / "config"), "backup_dir": str(folder / "backups"),
        },
        variables,
    )  # fmt: skip
    own.ensure_keeper()
    PgBackRest(own.place.containers, own.place.keeper).run("stanza-create")
    own.sql(rows)
    own.take("full")
    try:
        yield own
    finally:
        docker("rm", "-f", "-v", f"{name}-restore", check=False)
        docker("volume", "rm", "-f", f"{name}-restore-data", check=False)
        remove_instance(name)


@pytest.fixture(scope="module")
def server(
    play: Callable[..., Any], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with served(play, image, tmp_path_factory.mktemp("restore"), NAME, PORT, ROWS) as own:
        yield own


@pytest.fixture
def record(server: Server) -> Record:
    """The oldest backup, which is full."""
    return server.place.records()[-1]


@pytest.fixture
def state(server: Server) -> Iterator[State]:
    """`restore.json`, which is as it was afterwards."""
    own = State(server.place)
    before = list(own.kept)
    yield own
    own.kept, own.pending = before, None
    own.save()


def entry(what: str = "database", **changes: Any) -> dict[str, Any]:
    """One of `restore.json`."""
    return {"what": what, "incoming": "", "kept": "", "words": "", "database": "dastern", "volume": f"{NAME}-data",
            "at": now(), "until": "2125-01-01T00:00:00+00:00", **changes}  # fmt: skip


def refused(server: Server, **changes: Any) -> DasTernError:
    """A refusal that leaves everything as it was."""
    before = server.glance()
    with pytest.raises(DasTernError) as refusal:
        restore(server.with_(**changes))
    assert server.glance() == before
    assert server.left() == []
    return refusal.value


def test_a_cluster_comes_back_and_so_does_what_it_replaced(server: Server, record: Record) -> None:
    then = server.fingerprint()
    server.sql("DELETE FROM users WHERE id > 40; INSERT INTO \"doseEvents\" (state) VALUES ('MISSED')")
    later = server.fingerprint()
    told = restore(server.with_(target=record.label), check_mode=True)
    assert {'  public."doseEvents" +1', "  public.users -10"} <= set(told["lines"])
    assert "public.users: 40 rows\n" in told["diff"]["before"]
    assert "public.users: 50 rows\n" in told["diff"]["after"]
    assert server.fingerprint() == later

    result = server.restore(target=record.label)
    assert server.fingerprint() == then
    assert result["diff"] == told["diff"] | {"after_header": result["target"]}
    assert result["refused_seconds"] < 30
    assert server.sql("SELECT pg_is_in_recovery()") == "f"
    assert server.left() == []
    assert server.sql("SELECT count(*) FROM pg_file_settings") == "0"  # tuning has one channel

    server.sql("INSERT INTO users SELECT generate_series(5000, 5006), 'since'")
    plan = refused(server, undo=True, instance="production/a", confirm="dastern")
    assert "`confirm` is 'dastern', expected 'production/a/dastern'" in plan.message
    assert "playbooks/restore.yml -e undo=true -e confirm=production/a/dastern`" in plan.message
    assert plan.facts["confirm"] == "production/a/dastern"
    checked = restore(server.with_(undo=True), check_mode=True)
    for told in (plan.facts["preflight"], checked["lines"]):
        assert told[told.index("rows of dastern since then:") + 1] == "  public.users +7"
        assert any(line.startswith("the present cluster would be kept for 72 h, until 2") for line in told)
    assert checked["confirm"] == "dastern"
    assert "confirm" not in restore(server.with_(undo=True, confirm="dastern"), check_mode=True)
    undone = server.restore(undo=True)
    assert server.fingerprint() == later
    assert [entry["kept"] for entry in State(server.place).kept] == [
        name for name in server.entries() if name != "pgdata"
    ]
    assert request.UNDO in undone["next"]


def test_a_database_comes_back_with_all_that_belongs_to_it(server: Server, record: Record) -> None:
    server.sql("INSERT INTO users VALUES (1000, 'after'); SELECT pg_create_restore_point('monday')")
    then = server.fingerprint()
    server.sql(
        "DELETE FROM users; COMMENT ON DATABASE dastern IS NULL; REVOKE ALL ON DATABASE dastern FROM dastern_readonly"
    )
    later = server.fingerprint()
    result = server.restore(target="monday", what="database")
    assert server.fingerprint() == then
    assert result["refused_seconds"] < 30
    assert server.left() == []
    before = next(name for name in server.databases() if "_before_" in name)
    state = State(server.place)
    assert state.kept[-1]["kept"] == before

    # Its time is over: it stays until another restore or a backup has succeeded, and can be brought back.
    state.kept[-1]["until"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    state.save()
    refused(server, target="nonsense")
    assert "`target` is empty. Nothing was done. Expected: `latest`" in refused(server, target=" ").message
    server.restore(undo=True)
    assert server.fingerprint() == later

    # What was kept long enough goes, and nothing else.
    state = State(server.place)
    entries = [entry["kept"] for entry in state.kept]
    for entry in state.kept:
        entry["until"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    state.save()
    told = expire_old(server.place)
    assert [entry for entry in entries if any(entry in line for line in told)] == entries
    assert server.entries() == ["pgdata"]
    assert not [name for name in server.databases() if "_before_" in name]
    assert State(server.place).kept == []
    assert "there is nothing to undo" in refused(server, undo=True).message


def test_a_logical_backup_is_swapped_in_the_same_way(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    then = census.count(server.place.superuser, "dastern")
    with server.place.alone(60, "a test"):
        record = logical.take(server.place, "dastern", "", "", "10s")
    server.sql("INSERT INTO users VALUES (0, 'later')")
    try:
        server.restore(target=record.label, what="database")
        told = compare(then, census.count(server.place.superuser, "dastern"))
        assert (told.damage, told.to_judge, told.schema_differs) == ([], [], False)
        server.restore(undo=True)
        server.sql("DELETE FROM users WHERE id = 0")
        with monkeypatch.context() as patch:  # the roles are known without the live server, too
            patch.setattr(restored_server.Site, "answers", lambda site: False)
            told = drill({**server.params, "target": record.label})
        assert "failed" not in told, told
        # One whose restore brings something else doesn't become the live one.
        server.place.save(replace(record, census={**record.census, "tables": {"public.users": 1}}))
        message = refused(server, target=record.label, what="database", confirm="dastern").message
        assert "doesn't match its backup" in message
    finally:
        with server.place.alone(60, "a test"):
            logical.remove(server.place, record)


def test_targets_beside_the_live_database(server: Server, state: State) -> None:
    state.kept.append(entry(kept="dastern_before_long", until=now()))
    state.save()
    server.sql("INSERT INTO users VALUES (2001, 'a')")
    xid = server.sql("BEGIN; SELECT pg_current_xact_id(); INSERT INTO users VALUES (2002, 'b'); COMMIT").split()[0]
    moment = server.sql("SELECT clock_timestamp() AT TIME ZONE 'UTC'") + "+00"
    lsn = server.sql("INSERT INTO users VALUES (2003, 'c'); SELECT pg_current_wal_lsn()")
    server.sql("INSERT INTO users VALUES (2004, 'd')")
    site = restored_server.Site(server.params, server.place)
    result = restore(server.with_(what="table", table="users", into="copy", target=xid))
    assert server.sql("SELECT max(id) FROM users", "copy") == "2002"
    assert "copy holds users" in " ".join(result["lines"])
    assert "dastern_before_long, replaced by a restore" in " ".join(result["lines"])
    assert server.left() == []
    assert "exists already" in refused(server, what="database", into="copy").message
    server.sql("DROP DATABASE copy", "postgres")
    for target, setting in ((moment, "recovery_target_time"), (lsn, "recovery_target_lsn")):
        goal, _ = resolve(site, target, check_mode=False)
        assert setting in goal.recovery
        assert goal.timeline == 1
    for name in ("2026-11-30 before cleanup", "123456789"):  # which begin as a time and as a transaction do
        server.sql(f"SELECT pg_create_restore_point('{name}')")
        goal, _ = resolve(site, name, check_mode=False)
        assert goal.words.startswith(f"Restore point `{name}` (")


def test_rows_of_a_table_come_back_and_no_other_row_changes(server: Server, record: Record) -> None:
    """Columns are named, so that another order of them swaps nothing; a row that its key finds stays as it is."""
    before = server.sql('SELECT count(*) FROM "doseEvents"')
    server.sql(
        'DELETE FROM "doseEvents" WHERE id IN (7, 8); UPDATE "doseEvents" SET note = \'mine\' WHERE id = 9;'
        'ALTER TABLE "doseEvents" DROP COLUMN state; ALTER TABLE "doseEvents" ADD COLUMN state "DoseState" DEFAULT \'MISSED\''
    )
    try:
        asked = {"what": "table", "table": 'public."doseEvents"', "target": record.label}
        told = restore(server.with_(**asked), check_mode=True)
        assert told["confirm"] == "dastern"
        result = server.restore(**asked)
        assert (result["rows"], result["inserted"]) == (500, 2)
        rows = server.sql('SELECT id, note, state FROM "doseEvents" WHERE id BETWEEN 7 AND 9 ORDER BY id').splitlines()
        assert rows == ["7|ថ្នាំ 7|TAKEN", "8|ថ្នាំ 8|TAKEN", "9|mine|MISSED"]
        assert server.sql('SELECT count(*) FROM "doseEvents"') == before
        assert server.left() == []
        # What a constraint refuses leaves the table as it was.
        server.sql(
            'ALTER TABLE "doseEvents" ADD CHECK (id <> 7) NOT VALID; DELETE FROM "doseEvents" WHERE id IN (7, 8)'
        )
        with pytest.raises(DasTernError, match="violates check constraint.*Nothing changed there"):
            server.restore(**asked)
        assert server.sql('SELECT count(*) FROM "doseEvents" WHERE id IN (7, 8)') == "0"
        assert server.left() == []
        # As where the reader of the copy is ended: to COPY the end looks as if it were all.
        server.sql('ALTER TABLE "doseEvents" DROP CONSTRAINT "doseEvents_id_check"')
        server.restore(**asked, into="whole")
        with pytest.raises(DasTernError, match="ended too early.*Nothing changed there"):
            database_copy.put_back(server.place.superuser, "whole", "dastern", 'public."doseEvents"', 501)
        assert server.sql('SELECT count(*) FROM "doseEvents" WHERE id IN (7, 8)') == "0"
        assert (
            database_copy.put_back(server.place.superuser, "whole", "dastern", 'public."doseEvents"', 500).inserted == 2
        )
    finally:
        server.sql("DROP DATABASE IF EXISTS whole")
        server.sql(
            'ALTER TABLE "doseEvents" DROP CONSTRAINT IF EXISTS "doseEvents_id_check";'
            "INSERT INTO \"doseEvents\" (id, state, note) SELECT i, 'TAKEN', 'again' FROM generate_series(7, 8) i ON CONFLICT DO NOTHING"
        )


PUT_BACK = """
SET ROLE dastern_user;
CREATE SCHEMA back;
CREATE TABLE back.visits (id int PRIMARY KEY, name text, found text);
CREATE TABLE back.drawn (id serial PRIMARY KEY, other int GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1), v text);
CREATE TABLE back.parted (id int GENERATED BY DEFAULT AS IDENTITY, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE back.part PARTITION OF back.parted FOR VALUES IN (1);
CREATE TABLE back.kept_out (id int PRIMARY KEY);
CREATE TABLE back.ruled (id int PRIMARY KEY);
CREATE TYPE back.kind AS ENUM (LABELS);
CREATE TABLE back.hashed (id int, kind back.kind, PRIMARY KEY (id, kind)) PARTITION BY HASH (kind);
CREATE TABLE back.hashed_0 PARTITION OF back.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY LIST (id);
CREATE TABLE back.hashed_0_all PARTITION OF back.hashed_0 DEFAULT;
CREATE TABLE "back"."hashed 1" PARTITION OF back.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO back.hashed SELECT g, g::text::back.kind FROM generate_series(1, 32) g;
INSERT INTO back.visits VALUES (1, 'Sok Dara', 'positive');
INSERT INTO back.drawn (v) SELECT g FROM generate_series(1, 20) g;
INSERT INTO back.parted (part) SELECT 1 FROM generate_series(1, 10);
INSERT INTO back.kept_out SELECT generate_series(1, 3);
INSERT INTO back.ruled SELECT generate_series(1, 2);
""".replace("LABELS", ", ".join(f"'{number}'" for number in range(1, 33)))


@pytest.fixture
def put_back(server: Server) -> Iterator[Callable[..., dict[str, Any]]]:
    """Restore a table of schema `back`, from a logical backup."""
    server.sql(PUT_BACK)
    record = take_logical(server)
    yield lambda table: server.restore(what="table", table=f"back.{table}", target=record.label)
    server.sql("SET client_min_messages = error; DROP SCHEMA back CASCADE")
    with server.place.alone(60, "a test"):
        logical.remove(server.place, record)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("ADD CHECK (found <> 'positive')", "violates check constraint"),
        ("ADD FOREIGN KEY (id) REFERENCES back.ruled DEFERRABLE INITIALLY DEFERRED", "violates foreign key constraint"),
        ("ALTER name TYPE date USING NULL", 'invalid input syntax for type date: "..." (SQLSTATE 22007)'),
        ("ALTER name TYPE varchar(3)", "value too long"),
    ],
)
def test_a_refusal_to_put_rows_back_shows_none(
    server: Server, put_back: Callable[..., dict[str, Any]], broken: str, words: str
) -> None:
    server.sql(f"DELETE FROM back.visits; DELETE FROM back.ruled WHERE id = 1; ALTER TABLE back.visits {broken}")
    try:
        with pytest.raises(DasTernError) as refusal:
            put_back("visits")
    finally:
        server.sql(
            "ALTER TABLE back.visits DROP CONSTRAINT IF EXISTS visits_found_check, DROP CONSTRAINT IF EXISTS visits_id_fkey, "
            "ALTER name TYPE text; INSERT INTO back.ruled VALUES (1)"
        )
    assert words in refusal.value.message
    assert "Nothing changed there." in refusal.value.message
    assert "`-e into=NAME`" in refusal.value.message
    told = json.dumps([refusal.value.message, refusal.value.facts])
    assert not [value for value in ("Sok Dara", "positive", "(1") if value in told]


def test_sequences_go_on_behind_the_rows_that_came_back(
    server: Server, put_back: Callable[..., dict[str, Any]]
) -> None:
    # The greatest number that there is was never drawn.
    server.sql(
        "TRUNCATE back.drawn, back.parted RESTART IDENTITY; INSERT INTO back.drawn VALUES (2147483647, 0, 'by hand')"
    )
    told = put_back("drawn")
    assert told["sequences"] == {"back.drawn_id_seq": 20, "back.drawn_other_seq": -20}
    assert "sequence back.drawn_id_seq was behind the table's rows and now continues after 20" in told["lines"]
    assert server.sql("INSERT INTO back.drawn (v) VALUES ('next') RETURNING id, other") == "21|-21"
    # A partition draws from its whole table's.
    assert put_back("part")["sequences"] == {"back.parted_id_seq": 10}
    assert server.sql("INSERT INTO back.parted (part) VALUES (1) RETURNING id") == "11"
    # It goes back for nobody.
    server.sql("SELECT setval('back.drawn_id_seq', 500); DELETE FROM back.drawn WHERE id = 3")
    told = put_back("drawn")
    assert (told["inserted"], told["sequences"]) == (1, {})
    assert server.sql("SELECT last_value FROM back.drawn_id_seq") == "500"


def test_a_partitioned_table_comes_back_whatever_its_partitions(
    server: Server, put_back: Callable[..., dict[str, Any]]
) -> None:
    server.sql("DELETE FROM back.hashed WHERE id > 2; DELETE FROM back.parted")
    # The hash of an enum is another one in each database.
    for part in ("hashed_0_all", '"hashed 1"'):
        with pytest.raises(DasTernError, match="came back in other partitions of back.hashed.*`-e table=back.hashed`"):
            put_back(part)
    told = put_back("hashed")
    assert "30 of the 32 rows of back.hashed came back into dastern; the other 2 existed already" in " ".join(
        told["lines"]
    )
    assert server.sql("SELECT count(*) FROM back.hashed") == "32"
    assert put_back("parted")["inserted"] == 10
    assert server.left() == []
    # From a physical backup as well.
    record = server.take()
    told = server.restore(what="table", table="back.hashed", target=record.label, into="of_back")
    assert "database of_back holds back.hashed with its 32 rows" in " ".join(told["lines"])
    server.sql("DROP DATABASE of_back; DELETE FROM back.hashed")
    assert server.restore(what="table", table="back.hashed", target=record.label)["inserted"] == 32
    with pytest.raises(DasTernError, match="has no table back.nope. Its tables: .*back.hashed"):
        server.restore(what="table", table="back.nope", target=record.label)


def test_a_database_that_lets_nobody_in_comes_back(server: Server) -> None:
    server.sql("ALTER DATABASE dastern CONNECTION LIMIT 0")
    try:
        records = take_logical(server), server.take()
    finally:
        server.sql("ALTER DATABASE dastern CONNECTION LIMIT -1")
    try:
        for record in records:
            told = server.restore(target=record.label, what="database", into="lets_nobody_in")
            assert told["differences"] == []
            assert server.sql("SELECT datconnlimit FROM pg_database WHERE datname = 'lets_nobody_in'") == "0"
            server.sql("DROP DATABASE lets_nobody_in")
        server.sql("ALTER ROLE dastern_user CONNECTION LIMIT 0")
        with pytest.raises(DasTernError, match="psql -c 'ALTER ROLE \"dastern_user\" CONNECTION LIMIT -1'` removes it"):
            server.restore(target=records[0].label, what="database", into="lets_nobody_in")
    finally:
        server.sql("ALTER ROLE dastern_user CONNECTION LIMIT -1; DROP DATABASE IF EXISTS lets_nobody_in")
        with server.place.alone(60, "a test"):
            logical.remove(server.place, records[0])
    assert server.left() == []


def test_rows_that_do_not_get_into_their_table_are_not_said_to_be_back(
    server: Server, put_back: Callable[..., dict[str, Any]]
) -> None:
    server.sql(
        "CREATE FUNCTION back.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NEW.id <> 2 THEN NEW END; END $$;"
        "CREATE TRIGGER t BEFORE INSERT ON back.kept_out FOR EACH ROW EXECUTE FUNCTION back.f();"
        "CREATE TABLE back.log (id int);"
        "CREATE RULE r AS ON INSERT TO back.ruled DO INSTEAD INSERT INTO back.log VALUES (NEW.id) RETURNING id;"
        "DELETE FROM back.kept_out; DELETE FROM back.ruled"
    )
    for table, words in (("kept_out", "one of its triggers"), ("ruled", r"a rule on INSERT \(r\)")):
        with pytest.raises(DasTernError, match=f"{words}.*`-e into=NAME`"):
            put_back(table)
        assert server.sql(f"SELECT count(*) FROM back.{table}") == "0"
    assert server.sql("SELECT count(*) FROM back.log") == "0"
    server.sql("INSERT INTO back.kept_out VALUES (1); ALTER TABLE back.kept_out DISABLE TRIGGER t")
    assert "2 of the 3 rows of back.kept_out came back into dastern; the other 1 existed already" in " ".join(
        put_back("kept_out")["lines"]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "To do it: `ansible-playbook playbooks/restore.yml -e target=latest -e what=cluster -e confirm=dastern`"),
        ({"target": "2026-02-08 10:30:00"}, '-e target="2026-02-08 10:30:00 +07:00"'),
        ({"target": "2025-02-08 10:30:00+07"}, "is older than the oldest backup"),
        ({"target": "2125-02-08 10:30:00+07"}, "is in the future"),
        ({"target": "0/1000"}, "is older than the oldest backup"),
        ({"target": "FF/0"}, "is newer than the archive"),
        ({"target": "nonsense"}, "isn't in the archived write-ahead log"),
        ({"into": "copy"}, "-e what=database"),
        ({"what": "table", "into": "copy"}, "-e table=public.users"),
        ({"what": "database", "into": "dbname=dastern"}, "as a connection string"),
        ({"what": "table", "into": "copy", "table": "nope"}, 'Its tables: public."doseEvents", public._prisma_migrations'),
        ({"target": "by_hand"}, "is a logical backup of"),
        ({"container": "dastern-test-restore-none", "image": ""}, "neither does the image"),
    ],
)  # fmt: skip
def test_what_is_refused(server: Server, record: Record, changes: dict[str, Any], words: str) -> None:
    label = "20260101-000000L"
    server.place.save(replace(record, label=label, kind="logical", type="logical", name="by_hand", began="2020-01-01"))
    try:
        assert words in refused(server, **changes).message
    finally:
        server.place.forget(label)


def test_a_restore_that_is_killed_before_the_swap_is_removed_by_the_next(server: Server, record: Record) -> None:
    before = server.fingerprint()
    server.killed("run.checked", target=record.label)
    assert server.fingerprint() == before
    assert server.left() != []
    told = restore(server.with_(target=record.label), check_mode=True)  # which touches nothing
    assert server.left() != []
    assert told["next"]
    message = refused_after_healing(server)
    assert "left by a killed restore, was removed" in message
    assert server.fingerprint() == before


def refused_after_healing(server: Server) -> str:
    """The next run heals, whatever it then says."""
    with pytest.raises(DasTernError) as refusal:
        restore(server.with_(target="2125-01-01 00:00:00+00"))
    assert server.left() == []
    assert State(server.place).pending is None
    return refusal.value.message


@pytest.mark.parametrize(
    ("where", "words", "restored"),
    [("Site.within", "was undone", False), ("Site.start", "was finished", True)],
    ids=["before the renames", "after the renames"],
)
def test_a_restore_that_is_killed_in_the_swap_is_healed(server: Server, where: str, words: str, restored: bool) -> None:
    timeline = "SELECT timeline_id FROM pg_control_checkpoint()"
    before, at = server.fingerprint(), int(server.sql(timeline))
    server.killed(where, target="latest")
    assert not server.place.containers.inspect("container", NAME)["State"]["Running"]  # type: ignore[index]
    assert words in refused_after_healing(server)
    assert (int(server.sql(timeline)) > at) == restored
    assert server.fingerprint() == before


HALF = """lambda self, script, *words: (
    within(self, "cd /var/lib/postgresql/data && mv -T pgdata " + words[1]), os.kill(os.getpid(), signal.SIGKILL))"""
ENTRIES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("site.yml", {}, []), ("provision.yml", {}, []), ("provision.yml", {}, ["--check"]), ("migrate.yml", {}, []),
    ("migrate.yml", {"ansible_python_interpreter": f"{sys.executable}3"}, []), ("backup.yml", {}, []),
    ("verify_backups.yml", {}, []), ("plain_sql.yml", {"out": "/nowhere.sql"}, []), ("drift.yml", {}, []),
    ("remove.yml", {}, []), ("remove.yml", {"postgres_remove_volume": True, "confirm": f"{NAME}-data"}, []),
]  # fmt: skip


def test_each_entry_point_sees_a_swap_that_was_killed_between_its_renames(
    server: Server, record: Record, play: Callable[..., Any]
) -> None:
    """None makes a new cluster or removes anything, each names the playbook that mends it, and that does."""
    before = server.fingerprint()
    server.killed(f"within = Site.within\nSite.within = {HALF}\n_", target="latest")
    look = ("run", "--rm", "-v", f"{NAME}-data:/v", "--entrypoint", "ls", server.params["image"], "/v")
    entries = docker(*look).stdout.split()
    assert {name.partition("-")[0] for name in entries} == {"replaced", "restored"}
    for playbook, given, words in ENTRIES:
        done = play(f"playbooks/{playbook}", {**server.variables, **given}, *words)
        assert done.rc == 2, done.stdout
        assert "playbooks/restore.yml` finishes the swap or takes it back" in done.flat, done.stdout
        assert docker(*look).stdout.split() == entries
    for playbook, section in (
        ("status.yml", "postgres"), ("status.yml", "backup"), ("migration_status.yml", "migrations"), ("list_backups.yml", "backups"),
    ):  # fmt: skip
        done = play(f"playbooks/{playbook}", server.variables)
        told = done.section(section)
        assert done.rc == (4 if section == "migrations" else 0)  # no server answers
        assert any("playbooks/restore.yml" in one for one in [*told["lines"], *told["next"]]), told
        if playbook == "status.yml":
            assert "ansible-playbook playbooks/provision.yml" not in told["next"]
    drilled = drill(server.with_(target=record.label), check_mode=True)
    assert len(drilled["lines"]) == 2
    healed = play("playbooks/restore.yml", server.variables)
    assert healed.rc == 2  # no `confirm`
    assert "was undone" in healed.flat
    assert State(server.place).pending is None
    server.ensure_keeper()
    assert server.fingerprint() == before
    assert len(server.entries()) == len(entries) - 1


def test_a_server_that_does_not_start_after_the_swap_is_put_back(
    server: Server, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = server.fingerprint()
    started = restored_server.Site.start
    break_it = iter([True])

    def start(site: Any) -> None:
        if next(break_it, False):
            assert site.within("echo 'nonsense = on' > /var/lib/postgresql/data/pgdata/postgresql.conf").rc == 0
            monkeypatch.setattr(restore_swap, "START", 1.0)
        else:
            monkeypatch.setattr(restore_swap, "START", 60.0)
        started(site)

    monkeypatch.setattr(restored_server.Site, "start", start)
    with pytest.raises(DasTernError) as refusal:
        server.restore(target=record.label)
    assert "The former cluster is back and serves" in refusal.value.message
    assert server.fingerprint() == before
    assert server.left() == []


def test_a_swap_of_databases_that_was_killed_is_healed(server: Server) -> None:
    state = State(server.place)
    state.begin({"what": "database", "incoming": "dastern_restored_20260101_000000000", "kept": "dastern_before_x",
                 "database": "dastern", "at": now(), "until": now(), "words": "", "volume": ""})  # fmt: skip
    server.sql("CREATE DATABASE dastern_restored_20260101_000000000", "postgres")
    server.sql("ALTER DATABASE dastern WITH ALLOW_CONNECTIONS false", "postgres")
    message = refused_after_healing(server)
    assert "was undone" in message
    assert "dastern_restored_20260101_000000000" in message
    assert server.sql("SELECT 1") == "1"


def test_a_copy_that_was_removed_by_hand_proves_no_swap(server: Server) -> None:
    before, kept = server.fingerprint(), len(State(server.place).kept)
    State(server.place).begin(entry(incoming="dastern_restored_20260101_000000000", kept="dastern_before_x"))
    server.sql("ALTER DATABASE dastern WITH ALLOW_CONNECTIONS false", "postgres")
    message = refused_after_healing(server)
    assert "Database dastern wasn't replaced and serves as before" in message
    assert (server.fingerprint(), len(State(server.place).kept)) == (before, kept)

    server.killed("Site.within", target="latest")
    pending = State(server.place).pending
    assert pending is not None
    spaces = f"tablespaces-{pending['incoming'].removeprefix('restored-')}"
    script = f"cd /v && rm -r {pending['incoming']} && mkdir -p {spaces}/one"
    docker(
        "run",
        "--rm",
        "-u",
        "postgres",
        "-v",
        f"{NAME}-data:/v",
        "--entrypoint",
        "sh",
        server.params["image"],
        "-c",
        script,
    )
    message = refused_after_healing(server)
    assert "was undone: Neither folder" in message
    assert "The former cluster is back and serves" in message
    assert f"{spaces} in volume {NAME}-data, which no cluster there uses, was removed" in message
    assert (server.fingerprint(), len(State(server.place).kept)) == (before, kept)
    assert spaces not in server.entries()


def test_provisioning_starts_the_server_of_a_cut_swap_and_leaves_its_databases(
    server: Server, state: State, play: Callable[..., Any]
) -> None:
    incoming = "dastern_restored_20260101_000000000"
    server.sql(f"CREATE DATABASE {incoming}", "postgres")
    server.sql("ALTER DATABASE dastern WITH ALLOW_CONNECTIONS false", "postgres")
    state.begin(entry(incoming=incoming, kept="dastern_before_x"))
    docker("stop", NAME)
    done = play("playbooks/provision.yml", server.variables)
    assert done.rc == 2, done.stdout
    assert "playbooks/restore.yml` finishes the swap or takes it back" in done.flat, done.stdout
    assert "not currently accepting connections" not in done.flat
    assert server.sql("SELECT datallowconn FROM pg_database WHERE datname = 'dastern'", "postgres") == "f"
    again = play("playbooks/provision.yml", server.variables)  # now it serves, and nothing is left to start
    assert "Nothing was done. Unless the restore still runs" in again.flat, again.stdout
    assert "was undone" in refused_after_healing(server)
    assert server.sql("SELECT 1") == "1"


@pytest.mark.parametrize("how", ["restarted", "stopped", "unheard"])
def test_a_swap_of_databases_whose_server_goes_away(
    server: Server, state: State, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It takes connections again as soon as it is back; what happened unheard has happened."""
    incoming, kept = "dastern_restored_20260101_000000000", "dastern_before_x"
    server.sql(f"CREATE DATABASE {incoming}", "postgres")
    site = restored_server.Site(server.params, server.place)
    run = request.Run(server.params, server.place, site, state, [], lambda words: None)
    run_sql = site.psql.run

    def cut(sql: str, database: str = "postgres", silence: float = 0) -> str:
        if "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname" not in sql:
            return run_sql(sql, database, silence)
        run_sql(sql if how == "unheard" else sql.partition("SELECT pg_terminate")[0], database, silence)
        if how != "unheard":
            docker("restart" if how == "restarted" else "kill", NAME)
        raise DasTernError("Cut.")

    monkeypatch.setattr(site.psql, "run", cut)
    monkeypatch.setattr(restore_swap, "START", 1.0 if how == "stopped" else 60.0)
    swap = entry(incoming=incoming, kept=kept)
    if how == "unheard":
        restore_swap.swap_databases(run, swap)
        assert State(server.place).kept[-1]["kept"] == kept
        server.sql(f"DROP DATABASE dastern; ALTER DATABASE {kept} RENAME TO dastern", "postgres")
        server.sql("ALTER DATABASE dastern ALLOW_CONNECTIONS true", "postgres")
    else:
        words = "wasn't replaced and serves as before" if how == "restarted" else "MAY REFUSE CONNECTIONS"
        with pytest.raises(DasTernError, match=words):
            restore_swap.swap_databases(run, swap)
        if how == "stopped":
            monkeypatch.setattr(restore_swap, "START", 60.0)  # that run starts it
            assert "was undone" in refused_after_healing(server)
    assert server.sql("SELECT 1") == "1"
    assert server.left() == []


def test_a_helper_that_is_ended_in_the_swap(server: Server, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    docker("exec", NAME, "mkdir", "/var/lib/postgresql/data/restored-x")
    site = restored_server.Site(server.params, server.place)
    run = request.Run(server.params, server.place, site, state, [], lambda words: None)
    within = restored_server.Site.within

    def ended(self: Any, *words: str) -> Any:
        docker("kill", self.helper, check=False)
        return within(self, *words)

    monkeypatch.setattr(restored_server.Site, "within", ended)
    with pytest.raises(DasTernError, match="The former cluster is back and serves"):
        restore_swap.swap_folders(run, entry("cluster", incoming="restored-x", kept="replaced-x"))
    assert server.sql("SELECT 1") == "1"
    assert server.left() == []


def test_the_volume_of_another_server_is_not_taken_for_a_leftover(server: Server, state: State) -> None:
    volume = f"{NAME}-restore-data"
    docker("volume", "create", "--label", "org.dastern.role=postgres", volume)
    try:
        for work, target in ((restore, "latest"), (drill, "")):
            with pytest.raises(DasTernError, match="isn't of a restore"):
                work(server.with_(target=target))
        assert docker("volume", "ls", "-q", "--filter", f"name={volume}").stdout.split() == [volume]
    finally:
        docker("volume", "rm", volume)


def test_a_kept_one_that_cannot_be_removed_is_told(server: Server, state: State) -> None:
    server.sql("CREATE DATABASE dastern_before_x", "postgres")
    # A database with a subscription can't be dropped.
    subscription = "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false, slot_name = NONE)"
    server.sql(subscription, "dastern_before_x")
    state.kept += [entry(kept=name, until=now()) for name in ("dastern_before_x", "dastern_before_y")]
    state.save()
    stays, removed = expire_old(server.place)
    assert "database dastern_before_x" in stays
    assert "can't be removed" in stays
    assert "dastern_before_y" in removed
    assert [one["kept"] for one in State(server.place).kept if "before_" in one["kept"]][-1] == "dastern_before_x"
    server.sql("DROP SUBSCRIPTION s", "dastern_before_x")
    assert "was removed" in expire_old(server.place)[0]


@pytest.mark.parametrize("text", ["{}", '{"kept": [{"what": "cluster"}], "pending": null}', "[]"])
def test_a_damaged_state_is_refused_in_words(server: Server, state: State, text: str) -> None:
    state.path.write_text(text)
    assert "move the file away" in refused(server, target="latest").message
    assert "move the file away" in expire_old(server.place)[0]


def test_undo_is_for_the_database_that_was_replaced(server: Server, state: State) -> None:
    server.sql("CREATE DATABASE other_before_x", "postgres")
    state.kept.append(entry(kept="other_before_x", database="other"))
    state.save()
    try:
        assert "-e undo=true -e postgres_database=other" in refused(server, undo=True).message
    finally:
        server.sql("DROP DATABASE IF EXISTS other_before_x", "postgres")


def test_a_logical_backup_of_another_database_replaces_nothing(
    server: Server, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = replace(record, label="20260101-000000L", kind="logical", verified=Check(now(), True, 0))
    other, bad = replace(right, database="other"), replace(right, verified=Check(now(), False, 0))
    server.place.save(other)
    try:
        message = refused(server, target=other.label, what="database", confirm="dastern").message
        assert "is of database other, and dastern would be replaced" in message
    finally:
        server.place.forget(other.label)
    monkeypatch.setattr(server.place, "records", lambda: [other, bad, right])
    site = restored_server.Site(server.params, server.place)
    assert (
        restore_plan.logical_backup(request.Run(server.params, server.place, site, State(server.place), [], print))
        is right
    )


def test_a_copy_gets_its_name_last(server: Server, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(place: Place, record: Record, name: str, *_: Any, **__: Any) -> Comparison:
        for database in (name, "mine"):  # somebody makes one of that name meanwhile
            server.sql(f"CREATE DATABASE {database}", "postgres")
        return Comparison(census.Census.of(record.census))

    monkeypatch.setattr(database_copy, "from_logical", filled)
    label = "20260101-000000L"
    server.place.save(replace(record, label=label, kind="logical"))
    try:
        with pytest.raises(DasTernError, match='database "mine" already exists'):
            restore(server.with_(target=label, what="database", into="mine"))
        assert server.left() == []
        assert "mine" in server.databases()
    finally:
        server.place.forget(label)
        server.sql("DROP DATABASE IF EXISTS mine", "postgres")


def interrupted(*arguments: Any) -> Any:
    raise KeyboardInterrupt


def test_an_interrupted_swap_leaves_the_live_one_serving(
    server: Server, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = "dastern_restored_20260101_000000000"
    server.sql(f"CREATE DATABASE {incoming}", "postgres")
    site = restored_server.Site(server.params, server.place)
    run = request.Run(server.params, server.place, site, state, [], lambda words: None)
    run_sql = site.psql.run

    def cut(sql: str, database: str = "postgres", silence: float = 0) -> str:
        told = run_sql(sql.partition("SELECT pg_terminate")[0], database, silence)
        return interrupted() if "pg_terminate" in sql else told

    monkeypatch.setattr(site.psql, "run", cut)
    with pytest.raises(KeyboardInterrupt):
        restore_swap.swap_databases(run, entry(incoming=incoming, kept="dastern_before_x"))
    assert server.sql("SELECT count(*) >= 0 FROM users") == "t"  # it answers; others may have emptied it
    assert "was undone" in refused_after_healing(server)

    docker("exec", NAME, "mkdir", "/var/lib/postgresql/data/restored-x")
    run.state = State(server.place)  # as the next run reads it
    within = restored_server.Site.within
    calls = iter([interrupted])
    monkeypatch.setattr(restored_server.Site, "within", lambda *words: next(calls, within)(*words))
    with pytest.raises(KeyboardInterrupt):
        restore_swap.swap_folders(run, entry("cluster", incoming="restored-x", kept="replaced-x"))
    assert server.sql("SELECT count(*) >= 0 FROM users") == "t"  # it answers; others may have emptied it
    assert State(server.place).pending is None
    docker("exec", NAME, "rmdir", "/var/lib/postgresql/data/restored-x")


def test_an_undo_that_was_killed_is_not_taken_back_by_the_next(server: Server, state: State) -> None:
    before = server.glance()[0].split("|")[:2]
    server.sql("CREATE DATABASE dastern_before_new", "postgres")
    state.kept.append(entry(kept="dastern_before_old"))
    state.begin(entry(incoming="dastern_before_old", kept="dastern_before_new"))
    try:
        result = restore(server.with_(undo=True))
        assert result["target"] == "dastern_before_old"
        assert "had been committed" in " ".join(result["lines"])
        assert State(server.place).kept[-1]["kept"] == "dastern_before_new"
        assert server.glance()[0].split("|")[:2] == before
    finally:
        server.sql("DROP DATABASE IF EXISTS dastern_before_new", "postgres")


def test_a_server_that_was_started_by_hand_is_not_stopped_by_healing(server: Server, state: State) -> None:
    started = docker("inspect", "-f", "{{.State.StartedAt}}", NAME).stdout
    docker("exec", NAME, "mkdir", "/var/lib/postgresql/data/restored-x")
    state.begin(entry("cluster", incoming="restored-x", kept="replaced-x"))
    assert "was undone" in refused_after_healing(server)
    assert docker("inspect", "-f", "{{.State.StartedAt}}", NAME).stdout == started


def test_a_drill_that_the_engine_ends_says_nothing_of_the_backup(
    server: Server, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*words: Any) -> None:
        raise DasTernError("The Docker Engine doesn't answer.", status=0)

    monkeypatch.setattr("ansible.module_utils.dastern.restores.drill.RestoredServer.fill", gone)
    with pytest.raises(DasTernError, match="doesn't answer"):
        drill(server.with_(target=record.label))
    assert server.place.find(record.label) == record
    assert server.left() == []


def test_a_drill_whose_server_is_hit_by_a_kill_says_nothing_of_the_backup(
    server: Server, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the memory limit: one process of it, while the rows are counted."""
    monkeypatch.setattr(
        "ansible.module_utils.dastern.restores.drill.checked",
        lambda psql, *_: psql.run("COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'"),
    )
    with pytest.raises(DasTernError, match=f"closed the connection.* That tells nothing about backup {record.label}"):
        drill(server.with_(target=record.label))
    assert server.place.find(record.label) == record
    assert server.left() == []


def test_a_dump_that_does_not_fit_into_the_backups_folder_is_refused(
    server: Server, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = restored_server.Site.look
    monkeypatch.setattr(restored_server.Site, "look", lambda site: {**look(site), "free_backups": 4096})
    message = refused(server, target=record.label, what="database", confirm="dastern").message
    assert (
        f"4 kB free: that doesn't fit. Nothing was done. Make room on the disk of folder {server.place.folder}"
        in message
    )


def test_a_damaged_backup_is_refused_and_its_drill_fails(server: Server) -> None:
    server.sql("INSERT INTO users SELECT g, repeat(md5(g::text), 20) FROM generate_series(3000, 3500) g")
    record = server.take("full")
    for path in (server.place.folder / "repository" / "backup" / "dastern" / record.label / "bundle").iterdir():
        content = bytearray(path.read_bytes())
        for position in range(len(content) // 2, len(content), max(len(content) // 20, 1)):
            content[position] ^= 1
        path.write_bytes(content)
    try:
        message = refused(server, target=record.label, confirm="dastern").message
        assert "can't be restored" in message
        assert "The live database was not touched and serves; the restored copy was removed" in message
        result = drill(server.with_(target=""))
        assert result["failed"]
        drilled = server.place.find(record.label).drilled
        assert drilled is not None
        assert not drilled.ok
        assert "can't be restored" in drilled.message
        assert server.left() == []
    finally:
        server.place.forget(record.label)


def test_a_drill_compares_and_is_recorded(server: Server, record: Record) -> None:
    told = drill(server.with_(target=record.label), check_mode=True)
    assert "would restore" in told["lines"][0]
    result = drill(server.with_(target=record.label))
    assert not result.get("failed"), result
    kept = server.place.find(record.label)
    assert kept.drilled is not None
    assert kept.drilled.ok
    assert kept.restore_seconds == result["restore_seconds"]
    assert server.left() == []

    wrong = {**record.census, "tables": {**record.census["tables"], "public.users": 51}}
    server.place.save(replace(record, census=wrong))
    try:
        result = drill(server.with_(target=record.label))
        assert result["failed"]
        assert "table public.users has 50 rows instead of 51" in result["msg"]
        assert "TRUE" not in result["msg"]
    finally:
        server.place.save(replace(record, drilled=kept.drilled))


def test_a_gap_in_the_archive_is_named(server: Server, record: Record) -> None:
    for _ in range(3):
        server.sql("SELECT pg_create_restore_point('p'); SELECT pg_switch_wal()")
    goal, _ = resolve(restored_server.Site(server.params, server.place), "latest", check_mode=False)
    segments = sorted((server.place.folder / "repository" / "archive").rglob(f"{goal.timeline:08X}*-*.zst"))
    gone = segments[-3]
    aside = server.place.folder / gone.name
    gone.rename(aside)
    try:
        message = refused(server, confirm="dastern").message
        assert f"{gone.name[:24]} is missing" in message
    finally:
        aside.rename(gone)


def test_a_lost_volume_comes_back_from_the_archive(server: Server, play: Callable[..., Any]) -> None:
    server.sql("INSERT INTO users VALUES (9001, 'last')")
    server.sql("CREATE DATABASE dastern_before_20250101_000000000 TEMPLATE template0")  # kept by a restore of long ago
    server.sql("SELECT pg_switch_wal()")
    resolve(restored_server.Site(server.params, server.place), "latest", check_mode=False)  # all is archived
    # Not the sequence: the log of one is up to 32 values ahead of it.
    before = server.glance()[0].split("|")[0]
    docker("rm", "-f", NAME, server.place.keeper)
    docker("volume", "rm", f"{NAME}-data")
    told = restore(server.params, check_mode=True)
    assert "the live database doesn't answer" in " ".join(told["lines"])
    assert told["lines"][-1].endswith("then swap within seconds; there is no live cluster to keep")
    state = State(server.place)
    state.begin(entry("cluster", incoming="restored-x", kept="replaced-x"))  # as if the machine was lost within a swap
    with pytest.raises(
        DasTernError, match=f"Neither folder restored-x .* in volume {NAME}-data any more, which holds no"
    ):
        restore(server.with_(target="2125-01-01 00:00:00+00"))
    assert State(server.place).pending is None
    assert [one["kept"] for one in State(server.place).kept] == [one["kept"] for one in state.kept]
    assert docker("volume", "ls", "-q", "--filter", f"name={NAME}-data").stdout == ""
    result = server.restore()
    assert "the end of the archive" in result["target"]
    assert (
        "database dastern_before_20250101_000000000, kept by an earlier restore, came back with the backup"
        in " ".join(result["lines"])
    )
    made = play("- hosts: dastern\n  gather_facts: false\n  roles:\n    - postgres\n", server.variables)
    assert made.rc == 0, made.stdout
    server.ensure_keeper()
    assert server.glance()[0].split("|")[0] == before
    assert server.sql("SELECT count(*) FROM users WHERE id = 9001") == "1"
    assert server.left() == []


def test_the_playbooks(server: Server, play: Callable[..., Any], record: Record) -> None:
    done = play("playbooks/restore.yml", {**server.variables, "target": record.label}, "--check")
    assert done.rc == 0, done.stdout
    assert done.changed == 1
    assert done.report["hosts"]["localhost"]["next"][0].endswith("/playbooks/restore.yml -e confirm=dastern")
    lines = done.section("restore")["lines"]
    assert [line.partition(":")[0] for line in lines][:1] == ["target"]
    assert len(lines) > 3
    asked = play(
        "playbooks/restore.yml", {**server.variables, "target": record.label, "dastern_environment": "production"}
    )
    assert (asked.rc, asked.changed) == (2, 0)
    assert asked.section("restore")["confirm"] == "production/localhost/dastern"
    assert len(asked.section("restore")["lines"]) > 3
    assert "expected 'production/localhost/dastern'" in asked.report["failures"][0]["message"]
    assert f"backup {record.label} at its own restore point" in done.section("restore")["target"]
    done = play("playbooks/restore_drill.yml", {**server.variables, "target": record.label}, "--check")
    assert done.rc == 0, done.stdout
    assert done.section("drill")["label"] == record.label


# The function refuses by now: the view can't be refreshed. The other reads a table whose rows come later.
INCOMPLETE = """
SET ROLE dastern_user;
CREATE TABLE gate (open bool); INSERT INTO gate VALUES (true);
CREATE FUNCTION through() RETURNS int LANGUAGE plpgsql AS
  'BEGIN IF (SELECT open FROM public.gate) THEN RETURN 1; END IF; RAISE ''the gate is closed''; END';
CREATE MATERIALIZED VIEW seen AS SELECT through() AS x;
UPDATE gate SET open = false;
CREATE TABLE z_allowed (id int); INSERT INTO z_allowed VALUES (1);
CREATE FUNCTION allowed(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.z_allowed WHERE id = $1)';
CREATE TABLE a_checked (id int CHECK (allowed(id))); INSERT INTO a_checked VALUES (1);
"""
HEALTH = {"expected_hours": 26, "drill_days": 7, "size_factor": 3.0, "disk_free": 0, "archive_lag": 300, "wal_archive": True,
          "zero_loss": False}  # fmt: skip
REFUSED = ["REFRESH MATERIALIZED VIEW public.seen;: the gate is closed"]


def take_logical(server: Server) -> Record:
    with server.place.alone(60, "a test"):
        return logical.take(server.place, "dastern", "", "", "10s")


@pytest.fixture(scope="module")
def incomplete(server: Server) -> Iterator[Record]:
    """A good backup that can't be restored whole."""
    server.sql(INCOMPLETE)
    record = take_logical(server)
    server.sql("UPDATE gate SET open = true; INSERT INTO users VALUES (7000, 'later')")
    yield record
    with server.place.alone(60, "a test"):
        logical.remove(server.place, record)


def left_beside(server: Server, **changes: Any) -> DasTernError:
    """The refusal that leaves the live one as it was, and what was restored beside it."""
    before = server.sql("SELECT max(id) FROM users")
    with pytest.raises(DasTernError) as refusal:
        server.restore(**changes)
    assert server.sql("SELECT max(id) FROM users") == before
    return refusal.value


def test_a_drill_tells_it_the_day_it_arises(server: Server, incomplete: Record) -> None:
    told = drill({**server.params, "target": incomplete.label})
    assert ("failed" not in told, told["differences"]) == (True, REFUSED)
    record = server.place.find(incomplete.label)
    assert record.drilled is not None
    assert (record.drilled.ok, record.drilled.differences) == (True, REFUSED)
    health = examine({**server.params, **HEALTH})
    (problem,) = (one for one in health.problems if one.kind == "drill" and incomplete.label in one.what)
    assert "the gate is closed" in problem.found
    shown = backup_run.listed(server.params)
    (line,) = (line for line in shown["lines"] if line.startswith(incomplete.label))
    assert "with 1 differences, " in line


def test_what_is_incomplete_waits_for_the_operator(
    server: Server,
    incomplete: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {"target": incomplete.label, "what": "database"}
    refusal = left_beside(server, **asked)
    assert refusal.facts["differences"] == REFUSED
    copy = refusal.facts["waiting"]
    assert copy in server.databases()
    # The rows that came too early are there.
    assert server.sql("SELECT count(*) FROM a_checked", copy) == "1"
    assert server.sql("SELECT ispopulated FROM pg_matviews WHERE matviewname = 'seen'", copy) == "f"
    assert (
        f"-e target={incomplete.label} -e what=database -e accept_differences=true -e confirm=dastern"
        in refusal.message
    )

    assert copy in " ".join(examine({**server.params, **HEALTH}).lines())

    # Nobody else removes it.
    server.take()
    assert "failed" not in drill({**server.params, "target": server.place.records()[0].label})
    assert copy in server.databases()
    plan = restore(server.with_(**asked, accept_differences=True), check_mode=True)
    assert (plan["confirm"], any("the gate is closed" in line for line in plan["lines"])) == ("dastern", True)
    with pytest.raises(DasTernError) as unconfirmed:
        restore(server.with_(**asked, accept_differences=True))
    assert unconfirmed.value.facts["confirm"] == "dastern"

    with monkeypatch.context() as patch:  # it isn't restored once more
        patch.setattr(database_copy, "from_logical", lambda *_: pytest.fail("restored again"))
        told = server.restore(**asked, accept_differences=True)
    assert "REFRESH MATERIALIZED VIEW public.seen" in " ".join(told["differences"])
    assert server.sql("SELECT max(id) FROM users WHERE id = 7000") == ""
    assert (State(server.place).waiting, copy in server.databases()) == (None, False)
    server.restore(undo=True)
    assert server.sql("SELECT max(id) FROM users WHERE id = 7000") == "7000"


def test_a_copy_that_waits_is_looked_at_before_it_becomes_live(server: Server, incomplete: Record) -> None:
    """Neither what was taken out of it nor an empty database of its name; nobody but the superuser comes in meanwhile."""
    asked = {"target": incomplete.label, "what": "database"}
    enter = ("exec", "-u", "postgres", NAME, "psql", "-XAtqc", "SELECT count(*) FROM users", "-U", "dastern_user", "-d")
    for spoil, words in (
        ("DELETE FROM users", "table public.users has 0 rows instead of"),
        ("ALTER TABLE users ADD COLUMN spoiled int", "its schema changed"),
        ("", "it is another database of that name"),
    ):
        copy = left_beside(server, **asked).facts["waiting"]
        assert "too many connections" in docker(*enter, copy, check=False).stderr
        if spoil:
            server.sql(spoil, copy)
        else:
            server.sql(f"DROP DATABASE {copy}", "postgres")
            server.sql(f"CREATE DATABASE {copy} OWNER dastern_user", "postgres")
        with pytest.raises(DasTernError, match=words):
            restore(server.with_(**asked, accept_differences=True), check_mode=True)
        refusal = left_beside(server, **asked, accept_differences=True)
        assert words in refusal.message
        assert f"-e target={incomplete.label} -e what=database -e confirm=dastern` restores it again" in refusal.message
    left_beside(server, **asked)
    server.restore(**asked, accept_differences=True)
    assert docker(*enter, "dastern").stdout.strip() == str(incomplete.census["tables"]["public.users"])
    server.restore(undo=True)
    assert server.sql("SELECT max(id) FROM users WHERE id = 7000") == "7000"
    assert server.left() == []


def test_a_swap_of_it_that_is_killed_is_healed(server: Server, incomplete: Record) -> None:
    asked = {"target": incomplete.label, "what": "database"}
    copy = left_beside(server, **asked).facts["waiting"]
    server.killed("waiting.Psql.run", **asked, accept_differences=True)
    with pytest.raises(DasTernError):
        restore(server.with_(target="nonsense"))
    assert State(server.place).pending is None
    assert server.sql("SELECT max(id) FROM users WHERE id = 7000") == "7000"
    assert copy in server.databases()
    state = State(server.place)
    assert state.waiting is not None
    state.waiting["until"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    state.save()
    assert copy in " ".join(kept.would_expire(server.place))
    assert copy in " ".join(expire_old(server.place))
    assert (State(server.place).waiting, copy in server.databases()) == (None, False)


def test_into_a_copy_it_comes_with_its_differences(server: Server, incomplete: Record) -> None:
    told = server.restore(target=incomplete.label, what="database", into="closed_gate")
    assert told["differences"] == REFUSED
    assert f"incomplete: {REFUSED[0]}" in told["lines"]
    assert server.sql("SELECT count(*) FROM a_checked", "closed_gate") == "1"
    server.sql("DROP DATABASE closed_gate", "postgres")
    assert server.left() == []


def test_another_restore_takes_its_place(server: Server, incomplete: Record) -> None:
    first = left_beside(server, target=incomplete.label, what="database").facts["waiting"]
    second = left_beside(server, target=incomplete.label, what="database").facts["waiting"]
    assert [name for name in server.databases() if name in (first, second)] == [second]
    with server.place.alone(60, "a test"):
        kept.discard_waiting(server.place, State(server.place))
    assert server.left() == []


def test_missing_rows_are_never_accepted(server: Server, incomplete: Record) -> None:
    wrong = {**incomplete.census, "tables": {**incomplete.census["tables"], "public.users": 1}}
    server.place.save(replace(incomplete, census=wrong))
    best = next(one for one in server.place.records() if one.label != incomplete.label)
    try:
        refusal = left_beside(server, target=incomplete.label, what="database", accept_differences=True)
    finally:
        server.place.save(incomplete)
    assert refusal.facts["differences"] == [
        f"table public.users has {incomplete.census['tables']['public.users']} rows instead of 1"
    ]
    assert f"-e target={best.label} -e what=database`" in refusal.message
    assert server.left() == []


def test_a_cluster_waits_as_well(server: Server) -> None:
    record = server.take()
    server.sql("INSERT INTO users VALUES (7001, 'later')")
    server.place.save(replace(record, census={**record.census, "schema": "another"}))
    refusal = left_beside(server, target=record.label)
    folder = refusal.facts["waiting"]
    assert folder in server.entries()
    told = drill({**server.params, "target": record.label})
    assert (told["differences"], folder in server.entries()) == (refusal.facts["differences"], True)
    server.restore(target=record.label, accept_differences=True)
    assert server.sql("SELECT count(*) FROM users WHERE id = 7001") == "0"
    server.restore(undo=True)
    assert server.sql("SELECT count(*) FROM users WHERE id = 7001") == "1"
    # Accepted at once, nothing waits.
    server.restore(target=record.label, accept_differences=True)
    assert State(server.place).waiting is None
    server.restore(undo=True)


def test_a_cluster_that_waits_is_not_swapped_in_behind_another_restore(server: Server) -> None:
    """The other one has its timeline by then: with it the archive would take nothing any more."""
    timeline = "SELECT timeline_id FROM pg_control_checkpoint()"
    record = server.take()
    server.place.save(replace(record, census={**record.census, "schema": "another"}))
    folder = left_beside(server, target=record.label).facts["waiting"]
    waiting = State(server.place).waiting
    assert waiting is not None
    own = waiting["left"]["control"][-1]
    server.killed("waiting.discard_waiting = run.discard_waiting", target="latest")
    assert (server.sql(timeline), folder in server.entries()) == (own, True)
    server.restore(target=record.label, accept_differences=True)
    assert (int(server.sql(timeline)), folder in server.entries()) == (int(own) + 1, False)
    segment = server.sql("SELECT pg_walfile_name(pg_switch_wal())")
    archived = "SELECT last_archived_wal >= '{}' FROM pg_stat_archiver"
    wait_until(lambda: server.sql(archived.format(segment)) == "t", 60)


def test_the_zoo_comes_back_from_a_physical_backup(server: Server) -> None:
    """All kinds of objects: the cluster as it was, a database of it but for what PostgreSQL writes otherwise."""
    server.sql("DROP EXTENSION pg_trgm CASCADE; SET ROLE dastern_user; " + (ROOT / "tests" / "zoo.sql").read_text())
    record = server.take()
    then = server.fingerprint()
    assert drill({**server.params, "target": record.label})["differences"] == []
    told = server.restore(target=record.label, what="database", into="zoo_copy")
    assert told["differences"] == []
    assert any(line.startswith("harmless: ") and "table zoo.fish" in line for line in told["lines"])
    server.sql("DROP DATABASE zoo_copy", "postgres")
    server.restore(target=record.label)
    assert server.fingerprint() == then
