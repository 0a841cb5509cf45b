"""Decisions about single rows of the ledger, and the status that shows them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.migrations.baseline import ARGUMENT_SPEC as BASELINE
from ansible.module_utils.dastern.migrations.baseline import baseline
from ansible.module_utils.dastern.migrations.resolve import ARGUMENT_SPEC, resolve
from migrating import Database


def params(database: Database, decision: str, name: str, **changes: Any) -> dict[str, Any]:
    defaults = {option: spec.get("default") for option, spec in ARGUMENT_SPEC.items()}
    given = {key: value for key, value in database.params().items() if key in ARGUMENT_SPEC}
    return {**defaults, **given, "decision": decision, "name": name, **changes}


def four_times(database: Database, decision: str, name: str, **changes: Any) -> str:
    """Check, real, again, again in check: changed, changed, no, no."""
    before = database.state()
    assert resolve(params(database, decision, name, **changes), check_mode=True)["changed"] is True
    assert database.state() == before
    done = resolve(params(database, decision, name, **changes))
    assert done["changed"] is True
    after = database.state()
    assert resolve(params(database, decision, name, **changes))["changed"] is False
    assert resolve(params(database, decision, name, **changes), check_mode=True)["changed"] is False
    assert database.state() == after
    return str(done["line"])


def refusal(database: Database, decision: str, name: str, **changes: Any) -> str:
    before = database.state()
    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refused:
            resolve(params(database, decision, name, **changes), check_mode=check_mode)
    assert database.state() == before
    return refused.value.message


def rows(database: Database) -> list[tuple[Any, ...]]:
    return database.query(
        "SELECT migration_name, started_at = finished_at, rolled_back_at IS NOT NULL, logs, applied_steps_count "
        "FROM _prisma_migrations ORDER BY started_at, finished_at NULLS FIRST"
    )


def unfinished(database: Database, name: str) -> None:
    database.query(
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, logs) VALUES (gen_random_uuid(), 'x', %s, 'oh')",
        name,
    )


def test_applied(chain: Database) -> None:
    assert "none of it was run" in four_times(chain, "applied", "1_step")
    assert rows(chain) == [("1_step", True, False, "", 0)]
    assert chain.query("SELECT to_regclass('t1')") == [(None,)]
    assert chain.migrate()["applied"] == ["1_step", "2_step", "3_step", "4_step", "5_step"]


def test_applied_closes_a_failed_row(chain: Database) -> None:
    chain.migrate()
    chain.write(_6_step="SELECT 1")
    unfinished(chain, "6_step")
    four_times(chain, "applied", "6_step")
    assert rows(chain)[-2:] == [("6_step", None, True, "oh", 0), ("6_step", True, False, "", 0)]
    assert chain.migrate()["changed"] is False


def test_rolled_back(chain: Database) -> None:
    chain.migrate()
    chain.write(_6_step="SELECT 1")
    unfinished(chain, "6_step")
    assert "applies it again" in four_times(chain, "rolled_back", "6_step")
    assert chain.migrate()["applied_now"][0]["name"] == "6_step"


def test_rolled_back_refusals(chain: Database) -> None:
    chain.migrate()
    assert "P3012" in refusal(chain, "rolled_back", "5_step")
    assert "P3011" in refusal(chain, "rolled_back", "7_none")
    assert "P3017" in refusal(chain, "applied", "7_none")


def test_adopt_a_renamed_migration(chain: Database) -> None:
    chain.migrate()
    (chain.folder / "5_step").rename(chain.folder / "6_step")
    with pytest.raises(DasTernError, match="adopt=6_step"):
        chain.migrate()
    four_times(chain, "adopt", "6_step")
    assert chain.migrate()["changed"] is False
    assert chain.ledger()[-1] == "6_step"


def test_adopt_closes_what_failed_under_the_new_name(chain: Database) -> None:
    chain.migrate()
    (chain.folder / "5_step").rename(chain.folder / "6_step")
    unfinished(chain, "6_step")
    four_times(chain, "adopt", "6_step")
    assert chain.migrate()["changed"] is False


@pytest.mark.parametrize("decision", ["applied", "adopt"])
def test_a_failed_row_beside_an_applied_one_is_closed(chain: Database, decision: str) -> None:
    chain.migrate()
    unfinished(chain, "5_step")
    with pytest.raises(DasTernError, match="P3009"):
        chain.migrate()
    assert "its failed row is marked as rolled back" in four_times(chain, decision, "5_step")
    assert chain.migrate()["changed"] is False


def test_rolled_back_closes_a_failed_row_beside_an_applied_one(chain: Database) -> None:
    chain.migrate()
    unfinished(chain, "5_step")
    check = resolve(params(chain, "rolled_back", "5_step"), check_mode=True)
    assert (check["changed"], resolve(params(chain, "rolled_back", "5_step"))["changed"]) == (True, True)
    assert "P3012" in refusal(chain, "rolled_back", "5_step")
    assert chain.migrate()["changed"] is False


def test_applied_on_tables_without_a_ledger(chain: Database) -> None:
    without_ledger(chain, 3)
    message = refusal(chain, "applied", "3_step")
    assert "P3005" in message
    assert "2 migrations come before 3_step, the first is 1_step" in message
    assert "playbooks/baseline.yml" in message
    assert chain.query("SELECT to_regclass('_prisma_migrations')") == [(None,)]
    # Prisma's own way, the first one first.
    four_times(chain, "applied", "1_step")
    four_times(chain, "applied", "2_step")


def test_a_ledger_with_other_columns_is_called_so(chain: Database) -> None:
    chain.query("CREATE TABLE _prisma_migrations (id int)")
    with pytest.raises(DasTernError, match="can't be read or written: 42703"):
        resolve(params(chain, "applied", "1_step"))


def test_adopt_refusals(chain: Database) -> None:
    chain.migrate()
    chain.write(_6_same=(chain.folder / "5_step" / "migration.sql").read_bytes(), _7_other="SELECT 7")
    assert "(5_step) still has its own file" in refusal(chain, "adopt", "6_same")
    assert "no applied migration has its checksum" in refusal(chain, "adopt", "7_other")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ("-- why\nCREATE   TABLE r (\n  id int);", ""),
        ("CREATE TABLE r (id bigint);", "from line 1 on it has `bigint` where the applied file has `int`"),
        ("CREATE TABLE r (id int);\nSELECT 1;", "it has `;` where the applied file has ``"),
        ("CREATE TABLE r (id int)", ""),
        ("CREATE TABLE r ();", "from line 1 on it has `)` where the applied file has `id`"),
        ("CREATE TABLE r ( id int ) ;", ""),
        ("CREATE TABLE r (id int); /* x */", ""),
    ],
)
def test_repair(chain: Database, after: str, words: str) -> None:
    before = "CREATE TABLE r (id int);"
    chain.write(_6_r=before)
    chain.migrate()
    chain.write(_6_r=after)
    former = ["something else", before]
    if words:
        assert words in refusal(chain, "repair", "6_r", former=former)
        assert "repair_anyway=true" in refusal(chain, "repair", "6_r", former=[])
        four_times(chain, "repair", "6_r", former=former, anyway=True)
    else:
        four_times(chain, "repair", "6_r", former=former)
    assert chain.migrate()["changed"] is False


def test_the_lock_is_waited_for_no_longer_than_told(chain: Database) -> None:
    with chain.connect() as other:
        other.execute("SELECT pg_advisory_lock(72707369)")
        with pytest.raises(DasTernError, match=r"held by .*pid \d+.*P1002"):
            resolve(params(chain, "applied", "1_step", lock_wait=1))
    assert chain.ledger() == []


def test_playbooks(chain: Database, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As an operator meets them: status with its codes for CI, and a checksum repaired from the history in git."""
    status, decide = "playbooks/migration_status.yml", "playbooks/resolve_migration.yml"
    report = tmp_path / "report.json"
    pending = chain.play(playbook=status, report_file=report)
    assert (pending.returncode, "5_step  pending" in pending.stdout) == (3, True), pending.stdout
    command = re.compile(rf"\n  next         ansible-playbook .*-e postgres_database={chain.name} .*migrate\.yml\n")
    assert command.search(pending.stdout)
    # It does the same in check mode, so that isn't what to do next.
    assert command.search(chain.play("--check", playbook=status).stdout)
    assert json.loads(report.read_text())["hosts"]["localhost"]["sections"]["migrations"]["pending"][0] == "1_step"
    chain.migrate()
    fine = chain.play(playbook=status)
    assert (fine.returncode, "· 0 changed ·" in fine.stdout) == (0, True)
    assert "5_step  applied 20" in fine.stdout
    assert chain.play(playbook=status, postgres_port=1).returncode == 4

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", str(chain.folder), *identity, *arguments], check=True, capture_output=True)

    # A directory `.git` in the folder would be a migration.
    git("init", "-q", f"--separate-git-dir={tmp_path_factory.mktemp('git')}")
    git("add", "5_step")
    git("commit", "-qm", "Make it")
    path = chain.folder / "5_step" / "migration.sql"
    path.write_text("-- Told\n" + path.read_text())
    wrong = chain.play(playbook=status)
    assert (wrong.returncode, "edited: 5_step" in wrong.stdout) == (2, True)
    check = chain.play("--check", playbook=decide, repair="5_step")
    assert (check.returncode, "· 1 changed ·" in check.stdout) == (0, True), check.stdout
    assert chain.play(playbook=status).returncode == 2
    done = chain.play(playbook=decide, repair="5_step")
    assert (done.returncode, "only in comments and blanks" in done.stdout) == (0, True), done.stdout
    assert "· 0 changed ·" in chain.play(playbook=decide, repair="5_step").stdout
    assert chain.play(playbook=status).returncode == 0
    neither = chain.play(playbook=decide)
    assert (neither.returncode, "\n  failed       No decision given. Expected: one of" in neither.stdout) == (2, True)
    both = chain.play(playbook=decide, applied="a", rolled_back="b")
    assert (both.returncode, "applied and rolled_back given" in " ".join(both.stdout.split())) == (2, True)


