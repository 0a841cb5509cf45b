"""Take, verify, list and delete backups of both kinds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from ..common import sql_values, swaps
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.files import write
from ..common.quantities import amount, local
from ..common.text import shown
from ..server.backup_folders import refuse_another
from . import keeper, kinds, physical, retention
from . import logical as backup_logical
from . import records as backup_records
from .health import VERIFICATION, counted
from .kept import expire_old, would_expire
from .kinds import Kind, Say
from .pgbackrest import PgBackRest, records_of
from .records import Place, Record, now

PROVISION = "ansible-playbook playbooks/provision.yml"
BACKUP = "ansible-playbook playbooks/backup.yml"
LIST = "ansible-playbook playbooks/list_backups.yml"
DRILL = "ansible-playbook playbooks/restore_drill.yml"
ARGUMENT_SPEC: dict[str, Any] = {
    **backup_records.ARGUMENT_SPEC,
    "backup_type": {"type": "str", "default": "", "choices": ["", *retention.KEEP]},
    "name": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
    "keep": {"type": "dict", "default": {}},
    "wait": {"type": "int", "default": 600},
    "nice": {"type": "int", "default": 10},
    "lock_timeout": {"type": "str", "default": "10s"},
    "config_dir": {"type": "path", "default": ""},
}
"""The options of the module `backup`, some of which the other modules share; `take` reads them."""
VERIFY_SPEC: dict[str, Any] = {name: ARGUMENT_SPEC[name] for name in (*backup_records.ARGUMENT_SPEC, "wait", "nice")}

# Names that mean something else as the target of a restore: the newest state, a transaction, an LSN, a time, a label.
_NO_NAME = re.compile(r"latest|\d+|[\dA-F]{1,8}/[\dA-F]{1,8}|\d{4}-\d\d-\d\d.*|\d{8}-\d{6}[FL].*", re.IGNORECASE)


def take(params: Mapping[str, Any], check_mode: bool = False, say: Say = print) -> dict[str, Any]:
    """Take a backup, verify it, and delete those that are too many and too old."""
    if _NO_NAME.fullmatch(params["name"]) or any(
        unicodedata.category(character) == "Cc" for character in params["name"]
    ):
        raise DasTernError(
            f"`label` is {params['name']!r}, which can't be told from other targets of a restore. Expected: a name in words, in "
            "one line, and not `latest`, a number, an LSN, a time or another backup's label."
        )
    place, keep = Place(dict(params)), retention.declared(params["keep"])
    refuse_another(place.folder, params.get("config_dir", ""), "Nothing was backed up.")
    sql_values.duration("backup_lock_timeout", params["lock_timeout"])
    if not running(place):
        if not check_mode:
            raise not_running(place)
        return {"changed": True, "lines": [f"would take a backup, once container {place.container} runs"], "next": []}
    type_ = params["backup_type"] or ("" if physical.server(place).archiving else kinds.Logical.whole)
    program = PgBackRest(place.containers, place.keeper, params["nice"])
    kind = kinds.of_type(type_)(place, program, params["wait"], say)
    request = kinds.Request(type_, params["name"], params["reason"], params["lock_timeout"])
    if check_mode:
        return _planned(kind, request, keep)
    lines = kind.ready()
    with place.alone(params["wait"], "a backup"):
        before = place.records()
        record, report = kind.take(request)
        deleted = _delete(kind, keep)
        lines = [f"took {_described(record)}", *lines, *report, *(f"deleted {words}" for _, words in deleted)]
        lines += expire_old(place)
        after = place.records()
        if same := [one.label for one in after if record.name == one.name != "" and one.label != record.label]:
            lines.append(f"{', '.join(same)} has the same name, {record.name}; as a target it means the newest")
        if record.good:
            lines += kind.caveats(record)
    copied, failed = kind.copy(record)
    problems = [] if record.good else [physical.damaged_pages(place, record)]
    if failed:
        problems.append(
            f"Backup {record.label} was taken{'' if problems else ' and verified'}, but not in every repository: {'; '.join(failed)}"
        )
    if problems:
        raise DasTernError(" ".join(problems), label=record.label, lines=lines)
    if copied:
        lines.append(f"repository {', '.join(map(str, copied))} has one as well")
    return {
        "changed": True, "label": record.label, "record": record.as_dict(), "lines": lines,
        "deleted": [label for label, _ in deleted], "next": [LIST], "diff": _difference(before, after),
    }  # fmt: skip


def verify(params: Mapping[str, Any], check_mode: bool = False, say: Say = print) -> dict[str, Any]:
    """Read every backup in full and note the result in its record.

    If anything is damaged, the result has `failed`, with the damage and what to do about it.
    """
    place = Place(dict(params))
    nothing = {"changed": False, "lines": [f"no backups in {place.folder}"], "next": [BACKUP], "checks": {}}
    empty = not place.records() and not place.damaged()
    if not running(place):
        if empty:
            return nothing
        raise not_running(place)
    program = PgBackRest(place.containers, place.keeper, params["nice"])
    both = [kind(place, program, params["wait"], say) for kind in kinds.KINDS.values()]
    records = place.records()
    lines = [line for kind in both if kind.own(records) for line in kind.ready()]
    further = program.further()
    if empty and not further:
        return nothing
    with place.alone(params["wait"], "a verification"):
        records, damaged = place.records(), place.damaged()
        findings = physical.Findings()
        for kind in both:
            part = kind.verify(kind.own(records), damaged)
            findings.checks |= part.checks
            findings.problems += part.problems
            findings.notes += part.notes
        for label, check in findings.checks.items():
            if not check_mode:
                place.note(label, verified=check)
    if further:  # over a slow line this takes hours, so nobody waits for it
        with physical.telling(lambda: "verifying the further repositories", say):
            elsewhere = physical.verify_further(place, program, params["wait"], not check_mode)
        findings.problems += elsewhere.problems
        findings.notes += elsewhere.notes
    if not check_mode:
        findings.problems += _remember(place, findings.problems)
    lines += [
        f"{record.label} {'is right' if check.ok else 'IS DAMAGED: ' + check.message}"
        for record in records if (check := findings.checks[record.label])
    ]  # fmt: skip
    lines += [f"{label} HAS A DAMAGED RECORD, {place.records_folder}/{label}.json" for label in damaged]
    lines += [f"DAMAGED: {problem}" for problem in findings.problems] + [f"lost: {note}" for note in findings.notes]
    wrong = [label for label, check in findings.checks.items() if not check.ok] + damaged
    result: dict[str, Any] = {
        "changed": bool(findings.checks),
        "checks": {label: check.__dict__ for label, check in findings.checks.items()},
        "damaged": wrong, "problems": findings.problems, "notes": findings.notes, "lines": lines, "next": [],
    }  # fmt: skip
    if wrong or findings.problems:
        damage = [
            f"{label}: {findings.checks[label].message if label in findings.checks else 'its record is damaged'}"
            for label in wrong
        ]
        good = next((record.label for record in records if findings.checks[record.label].ok), "none")
        wholes = {kinds.of_label(label).whole for label in wrong}
        again = playbook(
            "backup", backup_type=kinds.Physical.whole if findings.problems or len(wholes) > 1 else wholes.pop()
        )
        result |= {
            "failed": True,
            "msg": f"{'. '.join([*damage, *findings.problems])}. Take a new backup (`{again}`), and don't restore from a damaged one. The "
            f"newest good backup is {good}.",
            "next": [again],
        }
    return result


def _remember(place: Place, problems: list[str]) -> list[str]:
    """Save for status the problems that no record holds, until a verification finds none; return what went wrong."""
    path = place.folder / VERIFICATION
    try:
        if problems:
            write(path, (json.dumps({"at": now(), "problems": problems}, indent=2, ensure_ascii=False) + "\n").encode())
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        return [f"{path} can't be written: {error.strerror}"]
    return []


def listed(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return all backups with their state, the newest first. Nothing is changed."""
    place = Place(dict(params))
    records = place.records()
    backups = [_shown(record) for record in records]
    damaged, incomplete, leftovers, others, lines = place.damaged(), [], [], [], []
    dumps = backup_logical.unknown(place)
    further: dict[str, list[dict[str, Any]]] = {}
    try:
        up = running(place)
    except DasTernError as refusal:
        if refusal.facts.get("status") != 0:
            raise
        up = False
        lines.append(refusal.message)
    if up and keeper.there(place):
        info = None
        program = PgBackRest(place.containers, place.keeper)
        try:
            info = program.info()
        except DasTernError as refusal:
            if backups:
                lines.append(refusal.message)
        if info is not None:
            incomplete = physical.incomplete(place, info)
            leftovers = physical.leftovers(place, info, "full")  # without a whole full backup, the next one is full
            others = [label for label in physical.unknown(place, info) if label not in damaged]
            labels = {backup_set["label"] for backup_set in info.sets}
            for record, backup in zip(records, backups, strict=True):
                backup["missing"] = record.physical and record.label not in labels
        for number in program.further():
            further[str(number)], described = _further(program, number)
            lines += described
    elif backups and not lines:
        lines.append(f"container {place.keeper} doesn't run, so its repository can't be compared with the records")
    if swap := place.pending_swap():
        lines.append(swaps.refusal(place.container, swap).message)
    total = _bytes(place.folder)
    lines = [
        *_table(backups), *lines,
        *(
            f"{label} is incomplete: it isn't a backup, and "
            f"{'the next one deletes it' if label in leftovers else 'stays while another set is built upon it'}"
            for label in incomplete
        ),
        *(f"{label} has a damaged record, and doesn't count" for label in damaged),
        *(f"{label} has no record: somebody else made it, or the record was lost" for label in others),
        *(
            f"{label} has no record: the record was lost, and it doesn't count; pg_restore reads "
            f"{place.folder}/logical/{label}, which nothing deletes" for label in dumps
        ),
        f"{len(backups)} backups, {amount(total)} in {place.folder} with the WAL" if backups else f"no backups in {place.folder}",
    ]  # fmt: skip
    drilled = {record.kind for record in records if record.drilled}
    never = sorted({record.kind for record in records} - drilled)
    lines += [f"no {kind} backup was ever restored for trial" for kind in never]
    # Where there are physical backups, logical ones, such as each migration takes, need no drill.
    drill = records and not any(record.drilled for record in counted(records, wal_archive=True))
    return {
        "changed": False, "backups": backups, "incomplete": incomplete, "damaged": damaged, "unknown": others + dumps,
        "further": further, "bytes": total, "lines": lines,
        "next": [swaps.RESTORE] if swap else [DRILL] if drill else [] if backups else [BACKUP],
    }  # fmt: skip


