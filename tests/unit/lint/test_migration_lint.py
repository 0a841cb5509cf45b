"""Lint: every rule on files that have the fault and on files that look like it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.lint import squawk
from ansible.module_utils.dastern.lint.foreign_keys import without_index
from ansible.module_utils.dastern.lint.lint import OWN_RULES, Finding, lint, lint_folder, read_ignores, refusal

ROOT = Path(__file__).resolve().parents[3]
INDEX = "CREATE INDEX CONCURRENTLY i ON t (c)"


def found(folder: Path, *files: str, names: list[str] | None = None) -> list[Finding]:
    """The findings in `files`, called 1, 2, 3 ..."""
    chain = [MigrationFile(str(number), sql) for number, sql in enumerate(files, 1)]
    return lint(chain, names if names is not None else [file.name for file in chain], folder)


def told(folder: Path, rule: str, *files: str) -> list[tuple[str, int, int, str]]:
    """Migration, line, column and class of the findings of one rule."""
    return [(one.migration, one.line, one.column, one.severity) for one in found(folder, *files) if one.rule == rule]


# --- own rules


@pytest.mark.parametrize("sql", ["", "\n\n", "-- nothing yet\n/* nor /* here */ */;"])
def test_empty(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "empty", sql) == [("1", 1, 1, "danger")]
    assert told(tmp_path, "empty", sql + "\nSELECT 1") == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1; COMMIT;", [(1, 11, "danger")]),
        ("SELECT 1;\n  end", [(2, 3, "danger")]),
        ("ROLLBACK", [(1, 1, "danger")]),
        ("BEGIN; SELECT 1", [(1, 1, "danger")]),
        ("START TRANSACTION; SELECT 1", [(1, 1, "danger")]),
        ("BEGIN; SELECT 1; COMMIT; SELECT 2; BEGIN; SELECT 3;", [(1, 1, "warning"), (1, 36, "danger")]),
        ("BEGIN; SELECT 1; ROLLBACK", [(1, 18, "danger")]),
        ("BEGIN;\nBEGIN;\nCOMMIT", [(1, 1, "warning"), (2, 1, "danger")]),
        ("BEGIN; SELECT 1; COMMIT AND CHAIN; SELECT 2", [(1, 1, "warning"), (1, 1, "danger")]),
        ("PREPARE TRANSACTION 'x'", [(1, 1, "danger")]),
        ("COMMIT PREPARED 'x'", [(1, 1, "danger")]),
        ("-- AlterEnum\nBEGIN;\nSELECT 1;\nCOMMIT;\nSELECT 2;", [(2, 1, "warning")]),
        ("BEGIN; SELECT 1; COMMIT AND NO CHAIN;", [(1, 1, "warning")]),
        # What only looks like it.
        ("-- BEGIN\nSELECT 1 /* COMMIT; */;", []),
        ("DO $$ BEGIN PERFORM 1; END $$;", []),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END; $f$;", []),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END;", []),
        ("SELECT 'a; COMMIT; b', E'\\'; COMMIT; ', \"COMMIT\" FROM t;", []),
        ("SAVEPOINT a; ROLLBACK TO a;", []),
        ("PREPARE p AS SELECT 1", []),
    ],
)
def test_transaction_control(tmp_path: Path, sql: str, expected: list[tuple[int, int, str]]) -> None:
    assert sorted(one[1:] for one in told(tmp_path, "transaction-control", sql)) == sorted(expected)


@pytest.mark.parametrize(
    "sql",
    [
        INDEX,
        "create unique index concurrently i on t (c)",
        "DROP INDEX CONCURRENTLY i",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX (VERBOSE, CONCURRENTLY) INDEX i",
        "REINDEX DATABASE d",
        "VACUUM",
        "VACUUM (ANALYZE) t",
        "CREATE DATABASE d",
        "DROP DATABASE IF EXISTS d",
        "CREATE TABLESPACE s LOCATION '/x'",
        "ALTER DATABASE d SET TABLESPACE s",
        "ALTER SYSTEM SET work_mem = '1MB'",
        'ALTER TABLE "a"."p" DETACH PARTITION q CONCURRENTLY',
        "DROP SUBSCRIPTION s",
        "CLUSTER",
        "CLUSTER VERBOSE",
        "DISCARD ALL",
    ],
)
def test_not_alone(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "not-alone", f"SELECT 1;\n  {sql};") == [("1", 2, 3, "danger")]
    assert told(tmp_path, "not-alone", f"-- one\n{sql}; -- alone") == []


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX i ON t (c) -- CONCURRENTLY",
        'CREATE INDEX "CONCURRENTLY" ON t (c)',
        "DROP INDEX i /* CONCURRENTLY */",
        "REINDEX INDEX i",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
        "ALTER DATABASE d SET work_mem = '1MB'",
        "ALTER TABLE p DETACH PARTITION q",
        'CLUSTER t USING "i"',
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'VACUUM'; END $$",
        "SELECT 'VACUUM'",
    ],
)
def test_these_may_stand_beside_others(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "not-alone", f"SELECT 1; {sql};") == []


ADD = "ALTER TYPE \"Mood\" ADD VALUE IF NOT EXISTS 'SAD';\n"


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET mood = 'SAD';",
        "ALTER TABLE t ALTER mood SET DEFAULT 'SAD'::\"Mood\";",
        "INSERT INTO t VALUES (E'SAD');",
        "INSERT INTO t VALUES ($$SAD$$);",
        "DO $$ BEGIN UPDATE t SET mood = 'SAD'; END $$;",
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM t WHERE mood = 'SAD' $$;",
        "CREATE FUNCTION f() RETURNS bigint AS $$ SELECT count(*) FROM t WHERE mood = 'SAD' $$ LANGUAGE \"sql\";",
    ],
)
def test_enum_value_used(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "enum-value-used", f"{ADD}{sql}")[0][:2] == ("1", 2)
    assert told(tmp_path, "enum-value-used", ADD, sql) == []


@pytest.mark.parametrize(
    "sql",
    [
        ADD + "ALTER TYPE \"Mood\" ADD VALUE 'ANGRY' AFTER 'SAD';",
        ADD + "-- 'SAD'\nUPDATE t SET mood = 'HAPPY', note = 'it''s SAD';",
        ADD + "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET mood = 'SAD'; END $$;",
        "CREATE TYPE \"Mood\" AS ENUM ('HAPPY');\n" + ADD + "CREATE TABLE t (mood \"Mood\" DEFAULT 'SAD');",
        "BEGIN;\n" + ADD + "COMMIT;\nUPDATE t SET mood = 'SAD';",
        ADD + "COMMENT ON TABLE t IS 'SAD';",
        "UPDATE u SET note = 'SAD';\n" + ADD,
        "ALTER TYPE \"Mood\" RENAME VALUE 'SAD' TO 'BLUE';\nUPDATE t SET mood = 'BLUE';",
    ],
)
def test_uses_of_a_new_enum_value_that_are_allowed(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "enum-value-used", sql) == []


OWN_DANGERS = [
    ("drop-cascade", [
        "DROP TYPE role CASCADE", "drop schema if exists s cascade", "DROP VIEW v, w CASCADE", "DROP DOMAIN d CASCADE",
        "DROP EXTENSION citext CASCADE", "DROP FUNCTION f(int) CASCADE", "DROP SEQUENCE q CASCADE", "DROP OWNED BY r",
        "ALTER TABLE t ADD a int, DROP CONSTRAINT k CASCADE", "ALTER TYPE c DROP ATTRIBUTE a CASCADE",
    ]),
    ("deletes-all-rows", [
        "TRUNCATE t", "TRUNCATE TABLE ONLY s.t, u RESTART IDENTITY", "DELETE FROM t", 'DELETE /* all */ FROM ONLY "t" AS x',
        "DELETE FROM t USING (SELECT 1 AS a WHERE true) AS x", "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d WHERE a > 1",
        "WITH x AS (SELECT 1 WHERE true) DELETE FROM t",
    ]),
    ("loses-data-in-code", [
        "DO $x$ BEGIN EXECUTE format($q$DROP TYPE %I CASCADE$q$, 'y'); END $x$", "DO $$ BEGIN EXECUTE 'DROP TABLE ' || quote_ident('t'); END $$",
        "DO $$ DECLARE q text := 'truncate '; BEGIN EXECUTE q || 't'; END $$", "DO $$ BEGIN EXECUTE 'DELETE FROM ' || t; END $$",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE ' || t || ' DROP ' || c; END $$", "DO $$ DECLARE q text; BEGIN q := 'DROP SCHEMA s'; EXECUTE q; END $$",
        "DO $$ BEGIN FOR t IN SELECT 1 LOOP EXECUTE 'DROP TABLE ' || t INTO n; END LOOP; END $$",
    ]),
    ("locks-out-reads", [
        "LOCK TABLE t IN ACCESS EXCLUSIVE MODE", "LOCK t", "VACUUM FULL t", "VACUUM (VERBOSE, FULL) t", "CLUSTER t USING i", "CLUSTER",
        "REFRESH MATERIALIZED VIEW v", "ALTER TABLE t SET UNLOGGED", "ALTER TABLE t SET LOGGED", "ALTER TABLE t SET TABLESPACE s",
        "ALTER INDEX i SET TABLESPACE s", "ALTER TABLE t ADD CONSTRAINT e EXCLUDE USING gist (a WITH &&)",
        "ALTER TABLE t ADD EXCLUDE (a WITH =)", "ALTER TABLE t SET ACCESS METHOD heap", "ALTER TABLE t ADD COLUMN n bigserial",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "sql"), [(rule, sql) for rule, files in OWN_DANGERS for sql in files])
def test_own_dangers(tmp_path: Path, rule: str, sql: str) -> None:
    (one,) = [one for one in found(tmp_path, f"SELECT 1;\n{sql};") if one.rule == rule]
    assert (one.line, one.severity) == (2 + sql.count("\n"), "danger")
    assert all(one.rule != "constraint-missing-not-valid" for one in found(tmp_path, sql))
    assert told(tmp_path, rule, f"-- {sql.replace(chr(10), ' ')};\nSELECT $$ {sql.replace('$$', '')} $$;") == []


CODE = {
    "ban-drop-table": ["DROP TABLE IF EXISTS t", "DROP TABLE t, u"],
    "ban-drop-column": ["ALTER TABLE t DROP c", "ALTER TABLE t ADD d int, DROP COLUMN c"],
    "deletes-all-rows": [
        "DELETE FROM t",
        "TRUNCATE t",
        "WITH d AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM d",
    ],
    "updates-all-rows": ["UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END"],
    "drop-cascade": ["DROP TYPE y CASCADE"],
    "changing-column-type": ["ALTER TABLE t ALTER c TYPE bigint"],
    "renaming-column": ["ALTER TABLE t RENAME c TO d"],
    "require-concurrent-index-creation": ["CREATE INDEX i ON t (c)"],
    "locks-out-reads": ["LOCK TABLE t", "ALTER TABLE t ADD CHECK (c > 0)", "CLUSTER t USING i"],
    "needs-superuser": ["CREATE ROLE r", "COPY t FROM '/tmp/x'"],
    "foreign-key-without-index": ["ALTER TABLE t ADD FOREIGN KEY (u) REFERENCES u"],
    "not-alone": ["CREATE INDEX CONCURRENTLY i ON t (c)", "VACUUM t"],
}


@pytest.mark.parametrize(("rule", "sql"), [(rule, sql) for rule, all_ in CODE.items() for sql in all_])
def test_code_is_read_like_statements(tmp_path: Path, rule: str, sql: str) -> None:
    """What a DO block, or what the file makes and calls, says literally; with the line on which it stands."""
    quoted = sql.replace("'", "''")
    body = {
        "plain": f"BEGIN\n IF a THEN\n  {sql};\n END IF;\nEND",
        "executed": f"BEGIN\n PERFORM 1;\n EXECUTE $q${sql}$q$;\nEND",
        "in quotes": f"BEGIN\n\n EXECUTE '{quoted}' USING 1;\nEND",
        "formatted": f"BEGIN\n\n EXECUTE format('{quoted}');\nEND",
        "guarded": f"BEGIN\n BEGIN\n {sql};\n EXCEPTION WHEN others THEN\n RAISE NOTICE '{quoted}'; END; END",
        "in a loop": f"<<all>>\nDECLARE r record; BEGIN FOR r IN SELECT 1 LOOP\n {sql}; END LOOP; END",
        "nested": f"BEGIN\n EXECUTE $q$DO $z$ BEGIN\n {sql}; END $z$$q$; END",
    }
    read, left = [], []
    for text in body.values():
        function = f"CREATE FUNCTION s.f(a int) RETURNS void LANGUAGE plpgsql AS $x$ {text} $x$;"
        read.append(f"DO $x$ {text} $x$")
        for call in (
            "SELECT s.f(1)",
            "DO $$ BEGIN PERFORM f(1); END $$",
            "DO $$ BEGIN IF f(1) THEN NULL; END IF; END $$",
        ):
            read.append(f"{function}\n{call}")
        # Neither what only talks of it, nor what isn't called, does it.
        for end in ("SELECT 1", "GRANT EXECUTE ON FUNCTION s.f(int) TO r", "DROP FUNCTION s.f(int)", "SELECT f FROM t"):
            left.append(f"{function}\n{end}")
    read.append(f"CREATE PROCEDURE p() LANGUAGE sql AS '\n\n{quoted}';\nCALL p()")
    left.append(f"DO $x$ BEGIN INSERT INTO log VALUES ('{quoted}'); v := $q${sql}$q$; RAISE NOTICE '{quoted}'; END $x$")
    assert [one[:2] for one in told(tmp_path, rule, *read)] == [(str(at), 3) for at, _ in enumerate(read, 1)]
    assert told(tmp_path, rule, *left) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DO $$ BEGIN COMMIT; END $$", [("transaction-control", "warning")]),
        ("SELECT 1; DO $$ BEGIN COMMIT; END $$", [("not-alone", "danger")]),
        ("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN ROLLBACK; END'; CALL p()", [("not-alone", "danger")]),
        ("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'", []),
        ("CREATE PROCEDURE p() BEGIN ATOMIC DELETE FROM t; END; CALL p()", [("deletes-all-rows", "danger")]),
        ("DO $$ BEGIN ALTER TYPE m ADD VALUE 'SAD'; END $$; UPDATE t SET m = 'SAD' WHERE a", [("enum-value-used", "danger")]),
        ("DO $$ BEGIN EXECUTE 'ALTER TABLE t ' || x; END $$", []),
        ("DO $$ BEGIN INSERT INTO log VALUES ('create user'), ('drop table x'); EXECUTE q; END $$", []),
        ("DO $$ BEGIN RAISE NOTICE 'truncate t'; DELETE FROM t WHERE n = 'delete from u'; EXECUTE q; END $$", []),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ('create user'); END $$; SELECT f()", []),
        ("DO $$ BEGIN CREATE TABLE n (a int); EXCEPTION WHEN duplicate_table THEN null; END $$", []),
        ("DO $$ BEGIN UPDATE t SET a = CASE WHEN b THEN 1 ELSE 2 END WHERE c; END $$", []),
        ("EXPLAIN (ANALYZE false) DELETE FROM t", []),
        ("EXPLAIN (COSTS off, ANALYZE) UPDATE t SET a = 1", [("updates-all-rows", "warning")]),
        ("PREPARE p (int) AS DELETE FROM t; EXECUTE p(1)", [("deletes-all-rows", "danger")]),
        ("CREATE DOMAIN d AS int CHECK (VALUE > 0); ALTER TABLE t ADD c d", [("locks-out-reads", "danger")]),
        ("CREATE DOMAIN d AS int; ALTER TABLE t ADD c d DEFAULT 1", []),
        ("CREATE DOMAIN d AS int NOT NULL; CREATE TABLE t (a int); ALTER TABLE t ADD c d", []),
    ],
)  # fmt: skip
def test_what_code_may_do(tmp_path: Path, sql: str, expected: list[tuple[str, str]]) -> None:
    assert [(one.rule, one.severity) for one in found(tmp_path, sql)] == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$\nDROP TABLE a\n$$; SELECT f();\nDO $$ BEGIN\n  DROP TABLE b;\nEND $$;",
            [(2, 1), (5, 3)],
        ),
        (
            "DO $$ BEGIN EXECUTE 'DROP TABLE a\n'; EXECUTE 'DROP TABLE b';\nEND $$; DROP TABLE c;",
            [(1, 22), (2, 13), (3, 9)],
        ),
        (
            "DO $$ BEGIN EXECUTE 'CREATE TABLE n (b text DEFAULT ''x'', c text DEFAULT ''it''''s'');\nDROP TABLE a'; END $$;\nDROP TABLE b;",
            [(2, 1), (3, 1)],
        ),
        (
            "DO $$ BEGIN EXECUTE E'CREATE TABLE n (b text DEFAULT \\'x\\\\y\\');\nDROP TABLE a'; END $$;\nDROP TABLE b;",
            [(2, 1), (3, 1)],
        ),
    ],
)
def test_each_statement_in_code_stays_on_its_line(tmp_path: Path, sql: str, expected: list[tuple[int, int]]) -> None:
    assert [(line, column) for _, line, column, _ in told(tmp_path, "ban-drop-table", sql)] == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE FUNCTION f(text) {0}; CREATE FUNCTION f(int) {1}; SELECT f('a')", [1]),
        ("CREATE FUNCTION f(a text) {0};\nCREATE FUNCTION f(a int) {0}; SELECT f('a')", [1, 2]),
        ("CREATE FUNCTION f(a text) {0}; CREATE OR REPLACE FUNCTION f(a text) {1}; SELECT f('a')", []),
    ],
)
def test_functions_of_one_name(tmp_path: Path, sql: str, expected: list[int]) -> None:
    """Which of them a call means isn't known, so that all of them count; but not one that was replaced."""
    bodies = [f"RETURNS void LANGUAGE sql AS $$ {body} $$" for body in ("DELETE FROM x", "SELECT")]
    assert [line for _, line, _, _ in told(tmp_path, "deletes-all-rows", sql.format(*bodies))] == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE n AS SELECT f()", 1),
        ("CREATE TEMP TABLE IF NOT EXISTS n (a) AS (SELECT f())", 1),
        ("CREATE MATERIALIZED VIEW v AS SELECT f()", 1),
        ("ALTER TABLE t ALTER c TYPE int USING f()", 1),
        ("ALTER TABLE t ALTER a SET DEFAULT 1, ADD c int DEFAULT f()", 1),
        ("ALTER TABLE t ADD CHECK (f() > a) NOT VALID", 1),
        ("CREATE TABLE n AS SELECT f() WITH NO DATA", 0),
        ("CREATE TABLE n (a int DEFAULT f(), b int GENERATED ALWAYS AS (f()) STORED)", 0),
        ("CREATE VIEW v AS SELECT f()", 0),
        ("ALTER TABLE t ALTER a SET DEFAULT f()", 0),
        ("ALTER FUNCTION f() STABLE", 0),
    ],
)
def test_what_evaluates_calls(tmp_path: Path, sql: str, expected: int) -> None:
    made = "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ DELETE FROM x; SELECT 1 $$;"
    assert len(told(tmp_path, "deletes-all-rows", f"{made}\n{sql}")) == expected


