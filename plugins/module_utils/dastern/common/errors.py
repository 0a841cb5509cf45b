"""The only exception that this project's own code raises to an operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .text import shown


class DasTernError(Exception):
    """A refusal or failure, worded for an operator.

    `message` names the thing, the value found, the value expected and the command that fixes it: one line, or several
    where a sequence is given. A name or a server's text within it can neither begin a line of its own nor move the cursor.
    `facts` say the same in machine-readable form; a module returns them beside `msg`.
    """

    def __init__(self, message: str | Sequence[str], **facts: Any) -> None:
        lines = [message] if isinstance(message, str) else message
        self.message = "\n".join(shown(line) for line in lines)
        super().__init__(self.message)
        self.facts = facts
