"""The problems of the backups now, and the numbers behind them: for status.yml, the job on the host, and Prometheus.

The examination goes as far as it can: an absent engine, container or folder doesn't make it fail.
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

# Files in the folder of the backups; the first two are the job's.
STATUS = "status.json"
LOCK = ".job.lock"
VERIFICATION = "verification.json"
"""`at` and `problems` of the last verification, if it found faults that no record holds, such as a gap in the archive."""

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
"""The kinds of problems."""

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
# Nobody deletes the WAL that a slot keeps, until the disk is full.
_SLOTS = f"""
SELECT coalesce(json_agg(json_build_object('name', slot_name, 'bytes', coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0),
  'since', extract(epoch FROM inactive_since), 'lost', wal_status = 'lost') ORDER BY slot_name), '[]')
FROM pg_replication_slots WHERE NOT active AND (restart_lsn IS NOT NULL OR wal_status = 'lost') AND slot_name <> '{RECEIVER}'
"""
# If no receiver is connected, the slot knows since when.
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
    """Something that isn't as expected, and the command that fixes it."""

    kind: str
    what: str
    found: str
    wanted: str
    command: str

    def __str__(self) -> str:
        return f"{self.what}: {self.found}; expected: {self.wanted}"


_KEPT, _IDLE = 256 * 1024**2, 3600.0
"""How many bytes a foreign slot may keep, and for how many seconds it may be idle."""


@dataclass
class Health:
    """The state of the backups of one database at one time."""

    container: str
    database: str
    at: datetime
    records: list[Record]
    """The backups that contain this database, the newest first."""
    status: dict[str, Any]
    """The notes of the job: `run`, `drill`, `next`."""
    archive: dict[str, Any] | None = None
    """The result of `_ARCHIVE`, or None if the server can't be asked; then `unasked` says why."""
    unasked: str = ""
    receiver: dict[str, Any] | None = None
    """The result of `_RECEIVER`, or None if the server can't be asked, or zero loss is neither declared nor on."""
    slots: list[dict[str, Any]] = field(default_factory=list)
    """The result of `_SLOTS`: foreign slots that nobody reads from."""
    same_disk: bool = False
    """Whether the receiver, if there is one, writes to the file system of the data."""
    waiting: dict[str, Any] | None = None
    """The copy that a restore left beside the live data, from `restore.json`."""
    disk: tuple[int, int] | None = None
    """Free bytes and size of the file system of the backups' folder."""
    data_disk: tuple[int, int] | None = None
    """The same of the data's file system, where unarchived WAL waits; None if the server's container can't be asked."""
    keeper: bool | None = None
    """Whether the backup container runs; None if the engine can't be asked."""
    pgbackrest: str = ""
    """pgBackRest's version; empty if it can't be asked."""
    further: list[int] = field(default_factory=list)
    """Numbers of the further repositories, which the WAL has to reach as well."""
    damaged: list[str] = field(default_factory=list)
    """Labels whose record is damaged."""
    problems: list[Problem] = field(default_factory=list)
    last: Record | None = None
    """The newest backup of the kind that the job takes: with a WAL archive, a logical backup doesn't count for it."""
    counted: list[Record] = field(default_factory=list)
    """The records that have to be verified and drilled (`counted`)."""

    @property
    def drilled(self) -> tuple[Record, Check] | None:
        """The newest drill of the `counted` backups, with its backup."""
        return self._drilled(self.counted)

    def drilled_of(self, kind: str) -> tuple[Record, Check] | None:
        """Return the newest drill of a kind, `physical` or `logical`, with its backup."""
        return self._drilled([record for record in self.records if record.kind == kind])

    def _drilled(self, records: list[Record]) -> tuple[Record, Check] | None:
        """Return the newest drill, without those whose time is in the future."""
        latest = (self.at + AHEAD).isoformat()
        drills = [(each, each.drilled) for each in records if each.drilled and each.drilled.at <= latest]
        return max(drills, key=lambda pair: pair[1].at, default=None)

    def ago(self, when: datetime | str | float) -> str:
        """Return a time with how long ago it was at the examination."""
        return local(when, self.at)

    def as_dict(self) -> dict[str, Any]:
        """Return the state for a report."""
        newest, drilled = self.newest, self.drilled
        return {
            "lines": self.lines(), "next": list(dict.fromkeys(problem.command for problem in self.problems)),
            "problems": [asdict(problem) for problem in self.problems], "backups": len(self.records),
            "newest": newest.label if newest else "", "drilled_at": drilled[1].at if drilled else "",
            "zero_loss": self.receiver, "run": self.status.get("run") or {}, "next_run": self.status.get("next", ""), "archive": self.archive, "pgbackrest": self.pgbackrest,
            "disk_free": self.disk[0] if self.disk else None,
        }  # fmt: skip

    @property
    def newest(self) -> Record | None:
        return self.records[0] if self.records else None

    def lines(self) -> list[str]:
        """Return the state in lines for a person, with the problems last."""
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
            lines.append(f"WAL archive unknown: {self.unasked}")
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
        return lines + [f"problem: {problem}" for problem in self.problems]