@pytest.mark.parametrize(
    "made",
    [
        "CREATE FUNCTION f() RETURNS date LANGUAGE sql BEGIN ATOMIC SELECT p.begin FROM p; END",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT p.case FROM p; SELECT 1 AS case; END",
        "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION f() RETURNS begin LANGUAGE sql AS 'SELECT 1'",
    ],
)
def test_a_name_that_is_a_key_word_hides_nothing(tmp_path: Path, made: str) -> None:
    sql = f"{made};\nTRUNCATE users; GRANT ALL ON users TO PUBLIC; BEGIN; SELECT 1;"
    expected = [("deletes-all-rows", 2), ("changes-access", 2), ("transaction-control", 2)]
    assert [(one.rule, one.line) for one in found(tmp_path, sql)] == expected


@pytest.mark.parametrize(
    "made",
    [
        "CREATE FUNCTION f(begin atomic) RETURNS void LANGUAGE sql AS $$ DELETE FROM x $$",
        "CREATE FUNCTION f(atomic int) RETURNS void LANGUAGE sql AS $$ DELETE FROM x $$",
        "CREATE FUNCTION f() RETURNS void BEGIN ATOMIC SELECT p.begin, 1 AS end FROM p; DELETE FROM x; END",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN IF p.case THEN DELETE FROM x; END IF; END $$",
    ],
)
def test_a_name_that_is_a_key_word_hides_no_code(tmp_path: Path, made: str) -> None:
    assert len(told(tmp_path, "deletes-all-rows", f"{made};\nSELECT f(1);")) == 1


