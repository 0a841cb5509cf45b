#!/usr/bin/python
"""Ansible module: keep the login roles, the database and its privileges as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_access
short_description: Keep the application's role, the read-only role, the database and its privileges as declared
description:
  - Connects to the server as superuser over the socket in its container.
  - Passwords are kept on this host in files of mode 0600, and generated if none is given. The server's stored SCRAM
    verifier shows whether a password has to be set. Only a verifier computed here is sent, so that the plain password
    reaches neither the server nor its log.
options: {}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Computes the same plan and writes nothing.
  diff_mode:
    support: full
    description: Shows each attribute before and after; of a password only that it differs.
  idempotent:
    support: full
    description: Sends no writing statement if nothing differs.
author: Das Tern
"""

EXAMPLES = r"""
- name: Ensure roles, database and privileges
  postgres_access:
    endpoint: unix:///var/run/docker.sock
    container: dastern-postgres
    database: dastern
    app_user: dastern_user
    readonly_user: dastern_readonly
    config_dir: /etc/das-tern/dastern-postgres
    environment: development
"""

RETURN = r"""
steps: {description: "Changes that were or would be made, in words.", returned: success, type: list}
generated: {description: Names of the passwords that were or would be generated., returned: success, type: list}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.access_files import ARGUMENT_SPEC, keep


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**keep(module.params, check_mode=module.check_mode))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
