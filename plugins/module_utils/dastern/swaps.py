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


def noted(folder: Path, name: str = "pending") -> dict[str, Any] | None:
    """Return what a restore noted: the swap that hasn't ended, or another entry; None also where the note can't be read."""
    try:
        return dict(json.loads((folder / NOTE).read_text("utf-8")).get(name) or {}) or None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def refusal(container: str, swap: dict[str, Any] | None, found: str = "") -> DasTernError:
    """What every entry point says then; `found` is what else tells of it."""
    when = f" at {local(swap['at'])}" if swap and "at" in swap else ""
    what = f"the {swap['what']}" if swap and "what" in swap else "the cluster"
    return DasTernError(
        f"A restore began to swap {what} of container {container}{when}, and hasn't ended{found}. Nothing was done. Unless it still "
        f"runs, `{RESTORE}` finishes the swap or takes it back; without `confirm` it does nothing else.",
        swap=True,
    )


def refuse_pending(params: Mapping[str, Any]) -> None:
    """Refuse while a swap hasn't ended; `params` are those of `ARGUMENT_SPEC`."""
    if swap := noted(Path(os.path.expanduser(params["backup_dir"]))):
        raise refusal(params["container"], swap)
