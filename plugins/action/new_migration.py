"""Action plugin: create the directory and the files of a new migration, on the controller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import folder_of
from ansible.module_utils.dastern.common.text import presentable
from ansible.module_utils.dastern.controller.host_action import warn
from ansible.module_utils.dastern.migrations.new_migration import ARGUMENT_SPEC, plan, write
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(ActionBase):
    _requires_connection = False
    supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, params = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            folder = folder_of(params["folder"], ROOT)
            directory, texts, notices = plan({**params, "folder": str(folder)})
            if not self._task.check_mode:
                write(directory, texts)
        except DasTernError as error:
            return {"failed": True, "msg": error.message, **error.facts}
        for notice in notices:
            warn(notice)
        paths = [os.path.relpath(directory / name) for name in texts]
        done = "would be written" if self._task.check_mode else "written"
        section = {
            "new": paths,
            "lines": [f"{path} {done}" for path in paths],
            "next": [*(f"edit {path}" for path in paths), "ansible-playbook migrate.yml --check --diff"],
        }
        result: dict[str, Any] = {
            "changed": True,
            "name": directory.name,
            "files": [str(directory / name) for name in texts],
            "ansible_stats": {"data": {"dastern_report": {"migrations": section}}, "per_host": True, "aggregate": True},
        }
        if self._task.diff:
            result["diff"] = [
                {"before_header": "absent", "after_header": str(directory / name), "before": "", "after": text}
                for name, text in texts.items()
            ]
        return presentable(result)
