"""The backup before a migration: taken, read back, listed, pruned, restored; and nothing applied where it can't be."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.backups import logical as backup_logical
from ansible.module_utils.dastern.backups.records import Place, Record
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.quantities import local
from ansible.module_utils.dastern.migrations import migrate
from ansible.module_utils.dastern.migrations.backup import listed
from ansible.module_utils.dastern.migrations.rehearsal_record import SAFE
from ansible.module_utils.dastern.restores import request
from ansible.module_utils.dastern.restores import run as restore_run
from ansible.module_utils.dastern.server import backup_folders
from ansible.module_utils.dastern.server.connection import system_identifier
from ansible.module_utils.dastern.server.psql import superuser_of
from migrating import ROOT, Database, wait_until
from test_rehearse import params as rehearsal_params
from test_rehearse import rehearse


def folder(database: Database) -> Path:
    return Path(database.instance.variables["postgres_backup_dir"])


def options(database: Database, **changes: Any) -> dict[str, Any]:
    return {
        "backup": True,
        "backup_dir": str(folder(database)),
        "container": database.instance.container,
        "endpoint": database.instance.endpoint,
        **changes,
    }


def place_of(database: Database) -> Place:
    return Place({**options(database), "database": database.name})


def backups(database: Database) -> list[Record]:
    with database.connect() as connection:
        return listed(place_of(database), database.name, system_identifier(connection))


def files_of(database: Database, backup: Record) -> Path:
    return folder(database) / "logical" / backup.label


def leftovers(database: Database) -> list[str]:
    labels = {record.label for record in place_of(database).records()}
    return [path.name for path in (folder(database) / "logical").glob("*") if path.name not in labels]


@pytest.fixture
def small(chain: Database) -> Database:
    """Five applied migrations and one that is pending."""
    chain.migrate()
    chain.query('INSERT INTO "t1" SELECT i FROM generate_series(2, 1000) AS i')
    chain.write(_6_step='DROP TABLE "t1";')
    return chain


def test_check_real_again_check(small: Database) -> None:
    check = small.migrate(check_mode=True, **options(small))
    assert (check["backup_due"], backups(small)) == (str(folder(small)), [])
    real = small.migrate(**options(small))
    assert real["applied_now"][0]["name"] == "6_step"
    (backup,) = backups(small)
    assert real["backup"].items() <= {**backup.as_dict(), "proof": "read back"}.items()
    assert (backup.database, backup.reason) == (small.name, "before migrating")
    assert backup.migrations == [f"{number}_step" for number in range(1, 6)]
    assert backup.census["tables"] == {
        "public._prisma_migrations": 5, "public.t1": 1000, **{f"public.t{number}": 1 for number in range(2, 6)},
    }  # fmt: skip
    # The container reads the files, and nobody else comes as far as there.
    assert [(path.stat().st_uid, path.stat().st_mode & 0o777) for path in (folder(small), files_of(small, backup))] == [
        (0, 0o700), (0, 0o755),
    ]  # fmt: skip
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in files_of(small, backup).iterdir()} == {
        (0, 0o644)
    }
    again = small.migrate(**options(small))
    assert (again["changed"], "backup" in again) == (False, False)
    assert "backup_due" not in small.migrate(check_mode=True, **options(small))
    assert backups(small) == [backup]


def test_it_is_restored_beside_the_live_one(small: Database) -> None:
    """Owners, grants and rows; the live database stays as it is."""
    small.query('GRANT SELECT ON "t1" TO dastern_readonly')
    small.migrate(**options(small))
    before = small.state()
    (backup,) = backups(small)
    restored = Database(small.instance, f"{small.name}_restored", small.folder)
    told = backup.restore_command.partition("playbooks/restore.yml ")[2].split()
    named = dict(word.split("=", 1) for word in told if word != "-e")
    defaults = {name: option.get("default") for name, option in request.ARGUMENT_SPEC.items()}
    planned = restore_run.restore(
        {
            **defaults, **named, "container": small.instance.container, "database": small.name, "volume": "",
            "backup_dir": small.instance.variables["postgres_backup_dir"], "config_dir": str(small.instance.config_dir),
        },
        check_mode=True,
    )  # fmt: skip
    assert f"restore into the new database {restored.name}" in " ".join(planned["lines"])
    restored.create()
    try:
        backup_logical.restore(place_of(small), backup, restored.name)
        assert restored.query('SELECT count(*), sum(id) FROM "t1"') == [(1000, 500500)]
        assert restored.query("SELECT relacl::text, relowner::regrole::text FROM pg_class WHERE relname = 't1'") == [
            ("{dastern_user=arwdDxtm/dastern_user,dastern_readonly=r/dastern_user}", "dastern_user")
        ]
        assert restored.ledger() == backup.migrations
    finally:
        restored.drop()
    assert small.state() == before


def test_only_so_many_are_kept(small: Database) -> None:
    """Of those that were taken for this; one that somebody took by hand isn't touched."""
    by_hand = backup_logical.take(place_of(small), small.name, "mine", "", "10s")
    seen = []
    for number in range(7, 11):
        small.write(**{f"_{number}_step": f"CREATE TABLE t{number} ()"})
        done = small.migrate(**options(small, backup_keep=2))
        seen.append(done["backup"]["label"])
    assert [backup.label for backup in backups(small)] == [*seen[:1:-1], by_hand.label]
    assert done["backups_deleted"] == [seen[1]]
    assert not (folder(small) / "logical" / seen[1]).exists()
    small.write(_99_step="SELECT 1")
    small.migrate(**options(small, backup_keep=0))
    assert len(backups(small)) == 2


