#!/usr/bin/python
"""Ansible module: create a network, a volume, and a PostgreSQL cluster in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_init
short_description: Ensure a private network, a volume, and a PostgreSQL cluster in it
description:
  - Runs C(initdb) in a container of the server's image without network, in a folder beside the cluster's, which is renamed
    when it is complete and on disk. Removes the remains of a killed run.
  - The superuser gets no password and may connect over the socket only.
options:
  endpoint: {description: URL of the Docker Engine., type: str, required: true}
  image: {description: Image to run., type: str, required: true}
  network: {description: Name of the network., type: str, required: true}
  volume: {description: Name of the volume., type: str, required: true}
  labels: {description: Labels of network and volume., type: dict, default: {}}
  config_dir: {description: "Directory of the host whose lock is held meanwhile, so that two runs don't create something twice.", type: path, required: true}
  container: {description: Name of the server's container; the initialising container is named after it., type: str, required: true}
attributes:
  check_mode:
    support: full
    description: Always reports a change, so call it only if something is missing.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: Existing things are left as they are.
author: Das Tern
"""

EXAMPLES = r"""
- name: Create a cluster
  postgres_init:
    endpoint: unix:///var/run/docker.sock
    image: das-tern/postgres:17
    network: dastern-postgres-net
    volume: dastern-postgres-data
    container: dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
"""

RETURN = r""" # """

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.cluster import provide


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "volume": {"type": "str", "required": True},
            "labels": {"type": "dict", "default": {}},
            "config_dir": {"type": "path", "required": True},
            "container": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    try:
        made = provide(module.params)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    module.exit_json(changed=made)


if __name__ == "__main__":
    main()
