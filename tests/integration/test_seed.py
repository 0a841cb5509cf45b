"""The seed module against a real PostgreSQL 17: what it writes, what it leaves alone, what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import migrating
import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.seeds import volume
from ansible.module_utils.dastern.seeds.files import read_folder
from ansible.module_utils.dastern.seeds.run import ADVISORY_LOCK, ARGUMENT_SPEC, report, seed

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT / "files" / "sql" / "seeds"
SCHEMA = ROOT / "files" / "sql" / "migrations" / "20260208074559_init" / "migration.sql"
COUNTS = {
    "users": 11,
    "subscriptions": 4,
    "family_members": 2,
    "meal_time_preferences": 4,
    "connections": 8,
    "prescriptions": 5,
    "medications": 11,
    "prescription_versions": 4,
    "dose_events": 15,
    "notifications": 8,
    "audit_logs": 13,
}
TEMPLATE = "seed_template"
GIB = 1024**3


class Database(migrating.Database):
    """A migrated database of its own for one test, and a folder for seeds of its own."""

    def write(self, name: str, text: str | bytes) -> None:
        path = self.folder / "own" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def params(self, **changes: Any) -> dict[str, Any]:
        own = (self.folder / "own").exists()
        folder = self.folder if own else SEEDS
        environment = "own" if own else "development"
        defaults = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        return {
            **defaults,
            "environment": "development",
            "seed_environment": environment,
            "allowed": True,
            "folder": str(folder),
            "declared": json.dumps(read_folder(str(folder / environment), environment)),
            "host": self.instance.host,
            "port": self.instance.port,
            "database": self.name,
            "user": self.instance.app_user,
            "password_file": str(self.instance.password_file),
            **changes,
        }

    def seed(self, *, check_mode: bool = False, diff: bool = False, **changes: Any) -> dict[str, Any]:
        return seed(self.params(**changes), check_mode=check_mode, diff=diff)

    def refusal(self, **changes: Any) -> str:
        """The message of a seed that is refused, after asserting that it changed nothing."""
        before = self.state()
        with pytest.raises(DasTernError) as caught:
            self.seed(**changes)
        assert self.state() == before
        return caught.value.message

    def one(self, text: str, *values: Any) -> Any:
        return self.query(text, *values)[0][0]

    def counts(self) -> dict[str, int]:
        return {table: self.one(f'SELECT count(*) FROM "{table}"') for table in COUNTS}

    def state(self) -> dict[str, str]:
        """A fingerprint of every row with the transaction that wrote it: even an update to the same values shows."""
        text = "SELECT md5(coalesce(string_agg(md5(t::text || t.xmin), '' ORDER BY t::text), '')) FROM {} AS t"
        tables = [name for (name,) in self.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        return {table: self.one(text.format(f'"{table}"')) for table in tables}

    def catalogue(self) -> list[Any]:
        """Indexes and constraints in the order of the catalogue, as `pg_dump` would write them."""
        return self.query(
            "SELECT c.relname::text, pg_get_indexdef(c.oid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
            "WHERE c.relnamespace = 'public'::regnamespace ORDER BY i.indrelid, c.oid"
        ) + self.query(
            "SELECT conrelid::regclass::text || conname, pg_get_constraintdef(oid) || convalidated FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace ORDER BY conrelid, oid"
        )

    def playbook(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Seed the way an operator does."""
        own = (self.folder / "own").exists()
        values = {
            "postgres_host": self.instance.host,
            "postgres_port": self.instance.port,
            "postgres_database": self.name,
            "postgres_app_user": self.instance.app_user,
            "postgres_config_dir": str(Path(self.instance.password_file).parent),
            **({"seed_dir": str(self.folder), "seed_environment": "own"} if own else {}),
            **variables,
        }
        extra = [word for name, value in values.items() for word in ("-e", f"{name}={value}")]
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/seed.yml", *extra, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def template(instance: Any) -> Iterator[str]:
    database = Database(instance, TEMPLATE, Path())
    database.create()
    database.query(SCHEMA.read_text())
    yield TEMPLATE
    database.drop()


