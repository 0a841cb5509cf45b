"""Bring a cluster, a database or a table back; until the last step the live database is as it was.

What is restored stands beside the live one and is checked there. The swap is a rename: of two folders in the data volume
for a cluster, of two databases otherwise. The former one is kept, and brought back by the same swap. What is under way
and what is kept stands in `<backup_dir>/restore.json`; a run that was killed is healed by the next one.
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
    params: Mapping[str, Any], *, check_mode: bool = False, say: Callable[[str], None] = lambda words: None
) -> dict[str, Any]:
    """Restore what `params` (the options of the module `restore`) ask for; what the module returns. Raises `DasTernError`."""
    if not (params["undo"] or params["target"].strip()):
        raise DasTernError(f"`target` is empty. Nothing was done. Wanted is {TARGETS}.")
    refuse_hours(params)
    # What is no number is refused where it is known which timelines there are.
    timeline = str(params["timeline"])
    params = {**params, "timeline": int(timeline) if timeline.isdecimal() else timeline}
    place = Place(dict(params))
    if params["unconfigured"]:
        words = f"would restore {params['target']}; from which backup is seen once pgBackRest's configuration is as declared"
        return {"changed": True, "target": params["target"], "next": [restore_command(params)], "lines": [words]}
    if (
        check_mode and not params["undo"] and not (place.folder / TRANSFER).is_dir()
    ):  # the engine would make it, for a container that looks
        words = f"would restore {params['target']}; from which backup is seen once {place.folder} is there"
        return {"changed": True, "target": params["target"], "next": [restore_command(params)], "lines": [words]}
    with contextlib.nullcontext() if check_mode else place.alone(params["wait"], "a restore"):
        run = Run(params, place, Site(params, place), State(place), [], say)
        if check_mode:
            if run.state.pending:
                run.lines.append("a swap that was killed would be healed first")
        else:
            pending, kept = run.state.pending, {one["kept"] for one in run.state.kept}
            run.lines += healed(run.site, run.state)
            # What came in was kept before, and isn't now: it was an undo, and once more would be the opposite.
            if params["undo"] and pending and pending["incoming"] in kept - {one["kept"] for one in run.state.kept}:
                return {"changed": True, "target": pending["incoming"], "next": [UNDO], "lines": run.lines}
        try:
            result = _undo(run, check_mode) if params["undo"] else _restore(run, check_mode)
            if run.state.pending and not check_mode:  # it came back with its cluster
                run.lines += healed(run.site, run.state)
            # Not earlier: what failed or was refused says that nothing was done, and `undo` needs what is kept.
            if not check_mode and not params["undo"]:
                run.lines += expire_old(place)
        except DasTernError as refusal:
            before = " ".join(f"{line[:1].upper()}{line[1:]}." for line in run.lines)
            raise DasTernError(f"{refusal.message} {before}".strip(), **refusal.facts) from None
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
                f"Backup {logical.label} is a logical one, which has no timeline, and `timeline` is {params['timeline']}. Nothing was done; "
                "leave it out."
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
    # Otherwise it may have come later, or is only known when the backup is restored.
    if params["table"] and expected.properties and (goal is None or goal.own):
        database_copy.tables_of(expected, params["table"], lambda: _partitions(run, goal, record))
    told = preflight(run, goal, record, words)
    if run.state.waiting and not into and not params["table"]:
        told.append(
            f"{run.state.waiting['incoming']}, which waits for a decision on what it has otherwise, would be removed afterwards"
        )
    command = restore_command(params, "" if into else word(params, run.database))
    if check_mode:
        return {**planned(run, told, command, confirmed), "target": words, **along}
    if not confirmed:
        raise unconfirmed(run, what, told, command)
    if what == "cluster":
        assert goal is not None
        result = _cluster(run, goal, record)
    else:
        result = _database(run, goal, record, words)
    if not into and not params["table"]:
        run.lines += discard_waiting(run.place, run.state)
    return {**result, **along}


def _partitions(run: Run, goal: Target | None, record: Record) -> dict[str, list[str]]:
    """Partitioned tables before a backup is restored: a logical one lists its own, otherwise those that are there now."""
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
        compared = checked(psql, run.database, record, goal, instead)
        came = _came_along(run, psql)
        server.stop()
    seconds, found = time.monotonic() - began, compared.found
    entry = swap_entry(
        run, "cluster", incoming=f"restored-{stamp}", kept=f"replaced-{stamp}", words=goal.words, rows=found.tables
    )
    if compared.to_judge and not run.params["accept_differences"]:
        raise leave_waiting(run, entry, compared, f"folder {entry['incoming']} of volume {site.volume}")
    run.say("Checked. Swapping ...")
    refused = swap_folders(run, entry)
    run.lines.append(f"cluster restored to {goal.words}, in {seconds:.1f} s beside the live one")
    run.lines += [contents(run.database, found), *compared.lines, *came]
    note_difference(run, found, goal.words)
    after = kept_lines(run, entry, refused)
    return {"next": [*passwords("cluster"), *after], "target": goal.words, "seconds": round(seconds, 1),
            "refused_seconds": refused}  # fmt: skip


def _came_along(run: Run, psql: Psql) -> list[str]:
    """What earlier restores had kept when the backup was taken: it is there again, and nothing would ever remove it."""
    pattern = re.compile(re.escape(name_beside(run.database, "before", "")) + r"\d{8}_\d{9}")
    known = {one["kept"] for one in run.state.kept}
    return [
        f"with it came {name}, which an earlier restore had kept; if nobody needs it: `docker exec {quote(run.site.name)} dropdb -U postgres {quote(name)}`"
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
            compared = database_copy.from_logical(run.place, record, name, params["table"], instead, session)
        else:
            compared = database_copy.from_physical(
                site, record, goal, run.database, name, params["table"], stamp, instead=instead, session=session,
                check=lambda psql, database, record, goal: checked(psql, database, record, goal, instead),
            )  # fmt: skip
        if into:  # whole or not at all; and a database that somebody made of that name meanwhile stays theirs
            site.psql.run(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(into)};")
    seconds, found = time.monotonic() - began, compared.found
    if compared.to_judge and not (into or params["table"] or params["accept_differences"]):
        entry = swap_entry(
            run,
            "database",
            incoming=name,
            kept=name_beside(run.database, "before", stamp),
            words=words,
            rows=found.tables,
        )
        look = f"docker exec -it -u postgres {quote(site.name)} psql -d {quote(name)}"
        raise leave_waiting(run, entry, compared, f"database {name} (to look at it: `{look}`)")
    beside = "beside " if params["table"] and not into else "into "
    run.lines.append(f"{words} restored {beside}{into or run.database} in {seconds:.1f} s")
    result = {"target": words, "seconds": round(seconds, 1), "next": []}
    if params["table"] and not into:
        return {**result, **_rows_put_back(run, name, found)}
    if params["table"]:
        run.lines.append(
            f"database {into} holds {params['table']} with its {found.rows} rows; other tables are empty or not there"
        )
    else:
        run.lines += [contents(into or run.database, found), *compared.lines]
        result["differences"] = compared.to_judge
    if into:
        owner = str(found.properties["owner"])
        console = f"docker exec -it -u postgres {quote(site.name)} psql -U {quote(owner)} -d {quote(into)}"
        back = (
            [playbook("restore", what="table", table=params["table"], target=params["target"])]
            if params["table"]
            else []
        )
        return {**result, "next": [console, *back]}
    return {**result, **swapped_in(run, name, stamp, found, words)}


def _rows_put_back(run: Run, copy: str, found: Census) -> dict[str, Any]:
    """Insert what the live table lacks, and drop the copy that it comes from, which holds what was `found`."""
    psql, rows = run.site.psql, found.rows
    try:
        table, _ = database_copy.tables_of(found, run.params["table"], lambda: database_copy.partitions(psql, copy))
        done = database_copy.put_back(run.site.psql, copy, run.database, table, rows)
    finally:
        run.site.psql.drop_database(copy)
    run.lines.append(
        f"{done.came} of the {rows} rows of {table} came back into {run.database}; the other {rows - done.came} were there and are as they were"
    )
    run.lines += [
        f"sequence {name} was behind the table's rows and now continues after {value}"
        for name, value in done.sequences.items()
    ]
    return {"rows": rows, "inserted": done.came, "sequences": done.sequences, "next": []}


def swap_in(
    params: Mapping[str, Any], place: Place, make: Callable[[str], Census], words: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Have `make` fill a database of a given name beside the live one, then swap the two; `undo` of a restore takes it back.

    `params` are those of `SITE_SPEC`, and `keep_old_hours`. The lock of the backups is held. Raises `DasTernError`.
    """
    run = Run({"what": "database", "undo": False, **params}, place, Site(params, place), State(place), [], say)
    run.lines += healed(run.site, run.state)
    stamp = timestamp()
    name = name_beside(run.database, "restored", stamp)
    if run.database in run.site.psql.databases():
        run.live = count(run.site.psql, run.database)
    with untouched(run, lambda: run.site.psql.drop_database(name)):
        found = make(name)
    run.lines.append(contents(run.database, found))
    result = swapped_in(run, name, stamp, found, words)
    return {**result, "lines": run.lines, "diff": run.diff}


