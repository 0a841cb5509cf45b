"""Action plugin: report the health of the backups, without a separate process if the host is the controller."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.backups.health import STATUS_SPEC, status
from ansible.module_utils.dastern.controller.host_action import HostAction


class ActionModule(HostAction):
    MODULE = "backup_status"
    ARGUMENT_SPEC = STATUS_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return status(params)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {"backup": result["section"]} if "section" in result else {}
