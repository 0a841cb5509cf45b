"""Action plugin: keep roles, database and privileges, without a process of its own where the host is the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

if (_utils := str(Path(__file__).resolve().parents[1] / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.access_files import ARGUMENT_SPEC, keep
from ansible.module_utils.dastern.controller import runs_here
from ansible.module_utils.dastern.errors import DasTernError


class ActionModule(ActionBase):
    supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, params = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        if not runs_here(self._connection, task_vars or {}, bool(self._play_context.become)):
            return self._execute_module(module_name="postgres_access", module_args=self._task.args, task_vars=task_vars)
        try:
            return keep(params, check_mode=self._task.check_mode)
        except DasTernError as refusal:
            return {"failed": True, "msg": refusal.message, **refusal.facts}
