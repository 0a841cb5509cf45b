"""A database that has tables but no ledger (Prisma's P3005): which migrations it has, shown by comparing catalogues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .catalogue import Item, read_catalogue
from .connection import connect
from .drift import Difference, compare, table
from .drift_run import ARGUMENT_SPEC as DRIFT
from .drift_run import superuser_of
from .errors import DasTernError
from .ledger import Ledger
from .migration_files import MigrationFile, of_params
from .scratch import replay, scratch_database
from .sql_values import identifier

try:
    import psycopg
except ImportError:  # `connect` says so in words
    pass

ARGUMENT_SPEC: dict[str, Any] = {
    **{name: option for name, option in DRIFT.items() if name not in ("fail", "write_migration")},
    "upto": {"type": "str", "default": ""},
    "anyway": {"type": "bool", "default": False},
    "lock_wait": {"type": "int", "default": 300},
}


def baseline(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Mark as applied what the database is shown to have; the keys of `params` are the options of `migration_baseline`.

    Returns `changed`, `names` and `lines`. Raises `DasTernError`.
    """
    files = of_params(params)
    if params["upto"]:
        names = [file.name for file in files]
        if params["upto"] not in names:
            raise DasTernError(f"There is no migration {params['upto']} in {params['folder']} (P3017).")
        files = files[: names.index(params["upto"]) + 1]
    if not files:
        raise DasTernError(f"There is no migration in {params['folder']}: is `migrations_dir` right?")
    try:
        with connect(dict(params), "das-tern baseline", {"search_path": identifier(params["schema"])}) as connection:
            return _baseline(connection, params, files, check_mode)
    except psycopg.Error as error:
        raise DasTernError(
            f"Comparing database {params['database']} with its migrations failed: {error.sqlstate or 'connection lost'}: "
            f"{' '.join(str(error).split())}."
        ) from None


def _baseline(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], files: list[MigrationFile], check_mode: bool
) -> dict[str, Any]:
    where = f"schema {params['schema']} of database {params['database']}"
    ledger = Ledger(connection, params["schema"])
    if not check_mode:
        ledger.hold_lock(params["lock_wait"])
    if rows := ledger.rows():
        return {"changed": False, "names": [], "lines": [f"{where} has a ledger of {len(rows)} rows: nothing to do"]}
    if not ledger.tables():
        return {"changed": False, "names": [], "lines": [f"{where} is empty: `ansible-playbook migrate.yml` fills it"]}
    live = _of_migrations(params, read_catalogue(connection, params["schema"]))
    steps = _steps(connection, params, files, live)
    agreed = [number for number, differences in steps.items() if not differences]
    last = max(agreed) if agreed and not params["upto"] else len(files)
    wrong = steps.get(last)
    if wrong and not params["anyway"]:
        nearest = min(steps, key=lambda number: (len(steps[number]), -number))
        raise DasTernError(
            "\n".join([
                f"Nothing is marked as applied: {where} isn't what the migrations up to {files[nearest - 1].name} make, and no "
                f"other point of {params['folder']} is nearer. What differs:",
                *(f"  {line}" for line in table(steps[nearest])),
                "Mend the database by hand, or choose the right `migrations_dir`; if you know better, "
                f"`-e upto={files[nearest - 1].name} -e baseline_anyway=true` marks up to there.",
            ]),
            differences=[row.as_dict() for row in steps[nearest]],
        )  # fmt: skip
    if not check_mode:
        with connection.transaction():
            if ledger.rows() is None:
                ledger.create()
            for file in files[:last]:
                ledger.record_resolved(file)
    names = [file.name for file in files[:last]]
    lines = [f"{name} {'would be ' if check_mode else ''}marked as applied" for name in names]
    lines.append(f"{len(live)} objects of {where} " + ("differ, as you decided" if wrong else "are what they make"))
    return {"changed": True, "names": names, "lines": lines}


def _steps(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], files: list[MigrationFile], live: list[Item]
) -> dict[int, list[Difference]]:
    """What differs after the first, the second, ... migration, from 1; with `upto` after the last one only."""
    schema, superuser = params["schema"], superuser_of(params)
    steps: dict[int, list[Difference]] = {}
    session = {"search_path": identifier(schema), "lock_timeout": "10s"}
    with scratch_database(connection, params, superuser=superuser, settings=session) as own:
        own.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")  # type: ignore[arg-type]
        for number, file in enumerate(files, 1):
            replay(own, [file], params["folder"], superuser)
            if not params["upto"] or number == len(files):
                expected = _of_migrations(params, read_catalogue(own, schema))
                steps[number] = [row for row in compare(expected, live) if not row.weak]
    return steps


def _of_migrations(params: Mapping[str, Any], items: list[Item]) -> list[Item]:
    """What migrations make; what provisioning gives may be there already, or not yet."""
    readonly = f" to {params['readonly_user']}"
    return [
        item
        for item in items
        if not item.name.startswith("database ")
        and not (
            params["readonly_user"] and item.kind in ("grant", "default privileges") and item.name.endswith(readonly)
        )
    ]