@pytest.fixture
def database(instance: Any, template: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    name = "s_" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    own = Database(instance, name, tmp_path)
    own.create(template)
    set_for_database(own, "dastern.environment = 'development'")
    yield own
    own.drop()


def set_for_database(database: Database, setting: str) -> None:
    """`ALTER DATABASE ... SET`, which takes a superuser for `dastern.environment`."""
    database.instance.sql(f"ALTER DATABASE {database.name} SET {setting}")


# Each feature: check, real, again, again in check.


def test_check_real_again_again_in_check(database: Database) -> None:
    before = database.state()
    planned = database.seed(check_mode=True)
    assert planned["changed"]
    assert database.state() == before

    done = database.seed()
    assert (done["inserted"], done["updated"], done["unchanged"]) == (85, 0, 0)
    assert {key: done[key] for key in ("inserted", "tables", "rows")} == {
        key: planned[key] for key in ("inserted", "tables", "rows")
    }
    assert database.counts() == COUNTS

    before = database.state()
    for again in (database.seed(), database.seed(check_mode=True)):
        assert not again["changed"]
        assert (again["inserted"], again["updated"], again["unchanged"]) == (0, 0, 85)
        assert again["rows"] == []
    assert database.state() == before


def test_second_run_passes_in_a_read_only_database(database: Database) -> None:
    database.seed(scale=3, scale_days=5)
    set_for_database(database, "default_transaction_read_only = on")
    assert not database.seed(scale=3, scale_days=5)["changed"]
    with database.connect() as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("UPDATE users SET theme = 'DARK' WHERE \"phoneNumber\" = '+85510000101'")
    assert database.seed(check_mode=True)["updated"] == 1
    with pytest.raises(DasTernError, match=r"read-only.*\(25006\).*Nothing was changed"):
        database.seed()


def test_check_mode_takes_no_lock_and_needs_none(database: Database) -> None:
    with database.connect() as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        assert database.seed(check_mode=True)["changed"]


def test_bare_machine_is_planned_without_a_connection(database: Database) -> None:
    planned = database.seed(check_mode=True, assume_empty=True, port=1, scale=100, scale_days=90)
    assert planned["changed"]
    assert planned["inserted"] == 85
    assert planned["volume"]["rows"]["dose_events"] == 56_800
    lines = report({}, planned, True)["lines"]
    assert lines[0] == "would insert 85 rows, update 0; 0 unchanged"


# What the development data holds.


def test_development_data_is_what_the_facts_demand(database: Database) -> None:
    database.seed()
    query = database.query
    assert query('SELECT role::text, "accountStatus"::text, count(*) FROM users GROUP BY 1, 2 ORDER BY 1') == [
        ("DOCTOR", "VERIFIED", 4),
        ("FAMILY_MEMBER", "ACTIVE", 3),
        ("PATIENT", "ACTIVE", 4),
    ]
    assert database.one("SELECT count(DISTINCT specialty) FROM users WHERE role = 'DOCTOR'") == 4
    doctors = (
        "SELECT count(*) FROM users WHERE role = 'DOCTOR' AND \"hospitalClinic\" <> '' AND \"licenseNumber\" <> ''"
    )
    assert database.one(doctors) == 4
    assert database.one("SELECT count(*) FROM users WHERE \"phoneNumber\" !~ '^\\+855'") == 0
    assert database.one("SELECT count(DISTINCT language) * 10 + count(DISTINCT theme) FROM users") == 22
    assert database.one("SELECT count(*) FROM users WHERE email !~ '@example.com$'") == 0
    assert database.one('SELECT count(DISTINCT "passwordHash") FROM users') == 1
    quotas = query('SELECT tier::text, "storageQuota", count(*) FROM subscriptions GROUP BY 1, 2 ORDER BY 1')
    assert quotas == [("FAMILY_PREMIUM", 20 * GIB, 1), ("FREEMIUM", 5 * GIB, 2), ("PREMIUM", 20 * GIB, 1)]
    assert database.one('SELECT count(*) FROM subscriptions WHERE "storageUsed" > 0') >= 2
    assert (
        database.one(
            "SELECT count(*) FROM subscriptions AS s JOIN users AS u ON u.id = \"userId\" AND role = 'PATIENT'"
        )
        == 4
    )
    members = "SELECT count(*) FROM family_members JOIN subscriptions AS s ON s.id = \"subscriptionId\" AND tier = 'FAMILY_PREMIUM'"
    assert database.one(members) >= 1

    connections = query(
        'SELECT i.role::text, c.status::text, c."permissionLevel"::text FROM connections AS c '
        'JOIN users AS i ON i.id = "initiatorId" JOIN users AS r ON r.id = "recipientId" WHERE r.role = \'PATIENT\''
    )
    accepted = [(role, level) for role, status, level in connections if status == "ACCEPTED"]
    assert Counter(role for role, _ in accepted) == {"DOCTOR": 4, "FAMILY_MEMBER": 3}
    assert {level for role, level in accepted if role == "DOCTOR"} == {"ALLOWED", "SELECTED", "REQUEST"}
    assert [status for _, status, _ in connections].count("PENDING") == 1

    assert query("SELECT status::text, count(*) FROM prescriptions GROUP BY 1 ORDER BY 1") == [
        ("ACTIVE", 3),
        ("DRAFT", 1),
        ("PAUSED", 1),
    ]
    assert (
        database.one(
            "SELECT count(*) FROM prescriptions WHERE \"isUrgent\" AND status = 'ACTIVE' AND \"urgentReason\" <> ''"
        )
        == 1
    )
    khmer = "SELECT count(*) FROM medications WHERE \"medicineNameKhmer\" ~ '[ក-៿]'"
    assert database.one(khmer) == 11
    dosage = (
        'SELECT jsonb_path_query(jsonb_build_array("morningDosage", "daytimeDosage", "nightDosage"), \'$[*] ? (@ != null)\') '
        "FROM medications"
    )
    assert all(set(one) == {"amount", "unit", "beforeMeal"} for (one,) in query(dosage))
    assert database.one("SELECT count(*) FROM medications WHERE frequency LIKE 'as needed%'") == 1
    versions = query('SELECT max("versionNumber"), p."currentVersion" FROM prescription_versions '
                     'JOIN prescriptions AS p ON p.id = "prescriptionId" GROUP BY p.id')  # fmt: skip
    assert sorted(versions) == [(1, 1), (1, 1), (2, 2)]

    doses = query('SELECT status::text, "timePeriod"::text, "takenAt", "skipReason", "wasOffline" FROM dose_events')
    assert {dose[0] for dose in doses} == {"DUE", "TAKEN_ON_TIME", "TAKEN_LATE", "MISSED", "SKIPPED"}
    assert {dose[1] for dose in doses} == {"DAYTIME", "NIGHT"}
    assert sum(dose[4] for dose in doses) == 1
    for status, _, taken, reason, _ in doses:
        assert (taken is not None) == status.startswith("TAKEN")
        assert (reason is not None) == (status == "SKIPPED")
    assert database.one('SELECT count(*) FROM dose_events WHERE "takenAt" > now()') == 0
    owners = 'SELECT count(*) FROM dose_events AS d JOIN medications AS m ON m.id = "medicationId" ' \
             'JOIN prescriptions AS p ON p.id = m."prescriptionId" AND p.id = d."prescriptionId" ' \
             'AND p."patientId" = d."patientId"'  # fmt: skip
    assert database.one(owners) == 15

    assert database.one("SELECT count(DISTINCT type) FROM notifications") == 5
    assert database.one('SELECT count(DISTINCT "isRead") FROM notifications') == 2
    assert database.one('SELECT count(DISTINCT "actionType") FROM audit_logs') >= 10
    assert database.one('SELECT count(*) FROM audit_logs WHERE "actorId" IS NULL') >= 1
    data = "SELECT count(*) FROM notifications AS n JOIN dose_events AS d ON d.id::text = n.data ->> 'doseEventId'"
    assert database.one(data) == 4


def test_times_follow_the_day_and_another_day_moves_only_them(database: Database) -> None:
    today = date(2026, 3, 1)
    database.seed(today=today.isoformat())
    due = "SELECT \"scheduledTime\" AT TIME ZONE 'Asia/Phnom_Penh' FROM dose_events WHERE id = %s"
    declared = seed_ids()["dose_events/dara/amlodipine/today"]
    assert database.one(due, declared).isoformat() == "2026-03-01T07:00:00"
    assert not database.seed(today=today.isoformat())["changed"]

    before = dict(database.query('SELECT id, "updatedAt" FROM dose_events'))
    moved = database.seed(today=(today + timedelta(days=1)).isoformat(), diff=True)
    assert moved["inserted"] == 0
    assert moved["tables"]["dose_events"]["updated"] == 15
    assert moved["tables"]["users"]["updated"] == moved["tables"]["medications"]["updated"] == 0
    assert {column for row in moved["rows"] if row["table"] == "dose_events" for column in row["columns"]} == {
        "scheduledTime",
        "takenAt",
    }
    assert database.one(due, declared).isoformat() == "2026-03-02T07:00:00"
    assert database.counts() == COUNTS
    assert all(
        database.one('SELECT "updatedAt" FROM dose_events WHERE id = %s', row) > was for row, was in before.items()
    )


def seed_ids() -> dict[str, str]:
    from ansible.module_utils.dastern.seeds.rows import Declared

    return {row.label: row.id for row in Declared(read_folder(str(SEEDS / "development"), "development")).rows}


# What it leaves alone.


def test_what_users_and_the_application_wrote_stays(database: Database) -> None:
    database.seed()
    database.query(
        'INSERT INTO users (id, role, "phoneNumber", "passwordHash", "updatedAt") '
        "VALUES (gen_random_uuid(), 'PATIENT', '+85512345678', 'x', now())"
    )
    # Columns that the files don't declare, of a row that they do.
    database.query(
        "UPDATE users SET \"failedLoginAttempts\" = 3, \"lockedUntil\" = '2030-01-01' WHERE email LIKE 'dara%'"
    )
    before = database.state()
    assert not database.seed()["changed"]
    assert database.state() == before

    was = database.query('SELECT id, "updatedAt" FROM users ORDER BY 1')
    database.query("UPDATE users SET theme = 'DARK' WHERE email LIKE 'dara%'")
    result = database.seed(diff=True)
    assert [(row["row"], row["action"], row["columns"]) for row in result["rows"]] == [
        ("users/dara", "update", {"theme": {"before": "DARK", "after": "LIGHT"}})
    ]
    assert database.query("SELECT theme::text, \"failedLoginAttempts\" FROM users WHERE email LIKE 'dara%'") == [
        ("LIGHT", 3)
    ]
    now = database.query('SELECT id, "updatedAt" FROM users ORDER BY 1')
    assert len(set(now) - set(was)) == 1
    assert database.one("SELECT count(*) FROM users") == 12


def test_a_row_that_the_application_made_is_taken_as_it_is_with_its_id(database: Database) -> None:
    own = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
    database.query(
        'INSERT INTO users (id, role, "phoneNumber", "passwordHash", "updatedAt") '
        "VALUES (%s, 'PATIENT', '+85510000101', 'x', now())",
        own,
    )
    result = database.seed()
    assert result["tables"]["users"] == {"inserted": 10, "updated": 1, "unchanged": 0}
    assert database.one("SELECT email FROM users WHERE id = %s", own) == "dara.sok@example.com"
    assert database.one('SELECT count(*) FROM subscriptions WHERE "userId" = %s', own) == 1
    assert database.one("SELECT count(*) FROM audit_logs WHERE details ->> 'patientId' = %s", own) == 1
    assert not database.seed()["changed"]


def test_a_key_that_was_changed_is_found_by_its_id(database: Database) -> None:
    database.seed()
    database.query("UPDATE users SET \"phoneNumber\" = '+85599999999' WHERE email LIKE 'dara%'")
    result = database.seed(diff=True)
    assert (result["inserted"], result["updated"]) == (0, 1)
    assert result["rows"][0]["columns"] == {"phoneNumber": {"before": "+85599999999", "after": "+85510000101"}}


def test_a_deleted_row_comes_back_with_the_same_id(database: Database) -> None:
    database.seed()
    ids = database.query("SELECT id FROM dose_events ORDER BY 1")
    database.query("DELETE FROM prescriptions")
    assert database.counts()["dose_events"] == 0
    result = database.seed()
    assert result["tables"]["dose_events"]["inserted"] == 15
    assert database.query("SELECT id FROM dose_events ORDER BY 1") == ids


@pytest.mark.parametrize(
    ("column", "same"),
    [
        ("data", '{"b": [1, 2.0], "a": "x"}'),
        ("createdAt", "2026-01-01T00:00:00.0001Z"),
        ("readAt", "2026-01-01 07:00:00+07"),
    ],
)
def test_values_are_compared_by_what_they_mean(database: Database, column: str, same: str) -> None:
    declared = {
        "data": "{a: x, b: [1, 2]}",
        "createdAt": "2026-01-01T07:00:00+07:00",
        "readAt": '"2025-12-31 19:00:00-05"',
    }
    database.write(
        "a.yml",
        USER
        + "- table: notifications\n  rows:\n    - {_name: n, recipientId: {ref: users/u}, type: FAMILY_ALERT, title: t, "
        "message: m, " + ", ".join(f"{name}: {value}" for name, value in declared.items()) + "}\n",
    )
    assert database.seed()["inserted"] == 2
    database.query(f'UPDATE notifications SET "{column}" = %s', same)
    assert not database.seed()["changed"]


USER = """\
- table: users
  key: [phoneNumber]
  rows:
    - {_name: u, phoneNumber: "+8551", role: PATIENT, passwordHash: secret-hash-value}
"""


def test_rows_may_declare_different_columns_and_defaults_hold(database: Database) -> None:
    database.write(
        "a.yml",
        USER
        + '    - {phoneNumber: "+8552", role: DOCTOR, passwordHash: h, language: ENGLISH, failedLoginAttempts: 7}\n'
        '- {table: users, key: [email], rows: [{email: c@example.com, phoneNumber: "+8553", role: DOCTOR, passwordHash: h}]}\n',
    )
    assert database.seed()["inserted"] == 3
    rows = database.query('SELECT language::text, theme::text, "failedLoginAttempts" FROM users ORDER BY "phoneNumber"')
    assert rows == [("KHMER", "LIGHT", 0), ("ENGLISH", "LIGHT", 7), ("KHMER", "LIGHT", 0)]
    assert not database.seed()["changed"]


# SQL seeds.


def test_sql_files_run_in_order_in_the_same_transaction(database: Database) -> None:
    database.write("10.yml", USER)
    database.write(
        "20.sql",
        '-- a semicolon; in a comment\nUPDATE users SET "fullName" = \'x;y\' WHERE "fullName" IS NULL;\n'
        'INSERT INTO audit_logs (id, "actionType", "resourceType") '
        "VALUES ('00000000-0000-4000-8000-000000000001', 'DATA_ACCESS', 'x') ON CONFLICT DO NOTHING;\n",
    )
    database.write("30.yml", USER.replace("+8551", "+8552").replace("_name: u, ", "fullName: z, "))
    before = database.state()
    assert database.seed(check_mode=True)["scripts"] == [{"file": "20.sql", "rows": 2}]
    assert database.state() == before
    assert database.seed()["inserted"] == 2
    before = database.state()
    for again in (database.seed(), database.seed(check_mode=True)):
        assert not again["changed"]
        assert again["scripts"] == [{"file": "20.sql", "rows": 0}]
    assert database.state() == before


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("SELECT 1;\n\nINSERT INTO nowhere VALUES (1);\n", "20.sql, line 3", '"nowhere" does not exist (42P01)'),
        ("SELECT 1;\n\\i other.sql\n", "20.sql, line 2", "(42601)"),
        ("COPY users FROM STDIN;\n", "20.sql", "COPY"),
        ("DO $$ BEGIN COMMIT; END $$;\n", "20.sql", "(2D000)"),
    ],
)
def test_a_broken_sql_file_leaves_nothing_behind(database: Database, text: str, place: str, words: str) -> None:
    database.write("10.yml", USER)
    database.write("20.sql", text)
    message = database.refusal()
    assert place in message
    assert words in message


