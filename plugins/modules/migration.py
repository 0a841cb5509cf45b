#!/usr/bin/python
"""Ansible module: bring a PostgreSQL schema forward under Prisma's ledger."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration
short_description: Apply pending schema migrations, in agreement with Prisma Migrate
description:
  - Compares a folder of migrations with the ledger C(_prisma_migrations) and applies what is pending over one
    connection, each file and its ledger row in one transaction, under Prisma's advisory lock.
  - A file of one statement that refuses a transaction (CREATE INDEX CONCURRENTLY, VACUUM), and one with BEGIN and COMMIT
    of its own, run outside one; their row is written before and finished afterwards. An interrupted index is picked up by
    the next run, everything else of that kind is for C(migration_resolve).
  - The files are read on the controller by the action plugin of the same name and sent along; the connection is made
    from the host that the task runs on.
  - Stops at the first failure. What was applied before it stays; of the failed file nothing remains, no ledger row either.
options:
  state:
    description:
      - V(latest) applies what is pending; V(status) only reports and never fails on what it finds; V(plan) is V(latest)
        in check mode.
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
    description: With nothing pending only reads are sent.
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
  description: What this run applied, with the milliseconds each took.
  type: list
  elements: dict
  returned: always
  sample: [{"name": "20260208074559_init", "ms": 143.2}]
pending:
  description: Names not applied; in check mode what a run would apply.
  type: list
  elements: str
  returned: always
edited:
  description: Applied migrations whose file has another checksum now.
  type: list
  elements: str
  returned: always
missing:
  description: Applied migrations that are not in the folder.
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
  description: Pending migrations that hold no statement, unless O(allow_empty).
  type: list
  elements: str
  returned: always
refused:
  description: Why the run itself would be refused by the guards (window, approval, rehearsal, lint), all of them.
  type: list
  elements: str
  returned: in check mode
rolled_back:
  description: Migrations whose rows are all rolled back.
  type: list
  elements: str
  returned: always
interrupted:
  description: Those of RV(pending) that a killed run left unfinished and that this one picks up.
  type: list
  elements: str
  returned: always
lint:
  description: Findings in the pending files; what is said of several places is one of them.
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
      description: What was found.
      type: str
    mend:
      description: What to do about it.
      type: str
    places:
      description: Where, as C(FILE:LINE:COLUMN), both from 1.
      type: list
      elements: str
backup:
  description: The backup that was taken, by O(backup).
  type: dict
  returned: when one was taken
  contains:
    label: {description: Its name., type: str}
    database: {description: The database., type: str}
    proof: {description: What was done to know that it is whole., type: str}
    began: {description: "When it was begun, UTC.", type: str}
    reason: {description: What it was taken for., type: str}
    bytes: {description: Size of the database., type: int}
    stored: {description: Size of the backup., type: int}
    seconds: {description: How long dump and reading back took., type: float}
backups_deleted: {description: "Older ones that went, by label.", type: list, returned: when one was taken}
backup_due: {description: Where a backup would be taken., type: str, returned: "in check mode, when one would be"}
notices:
  description: Findings that the policies only warn about, in words.
  type: list
  elements: str
  returned: always
waited_for:
  description: Whose run this one waited for, and how long.
  type: dict
  returned: when it waited
locked_by:
  description: Who holds the migration lock.
  type: dict
  returned: when it is held and O(lock_wait) is 0, or with O(state=status)
history:
  description: Each row of the ledger with its state, time, and the seconds it took.
  type: list
  elements: dict
  returned: with O(state=status)
blockers:
  description:
    - Who held the lock that a statement couldn't have in time, with pid, user, application, state, since and query;
      none where the server doesn't show it.
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
