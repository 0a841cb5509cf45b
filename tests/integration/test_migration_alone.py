"""Migrations that can't share a transaction with their ledger row, and runs that were interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.migrations.ledger import Ledger
from conftest import descendants
from migrating import LOCK, ROOT, Database, refused, running, wait_until

TABLE = "CREATE TABLE a (id int); INSERT INTO a SELECT generate_series(1, 10);"
INDEX = "-- on its own\nCREATE INDEX CONCURRENTLY a_id ON a (id);\n"
# What Prisma writes when an enum value is removed.
ENUM = """\
/*
  Warnings: values will be removed.
*/
-- AlterEnum
BEGIN;
CREATE TYPE "E_new" AS ENUM ('a');
ALTER TYPE "E" RENAME TO "E_old";
ALTER TYPE "E_new" RENAME TO "E";
DROP TYPE "E_old";
COMMIT;

-- AlterTable
CREATE TABLE after_it ();
"""


def rows(database: Database) -> list[tuple[Any, ...]]:
    return database.query(
        "SELECT migration_name, finished_at IS NOT NULL, rolled_back_at IS NOT NULL, applied_steps_count, logs "
        "FROM _prisma_migrations ORDER BY started_at"
    )


def valid(database: Database, index: str) -> bool | None:
    found = database.query("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", index)
    return found[0][0] if found else None


def leave_unfinished(database: Database, name: str) -> None:
    """The row that a run leaves which was killed while this migration ran."""
    checksum = next(file.checksum for file in database.files() if file.name == name)
    database.query(
        "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (gen_random_uuid(), %s, %s)",
        checksum, name,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        INDEX,
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a_id ON public.a (id)",
        "VACUUM a",
        "REINDEX TABLE CONCURRENTLY a",
    ],
)
def test_a_statement_that_refuses_a_transaction_runs_alone(database: Database, text: str) -> None:
    database.write(_1_a=TABLE, _2_b=text, _3_c="CREATE TABLE c ();")
    assert database.migrate(check_mode=True)["pending"] == ["1_a", "2_b", "3_c"]
    assert database.ledger() == []
    assert [one["name"] for one in database.migrate()["applied_now"]] == ["1_a", "2_b", "3_c"]
    assert rows(database) == [(name, True, False, 1, None) for name in ("1_a", "2_b", "3_c")]
    if "INDEX CONC" in text:
        assert valid(database, "a_id")
    assert database.migrate()["changed"] is False


def test_as_the_very_first_migration(database: Database) -> None:
    database.write(_1_a="VACUUM")
    assert database.migrate()["applied"] == ["1_a"]
    assert rows(database) == [("1_a", True, False, 1, None)]


def test_an_index_that_can_not_be_built_leaves_nothing(database: Database) -> None:
    database.write(_1_a=TABLE + "INSERT INTO a VALUES (1);")
    database.migrate()
    database.write(_2_b="CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id);")
    with pytest.raises(DasTernError, match="nothing of it remains") as failure:
        database.migrate()
    assert failure.value.facts["sqlstate"] == "23505"
    assert valid(database, "a_id") is None
    assert database.ledger() == ["1_a"]
    database.write(_2_b="CREATE INDEX CONCURRENTLY a_id ON a (id);")
    assert database.migrate()["applied"] == ["1_a", "2_b"]


def test_an_invalid_index_of_that_name_is_not_taken_for_one(database: Database) -> None:
    database.write(_1_a=TABLE + "INSERT INTO a VALUES (1);")
    database.migrate()
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.query("CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id)")
    database.write(_2_b="CREATE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (id);")
    with pytest.raises(DasTernError, match="INVALID.*DROP INDEX CONCURRENTLY a_id"):
        database.migrate()
    assert database.ledger() == ["1_a"]
    database.query("DROP INDEX a_id")
    assert database.migrate()["applied"] == ["1_a", "2_b"]


def test_not_alone_is_refused_by_the_server_and_explained(database: Database) -> None:
    database.write(_1_a=TABLE + INDEX)
    with pytest.raises(DasTernError, match="alone into a migration of its own") as failure:
        database.migrate()
    assert failure.value.facts["sqlstate"] == "25001"
    assert database.ledger() == []


@pytest.mark.parametrize("killed_before", ["the index", "its end", "the row"])
def test_an_interrupted_index_is_picked_up(database: Database, killed_before: str) -> None:
    database.write(_1_a=TABLE + "INSERT INTO a VALUES (1);")
    database.migrate()
    database.write(_2_b="CREATE INDEX CONCURRENTLY a_id ON a (id);", _3_c="CREATE TABLE c ();")
    leave_unfinished(database, "2_b")
    if killed_before == "its end":
        with pytest.raises(psycopg.errors.UniqueViolation):
            database.query("CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id)")
        assert valid(database, "a_id") is False
    if killed_before == "the row":
        database.query("CREATE INDEX a_id ON a (id)")
    plan = database.migrate(check_mode=True)
    assert (plan["pending"], plan["interrupted"], plan["failed_before"]) == (["2_b", "3_c"], ["2_b"], [])
    assert database.migrate()["applied"] == ["1_a", "2_b", "3_c"]
    assert valid(database, "a_id") is True
    applied = [row for row in rows(database) if row[1] and not row[2]]
    assert [row[0] for row in applied] == ["1_a", "2_b", "3_c"]
    assert database.migrate()["changed"] is False


@pytest.mark.parametrize("there", [True, False])
def test_an_interrupted_drop_is_picked_up(database: Database, there: bool) -> None:
    database.write(_1_a=TABLE + ("CREATE INDEX a_id ON a (id);" if there else ""))
    database.migrate()
    database.write(_2_b="DROP INDEX CONCURRENTLY a_id;")
    leave_unfinished(database, "2_b")
    assert database.migrate()["applied"] == ["1_a", "2_b"]
    assert valid(database, "a_id") is None


@pytest.mark.parametrize("text", [ENUM, "ALTER SYSTEM SET work_mem = '8MB'", "CREATE TABLE b ();"])
def test_what_can_not_be_told_is_for_a_person(database: Database, text: str) -> None:
    database.write(_1_a="CREATE TYPE \"E\" AS ENUM ('a', 'b');")
    database.migrate()
    database.write(_2_b=text)
    leave_unfinished(database, "2_b")
    assert "resolve_migration.yml -e rolled_back=2_b" in refused(database).message


def test_killed_while_it_waits_for_an_old_transaction(database: Database) -> None:
    database.write(_1_a=TABLE)
    database.migrate()
    database.write(_2_b=INDEX, _3_c="CREATE TABLE c ();")
    with database.connect() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1")
        with database.connect() as writer:
            writer.execute("BEGIN; INSERT INTO a VALUES (11)")
            first = subprocess.Popen(database.playbook(), cwd=ROOT, stdout=subprocess.DEVNULL)
            # Not `running`: it is sent once inside a transaction first, before its row is written.
            wait_until(lambda: valid(database, "a_id") is False)
            for pid in descendants(first.pid):
                os.kill(pid, signal.SIGKILL)
            first.wait()
            wait_until(lambda: not running(database, "CREATE INDEX CONCURRENTLY a_id"))
    assert rows(database)[-1] == ("2_b", False, False, 0, None)
    assert valid(database, "a_id") is False
    assert database.migrate()["applied"] == ["1_a", "2_b", "3_c"]
    assert valid(database, "a_id") is True


def test_a_reindex_whose_session_is_ended_names_what_it_can_not_drop(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (id int PRIMARY KEY, note text);")
    database.migrate()
    database.write(_2_b="REINDEX TABLE CONCURRENTLY a;")
    copies = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"
    with database.connect() as writer, ThreadPoolExecutor() as pool:
        writer.execute("BEGIN; INSERT INTO a VALUES (1)")
        first = pool.submit(database.migrate)
        wait_until(lambda: len(database.query(copies)) == 2)
        database.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'REINDEX TABLE%'")
        with pytest.raises(
            DasTernError, match=r"connection was lost.*2_b(.|\n)*unfinished row. The next run picks it up"
        ):
            first.result()
    (copy,), (left,) = database.query(copies)
    assert (left[:9], copy) == ("pg_toast.", "a_pkey_ccnew")
    done = database.migrate()
    assert done["applied"] == ["1_a", "2_b"]
    assert database.query(copies) == [(left,)]
    command = re.search(r"only a superuser can drop: `(.*)`", "".join(done["notices"]))
    assert command
    database.instance.sql(command[1], database.name)
    assert database.query(copies) == []


def test_a_session_that_ends_behind_a_commit_of_its_own(database: Database) -> None:
    database.write(
        _1_a="CREATE TYPE \"E\" AS ENUM ('a', 'b');", _2_b=ENUM + "SELECT pg_terminate_backend(pg_backend_pid());\n"
    )
    with pytest.raises(DasTernError, match=r"connection was lost.*2_b(.|\n)*unfinished row.*rolled_back=2_b"):
        database.migrate()
    assert rows(database)[-1] == ("2_b", False, False, 0, None)
    assert "P3009" in refused(database).message


def test_a_run_that_ends_between_two_questions_is_no_reason_to_refuse(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write(_1_a="CREATE TYPE \"E\" AS ENUM ('a', 'b');")
    database.migrate()
    database.write(_2_b=ENUM)
    leave_unfinished(database, "2_b")
    ask = Ledger.rows

    def rows_and_its_end(ledger: Ledger) -> Any:
        found = ask(ledger)
        database.query("UPDATE _prisma_migrations SET finished_at = now() WHERE finished_at IS NULL")
        return found

    monkeypatch.setattr(Ledger, "rows", rows_and_its_end)
    assert database.migrate(check_mode=True)["pending"] == []


def test_a_file_with_its_own_transaction(database: Database) -> None:
    database.write(_1_a="CREATE TYPE \"E\" AS ENUM ('a', 'b');", _2_b=ENUM, _3_c="CREATE TABLE c ();")
    assert database.migrate()["applied"] == ["1_a", "2_b", "3_c"]
    assert rows(database) == [(name, True, False, 1, None) for name in ("1_a", "2_b", "3_c")]
    assert database.query('SELECT enum_range(NULL::"E")::text') == [("{a}",)]
    assert database.migrate()["changed"] is False


def test_its_own_transaction_fails_before_its_commit(database: Database) -> None:
    database.write(_1_a="SELECT 1", _2_b=ENUM)
    with pytest.raises(DasTernError, match="nothing of it remains") as failure:
        database.migrate()
    assert (failure.value.facts["sqlstate"], failure.value.facts["line"]) == ("42704", 7)
    assert database.ledger() == ["1_a"]
    assert database.query("SELECT to_regtype('\"E_new\"')") == [(None,)]
    database.write(_2_b="CREATE TYPE \"E\" AS ENUM ('a', 'b');\n", _3_c=ENUM)
    assert database.migrate()["applied"] == ["1_a", "2_b", "3_c"]


def test_its_own_transaction_fails_after_its_commit(database: Database) -> None:
    database.write(_1_a="CREATE TYPE \"E\" AS ENUM ('a', 'b');", _2_b=ENUM + "SELECT 1/0;\n")
    with pytest.raises(DasTernError, match=r"after its own COMMIT in line 10.*P3009") as failure:
        database.migrate()
    assert "nothing of it remains" not in failure.value.message
    name, finished, rolled_back, _, logs = rows(database)[-1]
    assert (name, finished, rolled_back) == ("2_b", False, False)
    assert "division by zero" in logs
    assert database.query('SELECT enum_range(NULL::"E")::text') == [("{a}",)]
    assert database.query("SELECT to_regclass('after_it')") == [(None,)]
    assert "P3009" in refused(database).message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SELECT 1;\nBEGIN;\nCREATE TABLE a ();", "`BEGIN` in line 2 has no COMMIT"),
        ("BEGIN;\nROLLBACK;", "BEGIN and COMMIT, but no other transaction control"),
        ("BEGIN;\nBEGIN;\nCOMMIT;", "line 2: a migration may contain"),
        ("BEGIN;\nCOMMIT AND CHAIN;\nCOMMIT;", "line 2: a migration may contain"),
        ("START TRANSACTION;\nPREPARE TRANSACTION 'x';", "line 2: a migration may contain"),
    ],
)
def test_transaction_control_that_does_not_pair_is_refused(database: Database, text: str, words: str) -> None:
    database.write(_1_a="CREATE TABLE before_it ();", _2_b=text)
    assert words in refused(database).message


def test_a_migration_that_gives_the_lock_away(database: Database) -> None:
    database.write(_1_a="SELECT pg_advisory_unlock_all();", _2_b="CREATE TABLE b ();")
    assert database.migrate()["applied"] == ["1_a", "2_b"]


def _takes_lock(connection: psycopg.Connection[Any]) -> bool:
    if running_names := connection.execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%%pg_sleep%%' "
        "AND pid <> pg_backend_pid() AND state = 'active'"
    ).fetchall():
        assert running_names
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        return bool(row and row[0])
    return False


def test_a_blocked_table_is_tried_again_and_the_application_is_not_kept_waiting(database: Database) -> None:
    database.write(_1_a=TABLE)
    database.migrate()
    database.write(_2_b="ALTER TABLE a ADD COLUMN note text;")
    waits: list[float] = []
    with database.connect() as report, database.connect() as application:
        report.execute("BEGIN; SELECT count(*) FROM a")  # a long report: ACCESS SHARE until its end
        done = threading.Event()

        def query() -> None:
            while not done.is_set():
                began = time.monotonic()
                application.execute("SELECT count(*) FROM a")
                waits.append(time.monotonic() - began)

        def release() -> None:
            wait_until(lambda: len([one for one in waits if one > 0.2]) >= 2)
            report.execute("COMMIT")

        threads = [threading.Thread(target=query), threading.Thread(target=release)]
        for thread in threads:
            thread.start()
        try:
            result = database.migrate(lock_timeout="300ms", lock_retries=6)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert result["applied"] == ["1_a", "2_b"]
    assert max(waits) < 0.3 + 0.5  # lock_timeout, and what a busy machine adds


def test_a_table_that_stays_blocked_is_given_up(database: Database) -> None:
    database.write(_1_a=TABLE)
    database.migrate()
    database.write(_2_b="ALTER TABLE a ADD COLUMN note text;")
    with database.connect() as report:
        report.execute("BEGIN; SELECT count(*) FROM a")
        with pytest.raises(DasTernError, match="55P03"):
            database.migrate(lock_timeout="100ms", lock_retries=2)
    assert database.ledger() == ["1_a"]
    assert database.migrate()["applied"] == ["1_a", "2_b"]


def test_prisma_rows_of_an_interrupted_index_are_picked_up_in_the_playbook(database: Database, tmp_path: Path) -> None:
    database.write(_1_a=TABLE)
    database.migrate()
    database.write(_2_b=INDEX)
    leave_unfinished(database, "2_b")
    done = database.play()
    assert done.returncode == 0, done.stdout
    assert "2_b applied in" in done.stdout


def test_a_migration_that_gives_the_lock_away_is_not_applied_twice(database: Database) -> None:
    database.write(_1_a="SELECT pg_advisory_unlock_all(); CREATE TABLE IF NOT EXISTS b (i int); SELECT pg_sleep(1);")
    with database.connect() as other:
        thread = threading.Thread(target=lambda: wait_until(lambda: _takes_lock(other)))
        thread.start()
        with pytest.raises(DasTernError, match="another run had it meanwhile. Nothing of the migration remains"):
            database.migrate()
        thread.join()
    assert database.query("SELECT to_regclass('b')") == [(None,)]
    database.write(_1_a="CREATE TABLE b (i int);")
    assert database.migrate()["applied"] == ["1_a"]


@pytest.mark.parametrize("how", ["it fails", "it was interrupted"])
def test_an_index_that_somebody_else_builds_is_left_alone(database: Database, how: str) -> None:
    """In the catalogue it looks like one that was left behind."""
    database.write(
        _1_a="CREATE TABLE a (x int); CREATE INDEX ai ON a (x); CREATE TABLE b (x int); INSERT INTO a VALUES (1), (1);"
    )
    database.migrate()
    index = "SELECT indisvalid FROM pg_index WHERE indrelid = 'b'::regclass"
    if how == "it fails":
        database.write(_2_b="CREATE UNIQUE INDEX CONCURRENTLY a_u ON a (x);")
    else:
        database.write(_2_b="REINDEX INDEX CONCURRENTLY ai;")
        leave_unfinished(database, "2_b")
    with database.connect() as on_a, database.connect() as on_b, ThreadPoolExecutor() as pool:
        on_b.execute("BEGIN; INSERT INTO b VALUES (2)")
        on_a.execute("BEGIN; INSERT INTO a VALUES (2)")
        run = pool.submit(database.migrate)
        wait_until(
            lambda: bool(database.query("SELECT 1 FROM pg_index WHERE indrelid = 'a'::regclass AND NOT indisvalid"))
        )
        other = pool.submit(database.query, "CREATE INDEX CONCURRENTLY bi ON b (x)")
        wait_until(lambda: database.query(index) == [(False,)])
        on_a.execute("COMMIT")
        if how == "it fails":
            with pytest.raises(DasTernError, match="nothing of it remains"):
                run.result()
        on_b.execute("COMMIT")
        other.result()
        if how != "it fails":
            run.result()
    assert valid(database, "bi") is True
    assert valid(database, "a_u") is None


def test_copies_that_somebody_else_is_reindexing_are_left_alone(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (x int); CREATE INDEX ai ON a (x);")
    database.migrate()
    database.write(_2_b="REINDEX DATABASE CONCURRENTLY;")
    leave_unfinished(database, "2_b")
    with database.connect() as writer, ThreadPoolExecutor() as pool:
        writer.execute("BEGIN; INSERT INTO a VALUES (2)")
        other = pool.submit(database.query, "REINDEX INDEX CONCURRENTLY ai")
        wait_until(lambda: bool(database.query("SELECT 1 FROM pg_index WHERE indexrelid::regclass::text = 'ai_ccnew'")))
        run = pool.submit(database.migrate, lock_retries=5)  # the server ends one of two that wait for each other
        wait_until(lambda: running(database, "REINDEX DATABASE"))
        writer.execute("COMMIT")
        other.result()
        run.result()
    assert database.query("SELECT indisvalid FROM pg_index WHERE indrelid = 'a'::regclass") == [(True,)]


def test_an_index_of_that_name_on_another_table_is_not_taken_for_it(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (x int); CREATE INDEX i ON a (x); CREATE TABLE b (x int);")
    database.migrate()
    database.write(_2_b="CREATE INDEX CONCURRENTLY i ON b (x);")
    leave_unfinished(database, "2_b")
    with pytest.raises(DasTernError, match='42P07: relation "i" already exists'):
        database.migrate()
    assert valid(database, "i") is True


def test_an_interrupted_index_in_another_schema_is_picked_up(database: Database) -> None:
    database.write(_1_a='CREATE SCHEMA "Other"; CREATE TABLE "Other".t (x int); INSERT INTO "Other".t VALUES (1), (1);')
    database.migrate()
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.query('CREATE UNIQUE INDEX CONCURRENTLY "I" ON "Other".t (x)')
    database.write(_2_b='CREATE INDEX CONCURRENTLY "I" ON "Other".t (x);')
    leave_unfinished(database, "2_b")
    assert database.migrate()["applied"] == ["1_a", "2_b"]
    assert valid(database, '"Other"."I"') is True


BATCHES = """\
DO $$ BEGIN
    FOR i IN 1..{} LOOP
        INSERT INTO a VALUES (i);
        COMMIT;
    END LOOP;
    {}
