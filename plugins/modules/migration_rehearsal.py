#!/usr/bin/python
"""Ansible module: run pending migrations on a copy of the live database, and measure them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_rehearsal
short_description: Run pending migrations on a copy of the live database, and say whether they need a window
description:
  - Copies the database within its server, by C(pg_dump) and C(pg_restore) inside the container, runs what is pending
    statement by statement, and removes the copy in every case. The live database is only read.
    A file that says that it changes what all databases of the server share (roles, databases, granted roles) is refused; what
    is put together at run time or done by a called function isn't seen.
  - Reports the time of each statement, the locks that it took and for how long (from its beginning to the commit), rows
    rewritten and changed, what tables and database grew by, and a verdict for each file.
  - A file that can't be split (one statement that refuses a transaction, C(COPY)) runs whole; its locks are looked at every
    20 ms from a second connection.
  - Leaves C(rehearsals/<sha256>.json) in O(config_dir), the name being the checksum of the cluster's
    identifier, database, schema, and exactly these files.
  - The files are read on the controller by the action plugin of the same name.
options:
  on_edited: &policy
    description: What to do about such a migration, as in M(migration).
    type: str
    choices: [fail, warn, ignore]
    default: fail
  on_missing: *policy
  on_out_of_order:
    description: The same of one that is older than the newest applied one.
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
  lock_timeout: {description: PostgreSQL's C(lock_timeout) for every statement., type: str, default: 10s}
  statement_timeout: {description: PostgreSQL's C(statement_timeout) for every statement., type: str, default: "0"}
  lock_wait: {description: Seconds to wait for a migration run., type: int, default: 300}
  endpoint: {description: "URL of the Docker Engine; empty is the host's own.", type: str, default: ""}
  container: {description: Name of the server's container., type: str, required: true}
  config_dir: {description: Folder on the host for the record., type: path, required: true}
  source:
    description: What is copied, the database itself or the newest logical backup in O(backup_dir) that fits.
    type: str
    choices: [live, backup]
    default: live
  backup_dir: {description: "Folder on the host for backups, which the container sees as C(/backups).", type: path, default: ""}
  limit:
    description: How long a lock may keep writers or readers out of a table before a window is needed.
    type: str
    default: 1s
  fail: {description: Whether a window needed is a failure., type: bool, default: false}
  as_superuser:
    description:
      - Fill the copy with the rights of the superuser instead of its owner's. The application's own code (constraints,
        triggers, index expressions) then runs with them.
    type: bool
    default: false
extends_documentation_fragment: [dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Says what would be rehearsed; makes no copy and no record.
  diff_mode:
    support: none
    description: Changes nothing in the database.
  idempotent:
    support: full
    description: Measures each time. Changed is a first record of these files, or another verdict than the one before.
author: Das Tern
"""

EXAMPLES = r"""
- name: Rehearse what is pending
  migration_rehearsal:
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
    container: dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
"""

RETURN = r"""
verdict: {description: "C(safe online), C(needs a window), or empty where nothing was rehearsed.", returned: success, type: str}
files:
  description:
    - For each file C(name), C(checksum), C(verdict), C(reasons), C(seconds), C(locks) (the strongest mode for each table),
      C(steps), C(sizes) and C(grown) in bytes, and C(split).
    - A step has C(line), C(text), C(seconds), C(held), C(locks), C(rewritten) and C(changed_rows).
  returned: success
  type: list
backup: {description: "The backup that was copied, with O(source=backup).", returned: success, type: str}
copy_seconds: {description: How long the copy took., returned: success, type: float}
size: {description: Size of the live database in bytes., returned: success, type: int}
without_rows:
  description: The tables whose rows the server refused in the copy; where there are any, no record is kept, and O(fail) fails.
  returned: success
  type: list
lines: {description: The same in words., returned: success, type: list}
"""

from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.host_module import HostModule
from ansible.module_utils.dastern.migrations.rehearsal import ARGUMENT_SPEC, rehearse


def main() -> None:
    module = HostModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = rehearse(module.params, check_mode=module.check_mode)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
