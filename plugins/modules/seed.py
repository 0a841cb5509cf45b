#!/usr/bin/python
"""Ansible module: ensure declared rows in a PostgreSQL database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seed
short_description: Ensure declared rows, and touch nothing else
description:
  - Brings the rows that the YAML files of a seed folder declare into the database, by their keys, in one transaction. Missing
    rows are inserted; of existing rows only the declared columns that differ are updated. Rows and columns that aren't
    declared are never touched, and nothing is deleted.
  - SQL files of the folder run in the same transaction, in the byte order of all file names.
  - Ids are UUID v5 of table and key, so they are the same everywhere; a reference stands for the id that its row has in the
    database.
  - Can also add many synthetic patients for load tests, generated inside the server.
  - The files are read on the controller by the action plugin of the same name and sent along; the connection is made from
    the host that the task runs on.
options:
  seed_environment:
    description: Environment whose files are used, a folder under O(folder). V(production) is always refused.
    type: str
    required: true
  folder:
    description: Folder of the seed folders on the controller. A relative path counts from the root of this project.
    type: str
    required: true
  declared:
    description: The files as JSON. Filled by the action plugin; a secret because rows hold password hashes.
    type: str
    default: ""
  today:
    description: Day of seeding, as C(YYYY-MM-DD), from which relative times count. Empty means the server's day in Asia/Phnom_Penh.
    type: str
    default: ""
  assume_empty:
    description: Plan against an empty database without connecting; for check mode before the database exists.
    type: bool
    default: false
extends_documentation_fragment: [variables, dastern]
attributes:
  check_mode:
    support: full
    description: Reads only. With SQL files in the folder everything runs in a transaction that is rolled back.
  diff_mode:
    support: full
    description: Shows the columns of each differing row before and after; columns that end in C(Hash) are hidden.
  idempotent:
    support: partial
    description:
      - If there is nothing to write, only reads are sent. Relative times differ on another day.
      - SQL files are as idempotent as their statements.
author: Das Tern
"""

EXAMPLES = r"""
- name: Seed the development data
  seed:
    environment: development
    seed_environment: development
    allowed: true
    folder: files/sql/seeds
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
"""

RETURN = r"""
inserted:
  description: Number of declared rows that were or would be inserted.
  type: int
  returned: always
updated:
  description: Number of declared rows of which columns were or would be updated.
  type: int
  returned: always
unchanged:
  description: Number of declared rows that were already as declared.
  type: int
  returned: always
tables:
  description: The same three numbers by table.
  type: dict
  returned: always
  sample: {"users": {"inserted": 11, "updated": 0, "unchanged": 0}}
rows:
  description: The rows that differ, with table, file, line and columns, in diff mode also their values; at most 500.
  type: list
  elements: dict
  returned: always
rows_not_shown:
  description: Number of further rows that differ.
  type: int
  returned: always
scripts:
  description: The SQL files with the number of rows that each wrote, as C(pg_stat_xact_user_tables) counts them.
  type: list
  elements: dict
  returned: always
volume:
  description: Synthetic patients requested and missing, rows by table, and the milliseconds of each step.
  type: dict
  returned: when O(scale) is not 0
waited_for:
  description: The seed for which this one waited, and how long.
  type: dict
  returned: when it waited
seconds:
  description: Duration on the host.
  type: float
  returned: always
sqlstate:
  description: The server's error code; also RV(file), RV(line), RV(table), RV(column) as far as known.
  type: str
  returned: when the server refused something
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.seeds.run import ARGUMENT_SPEC, seed


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = seed(module.params, check_mode=module.check_mode, diff=module._diff)
    except DasTernError as error:
        module.fail_json(msg=error.message, **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
