"""Action plugin: read the settings back, without a process of its own where the host is the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

if (_utils := str(Path(__file__).resolve().parents[1] / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.controller import HostAction
from ansible.module_utils.dastern.read_back import ARGUMENT_SPEC, read_back


class ActionModule(HostAction):
    MODULE = "postgres_settings"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return read_back(params, check_mode=self._task.check_mode)
