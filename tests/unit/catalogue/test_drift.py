"""Comparing catalogues, the migration made from a difference, the fingerprint, and the files: by hand-made objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.catalogue.drift import against_defaults, compare, ordered, scaffold, table
from ansible.module_utils.dastern.catalogue.objects import Item, fingerprint
from ansible.module_utils.dastern.catalogue.schema_dump import _with_privileges, load, normalised
from ansible.module_utils.dastern.catalogue.schema_text import schema_docs
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.sql_text import statements
from ansible.module_utils.dastern.common.sql_values import identifier, name_pattern, scratch_stem
from ansible.module_utils.dastern.common.text_files import replace
from ansible.module_utils.dastern.server import connection
from ansible.module_utils.dastern.server.psql import Psql


def a_table(name: str, *columns: str) -> list[Item]:
    made = [
        Item(
            "table",
            name,
            f"CREATE TABLE {name} (...)",
            create=f"CREATE TABLE {name} (...)",
            target=f"TABLE {name}",
            facts={"head": f"CREATE TABLE {name}", "tail": ""},
        )
    ]
    for number, column in enumerate(columns, 1):
        made.append(a_column(name, column, number))
    made.append(Item("column order", name, ", ".join(columns), parent=f"table {name}"))
    return made


def a_column(of: str, name: str, number: int = 9, kind: str = "integer", **more: Any) -> Item:
    return Item(
        "column", f"{of}.{name}", kind, create=f"ALTER TABLE {of} ADD COLUMN {name} {kind}", target=f"COLUMN {of}.{name}",
        parent=f"table {of}", needs=frozenset({f"table {of}"}),
        facts={"table": of, "column": name, "quoted": name, "type": kind, "number": number}, **more,
    )  # fmt: skip


def of_column(kind: str, name: str, definition: str, create: str = "", undo: str = "") -> Item:
    return Item(
        kind, name, definition, create=create, undo=undo, parent=f"column {name}", needs=frozenset({f"column {name}"})
    )


def an_index(name: str, of: str, where: str = "") -> Item:
    text = f"CREATE INDEX {name} ON {of} (a){where}"
    return Item("index", name, text, create=text, undo=f"DROP INDEX {name}", target=f"INDEX {name}", parent=f"table {of}",
                needs=frozenset({f"table {of}"}), facts={"table": of, "columns": []})  # fmt: skip


def a_comment(on: Item, text: str) -> Item:
    return Item("comment", on.key, f"COMMENT ON {on.target} IS '{text}'", create=f"COMMENT ON {on.target} IS '{text}'",
                undo=f"COMMENT ON {on.target} IS NULL", parent=on.key, needs=frozenset({on.key}))  # fmt: skip


def a_view(name: str, query: str, *needs: str) -> Item:
    text = f"CREATE VIEW {name} AS\n{query}"
    return Item(
        "view", name, text, create=text, undo=f"DROP VIEW {name}", target=f"VIEW {name}", needs=frozenset(needs)
    )


def an_enum(*labels: str) -> Item:
    text = f"CREATE TYPE mood AS ENUM ({', '.join(labels)})"
    return Item(
        "enum", "mood", text, create=text, target="TYPE mood", undo="DROP TYPE mood", facts={"labels": list(labels)}
    )


def words(before: list[Item], after: list[Item]) -> list[str]:
    return [f"{row.what} {row.item.key}" for row in compare(before, after)]


def made(before: list[Item], after: list[Item]) -> tuple[list[str], list[str]]:
    result = scaffold(compare(before, after), before, after)
    return list(result.statements), list(result.by_hand)


USERS = a_table("users", "a", "b")


# --- compare


def test_equal_catalogues_have_no_difference() -> None:
    assert compare(USERS, list(reversed(USERS))) == []


def test_what_goes_with_an_object_is_part_of_its_difference() -> None:
    index = an_index("i", "extra")
    more = [*a_table("extra", "a"), index, a_comment(index, "why")]
    [row] = compare(USERS, [*USERS, *more])
    assert (row.what, row.item.key) == ("unexpected", "table extra")
    assert [part.key for part in row.parts] == ["column extra.a", "index i", "comment index i", "column order extra"]
    [row] = compare([*USERS, *more], USERS)
    assert (row.what, len(row.parts)) == ("missing", 4)


def test_an_attribute_of_something_that_is_there_is_a_difference_of_its_own() -> None:
    assert words(USERS, [*USERS, of_column("not null", "users.a", "NOT NULL")]) == ["unexpected not null users.a"]


def test_another_order_of_columns_is_told_and_is_no_drift() -> None:
    [row] = compare(
        a_table("t", "a", "b"), [*a_table("t", "a", "b")[:3], Item("column order", "t", "b, a", parent="table t")]
    )
    assert (row.what, row.weak) == ("differs", True)
    assert made(a_table("t", "a", "b"), a_table("t", "a", "b")) == ([], [])
    assert "a note, not drift" in "\n".join(table([row]))
    # Columns that came or went change the order, too, and are told as such alone.
    assert words(a_table("t", "a"), a_table("t", "b", "a")) == ["unexpected column t.b"]


def test_the_table_shows_both_where_they_part() -> None:
    long = "CREATE VIEW v AS SELECT " + "x, " * 40
    lines = table(compare([a_view("v", long + "1")], [a_view("v", long + "2")]))
    assert [line.split()[0] for line in lines] == ["differs", "live"]
    assert [line[-2:] for line in lines] == [" 1", " 2"]
    assert all(len(line) <= 150 for line in lines)


# --- scaffold


def test_statements_stand_in_the_order_of_their_dependencies() -> None:
    view = a_view("v", "SELECT a FROM w", "view w")
    other = a_view("w", "SELECT a FROM extra", "table extra")
    done, hand = made(USERS, [*USERS, view, other, *a_table("extra", "a"), an_index("i", "extra")])
    assert (done, hand) == (
        ["CREATE TABLE extra (\n    a integer\n)", "CREATE INDEX i ON extra (a)", other.create, view.create], [],
    )  # fmt: skip


def test_a_column_is_added_with_default_and_not_null_in_one_statement() -> None:
    column = a_column("users", "c")
    required = of_column("not null", "users.c", "NOT NULL", "ALTER TABLE users ALTER COLUMN c SET NOT NULL")
    default = of_column("default", "users.c", "0", "ALTER TABLE users ALTER COLUMN c SET DEFAULT 0")
    assert made(USERS, [*USERS, column, required, default]) == (
        ["ALTER TABLE users ADD COLUMN c integer DEFAULT 0 NOT NULL"], [],
    )  # fmt: skip
    done, hand = made(USERS, [*USERS, column, required])
    assert done == []
    assert "which value do existing rows get?" in hand[0]


def test_what_loses_rows_is_left_to_a_person() -> None:
    done, hand = made([*USERS, *a_table("gone", "a")], USERS)
    assert (done, len(hand)) == ([], 1)
    assert "table gone (missing): dropping it loses its contents." in hand[0]
    done, hand = made(USERS, [USERS[0], a_column("users", "a", 1, "text"), *USERS[2:]])
    assert (done, len(hand)) == ([], 1)
    renamed = [*USERS[:2], a_column("users", "c", 2), *USERS[3:]]
    done, hand = made(USERS, renamed)
    assert any("Was it renamed (users.c)?" in entry for entry in hand)


def test_an_index_is_made_anew_with_its_comment() -> None:
    one, other = an_index("i", "users"), an_index("i", "users", " WHERE b > 0")
    before, after = [*USERS, one, a_comment(one, "x")], [*USERS, other, a_comment(other, "x")]
    assert made(before, after) == (["DROP INDEX i", other.create, "COMMENT ON INDEX i IS 'x'"], [])


def test_a_view_that_another_one_needs_is_left_to_a_person() -> None:
    user = a_view("u", "SELECT * FROM v", "view v")
    done, hand = made([a_view("v", "SELECT 1"), user], [a_view("v", "SELECT 2"), user])
    assert done == []
    assert "view u depends on it" in hand[0]


def test_dashes_in_a_condition_are_no_state() -> None:
    check = Item("constraint", "users.c", "CHECK (name <> ' -- INVALID')", create="ALTER TABLE users ADD CONSTRAINT c CHECK (name <> ' -- INVALID')",
                 parent="table users", facts={"type": "c", "quoted": "c"})  # fmt: skip
    done, hand = made(USERS, [*USERS, check])
    assert (done, hand) == ([check.create], [])


def test_an_invalid_index_is_mended_on_the_database() -> None:
    broken = Item(
        "index",
        "i",
        "CREATE INDEX i ON users (a)",
        broken="INVALID",
        create="CREATE INDEX i ON users (a)",
        parent="table users",
    )
    done, hand = made(USERS, [*USERS, broken])
    assert done == []
    assert "REINDEX INDEX CONCURRENTLY i" in hand[0]


@pytest.mark.parametrize(
    ("old", "new", "statement"),
    [
        ("ac", "abc", "ALTER TYPE mood ADD VALUE 'b' AFTER 'a'"),
        ("b", "ab", "ALTER TYPE mood ADD VALUE 'a' BEFORE 'b'"),
        ("", "ab", "ALTER TYPE mood ADD VALUE 'a';\nALTER TYPE mood ADD VALUE 'b' AFTER 'a'"),
    ],
)
def test_enum_values_are_added_in_their_place(old: str, new: str, statement: str) -> None:
    assert made([an_enum(*old)], [an_enum(*new)]) == ([statement], [])


@pytest.mark.parametrize(("old", "new"), [("abc", "ab"), ("ab", "ba"), ("ab", "cb")])
def test_enum_values_that_went_or_moved_are_left_to_a_person(old: str, new: str) -> None:
    done, hand = made([an_enum(*old)], [an_enum(*new)])
    assert (done, len(hand)) == ([], 1)


def test_a_draft_refuses_to_be_applied() -> None:
    before = [*USERS, *a_table("gone", "a")]
    text = scaffold(compare(before, [*USERS, an_index("i", "users")]), before, USERS).text(["Heading."])
    assert text.startswith("-- Heading.\n")
    assert "\n--   table gone (missing)" in text
    assert "RAISE EXCEPTION" in text
    assert text.endswith("\n\nCREATE INDEX i ON users (a);\n")


def test_a_circle_of_dependencies_is_broken() -> None:
    items = [a_view("a", "1", "view b"), a_view("b", "2", "view a")]
    assert [key for key, _ in ordered(items)] == ["view a", "view b"]


# --- fingerprint, snapshot


def test_the_fingerprint_depends_on_definitions_and_on_nothing_else() -> None:
    digits = fingerprint(USERS)
    assert digits == fingerprint(reversed(USERS))
    assert len(digits) == 64
    assert digits != fingerprint([*USERS, an_index("i", "users")])
    assert fingerprint([a_view("v", "SELECT 1")]) != fingerprint([a_view("v", "SELECT 2")])
    assert fingerprint([a_view("v", "SELECT 1")]) == fingerprint([a_view("v", "SELECT 1", "table users")])


# As pg_dump writes it, with texts of the application's that look like a dump.
DUMP = """\
--
-- PostgreSQL database dump
--

