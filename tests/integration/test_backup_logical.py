"""Logical backups: everything comes back, harm is found and refused, and what is killed leaves nothing that counts."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import logical
from ansible.module_utils.dastern.backups.records import Place, Record
from ansible.module_utils.dastern.catalogue.census import Locks, count
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores import database_copy, plain_sql
from ansible.module_utils.dastern.server import cluster
from conftest import docker
from migrating import ROOT, Database, wait_until

RICH = """
CREATE EXTENSION citext;
SET ROLE dastern_user;
CREATE TYPE "the mood" AS ENUM ('ok', 'ថ្នាំ');
CREATE TABLE "a (1" (id int GENERATED ALWAYS AS IDENTITY, "a b" text, mood "the mood", lower citext,
  kind varchar(9) CHECK (kind IN ('x', 'y')), double int GENERATED ALWAYS AS (1 * 2) STORED, PRIMARY KEY (id));
INSERT INTO "a (1" ("a b", mood, kind) VALUES (E'line\\nnext\\\\.', 'ok', 'x'), (E'\\\\.', 'ថ្នាំ', 'y'), ('COPY x FROM stdin;', NULL, NULL);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES "a (1", note text);
INSERT INTO child (parent, note) SELECT 1 + i % 3, md5(i::text) FROM generate_series(1, 20000) AS i;
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE parted (day date) PARTITION BY RANGE (day);
CREATE TABLE parted_2026 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO parted VALUES ('2026-02-08');
CREATE VIEW seen AS SELECT note FROM child WHERE note IN ('a', 'b');
CREATE MATERIALIZED VIEW kept AS SELECT count(*) FROM child;
CREATE INDEX by_kind ON "a (1" (kind) WHERE kind IN ('x', 'y');
ALTER TABLE child ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON child USING (note <> '');
GRANT SELECT (note) ON child TO dastern_readonly;
COMMENT ON TABLE child IS 'a child''s';
SELECT setval('child_id_seq', 31415);
SELECT lo_from_bytea(4242, 'large');
RESET ROLE;
ALTER DATABASE {name} SET search_path = "$user", public, 'odd one';
ALTER DATABASE {name} SET work_mem = '7MB';
ALTER DATABASE {name} SET default_transaction_read_only = on;
ALTER ROLE dastern_readonly IN DATABASE {name} SET search_path = '';
REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT ON DATABASE {name} TO dastern_readonly WITH GRANT OPTION;
ALTER DATABASE {name} CONNECTION LIMIT 17;
COMMENT ON DATABASE {name} IS 'it''s "this"';
"""
ROWS = {'public."a (1"': 3, "public.child": 20000, "public.nothing": 2, "public.parted_2026": 1}
NAME = "logical_rich"


@pytest.fixture(scope="module")
def rich(instance: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    own = Database(instance, NAME, tmp_path_factory.mktemp("rich"))
    own.create()
    instance.sql(RICH.format(name=NAME), NAME)
    yield own
    own.drop()


@pytest.fixture(scope="module")
def place(instance: Any) -> Place:
    return Place({
        "endpoint": instance.endpoint, "container": instance.container, "database": NAME,
        "backup_dir": instance.variables["postgres_backup_dir"],
    })  # fmt: skip


def take(place: Place) -> Record:
    with place.alone(60, "a test"):
        return logical.take(place, place.database, "", "a test", "10s")


@pytest.fixture(scope="module")
def record(place: Place, rich: Database) -> Record:
    return take(place)


@pytest.fixture
def empty(rich: Database) -> Iterator[Database]:
    own = Database(rich.instance, f"{NAME}_restored", rich.folder)
    own.create()
    yield own
    own.drop()


def folder(place: Place, record: Record) -> Path:
    return place.folder / "logical" / record.label


def there(place: Place) -> list[str]:
    """All that a backup could have left."""
    return sorted(path.name for part in ("logical", "records", "transfer") for path in (place.folder / part).iterdir())


def test_the_record(place: Place, record: Record) -> None:
    assert record.census["tables"] == ROWS
    assert (record.kind, record.type, record.exact, record.reason) == ("logical", "logical", True, "a test")
    assert record.census == count(place.superuser, NAME).as_dict() | {"bytes": record.census["bytes"]}
    assert {path.name for path in folder(place, record).iterdir()} == set(record.files)
    assert {"toc.dat", "globals.sql", "database.sql"} <= set(record.files)
    assert "PASSWORD" not in (folder(place, record) / "globals.sql").read_text()
    assert place.find(record.label) == record
    assert logical.verify(place, record).ok


def test_everything_comes_back(place: Place, record: Record, empty: Database) -> None:
    empty.drop()
    told = database_copy.from_logical(place, record, empty.name, "", "")
    assert (told.damage, told.to_judge) == ([], [])
    found, live = (
        [
            place.superuser.value(query, name)
            for query in (
                "SELECT json_agg(t) FROM (SELECT last_value, is_called FROM public.child_id_seq) AS t",
                "SELECT to_json(convert_from(lo_get(4242), 'UTF8'))",
                'SELECT json_agg(t ORDER BY id) FROM public."a (1" AS t',
                "SELECT json_agg(t) FROM public.kept AS t",
            )
        ]
        for name in (empty.name, NAME)
    )
    assert found == live
    paths = [empty.instance.sql("SHOW search_path", name) for name in (empty.name, NAME)]
    assert paths[0] == paths[1] == '"$user", public, "odd one"'
    assert count(place.superuser, empty.name).properties == count(place.superuser, NAME).properties


def test_only_some_tables(place: Place, record: Record, empty: Database) -> None:
    with pytest.raises(DasTernError, match=r"has no tables `dose`. Expected one of: public.\"a \(1\"") as refusal:
        logical.restore(place, record, empty.name, ["dose"])
    assert refusal
    logical.restore(place, record, empty.name, ["child"])
    assert count(place.superuser, empty.name).tables == {**dict.fromkeys(ROWS, 0), "public.child": 20000}


@pytest.mark.parametrize("kind", ["toc.dat", "data", "globals.sql", "database.sql"])
def test_harm_is_found_and_refused(place: Place, record: Record, empty: Database, kind: str) -> None:
    home = folder(place, record)
    file = max(home.glob("*.dat.zst"), key=lambda one: one.stat().st_size) if kind == "data" else home / kind
    whole = file.read_bytes()
    harms = {
        "another SHA-256": bytearray(whole), "bytes instead of": whole[:-1], "is missing": None, "was added": whole,
    }  # fmt: skip
    harms["another SHA-256"][len(whole) // 2] ^= 1  # type: ignore[index]
    besides = home / "more.dat"
    try:
        for words, content in harms.items():
            if content is None:
                file.unlink()
            else:
                file.write_bytes(content)
            if words == "was added":
                besides.write_text("")
            check = logical.verify(place, record)
            assert (check.ok, words in check.message) == (False, True), check.message
            with pytest.raises(DasTernError, match="is damaged.*Nothing was restored"):
                logical.restore(place, record, empty.name)
        assert empty.query("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    finally:
        file.write_bytes(whole)
        os.chown(file, home.stat().st_uid, home.stat().st_gid)
        besides.unlink(missing_ok=True)
    assert logical.verify(place, record).ok


def test_a_harmed_record_is_none(place: Place, record: Record) -> None:
    path = place.record_path(record.label)
    whole = path.read_text()
    for harmed in (whole.replace("20000", "20001"), whole[:-9], ""):
        path.write_text(harmed)
        with pytest.raises(DasTernError, match="is damaged"):
            place.find(record.label)
        assert place.damaged() == [record.label]
    path.write_text(whole)
    assert (place.find(record.label), place.damaged()) == (record, [])


def test_an_emptied_file_is_found_by_its_rows(place: Place, record: Record, empty: Database) -> None:
    """Even if checksums knew nothing: pg_restore itself ends well."""
    file = max(folder(place, record).glob("*.dat.zst"), key=lambda one: one.stat().st_size)
    whole = file.read_bytes()
    try:
        file.write_bytes(b"")
        told = replace(record, files={**record.files, file.name: logical._hashed(file)})
        assert "table public.child has" in logical.verify(place, told).message
        with pytest.raises(DasTernError, match=r"table public\.child has 0 rows instead of 20000"):
            logical.restore(place, told, empty.name)
    finally:
        file.write_bytes(whole)


def test_what_does_not_fit_is_refused(place: Place, record: Record, empty: Database) -> None:
    with pytest.raises(DasTernError, match="another major version"):
        logical.restore(place, replace(record, server="16.9"), empty.name)
    with pytest.raises(DasTernError, match="isn't empty: it has 5 tables"):
        logical.restore(place, record, NAME)
    with pytest.raises(DasTernError, match="doesn't see"):
        logical.restore(Place({**_params(place), "backup_dir": "/tmp"}), record, empty.name)
    with pytest.raises(DasTernError, match="Database none does not exist"), place.alone(9, "a test"):
        logical.take(place, "none", "", "", "10s")
    assert count(place.superuser, empty.name).tables == {}


def _params(place: Place) -> dict[str, Any]:
    return {
        "endpoint": place.containers.endpoint.url, "container": place.container, "database": place.database,
        "backup_dir": str(place.folder),
    }  # fmt: skip


def test_it_is_of_one_moment_while_others_write(place: Place, rich: Database, empty: Database) -> None:
    """Rows counted, dumped and restored are the same: `restore` compares them."""
    sql = f"CALL write_on();{' CALL write_on();' * 5000}"
    rich.instance.sql(
        "SET default_transaction_read_only = off; SET ROLE dastern_user; CREATE TABLE busy (id int); CREATE PROCEDURE write_on() LANGUAGE sql AS "
        "'INSERT INTO busy VALUES (1); DELETE FROM child WHERE id IN (SELECT id FROM child LIMIT 1)';", NAME,
    )  # fmt: skip
    try:
        command = ["docker", "exec", "-i", rich.instance.container, "psql", "-XqU", "postgres", "-d", NAME]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as writer:
            assert writer.stdin
            with contextlib.suppress(BrokenPipeError):
                writer.stdin.write(f"SET default_transaction_read_only = off;\n{sql}\n")
                writer.stdin.flush()
            wait_until(lambda: count(place.superuser, NAME).tables["public.busy"] > 0)
            busy = take(place)
            writer.kill()
        assert busy.census["tables"]["public.child"] == 20000 - busy.census["tables"]["public.busy"]
        logical.restore(place, busy, empty.name)
        logical.remove(place, busy)
        assert busy.label not in " ".join(there(place))
    finally:
        rich.instance.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE '%write_on%' AND pid <> pg_backend_pid();"
            "SET default_transaction_read_only = off; DROP PROCEDURE write_on; DROP TABLE busy;"
            "INSERT INTO child SELECT i, 1, '' FROM generate_series(1, 20000) AS i ON CONFLICT DO NOTHING;", NAME,
        )  # fmt: skip


@contextlib.contextmanager
def dumping(place: Place, rich: Database) -> Iterator[None]:
    """pg_dump runs, and waits for a lock that the census didn't need; given back at the end."""
    with rich.connect() as other:
        other.execute("BEGIN READ WRITE")
        other.execute("LOCK TABLE ONLY parted IN ACCESS EXCLUSIVE MODE")
        yield
        with contextlib.suppress(Exception):
            other.execute("ROLLBACK")


WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'das-tern backup' AND wait_event_type = 'Lock'
"""


def fails(place: Place) -> tuple[threading.Thread, list[str]]:
    """A backup under way, and what it will have said."""
    said: list[str] = []

    def run() -> None:
        with pytest.raises(DasTernError) as refusal, place.alone(60, "a test"):
            logical.take(place, NAME, "", "", "60s")
        said.append(refusal.value.message)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: place.superuser.value(WAITING) > 0)
    return thread, said


def test_pg_dump_is_killed(place: Place, rich: Database, record: Record) -> None:
    before = there(place)
    kill = 'for p in /proc/[0-9]*; do read -r n < $p/comm; [ "$n" = pg_dump ] && kill -9 ${p#/proc/}; done; true'
    with dumping(place, rich):
        thread, said = fails(place)
        place.containers.execute(place.container, ["bash", "-c", kill])
        thread.join(120)
    assert "could not be backed up" in said[0]
    assert there(place) == before
    logical.remove(place, take(place))


def test_the_container_is_stopped(place: Place, rich: Database, record: Record) -> None:
    before = there(place)
    with dumping(place, rich):
        thread, said = fails(place)
        subprocess.run(["docker", "kill", place.container], check=True, capture_output=True)
        thread.join(120)
    assert said, thread
    subprocess.run(["docker", "start", place.container], check=True, capture_output=True)
    ready = ["docker", "exec", place.container, "pg_isready", "-qh127.0.0.1"]
    wait_until(lambda: not subprocess.run(ready).returncode)
    assert [name for name in there(place) if name not in before and not name.endswith(".partial")] == []
    logical.remove(place, take(place))
    assert there(place) == before


def test_the_play_is_killed(place: Place, rich: Database, record: Record) -> None:
    """Its pg_dump goes on and keeps its locks: the next run ends it, and deletes what it wrote."""
    before = there(place)
    code = (
        "import ansible.module_utils, sys; ansible.module_utils.__path__.append('plugins/module_utils')\n"
        "from ansible.module_utils.dastern.backups import logical, records\n"
        f"place = records.Place({_params(place)!r})\n"
        f"with place.alone(9, 'a test'): logical.take(place, {NAME!r}, '', '', '10min')"
    )
    with dumping(place, rich):
        run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        wait_until(lambda: place.superuser.value(WAITING) > 0)
        run.kill()
        run.wait()
        assert len(there(place)) == len(before) + 1
        with pytest.raises(DasTernError, match="keeps one of its tables locked"), place.alone(9, "a test"):
            logical.take(place, NAME, "", "", "100ms")
        assert place.superuser.value(WAITING) == 0
    logical.remove(place, take(place))
    assert there(place) == before


def test_a_run_is_killed_before_its_record_is_written(
    place: Place, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left goes with the next; a backup whose record was lost stays."""
    before = there(place)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Place, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            take(place)
    assert len(there(place)) == len(before) + 2
    lost = take(place)
    place.forget(lost.label)
    newest = take(place)
    assert logical.unknown(place) == [lost.label]
    assert logical.damage(place, lost) == ""
    for one in (lost, newest):
        logical.remove(place, one)
    assert there(place) == before


