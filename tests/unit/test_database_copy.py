"""A database or table of a backup whose rows nobody could count; with a site that pretends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern import database_copy
from ansible.module_utils.dastern.census import Census
from ansible.module_utils.dastern.comparison import Comparison
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.restore_target import Target
from test_backup_retention import record


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


def test_a_table_is_named_as_it_is_written() -> None:
    """Quotes may be left out where one table alone is so called."""
    census = Census("d", {'a."b.c"': 1, '"a.b".c': 2, 'public."User"': 3}, "", {}, [], 1)
    for exact in census.tables:
        assert database_copy.table_of(census, exact) == exact
    assert database_copy.table_of(census, "User") == 'public."User"'
    with pytest.raises(DasTernError) as refusal:
        database_copy.table_of(census, "a.b.c")
    assert 'a."b.c" or "a.b".c' in refusal.value.message


def test_every_role_that_a_database_names_has_to_be_there() -> None:
    psql: Any = SimpleNamespace(value=lambda _: ["owner", "reader"])
    properties = {"owner": "owner", "settings": {"": ["a=b"], "gone": ["a=b"]},
                  "acl": ["=Tc/owner", "owner=CTc/owner", 'reader=c/owner', '"the ""monitor"=c/reader', "x=c/granter"]}  # fmt: skip
    with pytest.raises(DasTernError) as refusal:
        database_copy._make_roles_known(psql, properties)
    assert 'no role gone, granter, the "monitor,' in refusal.value.message
