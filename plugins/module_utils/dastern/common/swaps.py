"""A restore's swap that hasn't ended, as `restore.json` notes it, and the one sentence that reports it."""

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
"""Name of the note in the folder of the backups."""
ARGUMENT_SPEC: dict[str, Any] = {
    "container": {"type": "str", "required": True},
    "backup_dir": {"type": "path", "required": True},
}
RESTORE = playbook("restore")


def noted(folder: Path, state: str) -> dict[str, Any] | None:
    """Return the swap noted as `pending` or `waiting`; None if there is none or the note can't be read."""
    try:
        swap = dict(json.loads((folder / NOTE).read_text("utf-8")).get(state) or {})
        return {"what": "cluster", "incoming": "", "at": "", "until": "", **swap} if swap else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def refusal(container: str, swap: dict[str, Any] | None, evidence: str = "") -> DasTernError:
    """Return the refusal of every entry point during a swap; `evidence` names other signs of it than the note."""
    when = _when(swap or {})
    swapped = f"the {swap['what']}" if swap and "what" in swap else "the cluster"
    return DasTernError(
        f"A restore began to swap {swapped} of container {container}{when}, and hasn't ended{evidence}. Nothing was done. Unless the "
        f"restore still runs, `{RESTORE}` finishes the swap or takes it back; without `confirm` it does nothing else.",
        swap=True,
    )


def refuse_pending(params: Mapping[str, Any]) -> None:
    """Refuse while a swap hasn't ended; `params` has the options of `ARGUMENT_SPEC`."""
    if swap := noted(Path(os.path.expanduser(params["backup_dir"])), "pending"):
        raise refusal(params["container"], swap)


def left_to_restore(params: Mapping[str, Any], *, serves: bool) -> str:
    """Refuse as `refuse_pending` does, but return a notice of a swap of databases if the server is down.
    Such a swap can only be finished in a running server, and starting it is safe: all data is where the server expects it.
    """
    swap = noted(Path(os.path.expanduser(params["backup_dir"])), "pending")
    if not swap:
        return ""
    if serves or swap.get("what") != "database":
        raise refusal(params["container"], swap)
    return (
        f"A restore began to swap the database of container {params['container']}{_when(swap)}, and hasn't ended. Until it has, this play "
        f"only starts the server and leaves its databases alone. Now `{RESTORE}` finishes the swap or takes it back; without `confirm` it "
        "does nothing else. Then run this play again."
    )


def _when(swap: Mapping[str, Any]) -> str:
    return f" at {local(swap['at'])}" if swap.get("at") else ""