WIPES = "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'DELETE FROM x RETURNING 1';"


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$ BEGIN EXECUTE 'DELETE '\n'FROM x'; END $$",
        "DO $$ BEGIN EXECUTE 'DEL' -- and\n  'ETE FROM x'; END $$",
        "DO 'BEGIN '\n'TRUNCATE x; END'",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SELECT 1;'\n'DELETE FROM x'; SELECT f()",
        "DO $$ DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE 'DELETE FROM x RETURNING id'; END $$",
        "DO $$ DECLARE c refcursor; BEGIN OPEN c NO SCROLL FOR DELETE FROM x RETURNING id; END $$",
        "DO $$ DECLARE c CURSOR FOR DELETE FROM x RETURNING id; BEGIN FOR r IN c LOOP NULL; END LOOP; END $$",
        "DO $$ DECLARE c NO SCROLL CURSOR (a int) IS DELETE FROM x RETURNING id; BEGIN OPEN c(1); END $$",
        "DO $$ BEGIN FOR r IN EXPLAIN ANALYZE DELETE FROM x LOOP NULL; END LOOP; END $$",
        r"DO E'BEGIN\n DELETE\x20FROM x; END'",
        r"DO E'BEGIN -- it\n DELETE FROM x; END'",
        r"DO $$ BEGIN EXECUTE E'TRUNCATE\040TABLE x'; END $$",
        r"DO $$ BEGIN EXECUTE E'\104ELETE FROM x'; END $$",
        r"DO $$ BEGIN EXECUTE U&'DELETE\0020FROM x'; END $$",
        "DO $$ BEGIN EXECUTE U&'!0044ELETE FROM x' UESCAPE '!'; END $$",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS U&'DELETE FROM x RETURNING 1'; SELECT f()",
        f"{WIPES} CREATE FUNCTION f() RETURNS int RETURN g(); SELECT f()",
        f'{WIPES} SELECT U&"\\0067"()',
        """CREATE FUNCTION "My f"() RETURNS int LANGUAGE sql AS 'DELETE FROM x RETURNING 1'; SELECT public."My f" ()""",
        f"DO $$ BEGIN {WIPES} END $$; SELECT g()",
        f"DO $$ BEGIN {WIPES} PERFORM g(); END $$",
        f"DO $$ BEGIN {WIPES} IF g() > 0 THEN NULL; END IF; END $$",
        "DO $$ BEGIN CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; DELETE FROM x RETURNING 1; END; END $$; SELECT g()",
        f"{WIPES} CREATE TABLE n (a int DEFAULT g()); INSERT INTO n DEFAULT VALUES",
        f"{WIPES} CREATE TABLE n (a int, CHECK (g() > a)); DO $$ BEGIN INSERT INTO n VALUES (1); END $$",
        f"{WIPES} ALTER TABLE t ALTER a SET DEFAULT g(); COPY t FROM '/tmp/x'",
    ],
)
def test_code_that_is_written_otherwise(tmp_path: Path, sql: str) -> None:
    assert len(told(tmp_path, "deletes-all-rows", f"{sql};")) == 1


@pytest.mark.parametrize(
    "sql",
    [
        f"DO $$ BEGIN {WIPES} END $$",
        "DO $$ BEGIN CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; DELETE FROM x RETURNING 1; END; END $$",
        f"{WIPES} CREATE FUNCTION f() RETURNS int RETURN g()",
        f"DO $$ BEGIN {WIPES} COMMENT ON FUNCTION public.g() IS 'x'; DROP FUNCTION public.g(); END $$",
        f"{WIPES} CREATE TABLE n (a int DEFAULT g()); SELECT * FROM n",
        "DO $$ BEGIN EXECUTE 'DELETE FROM x '\n'WHERE a = 1'; END $$",
        "DO $$ DECLARE c CURSOR FOR SELECT 1 FROM x; BEGIN OPEN c; FETCH c INTO r; END $$",
        r"DO E'BEGIN -- DELETE FROM x;\n PERFORM 1; END'",
    ],
)
def test_code_that_deletes_nothing(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "deletes-all-rows", f"{sql};") == []


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("DO $$ BEGIN EXECUTE 'ALTER TABLE x '\n'ALTER id TYPE bigint'; END $$", "changing-column-type"),
        ("DO $$ BEGIN EXECUTE 'DROP '\n'TABLE ' || name; END $$", "loses-data-in-code"),
        ("DO $$ BEGIN EXECUTE 'DR' || 'OP ' || $q$TABLE$q$ || name; END $$", "loses-data-in-code"),
        (r"SELECT run(E'DROP\040TABLE ' || name)", "loses-data-in-code"),
        ("DO $$ BEGIN CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DROP TABLE x'; END $$; SELECT f()", "ban-drop-table"),
        (r"DO E'BEGIN -- it\n DROP TABLE x; END'", "ban-drop-table"),
        ("ALTER TYPE m ADD VALUE 'S'\n'AD'; UPDATE t SET m = 'SAD' WHERE a", "enum-value-used"),
    ],
)  # fmt: skip
def test_code_that_is_written_otherwise_for_other_rules(tmp_path: Path, sql: str, rule: str) -> None:
    assert [one.rule for one in found(tmp_path, f"{sql};")] == [rule]


def test_a_name_in_unicode_escapes_is_no_other(tmp_path: Path) -> None:
    assert told(tmp_path, "ban-drop-table", 'CREATE TABLE u (a int);\nDROP TABLE U&"users";') == [("1", 2, 1, "danger")]


def test_escapes_in_executed_text_do_not_shift_later_positions(tmp_path: Path) -> None:
    sql = "DO $$ BEGIN EXECUTE E'SEL'\n  'ECT\\x201;\\n DROP TABLE a'; END $$;\nDROP TABLE b;"
    assert told(tmp_path, "ban-drop-table", sql) == [("1", 2, 16, "danger"), ("1", 3, 1, "danger")]


def test_a_long_chain_of_functions_is_read_to_its_end(tmp_path: Path) -> None:
    functions = [
        f"CREATE FUNCTION fn_{at}() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN fn_{at + 1}(); END $$;"
        for at in range(2000)
    ]
    sql = "\n".join(["CREATE FUNCTION fn_2000() RETURNS int LANGUAGE sql AS 'DELETE FROM x RETURNING 1';", *functions])
    assert told(tmp_path, "deletes-all-rows", f"{sql}\nSELECT fn_0();") == [("1", 1, 56, "danger")]


def test_many_functions_take_linear_time(tmp_path: Path) -> None:
    functions = "".join(f"CREATE FUNCTION f{at}() RETURNS int LANGUAGE sql AS 'SELECT 1';\n" for at in range(4000))
    began = time.process_time()
    assert found(tmp_path, functions + "SELECT 1 FROM y;\n" * 8000) == []
    assert time.process_time() - began < 20


def _nested(depth: int) -> str:
    sql = "DELETE FROM x"
    for at in range(depth):
        sql = f"DO $a{at}$ BEGIN {sql}; END $a{at}$"
    return sql


@pytest.mark.parametrize("sql", [_nested(33), _nested(5000), "PREPARE a AS " * 1500, "EXPLAIN ANALYZE " * 1500])
def test_code_in_code_without_end_is_refused(tmp_path: Path, sql: str) -> None:
    began = time.process_time()
    assert [severity for *_, severity in told(tmp_path, "loses-data-in-code", sql)] == ["danger"]
    assert time.process_time() - began < 20


def test_code_in_code_is_read(tmp_path: Path) -> None:
    assert [one.rule for one in found(tmp_path, _nested(32))] == ["deletes-all-rows"]


def test_a_directive_of_plpgsql_hides_nothing(tmp_path: Path) -> None:
    sql = "DO $$\n#variable_conflict use_column\nBEGIN DELETE FROM x; END $$"
    assert told(tmp_path, "deletes-all-rows", sql) == [("1", 3, 7, "danger")]
    assert told(tmp_path, "deletes-all-rows", sql.replace("BEGIN", "DECLARE a int = 1; BEGIN")) == [
        ("1", 3, 26, "danger")
    ]
    assert told(tmp_path, "deletes-all-rows", "DO $$ #variable_conflict error $$") == []


@pytest.mark.parametrize(
    ("sql", "lines"),
    [
        ("DO $$ BEGIN PERFORM util.run('DROP TABLE x'); END $$", [1]),
        ("DO $$ DECLARE n int; BEGIN SELECT util.run(format('DROP TABLE %I', a)) INTO n; END $$", [1]),
        ("DO $$ BEGIN CALL run($q$TRUNCATE x$q$); END $$", [1]),
        ("SELECT \"run\"('DROP TABLE x')", [1]),
        ("CALL run('delete from x')", [1]),
        (
            "CREATE FUNCTION ex(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$;\n"
            "SELECT ex('SELECT 1');\nSELECT ex('DROP TABLE users');",
            [3],
        ),
        ("DO $$ BEGIN PERFORM 1 FROM log WHERE what IN ('DROP TABLE x') AND (note = 'drop table y'); END $$", []),
        ("DO $$ DECLARE q text; BEGIN SELECT format('DROP TABLE %I', a) INTO q; END $$", []),
        ("SELECT 'DROP TABLE x', count(*) FROM t", []),
        ("INSERT INTO log SELECT lower('DROP TABLE x')", []),
        ("SELECT CAST('DROP TABLE x' AS text), count(*) FILTER (WHERE a = 'DROP TABLE y') FROM t", []),
        ("WITH w AS MATERIALIZED (SELECT 'DROP TABLE x') SELECT * FROM w UNION (VALUES ('a'), ('DROP TABLE x'))", []),
        ("EXPLAIN ANALYZE SELECT run('DROP TABLE x')", [1]),
    ],
)
def test_what_a_function_is_handed(tmp_path: Path, sql: str, lines: list[int]) -> None:
    assert [line for _, line, _, _ in told(tmp_path, "loses-data-in-code", sql)] == lines


