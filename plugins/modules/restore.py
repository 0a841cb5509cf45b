#!/usr/bin/python
"""Ansible module: restore a cluster, a database or a table from a backup."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Restore a cluster, a database or a table, and leave the live one as it is until the last step
description:
  - Restores beside the live cluster or database and checks the copy there; then folders or databases are renamed. The
    replaced one is kept, and O(undo) brings it back by the same swap.
  - The next run repairs what a killed one left, and reports it.
options:
  instance: {description: "Set by the action plugin: C(environment/host).", type: str, default: ""}
  unconfigured:
    description: Only report that a restore would be done, because check mode hasn't written pgBackRest's configuration.
    type: bool
    default: false
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Reports what would be done, what is newer in the live database, and the disk space that it takes.
  diff_mode:
    support: partial
    description: Rows and migrations of the live database, before and after; none for O(undo) and O(into), and in check mode only for a backup's own end.
  idempotent:
    support: none
    description: Restores each time.
author: Das Tern
"""

EXAMPLES = r"""
- name: Restore the cluster to a moment
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
timelines: {description: The existing timelines., returned: when none or another one was named, type: list}
seconds: {description: Seconds of the restore during which the live one ran on., returned: when something was restored, type: float}
refused_seconds: {description: Seconds during which the swap refused connections., returned: when something was swapped, type: float}
lines: {description: The same in words., returned: success, type: list}
next: {description: Commands that make sense now., returned: success, type: list}
beyond_owner: {description: Parts of a backup that its owner can't restore., returned: when they are the reason why nothing was restored, type: list}
differences:
  description: Differences between restore and backup that an operator has to judge.
  returned: when a cluster or a database was restored
  type: list
waiting: {description: The folder or database that waits beside the live one., returned: when differences have to be accepted, type: str}
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
