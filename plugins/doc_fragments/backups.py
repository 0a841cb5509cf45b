"""What the documentation of the modules that work with the backups of one server has in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  endpoint: {description: "URL of the Docker Engine; empty is the host's own.", type: str, default: ""}
  container: {description: Name of the live server's container., type: str, required: true}
  database: {description: The database whose rows are counted., type: str, required: true}
  backup_dir: {description: "Folder of the host that the container sees as C(/backups).", type: path, required: true}
"""
