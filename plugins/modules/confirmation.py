#!/usr/bin/python
"""Documentation of the action plugin `confirmation`, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: confirmation
short_description: Refuse a destructive step that isn't confirmed for this environment and host
description:
  - The expected word is C(<dastern_environment>/<inventory_hostname>/<name>), in development O(name) alone.
options:
  confirm: {description: The word that was given., type: str, default: ""}
  instance: {description: "Set by the action plugin: environment and host.", type: str, default: ""}
  name: {description: "What would be lost, such as a volume's name.", type: str, required: true}
  loss: {description: "What would happen, as a sentence.", type: str, required: true}
  playbook: {description: "Playbook whose command is shown, such as C(remove).", type: str, required: true}
  variables: {description: Further variables of the command., type: dict, default: {}}
  section: {description: Section of the summary., type: str, required: true}
attributes:
  check_mode:
    support: full
    description: Only compares.
  diff_mode:
    support: none
    description: There is nothing to differ.
  idempotent:
    support: full
    description: Never changes anything.
author: Das Tern
"""

EXAMPLES = r"""
- name: Refuse to remove the data
  confirmation:
    confirm: production/dastern-production/dastern-postgres-data
    name: dastern-postgres-data
    loss: Volume dastern-postgres-data would be removed.
    playbook: remove
    section: postgres
"""

RETURN = r"""
confirm: {description: The expected word., returned: on failure, type: str}
"""
