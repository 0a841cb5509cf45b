"""Action plugin: read the migrations on the controller, compare from the host, write a migration on the controller."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Any

from ansible.module_utils.dastern.common.commands import playbook
from ansible.module_utils.dastern.common.migration_files import SCRIPT, MigrationFile, read_into
from ansible.module_utils.dastern.controller.host_action import HostAction, warn
from ansible.module_utils.dastern.migrations.drift import ARGUMENT_SPEC, WRITE, drift
from ansible.module_utils.dastern.migrations.new_migration import plan, slug, write

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(HostAction):
    MODULE = "migration_drift"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        if params["write_migration"]:
            params["write_migration"] = slug(params["write_migration"])
        files = read_into(params, ROOT)
        result = self.on_host(params)
        if result.get("migration"):
            result |= self._written(params, files, result)
        if not self._task.diff:
            result.pop("diff", None)
        return result

    def _written(self, params: dict[str, Any], files: list[MigrationFile], result: dict[str, Any]) -> dict[str, Any]:
        """Write the migration with the text `result["migration"]` once, and return what it adds to the result."""
        folder, name, text = Path(params["folder"]), params["write_migration"], result["migration"]
        for file in files:
            if file.name in result["pending"] and re.fullmatch(rf"\d{{14}}_{name}", file.name) and file.sql == text:
                return {"path": str(folder / file.name / SCRIPT)}
        directory, texts, notices = plan({"folder": str(folder), "name": name, "down": False}, text=text)
        if not self._task.check_mode:
            write(directory, texts)
        for notice in notices:
            warn(notice)
        path = str(directory / SCRIPT)
        return {
            "changed": True,
            "path": path,
            "diff": [{"before_header": "absent", "after_header": path, "before": "", "after": text}],
        }

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return drift(params)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return {"drift": self._report(result)}

    def _report(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the section `drift` of the play's summary."""
        if "drifted" not in result:
            return {"lines": ["failed: " + str(result.get("msg", "")).partition("\n")[0]], "next": []}
        keys = (
            "drifted",
            "differences",
            "applied",
            "pending",
            "by_hand",
            "left",
            "exempt",
            "not_compared",
            "fingerprint",
            "path",
        )
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
            lines += [f"not complete: {difference}" for difference in result["left"]]
            complete = not result["by_hand"] and not result["left"]
            if complete:
                lines.append("complete: tried in a scratch database, it leaves no difference")
            name = Path(result["path"]).parent.name
            commands = (
                [playbook("resolve_migration", applied=name)] if complete else [f"$EDITOR {quote(result['path'])}"]
            )
        else:
            commands = [WRITE]
        lines += [f"failed before, its remains are among the differences: {name}" for name in result["failed_before"]]
        return {**report, "lines": lines, "next": commands}
