"""A drill: a backup restored for trial, compared with its record, and removed; only then is it known to be one."""

from __future__ import annotations

import contextlib
import copy
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..backups import logical
from ..backups.health import counted, to_drill
from ..backups.kept import State
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

# pgBackRest's words where a further repository doesn't answer.
_LINE = re.compile(
    r"unable to (?:connect|get address)|timeout|timed out|connection|unexpected eof|request failed|libssh2",
    re.IGNORECASE,
)
# What the trial server or pgBackRest says where a full disk, the memory limit or a kill ended it or a process of it.
_OUTSIDE = re.compile(r"No space left on device|terminated (?:by|unexpectedly on) signal 9\b")
ARGUMENT_SPEC: dict[str, Any] = {
    **SITE_SPEC,
    "target": {"type": "str", "default": ""},
    "wal_archive": {"type": "bool", "default": True},
}


def drill(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Restore the backup `target` (empty: the one that is due) for trial; the keys are those of `ARGUMENT_SPEC`.

    What a module returns; `failed` with `msg` where the backup isn't what its record says. Raises `DasTernError` where
    nothing could be tried.
    """
    place, repository = Place(dict(params)), params.get("repository", 1)
    with contextlib.nullcontext() if check_mode else place.alone(params["wait"], "a restore drill"):
        site = Site(params, place) if repository != 1 or not check_mode else None
        record = _chosen(place, site, params)
        of = "" if repository == 1 else f" of repository {repository}"
        words = f"{record.type} backup {record.label}{of} ({amount(record.bytes)}, {local(record.began)})"
        if site is None or check_mode:
            return {
                "changed": True,
                "label": record.label,
                "lines": [
                    *(["a swap that was killed would be healed first"] if place.pending_swap() else []),
                    f"would restore {words} for trial, and compare it",
                ],
            }
        refuse_version(site, record)
        lines = healed(site, State(place))
        needed, free = int(record.bytes * 1.1) + 64 * 1024**2, site.look()["free"]
        if free < needed:
            raise DasTernError(
                f"A drill of backup {record.label} needs {amount(needed)}, and {amount(free)} are free beside volume "
                f"{site.volume}. Nothing was done; make room (`docker system df`)."
            )
        began, at, serving, failure, compared = time.monotonic(), now(), None, "", None
        try:
            serving, compared = (_physical if record.kind == "physical" else _logical)(site, record, began)
        except DasTernError as refusal:
            # The machine's trouble, or that of the line to a further repository, says nothing of the backup.
            if (
                "status" in refusal.facts
                or (repository != 1 and _LINE.search(refusal.message))
                or _OUTSIDE.search(refusal.message)
                or _disturbed(site, refusal.message)
            ):
                raise DasTernError(
                    f"{refusal.message} That says nothing of backup {record.label}, and isn't noted in its record. Run the drill again.",
                    **refusal.facts,
                ) from None
            failure = refusal.message
        finally:
            site.remove_helper()
            site.remove_volume(f"{site.helper}-data")
        seconds = round(time.monotonic() - began, 1)
        differences = cut(compared.to_judge, SHOWN) if compared else []
        record = replace(record, drilled=Check(at, not failure, seconds, failure, differences),
                         restore_seconds=serving if serving is not None else record.restore_seconds)  # fmt: skip
        if repository == 1:
            place.save(record)
        else:
            try:
                PgBackRest(place.containers, place.keeper).keep(repository, record)
            except DasTernError as refusal:
                lines.append(f"repository {repository} doesn't know of this drill: {refusal.message}")
    result = {"changed": True, "label": record.label, "seconds": seconds, "restore_seconds": serving}
    if failure:
        return {**result, "failed": True, "lines": [*lines, f"{words} FAILED its drill: {failure}"],
                "msg": f"The drill of {words} failed: {failure} The live server was not touched, and what was made for the "
                f"drill was removed. Take a new backup: `{playbook('backup', backup_type='logical' if record.kind == 'logical' else 'full')}`."}  # fmt: skip
    assert compared is not None
    census = Census.of(record.census)
    said = f"{len(census.tables)} tables, {census.rows} rows" + ("" if record.exact else " (only nearly; not compared)")
    said = f"{'schema, ' if census.schema else ''}{said}, {len(census.migrations)} migrations"
    said = f"{'with differences from' if compared.to_judge else 'as'} its record: {said}"
    if record.uncounted:
        said = f"nothing to compare it with, as its rows weren't counted: {record.uncounted}".rstrip(".")
    return {**result, "differences": compared.to_judge, "lines": [
        *lines, f"{words} restored and served after {serving:.1f} s", f"{said}; pg_amcheck finds nothing wrong", *compared.lines,
        f"the drill took {seconds:.1f} s; nothing of it is left",
    ]}  # fmt: skip


def _chosen(place: Place, site: Site | None, params: Mapping[str, Any]) -> Record:
    """The one that was named; else the one whose drill `status.yml` would ask for."""
    if site is None or site.repository == 1:
        records, where = place.records(), str(place.folder)
    else:
        records, where = site.records(info(site)["backup"]), f"repository {site.repository}"
    if params["target"]:
        return place.find(params["target"], records, where)
    if not records:
        raise DasTernError(f"No backup with a record is in {where}. `ansible-playbook playbooks/backup.yml` takes one.")
    own = [record for record in records if record.kind == "physical" or record.database == place.database]
    return place.find(to_drill(counted(own or records, params.get("wal_archive", True))), records, where)


@contextlib.contextmanager
def _beforehand() -> Iterator[None]:
    """What fails in here says nothing of the backup."""
    try:
        yield
    except DasTernError as refusal:
        raise DasTernError(refusal.message, **{"status": 0, **refusal.facts}) from None


def _disturbed(site: Site, said: str) -> bool:
    """Return whether the trial server, as far as it is still there, was ended from outside, or lacked room.

    `said` is what failed. A server that closed a connection logs why a moment later.
    """
    end = time.monotonic() + (10 if "closed the connection" in said else 0)
    with contextlib.suppress(DasTernError):  # it may go at this moment
        while (found := site.containers.inspect("container", site.helper)) is not None:
            stopped = not found["State"]["Running"] and found["State"]["ExitCode"] in (0, 137)
            if stopped or _OUTSIDE.search(site.containers.logs(site.helper, 200)):
                return True
            if time.monotonic() > end:
                break
            time.sleep(0.5)
    return False


def _physical(site: Site, record: Record, began: float) -> tuple[float, Comparison]:
    """Seconds until it served, and what it has otherwise. Raises `DasTernError` where it is damaged."""
    with _beforehand():
        archive = Archive(site)
    timeline = int(archive.backup(record.label)["archive"]["start"][:8], 16)
    goal = Target(record.label, "", timeline, {"recovery_target_name": record.restore_point}, own=True)
    site.make_volume(f"{site.helper}-data", "restore")
    server = RestoredServer(site, f"{site.helper}-data", "pgdata")
    server.fill(goal.label, timeline)
    psql = server.serve(goal.settings(server))
    serving = round(time.monotonic() - began, 1)
    compared = checked(psql, record.database, record, goal)
    _check_pages(site, record.database)
    server.stop()
    return serving, compared


def _logical(site: Site, record: Record, began: float) -> tuple[float, Comparison]:
    """The same of a logical one, in an empty cluster of its own, which sees this backup alone."""
    if wrong := logical.damage(site.place, record, hashes=False):
        raise DasTernError(f"Backup {record.label} isn't what was written: {wrong}.")
    volume = f"{site.helper}-data"
    with _beforehand():
        site.make_volume(volume, "restore")
        cluster.initialise(site.containers, site.image, volume, site.helper)
        psql = site.serve(volume, PGDATA, {"archive_mode": "off"}, {f"{LOGICAL}/{record.label}": False})
    beside = copy.copy(site.place)
    beside.container, beside.superuser, beside.containers = site.helper, psql, site.containers
    _make_names(site, psql, record)
    # In a server of its own, without network, the backup's code may have the superuser's rights.
    compared = database_copy.from_logical(beside, record, record.database, "", "", psql)
    serving = round(time.monotonic() - began, 1)
    _check_pages(site, record.database)
    return serving, compared


def _make_names(site: Site, psql: Psql, record: Record) -> None:
    """Make the roles and tablespaces that a dump names: those of the live server, of the backup, and of the database itself."""
    properties = Census.of(record.census).properties
    with _beforehand():
        roles, tablespaces = names_of(site.psql) if site.answers() else (set(), set())
    with contextlib.suppress(OSError, UnicodeDecodeError):  # a file that is missing or harmed is found by the restore
        text = (site.place.logical_folder / record.label / "globals.sql").read_text("utf-8")
        roles |= _made_in(text, "ROLE", ";$")
        tablespaces |= _made_in(text, "TABLESPACE", " OWNER ")
    roles |= {properties["owner"], *(role for role in properties["settings"] or {} if role)}
    if "tablespace" in properties:  # older records don't have it
        tablespaces.add(properties["tablespace"])
    make_names(psql, roles, tablespaces)


def _made_in(text: str, what: str, behind: str) -> set[str]:
    """Return the names in the statements `CREATE <what>` of pg_dumpall; PostgreSQL has no others that begin with `pg_`."""
    found = re.findall(rf'^CREATE {what} (?:"((?:[^"]|"")+)"|(\w+)){behind}', text, re.MULTILINE)
    names = {quoted.replace('""', '"') or plain for quoted, plain in found}
    return {name for name in names if not name.startswith("pg_")}


def _check_pages(site: Site, database: str) -> None:
    """Every page of every table and index, by the server's own checker."""
    command = ["pg_amcheck", "--install-missing", "--jobs=2", conninfo(database, "das-tern drill")]
    done = Psql(site.containers, site.helper).execute(command, silence=LONGEST)
    if done.rc:
        raise DasTernError(f"pg_amcheck: {done.last_words or f'it ended with {done.rc}'}.", **done.outside)
