#!/usr/bin/python
"""Ansible module: make a PostgreSQL cluster in a volume."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_init
short_description: Make a PostgreSQL cluster in a volume that has none
description:
  - A container of the server's image, without network, runs C(initdb) in a folder beside the cluster's place, which is
    renamed when it is complete and on disk. What a killed run left is removed.
  - The superuser gets no password and may come over the socket only.
options:
  endpoint: {description: URL of the Docker Engine., type: str, required: true}
  image: {description: Image to run., type: str, required: true}
  volume: {description: Name of the volume., type: str, required: true}
  container: {description: Name of the server's container; the one that initialises is called after it., type: str, required: true}
attributes:
  check_mode:
    support: full
    description: Says that a cluster would be made; call it for volumes without one.
  diff_mode:
    support: none
    description: A cluster is made or not.
  idempotent:
    support: full
    description: A volume with a cluster is left as it is.
author: Das Tern
"""

EXAMPLES = r"""
- name: Make a cluster
  postgres_init:
    endpoint: unix:///var/run/docker.sock
    image: das-tern/postgres:17
    volume: dastern-postgres-data
    container: dastern-postgres
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern import cluster
from ansible.module_utils.dastern.containers import Containers
from ansible.module_utils.dastern.errors import DasTernError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "volume": {"type": "str", "required": True},
            "container": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        made = cluster.initialise(
            Containers(params["endpoint"]), params["image"], params["volume"], params["container"]
        )
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    module.exit_json(changed=made)


if __name__ == "__main__":
    main()
