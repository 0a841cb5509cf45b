"""The postgres role against a real engine: what it makes, what it refuses, and what survives an interruption."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.common import scram
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.server.access_files import keep
from ansible.module_utils.dastern.server.cluster import initialise, rehearse
from ansible.module_utils.dastern.server.settings import command
from ansible.module_utils.dastern.server.survey import survey
from conftest import IMAGE, REPOSITORY, Instance, Play, docker, instance_variables, remove_instance

Run = Callable[..., Play]
PLAYBOOK = "- hosts: dastern\n  gather_facts: false\n  roles:\n    - postgres\n"
SECRET = "a secret: @/?#%&'\"$`\\ ~"


def entry(name: str) -> str:
    return (
        "- hosts: dastern\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.import_role:\n        name: postgres\n        tasks_from: {name}\n"
    )


def inspect(container: str) -> dict[str, Any]:
    return dict(json.loads(docker("inspect", container).stdout)[0])


class Role:
    """One instance and the variables that it was made with."""

    def __init__(self, play: Run, image: dict[str, str], name: str, port: int, folder: Path) -> None:
        self.play, self.name, self.port = play, name, port
        self.config_dir = folder / name
        self.variables = {**image, **instance_variables(name, port, self.config_dir)}

    def run(self, *args: str, playbook: str = PLAYBOOK, **changes: Any) -> Play:
        return self.play(playbook, {**self.variables, **changes}, *args)

    def done(self, *args: str, **changes: Any) -> Play:
        """A run that has to succeed."""
        result = self.run(*args, **changes)
        assert result.rc == 0, result.stdout
        return result

    def refused(self, message: str, *args: str, **changes: Any) -> Play:
        """A run that has to fail with `message` and to leave everything as it was."""
        before = self.state()
        result = self.run(*args, **changes)
        assert result.rc != 0, result.stdout
        assert message in " ".join(result.stdout.replace("''", "'").split()), result.stdout
        assert "Traceback" not in result.stdout
        assert self.state() == before
        return result

    def state(self) -> list[Any]:
        """What a refused run must leave as it was."""
        found = docker("inspect", self.name, check=False).stdout
        containers = [(item["Id"], item["State"]["StartedAt"]) for item in json.loads(found or "[]")]
        files = {str(path): path.read_bytes() for path in sorted(self.config_dir.rglob("*")) if path.is_file()}
        volumes = docker("volume", "ls", "-q").stdout.split()
        return [containers, files, f"{self.name}-data" in volumes]

    def sql(self, sql: str, database: str = "dastern") -> str:
        return docker("exec", "-i", "-u", "postgres", self.name, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database,
                      stdin=sql).stdout.strip()  # fmt: skip

    def connect(self, user: str = "dastern_user", password: str | None = None, database: str = "dastern") -> Any:
        if password is None:
            file = "readonly_password" if user == "dastern_readonly" else "app_password"
            password = (self.config_dir / file).read_text().removesuffix("\n")
        return psycopg.connect(
            host="127.0.0.1", port=self.port, dbname=database, user=user, password=password, autocommit=True
        )


@pytest.fixture(scope="module")
def role(play: Run, image: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    """An instance that the tests below share; each leaves it as declared."""
    name = "dastern-test-pgrole"
    remove_instance(name)
    made = Role(play, image, name, 25110, tmp_path_factory.mktemp("role"))
    made.done()
    yield made
    remove_instance(name)


@pytest.fixture
def fresh(play: Run, image: dict[str, str], tmp_path: Path) -> Iterator[Role]:
    """Names for an instance that isn't there yet."""
    name = "dastern-test-pgfresh"
    remove_instance(name)
    yield Role(play, image, name, 25111, tmp_path)
    remove_instance(name)


