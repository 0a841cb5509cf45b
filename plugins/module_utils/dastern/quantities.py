"""Times, sizes and lists in words."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """`3 d 4 h`, `5 min`: the two largest units that matter."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


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
