"""Applied migrations taken back by their `down.sql`."""

from __future__ import annotations

import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import read_down
from ansible.module_utils.dastern.migrations import drift as drift_run
from ansible.module_utils.dastern.migrations import rollback as module
from ansible.module_utils.dastern.migrations.new_migration import DOWN_TEXT
from ansible.module_utils.dastern.migrations.resolve import resolve
from ansible.module_utils.dastern.migrations.rollback import ARGUMENT_SPEC, rollback
from catalogue import catalogue
from migrating import Database
from test_migration_resolve import params as resolve_params

NAMES = [f"{number}_step" for number in range(1, 6)]


def down(database: Database, **files: str) -> None:
    for name, text in files.items():
        (database.folder / name.removeprefix("_") / "down.sql").write_text(text)


@pytest.fixture
def reversible(chain: Database) -> Database:
    down(chain, **{f"_{number}_step": f'DROP TABLE "t{number}";' for number in range(2, 6)})
    chain.migrate()
    return chain


def params(database: Database, to: str, **changes: Any) -> dict[str, Any]:
    defaults = {option: spec.get("default") for option, spec in ARGUMENT_SPEC.items()}
    given = {key: value for key, value in database.params().items() if key in ARGUMENT_SPEC}
    sent = [
        {"name": one.name, "sql": one.sql, "down": read_down(database.folder, one.name)} for one in database.files()
    ]
    return {**defaults, **given, "migrations": sent, "to": to, "confirm": database.name, **changes}


def drift(database: Database) -> dict[str, Any]:
    known = {**database.params(), "fail": False}
    return drift_run.drift(
        {name: known.get(name, option.get("default")) for name, option in drift_run.ARGUMENT_SPEC.items()}
    )


def refusal(database: Database, to: str, **changes: Any) -> str:
    before = database.state()
    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refused:
            rollback(params(database, to, **changes), check_mode=check_mode)
        assert database.state() == before
    assert databases(database) == [database.name]
    return refused.value.message


def databases(database: Database) -> list[str]:
    return [
        name for (name,) in database.query("SELECT datname FROM pg_database WHERE datname LIKE %s", f"{database.name}%")
    ]


def rows(database: Database) -> list[tuple[str, bool, bool]]:
    return database.query(  # type: ignore[return-value]
        "SELECT migration_name, finished_at IS NOT NULL, rolled_back_at IS NOT NULL FROM _prisma_migrations "
        "ORDER BY started_at"
    )


def test_check_real_again_check_and_up_again(reversible: Database) -> None:
    up = catalogue(reversible.query)
    before = reversible.state()
    check = rollback(params(reversible, "2_step"), check_mode=True)
    assert (check["changed"], check["names"]) == (True, ["5_step", "4_step", "3_step"])
    assert reversible.state() == before
    assert rollback(params(reversible, "2_step"))["names"] == ["5_step", "4_step", "3_step"]
    assert rows(reversible) == [(name, True, name > "2_step") for name in NAMES]
    assert reversible.query("SELECT to_regclass('t2') IS NOT NULL, to_regclass('t3')") == [(True, None)]
    after = reversible.state()
    assert rollback(params(reversible, "2_step"))["changed"] is False
    assert rollback(params(reversible, "2_step"), check_mode=True)["changed"] is False
    assert reversible.state() == after
    assert reversible.migrate()["applied"] == NAMES
    assert catalogue(reversible.query) == up
    assert databases(reversible) == [reversible.name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('DROP INDEX "t5_note_idx";', "going down doesn't restore the catalogue from before"),
        ('DROP TABLE "t5"; CREATE TABLE "t6" ();', "going down doesn't restore the catalogue"),
        ('DROP TABLE "t5";\nDROP TABLE "nothing";', "5_step/down.sql: 42P01"),
        ('SELECT 1;\nDROP TABLE "t5"; SELECT nothing;', "5_step/down.sql, line 2: 42703"),
        ('BEGIN; DROP TABLE "t5"; COMMIT;', "it controls transactions itself"),
        ("DROP INDEX CONCURRENTLY t5_note_idx", "one transaction: write this statement without CONCURRENTLY"),
        (
            "DROP TABLE t5;\nALTER DATABASE {name} SET work_mem = '7MB';",
            "changes objects that all databases of the server share",
        ),
    ],
)
def test_a_down_that_does_something_else_is_refused(reversible: Database, text: str, words: str) -> None:
    down(reversible, _5_step=text.format(name=reversible.name))
    assert words in refusal(reversible, "4_step")
    settings = "SELECT count(*) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = %s"
    assert reversible.query(settings, reversible.name) == [(0,)]


