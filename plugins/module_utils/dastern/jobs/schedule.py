"""Install the job that takes backups on the database host and let systemd or cron call it; remove both again."""

from __future__ import annotations

import ast
import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..backups import health, retention
from ..backups.calendar import Calendar
from ..backups.health import LOCK, STATUS
from ..common import sql_values
from ..common.errors import DasTernError
from ..common.files import absolute, write
from ..common.quantities import CLOCK, ZONE, local

ARGUMENT_SPEC: dict[str, Any] = {
    **health.ARGUMENT_SPEC,
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "config_dir": {"type": "path", "required": True},
    "time": {"type": "str", "default": "02:30"},
    "full": {"type": "str", "default": "sunday"},
    "delay": {"type": "int", "default": 900},
    "metrics_file": {"type": "str", "default": ""},
    "on_failure": {"type": "str", "default": ""},
    "take": {"type": "dict", "default": {}},
    "drill": {"type": "dict", "default": {}},
    "cron": {"type": "list", "elements": "str", "default": []},
    # No secret, but the host's syslog would keep it, as it does a module's arguments.
    "sources": {"type": "str", "default": "", "no_log": True},
}

SYSTEMD = Path("/run/systemd/system")
UNITS = Path("/etc/systemd/system")
LIBRARY = Path("/usr/local/lib/das-tern")
CRON = Path("/etc/cron.d")
STAMPS = Path("/var/lib/systemd/timers")
CRON_PROGRAM = Path("/usr/sbin/cron")
CRONTABS = Path("/var/spool/cron/crontabs")
CRON_NOTE = Path("/var/lib/das-tern/cron.json")
"""A note that cron was installed for the schedule: `installed_at`, and in `there` the files that `CRON` had then."""
_ZONES = Path("/usr/share/zoneinfo")
MOST_DAYS = 3660
"""The most days between two trial restores; the job calculates with dates, which have an end."""
_ON_FAILURE = "das-tern-backup-failed@"

_PROGRAM = """\
#!{python} -IB
# The role backup of Das Tern wrote this. `das-tern-backup --help` says what it can.
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from dastern.jobs.job import main

sys.exit(main({config!r}))
"""

# Every restriction that `systemd-analyze security` knows and the job can bear. It writes to the folders of the backups and of
# the metrics, reads its own files, and talks to the engine's socket; what the engine does is outside these restrictions.
_HARDENED = """\
UMask=0077
ReadWritePaths={writable}
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER
KeyringMode=private
LockPersonality=true
MemoryDenyWriteExecute=true
NoNewPrivileges=true
PrivateDevices=true
PrivateNetwork={lonely}
PrivateTmp=true
ProcSubset=pid
ProtectClock=true
ProtectControlGroups=true
ProtectHome={home}
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=true
RestrictAddressFamilies={families}
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service @chown
"""
_SERVICE = """\
# The role backup of Das Tern wrote this.
[Unit]
Description={what} of the database in container {container}
After=docker.service
{unit}
[Service]
Type=oneshot
ExecStart={command}
"""
_TIMER = """\
# The role backup of Das Tern wrote this.
[Unit]
Description={what} of the database in container {container}

[Timer]
{timer}

[Install]
WantedBy=timers.target
"""
_CRON = """\
# The role backup of Das Tern wrote this. Cron counts in the zone of the host, so the job itself looks at the clock of
# {zone}: it begins a backup at the first call after {time} there and a delay of its own (up to {delay} s).
SHELL=/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
*/5 * * * * root {program} --syslog due || {program} --syslog failed
"""


@dataclass
class Declared:
    """The files and timers that the host should have."""

    files: dict[Path, tuple[str, int]] = field(default_factory=dict)
    """Text and mode of each file."""
    gone: list[Path] = field(default_factory=list)
    """Files that have to go."""
    timers: list[str] = field(default_factory=list)


