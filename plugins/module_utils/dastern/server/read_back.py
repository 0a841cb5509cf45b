"""Compares a running server's settings with the declared ones, and reloads pg_hba.conf if the file is newer."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from shlex import quote
from typing import Any

from ..common.errors import DasTernError
from ..docker.containers import Containers
from . import settings
from .psql import Psql
from .status import healthy_after

ARGUMENT_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "required": True},
    "container": {"type": "str", "required": True},
    "command": {"type": "list", "elements": "str", "required": True},
    "hba_path": {"type": "path", "required": True},
    "reload": {"type": "bool", "default": False},
}


def read_back(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Return the result of the module `postgres_settings`. Raise `DasTernError` if the server isn't as declared."""
    name = params["container"]
    declared = settings.of_command(params["command"])
    containers = Containers(params["endpoint"])
    psql = Psql(containers, name)
    current = psql.settings()
    differences = settings.differences(declared, current)
    if differences:
        files = sorted({row["source"].rpartition(":")[0] for row in differences if "/" in row["source"]})
        fix = (
            f"Take the lines out of {', '.join(files)} in container {name} and `docker restart {quote(name)}`, or declare them in "
            "postgres_settings_extra."
            if files
            else f"`docker restart {quote(name)}` undoes changes made in the running server; then run again."
        )
        words = "; ".join(settings.worded(row) for row in differences)
        raise DasTernError(f"The server in container {name} isn't as declared. {words}. {fix}", differences=differences)
    path = params["hba_path"]
    if current["hba"]:
        lines = "; ".join(f"line {row['line_number']}: {row['error']}" for row in current["hba"])
        raise DasTernError(f"{path} has errors: {lines}. The server keeps its former rules.")
    try:
        stale = params["reload"] or os.stat(path).st_mtime > float(current["loaded"])
    except OSError as error:
        raise DasTernError(f"{path} can't be read: {error}. Run the play as its owner.") from None
    if stale and not check_mode:
        _reload(psql, float(current["loaded"]))
    return {
        "changed": stale,
        "reloaded": stale,
        "settings": len(declared),
        "server_version": current["version"],
        "healthy_after": healthy_after(containers.inspect("container", name)),
    }


def _reload(psql: Psql, before: float) -> None:
    """Let the server reload its configuration, and wait until it has."""
    psql.run("SELECT pg_reload_conf();")
    end = time.monotonic() + 10
    while float(psql.value("SELECT extract(epoch FROM pg_conf_load_time())")) <= before:
        if time.monotonic() > end:
            raise DasTernError(
                "The server was told to reload its configuration and hasn't done so in 10 s. See `docker logs`."
            )
        time.sleep(0.1)