def test_checks_deferred_by_one_down_are_in_the_way_of_the_next(reversible: Database) -> None:
    reversible.write(
        _6_step='CREATE TABLE "t6" (id int REFERENCES "t1" DEFERRABLE INITIALLY DEFERRED);',
        _7_step='ALTER TABLE "t6" ADD COLUMN x int;',
        _8_step="CREATE VIEW v AS SELECT 1;",
    )
    reversible.migrate()
    downs = {"_6_step": 'DROP TABLE "t6"', "_7_step": 'ALTER TABLE "t6" DROP COLUMN x'}
    down(reversible, **downs, _8_step='DROP VIEW v; INSERT INTO "t6" (id) VALUES (1)')
    assert "7_step/down.sql: 55006" in (message := refusal(reversible, "5_step"))
    assert "SET CONSTRAINTS ALL IMMEDIATE" in message
    down(reversible, _8_step='DROP VIEW v; INSERT INTO "t6" (id) VALUES (1); SET CONSTRAINTS ALL IMMEDIATE')
    assert rollback(params(reversible, "5_step"))["names"] == ["8_step", "7_step", "6_step"]


def test_guard_rails(reversible: Database) -> None:
    given = {**params(reversible, "4_step", confirm=""), "require_approval": True, "approved": "5_step"}
    (now,) = reversible.query("SELECT (clock_timestamp() AT TIME ZONE 'Asia/Phnom_Penh')::time")[0]
    given["window"] = f"{(now.hour + 2) % 24:02}:00-{(now.hour + 3) % 24:02}:00"
    before = reversible.state()
    names = [
        "`migrations_window`",
        "5_step would be rolled back, and `migrations_approved` is '5_step'",
        f"-e confirm={reversible.name}`",
    ]
    planned = rollback(given, check_mode=True)
    assert (planned["names"], len(planned["losses"])) == (["5_step"], 1)
    assert [name in words for name, words in zip(names, planned["refused"], strict=True)] == [True] * 3
    with pytest.raises(DasTernError) as refused:
        rollback(given)
    assert all(name in refused.value.message for name in names)
    assert reversible.state() == before
    given |= {"approved": "4_step", "window": "", "confirm": reversible.name}
    assert rollback(given, check_mode=True)["refused"] == []
    assert rollback(given)["names"] == ["5_step"]
    assert rollback(given)["changed"] is False


def test_an_empty_down_takes_nothing_back_unless_it_may(reversible: Database) -> None:
    down(reversible, _5_step=DOWN_TEXT.format(name="step", script="migration.sql"), _4_step="-- nothing")
    message = refusal(reversible, "3_step")
    for name, words in (
        ("4_step", "holds no statement"),
        ("5_step", "is still the template that new_migration.yml wrote"),
    ):
        assert f"{reversible.folder}/{name}/down.sql {words}" in message
    reversible.write(_6_rows="UPDATE t5 SET note = note;")
    down(reversible, _6_rows="-- the rows stay as they are")
    reversible.migrate()
    assert rollback(params(reversible, "5_step", allow_empty=True))["names"] == ["6_rows"]


def test_who_is_in_the_way_of_a_rollback_is_named(reversible: Database) -> None:
    for confirm in (reversible.name, ""):
        with reversible.connect() as other, other.transaction():
            other.execute('SET LOCAL lock_timeout = 0; DELETE FROM "t5" WHERE false')
            if not confirm:
                reversible.query("DELETE FROM t5")
            with pytest.raises(DasTernError, match="55P03") as failure:
                rollback(params(reversible, "4_step", confirm=confirm, lock_timeout="1s"))
            assert [one["pid"] for one in failure.value.facts["blockers"]] == [other.info.backend_pid]
            assert f"blocked by: pid {other.info.backend_pid} (user " in failure.value.message


