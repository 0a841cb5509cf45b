#!/usr/bin/python
"""Ansible module: what the postgres role has to know, and refuses, before it touches anything."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_survey
short_description: Look at container, volume, image and port before a PostgreSQL container is made or changed
description:
  - Compares what is there with what is declared, and refuses what can't be, each with its reason. Changes nothing.
  - Where a volume's content has to be known, a container without network reads it and is removed again.
options:
  endpoint: {description: URL of the Docker Engine., type: str, required: true}
  container: {description: Name of the container., type: str, required: true}
  volume: {description: Name of its volume., type: str, required: true}
  network: {description: Name of its network., type: str, required: true}
  image: {description: Image to run; empty if there is none yet., type: str, default: ""}
  listen_address: {description: Address of the host to publish on., type: str, required: true}
  port: {description: Port of the host to publish on., type: int, required: true}
  memory: {description: Memory limit of the container., type: str, required: true}
  shm_size: {description: Size of its shared memory file system., type: str, required: true}
  settings: {description: Settings of the server., type: dict, required: true}
  settings_extra: {description: "More settings, over O(settings).", type: dict, default: {}}
  hba_extra: {description: More lines of pg_hba.conf., type: list, elements: str, default: []}
  database: {description: Name of the database., type: str, required: true}
  app_user: {description: Role that owns the database., type: str, required: true}
  app_createdb: {description: Whether that role may make databases., type: bool, default: false}
  readonly_user: {description: Role that may only read., type: str, required: true}
  app_password: {description: "The inventory's password for O(app_user), if any.", type: str, default: ""}
  readonly_password: {description: "The inventory's password for O(readonly_user), if any.", type: str, default: ""}
  config_dir: {description: Directory of the host that holds secrets and pg_hba.conf., type: path, required: true}
  backup_dir: {description: Directory of the host for backups., type: path, required: true}
  wal_archive: {description: Whether WAL is archived with pgBackRest., type: bool, default: false}
  archive_timeout: {description: PostgreSQL's C(archive_timeout)., type: str, default: 60s}
  zero_loss: {description: Whether commits will wait for a receiver of the WAL., type: bool, default: false}
  new_folder: {description: "Whether O(backup_dir) may begin anew where this server's backups were in another.", type: bool, default: false}
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
- name: Look before anything is touched
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
swap: {description: What to say of a swap of databases that a restore has to finish once the server runs; empty where there is none., returned: always, type: str}
status: {description: "Its state in Docker's words, or V(absent).", returned: always, type: str}
image_present: {description: Whether the image is there., returned: always, type: bool}
network_exists: {description: Whether the network exists., returned: always, type: bool}
volume_exists: {description: Whether the volume exists., returned: always, type: bool}
initialise: {description: Whether the volume still needs a cluster., returned: always, type: bool}
reasons: {description: "Why the container will be made anew, such as V(max_connections 20 -> 30).", returned: always, type: list}
rehearse: {description: Whether settings or rules should be tried before they are used., returned: always, type: bool}
command: {description: The server's command line., returned: always, type: list}
hba: {description: Content of pg_hba.conf., returned: always, type: str}
server_files: {description: "Content of all files in its folder, by name.", returned: always, type: dict}
session: {description: PGOPTIONS of a neutral session of the superuser., returned: always, type: str}
hba_path: {description: Its path on the host., returned: always, type: str}
folders: {description: What is to be done to the folders of backups and configuration., returned: always, type: list}
hba_differs: {description: Whether it isn't there like that yet., returned: always, type: bool}
former: {description: What puts the running container back as it is., returned: always, type: dict}
psycopg: {description: Whether this Python can import psycopg., returned: always, type: bool}
python: {description: Path of this Python., returned: always, type: str}
python_of_distribution: {description: Whether the distribution's packages are for it., returned: always, type: bool}
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