# Refusals: the message and that nothing changed.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"environment": "production"}, "`dastern_environment` is production: production is never seeded"),
        ({"seed_environment": "production"}, "`seed_environment` is production"),
        ({"environment": "production", "allowed": False}, "never seeded"),
        ({"allowed": False}, "not declared as seedable: `seed_allowed` is false"),
        ({"seed_environment": "../production"}, "Expected: the name of a folder"),
        ({"scale": -1}, "`seed_scale` is -1"),
        ({"scale_days": 0}, "`seed_scale_days` is 0"),
        ({"today": "tomorrow"}, "Expected: a day"),
        ({"lock_timeout": "long"}, "expected a duration"),
        ({"port": 1}, "(P1001)"),
    ],
)
def test_refused_before_anything_is_read(database: Database, changes: dict[str, Any], words: str) -> None:
    assert words in database.refusal(**changes)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("production", "is production (setting dastern.environment)"),
        ("Production", "is Production (setting dastern.environment)"),
        ("staging", "is staging (setting dastern.environment)"),
        ("", "doesn't name its environment (setting dastern.environment)"),
        ("development", None),
    ],
)
def test_the_databases_own_word_counts(database: Database, said: str, words: str | None) -> None:
    set_for_database(database, f"dastern.environment = '{said}'")
    if words is None:
        assert database.seed(check_mode=True)["changed"]
        return
    assert words.lower() in database.refusal().lower()
    with pytest.raises(DasTernError):
        database.seed(check_mode=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {table: usres, rows: [{_name: a, b: c}]}", "there is no table `usres`"),
        (USER.replace("role: PATIENT", "rolle: PATIENT"), "no column `rolle`. Did you mean `role`?"),
        (
            USER.replace("PATIENT", "PATIENTE"),
            "Expected: one of PATIENT, DOCTOR, FAMILY_MEMBER (22P02). Did you mean `PATIENT`?",
        ),
        (
            USER.replace("key: [phoneNumber]", "key: [role]"),
            "the key [role] is not unique in users. Expected: one of [phoneNumber]",
        ),
        (USER.replace("}", ", dateOfBirth: 1990-02-30}"), "`dateOfBirth` is '1990-02-30', which is no date"),
        (USER.replace("}", ", failedLoginAttempts: many}"), "`failedLoginAttempts` is 'many', which is no integer"),
        (USER.replace("}", ", failedLoginAttempts: 3000000000}"), "out of range for type integer (22003)"),
        (USER.replace("+8551", "+85510000000000000000000"), "value too long for type character varying(20) (22001)"),
        (USER.replace("}", ", gender: {at: today}}"), "can't hold a time"),
        (USER.replace("}", ", email: {a: b}}"), "takes one value"),
        (USER.replace("role: PATIENT, ", ""), "`role` is required and not declared (23502)"),
        (USER.replace("role: PATIENT", "role: null"), "`role` is required and null (23502)"),
        (
            USER + '    - {phoneNumber: "+8552", role: DOCTOR, passwordHash: h, email: taken@example.com}\n',
            "`email` is 'taken@example.com'. Another row of the database",
        ),
        (
            USER + "- {table: subscriptions, rows: [{_name: s, userId: 11111111-1111-4111-8111-111111111111}]}",
            "violates foreign key constraint",
        ),
    ],
)
def test_what_the_database_can_not_hold_is_named(database: Database, text: str, words: str) -> None:
    database.query(
        'INSERT INTO users (id, role, "phoneNumber", "passwordHash", email, "updatedAt") '
        "VALUES (gen_random_uuid(), 'PATIENT', '+1', 'x', 'taken@example.com', now())"
    )
    database.write(
        "a.yml", "- {table: audit_logs, rows: [{_name: first, actionType: DATA_ACCESS, resourceType: x}]}\n" + text
    )
    message = database.refusal()
    assert words in message
    assert "a.yml, line " in message
    assert "secret-hash-value" not in message