def test_what_fails_before_it_begins_says_so(reversible: Database) -> None:
    reversible.query("ALTER TABLE _prisma_migrations RENAME logs TO log")
    before = catalogue(reversible.query)
    with pytest.raises(DasTernError, match="42703: .* The rollback hadn't begun: nothing was rolled back.$"):
        rollback(params(reversible, "4_step"))
    assert catalogue(reversible.query) == before


def test_refusals(reversible: Database) -> None:
    (reversible.folder / "3_step" / "down.sql").unlink()
    message = refusal(reversible, "2_step")
    assert "3_step/down.sql does not exist" in message
    assert "restore a backup from before 3_step" in message
    assert "P3011" in refusal(reversible, "9_none")
    assert "P3011" in refusal(reversible, "")
    (reversible.folder / "5_step" / "migration.sql").write_text("SELECT 1")
    assert "5_step was edited" in refusal(reversible, "4_step")
    assert "playbooks/reset.yml" in refusal(reversible, "4_step", environment="development")
    assert "playbooks/reset.yml" not in refusal(reversible, "4_step", environment="production")


def test_what_fails_on_the_live_database_only_leaves_everything(reversible: Database) -> None:
    reversible.query('CREATE VIEW in_the_way AS SELECT * FROM "t4"')
    before = reversible.state()
    with pytest.raises(DasTernError, match="4_step/down.sql.*2BP01"):
        rollback(params(reversible, "2_step"))
    assert reversible.state() == before


IF_EMPTY = "DO $$ BEGIN IF NOT EXISTS (SELECT FROM t6) THEN ALTER TABLE t6 DROP COLUMN more; END IF; END $$;"


def refused_after_the_proof(database: Database, to: str) -> str:
    before, columns = database.state(), catalogue(database.query)
    with pytest.raises(DasTernError) as refused:
        rollback(params(database, to))
    assert (database.state(), catalogue(database.query)) == (before, columns)
    assert "Nothing was rolled back" in refused.value.message
    return refused.value.message


def test_a_down_that_does_something_else_to_rows_is_refused(reversible: Database) -> None:
    reversible.write(_6_step="CREATE TABLE t6 (id int)", _7_step="ALTER TABLE t6 ADD more text")
    down(reversible, _7_step=IF_EMPTY)
    reversible.migrate()
    reversible.query("INSERT INTO t6 VALUES (7)")
    message = refused_after_the_proof(reversible, "6_step")
    lines = [line.split() for line in message.splitlines() if "t6.more" in line]
    assert lines == [["unexpected", "column", "t6.more", "text"]]
    reversible.query("DELETE FROM t6")
    assert rollback(params(reversible, "6_step"))["names"] == ["7_step"]


@pytest.mark.parametrize(
    ("by_hand", "text", "words"),
    [
        ("CREATE VIEW by_hand AS SELECT id FROM t5", "DROP TABLE t5 CASCADE", ["missing", "view", "by_hand"]),
        (
            "ALTER TABLE t1 ADD CONSTRAINT by_hand FOREIGN KEY (id) REFERENCES t5 NOT VALID",
            "DROP TABLE t5 CASCADE",
            ["missing", "constraint", "t1.by_hand"],
        ),
        (
            "CREATE INDEX by_hand ON t4 ((note || 'x'))",
            "DROP TABLE t5; DROP INDEX IF EXISTS by_hand",
            ["missing", "index", "by_hand"],
        ),
    ],
)
def test_what_was_made_by_hand_is_not_taken_along(
    reversible: Database, by_hand: str, text: str, words: list[str]
) -> None:
    reversible.query(by_hand)
    down(reversible, _5_step=text)
    lines = refused_after_the_proof(reversible, "4_step").splitlines()
    assert any(line.split()[: len(words)] == words for line in lines), lines


def test_drift_that_is_not_touched_is_no_obstacle(reversible: Database) -> None:
    reversible.write(_6_step="ALTER TABLE t1 ADD more text; CREATE VIEW v AS SELECT id FROM t5")
    down(reversible, _6_step="DROP VIEW v; ALTER TABLE t1 DROP COLUMN more", _5_step="DROP TABLE IF EXISTS t5")
    reversible.migrate()
    reversible.query(
        "CREATE TABLE by_hand (id int REFERENCES t1); CREATE INDEX ON t1 (note, id); ALTER TABLE t1 ADD by_hand int; "
        "ALTER TABLE t5 ADD by_hand int; CREATE INDEX by_hand_idx ON t5 (by_hand); GRANT SELECT ON t5 TO pg_monitor; "
        "CREATE PUBLICATION by_hand_pub FOR TABLE t4, t5; ALTER TABLE t1 ALTER note SET DEFAULT 'x'; DROP INDEX t4_note_idx"
    )
    assert rollback(params(reversible, "4_step"))["names"] == ["6_step", "5_step"]
    left = "SELECT to_regclass('by_hand') IS NOT NULL, to_regclass('t5'), to_regclass('v')"
    assert reversible.query(left) == [(True, None, None)]


