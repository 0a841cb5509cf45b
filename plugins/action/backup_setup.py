"""Action plugin: keep the repository of backups as declared, if possible in the controller's own process, so that the operator sees the progress."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.backups.setup import ARGUMENT_SPEC, setup
from ansible.module_utils.dastern.controller.host_action import HostAction, say


class ActionModule(HostAction):
    MODULE = "backup_setup"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return setup(params, self._task.check_mode, say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        if not result.get("lines"):
            return {}
        return {"backup": {name: result[name] for name in ("lines", "next", "steps") if name in result}}
