#!/usr/bin/python
"""Ansible module: create the folders of the backups, each with the owner that may write there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_folders
short_description: Ensure that the folders of backups and configuration exist with the right owners
description:
  - Only root writes to O(backup_dir) itself, to C(records) and to C(logical). C(repository), C(transfer) and C(received) belong to
    the containers, each of which sees only its own.
  - A folder of an earlier version, all of which belonged to the container, is taken over as it is. A link in it is refused,
    because the container could have put it there.
options:
  backup_dir: {description: Folder of the host for the backups., type: path, required: true}
  config_dir: {description: Folder of the host for configuration and secrets., type: path, required: true}
  endpoint: {description: The Docker Engine's URL., type: str, default: ""}
  container:
    description: Refuse to take over a folder to which this running container of an earlier version still writes.
    type: str
    default: ""
  new_folder:
    description: Whether to accept an O(backup_dir) other than the folder that holds this server's backups.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Reports what would be done.
  diff_mode:
    support: none
    description: RV(steps) describes the changes.
  idempotent:
    support: full
    description: Correct folders are left alone.
author: Das Tern
"""

EXAMPLES = r"""
- name: Ensure the folders
  backup_folders:
    backup_dir: /var/backups/das-tern/dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
"""

RETURN = r"""
steps: {description: Steps that were or would be taken., returned: success, type: list}
elsewhere: {description: The folder that isn't this server's., returned: when it is the reason of a refusal, type: str}
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
