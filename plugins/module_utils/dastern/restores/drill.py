"""A drill: restore a backup for trial, compare it with its record, and remove it. Only a drill proves a backup."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..backups import logical
from ..backups.health import counted, to_drill
from ..backups.kept import State
from ..backups.kinds import KINDS
from ..backups.pgbackrest import PgBackRest
from ..backups.records import Check, Place, Record, now
from ..catalogue.census import Census
from ..catalogue.comparison import SHOWN, Comparison
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.quantities import amount, cut, local
from ..server import cluster
from ..server.backup_folders import LOGICAL
from ..server.connection import conninfo
from ..server.psql import Psql
from ..server.survey import PGDATA
from . import database_copy
from .request import SITE_SPEC, checked, refuse_version
from .restored_server import LONGEST, RestoredServer, Site, info, make_names, names_of
from .swap import healed
from .target import Archive, Target

# pgBackRest's errors if a further repository doesn't answer.
_LINE = re.compile(
    r"unable to (?:connect|get address)|timeout|timed out|connection|unexpected eof|request failed|libssh2",
    re.IGNORECASE,
)
# Messages of the trial server or pgBackRest if a full disk, the memory limit or a kill ended one of their processes.
_OUTSIDE = re.compile(r"No space left on device|terminated (?:by|unexpectedly on) signal 9\b")
_ENDED = 10.0
"""Seconds until the log of a server that closed a connection says why."""
ARGUMENT_SPEC: dict[str, Any] = {
    **SITE_SPEC,
    "target": {"type": "str", "default": ""},
    "wal_archive": {"type": "bool", "default": True},
}


def drill(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Restore the backup `target` (empty: the backup that is due) for trial; the keys are those of `ARGUMENT_SPEC`.

    Returns the module's result, with `failed` and `msg` if the backup contradicts its record. Raises `DasTernError` if
    the trial couldn't be made.
    """
    place, repository = Place(dict(params)), params.get("repository", 1)
    with contextlib.nullcontext() if check_mode else place.alone(params["wait"], "a restore drill"):
        site = Site(params, place) if repository != 1 or not check_mode else None
        record = _chosen(place, site, params)
        origin = "" if repository == 1 else f" of repository {repository}"
        words = f"{record.type} backup {record.label}{origin} ({amount(record.bytes)}, {local(record.began)})"
        if site is None or check_mode:
            return {
                "changed": True,
                "label": record.label,
                "lines": [
                    *(["a killed swap would be finished or undone first"] if place.pending_swap() else []),
                    f"would restore {words} for trial and compare it",
                ],
            }
        refuse_version(site, record)
        lines = healed(site, State(place))
        needed, free = int(record.bytes * 1.1) + 64 * 1024**2, site.look()["free"]
        if free < needed:
            raise DasTernError(
                f"A drill of backup {record.label} needs {amount(needed)}, and the disk of volume "
                f"{site.volume} has {amount(free)} free. Nothing was done. Make room there (`docker system df`)."
            )
        began, at, serving, failure, comparison = time.monotonic(), now(), None, "", None
        try:
            serving, comparison = {"physical": _physical, "logical": _logical}[record.kind](site, record, began)
        except DasTernError as refusal:
            # Trouble of the machine, or of the connection to a further repository, tells nothing about the backup.
            if (
                "status" in refusal.facts
                or (repository != 1 and _LINE.search(refusal.message))
                or _OUTSIDE.search(refusal.message)
                or _disturbed(site, refusal.message)
            ):
                raise DasTernError(
                    f"{refusal.message} That tells nothing about backup {record.label}, and its record doesn't note it. Run the drill again.",
                    **refusal.facts,
                ) from None
            failure = refusal.message
        finally:
            site.remove_helper()
            site.remove_volume(f"{site.helper}-data")
        seconds = round(time.monotonic() - began, 1)
        differences = cut(comparison.to_judge, SHOWN) if comparison else []
        record = replace(record, drilled=Check(at, not failure, seconds, failure, differences),
                         restore_seconds=serving if serving is not None else record.restore_seconds)  # fmt: skip
        if repository == 1:
            place.save(record)
        else:
            try:
                PgBackRest(place.containers, place.keeper).keep(repository, record)
            except DasTernError as refusal:
                lines.append(f"this drill couldn't be recorded in repository {repository}: {refusal.message}")
    result = {"changed": True, "label": record.label, "seconds": seconds, "restore_seconds": serving}
    if failure:
        return {**result, "failed": True, "lines": [*lines, f"{words} FAILED its drill: {failure}"],
                "msg": f"The drill of {words} failed: {failure} The live server was not touched, and everything made for "
                f"the drill was removed. Take a new backup: `{playbook('backup', backup_type=KINDS[record.kind].whole)}`."}  # fmt: skip
    assert comparison is not None
    census = Census.of(record.census)
    verdict = f"{len(census.tables)} tables, {census.rows} rows" + (
        "" if record.exact else " (approximate, not compared)"
    )
    verdict = f"{'schema, ' if census.schema else ''}{verdict}, {len(census.migrations)} migrations"
    verdict = f"{'with differences from' if comparison.to_judge else 'as in'} its record: {verdict}"
    if record.uncounted:
        verdict = f"not compared, as its rows weren't counted: {record.uncounted}".rstrip(".")
    return {**result, "differences": comparison.to_judge, "lines": [
        *lines, f"{words} restored and served after {serving:.1f} s", f"{verdict}; pg_amcheck finds no damage", *comparison.lines,
        f"the drill took {seconds:.1f} s; everything made for it was removed",
    ]}  # fmt: skip


