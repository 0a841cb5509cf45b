"""Action plugin: restore, in the controller's own process where it can, so that progress is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

if (_utils := str(Path(__file__).resolve().parents[1] / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.controller import HostAction, say
from ansible.module_utils.dastern.restore_run import ARGUMENT_SPEC, restore


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
