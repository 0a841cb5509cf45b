"""Ensure the declared rows in one transaction and touch nothing else.

A run first only reads: if there is nothing to write, it sends no write statement, takes no lock and passes under
`default_transaction_read_only=on`. Otherwise it takes a transaction-level advisory lock, plans again under it, and writes
each table in at most two statements.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from ..common.errors import DasTernError
from ..common.sql_text import line_and_column, statements
from ..common.sql_values import duration
from ..common.text import shown
from ..server.advisory_lock import AdvisoryLock, Held, who
from ..server.blockers import Blockers
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect
from . import catalogue
from . import plan as seed_plan
from . import volume as seed_volume
from .rows import Declared, Row, Script, Segment, resolved
from .time import moment

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

APPLICATION = "das-tern seed"
ADVISORY_LOCK = 0x44547365
"""The number of 'DTse'; a transaction-level lock, so it is released with the transaction, however that ends."""
SHOWN = 500
"""Maximum number of rows that a result names one by one."""
ENVIRONMENTS = ["development", "staging", "production"]

ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    "environment": {"type": "str", "required": True, "choices": ENVIRONMENTS},
    "seed_environment": {"type": "str", "required": True},
    "allowed": {"type": "bool", "default": False},
    "folder": {"type": "str", "required": True},
    # A single text, because Ansible would hide every word of a list wherever else it occurs.
    "declared": {"type": "str", "default": "", "no_log": True},
    "schema": {"type": "str", "default": "public"},
    "today": {"type": "str", "default": ""},
    "scale": {"type": "int", "default": 0},
    "scale_days": {"type": "int", "default": 90},
    "lock_timeout": {"type": "str", "default": "10s"},
    "lock_wait": {"type": "int", "default": 300},
    "assume_empty": {"type": "bool", "default": False},
}


def refuse_environment(params: dict[str, Any]) -> None:
    """Refuse production, whatever other variables say, and invalid options, before anything is read or connected."""
    environment, seeds = params["environment"], params["seed_environment"]
    for variable, value in (("dastern_environment", environment), ("seed_environment", seeds)):
        if value.strip().lower() in ("production", "prod"):
            raise DasTernError(
                f"`{variable}` is {value}: production is never seeded, whatever other variables say. Seed a development "
                "or staging inventory: `ansible-playbook -i inventories/development playbooks/seed.yml`."
            )
    if not seeds or "/" in seeds or seeds.startswith("."):
        raise DasTernError(
            f"`seed_environment` is {seeds!r}. Expected: the name of a folder under `seed_dir`, e.g. development."
        )
    if not params["allowed"]:
        raise DasTernError(
            f"The environment {environment} is not declared as seedable: `seed_allowed` is false. If it holds no real "
            f"patient's data, set `seed_allowed: true` in inventories/{environment}/group_vars."
        )
    if not 0 <= params["scale"] <= 1_000_000:
        raise DasTernError(f"`seed_scale` is {params['scale']}. Expected: 0 to 1000000 patients.")
    if not 1 <= params["scale_days"] <= 3650:
        raise DasTernError(f"`seed_scale_days` is {params['scale_days']}. Expected: 1 to 3650.")
    duration("seed_lock_timeout", params["lock_timeout"])
    if params["today"]:
        _day(params["today"])


def seed(
    params: dict[str, Any],
    check_mode: bool = False,
    diff: bool = False,
    waiting: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Seed with the options `params` of the module `seed` and return the module's result.

    `waiting` is called once with a message about the session that this run waits for. Raise `DasTernError`.
    """
    refuse_environment(params)
    declared = Declared(json.loads(params["declared"] or "[]"))
    if params["assume_empty"]:
        return _Run(params, declared, check_mode=True, diff=diff).on_bare_machine()
    connection = connect(params, APPLICATION, {"lock_timeout": params["lock_timeout"]})
    with connection:
        run = _Run(params, declared, check_mode, diff, waiting)
        with Blockers(params, connection.info.backend_pid, params["lock_timeout"]) as blockers:
            try:
                return run.on(connection)
            except psycopg.Error as error:
                doing = f"Seeding {params['database']} at {params['host']}:{params['port']}"
                raise blockers.named(seed_plan.server_error(doing, error)) from None
            except DasTernError as refusal:
                raise blockers.named(refusal) from None


