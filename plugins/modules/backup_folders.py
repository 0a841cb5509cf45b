#!/usr/bin/python
"""Ansible module: the folders of the backups, each with the owner that may write in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_folders
short_description: Ensure that the folders of backups and configuration are there and belong to whom they should
description:
  - Root alone writes in O(backup_dir) itself, in C(records) and in C(logical). C(repository), C(transfer) and C(received) belong to
    the containers, each of which sees its own.
  - A folder of an earlier version, which belonged to the container as a whole, is taken over as it is. A link in it is refused, as
    the container could have put it there.
options:
  backup_dir: {description: Folder of the host for the backups., type: path, required: true}
  config_dir: {description: Folder of the host for configuration and secrets., type: path, required: true}
  endpoint: {description: The Docker Engine's URL., type: str, default: ""}
  container:
    description: Refuse to take a folder over that this running container, of an earlier version, still writes into.
    type: str
    default: ""
  new_folder:
    description: Whether O(backup_dir) may begin anew where it isn't the one that this server's backups are in.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: none
    description: The steps say it.
  idempotent:
    support: full
    description: Folders that are as they should be stay as they are.
author: Das Tern
"""

EXAMPLES = r"""
- name: Ensure the folders
  backup_folders:
    backup_dir: /var/backups/das-tern/dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
"""

RETURN = r"""
steps: {description: What was or would be done., returned: success, type: list}
elsewhere: {description: The folder that isn't this server's., returned: when that is why it is refused, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.backup_folders import steps


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backup_dir": {"type": "path", "required": True},
            "config_dir": {"type": "path", "required": True},
            "endpoint": {"type": "str", "default": ""},
            "container": {"type": "str", "default": ""},
            "new_folder": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        done = steps(module.params, check_mode=module.check_mode)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)
    module.exit_json(changed=bool(done), steps=done)


if __name__ == "__main__":
    main()
