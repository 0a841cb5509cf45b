"""What explains a difference, and what a migration says that was tried, by hand-made objects and a server that is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.catalogue.drift import Difference, Scaffold, compare, scaffold, table, tried
from ansible.module_utils.dastern.catalogue.drift_steps import Step, _steps, partitions_made_since, run, without_equal
from ansible.module_utils.dastern.catalogue.objects import Item, fingerprint
from ansible.module_utils.dastern.migrations import drift as drift_run
from ansible.module_utils.dastern.migrations.plan import make_plan


def a_sequence(name: str, of_column: str = "", prefix: str = "") -> Item:
    text = f"CREATE SEQUENCE {name} AS integer"
    return Item("sequence", name, text, create=text, target=f"SEQUENCE {name}",
                facts={"sequence": name, "prefix": prefix, "range": [1, 1, 99], "of_column": of_column})  # fmt: skip


def a_column(name: str, kind: str = "integer") -> Item:
    table_of, _, column = name.partition(".")
    return Item("column", name, kind, create=f"ALTER TABLE {table_of} ADD COLUMN {column} {kind}", parent=f"table {table_of}",
                facts={"table": table_of, "column": column, "quoted": column, "type": kind, "number": 1})  # fmt: skip


def a_default(column: str, sequence: str) -> Item:
    text = f"nextval('{sequence}'::regclass)"
    return Item("default", column, text, create=f"ALTER TABLE t ALTER COLUMN id SET DEFAULT {text}", parent=f"column {column}",
                needs=frozenset({f"sequence {sequence}"}))  # fmt: skip


def a_table(name: str, of: str = "", bound: str = "", **facts: Any) -> Item:
    text = f"CREATE TABLE {name}" + (f" PARTITION OF {of} {bound}" if of else " (...)") + facts.get("tail", "")
    more = {"partition_of": of, "bound": bound} if of else {"head": f"CREATE TABLE {name}", "inherits": ()}
    return Item("table", name, text, create=text, target=f"TABLE {name}",
                facts={"is_partitioned": False, "is_plain": True, "tail": "", **more, **facts})  # fmt: skip


def statements(before: list[Item], after: list[Item]) -> list[str]:
    found = _steps({item.key: item for item in before}, {item.key: item for item in after})
    return [step.statement for step in found]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([a_sequence("a", "t.id")], [a_sequence("b", "t.id")], ["ALTER SEQUENCE a RENAME TO b"]),
        ([a_sequence("a", "t.id")], [a_sequence("b", "t.other")], []),
        ([a_sequence("a", "t.id")], [a_sequence("a", "t.id"), a_sequence("b", "t.id")], []),
        ([a_sequence("a")], [a_sequence("b")], []),
        ([a_sequence("a"), a_default("t.id", "a")], [a_sequence("b"), a_default("t.id", "b")], ["ALTER SEQUENCE a RENAME TO b"]),
        ([a_sequence("s.a", "t.id", "s.")], [a_sequence("s.b", "t.id", "s.")], ["ALTER SEQUENCE s.a RENAME TO b"]),
        ([a_sequence("s.a", "t.id", "s.")], [a_sequence("b", "t.id")], []),
        ([a_table("p", "h", "X")], [a_table("p")], ["ALTER TABLE h DETACH PARTITION p"]),
        ([a_table("p")], [a_table("p", "h", "X")], ["ALTER TABLE h ATTACH PARTITION p X"]),
        ([a_table("p", "h", "X")], [a_table("p", "g", "X")], ["ALTER TABLE h DETACH PARTITION p", "ALTER TABLE g ATTACH PARTITION p X"]),
        ([a_table("p", "h", "X")], [a_table("p", "h", "X")], []),
        ([], [a_table("p", "h", "X")], []),
        (
            [a_table("c", inherits=["a", "b"], tail=" INHERITS (a, b)")], [a_table("c", inherits=["b", "d"], tail=" INHERITS (b, d)")],
            ["ALTER TABLE c NO INHERIT a", "ALTER TABLE c INHERIT d"],
        ),
    ],
)  # fmt: skip
def test_steps_that_explain_a_difference(before: list[Item], after: list[Item], expected: list[str]) -> None:
    assert statements(before, after) == expected


PARTED = a_table("h", tail=" PARTITION BY RANGE (id)", is_partitioned=True)


@pytest.mark.parametrize(
    ("new", "exempt"),
    [
        ([a_table("p", "h", "X")], {"table p": "h"}),
        ([a_table("p", "h", "X", is_partitioned=True), a_table("q", "p", "Y")], {"table p": "h", "table q": "p"}),
        ([a_table("p", "h", "X", is_plain=False)], {}),
        ([a_table("p")], {}),
        ([a_table("p", "unknown", "X")], {}),
        ([a_table("p", "h", "X"), Item("default", "p.id", "1", parent="table p")], {"table p": "h"}),
        ([a_table("p", "h", "X"), Item("default", "p.id", "2", parent="table p")], {}),
        ([a_table("p", "h", "X"), Item("not null", "p.id", "NOT NULL", parent="table p")], {}),
        ([a_table("p", "h", "X"), Item("index", "i", "CREATE INDEX i ON p", parent="table p")], {}),
        (
            [a_table("p", "h", "X"), Item("grant", "table p to r", "GRANT SELECT ON TABLE p TO r", parent="table p")],
            {"table p": "h"},
        ),
        ([a_table("p", "h", "X"), Item("grant", "table p to r", "GRANT ALL ON TABLE p TO r", parent="table p")], {}),
    ],
)
def test_a_partition_is_exempt_that_its_table_made(new: list[Item], exempt: dict[str, str]) -> None:
    there = [
        PARTED, Item("default", "h.id", "1", parent="table h"),
        Item("grant", "table h to r", "GRANT SELECT ON TABLE h TO r", parent="table h"),
    ]  # fmt: skip
    live = [*there, *new]
    assert partitions_made_since(compare(there, live), there, live) == exempt


@pytest.mark.parametrize(("ignore", "drifted"), [([], True), (["table ev_2026_*"], False), (["table ev_2025_*"], True)])
def test_a_detached_partition_can_be_exempt(ignore: list[str], drifted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = a_table("ev_2026_01", "ev", "X"), a_table("ev_2026_01")
    step = Step("ALTER TABLE ev DETACH PARTITION ev_2026_01", Difference("detached", before, after))
    catalogues = {"live": [PARTED, after], "own": [PARTED, before]}
    monkeypatch.setattr(drift_run, "schemas_besides", lambda connection, schema: [])
    monkeypatch.setattr(drift_run, "read_catalogue", lambda connection, schema, others: catalogues[connection])
    monkeypatch.setattr(drift_run, "explain", lambda *_: ([step], catalogues["live"]))
    monkeypatch.setattr(drift_run, "without_equal", lambda own, rows, read: rows)
    params = {
        "schema": "public",
        "database": "d",
        "environment": "",
        "ignore": ignore,
        "fail": True,
        "write_migration": "",
    }
    result = drift_run._compared("live", "own", params, make_plan([], []), [], [])  # type: ignore[arg-type]
    assert (result["drifted"], result.get("failed", False)) == (drifted, drifted)
    assert result["exempt"] == ([] if drifted else ["table ev_2026_01"])
    assert result["statements"] == ([step.statement] if drifted else [])


def test_a_new_sequence_of_a_column_that_is_there_goes_on_behind_its_rows() -> None:
    there = [a_table("t"), a_column("t.id")]
    new = [a_sequence("s"), a_default("t.id", "s")]
    made = scaffold(compare(there, [*there, *new]), there, [*there, *new])
    assert made.statements[-1] == "SELECT setval('s', max(id)) FROM t WHERE id BETWEEN 1 AND 99"
    assert made.notes == []
    # In a table that is new, too, there are no rows.
    made = scaffold(compare([], [*there, *new]), [], [*there, *new])
    assert not any("setval" in one for one in made.statements)
    alone = scaffold(compare(there, [*there, a_sequence("s")]), there, [*there, a_sequence("s")])
    assert [note.split(":")[0] for note in alone.notes] == ["sequence s starts from the beginning"]
    words = [a_table("t"), a_column("t.id", "text")]
    made = scaffold(compare(words, [*words, *new]), words, [*words, *new])
    assert not any("setval" in one for one in made.statements)
    assert ["column t.id" in note for note in made.notes] == [True]


@pytest.mark.parametrize(("step", "furthest", "last"), [(1, "greatest", "max"), (-1, "least", "min")])
def test_a_new_sequence_of_two_columns_goes_on_behind_the_rows_of_both(step: int, furthest: str, last: str) -> None:
    there = [a_table("t"), a_column("t.id"), a_table("u"), a_column("u.id")]
    sequence = a_sequence("s")
    new = [
        replace(sequence, facts={**sequence.facts, "range": [step, 1, 99]}),
        a_default("u.id", "s"),
        a_default("t.id", "s"),
    ]
    made = scaffold(compare(there, [*there, *new]), there, [*there, *new])
    assert [one for one in made.statements if "setval" in one] == [
        f"SELECT setval('s', {furthest}((SELECT {last}(id) FROM t WHERE id BETWEEN 1 AND 99), "
        f"(SELECT {last}(id) FROM u WHERE id BETWEEN 1 AND 99)))"
    ]


def test_what_was_tried_is_complete_only_where_nothing_is_left() -> None:
    made = Scaffold(["SELECT 1"], [])
    assert not made.complete
    done = tried(made, [], [])
    assert done.complete
    assert "-- This file is complete" in done.text([])
    assert "RAISE EXCEPTION" not in done.text([])
    one = Item("table", "t", "CREATE TABLE t (...)")
    rest = tried(
        made,
        [],
        [Difference("unexpected", None, one), Difference("missing", one, None), Difference("differs", one, one)],
    )
    assert rest.left == ["table t is not created", "table t is still there", "table t is not as in the live database"]
    assert "\n--   table t is still there\n" in rest.text([])
    refused = tried(made, [("CREATE x", "42601: syntax error")], [])
    assert refused.by_hand == ["The server refuses this statement (42601: syntax error):\nCREATE x;"]
    for draft in (rest, refused):
        assert not draft.complete
        assert "RAISE EXCEPTION" in draft.text([])
        assert "This file is complete" not in draft.text([])


class Server:
    """Runs statements: those that need another one are refused until it has run, BAD always."""

    closed = False

    def __init__(self, **needs: str) -> None:
        self.needs, self.ran, self.before = needs, [], []

    def execute(self, statement: str) -> None:
        if statement in ("BEGIN", "COMMIT", "ROLLBACK") or "SAVEPOINT" in statement:
            return
        if statement == "BAD" or (statement in self.needs and self.needs[statement] not in self.ran):
            raise psycopg.errors.UndefinedTable(f"{statement} is refused")
        self.ran.append(statement)


def test_statements_are_tried_behind_those_that_they_need() -> None:
    server: Any = Server(A="C", C="D")
    assert run(server, ["A", "B", "BAD", "C", "D"]) == (["B", "D", "C", "A"], [("BAD", "42P01: None")])


def test_what_is_broken_is_never_taken_for_the_same() -> None:
    """Made anew the index would be whole; asking the server would hide it."""
    one = Item("index", "i", "CREATE INDEX i ON t (a)", create="CREATE INDEX i ON t (a)", undo="DROP INDEX i")
    rows = compare([one], [Item(**{**one.__dict__, "broken": "INVALID"})])
    server: Any = Server()
    assert without_equal(server, rows, lambda: [one]) == rows
    assert server.ran == []


def a_generated(kind: str, expression: str) -> Item:
    column = a_column("t.c", kind)
    text = f"{kind} GENERATED ALWAYS AS ({expression}) STORED"
    return replace(column, definition=text, facts={**column.facts, "generated": expression})


@pytest.mark.parametrize(
    ("live", "equal"),
    [
        (a_generated("bigint", "(b + (1))"), True),
        (a_generated("integer", "(b + (1))"), False),
        (a_generated("integer", "(b + 1)"), False),
        (a_generated("bigint COLLATE x", "(b + 1)"), False),
        (a_generated("bigint", "(b + 2)"), False),
    ],
)
def test_of_a_generated_column_only_the_expression_is_asked_for(live: Item, equal: bool) -> None:
    """SET EXPRESSION leaves the type as it is in the scratch database, so that the answer says nothing of it."""
    expected = a_generated("bigint", "(b + 1)")
    server: Any = Server()
    rows = compare([expected], [live])

    def read() -> list[Item]:
        # The column keeps its type; (1) is written as 1.
        *_, said = server.ran[-1].split(" AS ")
        return [a_generated("bigint", said[1:-1].replace("(1)", "1"))]

    assert without_equal(server, rows, read) == ([] if equal else rows)


def a_function(body: str) -> Item:
    text = f"CREATE OR REPLACE FUNCTION f()\n AS $$ {body} $$"
    return Item("function", "f()", text, create=text)


def test_line_ends_of_a_body_are_alike() -> None:
    unix, dos = a_function("a\nb"), a_function("a\r\nb")
    assert compare([unix], [dos]) == []
    assert fingerprint([unix]) == fingerprint([dos])
    check = Item("constraint", "t.c", "CHECK (a <> 'a\nb')")
    assert compare([check], [Item("constraint", "t.c", "CHECK (a <> 'a\r\nb')")]) != []


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("a b", "a\tb", "\\t"),
        ("a b", "a\u00a0b", "\\xa0"),
        ("ab", "a\u200bb", "\\u200b"),
        ("ab", "a\u2060b", "\\u2060"),
    ],
)
def test_what_cannot_be_seen_is_shown_where_nothing_else_differs(one: str, other: str, shown: str) -> None:
    expected, live = table(compare([a_function(one)], [a_function(other)]))
    assert shown in live
    assert shown not in expected
