"""The word that confirms a destructive step: it names the environment, the host and what is lost.

`confirm=dastern` would be the same for every inventory, and a line pasted for one would destroy another. In development
the last part is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPEC: dict[str, Any] = {
    "confirm": {"type": "str", "default": ""},
    "instance": {"type": "str", "default": ""},
}
"""Options of a module that asks for a confirmation; the action plugin sets `instance`, as `environment/host`."""


def word(params: Mapping[str, Any], name: str) -> str:
    """What confirms the loss of `name`, a database or a volume; without `instance` the caller is no playbook."""
    instance = str(params["instance"])
    return name if not instance or instance.startswith("development/") else f"{instance}/{name}"


def is_confirmed(params: Mapping[str, Any], name: str) -> bool:
    """Return whether `confirm` is that word; the long form serves in development, too."""
    return params["confirm"] in (word(params, name), f"{params['instance']}/{name}")


def wanted(params: Mapping[str, Any], name: str) -> str:
    """The value found and the value wanted, for a refusal."""
    return f"`confirm` is {params['confirm']!r}, wanted is {word(params, name)!r}."
