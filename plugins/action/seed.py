"""Action plugin: read and check the seed files on the controller, then seed from the host of the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

ROOT = Path(__file__).resolve().parents[2]
if (_utils := str(ROOT / "plugins" / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.controller import runs_here  # noqa: E402
from ansible.module_utils.dastern.errors import DasTernError  # noqa: E402
from ansible.module_utils.dastern.seed_files import read_folder  # noqa: E402
from ansible.module_utils.dastern.seed_rows import Declared  # noqa: E402
from ansible.module_utils.dastern.seed_run import ARGUMENT_SPEC, refuse_environment, report, seed  # noqa: E402


class ActionModule(ActionBase):
    supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, params = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            refuse_environment(params)
            folder = ROOT / Path(params["folder"]).expanduser() / params["seed_environment"]
            files = read_folder(str(folder), params["seed_environment"])
            Declared(files)
            params["folder"] = str(folder)
            params["declared"] = json.dumps(files)
            result = self._seed(params, task_vars or {})
        except DasTernError as error:
            result = {"failed": True, "msg": error.message, **error.facts}
        result.pop("invocation", None)
        result["ansible_stats"] = {
            "data": {"dastern_report": {"seed": report(params, result, self._task.check_mode)}},
            "per_host": True,
            "aggregate": True,
        }
        return result

    def _seed(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if runs_here(self._connection, task_vars, bool(self._play_context.become)):
            return seed(params, check_mode=self._task.check_mode, diff=self._task.diff, waiting=_say)
        return self._execute_module(module_name="seed", module_args=params, task_vars=task_vars)


def _say(whom: str) -> None:
    Display().display(f"Another seed is running: waiting for {whom} ...", color="yellow")
