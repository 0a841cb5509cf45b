import time

import pytest
from ansible.module_utils.dastern.common.sql_text import (
    Places,
    line_and_column,
    literal_value,
    outline,
    statements,
    tokens,
)


def texts(sql: str) -> list[str]:
    return [statement.text for statement in statements(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        ("-- nothing\n/* at /* all */ */ ;;", []),
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';'; SELECT 2", ["SELECT ';'", "SELECT 2"]),
        ("SELECT 'it''s;'; SELECT 2", ["SELECT 'it''s;'", "SELECT 2"]),
        (r"SELECT E'\';'; SELECT 2", [r"SELECT E'\';'", "SELECT 2"]),
        ('SELECT ";""" ; SELECT 2', ['SELECT ";"""', "SELECT 2"]),
        ("DO $$ BEGIN; END $$; SELECT 2", ["DO $$ BEGIN; END $$", "SELECT 2"]),
        ("DO $a$ $b$;$b$ $a$; SELECT 2", ["DO $a$ $b$;$b$ $a$", "SELECT 2"]),
        ("SELECT $1; SELECT 2", ["SELECT $1", "SELECT 2"]),
        ("SELECT a$b$; SELECT c$b$", ["SELECT a$b$", "SELECT c$b$"]),
        (
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
            ["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"],
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
            [
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
                "SELECT 3",
            ],
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN/**/ATOMIC SELECT t.begin, t.case FROM t; SELECT 1 AS case; SELECT 2 AS end; "
            "SELECT atomic end; SELECT 4 case; END; SELECT 5",
            [
                "CREATE FUNCTION f() RETURNS int BEGIN/**/ATOMIC SELECT t.begin, t.case FROM t; SELECT 1 AS case; "
                "SELECT 2 AS end; SELECT atomic end; SELECT 4 case; END",
                "SELECT 5",
            ],
        ),
        (
            "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END; SELECT 2; END",
            ["CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END", "SELECT 2", "END"],
        ),
        (
            "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT 2",
            ["CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1'", "SELECT 2"],
        ),
        (
            "CREATE FUNCTION s.begin(begin atomic) RETURNS s.begin LANGUAGE sql AS ''; SELECT 2",
            ["CREATE FUNCTION s.begin(begin atomic) RETURNS s.begin LANGUAGE sql AS ''", "SELECT 2"],
        ),
        ("SELECT 1 -- the end;", ["SELECT 1"]),
        ("SELECT 1; -- a carriage return ends it\rSELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT E'a'\n'\\'' ; SELECT 2", ["SELECT E'a'\n'\\''", "SELECT 2"]),
        (
            "CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql AS $$SELECT 1$$; SELECT 2",
            ["CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql AS $$SELECT 1$$", "SELECT 2"],
        ),
        ("DO $🙂$ ; $🙂$; SELECT 2", ["DO $🙂$ ; $🙂$", "SELECT 2"]),
        ("SELECT 'ភាសាខ្មែរ;'; SELECT 2", ["SELECT 'ភាសាខ្មែរ;'", "SELECT 2"]),
        ("SELECT 'open; SELECT 2", ["SELECT 'open; SELECT 2"]),
    ],
)
def test_split(sql: str, expected: list[str]) -> None:
    assert texts(sql) == expected


def test_many_statements_take_linear_time() -> None:
    """Two hundred thousand are done at once; counting lines from the start each time took minutes."""
    assert statements("INSERT INTO t VALUES (1);\n" * 200_000)[-1].line == 200_000


