"""Which backup and which point of the write-ahead log a restore goes to, from what an operator asks for.

Whatever is asked for becomes a named target. What can't be reached is refused here where it can be seen (older than the
oldest backup, newer than the archive, behind a gap of it), else by PostgreSQL itself at the end of its recovery.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .backup_physical import PAGES, fault, needs, wait_until_archived
from .backup_records import Record
from .commands import playbook
from .errors import DasTernError
from .pgbackrest import CRYPTO, SEGMENT, WAL_FILE, position, segment_name, segment_number
from .quantities import cut, local
from .received import GET, Received, forks
from .restored_server import RestoredServer, Site, errors_of, info
from .sql_values import literal
from .survey import PGDATA

TARGETS = "`latest`, a backup's label or name, a time with its offset, an LSN, a transaction's number, or the name of a restore point"
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_OFFSET = re.compile(r" ?(Z|[+-]\d\d(:?\d\d)?)$")
# A transaction that has a number is there so that a recovery to a time has a commit to stop before.
_MARK = """
SELECT json_build_object('xid', pg_current_xact_id()::text);
SELECT json_build_object('lsn', pg_create_restore_point({point})::text, 'timeline', timeline_id) FROM pg_control_checkpoint();
SELECT json_build_object('file', pg_walfile_name(pg_switch_wal()));
"""
# The newest first; the one behind stays for a record that reaches into it. /tmp holds four.
_SEARCH = rf"""
{GET}
former=
while read -r segment; do
  get "$2" "$segment" "/tmp/$segment" || exit 3
  found=$(pg_waldump "/tmp/$segment" 2>/dev/null | grep -E -m 1 -- "$1")
  if [ -n "$found" ]; then printf '%s %s\n' "$segment" "$found"; exit 0; fi
  rm -f "/tmp/$former"
  former=$segment
done
"""
_SYSTEM = "SELECT to_json(system_identifier::text) FROM pg_control_system()"


@dataclass(frozen=True)
class Target:
    """Where to; `words` say it to a person."""

    label: str
    """The physical backup that it begins with."""
    words: str
    timeline: int
    recovery: dict[str, str]
    """PostgreSQL's settings; empty for the end of `segment`, which is only known when the files are there."""
    own: bool = False
    """Whether this is the backup's own restore point, so that its census has to be found."""
    segment: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)
    """`Archive.sums`"""
    moment: datetime | None = None

    def settings(self, server: RestoredServer) -> dict[str, str]:
        recovery = self.recovery or {"recovery_target_lsn": server.end_of(self.segment, self.sums)}
        return {**recovery, "recovery_target_timeline": str(self.timeline)}


