"""A note in the documentation of every module whose options are variables of a role."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
notes:
  - An option that isn't described here is the role's variable of that name, or one that describes the instance, and is
    described where the variable is, in docs/roles. A task need not give it.
"""
