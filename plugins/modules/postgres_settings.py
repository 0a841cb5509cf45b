#!/usr/bin/python
"""Ansible module: compare a running server's settings with the declared ones, and make it reload pg_hba.conf."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_settings
short_description: Read every declared setting back from a running PostgreSQL, and reload pg_hba.conf if it is newer
description:
  - Compares value and source of each setting on O(command) with C(pg_settings), after normalising units, booleans and
    enumerations. A difference is an error, and so is a setting that somebody wrote into a file of the cluster.
  - Checks pg_hba.conf through C(pg_hba_file_rules), and makes the server reload it if the file is newer than its last
    load. That also completes a run that was killed between writing and reloading.
options:
  command: {description: The server's command line as declared., type: list, elements: str, required: true}
  hba_path: {description: Path of pg_hba.conf on the host., type: path, required: true}
  reload: {description: Reload regardless of the file's time., type: bool, default: false}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Reports whether it would reload.
  diff_mode:
    support: none
    description: The task that writes the file shows its difference.
  idempotent:
    support: full
    description: A server that has loaded the file doesn't reload it.
author: Das Tern
"""

EXAMPLES = r"""
- name: Read the settings back
  postgres_settings:
    endpoint: unix:///var/run/docker.sock
    container: dastern-postgres
    command: [postgres, -c, max_connections=20]
    hba_path: /etc/das-tern/dastern-postgres/server/pg_hba.conf
"""

RETURN = r"""
settings: {description: How many settings were compared., returned: success, type: int}
differences: {description: "Each difference with setting, declared, found and source.", returned: failure, type: list}
server_version: {description: Version of the server., returned: success, type: str}
healthy_after: {description: Seconds from the container's start to its first good health check., returned: success, type: float}
reloaded: {description: Whether the server was or would be told to reload., returned: success, type: bool}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.read_back import ARGUMENT_SPEC, read_back


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**read_back(module.params, check_mode=module.check_mode))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
