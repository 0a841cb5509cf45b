#!/usr/bin/python
"""Documentation of the action plugin `confirmation`, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: confirmation
short_description: Refuse a destructive step that isn't confirmed for this environment and host
description:
  - The word wanted is C(<dastern_environment>/<inventory_hostname>/<name>), in development O(name) alone.
options:
  confirm: {description: The word that was given., type: str, default: ""}
  instance: {description: "Set by the action plugin: environment and host.", type: str, default: ""}
  name: {description: "What would be lost, such as a volume's name.", type: str, required: true}
  loss: {description: What would happen; a sentence., type: str, required: true}
  playbook: {description: "Whose command is shown, such as C(remove).", type: str, required: true}
  variables: {description: What the command has to be given besides., type: dict, default: {}}
  section: {description: The section of the summary., type: str, required: true}
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
confirm: {description: The word wanted., returned: on failure, type: str}
"""
