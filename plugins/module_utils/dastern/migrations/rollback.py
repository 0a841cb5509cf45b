"""Take applied migrations back by their `down.sql`, after it was shown in a scratch database that these do what they say.

All of them in one transaction with the ledger: either the schema is back at the wanted migration, and changed in nothing
that the scratch database didn't show, or nothing changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..backups.physical import good
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
from .backup import applied, backed_up, listed
from .drift import SCRATCH
from .guards import ARGUMENT_SPEC as GUARDS
from .guards import rollback_refusals, time_of_day
from .ledger import Ledger, Row
from .new_migration import why_empty
from .plan import in_order_of_application, make_plan, reset_words
from .run import Refused, own_transactions, refuse_psql

try:
    import psycopg
except ImportError:  # `connect` says so in words
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

# By oid and number, as a name may well be there again behind a DROP, or another be there for the same rows.
_TABLES = """
SELECT c.oid, c.oid::regclass::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 2
"""
_COLUMNS = """
SELECT attrelid, attnum, quote_ident(attname), attislocal AND attgenerated = '' FROM pg_catalog.pg_attribute
WHERE attrelid = ANY (%s) AND attnum > 0 AND NOT attisdropped ORDER BY 2
"""

# The server counts what a transaction writes. A table that is emptied or converted gets another file.
_CONTENTS = """
SELECT c.oid, c.oid::regclass::text, c.relfilenode::bigint, pg_catalog.pg_relation_size(c.oid),
  (SELECT coalesce(json_object_agg(attnum, concat_ws(' ', atttypid, atttypmod)), '{}') FROM pg_catalog.pg_attribute
   WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped), coalesce(s.n_tup_upd, 0), coalesce(s.n_tup_del, 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_stat_xact_user_tables s ON s.relid = c.oid
WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 2
"""

_WORDS_FOR = {
    "25001": " All that is taken back is one transaction: write it without CONCURRENTLY.",
    "55006": " All that is taken back is one transaction, and deferred checks of what an earlier statement of it changed are "
    "pending there: write `SET CONSTRAINTS ALL IMMEDIATE;` before this one.",
}


@dataclass(frozen=True)
class _Shown:
    """The scratch database's catalogue before and after the `down.sql`."""

    before: list[Item]
    after: list[Item]
    others: list[str]
    """The schemas besides the first one that the migrations make or fill."""
    gone: list[tuple[str, str]]
    """Tables that go, and columns that go from a table that stays: the table, and the column or ''; as SQL writes them."""


@dataclass(frozen=True)
class Loss:
    """What going up again doesn't bring back, in words, and how many rows or values of the live database it concerns."""

    what: str
    count: int
    unit: str = "row"
    table: str = ""
    """Whose rows a statement says that it touches."""

    @property
    def line(self) -> str:
        return f"{self.what} ({self.count:,} {self.unit}{'' if self.count == 1 else 's'})"


def rollback(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Take back what was applied after the migration `to`; the keys of `params` are the options of `migration_rollback`.

    Returns `changed`, `names` in the order in which they are taken back, `losses` in words, and `diff`. Raises
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
                losses = [*_losses(connection, shown), *_said(connection, downs, taken[::-1])]
                if check_mode:
                    if unconfirmed := _unconfirmed(params, losses):
                        guards.append("\n".join(map(shown_text, unconfirmed)))
                        needed = {"confirm": word(params, params["database"])}
                else:
                    _refuse_guarded(guards, _unconfirmed(params, losses))
                    _refuse_unconfirmed(params, losses)
                    backup = backed_up(params, connection, ROLLING_BACK, "Nothing was rolled back")
                    _refuse_guarded(_guards(connection, params, taken))  # that may have taken long
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
                else "It hadn't begun: nothing was rolled back."
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
    """What the guard rails of the inventory don't let pass, in words."""
    return rollback_refusals(params, taken[::-1], time_of_day(connection))


def _refuse_guarded(guards: list[str], unconfirmed: Sequence[str] = ()) -> None:
    """Refuse what the guard rails don't let pass, and name at once what is `unconfirmed`."""
    if guards:
        raise DasTernError([*guards, *(unconfirmed or ["Nothing was rolled back."])])


def _steps(
    connection: psycopg.Connection[Any],
    params: Mapping[str, Any],
    ledger: Ledger,
    files: Mapping[str, MigrationFile],
    downs: Mapping[str, str],
) -> tuple[list[str], list[str]]:
    """What stays and what is taken back, each in the order in which it was applied."""
    rows = ledger.rows() or []
    plan = make_plan(list(files.values()), rows)
    wrong = [f"Migration {name} failed before (P3009): resolve it first." for name in plan.failed]
    wrong += [
        f"Migration {row.name} was interrupted: `ansible-playbook migrate.yml` picks it up." for row in plan.interrupted
    ]
    wrong += [
        f"Migration {name} is applied, but not in {params['folder']}: get the file back." for name in plan.missing
    ]
    wrong += [
        f"Migration {name} was edited after it was applied: put the file back as it was.{reset_words(params)}"
        for name in plan.edited
    ]
    names = in_order_of_application(rows)
    if params["to"] not in names:
        wrong.append(
            f"`to` is {params['to']!r}, which isn't applied in database {params['database']} (P3011); wanted is the migration "
            f"that stays as the newest, such as {names[-2] if len(names) > 1 else 'the name of its directory'}."
        )
    if wrong:
        raise DasTernError([*wrong, "Nothing was rolled back."])
    place = names.index(params["to"]) + 1
    kept, taken = names[:place], names[place:]
    without = [name for name in taken if name not in downs]
    if without:
        raise DasTernError(
            f"{', '.join(f'{name}/{DOWN}' for name in without)} {'does' if len(without) == 1 else 'do'} not exist in "
            f"{params['folder']}, so that {params['to']} can't be gone back to step by step. Nothing was rolled back. Write "
            f"{'it' if len(without) == 1 else 'them'}, or restore a backup from before {without[0]} was applied: "
            f"{_backup(params, system_identifier(connection), kept, _began(rows, without[0]))}"
        )
    empty = [] if params["allow_empty"] else [name for name in taken if MigrationFile(name, downs[name]).empty]
    if empty:
        raise DasTernError(
            [
                *(f"{params['folder']}/{name}/{DOWN} {why_empty(downs[name])}: it takes nothing back." for name in empty),
                f"Nothing was rolled back. Write what undoes {SCRIPT} beside it; where there is nothing to undo, "
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
        refuse_outside(file, path, "take that out of it and do it by hand. Nothing was rolled back")
    return kept, taken


def _began(rows: Sequence[Row], name: str) -> datetime | None:
    """When a migration that is applied was begun; None where somebody only marked it."""
    row = next(row for row in rows if row.name == name and row.applied)
    return None if row.resolved else row.started_at


def _backup(params: Mapping[str, Any], system: str, kept: Sequence[str], before: datetime | None) -> str:
    """The newest backup that has just these migrations, else fewer of them, and the way to the moment `before`; with commands."""
    if not params["backup_dir"]:
        return "`postgres_backup_dir` is empty."
    backups = Place(dict(params))
    ways = []
    fit = [one for one in listed(backups, params["database"], system) if set(applied(one)) <= set(kept)]
    if fit:
        best = max(fit, key=lambda one: (len(applied(one)), one.began))
        missing = [name for name in kept if name not in applied(best)]
        lacks = f", without {', '.join(missing)}" if missing else ""
        ways.append(f"{best}{lacks}, as a database beside the live one: `{best.restore_command}`")
    physical = [one for one in backups.records() if one.kind == "physical" and one.system == system and good(one)]
    ended = [datetime.fromisoformat(one.began) + timedelta(seconds=one.seconds) for one in physical]
    if before and any(end < before for end in ended):
        moment = local(before, exact=True)
        command = playbook("restore", target=moment, what="database", into=f"{params['database']}_restored")
        ways.append(
            f"the moment before it, {moment}, from the physical backups and the log, as a database beside the live one: `{command}`"
        )
    return " Or ".join(ways) or f"there is none in `postgres_backup_dir` ({params['backup_dir']})."


def _prove(
    connection: psycopg.Connection[Any],
    params: Mapping[str, Any],
    kept: list[MigrationFile],
    taken: list[MigrationFile],
    downs: Mapping[str, str],
) -> _Shown:
    """Up, down, up in a scratch database: each time the same catalogue; gives what going down changed."""
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
        # As on the live database, so that what can't be in one transaction fails here.
        there = _tables(own)
        own.execute("BEGIN")
        _run(own, params, [file.name for file in reversed(taken)], downs)
        own.execute("COMMIT")
        found, gone = read(), _gone(there, _tables(own))
        _refuse_difference(params, "down", before, found)
        _refuse_difference(params, "up again", after, up(taken))
    return _Shown(after, found, sorted(others), gone)


_Tables = Mapping[int, tuple[str, Mapping[int, tuple[str, bool]]]]
"""By oid: the name, and by number the columns, each with whether it holds values of its own."""


def _tables(connection: psycopg.Connection[Any]) -> _Tables:
    found: dict[int, tuple[str, dict[int, tuple[str, bool]]]] = {
        oid: (name, {}) for oid, name in connection.execute(_TABLES).fetchall()
    }
    for oid, number, name, own in connection.execute(_COLUMNS, (list(found),)).fetchall():
        found[oid][1][number] = (name, own)
    return found


def _gone(before: _Tables, after: _Tables) -> list[tuple[str, str]]:
    gone = []
    for oid, (table_name, columns) in before.items():
        if oid not in after:
            gone.append((table_name, ""))
            continue
        gone += [(table_name, name) for number, (name, own) in columns.items() if own and number not in after[oid][1]]
    return gone


def _losses(connection: psycopg.Connection[Any], shown: _Shown, *, lock: bool = False) -> list[Loss]:
    """What of `shown` the live database has, counted; with `lock` nobody else writes there until the transaction ends."""
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
        what = f"column {name}.{column}" if column else f"table {name}"
        losses.append(Loss(f"takes away {what}", *_count(connection, name, column)))
    return losses


def _count(connection: psycopg.Connection[Any], name: str, column: str) -> tuple[int, str]:
    """Rows of a table, or values of its column, and their unit; bytes where policies hide rows from their owner, too."""
    forced = "SELECT relrowsecurity AND relforcerowsecurity, pg_catalog.pg_relation_size(oid) FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)"
    hidden = connection.execute(forced, (name,)).fetchone()
    if hidden and hidden[0]:
        return hidden[1], "byte"
    row = connection.execute(f"SELECT count({column or '*'}) FROM {name}").fetchone()  # type: ignore[arg-type]
    return (row[0] if row else 0), "value" if column else "row"


def _said(connection: psycopg.Connection[Any], downs: Mapping[str, str], taken: Sequence[str]) -> list[Loss]:
    """Return what the `down.sql` say that they do to the rows of tables that hold some.

    Read are the statements themselves. What a DO block or a function does is seen when it was done: `_touched`.
    """
    losses = []
    for name in taken:
        for one in statements(downs[name]):
            for path in _written(one):
                found = connection.execute("SELECT to_regclass(%s)::text", (identifier(*path),)).fetchone()
                if not found or found[0] is None:
                    continue
                count, unit = _count(connection, found[0], "")
                if count:
                    losses.append(
                        Loss(
                            f"{name}/{DOWN}, line {one.line}, says `{one.short}`: table {found[0]}",
                            count,
                            unit,
                            found[0],
                        )
                    )
    return losses


def _written(one: Statement) -> list[tuple[str, ...]]:
    """Return the tables of which a statement deletes, changes or converts rows."""
    match one.words[:1]:
        case ("TRUNCATE",):
            return tables(one)
        case ("ALTER",) if one.words[:2] == ("ALTER", "TABLE") and _converts(one):
            return tables(one)
        case ("DELETE" | "UPDATE" | "MERGE" | "WITH",):
            parts = list(tokens(one.text))
            words = [text.upper() if kind == "word" else text for kind, text, _ in parts]
            found = []
            for at in begins(words, "DELETE", "UPDATE", "MERGE"):
                reader = Reader(parts[at + 1 :])
                for before in ("INTO", "FROM", "ONLY"):
                    reader.take(before)
                found.append(reader.path())
            return [path for path in found if path]
    return []


def _converts(one: Statement) -> bool:
    """Whether an ALTER TABLE gives a column another type."""
    reader = Reader(one.text)
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
"""By oid: the table, its file, its bytes, the types of its columns by number, and how many of its rows this session has changed
and deleted so far."""


def _contents(connection: psycopg.Connection[Any]) -> _Contents:
    return {row[0]: row[1:] for row in connection.execute(_CONTENTS).fetchall()}


def _touched(before: _Contents, after: _Contents) -> list[Loss]:
    """Return what was done to rows of tables that stayed, as the server counted it."""
    losses = []
    for oid, (name, file, size, types, changed, deleted) in before.items():
        if oid not in after:
            continue
        _, now_file, now_size, now_types, now_changed, now_deleted = after[oid]
        if now_deleted > deleted:
            losses.append(Loss(f"deletes rows of table {name}", now_deleted - deleted, table=name))
        if now_changed > changed:
            losses.append(Loss(f"changes rows of table {name}", now_changed - changed, table=name))
        # A column that is added may write it anew, by which nothing is lost.
        converted = any(now_types.get(number, of) != of for number, of in types.items())
        added = now_types.keys() - types.keys()
        if file != now_file and size and (converted or not added or not now_size):
            losses.append(
                Loss(f"writes table {name} anew" if now_size else f"empties table {name}", size, "byte", name)
            )
    return losses


def _is_confirmed(params: Mapping[str, Any]) -> bool:
    return is_confirmed(params, params["database"]) or is_confirmed(params, f"{params['database']}{HIDDEN}")


def _unconfirmed(params: Mapping[str, Any], losses: Sequence[Loss]) -> list[str]:
    """Why `losses` need a confirmation, in lines; none where they don't."""
    if _is_confirmed(params) or not any(loss.count for loss in losses):
        return []
    return [
        f"Going back to {params['to']} deletes or changes what database {params['database']} holds, and going up again doesn't "
        "bring it back:",
        *(f"  {loss.line}" for loss in losses),
        f"Nothing was rolled back. {wanted(params, params['database'])} After a backup: "
        f"`{playbook('rollback', to=params['to'], confirm=word(params, params['database']))}`.",
    ]


def _refuse_unconfirmed(params: Mapping[str, Any], losses: Sequence[Loss]) -> None:
    if words := _unconfirmed(params, losses):
        needed = word(params, params["database"])
        raise DasTernError(words, confirm=needed, losses=[loss.line for loss in losses])


HIDDEN = "+rows"
"""What the confirmation has behind the database's name where code does more than the plan shows."""


def _refuse_hidden(params: Mapping[str, Any], hidden: Sequence[Loss], named: Sequence[Loss]) -> None:
    """Refuse what nobody was told of before; the confirmation of the plan isn't one of this."""
    said = {loss.table for loss in named if loss.table}
    new = [loss for loss in hidden if loss.count and loss.table not in said]
    database = params["database"]
    if not new or is_confirmed(params, f"{database}{HIDDEN}"):
        return
    needed = word(params, f"{database}{HIDDEN}")
    raise DasTernError(
        [
            f"Going back to {params['to']} does more to what database {database} holds than its statements say, and going up again "
            "doesn't bring it back:",
            *(f"  {loss.line}" for loss in new),
            f"Nothing was rolled back. {wanted(params, f'{database}{HIDDEN}')} After a backup: "
            f"`{playbook('rollback', to=params['to'], confirm=needed)}`.",
        ],
        confirm=needed,
        losses=[loss.line for loss in new],
    )


def _gone_besides(before: _Tables, after: _Tables, shown: _Shown, contents: _Contents) -> list[Loss]:
    """Tables and columns that went from the live database, and not from the scratch one."""
    size = {name: size for name, _, size, *_ in contents.values()}
    return [
        Loss(
            f"takes away {'a column of ' if column else ''}table {name}{f', column {column}' if column else ''}",
            size.get(name, 1),
            "byte",
        )
        for name, column in _gone(before, after)
        if (name, column) not in shown.gone
    ]


def _objects(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata").fetchone()
    return int(row[0]) if row else 0


def _refuse_difference(params: Mapping[str, Any], step: str, expected: list[Item], found: list[Item]) -> None:
    differences = [row for row in compare(expected, found) if not row.weak]
    if differences:
        raise DasTernError(
            [
                f"Nothing was rolled back: tried in a scratch database, {step} doesn't give the catalogue that was there "
                f"before. What differs (expected, and what {step} gave as live):",
                *(f"  {line}" for line in table(differences)),
                f"Mend the {DOWN} files in {params['folder']}.",
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
    """Run the files and the ledger's part; return what they did to rows besides what was `named` before."""
    connection.execute("BEGIN")
    try:
        if not _is_confirmed(params):
            # It was empty a moment ago; the files need these locks anyway.
            _refuse_unconfirmed(params, _losses(connection, shown, lock=True))
        before, rows, there = (
            read_catalogue_within(connection, params["schema"], shown.others),
            _contents(connection),
            _tables(connection),
        )
        objects = _objects(connection)
        _run(connection, params, taken[::-1], downs)
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # what they do to rows is seen as well
        # Leaving the connection undoes all of it.
        hidden = [*_touched(rows, _contents(connection)), *_gone_besides(there, _tables(connection), shown, rows)]
        if (left := _objects(connection)) < objects:
            hidden.append(Loss("deletes large objects", objects - left, "object"))
        _refuse_hidden(params, hidden, named)
    except psycopg.errors.LockNotAvailable as error:
        words = f"Nothing was rolled back: a table that goes couldn't be locked: 55P03: {error.diag.message_primary}."
        raise blockers.named(DasTernError(words, sqlstate="55P03")) from None
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
    """Refuse where the live catalogue isn't what it was but for `shown`; leaving the connection undoes all of it."""
    differences = [row for row in compare(_wanted(shown, before, after), after) if not row.weak]
    if differences:
        raise DasTernError(
            [
                "Nothing was rolled back: the same files did something else in the live database than in an empty one. What "
                "would differ (expected after the rollback, and what it gave as live):",
                *(f"  {line}" for line in table(differences)),
                f"Mend the {DOWN} files in {params['folder']} if they ask for rows or for what is there; move or drop by hand "
                "what was made by hand and hangs on what goes.",
            ],
            differences=[row.as_dict() for row in differences],
        )  # fmt: skip


def _wanted(shown: _Shown, before: Sequence[Item], after: Sequence[Item]) -> list[Item]:
    """The catalogue `before` with all that `shown` changed as it was left there; drift elsewhere stays as it is.

    Free is what shown can't tell: parts of an object that came or went with it (its grants, an index made by hand), and
    which tables a publication holds (one of all tables loses each that goes).
    """
    first, last = ({item.key: item for item in items} for items in (shown.before, shown.after))
    old, new = ({item.key: item for item in items} for items in (before, after))
    wanted: list[Item | None] = []
    for key in first.keys() | last.keys() | old.keys() | new.keys():
        one, other = first.get(key), last.get(key)
        item = new.get(key) or old.get(key)
        if (one and one.definition) != (other and other.definition):
            wanted.append(other)
        elif item is not None and (
            _goes_along(item, old | new, first.keys() ^ last.keys())
            or (item.kind == "publication" and key in old and key in new)
        ):
            wanted.append(new.get(key))
        else:
            wanted.append(old.get(key))
    return [item for item in wanted if item is not None]


def _goes_along(item: Item, items: Mapping[str, Item], came_or_went: Collection[str]) -> bool:
    """Whether something that came or went is above `item`."""
    while item.parent in items:
        if item.parent in came_or_went:
            return True
        item = items[item.parent]
    return False


def _run(
    connection: psycopg.Connection[Any], params: Mapping[str, Any], names: Sequence[str], downs: Mapping[str, str]
) -> None:
    """Run these `down.sql`, each whole; a failure names file and line."""
    for name in names:
        try:
            connection.execute(downs[name])  # type: ignore[arg-type]
        except psycopg.Error as error:
            place = ""
            if error.diag.statement_position:
                line, _ = line_and_column(downs[name], int(error.diag.statement_position) - 1)
                place = f", line {line}"
            mend = _WORDS_FOR.get(error.sqlstate or "", "")
            raise DasTernError(
                f"Nothing was rolled back: {params['folder']}/{name}/{DOWN}{place}: {error.sqlstate or 'connection lost'}: "
                f"{error.diag.message_primary or ' '.join(str(error).split())}.{mend}",
                sqlstate=error.sqlstate or "",
            ) from None
        connection.execute(f"RESET ROLE; SET search_path = {identifier(params['schema'])}")  # type: ignore[arg-type]
