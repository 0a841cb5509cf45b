#!/usr/bin/python
"""Ansible module: the live schema as text."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schema_snapshot
short_description: Keep the live schema as SQL and as a description in the repository
description:
  - Reads the catalogue of one schema and gives it as SQL that makes it from nothing, and as Markdown with an entity
    diagram. The action plugin of the same name compares them with the files on the controller and writes those that differ.
options:
  schema:
    description: Schema to read.
    type: str
    default: public
  readonly_user:
    description: Role whose privileges are provisioned and therefore not written down. Empty if there is none.
    type: str
    default: ""
  sql_file:
    description: File on the controller for the SQL. A relative path counts from the root of this project.
    type: str
    required: true
  docs_file:
    description: File on the controller for the description.
    type: str
    required: true
  check:
    description: Fail where a file isn't current, and write nothing.
    type: bool
    default: false
extends_documentation_fragment: [dastern]
attributes:
  check_mode:
    support: full
    description: Compares and writes nothing.
  diff_mode:
    support: full
    description: Shows what changes in the files.
  idempotent:
    support: full
    description: The same schema gives the same text.
author: Das Tern
"""

EXAMPLES = r"""
- name: Keep the schema as files
  schema_snapshot:
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
    sql_file: files/sql/schema.sql
    docs_file: docs/schema/README.md
"""

RETURN = r"""
files:
  description: The files that were, would be or have to be written.
  type: list
  elements: str
  returned: success
tables:
  description: How many tables there are.
  type: int
  returned: success
objects:
  description: How many objects there are.
  type: int
  returned: success
sql:
  description: The SQL; also RV(docs), the description. Taken out by the action plugin.
  type: str
  returned: by the module alone
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.schema_text import ARGUMENT_SPEC, snapshot


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = snapshot(module.params)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
