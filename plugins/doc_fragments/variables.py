"""Note in the documentation of all modules whose options are variables of a role."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
notes:
  - An option that isn't described here is the role's variable of that name, or a variable that describes the instance;
    docs/roles describes it. A task need not give it.
"""