def test_a_wrong_hash_is_not_shown(database: Database) -> None:
    database.write("a.yml", USER.replace("secret-hash-value", "secret" * 50))
    message = database.refusal()
    assert "`passwordHash` is (hidden)" in message
    assert "secretsecret" not in message


def test_an_empty_database_wants_its_migrations(instance: Any, database: Database) -> None:
    database.query("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with pytest.raises(
        DasTernError, match=r"are not in schema public .*apply the migrations first: `ansible-playbook migrate.yml`"
    ):
        database.seed()
    planned = database.seed(check_mode=True, scale=5)
    assert planned["inserted"] == 85
    assert "ansible-playbook migrate.yml" in planned["warnings"][0]


def test_a_locked_row_is_waited_for_no_longer_than_the_timeout(database: Database) -> None:
    database.seed()
    database.query("UPDATE users SET theme = 'DARK' WHERE email LIKE 'dara%'")
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM users FOR UPDATE")
        with pytest.raises(DasTernError, match=r"\(55P03\).*`seed_lock_timeout`.*Nothing was changed") as refused:
            database.seed(lock_timeout="1s")
        assert [one["pid"] for one in refused.value.facts["blockers"]] == [other.info.backend_pid]
    assert database.seed()["updated"] == 1


@pytest.mark.parametrize(
    ("statement", "words"),
    [("SELECT pg_terminate_backend(%s)", "ended this session"), ("SELECT pg_cancel_backend(%s)", "(57014)")],
)
def test_a_session_that_is_ended_midway_leaves_nothing(database: Database, statement: str, words: str) -> None:
    database.seed()
    # The first table can be written, the last one is held by somebody else.
    database.query("UPDATE users SET theme = 'DARK' WHERE email LIKE 'dara%'; DELETE FROM audit_logs")
    before = database.state()
    waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'das-tern seed' AND wait_event_type = 'Lock'"
    failures: list[str] = []

    def run() -> None:
        try:
            database.seed()
        except DasTernError as error:
            failures.append(error.message)

    with database.connect() as other, other.transaction():
        other.execute("LOCK TABLE audit_logs IN SHARE MODE")
        thread = threading.Thread(target=run)
        thread.start()
        until = time.monotonic() + 10
        while not (found := database.query(waiting)) and time.monotonic() < until:
            time.sleep(0.02)
        database.query(statement, found[0][0])
        thread.join(20)
    assert words in failures[0]
    assert database.state() == before
    assert database.seed()["updated"] == 1