def test_a_bare_machine_four_times(fresh: Role) -> None:
    first = fresh.done("--check", "--diff")
    assert first.changed > 0
    assert "would be created" in first.section("postgres")["lines"][0]
    assert fresh.state() == [[], {}, False]
    made = fresh.done("-vvv", "--diff")
    assert made.changed > 0
    assert f"container {fresh.name} created, healthy in" in made.section("postgres")["lines"][0]
    secrets = [(fresh.config_dir / name).read_text().strip() for name in ("app_password", "readonly_password")]
    assert all(len(secret) >= 32 and secret not in made.stdout for secret in secrets)
    assert fresh.done().changed == 0
    assert fresh.done("--check").changed == 0
    assert stat.S_IMODE(fresh.config_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((fresh.config_dir / "app_password").stat().st_mode) == 0o600


def test_without_an_engine_or_an_image_check_mode_says_what_it_would_do(fresh: Role) -> None:
    for absent in ({"docker_engine_absent": True, "docker_engine_endpoint": ""}, {"postgres_image_reference": ""}):
        result = fresh.done("--check", **absent)
        assert "would create volume" in result.section("postgres")["lines"][0]
    fresh.refused("is not on this host", postgres_image_reference="dastern-test/none:1")


def test_the_container_is_closed(role: Role) -> None:
    found = inspect(role.name)
    host = found["HostConfig"]
    assert found["Config"]["User"] == "postgres"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["ReadonlyRootfs"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PortBindings"] == {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(role.port)}]}
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert (host["Memory"], host["ShmSize"]) == (2 << 30, 256 << 20)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}
    assert found["Config"]["StopSignal"] == "SIGINT"
    assert found["Config"]["StopTimeout"] == 120
    assert list(found["NetworkSettings"]["Networks"]) == [f"{role.name}-net"]
    assert {mount["Destination"]: mount["RW"] for mount in found["Mounts"]} == {
        "/var/lib/postgresql/data": True, "/etc/das-tern/server": False, "/run/das-tern": False, "/backups/logical": False,
        "/backups/received": False, "/backups/transfer": True,
    }  # fmt: skip
    assert not [word for word in found["Config"]["Env"] if "PASSWORD" in word]


def test_the_health_check_leaves_no_trace_in_the_log(role: Role) -> None:
    assert len(inspect(role.name)["State"]["Health"]["Log"]) > 0
    logged = docker("logs", role.name)
    assert "FATAL" not in logged.stdout + logged.stderr


def test_the_cluster_is_as_declared(role: Role) -> None:
    assert role.sql("SELECT current_setting('data_checksums'), current_setting('server_encoding')") == "on|UTF8"
    asked = "SELECT pg_get_userbyid(datdba), datlocprovider, datlocale FROM pg_database WHERE datname = 'dastern'"
    assert role.sql(asked) == "dastern_user|b|C.UTF-8"
    assert role.sql("SHOW timezone") == "Asia/Phnom_Penh"
    assert role.sql("SHOW dastern.environment") == "development"
    assert role.sql("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'") == "t"


def test_who_may_do_what(role: Role) -> None:
    role.sql("CREATE ROLE stranger LOGIN PASSWORD 'stranger-password'")
    try:
        for user, password in (
            ("postgres", "x"),
            ("stranger", "stranger-password"),
            ("dastern_user", "wrong-password"),
        ):
            with pytest.raises(psycopg.OperationalError):
                role.connect(user, password)
        with role.connect() as app, role.connect("dastern_readonly") as reader:
            app.execute("CREATE TABLE readable (i int)")
            app.execute("INSERT INTO readable VALUES (1)")
            assert reader.execute("SELECT i FROM readable").fetchall() == [(1,)]
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                reader.execute("INSERT INTO readable VALUES (2)")
            reader.execute("SET default_transaction_read_only = off")
            for sql in (
                "INSERT INTO readable VALUES (2)",
                "CREATE TABLE mine (i int)",
                "CREATE TEMP TABLE mine (i int)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute(sql)
            app.execute("DROP TABLE readable")
        shared = "has_database_privilege('stranger', 'dastern', "
        assert role.sql(f"SELECT {shared}'CONNECT'), {shared}'TEMPORARY'), {shared}'CREATE')") == "f|f|f"
    finally:
        role.sql("DROP ROLE stranger")


def test_a_changed_setting_makes_the_container_anew_and_keeps_the_data(role: Role) -> None:
    role.sql("CREATE TABLE kept AS SELECT 42 AS answer")
    change = {"postgres_settings_extra": {"max_connections": 30, "default_transaction_read_only": True}}
    before = role.state()
    checked = role.done("--check", "--diff", **change)
    words = "recreated: default_transaction_read_only not set -> on, max_connections 20 -> 30"
    assert f"would be {words}" in checked.section("postgres")["lines"][0]
    assert role.state() == before
    done = role.done(**change)
    assert words in done.section("postgres")["lines"][0]
    assert role.sql("SHOW max_connections; SELECT answer FROM kept") == "30\n42"
    # With every transaction read-only by default: nothing to do means that nothing is written.
    assert role.done(**change).changed == 0
    assert role.done("--check", **change).changed == 0
    role.done()
    role.sql("DROP TABLE kept")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings_extra": {"shared_buffers": "1900MB"}}, "leaves less than a quarter of postgres_memory 2g"),
        ({"settings_extra": {"port": 5433}}, "the role itself decides port"),
        ({"port": 70000}, "expected 1 to 65535"),
        ({"memory": "lots"}, "expected a size such as 2g"),
        ({"shm_size": "lots"}, "expected a size such as 256m"),
        ({"container": "with blank"}, "expected letters"),
        ({"app_user": "postgres"}, "PostgreSQL reserves this name for itself"),
        ({"readonly_user": "dastern_user"}, "they have different rights"),
        ({"database": "template1"}, "this database belongs to the server itself"),
        ({"database": "a=b"}, "libpq a database name with `=` as parameters"),
        ({"config_dir": "etc"}, "postgres_config_dir is `etc`; expected an absolute path"),
        ({"backup_dir": "backups"}, "postgres_backup_dir is `backups`; expected an absolute path"),
        ({"app_user": "/a"}, "reads a name that begins with `/` as a pattern"),
        ({"readonly_password": "ពាក្យសម្ងាត់វែង"}, "postgres_readonly_password has to be printable ASCII"),
        ({"listen_address": "203.0.113.7"}, "isn't an address of this host"),
        ({"volume": "dastern-test-other"}, "keeps its data in volume dastern-test-pgrole-data"),
        ({"image": "dastern-test/none:1"}, "is not on this host"),
        ({"endpoint": "unix:///nowhere.sock"}, "doesn't answer"),
    ],
)
def test_a_bad_declaration_is_refused_by_the_survey(role: Role, change: dict[str, Any], message: str) -> None:
    before = role.state()
    params = {
        "endpoint": "unix:///var/run/docker.sock", "container": role.name, "volume": f"{role.name}-data",
        "network": f"{role.name}-net", "image": role.variables["postgres_image_reference"],
        "listen_address": "127.0.0.1", "port": role.port, "memory": "2g", "shm_size": "256m", "settings": {},
        "settings_extra": {}, "hba_extra": [], "database": "dastern", "app_user": "dastern_user", "app_createdb": False,
        "readonly_user": "dastern_readonly", "app_password": "", "readonly_password": "",
        "config_dir": str(role.config_dir), "backup_dir": role.variables["postgres_backup_dir"], "wal_archive": False,
        "zero_loss": False,
    }  # fmt: skip
    survey(params)
    with pytest.raises(DasTernError) as refusal:
        survey({**params, **change})
    assert message in refusal.value.message
    assert str(change.get("readonly_password")) not in refusal.value.message
    assert role.state() == before


