"""Which releases of pgBackRest this project works with.

The backup tests run with the oldest and the newest of them (`tests/integration/test_pgbackrest_versions.py`).
"""

from __future__ import annotations

import re

from ..common.commands import playbook
from ..common.errors import DasTernError
from ..docker.containers import Output

OLDEST, NEWEST = (2, 55), (2, 60)
RANGE = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
COMMAND = ("sh", "-c", "pgbackrest version")
"""Through a shell, which says in the same way everywhere that there is no such program.

`version` has no JSON form, and its `--output=num` came with 2.55: what is older has to be read, too.
"""
FIX = playbook("provision", postgres_image_source="build", postgres_image_refresh=True)
"""Makes an image with the distribution's pgBackRest, and runs it."""
MISSING = 127
"""The shell's code where there is no such program."""


def read(where: str, done: Output) -> str:
    """Return the version that `COMMAND` printed, such as `2.55.1`; raise `DasTernError` for one that is missing or too old.

    `where` says in a message what was asked, such as `Container dastern`.
    """
    fix = f"Take an image that has it: `{FIX}`."
    if done.rc == MISSING:
        raise DasTernError(f"{where} has no pgBackRest; wanted is {RANGE}. {fix}", pgbackrest="")
    found = re.search(r"^pgBackRest (\d+\.\d+(?:\.\d+)*)", done.out, re.MULTILINE)
    if found is None:
        raise DasTernError(
            f"{where} can't say its version of pgBackRest (`pgbackrest version`): {done.last_words}.", **done.outside
        )
    if release(found[1]) < OLDEST:
        raise DasTernError(f"{where} has pgBackRest {found[1]}; wanted is {RANGE}. {fix}", pgbackrest=found[1])
    return found[1]


def untested(version: str) -> list[str]:
    """Return a line on a version that is newer than those that were tested; nothing on another one, or on '' for none."""
    if not version or release(version) <= NEWEST:
        return []
    return [
        f"pgBackRest {version} is newer than what this project was tested with ({RANGE}): `{playbook('restore_drill')}` shows "
        "whether its backups can be restored"
    ]


def release(version: str) -> tuple[int, ...]:
    """Return what `OLDEST` and `NEWEST` are compared with."""
    return tuple(map(int, version.split(".")[:2]))
