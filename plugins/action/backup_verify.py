"""Action plugin: verify all backups, if possible in the controller's own process, so that the operator sees the progress."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.backups.run import VERIFY_SPEC as ARGUMENT_SPEC
from ansible.module_utils.dastern.backups.run import verify
from ansible.module_utils.dastern.controller.host_action import HostAction, say


class ActionModule(HostAction):
    MODULE = "backup_verify"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return verify(params, self._task.check_mode, say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "verification": {
                name: result[name]
                for name in ("lines", "next", "checks", "damaged", "problems", "notes")
                if name in result
            }
        }