def test_one_row_declared_under_two_keys_is_refused(database: Database) -> None:
    own = 'INSERT INTO users (id, role, email, "phoneNumber", "passwordHash", "updatedAt") VALUES '
    database.query(own + "(gen_random_uuid(), 'PATIENT', 'u@example.com', '+8551', 'x', now())")
    database.write("a.yml", USER + "- {table: users, key: [email], rows: [{email: u@example.com, theme: DARK}]}\n")
    assert "are the same row of the database" in database.refusal()


# Two at once.


def test_the_second_of_two_seeds_waits_and_finds_nothing_to_do(database: Database) -> None:
    said: list[str] = []
    results: list[dict[str, Any]] = []
    with database.connect() as other:
        with other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
            waiter = threading.Thread(target=lambda: results.append(seed(database.params(), waiting=said.append)))
            waiter.start()
            until = time.monotonic() + 10
            while not said and time.monotonic() < until:
                time.sleep(0.02)
            with pytest.raises(
                DasTernError, match=r"Another seed has been running for more than .*pid \d+.*Nothing was changed"
            ):
                database.seed(lock_wait=0)
        waiter.join(20)
    assert re.search(r"pid \d+", said[0])
    assert results[0]["inserted"] == 85
    assert results[0]["waited_for"]["pid"]


