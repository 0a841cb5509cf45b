"""The backup and the point of the write-ahead log that a restore goes to, found from an operator's request.

Every request becomes a named target. An unreachable target is refused here if that can be seen (older than the oldest
backup, newer than the archive, after a gap of it), else by PostgreSQL itself at the end of its recovery.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ..backups.pgbackrest import CRYPTO, SEGMENT, WAL_FILE, position, segment_name, segment_number
from ..backups.physical import needs, wait_until_archived
from ..backups.received import GET, Received, forks
from ..backups.records import PAGES, Record
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.quantities import cut, local
from ..common.sql_values import literal
from ..server.survey import PGDATA
from .restored_server import RestoredServer, Site, errors_of, info

TARGETS = "`latest`, a backup's label or name, a time with its offset, an LSN, a transaction's number, or the name of a restore point"
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LIKE_A_TIME = re.compile(r"[-+0-9TZ:., ]+")
_WRITTEN = 'For 10:30 in Phnom Penh write `-e target="2026-02-08 10:30:00 +07:00"`.'
_OFFSET = re.compile(r" ?(Z|[+-]\d\d(:?\d\d)?)$")
# The transaction takes a number, so that a recovery to a time has a commit to stop before.
_MARK = """
SELECT json_build_object('xid', pg_current_xact_id()::text);
SELECT json_build_object('lsn', pg_create_restore_point({point})::text, 'timeline', timeline_id) FROM pg_control_checkpoint();
SELECT json_build_object('file', pg_walfile_name(pg_switch_wal()));
"""
# The newest first; the segment after it stays for a record that reaches into it. /tmp holds four.
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
_CLUSTER = """
SELECT json_build_object('system', (SELECT system_identifier::text FROM pg_control_system()),
  'timeline', ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int)
"""
_CONTROL = r"""
LC_ALL=C pg_controldata "$1" | sed -En "s/^(Database system identifier|Latest checkpoint's TimeLineID): *//p"
"""
# When the first and the last transaction of a segment ended, by its own records, as a copy loses a file's time. The
# first segment of a timeline begins with the end of the former one.
_TIMES = rf"""
{GET}
while read -r segment from; do
  get "$1" "$segment" "/tmp/$segment" || exit 3
  printf '%s|' "$segment"
  TZ=UTC pg_waldump -r Transaction ${{from:+-s "$from"}} "/tmp/$segment" 2>/dev/null |
    sed -En 's/.* desc: (COMMIT|ABORT)(_PREPARED [0-9]+:)? ([0-9-]+ [0-9:.]+) UTC.*/\3/p' | sed -n '1p;$p' | tr '\n' '|'
  echo
  rm -f "/tmp/$segment"
done
"""
_PROBES = 8
"""The number of segments of a timeline that are read at once in search of a moment."""
_LATE = 600.0
"""The most seconds between the end of a backup and its last segment's arrival in the archive; with more, the files'
times aren't those of their archiving."""


@dataclass(frozen=True)
class Target:
    """The goal of a restore; `words` describe it to a person."""

    label: str
    """The physical backup with which the restore begins."""
    words: str
    timeline: int
    recovery: dict[str, str]
    """PostgreSQL's settings; empty for the end of `segment`, which is only known once the files are restored."""
    own: bool = False
    """Whether this is the backup's own restore point, so that the content has to match its census."""
    segment: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)
    """`Archive.sums`."""
    moment: datetime | None = None

    def settings(self, server: RestoredServer) -> dict[str, str]:
        recovery = self.recovery or {"recovery_target_lsn": server.end_of(self.segment, self.sums)}
        return {**recovery, "recovery_target_timeline": str(self.timeline)}


@dataclass(frozen=True)
class Stretch:
    """A segment of one timeline, and when the first and the last transaction in it ended, in seconds since 1970."""

    number: int
    first: float
    last: float

    def overlaps(self, other: Stretch) -> bool:
        return self.first <= other.last and other.first <= self.last


Around = tuple[Stretch | None, Stretch | None]
"""The last stretch of a timeline that began before a moment, and the first that began after it."""


