"""The indexes that CREATE, DROP and REINDEX INDEX CONCURRENTLY leave when they fail or are cut short.

A build that doesn't end leaves an INVALID index. Another session's build in progress looks the same in the catalogue;
its progress report and its lock on the table, which every role may see, tell the two apart. Source: the manual's
"Building Indexes Concurrently" and "Rebuilding Indexes Concurrently".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..common.sql_text import Statement

if TYPE_CHECKING:
    import psycopg

_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_PATH = rf"(?:{_NAME}\s*\.\s*)?{_NAME}"
_CREATE = re.compile(
    rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:(?!ON\s)(?P<name>{_NAME})\s+)?"
    rf"ON\s+(?:ONLY\s+)?(?P<table>{_PATH})",
    re.IGNORECASE,
)
_DROP = re.compile(
    rf"DROP\s+INDEX\s+CONCURRENTLY\s+(?:IF\s+EXISTS\s+)?(?P<name>{_PATH})(?:\s+CASCADE|\s+RESTRICT)?\s*\Z",
    re.IGNORECASE,
)
_REINDEX = re.compile(
    rf"REINDEX\s+(?:\([^)]*\)\s*)?(?P<kind>INDEX|TABLE|SCHEMA|DATABASE)\s+(?:CONCURRENTLY\s+)?(?P<name>{_PATH})?",
    re.IGNORECASE,
)
_ON_TARGET = """
WITH given AS (
    SELECT coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = to_regclass(%(target)s)), to_regclass(%(target)s)) AS oid
), tables AS (
    SELECT oid FROM given UNION SELECT relid FROM given, pg_partition_tree(oid)
)
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), i.indisvalid
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'i'
    AND (%(name)s::text IS NULL OR c.relname = (parse_ident(%(name)s))[1]::name)
    AND (%(target)s::text IS NULL OR i.indrelid IN (
        SELECT oid FROM tables UNION SELECT reltoastrelid FROM pg_class WHERE oid IN (SELECT oid FROM tables)))
    AND (NOT %(copies)s OR c.relname ~ '_cc(new|old)[0-9]*$')
    AND (i.indisvalid OR NOT EXISTS (
        SELECT FROM pg_locks AS l WHERE l.locktype = 'relation' AND l.relation = i.indrelid AND l.pid <> pg_backend_pid()
            AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid IN (SELECT pid FROM pg_stat_progress_create_index) AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())))
ORDER BY 1
"""


@dataclass(frozen=True)
class Build:
    """One such statement; its names are as written, None where the statement gives none."""

    verb: str
    """`CREATE`, `DROP` or `REINDEX`."""
    name: str | None
    """The index; None for REINDEX, which works on copies."""
    target: str | None
    """The table of CREATE; the table or index of REINDEX."""

    def valid(self, connection: psycopg.Connection[Any]) -> bool | None:
        """Return whether the index of CREATE or DROP is valid; None if it doesn't exist or somebody is building it."""
        if self.verb == "DROP":
            rows = connection.execute(
                "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (self.name,)
            )
            return next((valid for (valid,) in rows), None)
        return next((valid for _, valid in self._indexes(connection)), None)

    def invalid(self, connection: psycopg.Connection[Any]) -> list[str]:
        """Return the qualified names of INVALID indexes that the statement can have left and nobody is building now."""
        if self.verb == "DROP":
            return []
        suspects = [name for name, valid in self._indexes(connection) if not valid]
        # Locks are read later than the catalogue: a build that ends in between looks abandoned at the first look.
        return [name for name, valid in self._indexes(connection) if not valid and name in suspects] if suspects else []

    def _indexes(self, connection: psycopg.Connection[Any]) -> list[tuple[str, bool]]:
        values = {"name": self.name, "target": self.target, "copies": self.verb == "REINDEX"}
        return connection.execute(_ON_TARGET, values).fetchall()


def read(statement: Statement) -> Build | None:
    """Parse a statement that builds or drops an index concurrently; None for others or with comments inside."""
    if match := _CREATE.match(statement.text):
        return Build("CREATE", match["name"], match["table"])
    if match := _DROP.match(statement.text):
        return Build("DROP", match["name"], None)
    if (match := _REINDEX.match(statement.text)) and re.search(r"\bconcurrently\b", statement.text, re.IGNORECASE):
        has_target = match["kind"].upper() in ("INDEX", "TABLE")
        return Build("REINDEX", None, match["name"] if has_target else None)
    return None