def test_a_label_is_nobodys_elses(place: Place, record: Record) -> None:
    moment = datetime.strptime(record.label, "%Y%m%d-%H%M%SL").replace(tzinfo=UTC)
    assert logical._label(place, place.folder / "logical", moment) > record.label


@pytest.fixture
def plain(place: Place, rich: Database, tmp_path: Path) -> Path:
    path = tmp_path / "plain.sql"
    plain_sql.write(place, path)
    return path


def refused(place: Place, path: Path, into: str = f"{NAME}_plain") -> str:
    with pytest.raises(DasTernError) as refusal:
        plain_sql.read(place, path, into)
    return refusal.value.message


@pytest.mark.parametrize("suffix", [".sql", ".sql.gz"])
def test_plain_sql_out_and_in(place: Place, rich: Database, tmp_path: Path, suffix: str) -> None:
    path, into = tmp_path / f"new{suffix}", Database(rich.instance, f"{NAME}_plain", rich.folder)
    plain_sql.write(place, path)
    assert (path.stat().st_mode & 0o777, [*tmp_path.iterdir()]) == (0o600, [path])
    try:
        done = plain_sql.read(place, path, into.name)
        assert (done["tables"], done["compared"]) == (ROWS, True)
        live, found = (count(place.superuser, name) for name in (NAME, into.name))
        assert (found.schema, found.properties["owner"]) == (live.schema, "dastern_user")
        assert "exists already" in refused(place, path, into.name)
    finally:
        into.drop()


