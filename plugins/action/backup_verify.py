"""Action plugin: verify all backups, in the controller's own process where it can, so that progress is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

if (_utils := str(Path(__file__).resolve().parents[1] / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.backup_run import VERIFY_SPEC as ARGUMENT_SPEC
from ansible.module_utils.dastern.backup_run import verify
from ansible.module_utils.dastern.controller import HostAction, say


class ActionModule(HostAction):
    MODULE = "backup_verify"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return verify(params, self._task.check_mode, say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {
            "verification": {
                name: result[name]
                for name in ("lines", "next", "checks", "damaged", "problems", "notes")
                if name in result
            }
        }
