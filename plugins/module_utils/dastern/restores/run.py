"""Restore a cluster, a database or a table; until the last step the live database stays as it was.

The restored copy is checked beside the live one. The swap is a rename: of two folders in the data volume for a cluster,
of two databases otherwise. The former one is kept, and the same swap brings it back. `<backup_dir>/restore.json`
records the swap in progress and everything kept; the next run finishes or undoes the swap of a killed run.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from shlex import quote
from typing import Any

from ..backups import logical as backup_logical
from ..backups.kept import State, discard_waiting, expire_old
from ..backups.records import Place, Record
from ..catalogue.census import Census, count
from ..common.commands import playbook
from ..common.confirmation import is_confirmed, word
from ..common.errors import DasTernError
from ..common.quantities import local
from ..common.sql_values import identifier
from ..server.backup_folders import TRANSFER
from ..server.psql import Psql
from . import database_copy
from .plan import (
    logical_backup,
    note_difference,
    preflight,
    refuse_another,
    refuse_logical,
    refuse_senseless,
    written_since,
)
from .request import (
    UNDO,
    Run,
    checked,
    contents,
    name_beside,
    next_best,
    planned,
    refuse_hours,
    refuse_version,
    restore_command,
    timestamp,
    unconfirmed,
)
from .restored_server import RestoredServer, Site
from .swap import healed, kept_lines, passwords, swap_databases, swap_entry, swap_folders, swapped_in, untouched
from .target import TARGETS, Target, resolve
from .waiting import leave_waiting, swap_waiting, waiting_copy


def restore(
    params: Mapping[str, Any], *, check_mode: bool = False, say: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Restore what `params` (the options of the module `restore`) ask for; return its result. Raises `DasTernError`."""
    if not (params["undo"] or params["target"].strip()):
        raise DasTernError(f"`target` is empty. Nothing was done. Expected: {TARGETS}.")
    refuse_hours(params)
    # `resolve` refuses text, as it knows the existing timelines.
    timeline = str(params["timeline"])
    params = {**params, "timeline": int(timeline) if timeline.isdecimal() else timeline}
    place = Place(dict(params))
    if params["unconfigured"]:
        line = f"would restore {params['target']}; the backup is known once pgBackRest's configuration is as declared"
        return {"changed": True, "target": params["target"], "next": [restore_command(params)], "lines": [line]}
    if (
        check_mode and not params["undo"] and not (place.folder / TRANSFER).is_dir()
    ):  # the engine would create it for a container that only reads
        line = f"would restore {params['target']}; the backup is known once {place.folder} exists"
        return {"changed": True, "target": params["target"], "next": [restore_command(params)], "lines": [line]}
    with contextlib.nullcontext() if check_mode else place.alone(params["wait"], "a restore"):
        run = Run(params, place, Site(params, place), State(place), [], say)
        if check_mode:
            if run.state.pending:
                run.lines.append("a killed swap would be finished or undone first")
        else:
            pending, kept = run.state.pending, {entry["kept"] for entry in run.state.kept}
            run.lines += healed(run.site, run.state)
            # The copy that came in was kept before and isn't any more: that swap was an undo, and a second one would
            # revert it.
            if params["undo"] and pending and pending["incoming"] in kept - {entry["kept"] for entry in run.state.kept}:
                return {"changed": True, "target": pending["incoming"], "next": [UNDO], "lines": run.lines}
        try:
            result = _undo(run, check_mode) if params["undo"] else _restore(run, check_mode)
            if run.state.pending and not check_mode:  # a swap of databases came back with its cluster
                run.lines += healed(run.site, run.state)
            # Not earlier: a failure or refusal reports that nothing was done, and `undo` needs the kept ones.
            if not check_mode and not params["undo"]:
                run.lines += expire_old(place)
        except DasTernError as refusal:
            earlier = " ".join(f"{line[:1].upper()}{line[1:]}." for line in run.lines)
            raise DasTernError(f"{refusal.message} {earlier}".strip(), **refusal.facts) from None
    return {"changed": True, **result, "lines": run.lines, "diff": run.diff}


