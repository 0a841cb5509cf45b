#!/usr/bin/python
"""Ansible module: add or remove the receiver of the WAL for which every commit waits."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_zero_loss
short_description: Ensure that every commit is in the folder of the backups before it is acknowledged
description:
  - Runs C(pg_receivewal --synchronous) in a container beside the server, with a role, a slot and a password of its own,
    and makes commits wait for it once it has all of the WAL.
  - The server's healthcheck then watches it; with O(away=continue) commits go on while the receiver is away.
  - Turning it on or off restarts nothing.
options:
  enabled: {description: Whether the server has a receiver., type: bool, default: false}
  away:
    description: Whether commits wait while the receiver is away, or go on without it.
    type: str
    choices: [block, continue]
    default: block
  assume_absent: {description: Report what would be done if there is no server yet., type: bool, default: false}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Reports what would be done.
  diff_mode:
    support: full
    description: Whether there is a receiver, whether commits wait for it, and what they do while it is away.
  idempotent:
    support: full
    description: Changes what differs.
author: Das Tern
"""

EXAMPLES = r"""
- name: Lose no commit with the disk of the data
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
steps: {description: Steps that were or would be taken., returned: always, type: list, elements: str}
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
