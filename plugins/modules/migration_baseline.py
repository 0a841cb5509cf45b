#!/usr/bin/python
"""Ansible module: record the migrations that a database without a ledger already has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_baseline
short_description: Mark the migrations as applied that a database without a ledger is shown to have
description:
  - For a database that has tables but no C(_prisma_migrations) (Prisma's P3005). Runs the migrations one after another in a
    scratch database of the same server and compares the catalogues; those up to the last one that agrees are marked as
    applied, as C(prisma migrate resolve --applied) does. Runs nothing on the database itself.
  - The comparison ends before a file that doesn't run in the scratch database.
  - If several points agree, because the files between them change only rows, O(upto) has to name the last one that ran.
  - The files are read on the controller by the action plugin of the same name.
options:
  ignore: {description: "Patterns of objects that may differ, as for M(migration_drift).", type: list, elements: str, default: []}
  upto: {description: "The last migration that the database has; if empty, the comparison determines it.", type: str, default: ""}
  anyway: {description: "Mark up to O(upto), which is then required, although the catalogues differ.", type: bool, default: false}
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Compares too, but writes no ledger.
  diff_mode:
    support: none
    description: A refusal shows the differences.
  idempotent:
    support: full
    description: A database with a ledger is left as it is.
author: Das Tern
"""

EXAMPLES = r"""
- name: Record the migrations of an older database
  migration_baseline:
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
    container: dastern-postgres
"""

RETURN = r"""
names: {description: Migrations that were or would be marked as applied., returned: success, type: list}
pending: {description: Migrations that are or would be left to apply., returned: success, type: list}
lines: {description: The same in words., returned: success, type: list}
"""

from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.host_module import HostModule
from ansible.module_utils.dastern.migrations.baseline import ARGUMENT_SPEC, baseline


def main() -> None:
    module = HostModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**baseline(module.params, check_mode=module.check_mode))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
