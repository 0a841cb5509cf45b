#!/usr/bin/python
"""Ansible module: refuse while a restore's swap hasn't ended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pending_swap
short_description: Refuse while a restore's swap hasn't ended
description:
  - A restore that was killed during its swap leaves the live cluster or database under another name. The next restore
    finishes or undoes the swap; until then nothing else may be created or removed there.
options:
  container: {description: Name of the server's container., type: str, required: true}
  backup_dir: {description: "Folder of the backups, which holds the note of the swap.", type: path, required: true}
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
swap: {description: True if a swap is pending., returned: on failure, type: bool}
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
