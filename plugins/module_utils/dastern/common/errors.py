"""The one exception that this project's own code raises towards an operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .text import shown


class DasTernError(Exception):
    """A refusal or failure in words for an operator.

    `message` names the thing, the value found, the value wanted and the command that mends it: one line, or `lines` where
    a sequence is given. A name or a server's words in it can't begin a line of their own, nor move the cursor.
    `facts` are the same in machine-readable form; a module returns them beside `msg`.
    """

    def __init__(self, message: str | Sequence[str], **facts: Any) -> None:
        lines = [message] if isinstance(message, str) else message
        self.message = "\n".join(shown(line) for line in lines)
        super().__init__(self.message)
        self.facts = facts