@pytest.mark.parametrize(
    ("settings", "hba", "message"),
    [
        ({"wrok_mem": "4MB"}, "", 'unrecognized configuration parameter "wrok_mem"'),
        ({"work_mem": "much"}, "", 'invalid value for parameter "work_mem": "much"'),
        ({"max_connections": "2"}, "", 'must be less than "max_connections" (2)'),
        ({"shared_preload_libraries": "none_such"}, "", 'could not access file "none_such"'),
        ({}, "local all all peer\nhost all all everywhere\n", "pg_hba.conf line 2 `host all all everywhere`"),
    ],
)
def test_what_the_server_does_not_take_is_found_in_rehearsal(
    image: dict[str, str], settings: dict[str, str], hba: str, message: str
) -> None:
    refusals = rehearse(
        Containers(image["docker_engine_endpoint"]), image["postgres_image_reference"], command(settings), hba,
        memory=2 << 30, shm_size=256 << 20,
    )  # fmt: skip
    assert message in "; ".join(refusals)
    # The engine removes it behind our back.
    until(lambda: not docker("ps", "-aq", "--filter", "label=org.dastern.role=postgres-rehearsal").stdout.strip())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"postgres_settings": [1]}, "postgres_settings"),
        ({"postgres_port": "five"}, "postgres_port"),
        ({"postgres_app_password": "kurz-password"[:10]}, "postgres_app_password has to be printable ASCII"),
        ({"postgres_settings_extra": {"wrok_mem": "4MB"}}, 'unrecognized configuration parameter "wrok_mem"'),
        ({"postgres_hba_extra": ["host all all everywhere"]}, "pg_hba.conf line 8"),
    ],
)
def test_a_refusal_changes_nothing(role: Role, change: dict[str, Any], message: str) -> None:
    refused = role.refused(message, "-vvv", "--diff", **change)
    assert str(change.get("postgres_app_password")) not in refused.stdout


def test_a_renamed_owner_is_refused_with_the_way_to_rename_it(role: Role) -> None:
    result = role.run(postgres_app_user="someone_else")
    assert result.rc != 0
    assert 'ALTER ROLE "dastern_user" RENAME TO "someone_else"' in result.flat
    assert role.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'someone_else'") == "0"
    assert role.done().changed == 0  # it was refused before anything else was touched


def test_a_host_that_is_not_the_controller_gets_the_same_result(role: Role, tmp_path: Path) -> None:
    """Another path of the interpreter makes the modules run in processes of their own, as they do over SSH."""
    python = Path(sys.executable)
    interpreter = {"ansible_python_interpreter": f"{python.parent}/./{python.name}"}
    assert role.done(**interpreter).changed == 0
    role.refused("postgres_app_password has to be printable ASCII", postgres_app_password="kurz-passw", **interpreter)
    result = role.done("--check", "-vvv", "--diff", postgres_app_password=SECRET, **interpreter)
    assert result.changed == 1
    assert SECRET not in result.stdout
    assert json.dumps(SECRET)[1:-1] not in result.stdout


