"""Inventory plugin: an inventory that isn't there is refused with the names of those that are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = r"""
name: dastern_missing
short_description: Names the inventories that exist when one that doesn't was given
description:
  - Stands last among the enabled plugins and takes only paths that don't exist.
options: {}
"""

INVENTORIES = Path(__file__).resolve().parents[2] / "inventories"


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    NAME = "dastern_missing"

    def verify_file(self, path: str) -> bool:
        return not os.path.exists(path)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        there = sorted(folder.name for folder in INVENTORIES.iterdir() if folder.is_dir())
        near = os.path.relpath(INVENTORIES)
        raise AnsibleParserError(
            f"There is no inventory {os.path.relpath(path)}. Nothing was done. There are: "
            f"{', '.join(f'-i {near}/{name}' for name in there) or f'none in {near}'}."
        )
