"""Action plugin: read and check the seed files on the controller, then seed from the host of the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.controller.host_action import HostAction, say
from ansible.module_utils.dastern.seeds.files import read_folder
from ansible.module_utils.dastern.seeds.rows import Declared
from ansible.module_utils.dastern.seeds.run import ARGUMENT_SPEC, refuse_environment, report, seed

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(HostAction):
    MODULE = "seed"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        refuse_environment(params)
        folder = ROOT / Path(params["folder"]).expanduser() / params["seed_environment"]
        files = read_folder(str(folder), params["seed_environment"])
        Declared(files)
        return self.on_host({**params, "folder": str(folder), "declared": json.dumps(files)})

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return seed(params, check_mode=self._task.check_mode, diff=self._task.diff, waiting=_say)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {"seed": report(params, result, self._task.check_mode)}


def _say(whom: str) -> None:
    say(f"Another seed is running: waiting for {whom} ...", color="yellow")
