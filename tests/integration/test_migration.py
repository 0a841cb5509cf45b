"""The migration module against a real PostgreSQL 17: what it applies, what it refuses, what it leaves behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import read_folder
from ansible.module_utils.dastern.migrations.ledger import Ledger
from ansible.module_utils.dastern.migrations.new_migration import UP_TEXT
from ansible.module_utils.dastern.server import blockers
from catalogue import catalogue, expected
from conftest import descendants
from migrating import LOCK, ROOT, Database, refused, running, wait_until

NAMES = [f"{number}_step" for number in range(1, 6)]


# --- what it does


def test_check_real_again_check(chain: Database) -> None:
    before = chain.state()
    planned = chain.migrate(check_mode=True, diff=True)
    assert (planned["changed"], planned["pending"], planned["applied"]) == (True, NAMES, [])
    assert [one["after_header"] for one in planned["diff"]] == NAMES
    assert chain.state() == before

    done = chain.migrate()
    assert (done["changed"], done["pending"], done["applied"]) == (True, [], NAMES)
    assert [one["name"] for one in done["applied_now"]] == NAMES
    assert all(one["ms"] > 0 for one in done["applied_now"])
    assert chain.query('SELECT note FROM "t5"') == [("ថ្នាំ",)]

    before = chain.state()
    for check_mode in (False, True):
        again = chain.migrate(check_mode=check_mode)
        assert (again["changed"], again["applied_now"], again["applied"]) == (False, [], NAMES)
    assert chain.state() == before


def test_ledger_is_what_prisma_writes(chain: Database) -> None:
    chain.migrate()
    columns = chain.query(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid) FROM pg_attribute"
        " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE attrelid = '_prisma_migrations'::regclass AND attnum > 0 ORDER BY attnum"
    )
    zoned = "timestamp with time zone"
    assert columns == [
        ("id", "character varying(36)", True, None),
        ("checksum", "character varying(64)", True, None),
        ("finished_at", zoned, False, None),
        ("migration_name", "character varying(255)", True, None),
        ("logs", "text", False, None),
        ("rolled_back_at", zoned, False, None),
        ("started_at", zoned, True, "now()"),
        ("applied_steps_count", "integer", True, "0"),
    ]
    assert chain.query(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '_prisma_migrations'::regclass"
    ) == [("_prisma_migrations_pkey",)]
    rows = chain.query("SELECT * FROM _prisma_migrations ORDER BY started_at")
    for name, row in zip(NAMES, rows, strict=True):
        identifier, checksum, finished, migration, logs, rolled_back, started, steps = row
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", identifier)
        assert checksum == hashlib.sha256((chain.folder / name / "migration.sql").read_bytes()).hexdigest()
        assert (migration, logs, rolled_back, steps) == (name, None, None, 1)
        assert started <= finished
        assert (started.microsecond % 1000, finished.microsecond % 1000) == (0, 0)
    assert [
        name
        for (name,) in chain.query(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind = 'r' AND relname !~ '^t[0-9]'"
        )
    ] == ["_prisma_migrations"]


def test_second_run_passes_on_a_read_only_database(chain: Database) -> None:
    chain.migrate()
    chain.query(f'ALTER DATABASE "{chain.name}" SET default_transaction_read_only = on')
    assert chain.migrate()["changed"] is False
    chain.write(_6_more="CREATE TABLE t6 ();")
    with pytest.raises(DasTernError, match="25006"):
        chain.migrate()


def test_empty_folder_and_comment_only_file(database: Database) -> None:
    assert database.migrate()["changed"] is False
    assert database.ledger() == []
    database.write(_0_init="-- This is an empty migration.", _1_a="CREATE TABLE a ();", _2_b=UP_TEXT.format(name="b"))
    refusal = refused(database)
    assert refusal.facts["empty"] == ["0_init", "2_b"]
    assert "`prisma migrate dev --create-only`" in refusal.message
    assert f"{database.folder}/2_b/migration.sql is still the template that new_migration.yml wrote" in refusal.message
    assert "`-e migrations_allow_empty=true`" in refusal.message
    assert database.migrate(state="status")["empty"] == ["0_init", "2_b"]
    with pytest.raises(DasTernError) as planned:
        database.migrate(check_mode=True, assume_empty=True)
    assert planned.value.facts["empty"] == ["0_init", "2_b"]
    assert database.migrate(allow_empty=True)["applied"] == ["0_init", "1_a", "2_b"]
    # What is applied is applied.
    assert (database.migrate()["changed"], database.migrate(state="status")["empty"]) == (False, [])


def test_an_edited_file_and_the_way_out_that_only_development_has(chain: Database) -> None:
    chain.migrate()
    chain.write(_2_step="SELECT 2")
    for environment, words in (("development", True), ("production", False), ("", False)):
        message = refused(chain, environment=environment).message
        assert ("`ansible-playbook playbooks/reset.yml -e confirm=" in message) is words


def test_session_settings_do_not_leak(database: Database) -> None:
    database.write(
        _1_a="SELECT pg_catalog.set_config('search_path', '', false); SET lock_timeout = '1ms'; CREATE TEMP TABLE x ();",
        _2_b="CREATE TABLE here (); CREATE TEMP TABLE x ();\nDO $$ BEGIN ASSERT current_setting('lock_timeout') = '10s'; END $$",
        _3_c="SELECT 1 -- no newline at the end",
    )
    assert database.migrate()["applied"] == ["1_a", "2_b", "3_c"]
    assert database.query("SELECT 'public.here'::regclass::text") == [("here",)]


def test_percent_signs_and_statement_count(database: Database) -> None:
    database.write(_1_a="CREATE TABLE p (x text DEFAULT '100 %s %(a)s %');\n" + "INSERT INTO p DEFAULT VALUES;\n" * 50)
    database.migrate()
    assert database.query("SELECT count(*), min(x) FROM p") == [(50, "100 %s %(a)s %")]


def test_what_libpq_finds_in_the_environment_is_ignored(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGCLIENTENCODING": "LATIN1", "PGHOSTADDR": "192.0.2.1", "PGOPTIONS": "-c role=x"}.items():
        monkeypatch.setenv(name, value)
    database.write(_1_a="CREATE TABLE a AS SELECT 'ខ្មែរ é' AS x;")
    database.migrate(connect_timeout=3)
    assert database.query("SELECT x, length(x) FROM a") == [("ខ្មែរ é", 7)]


def test_other_schema(database: Database) -> None:
    database.query('CREATE SCHEMA "my App"')
    database.write(_1_a="CREATE TABLE here ();")
    assert database.migrate(schema="my App")["changed"] is True
    assert database.migrate(schema="my App")["changed"] is False
    assert database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'my App' ORDER BY 1") == [
        ("_prisma_migrations",),
        ("here",),
    ]


def test_line_endings_may_change_after_it_was_applied(chain: Database) -> None:
    chain.migrate()
    path = chain.folder / "2_step" / "migration.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert chain.migrate()["edited"] == []


def test_the_catalogue_equals_the_facts(database: Database) -> None:
    database.migrate(
        migrations=[{"name": one.name, "sql": one.sql} for one in read_folder(ROOT / "files/sql/migrations")]
    )
    found = catalogue(database.query)
    wanted = expected()
    for part in wanted:
        assert found[part] == wanted[part], part
    assert (len(found["enums"]), len(found["columns"])) == (13, 11)
    assert sum(map(len, found["columns"].values())) == 116
    assert sum(map(len, found["constraints"].values())) == 11 + 16
    assert sum(map(len, found["indexes"].values())) == 49


# --- what it refuses, leaving nothing behind


def test_broken_sql_in_the_third_of_five(chain: Database) -> None:
    chain.write(_3_step="CREATE TABLE ok ();\n\n-- now it comes\nCREATE TABEL broken ();\n")
    with pytest.raises(DasTernError) as failure:
        chain.migrate()
    facts = failure.value.facts
    assert (facts["sqlstate"], facts["line"], facts["column"], facts["code"]) == ("42601", 4, 8, "P3018")
    assert facts["statement"].startswith("CREATE TABEL broken")
    assert facts["file"] == str(chain.folder / "3_step" / "migration.sql")
    assert [one["name"] for one in facts["applied_before"]] == ["1_step", "2_step"]
    assert facts["not_tried"] == ["4_step", "5_step"]
    assert "Applied before it in this run: 2. Not tried: 2." in failure.value.message
    assert chain.ledger() == ["1_step", "2_step"]
    assert chain.query("SELECT to_regclass('ok'), to_regclass('t4')") == [(None, None)]
    chain.write(_3_step="SELECT 1;")
    assert chain.migrate()["applied"] == NAMES


def test_an_error_without_a_position_names_its_statement(database: Database) -> None:
    database.write(
        _1_a="CREATE TABLE a (id int PRIMARY KEY);\nINSERT INTO a VALUES (1);\n\nINSERT INTO a\n  VALUES (1);\nSELECT 1;"
    )
    with pytest.raises(DasTernError) as failure:
        database.migrate()
    assert failure.value.facts["sqlstate"] == "23505"
    assert failure.value.facts["line"] == 4
    assert failure.value.facts["statement"] == "INSERT INTO a\n  VALUES (1)"
    assert "Key (id)=(1) already exists." in failure.value.message
    assert database.ledger() == []


@pytest.mark.parametrize(
    ("text", "sqlstate", "words"),
    [
        (
            "CREATE TABLE a (id int); CREATE INDEX CONCURRENTLY x ON a (id);",
            "25001",
            "refuses to run inside a transaction",
        ),
        (
            "CREATE TYPE e AS ENUM ('a'); CREATE TABLE f (x e); ALTER TYPE e ADD VALUE 'b'; COMMENT ON TABLE f IS 'x'",
            None,
            "",
        ),
        ("CREATE ROLE someone", "42501", "lacks a privilege"),
        ("SELECT pg_sleep(5)", "57014", "migrations_statement_timeout"),
    ],
)
def test_the_servers_error_gets_words(database: Database, text: str, sqlstate: str | None, words: str) -> None:
    database.write(_1_a=text)
    if sqlstate is None:
        assert database.migrate()["changed"] is True
        database.write(_2_b="ALTER TYPE e ADD VALUE 'c'; INSERT INTO f VALUES ('c');")
        sqlstate, words = "55P04", "a migration of its own"
    with pytest.raises(DasTernError) as failure:
        database.migrate(statement_timeout="500ms")
    assert failure.value.facts["sqlstate"] == sqlstate
    assert words in failure.value.message


def test_a_transaction_that_lasts_too_long(database: Database) -> None:
    """Each statement is short enough; together they would hold the lock for longer than was allowed."""
    database.write(
        _1_a="CREATE TABLE a (id int);",
        _2_b="LOCK a; SELECT pg_sleep(0.4); SELECT pg_sleep(0.4); SELECT pg_sleep(0.4);",
    )
    with pytest.raises(DasTernError) as failure:
        database.migrate(transaction_timeout="900ms", statement_timeout="600ms")
    assert failure.value.facts["sqlstate"] == "25P04"
    assert "migrations_transaction_timeout" in failure.value.message
    assert database.ledger() == ["1_a"]
    assert database.migrate(transaction_timeout="5s")["changed"] is True


def test_copy_from_the_client(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (id int);\nCOPY a FROM STDIN;\n1\n\\.\n")
    with pytest.raises(DasTernError, match="1_a"):
        database.migrate()
    assert database.ledger() == []
    database.write(_1_a="CREATE TABLE a (id int); COPY a FROM STDIN;")
    with pytest.raises(DasTernError, match="keep the rows in a seed"):
        database.migrate()
    assert database.ledger() == []
    assert database.query("SELECT to_regclass('a')") == [(None,)]


def test_a_commit_that_only_the_server_sees(database: Database) -> None:
    """What the scanner misses, here in a string of the old kind, must still be told as it is."""
    database.write(
        _1_a="CREATE TABLE a (); SET standard_conforming_strings = off;",
        _2_b="CREATE TABLE b ();\nSET standard_conforming_strings = off;",
    )
    database.migrate()
    database.query(f'ALTER DATABASE "{database.name}" SET standard_conforming_strings = off')
    database.write(_3_c="CREATE TABLE c ();\nSELECT '\\'; SELECT '; COMMIT; SELECT 1/0; --'")
    with pytest.raises(DasTernError) as failure:
        database.migrate()
    remains = database.query("SELECT to_regclass('c')") != [(None,)]
    assert ("is committed" in failure.value.message) == remains
    assert ("nothing of it remains" in failure.value.message) != remains


def test_edited_missing_and_out_of_order(chain: Database) -> None:
    chain.migrate(migrations=[one for one in chain.params()["migrations"] if one["name"] != "3_step"])
    chain.write(_2_step="-- edited")
    (chain.folder / "1_step" / "migration.sql").unlink()
    (chain.folder / "1_step").rmdir()
    refusal = refused(chain, on_out_of_order="fail")
    assert (refusal.facts["edited"], refusal.facts["missing"], refusal.facts["out_of_order"]) == (
        ["2_step"],
        ["1_step"],
        ["3_step"],
    )
    for words in (
        "2_step was edited after it was applied",
        "1_step is applied in the database, but",
        "3_step is pending but older",
    ):
        assert words in refusal.message
    assert "edited" in refused(chain, on_missing="ignore").message
    assert "edited after" not in refused(chain, on_edited="ignore").message
    result = chain.migrate(on_edited="ignore", on_missing="warn")
    assert result["applied_now"][0]["name"] == "3_step"
    assert len(result["notices"]) == 2
    assert chain.query("SELECT count(*) FROM t3") == [(1,)]


def test_a_failed_row_blocks(chain: Database) -> None:
    chain.migrate(migrations=chain.params()["migrations"][:1])
    chain.query(
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, logs) VALUES ('x', 'y', '2_step', 'ERROR')"
    )
    refusal = refused(chain)
    assert "P3009" in refusal.message
    assert "resolve_migration.yml -e rolled_back=2_step" in refusal.message
    chain.query("UPDATE _prisma_migrations SET rolled_back_at = now() WHERE migration_name = '2_step'")
    assert chain.migrate()["applied"] == NAMES


def test_tables_without_a_ledger(chain: Database) -> None:
    chain.query("CREATE TABLE here ()")
    refusal = refused(chain)
    assert "P3005" in refusal.message
    assert "here" in refusal.message
    status = chain.play(playbook="playbooks/migration_status.yml")
    assert status.returncode == 2, status.stdout
    assert "playbooks/baseline.yml" in status.stdout
    assert "migrate.yml" not in status.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lock_timeout", "soon"),
        ("statement_timeout", "-1"),
        ("transaction_timeout", "x"),
        ("lock_timeout", "1 fortnight"),
    ],
)
def test_a_wrong_time(chain: Database, name: str, value: str) -> None:
    assert f"`migrations_{name}` is '{value}'" in refused(chain, **{name: value}).message


def test_connection_refusals(chain: Database, tmp_path: Path) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("not-it")
    for changes, words in (
        ({"port": 1}, "P1001"),
        ({"database": "nowhere"}, "P1003"),
        ({"password_file": str(wrong)}, "P1000"),
        ({"password_file": str(tmp_path / "none")}, "does not exist on this host"),
    ):
        with pytest.raises(DasTernError) as refusal:
            chain.migrate(**changes)
        assert words in refusal.value.message
        assert "not-it" not in refusal.value.message
        status = chain.migrate(state="status", **changes)
        assert (status["reachable"], words in status["message"]) == (False, True)


def test_no_connection_left(chain: Database) -> None:
    with contextlib.ExitStack() as others:
        with contextlib.suppress(psycopg.OperationalError):
            for _ in range(100):
                others.enter_context(chain.connect())
        with pytest.raises(DasTernError, match="has no connection left for dastern_user"):
            chain.migrate()
    assert chain.migrate()["changed"] is True


def test_a_ledger_that_cannot_be_read(chain: Database) -> None:
    chain.migrate()
    chain.query("ALTER TABLE _prisma_migrations DROP COLUMN logs")
    refusal = refused(chain)
    assert "Reading the ledger of schema public" in refusal.message
    assert "42703" in refusal.message
    status = chain.migrate(state="status")
    assert status["reachable"] is True
    assert "isn't as Prisma creates it" in status["unreadable"]


def test_status_reports_and_never_refuses(chain: Database) -> None:
    chain.migrate(migrations=chain.params()["migrations"][1:3])
    chain.write(_2_step="-- edited")
    with chain.connect() as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        status = chain.migrate(state="status")
    assert status["applied"] == ["2_step", "3_step"]
    assert status["pending"] == ["1_step", "4_step", "5_step"]
    assert (status["edited"], status["out_of_order"], status["changed"]) == (["2_step"], ["1_step"], False)
    assert status["locked_by"]["client"]


# --- locks, interruptions, and the playbook itself


def test_blocked_table_gives_up_after_lock_timeout(database: Database) -> None:
    database.write(_1_a="CREATE TABLE busy (id int);")
    database.migrate()
    database.write(_2_b="ALTER TABLE busy ADD COLUMN note text;")
    with database.connect() as other, other.transaction():
        other.execute("SELECT * FROM busy")
        began = time.monotonic()
        with pytest.raises(DasTernError, match="55P03"):
            database.migrate(lock_timeout="300ms")
        assert time.monotonic() - began < 5
    assert database.migrate()["applied"] == ["1_a", "2_b"]


def test_who_is_in_the_way_is_named(database: Database) -> None:
    database.write(_1_i="CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);")
    database.migrate()
    database.write(_2_col="ALTER TABLE t ADD COLUMN x int;")
    with database.connect() as other, other.transaction():
        other.execute("SET LOCAL application_name = 'night report'")
        other.execute("SELECT id, '\x1b[31m' AS red\nFROM t -- " + "x" * 300)
        with pytest.raises(DasTernError) as failure:
            database.migrate(lock_timeout="2s")
        (one,) = failure.value.facts["blockers"]
        assert one["pid"] == other.info.backend_pid
        assert (one["user"], one["application"], one["state"]) == (
            database.instance.app_user, "night report", "idle in transaction",
        )  # fmt: skip
        assert one["since"].startswith("20")
        line = next(line for line in failure.value.message.splitlines() if line.startswith("  blocked by: "))
        for words in (
            f"pid {one['pid']} (user dastern_user, application night report, ",
            "query: SELECT id, '\\x1b[31m'",
        ):
            assert words in line
        assert "\x1b" not in failure.value.message
        assert len(line) < 400
    database.migrate()


def test_of_another_roles_session_only_what_this_one_may_see(database: Database) -> None:
    database.write(_1_i="CREATE TABLE t (id int);")
    database.migrate()
    database.write(_2_col="ALTER TABLE t ADD COLUMN x int;")
    command = [
        "docker",
        "exec",
        "-i",
        "-u",
        "postgres",
        database.instance.container,
        "psql",
        "-XAtq",
        "-d",
        database.name,
    ]
    session = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert session.stdin
    assert session.stdout
    try:
        session.stdin.write("BEGIN; SELECT 'secret', count(*) FROM t;\n")
        session.stdin.flush()
        session.stdout.readline()
        with pytest.raises(DasTernError) as failure:
            database.migrate(lock_timeout="2s")
    finally:
        session.stdin.close()
        session.wait()
    (one,) = failure.value.facts["blockers"]
    assert (one["user"], one["application"], one["state"], one["query"]) == ("postgres", "psql", None, None)
    assert "query not visible to this role" in failure.value.message
    assert "secret" not in failure.value.message


def test_a_run_that_waits_for_nobody_makes_no_second_connection(
    chain: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockers, "connect", lambda *_: pytest.fail("connected"))
    assert chain.migrate()["applied"] == NAMES


def test_held_lock(chain: Database) -> None:
    with chain.connect() as other:
        other.execute("SET application_name = 'prisma'")
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        pid = other.info.backend_pid
        assert chain.migrate(check_mode=True)["pending"] == NAMES  # check mode waits for nobody
        assert chain.migrate(lock_wait=0)["locked_by"]["pid"] == pid
        with pytest.raises(DasTernError, match=f"P1002.*pid {pid} .prisma, client"):
            chain.migrate(lock_wait=1)
    assert chain.ledger() == []
    assert chain.migrate()["changed"] is True
    with chain.connect() as other:
        other.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        assert chain.migrate()["changed"] is False  # nothing to do needs no lock


def test_two_at_once_each_file_once(chain: Database) -> None:
    chain.write(_1_step="SELECT pg_sleep(1); CREATE TABLE t1 ();")
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(chain.migrate(lock_wait=60))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(result["applied_now"]) for result in results) == [0, 0, 0, 5]
    assert all(result["waited_for"]["pid"] for result in results if not result["applied_now"])
    assert chain.ledger() == NAMES


def test_another_run_begins_between_two_questions(chain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that weren't there when the ledger was looked for don't make it a database without one."""
    ask = Ledger.rows

    def rows_and_another_run(ledger: Ledger) -> Any:
        found = ask(ledger)
        monkeypatch.undo()
        chain.migrate()
        return found

    monkeypatch.setattr(Ledger, "rows", rows_and_another_run)
    assert chain.migrate()["applied"] == NAMES


