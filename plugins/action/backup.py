"""Action plugin: take a backup, if possible in the controller's own process, so that the operator sees the progress."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.backups.run import ARGUMENT_SPEC, take
from ansible.module_utils.dastern.controller.host_action import HostAction, say


class ActionModule(HostAction):
    MODULE = "backup"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return take(params, self._task.check_mode, say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {"backup": {name: result[name] for name in ("lines", "next", "label", "deleted") if name in result}}
