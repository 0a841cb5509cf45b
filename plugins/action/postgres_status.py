"""Action plugin: report what runs, without a separate process if the host is the controller."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.server.status import ARGUMENT_SPEC, status


class ActionModule(HostAction):
    MODULE = "postgres_status"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return status(params)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return dict(result.get("sections", {}))
