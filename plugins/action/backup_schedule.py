"""Action plugin: read the job's own code on the controller, and have the host run it on schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[2]
if (_utils := str(ROOT / "plugins" / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.backup_schedule import ARGUMENT_SPEC, packed, schedule  # noqa: E402
from ansible.module_utils.dastern.controller import HostAction  # noqa: E402


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
