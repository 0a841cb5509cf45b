"""Action plugin: list all backups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

if (_utils := str(Path(__file__).resolve().parents[1] / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.backup_records import ARGUMENT_SPEC
from ansible.module_utils.dastern.backup_run import listed
from ansible.module_utils.dastern.controller import HostAction


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
