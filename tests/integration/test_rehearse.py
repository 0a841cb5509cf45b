"""Pending migrations rehearsed on a copy of the live database: the verdict on a large table, refusals, what is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.catalogue.scratch import scratch_database
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.docker.containers import Containers, Output
from ansible.module_utils.dastern.migrations.drift import superuser_of
from ansible.module_utils.dastern.migrations.ledger import Ledger
from ansible.module_utils.dastern.migrations.rehearsal import ARGUMENT_SPEC, rehearse
from ansible.module_utils.dastern.migrations.rehearsal_record import SAFE, WINDOW, record_path, rehearsed, target
from ansible.module_utils.dastern.seeds import volume
from migrating import ROOT, Database, wait_until

INIT = "20260208074559_init"
PATIENTS, DAYS = 830, 400
EVENTS = PATIENTS * volume.events_per_patient(DAYS)


def config_dir(database: Database) -> str:
    return f"{database.folder}-config"


def records(database: Database) -> list[Path]:
    return list(Path(config_dir(database)).glob("rehearsals/*"))


def params(database: Database, **changes: Any) -> dict[str, Any]:
    defaults = {option: spec.get("default") for option, spec in ARGUMENT_SPEC.items()}
    given = {key: value for key, value in database.params().items() if key in ARGUMENT_SPEC}
    return {
        **defaults,
        **given,
        "container": database.instance.container,
        "endpoint": database.instance.endpoint,
        "config_dir": config_dir(database),
        **changes,
    }


def record(on: Database, files: list[MigrationFile], **other: str) -> Path:
    """Where the record of a rehearsal of these files is to be."""
    with on.connect() as connection:
        of = target(connection, {"database": on.name, "schema": "public", **other})
    return record_path(config_dir(on), of, files)


def databases(database: Database) -> list[str]:
    query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
    return [name for (name,) in database.query(query, database.name)]


def refusal(database: Database, **changes: Any) -> str:
    before = database.state()
    with pytest.raises(DasTernError) as refused:
        rehearse(params(database, **changes))
    assert database.state() == before
    assert databases(database) == [database.name]
    assert not records(database)
    return refused.value.message


@pytest.fixture
def small(chain: Database) -> Database:
    chain.migrate()
    chain.query('INSERT INTO "t1" SELECT i FROM generate_series(2, 10) AS i')
    return chain


@pytest.fixture(scope="module")
def large(instance: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Two million dose events."""
    database = Database(instance, "rehearse_large", tmp_path_factory.mktemp("large"))
    database.create()
    database.write(**{f"_{INIT}": (ROOT / "files/sql/migrations" / INIT / "migration.sql").read_text()})
    database.migrate()
    with database.connect() as connection:
        plan = volume.plan(connection, "public", PATIENTS, DAYS)
        volume.fill(connection, "public", plan)
        connection.execute("VACUUM (ANALYZE)")
    yield database
    database.drop()


