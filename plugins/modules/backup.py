#!/usr/bin/python
"""Ansible module: take a backup of a server in a container, verify it, and delete those that are too many."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Take, verify and record a backup; apply the retention
description:
  - Physical backups are pgBackRest's, with a named restore point behind each and an exact census of the database there.
  - Only a backup that was verified gets a record and counts; what a killed run left is deleted by the next.
  - The newest verified backup, what a kept one is built upon, and the WAL that it needs are never deleted.
options:
  backup_type:
    description: Empty is V(full) if there is none to build upon, else V(incr); V(logical) where no WAL is archived.
    type: str
    choices: ["", full, diff, incr, logical]
    default: ""
  nice: {description: "How far pgBackRest gives way to other processes, 0 to 19.", type: int, default: 10}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Says what would be taken and deleted; writes nothing.
  diff_mode:
    support: full
    description: The backups that there are, before and after.
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
record: {description: What its record says., returned: when taken, type: dict}
deleted: {description: Labels that went or would go., returned: always, type: list, elements: str}
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