def test_four_seeds_at_once_insert_each_row_once(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: database.seed(scale=4, scale_days=3), range(4)))
    assert sum(result["inserted"] for result in results) == 85
    assert database.one("SELECT count(*) FROM dose_events") == 15 + 4 * 46


# The volume seed.


def synthetic(database: Database, table: str) -> int:
    return database.one(f"SELECT count(*) FROM {table} WHERE id::text LIKE 'da57e400-%'")


def test_volume_check_real_again_again_in_check(database: Database) -> None:
    before = database.state()
    planned = database.seed(check_mode=True, scale=60, scale_days=30)
    assert planned["volume"]["rows"]["dose_events"] == 60 * (6 * 30 + 28)
    assert database.state() == before

    done = database.seed(scale=60, scale_days=30)
    assert done["changed"]
    assert done["volume"]["rebuilt"] is False
    counts = {table: synthetic(database, table) for table in volume.TABLES}
    assert counts == done["volume"]["rows"] == planned["volume"]["rows"]
    assert counts == {"users": 62, "subscriptions": 60, "prescriptions": 120, "medications": 180, "dose_events": 12480}

    before = database.state()
    for again in (
        database.seed(scale=60, scale_days=30),
        database.seed(scale=60, scale_days=30, check_mode=True),
        database.seed(scale=7, scale_days=30),
        database.seed(scale=60, scale_days=400),
    ):
        assert not again["changed"]
    assert database.state() == before

    assert database.seed(scale=61, scale_days=30)["volume"]["rows"]["users"] == 1
    assert synthetic(database, "dose_events") == 61 * 208


