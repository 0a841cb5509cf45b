"""Documentation of the options of all modules that work on a folder of migrations."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  folder:
    description: The migrations folder on the controller. A relative path counts from the root of this project.
    type: str
    required: true
  migrations:
    description: The files, in order. Filled by the action plugin of the same name.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the directory., type: str, required: true}
      sql: {description: Text of its C(migration.sql)., type: str, required: true}
      down: {description: "Text of its C(down.sql), if the module needs it.", type: str}
"""