def schedule(params: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    """Ensure that the job is scheduled as `params` (`ARGUMENT_SPEC`) say, or that nothing of it is left."""
    systemd = SYSTEMD.is_dir()
    present = params["state"] == "present"
    declared = _present(params, systemd) if present else Declared()
    declared.gone = [path for path in _ours(params) if path not in declared.files and os.path.lexists(path)]
    timers = _timers(params["container"])
    differing = [path for path, (text, mode) in declared.files.items() if not _matches(path, text, mode)]
    to_stop = [name for name in timers if not declared.timers and UNITS / name in declared.gone] if systemd else []
    to_start = [
        name for name in declared.timers
        if UNITS / name in differing or not _is("active", name) or not _is("enabled", name)
    ]  # fmt: skip
    changed = bool(differing or declared.gone or to_start)
    library, settings = LIBRARY / params["container"], Path(params["config_dir"], "backup.json")
    touched = [*differing, *declared.gone]
    visible = [path for path in touched if path.parent in (UNITS, CRON) or path == settings]
    diff = [_difference(path, declared.files) for path in visible]
    if job := any(path == library or library in path.parents for path in touched):
        # Of the project's own code, the difference shows only that it changed.
        now, then = (
            _code(library, _read(library)),
            _code(library, {path: text for path, (text, _) in declared.files.items()}),
        )
        diff.append({"before_header": f"{library}", "after_header": f"{library}", "before": now, "after": then})
    cron, remove_cron = ([], False) if systemd else _cron(params, changed, check_mode)
    if changed and not check_mode:
        if os.geteuid() != 0:
            raise DasTernError(f"{CRON.parent} can't be written by this user. Run as root: add -e ansible_become=true.")
        if to_stop:
            _systemctl("disable", "--now", *to_stop)
        try:
            for path in differing:
                private = declared.files[path][1] == 0o600
                path.parent.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
                write(path, declared.files[path][0].encode(), declared.files[path][1])
            for path in declared.gone:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            for folder in () if present else (LIBRARY, Path(params["config_dir"])):
                with contextlib.suppress(OSError):  # other instances have files in it
                    folder.rmdir()
        except OSError as error:
            raise DasTernError(f"{error.filename} can't be written: {error.strerror}.") from None
        if systemd and any(path.parent == UNITS for path in (*differing, *declared.gone)):
            _systemctl("daemon-reload")
        if to_start:
            _systemctl("enable", *to_start)
            _systemctl("restart", *to_start)
    if "installed" in params["cron"] and not check_mode:
        _note_cron(params)
    lines = _lines(params, systemd, changed, check_mode)
    if present and changed:
        parts = [str(path) for path in visible if path in declared.files] + ([f"the job in {library}"] if job else [])
        write_, start = ("would write", "would start") if check_mode else ("wrote", "started")
        lines[1:1] = [f"{write_} {', '.join(parts)}"] if parts else []
        lines += [f"{start} {', '.join(to_start)}"] if to_start else []
    return {"changed": changed, "diff": diff, "lines": [*lines, *cron], "remove_cron": remove_cron}


def _read(library: Path) -> dict[Path, str]:
    """Return the installed code of the job."""
    texts = {}
    for path in (library / "das-tern-backup", *sorted((library / "dastern").rglob("*.py"))):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            texts[path] = path.read_text("utf-8")
    return texts


def _code(library: Path, texts: dict[Path, str]) -> str:
    """Return for --diff how many files the job has, and their checksum."""
    own = sorted((str(path), text) for path, text in texts.items() if library in path.parents)
    digest = hashlib.sha256(json.dumps(own).encode()).hexdigest()[:16]
    return f"the job: {len(own)} files, sha256 {digest}...\n" if own else ""


def _note_cron(params: dict[str, Any]) -> None:
    """Note that cron was installed for the schedule, so that it can be removed with it."""
    files = sorted(path.name for path in CRON.iterdir() if path != _cron_file(params["container"]))
    note = {"installed_at": datetime.now(UTC).isoformat(timespec="seconds"), "there": files}
    try:
        CRON_NOTE.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write(CRON_NOTE, (json.dumps(note) + "\n").encode(), 0o644)
    except OSError as error:
        raise DasTernError(f"{CRON_NOTE} can't be written: {error.strerror}.") from None


def _cron(params: dict[str, Any], changed: bool, check_mode: bool) -> tuple[list[str], bool]:
    """Return what happens to cron itself, in words, and whether it has to be removed."""
    if params["state"] == "present":
        steps = [("install", "installed"), ("start", "started")]
        done = [present if check_mode else past for present, past in steps if past in params["cron"]]
        return [f"{'would ' if check_mode else ''}{' and '.join(done)} cron"] if done else [], False
    try:
        before = set(json.loads(CRON_NOTE.read_text("utf-8"))["there"])
    except (OSError, ValueError, TypeError, KeyError):
        stays = changed and CRON_PROGRAM.exists()
        return ["cron stays: it was on this host before the schedule"] if stays else [], False
    own = _cron_file(params["container"])
    others = [path for path in CRON.glob("*") if path.name not in before and path != own]
    if others := sorted([*others, *CRONTABS.glob("*")]):
        served = ", ".join(map(str, others))
        return [f"cron stays, although it was installed for the schedule: it also serves {served}"], False
    return [f"cron, which was installed for the schedule, {'would be' if check_mode else 'is'} removed"], True


def imported(package: Path, begin: str = "jobs/job.py") -> list[str]:
    """Return the files of `package` that `begin` imports, directly or not, each as a path within the package."""
    files = {"__init__.py"}
    waiting = [begin]
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        files |= {name, f"{Path(name).parent}/__init__.py"}
        for node in ast.walk(ast.parse((package / name).read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            room = Path(name).parents[node.level - 1]
            target = room.joinpath(*(node.module or "").split("."))
            modules = [target.with_suffix(".py"), *(target / f"{alias.name}.py" for alias in node.names)]
            waiting += [str(module) for module in modules if (package / module).is_file()]
    return sorted(files)


def packed(package: Path) -> str:
    """Return the job's code, the part of `package` that it imports, as the option `sources` carries it."""
    texts = {name: (package / name).read_text("utf-8") for name in imported(package)}
    return base64.b64encode(zlib.compress(json.dumps(texts).encode())).decode()


def unpacked(sources: str) -> dict[str, str]:
    """Return the texts that `packed` packed, by path within the package."""
    return dict(json.loads(zlib.decompress(base64.b64decode(sources)))) if sources else {}


def config(params: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration that the job reads."""
    names = (
        "endpoint", "container", "database", "backup_dir", "time", "full", "delay", "drill_days", "expected_hours",
        "size_factor", "disk_free", "archive_lag", "wal_archive", "zero_loss", "on_failure", "take", "drill",
    )  # fmt: skip
    return {**{name: params[name] for name in names}, "metrics_file": metrics_file(params)}


def metrics_file(params: dict[str, Any]) -> str:
    """Return the path of the file for Prometheus. Refuse a name that node_exporter doesn't read."""
    path = params["metrics_file"] or str(Path(params["backup_dir"], "metrics.prom"))
    absolute("backup_metrics_file", path)
    if not path.endswith(".prom"):
        raise DasTernError(
            f"`backup_metrics_file` is {path}. Expected: a name that ends in .prom, as node_exporter reads no other."
        )
    return path


def _present(params: dict[str, Any], systemd: bool) -> Declared:
    """Return the files of the job, and of systemd or cron. Refuse options that can't be right."""
    Calendar(params["time"], params["full"])
    for name, least in (("delay", 0), ("drill_days", 0), ("expected_hours", 1), ("disk_free", 0), ("archive_lag", 1)):
        if params[name] < least:
            raise DasTernError(f"`{_VARIABLES[name]}` is {params[name]}. Expected: a number, {least} or greater.")
    if params["drill_days"] > MOST_DAYS:
        raise DasTernError(
            f"`{_VARIABLES['drill_days']}` is {params['drill_days']}. Expected: a number up to {MOST_DAYS}, or 0 for no trial restore."
        )
    if params["size_factor"] <= 1:
        raise DasTernError(f"`backup_size_factor` is {params['size_factor']}. Expected: a number above 1.")
    retention.declared(params["take"].get("keep") or {})
    sql_values.duration("backup_lock_timeout", params["take"].get("lock_timeout", "10s"))
    container, library = params["container"], LIBRARY / params["container"]
    program, python = library / "das-tern-backup", interpreter()
    settings = Path(params["config_dir"], "backup.json")
    declared = Declared(
        {library / "dastern" / name: (text, 0o644) for name, text in unpacked(params["sources"]).items()}
        | {
            program: (_PROGRAM.format(python=python, config=str(settings)), 0o755),
            settings: (json.dumps(config(params), indent=2, ensure_ascii=False) + "\n", 0o600),
        }
    )
    if not systemd:
        declared.files[_cron_file(container)] = (
            _CRON.format(zone=ZONE, time=params["time"], delay=params["delay"], program=program), 0o644
        )  # fmt: skip
        return declared
    backup, metrics = declared.timers = _timers(container)
    hardened = _hardened(params, python)
    alarm = f"OnFailure={_ON_FAILURE}{container}.service\n"
    calendar = f"OnCalendar={on_calendar(params['time'])}\nPersistent=true\nRandomizedDelaySec={params['delay']}"
    for name, what, verb, unit, timer in (
        (backup, "Backup", "run", alarm, calendar),
        (metrics, "State of the backups", "metrics", "", "OnCalendar=*:0/5"),
    ):
        facts = {"what": what, "container": container}
        service = _SERVICE.format(**facts, unit=unit, command=f"{program} {verb}") + hardened
        declared.files[UNITS / name.replace(".timer", ".service")] = (service, 0o644)
        declared.files[UNITS / name] = (_TIMER.format(**facts, timer=timer), 0o644)
    declared.files[UNITS / f"{_ON_FAILURE}.service"] = (
        _SERVICE.format(what="Report of a failed backup", container="%i", unit="", command=f"{LIBRARY}/%i/das-tern-backup failed"),
        0o644,
    )  # fmt: skip
    return declared


_VARIABLES = {
    "delay": "backup_schedule_delay", "drill_days": "backup_schedule_drill_days", "expected_hours": "backup_expected_hours",
    "disk_free": "backup_disk_free", "archive_lag": "backup_archive_lag",
}  # fmt: skip


def interpreter() -> str:
    """Return a Python that outlives the controller: the distribution's if it is new enough, else the one below Ansible's."""
    rejected = []
    for candidate in dict.fromkeys(("/usr/bin/python3", getattr(sys, "_base_executable", "") or sys.executable)):
        program = "import sys; print('.'.join(map(str, sys.version_info[:2])), sys.version_info >= (3, 11))"
        try:
            answer = subprocess.run([candidate, "-IBc", program], capture_output=True, text=True).stdout.split()
        except OSError:
            continue
        if answer[1:] == ["True"]:
            return candidate
        rejected.append(f"{candidate} is {answer[0] if answer else 'none'}")
    raise DasTernError(
        f"The job on the host needs Python 3.11 or newer: {', '.join(rejected)}. Install it, and name it in the inventory: "
        "ansible_python_interpreter=/usr/bin/python3.11."
    )


def on_calendar(time: str) -> str:
    """Return the time for systemd. It knows a zone by its file; without that, the same time is given in UTC."""
    if (_ZONES / ZONE).exists():
        return f"*-*-* {time}:00 {ZONE}"
    at = datetime.now(CLOCK).replace(hour=int(time[:2]), minute=int(time[3:])).astimezone(UTC)
    return f"*-*-* {at:%H:%M}:00 UTC"


def _hardened(params: dict[str, Any], python: str) -> str:
    """Return the restrictions for the services of this instance."""
    folder, metrics = params["backup_dir"], str(Path(metrics_file(params)).parent)
    endpoint = params["endpoint"] or "unix:///var/run/docker.sock"
    socket = endpoint.startswith("unix://")
    homes = ("/home/", "/root/", "/run/user/")
    at_home = any(path.startswith(homes) for path in (folder, metrics, params["config_dir"], python, endpoint[7:]))
    return _HARDENED.format(
        # With a leading minus a missing folder is left to the job to report.
        writable=" ".join(_quoted(f"-{path}") for path in dict.fromkeys((folder, metrics))),
        home="read-only" if at_home else "true",
        lonely="true" if socket else "false",
        families="AF_UNIX" if socket else "AF_UNIX AF_INET AF_INET6",
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _timers(container: str) -> list[str]:
    return [f"das-tern-backup-{container}.timer", f"das-tern-backup-metrics@{container}.timer"]


def _cron_file(container: str) -> Path:
    """Return the file for cron, which reads no file whose name has a dot."""
    return CRON / f"das-tern-backup-{re.sub(r'[^A-Za-z0-9_-]', '_', container)}"


def _ours(params: dict[str, Any]) -> list[Path]:
    """Return all files that this instance may have, whether systemd or cron calls it."""
    container = params["container"]
    library = LIBRARY / container
    timers = _timers(container)
    units = [UNITS / name for timer in timers for name in (timer, timer.replace(".timer", ".service"))]
    others = [path for path in UNITS.glob("das-tern-backup-*.timer") if path.name not in timers]
    paths = [*units, _cron_file(container)]
    if params["state"] == "present":
        code = sorted((library / "dastern").rglob("*"))
        return [*paths, *(path for path in code if path.is_symlink() or not path.is_dir())]
    return [
        *paths, *([] if others else [UNITS / f"{_ON_FAILURE}.service"]), *(STAMPS / f"stamp-{timer}" for timer in timers),
        library, Path(params["config_dir"], "backup.json"), Path(metrics_file(params)),
        Path(params["backup_dir"], STATUS), Path(params["backup_dir"], LOCK),
    ]  # fmt: skip


def _matches(path: Path, text: str, mode: int) -> bool:
    """Return whether a file has this text and this mode."""
    try:
        return path.read_text("utf-8") == text and path.stat().st_mode & 0o7777 == mode and not path.is_symlink()
    except (OSError, UnicodeDecodeError):
        return False


def _difference(path: Path, files: dict[Path, tuple[str, int]]) -> dict[str, str]:
    """Return the difference for --diff."""
    try:
        before = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        before = ""
    after = files[path][0] if path in files else ""
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def _is(state: str, unit: str) -> bool:
    return subprocess.run(["systemctl", f"is-{state}", "--quiet", unit], capture_output=True).returncode == 0


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise DasTernError(f"`systemctl {' '.join(arguments)}` failed: {' '.join(done.stderr.split())}")


def _lines(params: dict[str, Any], systemd: bool, changed: bool, check_mode: bool) -> list[str]:
    would = "would be " if changed and check_mode else ""
    caller = "systemd" if systemd else "cron"
    if params["state"] == "absent":
        return [f"{would}removed: the job and its calls by {caller}" if changed else "nothing is scheduled"]
    kind = "a logical one"
    if params["wal_archive"]:
        kind = "always a full one" if params["full"] == "daily" else f"a full one on {params['full']}"
    drill = f", a trial restore every {params['drill_days']} d" if params["drill_days"] else ""
    now = datetime.now(UTC)
    return [
        f"{would}scheduled with {caller}" if changed else f"scheduled with {caller}, as declared",
        f"a backup each day at {params['time']} {ZONE} and up to {params['delay']} s later, {kind}{drill}",
        f"next {local(Calendar(params['time'], params['full']).next(now), now)}",
    ]
