#!/usr/bin/python
"""Ansible module: empty a schema of a development database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schema_reset
short_description: Drop everything in a schema of a development database
description:
  - Runs in one transaction, under the migration lock. The schema stays with its grants, and so do extensions of another owner.
  - Refused unless O(environment) is V(development) and the database's own setting C(dastern.environment) is, too.
options:
  confirm: {description: "C(environment/host/database), in development the database's name, without which nothing is deleted.", type: str, default: ""}
  instance: {description: "Set by the action plugin: C(environment/host).", type: str, default: ""}
extends_documentation_fragment: [variables, dastern]
attributes:
  check_mode:
    support: full
    description: Counts what would be dropped, in a read-only session.
  diff_mode:
    support: none
    description: The difference is the whole schema.
  idempotent:
    support: full
    description: An empty schema is left as it is.
author: Das Tern
"""

EXAMPLES = r"""
- name: Empty the schema
  schema_reset:
    environment: development
    confirm: dastern
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
"""

RETURN = r"""
dropped: {description: Number of objects that were or would be dropped., returned: success, type: int}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.text import presentable
from ansible.module_utils.dastern.migrations.reset import ARGUMENT_SPEC, reset


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**presentable(reset(module.params, check_mode=module.check_mode)))
    except DasTernError as refusal:
        module.fail_json(**presentable({"failed": True, "msg": refusal.message, **refusal.facts}))


if __name__ == "__main__":
    main()
