#!/usr/bin/python
"""Documentation of the action plugin `new_migration`, which does its work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: new_migration
short_description: Create the directory and the files of a new migration
description:
  - Creates C(<YYYYMMDDHHMMSS>_<name>/migration.sql), stamped with the time in UTC, in a folder of migrations on the
    controller. The file holds comments about what may be written there.
  - If the newest migration is stamped later than the clock, the new one is stamped a second after it, with a warning.
options:
  folder:
    description: The migrations folder on the controller. A relative path counts from the root of this project.
    type: str
    required: true
  name:
    description:
      - What the migration does, such as V(add_user_avatar). It is written as C(prisma migrate dev --name) writes it,
        C(addUserAvatar) as C(add_user_avatar). A name that is in the folder already is refused, whatever its stamp.
    type: str
    required: true
  down:
    description: Whether to create a C(down.sql) beside it.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Refuses whatever a run would refuse; writes nothing.
  diff_mode:
    support: full
    description: Shows the files.
  idempotent:
    support: none
    description: Each run creates a new migration; a second one with the same name is refused.
author: Das Tern
"""

EXAMPLES = r"""
- name: Create the files of a new migration
  new_migration:
    folder: files/sql/migrations
    name: add_user_avatar_field
"""

RETURN = r"""
name:
  description: Name of the directory.
  type: str
  returned: success
  sample: 20260301101500_add_user_avatar_field
files:
  description: Paths of the files that were or would be written.
  type: list
  elements: str
  returned: success
"""