def test_volume_rows_are_plausible(database: Database) -> None:
    database.seed(scale=40, scale_days=60)
    shares = dict(
        database.query("SELECT status::text, count(*) FROM dose_events WHERE id::text LIKE 'da57%' GROUP BY 1")
    )
    past = sum(count for status, count in shares.items() if status != "DUE")
    assert 0.7 < shares["TAKEN_ON_TIME"] / past < 0.85
    assert all(shares[status] / past > 0.02 for status in ("TAKEN_LATE", "MISSED", "SKIPPED"))
    wrong = (
        "SELECT count(*) FROM dose_events WHERE id::text LIKE 'da57%%' AND (\"takenAt\" > now() OR "
        "(status = 'DUE') <> (\"scheduledTime\" > now() - interval '3 hours') OR "
        "(status::text LIKE 'TAKEN%%') <> (\"takenAt\" IS NOT NULL) OR (status = 'SKIPPED') <> (\"skipReason\" IS NOT NULL))"
    )
    # The boundary moves on between the seed and this question.
    assert database.one(wrong.replace("%%", "%")) <= 40 * 6
    assert database.one("SELECT count(DISTINCT \"timePeriod\") FROM dose_events WHERE id::text LIKE 'da57%'") == 2
    assert (
        database.one("SELECT count(*) FROM users WHERE id::text LIKE 'da57%' AND \"fullName\" !~ '[ក-៿].*\\(load '")
        == 0
    )
    assert database.one("SELECT count(*) FROM users WHERE id::text LIKE 'da57%' AND email !~ '@load.example.com$'") == 0
    consistent = (
        'SELECT count(*) FROM dose_events AS d JOIN medications AS m ON m.id = "medicationId" JOIN prescriptions AS p '
        'ON p.id = m."prescriptionId" AND p.id = d."prescriptionId" AND p."patientId" = d."patientId" '
        "WHERE d.id::text LIKE 'da57%'"
    )
    assert database.one(consistent) == 40 * 388


