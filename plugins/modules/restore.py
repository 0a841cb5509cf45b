#!/usr/bin/python
"""Ansible module: bring a cluster, a database or a table back from a backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Restore a cluster, a database or a table, and leave the live one as it is until the last step
description:
  - What is restored stands beside the live one and is checked there; then folders or databases are renamed. The former one
    is kept, and O(undo) brings it back by the same swap.
  - A run that was killed is healed by the next one, which says so.
options:
  instance: {description: "Set by the action plugin: C(environment/host).", type: str, default: ""}
  unconfigured:
    description: Say no more than that it would be done, where a check hasn't written pgBackRest's configuration.
    type: bool
    default: false
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Says what would be done, what is newer in the live database, and the disk that it takes.
  diff_mode:
    support: partial
    description: Rows and migrations of the live database, before and after; for O(undo) and O(into) nothing, and in check mode only for a backup's own end.
  idempotent:
    support: none
    description: Restores each time.
author: Das Tern
"""

EXAMPLES = r"""
- name: Have the cluster as it was
  restore:
    target: "2026-02-08 10:30:00+07"
    confirm: dastern
    container: dastern-postgres
    database: dastern
    volume: dastern-postgres-data
    backup_dir: /var/backups/das-tern/dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
"""

RETURN = r"""
target: {description: What was restored., returned: success, type: str}
timeline: {description: The timeline along which it was recovered., returned: when a physical backup is restored, type: int}
timelines: {description: The timelines that there are., returned: when none or another one was named, type: list}
seconds: {description: How long the live one ran on meanwhile., returned: when something was restored, type: float}
refused_seconds: {description: For how long connections were refused by the swap., returned: when something was swapped, type: float}
lines: {description: The same in words., returned: success, type: list}
next: {description: Commands that make sense now., returned: success, type: list}
beyond_owner: {description: What of a backup its owner can't restore., returned: when that is why nothing was restored, type: list}
differences:
  description: What was restored otherwise than it was backed up, and an operator judges.
  returned: when a cluster or a database was restored
  type: list
waiting: {description: The folder or database that stays beside the live one., returned: when differences have to be accepted, type: str}
preflight: {description: What a restore would do., returned: when it isn't confirmed, type: list}
confirm: {description: The word that confirms it., returned: when it isn't confirmed, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores.request import ARGUMENT_SPEC
from ansible.module_utils.dastern.restores.run import restore


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = restore(module.params, check_mode=module.check_mode, say=module.log)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
