"""The request for a restore: its options, names and command, and the check of the restored content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..backups.kept import State
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
"""The options of every module that makes a server from a backup."""
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
"""The number of lines of a schema difference that a refusal shows; `--diff` shows all."""
MOST_HOURS = 10 * 366 * 24
"""The most hours for which a replaced cluster or database may be kept: ten years."""


@dataclass
class Run:
    """One run: the live server, the state that former runs left, and the lines reported so far."""

    params: Mapping[str, Any]
    place: Place
    site: Site
    state: State
    lines: list[str]
    say: Callable[[str], None]
    diff: dict[str, str] = field(default_factory=dict)
    live: Census | None = None
    """The census of the live database, which is to be replaced."""
    asked: list[Any] = field(default_factory=list)
    """What is to be restored, and how; a waiting copy fits only a request in which all of this is the same."""
    moment: datetime | None = None
    """The time of the restored state, or the earliest that it can have."""

    @property
    def database(self) -> str:
        return self.place.database


def planned(run: Run, plan: list[str], command: str, confirmed: bool) -> dict[str, Any]:
    """Return the result of check mode: the plan, the command, and the confirmation if it is missing."""
    run.lines += plan
    return {"next": [command], **({} if confirmed else {"confirm": word(run.params, run.database)})}


def unconfirmed(run: Run, what: str, plan: list[str], command: str) -> DasTernError:
    effect = {
        "cluster": "replaces the live cluster", "table": f"inserts rows into table {run.params['table']} of the live database {run.database}",
    }.get(what, f"replaces the live database {run.database}")  # fmt: skip
    return DasTernError(
        f"This {effect}. Nothing was done. {wanted(run.params, run.database)} To do it: `{command}`.",
        preflight=plan,
        confirm=word(run.params, run.database),
    )


def refuse_hours(params: Mapping[str, Any]) -> None:
    """Refuse hours that would overflow a date, or negative ones, which would delete what somebody meant to keep."""
    if not 0 <= params["keep_old_hours"] <= MOST_HOURS:
        raise DasTernError(
            f"`restore_keep_old_hours` is {params['keep_old_hours']}. Expected: a number from 0 to {MOST_HOURS}. Nothing was done."
        )


def kept_words(hours: int) -> str:
    """Return how long the replaced cluster or database will be kept, for a plan."""
    if not hours:
        return "the former one isn't kept (`restore_keep_old_hours` is 0)"
    return f"the former one is kept for {hours} h, and `{UNDO}` brings it back"


def refuse_version(site: Site, record: Record) -> None:
    """Refuse a backup that isn't of the image's major version: neither its files nor its server would start."""
    image = site.containers.inspect("image", site.image) or {"Config": {}}
    image_major = dict(word.partition("=")[::2] for word in image["Config"].get("Env") or []).get("PG_MAJOR", "")
    major = record.server.partition(".")[0]
    if image_major and image_major != major:
        raise DasTernError(
            f"Backup {record.label} is of PostgreSQL {record.server}, and the image of container {site.name} has {image_major}: another "
            f"major version. Nothing was done. Restore it with an image of version {major}, on a server of its own "
            "(`-e postgres_image_reference=IMAGE -e postgres_container_name=NAME`)."
        )


def checked(psql: Psql, database: str, record: Record, goal: Target, instead: str = "") -> Comparison:
    """Count the restored content and compare it with the record; refuse damage, with `instead` as the advice."""
    if database not in psql.databases():
        raise DasTernError(f"The restored cluster has no database {database}. {instead}".strip())
    if psql.value(f"SELECT to_json(NOT datallowconn) FROM pg_database WHERE datname = {literal(database)}"):
        psql.run(
            f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS true;"
        )  # its owner had closed it at that moment
    expected = Census.of(record.census)
    pages = record.has_damaged_pages  # such a backup is better than none, and the target names its fault
    try:
        census = count(psql, database)
    except DasTernError:
        if not pages:
            raise
        census = expected
    if goal.own and not pages and not record.uncounted:
        comparison = compare(expected, census, rows=record.exact)
    else:
        comparison = Comparison(census)
    refuse_damage(comparison, f"The content restored from backup {record.label}", instead)
    if comparison.schema_differs:
        now = psql.value("SELECT to_json(current_setting('server_version'))")
        comparison.differences.append(
            f"its schema is written differently: then by PostgreSQL {record.server}, now by {now}"
        )
    if not goal.own and expected.migrations and not census.migrations:
        comparison.differences.append("its migration ledger is empty")
    return comparison


def next_best(run: Run, record: Record) -> str:
    """Return what to do if `record`, with which a restore began, can't be used."""
    params, verify = run.params, "ansible-playbook playbooks/verify_backups.yml"
    if not record.named(params["target"]):
        return f"`{verify}` notes the damage; then the same command begins with the next best backup."
    records = run.place.records() if params["repository"] == 1 else []
    prior = {other.label: other.prior for other in records}

    def built_upon(label: str) -> bool:
        return label == record.label or (label in prior and built_upon(prior[label]))

    for other in records:
        fits = other.physical or (params["what"] != "cluster" and (params["into"] or other.database == run.database))
        if fits and other.good and not built_upon(other.label):
            command = restore_command({**params, "target": other.label, "timeline": 0, "accept_differences": False})
            return f"The next best backup is of {local(other.began)}: `{command}`."
    return f"No other good backup is known: `{verify}` checks all, and `ansible-playbook playbooks/list_backups.yml` lists them."


def contents(database: str, census: Census) -> str:
    newest = f", newest {census.migrations[-1].split()[0]}" if census.migrations else ""
    return f"{database}: {len(census.tables)} tables, {census.rows} rows, {len(census.migrations)} migrations{newest}"


def restore_command(params: Mapping[str, Any], confirm: str = "") -> str:
    variables = {name: params[name] for name in ("target", "what", "table", "into")}
    repository = params["repository"] if params["repository"] != 1 else None
    variables |= {"repository": repository, "timeline": params["timeline"] or None}
    variables |= {
        "accept_differences": params["accept_differences"] or None,
        "restore_as_superuser": params["as_superuser"] or None,
    }
    return playbook("restore", **variables, confirm=confirm)


def name_beside(database: str, what: str, stamp: str) -> str:
    return f"{database.encode()[:34].decode(errors='ignore')}_{what}_{stamp.replace('-', '_')}"


def timestamp() -> str:
    # To the millisecond: two swaps within a second mustn't get the same name.
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S%f}"[:-3]
