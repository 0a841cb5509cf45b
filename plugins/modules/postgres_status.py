#!/usr/bin/python
"""Ansible module: report what runs, from the engine to the largest table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_status
short_description: Report engine, image, container, server, settings, sizes and connections
description:
  - Reports as much as it can, and names what is missing; a stopped or absent container isn't an error.
  - Reads the published address and port from the container; if they differ from the declaration, reports a problem with the
    command that fixes it.
options:
  log_lines: {description: Number of last lines of the container's log to return., type: int, default: 0}
extends_documentation_fragment: [variables]
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
- name: Report what runs
  postgres_status:
    endpoint: unix:///var/run/docker.sock
    container: dastern-postgres
    volume: dastern-postgres-data
    listen_address: 127.0.0.1
    port: 5432
    database: dastern
    memory: 2g
    shm_size: 256m
    settings: {max_connections: 20}
    backup_dir: /var/backups/das-tern/dastern-postgres
"""

RETURN = r"""
sections: {description: "The sections engine, image and postgres of the report.", returned: success, type: dict}
log: {description: Last lines of the container's log., returned: success, type: list}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.status import ARGUMENT_SPEC, status


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**status(module.params))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
