#!/usr/bin/python
"""Ansible module: roll back applied migrations."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_rollback
short_description: Roll back applied migrations by their down.sql
description:
  - Rolls back the migrations that were applied after O(to), the newest first, by C(down.sql) beside each C(migration.sql), in one
    transaction with the ledger, whose rows then count as rolled back, as after C(prisma migrate resolve --rolled-back).
  - First tries all of it in a scratch database of the same server. C(down.sql) has to restore the catalogue from before the
    migration, and C(migration.sql) again the one after it. The live catalogue then has to change in exactly the same way, or
    nothing is rolled back.
  - Counts the rows of each table and the values of each column that would be lost, and refuses to lose any without O(confirm).
  - The files are read on the controller by the action plugin of the same name.
options:
  to: {description: The migration that becomes the newest applied one., type: str, required: true}
  confirm: {description: "C(environment/host/database), in development the database's name, without which no row and no value is deleted.", type: str, default: ""}
  instance: {description: "Set by the action plugin: C(environment/host).", type: str, default: ""}
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Tries everything in the scratch database and counts the losses, and does nothing else.
  diff_mode:
    support: full
    description: Shows the SQL of the rollback.
  idempotent:
    support: full
    description: Nothing is done if O(to) is the newest applied migration.
author: Das Tern
"""

EXAMPLES = r"""
- name: Go back to the first migration
  migration_rollback:
    to: 20260208074559_init
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
"""

RETURN = r"""
names: {description: "Migrations that were or would be rolled back, in that order.", returned: success, type: list}
refused: {description: All reasons for which the run itself would be refused., returned: in check mode, type: list}
losses: {description: "Each table and column that is lost, in words, with the rows or values that it held.", returned: success, type: list}
"""

from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.host_module import HostModule
from ansible.module_utils.dastern.migrations.rollback import ARGUMENT_SPEC, rollback


def main() -> None:
    module = HostModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**rollback(module.params, check_mode=module.check_mode))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
