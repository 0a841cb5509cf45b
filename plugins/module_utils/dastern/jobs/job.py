"""The job on the database host: it takes the backup that is due, drills a restore, and notes the outcome.

It runs from a folder of its own with only the standard library (`backup_schedule` installs it there). It prints one line,
for the journal or syslog, and keeps the outcome in `status.json` beside the backups.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import syslog
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..backups import metrics
from ..backups.calendar import AHEAD, Calendar, moment
from ..backups.health import LOCK, STATUS, Health, at_work, counted, examine, read_status, to_drill
from ..backups.records import Place, Record
from ..common.errors import DasTernError
from ..common.files import open_lock, write
from ..common.quantities import CLOCK, local
from ..common.text import shown

WAIT_FOR_SERVER = 120
"""Seconds until the server has to answer: after a boot the job may start first."""

_TRIES = 3
"""How often a run that was ended from outside is started before its next day."""


class Job:
    """The job that `config` describes (see `schedule.config`)."""

    def __init__(self, config: dict[str, Any], path: Path) -> None:
        self.config = config
        self.path = path
        self.place = Place(config)
        self.calendar = Calendar(config["time"], config["full"])

    def run(self, kind: str) -> str:
        """Take a backup, and with `auto` also the trial restore if that is due. Return what was done, in one line."""
        with self._alone():
            type_ = self._type() if kind == "auto" else kind
            failed = None
            try:
                done = self._noted("run", lambda: self._take(type_), type=type_)
            except DasTernError as refusal:
                if "lines" not in refusal.facts:
                    raise
                done, failed = "", refusal  # the backup was taken, but not in every repository
            if kind == "auto" and self._drill_due():
                done += "; " + self._noted("drill", self._drill)
            if failed:
                raise failed
        return f"{done}; next {local(self.calendar.next(_now()))}"

    def drill(self) -> str:
        """Restore the backup that is due for trial. Return what was done, in one line."""
        with self._alone():
            return self._noted("drill", self._drill)

    def due(self) -> bool:
        """Return whether a run is due now. Cron, which knows no zone, calls this every few minutes."""
        if at_work(self.place.folder):
            return False
        now = _now()
        noted = read_status(self.place.folder).get("run") or {}
        began = moment(noted.get("began"))
        if began is None or began > now:  # never, or the clock was set back: nothing from before the schedule is due
            began = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        elif noted.get("cut"):
            return int(noted.get("tries", 1)) < _TRIES
        return began < self.calendar.last(now - timedelta(seconds=self._delay()))

    def forget_received(self) -> None:
        """Delete received WAL that nothing needs: up to 24 GB a day would fill the disk, even while backups fail."""
        from ..backups import (
            pgbackrest,  # type: ignore[attr-defined,unused-ignore]
            physical,  # type: ignore[attr-defined,unused-ignore]
        )

        with contextlib.suppress(DasTernError):
            physical.forget_received(self.place, pgbackrest.PgBackRest(self.place.containers, self.place.keeper))

    def health(self) -> Health:
        """Examine the backups, write the metrics file, and return their health."""
        health = examine(self.config)
        path = Path(self.config["metrics_file"])
        try:
            # Readable for all, as node_exporter isn't root.
            write(path, metrics.page(health).encode(), 0o644)
        except OSError as error:
            raise DasTernError(
                f"The metrics file {path} can't be written: {error.strerror}. Expected: a name in an existing folder "
                "(backup_metrics_file)."
            ) from None
        return health

    def failed(self, say: Callable[[str], None]) -> None:
        """Report the last failure, also to `backup_on_failure_command`."""
        status = read_status(self.place.folder)
        failures = [status[task] for task in ("run", "drill") if (status.get(task) or {}).get("outcome") == "failed"]
        message = failures[-1]["message"] if failures else "the job ended with an error before it noted one"
        say(f"backup of {self.place.container} failed: {message}")
        if command := self.config["on_failure"]:
            facts = {"DASTERN_CONTAINER": self.place.container, "DASTERN_MESSAGE": shown(message)}
            done = subprocess.run(["/bin/sh", "-c", command], env={**os.environ, **facts})
            if done.returncode:
                raise DasTernError(f"backup_on_failure_command ended with {done.returncode}: {command}")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the job. Try for two seconds, as anybody who only looks holds it for a moment."""
        try:
            lock = open_lock(self.place.folder / LOCK)
        except OSError as error:
            raise DasTernError(
                f"{self.place.folder} can't be written: {error.strerror}. Expected: the folder of the backups, mounted and "
                "owned as `ansible-playbook playbooks/provision.yml` creates it."
            ) from None
        with lock:
            end = time.monotonic() + 2
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise DasTernError(
                            "Another job works on these backups. Run again when it has finished."
                        ) from None
                    time.sleep(0.1)
            yield

    def _noted(self, task: str, action: Callable[[], str], **facts: Any) -> str:
        """Run `action` and note its outcome in the status file, whatever happens."""
        began = _now()
        before = read_status(self.place.folder, mine=True)
        former = before.get(task) or {}
        facts |= {"began": _iso(began), "tries": int(former.get("tries", 1)) + 1 if former.get("cut") else 1}

        def note(outcome: str, message: str) -> None:
            seconds = round((_now() - began).total_seconds(), 1)
            notes = {**facts, "outcome": outcome, "message": message, "seconds": seconds}
            status = {**before, task: notes, "next": _iso(self.calendar.next(_now()).astimezone(CLOCK))}
            try:
                write(self.place.folder / STATUS, (json.dumps(status, indent=2, ensure_ascii=False) + "\n").encode())
            except OSError as error:
                raise DasTernError(
                    f"{self.place.folder / STATUS} can't be written: {error.strerror}. Make room there, then run again."
                ) from None

        note("running", "")
        try:
            message = action()
        except BaseException as error:
            with contextlib.suppress(DasTernError):  # the failure itself is what has to be reported
                note("failed", _message(error))
            raise
        note("ok", message)
        return message

    def _take(self, kind: str) -> str:
        from ..backups import run as backup_run  # type: ignore[attr-defined,unused-ignore]

        self._wait_for_server()
        params = {**self.config, "name": "", "reason": "scheduled", **self.config["take"], "backup_type": kind}
        return _one_line(backup_run.take(params, say=_nothing))

    def _drill(self) -> str:
        from ..restores import drill  # type: ignore[attr-defined,unused-ignore]

        return _one_line(drill.drill({**self.config, **self.config["drill"], "target": to_drill(self._counted())}))

    def _type(self) -> str:
        """Return `full` if no full backup was taken since the last day for it, else `incr`; without a WAL archive `logical`."""
        if not self.config["wal_archive"]:
            return "logical"
        now = _now()
        since = self.calendar.last(now, full=True)
        for record in self.place.records():
            damaged = record.verified is not None and not record.verified.ok
            began = moment(record.began)
            if record.type == "full" and not damaged and began and since <= began <= now + AHEAD:
                return "incr"
        return "full"

    def _drill_due(self) -> bool:
        if not (days := self.config["drill_days"]):
            return False
        times = [when for record in self._counted() if record.drilled and (when := moment(record.drilled.at))]
        # A run begins a little earlier or later than the day before; two hours don't make it another day.
        return not any(-AHEAD <= _now() - when <= timedelta(days=days, hours=-2) for when in times)

    def _counted(self) -> list[Record]:
        own = [record for record in self.place.records() if record.holds(self.place.database)]
        return counted(own, self.config["wal_archive"])

    def _wait_for_server(self) -> None:
        end = time.monotonic() + WAIT_FOR_SERVER
        while True:
            try:
                self.place.superuser.run("SELECT 1;")
                return
            except DasTernError:
                if time.monotonic() > end:
                    raise
            time.sleep(1)

    def _delay(self) -> int:
        """Return the seconds after the declared time: the same each day, but different on each host."""
        try:
            host = Path("/etc/machine-id").read_bytes()
        except OSError:
            host = os.uname().nodename.encode()
        number = int.from_bytes(hashlib.sha256(host + self.place.container.encode()).digest()[:4])
        return number % (self.config["delay"] + 1)


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration in `path`. Raise `DasTernError` if it can't be read."""
    try:
        settings = json.loads(path.read_text("utf-8"))
        return {name: settings[name] for name in (
            "endpoint", "container", "database", "backup_dir", "time", "full", "delay", "drill_days", "expected_hours",
            "size_factor", "disk_free", "archive_lag", "wal_archive", "zero_loss", "metrics_file", "on_failure", "take", "drill",
        )} | {"config_dir": str(path.parent)}  # fmt: skip
    except OSError as error:
        why = error.strerror or str(error)
    except (ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise DasTernError(
        f"The configuration {path} can't be read: {why}. `ansible-playbook playbooks/backup_schedule.yml` writes it."
    )


def main(config: str) -> int:
    """Run the program; `config` is the default of --config."""
    parser = argparse.ArgumentParser(prog="das-tern-backup", description="Backups of Das Tern's database, on its host.")
    parser.add_argument("--config", default=config, help="default: %(default)s")
    parser.add_argument("--syslog", action="store_true", help="log to syslog; errors to standard error, too")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="take a backup now")
    run.add_argument("--type", default="auto", choices=["auto", "full", "diff", "incr", "logical"])
    commands.add_parser("drill", help="restore the newest backup for trial")
    commands.add_parser("health", help="show the state; ends with 2 if there is a problem")
    commands.add_parser("metrics", help="write the metrics file")
    commands.add_parser("due", help="take a backup if the time has come (for cron)")
    commands.add_parser("failed", help="run backup_on_failure_command")
    args = parser.parse_args()

    def say(line: str, error: bool = False) -> None:
        line = shown(line)
        if args.syslog:
            syslog.syslog(syslog.LOG_ERR if error else syslog.LOG_INFO, line)
        if error or not args.syslog:
            print(line, file=sys.stderr if error else sys.stdout, flush=True)

    def stop(number: int, _: Any) -> None:
        raise KeyboardInterrupt(f"signal {number}")

    signal.signal(signal.SIGTERM, stop)
    syslog.openlog("das-tern-backup")
    try:
        job = Job(read_config(Path(args.config)), Path(args.config))
        return _execute(job, args, say)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        say(_message(error), error=True)
        return 1


