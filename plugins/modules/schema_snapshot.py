#!/usr/bin/python
"""Ansible module: return the live schema as text."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schema_snapshot
short_description: Keep the live schema as SQL and as a description in the repository
description:
  - Returns the database's schema as SQL, by C(pg_dump --schema-only) of the server's own image, and its catalogue as
    Markdown with entity diagrams. The action plugin of the same name compares them with the files on the controller
    and writes those that differ.
  - As a trial, the role that owns the database loads the SQL into a scratch database of the same server.
options:
  sql_file:
    description: File on the controller for the SQL. A relative path counts from the root of this project.
    type: str
    required: true
  docs_file:
    description: File on the controller for the description.
    type: str
    required: true
  check:
    description: Fail if a file isn't current, and write nothing.
    type: bool
    default: false
extends_documentation_fragment: [variables, dastern]
attributes:
  check_mode:
    support: full
    description: Compares and writes nothing.
  diff_mode:
    support: full
    description: Shows the changes in the files.
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
    container: dastern-postgres
    sql_file: files/sql/schema.sql
    docs_file: docs/schema/README.md
"""

RETURN = r"""
files:
  description: Files that were, would be or have to be written.
  type: list
  elements: str
  returned: success
tables:
  description: Number of tables.
  type: int
  returned: success
objects:
  description: Number of objects.
  type: int
  returned: success
refused:
  description: Statements of the SQL that the owner of the database can't run, each with the server's message.
  type: list
  elements: str
  returned: success
sql:
  description: The SQL; RV(docs) is the description. The action plugin removes both.
  type: str
  returned: by the module alone
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.catalogue.schema_text import ARGUMENT_SPEC, snapshot
from ansible.module_utils.dastern.common.errors import DasTernError


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = snapshot(module.params)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
