"""The logical backup before a change of the schema: taken under the migration lock, and of each history one is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..backups.logical import damage, remove, take
from ..backups.records import REASONS, WAIT, Place, Record
from ..common.errors import DasTernError
from ..common.quantities import cut
from ..restores.drill import drill
from ..server.backup_folders import refuse_another
from ..server.psql import superuser_there

if TYPE_CHECKING:
    import psycopg

DIRECTORY: dict[str, Any] = {"type": "path", "default": ""}
ARGUMENT_SPEC: dict[str, Any] = {
    "backup": {"type": "bool", "default": False},
    "backup_dir": DIRECTORY,
    "backup_keep": {"type": "int", "default": 5},
    "backup_drill": {"type": "bool", "default": False},
    "config_dir": {"type": "path", "default": ""},
}
"""The options of what changes the live database; `backed_up` reads them."""


def backed_up(
    params: Mapping[str, Any], connection: psycopg.Connection[Any], reason: str, nothing: str
) -> dict[str, Any]:
    """Take a backup and delete those that are too many, where `params` want one; gives what a module returns of it.

    Where they want a drill of it, too, it is restored for trial and compared.

    `connection` holds the migration lock. `nothing` says in a refusal what wasn't done.
    """
    if not params["backup"]:
        return {}
    try:
        superuser_there(params, connection, "A backup")
        place = Place(dict(params))
        refuse_another(place.folder, params.get("config_dir", ""), "")
        with place.alone(WAIT, f"a backup {reason}"):
            record = take(place, params["database"], "", reason, params["lock_timeout"])
    except DasTernError as refusal:
        raise DasTernError(f"{refusal.message} {nothing} (`migrations_backup` is true).", **refusal.facts) from None
    told = {
        name: getattr(record, name) for name in ("label", "database", "began", "seconds", "bytes", "stored", "reason")
    }
    told["proof"] = "read back"
    gone: list[str] = []
    try:
        if params["backup_drill"]:
            told["proof"] += f", restored for trial in {_drilled(params, record, nothing):.1f} s"
    finally:
        # Whatever came of the drill, and not before it: one that can't be restored stands for no older one.
        with contextlib.suppress(DasTernError), place.alone(WAIT, f"a backup {reason}"):
            gone = _prune(place, record, params["backup_keep"], params["backup_drill"])
    return {"backup": told, "backups_deleted": gone}


def _drilled(params: Mapping[str, Any], record: Record, nothing: str) -> float:
    """Seconds that it took."""
    site = {"volume": "", "image": "", "wait": WAIT, "target": record.label}
    try:
        done = drill({**params, **site})
        failure, facts = done.get("msg", ""), {}
        if differences := done.get("differences"):
            failure = f"The backup {record.label} comes back with differences: {'; '.join(cut(differences, 5))}."
    except DasTernError as refusal:
        failure, facts = refusal.message, refusal.facts
    if failure:
        raise DasTernError(f"{failure} {nothing} (`migrations_backup_drill` is true).", **facts)
    return float(done["seconds"])


def listed(place: Place, database: str, system: str) -> list[Record]:
    """The logical backups of `database` of this cluster whose files are there and as long as they were, the newest first."""
    return [
        one
        for one in place.records()
        if (one.kind, one.database, one.system) == ("logical", database, system)
        and not damage(place, one, hashes=False)
    ]


def applied(record: Record) -> list[str]:
    """The migrations that a backup's database had."""
    return [one.partition(" ")[0] for one in record.census["migrations"]]


def _prune(place: Place, newest: Record, keep: int, drill: bool) -> list[str]:
    """Of the backups from here keep the newest of each of the last `keep` histories of migrations; gives what went.

    A migration that fails again and again is backed up each time: that mustn't cost the backups from before others. One
    that failed its drill, or came back with differences, stands for none, and goes when it isn't the newest. Where they are drilled, one that wasn't does
    not replace one that was.
    """
    gone = []
    proved: dict[tuple[str, ...], bool] = {}
    """By history."""
    for record in listed(place, newest.database, newest.system):
        if record.reason not in REASONS:
            continue
        history, good = tuple(applied(record)), not drill or record.drilled is not None
        if record.drilled and (record.drilled.differences or not record.drilled.ok):
            if record.label == newest.label:
                continue
        elif (good and not proved[history]) if history in proved else len(proved) < max(keep, 1):
            proved[history] = good
            continue
        remove(place, record)
        gone.append(record.label)
    return gone
