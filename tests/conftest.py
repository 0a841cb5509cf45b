"""The project's Python under the name that Ansible gives it: `ansible.module_utils.dastern`."""

import os
import sys
from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "plugins" / "module_utils"))
sys.path.append(str(Path(__file__).parent))
# Tests read what a playbook says while it still runs, and into a pipe Ansible writes only when a buffer is full.
os.environ["PYTHONUNBUFFERED"] = "1"
