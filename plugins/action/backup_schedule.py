"""Action plugin: read the job's own code on the controller, and let the host run it on schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.jobs.schedule import ARGUMENT_SPEC, packed, schedule

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(HostAction):
    MODULE = "backup_schedule"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        params["sources"] = packed(ROOT / "plugins" / "module_utils" / "dastern")
        return self.on_host(params)

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return schedule(params, check_mode=self._task.check_mode)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        lines = result.pop("lines", None) or ["failed: " + str(result.get("msg", "")).partition("\n")[0]]
        return {"schedule": {"lines": lines, "next": []}}