def test_the_verdict_on_two_million_dose_events(large: Database) -> None:
    assert EVENTS >= 2_000_000
    safe = {
        "_30_nullable": 'ALTER TABLE "dose_events" ADD COLUMN "note" TEXT;',
        "_31_default": 'ALTER TABLE "dose_events" ADD COLUMN "retries" INTEGER NOT NULL DEFAULT 0;',
        "_32_concurrent": 'CREATE INDEX CONCURRENTLY "by_taken" ON "dose_events" ("takenAt");',
        "_33_not_valid": 'ALTER TABLE "dose_events" ADD CONSTRAINT few CHECK ("retries" < 100) NOT VALID;',
        "_34_table": 'CREATE TABLE "copied" AS SELECT "id" FROM "dose_events"; CREATE INDEX ON "copied" ("id");',
    }
    window = {
        "_40_rewrite": 'ALTER TABLE "users" ADD COLUMN "x" TEXT;\n'
        'ALTER TABLE "dose_events" ALTER COLUMN "retries" TYPE BIGINT;\nSELECT 1;',
        "_41_index": 'CREATE INDEX "by_created" ON "dose_events" ("createdAt", "id");',
        "_42_update": 'UPDATE "dose_events" SET "retries" = 1 WHERE "id" IN (SELECT "id" FROM "dose_events" LIMIT 120000)',
    }
    large.write(**safe, **window)
    before = large.state()
    done = rehearse(params(large))
    assert large.state() == before
    assert databases(large) == [large.name]
    files = {file["name"]: file for file in done["files"]}
    for name in safe:
        assert (files[name[1:]]["verdict"], files[name[1:]]["reasons"]) == (SAFE, []), files[name[1:]]
    for name in window:
        assert files[name[1:]]["verdict"] == WINDOW, files[name[1:]]
    assert done["verdict"] == WINDOW

    rewrite = files["40_rewrite"]
    column, alter, _ = rewrite["steps"]
    assert alter["rewritten"] == {"dose_events": EVENTS}
    assert alter["locks"] == [{"table": "dose_events", "mode": "ACCESS EXCLUSIVE", "seconds": alter["held"]}]
    assert 1 < alter["seconds"] <= alter["held"] <= rewrite["seconds"]
    # The lock of the harmless statement before it is held until the end, too, and that is said.
    assert column["seconds"] < 1 < column["held"]
    assert [reason.split(" (line")[0][:40] for reason in rewrite["reasons"]] == [
        '`ALTER TABLE "users" ADD COLUMN "x" TEXT',
        '`ALTER TABLE "dose_events" ALTER COLUMN ',
        '`ALTER TABLE "dose_events" ALTER COLUMN ',
    ]
    assert f"rewrote {EVENTS:,} rows of dose_events" in rewrite["reasons"][2]

    assert files["31_default"]["steps"][0]["rewritten"] == {}
    assert files["31_default"]["locks"][0]["mode"] == "ACCESS EXCLUSIVE"
    assert files["41_index"]["locks"][0]["mode"] == "SHARE"
    assert files["41_index"]["sizes"]["dose_events"] > 20_000_000
    assert files["41_index"]["grown"] > 20_000_000
    concurrent = files["32_concurrent"]
    assert concurrent["split"] is False
    assert [(lock["table"], lock["mode"]) for lock in concurrent["locks"]] == [
        ("dose_events", "SHARE UPDATE EXCLUSIVE")
    ]
    assert concurrent["locks"][0]["seconds"] > 0.1
    assert files["42_update"]["steps"][0]["changed_rows"] == {"dose_events": {"updated": 120_000}}


def test_check_real_again_check(small: Database) -> None:
    small.write(_6_step='ALTER TABLE "t1" ADD COLUMN x INTEGER')
    file = small.files()[-1]
    path = record(small, [file])
    before = small.state()
    check = rehearse(params(small), check_mode=True)
    assert (check["changed"], check["files"]) == (True, [])
    assert rehearsed(path) is None
    real = rehearse(params(small))
    assert (real["changed"], real["verdict"]) == (True, SAFE)
    kept = rehearsed(path)
    assert kept is not None
    assert kept["migrations"] == [{"name": "6_step", "checksum": file.checksum}]
    assert (kept["verdict"], kept["database"], kept["schema"], kept["reasons"]) == (SAFE, small.name, "public", [])
    assert path.stat().st_mode & 0o777 == 0o600
    assert rehearse(params(small))["changed"] is False
    assert rehearse(params(small), check_mode=True)["changed"] is False
    assert small.state() == before
    assert databases(small) == [small.name]
    assert rehearsed(record(small, [file], database="another")) is None
    assert rehearsed(record(small, [file], schema="another")) is None
    small.write(_6_step='ALTER TABLE "t1" ADD COLUMN y INTEGER')
    assert rehearsed(record(small, [small.files()[-1]])) is None
    small.migrate()
    assert rehearse(params(small))["lines"] == ["nothing is pending: nothing to rehearse"]