def _restore(run: Run, check_mode: bool) -> dict[str, Any]:
    params = run.params
    what, into, target = params["what"], params["into"], params["target"]
    refuse_senseless(run)
    confirmed = bool(into) or is_confirmed(params, run.database)
    logical = None if what == "cluster" else logical_backup(run)
    if logical:
        if params["timeline"]:
            raise DasTernError(
                f"`timeline` is {params['timeline']}, and backup {logical.label} is a logical one, which has no timeline. Nothing was "
                "done. Leave `timeline` out."
            )
        goal, record, words = None, logical, f"logical backup {logical.label}"
    else:
        refuse_logical(run)
        goal, record = resolve(
            run.site, target, check_mode=check_mode or not confirmed, timeline=params["timeline"],
            again=lambda line: restore_command({**params, "timeline": line}),
        )  # fmt: skip
        words = goal.words
    refuse_version(run.site, record)
    refuse_another(run, record, own=goal is None or goal.own)
    along = {"timeline": goal.timeline} if goal else {}
    run.asked = [
        what, run.database, params["repository"], params["as_superuser"], record.label, goal.recovery if goal else {}, along,
    ]  # fmt: skip
    run.moment = goal.moment if goal and goal.moment else datetime.fromisoformat(record.began)
    if waiting := waiting_copy(run):
        return {**swap_waiting(run, waiting, check_mode, confirmed), **along}
    expected = Census.of(record.census)
    # For other targets the table may have been created after the backup.
    if params["table"] and expected.properties and (goal is None or goal.own):
        database_copy.tables_of(expected, params["table"], lambda: _partitions(run, goal, record))
    plan = preflight(run, goal, record, words)
    if run.state.waiting and not into and not params["table"]:
        plan.append(
            f"{run.state.waiting['incoming']}, which waits for a decision on its differences, would be removed afterwards"
        )
    command = restore_command(params, "" if into else word(params, run.database))
    if check_mode:
        return {**planned(run, plan, command, confirmed), "target": words, **along}
    if not confirmed:
        raise unconfirmed(run, what, plan, command)
    if what == "cluster":
        assert goal is not None
        result = _cluster(run, goal, record)
    else:
        result = _database(run, goal, record, words)
    if not into and not params["table"]:
        run.lines += discard_waiting(run.place, run.state)
    return {**result, **along}


def _partitions(run: Run, goal: Target | None, record: Record) -> dict[str, list[str]]:
    """Return the partitioned tables before the restore: those that a logical backup lists, or else the live ones."""
    psql = run.site.psql
    if goal is None:
        return backup_logical.partitions(psql, f"{backup_logical.IN_CONTAINER}/{record.label}")
    return database_copy.partitions(psql, run.database) if psql.has_database(run.database) else {}


def _cluster(run: Run, goal: Target, record: Record) -> dict[str, Any]:
    site, began = run.site, time.monotonic()
    stamp = timestamp()
    site.make_volume(site.volume, "postgres")
    server = RestoredServer(site, site.volume, f"restored-{stamp}")
    run.say(f"Restoring {goal.words} beside the live cluster ...")
    instead = next_best(run, record)
    with untouched(run, server.discard):
        server.fill(goal.label, goal.timeline, instead)
        psql = server.serve(goal.settings(server))
        comparison = checked(psql, run.database, record, goal, instead)
        revived = _revived_lines(run, psql)
        server.stop()
    seconds, census = time.monotonic() - began, comparison.found
    entry = swap_entry(
        run, "cluster", incoming=f"restored-{stamp}", kept=f"replaced-{stamp}", words=goal.words, rows=census.tables
    )
    if comparison.to_judge and not run.params["accept_differences"]:
        raise leave_waiting(run, entry, comparison, f"folder {entry['incoming']} of volume {site.volume}")
    run.say("Checked. Swapping ...")
    refused = swap_folders(run, entry)
    run.lines.append(f"cluster restored to {goal.words}, in {seconds:.1f} s beside the live one")
    run.lines += [contents(run.database, census), *comparison.lines, *revived]
    note_difference(run, census, goal.words)
    after = kept_lines(run, entry, refused)
    return {"next": [*passwords("cluster"), *after], "target": goal.words, "seconds": round(seconds, 1),
            "refused_seconds": refused}  # fmt: skip