def test_rules_for_connections_are_reloaded_without_a_restart(role: Role) -> None:
    change = {"postgres_hba_extra": ["host all monitor 10.0.0.0/8 scram-sha-256"]}
    started = inspect(role.name)["State"]["StartedAt"]
    asked = "SELECT count(*) FROM pg_hba_file_rules WHERE user_name = '{monitor}'"
    assert "would be reloaded" in str(role.done("--check", **change).section("postgres")["lines"])
    assert role.sql(asked) == "0"
    loaded = role.sql("SELECT pg_conf_load_time()")
    assert "pg_hba.conf reloaded, without a restart" in role.done(**change).section("postgres")["lines"]
    assert role.sql(asked) == "1"
    assert role.sql("SELECT pg_conf_load_time()") != loaded
    assert role.done(**change).changed == 0
    # A run that was killed between writing and reloading left a file that is newer than what the server loaded.
    os.utime(role.config_dir / "server" / "pg_hba.conf")
    assert role.done("--check", **change).changed == 1
    assert role.done(**change).changed == 1
    assert role.done(**change).changed == 0
    role.done()
    assert inspect(role.name)["State"]["StartedAt"] == started


def test_drift_inside_is_brought_back(role: Role) -> None:
    role.sql("""
        ALTER ROLE dastern_user SUPERUSER NOLOGIN CONNECTION LIMIT 1 VALID UNTIL '2020-01-01';
        GRANT dastern_user TO dastern_readonly;
        ALTER ROLE dastern_readonly RESET default_transaction_read_only;
        ALTER ROLE postgres PASSWORD 'now-it-has-one';
        ALTER DATABASE dastern OWNER TO postgres;
        ALTER DATABASE dastern RESET dastern.environment;
        GRANT CONNECT, CREATE ON DATABASE dastern TO PUBLIC;
        GRANT CREATE ON SCHEMA public TO PUBLIC;
        CREATE TABLE hidden (i int);
        REVOKE ALL ON hidden FROM dastern_readonly;
        CREATE TABLE open (i int);
        GRANT INSERT ON open TO dastern_readonly;
        ALTER DEFAULT PRIVILEGES FOR ROLE dastern_user REVOKE SELECT ON TABLES FROM dastern_readonly;
    """)
    checked = role.done("--check", "--diff")
    steps = checked.section("postgres")["access_changed"]
    assert "role dastern_user: attribute SUPERUSER -> NOSUPERUSER" in steps
    assert len(steps) >= 12
    assert "-role dastern_user: attribute SUPERUSER" in checked.stdout
    assert role.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'dastern_user'") == "t"
    assert role.done().section("postgres")["access_changed"] == steps
    assert role.done().changed == 0
    with role.connect("dastern_readonly") as reader:
        reader.execute("SELECT * FROM hidden")
    role.sql("DROP TABLE hidden, open")


@pytest.fixture
def logged(role: Role) -> Iterator[Callable[[], str]]:
    """Gives the server's log, which has every statement of the superuser's until the test ends."""
    role.sql("ALTER ROLE postgres SET log_statement = 'all'")

    def log() -> str:
        told = docker("logs", role.name)
        return told.stdout + told.stderr

    yield log
    role.sql("ALTER ROLE postgres RESET log_statement")


def test_a_password_changes_on_an_existing_volume(role: Role, logged: Callable[[], str]) -> None:
    change = {"postgres_app_password": SECRET}
    old = (role.config_dir / "app_password").read_text().strip()
    outputs = [role.done("--check", "-vvv", "--diff", **change)]
    with role.connect(password=old):
        pass
    outputs.append(role.done("-vvv", "--diff", **change))
    with role.connect(password=SECRET) as app:
        assert app.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        role.connect(password=old)
    outputs.append(role.done("-vvv", "--diff", **change))
    assert [output.changed for output in outputs] == [1, 1, 0]
    # Without it in the inventory the file is what counts.
    assert role.done().changed == 0
    stored = role.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'dastern_user'")
    # Where it is sent as anybody would send it a verifier is in the log, behind all that was sent before.
    control = scram.verifier("of nobody", iterations=2)
    role.sql(f"CREATE ROLE nobody PASSWORD '{control}'; DROP ROLE nobody")
    end = time.monotonic() + 30
    while control not in logged() and time.monotonic() < end:
        time.sleep(0.1)
    log = logged()
    verifiers = re.findall(r"SCRAM-SHA-256\$[^'\s]*", log)
    assert (set(verifiers), scram.matches(SECRET, stored)) == ({control}, True)
    for output in [*(output.stdout for output in outputs), log]:
        for secret in (SECRET, SECRET.replace("\\", "\\\\"), json.dumps(SECRET)[1:-1], old, stored):
            assert secret not in output


