"""Action plugin: refuse a destructive step that isn't confirmed for this environment and host."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.module_utils.dastern.common.commands import playbook
from ansible.module_utils.dastern.common.confirmation import SPEC, is_confirmed, wanted, word
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.controller.host_action import HostAction


class ActionModule(HostAction):
    MODULE = "confirmation"
    ARGUMENT_SPEC: ClassVar[dict[str, Any]] = {
        **SPEC,
        "name": {"type": "str", "required": True},
        "loss": {"type": "str", "required": True},
        "playbook": {"type": "str", "required": True},
        "variables": {"type": "dict", "default": {}},
        "section": {"type": "str", "required": True},
    }

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        if not is_confirmed(params, params["name"]):
            needed = word(params, params["name"])
            command = playbook(params["playbook"], **{**params["variables"], "confirm": needed})
            raise DasTernError(
                f"{params['loss']} Nothing was done. {wanted(params, params['name'])} To do it: `{command}`.",
                confirm=needed,
            )
        return {"changed": False}

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {params["section"]: {"confirm": result["confirm"]}} if result.get("failed") else {}
