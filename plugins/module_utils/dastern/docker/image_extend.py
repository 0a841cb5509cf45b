"""A package more in an image that somebody else made, by the image's own apt."""

from __future__ import annotations

from typing import Any

from ..common.errors import DasTernError
from .containers import ROLE_LABEL, Containers
from .engine import image_facts

BASE_LABEL = "org.dastern.base"
"""Of an image that was extended: the id of the one that it was made from."""
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
    """Have image `name`, which is image `base` with `package` in it and a label that says so; gives its facts."""
    containers = Containers(endpoint, timeout=_SECONDS)
    found, made = containers.inspect("image", base), containers.inspect("image", name)
    if found is None:
        raise DasTernError(f"Image {base} is not on this host.")
    if made and (made["Config"]["Labels"] or {}).get(BASE_LABEL) == found["Id"]:
        return {"changed": False, "image": {"reference": name, **image_facts(made)}}
    if check_mode:
        return {"changed": True, "image": {"reference": name, **image_facts(found)}}
    body = {
        "Image": found["Id"],
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
            said = " / ".join(containers.logs(container, 4).splitlines())
            raise DasTernError(
                f"{package} can't be installed in image {base}: {said or 'no word'}. Take an image that has it "
                "(`-e postgres_image_source=build`), or do without it: `-e postgres_wal_archive=false`."
            )
        labels = {**(found["Config"]["Labels"] or {}), f"org.dastern.{package}": "installed", BASE_LABEL: found["Id"]}
        repository, _, tag = name.rpartition(":")
        containers.call(
            "POST", "/commit", {**found["Config"], "Labels": labels}, container=container, repo=repository, tag=tag
        )
    finally:
        containers.remove(container)
    done = containers.inspect("image", name)
    assert done is not None
    return {"changed": True, "image": {"reference": name, **image_facts(done)}}