def without_ledger(chain: Database, upto: int) -> None:
    chain.migrate(migrations=chain.params()["migrations"][:upto])
    chain.query("DROP TABLE _prisma_migrations")


def baseline_params(database: Database, **changes: Any) -> dict[str, Any]:
    defaults = {option: spec.get("default") for option, spec in BASELINE.items()}
    return {**defaults, **{key: value for key, value in database.params().items() if key in BASELINE}, **changes}


@pytest.mark.parametrize("upto", [1, 3, 5])
def test_baseline_finds_out_what_the_database_has(chain: Database, upto: int) -> None:
    without_ledger(chain, upto)
    names = [f"{number}_step" for number in range(1, 6)]
    before = chain.state()
    check = baseline(baseline_params(chain), check_mode=True)
    assert (check["changed"], check["names"], chain.state() == before) == (True, names[:upto], True)
    assert baseline(baseline_params(chain))["names"] == names[:upto]
    assert [(name, equal, logs) for name, equal, _, logs, _ in rows(chain)] == [
        (name, True, "") for name in names[:upto]
    ]
    assert baseline(baseline_params(chain))["changed"] is False
    assert baseline(baseline_params(chain), check_mode=True)["changed"] is False
    assert chain.migrate()["applied"] == names


def test_baseline_knows_what_a_restore_writes_otherwise_other_schemas_and_new_partitions(chain: Database) -> None:
    chain.write(_6_step="""
        CREATE SCHEMA auth; CREATE TABLE auth.m (status varchar(20) CONSTRAINT ab CHECK (status IN ('a', 'b')));
        CREATE TABLE ev (id int PRIMARY KEY) PARTITION BY RANGE (id);""")  # fmt: skip
    without_ledger(chain, 6)
    text = chain.query("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ab'")
    # As pg_restore leaves it.
    chain.query("""ALTER TABLE auth.m DROP CONSTRAINT ab, ADD CONSTRAINT ab
        CHECK ((status)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text]))""")
    assert chain.query("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ab'") != text
    chain.query("CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (1) TO (2)")
    assert baseline(baseline_params(chain), check_mode=True)["names"][-1] == "6_step"
    chain.query("ALTER TABLE ev_1 ADD CHECK (id > 0)")
    assert baseline(baseline_params(chain, ignore=["table ev_?"]), check_mode=True)["names"][-1] == "6_step"
    with pytest.raises(DasTernError, match="table.*ev_1"):
        baseline(baseline_params(chain))
    chain.query("DROP TABLE ev_1; ALTER TABLE auth.m ADD COLUMN more int")
    with pytest.raises(DasTernError, match="auth.m.more"):
        baseline(baseline_params(chain))


