"""Which INVALID indexes count as left behind."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern.migrations.concurrent_indexes import Build


class Server:
    """Answers one query after the other."""

    def __init__(self, *answers: list[tuple[str, bool]]) -> None:
        self.answers = list(answers)

    def execute(self, *_: Any) -> Server:
        return self

    def fetchall(self) -> list[tuple[str, bool]]:
        return self.answers.pop(0)


LEFT = [("public.a_ccnew", False)]


@pytest.mark.parametrize(
    ("answers", "left"),
    [
        ([LEFT, LEFT], ["public.a_ccnew"]),
        ([LEFT, []], []),
        ([LEFT, [("public.a_ccnew", True)]], []),
        ([LEFT, [("public.b_ccnew", False)]], []),
        ([[]], []),
    ],
)
def test_what_ends_while_it_is_looked_at_was_not_left(answers: list[list[tuple[str, bool]]], left: list[str]) -> None:
    build = Build("REINDEX", None, None)
    assert build.invalid(Server(*answers)) == left  # type: ignore[arg-type]
