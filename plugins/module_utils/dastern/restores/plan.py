"""The plan of a restore, the changes in the live database since the backup, and refusals before anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Any

from ..backups.records import Record
from ..catalogue.census import Census, count
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.quantities import amount, duration, local
from ..common.sql_values import new_database
from ..common.text import shown
from .request import UNDO, Run, kept_words
from .target import Target

_WAITS = """
SELECT to_json(current_setting('synchronous_standby_names') <> ''
  AND NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming'))
"""


def refuse_another(run: Run, record: Record, *, own: bool) -> None:
    """Refuse a physical backup's own end if its database had another name: its content couldn't be compared."""
    if own and record.physical and record.database != run.database:
        command = playbook(
            "restore", target=run.params["target"], what=run.params["what"], postgres_database=record.database
        )
        raise DasTernError(
            f"In backup {record.label} the database is called {record.database}, and this run is for {run.database}. Nothing was "
            f"done. `{command}` restores it under its former name."
        )


def refuse_senseless(run: Run) -> None:
    what, into, table = run.params["what"], run.params["into"], run.params["table"]
    if what == "cluster" and into:
        raise DasTernError(
            "`into` is for a copy of a database or a table beside the live database: "
            f"`{playbook('restore', what='database', into=into)}`. Nothing was done."
        )
    if (what == "table") != bool(table):
        raise DasTernError(
            f"`what` is {what!r} and `table` is {table!r}: to restore a table, set both. To put back the rows that the live table lacks: "
            f"`{playbook('restore', what='table', table=table or 'public.users')}`; for a copy beside it: "
            f"`{playbook('restore', what='table', table=table or 'public.users', into=into or 'users_of_monday')}`. Nothing was done."
        )
    if what != "cluster" and not run.site.answers():
        raise DasTernError(
            f"The live server in container {run.site.name} doesn't answer, and a {what} is restored into it. Nothing was done. "
            f"`ansible-playbook playbooks/provision.yml` starts the server; `{playbook('restore', what='cluster')}` restores all of it."
        )
    if what != "cluster" and run.site.psql.value(_WAITS):
        raise DasTernError(
            f"Commits in container {run.site.name} wait for the receiver of zero loss, which is away. So would this restore: a "
            "waiting commit keeps PostgreSQL from dropping a database. Nothing was done. `ansible-playbook playbooks/provision.yml` "
            "starts the receiver; with `-e backup_zero_loss_away=continue` commits continue without it."
        )
    if into:
        new_database("into", into)
    if into and into in run.site.psql.databases():
        raise DasTernError(
            f"`into` names a new database, and {into} exists already. Nothing was done. Choose another name; "
            f"`docker exec -u postgres {quote(run.site.name)} psql -l` lists the existing ones."
        )


def logical_backup(run: Run) -> Record | None:
    """Return the logical backup that the target means, or None if it means a physical one."""
    records = run.place.records() if run.site.repository == 1 else []
    if run.params["target"] == "latest":
        own = (record for record in records if record.database == run.database and record.good)
        return None if any(record.physical for record in records) else next(own, None)
    matches = [
        record
        for record in records
        if record.named(run.params["target"]) and (run.params["into"] or record.database == run.database)
    ]
    return next((record for record in matches[:1] if not record.physical), None)


def refuse_logical(run: Run) -> None:
    for record in run.place.records():
        if record.named(run.params["target"]) and not record.physical:
            if run.params["what"] != "cluster":
                raise DasTernError(
                    f"Backup {record.label} is of database {record.database}, and {run.database} would be replaced. Nothing was "
                    f"done. To restore it as a copy beside the live one: `{record.restore_command}`."
                )
            raise DasTernError(
                f"Backup {record.label} is a logical backup of database {record.database}; a cluster is restored from a physical "
                f"one. Nothing was done. `{playbook('restore', target=record.label, what='database')}`."
            )
        if record.named(run.params["target"]):
            return


def preflight(run: Run, goal: Target | None, record: Record, words: str) -> list[str]:
    """Return the plan: target, changes in the live database since, disk, steps; refuse if the disk is too full."""
    site, params = run.site, run.params
    lines = [f"target: {words} (taken {local(record.began, datetime.now(UTC))}, {amount(record.bytes)})"]
    look = site.look()
    live = site.answers() and run.database in site.psql.databases()
    if live and params["what"] != "table" and not params["into"]:
        try:
            run.live, own = count(site.psql, run.database), goal is None or goal.own
        except DasTernError as refusal:  # the restore may be because of that
            lines.append(f"the live database can't be counted: {refusal.message.rstrip('.')}")
        else:
            if record.uncounted:
                lines.append(
                    f"the changes in the live database since the backup aren't known: the backup's rows weren't counted ({record.uncounted.rstrip('.')})"
                )
            else:
                lines += _newer(run.live, record, own=own)
                if own:  # otherwise the content is only known after the restore
                    note_difference(run, Census.of(record.census), words)
        if since := goal.moment if goal else datetime.fromisoformat(record.began):
            lines.append(
                f"the live database is {duration((datetime.now(UTC) - since).total_seconds())} younger than the target"
            )
    elif not live:
        lines.append("the live database doesn't answer: its changes since the backup aren't known")
    size = record.bytes
    if live and goal and not goal.own:  # the cluster has grown since
        grown = site.psql.value("SELECT sum(pg_database_size(oid)) FROM pg_database")
        if params["target"] != "latest" and grown > size:
            lines.append(f"the live cluster has grown to {amount(grown)} since: a late moment needs as much more")
        elif params["target"] == "latest":
            size = max(size, grown)
    needed = int(size * (1.1 if params["what"] == "cluster" or goal is None else 2.2)) + 64 * 1024**2
    disks = [(f"volume {site.volume}", needed, look["free"])]
    if goal and params["what"] != "cluster":  # the dump goes through there
        disks.append((f"folder {site.backups}", Census.of(record.census).bytes, look["free_backups"]))
    for where, needs, free in disks:
        lines.append(f"disk of {where}: {amount(needs)} needed, {amount(free)} free")
        if free < needs:
            raise DasTernError(
                f"{'; '.join(lines)}: that doesn't fit. Nothing was done. Make room on the disk of {where} "
                "(`docker system df` shows what Docker holds)."
            )
    kept = kept_words(params["keep_old_hours"])
    if not (live if params["what"] == "database" else "pgdata" in look["entries"]):
        kept = f"there is no live {params['what']} to keep"
    if params["what"] == "table" and not params["into"]:
        lines.append(
            f"steps: restore the table beside {run.database}; insert the rows of {params['table']} whose key the live table lacks, "
            "as the owner, in one transaction, with its triggers; existing rows stay as they are"
        )
    elif params["what"] == "cluster":
        lines.append(f"steps: restore beside the live cluster, check, then swap within seconds; {kept}")
    elif params["into"]:
        lines.append(f"steps: restore into the new database {params['into']}; {run.database} isn't touched")
    else:
        lines.append(f"steps: restore into a database beside {run.database}, check, then swap; {kept}")
    return lines


def _newer(live: Census, record: Record, *, own: bool) -> list[str]:
    """Return the lines that compare the live database's rows with the record's."""
    changes = _changes(live.tables, Census.of(record.census).tables, "only in the backup")
    suffix = "" if own else "; the target keeps those committed before it"
    if not changes:
        return [f"the live database has as many rows in each table as backup {record.label}"]
    return [f"rows of the live database compared with backup {record.label}{suffix}:", *changes]


def _changes(live: Mapping[str, int], before: Mapping[str, int], missing: str) -> list[str]:
    """Return a line per table with more or fewer rows in the live database; `missing` describes tables it lacks."""
    changes = []
    for table in sorted(live.keys() | before.keys()):
        difference = live.get(table, 0) - before.get(table, 0)
        if table not in before or table not in live:
            changes.append(f"  {table} {'only in the live database' if table in live else missing}")
        elif difference:
            changes.append(f"  {table} {difference:+d}")
    return changes[:12] + ([f"  and {len(changes) - 12} more tables"] if len(changes) > 12 else [])


def note_difference(run: Run, restored: Census, words: str) -> None:
    """Note the difference between the live and the restored content for --diff."""
    if run.live is None:
        return

    def text(census: Census) -> str:
        lines = [f"{table}: {rows} rows" for table, rows in sorted(census.tables.items())]
        lines += [f"migration {entry.partition(' ')[0]}" for entry in census.migrations]
        return "".join(f"{shown(line)}\n" for line in lines)

    run.diff = {
        "before_header": f"the live database {run.database}", "before": text(run.live),
        "after_header": words, "after": text(restored),
    }  # fmt: skip


def written_since(run: Run, last: Mapping[str, Any]) -> list[str]:
    """Return what an undo removes: the rows written since, if they were counted then and can be counted now."""
    if not _is_live(run, last["what"]):
        return [f"there is no live {last['what']} to keep"]
    lines = [f"it lacks everything written since {last['at']}"]
    if last.get("rows") is not None:
        try:
            live = count(run.site.psql, run.database).tables
        except DasTernError as refusal:
            lines.append(f"the live database can't be counted: {refusal.message.rstrip('.')}")
        else:
            changes = _changes(live, last["rows"], "dropped since")
            lines += [f"rows of {run.database} since then:", *(changes or ["  as many in each table"])]
    hours = run.params["keep_old_hours"]
    if not hours:
        return [*lines, kept_words(hours)]
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    return [
        *lines,
        f"the present {last['what']} would be kept for {hours} h, until {until}, and `{UNDO}` brings it back",
    ]


def _is_live(run: Run, what: str) -> bool:
    """Return whether there is a live cluster or database that a swap would replace and keep."""
    return "pgdata" in run.site.look()["entries"] if what == "cluster" else run.database in run.site.psql.databases()