def test_an_empty_database(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (i INT)", _2_b="CREATE INDEX CONCURRENTLY ai ON a (i)")
    assert rehearse(params(database))["verdict"] == SAFE
    assert database.query("SELECT to_regclass('a')") == [(None,)]


def test_what_the_copy_carries(small: Database) -> None:
    """Owner, grants, other schemas, rows, sequences: a migration finds in the copy what it finds in the live one."""
    small.query(
        "CREATE SCHEMA other; CREATE TABLE other.s (id BIGSERIAL, v TEXT COLLATE \"C\"); INSERT INTO other.s (v) VALUES ('a')"
    )
    small.instance.sql("CREATE TABLE public.of_superuser (); CREATE EXTENSION pg_stat_statements", small.name)
    small.write(
        _6_step="""DO $$ BEGIN
        ASSERT (SELECT array_agg(id ORDER BY id) FROM "t1") = '{1,2,3,4,5,6,7,8,9,10}';
        ASSERT nextval('other.s_id_seq') = 2;
        ASSERT (SELECT tableowner FROM pg_tables WHERE tablename = 's') = current_user;
        ASSERT (SELECT tableowner FROM pg_tables WHERE tablename = 'of_superuser') = 'pg_use_reserved_connections';
        ASSERT (SELECT count(*) FROM _prisma_migrations) = 5;
    END $$"""
    )
    small.instance.sql("ALTER ROLE dastern_user NOCREATEDB")
    try:
        assert rehearse(params(small))["verdict"] == SAFE
    finally:
        small.instance.sql("ALTER ROLE dastern_user CREATEDB")
    assert databases(small) == [small.name]


def test_a_file_that_runs_only_whole(small: Database) -> None:
    small.write(
        _6_step="DO $$ BEGIN ASSERT current_query() LIKE '%ma' || 'rk%'; END $$;\n"
        "LOCK TABLE \"t2\" IN EXCLUSIVE MODE; SELECT pg_sleep(0.5), 'mark'"
    )
    (file,) = rehearse(params(small, limit="200ms"))["files"]
    assert file["split"] is False
    assert [(lock["table"], lock["mode"]) for lock in file["locks"]] == [("t2", "EXCLUSIVE")]
    assert 0.3 < file["locks"][0]["seconds"] < 2
    assert file["verdict"] == WINDOW


def test_a_rewrite_outside_a_transaction(small: Database) -> None:
    small.query('VACUUM (ANALYZE) "t1"')
    small.write(_6_step='VACUUM (FULL) "t1"', _7_step='TRUNCATE "t1"')
    first, second = rehearse(params(small))["files"]
    assert first["steps"][0]["rewritten"] == {"t1": 10}
    assert second["steps"][0]["rewritten"] == {}
    assert second["locks"][0]["mode"] == "ACCESS EXCLUSIVE"


def test_the_copy_goes_although_the_superuser_is_at_work_there(small: Database) -> None:
    superuser = superuser_of(params(small))
    with small.connect() as live, scratch_database(live, small.params(), superuser=superuser) as own:
        name = own.info.dbname
        psql = [
            "docker",
            "exec",
            "-u",
            "postgres",
            small.instance.container,
            "psql",
            "-qc",
            "SELECT pg_sleep(60)",
            name,
        ]
        process = subprocess.Popen(psql, stderr=subprocess.DEVNULL)
        wait_until(lambda: running_as_superuser(small, name))
    assert process.wait() != 0
    assert databases(small) == [small.name]


def running_as_superuser(database: Database, name: str) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres' AND datname = %s"
    return database.query(query, name) == [(1,)]


def test_rows_locked_by_an_update_and_locks_held_through_it(small: Database) -> None:
    small.write(
        _6_step='ALTER TABLE "t2" ADD COLUMN x INT;\nUPDATE "t1" SET id = id + 100 WHERE id > 2;\nSELECT pg_sleep(0.3);',
        _7_step='BEGIN; ALTER TABLE "t3" ADD COLUMN x INT; COMMIT; SELECT pg_sleep(0.3); BEGIN; TRUNCATE "t1"; COMMIT;',
    )
    done = rehearse(params(small, limit="200ms"))
    first, second = done["files"]
    alter, update, sleep = first["steps"]
    assert [lock["mode"] for lock in alter["locks"]] == ["ACCESS EXCLUSIVE"]
    assert update["changed_rows"] == {"t1": {"updated": 8}}
    assert update["locks"] == [{"table": "t1", "mode": "ROW EXCLUSIVE", "seconds": update["held"]}]
    assert sleep["locks"] == []
    assert len(first["reasons"]) == 1
    assert "held ACCESS EXCLUSIVE on t2 for 0." in first["reasons"][0]
    # Its own COMMIT gave the lock back before the wait.
    assert (second["verdict"], second["split"]) == (SAFE, True)
    assert [step["rewritten"] for step in second["steps"]] == [{}, {}, {}]


def test_a_failing_migration_is_named_and_leaves_nothing(small: Database) -> None:
    small.write(_6_step='CREATE TABLE "t6" ();')
    rehearse(params(small))
    small.query("UPDATE \"t1\" SET note = 'twice' WHERE id > 8")
    small.write(_7_step='SELECT 1;\nALTER TABLE "t1" ADD CONSTRAINT u UNIQUE (note);\nSELECT 2;')
    for path in records(small):
        path.unlink()
    message = refusal(small)
    assert "Migration 7_step fails (P3018) on a copy" in message
    assert "7_step/migration.sql, line 2" in message
    assert "23505" in message
    assert "Key (note)=(twice) is duplicated" in message
    # What ran through once and doesn't any more, isn't rehearsed.
    small.query('UPDATE "t1" SET note = NULL')
    rehearse(params(small))
    assert rehearsed(record(small, small.files()[-2:])) is not None
    small.query("UPDATE \"t1\" SET note = 'twice'")
    refusal(small)
    assert rehearsed(record(small, small.files()[-2:])) is None


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN;\nCREATE TABLE x ();\nCOMMIT;\n\nBEGIN;\nSELECT 1;\nSELECT nope\nFROM x;\nCOMMIT;",
        "BEGIN;\nCREATE TABLE x ();\nCOMMIT;\n\nBEGIN;\nSELECT 1;\nSELECT 1/0;\nCOMMIT;",
    ],
)
def test_a_failure_in_a_later_transaction_names_its_line(small: Database, sql: str) -> None:
    small.write(_6_step=sql)
    message = refusal(small)
    assert "6_step/migration.sql, line 7" in message
    assert "  statement:  SELECT " + ("nope FROM x" if "nope" in sql else "1/0") in message


