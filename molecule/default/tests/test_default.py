"""What `make up` made, seen from outside: the container, the server, the schema, the rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests"))

from catalogue import catalogue, expected  # noqa: E402

NAME, PORT, DATABASE, USER = "dastern-molecule", 25432, "dastern", "dastern_user"
SECRETS = Path("/etc/das-tern") / NAME


def connect(user: str = USER, password: str | None = None, database: str = DATABASE) -> psycopg.Connection[Any]:
    file = {USER: "app_password", "dastern_readonly": "readonly_password"}.get(user)
    word = password or ((SECRETS / file).read_text().strip() if file else "none")
    return psycopg.connect(
        host="127.0.0.1", port=PORT, dbname=database, user=user, password=word, autocommit=True, connect_timeout=5
    )


def query(text: str, *values: Any, **connection: Any) -> list[tuple[Any, ...]]:
    with connect(**connection) as session:
        return session.execute(text, values or None).fetchall()


def superuser(text: str, database: str = DATABASE) -> str:
    command = [
        "docker",
        "exec",
        "-u",
        "postgres",
        NAME,
        "psql",
        "-XAtq",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        database,
        "-c",
        text,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def container() -> dict[str, Any]:
    output = subprocess.run(["docker", "inspect", NAME], check=True, capture_output=True, text=True).stdout
    found = json.loads(output)[0]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", "20"),
        ("shared_buffers", "256MB"),
        ("effective_cache_size", "1GB"),
        ("TimeZone", "Asia/Phnom_Penh"),
        ("log_timezone", "Asia/Phnom_Penh"),
        ("maintenance_work_mem", "64MB"),
        ("checkpoint_completion_target", "0.9"),
        ("wal_buffers", "16MB"),
        ("random_page_cost", "1.1"),
        ("effective_io_concurrency", "200"),
        ("log_min_duration_statement", "1s"),
        ("data_checksums", "on"),
        ("password_encryption", "scram-sha-256"),
        ("server_encoding", "UTF8"),
    ],
)
def test_setting(name: str, value: str) -> None:
    assert query(f"SHOW {name}") == [(value,)]


def test_server_is_17() -> None:
    assert query("SELECT current_setting('server_version_num')::int / 10000") == [(17,)]


def test_published_on_loopback_only(host: Any, container: dict[str, Any]) -> None:
    assert container["NetworkSettings"]["Ports"] == {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(PORT)}]}
    assert host.socket(f"tcp://127.0.0.1:{PORT}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{PORT}").is_listening


def test_container_is_confined(container: dict[str, Any]) -> None:
    settings = container["HostConfig"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert not settings["Privileged"]
    assert settings["ReadonlyRootfs"]
    assert any(option.startswith("no-new-privileges") for option in settings["SecurityOpt"])
    assert settings["Memory"] > 0
    assert settings["ShmSize"] >= 256 * 1024**2
    assert settings["RestartPolicy"]["Name"] == "unless-stopped"
    assert {"max-size", "max-file"} <= set(settings["LogConfig"]["Config"])
    assert set(settings["Tmpfs"]) >= {"/tmp", "/var/run/postgresql"}
    assert container["Config"]["StopTimeout"] >= 60
    assert container["Config"]["Healthcheck"]["Test"]
    assert container["State"]["Health"]["Status"] == "healthy"
    # The init that reaps what a killed command leaves, and the server below it.
    for name in ("docker-init", "postgres"):
        status = subprocess.run(
            ["docker", "exec", NAME, "sh", "-c", f"cat $(grep -lx Name:.{name} /proc/[0-9]*/status | head -n 1)"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Name"] == name
        assert fields["Uid"].split()[0] == "999"
        assert int(fields["CapEff"], 16) == 0
        assert fields["NoNewPrivs"] == "1"


def test_secrets_are_files_that_only_their_owner_reads(host: Any, container: dict[str, Any]) -> None:
    assert host.file(str(SECRETS)).mode == 0o700
    for name in ("app_password", "readonly_password"):
        file = host.file(str(SECRETS / name))
        assert (file.mode, file.user) == (0o600, "root")
        assert file.content_string.strip() not in json.dumps(container)


def test_roles_and_privileges() -> None:
    assert query(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s",
        USER,
    ) == [(False, False, True, False, False)]
    assert query("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", DATABASE) == [(USER,)]
    assert query("SELECT has_database_privilege('public', %s, 'CONNECT')", DATABASE) == [(False,)]
    assert query("SELECT has_schema_privilege('public', 'public', 'CREATE')") == [(False,)]
    for user in ("postgres", "nobody"):
        with pytest.raises(psycopg.OperationalError):
            connect(user=user)
    with pytest.raises(psycopg.OperationalError):
        connect(password="wrong")


def test_readonly_role_reads_and_writes_nothing() -> None:
    readonly = {"user": "dastern_readonly"}
    assert query("SELECT count(*) FROM users", **readonly) == [(11,)]
    for statement in ('UPDATE users SET "firstName" = NULL RETURNING 1', "CREATE TABLE x ()", "CREATE TEMP TABLE x ()"):
        with connect(**readonly) as session:
            session.execute("SET default_transaction_read_only = off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)
    with connect() as owner, owner.transaction(force_rollback=True):
        owner.execute("CREATE TABLE later ()")
        assert owner.execute("SELECT has_table_privilege('dastern_readonly', 'later', 'SELECT')").fetchone() == (True,)


def test_catalogue_equals_the_facts() -> None:
    found, wanted = catalogue(query), expected()
    for part in wanted:
        assert found[part] == wanted[part], part


def test_seeded_rows() -> None:
    tables = {
        "users": 11, "subscriptions": 4, "meal_time_preferences": 4, "connections": 8, "prescriptions": 5,
        "medications": 11, "prescription_versions": 4, "dose_events": 15, "notifications": 8, "audit_logs": 13,
    }  # fmt: skip
    for table, count in tables.items():
        assert query(f"SELECT count(*) FROM {table}") == [(count,)], table
    assert query("SELECT count(*) > 0 FROM family_members") == [(True,)]


def test_second_run_writes_nothing() -> None:
    """Every write would fail: the database is read-only, and the run must neither fail nor change."""
    superuser(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on", "postgres")
    try:
        result = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "-i", str(Path(__file__).parents[1] / "inventory"), str(ROOT / "playbooks" / "site.yml"), "-vvv", "--diff",
            ],
            cwd=ROOT, capture_output=True, text=True, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        )  # fmt: skip
    finally:
        superuser(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only", "postgres")
    assert result.returncode == 0, result.stdout
    assert "· 0 changed ·" in result.stdout
    for name in ("app_password", "readonly_password"):
        assert (SECRETS / name).read_text().strip() not in result.stdout + result.stderr
    assert "$2b$" not in result.stdout
