"""What is wrong with the backups now, and the numbers behind it: for status.yml, the job on the host, and Prometheus.

Asks as far as it gets: an absent engine, container or folder is no failure of the question.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import statistics
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from ..common import swaps
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.quantities import amount, cut, duration, local
from ..common.sql_values import literal
from ..server import pgbackrest_version
from ..server.backup_folders import RECEIVED, elsewhere
from ..server.hba import RECEIVER
from ..server.survey import BACKUPS, PGDATA
from . import keeper, kinds, physical
from . import records as backup_records
from .calendar import AHEAD, moment
from .pgbackrest import PgBackRest
from .records import KEEPER, UNREADABLE, Check, Place, Record

ARGUMENT_SPEC: dict[str, Any] = {
    **backup_records.ARGUMENT_SPEC,
    "expected_hours": {"type": "int", "default": 26},
    "drill_days": {"type": "int", "default": 7},
    "size_factor": {"type": "float", "default": 3.0},
    "disk_free": {"type": "int", "default": 10},
    "archive_lag": {"type": "int", "default": 300},
    "wal_archive": {"type": "bool", "default": False},
    "config_dir": {"type": "path", "default": ""},
    "zero_loss": {"type": "bool", "default": False},
}
STATUS_SPEC: dict[str, Any] = {**ARGUMENT_SPEC, "exit_code": {"type": "bool", "default": False}}
"""The options of the module `backup_status`."""

# These are in the folder of the backups; the first two are the job's.
STATUS = "status.json"
LOCK = ".job.lock"
VERIFICATION = "verification.json"
"""`at` and `problems` of the last verification, where it found what no record holds, such as a gap in the archived log."""

KINDS = (
    "age",
    "unverified",
    "drill",
    "run",
    "size",
    "archive_off",
    "archive_failing",
    "archive_lag",
    "pgbackrest",
    "zero_loss",
    "disk",
    "slot",
    "swap",
    "folder",
    "gap",
)
"""What can be wrong."""

_ARCHIVE = """
SELECT json_build_object(
  'mode', current_setting('archive_mode'), 'archived', archived_count, 'failed', failed_count,
  'last', extract(epoch FROM last_archived_time), 'last_failed', extract(epoch FROM last_failed_time),
  'failed_wal', last_failed_wal,
  'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
  'waiting_seconds', (SELECT coalesce(extract(epoch FROM greatest(clock_timestamp() - min(modification), '0')), 0)
                      FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
  'wal_bytes', (SELECT sum(size) FROM pg_ls_waldir()))
FROM pg_stat_archiver
"""
# What a slot keeps is deleted by nobody, until the disk is full.
_SLOTS = f"""
SELECT coalesce(json_agg(json_build_object('name', slot_name, 'bytes', coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0),
  'since', extract(epoch FROM inactive_since), 'lost', wal_status = 'lost') ORDER BY slot_name), '[]')
