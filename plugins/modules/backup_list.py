#!/usr/bin/python
"""Ansible module: list all backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_list
short_description: List all backups with their records
description:
  - Reads the records and asks the repository for its content; the server may be stopped.
options: {}
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
- name: List all backups
  backup_list:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
"""

RETURN = r"""
backups: {description: "The records, with C(ratio), C(rows) and C(good); the newest first.", returned: always, type: list, elements: dict}
incomplete: {description: Labels of incomplete backups of killed runs., returned: always, type: list, elements: str}
damaged: {description: Labels of backups with a damaged record., returned: always, type: list, elements: str}
unknown: {description: Labels of backups without a record., returned: always, type: list, elements: str}
further: {description: "Further repositories by number, each with its records like C(backups).", returned: always, type: dict}
bytes: {description: Size of the folder., returned: always, type: int}
lines: {description: The same as a table., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.backups.records import ARGUMENT_SPEC
from ansible.module_utils.dastern.backups.run import listed
from ansible.module_utils.dastern.common.errors import DasTernError


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = listed(module.params)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
