#!/usr/bin/python
"""Ansible module: write a database as plain SQL, or create one from it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_plain
short_description: Write a database as plain SQL, or create a database from plain SQL
description:
  - Runs C(pg_dump) and C(psql) in the server's own container, over its socket, so that no password is involved.
  - A written file is one transaction that ends at the first error, and states the number of rows of each table. It has no
    roles, no settings of the database, and no subscriptions. It appears under its name only once it is complete and on disk.
  - A file is read into a new database in one transaction, with the rights of that database's owner only. It may not contain
    psql's own commands.
  - If O(into) is the live database's own name, the new database takes its place by the swap of a restore, once O(confirm)
    confirms it.
options:
  repository: {description: "Number of the repository; the further ones serve when the first is lost.", type: int, default: 1}
  wait: {description: Seconds to wait for another run that works with the backups., type: int, default: 60}
  out:
    description: New file on the host for all of O(database), compressed if its name ends in C(.gz).
    type: path
    default: ""
  file:
    description: File on the host from which the database O(into) is created. Excludes O(out).
    type: path
    default: ""
  into:
    description: Name of the new database, which gets the owner of O(database); the name of O(database) itself replaces it.
    type: str
    default: ""
  confirm: {description: "C(environment/host/database), in development the database's name, without which nothing is replaced.", type: str, default: ""}
  instance: {description: "Set by the action plugin: C(environment/host).", type: str, default: ""}
  keep_old_hours: {description: Hours for which the replaced database is kept., type: int, default: 72}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Checks whether file or database can be created, and creates neither.
  diff_mode:
    support: none
    description: The difference would be a whole database.
  idempotent:
    support: none
    description: An existing file or database is refused.
author: Das Tern
"""

EXAMPLES = r"""
- name: Write the database as plain SQL
  backup_plain:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
    out: /srv/dastern.sql.gz

- name: Create a database from the file
  backup_plain:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
    file: /srv/dastern.sql.gz
    into: dastern_copy
"""

RETURN = r"""
lines: {description: "What was or would be done, in words.", returned: success, type: list}
bytes: {description: Size of the file., returned: "with O(out), when it was written", type: int}
tables: {description: Rows by table., returned: "with O(file), when it was read", type: dict}
compared: {description: Whether the file stated how many rows it has., returned: "with O(file), when it was read", type: bool}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.text import presentable
from ansible.module_utils.dastern.restores.plain_sql import ARGUMENT_SPEC, plain_sql


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = plain_sql(module.params, check_mode=module.check_mode)
    except DasTernError as refusal:
        module.fail_json(**presentable({"failed": True, "msg": refusal.message, **refusal.facts}))
    module.exit_json(**presentable(result))


if __name__ == "__main__":
    main()