def test_rows_and_values_that_go_are_counted_and_confirmed(reversible: Database) -> None:
    reversible.write(
        _6_step='CREATE TABLE "Pay" (id int); CREATE TABLE renamed (id int); CREATE TABLE anew (id int)',
        _7_step='ALTER TABLE t1 ADD "No te" text, ADD twice int GENERATED ALWAYS AS (id * 2) STORED; '
        "ALTER TABLE renamed RENAME TO other",
        _8_step="ALTER TABLE anew RENAME id TO no",
    )
    down(
        reversible,
        _6_step='DROP TABLE "Pay", renamed, anew',
        _7_step='ALTER TABLE t1 DROP "No te", DROP twice; ALTER TABLE other RENAME TO renamed',
        _8_step="DROP TABLE anew; CREATE TABLE anew (id int)",
    )
    reversible.migrate()
    nothing = rollback(params(reversible, "7_step", confirm=""), check_mode=True)
    assert nothing["losses"] == ["drops table anew (0 rows)"]
    reversible.query(
        'INSERT INTO "Pay" SELECT generate_series(1, 1000); INSERT INTO other VALUES (1); INSERT INTO anew VALUES (1); '
        "INSERT INTO t1 VALUES (7, '', 'x'), (8, '', NULL)"
    )
    kept = ["drops table anew (1 row)", 'drops column t1."No te" (1 value)']
    for confirm in ("", "dastern"):
        (message,) = rollback(params(reversible, "6_step", confirm=confirm), check_mode=True)["refused"]
        with pytest.raises(DasTernError) as refused:
            rollback(params(reversible, "6_step", confirm=confirm))
        assert refused.value.message == message
        assert [line.strip() for line in message.splitlines()[1:-1]] == kept
        assert message.endswith(f"`ansible-playbook playbooks/rollback.yml -e to=6_step -e confirm={reversible.name}`.")
    lost = ['drops table "Pay" (1,000 rows)', kept[0], "drops table other (1 row)", kept[1]]
    assert sorted(rollback(params(reversible, "5_step"), check_mode=True)["losses"]) == sorted(lost)
    done = rollback(params(reversible, "6_step"))
    assert (done["names"], done["losses"]) == (["8_step", "7_step"], kept)
    assert reversible.query("SELECT count(*) FROM renamed") == [(1,)]


def test_a_clock_that_was_behind_doesnt_change_what_came_last(reversible: Database) -> None:
    reversible.query(
        "UPDATE _prisma_migrations SET started_at = started_at - interval '1 h' WHERE migration_name = '5_step'"
    )
    assert drift(reversible)["applied"] == [f"{number}_step" for number in range(1, 6)]
    assert rollback(params(reversible, "4_step"))["names"] == ["5_step"]


def test_squashed_migrations_stand_where_their_name_does(reversible: Database) -> None:
    """The older ones became one file, which was marked as applied afterwards."""
    sql = "\n".join((reversible.folder / f"{number}_step" / "migration.sql").read_text() for number in range(1, 4))
    for number in range(1, 4):
        shutil.rmtree(reversible.folder / f"{number}_step")
    reversible.write(_3_squashed=sql)
    reversible.query("DELETE FROM _prisma_migrations WHERE migration_name < '4'")
    resolve(resolve_params(reversible, "applied", "3_squashed"))
    assert drift(reversible)["applied"] == ["3_squashed", "4_step", "5_step"]
    assert rollback(params(reversible, "3_squashed"))["names"] == ["5_step", "4_step"]