\\restrict abc

-- Dumped from database version 17.12

SET statement_timeout = 0;

--
-- Name: SCHEMA public; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA public IS '';


--
-- Name: f(); Type: FUNCTION; Schema: public; Owner: -
--

CREATE FUNCTION public.f() RETURNS text
    LANGUAGE sql
    AS $$ SELECT '
GRANT SELECT ON TABLE public.a TO reader;

--
-- PostgreSQL database dump complete
--
'$$;


--
-- Name: TABLE a; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.a TO reader;
GRANT INSERT ON TABLE public.a TO reader;
GRANT SELECT ON TABLE public.a TO other;


--
-- Name: TABLE b; Type: ACL; Schema: public; Owner: -
--

GRANT SELECT ON TABLE public.b TO reader;


--
-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: -
--

REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO reader;


--
-- Name: SCHEMA auth; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA auth TO reader;


--
-- Name: USER MAPPING u SERVER s; Type: USER MAPPING; Schema: -; Owner: -
--

CREATE USER MAPPING FOR u SERVER s OPTIONS (
    password 'secret'
);


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: -; Owner: -
--

ALTER DEFAULT PRIVILEGES FOR ROLE owner GRANT SELECT ON TABLES TO reader;


--
-- PostgreSQL database dump complete
--

