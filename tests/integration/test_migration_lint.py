"""Lint before migrations are applied, and new migrations, as an operator runs them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import read_folder
from ansible.module_utils.dastern.lint.foreign_keys import without_index
from ansible.module_utils.dastern.lint.lint import lint_folder
from migrating import ROOT, Database

DROP = "CREATE TABLE u (id int PRIMARY KEY);\nDROP TABLE IF EXISTS gone;\nCREATE INDEX i ON t (n);\n"


@pytest.fixture
def pending(database: Database) -> Database:
    """One migration applied, and one pending that has a danger and a warning."""
    database.write(_1_table="CREATE TABLE t (n int);")
    database.migrate()
    database.write(_2_drop=DROP)
    return database


def flat(done: subprocess.CompletedProcess[str]) -> str:
    """What a play said, without the line breaks that the width of the screen makes."""
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


def report(
    pending: Database, *arguments: str, **variables: Any
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    path = pending.folder.parent / f"{pending.folder.name}-report.json"
    path.unlink(missing_ok=True)
    done = pending.play(*arguments, report_file=path, **variables)
    written = yaml.safe_load(path.read_text())
    return done, written["hosts"]["localhost"]["sections"].get("migrations", {})


@pytest.mark.parametrize("arguments", [["--check"], []], ids=["check", "real"])
def test_danger_is_refused(pending: Database, arguments: list[str]) -> None:
    before = pending.state()
    done, section = report(pending, *arguments, migrations_lint="fail")
    assert done.returncode == 2, done.stdout
    assert pending.state() == before
    said = flat(done)
    place = f"{pending.folder}/2_drop/migration.sql"
    assert (
        "Lint reports 1 danger in the pending migrations, and `migrations_lint` is fail: nothing was applied." in said
    )
    assert f"{place}:2:1: danger: ban-drop-table: Dropping a table may break existing clients." in said
    assert f"[WARNING]: {place}:3:1: warning: require-concurrent-index-creation:" in said
    assert "`-e migrations_lint=warn`" in said
    assert "Traceback" not in said
    assert [(one["rule"], one["severity"]) for one in section["lint"]] == [
        ("ban-drop-table", "danger"),
        ("require-concurrent-index-creation", "warning"),
    ]
    assert section["pending"] == ["2_drop"]
    assert "lint: 1 of class danger, 1 of class warning" in section["lines"]


def test_check_real_again_check(pending: Database) -> None:
    """`warn` says all of it, applies, and has nothing to say about what is applied."""
    before = pending.state()
    planned, section = report(pending, "--check")
    assert (planned.returncode, section["pending"]) == (0, ["2_drop"])
    assert pending.state() == before
    done, section = report(pending)
    assert (done.returncode, section["applied"]) == (0, ["1_table", "2_drop"])
    for said in (flat(planned), flat(done)):
        assert f"[WARNING]: {pending.folder}/2_drop/migration.sql:2:1: danger: ban-drop-table:" in said
        assert "require-concurrent-index-creation" in said
        assert "1_table" not in re.findall(r"\[WARNING\]: (\S+)", said)
    assert "lint: 1 of class danger, 1 of class warning" in section["lines"]
    before = pending.state()
    for arguments in ([], ["--check"]):
        again, section = report(pending, *arguments, migrations_lint="fail")
        assert (again.returncode, section["pending"]) == (0, [])
        assert "lint" not in section
        assert "[WARNING]" not in again.stderr
    assert pending.state() == before


@pytest.mark.parametrize("value", ["off", "{migrations_lint: off}"])
def test_off(pending: Database, value: str) -> None:
    """Also as YAML reads it, where `off` is a boolean."""
    done = (
        pending.play(migrations_lint="off")
        if value == "off"
        else subprocess.run([*pending.playbook(), "-e", value], cwd=ROOT, capture_output=True, text=True)
    )
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stderr
    assert pending.ledger() == ["1_table", "2_drop"]


def test_what_is_ignored_is_applied(pending: Database) -> None:
    (pending.folder / "lint.yml").write_text("- {rule: ban-drop-table, migration: 2_drop, why: empty since March}\n")
    done, section = report(pending, migrations_lint="fail")
    assert done.returncode == 0, done.stdout
    assert [one["rule"] for one in section["lint"]] == ["require-concurrent-index-creation"]
    assert pending.ledger() == ["1_table", "2_drop"]


def test_ignore_file_that_is_wrong(pending: Database) -> None:
    (pending.folder / "lint.yml").write_text("- {rule: ban-drop-tabel, why: typing error}\n")
    before = pending.state()
    done = pending.play()
    assert done.returncode == 2
    assert f"{pending.folder}/lint.yml, entry 1: there is no rule 'ban-drop-tabel'" in flat(done)
    assert pending.state() == before


def test_module_on_the_host(pending: Database) -> None:
    """The same with a module process, as it is where the host isn't the controller."""
    python = Path(sys.executable).with_name("python3")
    before = pending.state()
    refused = pending.play(migrations_lint="fail", ansible_python_interpreter=python)
    assert refused.returncode == 2
    assert "danger: ban-drop-table:" in flat(refused)
    assert pending.state() == before
    done = pending.play(ansible_python_interpreter=python)
    assert done.returncode == 0, done.stdout
    assert "danger: ban-drop-table:" in flat(done)
    assert pending.ledger() == ["1_table", "2_drop"]