class Archive:
    """The archived segments and those received, by timeline and number, and pgBackRest's own list of backups."""

    def __init__(self, site: Site) -> None:
        told = info(site)
        self.site = site
        self.backups: list[dict[str, Any]] = told["backup"]
        self.id = str(told["archive"][-1]["id"])
        listing = json.loads(site.pgbackrest("repo-ls", "--recurse", "--output=json", "archive/dastern") or "{}")
        self.segments: dict[int, dict[int, float]] = {}
        """When each was archived or received, in seconds since 1970."""
        self.sums: dict[str, str] = {}
        """SHA-1 of each that is complete; '' for one that only the receiver has, which keeps none."""
        self.forks: dict[int, list[tuple[int, int]]] = {}
        """For each timeline that began at another: its ancestors, and where each was left."""
        self.system = str(told["db"][-1]["system-id"])
        """Identifier of the cluster whose log it takes."""
        received = Received(site.backups, self.system)
        self.forks |= received.forks
        self.damaged = {timeline: str(path) for timeline, path in received.damaged.items()}
        """Histories of timelines that can't be read."""
        for path, entry in listing.items():
            if (found := WAL_FILE.search(path)) and found[1] == self.id:
                self.segments.setdefault(int(found[2][:8], 16), {})[segment_number(found[2])] = float(
                    entry.get("time", 0)
                )
                self.sums[found[2]] = found[3]
            elif path.startswith(self.id) and path.endswith(".history"):
                timeline = int(path[-16:-8], 16)
                try:
                    self.forks[timeline] = forks(site.pgbackrest("repo-get", f"archive/dastern/{path}"), timeline)
                    self.damaged.pop(timeline, None)
                except ValueError:
                    self.damaged[timeline] = f"{path[-16:]} in the archive"
                except DasTernError as refusal:  # encrypted, it can't even be read
                    if "status" in refusal.facts or (site.repository != 1 and f"[{CRYPTO}]" not in refusal.message):
                        raise  # it was ended, or the line broke
                    self.damaged[timeline] = f"{path[-16:]} in the archive"
        self.received: set[tuple[int, int]] = set()
        """Those of them that only the receiver of zero loss has."""
        for line, numbers in received.times().items():
            for number in numbers.keys() - self.segments.get(line, {}).keys():
                self.segments.setdefault(line, {})[number] = numbers[number]
                self.received.add((line, number))
                if (name := segment_name(line, number)) in received.complete:
                    self.sums[name] = ""

    def newest(self) -> tuple[int, int]:
        """Timeline and number of the segment that came last."""
        times = [(at, number, line) for line, one in self.segments.items() for number, at in one.items()]
        if not times:
            raise DasTernError(
                f"No write-ahead log is in the archive in {self.site.backups}: nothing can be recovered."
            )
        _, number, line = max(times)
        return line, number

    def line_at(self, moment: float) -> int | None:
        """The timeline whose log holds a moment: the first segment that was archived after it."""
        times = [(at, line) for line, one in self.segments.items() for at in one.values() if at >= moment]
        return min(times)[1] if times else None

    def end_of_line(self, timeline: int, line: int) -> int | None:
        """Where the history of `timeline` left `line`; None for itself, -1 for one that isn't in its history."""
        return None if line == timeline else dict(self.forks.get(timeline, [])).get(line, -1)

    def holder(self, timeline: int, number: int) -> int:
        """The timeline whose files hold segment `number` for a recovery along `timeline`."""
        for line, end in self.forks.get(timeline, []):
            if number < end // SEGMENT:
                return line
        return timeline

    def reach(self, label: str, timeline: int) -> tuple[int, bool]:
        """The last segment that can be reached from a backup, and whether others are behind a gap."""
        number = segment_number(self.backup(label)["archive"]["start"])
        last = max(self.segments.get(timeline, {0: 0}))
        while number < last and number + 1 in self.segments.get(self.holder(timeline, number + 1), {}):
            number += 1
        return number, number < last

    def faults(self, records: list[Record]) -> dict[str, str]:
        """What is known to be wrong with backups, or with what they are built upon, by label."""
        found = {record.label: why for record in records if (why := fault(record))}
        for one in self.backups:
            if one.get("error"):  # of a time when nobody looked at that
                found.setdefault(one["label"], PAGES)
            for base in needs(one):
                if base in found:
                    found.setdefault(one["label"], f"it needs {base}, which isn't right")
        return found

    def refuse_unknown(self, timeline: int) -> None:
        """Refuse where it can't be said which backups lead to a timeline."""
        if path := self.damaged.get(timeline):
            raise DasTernError(
                f"{path}, the history of timeline {timeline}, isn't what was written: by it is known which backups lead there. Nothing "
                "was done. Put the file of that name there that is in `pg_wal` of the data directory or in another repository, into the "
                "archive by `pgbackrest archive-push`; or "
                "restore a backup from before that timeline at its own end (`-e target=LABEL`)."
            )

    def choose(
        self, records: list[Record], timeline: int, before: Callable[[dict[str, Any]], bool], number: int, what: str
    ) -> tuple[dict[str, Any], str]:
        """The newest backup that is complete before the target in segment `number` and on the way to it, and words that name it.

        One that is known not to be right is passed over where another leads there without a gap.
        """
        self.refuse_unknown(timeline)
        known = {record.label for record in records}
        usable = [one for one in self.backups if one["label"] in known]
        there = []
        for backup in reversed(usable):
            end = self.end_of_line(timeline, int(backup["archive"]["start"][:8], 16))
            if before(backup) and (end is None or position(backup["lsn"]["stop"]) <= end):
                there.append(backup)
        if there:
            bad = self.faults(records)
            backup = max(
                there, key=lambda one: (self.reach(one["label"], timeline)[0] >= number, one["label"] not in bad)
            )
            words = f"from backup {backup['label']}"
            if why := bad.get(backup["label"]):
                return backup, f"{words}, which isn't good, as no other that leads there is: {why}"
            passed = [one["label"] for one in there[: there.index(backup)]]
            if passed:
                words += f"; {', '.join(passed)} {'is' if len(passed) == 1 else 'are'} damaged and passed over"
            return backup, words
        if not usable:
            raise DasTernError(
                f"None of the {len(self.backups)} backups in the repository has a record, by which what is restored is compared. "
                "Nothing was done. `ansible-playbook playbooks/list_backups.yml` shows what is in the first repository."
            )
        raise DasTernError(
            f"{what} is older than the oldest backup that leads there: {usable[0]['label']} was complete at {_time(usable[0])} "
            f"({usable[0]['lsn']['stop']}). Nothing was done. `ansible-playbook playbooks/list_backups.yml` shows what can be restored."
        )

    def backup(self, label: str) -> dict[str, Any]:
        for backup in self.backups:
            if backup["label"] == label:
                return backup
        raise DasTernError(
            f"Backup {label} has a record, but isn't in pgBackRest's repository any more. Take another one: "
            "`ansible-playbook playbooks/list_backups.yml`."
        )


