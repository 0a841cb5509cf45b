"""What may be deleted: backups, those from before migrations, what restores replaced, and the log that was received.

Each function is told what is there and what the time is, and returns what may go. Nothing is read or deleted here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..common.errors import DasTernError
from .calendar import AHEAD
from .pgbackrest import SEGMENT, segment_name
from .records import REASONS, WHOLE, Record

KEEP = {
    "full": {"count": 2, "days": 14},
    "diff": {"count": 4, "days": 14},
    "incr": {"count": 14, "days": 7},
    "logical": {"count": 5, "days": 30},
}
"""The defaults of `backup_keep`, by type of backup."""


def declared(given: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return `backup_keep` with its defaults; refuse what isn't a count and days for each type."""
    if wrong := [type_ for type_, limits in given.items() if limits and not isinstance(limits, Mapping)]:
        raise DasTernError(
            f"`backup_keep.{wrong[0]}` is `{given[wrong[0]]}`. Expected: `count` and `days`, such as {{count: 2, days: 14}}."
        )
    keep = {type_: {**limits, **(given.get(type_) or {})} for type_, limits in KEEP.items()}
    unknown = [name for name in given if name not in KEEP]
    unknown += [f"{type_}.{name}" for type_, limits in keep.items() for name in limits if name not in KEEP[type_]]
    if unknown:
        raise DasTernError(
            f"`backup_keep` has {', '.join(unknown)}. It takes {', '.join(KEEP)}, each with `count` and `days`."
        )
    for type_, limits in keep.items():
        for name, value in limits.items():
            least = 1 if name == "count" and type_ in WHOLE else 0
            if not str(value).isdecimal() or int(value) < least:
                raise DasTernError(
                    f"`backup_keep.{type_}.{name}` is `{value}`. Expected: a whole number, {least} or greater."
                )
            limits[name] = int(value)
    return keep


def surplus(
    records: Sequence[Record], keep: Mapping[str, Mapping[str, int]], at: datetime, needed: Collection[str] = ()
) -> list[Record]:
    """Return which of `records`, the newest first, may go at the time `at`: those beyond their count and their days.

    Only good backups count. The newest good one of each kind (and of each database, if logical) stays, and so do `needed`
    and every backup that a kept one is built upon. Where nothing is good, nothing goes. Logical backups from before
    migrations are left to `superseded`.

    While pages of the live database are damaged, each backup is a full one with these pages. Such backups expire among
    themselves, by the same count and days, and never displace a good one.
    """
    prior = {record.label: record.prior for record in records}
    counted: dict[tuple[str, str, bool], int] = {}
    newest: set[tuple[str, str, bool]] = set()
    kept = set(needed)
    candidates = [record for record in records if record.physical or record.reason not in REASONS]
    for record in candidates:
        database = "" if record.physical else record.database
        limits, damaged = keep[record.type], record.has_damaged_pages
        began = datetime.fromisoformat(record.began)
        beyond = any(
            (record.kind, database, pages) in newest
            and counted.get((record.type, database, pages), 0) >= limits["count"]
            for pages in {False, damaged}
        )
        if not beyond or (at - began).total_seconds() <= limits["days"] * 86400:
            kept.add(record.label)
        # A backup from a time when the clock was ahead stays, but takes the place of none that is really newer.
        if (record.good or damaged) and began <= at + AHEAD:
            group = (record.type, database, damaged)
            counted[group] = counted.get(group, 0) + 1
            newest.add((record.kind, database, damaged))
    for label in list(kept):  # where the clock was put back, a backup can seem older than the one it is built upon
        while label := prior.get(label, ""):
            kept.add(label)
    return [record for record in candidates if record.label not in kept]


def superseded(records: Sequence[Record], newest: str, keep: int, *, drilled: bool) -> list[Record]:
    """Return which of the logical backups from before migrations may go: `records` are one database's, the newest first.

    The newest backup of each of the last `keep` histories of migrations stays. A migration that fails again and again is
    backed up each time: that must not cost the backups from before other migrations. A backup that failed its drill, or
    came back with differences, stands for no history, and goes unless it is the one labelled `newest`. Where backups are
    `drilled`, one that wasn't does not replace one that was.
    """
    gone = []
    proved: dict[tuple[str, ...], bool] = {}
    """Whether the kept backup of each history counts as proved."""
    for record in records:
        if record.reason not in REASONS:
            continue
        history, good = tuple(record.migrations), not drilled or record.drilled is not None
        if record.drilled and (record.drilled.differences or not record.drilled.ok):
            stays = record.label == newest
        else:
            stays = (good and not proved[history]) if history in proved else len(proved) < max(keep, 1)
            if stays:
                proved[history] = good
        if not stays:
            gone.append(record)
    return gone


def overdue(entries: Sequence[dict[str, Any]], at: datetime) -> list[dict[str, Any]]:
    """Return which entries of `restore.json` were to be kept until `at` or earlier."""
    return [entry for entry in entries if datetime.fromisoformat(entry["until"]) <= at]


def received_surplus(
    files: Mapping[int, Mapping[str, Path]],
    forks: Sequence[tuple[int, int]],
    timeline: int,
    archived: Collection[str],
    oldest: str,
    receiving: bool,
) -> list[Path]:
    """Return the received files that nothing needs any more, for a server on `timeline` whose history has these `forks`.

    `files` are those of each timeline by the name of their segment. A segment may go if it is `archived`, under its own
    name or under that of the timeline that left it, or is from before the oldest backup, which begins with segment
    `oldest`. While the receiver is there (`receiving`), the newest segment of `timeline` stays: the receiver goes on with it.
    """
    # The segment in which each ancestor was left, by its name on this timeline.
    left = {ancestor: segment_name(timeline, end // SEGMENT) for ancestor, end in forks}
    gone = []
    for line, segments in files.items():
        newest = max(segments) if line == timeline and receiving else ""
        for name, path in sorted(segments.items()):
            heir = left.get(line, "")
            inherited = heir[8:] == name[8:] and heir in archived
            if name != newest and (name in archived or inherited or name[8:] < oldest[8:]):
                gone.append(path)
    return gone
