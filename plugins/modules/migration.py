#!/usr/bin/python
"""Ansible module: bring a PostgreSQL schema forward under Prisma's ledger."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration
short_description: Apply pending schema migrations, in agreement with Prisma Migrate
description:
  - Compares a folder of migrations with the ledger C(_prisma_migrations) and applies the pending ones over one
    connection, each file and its ledger row in one transaction, under Prisma's advisory lock.
  - A file of one statement that refuses a transaction (CREATE INDEX CONCURRENTLY, VACUUM), and one with BEGIN and COMMIT
    of its own, run outside one; their row is written before and finished afterwards. The next run completes an interrupted
    index; every other interrupted file of that kind is for C(migration_resolve).
  - The files are read on the controller by the action plugin of the same name and sent along; the connection is made
    from the host that the task runs on.
  - Stops at the first failure. Migrations applied before it stay; of the failed file nothing remains, not even a ledger row.
options:
  state:
    description:
      - V(latest) applies the pending migrations; V(status) only reports, and no finding makes it fail; V(plan) is
        V(latest) in check mode.
    type: str
    choices: [latest, status, plan]
    default: latest
  assume_empty:
    description: Plan against an empty database without connecting; for check mode before the database exists.
    type: bool
    default: false
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Reads the ledger in a read-only session; writes nothing and takes no lock.
  diff_mode:
    support: full
    description: Shows the SQL of the pending migrations.
  idempotent:
    support: full
    description: If nothing is pending, only reads are sent.
author: Das Tern
"""

EXAMPLES = r"""
- name: Bring the schema forward
  migration:
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
"""

RETURN = r"""
applied:
  description: Names of all applied migrations, after this run.
  type: list
  elements: str
  returned: always
applied_now:
  description: Migrations that this run applied, with the milliseconds that each took.
  type: list
  elements: dict
  returned: always
  sample: [{"name": "20260208074559_init", "ms": 143.2}]
pending:
  description: Names of migrations that aren't applied; in check mode those that a run would apply.
  type: list
  elements: str
  returned: always
edited:
  description: Applied migrations whose file now has another checksum.
  type: list
  elements: str
  returned: always
missing:
  description: Applied migrations that aren't in the folder.
  type: list
  elements: str
  returned: always
out_of_order:
  description: Pending migrations older than the newest applied one.
  type: list
  elements: str
  returned: always
failed_before:
  description: Migrations with a ledger row that is neither finished nor rolled back.
  type: list
  elements: str
  returned: always
empty:
  description: Pending migrations without a statement, unless O(allow_empty).
  type: list
  elements: str
  returned: always
refused:
  description: All reasons for which the guards (window, approval, rehearsal, lint) would refuse the run itself.
  type: list
  elements: str
  returned: in check mode
rolled_back:
  description: Migrations whose rows are all rolled back.
  type: list
  elements: str
  returned: always
interrupted:
  description: Migrations of RV(pending) that a killed run left unfinished and this run completes.
  type: list
  elements: str
  returned: always
lint:
  description: Findings in the pending files; the same finding in several places is listed once.
  type: list
  elements: dict
  returned: when something is pending and O(lint) isn't V(off)
  contains:
    rule:
      description: Name of the rule, squawk's or our own.
      type: str
    severity:
      description: V(danger) or V(warning).
      type: str
    message:
      description: The finding, in words.
      type: str
    mend:
      description: How to fix it.
      type: str
    places:
      description: Places as C(FILE:LINE:COLUMN); lines and columns count from 1.
      type: list
      elements: str
backup:
  description: The backup that was taken, by O(backup).
  type: dict
  returned: when one was taken
  contains:
    label: {description: Its name., type: str}
    database: {description: The database., type: str}
    proof: {description: How it was verified., type: str}
    began: {description: "Time of its start, UTC.", type: str}
    reason: {description: Why it was taken., type: str}
    bytes: {description: Size of the database., type: int}
    stored: {description: Size of the backup., type: int}
    seconds: {description: Seconds that the dump and its verification took., type: float}
backups_deleted: {description: Labels of older backups that were deleted., type: list, returned: when one was taken}
backup_due: {description: Folder into which a backup would be taken., type: str, returned: "in check mode, when one would be"}
notices:
  description: Findings that the policies only warn about, in words.
  type: list
  elements: str
  returned: always
waited_for:
  description: The run for which this one waited, and how long.
  type: dict
  returned: when it waited
locked_by:
  description: The session that holds the migration lock.
  type: dict
  returned: when it is held and O(lock_wait) is 0, or with O(state=status)
history:
  description: Each row of the ledger with its state, time, and the seconds it took.
  type: list
  elements: dict
  returned: with O(state=status)
blockers:
  description:
    - Sessions that held the lock for which a statement waited too long, with pid, user, application, state, since and
      query; empty if the server doesn't show them.
  type: list
  elements: dict
  returned: when it failed with SQLSTATE 55P03
sqlstate:
  description: The server's error code; also RV(line), RV(column), RV(statement), RV(file), RV(hint), RV(applied_before).
  type: str
  returned: when a migration failed
"""

from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.host_module import HostModule
from ansible.module_utils.dastern.migrations.migrate import ARGUMENT_SPEC, migrate


def main() -> None:
    module = HostModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = migrate(module.params, check_mode=module.check_mode, diff=module._diff)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
