#!/usr/bin/python
"""Ansible module: restore a backup for trial, and compare it with its record."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_drill
short_description: Restore a backup for trial, in a container without network, and compare it with its record
description:
  - Restores into a volume of its own, starts a server on it, compares catalogue and rows with the record, and lets
    C(pg_amcheck) read every page. The live server isn't touched; everything made for the drill is removed in every case.
  - The record keeps the drill's time and outcome, and how long it took until the server answered. The module fails if
    the drill does.
options: {}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Names the backup that would be drilled.
  diff_mode:
    support: none
    description: Changes nothing in the database.
  idempotent:
    support: none
    description: Drills each time; without O(target) the backup that is due.
author: Das Tern
"""

EXAMPLES = r"""
- name: Prove the newest backup
  restore_drill:
    container: dastern-postgres
    database: dastern
    volume: dastern-postgres-data
    backup_dir: /var/backups/das-tern/dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
"""

RETURN = r"""
label: {description: The backup., returned: always, type: str}
seconds: {description: Seconds that the drill took., returned: out of check mode, type: float}
restore_seconds: {description: Seconds until the restored server answered., returned: out of check mode, type: float}
differences:
  description: Differences between restore and backup that an operator has to judge; the drill passes all the same.
  returned: out of check mode
  type: list
lines: {description: The same in words., returned: always, type: list}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores.drill import ARGUMENT_SPEC, drill


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = drill(module.params, check_mode=module.check_mode)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
