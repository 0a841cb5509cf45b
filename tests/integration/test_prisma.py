"""Agreement with Prisma, both ways: its real schema engine in two lines of versions, over the same folder and ledger.

tests/prisma/engine.mjs drives the engine, whose versions tests/prisma/package.json pins. Where npm can't install them
the tests fail in CI (`CI` is set in the environment), and are skipped with the reason elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.migrations.ledger import Ledger
from ansible.module_utils.dastern.migrations.resolve import ARGUMENT_SPEC, resolve
from catalogue import catalogue
from migrating import LOCK, ROOT, Database, refused, running, wait_until

ENGINE = ROOT / "tests" / "prisma"
INIT = ROOT / "files" / "sql" / "migrations"
NOTHING = {"editedMigrationNames": [], "failedMigrationNames": [], "hasMigrationsTable": True, "history": None}

# Word for word what Prisma 6 and 7 generate when `REJECTED` is taken out of the enum.
ENUM = """\
/*
  Warnings:

  - The values [REJECTED] on the enum `AccountStatus` will be removed. If these variants are still used in the database, this will fail.

*/
-- AlterEnum
BEGIN;
CREATE TYPE "AccountStatus_new" AS ENUM ('ACTIVE', 'PENDING_VERIFICATION', 'VERIFIED', 'LOCKED');
ALTER TABLE "public"."users" ALTER COLUMN "accountStatus" DROP DEFAULT;
ALTER TABLE "users" ALTER COLUMN "accountStatus" TYPE "AccountStatus_new" USING ("accountStatus"::text::"AccountStatus_new");
ALTER TYPE "AccountStatus" RENAME TO "AccountStatus_old";
ALTER TYPE "AccountStatus_new" RENAME TO "AccountStatus";
DROP TYPE "public"."AccountStatus_old";
ALTER TABLE "users" ALTER COLUMN "accountStatus" SET DEFAULT 'ACTIVE';
COMMIT;
"""
CHAIN: dict[str, str] = {
    "20260301080000_khmer": """\
-- CreateTable: ឱសថ
CREATE TABLE "medicines" ("id" INTEGER NOT NULL, "name" TEXT NOT NULL DEFAULT 'ថ្នាំ; បន្ទាប់',
    CONSTRAINT "medicines_pkey" PRIMARY KEY ("id"));
DO $$ BEGIN PERFORM 'a;b'; END $$;
INSERT INTO "medicines" VALUES (1, 'ប៉ារ៉ាសេតាម៉ុល'), (2, 'it''s; fine');
""",
    "20260302080000_crlf": 'CREATE TABLE "notes" (\r\n    "id" INTEGER NOT NULL,\r\n    "text" TEXT,\r\n'
    '    CONSTRAINT "notes_pkey" PRIMARY KEY ("id")\r\n);\r\n',
    "20260303080000_comments_only": "-- This is an empty migration.\n/* and /* nested */ */",
    "20260304080000_enum_value_removed": ENUM,
    "20260305080000_index": '-- CreateIndex\nCREATE INDEX CONCURRENTLY "notes_text_idx" ON "notes"("text");\n',
    "20260306080000_no_final_newline": 'ALTER TABLE "notes" ADD COLUMN "more" TEXT; -- the end',
    "20260307080000_enum_value_added": "ALTER TYPE \"Theme\" ADD VALUE 'SYSTEM';\n",
}
NAMES = ["20260208074559_init", *CHAIN]
INDEX_NAME = "20260308080000_index"
INDEX_FILE = 'CREATE INDEX CONCURRENTLY "medicines_name_idx" ON "medicines"("name");\n'

# Everything that two rows must have in common; the id and the times are looked at by themselves.
ROWS = """
SELECT migration_name, checksum, logs, applied_steps_count, finished_at IS NULL, rolled_back_at IS NULL,
    {times} (SELECT count(*) FROM _prisma_migrations AS o WHERE o.migration_name = m.migration_name)
FROM _prisma_migrations AS m ORDER BY started_at, finished_at NULLS FIRST
"""
UNLIKE_PRISMA = r"""
SELECT * FROM _prisma_migrations WHERE id !~ '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
    OR extract(microseconds FROM started_at)::int % 1000 <> 0 OR extract(microseconds FROM finished_at)::int % 1000 <> 0
    OR extract(microseconds FROM rolled_back_at)::int % 1000 <> 0 OR finished_at < started_at
