"""When a backup is due, by the clock of Asia/Phnom_Penh, whatever the zone of the host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..common.errors import DasTernError
from ..common.quantities import CLOCK, ZONE

AHEAD = timedelta(minutes=5)
"""Tolerated clock skew. A backup further in the future was taken with a wrong clock."""
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True)
class Calendar:
    """A backup each day at `time`, a full one on the day `full` (a weekday, or `daily`)."""

    time: str
    full: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.time):
            raise DasTernError(
                f'`backup_schedule_time` is `{self.time}`. Expected: a time of day in {ZONE}, in quotes, such as "02:30".'
            )
        if self.full not in (*DAYS, "daily"):
            raise DasTernError(f"`backup_schedule_full` is `{self.full}`. Expected: {', '.join(DAYS)} or daily.")

    def last(self, now: datetime, *, full: bool = False) -> datetime:
        """Return the last moment, `now` included, at which a backup was due, or with `full` a full one."""
        local = now.astimezone(CLOCK)
        due = local.replace(hour=int(self.time[:2]), minute=int(self.time[3:]), second=0, microsecond=0)
        while due > local or (full and self.full not in ("daily", DAYS[due.weekday()])):
            due -= timedelta(days=1)
        return due

    def next(self, now: datetime) -> datetime:
        """Return the next moment after `now` at which a backup is due."""
        return self.last(now) + timedelta(days=1)


def moment(text: str | None) -> datetime | None:
    """Return a time that was written as ISO 8601, or None if there is none or it can't be read."""
    try:
        when = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return when if when.tzinfo else None
