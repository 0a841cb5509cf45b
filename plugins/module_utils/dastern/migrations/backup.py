"""The logical backup before a schema change, taken under the migration lock; one is kept per history of migrations."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..backups.logical import damage, remove, take
from ..backups.records import WAIT, Place, Record
from ..backups.retention import superseded
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
"""The options of modules that change the live database; `backed_up` reads them."""


def backed_up(
    params: Mapping[str, Any], connection: psycopg.Connection[Any], reason: str, nothing: str
) -> dict[str, Any]:
    """Take a backup if `params` ask for one, delete surplus backups, and return the module's result keys about it.

    If `params` ask for a drill, too, the backup is restored in one and compared.

    `connection` holds the migration lock. `nothing` tells in a refusal what wasn't done.
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
    facts = {
        name: getattr(record, name) for name in ("label", "database", "began", "seconds", "bytes", "stored", "reason")
    }
    facts["proof"] = "read back"
    deleted: list[str] = []
    try:
        if params["backup_drill"]:
            facts["proof"] += f", restored for trial in {_drilled(params, record, nothing):.1f} s"
    finally:
        # Only after the drill, whatever its result: a backup that can't be restored replaces no older one.
        with contextlib.suppress(DasTernError), place.alone(WAIT, f"a backup {reason}"):
            deleted = _prune(place, record, params["backup_keep"], params["backup_drill"])
    return {"backup": facts, "backups_deleted": deleted}


def _drilled(params: Mapping[str, Any], record: Record, nothing: str) -> float:
    """Restore the backup in a drill, refuse differences, and return the seconds that this took."""
    site = {"volume": "", "image": "", "wait": WAIT, "target": record.label}
    try:
        result = drill({**params, **site})
        failure, facts = result.get("msg", ""), {}
        if differences := result.get("differences"):
            failure = f"The backup {record.label} comes back with differences: {'; '.join(cut(differences, 5))}."
    except DasTernError as refusal:
        failure, facts = refusal.message, refusal.facts
    if failure:
        raise DasTernError(f"{failure} {nothing} (`migrations_backup_drill` is true).", **facts)
    return float(result["seconds"])


def listed(place: Place, database: str, system: str) -> list[Record]:
    """Return the logical backups of `database` of this cluster whose files exist at full length, the newest first."""
    return [
        record
        for record in place.records()
        if not record.physical
        and (record.database, record.system) == (database, system)
        and not damage(place, record, hashes=False)
    ]


def _prune(place: Place, newest: Record, keep: int, drill: bool) -> list[str]:
    """Delete the backups from before migrations that newer ones stand for; return their labels."""
    gone = superseded(listed(place, newest.database, newest.system), newest.label, keep, drilled=drill)
    for record in gone:
        remove(place, record)
    return [record.label for record in gone]
