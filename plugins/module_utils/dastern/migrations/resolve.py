"""An operator's decisions about single rows of the ledger, written as Prisma's `migrate resolve` writes them.

Each decision is carried out under the migration lock, in one transaction, and once: repeating it changes nothing.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.migration_files import ARGUMENT_SPEC as FOLDER
from ..common.migration_files import SCRIPT, MigrationFile, of_params
from ..common.sql_text import line_and_column, tokens
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect
from .ledger import Ledger, Row

try:
    import psycopg
except ImportError:  # `connect` reports it
    pass

# Blanks beside these never change a statement's meaning.
_SEPARATE = ("(", ")", ",", ";")
STATUS = "`ansible-playbook playbooks/migration_status.yml` shows what is applied."
DECISIONS = ("applied", "rolled_back", "adopt", "repair")
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    **FOLDER,
    "decision": {"type": "str", "choices": list(DECISIONS), "required": True},
    "name": {"type": "str", "required": True},
    "former": {"type": "list", "elements": "str", "default": []},
    "anyway": {"type": "bool", "default": False},
    "lock_wait": {"type": "int", "default": 300},
}


def resolve(params: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Carry out one decision; the keys of `params` are the options of the module `migration_resolve`.

    Returns `changed` and the `line` that tells what was or would be done. Raises `DasTernError`.
    """
    files = {file.name: file for file in of_params(params)}
    settings = {"default_transaction_read_only": "on"} if check_mode else {}
    with connect(params, "das-tern resolve", settings) as connection:
        ledger = Ledger(connection, params["schema"])
        try:
            if not check_mode:
                ledger.hold_lock(params["lock_wait"])
            with connection.transaction():
                return _DECIDE[params["decision"]](params, ledger, files, check_mode)
        except psycopg.Error as error:
            raise DasTernError(
                f"The ledger of schema {params['schema']} in database {params['database']} can't be read or written: "
                f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}."
            ) from None


def _applied(params: dict[str, Any], ledger: Ledger, files: dict[str, MigrationFile], check: bool) -> dict[str, Any]:
    name = params["name"]
    file = _file(params, files)
    rows = ledger.rows()
    if any(row.applied for row in _of(rows, name)):
        return _already_applied(ledger, rows, name, check)
    if not rows:
        _refuse_without_ledger(params, ledger, list(files), name)
    if not check:
        if rows is None:
            ledger.create()
        ledger.roll_back(name)
        ledger.record_resolved(file)
    return _changed(f"{name} is marked as applied; none of it was run", check)


def _rolled_back(
    params: dict[str, Any], ledger: Ledger, files: dict[str, MigrationFile], check: bool
) -> dict[str, Any]:
    name = params["name"]
    rows = _of(ledger.rows(), name)
    if not rows:
        raise DasTernError(f"Migration {name} was never tried in database {params['database']} (P3011). {STATUS}")
    if any(row.applied for row in rows):
        if any(row.failed for row in rows):
            return _already_applied(ledger, rows, name, check)
        raise DasTernError(
            f"Migration {name} is applied, not failed (P3012). `ansible-playbook playbooks/rollback.yml -e to=NAME` takes "
            "applied migrations back."
        )
    if not any(row.failed for row in rows):
        return _unchanged(f"{name} is marked as rolled back already")
    if not check:
        ledger.roll_back(name)
    return _changed(f"{name} is marked as rolled back: the next `ansible-playbook migrate.yml` applies it again", check)


def _adopt(params: dict[str, Any], ledger: Ledger, files: dict[str, MigrationFile], check: bool) -> dict[str, Any]:
    """Rename the ledger's row of the same checksum to the file's present name."""
    name = params["name"]
    file = _file(params, files)
    rows = ledger.rows() or []
    if any(row.applied for row in _of(rows, name)):
        return _already_applied(ledger, rows, name, check)
    same = [row for row in rows if row.applied and file.matches(row.checksum)]
    lost = [row for row in same if row.name not in files]
    if len(lost) != 1:
        candidates = ", ".join(row.name for row in lost or same)
        raise DasTernError(
            f"Migration {name} can't take over a row of the ledger: "
            + (
                f"{len(lost)} applied migrations without a file have its checksum ({candidates})."
                if lost
                else f"the applied migration with its checksum ({candidates}) still has its own file. Remove one of the two "
                f"directories, or `{playbook('resolve_migration', applied=name)}` if the database has the content of {name} a second time."
                if same
                else f"no applied migration has its checksum {file.checksum}. {STATUS}"
            )
        )
    if not check:
        ledger.rename(lost[0].name, name)
        # Rows of a run that tried the file under its new name.
        ledger.roll_back(name)
    return _changed(f"{name} takes over the row of {lost[0].name}, whose content is the same", check)


