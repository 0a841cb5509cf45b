#!/usr/bin/python
"""Ansible module: start a PostgreSQL server for a moment, as declared, on an empty cluster in memory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_rehearsal
short_description: Try settings and pg_hba.conf in a separate container before the running server is touched
description:
  - Starts the image's server with the declared command line, memory limit and shared memory on an empty cluster in
    memory, without network, and reads back every setting and every line of pg_hba.conf. Takes about two seconds.
  - Leaves nothing behind, even if it is killed.
options:
  endpoint: {description: URL of the Docker Engine., type: str, required: true}
  image: {description: Image to run., type: str, required: true}
  command: {description: The server's command line., type: list, elements: str, required: true}
  hba: {description: Content of pg_hba.conf., type: str, required: true}
  memory: {description: Memory limit of the container., type: str, required: true}
  shm_size: {description: Size of its shared memory file system., type: str, required: true}
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
- name: Try the settings
  postgres_rehearsal:
    endpoint: unix:///var/run/docker.sock
    image: das-tern/postgres:17
    command: [postgres, -c, max_connections=30]
    hba: |
      local all postgres peer
    memory: 2g
    shm_size: 256m
"""

RETURN = r"""
refusals: {description: Settings and lines that the server refused., returned: failure, type: list}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.text import shown
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.server import cluster, settings


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "hba": {"type": "str", "required": True},
            "memory": {"type": "str", "required": True},
            "shm_size": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        refusals = cluster.rehearse(
            Containers(params["endpoint"]), params["image"], params["command"], params["hba"],
            memory=settings.size(params["memory"]) or 0, shm_size=settings.size(params["shm_size"]) or 0,
        )  # fmt: skip
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    if refusals:
        module.fail_json(
            msg=shown(
                f"The server refuses the declared configuration: {'; '.join(refusals)}. Nothing was changed. Correct "
                "postgres_settings, postgres_settings_extra or postgres_hba_extra in the inventory."
            ),
            refusals=refusals,
        )
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
