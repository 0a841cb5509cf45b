"""Times relative to the day of seeding, on the clock of Asia/Phnom_Penh."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

_EXPRESSION = re.compile(r"today(?:([+-])(\d{1,5})([dw]))?(?: ([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?)?")


def is_day_expression(text: Any) -> bool:
    """Return whether `text` is `today`, optionally with days or weeks added or subtracted and a time of day."""
    return isinstance(text, str) and _EXPRESSION.fullmatch(text) is not None


def moment(text: str, today: date, offset: str = "+07:00") -> str:
    """Return `text` in ISO 8601; `today` is the day of seeding, `offset` the zone's offset from UTC.

    Without a time of day it is midnight, of which a `date` column keeps the day.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time relative to today: {text!r}")
    sign, amount, unit, hour, minute, second = match.groups()
    days = int(amount or 0) * (7 if unit == "w" else 1) * (-1 if sign == "-" else 1)
    day = today + timedelta(days=days)
    return f"{day.isoformat()}T{hour or '00'}:{minute or '00'}:{second or '00'}.000{offset}"
