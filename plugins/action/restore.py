"""Action plugin: restore, if possible in the controller's own process, so that the operator sees the progress."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction, say
from ansible.module_utils.dastern.restores.request import ARGUMENT_SPEC
from ansible.module_utils.dastern.restores.run import restore


class ActionModule(HostAction):
    MODULE = "restore"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return restore(params, check_mode=self._task.check_mode, say=say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        if result.get("failed"):
            if result.get("waiting"):
                return {"restore": {name: result[name] for name in ("waiting", "differences")}}
            plan = {"lines": result.get("preflight"), "confirm": result.get("confirm")}
            return {"restore": plan} if plan["confirm"] else {}
        return {"restore": {name: value for name, value in result.items() if name not in ("changed", "diff")}}
