"""The server's pg_hba.conf as this project wants it, as text."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import DasTernError
from .scratch import name_pattern

_HEADING = """\
# Written by the postgres role; a line for more goes into postgres_hba_extra.
# Read from the top, the first line that fits decides. Passwords are only ever compared by SCRAM.
"""


def quoted(name: str) -> str:
    """A name without the meaning that `all`, `replication`, `+role` or `/pattern` would have."""
    return '"' + name.replace('"', '""') + '"'


def content(
    superuser: str, database: str, app_user: str, readonly_user: str, extra: Sequence[str], *, createdb: bool
) -> str:
    """The whole file. With `createdb` the application's user may enter the databases that it makes (Prisma's shadow).

    Without, only its own and the scratch databases that the superuser makes for it.
    """
    for line in extra:
        if not isinstance(line, str) or not line.strip() or "\n" in line or "\r" in line:
            raise DasTernError(
                f"postgres_hba_extra holds {line!r}, which isn't one line of pg_hba.conf. "
                "An entry is one line, such as `host all monitor 10.0.0.0/8 scram-sha-256`."
            )
    own = f"{quoted(database)},{quoted('/' + name_pattern(database))}"
    lines = [
        f"local all {quoted(superuser)} peer",
        "local all all reject",
        f"host all {quoted(superuser)} all reject",
        *(line.strip() for line in extra),
        f"host {'all' if createdb else own} {quoted(app_user)} all scram-sha-256",
        f"host {quoted(database)} {quoted(readonly_user)} all scram-sha-256",
        "host all all all reject",
    ]
    return _HEADING + "\n".join(lines) + "\n"
