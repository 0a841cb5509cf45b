"""What the documentation of the modules that make a server of a backup has in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  volume: {description: "The data volume, where there is no container to ask for it.", type: str, required: true}
  config_dir: {description: "Folder of the host that holds C(pgbackrest/pgbackrest.conf).", type: path, required: true}
  image: {description: "The server's image, where there is no container to ask for it.", type: str, default: ""}
  repository: {description: "From which repository; a further one is for when the first is lost.", type: int, default: 1}
  wait: {description: Seconds to wait for another run that works with the backups., type: int, default: 60}
"""
