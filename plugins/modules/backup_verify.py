#!/usr/bin/python
"""Ansible module: verify all backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Read every backup in full and report damage
description:
  - Compares every file of every backup and every WAL segment with its checksum, looks for missing segments, and
    keeps the result in each record. Fails if anything is damaged, but only after it has read everything.
options:
  nice: {description: "How far pgBackRest gives way to other processes, 0 to 19.", type: int, default: 10}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Reads everything and writes no record.
  diff_mode:
    support: none
    description: Changes no backup.
  idempotent:
    support: none
    description: The records keep the time of each verification.
author: Das Tern
"""

EXAMPLES = r"""
- name: Verify all backups
  backup_verify:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
"""

RETURN = r"""
checks: {description: "C(ok), C(at), C(seconds) and C(message) of each backup, by label.", returned: always, type: dict}
damaged: {description: Labels of damaged backups., returned: when there are backups, type: list, elements: str}
problems: {description: Other problems that can be fixed., returned: when there are backups, type: list, elements: str}
notes: {description: Losses that can't be fixed., returned: when there are backups, type: list, elements: str}
lines: {description: The same in words., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.backups.run import VERIFY_SPEC as ARGUMENT_SPEC
from ansible.module_utils.dastern.backups.run import verify
from ansible.module_utils.dastern.common.errors import DasTernError


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = verify(module.params, module.check_mode, say=module.log)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
