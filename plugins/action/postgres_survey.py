"""Action plugin: examine the existing objects, without a separate process if the host is the controller."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.server.survey import ARGUMENT_SPEC, survey


class ActionModule(HostAction):
    MODULE = "postgres_survey"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return survey(params, check_mode=self._task.check_mode)
