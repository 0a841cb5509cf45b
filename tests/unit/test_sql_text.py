import pytest
from ansible.module_utils.dastern.sql_text import line_and_column, statements, tokens


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
