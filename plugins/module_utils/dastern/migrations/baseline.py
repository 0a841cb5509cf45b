"""Find by comparing catalogues which migrations a database has that holds tables but no ledger (Prisma's P3005)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..catalogue.drift import Difference, compare, table
from ..catalogue.drift_steps import without_equal
from ..catalogue.objects import Item, read_catalogue, read_catalogue_within, schemas_besides
from ..catalogue.scratch import replay, scratch_database
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.migration_files import SCRIPT, MigrationFile, of_params
from ..common.sql_values import identifier
from ..server.blockers import watching
from ..server.connection import connect
from ..server.psql import superuser_of
from .drift import ARGUMENT_SPEC as DRIFT
from .drift import LOCK_TIMEOUT, exempt_from_drift
from .ledger import Ledger

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

ARGUMENT_SPEC: dict[str, Any] = {
    **{name: option for name, option in DRIFT.items() if name not in ("fail", "write_migration")},
    "upto": {"type": "str", "default": ""},
    "anyway": {"type": "bool", "default": False},
    "lock_wait": {"type": "int", "default": 300},
}


def baseline(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Mark as applied the migrations that the database is shown to have.

    The keys of `params` are the options of `migration_baseline`. Returns `changed`, `names`, `pending` and `lines`.
    Raises `DasTernError`.
    """
    files = of_params(params)
    if params["upto"] and params["upto"] not in (file.name for file in files):
        raise DasTernError(f"There is no migration {params['upto']} in {params['folder']} (P3017).")
    if params["anyway"] and not params["upto"]:
        raise DasTernError(
            "`baseline_anyway` is true and `upto` is empty: migrations that the comparison doesn't show are marked only up to one "
            "that you name. `ansible-playbook playbooks/baseline.yml -e upto=NAME -e baseline_anyway=true`."
        )
    if not files:
        raise DasTernError(f"There is no migration in {params['folder']}: is `migrations_dir` right?")
    session = {"search_path": identifier(params["schema"]), "lock_timeout": LOCK_TIMEOUT}
    failed = f"Comparing database {params['database']} with its migrations failed"
    try:
        with (
            connect(dict(params), "das-tern baseline", session) as connection,
            watching(params, connection, LOCK_TIMEOUT, failed),
        ):
            return _baseline(connection, params, files, check_mode)
    except psycopg.Error as error:
        raise DasTernError(
            f"{failed}: {error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}."
        ) from None


def _baseline(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], files: list[MigrationFile], check_mode: bool
) -> dict[str, Any]:
    where = f"schema {params['schema']} of database {params['database']}"
    ledger = Ledger(connection, params["schema"])
    if not check_mode:
        ledger.hold_lock(params["lock_wait"])
    if rows := ledger.rows():
        applied = {row.name for row in rows if row.applied}
        pending = [file.name for file in files if file.name not in applied]
        return _unchanged(f"{where} has a ledger of {len(rows)} rows: nothing to do", pending)
    names = [file.name for file in files]
    if not ledger.tables():
        return _unchanged(f"{where} is empty: `ansible-playbook migrate.yml` fills it", names)
    steps, stopped, objects = _steps(connection, params, files)
    last = names.index(params["upto"]) + 1 if params["upto"] else _agreed(steps)
    shown = 0 < last <= len(steps) and not steps[last - 1]
    if not params["anyway"] and (not shown or (stopped and last == len(steps) and not params["upto"])):
        raise _refusal(params, where, names, steps, stopped)
    if not params["upto"] and (unclear := _without_trace(files, steps)):
        raise _ambiguous(params, where, names, steps, unclear)
    # Empty files at the end of the folder are still to be written: marked as applied they could never be filled in.
    while not params["upto"] and last > 1 and all(file.empty for file in files[last - 1 :]) and not steps[last - 2]:
        last -= 1
    if not check_mode:
        with connection.transaction():
            if ledger.rows() is None:
                ledger.create()
            for file in files[:last]:
                ledger.record_resolved(file)
    lines = [f"{name} {'would be ' if check_mode else ''}marked as applied" for name in names[:last]]
    lines.append(
        f"the {objects} objects of {where} are {'' if shown else 'not shown to be '}those that these migrations make"
        + ("" if shown else ": they are marked because `baseline_anyway` is true")
    )
    return {"changed": True, "names": names[:last], "pending": names[last:], "lines": [*lines, *stopped]}


def _unchanged(line: str, pending: list[str]) -> dict[str, Any]:
    return {"changed": False, "names": [], "pending": pending, "lines": [line]}


def _agreed(steps: list[list[Difference]]) -> int:
    """Return the number, from 1, of the last migration after which nothing differs; 0 if there is none."""
    return max((number for number, differences in enumerate(steps, 1) if not differences), default=0)


def _without_trace(files: list[MigrationFile], steps: list[list[Difference]]) -> list[str]:
    """Return the migrations between the first and the last point that agree: the catalogue doesn't show whether they
    ran.

    Files without a statement are left out: they do nothing.
    """
    first = next((number for number, differences in enumerate(steps, 1) if not differences), 0)
    return [file.name for file in files[first : _agreed(steps)] if not file.empty]


