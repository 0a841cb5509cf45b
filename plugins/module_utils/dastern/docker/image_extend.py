"""Adds a package to somebody else's image, with the image's own apt."""

from __future__ import annotations

from typing import Any

from ..common.errors import DasTernError
from .containers import ROLE_LABEL, Containers
from .engine import image_facts

BASE_LABEL = "org.dastern.base"
"""Label of an extended image; its value is the id of the image that it was made from."""
_INSTALL = """
set -e
export DEBIAN_FRONTEND=noninteractive
command -v apt-get >/dev/null || { echo 'it has no apt-get' >&2; exit 1; }
apt-get update -qq
apt-get install -qq --yes --no-install-recommends "$@" >/dev/null
rm -rf /var/lib/apt/lists/* /var/log/*
"""
_SECONDS = 900


def extend(endpoint: str, base: str, name: str, package: str, *, check_mode: bool = False) -> dict[str, Any]:
    """Ensure that image `name` is image `base` with `package` installed and a label that says so; return its facts."""
    containers = Containers(endpoint, timeout=_SECONDS)
    base_image, extended = containers.inspect("image", base), containers.inspect("image", name)
    if base_image is None:
        raise DasTernError(f"Image {base} is not on this host.")
    if extended and (extended["Config"]["Labels"] or {}).get(BASE_LABEL) == base_image["Id"]:
        return {"changed": False, "image": {"reference": name, **image_facts(extended)}}
    if check_mode:
        return {"changed": True, "image": {"reference": name, **image_facts(base_image)}}
    body = {
        "Image": base_image["Id"],
        "User": "0:0",
        "Entrypoint": ["/bin/sh", "-c", _INSTALL, "sh"],
        "Cmd": [package],
        "Labels": {ROLE_LABEL: "image-extend"},
    }
    container = containers.call("POST", "/containers/create", body)["Id"]
    try:
        containers.call("POST", f"/containers/{container}/start")
        ended = containers.call("POST", f"/containers/{container}/wait")
        if ended["StatusCode"] != 0:
            output = " / ".join(containers.logs(container, 4).splitlines())
            raise DasTernError(
                f"{package} can't be installed in image {base}: {output or 'apt wrote nothing'}. Use an image that has it "
                "(`-e postgres_image_source=build`), or do without it: `-e postgres_wal_archive=false`."
            )
        labels = {
            **(base_image["Config"]["Labels"] or {}),
            f"org.dastern.{package}": "installed",
            BASE_LABEL: base_image["Id"],
        }
        repository, _, tag = name.rpartition(":")
        containers.call(
            "POST", "/commit", {**base_image["Config"], "Labels": labels}, container=container, repo=repository, tag=tag
        )
    finally:
        containers.remove(container)
    extended = containers.inspect("image", name)
    assert extended is not None
    return {"changed": True, "image": {"reference": name, **image_facts(extended)}}
