"""Action plugin: restore a backup for trial, if possible in the controller's own process."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.restores.drill import ARGUMENT_SPEC, drill


class ActionModule(HostAction):
    MODULE = "restore_drill"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return drill(params, check_mode=self._task.check_mode)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        if "lines" not in result:  # nothing could be tried
            return {}
        return {"drill": {name: value for name, value in result.items() if name not in ("changed", "failed", "msg")}}
