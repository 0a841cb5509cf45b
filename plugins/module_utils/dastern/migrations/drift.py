"""Compare the live catalogue with the one that the applied migrations produce in a scratch database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from shlex import quote
from typing import Any

from ..catalogue.drift import Difference, compare, scaffold, table, tried
from ..catalogue.drift_steps import explain, explained, left, partitions_made_since, run, without_equal
from ..catalogue.objects import Item, fingerprint, read_catalogue, read_catalogue_within, schemas_besides
from ..catalogue.scratch import LEFTOVER_AFTER, replay, scratch_database
from ..common.errors import DasTernError
from ..common.migration_files import ARGUMENT_SPEC as FOLDER
from ..common.migration_files import SCRIPT, MigrationFile, of_params
from ..common.sql_values import identifier
from ..server.access import ENVIRONMENT, Declared
from ..server.advisory_lock import who
from ..server.blockers import watching
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect
from ..server.psql import superuser_of
from .ledger import Ledger
from .plan import Plan, in_order_of_application, make_plan, reset_words

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

APPLICATION = "das-tern drift"
LOCK_TIMEOUT = "10s"
"""How long a comparison waits for a locked table."""
SCRATCH: dict[str, Any] = {
    "readonly_user": {"type": "str", "default": ""},
    "environment": {"type": "str", "default": ""},
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "default": ""},
}
"""The options of every module that creates a scratch database."""
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    **SCRATCH,
    **FOLDER,
    "ignore": {"type": "list", "elements": "str", "default": []},
    "fail": {"type": "bool", "default": True},
    "write_migration": {"type": "str", "default": ""},
}
WRITE = "ansible-playbook playbooks/drift.yml -e write_migration=NAME"


def drift(params: Mapping[str, Any], leftover_after: float = LEFTOVER_AFTER) -> dict[str, Any]:
    """Return the result of the module `migration_drift`; the live database is only read. Raises `DasTernError`."""
    schema = params["schema"]
    files = {file.name: file for file in of_params(params)}
    session = {"search_path": identifier(schema), "lock_timeout": LOCK_TIMEOUT}
    failed = f"Comparing database {params['database']} with its migrations failed"
    try:
        with (
            connect(dict(params), APPLICATION, session) as connection,
            watching(params, connection, LOCK_TIMEOUT, failed),
        ):
            plan, names = _plan(connection, params, list(files.values()))
            with scratch_database(
                connection, params, declared=_declared(params), superuser=superuser_of(params), settings=session,
                files=[files[name] for name in names], leftover_after=leftover_after,
            ) as own:  # fmt: skip
                own.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")  # type: ignore[arg-type]
                omitted = replay(own, [files[name] for name in names], params["folder"])
                return _compared(connection, own, params, plan, names, omitted)
    except psycopg.Error as error:
        raise DasTernError(
            f"{failed}: {error.sqlstate or 'connection lost'}: "
            f"{' '.join(str(error).split())}. If somebody changed the schema meanwhile, run again."
        ) from None


def _compared(
    connection: psycopg.Connection[Any], own: psycopg.Connection[Any], params: Mapping[str, Any], plan: Plan,
    names: list[str], omitted: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Compare and return the result; `own` leads to the scratch database, where the applied migrations have run."""
    schema = params["schema"]
    others = schemas_besides(own, schema)
    settings = _settings(params)

    def comparable(items: list[Item]) -> list[Item]:
        """Leave out database-wide items if the replay omitted statements: the scratch database lacks their effect."""
        return [item for item in items if not (omitted and item.name.startswith("database "))]

    def read() -> list[Item]:
        return comparable([*read_catalogue_within(own, schema, others), *settings])

    live = comparable(read_catalogue(connection, schema, others))
    expected = comparable([*read_catalogue(own, schema, others), *settings])
    steps, expected = explain(own, expected, live, read)
    unexplained = without_equal(own, compare(expected, live), read)
    exempt = exempt_from_drift(params, [*explained(steps), *unexplained], expected, live)
    steps = [step for step in steps if step.row.item.key not in exempt]
    unexplained = [row for row in unexplained if row.item.key not in exempt]
    differences = [*explained(steps), *unexplained]
    drifted = [row for row in differences if not row.weak]
    draft = scaffold(unexplained, expected, live)
    draft = replace(draft, statements=[*(step.statement for step in steps), *draft.statements])
    result: dict[str, Any] = {
        "changed": False,
        "drifted": bool(drifted),
        "differences": [row.as_dict() for row in differences],
        "objects": len(live),
        "fingerprint": fingerprint(live),
        "applied": names,
        "pending": plan.pending_names,
        "failed_before": plan.failed,
        "exempt": sorted(exempt),
        "not_compared": [name for name in schemas_besides(connection, schema) if name not in others],
        "statements": list(draft.statements),
        "by_hand": list(draft.by_hand),
        "left": [],
        "migration": "",
    }
    result["lines"] = [*table(differences), *_exempt_lines(exempt), *_aside_lines(result["not_compared"]), *omitted]
    if params["write_migration"] and drifted:
        ran, refused = run(own, draft.statements[len(steps) :])
        rest = [row for row in left(own, live, read) if row.item.key not in exempt and not row.weak]
        draft = tried(replace(draft, statements=[*(step.statement for step in steps), *ran]), refused, rest)
        result |= {"statements": list(draft.statements), "by_hand": list(draft.by_hand), "left": list(draft.left or ())}
        result["migration"] = draft.text([
            f"The difference between database {params['database']} and its migrations, written by drift.yml.",
            "Read it before it is applied anywhere. The database that it was written from has these changes already; record it there:",
            "  ansible-playbook playbooks/resolve_migration.yml -e applied=<the name of this directory>",
        ])  # fmt: skip
    elif drifted and params["fail"]:
        result["failed"] = True
        result["msg"] = message(params, result)
    return result


