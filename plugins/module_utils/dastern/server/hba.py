"""The text of this project's pg_hba.conf and pg_ident.conf."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..common.errors import DasTernError
from ..common.sql_values import identifier, name_pattern

_HEADING = """\
# Written by the postgres role; further lines belong in postgres_hba_extra.
# The first matching line decides. Passwords are only ever compared by SCRAM.
"""


MAP = "das_tern"
"""Name of the map in pg_ident.conf that lets the container's own superuser log in as any role."""
IDENT = f"""\
# Written by the postgres role. The superuser inside the container can log in as any role there, so that a role's objects are
# handled by that role itself: a session that logged in as the role can't become the superuser again.
{MAP} postgres all
"""
BACKUP_ROLE = "das_tern_backup"
"""Role as which pgBackRest connects to the server from the backup container."""
RECEIVER = "das_tern_receiver"
"""Role of zero loss's receiver, and the name of its slot and its connection."""


def content(
    superuser: str,
    database: str,
    app_user: str,
    readonly_user: str,
    extra: Sequence[str],
    *,
    createdb: bool,
) -> str:
    """Return the whole pg_hba.conf.

    The application's user may enter its own database and the scratch databases that the superuser makes for it; with
    `createdb`, also the databases that it creates itself (Prisma's shadow). The receiver of zero loss has its line whatever is
    declared: an interrupted run mustn't leave commits that wait for a receiver which can't come back. Without zero loss
    there is no such role.
    """
    for line in extra:
        if not isinstance(line, str) or not line.strip() or "\n" in line or "\r" in line:
            raise DasTernError(
                f"postgres_hba_extra holds {line!r}, which isn't one line of pg_hba.conf. "
                "An entry is one line, such as `host all monitor 10.0.0.0/8 scram-sha-256`."
            )
    # Quotes take away the special meaning of names such as `all`, `replication` or `+role`.
    own = f"{identifier(database)},{identifier('/' + name_pattern(database))}"
    lines = [
        f"local all {identifier(superuser)} peer",
        f"local all all peer map={MAP}",
        f"host all {identifier(superuser)} all reject",
        f"host replication {RECEIVER} samenet scram-sha-256",
        f"host postgres {BACKUP_ROLE} samenet scram-sha-256",
        *(line.strip() for line in extra),
        f"host {'all' if createdb else own} {identifier(app_user)} all scram-sha-256",
        f"host {identifier(database)} {identifier(readonly_user)} all scram-sha-256",
        "host all all all reject",
    ]
    return _HEADING + "\n".join(lines) + "\n"


_READERS_LINE = re.compile(r'^host "((?:[^"]|"")+)" "(?:[^"]|"")+" all scram-sha-256$', re.MULTILINE)


def database_of(text: str) -> str | None:
    """Return the database that a file made by `content` is for, or None if it isn't such a file."""
    # An extra line of the inventory may look alike; the read-only role's line stands behind these.
    names = _READERS_LINE.findall(text)
    return names[-1].replace('""', '"') if names else None
