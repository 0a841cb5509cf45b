"""Connecting: what the operator's shell can't change, and who isn't the server itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server import connection
from fake_session import Result, Session


@pytest.fixture
def params(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "password").write_text("x\n")
    return {"host": "h", "port": 5432, "database": "d", "user": "u", "password_file": str(tmp_path / "password")}


@pytest.mark.parametrize(("process", "itself"), [("42", True), ("41", False)])
def test_behind_a_pooler_nothing_is_done(
    params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, process: str, itself: bool
) -> None:
    """The protocol names another process than the server does: locks and settings of a session would be another client's next."""
    session = Session(message=lambda _: Result(process))
    monkeypatch.setattr(psycopg, "connect", lambda **_: session)
    if itself:
        assert connection.connect(params, "test") is session  # type: ignore[comparison-overlap]
        assert not session.closed
    else:
        with pytest.raises(DasTernError) as refusal:
            connection.connect(params, "test")
        assert (refusal.value.facts, session.closed) == ({"code": "P1001", "pooler": True}, True)


def test_the_shells_variables_say_nothing_of_where_it_goes(
    params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.1")
    monkeypatch.setenv("PGOPTIONS", "-c role=postgres")
    monkeypatch.setattr(
        psycopg, "connect", lambda **options: asked.update(options, shell=[*os.environ]) or Session(message=lambda _: Result("42"))
    )  # fmt: skip
    connection.connect(params, "test", {"search_path": 'a\\b "c"'})
    assert not [name for name in asked["shell"] if name.startswith("PG")]
    assert (asked["host"], asked["password"], asked["autocommit"]) == ("h", "x", True)
    assert asked["options"] == '-c client_connection_check_interval=2s -c search_path=a\\\\b\\ "c"'