@pytest.mark.parametrize("sql", ["UPDATE t SET a = 1", "UPDATE ONLY t SET a = (SELECT 1 WHERE true) FROM u"])
def test_update_of_all_rows(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "updates-all-rows", sql) == [("1", 1, 1, "warning")]


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE t ADD FOREIGN KEY (u) REFERENCES u ON DELETE CASCADE ON UPDATE CASCADE; ALTER TABLE t DROP CONSTRAINT k",
        "CREATE TRIGGER x AFTER DELETE OR UPDATE OR TRUNCATE ON t EXECUTE FUNCTION f()",
        "DELETE FROM t WHERE a = 1; WITH d AS (DELETE FROM t WHERE a > 1 RETURNING a) SELECT a FROM d",
        "UPDATE t SET a = 1 WHERE b; INSERT INTO t (a) SELECT 1 FROM u ON CONFLICT DO UPDATE SET a = 1",
        "GRANT DELETE, UPDATE (a), TRUNCATE ON t TO r; SELECT 1 FROM t FOR UPDATE",
        "DO $$ BEGIN ALTER TABLE t DROP CONSTRAINT IF EXISTS k; ALTER TABLE t ALTER a DROP NOT NULL; END $$",
        "DO $$ BEGIN -- DROP TABLE t\n CREATE TYPE e AS ENUM (); EXCEPTION WHEN duplicate_object THEN null; END $$",
        "DO $$ BEGIN DELETE FROM t WHERE a > date_trunc('day', now()); GRANT TRUNCATE ON t TO r; END $$",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DROP TABLE t; TRUNCATE t; END $$",
        "LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE; REFRESH MATERIALIZED VIEW CONCURRENTLY v; ALTER TABLE t SET (fillfactor = 70)",
        "CREATE TABLE IF NOT EXISTS v (n serial); ALTER TABLE t ADD n int, ADD m text",
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1); TRUNCATE t; DELETE FROM t; UPDATE t SET a = 1; LOCK t",
        "CREATE MATERIALIZED VIEW v AS SELECT 1 WITH NO DATA; REFRESH MATERIALIZED VIEW v",
    ],
)  # fmt: skip
def test_no_own_dangers(tmp_path: Path, sql: str) -> None:
    rules = {"updates-all-rows", *(rule for rule, _ in OWN_DANGERS)}
    assert [one for one in found(tmp_path, sql) if one.rule in rules] == []


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE t",
        "DROP TABLE IF EXISTS t, t2",
        "ALTER TABLE ONLY t ALTER a SET NOT NULL",
        "ALTER TABLE t ADD b int NOT NULL, DROP a",
        "ALTER TABLE t RENAME a TO b",
        "ALTER TABLE t RENAME TO b",
        "ALTER TABLE t ALTER a TYPE bigint",
        "TRUNCATE t",
        "DELETE FROM t",
    ],
)
@pytest.mark.parametrize("kind", ["", "TEMP ", "LOCAL TEMPORARY ", "UNLOGGED "])
def test_table_of_the_same_file(tmp_path: Path, kind: str, sql: str) -> None:
    first = f"CREATE {kind}TABLE t (a int);\nCREATE TABLE t2 AS SELECT 1;\n"
    assert [one for one in found(tmp_path, f"{first}{sql};") if one.rule != "unlogged"] == []
    assert any(one.severity == "danger" for one in found(tmp_path, f"{sql};\n{first}"))
    for before in (
        first.replace(" t (", ' "T" ('),
        first.replace(" t (", " s.t ("),
        first.replace(" t (", " IF NOT EXISTS t ("),
        f"{first}SET search_path = s;\n",
        f"{first}DROP TABLE t;\n",
        f"{first}ALTER TABLE t RENAME TO t3;\n",
        f"{first}ALTER TABLE t2 INHERIT t;\n",
        f"{first}ALTER TABLE t ATTACH PARTITION old DEFAULT;\n",
        f"SAVEPOINT a;\n{first}ROLLBACK TO a;\n",
        f"BEGIN;\n{first}COMMIT;\n",
    ):
        assert any(one.severity == "danger" for one in found(tmp_path, f"{before}{sql};")), before


@pytest.mark.parametrize(
    "sql", ["DROP TABLE t", "TRUNCATE t", "DELETE FROM t", "ALTER TABLE t DROP a", "ALTER TABLE t RENAME TO b"]
)
def test_a_temporary_table_is_none_of_the_next_file(tmp_path: Path, sql: str) -> None:
    """The run discards it between two files; then its name is that of the table which it stood before."""
    for made in (
        "CREATE TEMP TABLE t AS SELECT 1 AS a",
        "CREATE LOCAL TEMPORARY TABLE t (a int)",
        "SET search_path = s; CREATE TABLE t (a int)",
        "SELECT set_config('search_path', 's', false); CREATE TABLE t (a int)",
        "DO $$ BEGIN SET search_path = s; END $$; CREATE TABLE t (a int)",
        "SET ROLE r; CREATE TABLE t (a int)",
        "CREATE TABLE pg_temp.t (a int); CREATE TEMP TABLE t (a int)",
    ):
        chain = [MigrationFile("1", f"{made};"), MigrationFile("2", f"{sql};")]
        (one,) = [one for one in lint(chain, ["1", "2"], tmp_path, together=True) if one.migration == "2"]
        assert one.severity == "danger", made
    for made in ("SET lock_timeout = '5s'; CREATE TABLE t (a int)", "DO 'BEGIN END'; CREATE TABLE t (a int)"):
        chain = [MigrationFile("1", f"{made};"), MigrationFile("2", f"{sql};")]
        assert [one.migration for one in lint(chain, ["2", "1"], tmp_path, together=True)] == []


@pytest.mark.parametrize(
    "gone", ["DISCARD TEMP", "DISCARD ALL", "DROP TABLE pg_temp.t", "ALTER INDEX t RENAME TO b", "DROP OWNED BY app"]
)
def test_a_table_of_the_same_file_is_gone(tmp_path: Path, gone: str) -> None:
    assert told(tmp_path, "ban-drop-table", f"CREATE TEMP TABLE t (a int);\n{gone};\n\nDROP TABLE t;")[-1][1] == 4


@pytest.mark.parametrize(
    ("history", "sql"),
    [
        ("CREATE TABLE t (c varchar(10) NOT NULL, PRIMARY KEY (c)); CREATE INDEX i ON t (c);", "c TYPE varchar(20)"),
        ('CREATE TABLE "t" ("c" VARCHAR(10));', 'COLUMN "c" SET DATA TYPE TEXT'),
        ("CREATE TABLE t (); ALTER TABLE t ADD COLUMN c character varying(10);", "c TYPE varchar"),
        ("CREATE TABLE t (c int); ALTER TABLE t ALTER c TYPE varchar(9);", "c TYPE varchar(10)"),
        ("CREATE TABLE t (c text);", "c TYPE varchar"),
        ("CREATE TABLE t (c numeric(10, 2) UNIQUE);", "c TYPE decimal(12,2)"),
        ("CREATE TABLE t (c decimal(10));", "c TYPE numeric(11, 0)"),
        ("CREATE TABLE t (c numeric(10, 2));", "c TYPE numeric"),
    ],
)
def test_wider_varchar(tmp_path: Path, history: str, sql: str) -> None:
    rule, alter = "changing-column-type", f"SELECT 1;\nALTER TABLE t ADD d int, ALTER {sql}"
    assert [one for one in told(tmp_path, rule, history, f"{alter};") if one[0] == "2"] == []
    for end in (" USING c || 'x'", ' COLLATE "C"', "[]"):
        assert told(tmp_path, rule, history, f"{alter}{end};")[-1][0] == "2"
    for more in (
        "ALTER TABLE t ADD CHECK (c > 'a');",
        "CREATE INDEX j ON t (lower(c));",
        "CREATE INDEX j ON t (d) WHERE c > 'a';",
        "ALTER TABLE t RENAME c TO e; ALTER TABLE t RENAME f TO c;",
        "ALTER TABLE t RENAME TO x; ALTER TABLE y RENAME TO t;",
        "ALTER TABLE t DROP c;",
        "DROP TABLE t;",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE t ALTER c TYPE varchar(100)'; END $$;",
        "ALTER TABLE t ALTER c TYPE int USING 1;",
    ):
        assert told(tmp_path, rule, history + more, f"{alter};")[-1][0] == "2", more


@pytest.mark.parametrize(
    "history",
    [
        "CREATE TABLE t (c varchar(30));",
        "CREATE TABLE t (c text);",
        "CREATE TABLE t (c char(10));",
        "CREATE TABLE t (c varchar(10)[]);",
        "CREATE TABLE t (CHECK (c > 'a'), c varchar(10));",
        "CREATE TABLE t (c varchar(10), d text GENERATED ALWAYS AS (c || 'a') STORED);",
        "CREATE TABLE s.t (c varchar(10));",
        "CREATE TABLE IF NOT EXISTS t (c varchar(10));",
        "CREATE TABLE t (c varchar(x));",
        f"CREATE TABLE t (c varchar({'9' * 5000}));",
        "",
    ],
)
def test_varchar_that_is_not_wider(tmp_path: Path, history: str) -> None:
    sql = "ALTER TABLE t ALTER c TYPE varchar(20);"
    assert told(tmp_path, "changing-column-type", f"SELECT 1; {history}", sql) == [("2", 1, 23, "danger")]


T = "CREATE TABLE u (id int PRIMARY KEY);\n"
KEY = "ALTER TABLE t ADD CONSTRAINT t_u_fkey FOREIGN KEY (u) REFERENCES u (id);\n"


@pytest.mark.parametrize(
    "sql",
    [
        T + "CREATE TABLE t (u int REFERENCES u)",
        T
        + "CREATE TABLE IF NOT EXISTS public.t (a int DEFAULT (1 + 2), u int NOT NULL CONSTRAINT x REFERENCES u (id))",
        T + "CREATE UNLOGGED TABLE t (u int, FOREIGN KEY (u) REFERENCES u)",
        T + "CREATE TABLE t (u int);" + KEY,
        T + "CREATE TABLE t (); ALTER TABLE ONLY t ADD u int REFERENCES u, ADD COLUMN IF NOT EXISTS v int;",
        T + "CREATE TABLE t (u int, v int); CREATE INDEX i ON t (v, u);" + KEY,
        T + "CREATE TABLE t (u int); CREATE INDEX i ON t (lower(u), u); CREATE INDEX ON t ((u + 1));" + KEY,
        T + "CREATE TABLE t (u int); CREATE INDEX i ON t USING gin (u); CREATE INDEX j ON t (u) WHERE v > 1;" + KEY,
        T + 'CREATE TABLE t ("U" int); CREATE INDEX i ON t (u); ALTER TABLE t ADD FOREIGN KEY ("U") REFERENCES u;',
        T + "CREATE TABLE t (u int); CREATE INDEX i ON t (v) INCLUDE (u);" + KEY,
        T + "CREATE TABLE t (u int); -- CREATE INDEX i ON t (u);\nSELECT 'CREATE INDEX i ON t (u);';" + KEY,
        T + "CREATE TABLE t (u int); CREATE INDEX i ON other (u);" + KEY,
        T + "CREATE TABLE t (a int, b int, PRIMARY KEY (a), FOREIGN KEY (a, b) REFERENCES v)",
    ],
)
def test_foreign_key_without_index(tmp_path: Path, sql: str) -> None:
    assert [(one[0], one[3]) for one in told(tmp_path, "foreign-key-without-index", sql)] == [("1", "warning")]