def _surplus(kind: Kind, keep: Mapping[str, Mapping[str, int]], *new: Record) -> list[Record]:
    """Return the backups that may go once one of `kind` was taken; `new` is a backup that isn't taken yet."""
    records = kind.place.records()
    expiring = {record.label for each in kind.expiring() for record in each.own(records)}
    candidates = [*new, *(record for record in records if record.label in expiring)]
    return retention.surplus(candidates, keep, datetime.now(UTC), kind.needed())


def _delete(kind: Kind, keep: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Delete the backups that may go once one of `kind` was taken; return label and description of each."""
    gone = _surplus(kind, keep)
    for expiring in kind.expiring():
        expiring.remove(expiring.own(gone))
    return [(record.label, _described(record)) for record in gone]


def _planned(kind: Kind, request: kinds.Request, keep: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return what `take` would do."""
    before = kind.place.records()
    new, lines = kind.plan(request)
    gone = _surplus(kind, keep, new)
    called = f" called {request.name}" if request.name else ""
    lines = [
        f"would take {'an' if new.type == 'incr' else 'a'} {new.type} backup{called}",
        *lines,
        *(f"would delete {_described(record)}" for record in gone),
        *would_expire(kind.place),
    ]
    return {
        "changed": True, "backup_type": new.type, "deleted": [record.label for record in gone], "lines": lines, "next": [],
        "diff": _difference(before, [new, *(record for record in before if record not in gone)]),
    }  # fmt: skip


def _difference(before: Sequence[Record], after: Sequence[Record]) -> dict[str, str]:
    """Return the difference for --diff."""

    def text(records: Sequence[Record]) -> str:
        return "".join(f"{shown(record.called)}, {record.type}\n" for record in records)

    return {"before_header": "backups", "after_header": "backups", "before": text(before), "after": text(after)}


def running(place: Place) -> bool:
    """Return whether the server's container runs and isn't paused. Raise `DasTernError` if the engine can't be asked."""
    return place.containers.runs(place.container)


def not_running(place: Place) -> DasTernError:
    """Return the refusal for a server that doesn't run, or whose restore hasn't finished its swap."""
    if swap := place.pending_swap():
        return swaps.refusal(place.container, swap)
    return DasTernError(
        f"Container {place.container} doesn't run, and its programs are needed. Start it: `docker start {quote(place.container)}`, or "
        f"`{PROVISION}`."
    )


def _bytes(folder: Path) -> int:
    """Return the size of all files in `folder`, without those that a server or another run deletes meanwhile."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(inside, name)).st_size
    return total


def _described(record: Record) -> str:
    return (
        f"{record.called}, {record.type}, {amount(record.bytes)} in {amount(record.stored)}, {record.seconds:.1f} s, "
        f"taken {_when(record.began)}"
    )


def _when(at: str) -> str:
    return local(at, datetime.now(UTC))


def _shown(record: Record) -> dict[str, Any]:
    """Return a record without its census, and with what follows from it."""
    shown = {name: value for name, value in record.as_dict().items() if name not in ("census", "files")}
    ratio = round(record.bytes / record.stored, 1) if record.stored else None
    return {**shown, "ratio": ratio, "rows": sum(record.census["tables"].values()), "good": record.good}


def _table(backups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table with a line for each backup."""
    if not backups:
        return []
    rows = [("label", "name", "type", "taken", "size", "stored", "ratio", "verified", "drilled", "restored in")]
    rows += [
        (
            backup["label"], backup["name"] or "-", backup["type"], _when(backup["began"]),
            amount(backup["bytes"]), amount(backup["stored"]), _ratio(backup["ratio"]),
            "MISSING" if backup.get("missing") else _checked(backup["verified"], when=False), _checked(backup["drilled"]),
            f"{backup['restore_seconds']:.1f} s" if backup["restore_seconds"] is not None else "-",
        )
        for backup in backups
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _ratio(ratio: float | None) -> str:
    return f"{ratio:.{0 if ratio >= 100 else 1}f}" if ratio else "-"


def _further(program: PgBackRest, number: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the backups in a further repository, and lines that describe them."""
    try:
        sets = program.info(repository=number).sets
        backups = [_shown(record) for record in records_of(sets)]
    except DasTernError as refusal:
        return [], [refusal.message]
    lacking = {backup_set["label"] for backup_set in sets} - {backup["label"] for backup in backups}
    return backups, [
        f"repository {number}: {len(backups)} backups", *_table(backups),
        *(f"{label} has no record: it wasn't copied completely, is being counted, or its record is damaged" for label in sorted(lacking)),
    ]  # fmt: skip


def _checked(check: Mapping[str, Any] | None, *, when: bool = True) -> str:
    if check is None:
        return "never"
    if not check["ok"]:
        return "DAMAGED"
    judged = f"with {len(check['differences'])} differences, " if check["differences"] else ""
    return f"{judged}{_when(check['at'])}" if when else "yes"
