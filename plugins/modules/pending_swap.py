#!/usr/bin/python
"""Ansible module: refuse while a restore's swap hasn't ended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pending_swap
short_description: Refuse while a restore's swap hasn't ended
description:
  - A restore that was killed while it swapped the live cluster or database leaves that under another name. Its own
    next run finishes the swap or takes it back; until then nothing else may be made or removed there.
options:
  container: {description: Name of the server's container., type: str, required: true}
  backup_dir: {description: "Folder of the backups, which has the note of it.", type: path, required: true}
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
- name: Refuse while a restore's swap hasn't ended
  pending_swap:
    container: dastern-postgres
    backup_dir: /var/backups/das-tern/dastern-postgres
"""

RETURN = r"""
swap: {description: That there is one., returned: when it is refused, type: bool}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.swaps import ARGUMENT_SPEC, refuse_pending


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        refuse_pending(module.params)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
