"""Swap the restored copy with the live one, keep the former one, and finish or undo a killed swap.

The swap is a rename: of two folders in the data volume for a cluster, of two databases otherwise.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Any

from ..backups.kept import COMMAND, State
from ..catalogue.census import Census
from ..common import swaps
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.quantities import local
from ..common.sql_values import identifier, literal
from ..docker.containers import ROLE_LABEL
from ..server.backup_folders import TRANSFER, empty
from ..server.survey import MOUNT
from . import database_copy
from .plan import note_difference
from .request import UNDO, Run, name_beside
from .restored_server import Site

START = 120.0
"""Seconds within which a swapped server has to answer."""

# A cluster that comes back mustn't wait for a receiver that is gone or has another password by now; if the receiver
# streams, the healthcheck makes commits wait again.
_SWAP = f"""
set -eu
cd {MOUNT}
sed -i '/^synchronous_standby_names *=/d' "$1/postgresql.auto.conf"
if [ -e pgdata ]; then mv -T pgdata "$2"; fi
mv -T "$1" pgdata
sync .
"""
_PUT_BACK = f"""
set -eu
cd {MOUNT}
if [ ! -e "$1" ] && [ -e pgdata ]; then mv -T pgdata "$1"; fi
if [ -e "$2" ]; then mv -T "$2" pgdata; fi
sync .
[ -e pgdata ] || echo nothing
"""
# Folders of tablespaces that no cluster of the volume links to.
_UNLINKED = rf"""
cd {MOUNT} || exit
for folder; do
  for link in */pg_tblspc/*; do
    case $(readlink "$link" || :)/ in {MOUNT}/"$folder"/*) continue 2;; esac
  done
  echo "$folder"
done
"""
# A transaction before and one after the swap, by which a time is known to be before or after it even if nobody else
# writes.
_NOTED = "SELECT pg_current_xact_id();"
_SWAP_DATABASES = """
SET application_name = 'das-tern swap';
ALTER DATABASE {live} WITH ALLOW_CONNECTIONS false;
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = {name};
BEGIN;
ALTER DATABASE {live} RENAME TO {kept};
ALTER DATABASE {incoming} RENAME TO {live};
ALTER DATABASE {live} WITH ALLOW_CONNECTIONS true{limit};
COMMIT;
"""
_END_SWAP = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'das-tern swap';"


def passwords(what: str) -> list[str]:
    """Return the command that restores the present passwords: a restored cluster has those of its time."""
    return ["ansible-playbook playbooks/provision.yml"] if what == "cluster" else []


def swapped_in(run: Run, incoming: str, stamp: str, census: Census, words: str) -> dict[str, Any]:
    """Make the checked database `incoming` the live one."""
    kept = name_beside(run.database, "before", stamp)
    entry = swap_entry(run, "database", incoming=incoming, kept=kept, words=words, rows=census.tables)
    refused = swap_databases(run, entry)
    note_difference(run, census, words)
    return {"refused_seconds": refused, "next": kept_lines(run, entry, refused)}


def swap_entry(
    run: Run, what: str, *, incoming: str, kept: str, words: str, rows: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return the entry of a swap in `restore.json`; `rows` are those of the incoming copy, by table."""
    now = datetime.now(UTC)
    return {
        "what": what, "incoming": incoming, "kept": kept, "words": words, "database": run.database,
        "volume": run.site.volume, "rows": rows, "at": now.isoformat(timespec="seconds"),
        "until": (now + timedelta(hours=run.params["keep_old_hours"])).isoformat(timespec="seconds"),
    }  # fmt: skip


def swap_folders(run: Run, entry: dict[str, Any]) -> float:
    """Swap a cluster's folders; return the seconds for which nobody could connect."""
    site, state = run.site, run.state
    if "pgdata" not in site.look()["entries"]:
        entry["kept"] = ""
    _begin(run, entry)
    with site.waiting():
        if site.answers():
            site.psql.run(f"{_NOTED}\nCHECKPOINT;")  # leaves the shutdown checkpoint little to write
        began = time.monotonic()
        try:
            if site.container:
                site.stop()
            moved = site.within(_SWAP, entry["incoming"], entry["kept"])
            if moved.rc:
                raise DasTernError(f"The folders in volume {site.volume} can't be renamed: {moved.last_words}.")
            _serve(site)
        except BaseException as error:  # not even Ctrl-C may leave the server down
            try:
                failure = f"{error} {_put_back(site, entry)}"
            except DasTernError as refusal:
                raise DasTernError(
                    f"{error} {refusal.message} CONTAINER {site.name} MAY BE STOPPED. The next run of `{COMMAND}` lets the former "
                    "cluster serve again; without `confirm` it does nothing else."
                ) from None
            state.given_up(failure)
            if not isinstance(error, DasTernError):
                raise
        else:
            failure = ""
            seconds = time.monotonic() - began
            state.done()
            with contextlib.suppress(DasTernError):
                site.psql.run(_NOTED)
    if failure:
        _clean(run)
        raise DasTernError(failure)
    return round(seconds, 2) if site.container else 0.0


def _begin(run: Run, entry: dict[str, Any]) -> None:
    """Record the swap before it begins.

    An earlier swap of databases may still be pending because its server didn't start. It is within the cluster that is
    replaced now, and stays recorded with that.
    """
    pending = run.state.pending
    if pending and entry["what"] == "database":
        _clean(run)
        raise swaps.refusal(run.site.name, pending)
    if pending:
        entry["within"] = pending
    try:
        run.state.begin(entry)
    except DasTernError as refusal:
        run.state.pending = pending
        _clean(run)
        raise DasTernError(f"{refusal.message} Nothing was swapped.") from None


def _clean(run: Run) -> None:
    """Clean up after a failure without losing its message."""
    try:
        run.lines += cleaned(run.site, run.state)
    except DasTernError as refusal:
        run.lines.append(f"the restored copy is still there ({refusal.message}), and the next run removes it")


def _serve(site: Site, occasion: str = " after the swap") -> None:
    if not site.container:
        return
    site.start()
    if not site.wait_until_answers(START):
        raise DasTernError(
            f"The server doesn't answer within {START:.0f} s{occasion}: {site.containers.logs(site.name, 4)}."
        )


def _put_back(site: Site, entry: dict[str, Any]) -> str:
    """Put the former folder back and let it serve again; return the outcome as a sentence."""
    if site.container:
        site.stop()
    folders = entry["incoming"], entry["kept"] or "none"
    try:
        moved = site.within(_PUT_BACK, *folders)
    except DasTernError:  # somebody removed the idle container
        moved = site.once(_PUT_BACK, *folders, named=True)
    if moved.rc:
        return (
            f"The former folder {entry['kept']} in volume {site.volume} can't be put back: {moved.last_words}. Rename it to "
            "pgdata by hand."
        )
    if moved.out.strip() == "nothing":  # a server started there would create an empty cluster
        return f"There is no former cluster in volume {site.volume}, and no cluster serves."
    return _serves_again(site)


def _serves_again(site: Site) -> str:
    try:
        _serve(site)
    except DasTernError as refusal:
        return f"The former folder is back, but: {refusal.message}"
    return f"The former cluster is back and {_serves(site)}."


def _serves(site: Site) -> str:
    missing = f"will serve once `{playbook('provision')}` has created container {site.name}"
    return "serves" if site.container else missing


def swap_databases(run: Run, entry: dict[str, Any], limit: int | None = None) -> float:
    """Swap two databases, set the `limit` of a copy that waited, and return the seconds without connections."""
    site, state = run.site, run.state
    live, kept, incoming = (identifier(name) for name in (run.database, entry["kept"], entry["incoming"]))
    limited = "" if limit is None else f" CONNECTION LIMIT {limit}"
    if run.database not in site.psql.databases():
        entry["kept"] = ""
        script = (
            f"BEGIN;\nALTER DATABASE {incoming} RENAME TO {live};\n"
            f"ALTER DATABASE {live} WITH ALLOW_CONNECTIONS true{limited};\nCOMMIT;"
        )
    else:
        name = literal(run.database)
        script = _SWAP_DATABASES.format(live=live, kept=kept, incoming=incoming, name=name, limit=limited)
    _begin(run, entry)
    began = time.monotonic()
    try:
        site.psql.run(script)
    except DasTernError as error:
        site.wait_until_answers(START)  # the server may have crashed and be coming back
        try:
            serves = _settled(site, state)
        except DasTernError as refusal:
            doubt = (
                f" DATABASE {run.database} MAY REFUSE CONNECTIONS. When container {site.name} runs again, the next run of `{COMMAND}` "
                "reopens it; without `confirm` it does nothing else."
            )
            raise DasTernError(
                f"{error.message} {refusal.message}{'' if refusal.facts.get('unnoted') else doubt}"
            ) from None
        if serves:
            _clean(run)
            raise DasTernError(f"{error.message} {serves}") from None
    except BaseException:
        with contextlib.suppress(DasTernError):
            site.psql.run(f"ALTER DATABASE {live} WITH ALLOW_CONNECTIONS true;")
        raise  # psql may still be at work in the container: the next run sees the outcome
    else:
        state.done()
    return round(time.monotonic() - began, 2)


def _settled(site: Site, state: State) -> str:
    """Finish or undo an interrupted swap of databases and reopen the live one.

    Return which database serves, or '' if the swap had been committed. A missing incoming database doesn't prove that:
    somebody may have dropped it. Only the swap makes the former one.
    """
    assert state.pending is not None
    live, incoming, kept = (state.pending[name] for name in ("database", "incoming", "kept"))
    site.psql.run(_END_SWAP)  # psql may still be at work in the container
    databases = site.psql.databases()
    if live in databases:
        site.psql.run(f"ALTER DATABASE {identifier(live)} WITH ALLOW_CONNECTIONS true;")
    gone = incoming not in databases
    if gone and (kept or live) in databases:
        state.done()
        return ""
    outcome = (
        f"Database {live} wasn't replaced and serves as before."
        if live in databases
        else f"There is no database {live}."
    )
    if gone:
        outcome += f" {incoming}, which was to come in, doesn't exist any more, and there is no former one."
    state.given_up(outcome, gone=gone)
    return outcome


def healed(site: Site, state: State) -> list[str]:
    """Finish or undo the swap of a killed run, and remove its leftovers; return lines that tell what was done."""
    lines = []
    if state.pending:
        site.remove_helper()
    if state.pending and state.pending["what"] == "cluster":
        lines.append(_healed_folders(site, state, state.pending))
    if state.pending:  # a swap of databases, perhaps within the cluster that is back now
        lines.append(_healed_databases(site, state, state.pending))
    return lines + cleaned(site, state)


def _healed_databases(site: Site, state: State, entry: dict[str, Any]) -> str:
    swap = f"a swap of databases that was killed at {local(entry['at'])}"
    trouble = "doesn't exist"
    if site.container:
        try:
            _serve(site, "")
        except DasTernError as refusal:
            trouble = f"doesn't serve ({refusal.message.rstrip('.')})"
        else:
            serves = _settled(site, state)
            return f"{serves.rstrip('.')}: {swap} was undone" if serves else f"{swap} had been committed"
    return f"{swap} waits for container {site.name}, which {trouble}: `{playbook('provision')}` starts it, then `{COMMAND}` ends the swap"


def _healed_folders(site: Site, state: State, entry: dict[str, Any]) -> str:
    entries = site.look()["entries"]
    swap = f"a swap that was killed at {local(entry['at'])}"
    served, gone, former = "pgdata" in entries, entry["incoming"] not in entries, entry["kept"] in entries
    # Somebody removed the folders, or the volume is another one, which an idle container would create.
    if gone and not former and (entry["kept"] or not served):
        outcome = f"Neither folder {entry['incoming']} nor a former one is in volume {site.volume} any more"
        outcome += f". {_serves_again(site)}" if served else ", which holds no cluster."
        state.given_up(outcome, gone=True)
        return f"{swap} was undone: {outcome.rstrip('.')}"
    with site.waiting():
        # There is nothing to go back to, and the restored cluster had been checked.
        if not (served or gone or former) and site.within(_SWAP, entry["incoming"], "none").rc == 0:
            entry["kept"], served, gone = "", True, True
        if not (served and gone):
            # As long as nothing was moved, a server that somebody has started again needn't be stopped.
            outcome = _serves_again(site) if served and not former else _put_back(site, entry)
            state.given_up(outcome, gone=gone)
            return f"{swap} was undone: {outcome.rstrip('.')}"
        try:
            _serve(site)
        except DasTernError as refusal:
            outcome = _put_back(site, entry)
            state.given_up(outcome)
            return f"{swap} was undone ({refusal.message.rstrip('.')}): {outcome.rstrip('.')}"
    state.done()
    return f"{swap} was finished: the restored cluster {_serves(site)}"


def cleaned(site: Site, state: State) -> list[str]:
    """Remove the leftovers of a run that was killed before its swap; nobody else is at work (`Place.alone`)."""
    lines = []
    helper = site.containers.inspect("container", site.helper)
    if helper and (helper["Config"]["Labels"] or {}).get(ROLE_LABEL) != "restore":
        raise DasTernError(
            f"Container {site.helper} isn't ours, and its name is needed. Nothing was done. Rename it: "
            f"`docker rename {quote(site.helper)} {quote(f'{site.helper}-old')}`."
        )
    if helper:
        site.remove_helper()
        lines.append(f"container {site.helper}, left by a killed restore, was removed")
    if site.remove_left_volume():
        lines.append(f"volume {site.helper}-data, left by a killed restore, was removed")
    waiting = state.waiting["incoming"] if state.waiting else ""
    entries = site.look()["entries"] if site.volume_there() else []
    folders = [name for name in entries if name.startswith("restored-") and name != waiting]
    lines += [
        f"folder {site.backups / TRANSFER / name}, left by a killed run, was removed"
        for name in empty(site.backups, TRANSFER)
    ]
    if folders:
        site.remove_clusters(*folders)
        lines.append(f"{', '.join(folders)} in volume {site.volume}, left by a restore that didn't end, was removed")
    if spaces := [name for name in entries if re.fullmatch(r"tablespaces-\d{8}-\d{9}", name)]:
        unlinked = site.seen(_UNLINKED, *spaces).out.split()
        if unlinked and site.once(f'cd {MOUNT} && rm -rf -- "$@"', *unlinked, named=True).rc == 0:
            lines.append(
                f"folder {', '.join(unlinked)} in volume {site.volume}, which no cluster there uses, was removed"
            )
    if site.answers():
        pending = state.pending["incoming"] if state.pending else ""
        kept = {waiting, pending, *(entry["kept"] for entry in state.kept)}
        prefixes = (name_beside(site.place.database, what, "") for what in ("restored", database_copy.AGAIN.strip("_")))
        pattern = re.compile(rf"(?:{'|'.join(map(re.escape, prefixes))})\d{{8}}_\d{{9}}")
        for name in site.psql.databases():
            if pattern.fullmatch(name) and name not in kept:
                site.psql.drop_database(name)
                lines.append(f"database {name}, left by a restore that didn't end, was dropped")
    return lines


@contextlib.contextmanager
def untouched(run: Run, clean: Callable[[], Any]) -> Iterator[None]:
    """Guard the steps that don't touch the live database: clean up after a failure, and report that in its message."""
    served = run.site.answers()
    try:
        yield
    except BaseException as error:
        try:
            clean()
            leftovers = "the restored copy was removed"
        except DasTernError as refusal:
            leftovers = f"the restored copy is still there ({refusal.message}), and the next run removes it"
        if not isinstance(error, DasTernError):
            raise
        serves = "and serves" if run.site.answers() else f"(it doesn't answer{', as before' if not served else ''})"
        raise DasTernError(
            f"{error.message} The live database was not touched {serves}; {leftovers}.", **error.facts
        ) from None


def kept_lines(run: Run, kept: dict[str, Any], refused: float) -> list[str]:
    """Report how long the swap took and what is kept; return the command that undoes it."""
    if run.site.container:
        run.lines.append(f"connections were refused for {refused:.1f} s")
    if not kept["kept"]:
        return []
    where = (
        f"folder {kept['kept']} of volume {kept['volume']}" if kept["what"] == "cluster" else f"database {kept['kept']}"
    )
    run.lines.append(f"the former one is kept as {where} until {local(kept['until'])}")
    # With 0 the former one is removed at the end of this run, and `undo` would bring back an older one.
    return [UNDO] if run.params["keep_old_hours"] else []
