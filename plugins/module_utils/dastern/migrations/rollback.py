"""Roll applied migrations back by their `down.sql`, after a scratch database has shown that these undo what they
should.

All of them run in one transaction with the ledger: either the schema is back at the migration asked for, and changed
only as the scratch database showed, or nothing changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..backups.records import ROLLING_BACK, Place
from ..catalogue.drift import compare, table
from ..catalogue.objects import Item, read_catalogue, read_catalogue_within, schemas_besides
from ..catalogue.scratch import refuse_outside, replay, scratch_database
from ..common.commands import playbook
from ..common.confirmation import SPEC as CONFIRMATION
from ..common.confirmation import is_confirmed, wanted, word
from ..common.errors import DasTernError
from ..common.migration_files import ARGUMENT_SPEC as FOLDER
from ..common.migration_files import DOWN, SCRIPT, MigrationFile, of_params
from ..common.quantities import local
from ..common.sql_reader import Reader, split
from ..common.sql_text import Statement, line_and_column, statements, tokens
from ..common.sql_values import duration, identifier
from ..common.text import shown as shown_text
from ..lint.dangers import begins, tables
from ..server.blockers import Blockers
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect, system_identifier
from ..server.psql import superuser_of
from .backup import ARGUMENT_SPEC as BACKUP
from .backup import backed_up, listed
from .drift import SCRATCH
from .guards import ARGUMENT_SPEC as GUARDS
from .guards import rollback_refusals, time_of_day
from .ledger import Ledger, Row
from .new_migration import why_empty
from .plan import in_order_of_application, make_plan, reset_words
from .run import Refused, own_transactions, refuse_psql

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    **SCRATCH,
    **FOLDER,
    **{name: GUARDS[name] for name in ("window", "require_approval", "approved")},
    "to": {"type": "str", "required": True},
    "lock_timeout": {"type": "str", "default": "10s"},
    "statement_timeout": {"type": "str", "default": "0"},
    "lock_wait": {"type": "int", "default": 300},
    **CONFIRMATION,
    "allow_empty": {"type": "bool", "default": False},
    **BACKUP,
}

# By oid and number, as a name may exist again after a DROP, or the same rows may have another name.
_TABLES = """
SELECT c.oid, c.oid::regclass::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 2
"""
_COLUMNS = """
SELECT attrelid, attnum, quote_ident(attname), attislocal AND attgenerated = '' FROM pg_catalog.pg_attribute
WHERE attrelid = ANY (%s) AND attnum > 0 AND NOT attisdropped ORDER BY 2
"""

# The server counts the rows that a transaction writes. A table that is emptied or converted gets another file.
_CONTENTS = """
SELECT c.oid, c.oid::regclass::text, c.relfilenode::bigint, pg_catalog.pg_relation_size(c.oid),
  (SELECT coalesce(json_object_agg(attnum, concat_ws(' ', atttypid, atttypmod)), '{}') FROM pg_catalog.pg_attribute
   WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), coalesce(s.n_tup_upd, 0), coalesce(s.n_tup_del, 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_stat_xact_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 2
"""

_ADVICE = {
    "25001": " A rollback is one transaction: write this statement without CONCURRENTLY.",
    "55006": " A rollback is one transaction, and deferred checks of rows that an earlier statement changed are still "
    "pending: write `SET CONSTRAINTS ALL IMMEDIATE;` before this one.",
}


@dataclass(frozen=True)
class _Shown:
    """The scratch database's catalogue before and after the `down.sql`."""

    before: list[Item]
    after: list[Item]
    others: list[str]
    """The schemas besides the first one that the migrations create or fill."""
    gone: list[tuple[str, str]]
    """Dropped tables, and columns dropped from tables that stay: each the table and the column or '', as in SQL."""


@dataclass(frozen=True)
class Loss:
    """A loss that going up again doesn't undo, in words, and the number of live rows or values affected."""

    what: str
    count: int
    unit: str = "row"
    table: str = ""
    """The table whose rows the loss affects; '' if a table or column goes."""

    @property
    def line(self) -> str:
        return f"{self.what} ({self.count:,} {self.unit}{'' if self.count == 1 else 's'})"


def rollback(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Roll back the migrations applied after `to`; the keys of `params` are the options of `migration_rollback`.

    Returns `changed`, `names` in the order in which they are rolled back, `losses` in words, and `diff`. Raises
    `DasTernError`.
    """
    files = {file.name: file for file in of_params(params)}
    downs = {name: file.down for name, file in files.items() if file.down is not None}
    session: dict[str, str | int] = {"search_path": identifier(params["schema"])}
    session |= {name: duration(f"migrations_{name}", params[name]) for name in ("lock_timeout", "statement_timeout")}
    losses: list[Loss] = []
    guards: list[str] = []
    needed: dict[str, str] = {}
    backup: dict[str, Any] = {}
    began = False
    try:
        with connect(dict(params), "das-tern rollback", session) as connection:
            ledger = Ledger(connection, params["schema"])
            if not check_mode:
                ledger.hold_lock(params["lock_wait"])
            kept, taken = _steps(connection, params, ledger, files, downs)
            if taken:
                guards = _guards(connection, params, taken)
                try:
                    shown = _prove(
                        connection, params, [files[name] for name in kept], [files[name] for name in taken], downs
                    )
                except DasTernError as refusal:
                    raise DasTernError([*refusal.message.split("\n"), *guards], **refusal.facts) from None
                losses = [*_losses(connection, shown), *_stated(connection, downs, taken[::-1])]
                if check_mode:
                    if unconfirmed := _unconfirmed(params, losses):
                        guards.append("\n".join(map(shown_text, unconfirmed)))
                        needed = {"confirm": word(params, params["database"])}
                else:
                    _refuse_guarded(guards, _unconfirmed(params, losses))
                    _refuse_unconfirmed(params, losses)
                    backup = backed_up(params, connection, ROLLING_BACK, "Nothing was rolled back")
                    _refuse_guarded(_guards(connection, params, taken))  # the backup may have taken long
                    began = True
                    with Blockers(params, connection.info.backend_pid, params["lock_timeout"]) as blockers:
                        losses += _take_back(connection, params, ledger, taken, downs, shown, blockers, losses)
    except psycopg.Error as error:
        raise DasTernError(
            f"Rolling back in database {params['database']} failed: {error.sqlstate or 'connection lost'}: "
            f"{' '.join(str(error).split())}. "
            + (
                "It is one transaction: either all of it happened or nothing, and `ansible-playbook "
                "playbooks/migration_status.yml` shows which."
                if began
                else "The rollback hadn't begun: nothing was rolled back."
            )
        ) from None
    names = taken[::-1]
    diff = [
        {"before_header": "applied", "after_header": f"{name}/{DOWN}", "before": "", "after": downs[name]}
        for name in names
    ]
    lines = [loss.line for loss in losses]
    return {
        "changed": bool(names),
        "names": names,
        "losses": lines,
        "refused": guards,
        "diff": diff,
        **needed,
        **backup,
    }


def _guards(connection: psycopg.Connection[Any], params: Mapping[str, Any], taken: list[str]) -> list[str]:
    """Return the refusals of the inventory's guard rails."""
    return rollback_refusals(params, taken[::-1], time_of_day(connection))


def _refuse_guarded(guards: list[str], unconfirmed: Sequence[str] = ()) -> None:
    """Raise the refusals of the guard rails, together with the losses that are `unconfirmed`."""
    if guards:
        raise DasTernError([*guards, *(unconfirmed or ["Nothing was rolled back."])])


def _steps(
    connection: psycopg.Connection[Any],
    params: Mapping[str, Any],
    ledger: Ledger,
    files: Mapping[str, MigrationFile],
    downs: Mapping[str, str],
) -> tuple[list[str], list[str]]:
    """Return the migrations to keep and to roll back, in order of application; refuse an impossible rollback."""
    rows = ledger.rows() or []
    plan = make_plan(list(files.values()), rows)
    problems = [f"Migration {name} failed before (P3009): resolve it first." for name in plan.failed]
    problems += [
        f"Migration {file.name} was interrupted: `ansible-playbook migrate.yml` picks it up."
        for file in plan.interrupted
    ]
    problems += [
        f"Migration {name} is applied, but not in {params['folder']}: get the file back." for name in plan.missing
    ]
    problems += [
        f"Migration {name} was edited after it was applied: put the file back as it was.{reset_words(params)}"
        for name in plan.edited
    ]
    names = in_order_of_application(rows)
    if params["to"] not in names:
        problems.append(
            f"`to` is {params['to']!r}, which isn't applied in database {params['database']} (P3011). Expected: the migration "
            f"that stays as the newest, such as {names[-2] if len(names) > 1 else 'the name of its directory'}."
        )
    if problems:
        raise DasTernError([*problems, "Nothing was rolled back."])
    count = names.index(params["to"]) + 1
    kept, taken = names[:count], names[count:]
    without = [name for name in taken if name not in downs]
    if without:
        raise DasTernError(
            f"{', '.join(f'{name}/{DOWN}' for name in without)} {'does' if len(without) == 1 else 'do'} not exist in "
            f"{params['folder']}, so that the schema can't go back to {params['to']} step by step. Nothing was rolled back. Write "
            f"{'it' if len(without) == 1 else 'them'}, or restore a backup from before {without[0]} was applied: "
            f"{_backup(params, system_identifier(connection), kept, _began(rows, without[0]))}"
        )
    empty = [] if params["allow_empty"] else [name for name in taken if MigrationFile(name, downs[name]).empty]
    if empty:
        raise DasTernError(
            [
                *(f"{params['folder']}/{name}/{DOWN} {why_empty(downs[name])}: it undoes nothing." for name in empty),
                f"Nothing was rolled back. Write statements that undo {SCRIPT} beside it; if there is nothing to undo, "
                "`-e migrations_allow_empty=true`.",
            ],
            empty=empty,
        )  # fmt: skip
    for name in taken:
        path, file = f"{params['folder']}/{name}/{DOWN}", MigrationFile(name, downs[name])
        try:
            refuse_psql(file)
            if own_transactions(file):
                raise Refused("it controls transactions itself; a rollback is one transaction.")
        except Refused as refusal:
            raise DasTernError(f"{path}: {refusal} Nothing was rolled back.") from None
        refuse_outside(file, path, "remove that statement and run it by hand. Nothing was rolled back")
    return kept, taken


def _began(rows: Sequence[Row], name: str) -> datetime | None:
    """Return when an applied migration began; None if it was only marked as applied."""
    row = next(row for row in rows if row.name == name and row.applied)
    return None if row.resolved else row.started_at


def _backup(params: Mapping[str, Any], system: str, kept: Sequence[str], before: datetime | None) -> str:
    """Name the ways back: the newest backup with just these migrations or fewer, and the moment `before`."""
    if not params["backup_dir"]:
        return "`postgres_backup_dir` is empty."
    backups = Place(dict(params))
    ways = []
    candidates = [
        record for record in listed(backups, params["database"], system) if set(record.migrations) <= set(kept)
    ]
    if candidates:
        best = max(candidates, key=lambda record: (len(record.migrations), record.began))
        missing = [name for name in kept if name not in best.migrations]
        lacks = f", without {', '.join(missing)}" if missing else ""
        ways.append(f"{best}{lacks}, as a database beside the live one: `{best.restore_command}`")
    physical = [record for record in backups.records() if record.physical and record.system == system and record.good]
    ended = [datetime.fromisoformat(record.began) + timedelta(seconds=record.seconds) for record in physical]
    if before and any(end < before for end in ended):
        moment = local(before, exact=True)
        command = playbook("restore", target=moment, what="database", into=f"{params['database']}_restored")
        ways.append(
            f"the moment before it, {moment}, from the physical backups and the log, as a database beside the live one: `{command}`"
        )
    return " Or ".join(ways) or f"there is no backup in `postgres_backup_dir` ({params['backup_dir']})."


def _prove(
    connection: psycopg.Connection[Any],
    params: Mapping[str, Any],
    kept: list[MigrationFile],
    taken: list[MigrationFile],
    downs: Mapping[str, str],
) -> _Shown:
    """Go up, down and up in a scratch database, require equal catalogues, and return what going down changed."""
    superuser, schema = superuser_of(params), params["schema"]
    settings: dict[str, str | int] = {"search_path": identifier(schema), "lock_timeout": "10s"}
    files = [*kept, *taken]
    with scratch_database(connection, params, superuser=superuser, settings=settings, files=files) as own:
        others: set[str] = set()

        def read() -> list[Item]:
            others.update(schemas_besides(own, schema))
            return read_catalogue(own, schema, sorted(others))

        def up(files: list[MigrationFile]) -> list[Item]:
            replay(own, files, params["folder"])
            return read()

        own.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")  # type: ignore[arg-type]
        before = up(kept)
        after = up(taken)
        # One transaction, as on the live database, so that statements that refuse one fail here.
        tables_before = _tables(own)
        own.execute("BEGIN")
        _run(own, params, [file.name for file in reversed(taken)], downs)
        own.execute("COMMIT")
        lowered, gone = read(), _gone(tables_before, _tables(own))
        _refuse_difference(params, "down", before, lowered)
        _refuse_difference(params, "up again", after, up(taken))
    return _Shown(after, lowered, sorted(others), gone)


_Tables = Mapping[int, tuple[str, Mapping[int, tuple[str, bool]]]]
"""By oid the table's name, and by number its columns, each with whether it holds values of its own."""


def _tables(connection: psycopg.Connection[Any]) -> _Tables:
    result: dict[int, tuple[str, dict[int, tuple[str, bool]]]] = {
        oid: (name, {}) for oid, name in connection.execute(_TABLES).fetchall()
    }
    for oid, number, name, own in connection.execute(_COLUMNS, (list(result),)).fetchall():
        result[oid][1][number] = (name, own)
    return result


def _gone(before: _Tables, after: _Tables) -> list[tuple[str, str]]:
    gone = []
    for oid, (table_name, columns) in before.items():
        if oid not in after:
            gone.append((table_name, ""))
            continue
        gone += [(table_name, name) for number, (name, own) in columns.items() if own and number not in after[oid][1]]
    return gone


def _losses(connection: psycopg.Connection[Any], shown: _Shown, *, lock: bool = False) -> list[Loss]:
    """Count what the live database has of the tables and columns that go.

    With `lock` nobody else writes there until the transaction ends.
    """
    losses = []
    for name, column in shown.gone:
        query = "SELECT to_regclass(%s) IS NOT NULL"
        if column:
            query = (
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(%s) AND quote_ident(attname) = %s "
                "AND NOT attisdropped)"
            )
        if connection.execute(query, (name, column) if column else (name,)).fetchone() != (True,):
            continue
        if lock:
            connection.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")  # type: ignore[arg-type]
        lost = f"column {name}.{column}" if column else f"table {name}"
        losses.append(Loss(f"drops {lost}", *_count(connection, name, column)))
    return losses


def _count(connection: psycopg.Connection[Any], name: str, column: str) -> tuple[int, str]:
    """Return the number and unit of rows or of a column's values; bytes if policies hide rows even from the owner."""
    forced = "SELECT relrowsecurity AND relforcerowsecurity, pg_catalog.pg_relation_size(oid) FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)"
    hidden = connection.execute(forced, (name,)).fetchone()
    if hidden and hidden[0]:
        return hidden[1], "byte"
    row = connection.execute(f"SELECT count({column or '*'}) FROM {name}").fetchone()  # type: ignore[arg-type]
    return (row[0] if row else 0), "value" if column else "row"


def _stated(connection: psycopg.Connection[Any], downs: Mapping[str, str], taken: Sequence[str]) -> list[Loss]:
    """Return the losses that the statements of the `down.sql` files state for tables that hold rows.

    Only the statements themselves are read. The effects of a DO block or a function show afterwards: `_touched`.
    """
    losses = []
    for name in taken:
        for statement in statements(downs[name]):
            for path in _written(statement):
                row = connection.execute("SELECT to_regclass(%s)::text", (identifier(*path),)).fetchone()
                if not row or row[0] is None:
                    continue
                count, unit = _count(connection, row[0], "")
                if count:
                    losses.append(
                        Loss(
                            f"{name}/{DOWN}, line {statement.line}: `{statement.short}` affects table {row[0]}",
                            count,
                            unit,
                            row[0],
                        )
                    )
    return losses


def _written(statement: Statement) -> list[tuple[str, ...]]:
    """Return the tables whose rows a statement deletes, changes or converts."""
    match statement.words[:1]:
        case ("TRUNCATE",):
            return tables(statement)
        case ("ALTER",) if statement.words[:2] == ("ALTER", "TABLE") and _converts(statement):
            return tables(statement)
        case ("DELETE" | "UPDATE" | "MERGE" | "WITH",):
            parts = list(tokens(statement.text))
            words = [text.upper() if kind == "word" else text for kind, text, _ in parts]
            paths = []
            for index in begins(words, "DELETE", "UPDATE", "MERGE"):
                reader = Reader(parts[index + 1 :])
                for keyword in ("INTO", "FROM", "ONLY"):
                    reader.take(keyword)
                paths.append(reader.path())
            return [path for path in paths if path]
    return []


def _converts(statement: Statement) -> bool:
    """Return whether an ALTER TABLE gives a column another type."""
    reader = Reader(statement.text)
    reader.take("ALTER", "TABLE")
    reader.take("IF", "EXISTS")
    reader.take("ONLY")
    reader.path()
    for part in split(reader.rest):
        action = Reader(part)
        if action.take("ALTER"):
            action.take("COLUMN")
            action.name()
            if action.take("TYPE") or action.take("SET", "DATA", "TYPE"):
                return True
    return False


_Contents = dict[int, tuple[str, int, int, dict[str, str], int, int]]
"""By oid: the table, its file, its bytes, the types of its columns by number, and the numbers of its rows that this
session has changed and deleted so far."""


def _contents(connection: psycopg.Connection[Any]) -> _Contents:
    return {row[0]: row[1:] for row in connection.execute(_CONTENTS).fetchall()}


def _touched(before: _Contents, after: _Contents) -> list[Loss]:
    """Return the losses of rows in tables that stayed, as the server counted them."""
    losses = []
    for oid, (name, file, size, types, changed, deleted) in before.items():
        if oid not in after:
            continue
        _, now_file, now_size, now_types, now_changed, now_deleted = after[oid]
        if now_deleted > deleted:
            losses.append(Loss(f"deletes rows of table {name}", now_deleted - deleted, table=name))
        if now_changed > changed:
            losses.append(Loss(f"changes rows of table {name}", now_changed - changed, table=name))
        # Adding a column may rewrite the table, by which nothing is lost.
        converted = any(now_types.get(number, of) != of for number, of in types.items())
        added = now_types.keys() - types.keys()
        if file != now_file and size and (converted or not added or not now_size):
            losses.append(Loss(f"rewrites table {name}" if now_size else f"empties table {name}", size, "byte", name))
    return losses


def _is_confirmed(params: Mapping[str, Any]) -> bool:
    return is_confirmed(params, params["database"]) or is_confirmed(params, f"{params['database']}{HIDDEN}")


def _unconfirmed(params: Mapping[str, Any], losses: Sequence[Loss]) -> list[str]:
    """Return the lines that ask for a confirmation of `losses`; none if they need no confirmation."""
    if _is_confirmed(params) or not any(loss.count for loss in losses):
        return []
    return [
        f"Going back to {params['to']} deletes or changes data of database {params['database']}, and going up again doesn't "
        "bring it back:",
        *(f"  {loss.line}" for loss in losses),
        f"Nothing was rolled back. {wanted(params, params['database'])} After a backup: "
        f"`{playbook('rollback', to=params['to'], confirm=word(params, params['database']))}`.",
    ]


def _refuse_unconfirmed(params: Mapping[str, Any], losses: Sequence[Loss]) -> None:
    if lines := _unconfirmed(params, losses):
        needed = word(params, params["database"])
        raise DasTernError(lines, confirm=needed, losses=[loss.line for loss in losses])


HIDDEN = "+rows"
"""The suffix of the confirmation's word if code does more than the plan shows."""


def _refuse_hidden(params: Mapping[str, Any], hidden: Sequence[Loss], named: Sequence[Loss]) -> None:
    """Refuse losses that weren't announced; the confirmation of the plan doesn't cover them."""
    announced = {loss.table for loss in named if loss.table}
    new = [loss for loss in hidden if loss.count and loss.table not in announced]
    database = params["database"]
    if not new or is_confirmed(params, f"{database}{HIDDEN}"):
        return
    needed = word(params, f"{database}{HIDDEN}")
    raise DasTernError(
        [
            f"Going back to {params['to']} deletes or changes more data of database {database} than its statements tell, and going up "
            "again doesn't bring it back:",
            *(f"  {loss.line}" for loss in new),
            f"Nothing was rolled back. {wanted(params, f'{database}{HIDDEN}')} After a backup: "
            f"`{playbook('rollback', to=params['to'], confirm=needed)}`.",
        ],
        confirm=needed,
        losses=[loss.line for loss in new],
    )


def _gone_besides(before: _Tables, after: _Tables, shown: _Shown, contents: _Contents) -> list[Loss]:
    """Return the tables and columns that were dropped in the live database, but not in the scratch one."""
    size = {name: size for name, _, size, *_ in contents.values()}
    return [
        Loss(
            f"drops {'a column of ' if column else ''}table {name}{f', column {column}' if column else ''}",
            size.get(name, 1),
            "byte",
        )
        for name, column in _gone(before, after)
        if (name, column) not in shown.gone
    ]


def _large_objects(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata").fetchone()
    return int(row[0]) if row else 0


def _refuse_difference(params: Mapping[str, Any], step: str, expected: list[Item], actual: list[Item]) -> None:
    differences = [row for row in compare(expected, actual) if not row.weak]
    if differences:
        raise DasTernError(
            [
                f"Nothing was rolled back: in a scratch database, going {step} doesn't restore the catalogue from before. "
                f"Differences (`expected` is the catalogue from before, `live` that after going {step}):",
                *(f"  {line}" for line in table(differences)),
                f"Fix the {DOWN} files in {params['folder']}.",
            ]
        )  # fmt: skip


def _take_back(
    connection: psycopg.Connection[Any],
    params: Mapping[str, Any],
    ledger: Ledger,
    taken: list[str],
    downs: Mapping[str, str],
    shown: _Shown,
    blockers: Blockers,
    named: Sequence[Loss],
) -> list[Loss]:
    """Run the files and update the ledger; return the losses besides those `named` before."""
    connection.execute("BEGIN")
    try:
        if not _is_confirmed(params):
            # Rows may have come since the count without locks; the files need these locks anyway.
            _refuse_unconfirmed(params, _losses(connection, shown, lock=True))
        before, rows, tables_before = (
            read_catalogue_within(connection, params["schema"], shown.others),
            _contents(connection),
            _tables(connection),
        )
        objects = _large_objects(connection)
        _run(connection, params, taken[::-1], downs)
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # so that their effects on rows are counted as well
        # Leaving the connection undoes all of it.
        hidden = [
            *_touched(rows, _contents(connection)),
            *_gone_besides(tables_before, _tables(connection), shown, rows),
        ]
        if (left := _large_objects(connection)) < objects:
            hidden.append(Loss("deletes large objects", objects - left, "object"))
        _refuse_hidden(params, hidden, named)
    except psycopg.errors.LockNotAvailable as error:
        message = (
            f"Nothing was rolled back: a table to be dropped couldn't be locked: 55P03: {error.diag.message_primary}."
        )
        raise blockers.named(DasTernError(message, sqlstate="55P03")) from None
    except DasTernError as refusal:
        raise blockers.named(refusal) from None
    _refuse_other_change(params, shown, before, read_catalogue_within(connection, params["schema"], shown.others))
    for name in taken[::-1]:
        ledger.take_back(name)
    connection.execute("COMMIT")
    return hidden


def _refuse_other_change(
    params: Mapping[str, Any], shown: _Shown, before: Sequence[Item], after: Sequence[Item]
) -> None:
    """Refuse if the live catalogue changed otherwise than `shown`; leaving the connection undoes all of it."""
    differences = [row for row in compare(_expected(shown, before, after), after) if not row.weak]
    if differences:
        raise DasTernError(
            [
                "Nothing was rolled back: the same files did something else in the live database than in an empty one. "
                "Differences (`expected` after the rollback, and `live`):",
                *(f"  {line}" for line in table(differences)),
                f"Fix the {DOWN} files in {params['folder']} if they depend on rows or on which objects exist; move or drop by hand "
                "objects that were made by hand and depend on dropped ones.",
            ],
            differences=[row.as_dict() for row in differences],
        )  # fmt: skip


def _expected(shown: _Shown, before: Sequence[Item], after: Sequence[Item]) -> list[Item]:
    """Return the catalogue `before` with everything that `shown` changed as it was left there; other drift stays.

    Anything is accepted where `shown` can't tell: parts of an object that came or went with it (its grants, an index
    made by hand), and the tables of a publication (one of all tables loses each dropped table).
    """
    first, last = ({item.key: item for item in items} for items in (shown.before, shown.after))
    old, new = ({item.key: item for item in items} for items in (before, after))
    expected: list[Item | None] = []
    for key in first.keys() | last.keys() | old.keys() | new.keys():
        former, latter = first.get(key), last.get(key)
        item = new.get(key) or old.get(key)
        if (former and former.definition) != (latter and latter.definition):
            expected.append(latter)
        elif item is not None and (
            _goes_along(item, old | new, first.keys() ^ last.keys())
            or (item.kind == "publication" and key in old and key in new)
        ):
            expected.append(new.get(key))
        else:
            expected.append(old.get(key))
    return [item for item in expected if item is not None]


def _goes_along(item: Item, items: Mapping[str, Item], came_or_went: Collection[str]) -> bool:
    """Return whether an ancestor of `item` came or went."""
    while item.parent in items:
        if item.parent in came_or_went:
            return True
        item = items[item.parent]
    return False


def _run(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], names: Sequence[str], downs: Mapping[str, str]
) -> None:
    """Run these `down.sql`, each as a whole; a failure names file and line."""
    for name in names:
        try:
            connection.execute(downs[name])  # type: ignore[arg-type]
        except psycopg.Error as error:
            place = ""
            if error.diag.statement_position:
                line, _ = line_and_column(downs[name], int(error.diag.statement_position) - 1)
                place = f", line {line}"
            advice = _ADVICE.get(error.sqlstate or "", "")
            raise DasTernError(
                f"Nothing was rolled back: {params['folder']}/{name}/{DOWN}{place}: {error.sqlstate or 'connection lost'}: "
                f"{error.diag.message_primary or ' '.join(str(error).split())}.{advice}",
                sqlstate=error.sqlstate or "",
            ) from None
        connection.execute(f"RESET ROLE; SET search_path = {identifier(params['schema'])}")  # type: ignore[arg-type]