def test_a_deleted_password_file_gets_a_new_password(role: Role) -> None:
    file = role.config_dir / "app_password"
    old = file.read_text()
    file.unlink()
    assert role.done("--check").changed == 1
    assert not file.exists()
    assert role.done().changed == 1
    assert file.read_text() != old
    with role.connect():
        pass
    file.chmod(0o644)
    assert role.done().changed == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_removed_directories_are_made_anew(role: Role) -> None:
    backups = Path(role.variables["postgres_backup_dir"])
    for folder in (role.config_dir, backups):
        shutil.rmtree(folder)
    assert role.done("--check").changed > 0
    told = role.done().section("postgres")["lines"][0]
    for folder in (role.config_dir / "server", backups / "transfer"):
        assert f"{folder} was removed or replaced" in told
    owned = {path: (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in (backups, backups / "transfer")}
    assert owned == {backups: (0, 0o700), backups / "transfer": (999, 0o700)}
    assert role.done().changed == 0
    role.connect().close()


def test_an_archive_wants_an_image_that_can(role: Role) -> None:
    image, name = "dastern-test/no-pgbackrest:17", "dastern-test-no-pgbackrest"
    docker("run", "-u", "0:0", "--name", name, "--entrypoint", "rm", IMAGE, "/usr/bin/pgbackrest")
    docker("commit", "--change", 'ENTRYPOINT ["docker-entrypoint.sh"]', name, image)
    docker("rm", "-v", name)
    try:
        role.refused(f"Image {image} has no pgBackRest", postgres_wal_archive=True, postgres_image_reference=image)
    finally:
        docker("image", "rm", "-f", image)


def test_two_runs_at_once_agree_on_one_password(role: Role) -> None:
    for name in ("app_password", "readonly_password"):
        (role.config_dir / name).unlink()
    params = {
        "endpoint": role.variables["docker_engine_endpoint"], "container": role.name, "database": "dastern",
        "app_user": "dastern_user", "app_createdb": True, "app_password": "", "readonly_user": "dastern_readonly",
        "readonly_password": "", "config_dir": str(role.config_dir), "environment": "development",
    }  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        results = [done.result() for done in [pool.submit(keep, params) for _ in range(4)]]
    assert sorted(len(result["generated"]) for result in results) == [0, 0, 0, 2]
    for user in ("dastern_user", "dastern_readonly"):
        role.connect(user).close()


def test_two_runs_at_once_make_one_container(fresh: Role) -> None:
    for change in ({}, {"postgres_settings_extra": {"max_connections": 15}}):
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda _, more=change: fresh.run(**more), range(2)))
        assert [one.rc for one in both] == [0, 0], "\n".join(one.stdout for one in both)
        assert fresh.done(**change).changed == 0
    assert docker("network", "ls", "-q", "--filter", f"name=^{fresh.name}-net$").stdout.count("\n") == 1


def test_a_membership_that_another_role_granted_is_taken_back(role: Role) -> None:
    role.sql("CREATE ROLE dba SUPERUSER; CREATE ROLE staff; SET ROLE dba; GRANT staff TO dastern_user; RESET ROLE;")
    assert role.done().changed == 1
    assert role.done().changed == 0
    role.sql("DROP ROLE staff; DROP ROLE dba")


def test_a_production_database_stays_one(role: Role) -> None:
    role.sql("ALTER DATABASE dastern SET dastern.environment = 'production'")
    role.refused("is marked as production")
    role.sql("ALTER DATABASE dastern SET dastern.environment = 'development'")


def test_a_setting_in_a_file_of_the_cluster_is_found(role: Role) -> None:
    file = "/var/lib/postgresql/data/pgdata/postgresql.auto.conf"
    docker("exec", "-u", "postgres", role.name, "sh", "-c", f"echo 'work_mem = 64MB' >> {file}")
    role.refused(f"work_mem: not declared, found 64MB (source: {file}:3)")
    docker("exec", "-u", "postgres", role.name, "sed", "-i", "/work_mem/d", file)
    assert role.done().changed == 0


def test_a_stopped_container_is_started(role: Role) -> None:
    docker("stop", role.name)
    assert "would be started (it was exited)" in role.done("--check").section("postgres")["lines"][0]
    assert "started (it was exited)" in role.done().section("postgres")["lines"][0]
    docker("kill", "-s", "KILL", role.name)
    role.done()
    docker("pause", role.name)
    role.done()
    assert role.done().changed == 0


def test_a_removed_container_comes_back_with_its_data(role: Role) -> None:
    role.sql("CREATE TABLE kept (i int)")
    docker("rm", "-f", role.name)
    role.done()
    role.sql("DROP TABLE kept")


def test_settings_that_this_data_can_not_start_with_bring_the_former_container_back(role: Role) -> None:
    role.sql("SELECT pg_create_physical_replication_slot('kept', true)")
    before = role.sql("SHOW wal_level")
    result = role.run(
        postgres_settings_extra={"wal_level": "minimal", "max_wal_senders": 0}, postgres_health_timeout=15
    )
    assert result.rc != 0
    assert "The former container is back and serves" in result.flat
    assert "wal_level" in result.flat
    assert 'replication slot "kept" exists' in result.flat
    assert role.sql("SHOW wal_level") == before
    role.sql("SELECT pg_drop_replication_slot('kept')")
    # The health timeout is part of the health check, so this makes the container anew once more.
    role.done()
    assert role.done().changed == 0


