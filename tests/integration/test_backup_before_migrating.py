"""The backup before a migration: taken, read back, listed, pruned, restored; and nothing applied where it can't be."""

from __future__ import annotations

import datetime
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern import dump, migrate
from ansible.module_utils.dastern.connection import system_identifier
from ansible.module_utils.dastern.containers import Containers, Output
from ansible.module_utils.dastern.dump import Backup, listed
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.psql import superuser_of
from ansible.module_utils.dastern.rehearsal import SAFE
from migrating import ROOT, Database, refused, wait_until
from test_rehearse import params as rehearsal_params
from test_rehearse import rehearse


def folder(database: Database) -> Path:
    return database.folder.with_name(database.folder.name + "-backups")


def options(database: Database, **changes: Any) -> dict[str, Any]:
    return {
        "backup": True,
        "backup_dir": str(folder(database)),
        "container": database.instance.container,
        "endpoint": database.instance.endpoint,
        **changes,
    }


def backups(database: Database) -> list[Backup]:
    with database.connect() as connection:
        return listed(str(folder(database)), database.name, system_identifier(connection))


@pytest.fixture
def small(chain: Database) -> Database:
    """Five applied migrations and one that is pending."""
    chain.migrate()
    chain.query('INSERT INTO "t1" SELECT i FROM generate_series(2, 1000) AS i')
    chain.write(_6_step='DROP TABLE "t1";')
    return chain


def test_check_real_again_check(small: Database) -> None:
    check = small.migrate(check_mode=True, **options(small))
    assert (check["backup_due"], folder(small).exists()) == (str(folder(small)), False)
    real = small.migrate(**options(small))
    assert real["applied_now"][0]["name"] == "6_step"
    (backup,) = backups(small)
    assert real["backup"] == backup.as_dict()
    assert (backup.database, backup.reason) == (small.name, "before 6_step")
    assert backup.applied == tuple(f"{number}_step" for number in range(1, 6))
    assert folder(small).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder(small).iterdir()} == {0o600}
    again = small.migrate(**options(small))
    assert (again["changed"], "backup" in again) == (False, False)
    assert "backup_due" not in small.migrate(check_mode=True, **options(small))
    assert backups(small) == [backup]


def test_the_command_that_it_gives_restores_it(small: Database) -> None:
    """Owners, grants and rows; beside the live database, which stays as it is."""
    small.query('GRANT SELECT ON "t1" TO dastern_readonly')
    small.migrate(**options(small))
    before = small.state()
    (backup,) = backups(small)
    restored = Database(small.instance, f"{small.name}_restored", small.folder)
    command = backup.restore_command(small.instance.container, "dastern_user")
    try:
        subprocess.run(command, shell=True, check=True, env={**os.environ, "DOCKER_HOST": small.instance.endpoint})
        assert restored.query('SELECT count(*), sum(id) FROM "t1"') == [(1000, 500500)]
        assert restored.query("SELECT relacl::text, relowner::regrole::text FROM pg_class WHERE relname = 't1'") == [
            ("{dastern_user=arwdDxtm/dastern_user,dastern_readonly=r/dastern_user}", "dastern_user")
        ]
        assert restored.ledger() == list(backup.applied)
    finally:
        small.instance.sql(f'DROP DATABASE IF EXISTS "{restored.name}"')
    assert small.state() == before