def resolve(site: Site, target: str, *, check_mode: bool) -> tuple[Target, Record]:
    """Target and the record of the backup that it begins with. Out of check mode the live server's log is archived first."""
    archive = Archive(site)
    records = site.records(archive.backups)
    named = next((record for record in records if target in (record.label, record.name or None)), None)
    moment = None if named else _moment(target)
    if named:
        backup = archive.backup(named.label)
        timeline = int(backup["archive"]["start"][:8], 16)
        words = f"backup {named.label} at its own restore point"
        if why := archive.faults(records).get(named.label):
            words += f", which isn't good: {why}"
        return Target(
            named.label,
            words,
            timeline,
            {"recovery_target_name": named.restore_point},
            True,
            moment=_parsed(named.began),
        ), named
    mark = None
    # One that was made after the archive's own was lost archives nothing into it, and isn't what is to come back.
    live = site.answers() and _lives(site, archive)
    if live and not check_mode:
        mark = _archived(site, target == "latest")
        archive = Archive(site)
    timeline = archive.newest()[0]
    if mark:
        timeline = mark["timeline"]
    if target == "latest":
        return _latest(site, archive, records, timeline, mark, live)
    if moment is not None:
        return _at(archive, records, target, moment, live and check_mode)
    lsn, what = target.upper(), f"LSN {target}"
    if not _LSN.fullmatch(target):
        xid = target.isdigit()
        what = f"The commit of transaction {target}" if xid else f"Restore point `{target}`"
        pattern = rf"tx: +{target}, .*desc: COMMIT" if xid else rf"desc: RESTORE_POINT {re.escape(target)}$"
        lsn = _found(site, archive, timeline, pattern, target, what)
    backup, origin = archive.choose(
        records, timeline, lambda one: position(one["lsn"]["stop"]) <= position(lsn), position(lsn) // SEGMENT, what
    )
    last, gap = archive.reach(backup["label"], timeline)
    # A check archives nothing: what the live server has written will be there.
    written = check_mode and live and not gap and position(lsn) <= position(_written(site))
    if position(lsn) // SEGMENT > last and not written:
        raise DasTernError(
            f"{what} is "
            + (f"behind a gap of the archive, in which {segment_name(timeline, last + 1)} is missing" if gap
               else f"newer than the archive, which ends with {segment_name(archive.holder(timeline, last), last)}")
            + ". Nothing was done. An earlier target can be reached."
        )  # fmt: skip
    words = f"{what} ({lsn}), {origin}" if lsn != target else f"{what}, {origin}"
    return Target(backup["label"], words, timeline, {"recovery_target_lsn": lsn}), _record(records, backup)


def _lives(site: Site, archive: Archive) -> bool:
    """Whether the cluster that runs is the one whose log the archive takes."""
    return bool(site.psql.value(_SYSTEM) == archive.system)


def _latest(
    site: Site, archive: Archive, records: list[Record], timeline: int, mark: dict[str, Any] | None, live: bool
) -> tuple[Target, Record]:
    backup, words = archive.choose(
        records, timeline, lambda one: True, max(archive.segments.get(timeline, {0: 0})), "The newest state"
    )
    last, gap = archive.reach(backup["label"], timeline)
    if gap:
        lsn = f"{last * SEGMENT >> 32:X}/{last * SEGMENT & 0xFFFFFFFF:X}"
        raise DasTernError(
            f"The archive has a gap behind backup {backup['label']}: {segment_name(archive.holder(timeline, last + 1), last + 1)} is "
            "missing, and what comes later can't be reached. Nothing was done. What is before the gap: "
            f"`{playbook('restore', target=lsn)}`, a time before it, or `{playbook('restore', target=backup['label'])}`."
        )
    record = _record(records, backup)
    if mark or live:
        name = mark["name"] if mark else "the restore point written then"
        return Target(
            backup["label"], f"what the live server holds now, {words}", timeline, {"recovery_target_name": name}
        ), record
    holder = archive.holder(timeline, last)
    end = segment_name(holder, last)
    what = "what the receiver has" if (holder, last) in archive.received else "the archive"
    words = f"the end of {what} ({end}), {words}"
    return Target(backup["label"], words, timeline, {}, segment=end, sums=archive.sums), record