WRITES = {
    "DELETE FROM priced": "7_step/down.sql, line 1: `DELETE FROM priced` affects table priced (2 rows)",
    "DELETE FROM ONLY public.priced WHERE id = 1": "table priced (2 rows)",
    "UPDATE priced SET price = 0 WHERE id = 2": "table priced (2 rows)",
    "TRUNCATE other, priced": "table priced (2 rows)",
    "MERGE INTO priced USING other ON true WHEN NOT MATCHED BY SOURCE THEN DELETE": "table priced (2 rows)",
    "ALTER TABLE priced ALTER price TYPE numeric USING round(price); ALTER TABLE priced ALTER price TYPE numeric(10,2)":
        "table priced (2 rows)",
    "DO $$ BEGIN DELETE FROM priced WHERE id = 1; END $$": "deletes rows of table priced (1 row)",
    "DO $$ BEGIN EXECUTE 'UPDATE priced SET price = 0'; END $$": "changes rows of table priced (2 rows)",
    "DO $$ BEGIN EXECUTE 'TRUNCATE priced'; END $$": "empties table priced (8,192 bytes)",
    "WITH gone AS (DELETE FROM priced RETURNING 1) SELECT count(*) FROM gone": "table priced (2 rows)",
    "DO $$ BEGIN EXECUTE 'ALTER TABLE priced ALTER price TYPE numeric USING round(price)'; EXECUTE 'ALTER TABLE priced ALTER price TYPE numeric(10,2)'; END $$":
        "rewrites table priced (8,192 bytes)",
}  # fmt: skip


@pytest.mark.parametrize("sql", WRITES)
def test_what_a_down_does_to_rows_is_confirmed(reversible: Database, sql: str) -> None:
    """By what it says where that can be read, otherwise by what it did; the tables themselves stay."""
    reversible.write(
        _6_step="CREATE TABLE priced (id int, price numeric(10,2)); CREATE TABLE other ()",
        _7_step="CREATE TABLE filled ()",
    )
    down(reversible, _7_step=f"{sql};\nDROP TABLE filled;")
    reversible.migrate()
    assert rollback(params(reversible, "6_step", confirm=""))["losses"] == ["drops table filled (0 rows)"]
    reversible.migrate()
    reversible.query("INSERT INTO priced VALUES (1, 1.50), (2, 99.95)")
    before, prices = reversible.state(), [(Decimal("1.50"),), (Decimal("99.95"),)]
    with pytest.raises(DasTernError) as refused:
        rollback(params(reversible, "6_step", confirm=""))
    assert any(line.endswith(WRITES[sql]) for line in refused.value.facts["losses"])
    # What only shows when it was done isn't confirmed by what confirms the plan.
    hidden = WRITES[sql].startswith(("deletes", "changes", "empties", "rewrites"))
    needed = reversible.name + ("+rows" if hidden else "")
    assert (refused.value.facts["confirm"], reversible.state()) == (needed, before)
    assert reversible.query("SELECT price FROM priced ORDER BY id") == prices
    if hidden:
        with pytest.raises(DasTernError):
            rollback(params(reversible, "6_step"))
        assert reversible.state() == before
    else:
        assert refused.value.message in rollback(params(reversible, "6_step", confirm=""), check_mode=True)["refused"]
    done = rollback(params(reversible, "6_step", confirm=needed))
    assert done["names"] == ["7_step"]
    assert any("table priced" in line for line in done["losses"])
    assert reversible.query("SELECT price FROM priced ORDER BY id") != prices


