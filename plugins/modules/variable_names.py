#!/usr/bin/python
"""Documentation of the action plugin `variable_names`, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: variable_names
short_description: Refuse variables of the command line that nothing reads
description:
  - A variable given with C(-e), even in a file, has to be in a role's argument specification, or be read by a template of the
    playbook that runs (or of one that it imports). Any other is a typing error that would otherwise be ignored.
  - The inventory may hold variables of other people's roles; a name that differs from one of ours by at most two letters draws
    a warning. A name that the playbook reads from the command line is refused in the inventory.
  - C(dastern_foreign_variables) lists exceptions; C(*) stands for any text.
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
  description: Each unknown name of the command line with the nearest known one.
  type: dict
  returned: on failure
  sample: {"tagret": "target"}
declared:
  description: Names that the inventory sets but the playbook takes only from the command line.
  type: list
  returned: on failure
near:
  description: Each name of the inventory that resembles one of ours, with ours.
  type: dict
  returned: success
  sample: {"postgres_prot": "postgres_port"}
"""
