"""What counting asks of a server, and how long it waits for it; with a server that pretends."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern import census
from ansible.module_utils.dastern.containers import Containers, Output
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