@pytest.mark.parametrize("ended", [True, False])
def test_an_interrupted_index_is_picked_up_as_migrate_does(small: Database, ended: bool) -> None:
    small.write(_6_step='CREATE INDEX CONCURRENTLY late ON "t1" (note)', _7_step='DROP INDEX "t1_note_idx"')
    with small.connect() as connection:
        Ledger(connection, "public").record_started(small.files()[-2])
    if ended:
        small.query('CREATE INDEX late ON "t1" (note)')
    before = small.state()
    index, drop = rehearse(params(small))["files"]
    assert small.state() == before
    assert len(index["steps"]) == (0 if ended else 1)
    assert (index["verdict"], drop["verdict"], len(drop["steps"])) == (SAFE, SAFE, 1)
    assert databases(small) == [small.name]


def test_an_empty_migration_is_refused_unless_it_is_wanted(small: Database) -> None:
    small.write(_6_step="CREATE VIEW v AS SELECT 1", _7_new="-- still to be written")
    for check_mode in (True, False):
        with pytest.raises(DasTernError, match="Migration 7_new is pending and empty") as refused:
            rehearse(params(small), check_mode=check_mode)
        assert refused.value.facts["empty"] == ["7_new"]
    done = rehearse(params(small, allow_empty=True))
    assert [one["name"] for one in done["files"]] == ["6_step", "7_new"]


def test_what_migrate_asks_for_is_what_a_rehearsal_leaves(small: Database) -> None:
    small.write(_6_step="CREATE VIEW v AS SELECT 1")
    given = {"require_rehearsal": True, "password_file": f"{config_dir(small)}/app_password"}
    Path(config_dir(small)).mkdir()
    Path(given["password_file"]).symlink_to(small.instance.password_file)  # type: ignore[arg-type]
    with pytest.raises(DasTernError, match="were not rehearsed with exactly these files"):
        small.migrate(**given)
    rehearse(params(small))
    assert small.migrate(**given)["applied_now"][0]["name"] == "6_step"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("CREATE INDEX CONCURRENTLY ON nothing (i)", "42P01"),
        ("SELECT 1; CREATE INDEX CONCURRENTLY ON t1 (id)", "25001"),
        ("BEGIN; CREATE TABLE x (); COMMIT; SELECT nothing", "42703"),
        ("COPY t1 FROM STDIN", "the COPY in line 1 moves rows between server and client"),
        (
            "DO $$ BEGIN EXECUTE 'ALTER ROLE CURRENT_USER SET work_mem = 5000'; END $$",
            "changes objects that all databases",
        ),
        ("BEGIN; SELECT 1", "has no COMMIT"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "fails (P3018) on a copy"),
    ],
)
def test_refused_files(small: Database, sql: str, words: str) -> None:
    small.write(_6_step=sql)
    assert words in refusal(small)


