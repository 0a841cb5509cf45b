"""A run of the seeds: what is refused, what is written and counted; with a server that pretends."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.seeds import catalogue
from ansible.module_utils.dastern.seeds import run as seed_run
from ansible.module_utils.dastern.seeds.files import read_blocks
from fake_session import Rows, Session

FILE = """\
- table: users
  key: [phone]
  rows:
    - {phone: "1", role: PATIENT}
    - {phone: "2", role: PATIENT}
    - {phone: "3", role: DOCTOR}
- table: users
  rows:
    - {_name: dara, phone: "4", role: DOCTOR}
- table: visits
  rows:
    - {_name: first, role: PATIENT}
"""
NEW: tuple[Any, ...] = (None, [], None, None)


def same(number: int) -> tuple[Any, ...]:
    return (f"00000000-0000-4000-8000-{number:012}", [], None, None)


def other(number: int) -> tuple[Any, ...]:
    return (same(number)[0], ["role"], {"role": "DOCTOR"}, {"role": "PATIENT"})


def column(name: str, kind: str = "text") -> catalogue.Column:
    return catalogue.Column(name, kind, kind, False, False, None, False, None)


TABLES = {
    name: catalogue.Table(
        name, {"id": column("id", "uuid"), **{one: column(one) for one in ("phone", "role")}}, (frozenset({"phone"}),)
    )
    for name in ("users", "visits")
}


class Server:
    """Tables of which each is read as `found` says, the first key first; a write touches `written` rows, None as many as asked."""

    def __init__(self, users: list[Rows], visits: list[Rows], written: int | None = None) -> None:
        self.found = {'"users"': users, '"visits"': visits}
        self.kept = {name: list(rows) for name, rows in self.found.items()}
        self.written = written
        self.session = Session(answer=self.answer)

    def answer(self, query: str) -> Rows:
        if "pg_try_advisory_xact_lock" in query:
            for name, rows in self.kept.items():
                self.found[name] = list(rows)
            return [(True,)]
        if query.startswith(("INSERT", "UPDATE")):
            name = next(name for name in self.found if name in query)
            rows = [row for rows in self.kept[name] for row in rows]
            wanted = rows.count(NEW) if query.startswith("INSERT") else sum(bool(row[1]) for row in rows)
            return [()] * (wanted if self.written is None else self.written)
        if "jsonb_array_elements" in query:
            name = next(name for name in self.found if name in query)
            return self.found[name].pop(0)
        return []

    def did(self) -> list[str]:
        """What was done, without what was read."""
        words = (one.split()[0] if "advisory" not in one else "lock" for one in self.session.sent)
        return [one for one in words if one in ("lock", "INSERT", "UPDATE")]


@pytest.fixture
def seed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(server: Server, check_mode: bool = False, said: str | None = "development", **changes: Any) -> Any:
        monkeypatch.setattr(seed_run, "connect", lambda *_: server.session)
        monkeypatch.setattr(catalogue, "server", lambda _: catalogue.Server(date(2026, 2, 8), "+07:00", said))
        params = {name: option.get("default") for name, option in seed_run.ARGUMENT_SPEC.items()}
        own = {
            "database": "d", "folder": "f", "environment": "development", "seed_environment": "development", "allowed": True,
            "declared": json.dumps([{"name": "a.yml", "blocks": read_blocks(FILE, "a.yml")}]), **changes,
        }  # fmt: skip
        return seed_run.seed({**params, **own}, check_mode)

    monkeypatch.setattr(catalogue, "tables", lambda *_: TABLES)
    return run


def mixed(**changes: Any) -> Server:
    """Of the users one is new, one is another, two are as declared; the visit is new."""
    return Server([[NEW, other(2), same(3)], [same(4)]], [[NEW]], **changes)


@pytest.mark.parametrize("check_mode", [True, False])
def test_rows_are_counted_by_table_whatever_their_keys(seed: Any, check_mode: bool) -> None:
    result = seed(mixed(), check_mode)
    assert result["tables"] == {
        "users": {"inserted": 1, "updated": 1, "unchanged": 2}, "visits": {"inserted": 1, "updated": 0, "unchanged": 0},
    }  # fmt: skip
    assert [result[name] for name in ("inserted", "updated", "unchanged")] == [2, 1, 2]
    assert result["changed"]
    assert [(one["row"], one["action"]) for one in result["rows"]] == [
        ("users/1", "insert"), ("users/2", "update"), ("visits/first", "insert"),
    ]  # fmt: skip
    assert result["rows_not_shown"] == 0


def test_all_is_written_under_the_lock_in_one_transaction(seed: Any) -> None:
    server = mixed()
    seed(server)
    assert server.did() == ["lock", "INSERT", "UPDATE", "INSERT"]
    assert [one for one in server.session.sent if one in ("BEGIN", "COMMIT", "ROLLBACK")][-1] == "COMMIT"


@pytest.mark.parametrize("check_mode", [True, False])
def test_where_nothing_differs_nothing_is_locked_or_written(seed: Any, check_mode: bool) -> None:
    server = Server([[same(1), same(2), same(3)], [same(4)]], [[same(5)]])
    result = seed(server, check_mode)
    assert (result["changed"], result["unchanged"], server.did()) == (False, 5, [])


def test_a_check_writes_nothing(seed: Any) -> None:
    server = mixed()
    assert seed(server, True)["changed"]
    assert server.did() == []


def test_rows_that_went_meanwhile_are_no_success(seed: Any) -> None:
    server = mixed(written=0)
    with pytest.raises(DasTernError, match="^users: .*Nothing was changed"):
        seed(server)
    assert server.session.sent[-1] == "ROLLBACK"


def test_two_declared_rows_may_not_be_one_row(seed: Any) -> None:
    with pytest.raises(DasTernError, match="users/3 and .*users/2 "):
        seed(Server([[same(1), same(2), same(2)], [same(4)]], [[NEW]]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"environment": "production"}, "`dastern_environment` is production"),
        ({"seed_environment": "production"}, "`seed_environment` is production"),
        ({"seed_environment": " Prod "}, "`seed_environment` is  Prod "),
        ({"allowed": False}, "`seed_allowed` is false"),
        ({"seed_environment": "../x"}, "`seed_environment` is '../x'"),
    ],
)
def test_production_and_what_nobody_allowed_is_refused_before_anything_is_asked(
    seed: Any, changes: dict[str, Any], words: str
) -> None:
    server = mixed()
    with pytest.raises(DasTernError, match=words):
        seed(server, **changes)
    assert server.session.sent == []


@pytest.mark.parametrize("said", ["production", "PRODUCTION", "prod", "staging", None, " "])
def test_the_databases_own_word_counts_more_than_the_inventory(seed: Any, said: str | None) -> None:
    server = mixed()
    with pytest.raises(DasTernError):
        seed(server, said=said)
    assert server.did() == []