def test_baseline_refuses_what_differs(chain: Database) -> None:
    without_ledger(chain, 3)
    chain.query("ALTER TABLE t2 ADD COLUMN by_hand int")
    before = chain.state()
    with pytest.raises(DasTernError, match=r"(?s)Nothing is marked.*up to 3_step.*t2.by_hand") as refused:
        baseline(baseline_params(chain))
    assert chain.state() == before
    assert "-e upto=3_step -e baseline_anyway=true" in refused.value.message
    with pytest.raises(DasTernError, match="P3017"):
        baseline(baseline_params(chain, upto="9_none"))
    with pytest.raises(
        DasTernError, match=r"up to 2_step make; the nearest point of .* is 3_step. What differs there:\n"
    ):
        baseline(baseline_params(chain, upto="2_step"))
    with pytest.raises(DasTernError, match="`upto` is empty"):
        baseline(baseline_params(chain, anyway=True))
    assert chain.state() == before
    assert baseline(baseline_params(chain, upto="3_step", anyway=True))["names"] == ["1_step", "2_step", "3_step"]
    assert chain.migrate()["changed"] is True


def test_baseline_names_the_point_that_agrees(chain: Database) -> None:
    without_ledger(chain, 3)
    before = chain.state()
    for upto in ("2_step", "4_step"):
        with pytest.raises(DasTernError) as refused:
            baseline(baseline_params(chain, upto=upto))
        assert (
            f"isn't what the migrations up to {upto} make, but what the migrations up to 3_step make."
            in refused.value.message
        )
        assert refused.value.message.endswith("baseline.yml -e upto=3_step` marks up to there.")
    assert chain.state() == before
    anyway = baseline(baseline_params(chain, upto="2_step", anyway=True))
    assert anyway["lines"][-1].endswith(
        "are not shown to be those that these migrations make: they are marked because `baseline_anyway` is true"
    )


