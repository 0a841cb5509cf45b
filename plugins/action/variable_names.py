"""Action plugin: refuse variables that the command line sets and nothing reads, such as `tagret`, before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible import context
from ansible.module_utils.dastern.common.commands import is_secret
from ansible.module_utils.dastern.controller.variables import (
    EVERYWHERE,
    FOREIGN,
    STATES,
    is_foreign,
    near_misses,
    role_names,
    short_names,
    unknown,
)
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

ROOT = Path(__file__).resolve().parents[2]

LEFT_OVER = "_raw_params"
"""The key under which Ansible's `key=value` puts words after a blank."""


class ActionModule(ActionBase):
    _requires_connection = False
    supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        variables = task_vars or {}
        extra = load_extra_vars(self._loader)
        foreign = self._templar.template(variables.get(FOREIGN) or [])
        roles = role_names(ROOT)
        run = [path for path in map(Path, context.CLIARGS.get("args") or []) if path.is_file()]
        own = short_names(run, roles)
        known = roles | own | EVERYWHERE
        others = short_names([ROOT / "migrate.yml", *(ROOT / "playbooks").glob("*.yml")], roles) - known

        refused = unknown([name for name in map(str, extra) if not is_foreign(name, foreign)], known)
        declared = sorted((variables.keys() & own) - extra.keys())
        if not refused and not declared:
            # Names with a leading underscore are internal; no variable that Ansible itself sets resembles ours.
            given = [
                name for name in variables.keys() - extra.keys() if name[:1] != "_" and not is_foreign(name, foreign)
            ]
            near = near_misses(given, roles | STATES | EVERYWHERE)
            for name, nearest in near.items():
                Display().warning(
                    f"The inventory sets `{name}`, which nothing in this project reads. Did you mean `{nearest}`? If it belongs "
                    f"to somebody else, list it in `{FOREIGN}`."
                )
            return {"changed": False, "near": near}
        playbook = " and ".join(context.CLIARGS.get("args") or [])
        left_over = "Something" if any(map(is_secret, extra)) else f"`{extra.get(LEFT_OVER)}`"
        sentences = [
            f"{left_over} stands on the command line behind a blank and belongs to no variable: quote a value with blanks "
            "twice, -e 'label=\"two words\"'."
            if name == LEFT_OVER
            else _refusal(name, nearest, name in others, playbook)
            for name, nearest in refused.items()
        ]
        sentences += [
            f"`{name}` is set in the inventory, but {playbook} takes it only from the command line: give it there "
            f"(`-e {name}=...`), or rename it in the inventory."
            for name in declared
        ]
        if refused.keys() - {LEFT_OVER}:
            sentences.append(
                "`docs/playbooks.md` lists the variables of each playbook, and `docs/roles/` those of each role. List a variable "
                f"that belongs to somebody else in `{FOREIGN}`."
            )
        return {
            "failed": True,
            "unknown": refused,
            "declared": declared,
            "msg": " ".join([*sentences, "Nothing was done."]),
        }


def _refusal(name: str, nearest: str | None, elsewhere: bool, playbook: str) -> str:
    near = f" Did you mean `{nearest}`?" if nearest else ""
    if elsewhere:
        return f"`-e {name}` is for another playbook: {playbook} doesn't read it.{near}"
    return f"`-e {name}` is a variable that neither {playbook} nor a role knows.{near}"