def _execute(job: Job, args: argparse.Namespace, say: Callable[..., None]) -> int:
    if args.command in ("run", "due", "metrics"):
        job.forget_received()
    if args.command == "failed":
        job.failed(say)
    elif args.command == "health":
        health = job.health()
        for line in health.lines():
            say(line)
        return 2 if health.problems else 0
    elif args.command == "metrics":
        job.health()
    elif args.command == "due" and not job.due():
        try:
            job.health()
        except DasTernError as error:  # not to standard error: cron would send a mail at each call
            syslog.syslog(syslog.LOG_ERR, _message(error))
    else:
        try:
            say(job.drill() if args.command == "drill" else job.run(getattr(args, "type", "auto")))
        except BaseException:
            with contextlib.suppress(DasTernError):
                job.health()
            raise
        for problem in job.health().problems:
            say(f"problem: {problem}")
    return 0


def _message(error: BaseException) -> str:
    """Return one line about an error of any kind."""
    if isinstance(error, DasTernError):
        return " ".join(error.message.split())
    if isinstance(error, KeyboardInterrupt):
        return f"it was ended by {error or 'a signal'}"
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = f" ({Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno})" if at else ""
    return " ".join(f"{type(error).__name__}: {error}{where}".split())


def _one_line(result: dict[str, Any]) -> str:
    """Return the lines of a result as one. Raise `DasTernError` if it has `failed`."""
    lines = " ".join("; ".join(result.get("lines", [])).split())
    if result.get("failed"):
        raise DasTernError(str(result.get("msg") or lines))
    return lines


def _nothing(*_: Any, **__: Any) -> None:
    """Report no progress: the line at the end says everything."""


def _now() -> datetime:
    return datetime.now(UTC)


def _iso(when: datetime) -> str:
    return when.isoformat(timespec="seconds")