def status(params: dict[str, Any]) -> dict[str, Any]:
    """Return the result of the module `backup_status`: the summary's section, even if the backups can't be examined."""
    try:
        section = examine(params).as_dict()
        wrong = bool(section["problems"])
    except DasTernError as refusal:
        section, wrong = {"lines": [f"not known: {refusal.message}"], "next": []}, True
    if params["exit_code"]:
        section["exit_code"] = 2 if wrong else 0
    return {"changed": False, "section": section}


def examine(params: dict[str, Any], now: datetime | None = None) -> Health:
    """Examine the backups of `params` (`ARGUMENT_SPEC`) as of `now`."""
    place = Place(params)
    if place.folder.exists() and not os.access(place.folder, os.R_OK | os.X_OK):
        raise DasTernError(f"The backups in {place.folder} can't be read by this user. Run the play as root.")
    health = Health(
        place.container, place.database, now or datetime.now(UTC),
        [record for record in place.records() if record.holds(place.database)],
        read_status(place.folder), damaged=place.damaged(),
    )  # fmt: skip
    health.counted = counted(health.records, params["wal_archive"])
    try:
        health.archive = place.superuser.value(_ARCHIVE)
        receiver = place.superuser.value(_RECEIVER)
        health.slots = place.superuser.value(_SLOTS)
        health.receiver = receiver if params["zero_loss"] or receiver["names"] == RECEIVER else None
    except (DasTernError, OSError) as error:
        health.unasked = str(error)
    with contextlib.suppress(DasTernError):
        health.keeper = keeper.there(place)
    if health.keeper:
        _pgbackrest(health, place)
    with contextlib.suppress(DasTernError, ValueError, IndexError):
        health.further = PgBackRest(place.containers, place.keeper).further()
        table = place.containers.execute(place.container, ["df", "-B1", "--output=avail,size", PGDATA]).out
        free, size = table.splitlines()[-1].split()
        health.data_disk = int(free), int(size)
        if health.receiver:
            devices = place.containers.execute(
                place.container, ["stat", "-c", "%d", PGDATA, f"{BACKUPS}/{RECEIVED}"]
            ).out.split()
            health.same_disk = len(devices) == 2 and devices[0] == devices[1]
    existing = next(path for path in (place.folder, *place.folder.parents) if path.exists())
    disk = os.statvfs(existing)
    health.disk = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if params.get("config_dir") and (words := elsewhere(place.folder, Path(os.path.expanduser(params["config_dir"])))):
        health.problems.append(
            Problem("folder", f"folder {place.folder}", words, "the folder that has this server's backups",
                    f"findmnt -T {quote(str(place.folder))}")
        )  # fmt: skip
    if swap := place.pending_swap():
        health.problems.append(
            Problem("swap", "a restore", f"began to swap the {swap['what']} at {local(swap['at'])}, and hasn't finished", "finished or undone",
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
    """Return the notes of the job, or nothing if it never ran here or its notes can't be read.

    A task that was begun, and that no job works on any more, is reported as failed. `mine` means that the caller has the
    lock.
    """
    try:
        status = json.loads((folder / STATUS).read_text("utf-8"))
        if mine or not at_work(folder):
            for task in ("run", "drill"):
                if (status.get(task) or {}).get("outcome") == "running":
                    status[task] |= {"outcome": "failed", "message": "it was ended before it was done", "cut": True}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return dict(status)


def counted(records: list[Record], wal_archive: bool) -> list[Record]:
    """Return the records that have to be verified and drilled: with a WAL archive the physical ones, if there are any.

    A logical backup, such as each migration takes, proves nothing about them.
    """
    return [record for record in records if wal_archive and record.physical] or records


def to_drill(records: list[Record]) -> str:
    """Return the label of the newest record that was never drilled, else of the newest; empty if there is none."""
    return next((record.label for record in records if record.drilled is None), records[0].label if records else "")


def at_work(folder: Path) -> bool:
    """Return whether a job holds its lock."""
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
    expected = f"one in the last {limit} h (backup_expected_hours)"
    backup = "ansible-playbook playbooks/backup.yml"
    for record in health.records:
        if _ended(record) > health.at + AHEAD:
            health.problems.append(
                Problem("age", f"backup {record.label}", f"of {local(_ended(record))}, which is in the future",
                        "taken while the clock was right", "timedatectl")
            )  # fmt: skip
        elif health.last is None and (record.physical or not params["wal_archive"]):
            health.last = record
    for label in health.damaged:
        health.problems.append(Problem("unverified", f"the record of {label}", "damaged", "as it was written", backup))
    what = "physical backup" if params["wal_archive"] and health.newest is not health.last else "backup"
    if health.last is None:
        health.problems.append(Problem("age", f"no {what}", "there is none", expected, backup))
    elif (health.at - _ended(health.last)).total_seconds() > limit * 3600:
        ended = health.ago(_ended(health.last))
        health.problems.append(Problem("age", f"no recent {what}", f"the newest ended {ended}", expected, backup))
    if not health.records:
        return
    for record in {record.kind: record for record in reversed(health.records)}.values():  # the newest of each kind
        if record.verified and not record.verified.ok:
            found = f"damaged: {record.verified.message}"
            health.problems.append(Problem("unverified", f"backup {record.label}", found, "verified", backup))
        elif record.verified is None and record is health.counted[0]:
            verify = "ansible-playbook playbooks/verify_backups.yml"
            health.problems.append(Problem("unverified", f"backup {record.label}", "not verified", "verified", verify))
    for kind in kinds.KINDS:
        # The newest drill, of whichever backup: a newer backup that nobody has drilled yet doesn't invalidate it.
        if (newest := health.drilled_of(kind)) is None:
            continue
        record, check = newest
        if not check.ok and record not in health.counted:
            found, expected = f"failed: {check.message}", "one that succeeds"
        elif check.ok and check.differences:
            found = f"differs from the backup: {'; '.join(cut(check.differences, 3))}"
            expected = "one without differences"
        else:
            continue
        drill = playbook("restore_drill", target=next(other.label for other in health.records if other.kind == kind))
        health.problems.append(Problem("drill", f"trial restore of {record.label}", found, expected, drill))
    if not (days := params["drill_days"]):
        return
    expected = f"one that succeeded in the last {days} d (backup_schedule_drill_days)"
    names = {record.kind for record in health.counted}
    kind = f"{next(iter(names))} " if len(names) == 1 else ""
    if (drilled := health.drilled) is None:
        found = "never"
        if names == {kinds.Physical.name} and (other := health.drilled_of(kinds.Logical.name)):
            found += (
                f" (only logical {other[0].label}, {health.ago(other[1].at)}, which proves nothing about physical ones)"
            )
    elif not drilled[1].ok:
        found = f"{drilled[0].label} failed: {drilled[1].message}"
    elif (when := moment(drilled[1].at)) and (health.at - when).total_seconds() > days * 86400 + limit * 3600:
        found = health.ago(
            when
        )  # the job drills after the first backup that finds a drill due, so it may be a day late
    else:
        return
    drill = playbook("restore_drill", target=to_drill(health.counted))
    health.problems.append(Problem("drill", f"trial restore of a {kind}backup", found, expected, drill))


def _verification(health: Health, folder: Path) -> None:
    """Add the problems that the last verification noted."""
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
    for task, command in (("run", "playbooks/backup.yml"), ("drill", "playbooks/restore_drill.yml")):
        noted = health.status.get(task) or {}
        if noted.get("outcome") != "failed":
            continue
        began = moment(noted.get("began"))
        ended = began + timedelta(seconds=noted.get("seconds", 0)) if began else None
        # The backup that the run itself took may be missing in a further repository.
        if task == "run" and ended and health.last and (moment(health.last.began) or ended) > ended:
            continue  # somebody took a backup since
        drilled = health.drilled
        # A newer drill succeeded, or its failure, which may be this one, is reported already.
        if (
            task == "drill" and began and drilled and (moment(drilled[1].at) or began) >= began
            and (drilled[1].ok or params["drill_days"])
        ):  # fmt: skip
            continue
        health.problems.append(
            Problem("run", f"the scheduled job's {task}", f"failed: {noted.get('message', '')}", "ok",
                    f"ansible-playbook {command}")
        )  # fmt: skip


def _sizes(health: Health, params: dict[str, Any]) -> None:
    """Compare the newest backup of each type with its predecessors.

    Full and logical backups are compared by the bytes they take, the others by the size of the data: how much changes in a
    day differs for good reasons.
    """
    factor = params["size_factor"]
    for type_ in ("full", "diff", "incr", "logical"):
        same = [record for record in health.records if record.type == type_]
        sizes = [record.stored if type_ in backup_records.WHOLE else record.bytes for record in same[:6]]
        if len(sizes) < 2:
            continue
        usual = statistics.median(sizes[1:])
        if not usual / factor <= sizes[0] <= usual * factor:
            health.problems.append(
                Problem("size", f"size of {type_} backup {same[0].label}", amount(sizes[0]),
                        f"{amount(usual / factor)} to {amount(usual * factor)}, as its predecessors (backup_size_factor)",
                        "ansible-playbook playbooks/list_backups.yml")
            )  # fmt: skip


def _archive(health: Health, params: dict[str, Any]) -> None:
    archive = health.archive
    if archive is None:
        return
    logs = f"docker logs --tail 50 {quote(health.container)}"
    # Unarchived WAL waits in pg_wal, on the disk of the data.
    elsewhere = (
        f", in repository {', '.join(map(str, health.further))} as well; or, if that stays away, its options removed from "
        "backup_repository_options and `ansible-playbook playbooks/provision.yml`"
    ) if health.further else ""  # fmt: skip
    if archive["mode"] == "off":
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
    elif archive["last_failed"] and archive["last_failed"] > (archive["last"] or 0):
        health.problems.append(
            Problem("archive_failing", "archive_command",
                    f"fails on {archive['failed_wal']}, {health.ago(archive['last_failed'])}",
                    f"every segment archived{elsewhere}", logs)
        )  # fmt: skip
    if archive["waiting_seconds"] > params["archive_lag"]:
        health.problems.append(
            Problem("archive_lag", "WAL archive",
                    f"{archive['waiting']} segments wait, the oldest for {duration(archive['waiting_seconds'])}",
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
    """Add the WAL that the archive lacks after the newest backup, by its file names: all later restores would need it."""
    if not (health.keeper and health.archive and any(record.physical for record in health.records)):
        return
    findings = physical.Findings()
    program = PgBackRest(place.containers, place.keeper)
    with contextlib.suppress(DasTernError):  # the next backup reports it
        physical.find_gaps(program.info(), program.archived(), set(), findings)
    for gap in findings.problems:
        health.problems.append(
            Problem("gap", "WAL archive", gap, "no gap after the newest backup", playbook("backup", backup_type="full"))
        )  # fmt: skip


def _slots(health: Health) -> None:
    for slot in health.slots:
        idle = health.at.timestamp() - (slot["since"] or health.at.timestamp())
        if slot["bytes"] > _KEPT or idle > _IDLE or slot["lost"]:
            drop = f"SELECT pg_drop_replication_slot({literal(slot['name'])})"
            since = f" since {health.ago(slot['since'])}" if slot["since"] else ""
            keeps = (
                "the WAL that it needs was given up (max_slot_wal_keep_size): its reader has to begin anew" if slot["lost"]
                else f"it keeps {amount(int(slot['bytes']))} of WAL"
            )  # fmt: skip
            health.problems.append(
                Problem("slot", f"replication slot {slot['name']}", f"nobody reads from it{since}, and {keeps}",
                        "a slot that somebody reads from, or none",
                        f"docker exec -u postgres {quote(health.container)} psql -c {quote(drop)}")
            )  # fmt: skip


def _zero_loss(health: Health, params: dict[str, Any]) -> None:
    receiver = health.receiver
    if receiver is None:
        return
    waits, provision = receiver["names"] == RECEIVER, "ansible-playbook playbooks/provision.yml"
    expected, command = "a receiver that every commit waits for (backup_zero_loss)", provision
    if not params["zero_loss"]:
        state, expected = f"commits wait for {RECEIVER}", "none (backup_zero_loss is false)"
    elif not receiver["streaming"]:
        since = f" since {health.ago(receiver['away'])}" if receiver["away"] else ""
        missing = ", and its slot was given up" if receiver["lost"] else ""
        state = f"the receiver is away{since}{missing}: "
        state += f"COMMITS WAIT, {receiver['waiting']} of them now" if waits else "commits go on without it"
        command = f"{provision}  # why: docker logs --tail 20 {quote(f'{health.container}-receiver')}"
    elif not waits:
        state = "the receiver is there, but commits don't wait for it yet"
    else:
        return
    health.problems.append(Problem("zero_loss", "zero loss", state, expected, command))


def _disk(health: Health, params: dict[str, Any], folder: Path) -> None:
    full = next((record.stored for record in health.records if record.type == "full"), 0)
    data = f"docker exec {quote(health.container)} df -h {PGDATA}"
    for what, disk, least, command in (
        (f"disk of {folder}", health.disk, full, f"df -h {quote(str(folder))}"), ("disk of the data", health.data_disk, 0, data),
    ):  # fmt: skip
        free, size = disk or (0, 0)
        if size and free < max(size * params["disk_free"] / 100, least):
            expected = f"{params['disk_free']} % (backup_disk_free)"
            expected += f" and the last full backup's {amount(least)}" if least else ""
            health.problems.append(Problem("disk", what, f"{amount(free)} of {amount(size)} free", expected, command))
