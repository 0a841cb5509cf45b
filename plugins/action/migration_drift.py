"""Action plugin: read the migrations on the controller, compare from the host, write a migration on the controller."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if (_utils := str(ROOT / "plugins" / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.controller import runs_here  # noqa: E402
from ansible.module_utils.dastern.drift_run import ARGUMENT_SPEC, WRITE, drift  # noqa: E402
from ansible.module_utils.dastern.errors import DasTernError  # noqa: E402
from ansible.module_utils.dastern.migration_files import read_folder  # noqa: E402
from ansible.module_utils.dastern.text_files import checked_name, scaffold_file  # noqa: E402


class ActionModule(ActionBase):
    supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, params = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            if not params["folder"].strip():
                raise DasTernError("`migrations_dir` is empty; wanted is a folder, such as files/sql/migrations.")
            folder = ROOT / os.path.expanduser(params["folder"])
            if params["write_migration"]:
                checked_name(params["write_migration"])
            files = read_folder(folder)
            params["folder"] = str(folder)
            params["migrations"] = [{"name": file.name, "sql": file.sql} for file in files]
            result = self._drift(params, task_vars or {})
            if result.get("migration"):
                written = scaffold_file(
                    folder, params["write_migration"], result["migration"], files, result["pending"],
                    datetime.now(timezone.utc), self._task.check_mode,
                )  # fmt: skip
                result |= {"changed": written["changed"], "path": written["path"], "diff": written.get("diff", [])}
        except DasTernError as error:
            result = {"failed": True, "msg": error.message, **error.facts}
        result.pop("invocation", None)  # all files, over again
        if not self._task.diff:
            result.pop("diff", None)
        result["ansible_stats"] = {
            "data": {"dastern_report": {"drift": self._report(result)}},
            "per_host": True,
            "aggregate": True,
        }
        return result

    def _drift(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if runs_here(self._connection, task_vars, bool(self._play_context.become)):
            return drift(params)
        return self._execute_module(module_name="migration_drift", module_args=params, task_vars=task_vars)

    def _report(self, result: dict[str, Any]) -> dict[str, Any]:
        """The section `drift` of the play's summary."""
        if "drifted" not in result:
            return {"lines": ["failed: " + str(result.get("msg", "")).partition("\n")[0]], "next": []}
        keys = ("drifted", "differences", "applied", "pending", "by_hand", "fingerprint", "path")
        report: dict[str, Any] = {key: result[key] for key in keys if key in result}
        lines, commands = list(result["lines"]), []
        if not result["drifted"]:
            lines.append(
                f"no drift: {result['objects']} objects are what {len(result['applied'])} applied migrations make"
            )
        elif "path" in result:
            would = (
                "would be written" if self._task.check_mode else "written" if result["changed"] else "already written"
            )
            lines.append(f"{result['path']} {would}: {len(result['statements'])} statements")
            lines += [f"by hand: {entry.splitlines()[0]}" for entry in result["by_hand"]]
            name = Path(result["path"]).parent.name
            commands = (
                [f"npx prisma migrate resolve --applied {name}"]
                if not result["by_hand"]
                else [f"$EDITOR {result['path']}"]
            )
        else:
            commands = [WRITE]
        lines += [f"failed before, what it left is part of the above: {name}" for name in result["failed_before"]]
        return {**report, "lines": lines, "next": commands}
