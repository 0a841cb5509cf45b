#!/usr/bin/python
"""Ansible module: run pending migrations on a copy of the live database, and measure them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_rehearsal
short_description: Run pending migrations on a copy of the live database, and report whether they need a window
description:
  - Copies the database within its server, by C(pg_dump) and C(pg_restore) inside the container, runs the pending
    migrations statement by statement, and removes the copy in every case. The live database is only read.
    A file with statements that change what all databases of the server share (roles, databases, granted roles) is refused;
    statements that are composed at run time or run by a called function aren't noticed.
  - Reports the time of each statement, the locks that it took and for how long (from its start to the commit), rows
    rewritten and changed, the growth of tables and database, and a verdict for each file.
  - A file that can't be split (one statement that refuses a transaction, C(COPY)) runs as a whole; a second connection looks at
    its locks every 20 ms.
  - Writes the record C(rehearsals/<sha256>.json) in O(config_dir). Its name is the checksum of the cluster's identifier, the
    database, the schema, and exactly these files.
  - The files are read on the controller by the action plugin of the same name.
options:
  source:
    description: Source of the copy, the database itself or the newest logical backup in O(backup_dir) that fits.
    type: str
    choices: [live, backup]
    default: live
  limit:
    description: How long a lock may keep writers or readers out of a table before a window is needed.
    type: str
    default: 1s
  fail: {description: Whether the need for a window is a failure., type: bool, default: false}
  as_superuser:
    description:
      - Fill the copy with the rights of the superuser instead of its owner's. The application's own code (constraints,
        triggers, index expressions) then runs with them.
    type: bool
    default: false
extends_documentation_fragment: [variables, dastern, migrations]
attributes:
  check_mode:
    support: full
    description: Reports what would be rehearsed; makes no copy and no record.
  diff_mode:
    support: none
    description: Changes nothing in the database.
  idempotent:
    support: full
    description: Measures each time. The first record of these files, or another verdict than before, is a change.
author: Das Tern
"""

EXAMPLES = r"""
- name: Rehearse the pending migrations
  migration_rehearsal:
    folder: files/sql/migrations
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
    container: dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
"""

RETURN = r"""
verdict: {description: "C(safe online), C(needs a window), or empty if nothing was rehearsed.", returned: success, type: str}
files:
  description:
    - Each file with C(name), C(checksum), C(verdict), C(reasons), C(seconds), C(locks) (the strongest mode for each table),
      C(steps), C(sizes) and C(grown) in bytes, and C(split).
    - A step has C(line), C(text), C(seconds), C(held), C(locks), C(rewritten) and C(changed_rows).
  returned: success
  type: list
backup: {description: "The copied backup, with O(source=backup).", returned: success, type: str}
copy_seconds: {description: Seconds that the copy took., returned: success, type: float}
size: {description: Size of the live database in bytes., returned: success, type: int}
without_rows:
  description: Tables whose rows the server refused in the copy. If there are any, no record is kept, and O(fail) fails.
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
