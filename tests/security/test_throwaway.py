"""The server that a drill makes may run an application's code as superuser: from it nothing else is reached."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import REACHED, SPRUNG


@pytest.mark.parametrize("kind", ["logical", "physical"])
@pytest.mark.parametrize("what", REACHED)
def test_what_a_drill_can_reach(struck: Any, careless_container: dict[str, bool], kind: str, what: str) -> None:
    assert careless_container[what]
    assert not struck.around[kind][what]


def test_the_code_of_a_logical_backup_ran_there(struck: Any) -> None:
    """So that what is above is about something."""
    assert struck.around["logical"][SPRUNG]
    assert struck.server.superusers() == ["postgres"]
