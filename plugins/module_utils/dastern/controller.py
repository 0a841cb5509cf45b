"""What an action plugin asks about the host before it decides where to work.

A module in a process of its own costs a Python start and the import of psycopg (0.7 s of a 2.6 s playbook on a
small machine). Where the host is the controller itself, the action plugin calls the same function in its own
process and saves both; everywhere else the module runs on the host. The result is the same.
"""

from __future__ import annotations

import sys
from typing import Any


def runs_here(connection: Any, task_vars: dict[str, Any], become: bool) -> bool:
    """Whether the host is this very process's machine, user and Python."""
    if connection.transport != "local" or become:
        return False
    interpreter = task_vars.get("ansible_python_interpreter")
    return interpreter in (sys.executable, "{{ ansible_playbook_python }}")
