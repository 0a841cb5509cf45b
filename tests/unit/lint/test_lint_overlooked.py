"""Lint: statements that do the same as others that it reports, in another way, and those that only look like them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.dastern.common.migration_files import ADVISORY_LOCK, MigrationFile
from ansible.module_utils.dastern.lint.lint import lint


def rules(folder: Path, sql: str) -> set[str]:
    return {one.rule for one in lint([MigrationFile("1", sql)], ["1"], folder)}


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        ("sets-sequence", "ALTER TABLE t ALTER COLUMN id SET CYCLE"),
        ("sets-sequence", "ALTER TABLE t ALTER COLUMN id SET MINVALUE 5"),
        ("sets-sequence", "ALTER TABLE t ALTER COLUMN id SET MAXVALUE 5"),
        ("sets-sequence", "ALTER SEQUENCE s AS integer"),
        ("deletes-all-rows", "SELECT count(lo_unlink(oid)) FROM pg_largeobject_metadata"),
        ("deletes-all-rows", "DO $$ BEGIN PERFORM lo_unlink(oid) FROM pg_largeobject_metadata; END $$"),
        ("deletes-all-rows", 'EXPLAIN ("analyze" true, costs off) DELETE FROM t'),
        ("rewrites-statements", "CREATE OR REPLACE RULE r AS ON UPDATE TO t DO DELETE FROM u WHERE id = OLD.id"),
        ("rewrites-statements", "CREATE RULE r AS ON INSERT TO t DO ALSO (NOTIFY a; UPDATE u SET b = 1)"),
        ("rewrites-statements", "CREATE RULE r AS ON INSERT TO t DO ALSO WITH a AS (DELETE FROM u RETURNING 1) SELECT 1"),
        ("rewrites-statements", "CREATE TABLE n (id int); CREATE RULE r AS ON INSERT TO n DO ALSO DELETE FROM u"),
        (
            "rewrites-statements",
            "CREATE TABLE n (id int); CREATE RULE r AS ON INSERT TO n DO ALSO (DELETE FROM u; DELETE FROM v WHERE id = 1)",
        ),
        ("joins-extension", 'ALTER EXTENSION "uuid-ossp" ADD SEQUENCE s'),
        ("adding-required-field", "ALTER TABLE t ADD e int DEFAULT NULL NOT NULL"),
        ("adding-required-field", "ALTER TABLE t ADD e int NOT NULL DEFAULT (NULL::int)"),
        ("adding-required-field", "ALTER TABLE t ADD e int NOT NULL DEFAULT -- none\nNULL"),
        ("gives-lock-away", f"SELECT pg_advisory_unlock({ADVISORY_LOCK}::bigint)"),
        ("changes-access", "ALTER PROCEDURE p() SECURITY INVOKER"),
        ("cant-succeed", "SET LOCAL transaction_read_only TO 'true'"),
        ("transaction-control", "DO $$ BEGIN DELETE FROM t WHERE id = 1; ROLLBACK AND CHAIN; END $$"),
        ("transaction-control", "DO $$ BEGIN DELETE FROM t WHERE id = 1; COMMIT AND CHAIN; END $$"),
        ("require-concurrent-reindex", "CREATE TABLE n (id int); REINDEX TABLE t"),
        ("require-concurrent-reindex", "CREATE TABLE n (id int); REINDEX INDEX n"),
        ("locks-out-reads", "VACUUM FULL t"),
        ("locks-out-reads", "VACUUM (ANALYZE, FULL on) t"),
        ("locks-out-reads", "VACUUM (FULL)"),
        ("not-alone", "SELECT 1; DO $$ BEGIN DELETE FROM t WHERE id = 1; ROLLBACK AND CHAIN; END $$"),
    ],
)  # fmt: skip
def test_found(tmp_path: Path, rule: str, sql: str) -> None:
    assert rule in rules(tmp_path, f"{sql};")


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER SEQUENCE s AS bigint",
        "SELECT lo_unlink(1)",
        "SELECT lo_unlink(a) FROM t WHERE id = 1",
        "EXPLAIN (\"analyze\" off) DELETE FROM t",
        "CREATE RULE r AS ON DELETE TO t DO ALSO INSERT INTO log SELECT OLD.id WHERE OLD.id > 1",
        "CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (1) ON CONFLICT (id) DO UPDATE SET n = 1",
        "CREATE VIEW n AS SELECT 1; CREATE RULE r AS ON UPDATE TO n DO INSTEAD UPDATE u SET a = 1 WHERE id = OLD.id",
        "ALTER EXTENSION citext DROP FUNCTION f()",
        "ALTER TABLE t ADD e int DEFAULT NULL",
        "CREATE TABLE n (id int); ALTER TABLE n ADD e int NOT NULL DEFAULT NULL",
        "SELECT pg_advisory_unlock(1)",
        "CREATE FUNCTION n() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION n() SECURITY DEFINER",
        "SET transaction_read_only = off",
        "CREATE TABLE n (id int); REINDEX TABLE n",
        "CREATE TABLE n (id int); REINDEX (VERBOSE) TABLE n",
        "VACUUM (FULL false, ANALYZE) t",
        'VACUUM "full"',
    ],
)  # fmt: skip
def test_not_found(tmp_path: Path, sql: str) -> None:
    assert rules(tmp_path, f"{sql};") == set()


def test_a_rollback_in_a_block_is_a_danger(tmp_path: Path) -> None:
    """The migration counts as applied, and nothing is made."""
    (one,) = lint([MigrationFile("1", "DO $$ BEGIN CREATE TABLE b (id int); ROLLBACK; END $$;")], ["1"], tmp_path)
    assert (one.rule, one.severity, one.column) == ("transaction-control", "danger", 38)
    (one,) = lint([MigrationFile("1", "DO $$ BEGIN DELETE FROM t WHERE id = 1; COMMIT; END $$;")], ["1"], tmp_path)
    assert (one.rule, one.severity) == ("transaction-control", "warning")
