"""Action plugin: have a receiver of the WAL that every commit waits for, in the controller's own process where it can, so that progress is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

if (_utils := str(Path(__file__).resolve().parents[1] / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.controller import HostAction, say
from ansible.module_utils.dastern.zero_loss import ARGUMENT_SPEC, keep


class ActionModule(HostAction):
    MODULE = "backup_zero_loss"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return keep(params, self._task.check_mode, say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {"zero_loss": {name: result[name] for name in ("lines", "steps")}} if result.get("lines") else {}
