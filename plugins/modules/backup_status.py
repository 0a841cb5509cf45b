#!/usr/bin/python
"""Ansible module: report the health of the backups."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_status
short_description: Report problems of the backups, and the numbers behind them
description:
  - Reports as much as it can; an absent engine, container or folder isn't an error.
options:
  drill_days: {description: Days between two trial restores; 0 for none., type: int, default: 7}
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
- name: Report the health of the backups
  backup_status:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
"""

RETURN = r"""
section: {description: The section C(backup) of the report., returned: success, type: dict}
"""


from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.backups.health import STATUS_SPEC, status
from ansible.module_utils.dastern.common.errors import DasTernError


def main() -> None:
    module = AnsibleModule(argument_spec=STATUS_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**status(module.params))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
