"""What counting asks of a server, and how long it waits for it; with a server that pretends."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern import census
from ansible.module_utils.dastern.containers import Containers, Output
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.psql import Psql


class Server(Containers):
    """One table of three rows; `locked` is how a LOCK ends."""

    def __init__(self) -> None:
        super().__init__("unix:///none.sock")
        self.locked = ""
        self.asked: list[tuple[str, float]] = []

    def execute(self, container: str, command: Any, stdin: Any = "", *_: Any, silence: float = 0, **__: Any) -> Output:
        self.asked.append((stdin, silence))
        if "LOCK TABLE" in stdin and self.locked:
            return Output(3, "", f"psql:<stdin>:2: ERROR:  {self.locked}: canceling statement\n")
        answers = {"count(*)": '{"public.t": 3}', "relkind = 'r' AND c.relpersistence": '["public.t"]', "_size": "1"}
        return Output(0, next((told for words, told in answers.items() if words in stdin), ""), "")

    def of(self, words: str) -> list[tuple[str, float]]:
        return [one for one in self.asked if words in one[0]]


@pytest.fixture
def server() -> Server:
    return Server()


def test_counting_may_take_its_time(server: Server) -> None:
    """Neither this side nor a statement_timeout of the database's own ends it; what answers at once is waited for as ever."""
    assert census.count(Psql(server, "pg"), "d").tables == {"public.t": 3}
    counted, exact = census.count_at(Psql(server, "pg"), "d", "point")
    assert (counted.tables, exact) == ({"public.t": 3}, True)
    queries = server.of("count(*)")
    assert [silence for _, silence in queries] == [census.LONGEST] * 2
    assert all(text.index("SET statement_timeout = 0") < text.index("count(*)") for text, _ in queries)
    assert {silence for text, silence in server.asked if text and "count(*)" not in text} == {0}


@pytest.mark.parametrize("sqlstate", ["57014", "55P03", "40P01"])
def test_where_nothing_is_quiet_it_is_counted_a_little_later(server: Server, sqlstate: str) -> None:
    """All locks together get 200 ms, and the count behind them as long as it wants."""
    server.locked = sqlstate
    counted, exact = census.count_at(Psql(server, "pg"), "d", "point", seconds=-1)
    assert (counted.tables, exact) == ({"public.t": 3}, False)
    ((tried, _),) = server.of("LOCK TABLE")
    in_order = [
        "statement_timeout = '200ms'",
        "LOCK TABLE public.t",
        "pg_create_restore_point",
        "timeout = 0",
        "count(*)",
    ]
    assert sorted(in_order, key=tried.rindex) == in_order
    assert server.of("SELECT pg_create_restore_point('point');")


def test_another_refusal_is_one(server: Server) -> None:
    server.locked = "42501"
    with pytest.raises(DasTernError, match="42501"):
        census.count_at(Psql(server, "pg"), "d", "point")
