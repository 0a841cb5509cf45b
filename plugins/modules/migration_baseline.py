#!/usr/bin/python
"""Ansible module: record which migrations a database without ledger has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_baseline
short_description: Mark as applied what a database without ledger is shown to have
description:
  - For a database that has tables but no C(_prisma_migrations) (Prisma's P3005). Runs the migrations one after another in a
    scratch database of the same server and compares the catalogues; those up to the last one that agrees are marked as
    applied, as C(prisma migrate resolve --applied) does. Runs nothing on the database itself.
  - A file that doesn't run in the scratch database ends the comparison before it.
  - Where several points agree, because files between them change rows only, O(upto) has to say which of them ran.
  - The files are read on the controller by the action plugin of the same name.
options:
  ignore: {description: "What may differ, as for M(migration_drift).", type: list, elements: str, default: []}
  upto: {description: "The last migration that the database has; empty finds out.", type: str, default: ""}
  anyway: {description: "Mark up to O(upto), without which it is refused, although the catalogues differ.", type: bool, default: false}
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Compares as well, and writes no ledger.
  diff_mode:
    support: none
    description: A refusal shows what differs.
  idempotent:
    support: full
    description: A database with a ledger is left as it is.
author: Das Tern
"""

EXAMPLES = r"""
- name: Record what an older database has
  migration_baseline:
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
    container: dastern-postgres
"""

RETURN = r"""
names: {description: What was or would be marked as applied., returned: success, type: list}
pending: {description: What is or would be left to apply., returned: success, type: list}
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