def exempt_from_drift(
    params: Mapping[str, Any], differences: Sequence[Difference], expected: list[Item], live: list[Item]
) -> dict[str, str]:
    """Return why differences don't count as drift, by key: the inventory lists them, or they arise at run time."""
    listed = {
        row.item.key: f"listed in migrations_drift_ignore ({pattern})"
        for pattern in params["ignore"] for row in differences if row.item.key == pattern or fnmatchcase(row.item.key, pattern)
    }  # fmt: skip
    partitions = partitions_made_since(differences, expected, live)
    return {
        key: f"made at run time, like other partitions of table {parent}" for key, parent in partitions.items()
    } | listed


def _exempt_lines(exempt: Mapping[str, str]) -> list[str]:
    return [
        f"exempt: {count} {'object' if count == 1 else 'objects'} {why}"
        for why, count in sorted(Counter(exempt.values()).items())
    ]


def _aside_lines(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"not compared: schema {', '.join(names)}: no applied migration creates it or puts anything into it"]


def _plan(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], files: list[MigrationFile]
) -> tuple[Plan, list[str]]:
    """Return the plan, and the applied migrations' names in order of application; refuse if that can't be known."""
    ledger = Ledger(connection, params["schema"])
    holder = ledger.lock.holder()
    if holder is not None:
        raise DasTernError(
            f"A migration is running: {who(holder)} holds the migration lock (P1002). Run again when it is done.",
            locked_by=holder,
        )
    rows = ledger.rows()
    if rows is None and (tables := ledger.tables()):
        raise DasTernError(
            f"Schema {params['schema']} of database {params['database']} holds {len(tables)} tables but no ledger "
            "_prisma_migrations (P3005): the migrations that it has are not known, so that there is nothing to compare it with. "
            "`ansible-playbook playbooks/baseline.yml` finds out and records it."
        )
    plan = make_plan(files, rows or [])
    wrong = [
        f"Migration {name} is applied in the database, but {params['folder']}/{name}/{SCRIPT} does not exist: the objects "
        "that it made would look like drift. Get the file back (is `migrations_dir` right, is the checkout current?)."
        for name in plan.missing
    ] + [
        f"Migration {name} was edited after it was applied: the checksum of {params['folder']}/{name}/{SCRIPT} is not the one "
        f"in the ledger, so that the comparison would be with a different schema. Put the file back as it was (`git log -- "
        f"{quote('/'.join((params['folder'], name, SCRIPT)))}` shows its history).{reset_words(params)}"
        for name in plan.edited
    ]
    if wrong:
        raise DasTernError(wrong, edited=plan.edited, missing=plan.missing)
    return plan, in_order_of_application(rows or [])


def _settings(params: Mapping[str, Any]) -> list[Item]:
    """Return the setting that provisioning gives the database; only a superuser could set it on the scratch one."""
    if not params["environment"]:
        return []
    return [Item("setting", f"database {ENVIRONMENT}", params["environment"])]


def _declared(params: Mapping[str, Any]) -> Declared | None:
    """Return the privileges that the role `postgres` gives a database; without them these would look like drift."""
    if not params["readonly_user"]:
        return None
    return Declared(
        database=params["database"],
        app_user=params["user"],
        readonly_user=params["readonly_user"],
        environment=params["environment"],
        createdb=False,
        passwords={},
    )


def message(params: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the refusal of a drifted schema, with the table of differences."""
    count = sum(not row["weak"] for row in result["differences"])
    return "\n".join([
        f"Schema {params['schema']} of database {params['database']} isn't what its {len(result['applied'])} applied "
        f"migrations make: {count} {'object differs' if count == 1 else 'objects differ'}.",
        *(f"  {line}" for line in result["lines"]),
        f"Undo it on the database by hand, or take it into the history: `{WRITE}` writes a migration from it.",
    ])  # fmt: skip