class _Run:
    """One run, with its findings and changes table by table."""

    def __init__(
        self,
        params: dict[str, Any],
        declared: Declared,
        check_mode: bool,
        diff: bool,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        self.params = params
        self.schema: str = params["schema"]
        self.declared = declared
        self.check_mode = check_mode
        self.diff = diff
        self.waiting = waiting or (lambda words: None)
        self.began = time.monotonic()
        self.warnings: list[str] = []
        self.waited_for: dict[str, Any] | None = None
        self._forget()

    def _forget(self) -> None:
        self.plans: list[seed_plan.TablePlan] = []
        self.absent: dict[str, list[Row]] = {}
        self.scripts: list[dict[str, Any]] = []
        self.volume: dict[str, Any] | None = None

    def on_bare_machine(self) -> dict[str, Any]:
        """Return the plan for a database that doesn't exist yet."""
        self.absent = _by_table(self.declared.rows)
        self.scripts = [{"file": script.file, "rows": None} for script in self.declared.scripts]
        if scale := self.params["scale"]:
            days = self.params["scale_days"]
            doctors = -(-scale // seed_volume.PATIENTS_PER_DOCTOR)
            self.volume = seed_volume.VolumePlan(scale, days, scale, "", doctors, "").facts
        return self._result()

    def on(self, connection: psycopg.Connection[Any]) -> dict[str, Any]:
        """Plan, write if something differs and this is no check, and return the result."""
        with connection.transaction():
            self._prepare(connection)
            # Only running an SQL file shows its effect, so with one there is always something to write.
            if not self.declared.scripts:
                self._rows(connection, write=False)
                if self.check_mode or not self._differs:
                    raise psycopg.Rollback
                self._forget()
            self._lock(connection)
            self._rows(connection, write=True)
            if self.check_mode:
                raise psycopg.Rollback
        if self.params["scale"]:
            self._volume(connection)
        return self._result()

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        self.server = catalogue.server(connection)
        _refuse_database(self.server.environment, self.params)
        self.today = _day(self.params["today"]) if self.params["today"] else self.server.today
        names = list(dict.fromkeys([*self.declared.tables, *(seed_volume.TABLES if self.params["scale"] else ())]))
        self.tables = catalogue.tables(connection, self.schema, names)
        missing = [name for name in names if name not in self.tables]
        if missing:
            self._refuse_missing(missing)
        catalogue.check(self.declared, self.tables)

    def _refuse_missing(self, missing: list[str]) -> None:
        where = f"schema {self.schema} of database {self.params['database']}"
        row = next((row for row in self.declared.rows if row.table in missing), None)
        place = f"{row.file}, line {row.line}: " if row else ""
        if not self.tables:
            message = f"The tables to seed ({', '.join(missing)}) are not in {where}: apply the migrations first"
        else:
            message = (
                f"{place}there is no table `{missing[0]}` in {where}.{catalogue.near(missing[0], list(self.tables))} "
                "Correct the name, or apply the migration that creates the table"
            )
        if not self.check_mode:
            raise DasTernError(f"{message}: `ansible-playbook migrate.yml`.", missing_tables=missing)
        self.warnings.append(f"{message}: `ansible-playbook migrate.yml`.")

    def _rows(self, connection: psycopg.Connection[Any], write: bool) -> None:
        for row in self.declared.rows:
            row.found_id = None
        for step in self.declared.steps:
            if isinstance(step, Segment):
                self._segment(connection, step, write)
            else:
                self._script(connection, step)

    def _segment(self, connection: psycopg.Connection[Any], segment: Segment, write: bool) -> None:
        plans = []
        for name, rows in segment.tables.items():
            if name not in self.tables:
                self.absent.setdefault(name, []).extend(rows)
                continue
            # Rows of one table may have different keys in different blocks.
            for same_key in _by_key(rows):
                plans.append(self._read(connection, self.tables[name], same_key))
            self._refuse_same_row(rows)
        if write:
            for plan in plans:
                seed_plan.write(connection, self.schema, plan)
        self.plans += plans

    def _read(
        self, connection: psycopg.Connection[Any], table: catalogue.Table, rows: list[Row]
    ) -> seed_plan.TablePlan:
        rows_and_values = [(row, {name: self._value(value) for name, value in row.values.items()}) for row in rows]
        try:
            with connection.transaction():
                plan = seed_plan.read(connection, self.schema, table, rows_and_values)
        except psycopg.Error as error:
            if error.sqlstate and error.sqlstate.startswith("22"):
                raise seed_plan.bad_value(connection, table, rows_and_values, error) from None
            raise seed_plan.server_error(f"{rows[0].file}: reading {table.name}", error) from None
        return plan

    def _refuse_same_row(self, rows: list[Row]) -> None:
        seen: dict[str, Row] = {}
        for row in rows:
            other = seen.setdefault(row.real_id, row)
            if other is not row:
                raise DasTernError(
                    f"{row.place} and {other.place} are the same row of the database (id {row.real_id}). "
                    "Declare it once."
                )

    def _value(self, value: Any) -> Any:
        return resolved(self.declared, value, lambda text: moment(text, self.today, self.server.offset))

    def _script(self, connection: psycopg.Connection[Any], script: Script) -> None:
        before = _written_rows(connection)
        try:
            connection.execute(script.sql)  # type: ignore[arg-type]
        except psycopg.Error as error:
            position = int(error.diag.statement_position or 1) - 1
            line = line_and_column(script.sql, position)[0]
            started = [statement for statement in statements(script.sql) if statement.start <= position]
            where = f"{script.file}, line {line}" if error.diag.statement_position else script.file
            failure = seed_plan.server_error(where, error)
            raise DasTernError(
                failure.message, file=script.file, line=line, statement=len(started), **failure.facts
            ) from None
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS:
            raise DasTernError(f"{script.file} ended the transaction of the seed. Remove the statement that does so.")
        self.scripts.append({"file": script.file, "rows": _written_rows(connection) - before})

    @property
    def _differs(self) -> bool:
        return any(plan.changes for plan in self.plans) or any(self.absent.values())

    def _lock(self, connection: psycopg.Connection[Any]) -> None:
        """Take the lock of all seeds, which is released with the transaction, however that ends."""
        try:
            waited_for = AdvisoryLock(connection, ADVISORY_LOCK, transaction=True).take(
                self.params["lock_wait"], self.waiting
            )
        except Held as held:
            raise DasTernError(
                f"Another seed has been running for more than {held.seconds:.0f} s: {who(held.holder)}. Run again when it "
                "is done, or raise `seed_lock_wait`. Nothing was changed.",
                locked_by=held.holder,
            ) from None
        self.waited_for = waited_for or self.waited_for

    def _volume(self, connection: psycopg.Connection[Any]) -> None:
        missing = [name for name in seed_volume.TABLES if name not in self.tables]
        if missing:
            self.volume = {"rows": {}, "patients_missing": None, "scale": self.params["scale"]}
            return
        plan = seed_volume.plan(connection, self.schema, self.params["scale"], self.params["scale_days"])
        self.volume = plan.facts
        if self.check_mode or not any(plan.rows.values()):
            return
        try:
            with connection.transaction():
                self._lock(connection)
                plan = seed_volume.plan(connection, self.schema, self.params["scale"], self.params["scale_days"])
                self.volume = plan.facts
                if any(plan.rows.values()):
                    self.volume |= seed_volume.fill(connection, self.schema, plan)
        except psycopg.Error as error:
            failure = seed_plan.server_error("The volume seed", error)
            kept = " The declared rows were written, but nothing of the volume seed." if self.plans else ""
            raise DasTernError(failure.message.removesuffix(" Nothing was changed.") + kept, **failure.facts) from None

    def _result(self) -> dict[str, Any]:
        counts: dict[str, dict[str, int]] = {}
        for plan in self.plans:
            count = counts.setdefault(plan.table.name, {"inserted": 0, "updated": 0, "unchanged": 0})
            count["inserted"] += len(plan.inserts)
            count["updated"] += len(plan.updates)
            count["unchanged"] += plan.unchanged
        for name, rows in self.absent.items():
            counts[name] = {"inserted": len(rows), "updated": 0, "unchanged": 0}
        totals = {
            outcome: sum(count[outcome] for count in counts.values())
            for outcome in ("inserted", "updated", "unchanged")
        }
        changes = [change for plan in self.plans for change in plan.changes]
        volume_rows = sum((self.volume or {}).get("rows", {}).values())
        script_rows = [script["rows"] for script in self.scripts]
        result: dict[str, Any] = {
            "changed": bool(
                totals["inserted"] or totals["updated"] or volume_rows or any(n is None or n for n in script_rows)
            ),
            **totals,
            "tables": counts,
            "rows": [change.shown(values=self.diff) for change in changes[:SHOWN]],
            "rows_not_shown": max(0, len(changes) - SHOWN),
            "scripts": self.scripts,
            "seconds": round(time.monotonic() - self.began, 3),
        }
        if self.warnings:
            result["warnings"] = self.warnings
        if self.volume is not None:
            result["volume"] = self.volume
        if self.waited_for is not None:
            result["waited_for"] = self.waited_for
        if self.diff:
            result["diff"] = [_diff(plan) for plan in self.plans if plan.changes]
        return result


def report(params: dict[str, Any], result: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return the section `seed` of the play's summary, from the module's result."""
    if result.get("failed"):
        return {"lines": ["failed: " + str(result.get("msg", "")).partition("\n")[0]], "next": []}
    keys = ("inserted", "updated", "unchanged", "tables", "scripts", "volume", "seconds", "waited_for")
    section: dict[str, Any] = {key: result[key] for key in keys if key in result}
    inserted, updated, unchanged = (result[key] for key in ("inserted", "updated", "unchanged"))
    if not inserted and not updated:
        folder = params.get("seed_environment", "this environment")
        lines = [f"{_rows(unchanged)} as declared" if unchanged else f"no rows are declared for {folder}"]
    elif check_mode:
        lines = [f"would insert {_rows(inserted)}, update {updated}; {unchanged} unchanged"]
    else:
        lines = [f"{_rows(inserted)} inserted, {updated} updated, {unchanged} unchanged"]
    would = "would write" if check_mode else "wrote"
    lines += [
        f"{script['file']} {would} {'an unknown number of rows' if script['rows'] is None else _rows(script['rows'])}"
        for script in result["scripts"]
    ]
    if volume := result.get("volume"):
        events = volume["rows"].get("dose_events", 0)
        if not volume["rows"]:
            lines.append(f"would add up to {volume['scale']} synthetic patients once the schema is there")
        elif events:
            verb = "would add" if check_mode else "added"
            lines.append(
                f"{verb} {volume['patients_missing']} synthetic patients with {events} dose events"
                f" (about {volume['estimated_bytes'] / 1e6:.0f} MB)"
            )
        else:
            lines.append(f"{volume['scale']} synthetic patients are there")
    if waited := result.get("waited_for"):
        lines.append(f"waited {waited.get('seconds', 0)} s for {who(waited)}")
    lines += result.get("warnings", [])
    again = check_mode and result["changed"]
    return {**section, "lines": lines, "next": ["ansible-playbook playbooks/seed.yml"] if again else []}


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _refuse_database(environment: str | None, params: dict[str, Any]) -> None:
    """Refuse unless the database's own environment is the declared one: it outranks every variable of the caller."""
    declared = params["environment"]
    if environment is None or not environment.strip():
        raise DasTernError(
            f"Database {params['database']} at {params['host']}:{params['port']} doesn't name its environment (setting "
            f"dastern.environment), so it may be a copy of production. If it is {declared}, `ansible-playbook "
            "playbooks/provision.yml` sets it."
        )
    if environment.strip().lower() == declared:
        return
    if environment.strip().lower() in ("production", "prod"):
        raise DasTernError(
            f"The environment of database {params['database']} at {params['host']}:{params['port']} is production (setting "
            f"dastern.environment), while the inventory says {declared}. Production is never seeded: check "
            "`postgres_host`, `postgres_port` and the inventory (`-i`)."
        )
    raise DasTernError(
        f"The environment of database {params['database']} is {environment} (setting dastern.environment), while the inventory "
        f"says {declared}. Use `-i inventories/{environment}`; if the environment of the database has changed, "
        "`ansible-playbook playbooks/provision.yml` with the right inventory sets it."
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DasTernError(f"`today` is {text!r}. Expected: a day such as 2026-03-01.") from None


def _by_table(rows: list[Row]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.table, []).append(row)
    return tables


def _by_key(rows: list[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    return list(groups.values())


def _written_rows(connection: psycopg.Connection[Any]) -> int:
    """Return the server's count of rows that this transaction has inserted, updated and deleted so far."""
    query = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_xact_user_tables"
    return int(_single_value(connection, query))


def _single_value(connection: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    row = connection.execute(query, values or None).fetchone()  # type: ignore[arg-type]
    return row[0] if row else None


def _diff(plan: seed_plan.TablePlan) -> dict[str, str]:
    """Return one table's changes as Ansible prints them."""
    before, after = [], []
    for change in plan.changes:
        details = change.shown(values=True)
        head = f"{shown(change.row.label)}:\n"
        after.append(head)
        if change.action == "insert":
            after += [f"  {name}: {_text(value)}\n" for name, value in details["columns"].items()]
            continue
        before.append(head)
        before += [f"  {name}: {_text(pair['before'])}\n" for name, pair in details["columns"].items()]
        after += [f"  {name}: {_text(pair['after'])}\n" for name, pair in details["columns"].items()]
    name = plan.table.name
    return {"before": "".join(before), "after": "".join(after), "before_header": name, "after_header": name}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