def test_what_is_cut_short_or_gone_is_no_backup(small: Database) -> None:
    small.migrate(**options(small))
    (backup,) = backups(small)
    os.truncate(files_of(small, backup) / "toc.dat", backup.files["toc.dat"]["bytes"] - 1)
    assert backups(small) == []
    (files_of(small, backup) / "toc.dat").unlink()
    assert backups(small) == []
    assert listed(place_of(small), "another", backup.system) == []


def told(database: Database, **changes: Any) -> str:
    """The refusal of a run that must leave the database and the folder as they were."""
    before, there = database.state(), [backup.label for backup in backups(database)]
    with pytest.raises(DasTernError) as failure:
        database.migrate(**options(database, **changes))
    assert database.state() == before
    assert [backup.label for backup in backups(database)] == there
    assert not leftovers(database)
    assert "Nothing was applied (`migrations_backup` is true)." in failure.value.message
    return failure.value.message


def test_nothing_is_applied_without_it(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "expected an absolute path" in told(small, backup_dir="backups")
    assert "`postgres_container_name` is empty" in told(small, container="")
    assert "No such container" in told(small, container="dastern-test-none")
    (small.folder.parent / "plain").write_text("")
    assert "Not a directory" in told(small, backup_dir=str(small.folder.parent / "plain" / "x"))
    assert "doesn't exist. Is its disk mounted" in told(small, backup_dir=str(small.folder.parent / "elsewhere"))
    monkeypatch.setattr(backup_logical, "_SHELL", "pg_dump --no-such-option")
    assert "pg_dump: " in told(small)
    assert small.migrate(**options(small, backup=False))["changed"] is True


def test_a_table_that_stays_locked(small: Database) -> None:
    with small.connect() as other:
        other.execute('BEGIN; LOCK TABLE "t2"')
        assert f"in the way: pid {other.info.backend_pid} (user " in told(small, lock_timeout="200ms")


@contextmanager
def small_disk(database: Database) -> Iterator[None]:
    """A disk of 256 kB for the backups, which the container sees once it was started again."""
    restart = ["docker", "restart", database.instance.container]

    def again() -> None:
        subprocess.run(restart, check=True, capture_output=True)
        wait_until(lambda: not subprocess.run(["docker", "exec", restart[2], "pg_isready", "-qh127.0.0.1"]).returncode)

    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", str(folder(database))]
    identity = folder(database) / "identity.json"
    known = identity.read_bytes()
    subprocess.run(mount, check=True)
    try:
        identity.write_bytes(known)
        given = {"backup_dir": str(folder(database)), "config_dir": str(database.instance.config_dir)}
        backup_folders.steps(given, check_mode=False)
        again()
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder(database))], check=True)
        again()


