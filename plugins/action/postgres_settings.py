"""Action plugin: read the settings back, without a separate process if the host is the controller."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.server.read_back import ARGUMENT_SPEC, read_back


class ActionModule(HostAction):
    MODULE = "postgres_settings"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return read_back(params, check_mode=self._task.check_mode)