def _undo(run: Run, check_mode: bool) -> dict[str, Any]:
    if not run.state.kept:
        raise DasTernError(
            f"Nothing is kept of a restore of {run.site.name} (see {run.state.path}), so there is nothing to take back."
        )
    last = run.state.kept[-1]
    if last["what"] == "database" and last["database"] != run.database:
        raise DasTernError(
            f"The newest that a restore replaced is database {last['database']}, and this run is for {run.database}. Nothing was "
            f"done. To bring it back: `{playbook('restore', undo='true', postgres_database=last['database'])}`."
        )
    stamp = timestamp()
    there = run.site.look()["entries"] if last["what"] == "cluster" else run.site.psql.databases()
    if last["kept"] not in there:
        done, next_one = "Nothing was done", f"`{playbook('list_backups')}` shows what can be restored."
        if not check_mode and last["volume"] == run.site.volume:  # otherwise it hides the older ones
            run.state.kept.pop()
            run.state.save()
            done += ", but that it isn't listed as kept any more"
            if older := run.state.kept[-1:]:
                next_one = f"`{UNDO}` now brings back {older[0]['what']} {older[0]['kept']}, replaced at {local(older[0]['at'])}."
        raise DasTernError(
            f"{last['kept']}, which a restore of {local(last['at'])} left, isn't there any more: it can't be brought back. {done}. {next_one}"
        )
    words = f"what was live before {local(last['at'], datetime.now(UTC))} ({last['words']})"
    confirmed = is_confirmed(run.params, run.database)
    if check_mode or not confirmed:
        told = [f"would bring back {words} ({last['what']} {last['kept']})", *written_since(run, last)]
        command = playbook("restore", undo="true", confirm=word(run.params, run.database))
        if not check_mode:
            raise unconfirmed(run, last["what"], told, command)
        return {**planned(run, told, command, confirmed), "target": last["kept"]}
    kept = f"replaced-{stamp}" if last["what"] == "cluster" else name_beside(run.database, "before", stamp)
    entry = swap_entry(run, last["what"], incoming=last["kept"], kept=kept, words=f"undo of {local(last['at'])}")
    refused = swap_folders(run, entry) if last["what"] == "cluster" else swap_databases(run, entry)
    run.lines.append(f"brought back {words}; what was written since isn't in it")
    after = kept_lines(run, entry, refused)
    return {"target": last["kept"], "refused_seconds": refused, "next": [*passwords(last["what"]), *after]}
