"""Lint: what a statement does because of what the files before it made."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.lint.lint import lint


def rules(folder: Path, *files: str, together: bool = False) -> list[tuple[str, str, str]]:
    """File, rule and class of the findings in `files`, called 1, 2, 3 ..."""
    chain = [MigrationFile(str(number), sql) for number, sql in enumerate(files, 1)]
    found = lint(chain, [file.name for file in chain], folder, together=together)
    return [(one.migration, one.rule, one.severity) for one in found]


NO_READS = ("2", "locks-out-reads", "danger")
CALLS = "CREATE DOMAIN uid AS uuid DEFAULT gen_random_uuid();"


@pytest.mark.parametrize(
    ("domain", "column", "expected"),
    [
        (CALLS, "uid", [NO_READS]),
        (CALLS, "uid DEFAULT '00000000-0000-0000-0000-000000000000'", []),
        (CALLS, "uid[]", []),
        (f"{CALLS} CREATE DOMAIN further AS uid;", "further", [NO_READS]),
        (f"{CALLS} CREATE DOMAIN further AS uid DEFAULT NULL;", "further", []),
        ("CREATE DOMAIN uid AS uuid; ALTER DOMAIN uid SET DEFAULT gen_random_uuid();", "uid", [NO_READS]),
        (f"{CALLS} ALTER DOMAIN uid RENAME TO further;", "further", [NO_READS]),
        ("CREATE DOMAIN d AS int NOT NULL; CREATE DOMAIN further AS d;", "further DEFAULT 1", [NO_READS]),
        ("CREATE DOMAIN at AS timestamptz DEFAULT now();", "at", []),
        ("CREATE DOMAIN d AS int DEFAULT 1;", "d", []),
        (f"{CALLS} DROP DOMAIN uid; CREATE DOMAIN uid AS uuid;", "uid", []),
    ],
)
def test_a_column_of_a_domain(tmp_path: Path, domain: str, column: str, expected: list[tuple[str, str, str]]) -> None:
    add = f"ALTER TABLE t ADD COLUMN e {column};"
    assert [one for one in rules(tmp_path, domain, add) if one[1] == "locks-out-reads"] == expected
    assert ("2", *NO_READS[1:]) not in rules(tmp_path, domain, f"CREATE TABLE t (id int); {add}")


def test_what_holds_rows_where_files_are_applied_together(tmp_path: Path) -> None:
    """A table of a file that was applied before holds rows, and so does one whose name a temporary one had."""
    for made, names in (("TABLE", ["2"]), ("TEMP TABLE", ["1", "2"])):
        files = [
            MigrationFile("1", f"{CALLS} CREATE {made} t (id int);"),
            MigrationFile("2", "ALTER TABLE t ADD COLUMN e uid;"),
        ]
        found = [(one.migration, one.rule, one.severity) for one in lint(files, names, tmp_path, together=True)]
        assert NO_READS in found, made
    assert NO_READS not in rules(
        tmp_path, f"{CALLS} CREATE TABLE t (id int);", "ALTER TABLE t ADD COLUMN e uid;", together=True
    )


PARTED = "CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p_d PARTITION OF p DEFAULT;"
NEW = "CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3);"
ATTACHED = "CREATE TABLE p3 (id int); ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3);"


@pytest.mark.parametrize(
    ("before", "sql", "expected"),
    [
        (PARTED, NEW, True),
        (PARTED, ATTACHED, True),
        (PARTED, NEW.replace("OF p", "OF public.p"), True),
        (PARTED, f"DO $$ BEGIN {NEW} END $$;", True),
        (PARTED, NEW.replace("TABLE", "FOREIGN TABLE").replace(";", " SERVER s;"), True),
        (PARTED, "CREATE TABLE p3 PARTITION OF p (id DEFAULT 3) FOR VALUES IN (3);", True),
        (f"{PARTED} ALTER TABLE p RENAME TO q;", NEW.replace("OF p", "OF q"), True),
        (f"{PARTED} ALTER TABLE p_d RENAME TO d; DROP TABLE p_d;", NEW, True),
        (PARTED.replace("p_d PARTITION OF p DEFAULT", "d (id int); ALTER TABLE p ATTACH PARTITION d DEFAULT"), NEW, True),
        (f"{PARTED} ALTER TABLE p DETACH PARTITION p_d;", NEW, False),
        (f"{PARTED} DROP TABLE public.p_d;", NEW, False),
        (f"{PARTED} DROP TABLE p;", NEW, False),
        (PARTED.replace("DEFAULT", "FOR VALUES IN (1)"), NEW, False),
        ("CREATE TABLE p (id int) PARTITION BY LIST (id);", f"CREATE TABLE p_d PARTITION OF p DEFAULT; {NEW}", False),
        ("SELECT 1;", PARTED + NEW, False),
    ],
)  # fmt: skip
def test_a_partition_beside_a_default_one(tmp_path: Path, before: str, sql: str, expected: bool) -> None:
    """The server searches the default partition under ACCESS EXCLUSIVE (manual, "Table Partitioning")."""
    assert [one for one in rules(tmp_path, before, sql) if one == NO_READS] == [NO_READS] * expected


def test_a_default_partition_of_the_same_run_is_empty(tmp_path: Path) -> None:
    assert rules(tmp_path, PARTED, NEW, together=True) == []


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        ("locks-out-reads", "ADD COLUMN {} bigserial"),
        ("locks-out-reads", "ADD {} smallserial"),
        ("locks-out-reads", "ADD CONSTRAINT {} EXCLUDE USING gist (id WITH =)"),
        ("unique-may-fail", "ADD CONSTRAINT {} UNIQUE (id)"),
    ],
)
def test_a_quoted_name_may_hold_anything(tmp_path: Path, rule: str, sql: str) -> None:
    for name in ("c", '"c"', '"my name"', '"a ""b"" (c), d"'):
        assert rule in {one[1] for one in rules(tmp_path, f"ALTER TABLE t {sql.format(name)};")}, name
    harmless = 'ALTER TABLE t ADD COLUMN "e bigserial" int, ADD COLUMN "SET LOGGED" int;'
    assert rules(tmp_path, harmless) == []


CHECK = "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID;"
VALIDATE = "ALTER TABLE t VALIDATE CONSTRAINT c;"
SET_NOT_NULL = "ALTER TABLE t ALTER a SET NOT NULL;"
ELSEWHERE = CHECK.replace("TABLE t", "TABLE audit.t"), VALIDATE.replace("TABLE t", "TABLE audit.t")


@pytest.mark.parametrize(
    ("files", "proven"),
    [
        ((CHECK, VALIDATE), True),
        ((CHECK.replace("TABLE t", "TABLE public.t"), VALIDATE), True),
        (ELSEWHERE, False),
        ((f"{ELSEWHERE[0]}\n{CHECK}", ELSEWHERE[1]), False),
        ((*ELSEWHERE, "ALTER TABLE audit.t SET SCHEMA public"), False),
        ((CHECK, VALIDATE, "ALTER TABLE t SET SCHEMA old; CREATE TABLE t (a int);"), False),
        ((CHECK, VALIDATE, "CREATE TABLE t (a int);"), False),
        ((CHECK, VALIDATE, "CREATE TABLE IF NOT EXISTS t (a int);"), True),
        ((f"SET search_path = audit; {CHECK}", f"SET search_path = audit; {VALIDATE}"), False),
        ((f"CREATE TEMP TABLE t (a int); {CHECK.replace(' NOT VALID', '')}", "SELECT 1;"), False),
        ((CHECK.replace("NOT VALID", "NO INHERIT NOT VALID"), VALIDATE), False),
        ((CHECK.replace("NOT VALID", "NOT VALID NO INHERIT"), VALIDATE), False),
        ((CHECK.replace("NOT VALID", "NO INHERIT"), "SELECT 1;"), False),
        ((CHECK.replace("NOT VALID", "NOT DEFERRABLE NOT VALID"), "SELECT 1;"), False),
        ((CHECK, VALIDATE, "ALTER TABLE public.t DROP CONSTRAINT c;"), False),
    ],
)  # fmt: skip
def test_a_check_proves_something_of_its_own_table(tmp_path: Path, files: tuple[str, ...], proven: bool) -> None:
    last = str(len(files) + 1)
    found = rules(tmp_path, *files, SET_NOT_NULL)
    assert ((last, "adding-not-nullable-field", "danger") not in found) == proven


PRIMARY = ("2", "drops-primary-key", "danger")
UNIQUE = ("2", "drops-what-is-used", "warning")


@pytest.mark.parametrize(
    ("before", "name", "expected"),
    [
        ('CREATE TABLE t (id int, CONSTRAINT "PK_a3ff" PRIMARY KEY (id));', '"PK_a3ff"', PRIMARY),
        ("CREATE TABLE t (id int CONSTRAINT main PRIMARY KEY);", "main", PRIMARY),
        ("ALTER TABLE t ADD CONSTRAINT main PRIMARY KEY (id);", "IF EXISTS main", PRIMARY),
        ("ALTER TABLE t ADD PRIMARY KEY USING INDEX main;", "main", PRIMARY),
        ("ALTER TABLE t ADD UNIQUE USING INDEX main;", "main", UNIQUE),
        ('CREATE TABLE t (id int, CONSTRAINT "UQ_1" UNIQUE (id));', '"UQ_1"', UNIQUE),
        ("CREATE TABLE t (id int CONSTRAINT a PRIMARY KEY); ALTER TABLE t RENAME CONSTRAINT a TO b;", "b", PRIMARY),
        ("CREATE TABLE t (id int CONSTRAINT a PRIMARY KEY); ALTER INDEX a RENAME TO b;", "b", PRIMARY),
        ("SELECT 1;", '"my-table_pkey"', PRIMARY),
        ("SELECT 1;", "t_pkey1", PRIMARY),
        ("SELECT 1;", '"my-table_a_key"', UNIQUE),
        ("CREATE TABLE t (a int CONSTRAINT c CHECK (a > 0), CONSTRAINT d FOREIGN KEY (a) REFERENCES u);", "c", None),
        ("SELECT 1;", "monkey", None),
    ],
)
def test_a_key_is_dropped(tmp_path: Path, before: str, name: str, expected: tuple[str, str, str] | None) -> None:
    found = [
        one for one in rules(tmp_path, before, f"ALTER TABLE t DROP CONSTRAINT {name};") if one in (PRIMARY, UNIQUE)
    ]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("CURRENT_TIMESTAMP(3)", 0),
        ("(now() AT TIME ZONE 'utc')::date", 0),
        ("transaction_timestamp()::timestamp(3)", 0),
        ("clock_timestamp()", 1),
        ("mine.now()", 1),
        ("now('x')", 1),
        ("coalesce(now(), gen_random_uuid()::text::timestamptz)", 1),
    ],
)
def test_the_time_of_the_transaction_is_the_same_in_each_row(tmp_path: Path, default: str, expected: int) -> None:
    found = rules(tmp_path, f"ALTER TABLE t ADD COLUMN e timestamptz DEFAULT {default};")
    assert found == [("1", "adding-field-with-default", "danger")] * expected