FROM pg_replication_slots WHERE NOT active AND (restart_lsn IS NOT NULL OR wal_status = 'lost') AND slot_name <> '{RECEIVER}'
"""
# Where nobody is connected, the slot knows since when.
_RECEIVER = f"""
SELECT json_build_object(
  'names', current_setting('synchronous_standby_names'), 'streaming', r.state IS NOT NULL,
  'behind', coalesce(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), coalesce(r.flush_lsn, s.restart_lsn)), 0),
  'away', extract(epoch FROM s.inactive_since), 'lost', coalesce(s.wal_status = 'lost', false),
  'waiting', (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'))
FROM (SELECT) AS one LEFT JOIN pg_replication_slots AS s ON s.slot_name = '{RECEIVER}'
LEFT JOIN pg_stat_replication AS r ON r.application_name = '{RECEIVER}' AND r.state = 'streaming'
"""


@dataclass(frozen=True)
class Problem:
    """Something that isn't as it should be, and the command that mends it."""

    kind: str
    what: str
    found: str
    wanted: str
    command: str

    def __str__(self) -> str:
        return f"{self.what}: {self.found}; wanted: {self.wanted}"


_KEPT, _IDLE = 256 * 1024**2, 3600.0
"""A slot of somebody else may keep so many bytes, and be idle for so many seconds."""


@dataclass
class Health:
    """What was found."""

    container: str
    database: str
    at: datetime
    records: list[Record]
    """Of this database, the newest first."""
    status: dict[str, Any]
    """What the job noted: `run`, `drill`, `next`."""
    archive: dict[str, Any] | None = None
    """`_ARCHIVE`; None where the server can't be asked, then `unasked` says why."""
    unasked: str = ""
    receiver: dict[str, Any] | None = None
    """`_RECEIVER`; None where the server can't be asked, or zero loss is neither declared nor there."""
    slots: list[dict[str, Any]] = field(default_factory=list)
    """`_SLOTS`: those of somebody else that nobody reads from."""
    same_disk: bool = False
    """Whether the receiver writes to the file system that the data is on; only asked where there is one."""
    waiting: dict[str, Any] | None = None
    """What a restore left beside the live one, of `restore.json`."""
    disk: tuple[int, int] | None = None
    """Bytes free and in all, of the file system that the folder is in."""
    data_disk: tuple[int, int] | None = None
    """The same of the data's, where what isn't archived waits; None where the server's container can't be asked."""
    keeper: bool | None = None
    """Whether the container that archives and has the repository runs; None where the engine can't be asked."""
    pgbackrest: str = ""
    """Its version; '' where it can't be asked."""
    further: list[int] = field(default_factory=list)
    """Numbers of the further repositories, which the log has to reach as well."""
    damaged: list[str] = field(default_factory=list)
    """Labels whose record isn't what was written."""
    problems: list[Problem] = field(default_factory=list)
    last: Record | None = None
    """The newest of those that the job takes: with a WAL archive a logical one says nothing of them."""
    counted: list[Record] = field(default_factory=list)
    """`counted` of the records."""

    @property
    def drilled(self) -> tuple[Record, Check] | None:
        """The newest drill of those that count, and its backup."""
        return self._drilled(self.counted)

    def drilled_of(self, kind: str) -> tuple[Record, Check] | None:
        """The same of all of a kind, `physical` or `logical`."""
        return self._drilled([one for one in self.records if one.kind == kind])

    def _drilled(self, records: list[Record]) -> tuple[Record, Check] | None:
        """One that is still to come, by its time, is none."""
        latest = (self.at + AHEAD).isoformat()
        found = [(one, one.drilled) for one in records if one.drilled and one.drilled.at <= latest]
        return max(found, key=lambda pair: pair[1].at, default=None)

    def ago(self, when: datetime | str | float) -> str:
        return local(when, self.at)

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        newest, drilled = self.newest, self.drilled
        return {
            "lines": self.lines(), "next": list(dict.fromkeys(one.command for one in self.problems)),
            "problems": [asdict(one) for one in self.problems], "backups": len(self.records),
            "newest": newest.label if newest else "", "drilled_at": drilled[1].at if drilled else "",
            "zero_loss": self.receiver, "run": self.status.get("run") or {}, "next_run": self.status.get("next", ""), "archive": self.archive, "pgbackrest": self.pgbackrest,
            "disk_free": self.disk[0] if self.disk else None,
        }  # fmt: skip

    @property
    def newest(self) -> Record | None:
        return self.records[0] if self.records else None

    def lines(self) -> list[str]:
        """For a person; problems at the end."""
        lines = []
        if newest := self.newest:
            size = f"{amount(newest.stored)} of {amount(newest.bytes)}"
            state = "verified" if newest.verified and newest.verified.ok else "not verified"
            lines.append(
                f"{len(self.records)} backups, the newest {newest.label} ({newest.type}, {size}, {state}) "
                f"{self.ago(_ended(newest))}"
            )
        else:
            lines.append("no backup")
        for kind in kinds.KINDS:
            if drilled := self.drilled_of(kind):
                took = drilled[0].restore_seconds
                serving = f", serving after {took:.1f} s" if took is not None else ""
                judged = f", with {len(drilled[1].differences)} differences" if drilled[1].differences else ""
                lines.append(
                    f"{kind} backup restored for trial {self.ago(drilled[1].at)}: {drilled[0].label}{serving}{judged}"
                )
        run = self.status.get("run") or {}
        if began := moment(run.get("began")):
            lines.append(f"the scheduled job's last run {self.ago(began)}: {run.get('outcome')}")
        if following := moment(self.status.get("next")):
            lines.append(f"next run {self.ago(following)}")
        if self.archive is None:
            lines.append(f"WAL archive not known: {self.unasked}")
        elif self.archive["mode"] != "off":
            last = self.archive["last"]
            ago = f"the last archived {self.ago(last)}" if last else "none archived yet"
            lines.append(f"WAL archive: {self.archive['waiting']} segments wait, {ago}")
        lines += pgbackrest_version.untested(self.pgbackrest)
        if (receiver := self.receiver) and receiver["streaming"] and receiver["names"] == RECEIVER:
            but = ", but on the same disk as the data: it protects against a lost volume, not against a lost disk"
            behind = f"the receiver is {amount(receiver['behind'])} behind"
            lines.append(f"zero loss: on{but if self.same_disk else ''}; {behind}")
        if waiting := self.waiting:
            lines.append(
                f"restored and not live: {waiting['what']} {waiting['incoming']}, which has differences, kept until {local(waiting['until'])}"
            )
        return lines + [f"problem: {one}" for one in self.problems]


def status(params: dict[str, Any]) -> dict[str, Any]:
    """Return what the module `backup_status` returns: the summary's section, also where the backups can't be examined."""
    try:
        section = examine(params).as_dict()
        wrong = bool(section["problems"])
    except DasTernError as refusal:
        section, wrong = {"lines": [f"not known: {refusal.message}"], "next": []}, True
    if params["exit_code"]:
        section["exit_code"] = 2 if wrong else 0
    return {"changed": False, "section": section}


def examine(params: dict[str, Any], now: datetime | None = None) -> Health:
    """Look at the backups of `params` (`ARGUMENT_SPEC`) as they are at `now`."""
    place = Place(params)
    if place.folder.exists() and not os.access(place.folder, os.R_OK | os.X_OK):
        raise DasTernError(f"The backups in {place.folder} can't be read by this user. Run the play as root.")
    health = Health(
        place.container, place.database, now or datetime.now(UTC),
        [one for one in place.records() if one.holds(place.database)],
        read_status(place.folder), damaged=place.damaged(),
    )  # fmt: skip
    health.counted = counted(health.records, params["wal_archive"])
    try:
        health.archive = place.superuser.value(_ARCHIVE)
        found = place.superuser.value(_RECEIVER)
        health.slots = place.superuser.value(_SLOTS)
        health.receiver = found if params["zero_loss"] or found["names"] == RECEIVER else None
    except (DasTernError, OSError) as error:
        health.unasked = str(error)
    with contextlib.suppress(DasTernError):
        health.keeper = keeper.there(place)
    if health.keeper:
        _pgbackrest(health, place)
    with contextlib.suppress(DasTernError, ValueError, IndexError):
        health.further = PgBackRest(place.containers, place.keeper).further()
        told = place.containers.execute(place.container, ["df", "-B1", "--output=avail,size", PGDATA]).out
        free, size = told.splitlines()[-1].split()
        health.data_disk = int(free), int(size)
        if health.receiver:
            devices = place.containers.execute(
                place.container, ["stat", "-c", "%d", PGDATA, f"{BACKUPS}/{RECEIVED}"]
            ).out.split()
            health.same_disk = len(devices) == 2 and devices[0] == devices[1]
    there = next(path for path in (place.folder, *place.folder.parents) if path.exists())
    disk = os.statvfs(there)
    health.disk = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if params.get("config_dir") and (words := elsewhere(place.folder, Path(os.path.expanduser(params["config_dir"])))):
        health.problems.append(
            Problem("folder", f"folder {place.folder}", words, "the one that has this server's backups",
                    f"findmnt -T {quote(str(place.folder))}")
        )  # fmt: skip
    if swap := place.pending_swap():
        health.problems.append(
            Problem("swap", "a restore", f"began to swap the {swap['what']} at {local(swap['at'])}, and hasn't ended", "finished, or taken back",
                    swaps.RESTORE)
        )  # fmt: skip
    health.waiting = place.waiting_copy()
    _backups(health, params)
    _verification(health, place.folder)
    _job(health, params)
    _sizes(health, params)
    _archive(health, params)
    _gap(health, place)
    _slots(health)
    _zero_loss(health, params)
    _disk(health, params, place.folder)
    return health


def read_status(folder: Path, *, mine: bool = False) -> dict[str, Any]:
    """What the job noted; nothing if it never ran here or its note can't be read.

    A deed that was begun, and that no job is at work on any more, is told as failed; `mine`: the caller has the lock.
    """
    try:
        found = json.loads((folder / STATUS).read_text("utf-8"))
        if mine or not at_work(folder):
            for deed in ("run", "drill"):
                if (found.get(deed) or {}).get("outcome") == "running":
                    found[deed] |= {"outcome": "failed", "message": "it was ended before it was done", "cut": True}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return dict(found)


def counted(records: list[Record], wal_archive: bool) -> list[Record]:
    """Those of `records` that have to be verified and drilled: with a WAL archive the physical ones, if there are any.

    A logical one, such as each migration takes, proves nothing of them.
    """
    return [one for one in records if wal_archive and one.physical] or records


def to_drill(records: list[Record]) -> str:
    """Label of the newest of `records` that was never drilled, or of the newest; empty where there is none."""
    return next((one.label for one in records if one.drilled is None), records[0].label if records else "")


def at_work(folder: Path) -> bool:
    """Whether a job holds its lock."""
    try:
        with (folder / LOCK).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _ended(record: Record) -> datetime:
    began = moment(record.began) or datetime.fromtimestamp(0, UTC)
    return datetime.fromtimestamp(began.timestamp() + record.seconds, UTC)


def _backups(health: Health, params: dict[str, Any]) -> None:
    limit = params["expected_hours"]
    wanted = f"one in the last {limit} h (backup_expected_hours)"
    backup = "ansible-playbook playbooks/backup.yml"
    for one in health.records:
        if _ended(one) > health.at + AHEAD:
            health.problems.append(
                Problem("age", f"backup {one.label}", f"of {local(_ended(one))}, which is still to come",
                        "taken with the clock right", "timedatectl")
            )  # fmt: skip
        elif health.last is None and (one.physical or not params["wal_archive"]):
            health.last = one
    for label in health.damaged:
        health.problems.append(Problem("unverified", f"the record of {label}", "damaged", "as it was written", backup))
    what = "physical backup" if params["wal_archive"] and health.newest is not health.last else "backup"
    if health.last is None:
        health.problems.append(Problem("age", f"no {what}", "none is there", wanted, backup))
    elif (health.at - _ended(health.last)).total_seconds() > limit * 3600:
        ended = health.ago(_ended(health.last))
        health.problems.append(Problem("age", f"no recent {what}", f"the newest ended {ended}", wanted, backup))
    if not health.records:
        return
    for one in {one.kind: one for one in reversed(health.records)}.values():  # the newest of each kind
        if one.verified and not one.verified.ok:
            found = f"damaged: {one.verified.message}"
            health.problems.append(Problem("unverified", f"backup {one.label}", found, "verified", backup))
        elif one.verified is None and one is health.counted[0]:
            verify = "ansible-playbook playbooks/verify_backups.yml"
            health.problems.append(Problem("unverified", f"backup {one.label}", "not verified", "verified", verify))
    for kind in kinds.KINDS:
        # The newest drill, of whichever backup: the next one, which nobody has drilled yet, takes nothing of it back.
        if (newest := health.drilled_of(kind)) is None:
            continue
        one, check = newest
        if not check.ok and one not in health.counted:
            found, sought = f"failed: {check.message}", "one that succeeds"
        elif check.ok and check.differences:
            found = f"not all as it was backed up: {'; '.join(cut(check.differences, 3))}"
            sought = "one without differences"
        else:
            continue
        drill = playbook("restore_drill", target=next(other.label for other in health.records if other.kind == kind))
        health.problems.append(Problem("drill", f"trial restore of {one.label}", found, sought, drill))
    if not (days := params["drill_days"]):
        return
    wanted = f"one that succeeded in the last {days} d (backup_schedule_drill_days)"
    names = {one.kind for one in health.counted}
    kind = f"{next(iter(names))} " if len(names) == 1 else ""
    if (drilled := health.drilled) is None:
        found = "never"
        if names == {kinds.Physical.name} and (other := health.drilled_of(kinds.Logical.name)):
            found += (
                f" (only logical {other[0].label}, {health.ago(other[1].at)}, which proves nothing of physical ones)"
            )
    elif not drilled[1].ok:
        found = f"{drilled[0].label} failed: {drilled[1].message}"
    elif (when := moment(drilled[1].at)) and (health.at - when).total_seconds() > days * 86400 + limit * 3600:
        found = health.ago(when)  # the job drills after the first backup that finds it due, so a day is its due
    else:
        return
    drill = playbook("restore_drill", target=to_drill(health.counted))
    health.problems.append(Problem("drill", f"trial restore of a {kind}backup", found, wanted, drill))


def _verification(health: Health, folder: Path) -> None:
    try:
        noted = json.loads((folder / VERIFICATION).read_text("utf-8"))
        found = f"{health.ago(noted['at'])}: {'; '.join(noted['problems'])}"
    except FileNotFoundError:
        return
    except (OSError, *UNREADABLE):
        found = f"{folder / VERIFICATION} can't be read"
    health.problems.append(
        Problem("unverified", "the last verification", found, "one that finds nothing",
                "ansible-playbook playbooks/verify_backups.yml")
    )  # fmt: skip


def _job(health: Health, params: dict[str, Any]) -> None:
    for deed, command in (("run", "playbooks/backup.yml"), ("drill", "playbooks/restore_drill.yml")):
        noted = health.status.get(deed) or {}
        if noted.get("outcome") != "failed":
            continue
        began = moment(noted.get("began"))
        ended = began + timedelta(seconds=noted.get("seconds", 0)) if began else None
        # One that the run itself took may lack in a further repository.
        if deed == "run" and ended and health.last and (moment(health.last.began) or ended) > ended:
            continue  # somebody took one since
        drilled = health.drilled
        # A newer drill succeeded, or its failure, which may be this one, is a problem already.
        if (
            deed == "drill" and began and drilled and (moment(drilled[1].at) or began) >= began
            and (drilled[1].ok or params["drill_days"])
        ):  # fmt: skip
            continue
        health.problems.append(
            Problem("run", f"the scheduled job's {deed}", f"failed: {noted.get('message', '')}", "ok",
                    f"ansible-playbook {command}")
        )  # fmt: skip


def _sizes(health: Health, params: dict[str, Any]) -> None:
    """A full or logical backup is compared by what it takes, one of changes by the size of what it is of: how much
    changes in a day differs for good reasons."""
    factor = params["size_factor"]
    for kind in ("full", "diff", "incr", "logical"):
        same = [one for one in health.records if one.type == kind]
        sizes = [one.stored if kind in backup_records.WHOLE else one.bytes for one in same[:6]]
        if len(sizes) < 2:
            continue
        usual = statistics.median(sizes[1:])
        if not usual / factor <= sizes[0] <= usual * factor:
            health.problems.append(
                Problem("size", f"size of {kind} backup {same[0].label}", amount(sizes[0]),
                        f"{amount(usual / factor)} to {amount(usual * factor)}, as its predecessors (backup_size_factor)",
                        "ansible-playbook playbooks/list_backups.yml")
            )  # fmt: skip


def _archive(health: Health, params: dict[str, Any]) -> None:
    found = health.archive
    if found is None:
        return
    logs = f"docker logs --tail 50 {quote(health.container)}"
    # It waits in pg_wal, on the data's disk.
    elsewhere = (
        f", in repository {', '.join(map(str, health.further))} as well; or, where that stays away, its options taken out of "
        "backup_repository_options and `ansible-playbook playbooks/provision.yml`"
    ) if health.further else ""  # fmt: skip
    if found["mode"] == "off":
        if params["wal_archive"]:
            health.problems.append(
                Problem("archive_off", "WAL archive", "archive_mode is off", "on (postgres_wal_archive)",
                        "ansible-playbook playbooks/provision.yml")
            )  # fmt: skip
        return
    if health.keeper is False:
        health.problems.append(
            Problem("archive_failing", f"container {health.container}{KEEPER}", "doesn't run",
                    "running: it archives the log and has the backups", "ansible-playbook playbooks/provision.yml")
        )  # fmt: skip
    elif found["last_failed"] and found["last_failed"] > (found["last"] or 0):
        health.problems.append(
            Problem("archive_failing", "archive_command",
                    f"fails on {found['failed_wal']}, {health.ago(found['last_failed'])}",
                    f"every segment archived{elsewhere}", logs)
        )  # fmt: skip
    if found["waiting_seconds"] > params["archive_lag"]:
        health.problems.append(
            Problem("archive_lag", "WAL archive",
                    f"{found['waiting']} segments wait, the oldest for {duration(found['waiting_seconds'])}",
                    f"no longer than {params['archive_lag']} s (backup_archive_lag)", logs)
        )  # fmt: skip


def _pgbackrest(health: Health, place: Place) -> None:
    try:
        health.pgbackrest = PgBackRest(place.containers, place.keeper).version()
    except DasTernError as refusal:
        if "pgbackrest" in refusal.facts:
            health.problems.append(
                Problem("pgbackrest", f"pgBackRest in container {place.keeper}", refusal.facts["pgbackrest"] or "none is there",
                        pgbackrest_version.RANGE, pgbackrest_version.FIX)
            )  # fmt: skip


def _gap(health: Health, place: Place) -> None:
    """What the archive lacks behind the newest backup, by the names in it: each backup from there on would need it."""
    if not (health.keeper and health.archive and any(one.physical for one in health.records)):
        return
    found = physical.Found()
    program = PgBackRest(place.containers, place.keeper)
    with contextlib.suppress(DasTernError):  # whatever that is, the next backup says it
        physical.find_gaps(program.info(), program.archived(), set(), found)
    for words in found.problems:
        health.problems.append(
            Problem("gap", "WAL archive", words, "no gap behind the newest backup", playbook("backup", backup_type="full"))
        )  # fmt: skip


def _slots(health: Health) -> None:
    for slot in health.slots:
        idle = health.at.timestamp() - (slot["since"] or health.at.timestamp())
        if slot["bytes"] > _KEPT or idle > _IDLE or slot["lost"]:
            drop = f"SELECT pg_drop_replication_slot({literal(slot['name'])})"
            since = f" since {health.ago(slot['since'])}" if slot["since"] else ""
            keeps = (
                "what it kept was given up (max_slot_wal_keep_size): whoever reads from it has to begin anew" if slot["lost"]
                else f"it keeps {amount(int(slot['bytes']))} of log"
            )  # fmt: skip
            health.problems.append(
                Problem("slot", f"replication slot {slot['name']}", f"nobody reads from it{since}, and {keeps}",
                        "one that is read from, or none",
                        f"docker exec -u postgres {quote(health.container)} psql -c {quote(drop)}")
            )  # fmt: skip


def _zero_loss(health: Health, params: dict[str, Any]) -> None:
    found = health.receiver
    if found is None:
        return
    waits, provision = found["names"] == RECEIVER, "ansible-playbook playbooks/provision.yml"
    wanted, command = "a receiver that every commit waits for (backup_zero_loss)", provision
    if not params["zero_loss"]:
        what, wanted = f"commits wait for {RECEIVER}", "none (backup_zero_loss is false)"
    elif not found["streaming"]:
        since = f" since {health.ago(found['away'])}" if found["away"] else ""
        missing = ", and its slot was given up" if found["lost"] else ""
        what = f"the receiver is away{since}{missing}: "
        what += f"COMMITS WAIT, {found['waiting']} of them now" if waits else "commits go on without it"
        command = f"{provision}  # why: docker logs --tail 20 {quote(f'{health.container}-receiver')}"
    elif not waits:
        what = "the receiver is there, commits don't wait for it yet"
    else:
        return
    health.problems.append(Problem("zero_loss", "zero loss", what, wanted, command))


def _disk(health: Health, params: dict[str, Any], folder: Path) -> None:
    full = next((one.stored for one in health.records if one.type == "full"), 0)
    data = f"docker exec {quote(health.container)} df -h {PGDATA}"
    for what, disk, least, command in (
        (f"disk of {folder}", health.disk, full, f"df -h {quote(str(folder))}"), ("disk of the data", health.data_disk, 0, data),
    ):  # fmt: skip
        free, size = disk or (0, 0)
        if size and free < max(size * params["disk_free"] / 100, least):
            wanted = f"{params['disk_free']} % (backup_disk_free)"
            wanted += f" and the last full backup's {amount(least)}" if least else ""
            health.problems.append(Problem("disk", what, f"{amount(free)} of {amount(size)} free", wanted, command))