def live_at(moment: float, around: Mapping[int, Around]) -> int | None:
    """Return the timeline that was live at a moment; None if more than one may have been, or none existed yet.

    One cluster is live at a time, so that their stretches follow each other, whatever was restored and undone. If they
    overlap, a clock was put back, or two clusters ran.
    """
    began = {line: before for line, (before, _) in around.items() if before}
    if not began:
        return None
    line = max(began, key=lambda candidate: (min(began[candidate].last, moment), began[candidate].first))
    for other in began.keys() - {line}:
        if any(stretch and began[line].overlaps(stretch) for stretch in around[other]):
            return None
    return line


@dataclass
class Archive:
    """The archived and the received segments, by timeline and number, and pgBackRest's own list of backups."""

    site: Site
    id: str
    """Name of the archive that takes the log now, such as `17-1`."""
    system: str
    """Identifier of the cluster whose log the archive takes."""
    backups: list[dict[str, Any]]
    segments: dict[int, dict[int, float]] = field(default_factory=dict)
    """When each segment was archived or received, in seconds since 1970."""
    received: set[tuple[int, int]] = field(default_factory=set)
    """The segments that only the receiver of zero loss has."""
    sums: dict[str, str] = field(default_factory=dict)
    """SHA-1 of each complete segment; '' if only the receiver has it, which keeps no checksums."""
    forks: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """For each timeline that branched off another: its ancestors, and where it left each."""
    damaged: dict[int, str] = field(default_factory=dict)
    """The unreadable histories of timelines."""

    @classmethod
    def read(cls, site: Site) -> Archive:
        """Return what a repository and the receiver of zero loss hold now. Raises `DasTernError`."""
        facts = info(site)
        archive = cls(site, str(facts["archive"][-1]["id"]), str(facts["db"][-1]["system-id"]), facts["backup"])
        received = Received(site.backups, archive.system)
        archive.forks |= received.forks
        archive.damaged |= {timeline: str(path) for timeline, path in received.damaged.items()}
        archive._add_archived()
        archive._add_received(received)
        return archive

    def _add_archived(self) -> None:
        """Add the segments and histories of the repository."""
        listing = json.loads(self.site.pgbackrest("repo-ls", "--recurse", "--output=json", "archive/dastern") or "{}")
        for path, entry in listing.items():
            if (match := WAL_FILE.search(path)) and match[1] == self.id:
                numbers = self.segments.setdefault(int(match[2][:8], 16), {})
                numbers[segment_number(match[2])] = float(entry.get("time", 0))
                self.sums[match[2]] = match[3]
            elif path.startswith(self.id) and path.endswith(".history"):
                self._add_history(path)

    def _add_history(self, path: str) -> None:
        timeline = int(path[-16:-8], 16)
        try:
            self.forks[timeline] = forks(self.site.pgbackrest("repo-get", f"archive/dastern/{path}"), timeline)
            self.damaged.pop(timeline, None)
        except ValueError:
            self.damaged[timeline] = f"{path[-16:]} in the archive"
        except DasTernError as refusal:  # a damaged encrypted file can't even be read
            if "status" in refusal.facts or (self.site.repository != 1 and f"[{CRYPTO}]" not in refusal.message):
                raise  # the command was killed, or the connection broke
            self.damaged[timeline] = f"{path[-16:]} in the archive"

    def _add_received(self, received: Received) -> None:
        """Add the segments that only the receiver has."""
        for line, numbers in received.times().items():
            for number in numbers.keys() - self.segments.get(line, {}).keys():
                self.segments.setdefault(line, {})[number] = numbers[number]
                self.received.add((line, number))
                if (name := segment_name(line, number)) in received.complete:
                    self.sums[name] = ""

    @property
    def dated(self) -> bool:
        """Whether the files' times are those of their archiving, judged by the backups; a copy may have lost them."""
        stops = [(backup["archive"]["stop"], float(backup["timestamp"]["stop"])) for backup in self.backups]
        delays = [
            abs(self.segments[int(name[:8], 16)][segment_number(name)] - at)
            for name, at in stops if segment_number(name) in self.segments.get(int(name[:8], 16), {})
        ]  # fmt: skip
        return bool(delays) and max(delays) < _LATE

    def refuse_empty(self) -> None:
        """Refuse an archive without a segment: even a backup's own end needs the log written while it was taken."""
        if not self.segments:
            where = f"in {self.site.backups}" if self.site.repository == 1 else f"of repository {self.site.repository}"
            raise DasTernError(
                f"The archive {where} has no segment of the write-ahead log, without which no physical backup can be restored. Nothing was "
                "done. Another repository may have the log (`-e repository=NUMBER`), and a logical backup needs none: "
                "`ansible-playbook playbooks/list_backups.yml` lists all backups.",
                timelines=[],
            )

    def newest(self) -> int | None:
        """Return the timeline of the segment that came last; None if the files' times don't tell."""
        times = [(max(numbers.values()), line) for line, numbers in self.segments.items()]
        return max(times)[1] if self.dated or len(times) == 1 else None

    def line_at(self, moment: float) -> int | None:
        """Return the timeline whose log holds a moment, by the files' times: the first segment archived after it."""
        times = [(at, line) for line, numbers in self.segments.items() for at in numbers.values() if at >= moment]
        return min(times)[1] if times else None

    def stretches(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Stretch | None]:
        """Read segments, each given by timeline and number; None for a segment in which no transaction ended."""
        keys = {}
        for line, number in wanted:
            start = max((end for _, end in self.forks.get(line, [])), default=0)
            begins = f" {start >> 32:X}/{start & 0xFFFFFFFF:X}" if number == start // SEGMENT else ""
            keys[segment_name(line, number)] = (line, number), begins
        listed = "".join(f"{name}{begins}\n" for name, (_, begins) in keys.items())
        done = self.site.once(_TIMES, PGDATA, stdin=listed)
        if done.rc:
            raise DasTernError(f"The archive can't be searched: {errors_of(done)}.", **done.outside)
        result: dict[tuple[int, int], Stretch | None] = dict.fromkeys(wanted)
        for output in done.out.splitlines():
            name, *times, _ = output.split("|")
            if times:
                (key, _), moments = keys[name], [_parsed(f"{time}+00:00").timestamp() for time in times]
                result[key] = Stretch(key[1], moments[0], moments[-1])
        return result

    def around(self, moment: float) -> dict[int, Around]:
        """Return the stretches of each timeline around a moment, by the log's own records."""
        left = {line: sorted(numbers) for line, numbers in self.segments.items()}
        read: dict[tuple[int, int], Stretch] = {}
        result: dict[int, Around] = {}
        while left.keys() - result.keys():
            probes = []
            for line, numbers in left.items():
                known = [i for i, number in enumerate(numbers) if (line, number) in read]
                low = max((i for i in known if read[line, numbers[i]].first <= moment), default=-1)
                high = min(
                    (i for i in known if i > low and read[line, numbers[i]].first > moment), default=len(numbers)
                )
                if high - low == 1:
                    before, after = (read[line, numbers[i]] if 0 <= i < len(numbers) else None for i in (low, high))
                    result[line] = before, after
                else:
                    step = max((high - low) // (_PROBES + 1), 1)
                    probes += [(line, number) for number in numbers[low + 1 : high : step]]
            for (line, number), stretch in (self.stretches(probes) if probes else {}).items():
                if stretch is None:
                    left[line].remove(number)
                else:
                    read[line, number] = stretch
        return result

    def described(self, again: Callable[[int], str], around: Mapping[int, Around] | None = None) -> list[str]:
        """Describe each timeline in a line: origin, backups, transactions around a moment, and command."""
        lines = []
        for line in sorted(self.segments):
            origin = f"left timeline {self.forks[line][-1][0]}" if self.forks.get(line) else "the first"
            labels = [backup["label"] for backup in self.backups if int(backup["archive"]["start"][:8], 16) == line]
            words = f"timeline {line} ({origin}): backups {', '.join(cut(labels, 4)) or 'none'}"
            for side, stretch in zip(("before", "after"), (around or {}).get(line, ()), strict=False):
                if stretch:
                    words += f"; {side} it, transactions from {local(stretch.first)} to {local(stretch.last)}"
            lines.append(f"{words}: `{again(line)}`")
        return lines

    def ambiguous(
        self, goal: str, again: Callable[[int], str], around: Mapping[int, Around] | None = None
    ) -> DasTernError:
        """Return the refusal of a target that more than one timeline may have."""
        reason = (
            "their transactions overlap, as after a clock was put back"
            if around else "there is no data directory to read them with, and the files' times aren't those of their archiving"
        )  # fmt: skip
        return DasTernError(
            [
                f"{goal} may be on more than one timeline: {reason}. Nothing was done. Name the right one:",
                *self.described(again, around),
            ],
            timelines=sorted(self.segments),
        )

    def end_of_line(self, timeline: int, line: int) -> int | None:
        """Return where the history of `timeline` left `line`; None for itself, -1 if `line` isn't in its history."""
        return None if line == timeline else dict(self.forks.get(timeline, [])).get(line, -1)

    def holder(self, timeline: int, number: int) -> int:
        """Return the timeline whose files hold segment `number` for a recovery along `timeline`."""
        for line, end in self.forks.get(timeline, []):
            if number < end // SEGMENT:
                return line
        return timeline

    def reach(self, label: str, timeline: int) -> tuple[int, bool]:
        """Return the last segment that can be reached from a backup, and whether others follow after a gap."""
        number = segment_number(self.backup(label)["archive"]["start"])
        last = max(self.segments.get(timeline, {0: 0}))
        while number < last and number + 1 in self.segments.get(self.holder(timeline, number + 1), {}):
            number += 1
        return number, number < last

    def faults(self, records: list[Record]) -> dict[str, str]:
        """Return the known faults of backups, or of those that they are built upon, by label."""
        result = {record.label: reason for record in records if (reason := record.fault)}
        for backup in self.backups:
            if backup.get("error"):  # older records don't note damaged pages
                result.setdefault(backup["label"], PAGES)
            for base in needs(backup):
                if base in result:
                    result.setdefault(backup["label"], f"it needs {base}, which isn't good")
        return result

    def refuse_unknown(self, timeline: int) -> None:
        """Refuse if the backups that lead to a timeline can't be determined."""
        if path := self.damaged.get(timeline):
            raise DasTernError(
                f"{path}, the history of timeline {timeline}, is damaged, and only it tells which backups lead there. Nothing was "
                "done. Push the intact copy from `pg_wal` of the data directory or from another repository into the archive "
                "(`pgbackrest archive-push`); or restore a backup from before that timeline at its own end (`-e target=LABEL`)."
            )

    def choose(
        self, records: list[Record], timeline: int, before: Callable[[dict[str, Any]], bool], number: int, goal: str
    ) -> tuple[dict[str, Any], str]:
        """Return the newest backup that was complete before the target in segment `number` and leads to it, and words
        for it.

        A backup with a known fault is passed over if another leads there without a gap.
        """
        self.refuse_unknown(timeline)
        known = {record.label for record in records}
        usable = [backup for backup in self.backups if backup["label"] in known]
        candidates = []
        for backup in reversed(usable):
            end = self.end_of_line(timeline, int(backup["archive"]["start"][:8], 16))
            if before(backup) and (end is None or position(backup["lsn"]["stop"]) <= end):
                candidates.append(backup)
        if candidates:
            faults = self.faults(records)
            backup = max(
                candidates,
                key=lambda candidate: (
                    self.reach(candidate["label"], timeline)[0] >= number,
                    candidate["label"] not in faults,
                ),
            )
            words = f"from backup {backup['label']}"
            if reason := faults.get(backup["label"]):
                return backup, f"{words}, which isn't good (no good backup leads there): {reason}"
            skipped = [candidate["label"] for candidate in candidates[: candidates.index(backup)]]
            if skipped:
                words += f"; {', '.join(skipped)} {'is' if len(skipped) == 1 else 'are'} damaged and passed over"
            return backup, words
        if not usable:
            raise DasTernError(
                f"None of the {len(self.backups)} backups in the repository has a record, with which the restored content is compared. "
                "Nothing was done. `ansible-playbook playbooks/list_backups.yml` lists the first repository."
            )
        raise DasTernError(
            f"{goal} is older than the oldest backup that leads there: {usable[0]['label']} was complete at {_time(usable[0])} "
            f"({usable[0]['lsn']['stop']}). Nothing was done. `ansible-playbook playbooks/list_backups.yml` lists what can be restored."
        )

    def backup(self, label: str) -> dict[str, Any]:
        for backup in self.backups:
            if backup["label"] == label:
                return backup
        raise DasTernError(
            f"Backup {label} has a record, but isn't in pgBackRest's repository any more. Choose another one: "
            "`ansible-playbook playbooks/list_backups.yml`."
        )


def resolve(
    site: Site, target: str, *, check_mode: bool, timeline: int | str = 0, again: Callable[[int], str] = str
) -> tuple[Target, Record]:
    """Return the target and the record of the backup with which it begins.

    Without check mode the live server's log is archived first. `timeline` is the one to recover along, 0 for the one
    that was live; a text names none and is refused. `again` returns the command that names a timeline.
    """
    goal, record = _resolved(site, target, check_mode, timeline, again)
    return replace(goal, words=f"{goal.words}; along timeline {goal.timeline}"), record


def _resolved(
    site: Site, target: str, check_mode: bool, timeline: int | str, again: Callable[[int], str]
) -> tuple[Target, Record]:
    archive = Archive.read(site)
    archive.refuse_empty()
    records = site.records(archive.backups)
    named = next((record for record in records if record.named(target)), None)
    moment = None if named else _moment(target)
    if timeline and timeline not in archive.segments:
        raise DasTernError(
            [
                f"`timeline` is {timeline}, which the archive doesn't have. Nothing was done. Its timelines:",
                *archive.described(again),
            ],
            timelines=sorted(archive.segments),
        )
    timeline = int(timeline or 0)
    if named:
        backup = archive.backup(named.label)
        own = int(backup["archive"]["start"][:8], 16)
        if timeline not in (0, own):
            raise DasTernError(
                f"Backup {named.label} is of timeline {own}, and `timeline` is {timeline}. Nothing was done. Leave `timeline` out: a backup's "
                "own restore point is on its own timeline."
            )
        words = f"backup {named.label} at its own restore point"
        if reason := archive.faults(records).get(named.label):
            words += f", which isn't good: {reason}"
        return Target(
            named.label,
            words,
            own,
            {"recovery_target_name": named.restore_point},
            True,
            moment=_parsed(named.began),
        ), named
    mark = None
    answers = site.answers()
    # A cluster made after the archive's own was lost archives nothing there, and isn't the one to bring back.
    here = _timeline_of(site, archive, answers)
    live = answers and here is not None
    if live and not check_mode:
        mark = _archived(site, target == "latest")
        archive = Archive.read(site)
        here = mark["timeline"]
    if moment is not None:
        return _at(archive, records, target, moment, _Ways(timeline, here, live and check_mode, again))
    along = timeline or (here if live or here in archive.segments else archive.newest())
    if along is None:
        raise archive.ambiguous(f"Target `{target}`", again)
    live = live and along == here
    if target == "latest":
        return _latest(site, archive, records, along, mark if live else None, live)
    lsn, goal = target.upper(), f"LSN {target}"
    if not _LSN.fullmatch(target):
        lsn, goal = _searched(site, archive, along, target, here is not None)
    backup, origin = archive.choose(
        records, along, lambda backup: position(backup["lsn"]["stop"]) <= position(lsn), position(lsn) // SEGMENT, goal
    )
    last, gap = archive.reach(backup["label"], along)
    # Check mode archives nothing: the log that the live server has written will be archived by then.
    written = check_mode and live and not gap and position(lsn) <= position(_written(site))
    if position(lsn) // SEGMENT > last and not written:
        raise DasTernError(
            f"{goal} is "
            + (f"after a gap of the archive, in which {segment_name(along, last + 1)} is missing" if gap
               else f"newer than the archive, which ends with {segment_name(archive.holder(along, last), last)}")
            + ". Nothing was done. An earlier target can be reached."
        )  # fmt: skip
    words = f"{goal} ({lsn}), {origin}" if lsn != target else f"{goal}, {origin}"
    return Target(backup["label"], words, along, {"recovery_target_lsn": lsn}), _record(records, backup)


def _timeline_of(site: Site, archive: Archive, answers: bool) -> int | None:
    """Return the timeline of the live cluster, stopped or not; None if there is none or it isn't the archive's."""
    if answers:
        control = site.psql.value(_CLUSTER)
    elif site.look()["cluster"]:
        output = site.seen(_CONTROL, PGDATA).out.split()
        if len(output) != 2:  # its pg_control can't be read
            return None
        control = {"system": output[0], "timeline": int(output[1])}
    else:
        return None
    return int(control["timeline"]) if control["system"] == archive.system else None


def _latest(
    site: Site, archive: Archive, records: list[Record], timeline: int, mark: dict[str, Any] | None, live: bool
) -> tuple[Target, Record]:
    backup, words = archive.choose(
        records, timeline, lambda backup: True, max(archive.segments.get(timeline, {0: 0})), "The newest state"
    )
    last, gap = archive.reach(backup["label"], timeline)
    if gap:
        lsn = f"{last * SEGMENT >> 32:X}/{last * SEGMENT & 0xFFFFFFFF:X}"
        raise DasTernError(
            f"The archive has a gap after backup {backup['label']}: {segment_name(archive.holder(timeline, last + 1), last + 1)} is "
            "missing, and the log after it can't be reached. Nothing was done. Targets before the gap: "
            f"`{playbook('restore', target=lsn)}`, a time before it, or `{playbook('restore', target=backup['label'])}`."
        )
    record = _record(records, backup)
    if mark or live:
        name = mark["name"] if mark else "the restore point written then"
        return Target(
            backup["label"], f"the present state of the live server, {words}", timeline, {"recovery_target_name": name}
        ), record
    return _end(archive, backup, timeline, words), record


def _end(archive: Archive, backup: Mapping[str, Any], timeline: int, words: str) -> Target:
    """Return the target of all that can be reached along a timeline."""
    last, _ = archive.reach(backup["label"], timeline)
    holder = archive.holder(timeline, last)
    end = segment_name(holder, last)
    source = "the received log" if (holder, last) in archive.received else "the archive"
    return Target(
        backup["label"], f"the end of {source} ({end}), {words}", timeline, {}, segment=end, sums=archive.sums
    )


@dataclass(frozen=True)
class _Ways:
    """How to look for a moment: along a `named` timeline, or by that of the live cluster, `here`."""

    named: int
    here: int | None
    later: bool
    """Whether log that the archive lacks now will be archived by then."""
    again: Callable[[int], str]


def _at(archive: Archive, records: list[Record], text: str, moment: datetime, ways: _Ways) -> tuple[Target, Record]:
    at = moment.timestamp()
    before: Stretch | None = None
    after: Stretch | None = None
    over = False
    goal = f"Time {text}"
    if ways.here is not None:  # there is a data directory, with which the log can be read
        around = archive.around(at)
        if not any(first for first, _ in around.values()):  # the moment is before all transactions
            timeline = ways.named or min(archive.segments)
        elif (line := ways.named or live_at(at, around)) is None:
            raise archive.ambiguous(goal, ways.again, around)
        else:
            timeline = line
        before, after = around[timeline]
        # Without a later transaction anywhere, nobody knows whether the log is complete.
        newer = any(stretch and stretch.last >= at for pair in around.values() for stretch in pair)
        over = newer and not after and before is not None and before.last < at
    else:
        line = (
            ways.named
            or (archive.newest() if len(archive.segments) == 1 else archive.dated and archive.line_at(at))
            or None
        )
        newer = not archive.dated or archive.line_at(at) is not None
        if line is None and newer:
            raise archive.ambiguous(goal, ways.again)
        timeline = line or min(archive.segments)
    if not newer and not ways.later:
        raise DasTernError(
            f"{text} is newer than the archive, whose last transaction ended at or before that time. Nothing was done; "
            "`-e target=latest` restores all of the archive."
        )
    if not newer and not ways.named:
        timeline = ways.here or timeline
    inside = before if before and before.last >= at else after
    number = (
        max(archive.segments[timeline]) if over
        else inside.number if inside
        else min((n for n, archived in archive.segments.get(timeline, {}).items() if archived >= at), default=0)
    )  # fmt: skip
    backup, words = archive.choose(
        records, timeline, lambda backup: float(backup["timestamp"]["stop"]) < at, number, goal
    )
    record = _record(records, backup)
    words = f"{local(moment, exact=True)}, {words}"
    if over:  # the cluster was replaced before a transaction at which a recovery to that time could stop
        return replace(_end(archive, backup, timeline, words), moment=moment), record
    return Target(
        backup["label"], words, timeline, {"recovery_target_time": moment.isoformat(sep=" ")}, moment=moment
    ), record


def _moment(text: str) -> datetime | None:
    """Parse an operator's time; None if it isn't one, such as the name of a restore point that begins with a date.

    A time without an offset is refused: PostgreSQL would read it in the server's own zone.
    """
    if not _DATE.match(text):
        return None
    moment = None
    try:
        moment = datetime.fromisoformat(_OFFSET.sub(r"\1", text))
    except ValueError:
        if not _LIKE_A_TIME.fullmatch(text):
            return None
    if moment is None or not _OFFSET.search(text[10:]) or moment.tzinfo is None:
        raise DasTernError(
            f"Target time `{text}` {'is not a time' if moment is None else 'has no offset from UTC'}. {_WRITTEN} Nothing was done."
        )
    if moment > datetime.now(UTC):
        raise DasTernError(f"Target time {text} is in the future. Nothing was done; `-e target=latest` means now.")
    return moment


def _archived(site: Site, latest: bool) -> dict[str, Any]:
    """Mark the live server's log, and wait until all of it up to the mark is in the archive."""
    name = f"das-tern-{'latest' if latest else 'restore'}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    mark: dict[str, Any] = {"name": name}
    for line in site.psql.run(_MARK.format(point=literal(name))).split("\n"):
        mark |= json.loads(line) if line.strip() else {}
    if site.psql.run("SHOW archive_mode;").strip() == "off":
        raise DasTernError(
            "The live server doesn't archive its write-ahead log (archive_mode is off): only each backup's own end can be "
            "restored. Name a backup (`-e target=LABEL`), or set `postgres_wal_archive: true` for the next time."
        )
    wait_until_archived(
        site.place, mark["file"], site.repository,
        "Nothing was restored; a backup's own end can be, without the missing log (`-e target=LABEL`).",
    )  # fmt: skip
    return mark


def _written(site: Site) -> str:
    return site.psql.run("SELECT pg_current_wal_lsn();").strip()


def _searched(site: Site, archive: Archive, timeline: int, target: str, readable: bool) -> tuple[str, str]:
    """Return where the restore point or the commit that `target` names begins, and words for it.

    The archived log is searched from the newest segment backwards. A name of digits can be either; the newer one
    counts.
    """
    point, pattern = f"Restore point `{target}`", rf"desc: RESTORE_POINT {re.escape(target)}$"
    goal, commit = point, f"The commit of transaction {target}"
    if target.isascii() and target.isdigit():
        goal, pattern = f"{commit} or a restore point of that name", rf"{pattern}|tx: +{target}, .*desc: COMMIT"
    archive.refuse_unknown(timeline)
    if not archive.backups or not readable:
        raise DasTernError(
            f"{goal} can't be searched for without the data directory of its cluster. Nothing was done; name a backup, a time or an LSN."
        )
    first = segment_number(archive.backups[0]["archive"]["start"])
    last = max(archive.segments.get(timeline, {0: 0}))
    names = [
        segment_name(archive.holder(timeline, number), number)
        for number in range(last, first - 1, -1)
        if number in archive.segments.get(archive.holder(timeline, number), {})
    ]
    done = site.once(_SEARCH, pattern, PGDATA, stdin="\n".join(names) + "\n")
    match = re.search(r" lsn: ([0-9A-F]+/[0-9A-F]+),", done.out)
    if done.rc:
        raise DasTernError(f"The archive can't be searched: {errors_of(done)}.")
    if match is None:
        backups = ", ".join(cut([record.called for record in site.records(archive.backups)], 10))
        raise DasTernError(
            f"{goal} isn't in the archived write-ahead log (check mode doesn't archive the newest part), and no backup is called `{target}`; "
            f"backups: {backups or 'none'}. Nothing was done. Expected: {TARGETS}.{f' {_WRITTEN}' if _DATE.match(target) else ''}"
        )
    return match[1], point if "desc: RESTORE_POINT" in done.out else commit


def _record(records: list[Record], backup: dict[str, Any]) -> Record:
    return next(record for record in records if record.label == backup["label"])


def _time(backup: dict[str, Any]) -> str:
    return local(float(backup["timestamp"]["stop"]))


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)