def _already_applied(ledger: Ledger, rows: list[Row] | None, name: str, check: bool) -> dict[str, Any]:
    """Mark failed rows beside an applied one as rolled back, because every run would stop at them."""
    if not any(row.failed for row in _of(rows, name)):
        return _unchanged(f"{name} is applied already (P3008)")
    if not check:
        ledger.roll_back(name)
    return _changed(f"{name} is applied; its failed row is marked as rolled back", check)


def _refuse_without_ledger(params: dict[str, Any], ledger: Ledger, names: list[str], name: str) -> None:
    """Refuse tables without a ledger (P3005): with a row for `name` alone, earlier migrations would run on top."""
    before = names[: names.index(name)]
    if before and (tables := ledger.tables()):
        raise DasTernError(
            f"Schema {params['schema']} of database {params['database']} holds {len(tables)} tables but no migration in a "
            f"ledger (P3005). {len(before)} migrations come before {name}, the first is {before[0]}: they would count as pending. "
            "`ansible-playbook playbooks/baseline.yml` finds out which ones the database has and records them; "
            f"`{playbook('baseline', upto=name)}` ends there."
        )


def _repair(params: dict[str, Any], ledger: Ledger, files: dict[str, MigrationFile], check: bool) -> dict[str, Any]:
    """Write the file's present checksum into the ledger, if the file is shown to do the same as before."""
    name = params["name"]
    file = _file(params, files)
    row = next((row for row in _of(ledger.rows(), name) if row.applied), None)
    if row is None:
        raise DasTernError(f"Migration {name} is not applied in database {params['database']} (P3011). {STATUS}")
    if file.matches(row.checksum):
        return _unchanged(f"{name} has the checksum of the ledger")
    difference = _difference(params, file, row)
    if difference and not params["anyway"]:
        raise DasTernError(
            f"The checksum of migration {name} isn't repaired: {difference} Put the file back as it was; or, if you know that the "
            f"database has what the file makes now, `{playbook('resolve_migration', repair=name, repair_anyway=True)}`."
        )
    if not check:
        ledger.set_checksum(name, file.checksum)
    reason = (
        "`repair_anyway` is true" if difference else "the file differs from the applied one only in comments and blanks"
    )
    return _changed(f"{name} has the checksum of its file now: {reason}", check)


def _difference(params: dict[str, Any], file: MigrationFile, row: Row) -> str:
    """Explain why the file isn't shown to do the same as the applied one; '' if it is."""
    former = next((text for text in params["former"] if MigrationFile(file.name, text).matches(row.checksum)), None)
    if former is None:
        return (
            f"no version of {params['folder']}/{file.name}/{SCRIPT} in the history of its git repository has the checksum "
            f"{row.checksum} of the ledger, so that the change isn't known."
        )
    for (old, _), (new, offset) in zip_longest(_words(former), _words(file.sql), fillvalue=("", len(file.sql))):
        if old != new:
            line, _ = line_and_column(file.sql, offset)
            return f"it does something else: from line {line} on it has `{new}` where the applied file has `{old}`."
    return ""


def _words(sql: str) -> list[tuple[str, int]]:
    """Return the tokens of `sql` with their offsets; join adjacent ones, as `<=` isn't `< =`, nor `10e5` `10 e5`."""
    words: list[tuple[str, int]] = []
    ends = -1
    for _, text, offset in tokens(sql):
        separate = text in _SEPARATE
        if offset == ends and not separate:
            words[-1] = (words[-1][0] + text, words[-1][1])
        else:
            words.append((text, offset))
        ends = -1 if separate else offset + len(text)
    while words and words[-1][0] == ";":
        words.pop()
    return words


_DECIDE = {"applied": _applied, "rolled_back": _rolled_back, "adopt": _adopt, "repair": _repair}


def _file(params: dict[str, Any], files: dict[str, MigrationFile]) -> MigrationFile:
    name = params["name"]
    if name not in files:
        raise DasTernError(
            f"There is no migration {name} in {params['folder']} (P3017). Give the whole name of its directory, such as "
            f"{next(reversed(files), '20260208074559_init')}."
        )
    return files[name]


def _of(rows: list[Row] | None, name: str) -> list[Row]:
    return [row for row in rows or [] if row.name == name]


def _changed(line: str, check: bool) -> dict[str, Any]:
    return {"changed": True, "line": f"in a run without --check: {line}" if check else line}


def _unchanged(line: str) -> dict[str, Any]:
    return {"changed": False, "line": line}
