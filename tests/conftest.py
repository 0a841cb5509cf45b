"""Lets tests import the project's own Python under the name that the modules use."""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

REPOSITORY = Path(__file__).resolve().parents[1]
ansible.module_utils.__path__.append(str(REPOSITORY / "plugins" / "module_utils"))