def test_plain_sql_that_is_cut_or_not_for_here(place: Place, plain: Path) -> None:
    databases = place.superuser.run("SELECT datname FROM pg_database")
    whole = plain.read_bytes()
    within = whole.index(b"\n\\.\n", whole.index(b"COPY public.child "))
    other = plain.with_name("other.sql")
    for end in (within - 5, len(whole) - 200):
        other.write_bytes(whole[:end])
        assert "is cut short" in refused(place, other)
    other.write_bytes(whole.replace(b"\nCREATE TYPE", b"\n\\connect postgres\nCREATE TYPE"))
    assert "without psql's own commands" in refused(place, other)
    other.write_bytes(whole.replace(b'"public.child":20000', b'"public.child":20001'))
    assert "public.child has 20000 rows instead of 20001" in refused(place, other)
    for start, flipped in (
        (b"-- das-tern: {", b"-- das-tern: ["),
        (b'child":2', b'child":\xb2'),
        (b'":2', b'":x'),
    ):
        assert start in whole
        other.write_bytes(whole.replace(start, flipped, 1))
        assert "is damaged: its first line `-- das-tern:`" in refused(place, other)
    other.write_bytes(b"CREATE TABLE a (x text);\nCOPY a FROM stdin;\nabc")
    assert "is cut short" in refused(place, other)
    other.write_bytes(b"SELECT 1/0;\n")
    assert "ERROR:  division by zero" in refused(place, other)
    other.write_bytes(b"PGDMP...")
    assert "isn't plain SQL" in refused(place, other)
    other.write_bytes(b"--\n-- PostgreSQL database cluster dump\n--\n")
    assert "of a whole cluster" in refused(place, other)
    assert "can't be read" in refused(place, plain.with_name("none.sql"))
    packed = plain.with_name("other.sql.gz")
    packed.write_bytes(subprocess.run(["gzip", "-c", str(plain)], capture_output=True, check=True).stdout[:-100])
    assert "cut short" in refused(place, packed)
    assert place.superuser.run("SELECT datname FROM pg_database") == databases


