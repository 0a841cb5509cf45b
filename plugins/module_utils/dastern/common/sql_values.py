"""Names, strings and durations as PostgreSQL writes them."""

from __future__ import annotations

import re
from typing import Any

from .errors import DasTernError

_DURATION = re.compile(r"\d+ ?(us|ms|s|min|h|d)?")


def identifier(*names: str) -> str:
    """Return `names` as a quoted identifier, qualified where there are several."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def new_database(variable: str, name: str, longest: int = 63) -> None:
    """Refuse a name that PostgreSQL's programs would misread, or that is longer than `longest` bytes.

    libpq reads a database name with `=` or `://` as a connection string, which leads to another server.
    """
    wrong = ""
    if "=" in name or "://" in name:
        wrong = "libpq reads a name with `=` or `://` as a connection string"
    elif any(ord(character) < 32 or ord(character) == 127 for character in name):
        wrong = "a name can't hold control characters"
    elif name in ("postgres", "template0", "template1"):
        wrong = "this database belongs to the server itself"
    elif not 1 <= len(name.encode()) <= longest:
        wrong = f"the name has {len(name.encode())} bytes, and 1 to {longest} are allowed"
    if wrong:
        raise DasTernError(
            f"`{variable}` is {name!r}: {wrong}. Nothing was done. Expected: the name of a new database."
        )


def literal(value: str) -> str:
    """Return `value` as a SQL string that is right under either setting of standard_conforming_strings."""
    quoted = value.replace("'", "''")
    return "'" + quoted + "'" if "\\" not in value else " E'" + quoted.replace("\\", "\\\\") + "'"


def duration(variable: str, value: Any) -> str:
    """Return `value` if it is a time as the server takes it (a bare number is milliseconds), else refuse `variable`."""
    if not _DURATION.fullmatch(str(value)):
        raise DasTernError(
            f"`{variable}` is {value!r}; expected a duration as PostgreSQL writes it, such as 500ms, 10s or 5min "
            "(0 switches it off)."
        )
    return str(value)


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(variable: str, value: Any) -> float:
    """Return a `duration` in seconds."""
    number, unit = re.fullmatch(r"(\d+) ?([a-z]*)", duration(variable, value)).groups()  # type: ignore[union-attr]
    return int(number) * _SECONDS[unit or "ms"]


def scratch_stem(database: str) -> str:
    """Return as much of the name as fits in front of `_scratch_` and 16 digits within PostgreSQL's 63 bytes."""
    return database.encode()[:38].decode(errors="ignore")


def name_pattern(database: str) -> str:
    """Return a regular expression, for Python and PostgreSQL, that matches the scratch databases of `database`."""
    return f"^{re.escape(scratch_stem(database))}_scratch_[0-9a-f]{{16}}$"
