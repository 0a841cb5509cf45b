"""Action plugin: write or read plain SQL, and name the word that confirms a replacement of the live database."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.restores.plain_sql import ARGUMENT_SPEC, plain_sql


class ActionModule(HostAction):
    MODULE = "backup_plain"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return plain_sql(params, check_mode=self._task.check_mode)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        if result.get("failed"):
            plan = {"lines": result.get("preflight"), "confirm": result.get("confirm")}
            return {"plain_sql": plan} if plan["confirm"] else {}
        shown = {name: value for name, value in result.items() if name not in ("changed", "diff", "tables")}
        return {"plain_sql": shown}