def test_plain_sql_behind_a_run_that_was_killed(place: Place, rich: Database, plain: Path) -> None:
    """What the throwaway server of that one held doesn't come into this one's."""
    volume, into = f"{place.container}-restore-data", Database(rich.instance, f"{NAME}_plain", rich.folder)
    docker("volume", "create", "--label", "org.dastern.role=restore", volume)
    image = docker("inspect", "-f", "{{.Image}}", place.container).stdout.strip()
    cluster.initialise(place.containers, image, volume, f"{place.container}-restore")
    marked = docker(
        "run",
        "--rm",
        "-v",
        f"{volume}:/v",
        "--entrypoint",
        "sh",
        image,
        "-c",
        "echo broken > /v/pgdata/postgresql.conf",
    )
    assert marked.returncode == 0
    try:
        assert plain_sql.read(place, plain, into.name)["compared"]
    finally:
        into.drop()
    docker("volume", "create", volume)  # somebody else's
    try:
        assert volume in refused(place, plain)
        assert volume in docker("volume", "ls", "-q").stdout.split()
    finally:
        docker("volume", "rm", volume)


def test_as_many_tables_as_there_is_room_for_locks(place: Place, rich: Database) -> None:
    """The last number that isn't refused is really possible."""
    own = Database(rich.instance, f"{NAME}_many", rich.folder)
    own.create()
    try:
        locks = Locks.of(place.superuser, own.name)
        most = next(n for n in range(locks.room, 0, -1) if replace(locks, tables=n).fit(logical.HOLDERS))
        make = f"SELECT format('CREATE TABLE many_%s (id int)', i) FROM generate_series(1, {most}) AS i"
        rich.instance.sql(f"{make} \\gexec", own.name)
        with place.alone(60, "a test"):
            record = logical.take(place, own.name, "", "a test", "10s")
            assert len(record.census["tables"]) == most
            assert record.census["schema"]
            logical.remove(place, record)
            rich.instance.sql("CREATE TABLE one_more ()", own.name)
            with pytest.raises(DasTernError) as refusal:
                logical.take(place, own.name, "", "a test", "10s")
        assert refusal.value.facts == {"tables": most + 1, "room": locks.room}
    finally:
        own.drop()


