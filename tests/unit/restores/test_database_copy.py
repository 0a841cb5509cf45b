"""A database or table of a backup whose rows nobody could count; with a site that pretends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import logical as backup_logical
from ansible.module_utils.dastern.catalogue.census import Census
from ansible.module_utils.dastern.catalogue.comparison import Comparison
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Output
from ansible.module_utils.dastern.restores import database_copy
from ansible.module_utils.dastern.restores.target import Target
from ansible.module_utils.dastern.server.psql import Psql
from samples import record


@pytest.mark.parametrize(("table", "words"), [("", "a database of it"), ("public.t", "a table of it")])
def test_what_was_never_counted_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str, words: str
) -> None:
    done: list[str] = []
    server = SimpleNamespace(
        fill=lambda *_: done.append("fill"), serve=lambda _, **__: None, discard=lambda: done.append("discard")
    )
    monkeypatch.setattr(database_copy, "RestoredServer", lambda *_: server)
    site: Any = SimpleNamespace(
        helper="pg-restore", make_volume=lambda *_: None, place=SimpleNamespace(folder=tmp_path)
    )
    (tmp_path / "transfer" / "restore-x").mkdir(parents=True)
    goal = Target("07", "", 1, {"recovery_target_name": "das-tern-07"}, own=True)
    uncounted = Census("d", {}, "", {}, [], 1)
    with pytest.raises(
        DasTernError, match=f"{words} can't be copied.*playbooks/restore.yml -e what=cluster -e target=07`"
    ):
        database_copy.from_physical(
            site, record(7), goal, "d", "copy", table, "x", check=lambda *_: Comparison(uncounted), instead=""
        )
    assert done == ["fill", "discard"]
    assert list((tmp_path / "transfer").iterdir()) == []


def test_a_connection_limit_comes_when_all_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner fills it, whom a limit of 0 or 1 keeps out."""
    done: list[str] = []
    psql: Any = SimpleNamespace(value=lambda _: ["o"], run=done.append, as_owner=lambda _: psql)
    place: Any = SimpleNamespace(superuser=psql)
    properties = {"owner": "o", "settings": None, "acl": None, "comment": None, "encoding": "UTF8", "locale": "c C C C"}
    census = Census("d", {"public.t": 1}, "", {**properties, "connection_limit": 0}, [], 1)

    def filled(*_: Any) -> Comparison:
        done.append("filled")
        return Comparison(census)

    monkeypatch.setattr(backup_logical, "restore", filled)
    logical = replace(record(7), census=census.as_dict())
    database_copy.from_logical(place, logical, "copy", "", "")
    created, _, *behind = done
    assert "LIMIT" not in created
    assert behind == ["filled", 'ALTER DATABASE "copy" CONNECTION LIMIT 0;']
    # The rows of a table are read by the owner, and the copy goes.
    database_copy.from_logical(place, logical, "copy", "public.t", "")
    assert done[-1] == "filled"


def test_a_table_is_named_as_it_is_written() -> None:
    """Quotes may be left out where one table alone is so called."""
    census = Census("d", {'a."b.c"': 1, '"a.b".c': 2, 'public."User"': 3}, "", {}, [], 1)
    for exact in census.tables:
        assert database_copy.table_of(census, exact) == exact
    assert database_copy.table_of(census, "User") == 'public."User"'
    with pytest.raises(DasTernError) as refusal:
        database_copy.table_of(census, "a.b.c")
    assert 'a."b.c" or "a.b".c' in refusal.value.message


def test_a_partitioned_table_is_named_like_any_other() -> None:
    census = Census("d", {'p."1"': 1, "p.two": 2, "public.t": 3}, "", {}, [], 1)
    parted = {"p.whole": ['p."1"', "p.half", "p.two"], 'public."User"': []}
    assert database_copy.tables_of(census, "p.whole", lambda: parted) == ("p.whole", ['p."1"', "p.two"])
    assert database_copy.tables_of(census, "User", lambda: parted) == ('public."User"', [])
    assert database_copy.tables_of(census, "t", lambda: pytest.fail("asked")) == ("public.t", ["public.t"])
    with pytest.raises(DasTernError, match="no table nope. Its tables: .*p.whole"):
        database_copy.tables_of(census, "nope", lambda: parted)


