"""Bring a cluster, a database or a table back; until the last step the live database is as it was.

What is restored stands beside the live one and is checked there. The swap is a rename: of two folders in the data volume
for a cluster, of two databases otherwise. The former one is kept, and brought back by the same swap. What is under way
and what is kept stands in `<backup_dir>/restore.json`; a run that was killed is healed by the next one.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Any

from . import backup_logical, database_copy, swaps
from .backup_folders import TRANSFER, empty
from .backup_physical import good, with_damaged_pages
from .backup_records import ARGUMENT_SPEC as PLACE
from .backup_records import UNREADABLE, Place, Record
from .census import Census, count
from .commands import playbook
from .comparison import SHOWN, Comparison, compare, refuse_damage
from .confirmation import SPEC as CONFIRMATION
from .confirmation import is_confirmed, wanted, word
from .containers import ROLE_LABEL
from .errors import DasTernError
from .files import write
from .psql import Psql
from .quantities import amount, cut, duration, local
from .restore_target import TARGETS, Archive, Target, resolve
from .restored_server import REMOVE, RestoredServer, Site
from .sql_values import identifier, literal, new_database
from .survey import MOUNT
from .text import shown

SITE_SPEC: dict[str, Any] = {
    **PLACE,
    "volume": {"type": "str", "required": True},
    "config_dir": {"type": "path", "required": True},
    "image": {"type": "str", "default": ""},
    "repository": {"type": "int", "default": 1},
    "wait": {"type": "int", "default": 60},
}
"""The options of every module that makes a server of a backup."""
ARGUMENT_SPEC: dict[str, Any] = {
    **SITE_SPEC,
    "target": {"type": "str", "default": "latest"},
    "what": {"type": "str", "default": "cluster", "choices": ["cluster", "database", "table"]},
    "into": {"type": "str", "default": ""},
    "table": {"type": "str", "default": ""},
    **CONFIRMATION,
    "undo": {"type": "bool", "default": False},
    "timeline": {"type": "str", "default": "0"},
    "unconfigured": {"type": "bool", "default": False},
    "keep_old_hours": {"type": "int", "default": 72},
    "as_superuser": {"type": "bool", "default": False},
    "accept_differences": {"type": "bool", "default": False},
}
COMMAND = playbook("restore")
UNDO = playbook("restore", undo="true")
DIFF_LINES = 40
"""How many lines of a difference of schemas a refusal shows; `--diff` shows all."""
MOST_HOURS = 10 * 366 * 24
"""For how long something may be kept that a restore replaced: ten years."""
START = 120.0
"""Seconds that a swapped server gets to answer."""

_WAITS = """
SELECT to_json(current_setting('synchronous_standby_names') <> ''
  AND NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming'))
"""

# One that comes back mustn't wait for a receiver that is gone or has another password by now; if it is there and streams,
# the healthcheck makes commits wait again.
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
cd {MOUNT}
for folder; do
  for link in */pg_tblspc/*; do
    case $(readlink "$link" || :)/ in {MOUNT}/"$folder"/*) continue 2;; esac
  done
  echo "$folder"
done
"""
# A transaction on either side of the swap: by them a time is known to be before or behind it, where nobody else writes.
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
# Identifier, last checkpoint and timeline of a cluster that isn't running: a start of the server changes the checkpoint.
_CONTROL = r"""
LC_ALL=C pg_controldata "$1" | sed -En "s/^(Database system identifier|Latest checkpoint location|Latest checkpoint's TimeLineID): *//p"
"""
_END_SWAP = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'das-tern swap';"


class State:
    """`restore.json`: the former ones that are kept, the newest last, the swap under way, and the copy that waits for a decision."""

    def __init__(self, place: Place) -> None:
        self.path = place.folder / swaps.NOTE
        try:
            found = json.loads(self.path.read_text("utf-8"))
            self.kept: list[dict[str, Any]] = [_checked_entry(one) for one in found["kept"]]
            self.pending: dict[str, Any] | None = found["pending"] and _checked_entry(found["pending"])
            waiting = found.get("waiting")
            self.waiting: dict[str, Any] | None = waiting and _checked_waiting(waiting)
        except FileNotFoundError:
            self.kept, self.pending, self.waiting = [], None, None
        except (OSError, *UNREADABLE) as error:
            raise DasTernError(
                f"{self.path} can't be read: {error}. Run the play as root; or move the file away: what restores replaced is then "
                "kept until somebody removes it."
            ) from None

    def save(self, mend: str = "Make room there, then run again.") -> None:
        noted = {"kept": self.kept, "pending": self.pending, "waiting": self.waiting}
        text = json.dumps(noted, indent=2, ensure_ascii=False) + "\n"
        try:
            write(self.path, text.encode())
        except OSError as error:
            raise DasTernError(f"{self.path} can't be written: {error.strerror}. {mend}") from None

    @property
    def overdue_waiting(self) -> dict[str, Any] | None:
        """The copy that waits, where its time is over."""
        waiting = None if self.pending else self.waiting
        return waiting if waiting and datetime.fromisoformat(waiting["until"]) <= datetime.now(UTC) else None

    def begin(self, swap: dict[str, Any]) -> None:
        self.pending = swap
        self.save()

    def done(self) -> None:
        """The swap under way has happened: its former one is kept, and what came in isn't any more."""
        swap = self.pending
        assert swap is not None
        came = next((one for one in self.kept if one["kept"] == swap["incoming"]), None)
        self.kept = [one for one in self.kept if one is not came]
        if self.waiting and self.waiting["incoming"] == swap["incoming"]:
            self.waiting = None
        elif self.waiting and not came:  # another restore has taken its place
            self.waiting["until"] = datetime.now(UTC).isoformat(timespec="seconds")
        if swap["kept"]:
            self.kept.append(swap)
        kept = f", and the former one is kept as {swap['kept']}" if swap["kept"] else ""
        self._settle(f"The swap has happened: the restored {swap['what']} is live{kept}.", came and came.get("within"))

    def given_up(self, words: str, *, gone: bool = False) -> None:
        """It hasn't happened; `words` say what serves. Where that can't be noted, what was to come in has to stay.

        `gone` is said where what was to come in isn't there any more.
        """
        if gone and self.waiting and self.pending and self.waiting["incoming"] == self.pending["incoming"]:
            self.waiting = None
        self._settle(words, self.pending and self.pending.get("within"))

    def _settle(self, words: str, within: dict[str, Any] | None) -> None:
        """Note what came of the swap, also where that fails in `words`: the next run sees it by what is there.

        `within` is a swap of databases that hasn't ended in the cluster that is live now.
        """
        self.pending = within
        try:
            self.save(
                f"Make room there; the next run of `{COMMAND}` writes it, and without `confirm` does nothing else."
            )
        except DasTernError as refusal:
            raise DasTernError(f"{words} Only the note of that is missing: {refusal.message}", unnoted=True) from None


def _checked_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of `restore.json`; one of `UNREADABLE` where that isn't what was written."""
    for name in ("what", "incoming", "kept", "words", "database", "volume", "at"):
        entry[name].encode()
    if entry.get("rows") is not None:
        sum(entry["rows"].values())
    _with_offset(entry["until"])
    if entry.get("within"):
        _checked_entry(entry["within"])
    return entry


def _checked_waiting(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of a copy that waits, checked likewise."""
    _with_offset(entry["moment"])
    "".join([*entry["differences"], entry["asked"][0]])
    if left := entry.get("left"):
        if entry["what"] == "cluster":
            "".join(left["control"])
        else:
            int(left["oid"]), int(left["limit"]), Census.of(left["census"])
    return _checked_entry(entry)


def _with_offset(moment: str) -> None:
    if datetime.fromisoformat(moment).tzinfo is None:
        raise ValueError(f"{moment} has no offset")


@dataclass
class Run:
    """One run: who is live, what is known of former runs, and what has been said."""

    params: Mapping[str, Any]
    place: Place
    site: Site
    state: State
    lines: list[str]
    say: Callable[[str], None]
    diff: dict[str, str] = field(default_factory=dict)
    live: Census | None = None
    """What is to be replaced."""
    asked: list[Any] = field(default_factory=list)
    """What is to be restored, and how: a copy that waits is of the same only where all of it is the same."""
    moment: datetime | None = None
    """The time that it is of, or the earliest that it can be."""

    @property
    def database(self) -> str:
        return self.place.database


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
        return {"changed": True, "target": params["target"], "next": [_command(params)], "lines": [words]}
    if (
        check_mode and not params["undo"] and not (place.folder / TRANSFER).is_dir()
    ):  # the engine would make it, for a container that looks
        words = f"would restore {params['target']}; from which backup is seen once {place.folder} is there"
        return {"changed": True, "target": params["target"], "next": [_command(params)], "lines": [words]}
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
    _refuse_senseless(run)
    confirmed = bool(into) or is_confirmed(params, run.database)
    logical = None if what == "cluster" else _logical(run)
    if logical:
        if params["timeline"]:
            raise DasTernError(
                f"Backup {logical.label} is a logical one, which has no timeline, and `timeline` is {params['timeline']}. Nothing was done; "
                "leave it out."
            )
        goal, record, words = None, logical, f"logical backup {logical.label}"
    else:
        _refuse_logical(run)
        goal, record = resolve(
            run.site, target, check_mode=check_mode or not confirmed, timeline=params["timeline"],
            again=lambda line: _command({**params, "timeline": line}),
        )  # fmt: skip
        words = goal.words
    refuse_version(run.site, record)
    _refuse_another(run, record, own=goal is None or goal.own)
    along = {"timeline": goal.timeline} if goal else {}
    run.asked = [
        what, run.database, params["repository"], params["as_superuser"], record.label, goal.recovery if goal else {}, along,
    ]  # fmt: skip
    run.moment = goal.moment if goal and goal.moment else datetime.fromisoformat(record.began)
    if waiting := _waiting(run):
        return {**_swap_waiting(run, waiting, check_mode, confirmed), **along}
    expected = Census.of(record.census)
    # Otherwise it may have come later, or is only known when the backup is restored.
    if params["table"] and expected.properties and (goal is None or goal.own):
        database_copy.tables_of(expected, params["table"], lambda: _partitions(run, goal, record))
    told = _preflight(run, goal, record, words)
    if run.state.waiting and not into and not params["table"]:
        told.append(
            f"{run.state.waiting['incoming']}, which waits for a decision on what it has otherwise, would be removed afterwards"
        )
    command = _command(params, "" if into else word(params, run.database))
    if check_mode:
        return {**_planned(run, told, command, confirmed), "target": words, **along}
    if not confirmed:
        raise _unconfirmed(run, what, told, command)
    if what == "cluster":
        assert goal is not None
        result = _cluster(run, goal, record)
    else:
        result = _database(run, goal, record, words)
    if not into and not params["table"]:
        run.lines += _discarded(run.place, run.state)
    return {**result, **along}


def _partitions(run: Run, goal: Target | None, record: Record) -> dict[str, list[str]]:
    """Partitioned tables before a backup is restored: a logical one lists its own, otherwise those that are there now."""
    psql = run.site.psql
    if goal is None:
        return backup_logical.partitions(psql, f"{backup_logical.IN_CONTAINER}/{record.label}")
    return database_copy.partitions(psql, run.database) if psql.has_database(run.database) else {}


def _refuse_another(run: Run, record: Record, *, own: bool) -> None:
    """Refuse the own end of a physical backup whose database had another name: what it holds couldn't be compared."""
    if own and record.kind == "physical" and record.database != run.database:
        command = playbook(
            "restore", target=run.params["target"], what=run.params["what"], postgres_database=record.database
        )
        raise DasTernError(
            f"In backup {record.label} the database is called {record.database}, and this run is for {run.database}. Nothing was "
            f"done. `{command}` restores it under its name of then."
        )


def _waiting(run: Run) -> dict[str, Any] | None:
    """The copy that waits, where this run is asked to make just that one live: `latest` is another by now."""
    params, waiting = run.params, None if run.state.overdue_waiting else run.state.waiting
    if waiting and params["accept_differences"] and params["target"] != "latest" and not params["into"]:
        return waiting if waiting["asked"] == run.asked else None
    return None


def _swap_waiting(run: Run, waiting: dict[str, Any], check_mode: bool, confirmed: bool) -> dict[str, Any]:
    """Make the copy live that was restored by an earlier run, and left for what it has otherwise."""
    what, stamp = waiting["what"], _stamp()
    there = run.site.look()["entries"] if what == "cluster" else _databases(run.site.psql)
    if waiting["incoming"] not in there:
        run.state.waiting = None
        if not check_mode:
            run.state.save()
        raise DasTernError(
            f"{waiting['incoming']}, which a restore of {local(waiting['at'])} left, isn't there any more. Nothing was done; the "
            "same command restores it once more."
        )
    if changed := _changed(run, waiting):
        again = _command({**run.params, "accept_differences": False}, word(run.params, run.database))
        raise DasTernError(
            f"{waiting['incoming']} can't become live as a restore of {local(waiting['at'])} left it: {'; '.join(cut(changed, SHOWN))}. "
            f"Nothing was done. `{again}` restores it once more.",
            differences=changed,
        )
    told = [
        f"would make live what was restored at {local(waiting['at'], datetime.now(UTC))}: {waiting['words']}",
        *waiting["differences"],
    ]
    told += _since(run, {**waiting, "at": waiting["moment"]})
    command = _command(run.params, word(run.params, run.database))
    if check_mode:
        return {**_planned(run, told, command, confirmed), "target": waiting["words"]}
    if not confirmed:
        raise _unconfirmed(run, what, told, command)
    kept = f"replaced-{stamp}" if what == "cluster" else _named(run.database, "before", stamp)
    entry = _entry(run, what, incoming=waiting["incoming"], kept=kept, words=waiting["words"], rows=waiting["rows"])
    if what == "cluster":
        refused = _swap_folders(run, entry)
    else:
        refused = _swap_databases(run, entry, limit=int(waiting["left"]["limit"]))
    run.lines.append(f"{waiting['words']}, restored at {local(waiting['at'])}, is live now")
    run.lines += waiting["differences"]
    after = _kept_lines(run, entry, refused)
    return {"target": waiting["words"], "refused_seconds": refused, "differences": waiting["differences"],
            "next": [*_passwords(what), *after]}  # fmt: skip


def _left(run: Run, entry: dict[str, Any], found: Census) -> dict[str, Any]:
    """Close the copy to all but the superuser; return what `_changed` compares it with."""
    if entry["what"] == "cluster":
        return {"control": _control(run.site, entry["incoming"])}
    psql, name = run.site.psql, entry["incoming"]
    limit = psql.value(f"SELECT to_json(datconnlimit) FROM pg_database WHERE datname = {literal(name)}")
    psql.run(f"ALTER DATABASE {identifier(name)} CONNECTION LIMIT 0;")
    census = {**found.as_dict(), "properties": {**found.properties, "connection_limit": 0}}
    return {"oid": _oid(psql, name), "limit": limit, "census": census}


def _changed(run: Run, waiting: dict[str, Any]) -> list[str]:
    """Why the copy that waits mustn't become live: it was checked when it was restored, and not since."""
    site, name, left = run.site, waiting["incoming"], waiting.get("left")
    if not left:
        return ["what it was then isn't noted"]
    if waiting["what"] == "cluster":
        control = _control(site, name)
        if not control or control != left["control"]:
            return ["its folder has another cluster, or a server was started on it"]
        archive, timeline = Archive(site), int(control[-1])
        if timeline in {*archive.segments, *archive.forks, *archive.damaged}:
            return [f"it is on timeline {timeline}, which the archive has of another restore by now"]
        return []
    if _oid(site.psql, name) != left["oid"]:
        return ["it is another database of that name"]
    told = compare(Census.of(left["census"]), count(site.psql, name))
    return told.damage + told.differences + (["its schema is another one"] if told.schema_differs else [])


def _control(site: Site, folder: str) -> list[str]:
    return site.seen(_CONTROL, f"{MOUNT}/{folder}").out.split()


def _oid(psql: Psql, database: str) -> Any:
    return psql.value(f"SELECT to_json(oid::int8) FROM pg_database WHERE datname = {literal(database)}")


def _leave(run: Run, entry: dict[str, Any], compared: Comparison, where: str) -> DasTernError:
    """Note the copy that waits for a decision; the refusal that says what it has otherwise, and how it becomes live."""
    params = run.params
    run.lines += _discarded(run.place, run.state)
    assert run.moment is not None
    moment = run.moment.isoformat(timespec="seconds")
    left = _left(run, entry, compared.found)
    run.state.waiting = {**entry, "asked": run.asked, "moment": moment, "differences": compared.lines, "left": left}
    run.state.save("Make room there, then run again: what was restored stays until then.")
    command = _command({**params, "accept_differences": True}, word(params, run.database))
    rights = any(
        words in one
        for one in compared.incomplete
        for words in ("ermission denied", "ust be superuser", "ust be owner")
    )
    run.diff = {
        "before_header": "backed up", "before": compared.schema[0], "after_header": "restored", "after": compared.schema[1],
    }  # fmt: skip
    return DasTernError(
        [
            f"{entry['words']} was restored, and isn't in all what was backed up. The live database was not touched and serves; what "
            f"was restored stays as {where} until {local(entry['until'])}.",
            *(f"  {line}" for line in compared.lines),
            *(f"  {line}" for line in cut(compared.diff, DIFF_LINES)),
            *([backup_logical.AS_SUPERUSER] if rights else []),
            f"To make it live all the same: `{command}`.",
        ],
        differences=compared.to_judge, waiting=entry["incoming"], diff=run.diff,
    )  # fmt: skip


def _discarded(place: Place, state: State) -> list[str]:
    """Remove the copy that waits for a decision, as another restore has taken its place; in words."""
    waiting = state.waiting
    if waiting is None or not _removed(place, waiting, "incoming"):
        return []
    state.waiting = None
    state.save()
    return [
        f"{waiting['what']} {waiting['incoming']}, which waited for a decision since {local(waiting['at'])}, was removed"
    ]


def _planned(run: Run, told: list[str], command: str, confirmed: bool) -> dict[str, Any]:
    """What check mode says: the plan, the command, and the confirmation where it is missing."""
    run.lines += told
    return {"next": [command], **({} if confirmed else {"confirm": word(run.params, run.database)})}


def _unconfirmed(run: Run, what: str, told: list[str], command: str) -> DasTernError:
    deed = {
        "cluster": "replaces the live cluster", "table": f"inserts rows into table {run.params['table']} of the live database {run.database}",
    }.get(what, f"replaces the live database {run.database}")  # fmt: skip
    return DasTernError(
        f"This {deed}. Nothing was done. {wanted(run.params, run.database)} To do it: `{command}`.",
        preflight=told,
        confirm=word(run.params, run.database),
    )


def refuse_hours(params: Mapping[str, Any]) -> None:
    """Refuse a time to keep what is replaced that no date can be reckoned with, or that would delete what somebody meant to keep."""
    if not 0 <= params["keep_old_hours"] <= MOST_HOURS:
        raise DasTernError(
            f"`restore_keep_old_hours` is {params['keep_old_hours']}; wanted is a number from 0 to {MOST_HOURS}. Nothing was done."
        )


def kept_words(hours: int) -> str:
    """Say of a plan how long what is replaced will be kept."""
    if not hours:
        return "the former one isn't kept (`restore_keep_old_hours` is 0)"
    return f"the former one is kept for {hours} h, and `{UNDO}` brings it back"


def _refuse_senseless(run: Run) -> None:
    what, into, table = run.params["what"], run.params["into"], run.params["table"]
    if what == "cluster" and into:
        raise DasTernError(
            "A copy beside the live one (`into`) is a database or a table: "
            f"`{playbook('restore', what='database', into=into)}`. Nothing was done."
        )
    if (what == "table") != bool(table):
        raise DasTernError(
            "A table is named by `table`, and wanted by `what`. To have the rows that the live one lacks put back: "
            f"`{playbook('restore', what='table', table=table or 'public.users')}`; beside it: "
            f"`{playbook('restore', what='table', table=table or 'public.users', into=into or 'users_of_monday')}`. Nothing was done."
        )
    if what != "cluster" and not run.site.answers():
        raise DasTernError(
            f"The live server in container {run.site.name} doesn't answer, and a {what} is restored into it. Nothing was done. "
            f"`ansible-playbook playbooks/provision.yml` starts it; `{playbook('restore', what='cluster')}` restores all of it."
        )
    if what != "cluster" and run.site.psql.value(_WAITS):
        raise DasTernError(
            f"Commits in container {run.site.name} wait for the receiver of zero loss, which is away, and so would this restore: a "
            "waiting commit keeps PostgreSQL from dropping a database. Nothing was done. `ansible-playbook playbooks/provision.yml` "
            "starts the receiver; with `-e backup_zero_loss_away=continue` commits go on without it."
        )
    if into:
        new_database("into", into)
    if into and into in _databases(run.site.psql):
        raise DasTernError(
            f"`into` is a new database, and {into} exists already. Nothing was done; choose another name. "
            f"`docker exec -u postgres {quote(run.site.name)} psql -l` shows what there is."
        )


def refuse_version(site: Site, record: Record) -> None:
    """Refuse a backup that isn't of the image's major version: neither its files nor its server would start."""
    image = site.containers.inspect("image", site.image) or {"Config": {}}
    there = dict(word.partition("=")[::2] for word in image["Config"].get("Env") or []).get("PG_MAJOR", "")
    major = record.server.partition(".")[0]
    if there and there != major:
        raise DasTernError(
            f"Backup {record.label} is of PostgreSQL {record.server}, and the image of container {site.name} has {there}: another "
            f"major version. Nothing was done. Restore it with an image of version {major}, on a server of its own "
            "(`-e postgres_image_reference=IMAGE -e postgres_container_name=NAME`)."
        )


def _logical(run: Run) -> Record | None:
    """The logical backup that is meant, if it is one that is meant."""
    records = run.place.records() if run.site.repository == 1 else []
    if run.params["target"] == "latest":
        own = (record for record in records if record.database == run.database and good(record))
        return None if any(record.kind == "physical" for record in records) else next(own, None)
    named = [
        record
        for record in records
        if run.params["target"] in (record.label, record.name or None)
        and (run.params["into"] or record.database == run.database)
    ]
    return next((record for record in named[:1] if record.kind == "logical"), None)


def _refuse_logical(run: Run) -> None:
    for record in run.place.records():
        if run.params["target"] in (record.label, record.name or None) and record.kind == "logical":
            if run.params["what"] != "cluster":
                raise DasTernError(
                    f"Backup {record.label} is of database {record.database}, and {run.database} would be replaced. Nothing was "
                    f"done. As a copy beside it: `{record.restore_command}`."
                )
            raise DasTernError(
                f"Backup {record.label} is a logical one of database {record.database}; a cluster is restored from a physical "
                f"one. Nothing was done. `{playbook('restore', target=record.label, what='database')}`."
            )
        if run.params["target"] in (record.label, record.name or None):
            return


def _preflight(run: Run, goal: Target | None, record: Record, words: str) -> list[str]:
    """What will be done, what is newer in the live database, disk; a refusal where that doesn't fit."""
    site, params = run.site, run.params
    told = [f"target: {words} (taken {local(record.began, datetime.now(UTC))}, {amount(record.bytes)})"]
    look = site.look()
    live = site.answers() and run.database in _databases(site.psql)
    if live and params["what"] != "table" and not params["into"]:
        try:
            run.live, own = count(site.psql, run.database), goal is None or goal.own
        except DasTernError as refusal:  # that may be why somebody restores
            told.append(f"the live database can't be counted: {refusal.message.rstrip('.')}")
        else:
            if record.uncounted:
                told.append(
                    f"what is newer in the live database isn't known: the backup's rows weren't counted ({record.uncounted.rstrip('.')})"
                )
            else:
                told += _newer(run.live, record, own=own)
                if own:  # otherwise it is known when it was restored
                    _compare(run, Census.of(record.census), words)
        if since := goal.moment if goal else datetime.fromisoformat(record.began):
            told.append(
                f"the live database is {duration((datetime.now(UTC) - since).total_seconds())} younger than the target"
            )
    elif not live:
        told.append("the live database doesn't answer: what is newer in it isn't known")
    size = record.bytes
    if live and goal and not goal.own:  # it has grown since
        grown = site.psql.value("SELECT sum(pg_database_size(oid)) FROM pg_database")
        if params["target"] != "latest" and grown > size:
            told.append(f"the live cluster has grown to {amount(grown)} since: a late moment needs as much more")
        elif params["target"] == "latest":
            size = max(size, grown)
    needed = int(size * (1.1 if params["what"] == "cluster" or goal is None else 2.2)) + 64 * 1024**2
    disks = [(f"volume {site.volume}", needed, look["free"])]
    if goal and params["what"] != "cluster":  # its dump goes through there
        disks.append((f"folder {site.backups}", Census.of(record.census).bytes, look["free_backups"]))
    for where, needs, free in disks:
        told.append(f"disk of {where}: {amount(needs)} needed, {amount(free)} free")
        if free < needs:
            raise DasTernError(
                f"{'; '.join(told)}: that doesn't fit. Nothing was done. Make room on the disk of {where} "
                "(`docker system df` shows what Docker holds)."
            )
    kept = kept_words(params["keep_old_hours"])
    if not (live if params["what"] == "database" else "pgdata" in look["entries"]):
        kept = f"no {params['what']} is live that would be kept"
    if params["what"] == "table" and not params["into"]:
        told.append(
            f"done: restored beside {run.database}; those rows of {params['table']} whose key isn't there are inserted by the owner, "
            "in one transaction, and its triggers fire; rows that are there stay as they are"
        )
    elif params["what"] == "cluster":
        told.append(f"done: restored beside the live cluster, checked, then swapped within seconds; {kept}")
    elif params["into"]:
        told.append(f"done: restored into the new database {params['into']}; {run.database} isn't touched")
    else:
        told.append(f"done: restored into a database beside {run.database}, checked, then swapped; {kept}")
    return told


def _newer(live: Census, record: Record, *, own: bool) -> list[str]:
    """What is otherwise in the live database than in the record."""
    changes = _changes(live.tables, Census.of(record.census).tables, "only in the backup")
    behind = "" if own else ", of which the target keeps what was committed before it"
    if not changes:
        return [f"the live database has as many rows in each table as backup {record.label}"]
    return [f"rows of the live database against backup {record.label}{behind}:", *changes]


def _changes(live: Mapping[str, int], before: Mapping[str, int], gone: str) -> list[str]:
    """Rows by table that the live database has more or fewer, a line each; `gone` is said of a table that it lacks."""
    changes = []
    for table in sorted(live.keys() | before.keys()):
        difference = live.get(table, 0) - before.get(table, 0)
        if table not in before or table not in live:
            changes.append(f"  {table} {'only in the live one' if table in live else gone}")
        elif difference:
            changes.append(f"  {table} {difference:+d}")
    return changes[:12] + ([f"  and {len(changes) - 12} more tables"] if len(changes) > 12 else [])


def _compare(run: Run, restored: Census, words: str) -> None:
    """For --diff."""
    if run.live is None:
        return

    def text(census: Census) -> str:
        lines = [f"{table}: {rows} rows" for table, rows in sorted(census.tables.items())]
        lines += [f"migration {one.partition(' ')[0]}" for one in census.migrations]
        return "".join(f"{shown(line)}\n" for line in lines)

    run.diff = {
        "before_header": f"the live database {run.database}", "before": text(run.live),
        "after_header": words, "after": text(restored),
    }  # fmt: skip


def checked(psql: Psql, database: str, record: Record, goal: Target, instead: str = "") -> Comparison:
    """Count what was restored and hold it against the record; damage is a refusal, and `instead` says what to do then."""
    if database not in _databases(psql):
        raise DasTernError(f"The restored cluster has no database {database}. {instead}".strip())
    if psql.value(f"SELECT to_json(NOT datallowconn) FROM pg_database WHERE datname = {literal(database)}"):
        psql.run(f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS true;")  # its owner had closed it by then
    expected = Census.of(record.census)
    pages = with_damaged_pages(record)  # far better than none, and its target says so
    try:
        found = count(psql, database)
    except DasTernError:
        if not pages:
            raise
        found = expected
    if goal.own and not pages and not record.uncounted:
        told = compare(expected, found, rows=record.exact)
    else:
        told = Comparison(found)
    refuse_damage(told, f"What was restored of backup {record.label}", instead)
    if told.schema_differs:
        now = psql.value("SELECT to_json(current_setting('server_version'))")
        told.differences.append(f"its schema is written otherwise: then by PostgreSQL {record.server}, now by {now}")
    if not goal.own and expected.migrations and not found.migrations:
        told.differences.append("its migration ledger is empty")
    return told


def next_best(run: Run, record: Record) -> str:
    """Say what to do where `record`, which a restore began with, can't be used."""
    params, verify = run.params, "ansible-playbook playbooks/verify_backups.yml"
    if params["target"] not in (record.label, record.name or None):
        return f"`{verify}` notes what is damaged; then the same command begins with the next best backup."
    records = run.place.records() if params["repository"] == 1 else []
    prior = {one.label: one.prior for one in records}

    def built_upon(label: str) -> bool:
        return label == record.label or (label in prior and built_upon(prior[label]))

    for other in records:
        fits = other.kind == "physical" or (
            params["what"] != "cluster" and (params["into"] or other.database == run.database)
        )
        if fits and good(other) and not built_upon(other.label):
            command = _command({**params, "target": other.label, "timeline": 0, "accept_differences": False})
            return f"The next best backup is of {local(other.began)}: `{command}`."
    return f"No other good backup is known: `{verify}`, and `ansible-playbook playbooks/list_backups.yml` shows all."


def _cluster(run: Run, goal: Target, record: Record) -> dict[str, Any]:
    site, began = run.site, time.monotonic()
    stamp = _stamp()
    site.make_volume(site.volume, "postgres")
    server = RestoredServer(site, site.volume, f"restored-{stamp}")
    run.say(f"Restoring {goal.words} beside the live cluster ...")
    instead = next_best(run, record)
    with _untouched(run, server.discard):
        server.fill(goal.label, goal.timeline, instead)
        psql = server.serve(goal.settings(server))
        compared = checked(psql, run.database, record, goal, instead)
        came = _came_along(run, psql)
        server.stop()
    seconds, found = time.monotonic() - began, compared.found
    entry = _entry(
        run, "cluster", incoming=f"restored-{stamp}", kept=f"replaced-{stamp}", words=goal.words, rows=found.tables
    )
    if compared.to_judge and not run.params["accept_differences"]:
        raise _leave(run, entry, compared, f"folder {entry['incoming']} of volume {site.volume}")
    run.say("Checked. Swapping ...")
    refused = _swap_folders(run, entry)
    run.lines.append(f"cluster restored to {goal.words}, in {seconds:.1f} s beside the live one")
    run.lines += [_held(run.database, found), *compared.lines, *came]
    _compare(run, found, goal.words)
    after = _kept_lines(run, entry, refused)
    return {"next": [*_passwords("cluster"), *after], "target": goal.words, "seconds": round(seconds, 1),
            "refused_seconds": refused}  # fmt: skip


def _passwords(what: str) -> list[str]:
    """A cluster's passwords are those of its time."""
    return ["ansible-playbook playbooks/provision.yml"] if what == "cluster" else []


def _came_along(run: Run, psql: Psql) -> list[str]:
    """What earlier restores had kept when the backup was taken: it is there again, and nothing would ever remove it."""
    pattern = re.compile(re.escape(_named(run.database, "before", "")) + r"\d{8}_\d{9}")
    known = {one["kept"] for one in run.state.kept}
    return [
        f"with it came {name}, which an earlier restore had kept; if nobody needs it: `docker exec {quote(run.site.name)} dropdb -U postgres {quote(name)}`"
        for name in _databases(psql) if pattern.fullmatch(name) and name not in known
    ]  # fmt: skip


def _database(run: Run, goal: Target | None, record: Record, words: str) -> dict[str, Any]:
    site, params, began = run.site, run.params, time.monotonic()
    stamp, into = _stamp(), params["into"]
    name = _named(run.database, "restored", stamp)
    session = site.psql if params["as_superuser"] else None
    instead = next_best(run, record)
    run.say(f"Restoring {words} into database {into or name} ...")
    with _untouched(run, lambda: site.psql.drop_database(name)):
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
        entry = _entry(
            run, "database", incoming=name, kept=_named(run.database, "before", stamp), words=words, rows=found.tables
        )
        look = f"docker exec -it -u postgres {quote(site.name)} psql -d {quote(name)}"
        raise _leave(run, entry, compared, f"database {name} (to look at it: `{look}`)")
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
        run.lines += [_held(into or run.database, found), *compared.lines]
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
    return {**result, **_swapped_in(run, name, stamp, found, words)}


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


def _swapped_in(run: Run, incoming: str, stamp: str, found: Census, words: str) -> dict[str, Any]:
    """Make the database `incoming`, which was checked, the live one."""
    kept = _named(run.database, "before", stamp)
    entry = _entry(run, "database", incoming=incoming, kept=kept, words=words, rows=found.tables)
    refused = _swap_databases(run, entry)
    _compare(run, found, words)
    return {"refused_seconds": refused, "next": _kept_lines(run, entry, refused)}


def swap_in(
    params: Mapping[str, Any], place: Place, make: Callable[[str], Census], words: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Have `make` fill a database of a given name beside the live one, then swap the two; `undo` of a restore takes it back.

    `params` are those of `SITE_SPEC`, and `keep_old_hours`. The lock of the backups is held. Raises `DasTernError`.
    """
    run = Run({"what": "database", "undo": False, **params}, place, Site(params, place), State(place), [], say)
    run.lines += healed(run.site, run.state)
    stamp = _stamp()
    name = _named(run.database, "restored", stamp)
    if run.database in _databases(run.site.psql):
        run.live = count(run.site.psql, run.database)
    with _untouched(run, lambda: run.site.psql.drop_database(name)):
        found = make(name)
    run.lines.append(_held(run.database, found))
    result = _swapped_in(run, name, stamp, found, words)
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
    stamp = _stamp()
    there = run.site.look()["entries"] if last["what"] == "cluster" else _databases(run.site.psql)
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
        told = [f"would bring back {words} ({last['what']} {last['kept']})", *_since(run, last)]
        command = playbook("restore", undo="true", confirm=word(run.params, run.database))
        if not check_mode:
            raise _unconfirmed(run, last["what"], told, command)
        return {**_planned(run, told, command, confirmed), "target": last["kept"]}
    kept = f"replaced-{stamp}" if last["what"] == "cluster" else _named(run.database, "before", stamp)
    entry = _entry(run, last["what"], incoming=last["kept"], kept=kept, words=f"undo of {local(last['at'])}")
    refused = _swap_folders(run, entry) if last["what"] == "cluster" else _swap_databases(run, entry)
    run.lines.append(f"brought back {words}; what was written since isn't in it")
    after = _kept_lines(run, entry, refused)
    return {"target": last["kept"], "refused_seconds": refused, "next": [*_passwords(last["what"]), *after]}


def _since(run: Run, last: Mapping[str, Any]) -> list[str]:
    """What taking a restore back takes away: rows written since, where they were counted then and can be now."""
    if not _is_live(run, last["what"]):
        return [f"no {last['what']} is live that would be kept"]
    told = [f"what was written since {last['at']} isn't in it"]
    if last.get("rows") is not None:
        try:
            live = count(run.site.psql, run.database).tables
        except DasTernError as refusal:
            told.append(f"the live database can't be counted: {refusal.message.rstrip('.')}")
        else:
            changes = _changes(live, last["rows"], "dropped since")
            told += [f"rows of {run.database} since then:", *(changes or ["  as many in each table"])]
    hours = run.params["keep_old_hours"]
    if not hours:
        return [*told, kept_words(hours)]
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    return [*told, f"what is live now would be kept for {hours} h, until {until}, and `{UNDO}` brings it back"]


def _is_live(run: Run, what: str) -> bool:
    """Whether there is something that a swap would replace, and keep."""
    return "pgdata" in run.site.look()["entries"] if what == "cluster" else run.database in _databases(run.site.psql)


def _entry(
    run: Run, what: str, *, incoming: str, kept: str, words: str, rows: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """What `restore.json` keeps of a swap; `rows` are those of what comes in, by table."""
    now = datetime.now(UTC)
    return {
        "what": what, "incoming": incoming, "kept": kept, "words": words, "database": run.database,
        "volume": run.site.volume, "rows": rows, "at": now.isoformat(timespec="seconds"),
        "until": (now + timedelta(hours=run.params["keep_old_hours"])).isoformat(timespec="seconds"),
    }  # fmt: skip


def _swap_folders(run: Run, entry: dict[str, Any]) -> float:
    """Seconds for which nobody could connect."""
    site, state = run.site, run.state
    if "pgdata" not in site.look()["entries"]:
        entry["kept"] = ""
    _begin(run, entry)
    with site.waiting():
        if site.answers():
            site.psql.run(f"{_NOTED}\nCHECKPOINT;")  # the one of the shutdown has little left to write
        began = time.monotonic()
        try:
            if site.container:
                site.stop()
            moved = site.within(_SWAP, entry["incoming"], entry["kept"])
            if moved.rc:
                raise DasTernError(f"The folders in volume {site.volume} can't be renamed: {moved.last_words}.")
            _serve(site)
        except BaseException as error:  # Ctrl-C, too, mustn't leave the server down
            try:
                failure = f"{error} {_put_back(site, entry)}"
            except DasTernError as refusal:
                raise DasTernError(
                    f"{error} {refusal.message} CONTAINER {site.name} MAY BE STOPPED. The next run of `{COMMAND}` has the former "
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
    """Note the swap, without which it doesn't begin.

    A swap of databases may wait that couldn't be ended, as its server didn't start: it is within the cluster that is replaced now,
    and stays noted with that.
    """
    waits = run.state.pending
    if waits and entry["what"] == "database":
        _clean(run)
        raise swaps.refusal(run.site.name, waits)
    if waits:
        entry["within"] = waits
    try:
        run.state.begin(entry)
    except DasTernError as refusal:
        run.state.pending = waits
        _clean(run)
        raise DasTernError(f"{refusal.message} Nothing was swapped.") from None


def _clean(run: Run) -> None:
    """Clean up behind a failure, whose own words mustn't get lost."""
    try:
        run.lines += cleaned(run.site, run.state)
    except DasTernError as refusal:
        run.lines.append(f"what had been restored is still there ({refusal.message}) and the next run removes it")


def _serve(site: Site, after: str = " after the swap") -> None:
    if not site.container:
        return
    site.start()
    if not site.wait_until_answers(START):
        raise DasTernError(
            f"The server doesn't answer within {START:.0f} s{after}: {site.containers.logs(site.name, 4)}."
        )


def _put_back(site: Site, entry: dict[str, Any]) -> str:
    """The former folder serves again; in words."""
    if site.container:
        site.stop()
    folders = entry["incoming"], entry["kept"] or "none"
    try:
        moved = site.within(_PUT_BACK, *folders)
    except DasTernError:  # somebody ended the container that waits
        moved = site.once(_PUT_BACK, *folders, named=True)
    if moved.rc:
        return (
            f"The former folder {entry['kept']} in volume {site.volume} can't be put back: {moved.last_words}. Rename it to "
            "pgdata by hand."
        )
    if moved.out.strip() == "nothing":  # a server that is started on it makes an empty cluster
        return f"There is no former cluster in volume {site.volume}, and nothing serves."
    return _serves_again(site)


def _serves_again(site: Site) -> str:
    try:
        _serve(site)
    except DasTernError as refusal:
        return f"The former folder is back, but: {refusal.message}"
    return f"The former cluster is back and {_serves(site)}."


def _serves(site: Site) -> str:
    missing = f"is served as soon as `{playbook('provision')}` has made container {site.name}"
    return "serves" if site.container else missing


def _swap_databases(run: Run, entry: dict[str, Any], limit: int | None = None) -> float:
    """Swap, and give what comes in its connection limit back, where it waited with another; seconds for which nobody could connect."""
    site, state = run.site, run.state
    live, kept, incoming = (identifier(name) for name in (run.database, entry["kept"], entry["incoming"]))
    limited = "" if limit is None else f" CONNECTION LIMIT {limit}"
    if run.database not in _databases(site.psql):
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
        site.wait_until_answers(START)  # it may be the server that ended, and is coming back
        try:
            serves = _settled(site, state)
        except DasTernError as refusal:
            doubt = (
                f" DATABASE {run.database} MAY REFUSE CONNECTIONS. When container {site.name} runs again, the next run of `{COMMAND}` "
                "ends that; without `confirm` it does nothing else."
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
        raise  # psql may still be at work in the container: what came of it, the next run sees
    else:
        state.done()
    return round(time.monotonic() - began, 2)


def _settled(site: Site, state: State) -> str:
    """Finish or undo an interrupted swap of databases and reopen the live one. Say what serves unless it was committed.

    That what was to come in is gone proves nothing: somebody may have dropped it. Only the swap makes the former one.
    """
    assert state.pending is not None
    live, incoming, kept = (state.pending[name] for name in ("database", "incoming", "kept"))
    site.psql.run(_END_SWAP)  # psql may still be at work in the container
    there = _databases(site.psql)
    if live in there:
        site.psql.run(f"ALTER DATABASE {identifier(live)} WITH ALLOW_CONNECTIONS true;")
    gone = incoming not in there
    if gone and (kept or live) in there:
        state.done()
        return ""
    words = (
        f"Database {live} wasn't replaced and serves as before." if live in there else f"There is no database {live}."
    )
    if gone:
        words += f" {incoming}, which was to come in, isn't there any more, and there is no former one."
    state.given_up(words, gone=gone)
    return words


def healed(site: Site, state: State) -> list[str]:
    """Finish or take back the swap of a run that was killed, and remove what it left; what was done, in words."""
    told = []
    if state.pending:
        site.remove_helper()
    if state.pending and state.pending["what"] == "cluster":
        told.append(_healed_folders(site, state, state.pending))
    if state.pending:  # one of databases, maybe within the cluster that is back now
        told.append(_healed_databases(site, state, state.pending))
    return told + cleaned(site, state)


def _healed_databases(site: Site, state: State, entry: dict[str, Any]) -> str:
    swap = f"a swap of databases that was killed at {local(entry['at'])}"
    why = "isn't there"
    if site.container:
        try:
            _serve(site, "")
        except DasTernError as refusal:
            why = f"doesn't serve ({refusal.message.rstrip('.')})"
        else:
            serves = _settled(site, state)
            return f"{serves.rstrip('.')}: {swap} was taken back" if serves else f"{swap} had happened"
    return f"{swap} waits for container {site.name}, which {why}: `{playbook('provision')}` has it serve, then `{COMMAND}` ends the swap"


def _healed_folders(site: Site, state: State, entry: dict[str, Any]) -> str:
    entries = site.look()["entries"]
    swap = f"a swap that was killed at {local(entry['at'])}"
    served, gone, former = "pgdata" in entries, entry["incoming"] not in entries, entry["kept"] in entries
    # Somebody removed what it needs, or the volume is another one: a container that waits would make one.
    if gone and not former and (entry["kept"] or not served):
        back = f"Neither folder {entry['incoming']} nor a former one is in volume {site.volume} any more"
        back += f". {_serves_again(site)}" if served else ", which holds no cluster."
        state.given_up(back, gone=True)
        return f"{swap} was taken back: {back.rstrip('.')}"
    with site.waiting():
        # There is nothing to go back to, and what was restored had been checked.
        if not (served or gone or former) and site.within(_SWAP, entry["incoming"], "none").rc == 0:
            entry["kept"], served, gone = "", True, True
        if not (served and gone):
            # With nothing moved yet, a server that somebody has started again needn't be stopped.
            back = _serves_again(site) if served and not former else _put_back(site, entry)
            state.given_up(back, gone=gone)
            return f"{swap} was taken back: {back.rstrip('.')}"
        try:
            _serve(site)
        except DasTernError as refusal:
            back = _put_back(site, entry)
            state.given_up(back)
            return f"{swap} was taken back ({refusal.message.rstrip('.')}): {back.rstrip('.')}"
    state.done()
    return f"{swap} was finished: the restored cluster {_serves(site)}"


def cleaned(site: Site, state: State) -> list[str]:
    """Remove what a run left that was killed before its swap; nobody else is at work (`Place.alone`)."""
    told = []
    left = site.containers.inspect("container", site.helper)
    if left and (left["Config"]["Labels"] or {}).get(ROLE_LABEL) != "restore":
        raise DasTernError(
            f"Container {site.helper} isn't ours, and its name is needed. Nothing was done; "
            f"`docker rename {quote(site.helper)} {quote(f'{site.helper}-old')}`."
        )
    if left:
        site.remove_helper()
        told.append(f"container {site.helper}, left by a restore that was killed, was removed")
    if site.remove_left_volume():
        told.append(f"volume {site.helper}-data, left by a restore that was killed, was removed")
    waiting = state.waiting["incoming"] if state.waiting else ""
    there = site.look()["entries"] if site.volume_there() else []
    folders = [name for name in there if name.startswith("restored-") and name != waiting]
    told += [
        f"folder {site.backups / TRANSFER / name}, left by a run that was killed, was removed"
        for name in empty(site.backups, TRANSFER)
    ]
    if folders:
        site.remove_clusters(*folders)
        told.append(f"{', '.join(folders)} in volume {site.volume}, left by a restore that didn't end, was removed")
    if spaces := [name for name in there if re.fullmatch(r"tablespaces-\d{8}-\d{9}", name)]:
        unlinked = site.seen(_UNLINKED, *spaces).out.split()
        if unlinked and site.once(f'cd {MOUNT} && rm -rf -- "$@"', *unlinked, named=True).rc == 0:
            told.append(
                f"folder {', '.join(unlinked)} in volume {site.volume}, which no cluster there has, was removed"
            )
    if site.answers():
        pending = state.pending["incoming"] if state.pending else ""
        kept = {waiting, pending, *(one["kept"] for one in state.kept)}
        begins = (_named(site.place.database, what, "") for what in ("restored", database_copy.AGAIN.strip("_")))
        pattern = re.compile(rf"(?:{'|'.join(map(re.escape, begins))})\d{{8}}_\d{{9}}")
        for name in _databases(site.psql):
            if pattern.fullmatch(name) and name not in kept:
                site.psql.drop_database(name)
                told.append(f"database {name}, left by a restore that didn't end, was dropped")
    return told


def overdue(state: State) -> list[dict[str, Any]]:
    """What restores replaced and what was to be kept until now; nothing while a swap hasn't ended, which may need it."""
    return (
        []
        if state.pending
        else [one for one in state.kept if datetime.fromisoformat(one["until"]) <= datetime.now(UTC)]
    )


def would_expire(place: Place) -> list[str]:
    """What `expire_old` would do."""
    try:
        state = State(place)
    except DasTernError as refusal:
        return [_cant_expire(refusal)]
    told = [
        f"would remove {one['what']} {one['kept']}, replaced by a restore at {local(one['at'])}"
        for one in overdue(state)
    ]
    if waiting := state.overdue_waiting:
        told.append(
            f"would remove {waiting['what']} {waiting['incoming']}, which waits for a decision since {local(waiting['at'])}"
        )
    return told


def _cant_expire(refusal: DasTernError) -> str:
    return f"what restores replaced can't be removed: {refusal.message.rstrip('.')}"


def expire_old(place: Place) -> list[str]:
    """Remove what is overdue; in words, also where it can't be: what was done before is done. Under `Place.alone`."""
    try:
        state, told = State(place), []
    except DasTernError as refusal:
        return [_cant_expire(refusal)]
    for entry in overdue(state):
        words = f"{entry['what']} {entry['kept']}, replaced by a restore at {local(entry['at'])},"
        try:
            if _removed(place, entry):
                state.kept.remove(entry)
                state.save()
                told.append(f"{words} was removed")
        except DasTernError as refusal:
            told.append(f"{words} can't be removed: {refusal.message.rstrip('.')}")
    if state.overdue_waiting:
        try:
            told += _discarded(place, state)
        except DasTernError as refusal:
            told.append(f"{state.overdue_waiting['incoming']} can't be removed: {refusal.message.rstrip('.')}")
    return told


def _removed(place: Place, entry: dict[str, Any], which: str = "kept") -> bool:
    """Remove the folder or database `which` of an entry; false where the server has to be there for it, and isn't."""
    container = place.containers.inspect("container", place.container)
    if container is None:
        return False
    if entry["what"] == "cluster":
        done = place.containers.run_once(
            container["Image"], REMOVE, [entry[which]], labels={ROLE_LABEL: "restore"},
            host_config={"Binds": [f"{entry['volume']}:{MOUNT}"]},
        )  # fmt: skip
        if done.rc:
            raise DasTernError(f"{entry[which]} in volume {entry['volume']} can't be removed: {done.last_words}.")
        return True
    if not container["State"]["Running"]:
        return False
    place.superuser.drop_database(entry[which])
    return True


@contextlib.contextmanager
def _untouched(run: Run, clean: Callable[[], Any]) -> Iterator[None]:
    """While the live database isn't touched: whatever fails is cleaned up and said so."""
    served = run.site.answers()
    try:
        yield
    except BaseException as error:
        try:
            clean()
            left = "what had been restored was removed"
        except DasTernError as refusal:
            left = f"what had been restored is still there ({refusal.message}) and the next run removes it"
        if not isinstance(error, DasTernError):
            raise
        serves = "and serves" if run.site.answers() else f"(it doesn't answer{', as before' if not served else ''})"
        raise DasTernError(
            f"{error.message} The live database was not touched {serves}; {left}.", **error.facts
        ) from None


def _kept_lines(run: Run, kept: dict[str, Any], refused: float) -> list[str]:
    """Say how long the swap took and what is kept; the command that takes it back."""
    if run.site.container:
        run.lines.append(f"connections were refused for {refused:.1f} s")
    if not kept["kept"]:
        return []
    where = (
        f"folder {kept['kept']} of volume {kept['volume']}" if kept["what"] == "cluster" else f"database {kept['kept']}"
    )
    run.lines.append(f"the former one is kept as {where} until {local(kept['until'])}")
    # With 0 it goes at the end of this run, and `undo` would bring back an older one.
    return [UNDO] if run.params["keep_old_hours"] else []


def _held(database: str, found: Census) -> str:
    newest = f", newest {found.migrations[-1].split()[0]}" if found.migrations else ""
    return f"{database}: {len(found.tables)} tables, {found.rows} rows, {len(found.migrations)} migrations{newest}"


def _command(params: Mapping[str, Any], confirm: str = "") -> str:
    given = {name: params[name] for name in ("target", "what", "table", "into")}
    repository = params["repository"] if params["repository"] != 1 else None
    given |= {"repository": repository, "timeline": params["timeline"] or None}
    given |= {
        "accept_differences": params["accept_differences"] or None,
        "restore_as_superuser": params["as_superuser"] or None,
    }
    return playbook("restore", **given, confirm=confirm)


def _databases(psql: Psql) -> list[str]:
    return list(psql.value("SELECT json_agg(datname) FROM pg_database") or [])


def _named(database: str, what: str, stamp: str) -> str:
    return f"{database.encode()[:34].decode(errors='ignore')}_{what}_{stamp.replace('-', '_')}"


def _stamp() -> str:
    # To the millisecond: two swaps within a second mustn't take one name.
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S%f}"[:-3]
