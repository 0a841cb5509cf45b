#!/usr/bin/python
"""Ansible module: what runs, from the engine to the largest table."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_status
short_description: Report engine, image, container, server, settings, sizes and connections
description:
  - Asks as far as it gets, and says what is missing; a stopped or absent container isn't an error.
  - What the container publishes is read from it; where that isn't as declared, that is a problem with its command.
options:
  endpoint: {description: URL of the Docker Engine; empty if there is none., type: str, default: ""}
  container: {description: Name of the container., type: str, required: true}
  volume: {description: Name of its volume., type: str, required: true}
  listen_address: {description: Address that is to be published., type: str, required: true}
  port: {description: Port that is to be published., type: int, required: true}
  database: {description: Name of the database., type: str, required: true}
  memory: {description: Memory limit as declared., type: str, required: true}
  shm_size: {description: Shared memory as declared., type: str, required: true}
  settings: {description: Settings as declared., type: dict, required: true}
  settings_extra: {description: "More settings, over O(settings).", type: dict, default: {}}
  wal_archive: {description: Whether WAL is archived with pgBackRest., type: bool, default: false}
  backup_dir: {description: "Folder of the backups, which has the note of a swap that hasn't ended.", type: path, default: ""}
  archive_timeout: {description: PostgreSQL's C(archive_timeout)., type: str, default: 60s}
  log_lines: {description: Return so many last lines of the container's log., type: int, default: 0}
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
- name: See what runs
  postgres_status:
    endpoint: unix:///var/run/docker.sock
    container: dastern-postgres
    volume: dastern-postgres-data
    listen_address: 127.0.0.1
    port: 5432
    database: dastern
    memory: 2g
    shm_size: 256m
    settings: {max_connections: 20}
    backup_dir: /var/backups/das-tern/dastern-postgres
"""

RETURN = r"""
sections: {description: "The sections engine, image and postgres of the report.", returned: success, type: dict}
log: {description: Last lines of the container's log., returned: success, type: list}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.text import presentable
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.server.status import collect
from ansible.module_utils.dastern.server.survey import declared_command


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "default": ""},
            "container": {"type": "str", "required": True},
            "volume": {"type": "str", "required": True},
            "listen_address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "database": {"type": "str", "required": True},
            "memory": {"type": "str", "required": True},
            "shm_size": {"type": "str", "required": True},
            "settings": {"type": "dict", "required": True},
            "settings_extra": {"type": "dict", "default": {}},
            "wal_archive": {"type": "bool", "default": False},
            "archive_timeout": {"type": "str", "default": "60s"},
            "backup_dir": {"type": "path", "default": ""},
            "log_lines": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    log: list[str] = []
    try:
        sections = collect(params, declared_command(params))
        if params["log_lines"] and "container" in sections["postgres"]:
            log = Containers(params["endpoint"]).logs(params["container"], params["log_lines"]).splitlines()
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    stats = {"data": {"dastern_report": sections}, "per_host": True, "aggregate": True}
    module.exit_json(**presentable({"changed": False, "sections": sections, "log": log, "ansible_stats": stats}))


if __name__ == "__main__":
    main()
