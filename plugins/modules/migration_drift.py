#!/usr/bin/python
"""Ansible module: compare the live schema with its migrations."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_drift
short_description: Compare the live schema with the schema that its applied migrations make
description:
  - Runs the applied migrations in a scratch database of the same server, reads both catalogues object by object, and
    drops the scratch database again. The live database is only read.
  - Compares O(schema) and all schemas that the migrations create or put something into; the result names the others.
  - Texts that mean the same to the server are no drift, nor are partitions that the application creates at run time.
  - The migration of O(write_migration) is tried in the scratch database first, and names the differences that it leaves.
  - The files are read on the controller by the action plugin of the same name and sent along; that plugin also writes
    the migration that O(write_migration) asks for.
  - Fails if there is drift, unless O(fail=false) or O(write_migration) is given.
options:
  ignore:
    description: >-
      Shell patterns of objects that are no drift, each for kind and name as the table shows them, such as
      V(table ev_2026_*) or V(schema pgboss).
    type: list
    elements: str
    default: []
  fail:
    description: Whether drift is a failure; V(false) only reports.
    type: bool
    default: true
  write_migration:
    description: Name of a migration to write from the difference, under the rules of M(new_migration). Empty writes none.
    type: str
    default: ""
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Compares too, but doesn't write the migration.
  diff_mode:
    support: full
    description: Shows the migration that is written.
  idempotent:
    support: full
    description: The scratch database is dropped afterwards; a pending migration with the same name and text stays.
author: Das Tern
"""

EXAMPLES = r"""
- name: Check whether somebody changed the schema by hand
  migration_drift:
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
    readonly_user: dastern_readonly
    environment: development
"""

RETURN = r"""
drifted:
  description: Whether an object differs; a different order of columns alone doesn't count.
  type: bool
  returned: when compared
differences:
  description: Each with C(kind), C(object), C(what) (V(missing), V(unexpected), V(differs), V(renamed), V(detached) or V(attached)), C(expected), C(live), C(weak), C(parts).
  type: list
  elements: dict
  returned: when compared
lines:
  description: The differences as a table of text.
  type: list
  elements: str
  returned: when compared
statements:
  description: Statements that bring a database that has only the migrations to the live state, in order.
  type: list
  elements: str
  returned: when compared
by_hand:
  description: Changes that a person must write, in words.
  type: list
  elements: str
  returned: when compared
left:
  description: Differences that remain in the scratch database where O(write_migration) was tried, in words.
  type: list
  elements: str
  returned: when compared
exempt:
  description: Kind and name of objects that differ but are no drift.
  type: list
  elements: str
  returned: when compared
not_compared:
  description: The live database's other schemas, which the migrations don't touch.
  type: list
  elements: str
  returned: when compared
path:
  description: The migration that was or would be written.
  type: str
  returned: when O(write_migration) is given and there is drift
fingerprint:
  description: SHA-256 over the live catalogue.
  type: str
  returned: when compared
objects:
  description: How many objects the live schema has.
  type: int
  returned: when compared
applied:
  description: The migrations that were replayed, in order.
  type: list
  elements: str
  returned: when compared
pending:
  description: Migrations that aren't applied, and so weren't replayed.
  type: list
  elements: str
  returned: when compared
failed_before:
  description: Migrations with a ledger row that is neither finished nor rolled back.
  type: list
  elements: str
  returned: when compared
"""

from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.host_module import HostModule
from ansible.module_utils.dastern.migrations.drift import ARGUMENT_SPEC, drift


def main() -> None:
    module = HostModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = drift(module.params)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
