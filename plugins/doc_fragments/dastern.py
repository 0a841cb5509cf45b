"""Documentation of the options of all modules that connect to the database."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  connect_timeout: {description: Seconds to wait for a connection., type: int, default: 10}
"""
