"""A restored copy that differs from its backup waits, closed to all but the superuser, until an operator accepts it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..backups import logical
from ..backups.kept import discard_waiting
from ..catalogue.census import Census, count
from ..catalogue.comparison import SHOWN, Comparison, compare
from ..common.confirmation import word
from ..common.errors import DasTernError
from ..common.quantities import cut, local
from ..common.sql_values import identifier, literal
from ..server.psql import Psql
from ..server.survey import MOUNT
from .plan import written_since
from .request import DIFF_LINES, Run, name_beside, planned, restore_command, timestamp, unconfirmed
from .restored_server import Site
from .swap import kept_lines, passwords, swap_databases, swap_entry, swap_folders
from .target import Archive

# Identifier, last checkpoint and timeline of a cluster that isn't running; starting a server changes the checkpoint.
_CONTROL = r"""
LC_ALL=C pg_controldata "$1" | sed -En "s/^(Database system identifier|Latest checkpoint location|Latest checkpoint's TimeLineID): *//p"
"""


def waiting_copy(run: Run) -> dict[str, Any] | None:
    """Return the waiting copy if this run is to make just that one live; `latest` has moved on since."""
    params, waiting = run.params, None if run.state.overdue_waiting else run.state.waiting
    if waiting and params["accept_differences"] and params["target"] != "latest" and not params["into"]:
        return waiting if waiting["asked"] == run.asked else None
    return None


def swap_waiting(run: Run, waiting: dict[str, Any], check_mode: bool, confirmed: bool) -> dict[str, Any]:
    """Make the copy live that an earlier run restored and left waiting because of differences."""
    what, stamp = waiting["what"], timestamp()
    existing = run.site.look()["entries"] if what == "cluster" else run.site.psql.databases()
    if waiting["incoming"] not in existing:
        run.state.waiting = None
        if not check_mode:
            run.state.save()
        raise DasTernError(
            f"{waiting['incoming']}, which a restore of {local(waiting['at'])} left, doesn't exist any more. Nothing was done; the "
            "same command restores it again."
        )
    if changed := _changed(run, waiting):
        command = restore_command({**run.params, "accept_differences": False}, word(run.params, run.database))
        raise DasTernError(
            f"{waiting['incoming']} can't become live, as it changed since a restore of {local(waiting['at'])} left it: {'; '.join(cut(changed, SHOWN))}. "
            f"Nothing was done. `{command}` restores it again.",
            differences=changed,
        )
    plan = [
        f"would make live the copy restored at {local(waiting['at'], datetime.now(UTC))}: {waiting['words']}",
        *waiting["differences"],
    ]
    plan += written_since(run, {**waiting, "at": waiting["moment"]})
    command = restore_command(run.params, word(run.params, run.database))
    if check_mode:
        return {**planned(run, plan, command, confirmed), "target": waiting["words"]}
    if not confirmed:
        raise unconfirmed(run, what, plan, command)
    kept = f"replaced-{stamp}" if what == "cluster" else name_beside(run.database, "before", stamp)
    entry = swap_entry(run, what, incoming=waiting["incoming"], kept=kept, words=waiting["words"], rows=waiting["rows"])
    if what == "cluster":
        refused = swap_folders(run, entry)
    else:
        refused = swap_databases(run, entry, limit=int(waiting["left"]["limit"]))
    run.lines.append(f"{waiting['words']}, restored at {local(waiting['at'])}, is live now")
    run.lines += waiting["differences"]
    after = kept_lines(run, entry, refused)
    return {"target": waiting["words"], "refused_seconds": refused, "differences": waiting["differences"],
            "next": [*passwords(what), *after]}  # fmt: skip


def _left(run: Run, entry: dict[str, Any], restored: Census) -> dict[str, Any]:
    """Close the copy to all but the superuser; return its state, with which `_changed` compares later."""
    if entry["what"] == "cluster":
        return {"control": _control(run.site, entry["incoming"])}
    psql, name = run.site.psql, entry["incoming"]
    limit = psql.value(f"SELECT to_json(datconnlimit) FROM pg_database WHERE datname = {literal(name)}")
    psql.run(f"ALTER DATABASE {identifier(name)} CONNECTION LIMIT 0;")
    census = {**restored.as_dict(), "properties": {**restored.properties, "connection_limit": 0}}
    return {"oid": _oid(psql, name), "limit": limit, "census": census}


def _changed(run: Run, waiting: dict[str, Any]) -> list[str]:
    """Return why the waiting copy mustn't become live; it was checked when it was restored, and not since."""
    site, name, left = run.site, waiting["incoming"], waiting.get("left")
    if not left:
        return ["its state at that time isn't recorded"]
    if waiting["what"] == "cluster":
        control = _control(site, name)
        if not control or control != left["control"]:
            return ["its folder holds another cluster, or a server was started on it"]
        archive, timeline = Archive.read(site), int(control[-1])
        if timeline in {*archive.segments, *archive.forks, *archive.damaged}:
            return [f"it is on timeline {timeline}, which another restore has used in the archive since"]
        return []
    if _oid(site.psql, name) != left["oid"]:
        return ["it is another database of that name"]
    comparison = compare(Census.of(left["census"]), count(site.psql, name))
    return comparison.damage + comparison.differences + (["its schema changed"] if comparison.schema_differs else [])


def _control(site: Site, folder: str) -> list[str]:
    return site.seen(_CONTROL, f"{MOUNT}/{folder}").out.split()


def _oid(psql: Psql, database: str) -> Any:
    return psql.value(f"SELECT to_json(oid::int8) FROM pg_database WHERE datname = {literal(database)}")


def leave_waiting(run: Run, entry: dict[str, Any], compared: Comparison, where: str) -> DasTernError:
    """Record the waiting copy; return the refusal with its differences and the command that makes it live."""
    params = run.params
    run.lines += discard_waiting(run.place, run.state)
    assert run.moment is not None
    moment = run.moment.isoformat(timespec="seconds")
    left = _left(run, entry, compared.found)
    run.state.waiting = {**entry, "asked": run.asked, "moment": moment, "differences": compared.lines, "left": left}
    run.state.save("Make room there, then run again: the restored copy stays until then.")
    command = restore_command({**params, "accept_differences": True}, word(params, run.database))
    rights = any(
        phrase in line
        for line in compared.incomplete
        for phrase in ("ermission denied", "ust be superuser", "ust be owner")
    )
    run.diff = {
        "before_header": "backed up", "before": compared.schema[0], "after_header": "restored", "after": compared.schema[1],
    }  # fmt: skip
    return DasTernError(
        [
            f"{entry['words']} was restored, and differs from the backup. The live database was not touched and serves; the restored "
            f"copy stays as {where} until {local(entry['until'])}.",
            *(f"  {line}" for line in compared.lines),
            *(f"  {line}" for line in cut(compared.diff, DIFF_LINES)),
            *([logical.AS_SUPERUSER] if rights else []),
            f"To make it live nevertheless: `{command}`.",
        ],
        differences=compared.to_judge, waiting=entry["incoming"], diff=run.diff,
    )  # fmt: skip
