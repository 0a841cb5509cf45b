"""What counting asks of a server, and how long it waits for it; with a server that pretends."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.catalogue.comparison import compare
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Containers, Output
from ansible.module_utils.dastern.server.psql import Psql


class Server(Containers):
    """One table of three rows; `locked` is how a LOCK ends."""

    def __init__(self) -> None:
        super().__init__("unix:///none.sock")
        self.locked = ""
        self.tables = 1
        self.asked: list[tuple[str, float]] = []
        self.options: set[str] = set()

    def execute(
        self, container: str, command: Any, stdin: Any = "", *, environment: Any, silence: float = 0, **__: Any
    ) -> Output:
        self.asked.append((stdin, silence))
        self.options.add(environment["PGOPTIONS"])
        if "LOCK TABLE" in stdin and self.locked:
            return Output(3, "", f"psql:<stdin>:2: ERROR:  {self.locked}: canceling statement\n")
        answers = {
            "max_locks_per_transaction": f'{{"tables": {self.tables}, "each": 64, "sessions": 41}}',
            "shobj_description": "{}\n1",
            "TO STDOUT (ENCODING": '{"public.t": 3}',
            "relkind = 'r' AND c.relpersistence": '["public.t"]',
        }
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
    queries = server.of("TO STDOUT (ENCODING")
    assert [silence for _, silence in queries] == [census.LONGEST] * 2
    assert all("-c statement_timeout=0 " in options for options in server.options)
    assert {silence for text, silence in server.asked if text and "TO STDOUT (ENCODING" not in text} == {0}


@pytest.mark.parametrize("sqlstate", ["57014", "40P01", "55P03"])
def test_where_nothing_is_quiet_it_is_counted_a_little_later(
    server: Server, monkeypatch: pytest.MonkeyPatch, sqlstate: str
) -> None:
    """All locks together get 200 ms, and the count behind them as long as it wants."""
    monkeypatch.setattr(census, "QUIET", -1)
    server.locked = sqlstate
    counted, exact = census.count_at(Psql(server, "pg"), "d", "point")
    assert (counted.tables, exact) == ({"public.t": 3}, False)
    ((tried, _),) = server.of("LOCK TABLE")
    in_order = [
        "statement_timeout = '200ms'",
        "LOCK TABLE public.t",
        "pg_create_restore_point",
        "timeout = 0",
        "TO STDOUT (ENCODING",
    ]
    assert sorted(in_order, key=tried.rindex) == in_order
    # Where the count waited for a lock, the point was written: a second one would be later.
    later = [text for text, _ in server.of("pg_create_restore_point") if "LOCK TABLE" not in text]
    assert bool(later) == (sqlstate != "55P03")


@pytest.mark.parametrize(
    ("tables", "locked", "dumped"), [(1616, True, True), (1617, False, True), (2425, False, False)]
)
def test_no_more_is_locked_than_the_server_has_room_for(
    server: Server, tables: int, locked: bool, dumped: bool
) -> None:
    """Of 64 times 41 locks some stay for others: the application would fail for want of them."""
    server.tables = tables
    counted, exact = census.count_at(Psql(server, "pg"), "d", "point")
    assert (counted.tables, exact, bool(counted.schema)) == ({"public.t": 3}, locked, dumped)
    assert bool(server.of("LOCK TABLE")) == locked
    assert len(server.of("pg_create_restore_point")) == 1
    (counting, _), *_ = server.of("TO STDOUT (ENCODING")
    in_order = ["SAVEPOINT counted", "TO STDOUT (ENCODING", "ROLLBACK TO SAVEPOINT counted", "COMMIT"]
    assert sorted(in_order, key=counting.index) == in_order
    unknown = census.Census("d", {"public.t": 3}, "", {}, [], 1)
    assert not compare(unknown, counted).schema_differs


def test_the_setting_that_makes_room() -> None:
    locks = census.Locks(20000, 64, 41)
    each = int(locks.wanted(1.5).partition("max_locks_per_transaction: ")[2].partition("}")[0])
    assert census.Locks(20000, each, 41).fit(1.5)
    assert not census.Locks(20000, each - 256, 41).fit(1.5)


def test_a_count_refused_for_lack_of_privilege_fails(server: Server) -> None:
    server.locked = "42501"
    with pytest.raises(DasTernError, match="42501"):
        census.count_at(Psql(server, "pg"), "d", "point")


def test_the_ledger_is_read_as_copy_writes_it() -> None:
    """In the order of their beginnings, and neither those that failed nor those that were rolled back."""
    ledger = [
        "20260102_b\t22\t2026-11-30 09:00:00.5+00\t2026-11-30 09:00:01+00\t\\N",
        "20260101_a\t11\t2026-11-30 09:00:00+00\t2026-11-30 09:00:01+00\t\\N",
        "20260103_c\t33\t2026-11-30 09:00:00.45+00\t\\N\t\\N",
        "20260104_d\t44\t2026-11-30 09:00:00.6+00\t2026-11-30 09:00:01+00\t2026-11-30 09:00:02+00",
    ]
    found = census.of_snapshot("d", ['{"public.t": 1}', '{"owner": "o"}', "7", *ledger], "")
    assert (found.migrations, found.tables, found.bytes) == (["20260101_a 11", "20260102_b 22"], {"public.t": 1}, 7)
