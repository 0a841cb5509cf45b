"""Guard rails for a database that people depend on: what has to be true before migrations are applied or taken back.

Each is a switch of the inventory, and each refusal names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.quantities import CLOCK, ZONE
from .plan import Plan
from .rehearsal_record import record_path, rehearsed

if TYPE_CHECKING:
    import psycopg

ARGUMENT_SPEC: dict[str, Any] = {
    "window": {"type": "str", "default": ""},
    "require_approval": {"type": "bool", "default": False},
    "approved": {"type": "str", "default": ""},
    "require_rehearsal": {"type": "bool", "default": False},
}
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def time_of_day(connection: psycopg.Connection[Any] | None) -> time:
    """The server's time of day in `ZONE`; without a server this machine's."""
    if connection is None:
        return datetime.now(CLOCK).time().replace(microsecond=0)
    row = connection.execute(f"SELECT (clock_timestamp() AT TIME ZONE '{ZONE}')::time(0)").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def rollback_refusals(params: Mapping[str, Any], names: Sequence[str], now: time) -> list[str]:
    """Why the migrations `names` may not be taken back; `now` is the time of day in `ZONE`. None to take, none refused."""
    if not names:
        return []
    found = _outside_window(params, now)
    if params["require_approval"] and params["approved"] != params["to"]:
        given = f"`migrations_approved` is {params['approved']!r}" if params["approved"] else "nobody approved that"
        found.append(
            f"{', '.join(names)} would be taken back, and {given} (`migrations_require_approval` is true). Read each down.sql, "
            f"then `{playbook('rollback', to=params['to'], migrations_approved=params['to'])}`, the migration that stays as the newest."
        )
    return found


def _outside_window(params: Mapping[str, Any], now: time) -> list[str]:
    if not params["window"] or within(params["window"], now):
        return []
    return [
        f"It is {now:%H:%M} in {ZONE}, outside the maintenance window {params['window']} (`migrations_window`). Run again "
        "then; for an emergency `-e migrations_window=`."
    ]


def refusals(params: Mapping[str, Any], plan: Plan, now: time, of: tuple[str, str, str] | None) -> list[str]:
    """Why what is pending may not be applied; `now` is the time of day in `ZONE`. Nothing pending, nothing refused.

    The records of rehearsals `of` this target are looked for beside the password file, where the role keeps them; a
    target that doesn't exist yet is None.
    """
    if not plan.pending:
        return []
    found = _outside_window(params, now)
    newest = plan.pending_names[-1]
    if params["require_approval"] and params["approved"] != newest:
        given = f"`migrations_approved` is {params['approved']!r}" if params["approved"] else "nobody approved them"
        found.append(
            f"What is pending up to {newest} ({len(plan.pending)}) may not be applied: {given} (`migrations_require_approval` "
            "is true). "
            f"Read them (`ansible-playbook migrate.yml --check --diff`), then `{playbook('migrate', migrations_approved=newest)}`."
        )
    folder = str(Path(params["password_file"]).expanduser().parent)
    if params["require_rehearsal"] and (of is None or rehearsed(record_path(folder, of, plan.pending)) is None):
        found.append(
            f"What is pending up to {newest} was not rehearsed with exactly these files (`migrations_require_rehearsal` is "
            "true): `ansible-playbook playbooks/rehearse.yml`, then run again."
        )
    return found


def within(window: str, now: time) -> bool:
    """Whether `now` is in a window such as `22:00-05:00`, its end left out; one that ends before it begins spans midnight."""
    match = _WINDOW.fullmatch(window)
    if match is None:
        raise DasTernError(
            f"`migrations_window` is {window!r}; wanted is a time of day such as 22:00-05:00, in {ZONE}."
        )
    first, last = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
    return first <= now < last if first < last else now >= first or now < last
