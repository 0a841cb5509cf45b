"""Times, sizes and lists as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

ZONE = "Asia/Phnom_Penh"
"""Time zone of the backup schedule and of the times that people read, whatever the zone of a host."""
# The offset has been seven hours, summer and winter, since 1920. A small host has no zone files to read it from.
CLOCK = timezone(timedelta(hours=7), ZONE)
_OFFSET = "+07:00"


def duration(seconds: float) -> str:
    """Return a duration in its one or two largest units, such as `3 d 4 h` or `5 min`."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def local(when: datetime | str | float, now: datetime | None = None, *, exact: bool = False) -> str:
    """Return a time for people to read, in the form that a restore takes as its target: `2026-11-30 13:38:00 +07:00`.

    `when` may be ISO 8601 with an offset, or seconds since 1970. A text that isn't such a time is returned as it is. `now`
    adds the age: `... (16 min ago)`. `exact` keeps fractions of a second.
    """
    if isinstance(when, str):
        try:
            parsed = datetime.fromisoformat(when)
        except ValueError:
            return when
        if parsed.tzinfo is None:
            return when
        when = parsed
    elif not isinstance(when, datetime):
        when = datetime.fromtimestamp(when, timezone.utc)
    at = when.astimezone(CLOCK)
    fraction = f".{at.microsecond:06d}".rstrip("0").rstrip(".") if exact else ""
    words = f"{at:%Y-%m-%d %H:%M:%S}{fraction} {_OFFSET}"
    if now is None:
        return words
    seconds = (now - when).total_seconds()
    return f"{words} ({duration(seconds)} ago)" if seconds >= 0 else f"{words} (in {duration(-seconds)})"


def amount(size: float) -> str:
    """Return a number of bytes as text, in steps of 1024 like PostgreSQL's `pg_size_pretty`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def cut(words: Sequence[str], most: int) -> list[str]:
    """Return the first `most` of `words`, and how many more there are."""
    return [*words[:most], f"... and {len(words) - most} more"] if len(words) > most else list(words)
