"""Action plugin: read the migrations on the controller, then compare and mark from the host of the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.common.migration_files import read_into
from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.migrations.baseline import ARGUMENT_SPEC, baseline

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(HostAction):
    MODULE = "migration_baseline"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        read_into(params, ROOT)
        return self.on_host_in_turn(params)

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return baseline(params, check_mode=self._task.check_mode)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        lines = result.get("lines") or ["failed: " + str(result.get("msg", "")).partition("\n")[0]]
        next_ = ["ansible-playbook migrate.yml"] if result.get("pending") else []
        return {"migrations": {"lines": lines, "names": result.get("names", []), "next": next_}}