def test_a_second_instance_needs_three_other_names(role: Role, fresh: Role) -> None:
    before = role.state()
    fresh.done()
    assert role.state() == before
    assert fresh.sql("SELECT 1") == role.sql("SELECT 1") == "1"
    assert fresh.done().changed == 0
    assert role.done().changed == 0


def test_a_second_database_in_one_server_is_refused(role: Role) -> None:
    words = "serves database dastern, but `postgres_database` is second"
    role.refused(words, "--check", postgres_database="second")
    role.refused(words, postgres_database="second")
    docker("stop", role.name)
    role.refused("while it is down it can't be asked", postgres_database="second")
    role.refused("while it is down it can't be asked", "--check", postgres_database="second")
    role.done()
    for user in ("dastern_user", "dastern_readonly"):
        with role.connect(user) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert role.done().changed == 0


def test_a_renamed_database_is_served_by_its_new_name(role: Role) -> None:
    role.sql("ALTER DATABASE dastern RENAME TO clinic", "postgres")
    role.done("--check", postgres_database="clinic")
    role.done(postgres_database="clinic")
    with role.connect("dastern_readonly", database="clinic") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert role.done(postgres_database="clinic").changed == 0
    role.refused("serves database clinic, but `postgres_database` is dastern")
    role.sql("ALTER DATABASE clinic RENAME TO dastern", "postgres")
    role.done()
    assert role.done().changed == 0


def test_a_container_that_is_not_ours_is_refused(fresh: Role, image: dict[str, str]) -> None:
    docker("create", "--name", fresh.name, image["postgres_image_reference"])
    fresh.refused("exists and isn't ours")
    fresh.refused("isn't ours: it has no label", playbook=entry("remove"))


def test_a_port_that_is_taken_is_refused(role: Role, fresh: Role) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", fresh.port))
        listener.listen()
        fresh.refused(f"Port {fresh.port} on 127.0.0.1 is taken by process")
    fresh.refused(f"is taken by container {role.name}", postgres_port=role.port)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("mkdir pgdata; echo 16 > pgdata/PG_VERSION", "holds a cluster of PostgreSQL 16 (pgdata/PG_VERSION)"),
        ("echo 15 > PG_VERSION", "holds a cluster of PostgreSQL 15 (PG_VERSION)"),
        ("echo 17 > PG_VERSION", "holds a cluster that this role didn't make"),
        ("echo x > photo.jpg", "holds entries that aren't a PostgreSQL cluster: photo.jpg"),
    ],
)
def test_a_volume_that_can_not_be_served_is_refused(
    fresh: Role, image: dict[str, str], script: str, message: str
) -> None:
    volume = f"{fresh.name}-data"
    docker("volume", "create", volume)
    docker("run", "--rm", "--network", "none", "-v", f"{volume}:/v", "-w", "/v", "-u", "0", "--entrypoint", "sh",
           image["postgres_image_reference"], "-c", script)  # fmt: skip
    fresh.refused(message)
    fresh.refused(message, "--check")


def test_an_image_of_another_major_version_is_refused(role: Role, image: dict[str, str]) -> None:
    other = "dastern-test/postgres:16"
    container = docker("create", image["postgres_image_reference"]).stdout.strip()
    docker("commit", "--change", "ENV PG_MAJOR=16", container, other)
    docker("rm", "-v", container)
    try:
        role.refused(f"Image {other} holds PostgreSQL 16", postgres_image_reference=other)
    finally:
        docker("rmi", other)


def test_a_full_disk_leaves_nothing_half_done(fresh: Role, image: dict[str, str]) -> None:
    volume = f"{fresh.name}-data"
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=20m,uid=999,gid=999")
    docker("volume", "create", *options, volume)
    with pytest.raises(DasTernError, match="No space left on device.*Make room on its disk, then run again"):
        initialise(Containers(image["docker_engine_endpoint"]), image["postgres_image_reference"], volume, fresh.name)
    # Whether the role sees it before or after it tries depends on whether the volume happens to be mounted.
    result = fresh.run()
    assert result.rc != 0
    assert "Make room" in result.flat
    assert docker("inspect", fresh.name, check=False).returncode != 0
    docker("volume", "rm", volume)
    fresh.done()


