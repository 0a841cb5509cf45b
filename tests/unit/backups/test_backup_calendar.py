"""When a backup is due: on the clock of Asia/Phnom_Penh, whatever the host's zone."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from ansible.module_utils.dastern.backups.calendar import Calendar, moment
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.quantities import CLOCK, local

NIGHTLY = Calendar("02:30", "sunday")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_clock_is_that_of_the_zone() -> None:
    for year in (1990, 2026, 2040):
        for month in (1, 7):
            at = datetime(year, month, 1, tzinfo=UTC)
            assert at.astimezone(CLOCK).utcoffset() == at.astimezone(ZoneInfo("Asia/Phnom_Penh")).utcoffset()


@pytest.mark.parametrize(
    ("now", "last", "following"),
    [
        # 02:30 in Phnom Penh is 19:30 UTC of the day before.
        ("2026-02-08T19:29:59", "2026-02-07T19:30:00", "2026-02-08T19:30:00"),
        ("2026-02-08T19:30:00", "2026-02-08T19:30:00", "2026-02-09T19:30:00"),
        ("2026-02-08T23:59:59", "2026-02-08T19:30:00", "2026-02-09T19:30:00"),
        ("2026-02-09T00:00:00", "2026-02-08T19:30:00", "2026-02-09T19:30:00"),
        ("2026-12-31T17:00:00", "2026-12-30T19:30:00", "2026-12-31T19:30:00"),
    ],
)
def test_last_and_next_across_midnight_of_either_clock(now: str, last: str, following: str) -> None:
    assert NIGHTLY.last(utc(now)) == utc(last)
    assert NIGHTLY.next(utc(now)) == utc(following)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Chatham"])
def test_the_host_s_zone_changes_nothing(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert NIGHTLY.next(utc("2026-03-08T06:00:00")) == utc("2026-03-08T19:30:00")
        assert local(NIGHTLY.next(utc("2026-03-08T06:00:00"))) == "2026-03-09 02:30:00 +07:00"
    finally:
        monkeypatch.undo()
        os.environ.pop("TZ", None)
        time.tzset()


def test_the_day_of_the_full_one_is_a_day_in_phnom_penh() -> None:
    # Sunday 02:30 there is Saturday 19:30 UTC.
    sunday = utc("2026-02-07T19:30:00")
    assert sunday.astimezone(CLOCK).strftime("%A") == "Sunday"
    assert NIGHTLY.last(sunday, full=True) == sunday
    assert NIGHTLY.last(sunday - timedelta(seconds=1), full=True) == sunday - timedelta(days=7)
    assert NIGHTLY.last(sunday + timedelta(days=6, hours=23), full=True) == sunday
    daily = Calendar("23:00", "daily")
    assert daily.last(sunday, full=True) == daily.last(sunday) == utc("2026-02-07T16:00:00")


@pytest.mark.parametrize("time_of_day", ["1350", "24:00", "2:30", "02:30:00", ""])
def test_a_time_that_is_none_is_refused(time_of_day: str) -> None:
    with pytest.raises(DasTernError, match="backup_schedule_time.*in quotes"):
        Calendar(time_of_day, "sunday")


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(DasTernError, match="backup_schedule_full.*`Sonntag`.*sunday or daily"):
        Calendar("02:30", "Sonntag")


def test_a_text_without_a_zone_or_a_date_gives_no_moment() -> None:
    assert moment("2026-02-08T02:30:00+07:00") == datetime(2026, 2, 8, 2, 30, tzinfo=timezone(timedelta(hours=7)))
    for text in (None, "", "yesterday", "2026-02-08T02:30:00"):
        assert moment(text) is None
