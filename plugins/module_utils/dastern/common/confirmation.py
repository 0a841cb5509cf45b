"""The word that confirms a destructive step: it names the environment, the host and the thing that is lost.

`confirm=dastern` would be the same in every inventory, so that a line pasted for one could destroy another. In
development the last part is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPEC: dict[str, Any] = {
    "confirm": {"type": "str", "default": ""},
    "instance": {"type": "str", "default": ""},
}
"""Options of a module that asks for a confirmation. The action plugin sets `instance` to `environment/host`."""


def word(params: Mapping[str, Any], name: str) -> str:
    """Return the word that confirms the loss of `name`, a database or a volume.

    Without an `instance` the caller is no playbook.
    """
    instance = str(params["instance"])
    return name if not instance or instance.startswith("development/") else f"{instance}/{name}"


def is_confirmed(params: Mapping[str, Any], name: str) -> bool:
    """Return whether `confirm` is that word. Development accepts the long form, too."""
    return params["confirm"] in (word(params, name), f"{params['instance']}/{name}")


def wanted(params: Mapping[str, Any], name: str) -> str:
    """Return the sentence of a refusal that names the value found and the value expected."""
    return f"`confirm` is {params['confirm']!r}, expected {word(params, name)!r}."
