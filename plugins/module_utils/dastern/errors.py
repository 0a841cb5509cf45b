"""The one exception that this project's own code raises towards an operator."""

from __future__ import annotations

from typing import Any


class DasTernError(Exception):
    """A refusal or failure in words for an operator.

    `message` names the thing, the value found, the value wanted and the command that mends it.
    `facts` are the same in machine-readable form; a module returns them beside `msg`.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
