"""Action plugin: read the migrations on the controller, and their history if a checksum is to be repaired."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.common.migration_files import SCRIPT, read_into
from ansible.module_utils.dastern.controller.host_action import HostAction
from ansible.module_utils.dastern.migrations.resolve import ARGUMENT_SPEC, resolve

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(HostAction):
    MODULE = "migration_resolve"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        read_into(params, ROOT)
        if params["decision"] == "repair":
            params["former"] = former_versions(Path(params["folder"], params["name"], SCRIPT))
        return self.on_host_in_turn(params)

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return resolve(params, check_mode=self._task.check_mode)

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        line = result.get("line") or "failed: " + str(result.get("msg", "")).partition("\n")[0]
        return {"migrations": {"lines": [line], "next": ["ansible-playbook playbooks/migration_status.yml"]}}


def former_versions(path: Path) -> list[str]:
    """Return the texts of `path` in the history of its git repository, the newest first; none if there is no history."""

    def git(*arguments: str) -> bytes:
        done = subprocess.run(["git", "-C", str(path.parent), *arguments], capture_output=True)
        return done.stdout if done.returncode == 0 else b""

    if not path.parent.is_dir():
        return []
    try:
        commits = git("log", "--all", "--format=%H", "--", path.name).decode().split()
    except OSError:  # no git on this controller
        return []
    texts = [git("show", f"{commit}:./{path.name}") for commit in commits]
    return [text.decode("utf-8", "replace") for text in dict.fromkeys(texts) if text]