def _chosen(place: Place, site: Site | None, params: Mapping[str, Any]) -> Record:
    """Return the backup that `target` names, or else the one whose drill `status.yml` would ask for."""
    if site is None or site.repository == 1:
        records, where = place.records(), str(place.folder)
    else:
        records, where = site.records(info(site)["backup"]), f"repository {site.repository}"
    if params["target"]:
        return place.find(params["target"], records, where)
    if not records:
        raise DasTernError(
            f"There is no backup with a record in {where}. `ansible-playbook playbooks/backup.yml` takes one."
        )
    own = [record for record in records if record.holds(place.database)]
    return place.find(to_drill(counted(own or records, params.get("wal_archive", True))), records, where)


@contextlib.contextmanager
def _beforehand() -> Iterator[None]:
    """Mark failures inside as the machine's: they tell nothing about the backup."""
    try:
        yield
    except DasTernError as refusal:
        raise DasTernError(refusal.message, **{"status": 0, **refusal.facts}) from None


def _disturbed(site: Site, failure: str) -> bool:
    """Return whether the trial server, as far as it still exists, was killed from outside or lacked room.

    `failure` is the message of the drill's error. A server that closed a connection logs the cause a moment later.
    """
    end = time.monotonic() + (_ENDED if "closed the connection" in failure else 0)
    with contextlib.suppress(DasTernError):  # the container may disappear meanwhile
        while (container := site.containers.inspect("container", site.helper)) is not None:
            stopped = not container["State"]["Running"] and container["State"]["ExitCode"] in (0, 137)
            if stopped or _OUTSIDE.search(site.containers.logs(site.helper, 200)):
                return True
            if time.monotonic() > end:
                break
            time.sleep(0.5)
    return False


def _physical(site: Site, record: Record, began: float) -> tuple[float, Comparison]:
    """Return the seconds until the server served, and its comparison. Raise `DasTernError` if the backup is damaged."""
    with _beforehand():
        archive = Archive.read(site)
    timeline = int(archive.backup(record.label)["archive"]["start"][:8], 16)
    goal = Target(record.label, "", timeline, {"recovery_target_name": record.restore_point}, own=True)
    site.make_volume(f"{site.helper}-data", "restore")
    server = RestoredServer(site, f"{site.helper}-data", "pgdata")
    server.fill(goal.label, timeline)
    psql = server.serve(goal.settings(server))
    serving = round(time.monotonic() - began, 1)
    comparison = checked(psql, record.database, record, goal)
    _check_pages(site, record.database)
    server.stop()
    return serving, comparison


def _logical(site: Site, record: Record, began: float) -> tuple[float, Comparison]:
    """Do the same with a logical backup, in an empty cluster of its own, which sees this backup alone."""
    if damage := logical.damage(site.place, record, hashes=False):
        raise DasTernError(f"Backup {record.label} isn't as it was written: {damage}.")
    volume = f"{site.helper}-data"
    with _beforehand():
        site.make_volume(volume, "restore")
        cluster.initialise(site.containers, site.image, volume, site.helper)
        psql = site.serve(volume, PGDATA, {"archive_mode": "off"}, {f"{LOGICAL}/{record.label}": False})
    beside = site.place.served_by(psql)
    _make_names(site, psql, record)
    # In a server of its own, without network, the backup's code may have the superuser's rights.
    comparison = database_copy.from_logical(beside, record, record.database, "", "", psql)
    serving = round(time.monotonic() - began, 1)
    _check_pages(site, record.database)
    return serving, comparison


def _make_names(site: Site, psql: Psql, record: Record) -> None:
    """Create the roles and tablespaces that a dump may name: the live server's, the backup's and the database's."""
    properties = Census.of(record.census).properties
    with _beforehand():
        roles, tablespaces = names_of(site.psql) if site.answers() else (set(), set())
    with contextlib.suppress(OSError, UnicodeDecodeError):  # the restore reports a missing or damaged file
        text = (site.place.logical_folder / record.label / "globals.sql").read_text("utf-8")
        roles |= _created_in(text, "ROLE", ";$")
        tablespaces |= _created_in(text, "TABLESPACE", " OWNER ")
    roles |= {properties["owner"], *(role for role in properties["settings"] or {} if role)}
    if "tablespace" in properties:  # older records lack it
        tablespaces.add(properties["tablespace"])
    make_names(psql, roles, tablespaces)


def _created_in(text: str, kind: str, suffix: str) -> set[str]:
    """Return the names in pg_dumpall's statements `CREATE <kind>`, without PostgreSQL's own, which begin with `pg_`."""
    matches = re.findall(rf'^CREATE {kind} (?:"((?:[^"]|"")+)"|(\w+)){suffix}', text, re.MULTILINE)
    names = {quoted.replace('""', '"') or plain for quoted, plain in matches}
    return {name for name in names if not name.startswith("pg_")}


def _check_pages(site: Site, database: str) -> None:
    """Check every page of every table and index with the server's own checker."""
    command = ["pg_amcheck", "--install-missing", "--jobs=2", conninfo(database, "das-tern drill")]
    done = Psql(site.containers, site.helper).execute(command, silence=LONGEST)
    if done.rc:
        raise DasTernError(f"pg_amcheck: {done.last_words or f'exit code {done.rc}'}.", **done.outside)
