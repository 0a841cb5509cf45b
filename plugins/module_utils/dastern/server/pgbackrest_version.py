"""The releases of pgBackRest that this project works with.

The backup tests run with the oldest and the newest (`tests/integration/test_pgbackrest_versions.py`).
"""

from __future__ import annotations

import re

from ..common.commands import playbook
from ..common.errors import DasTernError
from ..docker.containers import Output

OLDEST, NEWEST = (2, 55), (2, 60)
RANGE = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
COMMAND = ("sh", "-c", "pgbackrest version")
"""Command that prints the version. A shell reports a missing program in the same way everywhere.

`version` has no JSON form, and its `--output=num` came with 2.55: older releases have to be read, too.
"""
FIX = playbook("provision", postgres_image_source="build", postgres_image_refresh=True)
"""Command that builds an image with the distribution's pgBackRest and runs it."""
MISSING = 127
"""Exit code of a shell that finds no such program."""


def read(where: str, done: Output) -> str:
    """Return the version that `COMMAND` printed, such as `2.55.1`. Raise `DasTernError` if it is missing or too old.

    `where` names the asked container or image in a message, such as `Container dastern`.
    """
    fix = f"Use an image that has it: `{FIX}`."
    if done.rc == MISSING:
        raise DasTernError(f"{where} has no pgBackRest; expected {RANGE}. {fix}", pgbackrest="")
    version = re.search(r"^pgBackRest (\d+\.\d+(?:\.\d+)*)", done.out, re.MULTILINE)
    if version is None:
        raise DasTernError(
            f"{where} doesn't report its version of pgBackRest (`pgbackrest version`): {done.last_words}.",
            **done.outside,
        )
    if release(version[1]) < OLDEST:
        raise DasTernError(f"{where} has pgBackRest {version[1]}; expected {RANGE}. {fix}", pgbackrest=version[1])
    return version[1]


def untested(version: str) -> list[str]:
    """Return a line about a version newer than the tested ones; no line for other versions, or for '' (none)."""
    if not version or release(version) <= NEWEST:
        return []
    return [
        f"pgBackRest {version} is newer than the tested versions ({RANGE}): `{playbook('restore_drill')}` shows "
        "whether its backups can be restored"
    ]


def release(version: str) -> tuple[int, ...]:
    """Return the release in the form of `OLDEST` and `NEWEST`."""
    return tuple(map(int, version.split(".")[:2]))
