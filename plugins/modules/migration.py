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
  on_edited:
    description: What to do about an applied migration whose file has another checksum now.
    type: str
    choices: [fail, warn, ignore]
    default: fail
  on_missing:
    description: What to do about an applied migration that is not in the folder.
    type: str
    choices: [fail, warn, ignore]
    default: fail
  on_out_of_order:
    description: What to do about a pending migration that is older than the newest applied one.
    type: str
    choices: [fail, warn, ignore]
    default: warn
  allow_empty:
    description: Whether a pending migration without a statement is applied as it is; otherwise it is refused.
    type: bool
    default: false
  environment:
    description: What the inventory says this is; V(development) is told of C(reset.yml) where a file was edited.
    type: str
    default: ""
  lock_timeout:
    description: PostgreSQL's C(lock_timeout) for every statement, such as C(10s).
    type: str
    default: 10s
  statement_timeout:
    description: PostgreSQL's C(statement_timeout) for every statement; V(0) is none.
    type: str
    default: "0"
  window:
    description: Times of day in Asia/Phnom_Penh, such as V(22:00-05:00), outside of which nothing is applied; empty is always.
    type: str
    default: ""
  require_approval:
    description: Whether O(approved) has to name the newest pending migration.
    type: bool
    default: false
  approved:
    description: The newest migration that somebody read and approved.
    type: str
    default: ""
  require_rehearsal:
    description: Whether C(migration_rehearsal) has to have run through with exactly the pending files.
    type: bool
    default: false
  lock_retries:
    description: How often a migration that couldn't have its lock in time, or met a deadlock, is tried again, after 1, 2, 4 ... 30 seconds.
    type: int
    default: 0
  lock_wait:
    description: Seconds to wait for another migration run. V(0) returns RV(locked_by) at once.
    type: int
    default: 300
  backup:
    description:
      - Whether a logical backup of the database is taken, and read back, under the migration lock and before the first
        statement. Nothing is applied where that fails.
    type: bool
    default: false
  backup_dir: {description: "Folder on the host for backups, which the container sees as C(/backups).", type: path, default: ""}
  backup_keep: {description: Of how many histories of migrations the newest of those backups is kept., type: int, default: 5}
  backup_drill:
    description: Whether that backup is restored for trial, too, in a container without network, and compared with its record.
    type: bool
    default: false
  config_dir: {description: "Folder of the host that holds C(pgbackrest/pgbackrest.conf), for O(backup_drill).", type: path, default: ""}
  endpoint: {description: "URL of the Docker Engine, for O(backup). Empty is the host's own.", type: str, default: ""}
  container: {description: "Name of the server's container, for O(backup).", type: str, default: ""}
  exit_code:
    description: With O(state=status) show each migration, and end the play with 3 if something is pending, 2 if something is
      wrong, 4 if there is no server.
    type: bool
    default: false
  assume_empty:
    description: Plan against an empty database without connecting; for check mode before the database exists.
    type: bool
    default: false
  lint:
    description:
      - What to do about findings in pending files. V(fail) refuses those of the class danger before anything is applied
        and warns about the others, V(warn) warns about all, V(off) doesn't look. Works on the controller.
      - The file C(lint.yml) in O(folder) says which are not to be reported.
    type: str
    choices: [warn, fail, "off"]
    default: warn
extends_documentation_fragment: [dastern, migrations]
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
