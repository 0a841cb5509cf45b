"""A development database emptied and made anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.migrations import reset as module
from ansible.module_utils.dastern.migrations.reset import ARGUMENT_SPEC, reset
from migrating import Database

ODD = """
CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('a'); CREATE DOMAIN short AS text CHECK (length(value) < 9); CREATE TYPE pair AS (a int, b mood);
CREATE SEQUENCE counter; CREATE TABLE parent (id serial PRIMARY KEY, m mood, s short) ;
CREATE TABLE "Odd ""name" (id int REFERENCES parent); CREATE MATERIALIZED VIEW mv AS SELECT * FROM parent;
CREATE VIEW v AS SELECT * FROM mv; CREATE FUNCTION f(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
CREATE AGGREGATE how_many(*) (SFUNC = int8inc, STYPE = int8, INITCOND = 0);
CREATE AGGREGATE in_order(ORDER BY int) (SFUNC = int4pl, STYPE = int);
CREATE COLLATION own FROM "C"; CREATE STATISTICS st ON id, m FROM parent;
CREATE TABLE parts (d date) PARTITION BY RANGE (d); CREATE TABLE part1 PARTITION OF parts DEFAULT;
"""


def params(database: Database, **changes: Any) -> dict[str, Any]:
    defaults = {option: spec.get("default") for option, spec in ARGUMENT_SPEC.items()}
    given = {key: value for key, value in database.params().items() if key in ARGUMENT_SPEC}
    return {**defaults, **given, "environment": "development", "confirm": database.name, **changes}


def says(database: Database, environment: str) -> None:
    """Only the superuser may."""
    database.instance.sql(f"ALTER DATABASE {database.name} SET dastern.environment = '{environment}'")


def test_four_times_and_the_schema_keeps_its_grants(chain: Database) -> None:
    chain.migrate()
    says(chain, "development")
    chain.query(ODD)
    chain.instance.sql("CREATE EXTENSION citext", chain.name)
    chain.query("GRANT CREATE ON SCHEMA public TO pg_monitor")
    grants = chain.query("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'")
    before = chain.state()
    assert reset(params(chain), check_mode=True)["changed"] is True
    assert chain.state() == before
    assert reset(params(chain))["dropped"] > 15
    left = chain.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace UNION ALL "
        "SELECT proname FROM pg_proc p WHERE pronamespace = 'public'::regnamespace AND NOT EXISTS "
        "(SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e') UNION ALL "
        "SELECT typname FROM pg_type t WHERE typnamespace = 'public'::regnamespace AND typelem = 0 AND NOT EXISTS "
        "(SELECT FROM pg_depend WHERE objid = t.oid AND deptype = 'e')"
    )
    assert left == []
    assert chain.query("SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'") == grants
    assert chain.query("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'") == [("citext",)]
    assert reset(params(chain))["changed"] is False
    assert reset(params(chain), check_mode=True)["changed"] is False
    assert len(chain.migrate()["applied_now"]) == 5


def test_extensions_that_migrations_made_are_made_anew(chain: Database) -> None:
    chain.write(_6_step="CREATE EXTENSION cube; CREATE EXTENSION pg_trgm; CREATE TABLE c (c cube)")
    chain.migrate()
    says(chain, "development")
    assert reset(params(chain))["changed"] is True
    assert reset(params(chain))["changed"] is False
    assert chain.migrate()["applied_now"][-1]["name"] == "6_step"


def test_what_another_schema_has_of_an_extension_stays(chain: Database) -> None:
    says(chain, "development")
    chain.query("CREATE EXTENSION hstore; CREATE SCHEMA other; CREATE TABLE other.kept AS SELECT 'a=>1'::hstore AS h")
    chain.query("CREATE TABLE gone ()")
    before = chain.state()
    with pytest.raises(DasTernError, match="nothing was deleted: 2BP01"):
        reset(params(chain))
    assert chain.state() == before


@pytest.mark.parametrize(
    ("own", "changes", "words"),
    [
        ("development", {"environment": "production"}, "only a development database is ever reset"),
        ("development", {"environment": "staging"}, "only a development database is ever reset"),
        ("production", {}, " is production, not development"),
        ("staging", {}, " is staging, not development"),
        ("", {}, " is empty, not development"),
        ("development", {"confirm": ""}, "-e confirm=m_"),
        ("development", {"confirm": "dastern"}, "Nothing was deleted"),
    ],
)
def test_refusals(chain: Database, own: str, changes: dict[str, Any], words: str) -> None:
    chain.migrate()
    says(chain, own)
    before = chain.state()
    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refused:
            reset(params(chain, **changes), check_mode=check_mode)
        assert words in refused.value.message
    assert chain.state() == before


def test_who_is_in_the_way_is_named(chain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT", "1s")
    chain.migrate()
    says(chain, "development")
    before = chain.state()
    with chain.connect() as other, other.transaction():
        other.execute("SELECT FROM t3")
        with pytest.raises(DasTernError, match="nothing was deleted: 55P03") as refused:
            reset(params(chain))
        assert [one["pid"] for one in refused.value.facts["blockers"]] == [other.info.backend_pid]
    assert chain.state() == before


def test_playbook(chain: Database, tmp_path_factory: pytest.TempPathFactory) -> None:
    chain.migrate()
    says(chain, "development")
    chain.query("CREATE TABLE by_hand ()")
    play = {"playbook": "playbooks/reset.yml", "seed_allowed": False}
    report = tmp_path_factory.mktemp("report") / "report.json"
    refused = chain.play(**play, report_file=report)
    summary = refused.stdout[refused.stdout.index(" · playbooks/reset.yml · ") :]
    assert (
        refused.returncode,
        f"  failed       A reset deletes everything in schema public of database {chain.name}" in summary,
    ) == (2, True)
    (failure,) = json.loads(report.read_text())["failures"]
    assert failure["message"].startswith("A reset deletes everything")
    check = chain.play("--check", **play, confirm=chain.name)
    assert (check.returncode, "would apply 1_step" in check.stdout) == (0, True), check.stdout
    assert chain.query("SELECT to_regclass('by_hand') IS NOT NULL") == [(True,)]
    done = chain.play(**play, confirm=chain.name)
    assert (done.returncode, "5 applied, 0 pending" in done.stdout) == (0, True), done.stdout
    assert chain.query("SELECT to_regclass('by_hand'), to_regclass('t5') IS NOT NULL") == [(None, True)]