def _ambiguous(
    params: Mapping[str, Any], where: str, names: list[str], steps: list[list[Difference]], unclear: list[str]
) -> DasTernError:
    first = next(number for number, differences in enumerate(steps, 1) if not differences)
    last = names[_agreed(steps) - 1]
    return DasTernError(
        f"Nothing is marked as applied: {where} has the catalogue that the migrations up to {names[first - 1]} make, and "
        f"those up to {last} make the same. The catalogue doesn't show whether {', '.join(unclear)} ran here (they change "
        "rows, or undo each other): look at the rows, and name the last one that ran. "
        f"`{playbook('baseline', upto=names[first - 1])}` leaves them to be applied, `{playbook('baseline', upto=last)}` "
        "marks them, too."
    )


def _steps(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], files: list[MigrationFile]
) -> tuple[list[list[Difference]], list[str], int]:
    """Return the differences after each migration, why the comparison ended early, if it did, and the number of live
    objects.

    The comparison stops at `upto` if nothing differs there or if `anyway` makes that irrelevant.
    """
    schema, superuser = params["schema"], superuser_of(params)
    steps: list[list[Difference]] = []
    session = {"search_path": identifier(schema), "lock_timeout": LOCK_TIMEOUT}
    others: list[str] = []
    live = _of_migrations(params, read_catalogue(connection, schema))
    with scratch_database(connection, params, superuser=superuser, settings=session, files=files) as own:
        own.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")  # type: ignore[arg-type]

        def read() -> list[Item]:
            return _of_migrations(params, read_catalogue_within(own, schema, others))

        for file in files:
            try:
                replay(own, [file], params["folder"])
            except DasTernError as error:
                # Its message speaks of an applied migration, and this one needn't be applied.
                cause = error.__context__
                if isinstance(cause, psycopg.Error):
                    if own.closed:
                        raise cause from None
                    why = f"{cause.sqlstate}: {' '.join(str(cause).split())} ({params['folder']}/{file.name}/{SCRIPT})."
                else:
                    why = error.message
                stopped = f"Nothing was compared from {file.name} on: that migration fails in a scratch database. {why}"
                return steps, [stopped], len(live)
            if (schemas := schemas_besides(own, schema)) != others:
                others = schemas
                live = _of_migrations(params, read_catalogue(connection, schema, others))
            expected = _of_migrations(params, read_catalogue(own, schema, others))
            differences = [row for row in compare(expected, live) if not row.weak]
            exempt = exempt_from_drift(params, differences, expected, live)
            differences = [row for row in differences if row.item.key not in exempt]
            steps.append(without_equal(own, differences, read))
            if file.name == params["upto"] and (params["anyway"] or not steps[-1]):
                break
    return steps, [], len(live)


def _refusal(
    params: Mapping[str, Any], where: str, names: list[str], steps: list[list[Difference]], stopped: list[str]
) -> DasTernError:
    """Explain why nothing is marked; `stopped` says why fewer migrations than `names` were compared."""
    made = "what the migrations up to {} make".format
    upto = params["upto"]
    differences: list[Difference] = []
    if agreed := _agreed(steps):
        isnt = "isn't" if upto in names[: len(steps)] else "isn't shown to be"
        finding = f"{isnt} {made(upto)}, but {made(names[agreed - 1])}." if upto else f"is {made(names[agreed - 1])}."
        fix = f"`{playbook('baseline', upto=names[agreed - 1])}` marks up to there."
        if not upto:  # the comparison ended just behind that migration
            fix += f" If the database has {names[agreed]}, too: `{playbook('baseline', upto=names[agreed], baseline_anyway=True)}`."
    elif steps:
        nearest = min(range(len(steps)), key=lambda number: (len(steps[number]), -number))
        differences = steps[nearest]
        others = f"point of {params['folder']}" + (f" before {names[len(steps)]}" if stopped else "")
        finding = (
            f"isn't {made(names[nearest])}, and no other {others} is nearer. What differs:"
            if upto in ("", names[nearest])
            else f"isn't shown to be {made(upto)}; the nearest {others} is {names[nearest]}. What differs there:"
        )
        fix = (
            "Fix the database by hand, or choose the right `migrations_dir`; if you know better, "
            f"`{playbook('baseline', upto=names[nearest], baseline_anyway=True)}` marks up to there."
        )
    else:
        finding = "can't be compared with its migrations."
        fix = f"Fix that file; or, if you know which migrations the database has, `{playbook('baseline', upto='NAME', baseline_anyway=True)}`."
    lines = [
        f"Nothing is marked as applied: {where} {finding}",
        *(f"  {line}" for line in table(differences)),
        *stopped,
        fix,
    ]
    return DasTernError(lines, differences=[row.as_dict() for row in differences])


def _of_migrations(params: Mapping[str, Any], items: list[Item]) -> list[Item]:
    """Return the objects that migrations make, without those of provisioning, which may or may not exist yet."""
    readonly = f" to {params['readonly_user']}"
    return [
        item
        for item in items
        if not item.name.startswith("database ")
        and not (
            params["readonly_user"] and item.kind in ("grant", "default privileges") and item.name.endswith(readonly)
        )
    ]