"""
TABLE = """
SELECT column_name::text, data_type::text, character_maximum_length, is_nullable::text, column_default::text
FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '_prisma_migrations'
ORDER BY ordinal_position
"""
TABLE_KEYS = """
SELECT indexdef FROM pg_indexes WHERE tablename = '_prisma_migrations'
UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '_prisma_migrations'::regclass
ORDER BY 1
"""


class PrismaError(Exception):
    """The engine's refusal; `code` is one of Prisma's error codes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.split(maxsplit=1)[0]


class Prisma:
    """One line of Prisma's engine on the database and the folder of a test."""

    def __init__(self, line: str, database: Database) -> None:
        self.line, self._database = line, database

    def __call__(self, command: str, *names: str) -> Any:
        """The engine's answer to a command of tests/prisma/engine.mjs; raises `PrismaError`."""
        return self.answer(self.start(command, *names))

    def start(self, command: str, *names: str, **environment: str) -> subprocess.Popen[str]:
        instance = self._database.instance
        return subprocess.Popen(
            ["node", str(ENGINE / "engine.mjs"), self.line, command, str(self._database.folder), *names],
            env={
                **os.environ,
                "PGHOST": instance.host,
                "PGPORT": str(instance.port),
                "PGUSER": instance.app_user,
                "PGPASSWORD": instance.password,
                "PGDATABASE": self._database.name,
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def answer(process: subprocess.Popen[str]) -> Any:
        answer, complaint = process.communicate(timeout=120)
        if process.returncode:
            raise PrismaError(complaint)
        return json.loads(answer)

    def deploy(self) -> list[str]:
        names: list[str] = self("deploy")["appliedMigrationNames"]
        return names

    def refuses(self, command: str, *names: str) -> str:
        """The code with which it refuses."""
        with pytest.raises(PrismaError) as refusal:
            self(command, *names)
        return refusal.value.code

    def has_nothing_to_say(self) -> None:
        """In `status`, `deploy`, and `dev`, which demands a reset where it finds drift."""
        assert self("status") == NOTHING
        assert self.deploy() == []
        assert self("dev") == {"tag": "createMigration"}


@pytest.fixture(scope="session")
def engines() -> None:
    """Both lines of the engine, by npm; where they are there already npm needs no network."""
    why = "npm is not installed: `make prepare` does it as root on Debian; otherwise install Node 18 or newer"
    if shutil.which("node") and shutil.which("npm"):
        done = subprocess.run(["npm", "install", "--prefer-offline"], cwd=ENGINE, capture_output=True, text=True)
        if done.returncode == 0:
            return
        why = f"`npm install` in {ENGINE} failed: {' '.join(done.stderr.split())[-500:]}"
    words = f"THE AGREEMENT WITH PRISMA IS NOT PROVED HERE: {why}"
    if os.environ.get("CI"):
        pytest.fail(words, pytrace=False)
    pytest.skip(words)


@pytest.fixture(params=["6", "7"])
def prisma(engines: None, database: Database, request: pytest.FixtureRequest) -> Prisma:
    shutil.copytree(INIT, database.folder, dirs_exist_ok=True)
    return Prisma(request.param, database)


@pytest.fixture(autouse=True)
def with_an_empty_one(database: Database) -> None:
    """The chain holds a migration of comments, which Prisma applies."""
    database.given = {"allow_empty": True}


@pytest.fixture
def whole(prisma: Prisma, database: Database) -> Database:
    """The whole chain in the folder, nothing of it applied."""
    database.write(**CHAIN)
    return database


def ours_has_nothing_to_do(database: Database) -> None:
    before = database.state()
    for check_mode in (True, False):
        result = database.migrate(check_mode=check_mode)
        assert result["changed"] is False
        assert result["applied"] == [file.name for file in database.files()]
        wrong = (
            "pending",
            "edited",
            "missing",
            "out_of_order",
            "failed_before",
            "interrupted",
            "rolled_back",
            "notices",
        )
        assert {name: result[name] for name in wrong} == {name: [] for name in wrong}
    assert database.state() == before


def rows(database: Database, times: str = "") -> list[tuple[Any, ...]]:
    """The ledger but for ids and times, which must be of Prisma's kind."""
    assert database.query(UNLIKE_PRISMA) == []
    return database.query(ROWS.format(times=times))


def start_over(database: Database) -> None:
    database.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def decide(database: Database, decision: str, name: str) -> None:
    defaults = {option: spec.get("default") for option, spec in ARGUMENT_SPEC.items()}
    given = {key: value for key, value in database.params().items() if key in ARGUMENT_SPEC}
    resolve({**defaults, **given, "decision": decision, "name": name})


# --- who applies what ------------------------------------------------------------------------------------------------


def test_ours_applies_and_prisma_has_nothing_to_say(prisma: Prisma, whole: Database) -> None:
    assert whole.migrate()["applied"] == NAMES
    prisma.has_nothing_to_say()
    assert prisma("diff") == {"exitCode": 0, "stdout": "-- This is an empty migration.\n"}
    ours_has_nothing_to_do(whole)


def test_prisma_applies_and_ours_has_nothing_to_do(prisma: Prisma, whole: Database) -> None:
    assert prisma.deploy() == NAMES
    ours_has_nothing_to_do(whole)
    done = whole.play()
    assert (done.returncode, "· 0 changed ·" in done.stdout) == (0, True), done.stdout
    assert whole.play(playbook="playbooks/migration_status.yml").returncode == 0


def test_both_leave_the_same(prisma: Prisma, whole: Database) -> None:
    """Schema, contents, ledger rows and the ledger itself, field by field."""

    def left() -> list[Any]:
        contents = whole.query('SELECT * FROM "medicines" ORDER BY 1')
        return [catalogue(whole.query), contents, rows(whole), whole.query(TABLE), whole.query(TABLE_KEYS)]

    whole.migrate()
    ours = left()
    start_over(whole)
    prisma.deploy()
    assert left() == ours


@pytest.mark.parametrize("ours_first", [True, False])
def test_half_and_half(prisma: Prisma, database: Database, ours_first: bool) -> None:
    halves = [NAMES[:4], NAMES[4:]]
    for half, ours in zip(halves, (ours_first, not ours_first), strict=True):
        database.write(**{name: text for name, text in CHAIN.items() if name in half})
        done = [one["name"] for one in database.migrate()["applied_now"]] if ours else prisma.deploy()
        assert done == half
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(database)


def test_hand_made_changes_are_drift_for_both_of_them(prisma: Prisma, whole: Database) -> None:
    """So that the silence above means something."""
    whole.migrate()
    whole.query('ALTER TABLE "notes" ADD COLUMN "by_hand" TEXT')
    assert prisma("diff")["exitCode"] == 2
    drift = prisma("dev")
    assert (drift["tag"], "by_hand" in drift["reason"]) == ("reset", True)


# --- what failed -----------------------------------------------------------------------------------------------------

UNIQUE = ("20260309080000_unique", 'CREATE UNIQUE INDEX "medicines_name_key" ON "medicines"("name");\n')


@pytest.fixture
def failed(prisma: Prisma, whole: Database) -> Database:
    """Prisma tried a migration that the rows don't allow; the row that did not fit is gone again."""
    name, text = UNIQUE
    whole.migrate()
    whole.query("INSERT INTO medicines VALUES (3, 'ប៉ារ៉ាសេតាម៉ុល')")
    whole.write(**{name: text})
    with pytest.raises(PrismaError, match=name):  # the native engine's P3018
        prisma.deploy()
    assert prisma.refuses("deploy") == "P3009"
    whole.query("DELETE FROM medicines WHERE id = 3")
    return whole


@pytest.mark.parametrize("decision", ["applied", "rolled_back"])
@pytest.mark.parametrize("ours_next", [True, False])
def test_what_failed_in_prisma_is_resolved_by_ours(
    prisma: Prisma, failed: Database, decision: str, ours_next: bool
) -> None:
    name, text = UNIQUE
    assert f"resolve_migration.yml -e rolled_back={name}" in refused(failed).message
    if decision == "applied":
        failed.query(text)
    done = failed.play(playbook="playbooks/resolve_migration.yml", **{decision: name})
    assert (done.returncode, "· 1 changed ·" in done.stdout) == (0, True), done.stdout
    assert prisma("status")["failedMigrationNames"] == []
    applied = failed.migrate()["applied_now"] if ours_next else prisma.deploy()
    assert len(applied) == (decision == "rolled_back")
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(failed)


@pytest.mark.parametrize("decision", ["applied", "rolled-back"])
def test_what_failed_in_ours_is_resolved_by_prisma(prisma: Prisma, whole: Database, decision: str) -> None:
    """A file that fails after a COMMIT of its own is the only one of ours that leaves a failed row."""
    whole.migrate()
    name, text = UNIQUE
    whole.query("INSERT INTO medicines VALUES (3, 'ប៉ារ៉ាសេតាម៉ុល')")
    whole.write(**{name: 'BEGIN;\nCREATE TABLE IF NOT EXISTS "kept" ("id" INTEGER);\nCOMMIT;\n' + text})
    with pytest.raises(DasTernError, match="P3009"):
        whole.migrate()
    assert prisma("status")["failedMigrationNames"] == [name]
    assert prisma.refuses("deploy") == "P3009"
    whole.query("DELETE FROM medicines WHERE id = 3")
    if decision == "applied":
        whole.query(text)
    prisma(decision, name)
    assert [one["name"] for one in whole.migrate()["applied_now"]] == ([name] if decision == "rolled-back" else [])
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(whole)


def test_what_failed_in_ours_leaves_nothing_to_resolve(prisma: Prisma, whole: Database) -> None:
    whole.migrate()
    name, text = UNIQUE
    whole.query("INSERT INTO medicines VALUES (3, 'ប៉ារ៉ាសេតាម៉ុល')")
    whole.write(**{name: f'ALTER TABLE "notes" DROP COLUMN "more";\n{text}'})
    with pytest.raises(DasTernError, match="nothing of it remains"):
        whole.migrate()
    assert prisma("status")["failedMigrationNames"] == []
    whole.write(**{name: "SELECT 1; -- mended"})
    assert prisma.deploy() == [name]
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(whole)


@pytest.mark.parametrize(
    ("decision", "state"),
    [
        *((one, state) for one in ("applied", "rolled_back") for state in ("pending", "failed", "rolled back")),
        ("applied", "no ledger"),  # to `rolled_back` Prisma answers with an internal error there, ours with P3011
    ],
)
def test_resolve_writes_what_prisma_writes(prisma: Prisma, whole: Database, decision: str, state: str) -> None:
    """Field by field, from the same state; a refusal has the same code."""
    name = NAMES[0]
    outcomes: list[Any] = []
    for resolver in (lambda: decide(whole, decision, name), lambda: prisma(decision.replace("_", "-"), name)):
        start_over(whole)
        if state != "no ledger":
            with whole.connect() as connection:
                Ledger(connection, "public").create()
        if state in ("failed", "rolled back"):
            whole.query(
                "INSERT INTO _prisma_migrations (id, checksum, migration_name, logs, started_at, rolled_back_at) "
                "VALUES (gen_random_uuid(), 'x', %s, 'oh', date_trunc('milliseconds', now()), "
                "CASE WHEN %s THEN date_trunc('milliseconds', now()) END)",
                name, state == "rolled back",
            )  # fmt: skip
        try:
            resolver()
            outcomes.append([rows(whole, "started_at = finished_at,"), whole.query(TABLE), whole.query(TABLE_KEYS)])
        except (DasTernError, PrismaError) as refusal:
            outcomes.append(re.findall(r"P30\d\d", str(refusal)))
    assert outcomes[0] == outcomes[1] != []


# --- baseline --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
def test_baseline(prisma: Prisma, database: Database, ours: bool) -> None:
    """A database that has the tables but no ledger, recorded by the one and taken over by both."""
    database.query((INIT / NAMES[0] / "migration.sql").read_text())
    assert prisma.refuses("deploy") == "P3005"
    assert "P3005" in refused(database).message
    if ours:
        done = database.play(playbook="playbooks/resolve_migration.yml", applied=NAMES[0])
        assert (done.returncode, "· 1 changed ·" in done.stdout) == (0, True), done.stdout
    else:
        prisma("applied", NAMES[0])
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(database)
    database.write(**CHAIN)
    assert [one["name"] for one in database.migrate()["applied_now"]] == [*CHAIN]
    prisma.has_nothing_to_say()


# --- rollback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours_next", [True, False])
def test_an_applied_row_that_is_rolled_back_counts_as_absent(prisma: Prisma, whole: Database, ours_next: bool) -> None:
    """What a rollback leaves: the migration undone, its row with `rolled_back_at`. The name is pending for both.

    `status` of Prisma 6 doesn't say so, after its own `resolve --rolled-back` neither; its `deploy` knows it.
    """
    name = "20260399080000_last"
    whole.write(**{f"_{name}": 'CREATE TABLE "last" ();'})
    (whole.folder / name / "down.sql").write_text('DROP TABLE "last";')
    whole.migrate()
    assert whole.play(playbook="playbooks/rollback.yml", to=NAMES[-1]).returncode == 0
    behind = {"diagnostic": "databaseIsBehind", "unappliedMigrationNames": [name]}
    assert prisma("status")["history"] == (behind if prisma.line == "7" else None)
    plan = whole.migrate(check_mode=True)
    assert (plan["pending"], plan["rolled_back"], plan["failed_before"]) == ([name], [name], [])
    assert ([one["name"] for one in whole.migrate()["applied_now"]] if ours_next else prisma.deploy()) == [name]
    assert len(rows(whole)) == len(NAMES) + 2
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(whole)


# --- the lock --------------------------------------------------------------------------------------------------------

GATE = ("20260310080000_gate", 'SELECT pg_advisory_xact_lock(1);\nCREATE TABLE "gate" ();\n')


@contextmanager
def held(database: Database, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of somebody else's that is in the way until it ends."""
    with database.connect() as other:
        for statement in statements:
            other.execute(statement)
        yield other


def waits_for_lock(database: Database, longer_than: str = "interval '0'") -> bool:
    """Whether Prisma waits for the migration lock."""
    return bool(
        database.query(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event = 'advisory' AND query LIKE %s "
            f"AND clock_timestamp() - query_start > {longer_than}",
            database.name, f"%pg_advisory_lock({LOCK})%",
        )
    )  # fmt: skip


def polls(database: Database) -> bool:
    """Whether ours asked for the migration lock in vain."""
    return bool(
        database.query(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name = 'das-tern migrate' "
            "AND (query LIKE '%%pg_try_advisory_lock%%' OR query LIKE '%%pg_locks%%')",
            database.name,
        )
    )


def test_ours_waits_for_prisma(prisma: Prisma, database: Database) -> None:
    database.write(**dict([GATE]))
    with ThreadPoolExecutor(1) as pool:
        with held(database, "SELECT pg_advisory_lock(1)"):
            deploying = prisma.start("deploy")
            wait_until(lambda: running(database, "advisory_xact_lock(1)"))
            waiting = pool.submit(database.migrate, lock_wait=60)
            wait_until(lambda: polls(database))
            assert not waiting.done()
        result = waiting.result(60)
    assert prisma.answer(deploying)["appliedMigrationNames"] == [NAMES[0], GATE[0]]
    assert (result["changed"], result["waited_for"]["application_name"]) == (False, f"prisma {prisma.line}")
    prisma.has_nothing_to_say()


def test_prisma_waits_for_ours(prisma: Prisma, database: Database) -> None:
    database.write(**dict([GATE]))
    with ThreadPoolExecutor(1) as pool:
        with held(database, "SELECT pg_advisory_lock(1)"):
            applying = pool.submit(database.migrate)
            wait_until(lambda: running(database, "advisory_xact_lock(1)"))
            deploying = prisma.start("deploy")
            wait_until(lambda: waits_for_lock(database))
        assert applying.result(60)["applied"] == [NAMES[0], GATE[0]]
    assert prisma.answer(deploying)["appliedMigrationNames"] == []
    prisma.has_nothing_to_say()


def test_an_index_of_ours_and_a_waiting_prisma(prisma: Prisma, whole: Database) -> None:
    """Prisma waits inside `pg_advisory_lock` and the index for Prisma's snapshot: a deadlock, of which ours is the victim
    where Prisma has waited longer than `deadlock_timeout`. Ours tries again until Prisma gives up, as it does after 10 s.
    """
    whole.migrate()
    whole.write(**{INDEX_NAME: INDEX_FILE})
    with ThreadPoolExecutor(1) as pool:
        with held(whole, *WRITER):
            applying = pool.submit(whole.migrate, lock_retries=5)
            wait_until(lambda: running(whole, "CREATE INDEX CONCURRENTLY"))
            deploying = prisma.start("deploy")
            wait_until(lambda: waits_for_lock(whole, longer_than="current_setting('deadlock_timeout')::interval"))
        wait_until(
            lambda: whole.query("SELECT deadlocks FROM pg_stat_database WHERE datname = %s", whole.name) != [(0,)]
        )
        deploying.kill()
        deploying.communicate()
        whole.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_advisory_lock%' AND pid <> pg_backend_pid()"
        )
        assert [one["name"] for one in applying.result(60)["applied_now"]] == [INDEX_NAME]
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(whole)


# --- an index that was interrupted -----------------------------------------------------------------------------------

WRITER = ("BEGIN", 'INSERT INTO "medicines" VALUES (9)')


@pytest.mark.parametrize("left", ["an invalid index", "a valid index"])
def test_an_index_of_a_killed_prisma_is_picked_up_by_ours(prisma: Prisma, whole: Database, left: str) -> None:
    """The server goes on with it after the client's end, until it is done or its session is ended as well."""
    whole.migrate()
    whole.write(**{INDEX_NAME: INDEX_FILE})
    with held(whole, *WRITER):
        deploying = prisma.start("deploy")
        wait_until(lambda: running(whole, "CREATE INDEX CONCURRENTLY"))
        deploying.kill()
        deploying.communicate()
        if left == "an invalid index":
            whole.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%'")
            wait_until(lambda: not running(whole, "CREATE INDEX CONCURRENTLY"))
    wait_until(lambda: not running(whole, "CREATE INDEX CONCURRENTLY"))
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'medicines_name_idx'::regclass"
    assert whole.query(valid) == [(left == "a valid index",)]
    assert prisma.refuses("deploy") == "P3009"
    assert whole.migrate(check_mode=True)["interrupted"] == [INDEX_NAME]
    whole.migrate()
    assert whole.query(valid) == [(True,)]
    prisma.has_nothing_to_say()
    ours_has_nothing_to_do(whole)


# --- times -----------------------------------------------------------------------------------------------------------


def test_the_adapter_of_prisma_7_needs_a_session_in_utc(prisma: Prisma, database: Database) -> None:
    """It writes and reads times without their zone; the server's is Asia/Phnom_Penh, seven hours from UTC."""
    off = "SELECT round(extract(epoch FROM now() - started_at) / 3600) FROM _prisma_migrations"
    prisma("applied", NAMES[0])
    assert database.query(off) == [(0,)]
    database.query("DELETE FROM _prisma_migrations")
    prisma.answer(prisma.start("applied", NAMES[0], PGOPTIONS=""))
    assert database.query(off) == [(7,)]


# --- where Prisma is silent ------------------------------------------------------------------------------------------


def test_an_edited_and_a_missing_file_are_errors_here_only(prisma: Prisma, whole: Database) -> None:
    whole.migrate()
    whole.write(_20260306080000_no_final_newline='ALTER TABLE "notes" ADD COLUMN "more" TEXT; -- edited')
    assert prisma.deploy() == []
    assert "was edited after it was applied" in refused(whole).message
    shutil.rmtree(whole.folder / "20260306080000_no_final_newline")
    assert prisma.deploy() == []
    assert "does not exist" in refused(whole).message


def test_other_line_endings_are_no_edit_for_both(prisma: Prisma, whole: Database) -> None:
    whole.migrate()
    for name in NAMES:
        path = whole.folder / name / "migration.sql"
        unix = path.read_bytes().replace(b"\r\n", b"\n")
        path.write_bytes(unix if "crlf" in name else unix.replace(b"\n", b"\r\n"))
    assert prisma("status") == NOTHING
    ours_has_nothing_to_do(whole)