@pytest.mark.parametrize(
    "sql",
    [
        T + "CREATE TABLE t (u int PRIMARY KEY REFERENCES u)",
        T + "CREATE TABLE t (u int UNIQUE REFERENCES u (id) ON DELETE CASCADE)",
        T + "CREATE TABLE t (u int, v int, CONSTRAINT p PRIMARY KEY (u, v), FOREIGN KEY (u) REFERENCES u)",
        T + "CREATE TABLE t (u int, v int, UNIQUE NULLS NOT DISTINCT (u, v), FOREIGN KEY (u) REFERENCES u)",
        T + "CREATE TABLE t (u int);" + KEY + "CREATE INDEX ON public.t USING btree (u DESC NULLS LAST, v)",
        T + "CREATE TABLE t (u int);" + KEY + "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON ONLY t (u)",
        T + "CREATE TABLE t (u int);" + KEY + "CREATE INDEX i ON t USING hash (u)",
        T + "CREATE TABLE t (u int);" + KEY + "CREATE INDEX i ON t (u) WHERE u IS NOT NULL",
        T + "CREATE TABLE t (a int, b int, FOREIGN KEY (a, b) REFERENCES v); CREATE INDEX i ON t (b, a, c)",
        T + 'CREATE TABLE "T x" ("a""b" int REFERENCES u); CREATE INDEX i ON "T x" ("a""b")',
        T + "CREATE TABLE t (u int REFERENCES u); DROP TABLE IF EXISTS other, t CASCADE",
        T + "CREATE TABLE t (u int REFERENCES u); ALTER TABLE t DROP CONSTRAINT IF EXISTS t_u_fkey",
        T + "CREATE TABLE t (u int REFERENCES u); ALTER TABLE t DROP COLUMN IF EXISTS u",
        T + "CREATE TABLE t (u int REFERENCES u); ALTER TABLE t RENAME TO s; CREATE INDEX i ON s (u)",
        T + "CREATE TABLE t (u int REFERENCES u); ALTER TABLE t RENAME u TO w; CREATE INDEX i ON t (w)",
        T + "CREATE TABLE t (u int); CREATE INDEX i ON t (u); ALTER TABLE t ADD PRIMARY KEY USING INDEX i;" + KEY,
        "SELECT 'CREATE TABLE t (u int REFERENCES u)', $$CREATE TABLE t (u int REFERENCES u)$$",
        "-- CREATE TABLE t (u int REFERENCES u)\nSELECT 1",
    ],
)
def test_foreign_key_with_index(tmp_path: Path, sql: str) -> None:
    assert told(tmp_path, "foreign-key-without-index", sql) == []


@pytest.mark.parametrize(
    "drop",
    [
        "DROP INDEX i",
        "DROP INDEX CONCURRENTLY IF EXISTS public.i",
        "ALTER INDEX i RENAME TO j; DROP INDEX j",
        "ALTER TABLE t DROP CONSTRAINT p, DROP CONSTRAINT IF EXISTS q; DROP INDEX other, i",
    ],
)
def test_index_of_a_foreign_key_is_taken_away(tmp_path: Path, drop: str) -> None:
    """The fault is where it is dropped, not in the file that made the key and is applied long since."""
    made = T + "CREATE TABLE t (u int);\n" + KEY + "CREATE INDEX i ON t (u);"
    rule = "foreign-key-without-index"
    assert [one[:2] for one in told(tmp_path, rule, made, f"SELECT 1;\n{drop};")] == [("2", 2)]
    assert told(tmp_path, rule, made, f"{drop};\nCREATE INDEX k ON t (u);") == []
    assert told(tmp_path, rule, made, "ALTER INDEX i RENAME TO j; DROP INDEX i;") == []


def test_the_chain_is_context_and_only_what_is_asked_for_is_reported(tmp_path: Path) -> None:
    chain = [T + "CREATE TABLE t (u int);" + KEY, "DROP TABLE old", "CREATE INDEX CONCURRENTLY i ON t (u)"]
    assert found(tmp_path, *chain, names=["3"]) == []
    assert {one.migration for one in found(tmp_path, *chain[:2])} == {"1", "2"}
    assert [one.rule for one in found(tmp_path, *chain[:2], names=["2"])] == ["ban-drop-table"]
    # The index comes with the next file.
    assert told(tmp_path, "foreign-key-without-index", *chain) == []
    assert found(tmp_path, *chain, names=[]) == []


def test_a_long_chain_takes_linear_time() -> None:
    """A thousand tables with a key and an index each; searched one by one they took minutes."""
    chain = [
        f"CREATE TABLE t{number} (u int);\nALTER TABLE t{number} ADD FOREIGN KEY (u) REFERENCES u (id);\n"
        f"CREATE INDEX i{number} ON t{number} (u);"
        for number in range(1000)
    ]
    assert [key.table for key in without_index([*chain, "DROP INDEX i7"])] == ["t7"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("numeric(10, 2)", "numeric(12, 3)"),
        ("numeric(10, 2)", "numeric(9, 2)"),
        ("numeric(10, 2)", "numeric(12)"),
        ("numeric", "numeric(12, 2)"),
        ("numeric(10, 2)[]", "numeric(12, 2)[]"),
        ("numeric(10, 2)", "varchar(12)"),
        ("text", "numeric"),
        ("numeric(10, 2)", "text"),
    ],
)
def test_numeric_that_is_not_wider(tmp_path: Path, old: str, new: str) -> None:
    history, sql = f"CREATE TABLE t (c {old});", f"ALTER TABLE t ALTER c TYPE {new};"
    assert told(tmp_path, "changing-column-type", history, sql) == [("2", 1, 23, "danger")]


# --- squawk


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DROP TABLE t", {"ban-drop-table": "danger"}),
        ("ALTER TABLE t DROP COLUMN c", {"ban-drop-column": "danger"}),
        ("DROP SCHEMA s", {"ban-drop-schema": "danger"}),
        ("DROP DATABASE d", {"ban-drop-database": "danger"}),
        ("TRUNCATE t CASCADE", {"ban-truncate-cascade": "danger"}),
        ("ALTER TABLE t RENAME COLUMN a TO b", {"renaming-column": "danger"}),
        ("ALTER TABLE t RENAME TO b", {"renaming-table": "danger"}),
        ("ALTER TABLE t SET SCHEMA s", {"ban-set-schema": "danger"}),
        ("ALTER TABLE t ALTER c TYPE bigint", {"changing-column-type": "danger"}),
        ("ALTER TABLE t ADD c float DEFAULT random()", {"adding-field-with-default": "danger"}),
        ("ALTER TABLE t ADD PRIMARY KEY (c)", {"adding-serial-primary-key-field": "danger"}),
        ("ALTER TABLE t ADD CONSTRAINT k UNIQUE (c)", {"disallowed-unique-constraint": "danger", "unique-may-fail": "warning"}),
        ("ALTER TABLE t ADD c text NOT NULL", {"adding-required-field": "danger"}),
        ("ALTER TABLE t ALTER c SET NOT NULL", {"adding-not-nullable-field": "danger"}),
        (T + "CREATE INDEX i ON t (u);" + KEY, {
            "adding-foreign-key-constraint": "warning", "require-concurrent-index-creation": "warning",
        }),
        ("ALTER TABLE t ADD CONSTRAINT k CHECK (c > 0)", {"locks-out-reads": "danger"}),
        ("ALTER DOMAIN d ADD CONSTRAINT k CHECK (VALUE > 0)", {"ban-alter-domain-with-add-constraint": "warning"}),
        ("DROP INDEX i", {"require-concurrent-index-deletion": "warning"}),
        ("ALTER TABLE p DETACH PARTITION q", {"hides-rows": "warning", "require-concurrent-partition-detach": "warning"}),
        ("REINDEX TABLE t", {"require-concurrent-reindex": "danger"}),
        ("ALTER TABLE t ALTER c DROP NOT NULL", {"ban-drop-not-null": "warning"}),
        ("CREATE TABLE t (at timestamp(3))", {"prefer-timestamp-tz": "warning"}),
        ("CREATE TABLE t (code char(3))", {"ban-char-field": "warning"}),
        (f"CREATE TABLE {'t' * 64} ()", {"identifier-too-long": "warning"}),
        ("SELEC 1; DROP TABLE t", {"syntax-error": "danger"}),
        # The noise, and what is written as it should be.
        ("CREATE TABLE t (id serial PRIMARY KEY, n int, s varchar(3)); CREATE INDEX i ON t (n);", {}),
        ("ALTER TABLE t ADD c int; ALTER TYPE e ADD VALUE 'x';", {}),
        ("ALTER TABLE t ADD c text NOT NULL DEFAULT ''", {}),
        (INDEX, {}),
        ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.x := 1; DROP TABLE t; RETURN NEW; END $$", {}),
        # Only lint.yml takes a rule off.
        ("-- squawk-ignore ban-drop-table\nDROP TABLE t", {"ban-drop-table": "danger"}),
        ("/* Squawk-ignore */ DROP TABLE t; -- squawk-ignore-file", {"ban-drop-table": "danger"}),
        ("-- squawk-disable-assume-in-transaction\nALTER TABLE t DROP c", {"ban-drop-column": "danger"}),
    ],
)  # fmt: skip
def test_squawk(tmp_path: Path, sql: str, expected: dict[str, str]) -> None:
    assert {one.rule: one.severity for one in found(tmp_path, sql)} == expected