def test_lines_and_offsets() -> None:
    sql = "-- one\n\nSELECT 1;\n/* two\n */ SELECT 2;"
    first, second = statements(sql)
    assert (first.line, second.line) == (3, 5)
    assert sql[second.start : second.end] == "SELECT 2"
    assert line_and_column(sql, second.start) == (5, 5)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("BEGIN", True),
        ("begin work", True),
        ("START TRANSACTION", True),
        ("COMMIT AND CHAIN", True),
        ("END", True),
        ("ABORT", True),
        ("ROLLBACK", True),
        ("ROLLBACK PREPARED 'x'", True),
        ("PREPARE TRANSACTION 'x'", True),
        ("ROLLBACK TO SAVEPOINT a", False),
        ("ROLLBACK WORK TO a", False),
        ("SAVEPOINT a", False),
        ("PREPARE x AS SELECT 1", False),
        ("DO $$ BEGIN COMMIT; END $$", False),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", False),
        ('SELECT 1 AS "COMMIT"', False),
    ],
)
def test_transaction_control(sql: str, expected: bool) -> None:
    assert [one.transaction_control for one in statements(sql)] == [expected]


def test_tokens() -> None:
    sql = "-- a\nSELECT \"a\"\"b\", E'\\'' /* c /* d */ */ || 'it''s' || $x$ -- $$ $x$ ;"
    assert [(kind, text) for kind, text, _ in tokens(sql)] == [
        ("word", "SELECT"),
        ("ident", '"a""b"'),
        ("other", ","),
        ("escape", "E'\\''"),
        ("other", "|"),
        ("other", "|"),
        ("string", "'it''s'"),
        ("other", "|"),
        ("other", "|"),
        ("dollar", "$x$ -- $$ $x$"),
        ("other", ";"),
    ]
    assert all(sql[start : start + len(text)] == text for _, text, start in tokens(sql))


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("'it''s \\n'", "it's \\n"),
        ("'DROP '\n'TABLE'", "DROP TABLE"),
        ("'DR' -- one '\n  -- two\r\n'OP'", "DROP"),
        (r"E'D\122\x4FP\u0020\U00000074\n\q\'\\'", "DROP t\nq'\\"),
        (r"e'\xff\0\ud83d'", "\xff\ufffd\ufffd"),
        ("E'DR'\n'O\\120'", "DROP"),
        (r"U&'\0044R\+00004FP\\'", "DROP\\"),
        ("u&'!0044ROP!!\\' /* a */ UESCAPE -- c\n '!'", "DROP!\\"),
        ("U&'a'' uescape ''!'", "a' uescape '!"),
        ('U&"\\0075sers"', "users"),
        ('"a\'\'b""c"', "a''b\"c"),
        ("$a$it''s$a$", "it''s"),
    ],
)
def test_values(token: str, value: str) -> None:
    assert [text for _, text, _ in tokens(f"{token};")] == [token, ";"]
    assert literal_value(token) == value


@pytest.mark.parametrize("sql", ["'a' 'b'", "'a' /* c */\n'b'", "'a'\nE'b'", "'a' -- c"])
def test_strings_that_are_no_continued_one(sql: str) -> None:
    assert next(tokens(sql))[1] == "'a'"


@pytest.mark.parametrize(
    "sql", ["'a' " + "-- " * 100_000, "U&'a' /*" + "*" * 100_000, "E'" + "\\" * 100_001, "'a'\n" * 100_000]
)
def test_constants_take_linear_time(sql: str) -> None:
    began = time.process_time()
    list(tokens(sql))
    assert time.process_time() - began < 3


TABLE = "CREATE TABLE t (a int);\n"
ROW = "INSERT INTO t (a, b) VALUES (1, 'begin; the end');\n"


def test_an_outline_keeps_what_is_no_row_in_its_line_and_column() -> None:
    sql = TABLE + ROW * 50 + "  " + ROW.rstrip() + " DROP TABLE t;\n-- ក\n" + ROW * 3 + "UPDATE t SET a = 2;"
    short = outline(sql, 0)

    assert len(short.text) < len(sql) / 2
    drop, before = sql.index("DROP"), short.text.index("DROP")
    assert line_and_column(short.text, before) == line_and_column(sql, drop) == Places(sql).line_and_column(drop)
    assert texts(short.text) == [
        TABLE[:-2], *[ROW[:-2]] * 2, "DROP TABLE t", *[ROW[:-2]] * 2, "UPDATE t SET a = 2",
    ]  # fmt: skip
    assert short.left_out == len(texts(sql)) - len(texts(short.text)) == 50


