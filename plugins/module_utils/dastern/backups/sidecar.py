"""A container beside the server's that is created from a declared form, and replaced when that form changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..common.errors import DasTernError
from ..docker.containers import ROLE_LABEL, Containers
from ..server.survey import stale_folders

_FORM = "org.dastern.form"


class Sidecar:
    """The container `name`, labelled with its `role`. A container of that name without the label is refused."""

    def __init__(self, containers: Containers, name: str, role: str) -> None:
        self.containers, self.name, self.role = containers, name, role
        self.container = containers.inspect("container", name)
        if self.container and (self.container["Config"]["Labels"] or {}).get(ROLE_LABEL) != role:
            raise DasTernError(
                f"Container {name} isn't ours: it has no label {ROLE_LABEL}={role}, and its name is needed. Nothing was "
                f"done. Rename it: `docker rename {quote(name)} {quote(f'{name}-old')}`."
            )

    @property
    def running(self) -> bool:
        return bool(self.container and self.container["State"]["Running"])

    def differs(self, form: Mapping[str, Any], folders: Mapping[str, Path]) -> str:
        """Return what the container needs: `make`, `replace`, `start`, or nothing if it matches `form`.

        `form` is the body with which the engine creates it; `folders` are the host's folders that it mounts, by their path
        in the container.
        """
        if self.container is None:
            return "make"
        if self.container["Config"]["Labels"].get(_FORM) != _digest(form):
            return "replace"
        if self.container["State"]["Paused"]:
            return "replace"
        if not self.running:
            return "start"
        return "replace" if stale_folders(self.containers, self.name, self.container, folders) else ""

    def start(self, form: Mapping[str, Any]) -> None:
        """Create it anew and start it. If the engine refuses to create it, the existing one goes on working."""
        new = f"{self.name}-new"
        self.containers.remove(new)
        self.containers.wait_until_gone(new, 60)
        labels = {ROLE_LABEL: self.role, _FORM: _digest(form)}
        self.containers.call("POST", "/containers/create", {**form, "Labels": labels}, name=new)
        self.remove()
        self.containers.call("POST", f"/containers/{quote(new)}/rename", name=self.name)
        self.containers.call("POST", f"/containers/{quote(self.name)}/start")
        self.container = self.containers.inspect("container", self.name)

    def remove(self) -> None:
        """Remove it and wait until its name is free."""
        self.containers.remove(self.name)
        self.containers.wait_until_gone(self.name, 60)
        self.container = None


def _digest(form: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:16]
