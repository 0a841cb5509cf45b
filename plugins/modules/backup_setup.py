#!/usr/bin/python
"""Ansible module: keep pgBackRest's configuration and repository as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_setup
short_description: Ensure configuration, repository and a first full backup
description:
  - Writes pgbackrest.conf atomically, creates or upgrades the stanza, and takes a full backup if there is no verified one.
  - A configuration that can't read the repository, such as one with another password, is refused before anything is changed.
options:
  repository_secrets: {description: Options of the repositories that are secret., type: dict, default: {}}
  nice: {description: "How far pgBackRest gives way to other processes, 0 to 19.", type: int, default: 10}
  assume_absent: {description: Report what would be done if there is no server yet., type: bool, default: false}
  lost:
    description: Only write the configuration if there is none; for a restore after the loss of the server.
    type: bool
    default: false
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Tries the configuration on the repository, and writes nothing.
  diff_mode:
    support: full
    description: The file before and after, without secrets.
  idempotent:
    support: full
    description: Changes what differs.
author: Das Tern
"""

EXAMPLES = r"""
- name: Ensure the repository
  backup_setup:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
    wal_archive: true
"""

RETURN = r"""
steps: {description: Steps that were or would be taken., returned: always, type: list, elements: str}
record: {description: The first full backup., returned: when taken, type: dict}
lines: {description: The same in words., returned: always, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.backups.setup import ARGUMENT_SPEC, setup
from ansible.module_utils.dastern.common.errors import DasTernError


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = setup(module.params, module.check_mode, say=module.log)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
