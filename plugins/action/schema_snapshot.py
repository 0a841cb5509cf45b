"""Action plugin: read the schema from the host, keep its description as files on the controller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if (_utils := str(ROOT / "plugins" / "module_utils")) not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_utils)

from ansible.module_utils.dastern.controller import runs_here  # noqa: E402
from ansible.module_utils.dastern.errors import DasTernError  # noqa: E402
from ansible.module_utils.dastern.schema_text import ARGUMENT_SPEC, WRITE, snapshot  # noqa: E402
from ansible.module_utils.dastern.text_files import replace  # noqa: E402


class ActionModule(ActionBase):
    supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, params = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        try:
            result = self._keep(params, task_vars or {})
        except DasTernError as error:
            result = {"failed": True, "msg": error.message, **error.facts}
        result.pop("invocation", None)
        if not self._task.diff:
            result.pop("diff", None)
        result["ansible_stats"] = {
            "data": {"dastern_report": {"schema": self._report(result)}},
            "per_host": True,
            "aggregate": True,
        }
        return result

    def _keep(self, params: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if runs_here(self._connection, task_vars, bool(self._play_context.become)):
            result = snapshot(params)
        else:
            result = self._execute_module(module_name="schema_snapshot", module_args=params, task_vars=task_vars)
        if result.get("failed"):
            return result
        only_look = self._task.check_mode or params["check"]
        differing = {}
        for option, text in (("sql_file", result.pop("sql")), ("docs_file", result.pop("docs"))):
            path = ROOT / os.path.expanduser(params[option])
            diff = replace(path, text, check_mode=only_look)
            if diff is not None:
                differing[str(path)] = diff
        result |= {"changed": bool(differing), "files": list(differing), "diff": list(differing.values())}
        if params["check"] and differing:
            result |= {
                "failed": True,
                "changed": False,
                "msg": f"{' and '.join(differing)} {'is' if len(differing) == 1 else 'are'} not what schema {params['schema']} of "
                f"database {params['database']} holds. `{WRITE}` writes {'it' if len(differing) == 1 else 'them'} anew; commit the result.",
            }
        return result

    def _report(self, result: dict[str, Any]) -> dict[str, Any]:
        """The section `schema` of the play's summary."""
        if "files" not in result:
            return {"lines": ["failed: " + str(result.get("msg", "")).partition("\n")[0]], "next": []}
        word = "not current" if result.get("failed") else "would be written" if self._task.check_mode else "written"
        lines = [f"{path} {word}" for path in result["files"]] or ["the files are current"]
        lines.append(f"{result['tables']} tables, {result['objects']} objects")
        return {"files": result["files"], "lines": lines, "next": [WRITE] if result.get("failed") else []}