def test_without_squawk(pending: Database, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A controller without it: production refuses with the mend, elsewhere it is a warning. Nothing pending: not looked for."""
    work = tmp_path_factory.mktemp("bin")
    python = Path(sys.executable)
    # The interpreter under another path has no program beside it.
    (work / "python").symlink_to(python.resolve())
    (work / "ansible-playbook").write_text(f"#!{work}/python\n" + python.with_name("ansible-playbook").read_text())
    (work / "ansible-playbook").chmod(0o755)
    site = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": site}
    environment.pop("VIRTUAL_ENV", None)

    def play(value: str) -> subprocess.CompletedProcess[str]:
        command = [str(work / "ansible-playbook"), *pending.playbook(migrations_lint=value)[1:]]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)

    before = pending.state()
    refused = play("fail")
    assert refused.returncode == 2, refused.stdout
    assert "danger: squawk: the program squawk is not installed. `scripts/setup` installs it." in flat(refused)
    assert pending.state() == before
    warned = play("warn")
    assert warned.returncode == 0, warned.stdout
    assert "danger: squawk: the program squawk is not installed." in flat(warned)
    idle = play("fail")
    assert (idle.returncode, "squawk" in flat(idle)) == (0, False)


def test_foreign_keys_are_those_of_the_catalogue(database: Database) -> None:
    """What is read out of the files is what the server knows after they have run."""
    database.folder = ROOT / "files" / "sql" / "migrations"
    database.migrate()
    bare = database.query(
        "SELECT conname FROM pg_constraint AS c WHERE contype = 'f' AND NOT EXISTS (SELECT FROM pg_index WHERE"
        " indrelid = conrelid AND indpred IS NULL AND indkey[0] = conkey[1]) ORDER BY 1"
    )
    assert len(bare) == 3
    assert sorted(key.name for key in without_index([file.sql for file in read_folder(database.folder)])) == [
        name for (name,) in bare
    ]


@pytest.mark.parametrize(
    ("sql", "sqlstate", "rule"),
    [
        ("ALTER TYPE mood ADD VALUE 'SAD'; INSERT INTO m VALUES ('SAD');", "55P04", "enum-value-used"),
        (
            "ALTER TYPE mood ADD VALUE 'SAD'; DO $$ BEGIN INSERT INTO m VALUES ('SAD'); END $$;",
            "55P04",
            "enum-value-used",
        ),
        (
            "ALTER TYPE mood ADD VALUE 'SAD'; CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS"
            " $$ SELECT count(*) FROM m WHERE x = 'SAD' $$;",
            "55P04",
            "enum-value-used",
        ),
        ("ALTER TYPE mood ADD VALUE 'SAD'; ALTER TYPE mood ADD VALUE 'MAD' AFTER 'SAD';", None, None),
        ("ALTER TYPE mood ADD VALUE 'SAD'; COMMENT ON TABLE m IS 'SAD';", None, None),
        (
            "ALTER TYPE mood ADD VALUE 'SAD'; CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO m VALUES ('SAD'); END $$;",
            None,
            None,
        ),
        ("CREATE TYPE o AS ENUM ('A'); ALTER TYPE o ADD VALUE 'B'; CREATE TABLE n (o o DEFAULT 'B');", None, None),
        ("SELECT 1; CLUSTER;", "25001", "not-alone"),
        ("SELECT 1; REINDEX SCHEMA public;", "25001", "not-alone"),
        ("SELECT 1; DISCARD ALL;", "25001", "not-alone"),
        ("SELECT 1; CREATE INDEX CONCURRENTLY i ON m (x);", "25001", "not-alone"),
        ("SELECT 1; CLUSTER m USING m_i;", None, None),
        ("SELECT 1; REINDEX TABLE m;", None, None),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v; SELECT 1;", None, None),
    ],
)
def test_the_rules_say_what_the_server_does(
    database: Database, sql: str, sqlstate: str | None, rule: str | None
) -> None:  # fmt: skip
    database.write(
        _1_start="CREATE TYPE mood AS ENUM ('HAPPY'); CREATE TABLE m (x mood); CREATE INDEX m_i ON m (x);"
        "CREATE MATERIALIZED VIEW v AS SELECT 1 AS a; CREATE UNIQUE INDEX v_i ON v (a);"
    )
    database.migrate()
    database.write(_2_try=sql)
    found = [one.rule for one in lint_folder(database.folder) if one.rule in ("enum-value-used", "not-alone")]
    assert found == ([rule] if rule else [])
    if sqlstate is None:
        assert database.migrate()["applied_now"]
        return
    with pytest.raises(DasTernError) as failure:
        database.migrate()
    assert failure.value.facts["sqlstate"] == sqlstate


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("DROP TYPE mood CASCADE;", "drop-cascade"),
        ("-- squawk-ignore-file\nDROP TABLE m;", "ban-drop-table"),
        ("TRUNCATE m;", "deletes-all-rows"),
        ("WITH gone AS (DELETE FROM m RETURNING x) SELECT FROM gone;", "deletes-all-rows"),
        ("DO $$ BEGIN EXECUTE 'ALTER TABLE m DROP x'; END $$;", "ban-drop-column"),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'TRUNCATE m'; SELECT f();", "deletes-all-rows"),
    ],
)
def test_what_loses_rows_is_refused(database: Database, sql: str, rule: str) -> None:
    """The server would do it: with `off` the rows, or the column, are gone."""
    database.write(_1_start="CREATE TYPE mood AS ENUM ('SAD'); CREATE TABLE m (x mood); INSERT INTO m VALUES ('SAD');")
    database.migrate()
    database.write(_2_try=sql)
    before = database.state()
    refused = database.play(migrations_lint="fail")
    assert refused.returncode == 2
    assert f"danger: {rule}:" in flat(refused)
    assert database.state() == before
    assert [one["name"] for one in database.migrate()["applied_now"]] == ["2_try"]
    left = database.query("SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('m') AND attname = 'x'")
    assert left == [(0,)] or database.query("SELECT count(*) FROM m") == [(0,)]


@pytest.mark.parametrize(
    "sql",
    [
        "LOCK m",
        "CLUSTER m USING m_i",
        "ALTER TABLE m SET UNLOGGED",
        "ALTER TABLE m ADD n serial",
        "ALTER TABLE m ADD EXCLUDE (x WITH =)",
        "ALTER TABLE m SET TABLESPACE pg_default",
        "ALTER TABLE m SET ACCESS METHOD heap",
        "REFRESH MATERIALIZED VIEW v",
    ],
)
def test_what_locks_out_reads(database: Database, sql: str) -> None:
    """The server's own word: the lock that is held when the statement is done."""
    database.write(
        _1_start="CREATE TABLE m (x int); CREATE INDEX m_i ON m (x); CREATE MATERIALIZED VIEW v AS SELECT 1 AS a;"
    )
    database.migrate()
    held = "SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation IN ('m'::regclass, 'v'::regclass)"
    database.write(_2_try=f"{sql}; CREATE TABLE seen AS {held};")
    assert [one.rule for one in lint_folder(database.folder) if one.severity == "danger"] == ["locks-out-reads"]
    database.migrate()
    assert database.query("SELECT count(*) > 0 FROM seen") == [(True,)]


def test_a_wider_varchar_rewrites_nothing(database: Database) -> None:
    database.write(
        _1_start="CREATE TABLE m (a varchar(10) PRIMARY KEY, b varchar(10), c text); CREATE INDEX m_i ON m (b, c);"
    )
    database.migrate()
    files = "SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relname LIKE 'm%' ORDER BY 1"
    before = database.query(files)
    database.write(_2_try="ALTER TABLE m ALTER a TYPE varchar(20), ALTER b SET DATA TYPE text, ALTER c TYPE varchar;")
    assert [one.rule for one in lint_folder(database.folder) if one.migration == "2_try"] == []
    database.migrate()
    assert database.query(files) == before


# --- new migrations


def new(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`playbooks/new_migration.yml` with an inventory of which no host answers."""
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/new_migration.yml", "-i",
        "inventories/production", "-e", f"migrations_dir={folder}", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "1000"})


def test_new_check_real_again(tmp_path: Path) -> None:
    name = "migration_name=add_user_avatar_field"
    planned = new(tmp_path, "-e", name, "--check", "--diff")
    assert planned.returncode == 0, planned.stdout
    assert "+-- add_user_avatar_field" in planned.stdout
    command = f"ansible-playbook playbooks/new_migration.yml -i inventories/production -e migrations_dir={tmp_path} -e {name} --diff"
    assert f"  next         {command}\n" in planned.stdout
    assert list(tmp_path.iterdir()) == []

    done = new(tmp_path, "-e", name)
    assert done.returncode == 0, done.stdout
    (directory,) = tmp_path.iterdir()
    assert re.fullmatch(r"\d{14}_add_user_avatar_field", directory.name)
    assert [path.name for path in directory.iterdir()] == ["migration.sql"]
    assert stat.S_IMODE((directory / "migration.sql").stat().st_mode) & 0o111 == 0
    assert "edit " + os.path.relpath(directory / "migration.sql", ROOT) in done.stdout
    where = f"-i inventories/production -e migrations_dir={tmp_path}"
    assert f"ansible-playbook {where} migrate.yml --check --diff" in done.stdout
    assert "[WARNING]" not in done.stderr

    for arguments in ([], ["--check"]):
        again = new(tmp_path, "-e", name, *arguments)
        assert again.returncode == 2
        assert f"A migration named add_user_avatar_field exists already: {directory}." in flat(again)
        assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_new_with_down_under_the_short_names(tmp_path: Path) -> None:
    done = new(tmp_path, "-e", "name=addUserAvatarField", "-e", "down=true")
    assert done.returncode == 0, done.stdout
    (directory,) = tmp_path.iterdir()
    assert directory.name.endswith("_add_user_avatar_field")
    assert sorted(path.name for path in directory.iterdir()) == ["down.sql", "migration.sql"]
    # Ansible's own word about its own name, which can't be had quiet, and ours about the spelling.
    assert done.stderr.count("[WARNING]") == 2
    assert "Found variable using reserved name 'name'." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "A new migration needs a name, such as add_user_avatar_field"),
        (["-e", "migration_name=../avatar"], "The name '../avatar' holds '/'"),
        (["-e", "migration_name=add_avatar", "-e", "migrations_dir=/nonexistent"], "/nonexistent does not exist"),
        (["-e", "migration_name=add_avatar", "-e", "migrations_nam=x"], "Did you mean `migrations_name`"),
    ],
)
def test_new_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    for more in ([], ["--check"]):
        done = new(tmp_path, *arguments, *more)
        assert done.returncode == 2
        assert words in flat(done)
        assert "Traceback" not in flat(done)
        summary = done.stdout[done.stdout.index(" · playbooks/new_migration.yml · ") :]
        assert "\n  failed       " in summary
        assert words in summary
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_is_refused_while_it_is_empty_and_applied_when_written(database: Database) -> None:
    assert new(database.folder, "-e", "migration_name=add_user_avatar_field").returncode == 0
    (directory,) = database.folder.iterdir()
    for lint in ("fail", "warn", "off"):
        for arguments in (["--check"], []):
            refused = database.play(*arguments, migrations_lint=lint)
            assert refused.returncode == 2
            assert f"{directory}/migration.sql is still the template that new_migration.yml wrote" in flat(refused)
    status = database.play(playbook="playbooks/migration_status.yml")
    assert (status.returncode, f"empty: {directory.name}" in status.stdout) == (2, True), status.stdout
    assert database.ledger() == []
    script = directory / "migration.sql"
    script.write_text(script.read_text() + "CREATE TABLE avatars (id int PRIMARY KEY);\n")
    done = database.play(migrations_lint="fail")
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stderr
    assert database.ledger() == [directory.name]