END $$
"""


def test_a_block_that_commits_runs_alone(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (id int);", _2_b=BATCHES.format(3, ""))
    assert database.migrate()["applied"] == ["1_a", "2_b"]
    assert database.query("SELECT count(*) FROM a") == [(3,)]


def test_a_block_that_fails_behind_its_commit_blocks(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (id int);", _2_b=BATCHES.format(3, "PERFORM 1/0;"))
    with pytest.raises(DasTernError, match="committed a part of its work.*rolled_back=2_b") as failure:
        database.migrate()
    assert "Fix the file" not in failure.value.message
    assert database.query("SELECT count(*) FROM a") == [(3,)]
    assert "P3009" in refused(database).message


def test_a_block_that_commits_beside_others_is_explained(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (id int);" + BATCHES.format(1, ""))
    with pytest.raises(DasTernError, match="2D000(.|\n)*alone into a migration of its own"):
        database.migrate()
    assert database.ledger() == []
    assert database.query("SELECT to_regclass('a')") == [(None,)]


NEVER = {
    "DO $$ BEGIN EXECUTE 'CREATE INDEX CONCURRENTLY a_id ON a (id)'; END $$": "25001",
    "DO $$ BEGIN INSERT INTO a VALUES (1); COMMIT; EXCEPTION WHEN unique_violation THEN NULL; END $$": "2D000",
}


@pytest.mark.parametrize("sql", NEVER)
def test_a_block_that_can_never_commit_leaves_nothing(database: Database, sql: str) -> None:
    database.write(_1_a="CREATE TABLE a (id int);", _2_b=sql, _3_c="CREATE TABLE c ();")
    for _ in range(2):
        with pytest.raises(DasTernError) as failure:
            database.migrate()
        assert (failure.value.facts["code"], failure.value.facts["sqlstate"]) == ("P3018", NEVER[sql])
        assert "put" not in failure.value.message
        assert database.ledger() == ["1_a"]
    assert database.query("SELECT count(*) FROM a") == [(0,)]
    database.write(_2_b="SELECT 1")
    assert database.migrate()["applied"] == ["1_a", "2_b", "3_c"]


def test_a_block_that_commits_before_it_cannot_blocks(database: Database) -> None:
    sql = "DO $$ BEGIN INSERT INTO a VALUES (1); COMMIT; EXECUTE 'CREATE INDEX CONCURRENTLY a_id ON a (id)'; END $$"
    database.write(_1_a="CREATE TABLE a (id int);", _2_b=sql)
    with pytest.raises(DasTernError, match="committed a part of its work"):
        database.migrate()
    assert database.query("SELECT count(*) FROM a") == [(1,)]
    assert "P3009" in refused(database).message


def test_a_commit_without_a_begin_is_deployed_as_prisma_does(database: Database) -> None:
    """It ends what the server makes one transaction of: an enum value that the next statement uses."""
    database.write(
        _1_a="CREATE TYPE kind AS ENUM ('monthly');",
        _2_b="-- first\nCOMMIT;\nALTER TYPE kind ADD VALUE 'yearly';\nCOMMIT;\nCREATE TABLE plans (k kind DEFAULT 'yearly');",
    )
    done = database.migrate()
    assert (done["applied"], done["notices"]) == (["1_a", "2_b"], [])
    database.write(_3_c="COMMIT;\nCREATE TABLE c ();\nSELECT 1/0;")
    with pytest.raises(DasTernError) as failure:
        database.migrate()
    assert (failure.value.facts["sqlstate"], database.ledger()) == ("22012", ["1_a", "2_b"])
    assert database.query("SELECT to_regclass('c')") == [(None,)]
    database.write(_3_c="CREATE TABLE c ();\nCOMMIT;\nSELECT 1/0;")
    with pytest.raises(DasTernError, match="its own COMMIT in line 2"):
        database.migrate()


def test_the_line_of_its_own_commit_is_the_commits(database: Database) -> None:
    database.write(_1_a="BEGIN;\nCREATE TABLE a ();\nCOMMIT;\n\nBEGIN;\nSELECT 1/0;\nCOMMIT;\n")
    with pytest.raises(DasTernError, match=r"COMMIT in line 3:(.|\n)*line 6") as failure:
        database.migrate()
    assert "Fix the file" not in failure.value.message


def test_copy_behind_a_commit_of_its_own_is_refused_before_anything(database: Database) -> None:
    database.write(_1_a="BEGIN;\nCREATE TABLE a (a int, b int, c int);\nCOMMIT;\nCOPY a (a, b, c) FROM\nSTDIN;\n")
    assert "the COPY in line 4 moves rows between server and client" in refused(database).message


def test_status_while_another_run_is_at_it(database: Database) -> None:
    database.write(_1_a="BEGIN; SELECT 'mark'; COMMIT; SELECT pg_advisory_lock(4711);", _2_b="SELECT 1")
    with database.connect() as holder, ThreadPoolExecutor() as pool:
        holder.execute("SELECT pg_advisory_lock(4711)")
        run = pool.submit(database.migrate)
        wait_until(lambda: running(database, "mark"))
        seen = database.migrate(state="status")
        assert (seen["running"], seen["failed_before"], seen["pending"]) == (["1_a"], [], ["2_b"])
        assert [row["state"] for row in seen["history"]] == ["running"]
        status = database.play(playbook="playbooks/migration_status.yml")
        assert status.returncode == 3, status.stdout
        assert "running: 1_a" in status.stdout
        assert "resolve" not in status.stdout
        holder.execute("SELECT pg_advisory_unlock(4711)")
        run.result()
    assert database.migrate(state="status")["history"][0]["state"] == "applied"


def test_statistics_that_are_gathered_meanwhile_are_nobodys_build(database: Database) -> None:
    """ANALYZE takes the lock of a build; what failed is dropped all the same."""
    database.write(_1_a="CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1);")
    database.migrate()
    database.write(_2_b="CREATE UNIQUE INDEX CONCURRENTLY a_u ON a (x);")
    with database.connect() as analyzing, database.connect() as writer, ThreadPoolExecutor() as pool:
        writer.execute("BEGIN; INSERT INTO a VALUES (2)")
        run = pool.submit(database.migrate)
        wait_until(lambda: valid(database, "a_u") is False)
        waiting = pool.submit(analyzing.execute, "ANALYZE a; SELECT pg_sleep(1)")
        wait_until(lambda: running(database, "ANALYZE a"))
        writer.execute("COMMIT")
        with pytest.raises(DasTernError, match="nothing of it remains"):
            run.result()
        waiting.result()
    assert valid(database, "a_u") is None


def test_a_detach_that_is_cut_short_blocks(database: Database) -> None:
    database.write(
        _1_a="CREATE TABLE a (x int) PARTITION BY LIST (x); CREATE TABLE a1 PARTITION OF a FOR VALUES IN (1);"
    )
    database.migrate()
    database.write(_2_b="ALTER TABLE a DETACH PARTITION a1 CONCURRENTLY;")
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT FROM a")
        with pytest.raises(DasTernError, match="committed a part of its work.*rolled_back=2_b"):
            database.migrate(statement_timeout="1s")
    assert "P3009" in refused(database).message
    database.query("ALTER TABLE a DETACH PARTITION a1 FINALIZE")
    database.query("UPDATE _prisma_migrations SET rolled_back_at = now() WHERE finished_at IS NULL")
    database.write(_2_b="ALTER TABLE b DETACH PARTITION a1 CONCURRENTLY;")
    with pytest.raises(DasTernError, match=r"42P01(.|\n)*Fix the file"):
        database.migrate()
    assert len(rows(database)) == 2


def test_a_drop_that_is_cut_short_is_said(database: Database) -> None:
    database.write(_1_a="CREATE TABLE a (x int); CREATE INDEX ai ON a (x);")
    database.migrate()
    database.write(_2_b="DROP INDEX CONCURRENTLY ai;")
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT FROM a")
        with pytest.raises(DasTernError, match="left the index INVALID; a second run drops it"):
            database.migrate(statement_timeout="1s")
    assert database.migrate()["applied"] == ["1_a", "2_b"]
    assert valid(database, "ai") is None