def test_plain_sql_whose_statements_all_say_something(place: Place, rich: Database, tmp_path: Path) -> None:
    """psql stops reading where nobody reads what it says: 2 MB of statements, and 8 MB of what the server says to them."""
    path, into = tmp_path / "loud.sql", Database(rich.instance, f"{NAME}_plain", rich.folder)
    path.write_text("DO $$ BEGIN RAISE NOTICE '%', repeat('x', 200); END $$;\n" * 40_000 + "CREATE TABLE quiet ();\n")
    try:
        assert plain_sql.read(place, path, into.name)["tables"] == {"public.quiet": 0}
    finally:
        into.drop()


def test_plain_sql_typed_into_the_live_database_changes_nothing(place: Place, rich: Database, plain: Path) -> None:
    before = count(place.superuser, NAME)
    command = ["docker", "exec", "-i", "-u", "postgres", place.container, "psql", "-Xq", "-d", NAME]
    env = ["docker", "exec", "-e", "PGOPTIONS=-c default_transaction_read_only=off", *command[2:]]
    for end in (None, -300):
        done = subprocess.run(env, input=plain.read_bytes()[:end], capture_output=True)
        assert (done.returncode, b"already exists" in done.stderr) == (3, True)
    assert count(place.superuser, NAME) == before


def test_plain_sql_is_not_half_there(place: Place, rich: Database, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    try:
        with pytest.raises(DasTernError, match="may not fit into"):
            plain_sql.write(place, tmp_path / "a.sql")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plain_sql, "refuse_full_disk", lambda *_: None)
            with pytest.raises(DasTernError, match="No space left on device"):
                plain_sql.write(place, tmp_path / "a.sql")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    (tmp_path / "a.sql").write_text("mine")
    with pytest.raises(DasTernError, match="exists already"):
        plain_sql.write(place, tmp_path / "a.sql")
    shutil.rmtree(tmp_path)
    with pytest.raises(DasTernError, match="There is no folder"):
        plain_sql.write(place, tmp_path / "a.sql")


def test_plain_sql_in_the_playbook(play: Any, place: Place, rich: Database, tmp_path: Path) -> None:
    variables = {**rich.instance.variables, "postgres_database": NAME, "out": str(tmp_path / "a.sql")}
    check = play("playbooks/plain_sql.yml", variables, "--check")
    assert (check.rc, check.changed, list(tmp_path.iterdir())) == (0, 1, []), check.stdout
    assert "a.sql would be written" in check.section("plain_sql")["lines"][0]
    real = play("playbooks/plain_sql.yml", variables)
    assert (real.rc, (tmp_path / "a.sql").stat().st_size > 100_000) == (0, True), real.stdout
    live = {**variables, "file": str(tmp_path / "a.sql"), "into": NAME}
    del live["out"]
    before = count(place.superuser, NAME)
    asked = play("playbooks/plain_sql.yml", live)
    assert (asked.rc, asked.section("plain_sql")["confirm"]) == (2, NAME), asked.stdout
    assert count(place.superuser, NAME) == before
    rich.instance.sql("SET default_transaction_read_only = off; DELETE FROM child WHERE id <= 20", NAME)
    fewer = count(place.superuser, NAME)
    done = play("playbooks/plain_sql.yml", {**live, "confirm": NAME})
    assert (done.rc, done.changed) == (0, 1), done.stdout
    found = count(place.superuser, NAME)
    assert (found.tables, found.properties) == (before.tables, before.properties)
    undone = play(
        "playbooks/restore.yml", {**rich.instance.variables, "postgres_database": NAME, "undo": True, "confirm": NAME}
    )
    assert undone.rc == 0, undone.stdout
    assert count(place.superuser, NAME).tables == fewer.tables
    for given in ({}, {"out": "/a", "file": "/b", "into": "c"}, {"file": "/b"}):
        with pytest.raises(DasTernError, match="Expected: `-e out=PATH`"):
            plain_sql.plain_sql({**_params(place), "out": "", "file": "", "into": "", **given})