@pytest.mark.parametrize(
    "row",
    [
        """INSERT INTO "s"."t" ("a") VALUES (-1.5e3, NULL, 'it''s', E'\\\\d\\';', true, '{}'::jsonb, now());""",
        "insert into t values ('a\\') on conflict (a, b) do nothing;",
        "INSERT INTO t VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = EXCLUDED.b, c = 'x';",
        "UPDATE t SET a = 1, b = 'x' WHERE c = 2 AND d = 'y';",
        "DELETE FROM t WHERE a = '5';",
    ],
)
def test_rows_are_told_from_statements(row: str) -> None:
    assert outline(row * 3, 0).text.rstrip() == row * 2


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t SELECT 1;",
        "INSERT INTO t VALUES (wipe());",
        "INSERT INTO t VALUES (1 2);",
        "INSERT INTO t VALUES ('a' 'b');",
        "INSERT INTO t VALUES (1,);",
        "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = wipe();",
        "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1 WHERE true;",
        "INSERT INTO t VALUES (1) RETURNING a;",
        f"INSERT INTO {'t' * 64} VALUES (1);",
        f"INSERT INTO {'t' * 63}VALUES (1);",
        "INSERT INTO t VALUES (NULL/**/);",
        "UPDATE t SET a = 1;",
        "UPDATE t SET a = 1 WHERE a > 2;",
        "UPDATE t SET a = 1 WHERE true;",
        "DELETE FROM t;",
        "DELETE FROM t WHERE 1=1;",
        "DELETE FROM t WHERE a = 1 OR true;",
    ],
)
def test_what_isnt_a_row_stays(statement: str) -> None:
    assert outline(statement * 3, 0).text == statement * 3


def test_further_rows_of_one_insert_are_left_out() -> None:
    sql = "INSERT INTO t VALUES (1, 'a'),\n  (2, 'b'),\n  (3, 'c') ON CONFLICT DO NOTHING; DROP TABLE t;"
    short = outline(sql, 0)
    assert " ".join(texts(short.text)[0].split()) == "INSERT INTO t VALUES (1, 'a') ON CONFLICT DO NOTHING"
    assert line_and_column(short.text, short.text.index("DROP")) == line_and_column(sql, sql.index("DROP"))
    assert short.left_out == 0


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("ALTER TYPE mood ADD VALUE 'the End';", "'the End'"),
        ("DO $$ BEGIN ALTER TYPE mood ADD VALUE 'it''s'; END $$;", "'it''s'"),
        ("DO $$ BEGIN EXECUTE 'ALTER TYPE mood ADD VALUE ''the End'''; END $$;", "'the End'"),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'ALTER TYPE mood ADD VALUE ''x'''; SELECT f();", "'x'"),
        ('CREATE FUNCTION s."now"() RETURNS int LANGUAGE sql AS $$ LOCK TABLE t $$;', "NOW()"),
        ("CREATE OR REPLACE FUNCTION gen_random_uuid() RETURNS int LANGUAGE sql AS 'SELECT 1';", "gen_random_uuid()"),
    ],
)
def test_rows_that_hold_what_the_file_makes_stay(head: str, row: str) -> None:
    rows = f"INSERT INTO t (a, b) VALUES (1, {row});\n" * 4
    assert outline(f"{head}\n{rows}", 0).text == f"{head}\n{rows}"
    assert outline(f"{head}\n{ROW * 4}", 0).left_out == 2


def test_a_statement_that_is_cut_short_in_quotes_is_read_to_its_end() -> None:
    sql = "INSERT INTO t VALUES ('open; DROP TABLE t;\n" + ROW
    assert texts(outline(sql, 0).text) == texts(sql)