def test_what_all_databases_share_is_left_out_and_named(small: Database) -> None:
    """What the words of a file only hold in its strings is nothing that it does."""
    audit = "INSERT INTO audit VALUES (CASE TG_OP WHEN 'INSERT' THEN 'create user' ELSE 'drop user' END); RETURN NEW;"
    small.write(
        _6_step="ALTER ROLE dastern_user SET work_mem = '5MB';\nCREATE TABLE audit (what text);",
        _7_step=f"CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {audit} END $$",
    )
    told = rehearse(params(small))
    assert [file["name"] for file in told["files"]] == ["6_step", "7_step"]
    assert any("left out: `ALTER ROLE dastern_user SET work_mem = '5MB'`" in line for line in told["lines"])
    assert small.query("SELECT count(*) FROM pg_db_role_setting WHERE 'work_mem=5MB' = ANY (setconfig)") == [(0,)]


def test_refused_surroundings(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    small.write(_6_step="SELECT 1")
    assert "`postgres_container_name` is empty" in refusal(small, container="")
    assert "`migrations_rehearsal_limit` is 'long'" in refusal(small, limit="long")
    with small.connect() as other:
        other.execute("SELECT pg_advisory_lock(72707369)")
        assert "The migration lock is held by pid" in refusal(small, lock_wait=0)

    real = Containers.execute

    def full(self: Any, container: str, command: Any, *rest: Any, **more: Any) -> Output:
        if command[0] == "df":
            return Output(0, "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 90 10 90% /\n", "")
        return real(self, container, command, *rest, **more)

    monkeypatch.setattr(Containers, "execute", full)
    message = refusal(small)
    assert "has 10 kB free: a full disk would stop the live server. Nothing was copied" in message
    with pytest.raises(DasTernError, match="a full disk would stop"):
        rehearse(params(small), check_mode=True)


def test_a_copy_that_fails_is_removed(small: Database) -> None:
    small.write(_6_step="SELECT 1")
    with psycopg.connect(small.instance.url.rpartition("/")[0] + f"/{small.name}") as other:
        other.execute('LOCK TABLE "t3" IN ACCESS EXCLUSIVE MODE')
        message = refusal(small, lock_timeout="200ms")
        assert f"in the way: pid {other.info.backend_pid} (user " in message
    assert "could not be copied" in message


def test_killed_in_the_middle_the_next_one_removes_the_copy(small: Database) -> None:
    small.write(_6_step="SELECT pg_sleep(60)")
    code = (
        "import json, sys; import ansible.module_utils as m; m.__path__.append(sys.argv[1]);"
        "from ansible.module_utils.dastern.migrations.rehearsal import rehearse; rehearse(json.load(sys.stdin))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT / "plugins/module_utils")], stdin=subprocess.PIPE, text=True
    )
    assert process.stdin
    process.stdin.write(json.dumps(params(small)))
    process.stdin.close()
    query = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, %s || '_scratch_')"
    wait_until(lambda: small.query(query + " AND query LIKE '%%pg_sleep%%' AND state = 'active'", small.name) != [(0,)])
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = databases(small)
    assert len(left) == 2
    wait_until(lambda: small.query(query, small.name) == [(0,)])
    small.write(_6_step="SELECT 1")
    rehearse(params(small), leftover_after=0)
    assert databases(small) == [small.name]


def test_playbook_four_times(small: Database, tmp_path: Path) -> None:
    small.write(_6_step='ALTER TABLE "t1" ADD COLUMN x INTEGER;\nSELECT pg_sleep(0.3);')
    report = tmp_path / "report.json"
    variables = {
        "playbook": "playbooks/rehearse.yml",
        "postgres_container_name": small.instance.container,
        "postgres_config_dir": str(small.instance.config_dir),
        "report_file": str(report),
        "migrations_rehearsal_limit": "100ms",
    }
    before = small.state()
    for arguments, changed in ((("--check",), 1), ((), 1), ((), 0), (("--check",), 0)):
        done = small.play(*arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"· {changed} changed ·" in done.stdout
    assert small.state() == before
    # The module on the host, in a Python that isn't this one's.
    (tmp_path / "environment").symlink_to(Path(sys.prefix))
    python = tmp_path / "environment" / "bin" / "python"
    done = small.play(ansible_python_interpreter=python, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "· 0 changed ·" in done.stdout
    assert "held ACCESS EXCLUSIVE on t1" in done.stdout
    done = small.play("-e", "fail_on_window=true", **variables)
    assert done.returncode == 2
    assert "pending migrations of database" in done.stdout
    section = next(iter(json.loads(report.read_text())["hosts"].values()))["sections"]["rehearsal"]
    assert section["verdict"] == WINDOW
    assert databases(small) == [small.name]
