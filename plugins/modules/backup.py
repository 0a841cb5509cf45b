#!/usr/bin/python
"""Ansible module: take a backup of a server in a container, verify it, and delete expired backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Take, verify and record a backup; apply the retention
description:
  - Physical backups are pgBackRest's. Each ends with a named restore point and an exact census of the database at that point.
  - Only a verified backup gets a record and counts. The next run deletes the remains of a killed run.
  - The newest verified backup, the backups that a kept one depends on, and the WAL that they need are never deleted.
options:
  backup_type:
    description: Empty means V(full) if there is no backup to build upon, else V(incr), and V(logical) where no WAL is archived.
    type: str
    choices: ["", full, diff, incr, logical]
    default: ""
  nice: {description: "How far pgBackRest gives way to other processes, 0 to 19.", type: int, default: 10}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Reports what would be taken and deleted; writes nothing.
  diff_mode:
    support: full
    description: The list of backups before and after.
  idempotent:
    support: none
    description: Each run takes a backup.
author: Das Tern
"""

EXAMPLES = r"""
- name: Take an incremental backup
  backup:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
"""

RETURN = r"""
label: {description: The backup's label., returned: when taken, type: str}
record: {description: Content of its record., returned: when taken, type: dict}
deleted: {description: Labels of backups that were or would be deleted., returned: always, type: list, elements: str}
lines: {description: The same in words., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.backups.run import ARGUMENT_SPEC, take
from ansible.module_utils.dastern.common.errors import DasTernError


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = take(module.params, module.check_mode, say=module.log)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
