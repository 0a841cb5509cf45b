"""Action plugin: add or remove the receiver of the WAL for which every commit waits, if possible in the controller's own process."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.backups.zero_loss import ARGUMENT_SPEC, keep
from ansible.module_utils.dastern.controller.host_action import HostAction, say


class ActionModule(HostAction):
    MODULE = "backup_zero_loss"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return keep(params, self._task.check_mode, say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {"zero_loss": {name: result[name] for name in ("lines", "steps")}} if result.get("lines") else {}