def test_only_so_many_are_kept(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for number in range(7, 11):
        monkeypatch.setattr(dump, "datetime", _Clock(number))
        small.write(**{f"_{number}_step": f"CREATE TABLE t{number} ()"})
        done = small.migrate(**options(small, backup_keep=2))
        seen.append(done["backup"]["file"])
    assert [backup.file for backup in backups(small)] == seen[:1:-1]
    assert done["backups_deleted"] == [seen[1]]
    assert len(list(folder(small).iterdir())) == 4
    small.write(_99_step="SELECT 1")
    monkeypatch.setattr(dump, "datetime", _Clock(20))
    small.migrate(**options(small, backup_keep=0))
    assert len(backups(small)) == 1


class _Clock:
    def __init__(self, minute: int) -> None:
        self._minute = minute

    def now(self, zone: datetime.tzinfo) -> datetime.datetime:
        return datetime.datetime(2026, 3, 1, 10, self._minute, tzinfo=zone)


def test_what_is_cut_short_or_gone_is_no_backup(small: Database) -> None:
    small.migrate(**options(small))
    (backup,) = backups(small)
    os.truncate(backup.file, backup.bytes - 1)
    assert backups(small) == []
    Path(backup.file).unlink()
    assert backups(small) == []
    assert listed(str(folder(small)), "another", backup.system) == []


def told(database: Database, **changes: Any) -> str:
    """The refusal of a run that must leave the database and the folder as they were."""
    before, there = database.state(), [backup.file for backup in backups(database)]
    with pytest.raises(DasTernError) as failure:
        database.migrate(**options(database, **changes))
    assert database.state() == before
    assert [backup.file for backup in backups(database)] == there
    if folder(database).is_dir():
        assert not list(folder(database).glob(".*"))
    assert "Nothing was applied (`migrations_backup` is true)." in failure.value.message
    return failure.value.message


def test_nothing_is_applied_without_it(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "wanted is an absolute path" in told(small, backup_dir="backups")
    assert "`postgres_container_name` is empty" in told(small, container="")
    assert "No such container" in told(small, container="dastern-test-none")
    (folder(small).parent / "plain").write_text("")
    assert "can't be made" in told(small, backup_dir=str(folder(small).parent / "plain" / "x"))
    monkeypatch.setattr(dump, "_DUMP", ("pg_dump", "-U", "postgres", "--format=custom", "--no-such-option"))
    assert "pg_dump: " in told(small)
    assert small.migrate(**options(small, backup=False))["changed"] is True


def test_a_table_that_stays_locked(small: Database) -> None:
    with small.connect() as other:
        other.execute('BEGIN; LOCK TABLE "t2"')
        assert "Another session keeps one of its tables locked." in told(small, lock_timeout="200ms")


def test_a_full_disk(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(small).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder(small))], check=True)
    try:
        assert "may not fit into" in told(small)
        monkeypatch.setattr(dump, "_refuse_full_disk", lambda *_: None)
        small.query('INSERT INTO "t2" SELECT i, md5(i::text) FROM generate_series(10, 9999) AS i')
        assert "No space left on device" in told(small)
    finally:
        subprocess.run(["umount", str(folder(small))], check=True)


