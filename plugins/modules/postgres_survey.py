#!/usr/bin/python
"""Ansible module: collect what the postgres role has to know, and refuse what it can't do, before it touches anything."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_survey
short_description: Examine container, volume, image and port before a PostgreSQL container is created or changed
description:
  - Compares the existing objects with the declaration, and refuses each that can't be changed, with the reason. Changes
    nothing.
  - If a volume's content has to be known, a container without network reads it and is removed again.
options:
  zero_loss: {description: Whether commits will wait for a receiver of the WAL., type: bool, default: false}
  new_folder: {description: "Whether to accept an O(backup_dir) other than the folder that holds this server's backups.", type: bool, default: false}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Reads only.
author: Das Tern
"""

EXAMPLES = r"""
- name: Examine the host before anything is touched
  postgres_survey:
    endpoint: unix:///var/run/docker.sock
    container: dastern-postgres
    volume: dastern-postgres-data
    network: dastern-postgres-net
    image: das-tern/postgres:17
    listen_address: 127.0.0.1
    port: 5432
    memory: 2g
    shm_size: 256m
    settings: {max_connections: 20}
    database: dastern
    app_user: dastern_user
    readonly_user: dastern_readonly
    config_dir: /etc/das-tern/dastern-postgres
    backup_dir: /var/backups/das-tern/dastern-postgres
  register: found
"""

RETURN = r"""
exists: {description: Whether the container exists., returned: always, type: bool}
running: {description: Whether it runs., returned: always, type: bool}
swap: {description: Message about a swap of databases that a restore has to finish once the server runs; empty if there is none., returned: always, type: str}
status: {description: "Its state in Docker's words, or V(absent).", returned: always, type: str}
image_present: {description: Whether the image exists., returned: always, type: bool}
network_exists: {description: Whether the network exists., returned: always, type: bool}
volume_exists: {description: Whether the volume exists., returned: always, type: bool}
initialise: {description: Whether the volume still needs a cluster., returned: always, type: bool}
reasons: {description: "Why the container will be recreated, such as V(max_connections 20 -> 30).", returned: always, type: list}
rehearse: {description: Whether settings or rules should be tried before they are used., returned: always, type: bool}
command: {description: The server's command line., returned: always, type: list}
hba: {description: Content of pg_hba.conf., returned: always, type: str}
server_files: {description: "Content of all files in its folder, by name.", returned: always, type: dict}
session: {description: PGOPTIONS of a neutral session of the superuser., returned: always, type: str}
hba_path: {description: Path of pg_hba.conf on the host., returned: always, type: str}
folders: {description: Steps to take on the folders of backups and configuration., returned: always, type: list}
hba_differs: {description: Whether the file on the host differs from RV(hba) or doesn't exist., returned: always, type: bool}
former: {description: What is needed to put the running container back as it is., returned: always, type: dict}
psycopg: {description: Whether this Python can import psycopg., returned: always, type: bool}
python: {description: Path of this Python., returned: always, type: str}
python_of_distribution: {description: Whether the distribution's packages are for this Python., returned: always, type: bool}
apt: {description: Whether the host has apt-get., returned: always, type: bool}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.survey import ARGUMENT_SPEC, survey


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**survey(module.params, check_mode=module.check_mode))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