def test_a_patient_who_was_deleted_comes_back_whole(database: Database) -> None:
    database.seed(scale=5, scale_days=10)
    database.query("DELETE FROM users WHERE email = 'patient-3@load.example.com'")
    assert synthetic(database, "dose_events") == 4 * 88
    assert database.seed(scale=5, scale_days=10)["volume"]["patients_missing"] == 1
    assert synthetic(database, "dose_events") == 5 * 88


def test_a_large_volume_rebuilds_indexes_to_the_same_catalogue(database: Database) -> None:
    before = database.catalogue()
    done = database.seed(scale=100)
    assert done["volume"]["rebuilt"] is True
    assert database.catalogue() == before
    assert synthetic(database, "dose_events") == 56_800
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        database.query("UPDATE dose_events SET \"patientId\" = gen_random_uuid() WHERE id::text LIKE 'da57%'")


@pytest.mark.parametrize(
    "statement",
    [
        "COMMENT ON INDEX \"dose_events_status_idx\" IS 'kept'",
        'CLUSTER dose_events USING "dose_events_status_idx"',
        'ALTER TABLE dose_events ADD CONSTRAINT "late" UNIQUE (id, status)',
    ],
)
def test_indexes_that_would_not_come_back_the_same_are_left_alone(database: Database, statement: str) -> None:
    database.query(statement)
    before = database.catalogue()
    assert database.seed(scale=100)["volume"]["rebuilt"] is False
    assert database.catalogue() == before


def test_a_table_that_holds_more_keeps_its_indexes(database: Database) -> None:
    assert database.seed(scale=110)["volume"]["rebuilt"] is True
    before = database.catalogue()
    assert database.seed(scale=200)["volume"]["rebuilt"] is False
    assert database.catalogue() == before


def test_a_volume_seed_that_fails_leaves_the_catalogue_and_no_row(database: Database) -> None:
    database.query("ALTER TABLE dose_events ADD CONSTRAINT no_night CHECK (\"timePeriod\" = 'DAYTIME') NOT VALID")
    before = database.catalogue()
    with pytest.raises(DasTernError, match=r"no_night.*\(23514\)"):
        database.seed(scale=100, declared="[]")
    assert database.catalogue() == before
    assert sum(database.counts().values()) == 0


# The way an operator runs it.


def test_playbook_four_times_and_the_summary(database: Database) -> None:
    for arguments, changed, words in (
        (["--check"], 1, "would insert 85 rows"),
        ([], 1, "85 rows inserted, 0 updated, 0 unchanged"),
        ([], 0, "85 rows as declared"),
        (["--check"], 0, "85 rows as declared"),
    ):
        done = database.playbook(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"· {changed} changed ·" in done.stdout
        assert words in done.stdout


@pytest.mark.parametrize("interpreter", ["{{ ansible_playbook_python }}", None], ids=["in process", "as a module"])
def test_no_secret_and_no_hash_at_vvv_diff(database: Database, interpreter: str | None) -> None:
    # The same Python under another name is another interpreter to Ansible: the module runs in a process of its own.
    other = database.folder / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    variables = {"ansible_python_interpreter": interpreter or str(other)}
    secrets = [Path(database.instance.password_file).read_text().strip(), "$2b$", "g.Ep9eJH9NMGnuz8s1JHpO"]
    for setup in (
        "SELECT 1",
        "UPDATE users SET \"passwordHash\" = '$2b$10$other', \"pinCodeHash\" = NULL, theme = 'DARK'",
    ):
        database.query(setup)
        done = database.playbook("-vvv", "--diff", **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not [secret for secret in secrets if secret in done.stdout + done.stderr]
        assert "(hidden" in done.stdout
    assert database.seed(check_mode=True)["changed"] is False


def test_the_playbook_refuses_in_words(database: Database) -> None:
    before = database.state()
    for variables, words in (
        ({"dastern_environment": "production"}, "production is never seeded"),
        ({"seed_environment": "production"}, "production is never seeded"),
        ({"seed_allowed": "false"}, "not declared as seedable"),
        ({"seed_environment": "nowhere"}, "There is no seed folder"),
        ({"postgres_port": 1}, "(P1001)"),
    ):
        done = database.playbook(**variables)
        assert done.returncode != 0
        assert words in " ".join(done.stdout.split())
        assert "Traceback" not in done.stdout + done.stderr
    assert database.state() == before
