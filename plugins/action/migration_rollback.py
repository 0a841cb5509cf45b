"""Action plugin: read the migrations on the controller, then roll them back from the host of the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.common.migration_files import read_into
from ansible.module_utils.dastern.controller.host_action import HostAction, refused_lines
from ansible.module_utils.dastern.migrations.rollback import ARGUMENT_SPEC, rollback

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(HostAction):
    MODULE = "migration_rollback"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        read_into(params, ROOT, down=True)
        return self.on_host_in_turn(params)

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        result = rollback(params, check_mode=self._task.check_mode)
        if not self._task.diff:
            del result["diff"]
        return result

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        would = "would be " if self._task.check_mode else ""
        if result.get("failed"):
            lines = ["failed: " + str(result.get("msg", "")).partition("\n")[0]]
        else:
            lines = [f"{name} {would}taken back" for name in result["names"]] or [
                f"{params['to']} is the newest applied one"
            ]
        lines += result.get("losses", [])
        refused = result.get("refused", [])
        lines += refused_lines(refused)
        if backup := result.get("backup"):
            lines.append(f"backup {backup['label']}, {backup['proof']}")
        next_ = ["ansible-playbook playbooks/migration_status.yml"]
        return {
            "migrations": {
                "lines": lines,
                "names": result.get("names", []),
                "backup": result.get("backup"),
                "confirm": result.get("confirm"),
                "next": next_,
                **({"refused": refused, "exit_code": 2} if refused else {}),
            }
        }