def _at(archive: Archive, records: list[Record], text: str, moment: datetime, later: bool) -> tuple[Target, Record]:
    timeline = archive.line_at(moment.timestamp())
    if timeline is None:
        if not later:
            raise DasTernError(
                f"{text} is newer than the archive, whose last segment came at "
                f"{local(max(at for one in archive.segments.values() for at in one.values()))}. Nothing was done; "
                "`-e target=latest` restores all of it."
            )
        timeline = archive.newest()[0]
    number = min((n for n, at in archive.segments.get(timeline, {}).items() if at >= moment.timestamp()), default=0)
    backup, words = archive.choose(
        records, timeline, lambda one: float(one["timestamp"]["stop"]) < moment.timestamp(), number, f"Time {text}"
    )
    recovery = {"recovery_target_time": moment.isoformat(sep=" ")}
    words = f"{local(moment, exact=True)}, {words}"
    return Target(backup["label"], words, timeline, recovery, moment=moment), _record(records, backup)


def _moment(text: str) -> datetime | None:
    """A time of the operator's; None if it isn't one. One without an offset would be read as the server's own zone."""
    if not _DATE.match(text):
        return None
    moment = None
    try:
        moment = datetime.fromisoformat(_OFFSET.sub(r"\1", text))
    except ValueError:
        pass
    if moment is None or not _OFFSET.search(text[10:]) or moment.tzinfo is None:
        raise DasTernError(
            f"Target time `{text}` {'is not a time' if moment is None else 'says no offset from UTC'}. Written so it is "
            '10:30 in Phnom Penh: `-e target="2026-02-08 10:30:00 +07:00"`. Nothing was done.'
        )
    if moment > datetime.now(UTC):
        raise DasTernError(f"Target time {text} is in the future. Nothing was done; `-e target=latest` is now.")
    return moment


def _archived(site: Site, latest: bool) -> dict[str, Any]:
    """Mark the live server's log, and wait until all up to there is in the archive."""
    name = f"das-tern-{'latest' if latest else 'restore'}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    mark: dict[str, Any] = {"name": name}
    for line in site.psql.run(_MARK.format(point=literal(name))).split("\n"):
        mark |= json.loads(line) if line.strip() else {}
    if site.psql.run("SHOW archive_mode;").strip() == "off":
        raise DasTernError(
            "The live server doesn't archive its write-ahead log (archive_mode is off): there is nothing to recover with but "
            "each backup's own end. Name a backup (`-e target=LABEL`), or set `postgres_wal_archive: true` for the next time."
        )
    wait_until_archived(
        site.place, mark["file"], site.repository,
        "Nothing was restored; a backup's own end can be, without what lacks (`-e target=LABEL`).",
    )  # fmt: skip
    return mark


def _written(site: Site) -> str:
    return site.psql.run("SELECT pg_current_wal_lsn();").strip()


def _found(site: Site, archive: Archive, timeline: int, pattern: str, target: str, what: str) -> str:
    """Where a record of the archived log begins; searched from the newest segment backwards."""
    archive.refuse_unknown(timeline)
    if not archive.backups or not site.look()["cluster"] or (site.answers() and not _lives(site, archive)):
        raise DasTernError(
            f"{what} can't be looked for without the data directory of its cluster. Nothing was done; name a backup, a time or an LSN."
        )
    first = segment_number(archive.backups[0]["archive"]["start"])
    last = max(archive.segments.get(timeline, {0: 0}))
    names = [
        segment_name(archive.holder(timeline, number), number)
        for number in range(last, first - 1, -1)
        if number in archive.segments.get(archive.holder(timeline, number), {})
    ]
    done = site.once(_SEARCH, pattern, PGDATA, stdin="\n".join(names) + "\n")
    hit = re.search(r" lsn: ([0-9A-F]+/[0-9A-F]+),", done.out)
    if done.rc:
        raise DasTernError(f"The archive can't be searched: {errors_of(done)}.")
    if hit is None:
        there = ", ".join(cut([record.called for record in site.records(archive.backups)], 10))
        raise DasTernError(
            f"{what} isn't in the archived write-ahead log (a check doesn't archive what is newest), and no backup is called `{target}`; backups: {there or 'none'}. "
            f"Nothing was done. A target is {TARGETS}."
        )
    return hit[1]


def _record(records: list[Record], backup: dict[str, Any]) -> Record:
    return next(record for record in records if record.label == backup["label"])


def _time(backup: dict[str, Any]) -> str:
    return local(float(backup["timestamp"]["stop"]))


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)