@pytest.mark.parametrize("harm", ["cut", "header"])
def test_a_dump_that_can_not_be_read_back_does_not_count(
    small: Database, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    execute = Containers.execute

    def harmed(self: Containers, container: str, command: Any, *rest: Any, into: Any = None, **more: Any) -> Output:
        done = execute(self, container, command, *rest, into=into, **more)
        if into is not None:
            into.flush()
            size = os.fstat(into.fileno()).st_size
            if harm == "cut":
                os.ftruncate(into.fileno(), size - 10)
            else:
                os.pwrite(into.fileno(), b"\xff\xff\xff\xff", 6)
        return done

    monkeypatch.setattr(Containers, "execute", harmed)
    assert "can't be read back" in told(small)


def test_the_pg_dump_of_a_killed_run_is_ended_and_its_file_removed(small: Database) -> None:
    folder(small).mkdir(mode=0o700)
    left = folder(small) / f".{small.name}-20260101T000000.000Z.dump.partial"
    left.write_bytes(b"half")
    others = folder(small) / f".{small.name}-second-20260101T000000.000Z.dump.partial"
    others.write_bytes(b"half")
    superuser = superuser_of(options(small))
    assert superuser
    command = ["psql", "-XqU", "postgres", "-d", f"dbname='{small.name}' application_name='{dump.APPLICATION}'"]
    sql = 'BEGIN; LOCK TABLE "t1" IN ACCESS SHARE MODE; SELECT pg_sleep(600);'
    old = threading.Thread(target=superuser.containers.execute, args=(superuser.container, command, sql))
    old.start()
    count = "SELECT count(*) FROM pg_locks WHERE relation = to_regclass('t1')"
    wait_until(lambda: small.query(count) == [(1,)])
    assert small.migrate(**options(small, lock_timeout="2s"))["changed"] is True
    old.join(20)
    assert not old.is_alive()
    assert (left.exists(), others.exists()) == (False, True)


def test_a_strange_name(instance: Any, tmp_path: Path) -> None:
    home = Database(instance, instance.database, tmp_path)
    strange = Database(instance, "odd '\\/name", tmp_path)
    home.query('DROP DATABASE IF EXISTS "odd \'\\/name"')
    home.query('CREATE DATABASE "odd \'\\/name" TEMPLATE template0')
    try:
        strange.write(_1_a="CREATE TABLE a ()")
        assert strange.migrate(**options(strange))["changed"] is True
        assert len(backups(strange)) == 1
    finally:
        home.query('DROP DATABASE "odd \'\\/name" WITH (FORCE)')


def test_a_failing_migration_names_its_backup(small: Database) -> None:
    small.write(_6_step="SELECT 1/0")
    with pytest.raises(DasTernError) as failure:
        small.migrate(**options(small))
    assert failure.value.facts["backup"]["file"] == backups(small)[0].file


def test_the_guards_come_first(small: Database) -> None:
    refused(small, require_approval=True, **options(small))
    assert not folder(small).exists()


def test_in_the_playbook(small: Database) -> None:
    given = {key: value for key, value in options(small).items() if key.startswith("backup")}
    variables: dict[str, Any] = {f"migrations_{key}": value for key, value in given.items()}
    variables |= {
        "postgres_container_name": small.instance.container,
        "docker_engine_endpoint": small.instance.endpoint,
    }
    check = small.play("--check", **variables)
    assert f"a backup into {folder(small)} would come first" in check.stdout, check.stdout
    real = small.play("-vvv", "--diff", **variables)
    (backup,) = backups(small)
    assert f"backup {backup.file}" in real.stdout, real.stdout
    again = small.play(**variables)
    assert "changed=0" in again.stdout, again.stdout
    assert len(backups(small)) == 1


def test_a_rehearsal_on_the_newest_backup(small: Database) -> None:
    """Brought up to what the live database has applied since; its rows are those of the backup."""
    given = {"source": "backup", "backup_dir": str(folder(small))}
    with pytest.raises(DasTernError, match="0 backups of database.*source=live"):
        rehearse(rehearsal_params(small, **given))
    small.write(_6_step='ALTER TABLE "t1" ADD COLUMN x int')
    small.migrate(**options(small))
    (backup,) = backups(small)
    small.query('DELETE FROM "t1"')
    small.write(_7_step="DO $$ BEGIN ASSERT (SELECT count(*) = 1000 AND count(x) = 0 FROM t1); END $$;")
    check = rehearse(rehearsal_params(small, **given), check_mode=True)
    assert f"a copy of the backup {backup.file}" in check["lines"][0]
    done = rehearse(rehearsal_params(small, **given))
    assert done["verdict"] == SAFE
    assert done["backup"] == str(backup)
    assert [file["name"] for file in done["files"]] == ["7_step"]
    with open(backup.file, "r+b") as file:
        file.seek(100)
        file.write(b"????")
    with pytest.raises(DasTernError, match="isn't what was written"):
        rehearse(rehearsal_params(small, **given))
    names = small.query("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", small.name)
    assert names == [(small.name,)]


def test_a_backup_of_another_history_is_not_taken(small: Database) -> None:
    small.migrate(**options(small, backup=False))
    small.write(_7_step="SELECT 1")
    small.migrate(**options(small))
    small.query("UPDATE _prisma_migrations SET rolled_back_at = now() WHERE migration_name = '6_step'")
    with pytest.raises((DasTernError, psycopg.Error), match="all with migrations that it no longer has"):
        rehearse(rehearsal_params(small, source="backup", backup_dir=str(folder(small)), on_out_of_order="warn"))


def test_a_rollback_without_down_names_the_backup_that_fits(small: Database) -> None:
    given = {"playbook": "playbooks/rollback.yml", "to": "5_step", "migrations_backup_dir": str(folder(small))}
    small.migrate(**options(small, backup=False))
    none = small.play(**given)
    assert f"there is none in `migrations_backup_dir` ({folder(small)})" in " ".join(none.stdout.split()), none.stdout
    for name in ("7_step", "8_step"):
        small.write(**{f"_{name}": "SELECT 1"})
        small.migrate(**options(small))
    newer, older = backups(small)
    assert (len(newer.applied), len(older.applied)) == (7, 6)
    small.query("UPDATE _prisma_migrations SET started_at = now() - interval '1 day' WHERE migration_name < '7'")
    refusal = " ".join(small.play(**{**given, "to": "6_step"}).stdout.split())
    assert (
        f"before 7_step was applied: {older}, as a database beside the live one: `{older.restore_command('dastern-postgres', 'dastern_user')}`"
        in refusal
    )
    refusal = " ".join(small.play(**{**given, "to": "7_step"}).stdout.split())
    assert f"before 8_step was applied: {newer}, as a database" in refusal


def test_a_playbook_that_waits_says_for_whom(small: Database) -> None:
    with small.connect() as other:
        other.execute("SELECT pg_advisory_lock(72707369)")
        waiting = subprocess.Popen(
            small.playbook(playbook="playbooks/resolve_migration.yml", applied="6_step"),
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert waiting.stdout
        assert next(line for line in waiting.stdout if "waiting for pid" in line)
        other.execute("SELECT pg_advisory_unlock(72707369)")
        assert waiting.wait() == 0
    assert small.ledger()[-1] == "6_step"


def test_a_rollback_is_preceded_by_one(small: Database) -> None:
    small.write(_6_step="CREATE TABLE six (id int)")
    (small.folder / "6_step" / "down.sql").write_text("DROP TABLE six;")
    small.migrate()
    small.query("INSERT INTO six VALUES (1)")
    given = {
        "playbook": "playbooks/rollback.yml", "to": "5_step", "confirm": small.name, "migrations_backup": True,
        "migrations_backup_dir": str(folder(small)), "postgres_container_name": small.instance.container,
        "docker_engine_endpoint": small.instance.endpoint,
    }  # fmt: skip
    check = small.play("--check", **given)
    assert (check.returncode, folder(small).exists()) == (0, False), check.stdout
    done = small.play(**given)
    (backup,) = backups(small)
    assert f"backup {backup.file}, read back" in done.stdout, done.stdout
    assert (backup.reason, backup.applied[-1]) == ("before going back to 5_step", "6_step")
    assert small.query("SELECT to_regclass('six')") == [(None,)]
    small.migrate()
    blocked = small.play(**{**given, "migrations_backup_dir": "backups"})
    assert "Nothing was rolled back (`migrations_backup` is true)." in " ".join(blocked.stdout.split()), blocked.stdout
    assert small.query("SELECT to_regclass('six')") == [("six",)]


def test_a_migration_that_fails_again_and_again_costs_no_older_backup(small: Database) -> None:
    small.migrate(**options(small, backup_keep=2))
    small.write(_7_step="SELECT 1/0")
    for _ in range(4):
        with pytest.raises(DasTernError, match="P3018"):
            small.migrate(**options(small, backup_keep=2))
    newest, oldest = backups(small)
    assert (newest.reason, oldest.reason) == ("before 7_step", "before 6_step")


def test_backups_of_another_cluster_are_none_of_this_one(small: Database) -> None:
    small.migrate(**options(small))
    (backup,) = backups(small)
    (manifest,) = folder(small).glob("*.json")
    manifest.write_text(manifest.read_text().replace(backup.system, "7000000000000000000"))
    assert backups(small) == []
    small.write(_7_step="SELECT 1")
    small.migrate(**options(small, backup_keep=1))
    assert len(backups(small)) == 1
    assert manifest.with_suffix(".dump").exists()


def test_the_window_is_looked_at_again_behind_the_backup(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [datetime.time(4, 58), datetime.time(4, 59), datetime.time(5, 1)]
    monkeypatch.setattr(migrate, "time_of_day", lambda _: times.pop(0))
    with pytest.raises(DasTernError, match="outside the maintenance window"):
        small.migrate(**options(small, window="22:00-05:00"))
    assert small.ledger()[-1] == "5_step"
    assert len(backups(small)) == 1


def test_what_was_applied_since_the_backup_must_not_reach_the_live_server(small: Database) -> None:
    small.write(_6_step=f"ALTER DATABASE {small.name} SET work_mem = '7MB'")
    small.migrate(**options(small))
    small.query(f"ALTER DATABASE {small.name} RESET work_mem")
    small.write(_7_step="SELECT 1")
    with pytest.raises(DasTernError, match="source=live"):
        rehearse(rehearsal_params(small, source="backup", backup_dir=str(folder(small))))
    settings = "SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = %s"
    assert small.query(settings, small.name) == [(0,)]
