"""Action plugin: read the migrations on the controller, then apply them from the host of the task."""

from __future__ import annotations

import os
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
from ansible.module_utils.dastern.migrate import ARGUMENT_SPEC, migrate, who  # noqa: E402
from ansible.module_utils.dastern.migration_files import MigrationFile, read_folder  # noqa: E402
from ansible.module_utils.dastern.migration_lint import lint, refusal  # noqa: E402


class ActionModule(ActionBase):
    supports_check_mode = True
    _findings: list[dict[str, Any]] | None = None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, params = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            if not params["folder"].strip():
                raise DasTernError("`migrations_dir` is empty; wanted is a folder, such as files/sql/migrations.")
            folder = ROOT / os.path.expanduser(params["folder"])
            params["folder"] = str(folder)
            files = read_folder(folder)
            params["migrations"] = [{"name": file.name, "sql": file.sql} for file in files]
            result = self._linted(params, files, task_vars or {})
            if result is None:
                result = self._apply(params, task_vars or {})
        except DasTernError as error:
            result = {"failed": True, "msg": error.message, **error.facts}
        result.pop("invocation", None)  # all files, over again
        if self._findings is not None:
            result["lint"] = self._findings
        for notice in result.get("notices", []):
            Display().warning(notice)
        result["ansible_stats"] = {
            "data": {"dastern_report": {"migrations": self._report(result)}},
            "per_host": True,
            "aggregate": True,
        }
        return result

    def _linted(
        self, params: dict[str, Any], files: list[MigrationFile], task_vars: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The plan's result with the findings of lint, where it ends the run; None where the plan may be carried out.

        What is pending is known only on the host, so the plan is asked for first: a run with nothing pending and one in
        check mode stay one call, and only files that are pending are looked at.
        """
        if params["lint"] == "off" or params["state"] != "latest":
            return None
        result = self._migrate({**params, "state": "plan"}, task_vars)
        if result.get("failed") or not result["pending"]:
            return result
        found = lint(files, result["pending"], params["folder"])
        self._findings = [one.as_dict() for one in found]
        refused = refusal(found) if params["lint"] == "fail" else ""
        for one in found:
            if not refused or one.severity == "warning":
                Display().warning(str(one))
        if refused:
            plan = {key: result[key] for key in ("applied", "pending")}
            return {"failed": True, "msg": refused, **plan}
        return result if self._task.check_mode else None

    def _apply(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        # The first try doesn't wait, so that an operator reads at once whom a second one waits for.
        result = self._migrate({**params, "lock_wait": 0}, task_vars)
        if "locked_by" in result and params["state"] == "latest" and not result.get("failed"):
            Display().display(f"Another run is migrating: waiting for {who(result['locked_by'])} ...", color="yellow")
            result = self._migrate({**params, "lock_wait": max(params["lock_wait"], 1)}, task_vars)
        return result

    def _migrate(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if runs_here(self._connection, task_vars, bool(self._play_context.become)):
            return migrate(params, check_mode=self._task.check_mode, diff=self._task.diff)
        return self._execute_module(module_name="migration", module_args=params, task_vars=task_vars)

    def _report(self, result: dict[str, Any]) -> dict[str, Any]:
        """The section `migrations` of the play's summary."""
        keys = (
            "applied", "applied_now", "applied_before", "pending", "edited", "missing", "out_of_order", "failed_before",
            "failed_migration", "waited_for", "locked_by", "lint",
        )  # fmt: skip
        report: dict[str, Any] = {key: result[key] for key in keys if key in result}
        lines, commands = [], []
        if result.get("reachable") is False:
            lines.append(f"not known: {result['message']}")
        elif result.get("failed"):
            lines.append("failed: " + str(result.get("msg", "")).partition("\n")[0])
        else:
            now = result.get("applied_now", [])
            took = sum(item["ms"] for item in now) / 1000
            lines += [f"{item['name']} applied in {item['ms']:.0f} ms" for item in now[:20]]
            lines += [f"... and {len(now) - 20} more, {took:.1f} s in all"] if len(now) > 20 else []
            if self._task.check_mode:
                lines += [f"would apply {name}" for name in result["pending"][:20]]
            lines.append(f"{len(result['applied'])} applied, {len(result['pending'])} pending")
            if waited := result.get("waited_for"):
                lines.append(f"waited {waited['seconds']} s for {who(waited)}")
            if result["pending"]:
                commands.append("ansible-playbook migrate.yml")
        if found := result.get("lint"):
            dangers = sum(one["severity"] == "danger" for one in found)
            lines.append(f"lint: {dangers} of class danger, {len(found) - dangers} of class warning")
        for finding in ("edited", "missing", "out_of_order", "failed_before"):
            if result.get(finding):
                lines.append(f"{finding.replace('_', ' ')}: {', '.join(result[finding])}")
        return {**report, "lines": lines, "next": commands}