def test_every_rule_of_ours_is_one_of_squawk() -> None:
    program = squawk.find()
    assert program is not None
    names = ",".join(sorted(set(squawk.RULES) - {"syntax-error"}))
    done = subprocess.run([program, "--exclude", names], input="SELECT 1;", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_columns_are_characters(tmp_path: Path) -> None:
    sql = "SELECT 1;\r\nSELECT 'ភាសាខ្មែរ'; ALTER TABLE t DROP COLUMN c;"
    assert told(tmp_path, "ban-drop-column", sql) == [("1", 2, sql.split("\n")[1].index("DROP") + 1, "danger")]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "no/squawk can't be run: No such file or directory. `scripts/setup` installs it."),
        ("echo 'thread panicked' >&2; exit 101", "squawk ended with 101: thread panicked."),
        ("echo '[{}]'", "squawk ended with 0: [{}]."),
        ('echo \'[{"rule_name": "syntax-error", "file": "7.sql"}]\'', "squawk ended with 0"),
        ("exec sleep 5", "squawk gave no answer within 0.2 s."),
    ],
)
def test_squawk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, words: str) -> None:
    """Our own checks are made all the same."""
    monkeypatch.setattr(squawk, "TIMEOUT", 0.2 if script and "sleep" in script else 20)
    program = tmp_path / "no" / "squawk"
    if script is not None:
        program = tmp_path / "squawk"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    both = lint([MigrationFile("1", "COMMIT; DROP TABLE t")], ["1"], tmp_path, program)
    assert [(one.rule, one.severity) for one in both] == [("squawk", "danger"), ("transaction-control", "danger")]
    assert words in str(both[0])


def test_squawk_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squawk, "find", lambda: None)
    (one,) = found(tmp_path, "SELECT 1")
    assert (one.severity, one.mend) == ("danger", "`scripts/setup` installs it.")


def test_a_configuration_of_the_operator_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".squawk.toml").write_text('excluded_rules = ["ban-drop-table"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert told(tmp_path, "ban-drop-table", "DROP TABLE t") == [("1", 1, 1, "danger")]


# --- what is not to be reported


def test_ignored(tmp_path: Path) -> None:
    (tmp_path / "lint.yml").write_text(
        "- {rule: ban-drop-table, migration: '1', why: empty since March}\n- {rule: empty, why: we like them}\n"
    )
    left = found(tmp_path, "DROP TABLE t", "DROP TABLE t", "", "SELECT 1; COMMIT")
    assert [(one.migration, one.rule) for one in left] == [("2", "ban-drop-table"), ("4", "transaction-control")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("rule: empty", "holds a dict. Expected: a list"),
        ("- empty", "entry 1 is 'empty'"),
        ("- {rule: empty}", "Expected: a list of `rule`, `why`"),
        ("- {rule: empty, why: ''}", "each of them a text"),
        ("- {rule: empty, why: x, migration: 1}", "entry 1 is {'rule': 'empty'"),
        ("- {rule: empty, why: x, file: y}", "entry 1 is"),
        (
            "- {rule: empty, why: x}\n- {rule: emty, why: x}",
            "entry 2: there is no rule 'emty'. Expected: one of",
        ),
        ("- {", "can't be read"),
    ],
)
def test_ignore_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "lint.yml").write_text(content)
    with pytest.raises(DasTernError) as refused:
        found(tmp_path, "SELECT 1")
    assert words in refused.value.message
    assert str(tmp_path / "lint.yml") in refused.value.message


def test_empty_ignore_file(tmp_path: Path) -> None:
    (tmp_path / "lint.yml").write_text("---\n# nothing\n")
    assert read_ignores(tmp_path) == []


# --- all of it


CHECK, VALIDATE = (
    'ALTER TABLE "T" ADD CONSTRAINT c CHECK ("x" IS NOT NULL) NOT VALID',
    'ALTER TABLE "T" VALIDATE CONSTRAINT c',
)
SET_NOT_NULL = 'ALTER TABLE "T" ALTER COLUMN x SET NOT NULL'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([CHECK, VALIDATE, SET_NOT_NULL], []),
        (['ALTER TABLE public."T" ADD CONSTRAINT c CHECK ((x IS NOT NULL))', SET_NOT_NULL], []),
        ([CHECK, VALIDATE, f"{SET_NOT_NULL}, ALTER y SET NOT NULL"], [("3", 1, 54, "danger")]),
        ([CHECK, SET_NOT_NULL], [("2", 1, 32, "danger")]),
        ([CHECK, f"{VALIDATE}; {SET_NOT_NULL}"], []),
        ([CHECK, VALIDATE, 'ALTER TABLE "T" RENAME TO u', "ALTER TABLE u ALTER x SET NOT NULL"], []),
        ([CHECK, VALIDATE, f"{SET_NOT_NULL}, DROP CONSTRAINT c"], [("3", 1, 32, "danger")]),
        ([f"{CHECK.replace(' NOT VALID', '')};\n{SET_NOT_NULL}"], [("1", 2, 32, "danger")]),
        ([CHECK, VALIDATE, 'ALTER TABLE "T" DROP COLUMN x, ADD COLUMN x int', SET_NOT_NULL], [("4", 1, 32, "danger")]),
        ([CHECK, VALIDATE, 'ALTER TABLE "T" DROP CONSTRAINT c', SET_NOT_NULL], [("4", 1, 32, "danger")]),
        ([CHECK.replace("IS NOT NULL", "> 0"), VALIDATE, SET_NOT_NULL], [("3", 1, 32, "danger")]),
        ([CHECK, VALIDATE, "ALTER TABLE u ALTER COLUMN x SET NOT NULL"], [("3", 1, 30, "danger")]),
        ([CHECK, VALIDATE, 'DROP TABLE "T"', SET_NOT_NULL], [("4", 1, 32, "danger")]),
    ],
)
def test_a_validated_check_makes_not_null_instant(
    tmp_path: Path, files: list[str], expected: list[tuple[str, int, int, str]]
) -> None:
    """The recipe that lint itself recommends is none of its findings."""
    assert told(tmp_path, "adding-not-nullable-field", *files) == expected


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("-1", 0),
        ("('x')", 0),
        ("(1 + 2)", 0),
        ("'{}'::varchar(9)[]", 0),
        ("1 NOT NULL CHECK (f(c) > 0)", 0),
        ("f(1)", 1),
        ("(2 * f())", 1),
    ],
)
def test_a_default_without_a_call_writes_no_row(tmp_path: Path, default: str, expected: int) -> None:
    assert (
        len(told(tmp_path, "adding-field-with-default", f"ALTER TABLE t ADD COLUMN c int DEFAULT {default}"))
        == expected
    )


@pytest.mark.parametrize(
    ("history", "sql", "expected"),
    [
        ("CREATE TABLE a (b int)", "ALTER INDEX a RENAME TO c", 1),
        ("CREATE VIEW a AS SELECT 1", "ALTER INDEX IF EXISTS public.a RENAME TO c", 1),
        ("CREATE SEQUENCE a", "ALTER INDEX a RENAME TO c", 1),
        ("SELECT 1 AS b INTO a", "ALTER INDEX a RENAME TO c", 1),
        ("CREATE TABLE b (); ALTER TABLE b RENAME TO a", "ALTER INDEX a RENAME TO c", 1),
        ("CREATE INDEX a ON s.t (b); CREATE TABLE a ()", "ALTER INDEX a RENAME TO c", 1),
        ("CREATE TABLE t (); CREATE INDEX a ON t (b)", "ALTER INDEX t RENAME TO c; ALTER INDEX c RENAME TO a", 2),
        (
            "CREATE TABLE a (); CREATE TABLE t (CONSTRAINT a CHECK (true)); ALTER TABLE t RENAME CONSTRAINT a TO c",
            "ALTER INDEX a RENAME TO d",
            1,
        ),
        ("ALTER TABLE t RENAME CONSTRAINT x TO a", "ALTER INDEX a RENAME TO c", 0),
        ("CREATE INDEX a ON t (b); DROP INDEX a", "ALTER INDEX a RENAME TO c", 1),
        ("CREATE TABLE api (); CREATE TABLE api_key ()", "ALTER INDEX api_key RENAME TO c", 1),
        ("SELECT 1", "DO $$ BEGIN ALTER INDEX a RENAME TO c; END $$", 1),
        ("CREATE TABLE t (b int PRIMARY KEY)", "ALTER INDEX t_pkey RENAME TO c", 0),
        ('CREATE TABLE "T" (b int); CREATE INDEX ON "T" (b)', 'ALTER INDEX "T_b_idx" RENAME TO c', 0),
        ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a ON t (b)", "ALTER INDEX a RENAME TO c; ALTER INDEX c RENAME TO d", 0),
        ("CREATE TABLE t (b int CONSTRAINT a PRIMARY KEY)", "ALTER INDEX public.a RENAME TO c", 0),
        ("ALTER TABLE t ADD CONSTRAINT a UNIQUE (b); ALTER TABLE t RENAME CONSTRAINT a TO e", "ALTER INDEX e RENAME TO c", 0),
        ("SELECT 1", "CREATE TABLE t (b int); ALTER INDEX t RENAME TO c", 0),
        ("SELECT 1", "ALTER INDEX a SET (fillfactor = 70)", 0),
    ],
)  # fmt: skip
def test_alter_index_renames_tables_too(tmp_path: Path, history: str, sql: str, expected: int) -> None:
    found_ = told(tmp_path, "renames-what-is-used", history, sql)
    assert [(one[0], one[3]) for one in found_] == [("2", "danger")] * expected


PARTED = 'CREATE TABLE "P" (id int) PARTITION BY RANGE (id)'


def test_an_index_on_a_partitioned_table(tmp_path: Path) -> None:
    """What the server refuses there isn't advised."""
    (one,) = [one for one in found(tmp_path, PARTED, 'CREATE INDEX "on" ON "P" (id)') if one.migration == "2"]
    assert (one.rule, "ATTACH PARTITION" in one.mend) == ("require-concurrent-index-creation", True)
    assert told(tmp_path, "concurrently-partitioned", PARTED, 'CREATE INDEX CONCURRENTLY i ON public."P" (id)') == [
        ("2", 1, 1, "danger")
    ]
    assert [
        one.rule for one in found(tmp_path, PARTED, 'CREATE INDEX i ON ONLY "P" (id)') if one.migration == "2"
    ] == []
    assert told(tmp_path, "concurrently-partitioned", PARTED, "CREATE INDEX CONCURRENTLY i ON p (id)") == []
    moved = ['ALTER TABLE "P" RENAME TO old', 'CREATE TABLE "P" AS SELECT row_number() OVER (PARTITION BY id) FROM old']
    assert told(tmp_path, "concurrently-partitioned", PARTED, *moved, 'CREATE INDEX CONCURRENTLY i ON "P" (id)') == []
    assert (
        len(told(tmp_path, "concurrently-partitioned", PARTED, *moved, "CREATE INDEX CONCURRENTLY i ON old (id)")) == 1
    )