HIDES = {
    "forced policy": (
        "CREATE TABLE kept (id int); ALTER TABLE kept ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON kept USING (id < 0) WITH CHECK (true)",
        "INSERT INTO kept VALUES (1)", "DROP TABLE kept", "",
    ),
    "deferred trigger": (
        "CREATE TABLE q (id int); CREATE FUNCTION empty_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM kept; RETURN NULL; END $$; "
        "CREATE TABLE kept (id int); CREATE CONSTRAINT TRIGGER t AFTER INSERT ON q DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION empty_kept()",
        "INSERT INTO kept VALUES (1)", "INSERT INTO q VALUES (1)", "+rows",
    ),
    "another schema": (
        "CREATE SCHEMA audited; CREATE TABLE audited.log (id int)",
        "CREATE TABLE audited.kept (id int); INSERT INTO audited.kept VALUES (1)", "DROP SCHEMA audited CASCADE", "+rows",
    ),
    "a view in the place of a count": (
        "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (1)",
        "CREATE TEMP VIEW pg_stat_xact_user_tables AS SELECT 0::oid relid, 0::bigint n_tup_upd, 0::bigint n_tup_del; "
        "DO $$ BEGIN DELETE FROM kept; END $$", "+rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HIDES)
def test_what_hides_from_the_plan_is_found(reversible: Database, case: str) -> None:
    up, rows, sql, more = HIDES[case]
    dropped = sql.startswith("DROP")
    reversible.write(_6_step="SELECT 1" if dropped else up, _7_step=up if dropped else "SELECT 1")
    down(reversible, _7_step=sql)
    reversible.migrate()
    reversible.query(rows)
    before = reversible.state()
    with pytest.raises(DasTernError) as refused:
        rollback(params(reversible, "6_step", confirm=reversible.name if more else ""))
    assert (refused.value.facts["confirm"], reversible.state()) == (f"{reversible.name}{more}", before)
    assert "kept" in str(refused.value.facts["losses"])


@pytest.mark.parametrize(
    "sql",
    [
        'ALTER TABLE priced RENAME COLUMN "type" TO kind; ALTER TABLE priced RENAME kind TO "type"',
        'ALTER TABLE priced ALTER "type" SET NOT NULL; ALTER TABLE priced ALTER "type" DROP NOT NULL',
        "ALTER TABLE priced ADD token uuid DEFAULT gen_random_uuid(), ADD n serial",
    ],
)
def test_what_loses_no_row_needs_no_confirmation(reversible: Database, sql: str) -> None:
    up = "ALTER TABLE priced DROP token, DROP n" if "token" in sql else "SELECT 1"
    made = ", token uuid DEFAULT gen_random_uuid(), n serial" if "token" in sql else ""
    reversible.write(_6_step=f'CREATE TABLE priced (id int, "type" text{made})', _7_step=up)
    down(reversible, _7_step=sql)
    reversible.migrate()
    reversible.query("INSERT INTO priced VALUES (1, 'x')")
    assert rollback(params(reversible, "6_step", confirm=""), check_mode=True)["refused"] == []
    assert rollback(params(reversible, "6_step", confirm=""))["names"] == ["7_step"]


def test_a_row_that_came_after_the_count_is_not_deleted(reversible: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    reversible.query("DELETE FROM t5")
    refuse = module._refuse_unconfirmed

    def late(given: Any, losses: Any) -> None:
        refuse(given, losses)
        if not reversible.query(
            "SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 't5'::regclass"
        ):
            reversible.query("INSERT INTO t5 VALUES (9)")

    monkeypatch.setattr(module, "_refuse_unconfirmed", late)
    with pytest.raises(DasTernError, match=r"drops table t5 \(1 row\)"):
        rollback(params(reversible, "4_step", confirm=""))
    assert reversible.query("SELECT id FROM t5") == [(9,)]


def test_playbook(reversible: Database, tmp_path: Path) -> None:
    variables = {"playbook": "playbooks/rollback.yml", "to": "4_step", "confirm": reversible.name}
    unsure = reversible.play(**{**variables, "confirm": ""})
    (command,) = re.findall(r"\n  next         (.*)\n", unsure.stdout)
    assert (unsure.returncode, command.startswith("ansible-playbook playbooks/rollback.yml ")) == (2, True), (
        unsure.stdout
    )
    assert command.endswith(f" -e to=4_step -e confirm={reversible.name}")
    closed = reversible.play("-e", '{"migrations_require_approval": true}', **variables)
    assert (closed.returncode, "-e to=4_step -e migrations_approved=4_step`" in closed.stdout) == (2, True), (
        closed.stdout
    )
    check = reversible.play("--check", "--diff", **variables)
    assert (check.returncode, '+DROP TABLE "t5";' in check.stdout) == (0, True), check.stdout
    assert "5_step would be taken back" in check.stdout
    assert "drops table t5 (1 row)" in check.stdout
    assert reversible.play(**variables).returncode == 0
    again = reversible.play(**variables)
    assert (again.returncode, "· 0 changed ·" in again.stdout) == (0, True)
    assert reversible.migrate(check_mode=True)["pending"] == ["5_step"]
    refused = reversible.play(playbook="playbooks/rollback.yml")
    assert (refused.returncode, "Traceback" in refused.stdout) == (2, False)
