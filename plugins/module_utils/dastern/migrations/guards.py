"""Guard rails for a database that people depend on: conditions for applying migrations and rolling them back.

Each is a switch of the inventory, and each refusal names its switch.
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
    """Return the server's time of day in `ZONE`, or this machine's without a server."""
    if connection is None:
        return datetime.now(CLOCK).time().replace(microsecond=0)
    row = connection.execute(f"SELECT (clock_timestamp() AT TIME ZONE '{ZONE}')::time(0)").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def rollback_refusals(params: Mapping[str, Any], names: Sequence[str], now: time) -> list[str]:
    """Return why the migrations `names` may not be rolled back; `now` is the time of day in `ZONE`.

    Without names nothing is refused.
    """
    if not names:
        return []
    reasons = _outside_window(params, now)
    if params["require_approval"] and params["approved"] != params["to"]:
        approval = f"`migrations_approved` is {params['approved']!r}" if params["approved"] else "nobody approved that"
        reasons.append(
            f"{', '.join(names)} would be rolled back, and {approval} (`migrations_require_approval` is true). Read each "
            "down.sql, then approve by the name of the migration that stays as the newest: "
            f"`{playbook('rollback', to=params['to'], migrations_approved=params['to'])}`."
        )
    return reasons


def _outside_window(params: Mapping[str, Any], now: time) -> list[str]:
    if not params["window"] or within(params["window"], now):
        return []
    return [
        f"It is {now:%H:%M} in {ZONE}, outside the maintenance window {params['window']} (`migrations_window`). Run again "
        "inside it, or in an emergency with `-e migrations_window=`."
    ]


def refusals(params: Mapping[str, Any], plan: Plan, now: time, of: tuple[str, str, str] | None) -> list[str]:
    """Return why the pending migrations may not be applied; `now` is the time of day in `ZONE`.

    Without pending migrations nothing is refused. The records of rehearsals `of` this target are looked for beside the
    password file, where the role keeps them; a target that doesn't exist yet is None.
    """
    if not plan.pending:
        return []
    reasons = _outside_window(params, now)
    newest = plan.pending_names[-1]
    if params["require_approval"] and params["approved"] != newest:
        approval = f"`migrations_approved` is {params['approved']!r}" if params["approved"] else "nobody approved them"
        reasons.append(
            f"The pending migrations up to {newest} ({len(plan.pending)}) may not be applied: {approval} "
            "(`migrations_require_approval` is true). "
            f"Read them (`ansible-playbook migrate.yml --check --diff`), then `{playbook('migrate', migrations_approved=newest)}`."
        )
    folder = str(Path(params["password_file"]).expanduser().parent)
    if params["require_rehearsal"] and (of is None or rehearsed(record_path(folder, of, plan.pending)) is None):
        reasons.append(
            f"The pending migrations up to {newest} were not rehearsed with exactly these files (`migrations_require_rehearsal` is "
            "true): `ansible-playbook playbooks/rehearse.yml`, then run again."
        )
    return reasons


def within(window: str, now: time) -> bool:
    """Return whether `now` is in a window such as `22:00-05:00`, whose end is excluded.

    A window that ends before it begins spans midnight.
    """
    match = _WINDOW.fullmatch(window)
    if match is None:
        raise DasTernError(f"`migrations_window` is {window!r}. Expected: a period such as 22:00-05:00, in {ZONE}.")
    first, last = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
    return first <= now < last if first < last else now >= first or now < last
