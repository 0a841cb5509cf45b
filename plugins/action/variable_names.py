"""Action plugin: refuse variables that begin like a role's but that no role knows, such as `postgres_prot`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase

ROLES = Path(__file__).resolve().parents[2] / "roles"
# What roles find out and leave as facts for the roles behind them.
FACTS = {
    "docker_engine_absent",
    "docker_engine_endpoint",
    "docker_engine_version",
    "migrations_emptied",
    "postgres_absent",
    "postgres_folders_pending",
    "postgres_image_id",
    "postgres_image_reference",
    "postgres_stopped",
}


def known_names(roles: Path = ROLES) -> set[str]:
    """The options of every entry point of every role under `roles`."""
    names: set[str] = set()
    for path in roles.glob("*/meta/argument_specs.yml"):
        specs = yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        for entry_point in specs["argument_specs"].values():
            names.update(entry_point.get("options", {}))
    return names


def unknown_names(variables: list[str], known: set[str], prefixes: list[str]) -> dict[str, str | None]:
    """Those of `variables` that begin with a role's name but aren't `known`, each with the nearest known name."""
    return {
        name: next(iter(difflib.get_close_matches(name, sorted(known), 1, 0.75)), None)
        for name in sorted(variables)
        if name.startswith(tuple(prefix + "_" for prefix in prefixes)) and name not in known
    }


class ActionModule(ActionBase):
    _requires_connection = False
    supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        roles = [path.name for path in ROLES.iterdir() if path.is_dir()]
        unknown = unknown_names(list(task_vars or {}), known_names() | FACTS, roles)
        if not unknown:
            return {"changed": False}
        words = [f"`{name}`" + (f" (did you mean `{near}`?)" if near else "") for name, near in unknown.items()]
        return {
            "failed": True,
            "unknown": unknown,
            "msg": f"No role knows {', '.join(words)}. The README lists every variable; correct the name in the inventory "
            "or on the command line.",
        }