def test_a_plain_reindex_is_a_danger(tmp_path: Path) -> None:
    for sql, expected in (
        ("REINDEX TABLE t", ["danger"]),
        ("REINDEX INDEX i", ["danger"]),
        ("REINDEX TABLE CONCURRENTLY t", []),
    ):
        assert [one.severity for one in found(tmp_path, sql)] == expected


@pytest.mark.parametrize("sql", ["\\set a 1\nSELECT 1", "SELECT 1;\n\\i x.sql"])
def test_commands_of_psql(tmp_path: Path, sql: str) -> None:
    line = sql.split("\\")[0].count("\n") + 1
    assert told(tmp_path, "psql-command", sql) == [("1", line, 1, "danger")]
    assert told(tmp_path, "psql-command", "SELECT E'\\n', '\\', $$\\x$$ -- \\y") == []


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE t ALTER a TYPE text",
        "ALTER TABLE t DROP a",
        "DROP TABLE t",
        "TRUNCATE t",
        "ALTER TABLE t ALTER a SET NOT NULL",
    ],
)
def test_a_table_that_an_earlier_pending_file_makes(tmp_path: Path, sql: str) -> None:
    """It holds nothing where both are applied in one run; in the history of others it may."""
    chain = [MigrationFile("1", "CREATE TABLE t (a int)"), MigrationFile("2", sql)]
    rules = [{one.rule for one in lint(chain, ["1", "2"], tmp_path, together=both)} for both in (False, True)]
    assert (len(rules[0]), rules[1]) == (1, set())
    assert {one.rule for one in lint(chain, ["2"], tmp_path, together=True)} == rules[0]


CONTRACT = {
    "renames-what-is-used": [
        "ALTER TYPE e RENAME VALUE 'a' TO 'b'", "ALTER TYPE e RENAME TO f", "ALTER VIEW v RENAME TO w",
        "ALTER MATERIALIZED VIEW m RENAME TO n", "ALTER FUNCTION f(int) RENAME TO g", "ALTER SEQUENCE s RENAME TO q",
    ],
    "drops-what-is-used": [
        "DROP VIEW v", "DROP MATERIALIZED VIEW IF EXISTS m", "DROP FUNCTION f(int)", "DROP TYPE y", "DROP SEQUENCE q", "DROP TRIGGER x ON t",
        "DROP DOMAIN d",
    ],
    "drops-primary-key": ['ALTER TABLE t DROP CONSTRAINT "t_pkey"', "ALTER TABLE t DROP CONSTRAINT IF EXISTS t_pkey"],
    "drops-default": ["ALTER TABLE t ALTER COLUMN c DROP DEFAULT"],
    "switches-off-checks": [
        "ALTER TABLE t DISABLE ROW LEVEL SECURITY", "ALTER TABLE t NO FORCE ROW LEVEL SECURITY", "ALTER TABLE t DISABLE TRIGGER ALL",
        "SET session_replication_role = replica", "SET LOCAL session_replication_role TO 'replica'", "ALTER TABLE t DISABLE RULE r",
    ],
    "changes-access": [
        "GRANT SELECT ON t TO PUBLIC", "GRANT ALL ON SCHEMA s TO r, PUBLIC WITH GRANT OPTION", "ALTER TABLE t OWNER TO r", "DROP POLICY p ON t",
        "ALTER VIEW v OWNER TO r", "ALTER SCHEMA s OWNER TO r", "REVOKE ALL ON t FROM PUBLIC, dastern_user",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", "REVOKE INSERT ON t FROM dastern_user", "ALTER FUNCTION f() OWNER TO r",
    ],
    "unbounded-wait": ["SET lock_timeout = 0", "SET LOCAL statement_timeout TO '0s'", "set session transaction_timeout=0"],
    "unique-may-fail": ["CREATE UNIQUE INDEX i ON t (a)", "ALTER TABLE t ADD UNIQUE (a)", 'CREATE UNIQUE INDEX CONCURRENTLY "on" ON s.t (a)'],
    "sets-sequence": ["SELECT setval('s', 1)", "SELECT pg_catalog.setval('s', 1, false)"],
    "converts-time": ["ALTER TABLE t ALTER c TYPE timestamptz(3)", "ALTER TABLE t ALTER a TYPE timestamptz, ALTER b TYPE timestamptz USING b AT TIME ZONE 'UTC'", "ALTER TABLE t ALTER c SET DATA TYPE timestamp (3) with time zone USING c"],
}  # fmt: skip


@pytest.mark.parametrize(("rule", "sql"), [(rule, sql) for rule, all_ in CONTRACT.items() for sql in all_])
def test_what_the_application_counts_on(tmp_path: Path, rule: str, sql: str) -> None:
    """In a statement, in a DO block, and in what a DO block executes as one string; not in a comment or a string."""
    ((_, line, column, _),) = told(tmp_path, rule, f"SELECT 1;\n  {sql};")
    assert (line, column >= 3) == (2, True)
    said = sql.replace("SELECT", "PERFORM") if rule == "sets-sequence" else sql
    for block in (f"DO $$ BEGIN\nIF true THEN {said}; END IF; END $$", f"DO $x$ BEGIN\n EXECUTE $y${sql}$y$; END $x$"):
        assert [line for _, line, _, _ in told(tmp_path, rule, block)] == [2]
    assert told(tmp_path, rule, f"-- {sql}\nSELECT $$ {sql} $$; DO $x$ BEGIN RAISE NOTICE $y${sql}$y$; END $x$") == []


@pytest.mark.parametrize(
    "sql",
    [
        # As Prisma removes a value of an enum.
        'BEGIN; CREATE TYPE "R_new" AS ENUM (); ALTER TABLE "U" ALTER COLUMN "r" DROP DEFAULT; ALTER TABLE "U" ALTER COLUMN "r" TYPE "R_new" '
        'USING ("r"::text::"R_new"); ALTER TYPE "R" RENAME TO "R_old"; ALTER TYPE "R_new" RENAME TO "R"; DROP TYPE "R_old"; '
        "ALTER TABLE \"U\" ALTER COLUMN \"r\" SET DEFAULT 'A'; COMMIT;",
        "CREATE TABLE vault (a int); REVOKE ALL ON vault FROM dastern_readonly; GRANT SELECT ON TABLE vault TO PUBLIC",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO r; CREATE POLICY p ON t; DROP POLICY p ON t",
        "SELECT setval('s', (SELECT coalesce(max(id), 0) + 1 FROM t), false)", "GRANT SELECT ON public.t;",
        'ALTER TABLE t ADD COLUMN "a" INTEGER, ALTER c TYPE timestamptz USING c AT TIME ZONE \'UTC\'',
        "CREATE TABLE t (a int); CREATE UNIQUE INDEX i ON t (a); ALTER TABLE t OWNER TO r, ALTER a DROP DEFAULT",
        "REVOKE ALL ON t FROM PUBLIC; GRANT SELECT ON t TO r", "SET lock_timeout = '5s'; SET LOCAL statement_timeout = 1000",
        "ALTER TABLE t ALTER c TYPE timestamptz USING c AT TIME ZONE 'UTC'", "ALTER TABLE t DROP CONSTRAINT t_fkey",
        "CREATE VIEW v AS SELECT 1; DROP VIEW v", "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    ],
)  # fmt: skip
def test_what_the_application_does_not_notice(tmp_path: Path, sql: str) -> None:
    assert [one for one in found(tmp_path, sql) if one.rule in CONTRACT] == []


@pytest.mark.parametrize(
    ("rule", "sql", "column"),
    [
        ("changes-access", "CREATE POLICY p ON u USING (true); DROP POLICY p ON t", 36),
        ("changes-access", "DROP POLICY p ON t; CREATE POLICY p ON t USING (true)", 1),
        ("changes-access", "CREATE TABLE IF NOT EXISTS t (a int); GRANT ALL ON t TO PUBLIC", 39),
        ("changes-access", "CREATE LOCAL TEMPORARY TABLE t (a int); DROP TABLE t; GRANT ALL ON t TO PUBLIC", 55),
        ("changes-access", "CREATE OR REPLACE VIEW v AS SELECT 1; GRANT SELECT ON v TO PUBLIC", 39),
        ("changes-access", "CREATE OR REPLACE FUNCTION f() RETURNS int RETURN 1; ALTER FUNCTION f() OWNER TO r", 54),
        ("changes-access", "CREATE INDEX t ON u (a); REVOKE ALL ON t FROM r", 26),
        ("changes-access", "CREATE TABLE s.t (a int); REVOKE ALL ON t FROM r", 27),
        ("changes-access", "CREATE TABLE n (a int); GRANT ALL ON n, t TO PUBLIC", 25),
        ("changes-access", "CREATE TABLE n (a int); SET search_path = s; GRANT ALL ON n TO PUBLIC", 46),
        ("changes-access", "ALTER TABLE u RENAME TO t; GRANT ALL ON t TO PUBLIC", 28),
        ("changes-access", "DO $$ BEGIN CREATE VIEW v AS SELECT 1; END $$; GRANT SELECT ON v TO PUBLIC", 48),
        ("changes-access", "CREATE SCHEMA s GRANT ALL ON public.t TO PUBLIC", 17),
        ("changes-access", "CREATE SCHEMA s CREATE TABLE n (a int)\nGRANT ALL ON t TO r GRANT ALL ON t TO PUBLIC", 21),
        ("drops-what-is-used", "CREATE TRIGGER x BEFORE UPDATE ON u EXECUTE FUNCTION f(); DROP TRIGGER x ON t", 59),
        ("drops-what-is-used", "CREATE OR REPLACE VIEW v AS SELECT 1; DROP VIEW v", 39),
        ("drops-what-is-used", "CREATE VIEW v AS SELECT 1; DROP VIEW v, w", 28),
        ("drops-what-is-used", "CREATE VIEW s.v AS SELECT 1; DROP VIEW v", 30),
        ("drops-default", "ALTER TABLE t ALTER c DROP DEFAULT; ALTER TABLE u ALTER c SET DEFAULT 1", 15),
        ("drops-default", "ALTER TABLE t ALTER c SET DEFAULT 1; ALTER TABLE t ALTER c DROP DEFAULT", 52),
        ("sets-sequence", "CREATE SEQUENCE IF NOT EXISTS q; ALTER SEQUENCE q RESTART WITH 1", 34),
        ("rewrites-statements", "CREATE OR REPLACE VIEW v AS SELECT 1; CREATE RULE r AS ON INSERT TO v DO INSTEAD NOTHING", 39),
        ("renames-what-is-used", "CREATE VIEW v AS SELECT 1; ALTER TYPE v RENAME TO w", 28),
    ],
)  # fmt: skip
def test_what_only_has_the_name_of_something_new(tmp_path: Path, rule: str, sql: str, column: int) -> None:
    assert [at for _, _, at, _ in told(tmp_path, rule, sql)] == [column]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE POLICY p ON u USING (true); DROP POLICY p ON u",
        "CREATE TABLE server (a int); GRANT ALL ON server TO PUBLIC; GRANT ALL ON TABLE server TO PUBLIC",
        "CREATE TABLE n (a int); ALTER TABLE n RENAME TO m; GRANT ALL ON m TO PUBLIC",
        "CREATE SCHEMA s; GRANT ALL ON SCHEMA s TO PUBLIC",
        "CREATE VIEW v AS SELECT 1; CREATE RULE r AS ON INSERT TO v DO INSTEAD NOTHING; DROP RULE r ON v",
        "DROP VIEW v, w; CREATE OR REPLACE VIEW w AS SELECT 1; CREATE VIEW v AS SELECT 1",
        "DROP TRIGGER IF EXISTS x ON t; CREATE CONSTRAINT TRIGGER x AFTER UPDATE ON t EXECUTE FUNCTION f()",
        "CREATE SEQUENCE q; ALTER SEQUENCE q RESTART WITH 1",
        'ALTER TABLE t ALTER COLUMN c DROP DEFAULT; ALTER TABLE t ADD d int, ALTER "c" SET DEFAULT 1',
        "CREATE TYPE \"R_new\" AS ENUM ('A'); ALTER TYPE \"R\" RENAME TO \"R_old\"; "
        'ALTER TYPE "R_new" RENAME TO "R"; DROP TYPE "public"."R_old"',
        "CREATE FUNCTION f() RETURNS int RETURN 1; ALTER FUNCTION f() SET search_path = ''; ALTER FUNCTION f() OWNER TO r",
    ],
)  # fmt: skip
def test_what_is_new(tmp_path: Path, sql: str) -> None:
    assert [one for one in found(tmp_path, sql) if one.rule in (*CONTRACT, "rewrites-statements")] == []