def test_a_full_disk(small: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    small.query('INSERT INTO "t2" SELECT i, md5(i::text) FROM generate_series(10, 19999) AS i')
    with small_disk(small):
        assert "may not fit into" in told(small)
        monkeypatch.setattr(backup_logical, "refuse_full_disk", lambda *_: None)
        assert "No space left on device" in told(small)


@pytest.mark.parametrize("harm", ["cut", "emptied", "toc.dat cut"])
def test_a_dump_that_can_not_be_read_back_does_not_count(
    small: Database, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    adopt = backup_logical.adopt

    def harmed(inside: Path, name: str, into: Path) -> None:
        adopt(inside, name, into)
        file = max(into.glob("*.dat.zst"), key=lambda path: path.stat().st_size)
        if harm == "toc.dat cut":
            file = into / "toc.dat"
        os.truncate(file, 0 if harm == "emptied" else file.stat().st_size - 10)

    monkeypatch.setattr(backup_logical, "adopt", harmed)
    refusal = told(small)
    assert "can't be read back" in refusal
    assert (
        "pg_restore: " if harm == "toc.dat cut" else "table public.t1 has "
    ) in refusal  # the others it doesn't notice


def test_the_pg_dump_of_a_killed_run_is_ended_and_its_file_removed(small: Database) -> None:
    logical = folder(small) / "logical"
    names = ("20260101-000000L.partial", "20260101-000000L", "20260101-000001L", "Logs")
    left, unrecorded, lost, others = (logical / name for name in names)
    for path in (left, unrecorded, lost, others):
        path.mkdir(parents=True)
        (path / "toc.dat").write_bytes(b"half")
    mark = unrecorded.with_suffix(".incomplete")
    mark.touch()
    superuser = superuser_of(options(small))
    assert superuser
    command = [
        "psql",
        "-XqU",
        "postgres",
        "-d",
        f"dbname='{small.name}' application_name='{backup_logical.APPLICATION}'",
    ]
    sql = 'BEGIN; LOCK TABLE "t1" IN ACCESS SHARE MODE; SELECT pg_sleep(600);'
    old = threading.Thread(target=superuser.containers.execute, args=(superuser.container, command, sql))
    old.start()
    count = "SELECT count(*) FROM pg_locks WHERE relation = to_regclass('t1')"
    wait_until(lambda: small.query(count) == [(1,)])
    assert small.migrate(**options(small, lock_timeout="2s"))["changed"] is True
    old.join(20)
    assert not old.is_alive()
    assert [path.exists() for path in (left, unrecorded, mark, lost, others)] == [False, False, False, True, True]
    shutil.rmtree(others)
    shutil.rmtree(lost)


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
    assert failure.value.facts["backup"]["label"] == backups(small)[0].label


def test_the_guards_come_first(small: Database) -> None:
    assert small.migrate(check_mode=True, require_approval=True, **options(small))["refused"]
    with pytest.raises(DasTernError, match="-e migrations_approved="):
        small.migrate(require_approval=True, **options(small))
    assert backups(small) == []


def test_in_the_playbook(small: Database) -> None:
    variables: dict[str, Any] = {
        "migrations_backup": True,
        "migrations_backup_drill": True,
        "postgres_backup_dir": str(folder(small)),
        "postgres_config_dir": str(small.instance.config_dir),
        "postgres_container_name": small.instance.container,
        "docker_engine_endpoint": small.instance.endpoint,
    }
    check = small.play("--check", **variables)
    assert f"a backup into {folder(small)} would come first" in check.stdout, check.stdout
    real = small.play("-vvv", "--diff", **variables)
    (backup,) = backups(small)
    assert f"backup {backup.label}" in real.stdout, real.stdout
    assert "restored for trial" in " ".join(real.stdout.split()), real.stdout
    assert backup.drilled is not None
    assert backup.drilled.ok
    again = small.play(**variables)
    assert "· 0 changed ·" in again.stdout, again.stdout
    assert len(backups(small)) == 1


def test_a_backup_that_reads_well_and_cant_be_restored(small: Database) -> None:
    """Nothing of the search path is there while rows are restored."""
    small.query(
        "CREATE FUNCTION known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM t1 WHERE id = $1)'"
    )
    drilled = options(small, backup_drill=True, config_dir=str(small.instance.config_dir))
    small.write(_0_step="SELECT 1/0")
    with pytest.raises(DasTernError, match="P3018"):
        small.migrate(**drilled)
    (good,) = backups(small)
    small.query("CREATE TABLE guarded (id int CHECK (known(id)))")
    small.query("INSERT INTO guarded VALUES (5)")
    before = small.state()
    for _ in range(2):
        with pytest.raises(DasTernError) as failure:
            small.migrate(**drilled)
    message = failure.value.message
    assert "guarded" in message
    assert "Nothing was applied (`migrations_backup_drill` is true)." in message
    assert small.state() == before
    bad, kept = backups(small)
    assert bad.drilled is not None
    assert bad.drilled.differences
    assert kept.label == good.label, "the newest that can be restored stays"


def test_a_rehearsal_on_the_newest_backup(small: Database) -> None:
    """Brought up to what the live database has applied since; its rows are those of the backup."""
    given = {"source": "backup", "backup_dir": str(folder(small))}
    with pytest.raises(DasTernError, match="0 logical backups of database.*source=live"):
        rehearse(rehearsal_params(small, **given))
    small.write(_6_step='ALTER TABLE "t1" ADD COLUMN x int')
    small.migrate(**options(small))
    (backup,) = backups(small)
    small.query('DELETE FROM "t1"')
    small.write(_7_step="DO $$ BEGIN ASSERT (SELECT count(*) = 1000 AND count(x) = 0 FROM t1); END $$;")
    check = rehearse(rehearsal_params(small, **given), check_mode=True)
    assert f"a copy of the backup {backup}" in check["lines"][0]
    done = rehearse(rehearsal_params(small, **given))
    assert done["verdict"] == SAFE
    assert done["backup"] == str(backup)
    assert [file["name"] for file in done["files"]] == ["7_step"]
    with (files_of(small, backup) / "toc.dat").open("r+b") as file:
        file.seek(100)
        file.write(b"????")
    with pytest.raises(DasTernError, match="is damaged"):
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
    given = {"playbook": "playbooks/rollback.yml", "to": "5_step", "postgres_backup_dir": str(folder(small))}
    small.migrate(**options(small, backup=False))
    none = small.play(**given)
    assert f"there is no backup in `postgres_backup_dir` ({folder(small)})" in " ".join(none.stdout.split()), (
        none.stdout
    )
    for name in ("7_step", "8_step"):
        small.write(**{f"_{name}": "SELECT 1"})
        small.migrate(**options(small))
    newer, older = backups(small)
    assert (len(newer.migrations), len(older.migrations)) == (7, 6)
    small.query("UPDATE _prisma_migrations SET started_at = now() - interval '1 day' WHERE migration_name < '7'")
    refusal = " ".join(small.play(**{**given, "to": "6_step"}).stdout.split())
    assert f"before 7_step was applied: {older}, as a database beside the live one: `ansible-playbook " in refusal
    assert f"-e target={older.label} -e what=database -e into={small.name}_restored" in refusal
    refusal = " ".join(small.play(**{**given, "to": "7_step"}).stdout.split())
    assert f"before 8_step was applied: {newer}, as a database" in refusal
    # A physical one leads to any moment behind it, whose log is there.
    full = {
        "label": "20260101-000000F",
        "kind": "physical",
        "type": "full",
        "began": "2026-01-01T00:00:00+00:00",
        "files": {},
    }
    place_of(small).save(replace(newer, **full))
    ((began,),) = small.query("SELECT started_at FROM _prisma_migrations WHERE migration_name = '8_step'")
    refusal = " ".join(small.play(**{**given, "to": "7_step"}).stdout.split())
    place_of(small).forget("20260101-000000F")
    assert f'"target": "{local(began, exact=True)}"' in refusal
    assert f"Or the moment before it, {local(began, exact=True)}, from the physical backups" in refusal


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
        "postgres_backup_dir": str(folder(small)), "postgres_container_name": small.instance.container,
        "docker_engine_endpoint": small.instance.endpoint,
    }  # fmt: skip
    check = small.play("--check", **given)
    assert (check.returncode, backups(small)) == (0, []), check.stdout
    done = small.play(**given)
    (backup,) = backups(small)
    assert f"backup {backup.label}, read back" in done.stdout, done.stdout
    assert (backup.reason, backup.migrations[-1]) == ("before rolling back", "6_step")
    assert small.query("SELECT to_regclass('six')") == [(None,)]
    small.migrate()
    blocked = small.play(**{**given, "postgres_backup_dir": "backups"})
    assert "Nothing was rolled back (`migrations_backup` is true)." in " ".join(blocked.stdout.split()), blocked.stdout
    assert small.query("SELECT to_regclass('six')") == [("six",)]


def test_a_migration_that_fails_again_and_again_costs_no_older_backup(small: Database) -> None:
    small.migrate(**options(small, backup_keep=2))
    small.write(_7_step="SELECT 1/0")
    for _ in range(4):
        with pytest.raises(DasTernError, match="P3018"):
            small.migrate(**options(small, backup_keep=2))
    newest, oldest = backups(small)
    assert (newest.migrations[-1], oldest.migrations[-1]) == ("6_step", "5_step")


def test_backups_of_another_cluster_are_none_of_this_one(small: Database) -> None:
    small.migrate(**options(small))
    (backup,) = backups(small)
    place_of(small).save(replace(backup, system="7000000000000000000"))
    assert backups(small) == []
    small.write(_7_step="SELECT 1")
    small.migrate(**options(small, backup_keep=1))
    assert len(backups(small)) == 1
    assert files_of(small, backup).exists()


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
    told = rehearse(rehearsal_params(small, source="backup", backup_dir=str(folder(small))))
    assert [file["name"] for file in told["files"]] == ["7_step"]
    settings = "SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = %s"
    assert small.query(settings, small.name) == [(0,)]
