"""Times, sizes and lists in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

ZONE = "Asia/Phnom_Penh"
"""Where backups are scheduled and people read the clock, whatever the zone of a host."""
# Seven hours, summer and winter, since 1920; a small host has no zone files to ask.
CLOCK = timezone(timedelta(hours=7), ZONE)
_OFFSET = "+07:00"


def duration(seconds: float) -> str:
    """`3 d 4 h`, `5 min`: the two largest units that matter."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def local(when: datetime | str | float, now: datetime | None = None, *, exact: bool = False) -> str:
    """A moment for a person, in the form that a restore takes as its target: `2026-11-30 13:38:00 +07:00`.

    `when` may be ISO 8601 with an offset, or seconds since 1970; a text that isn't a moment is given back as it is. With
    `now` the age is added: `... (16 min ago)`. `exact` keeps fractions of a second.
    """
    if isinstance(when, str):
        try:
            found = datetime.fromisoformat(when)
        except ValueError:
            return when
        if found.tzinfo is None:
            return when
        when = found
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
    """Bytes in words, in steps of 1024 as PostgreSQL's `pg_size_pretty`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def cut(words: Sequence[str], most: int) -> list[str]:
    """The first of `words`, `most` of them, and how many more there are."""
    return [*words[:most], f"... and {len(words) - most} more"] if len(words) > most else list(words)
