"""The live catalogue compared with the one that the applied migrations produce in a scratch database."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Any

from .access import ENVIRONMENT, Declared
from .advisory_lock import who
from .blockers import watching
from .catalogue import Item, fingerprint, read_catalogue
from .connection import ARGUMENT_SPEC as CONNECTION
from .connection import connect
from .drift import compare, scaffold, table
from .errors import DasTernError
from .ledger import Ledger
from .migration_files import ARGUMENT_SPEC as FOLDER
from .migration_files import SCRIPT, MigrationFile, of_params
from .migration_plan import Plan, in_order_of_application, make_plan, reset_words
from .psql import superuser_of
from .scratch import LEFTOVER_AFTER, replay, scratch_database
from .sql_values import identifier

try:
    import psycopg
except ImportError:  # `connect` says so in words
    pass

APPLICATION = "das-tern drift"
LOCK_TIMEOUT = "10s"
"""How long a comparison waits for a table that somebody keeps locked."""
SCRATCH: dict[str, Any] = {
    "readonly_user": {"type": "str", "default": ""},
    "environment": {"type": "str", "default": ""},
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "default": ""},
}
"""The options of every module that makes a scratch database."""
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    **SCRATCH,
    **FOLDER,
    "fail": {"type": "bool", "default": True},
    "write_migration": {"type": "str", "default": ""},
}
WRITE = "ansible-playbook playbooks/drift.yml -e write_migration=NAME"


def drift(params: Mapping[str, Any], leftover_after: float = LEFTOVER_AFTER) -> dict[str, Any]:
    """What the module `migration_drift` returns; the live database is only read. Raises `DasTernError`."""
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
            live = read_catalogue(connection, schema)
            superuser = superuser_of(params)
            with scratch_database(
                connection, params, declared=_declared(params), superuser=superuser, settings=session,
                files=[files[name] for name in names], leftover_after=leftover_after,
            ) as own:  # fmt: skip
                own.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")  # type: ignore[arg-type]
                left_out = replay(own, [files[name] for name in names], params["folder"])
                expected = [*read_catalogue(own, schema), *_settings(params)]
    except psycopg.Error as error:
        raise DasTernError(
            f"{failed}: {error.sqlstate or 'connection lost'}: "
            f"{' '.join(str(error).split())}. If somebody changed the schema meanwhile, run again."
        ) from None
    if left_out:  # what they gave the database isn't in the scratch one
        expected, live = (
            [item for item in items if not item.name.startswith("database ")] for items in (expected, live)
        )
    result = _result(params, plan, names, expected, live)
    return {**result, "lines": [*result["lines"], *left_out]}


def _plan(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], files: list[MigrationFile]
) -> tuple[Plan, list[str]]:
    """The plan, and the names of what is applied in the order in which it was; a refusal where that can't be known."""
    ledger = Ledger(connection, params["schema"])
    holder = ledger.lock.holder()
    if holder is not None:
        raise DasTernError(
            f"A migration is running: {who(holder)} holds the migration lock (P1002). What it leaves can be compared when "
            "it is done: run again then.",
            locked_by=holder,
        )
    rows = ledger.rows()
    if rows is None and (tables := ledger.tables()):
        raise DasTernError(
            f"Schema {params['schema']} of database {params['database']} holds {len(tables)} tables but no ledger "
            "_prisma_migrations (P3005): which migrations it has is not known, so there is nothing to compare it with. "
            "`ansible-playbook playbooks/baseline.yml` finds out and records it."
        )
    plan = make_plan(files, rows or [])
    wrong = [
        f"Migration {name} is applied in the database, but {params['folder']}/{name}/{SCRIPT} does not exist: what it made "
        "would look like drift. Get the file back (is `migrations_dir` right, is the checkout current?)."
        for name in plan.missing
    ] + [
        f"Migration {name} was edited after it was applied: the checksum of {params['folder']}/{name}/{SCRIPT} is not the one "
        f"in the ledger, and the comparison would be with something else. Put the file back as it was (`git log -- "
        f"{quote('/'.join((params['folder'], name, SCRIPT)))}` shows its history).{reset_words(params)}"
        for name in plan.edited
    ]
    if wrong:
        raise DasTernError(wrong, edited=plan.edited, missing=plan.missing)
    return plan, in_order_of_application(rows or [])


def _settings(params: Mapping[str, Any]) -> list[Item]:
    """The setting that provisioning gives the database: only a superuser could give it to another one."""
    if not params["environment"]:
        return []
    return [Item("setting", f"database {ENVIRONMENT}", params["environment"])]


def _declared(params: Mapping[str, Any]) -> Declared | None:
    """What the role `postgres` gives to a database, without which its privileges would look like drift."""
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


def _result(
    params: Mapping[str, Any], plan: Plan, names: list[str], expected: list[Item], live: list[Item]
) -> dict[str, Any]:
    differences = compare(expected, live)
    drifted = [row for row in differences if not row.weak]
    made = scaffold(differences, expected, live)
    result: dict[str, Any] = {
        "changed": False,
        "drifted": bool(drifted),
        "differences": [row.as_dict() for row in differences],
        "objects": len(live),
        "fingerprint": fingerprint(live),
        "applied": names,
        "pending": plan.pending_names,
        "failed_before": plan.failed,
        "lines": table(differences),
        "statements": list(made.statements),
        "by_hand": list(made.by_hand),
        "migration": "",
    }
    if params["write_migration"] and drifted:
        result["migration"] = made.text([
            f"The difference between database {params['database']} and its migrations, written by drift.yml.",
            "Read it before it is applied anywhere. Where it was written from it is already true; record it there:",
            "  ansible-playbook playbooks/resolve_migration.yml -e applied=<the name of this directory>",
        ])  # fmt: skip
    elif drifted and params["fail"]:
        result["failed"] = True
        result["msg"] = message(params, result)
    return result


def message(params: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The refusal of a drifted schema, with the table."""
    count = sum(not row["weak"] for row in result["differences"])
    return "\n".join([
        f"Schema {params['schema']} of database {params['database']} isn't what its {len(result['applied'])} applied "
        f"migrations make: {count} {'object differs' if count == 1 else 'objects differ'}.",
        *(f"  {line}" for line in result["lines"]),
        f"Undo it on the database by hand, or take it into the history: `{WRITE}` writes a migration from it.",
    ])  # fmt: skip
