"""A database and a folder of migrations for one test, and how the tests migrate it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile, read_folder
from ansible.module_utils.dastern.migrations.migrate import ARGUMENT_SPEC, migrate

ROOT = Path(__file__).resolve().parents[2]
LOCK = 72707369


class Database:
    """A database of its own for one test, and a folder of migrations for it."""

    def __init__(self, instance: Any, name: str, folder: Path) -> None:
        self.instance, self.name, self.folder = instance, name, folder
        self.given: dict[str, Any] = {}
        """Options for every run of it."""

    def create(self, template: str = "template0") -> None:
        """Make it anew, empty."""
        self.drop()
        self._home.query(f'CREATE DATABASE "{self.name}" TEMPLATE {template}')

    def drop(self) -> None:
        drop = f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)'
        try:
            self._home.query(drop)
        except psycopg.errors.InsufficientPrivilege:  # only a superuser sends autovacuum away
            self.instance.sql(drop, "postgres")

    @property
    def _home(self) -> Database:
        return Database(self.instance, self.instance.database, self.folder)

    def write(self, **files: str | bytes) -> None:
        for name, content in files.items():
            path = self.folder / name.removeprefix("_") / "migration.sql"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def files(self) -> list[MigrationFile]:
        return read_folder(self.folder)

    def params(self, **changes: Any) -> dict[str, Any]:
        defaults = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        return {
            **defaults,
            "host": self.instance.host,
            "port": self.instance.port,
            "database": self.name,
            "user": self.instance.app_user,
            "password_file": str(self.instance.password_file),
            "folder": str(self.folder),
            "migrations": [{"name": file.name, "sql": file.sql} for file in self.files()],
            **self.given,
            **changes,
        }

    def migrate(self, *, check_mode: bool = False, diff: bool = False, **changes: Any) -> dict[str, Any]:
        return migrate(self.params(**changes), check_mode=check_mode, diff=diff)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.instance.host,
            port=self.instance.port,
            dbname=self.name,
            user=self.instance.app_user,
            password=Path(self.instance.password_file).read_text().strip(),
            autocommit=True,
        )

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            cursor = connection.execute(text, values or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def ledger(self) -> list[str]:
        if self.query("SELECT to_regclass('_prisma_migrations')") == [(None,)]:
            return []
        return [name for (name,) in self.query("SELECT migration_name FROM _prisma_migrations ORDER BY started_at")]

    def state(self) -> str:
        """A fingerprint of everything a migration could change: catalogue rows and the ledger."""
        parts = self.query(
            "SELECT md5(string_agg(x, '|' ORDER BY x)) FROM ("
            " SELECT concat('c', c.oid, c.relname, c.xmin, c.relkind) AS x FROM pg_class c WHERE relnamespace = 'public'::regnamespace"
            " UNION ALL SELECT concat('t', oid, typname, xmin) FROM pg_type WHERE typnamespace = 'public'::regnamespace) AS s"
        )
        ledger = self.query("SELECT * FROM _prisma_migrations ORDER BY id") if self.ledger() else []
        return f"{parts}{ledger}"

    def playbook(self, *arguments: str, playbook: str = "migrate.yml", **variables: Any) -> list[str]:
        """The command line that works on this database the way an operator does."""
        values = {
            "postgres_host": self.instance.host,
            "postgres_port": self.instance.port,
            "postgres_database": self.name,
            "postgres_app_user": self.instance.app_user,
            "postgres_config_dir": str(Path(self.instance.password_file).parent),
            "migrations_dir": str(self.folder),
            **variables,
        }
        extra = [word for name, value in values.items() for word in ("-e", f"{name}={value}")]
        return [str(Path(sys.executable).with_name("ansible-playbook")), playbook, *extra, *arguments]

    def play(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.playbook(*arguments, **variables), cwd=ROOT, capture_output=True, text=True, timeout=300
        )


def refused(database: Database, **changes: Any) -> DasTernError:
    """The refusal of a run that must leave the database as it was, whether it was to write or only to check."""
    before = database.state()
    for check_mode in (True, False):
        with pytest.raises(DasTernError) as refusal:
            database.migrate(check_mode=check_mode, **changes)
        assert database.state() == before
    return refusal.value


def running(database: Database, words: str) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
    return bool(database.query(query, database.name, f"%{words}%"))


def wait_until(condition: Any, seconds: float = 180) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)