def _revived_lines(run: Run, psql: Psql) -> list[str]:
    """Name databases kept by earlier restores that came back with this backup; nothing else removes them."""
    pattern = re.compile(re.escape(name_beside(run.database, "before", "")) + r"\d{8}_\d{9}")
    known = {entry["kept"] for entry in run.state.kept}
    return [
        f"database {name}, kept by an earlier restore, came back with the backup; if nobody needs it: `docker exec {quote(run.site.name)} dropdb -U postgres {quote(name)}`"
        for name in psql.databases() if pattern.fullmatch(name) and name not in known
    ]  # fmt: skip


def _database(run: Run, goal: Target | None, record: Record, words: str) -> dict[str, Any]:
    site, params, began = run.site, run.params, time.monotonic()
    stamp, into = timestamp(), params["into"]
    name = name_beside(run.database, "restored", stamp)
    session = site.psql if params["as_superuser"] else None
    instead = next_best(run, record)
    run.say(f"Restoring {words} into database {into or name} ...")
    with untouched(run, lambda: site.psql.drop_database(name)):
        if goal is None:
            comparison = database_copy.from_logical(run.place, record, name, params["table"], instead, session)
        else:
            comparison = database_copy.from_physical(
                site, record, goal, run.database, name, params["table"], stamp, instead=instead, session=session,
                check=lambda psql, database, record, goal: checked(psql, database, record, goal, instead),
            )  # fmt: skip
        if into:  # whole or not at all; a database that somebody created by that name meanwhile stays theirs
            site.psql.run(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(into)};")
    seconds, census = time.monotonic() - began, comparison.found
    if comparison.to_judge and not (into or params["table"] or params["accept_differences"]):
        entry = swap_entry(
            run,
            "database",
            incoming=name,
            kept=name_beside(run.database, "before", stamp),
            words=words,
            rows=census.tables,
        )
        look = f"docker exec -it -u postgres {quote(site.name)} psql -d {quote(name)}"
        raise leave_waiting(run, entry, comparison, f"database {name} (to look at it: `{look}`)")
    preposition = "beside" if params["table"] and not into else "into"
    run.lines.append(f"{words} restored {preposition} {into or run.database} in {seconds:.1f} s")
    result = {"target": words, "seconds": round(seconds, 1), "next": []}
    if params["table"] and not into:
        return {**result, **_rows_put_back(run, name, census)}
    if params["table"]:
        run.lines.append(
            f"database {into} holds {params['table']} with its {census.rows} rows; other tables are empty or missing"
        )
    else:
        run.lines += [contents(into or run.database, census), *comparison.lines]
        result["differences"] = comparison.to_judge
    if into:
        owner = str(census.properties["owner"])
        console = f"docker exec -it -u postgres {quote(site.name)} psql -U {quote(owner)} -d {quote(into)}"
        put_back = (
            [playbook("restore", what="table", table=params["table"], target=params["target"])]
            if params["table"]
            else []
        )
        return {**result, "next": [console, *put_back]}
    return {**result, **swapped_in(run, name, stamp, census, words)}


