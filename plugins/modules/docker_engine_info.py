#!/usr/bin/python
"""Ansible module: which Docker Engine a host has, and whether it has given images."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine_info
short_description: Find the Docker Engine of a host, and look images up in it
description:
  - Resolves the endpoint as the docker client does (C(DOCKER_HOST), C(DOCKER_CONTEXT), the current context, the default
    socket) and asks the engine for its version. Needs neither the client nor a Python library.
  - Says in O(images) order which images are there, and which major version of PostgreSQL they hold.
  - Never fails because there is no engine; RV(state) says what was found and the caller decides.
options:
  endpoint:
    description: Look at this endpoint instead of resolving one.
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
    - V(working), V(absent) (no engine at the default place), V(denied) (a socket that this user may not open),
      V(silent) (the endpoint that somebody chose doesn't answer), V(remote) (it is on another machine).
  returned: always
  type: str
endpoint:
  description: URL of the endpoint, and in RV(origin) the setting that it came from.
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
  description: For each image that is there its reference, id, tags, digests, pg_major, pg_version, labels and bytes.
  returned: always
  type: list
  elements: dict
registry_failure:
  description: Why the registry of O(reach) can't be reached; empty if it can or nothing was asked.
  returned: always
  type: str
host:
  description: User id and name, interpreter and whether it can import requests, distribution, and whether mmdebstrap
      is installed and systemd runs.
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
    """/etc/os-release as a dictionary; empty where there is none."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines if "=" in line)}


def host_facts() -> dict[str, Any]:
    """What the roles need to know of the host before they install anything; no facts are gathered for it."""
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