def test_the_partitions_of_an_archive() -> None:
    asked: list[str] = []

    def execute(command: Any, stdin: str = "") -> Output:
        if "--list" in command:
            return Output(0, "; head\n1; 1259 1 TABLE public TABLE ATTACH me\n2; 0 2 TABLE ATTACH a half me\n", "")
        asked.append(stdin)
        said = (
            "ALTER TABLE ONLY a.whole ATTACH PARTITION a.half DEFAULT;\n"
            'ALTER TABLE ONLY a.half ATTACH PARTITION "a b"."x\n""y" FOR VALUES IN (1);\n'
        )
        return Output(0, said, "")

    session: Any = SimpleNamespace(execute=execute)
    found = backup_logical.partitions(session, "/a")
    assert found == {"a.whole": ["a.half", '"a b"."x\n""y"'], "a.half": ['"a b"."x\n""y"']}
    assert asked == ["2; 0 2 TABLE ATTACH a half me\n"]


def test_every_role_that_a_database_names_has_to_be_there() -> None:
    psql: Any = SimpleNamespace(value=lambda _: ["owner", "reader"])
    properties = {"owner": "owner", "settings": {"": ["a=b"], "gone": ["a=b"]},
                  "acl": ["=Tc/owner", "owner=CTc/owner", 'reader=c/owner', '"the ""monitor"=c/reader', "x=c/granter"]}  # fmt: skip
    with pytest.raises(DasTernError) as refusal:
        database_copy._refuse_missing_roles(psql, properties)
    assert 'no role gone, granter, the "monitor,' in refusal.value.message


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ' TABLESPACE "pg_default"'),
        ({"tablespace": "pg_default", "is_template": False}, ' TABLESPACE "pg_default"'),
        ({"tablespace": "one", "is_template": True}, ' TABLESPACE "one" IS_TEMPLATE true'),
        ({"tablespace": "gone", "is_template": False}, ""),  # a difference, which the comparison says
    ],
)
def test_a_database_gets_its_tablespace_where_the_server_has_it(more: dict[str, Any], words: str) -> None:
    ran: list[str] = []
    there = {"pg_roles": ["owner"], "pg_tablespace": ["pg_default", "pg_global", "one"]}
    psql: Any = SimpleNamespace(run=ran.append, value=lambda query: there[query.rpartition(" ")[2]])
    properties = {"owner": "owner", "settings": None, "acl": None, "comment": None, "connection_limit": -1,
                  "encoding": "UTF8", "locale": "c C C C", **more}  # fmt: skip
    database_copy.create(psql, "new", Census("d", {}, "", properties, [], 1))
    made = ran[0].replace(" CONNECTION LIMIT -1", "")
    assert made.partition(" LC_CTYPE 'C'")[2] == f"{words};"


def test_a_template_is_dropped_all_the_same() -> None:
    ran: list[str] = []

    def execute(_: str, command: Any, stdin: str, **__: Any) -> Output:
        ran.append(stdin)
        fails = "IS_TEMPLATE" not in stdin
        return (
            Output(3, "", "psql:<stdin>:1: ERROR:  42809: cannot drop a template database\n")
            if fails
            else Output(0, "", "")
        )

    containers: Any = SimpleNamespace(execute=execute)
    Psql(containers, "pg").drop_database("d")
    drop = 'DROP DATABASE IF EXISTS "d" WITH (FORCE);\n'
    assert ran == [drop, f'ALTER DATABASE "d" IS_TEMPLATE false;\n{drop}']
