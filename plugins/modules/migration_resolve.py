#!/usr/bin/python
"""Ansible module: decide about a single row of Prisma's ledger."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_resolve
short_description: Mark a migration as applied or rolled back, adopt a renamed one, repair a checksum
description:
  - Writes the ledger C(_prisma_migrations) as C(prisma migrate resolve) does, under the migration lock. Runs no migration.
  - The files, and for V(repair) their history in git, are read on the controller by the action plugin of the same name.
options:
  decision:
    description:
      - V(applied) marks O(name) as applied although it wasn't run under this ledger.
      - V(rolled_back) marks the unfinished row of O(name) as rolled back, so that the migration is applied again.
      - V(adopt) gives O(name) the row of an applied migration that has the same checksum and no file any more.
      - V(repair) writes the present checksum of O(name) into its row, if the git history shows that the file differs from
        the applied text only in comments and blanks, or with O(anyway).
    type: str
    choices: [applied, rolled_back, adopt, repair]
    required: true
  name: {description: The migration's directory., type: str, required: true}
  former: {description: Former texts of the file. Filled by the action plugin., type: list, elements: str, default: []}
  anyway: {description: Repair a checksum although nothing proves that the file does the same., type: bool, default: false}
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Reports what would be written, from a read-only session.
  diff_mode:
    support: none
    description: One row changes, and the result names it.
  idempotent:
    support: full
    description: A decision that was already recorded changes nothing.
author: Das Tern
"""

EXAMPLES = r"""
- name: Let a failed migration be applied again
  migration_resolve:
    decision: rolled_back
    name: 20260301120000_add_avatar
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
"""

RETURN = r"""
line: {description: "What was or would be done, in words.", returned: success, type: str}
"""

from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.host_module import HostModule
from ansible.module_utils.dastern.migrations.resolve import ARGUMENT_SPEC, resolve


def main() -> None:
    module = HostModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**resolve(module.params, check_mode=module.check_mode))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
