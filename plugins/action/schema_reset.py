"""Action plugin: empty a schema, if the confirmation names this environment and host."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.migrations.reset import ARGUMENT_SPEC, reset


class ActionModule(HostAction):
    MODULE = "schema_reset"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return reset(params, check_mode=self._task.check_mode)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        if result.get("failed"):
            return {"reset": {"confirm": result["confirm"]}} if "confirm" in result else {}
        would = "would be " if self._task.check_mode else ""
        line = f"{result['dropped']} objects of schema {params['schema']} {would}dropped"
        return {"reset": {"lines": [line], "dropped": result["dropped"]}}