def _rows_put_back(run: Run, copy: str, census: Census) -> dict[str, Any]:
    """Insert the rows that the live table lacks, and drop the `copy` that they come from; `census` counts it."""
    psql, rows = run.site.psql, census.rows
    try:
        table, _ = database_copy.tables_of(census, run.params["table"], lambda: database_copy.partitions(psql, copy))
        done = database_copy.put_back(run.site.psql, copy, run.database, table, rows)
    finally:
        run.site.psql.drop_database(copy)
    run.lines.append(
        f"{done.inserted} of the {rows} rows of {table} came back into {run.database}; the other {rows - done.inserted} existed already and are unchanged"
    )
    run.lines += [
        f"sequence {name} was behind the table's rows and now continues after {value}"
        for name, value in done.sequences.items()
    ]
    return {"rows": rows, "inserted": done.inserted, "sequences": done.sequences, "next": []}


def swap_in(
    params: Mapping[str, Any], place: Place, make: Callable[[str], Census], words: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Let `make` fill a database of a given name beside the live one, then swap the two; `undo` of a restore reverts
    that.

    `params` are those of `SITE_SPEC`, and `keep_old_hours`. The caller holds the lock of the backups. Raises
    `DasTernError`.
    """
    run = Run({"what": "database", "undo": False, **params}, place, Site(params, place), State(place), [], say)
    run.lines += healed(run.site, run.state)
    stamp = timestamp()
    name = name_beside(run.database, "restored", stamp)
    if run.database in run.site.psql.databases():
        run.live = count(run.site.psql, run.database)
    with untouched(run, lambda: run.site.psql.drop_database(name)):
        census = make(name)
    run.lines.append(contents(run.database, census))
    result = swapped_in(run, name, stamp, census, words)
    return {**result, "lines": run.lines, "diff": run.diff}


def _undo(run: Run, check_mode: bool) -> dict[str, Any]:
    if not run.state.kept:
        raise DasTernError(
            f"No restore of {run.site.name} left anything to bring back (see {run.state.path}): there is nothing to undo."
        )
    last = run.state.kept[-1]
    if last["what"] == "database" and last["database"] != run.database:
        raise DasTernError(
            f"The last restore replaced database {last['database']}, and this run is for {run.database}. Nothing was "
            f"done. To bring that one back: `{playbook('restore', undo='true', postgres_database=last['database'])}`."
        )
    stamp = timestamp()
    existing = run.site.look()["entries"] if last["what"] == "cluster" else run.site.psql.databases()
    if last["kept"] not in existing:
        done, advice = "Nothing was done", f"`{playbook('list_backups')}` lists what can be restored."
        if not check_mode and last["volume"] == run.site.volume:  # its entry would hide the older ones
            run.state.kept.pop()
            run.state.save()
            done += ", except that it isn't listed as kept any more"
            if older := run.state.kept[-1:]:
                advice = f"`{UNDO}` now brings back {older[0]['what']} {older[0]['kept']}, replaced at {local(older[0]['at'])}."
        raise DasTernError(
            f"{last['kept']}, which a restore of {local(last['at'])} left, doesn't exist any more and can't be brought back. {done}. {advice}"
        )
    words = f"the {last['what']} that was live before {local(last['at'], datetime.now(UTC))} ({last['words']})"
    confirmed = is_confirmed(run.params, run.database)
    if check_mode or not confirmed:
        plan = [f"would bring back {words}, kept as {last['kept']}", *written_since(run, last)]
        command = playbook("restore", undo="true", confirm=word(run.params, run.database))
        if not check_mode:
            raise unconfirmed(run, last["what"], plan, command)
        return {**planned(run, plan, command, confirmed), "target": last["kept"]}
    kept = f"replaced-{stamp}" if last["what"] == "cluster" else name_beside(run.database, "before", stamp)
    entry = swap_entry(run, last["what"], incoming=last["kept"], kept=kept, words=f"undo of {local(last['at'])}")
    refused = swap_folders(run, entry) if last["what"] == "cluster" else swap_databases(run, entry)
    run.lines.append(f"brought back {words}; it lacks everything written since")
    after = kept_lines(run, entry, refused)
    return {"target": last["kept"], "refused_seconds": refused, "next": [*passwords(last["what"]), *after]}
