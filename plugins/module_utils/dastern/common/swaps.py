"""A restore's swap that hasn't ended, as `restore.json` notes it, and the one sentence that says so."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .commands import playbook
from .errors import DasTernError
from .quantities import local

NOTE = "restore.json"
"""In the folder of the backups."""
ARGUMENT_SPEC: dict[str, Any] = {
    "container": {"type": "str", "required": True},
    "backup_dir": {"type": "path", "required": True},
}
RESTORE = playbook("restore")


def noted(folder: Path, what: str) -> dict[str, Any] | None:
    """Return what is `pending` or `waiting`; None also where the note can't be read."""
    try:
        found = dict(json.loads((folder / NOTE).read_text("utf-8")).get(what) or {})
        return {"what": "cluster", "incoming": "", "at": "", "until": "", **found} if found else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def refusal(container: str, swap: dict[str, Any] | None, found: str = "") -> DasTernError:
    """What every entry point says then; `found` is what else tells of it."""
    when = _when(swap or {})
    what = f"the {swap['what']}" if swap and "what" in swap else "the cluster"
    return DasTernError(
        f"A restore began to swap {what} of container {container}{when}, and hasn't ended{found}. Nothing was done. Unless it still "
        f"runs, `{RESTORE}` finishes the swap or takes it back; without `confirm` it does nothing else.",
        swap=True,
    )


def refuse_pending(params: Mapping[str, Any]) -> None:
    """Refuse while a swap hasn't ended; `params` are those of `ARGUMENT_SPEC`."""
    if swap := noted(Path(os.path.expanduser(params["backup_dir"])), "pending"):
        raise refusal(params["container"], swap)


def left_to_restore(params: Mapping[str, Any], *, serves: bool) -> str:
    """Refuse as `refuse_pending`, except for a swap of databases whose server doesn't serve: return what to say of that.

    Only in a server that runs can it be finished, and no data has another name than the server knows.
    """
    swap = noted(Path(os.path.expanduser(params["backup_dir"])), "pending")
    if not swap:
        return ""
    if serves or swap.get("what") != "database":
        raise refusal(params["container"], swap)
    return (
        f"A restore began to swap the database of container {params['container']}{_when(swap)}, and hasn't ended. Until it has, this play "
        f"starts the server and does nothing to its databases. Now `{RESTORE}` finishes the swap or takes it back; without `confirm` it "
        "does nothing else. Then run this again."
    )


def _when(swap: Mapping[str, Any]) -> str:
    return f" at {local(swap['at'])}" if swap.get("at") else ""
