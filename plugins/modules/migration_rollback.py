#!/usr/bin/python
"""Ansible module: take applied migrations back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_rollback
short_description: Take applied migrations back by their down.sql
description:
  - Takes back what was applied after O(to), the newest first, by C(down.sql) beside each C(migration.sql), in one
    transaction with the ledger, whose rows then count as rolled back, as after C(prisma migrate resolve --rolled-back).
  - First all of it is tried in a scratch database of the same server. Down has to give the catalogue that was there before,
    and up again the one after. The live catalogue then has to change in just what that showed, or nothing is taken back.
  - Counts the rows of each table and the values of each column that goes, and is refused without O(confirm) where there are any.
  - The files are read on the controller by the action plugin of the same name.
options:
  to: {description: The migration that stays as the newest., type: str, required: true}
  confirm: {description: "C(environment/host/database), in development the database's name, without which no row and no value is deleted.", type: str, default: ""}
  instance: {description: "Set by the action plugin: C(environment/host).", type: str, default: ""}
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Tries everything in the scratch database, counts what would go, and nothing else.
  diff_mode:
    support: full
    description: Shows the SQL that takes back.
  idempotent:
    support: full
    description: With O(to) as the newest applied one nothing is done.
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
names: {description: "What was or would be taken back, in that order.", returned: success, type: list}
refused: {description: "Why the run itself would be refused, all of it.", returned: in check mode, type: list}
losses: {description: "Each table and column that goes, in words, with the rows or values that it held.", returned: success, type: list}
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
