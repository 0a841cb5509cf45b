#!/usr/bin/python
"""Ansible module: plain SQL out of a database, or into a new one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_plain
short_description: Write a database as plain SQL, or make a new database of plain SQL
description:
  - C(pg_dump) and C(psql) of the server's own container, over its socket, so that no password is involved.
  - What is written is one transaction that ends at the first error, with the number of rows of each table. It has no roles, no
    settings of the database, and no subscriptions. The file is there when it is complete and on disk, never before.
  - What is read goes into a new database by one transaction, with the rights of that database's owner and of nobody else.
    psql's own commands are forbidden in it.
  - With O(into) the live database's own name the new one takes its place, by the swap of a restore, once O(confirm) says so.
options:
  repository: {description: "From which repository; a further one is for when the first is lost.", type: int, default: 1}
  wait: {description: Seconds to wait for another run that works with the backups., type: int, default: 60}
  out:
    description: New file on the host for all of O(database); one that ends in C(.gz) is compressed.
    type: path
    default: ""
  file:
    description: File on the host to make the database O(into) of. Instead of O(out).
    type: path
    default: ""
  into:
    description: Name of the new database, which gets the owner of O(database); or that of O(database), which is then replaced.
    type: str
    default: ""
  confirm: {description: "C(environment/host/database), in development the database's name, without which nothing is replaced.", type: str, default: ""}
  instance: {description: "Set by the action plugin: C(environment/host).", type: str, default: ""}
  keep_old_hours: {description: How long what was replaced is kept., type: int, default: 72}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Looks whether file and database can be there, and makes neither.
  diff_mode:
    support: none
    description: It would be all of a database.
  idempotent:
    support: none
    description: A file or a database that is there already is a refusal.
author: Das Tern
"""

EXAMPLES = r"""
- name: Write the database as plain SQL
  backup_plain:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
    out: /srv/dastern.sql.gz

- name: Make a database of it
  backup_plain:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
    file: /srv/dastern.sql.gz
    into: dastern_copy
"""

RETURN = r"""
lines: {description: What was or would be done., returned: success, type: list}
bytes: {description: Size of the file., returned: "with O(out), when it was written", type: int}
tables: {description: Rows by table., returned: "with O(file), when it was read", type: dict}
compared: {description: Whether the file said how many rows it has., returned: "with O(file), when it was read", type: bool}
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
