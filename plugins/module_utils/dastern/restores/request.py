"""A restore that was asked for: its options, its names, its command, and how what was restored is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..backups.kept import State
from ..backups.physical import good, with_damaged_pages
from ..backups.records import ARGUMENT_SPEC as PLACE
from ..backups.records import Place, Record
from ..catalogue.census import Census, count
from ..catalogue.comparison import Comparison, compare, refuse_damage
from ..common.commands import playbook
from ..common.confirmation import SPEC as CONFIRMATION
from ..common.confirmation import wanted, word
from ..common.errors import DasTernError
from ..common.quantities import local
from ..common.sql_values import identifier, literal
from ..server.psql import Psql
from .restored_server import Site
from .target import Target

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
UNDO = playbook("restore", undo="true")
DIFF_LINES = 40
"""How many lines of a difference of schemas a refusal shows; `--diff` shows all."""
MOST_HOURS = 10 * 366 * 24
"""For how long something may be kept that a restore replaced: ten years."""


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


def planned(run: Run, told: list[str], command: str, confirmed: bool) -> dict[str, Any]:
    """What check mode says: the plan, the command, and the confirmation where it is missing."""
    run.lines += told
    return {"next": [command], **({} if confirmed else {"confirm": word(run.params, run.database)})}


def unconfirmed(run: Run, what: str, told: list[str], command: str) -> DasTernError:
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


def checked(psql: Psql, database: str, record: Record, goal: Target, instead: str = "") -> Comparison:
    """Count what was restored and hold it against the record; damage is a refusal, and `instead` says what to do then."""
    if database not in psql.databases():
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
            command = restore_command({**params, "target": other.label, "timeline": 0, "accept_differences": False})
            return f"The next best backup is of {local(other.began)}: `{command}`."
    return f"No other good backup is known: `{verify}`, and `ansible-playbook playbooks/list_backups.yml` shows all."


def contents(database: str, found: Census) -> str:
    newest = f", newest {found.migrations[-1].split()[0]}" if found.migrations else ""
    return f"{database}: {len(found.tables)} tables, {found.rows} rows, {len(found.migrations)} migrations{newest}"


def restore_command(params: Mapping[str, Any], confirm: str = "") -> str:
    given = {name: params[name] for name in ("target", "what", "table", "into")}
    repository = params["repository"] if params["repository"] != 1 else None
    given |= {"repository": repository, "timeline": params["timeline"] or None}
    given |= {
        "accept_differences": params["accept_differences"] or None,
        "restore_as_superuser": params["as_superuser"] or None,
    }
    return playbook("restore", **given, confirm=confirm)


def name_beside(database: str, what: str, stamp: str) -> str:
    return f"{database.encode()[:34].decode(errors='ignore')}_{what}_{stamp.replace('-', '_')}"


def timestamp() -> str:
    # To the millisecond: two swaps within a second mustn't take one name.
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S%f}"[:-3]