\\unrestrict abc

"""


def test_a_dump_is_kept_without_versions_and_what_provisioning_gives() -> None:
    function = DUMP[DUMP.index("\n\n--\n-- Name: f()") : DUMP.index("\n\n\n--\n-- Name: TABLE a")]
    grants = "GRANT INSERT ON TABLE public.a TO reader;\nGRANT SELECT ON TABLE public.a TO other;"
    heading = "\n\n\n--\n-- Name: {}; Type: ACL; Schema: {}; Owner: -\n--\n\n"
    # What lets the role into another schema is a migration's.
    auth = heading.format("SCHEMA auth", "-") + "GRANT USAGE ON SCHEMA auth TO reader;\n"
    expected = f"SET statement_timeout = 0;\n{function}{heading.format('TABLE a', 'public')}{grants}{auth}"
    assert normalised(DUMP, "reader") == expected
    kept = normalised(DUMP, "")
    assert kept.count("TO reader;") == 7
    assert "secret" not in kept


def test_what_is_closed_stands_before_all_privileges() -> None:
    text = _with_privileges(normalised(DUMP, "reader"), ["REVOKE SELECT ON TABLE b FROM reader"], "My app")
    path, closed, back, *grants = statements(text)[2:]
    assert path.text == "SELECT pg_catalog.set_config('search_path', '\"My app\"', false)"
    assert (closed.text, back.text) == (
        "REVOKE SELECT ON TABLE b FROM reader",
        "SELECT pg_catalog.set_config('search_path', '', false)",
    )
    assert [one.words[:2] for one in grants] == [("GRANT", "INSERT"), ("GRANT", "SELECT"), ("GRANT", "USAGE")]


class Loaded:
    """A database that has the schemas `there`, and refuses to make these once more."""

    closed = False

    def __init__(self, *there: str) -> None:
        self.there, self.ran = there, []  # type: ignore[var-annotated]

    def execute(self, statement: str) -> Loaded:
        if statement.replace("CREATE SCHEMA ", "").strip('"') in self.there:
            raise psycopg.errors.DuplicateSchema("already exists")
        self.ran.append(statement)
        return self

    def fetchall(self) -> list[tuple[str]]:
        return [(name,) for name in self.there]


def test_a_schema_that_was_made_for_an_extension_is_no_refusal() -> None:
    own: Any = Loaded("public", "ext", "My ext")
    text = 'CREATE SCHEMA ext;\nCREATE SCHEMA "My ext";\nCREATE SCHEMA "EXT";\nCREATE SCHEMA auth;\nCREATE TABLE ext.t (a int);\n'
    assert load(own, text) == []
    assert own.ran[1:] == ['CREATE SCHEMA "EXT"', "CREATE SCHEMA auth", "CREATE TABLE ext.t (a int)"]


@pytest.mark.parametrize(("schema", "made"), [("public", False), ("pg_catalog", False), ("ext", True)])
def test_the_schema_of_an_extension_is_made_where_no_database_has_it(
    schema: str, made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    psql, ran = Psql(None, "c"), []  # type: ignore[arg-type,var-annotated]
    monkeypatch.setattr(psql, "run", lambda sql, *_: ran.append(sql))
    monkeypatch.setattr(psql, "value", lambda sql, *_: -1 if "datconnlimit" in sql else [])
    psql.create_extension("d", "x", schema, "app")
    assert any("CREATE SCHEMA" in sql for sql in ran) == made
    assert any(
        f"CREATE EXTENSION IF NOT EXISTS {identifier('x')} WITH SCHEMA {identifier(schema)};" in sql for sql in ran
    )


def test_what_is_closed_stands_before_privileges_that_something_follows() -> None:
    text = "CREATE TABLE b ();\n\nGRANT SELECT ON TABLE b TO x;\n\nCREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();\n"
    closed = _with_privileges(text, ["REVOKE SELECT ON TABLE b FROM reader"], "public")
    assert [one.first for one in statements(closed)] == ["CREATE", "SELECT", "REVOKE", "SELECT", "GRANT", "CREATE"]
    for other in ("CREATE TABLE b ();\n", "GRANT SELECT ON TABLE b TO x;\n"):
        assert "REVOKE" in [one.first for one in statements(_with_privileges(other, ["REVOKE ALL ON b FROM x"], "s"))]


@pytest.mark.parametrize(("first", "words"), [(True, "before the migrations"), (False, "a migration creates it")])
def test_a_schema_that_is_gone(first: bool, words: str) -> None:
    schema = Item("schema", "s", "CREATE SCHEMA s", create="CREATE SCHEMA s", facts={"first": first})
    _, hand = made([schema], [])
    assert len(hand) == 1
    assert words in hand[0]


def test_a_connection_that_cannot_answer_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Opened:
        closed = False

        def close(self) -> None:
            self.closed = True

    def refuse(*_: Any) -> None:
        raise psycopg.errors.AdminShutdown("terminating connection")

    opened = Opened()
    (tmp_path / "password").write_text("x\n")
    monkeypatch.setattr(psycopg, "connect", lambda **_: opened)
    monkeypatch.setattr(connection, "one_message", refuse)
    params = {"host": "h", "port": 1, "database": "d", "user": "u", "password_file": str(tmp_path / "password")}
    with pytest.raises(DasTernError, match="terminating connection"):
        connection.connect(params, "test")
    assert opened.closed


def test_the_diagram_knows_keys_and_how_many() -> None:
    items = [*USERS, *a_table("posts", "id", "author")]
    for name, contype, columns, references in (("p", "p", ["id"], ""), ("f", "f", ["author"], "users")):
        text = "PRIMARY KEY (id)" if contype == "p" else "FOREIGN KEY (author) REFERENCES users(a)"
        facts = {"type": contype, "columns": columns, "references": references, "quoted": name}
        items.append(Item("constraint", f"posts.{name}", text, parent="table posts", facts=facts))
    text = schema_docs(items)
    assert '    users |o--o{ posts : "author"\n' in text
    assert "        integer id PK\n        integer author FK\n" in text
    assert "| `author` | integer | yes | | → `users(a)` |" in text


def tables_with_keys(count: int, columns: int, near: int) -> list[Item]:
    """Tables of which each refers to the one before, in clusters of `near`."""
    items = []
    for number in range(count):
        items += a_table(f"table_{number:03d}", *(f"column_{column}" for column in range(columns)))
        if number % near:
            facts = {"type": "f", "columns": ["column_0"], "references": f"table_{number - 1:03d}", "quoted": "f"}
            items.append(
                Item(
                    "constraint",
                    f"table_{number:03d}.f",
                    "FOREIGN KEY ...",
                    parent=f"table table_{number:03d}",
                    facts=facts,
                )
            )
    return items


def diagrams(text: str) -> list[str]:
    return re.findall(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_a_large_diagram_is_split_by_clusters() -> None:
    [small] = diagrams(schema_docs(tables_with_keys(20, 10, 10)))
    assert small.count("{\n") == 20
    assert "in 1 parts" not in schema_docs(tables_with_keys(20, 10, 10))
    text = schema_docs(tables_with_keys(300, 15, 10))
    parts = diagrams(text)
    assert f"in {len(parts)} parts" in text
    assert all(len(part) < 50_000 for part in parts)
    assert 2 < len(parts) < 8
    # Each table and each key stands in one of them; no cluster is torn.
    assert sum(part.count("{\n") for part in parts) == 300
    assert sum(part.count("|o--o{") for part in parts) == 270
    for part in parts:
        boxes = set(re.findall(r"^    (table_\d+) {$", part, re.MULTILINE))
        assert set(re.findall(r"(table_\d+) \|o--", part)) <= boxes


def test_a_cluster_that_fits_into_no_diagram_is_cut() -> None:
    parts = diagrams(schema_docs(tables_with_keys(200, 30, 200)))
    assert all(len(part) < 50_000 for part in parts)
    assert sum(part.count("{\n") for part in parts) == 200
    assert sum(part.count("|o--o{") for part in parts) == 199


def test_of_a_table_with_very_many_columns_the_keys_are_drawn() -> None:
    items = [*a_table("wide", *(f"a_column_with_a_long_name_{number}" for number in range(1500)))]
    items.append(Item("constraint", "wide.p", "PRIMARY KEY", parent="table wide",
                      facts={"type": "p", "columns": ["a_column_with_a_long_name_7"], "references": "", "quoted": "p"}))  # fmt: skip
    [part] = diagrams(schema_docs(items))
    assert re.findall(r"_(\d+)(?: PK)?$", part, re.MULTILINE) == ["7"]


def test_a_comment_on_a_column_that_has_no_item_is_not_the_tables() -> None:
    text = "COMMENT ON COLUMN users.z IS 'of a partition''s column'"
    comment = Item("comment", "column users.z", text, create=text, parent="table users")
    own = "COMMENT ON TABLE users IS 'of the table'"
    docs = schema_docs([*USERS, comment, Item("comment", "table users", own, create=own, parent="table users")])
    assert ("of a partition" in docs, "of the table" in docs) == (False, True)


# --- files and names


def test_a_file_is_replaced_only_where_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.md"
    assert replace(path, "x\n", check_mode=True) is not None
    assert not path.exists()
    assert replace(path, "x\n") == {"before_header": str(path), "after_header": str(path), "before": "", "after": "x\n"}
    assert (path.read_text(), replace(path, "x\n")) == ("x\n", None)


@pytest.mark.parametrize("database", ["dastern", "d" * 63, "ថ្នាំ" * 10, "a.b-c d"])
def test_names_of_scratch_databases_fit_and_are_recognised(database: str) -> None:
    name = f"{scratch_stem(database)}_scratch_0123456789abcdef"
    assert len(name.encode()) <= 63
    assert re.match(name_pattern(database), name)
    assert not re.match(name_pattern(database), "x" + name)
    assert not re.match(name_pattern(database), name + "0")


USUAL = {"owner": {("SELECT", False), ("INSERT", False)}}


def by_default(more: set[str], *, within: bool = False, less: set[str] = frozenset(), to: str = "reader") -> Item:  # type: ignore[assignment]
    facts = {"on": "TABLES", "within": "public" if within else "", "grantee": to, "more": {(one, False) for one in more},
             "less": {(one, False) for one in less}}  # fmt: skip
    return Item("default privileges", f"{within} {to}", "", facts=facts)


@pytest.mark.parametrize(
    ("acl", "defaults", "statements"),
    [
        ({}, [[], []], []),
        ({}, [[by_default({"SELECT"})], []], ["REVOKE SELECT ON TABLE t FROM reader"]),
        ({}, [[], [by_default({"SELECT"}, within=True)]], ["REVOKE SELECT ON TABLE t FROM reader"]),
        ({"reader": {("SELECT", False)}}, [[by_default({"SELECT"})]], []),
        (
            {"reader": {("SELECT", False)}},
            [[by_default({"SELECT", "UPDATE"})]],
            ["REVOKE UPDATE ON TABLE t FROM reader"],
        ),
        ({}, [[by_default(set(), less={"INSERT"}, to="owner")], []], ["GRANT INSERT ON TABLE t TO owner"]),
        ({"owner": set()}, [[by_default(set(), less={"INSERT"}, to="owner")]], []),
    ],
)
def test_a_new_object_is_told_what_the_defaults_would_give(
    acl: dict[str, set[tuple[str, bool]]], defaults: list[list[Item]], statements: list[str]
) -> None:
    one = Item(
        "view",
        "t",
        "CREATE VIEW t",
        target="VIEW t",
        facts={"acl": {**USUAL, **acl}, "usual": USUAL, "schema": "public"},
    )
    assert [item.create for item in against_defaults([one], *defaults)] == statements


def test_names_and_comments_are_text_in_the_documents() -> None:
    name = 'table "<script>alert(1)</script>"'
    table = Item("table", name.removeprefix("table "), "", target=name.upper(), facts={"prefix": ""})
    column = Item(
        "column", f"{table.name}.a", "text", parent=table.key,
        facts={"number": 1, "column": "a|`b`\u202e", "type": "text", "quoted": "a", "table": table.name},
    )  # fmt: skip
    comment = Item(
        "comment", column.key, "COMMENT ON COLUMN x IS '</td><img src=x onerror=1> [a](b) | `'", parent=column.key
    )
    text = schema_docs([table, column, comment])
    assert "## &lt;script&gt;alert(1)&lt;/script&gt;" in text
    row = next(line for line in text.splitlines() if "onerror" in line)
    assert row.startswith(r"| `` a\|`b`\u202e `` &lt;/td&gt;&lt;img src=x onerror=1&gt; \[a\](b) \| \` |")
    assert len(re.split(r"(?<!\\)\|", row)) == 7
