"""The least that applies a folder of migrations: one connection, one transaction each, with its ledger row.

No lock, no check of checksums, no reset of the session, no error in words: the floor below which nothing that keeps
a ledger can be. Connects by libpq's environment variables.

Usage: python psycopg_loop.py MIGRATIONS_FOLDER
"""

import hashlib
import sys
import uuid
from pathlib import Path

import psycopg

CREATE = """
CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id varchar(36) PRIMARY KEY NOT NULL,
    checksum varchar(64) NOT NULL,
    finished_at timestamptz,
    migration_name varchar(255) NOT NULL,
    logs text,
    rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    applied_steps_count integer NOT NULL DEFAULT 0
)
"""
RECORD = (
    "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count) "
    "VALUES (%s, %s, %s, clock_timestamp(), 1)"
)

with psycopg.connect("", autocommit=True) as connection:
    connection.execute(CREATE)
    applied = {name for (name,) in connection.execute("SELECT migration_name FROM _prisma_migrations")}
    for path in sorted(Path(sys.argv[1]).glob("*/migration.sql")):
        name = path.parent.name
        if name not in applied:
            content = path.read_bytes()
            with connection.transaction():
                connection.execute(content)
                connection.execute(RECORD, (str(uuid.uuid4()), hashlib.sha256(content).hexdigest(), name))
