"""Action plugin: read the schema from the host, keep its description as files on the controller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.catalogue.schema_text import ARGUMENT_SPEC, WRITE, snapshot
from ansible.module_utils.dastern.common.text_files import replace
from ansible.module_utils.dastern.controller.host_action import HostAction

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(HostAction):
    MODULE = "schema_snapshot"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return snapshot(params)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {"schema": self._report(result)}

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        result = self.on_host(params)
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
        """Return the section `schema` of the play's summary."""
        if "files" not in result:
            return {"lines": ["failed: " + str(result.get("msg", "")).partition("\n")[0]], "next": []}
        state = "not current" if result.get("failed") else "would be written" if self._task.check_mode else "written"
        lines = [f"{path} {state}" for path in result["files"]] or ["the files are current"]
        lines.append(f"{result['tables']} tables, {result['objects']} objects")
        lines += [f"the owner can't load: {statement}" for statement in result["refused"]]
        return {"files": result["files"], "lines": lines, "next": [WRITE] if result.get("failed") else []}