def test_a_play_that_is_killed_while_it_initialises_is_healed_by_the_next(fresh: Role, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        "dastern:\n  hosts:\n    localhost:\n      ansible_connection: local\n"
        '      ansible_python_interpreter: "{{ ansible_playbook_python }}"\n'
    )
    (tmp_path / "vars.json").write_text(json.dumps({"dastern_environment": "development", **fresh.variables}))
    (tmp_path / "playbook.yml").write_text(PLAYBOOK)
    run = subprocess.Popen(
        [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.yml", "-e",
         f"@{tmp_path}/vars.json", tmp_path / "playbook.yml"],
        cwd=REPOSITORY, env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: docker("inspect", f"{fresh.name}-init", check=False).returncode == 0)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    # And the container that initialises dies as well, as it does when the machine loses power.
    docker("kill", f"{fresh.name}-init", check=False)
    result = fresh.done()
    assert "created, healthy in" in result.section("postgres")["lines"][0]
    assert fresh.sql("SELECT count(*) FROM pg_database") == "4"
    left = docker("exec", fresh.name, "ls", "-A", "/var/lib/postgresql/data").stdout.split()
    assert left == ["pgdata"]
    assert fresh.done().changed == 0


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_half_made_cluster_is_never_served(fresh: Role, image: dict[str, str]) -> None:
    volume = f"{fresh.name}-data"
    docker("run", "--rm", "--network", "none", "-v", f"{volume}:/var/lib/postgresql/data", "--entrypoint", "sh",
           image["postgres_image_reference"], "-c",
           "mkdir -p /var/lib/postgresql/data/.initialising && echo 17 > /var/lib/postgresql/data/.initialising/PG_VERSION")  # fmt: skip
    fresh.done()
    assert docker("exec", fresh.name, "ls", "-A", "/var/lib/postgresql/data").stdout.split() == ["pgdata"]


def test_roles_that_were_made_without_their_database_are_healed(role: Role) -> None:
    """What a run leaves that was killed between its first transaction and CREATE DATABASE, or right behind that."""
    role.sql("DROP DATABASE dastern", "postgres")
    assert role.done("--check").changed == 1
    role.done()
    role.sql("REVOKE ALL ON DATABASE dastern FROM dastern_readonly; GRANT ALL ON DATABASE dastern TO PUBLIC")
    role.done()
    assert role.done().changed == 0


def test_status_tells_what_runs_and_changes_nothing(role: Role, fresh: Role) -> None:
    before = role.state()
    running = role.done(playbook=entry("status"))
    assert running.changed == 0
    assert role.state() == before
    section = running.section("postgres")
    assert section["state"] == "running"
    assert section["max_connections"] == 20
    assert section["differences"] == []
    assert any("settings as declared" in line for line in section["lines"])
    assert running.section("engine")["version"]
    assert running.section("image")["id"]
    other = role.done(playbook=entry("status"), postgres_settings_extra={"max_connections": 99})
    assert other.section("postgres")["differences"][0]["declared"] == "99"
    published = f"127.0.0.1:{role.variables['postgres_port']}"
    assert section["published"] == [published]
    forgotten = role.done(playbook=entry("status"), postgres_port=25999).section("postgres")
    assert f"at {published}" in forgotten["lines"][1]
    assert sum(line.startswith("problem: ") for line in forgotten["lines"]) == 1
    assert forgotten["next"][0].endswith(f"status.yml -e postgres_port={role.variables['postgres_port']}")
    assert not any(line.startswith("problem: ") for line in section["lines"])
    assert "doesn't exist" in fresh.done(playbook=entry("status")).section("postgres")["lines"][0]
    gone = fresh.done(playbook=entry("status"), docker_engine_endpoint="unix:///nowhere.sock")
    assert "doesn't answer" in gone.section("engine")["lines"][0]
    report = role.done(playbook="playbooks/status.yml", migrations_dir="files/sql/migrations")
    assert report.changed == 0
    assert report.report["check"] is False
    assert list(report.report["hosts"]["localhost"]["sections"]) == [
        "engine",
        "image",
        "postgres",
        "migrations",
        "backup",
    ]
    assert report.section("migrations")["pending"] == ["20260208074559_init"]
    silent = role.play("playbooks/status.yml", {**role.variables, "docker_engine_host": "unix:///nowhere.sock"})
    assert silent.rc == 0, silent.stdout
    assert "no Docker Engine answers" in silent.section("engine")["lines"][0]
    docker("stop", role.name)
    assert "exited" in role.done(playbook=entry("status")).section("postgres")["lines"][0]
    docker("start", role.name)
    role.done()


