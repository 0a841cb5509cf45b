"""Guard rails for a database that people depend on: what has to be true before pending migrations are applied.

Each is a switch of the inventory, and each refusal names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Any

from .errors import DasTernError
from .migration_plan import Plan
from .rehearsal import rehearsed

ZONE = "Asia/Phnom_Penh"
ARGUMENT_SPEC: dict[str, Any] = {
    "window": {"type": "str", "default": ""},
    "require_approval": {"type": "bool", "default": False},
    "approved": {"type": "str", "default": ""},
    "require_rehearsal": {"type": "bool", "default": False},
}
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def refusals(params: Mapping[str, Any], plan: Plan, now: time) -> list[str]:
    """Why what is pending may not be applied; `now` is the time of day in `ZONE`. Nothing pending, nothing refused.

    The records of rehearsals are looked for beside the password file, where the role keeps them.
    """
    if not plan.pending:
        return []
    found = []
    if params["window"] and not within(params["window"], now):
        found.append(
            f"It is {now:%H:%M} in {ZONE}, outside the maintenance window {params['window']} (`migrations_window`). Run again "
            "then; for an emergency `-e migrations_window=`."
        )
    newest = plan.pending_names[-1]
    if params["require_approval"] and params["approved"] != newest:
        given = f"`migrations_approved` is {params['approved']!r}" if params["approved"] else "nobody approved them"
        found.append(
            f"{len(plan.pending)} migrations are pending up to {newest}, and {given} (`migrations_require_approval` is true). "
            f"Read them (`--check --diff`), then `-e migrations_approved={newest}`."
        )
    folder = str(Path(params["password_file"]).expanduser().parent)
    if params["require_rehearsal"] and rehearsed(folder, params["database"], plan.pending) is None:
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
