"""Action plugin: keep roles and privileges, without a separate process if the host is the controller."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.server.access_files import ARGUMENT_SPEC, keep


class ActionModule(HostAction):
    MODULE = "postgres_access"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return keep(params, check_mode=self._task.check_mode)
