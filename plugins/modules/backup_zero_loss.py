#!/usr/bin/python
"""Ansible module: have a receiver of the WAL that every commit waits for, or none."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_zero_loss
short_description: Have every commit in the folder of the backups before it is acknowledged
description:
  - Runs C(pg_receivewal --synchronous) in a container beside the server, with a role, a slot and a password of its own,
    and has commits wait for it once it has all of the WAL.
  - The server's healthcheck then looks after it; with O(away=continue) commits go on without a receiver that is away.
  - Nothing is restarted, neither to turn it on nor to turn it off.
options:
  enabled: {description: Whether there is to be a receiver., type: bool, default: false}
  away:
    description: Whether commits wait while the receiver is away, or go on without it.
    type: str
    choices: [block, continue]
    default: block
  assume_absent: {description: Say what would be done where there is no server yet., type: bool, default: false}
options:
  enabled: {description: Whether there is to be a receiver., type: bool, default: false}
  away:
    description: Whether commits wait while the receiver is away, or go on without it.
    type: str
    choices: [block, continue]
    default: block
  assume_absent: {description: Say what would be done where there is no server yet., type: bool, default: false}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: full
    description: Whether there is a receiver, whether commits wait for it, and what they do when it is away.
  idempotent:
    support: full
    description: Changes what differs.
author: Das Tern
"""

EXAMPLES = r"""
- name: Lose nothing with the disk of the data
  backup_zero_loss:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
    network: dastern-postgres-net
    wal_archive: true
    enabled: true
"""

RETURN = r"""
steps: {description: What was or would be done., returned: always, type: list, elements: str}
lines: {description: The same in words., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.backups.zero_loss import ARGUMENT_SPEC, keep
from ansible.module_utils.dastern.common.errors import DasTernError


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = keep(module.params, module.check_mode, say=module.log)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
