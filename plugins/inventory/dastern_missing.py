"""Inventory plugin: refuse an inventory that doesn't exist, with the names of the existing ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = r"""
name: dastern_missing
short_description: Names the existing inventories if the given one doesn't exist
description:
  - Is the last of the enabled plugins and takes only paths that don't exist.
options: {}
"""

ROOT = Path(__file__).resolve().parents[2]
INVENTORIES = ROOT / "inventories"

# Ansible ships `module_utils/dastern` to hosts by itself, but doesn't let plugins on the controller import it. Every
# command of Ansible loads inventory plugins first, so this line serves the action and callback plugins, too.
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    NAME = "dastern_missing"

    def verify_file(self, path: str) -> bool:
        return not os.path.exists(path)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        names = sorted(folder.name for folder in INVENTORIES.iterdir() if folder.is_dir())
        near = os.path.relpath(INVENTORIES)
        raise AnsibleParserError(
            f"There is no inventory {os.path.relpath(path)}. Nothing was done. Existing inventories: "
            f"{', '.join(f'-i {near}/{name}' for name in names) or f'none in {near}'}."
        )