def test_second_playbook_says_for_whom_it_waits(chain: Database) -> None:
    chain.write(_1_step="SELECT pg_advisory_xact_lock(4711); CREATE TABLE t1 ();")
    with chain.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(4711)")
        with subprocess.Popen(chain.playbook(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
            wait_until(lambda: running(chain, "pg_advisory_xact_lock"))
            with subprocess.Popen(chain.playbook(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as second:
                assert second.stdout
                said = ""
                while "waiting for pid" not in said:
                    line = second.stdout.readline()
                    assert line, said
                    said += line
                gate.execute("SELECT pg_advisory_unlock(4711)")
                said += second.communicate(timeout=60)[0]
            output, _ = first.communicate(timeout=60)
    assert first.returncode == second.returncode == 0, output + said
    assert "· 1 changed ·" in output
    assert "(das-tern migrate, client" in said
    assert "· 0 changed ·" in said
    assert chain.ledger() == NAMES


def test_kill_9_in_the_middle_then_a_rerun(chain: Database) -> None:
    chain.write(_3_step="CREATE TABLE t3 (); SELECT pg_sleep(30);")
    first = subprocess.Popen(chain.playbook(), cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until(lambda: running(chain, "pg_sleep"))
    for pid in descendants(first.pid):
        os.kill(pid, signal.SIGKILL)
    first.wait()
    chain.write(_3_step="CREATE TABLE t3 ();")
    second = chain.play()  # the server notices within two seconds that the client is gone
    assert second.returncode == 0, second.stdout
    assert "3_step applied in" in second.stdout
    assert chain.ledger() == NAMES


def test_kill_9_of_the_controller_alone_lets_its_worker_finish(chain: Database) -> None:
    chain.write(_3_step="SELECT pg_advisory_xact_lock(4711); CREATE TABLE t3 ();")
    with chain.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(4711)")
        first = subprocess.Popen(chain.playbook(), cwd=ROOT, stdout=subprocess.DEVNULL)
        wait_until(lambda: running(chain, "pg_advisory_xact_lock"))
        first.kill()
        first.wait()
        with subprocess.Popen(chain.playbook(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout
            while "waiting for pid" not in (line := second.stdout.readline()):
                assert line
            gate.execute("SELECT pg_advisory_unlock(4711)")
            rest, _ = second.communicate(timeout=60)
    assert second.returncode == 0, rest
    assert chain.ledger() == NAMES


def test_backend_killed_in_the_middle(chain: Database) -> None:
    chain.write(_3_step="CREATE TABLE t3 (); SELECT pg_terminate_backend(pg_backend_pid());")
    with pytest.raises(DasTernError) as failure:
        chain.migrate()
    assert failure.value.facts["failed_migration"] == "3_step"
    assert chain.ledger() == ["1_step", "2_step"]
    chain.write(_3_step="CREATE TABLE t3 ();")
    assert chain.migrate()["applied"] == NAMES


@pytest.mark.parametrize("interpreter", [None, "another path to the same Python"])
def test_playbook_in_process_and_as_a_module(
    chain: Database, tmp_path_factory: pytest.TempPathFactory, interpreter: str | None
) -> None:
    """Where the host isn't the controller the module runs in a Python of its own: the outcome is the same."""
    variables: dict[str, Any] = {}
    if interpreter:
        link = tmp_path_factory.mktemp("python") / "environment"
        link.symlink_to(sys.prefix)
        variables["ansible_python_interpreter"] = link / "bin" / "python"
    report = chain.folder.parent / "report.json"
    check = chain.play("--check", "--diff", **variables)
    assert (check.returncode, "would apply 5_step" in check.stdout) == (0, True), check.stdout
    assert '+CREATE TABLE "t4"' in check.stdout
    assert chain.ledger() == []
    first = chain.play("-vvv", report_file=report, **variables)
    assert (first.returncode, "· 1 changed ·" in first.stdout) == (0, True), first.stdout
    assert ("Using module file" in first.stdout) == bool(interpreter)
    for secret in (Path(chain.instance.password_file).read_text().strip(), "CREATE TABLE"):
        assert secret not in first.stdout + first.stderr
    section = yaml.safe_load(report.read_text())["hosts"]["localhost"]["sections"]["migrations"]
    assert [one["name"] for one in section["applied_now"]] == NAMES
    again = chain.play("--check", **variables)
    assert "· 0 changed ·" in again.stdout
    chain.write(_6_bad="SELECT 1;\nSELEC 2;")
    bad = chain.play(report_file=report, **variables)
    assert bad.returncode != 0
    for words in ("Migration 6_bad failed (P3018)", "6_bad/migration.sql, line 2", "42601", "SELEC 2"):
        assert words in bad.stdout + bad.stderr
    assert "Traceback" not in bad.stdout + bad.stderr
    assert "6_bad" in yaml.safe_load(report.read_text())["failures"][0]["message"]


def test_what_a_migration_warns_of_is_shown(database: Database) -> None:
    """Notices aren't even sent: half a million of them cost 45 s."""
    loud = "DO $$ BEGIN FOR i IN 1..25 LOOP RAISE {} 'row % could not be converted', i; END LOOP; END $$;"
    database.write(_1_a=loud.format("WARNING"), _2_b=loud.format("NOTICE"))
    notices = database.migrate()["notices"]
    assert len(notices) == 21
    assert notices[0] == "Migration 1_a: WARNING: row 1 could not be converted"
    assert notices[-1].endswith("and 5 more")


@pytest.mark.parametrize("command", ["\\set ON_ERROR_STOP on", "\\i other.sql", "\\restrict abc", "SELECT 1 \\gexec"])
def test_commands_of_psql_are_named_before_anything_is_applied(database: Database, command: str) -> None:
    database.write(_1_a="CREATE TABLE a ();", _2_b=f"-- \\not one\nSELECT '\\neither';\n{command}\n")
    before = database.state()
    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refusal:
            database.migrate(check_mode=check_mode)
        assert "in line 3 is a command of psql" in refusal.value.message
    assert database.state() == before


def test_an_extension_that_the_image_lacks_is_named_with_the_variable_for_it(database: Database) -> None:
    database.write(_1_a="CREATE EXTENSION no_such_thing")
    with pytest.raises(DasTernError) as failure:
        database.migrate()
    assert (failure.value.facts["sqlstate"], "`postgres_image_packages`" in failure.value.message) == ("0A000", True)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"migrations_dir": "no/such/folder"}, "no/such/folder does not exist"),
        ({"migrations_lock_wait": "soon"}, "migrations_lock_wait"),
        ({"postgres_prot": "1"}, "Did you mean `postgres_port`?"),
        ({"migrations_on_edited": "maybe"}, "migrations_on_edited"),
        ({"postgres_port": "1"}, "P1001"),
    ],
)
def test_playbook_refusals(chain: Database, variables: dict[str, str], words: str) -> None:
    before = chain.state()
    result = chain.play(**variables)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert words in output
    assert "Traceback" not in output
    assert chain.state() == before


def test_guard_rails_refuse_before_anything_is_written(chain: Database) -> None:
    (now,) = chain.query("SELECT (clock_timestamp() AT TIME ZONE 'Asia/Phnom_Penh')::time")[0]
    closed = f"{(now.hour + 2) % 24:02}:00-{(now.hour + 3) % 24:02}:00"
    before = chain.state()
    for switches, names in (
        ({"window": closed}, ["`migrations_window`"]),
        ({"require_approval": True}, ["-e migrations_approved=5_step`"]),
        ({"require_rehearsal": True, "window": closed, "require_approval": True, "approved": "4_step"},
         ["`migrations_window`", "`migrations_approved` is '4_step'", "`migrations_require_rehearsal`"]),
    ):  # fmt: skip
        for assume_empty in (False, True):
            planned = chain.migrate(check_mode=True, assume_empty=assume_empty, **switches)
            assert planned["pending"] == NAMES
            assert [name in words for name, words in zip(names, planned["refused"], strict=True)] == [True] * len(names)
        with pytest.raises(DasTernError) as refusal:
            chain.migrate(**switches)
        assert all(name in refusal.value.message for name in names)
        assert refusal.value.message.endswith("Nothing was applied.")
        # Together with what is wrong with the files themselves.
        chain.write(_6_empty="")
        assert all(
            name.replace("5_step", "6_empty") in refused(chain, **switches).message for name in [*names, "6_empty"]
        )
        shutil.rmtree(chain.folder / "6_empty")
    assert chain.state() == before
    open_now = f"{now.hour:02}:00-{(now.hour + 2) % 24:02}:00"
    allowed = {"window": open_now, "require_approval": True, "approved": "5_step"}
    assert chain.migrate(**allowed)["applied"] == NAMES
    assert chain.migrate(window=closed, require_approval=True)["changed"] is False  # nothing pending, nothing refused


def test_a_check_names_all_that_would_refuse_the_run(chain: Database) -> None:
    chain.migrate()
    chain.write(_6_drop="DROP TABLE t5;")
    (now,) = chain.query("SELECT (clock_timestamp() AT TIME ZONE 'Asia/Phnom_Penh')::time")[0]
    guarded = {
        "migrations_window": f"{(now.hour + 2) % 24:02}:00-{(now.hour + 3) % 24:02}:00",
        "migrations_require_approval": "true",
        "migrations_require_rehearsal": "true",
        "migrations_lint": "fail",
    }
    report = chain.folder.parent / f"{chain.folder.name}-guards.json"
    names = ["migrations_window", "migrations_require_approval", "migrations_require_rehearsal", "ban-drop-table"]
    check = chain.play("--check", "--diff", report_file=report, **guarded)
    assert check.returncode == 2, check.stdout
    section = yaml.safe_load(report.read_text())["hosts"]["localhost"]["sections"]["migrations"]
    assert [name in words for name, words in zip(names, section["refused"], strict=True)] == [True] * 4
    assert sum(line.startswith("would be refused: ") for line in section["lines"]) == 4
    assert section["pending"] == ["6_drop"]
    assert "would apply" not in check.stdout
    assert "the same command without --check" not in check.stdout
    assert "+DROP TABLE t5;" in check.stdout  # what is to be approved can be read
    real = chain.play(**guarded)
    assert real.returncode == 2
    assert all(name in real.stdout + real.stderr for name in names)
    assert chain.ledger() == NAMES


def test_a_file_that_takes_another_role(chain: Database) -> None:
    """The row is written by the role that migrates, whatever role the file ends in."""
    chain.instance.sql(
        "CREATE ROLE maker; GRANT maker TO dastern_user; GRANT ALL ON SCHEMA public TO maker", chain.name
    )
    try:
        chain.write(_6_step="SET ROLE maker; CREATE TABLE made ();", _7_step="SET LOCAL ROLE maker; SELECT 1")
        assert chain.migrate()["applied"][-2:] == ["6_step", "7_step"]
        assert chain.query("SELECT tableowner FROM pg_tables WHERE tablename = 'made'") == [("maker",)]
    finally:
        chain.instance.sql("DROP OWNED BY maker; DROP ROLE maker", chain.name)


def test_many_rows_are_applied_whole_or_not_at_all(database: Database) -> None:
    """What has no position in the text, such as a key that is there already, is found by the number of results before it."""
    rows = "".join(f"INSERT INTO t VALUES ({n}, 'begin; it''s the end');\n" for n in range(20_000))
    head = "CREATE TABLE t (a int PRIMARY KEY, b text);\n"
    for last, code in (("INSERT INTO t VALUES (0, 'x');", "23505"), ("INSERT INTO nowhere VALUES (0);", "42P01")):
        database.write(_20260101000000_a=f"{head}{rows}{last}\n")
        with pytest.raises(DasTernError) as failure:
            database.migrate()
        facts = failure.value.facts
        assert (facts["sqlstate"], facts["line"], facts["statement"]) == (code, 20_002, last[:-1])
        assert database.query("SELECT to_regclass('t')") == [(None,)]

    database.write(_20260101000000_a=head + rows)
    assert [one["name"] for one in database.migrate()["applied_now"]] == ["20260101000000_a"]
    assert database.query("SELECT count(*) FROM t") == [(20_000,)]