def test_true_is_no_condition(tmp_path: Path) -> None:
    assert told(tmp_path, "deletes-all-rows", "DELETE FROM t WHERE true") == [("1", 1, 1, "danger")]
    assert told(tmp_path, "updates-all-rows", "UPDATE t SET a = 1 WHERE 1 = 1") == [("1", 1, 1, "warning")]
    merge = "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN"
    assert told(tmp_path, "deletes-all-rows", f"{merge} DELETE") == [("1", 1, 1, "warning")]
    assert told(tmp_path, "deletes-all-rows", f"{merge} UPDATE SET a = 1", "DELETE FROM t WHERE true AND a") == []


@pytest.mark.parametrize(
    "condition",
    [
        "(true)", "((1=1))", "'t'", "'yes'::bool", "1=1 AND true", "a > 1 OR true", "(a > 1 OR (true)) AND 2 = 2", "a = a", "NOT false",
        "EXISTS (SELECT 1)", "true = true",
    ],
)  # fmt: skip
def test_a_condition_that_is_always_true(tmp_path: Path, condition: str) -> None:
    for end in ("", " RETURNING a", ' RETURNING a AS "b", (b)'):
        assert told(tmp_path, "deletes-all-rows", f"DELETE FROM t WHERE {condition}{end}") == [("1", 1, 1, "danger")]
    assert len(told(tmp_path, "updates-all-rows", f"UPDATE t SET b = 1 WHERE {condition}")) == 1


@pytest.mark.parametrize(
    "condition",
    ["a", "t.a = 1", "false", "(1 = 0)", "true AND a > 1", "a BETWEEN 1 AND 2", '"true"', "(a = 1) OR (b = 2)", "NULL"],
)
def test_a_condition_that_chooses(tmp_path: Path, condition: str) -> None:
    assert told(tmp_path, "deletes-all-rows", f"DELETE FROM t WHERE {condition} RETURNING a") == []
    assert told(tmp_path, "updates-all-rows", f"UPDATE t SET b = t.returning WHERE {condition}") == []


@pytest.mark.parametrize(
    "sql", ["DELETE FROM t RETURNING a AS where", "DELETE FROM t \u00a0WHERE", "DELETE FROM t\u00a0WHERE"]
)
def test_a_word_that_is_no_condition(tmp_path: Path, sql: str) -> None:
    """A no-break space is a letter to the server: with it begins an alias."""
    assert told(tmp_path, "deletes-all-rows", sql) == [("1", 1, 1, "danger")]


MERGE = "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE"
TREE = "WITH RECURSIVE w AS (SELECT 1 AS a UNION ALL SELECT a FROM w)"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("CREATE TABLE n AS WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", [30]),
        ("CREATE TEMP TABLE n (a) AS (WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d)", [40]),
        ("EXPLAIN (ANALYZE) CREATE TABLE n AS WITH d AS (DELETE FROM t RETURNING *) SELECT 1", [48]),
        (f"WITH u AS (SELECT 1) {MERGE}", [22]),
        (f"WITH d AS ({MERGE} RETURNING t.a) SELECT count(*) FROM d", [12]),
        (f"{TREE} SEARCH DEPTH FIRST BY a SET o DELETE FROM t", [93]),
        (f"{TREE} CYCLE a SET c USING p DELETE FROM t", [85]),
        ("CREATE TABLE n AS WITH d AS (DELETE FROM t RETURNING *) SELECT 1 FROM d WITH NO DATA", []),
        ('CREATE TABLE n (delete int, "from" int, update int, set int)', []),
        (f"EXPLAIN WITH u AS (SELECT 1) {MERGE}", []),
    ],
)
def test_rows_are_lost_on_the_way(tmp_path: Path, sql: str, expected: list[int]) -> None:
    assert [column for _, _, column, _ in told(tmp_path, "deletes-all-rows", sql)] == expected


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT load('{'one drop before the next drop, ' * 20_000}')",
        f"SELECT load('{'alter table a, ' * 40_000}')",
        f"SELECT load('{'delete from a ' * 40_000} where')",
        f"WITH {', '.join(f'd{at} AS (DELETE FROM t WHERE id = {at})' for at in range(5_000))} SELECT 1",
        f"WITH d AS (DELETE FROM {'(DELETE FROM ' * 10_000}",
        f"DELETE FROM t WHERE {'(' * 20_000}true{')' * 20_000}",
        f"DELETE FROM t WHERE {'true AND ' * 20_000}true",
        f"ALTER INDEX {'a_' * 200_000}idx RENAME TO b",
    ],
)  # fmt: skip
def test_a_long_statement_takes_linear_time(tmp_path: Path, sql: str) -> None:
    """The slowest of them took a minute and a half."""
    begun = time.process_time()
    found(tmp_path, sql)
    assert time.process_time() - begun < 10


def test_foreign_keys_in_blocks(tmp_path: Path) -> None:
    key = "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (u) REFERENCES u (id);"
    block = f"CREATE TABLE t (u int);\nDO $$ BEGIN\n {key} EXCEPTION WHEN duplicate_object THEN null; END $$;"
    assert [line for _, line, _, _ in told(tmp_path, "foreign-key-without-index", block)] == [3]
    assert told(tmp_path, "foreign-key-without-index", f"{block} CREATE INDEX i ON t (u);") == []


def test_what_was_made_may_become_something_else(tmp_path: Path) -> None:
    chain = ["CREATE TABLE p (a int) PARTITION BY LIST (a)", "ALTER TABLE p ATTACH PARTITION old DEFAULT", "TRUNCATE p"]
    files = [MigrationFile(str(number), sql) for number, sql in enumerate(chain)]
    assert [one.rule for one in lint(files, ["0", "1", "2"], tmp_path, together=True)] == ["deletes-all-rows"]


def test_order_and_words(tmp_path: Path) -> None:
    both = found(tmp_path, "SELECT 1;\nDROP TABLE t;\nCOMMIT;", "DROP INDEX i")
    assert [(one.migration, one.line, one.rule) for one in both] == [
        ("1", 2, "ban-drop-table"),
        ("1", 3, "transaction-control"),
        ("2", 1, "require-concurrent-index-deletion"),
    ]
    assert str(both[0]).startswith(
        f"{tmp_path}/1/migration.sql:2:1: danger: ban-drop-table: Dropping a table may break"
    )
    words = refusal(both)
    assert words.startswith("Lint reports 2 dangers")
    assert str(both[1]) in words
    assert str(both[2]) not in words
    assert refusal(both[2:]) == ""
    assert all(one.message and one.mend for one in both)
    assert not set(OWN_RULES) & set(squawk.RULES)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfSELECT 1", b"SELECT '\xe9'", b"SELECT '\0'"])
def test_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1_a").mkdir()
    (tmp_path / "1_a" / "migration.sql").write_bytes(content)
    (one,) = lint_folder(tmp_path)
    assert (one.rule, one.severity) == ("unreadable", "danger")
    assert str(tmp_path / "1_a" / "migration.sql") in one.message


def test_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "scripts" / "lint_migrations.py", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    (tmp_path / "m" / "1_a").mkdir(parents=True)
    script = tmp_path / "m" / "1_a" / "migration.sql"
    script.write_text("DROP INDEX i;")
    warned = run("m")
    assert warned.returncode == 0
    assert "m/1_a/migration.sql:1:1: warning: require-concurrent-index-deletion:" in warned.stdout
    script.write_text("DROP TABLE t;")
    refused = run("m")
    assert refused.returncode == 1
    assert "m/1_a/migration.sql:1:1: danger: ban-drop-table:" in refused.stdout
    (tmp_path / "m" / "lint.yml").write_text("- 1")
    assert (run("m").returncode, "Traceback" in run("m").stderr) == (1, False)
    assert run("a", "b").returncode == 2


def test_our_own_migrations_are_without_findings() -> None:
    assert lint_folder(ROOT / "files" / "sql" / "migrations") == []
