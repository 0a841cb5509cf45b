"""Action plugin: list all backups."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.backups.records import ARGUMENT_SPEC
from ansible.module_utils.dastern.backups.run import listed
from ansible.module_utils.dastern.controller.host_action import HostAction


class ActionModule(HostAction):
    MODULE = "backup_list"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return listed(params)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "backups": {
                name: result[name]
                for name in ("lines", "next", "backups", "incomplete", "damaged", "unknown", "further", "bytes")
                if name in result
            }
        }
