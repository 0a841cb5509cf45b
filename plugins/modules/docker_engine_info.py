#!/usr/bin/python
"""Ansible module: find a host's Docker Engine, and look up images in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine_info
short_description: Find the Docker Engine of a host, and look up images in it
description:
  - Resolves the endpoint as the docker client does (C(DOCKER_HOST), C(DOCKER_CONTEXT), the current context, the default
    socket) and asks the engine for its version. Needs neither the client nor a Python library.
  - Reports, in the order of O(images), which images exist, and which major version of PostgreSQL they hold.
  - Never fails because there is no engine; RV(state) describes the engine, and the caller decides.
options:
  endpoint:
    description: Endpoint to use instead of resolving one.
    type: str
    default: ""
  images:
    description: Images to look up, as NAME:TAG, NAME@DIGEST or id.
    type: list
    elements: str
    default: []
  reach:
    description: An image whose registry the engine tries to reach; see RV(registry_failure).
    type: str
    default: ""
  timeout:
    description: Seconds to wait for an answer.
    type: float
    default: 10
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Reads only.
author: Das Tern
"""

EXAMPLES = r"""
- name: Look for a Docker Engine
  docker_engine_info:
  register: engine

- name: See which of two images is there
  docker_engine_info:
    endpoint: unix:///var/run/docker.sock
    images: [das-tern/postgres:17, postgres:17]
"""

RETURN = r"""
state:
  description:
    - V(working), V(absent) (no engine at the default endpoint), V(denied) (this user may not open the socket),
      V(silent) (a configured endpoint doesn't answer), V(remote) (the endpoint is on another machine).
  returned: always
  type: str
endpoint:
  description: URL of the endpoint; RV(origin) is the setting that it came from.
  returned: always
  type: str
origin:
  description: DOCKER_HOST, a context, C(rootless), C(default), or C(docker_engine_host).
  returned: always
  type: str
reason:
  description: Why the engine isn't V(working).
  returned: always
  type: str
version:
  description: Version of the engine.
  returned: when RV(state) is V(working)
  type: str
images:
  description: For each existing image its reference, id, tags, digests, pg_major, pg_version, labels and bytes.
  returned: always
  type: list
  elements: dict
registry_failure:
  description: Why the registry of O(reach) can't be reached; empty if it can, or if O(reach) is empty.
  returned: always
  type: str
host:
  description: User id and name, interpreter and whether it can import requests, distribution, whether mmdebstrap is
      installed, and whether systemd runs.
  returned: always
  type: dict
"""

import http.client
import os
import pwd
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker import engine as docker_engine


def os_release() -> dict[str, str]:
    """Return /etc/os-release as a dictionary; empty if the file doesn't exist."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines if "=" in line)}


def host_facts() -> dict[str, Any]:
    """Return what the roles need to know about the host before they install anything, without gathering facts."""
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    release = os_release()
    return {
        "uid": uid,
        "user": user,
        "python": sys.executable,
        "python_of_distribution": sys.prefix == "/usr",
        "requests": find_spec("requests") is not None,
        "distribution": release.get("ID", ""),
        "distribution_like": release.get("ID_LIKE", "").split(),
        "distribution_version": release.get("VERSION_ID", ""),
        "distribution_name": release.get("PRETTY_NAME", sys.platform),
        "mmdebstrap": which("mmdebstrap") is not None,
        "systemd": Path("/run/systemd/system").is_dir(),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "default": ""},
            "images": {"type": "list", "elements": "str", "default": []},
            "reach": {"type": "str", "default": ""},
            "timeout": {"type": "float", "default": 10},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        endpoint = docker_engine.resolve(os.environ, os.path.expanduser("~"), os.geteuid(), params["endpoint"])
        state, reason, answer = docker_engine.probe(endpoint, params["timeout"])
        images = []
        registry_failure = ""
        if state == docker_engine.WORKING:
            engine = docker_engine.Engine(endpoint, params["timeout"])
            for name in params["images"]:
                inspected = engine.image(name)
                if inspected is not None:
                    images.append({"reference": name, **docker_engine.image_facts(inspected)})
            if params["reach"]:
                registry_failure = engine.registry_failure(params["reach"])
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    except (OSError, ValueError, http.client.HTTPException) as error:
        module.fail_json(msg=f"The Docker Engine stopped answering: {error}")
    module.exit_json(
        changed=False,
        state=state,
        reason=reason,
        endpoint=endpoint.url,
        origin=endpoint.origin,
        version=answer.get("Version", ""),
        images=images,
        registry_failure=registry_failure,
        host=host_facts(),
    )


if __name__ == "__main__":
    main()