def test_baseline_does_not_guess_whether_rows_were_changed(chain: Database) -> None:
    without_ledger(chain, 2)
    chain.write(_2_zrows="UPDATE t1 SET note = 'x'; INSERT INTO t1 VALUES (7, 'y')", _2_znone="-- nothing\n ;\n")
    before = chain.state()
    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refused:
            baseline(baseline_params(chain), check_mode=check_mode)
        assert (
            "up to 2_step make, and those up to 2_zrows make the same. The catalogue doesn't show whether 2_zrows ran here"
            in refused.value.message
        )
        for name in ("2_step", "2_zrows"):
            assert f"`ansible-playbook playbooks/baseline.yml -e upto={name}`" in refused.value.message
    assert chain.state() == before
    assert baseline(baseline_params(chain, upto="2_step"))["names"] == ["1_step", "2_step"]
    chain.migrate(allow_empty=True)
    assert chain.query("SELECT id, note FROM t1 ORDER BY 1") == [(1, "x"), (7, "y")]


def test_baseline_counts_a_file_of_comments_to_what_is_before_it(chain: Database) -> None:
    without_ledger(chain, 2)
    chain.write(_2_znone="-- nothing\n ;\n")
    assert baseline(baseline_params(chain))["names"] == ["1_step", "2_step", "2_znone"]


def test_baseline_leaves_a_template_at_the_end_to_be_written(chain: Database) -> None:
    without_ledger(chain, 5)
    chain.write(_6_new="-- nothing yet", _7_new="-- nothing yet")
    found = baseline(baseline_params(chain))
    assert (found["names"][-1], found["pending"]) == ("5_step", ["6_new", "7_new"])


def test_baseline_ends_before_a_file_that_needs_rows(chain: Database) -> None:
    without_ledger(chain, 2)
    chain.write(_4_step="DO $$ BEGIN RAISE EXCEPTION 'boom'; END $$;")
    found = baseline(baseline_params(chain), check_mode=True)
    assert (found["names"], found["pending"]) == (["1_step", "2_step"], ["3_step", "4_step", "5_step"])
    assert found["lines"][-1].startswith(
        "Nothing was compared from 4_step on: that migration fails in a scratch database. P0001"
    )
    with pytest.raises(DasTernError) as refused:
        baseline(baseline_params(chain, upto="5_step"))
    assert "isn't shown to be what the migrations up to 5_step make, but what" in refused.value.message
    assert "applied, but" not in refused.value.message
    # The file before it and the file itself may well leave the same catalogue.
    chain.query("CREATE TABLE t3 (id int PRIMARY KEY, note text); CREATE INDEX t3_note_idx ON t3 (note)")
    before = chain.state()
    with pytest.raises(DasTernError, match="boom") as refused:
        baseline(baseline_params(chain))
    assert "-e upto=3_step` marks up to there. If the database has 4_step, too: `" in refused.value.message
    chain.write(_1_step="SELECT 1 / 0")
    with pytest.raises(
        DasTernError, match=r"can't be compared with its migrations\.\nNothing was compared from 1_step on"
    ):
        baseline(baseline_params(chain))
    assert chain.state() == before
    anyway = baseline(baseline_params(chain, upto="4_step", anyway=True))
    assert (len(anyway["names"]), anyway["pending"]) == (4, ["5_step"])
    assert chain.ledger() == anyway["names"]


def test_baseline_of_an_empty_database_and_in_the_playbook(chain: Database) -> None:
    assert "is empty" in baseline(baseline_params(chain))["lines"][0]
    without_ledger(chain, 5)
    refused = chain.play()
    assert "playbooks/baseline.yml" in " ".join((refused.stdout + refused.stderr).split())
    variables = {"postgres_container_name": chain.instance.container, "postgres_readonly_user": ""}
    done = chain.play(playbook="playbooks/baseline.yml", **variables)
    assert (done.returncode, "5_step marked as applied" in done.stdout) == (0, True), done.stdout
    assert "  next  " not in done.stdout  # nothing is pending
    assert "· 0 changed ·" in chain.play(playbook="playbooks/baseline.yml", **variables).stdout
    assert chain.play(playbook="playbooks/migration_status.yml").returncode == 0
