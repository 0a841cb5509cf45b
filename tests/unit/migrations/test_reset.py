"""A reset: which database is ever emptied, and of what; with a server that pretends."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.migrations import reset as migration_reset
from fake_session import Rows, Session

OBJECTS: Rows = [("table", "public.users"), ("type", "public.mood")]


@pytest.fixture
def reset(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(said: str | None = "development", check_mode: bool = False, **changes: Any) -> tuple[Any, list[str]]:
        def answer(query: str) -> Rows:
            if "dastern.environment" in query:
                return [(said,)]
            if "pg_try_advisory_lock" in query:
                return [(True,)]
            return OBJECTS if "pg_identify_object" in query else [("citext",)] if "pg_extension" in query else []

        session = Session(answer=answer)

        def connect(_: Any, __: str, settings: dict[str, str]) -> Session:
            session.sent.append(f"read only: {settings.get('default_transaction_read_only', 'off')}")
            return session

        monkeypatch.setattr(migration_reset, "connect", connect)
        params = {name: option.get("default") for name, option in migration_reset.ARGUMENT_SPEC.items()}
        own = {"database": "d", "environment": "development", "confirm": "d", **changes}
        try:
            return migration_reset.reset({**params, **own}, check_mode=check_mode), session.sent
        except DasTernError as refusal:
            return refusal, session.sent

    return run


def dropped(sent: list[str]) -> list[str]:
    return [one for one in sent if one.startswith("DROP")]


def test_all_of_a_schema_goes_in_one_transaction_under_the_lock(reset: Any) -> None:
    result, sent = reset()
    assert result == {"changed": True, "dropped": 3}
    assert sent[-5:] == [
        "BEGIN", "DROP table IF EXISTS public.users CASCADE", "DROP type IF EXISTS public.mood CASCADE", "DROP EXTENSION citext",
        "COMMIT",
    ]  # fmt: skip
    assert any("pg_try_advisory_lock" in one for one in sent[:-5])


def test_a_check_is_read_only_and_takes_no_lock(reset: Any) -> None:
    result, sent = reset(check_mode=True)
    assert result == {"changed": True, "dropped": 3}
    assert sent[0] == "read only: on"
    assert not any("advisory" in one or one.startswith(("BEGIN", "DROP")) for one in sent)


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("said", ["production", "staging", "", None])
def test_a_database_that_doesnt_say_that_it_is_for_development_stays(
    reset: Any, said: str | None, check_mode: bool
) -> None:
    refusal, sent = reset(said, check_mode)
    assert isinstance(refusal, DasTernError)
    assert dropped(sent) == []


@pytest.mark.parametrize(
    "changes", [{"environment": "production"}, {"environment": "staging"}, {"confirm": ""}, {"confirm": "other"}]
)
def test_an_inventory_of_another_kind_or_without_the_word_asks_nothing(reset: Any, changes: dict[str, str]) -> None:
    refusal, sent = reset(**changes)
    assert isinstance(refusal, DasTernError)
    assert refusal.facts == ({"confirm": "d"} if "confirm" in changes else {})
    assert sent == []