def test_remove_keeps_the_data_unless_it_is_confirmed(fresh: Role) -> None:
    fresh.done()
    fresh.sql("CREATE TABLE kept (i int)")
    remove = entry("remove")
    fresh.refused(f"expected '{fresh.name}-data'", playbook=remove, postgres_remove_volume=True)
    fresh.refused("`confirm` is 'x'", playbook=remove, postgres_remove_volume=True, postgres_remove_volume_confirm="x")
    short = {"postgres_remove_volume": True, "postgres_remove_volume_confirm": f"{fresh.name}-data"}
    wanted = f"expected 'production/localhost/{fresh.name}-data'"
    fresh.refused(wanted, playbook=remove, dastern_environment="production", **short)
    # As a restore that was killed leaves them.
    docker("volume", "create", "--label", "org.dastern.role=restore", f"{fresh.name}-restore-data")
    docker("create", "--label", "org.dastern.role=restore", "--name", f"{fresh.name}-restore", "-v", f"{fresh.name}-data:/data",
           fresh.variables["postgres_image_id"])  # fmt: skip
    for step in ("--check", "--diff"):
        lines = fresh.done(step, playbook=remove).section("postgres")["lines"]
        assert [line.split()[:2] for line in lines[:2]] == [
            ["container", fresh.name],
            ["container", f"{fresh.name}-restore,"],
        ]
        assert f"volume {fresh.name}-restore-data, network {fresh.name}-net" in lines[1]
    assert docker("volume", "inspect", f"{fresh.name}-restore-data", check=False).returncode != 0
    assert fresh.done(playbook=remove).changed == 0
    assert fresh.state()[2]
    assert (fresh.config_dir / "app_password").exists()
    fresh.done()
    fresh.sql("DROP TABLE kept")
    confirmed = {"postgres_remove_volume": True, "postgres_remove_volume_confirm": f"{fresh.name}-data"}
    absent = {"docker_engine_absent": True, "dastern_foreign_variables": ["docker_engine_absent"]}
    fresh.refused("can't be removed. Nothing was removed", playbook=remove, **absent, **confirmed)
    other = {"postgres_remove_volume": True, "postgres_remove_volume_confirm": "dastern-test-typo"}
    fresh.refused("is not the one that container", playbook=remove, postgres_volume_name="dastern-test-typo", **other)
    (fresh.config_dir / "notes.txt").write_text("somebody else's")
    (fresh.config_dir / "rehearsals").mkdir()
    (fresh.config_dir / "rehearsals" / f"{'0' * 64}.json").write_text("{}")
    assert fresh.done("--check", playbook=remove, **confirmed).changed > 0
    assert fresh.done(playbook=remove, **confirmed).changed > 0
    assert [path.name for path in fresh.config_dir.rglob("*") if path.is_file()] == ["notes.txt"]
    assert not (fresh.config_dir / "rehearsals").exists()
    (fresh.config_dir / "notes.txt").unlink()
    fresh.done()
    (fresh.config_dir / "rehearsals").mkdir()
    (fresh.config_dir / "rehearsals" / f"{'0' * 64}.json").write_text("{}")
    docker("rm", "-f", fresh.name)
    docker("volume", "create", "dastern-test-typo")
    fresh.refused("isn't ours: it has no label", playbook=remove, postgres_volume_name="dastern-test-typo", **other)
    docker("volume", "rm", "dastern-test-typo")
    gone = fresh.done(playbook=remove, postgres_volume_name="dastern-test-typo", **other)
    assert "is left as it is" in gone.stdout
    assert (fresh.config_dir / "app_password").exists()
    assert fresh.done(playbook=remove, **confirmed).changed > 0
    assert fresh.done(playbook=remove, **confirmed).changed == 0
    assert fresh.state() == [[], {}, False]
    assert not fresh.config_dir.exists()


def test_backend_env_four_times_and_refusals(instance: Instance, play: Run, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    variables = {**instance.variables, "backend_env_file": str(file)}

    def run(*args: str, **changes: Any) -> Play:
        return play(entry("backend_env"), {**variables, **changes}, "--diff", "-vvv", *args)

    assert play(entry("backend_env"), instance.variables).changed == 0
    first = run("--check")
    assert first.changed == 1
    assert not file.exists()
    runs = [first, run(), run(), run("--check")]
    assert [item.changed for item in runs] == [1, 1, 0, 0], runs[1].stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    line = f'DATABASE_URL="postgresql://dastern_user:{instance.password}@127.0.0.1:{instance.port}/dastern?schema=public"\n'
    assert file.read_text() == line
    file.write_bytes(b"A=1\r\nDATABASE_URL=old\r\n# end")
    file.chmod(0o640)
    os.chown(file, 1234, 1234)
    runs.append(run())
    assert file.read_bytes() == b"A=1\r\n" + line.strip().encode() + b"\r\n# end"
    assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) == (0o600, 1234)
    assert any("mode 0640" in line for line in runs[-1].section("backend_env")["lines"])
    file.chmod(0o644)  # the URL is in it already
    runs += [run("--check"), run(), run()]
    assert [item.changed for item in runs[-3:]] == [1, 1, 0]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    link = tmp_path / "link"
    link.symlink_to(file)
    assert run(backend_env_file=str(link)).changed == 0
    file.write_text("A=1\n")
    assert run(backend_env_file=str(link)).changed == 1
    assert link.is_symlink()
    assert line in file.read_text()
    for item in runs:
        assert instance.password not in item.stdout
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    victim, hostile = tmp_path / "zz.sh", tmp_path / "hostile.env"
    victim.write_text("echo\n")
    hostile.symlink_to(victim)
    os.chown(hostile, 1234, 1234, follow_symlinks=False)
    for path, message in (
        (tmp_path, "is a directory"),
        (loop, "link"),
        (tmp_path / "none" / ".env", "has no directory none"),
        (hostile, "a link that 1234 set"),
    ):
        refused = run(backend_env_file=str(path))
        assert refused.rc != 0
        assert message in refused.flat
        assert "Traceback" not in refused.stdout
    assert victim.read_text() == "echo\n"
    refused = run(postgres_config_dir=str(tmp_path / "elsewhere"))
    assert refused.rc != 0
    assert "The password file" in refused.flat
