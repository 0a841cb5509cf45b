"""Names, strings and durations as PostgreSQL writes them."""

from __future__ import annotations

import re
from typing import Any

from .errors import DasTernError

_DURATION = re.compile(r"\d+ ?(us|ms|s|min|h|d)?")


def identifier(*names: str) -> str:
    """`names` as a quoted, and where they are several a qualified, identifier."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: str) -> str:
    """`value` as a SQL string, whatever standard_conforming_strings is."""
    quoted = value.replace("'", "''")
    return "'" + quoted + "'" if "\\" not in value else " E'" + quoted.replace("\\", "\\\\") + "'"


def duration(variable: str, value: Any) -> str:
    """`value` if it is a time as the server takes it (a bare number is milliseconds), else a refusal of `variable`."""
    if not _DURATION.fullmatch(str(value)):
        raise DasTernError(
            f"`{variable}` is {value!r}; wanted is a duration as PostgreSQL writes it, such as 500ms, 10s or 5min "
            "(0 switches it off)."
        )
    return str(value)
