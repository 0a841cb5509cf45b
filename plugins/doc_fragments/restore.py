"""What the documentation of the modules that make a server of a backup has in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  endpoint: {description: "URL of the Docker Engine; empty is the host's own.", type: str, default: ""}
  container: {description: Name of the live server's container., type: str, required: true}
  database: {description: The database that the backups are counted by., type: str, required: true}
  backup_dir: {description: "Folder of the host that the container sees as C(/backups).", type: path, required: true}
  volume: {description: "The data volume, where there is no container to ask for it.", type: str, required: true}
  config_dir: {description: "Folder of the host that holds C(pgbackrest/pgbackrest.conf).", type: path, required: true}
  image: {description: "The server's image, where there is no container to ask for it.", type: str, default: ""}
  wait: {description: Seconds to wait for another run that works with the backups., type: int, default: 60}
"""
