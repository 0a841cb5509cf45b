#!/usr/bin/python
"""Documentation of the action plugin `variable_names`, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: variable_names
short_description: Refuse variables that begin like a role's but that no role knows
description:
  - Compares all variables of the host with the argument specifications of all roles of this project. A name that begins
    with a role's name and an underscore but is not among them is a typing error, and would otherwise be ignored.
options: {}
attributes:
  check_mode:
    support: full
    description: Only reads.
  diff_mode:
    support: none
    description: There is nothing to differ.
  idempotent:
    support: full
    description: Never changes anything.
author: Das Tern
"""

EXAMPLES = r"""
- name: Refuse unknown variable names
  variable_names:
"""

RETURN = r"""
unknown:
  description: Each unknown name with the nearest known one.
  type: dict
  returned: on failure
  sample: {"postgres_prot": "postgres_port"}
"""
