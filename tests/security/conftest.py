"""One server for all attacks, and one run of everything that enters its database as the superuser."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "integration"))

from ansible.module_utils.dastern.backups import logical, pgbackrest
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups.keeper import Keeper
from ansible.module_utils.dastern.backups.pgbackrest import PgBackRest
from ansible.module_utils.dastern.backups.records import Place, Record
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.migrations import baseline, rehearsal, rollback
from ansible.module_utils.dastern.migrations import drift as drift_run
from ansible.module_utils.dastern.restores import database_copy, plain_sql, request
from ansible.module_utils.dastern.restores import drill as drill_module
from ansible.module_utils.dastern.restores import run as restore_run
from ansible.module_utils.dastern.restores.restored_server import Site
from ansible.module_utils.dastern.server import access_files, read_back, status
from ansible.module_utils.dastern.server.psql import Psql
from attacks import CODE, MARKER, PATH, SPRING, Planter, hostile_settings, plant_code, plant_ledger, plant_names
from integration.conftest import Instance, docker, image, instance_variables, play, remove_instance  # noqa: F401
from migrating import Database

NAME, PORT = "dastern-test-sec", 25400
REACHED = {
    "the live server": "timeout 3 bash -c '</dev/tcp/$0/5432' \"$1\"",
    "other networks": "test $(ls /sys/class/net | grep -vc '^lo$') -gt 0",
    "the live data": "test -e /var/lib/postgresql/data/of-the-live-one",
    "the engine": "test -e /var/run/docker.sock",
    "the passwords": "find /etc /var -name app_password 2>/dev/null | grep -q .",
    "the programs": "touch /usr/local/bin/psql",
    "the user root": "test $(id -u) = 0",
    "the repository": "ls /backups/repository/backup 2>/dev/null | grep -q .",
    "other backups": "test $(ls /backups/logical 2>/dev/null | wc -l) -gt 1",
    # Directly in /etc lies the sample of Debian's package, which holds nothing.
    "the secrets of the repositories": "find /etc -mindepth 2 -name pgbackrest.conf -readable 2>/dev/null | grep -q .",
    "a folder of the host to write in": "for f in /backups/*; do touch $f/sprung 2>/dev/null && exit 0; done; exit 1",
    "capabilities": "! grep -q '^CapBnd:[[:space:]]*0*$' /proc/self/status",
    "new privileges": "! grep -q '^NoNewPrivs:[[:space:]]*1$' /proc/self/status",
}
"""Programs that end well where they reach it; $1 is the live server's address."""
SPRUNG = "the application's code as superuser"


class Server:
    """A live server with an archive; what its application does, what a careless superuser does, and what is left of it."""

    def __init__(self, params: dict[str, Any], variables: dict[str, Any], folder: Path) -> None:
        self.params, self.variables, self.folder = params, variables, folder
        self.place = Place(params)
        self.config = Path(params["config_dir"])

    @property
    def superuser(self) -> Psql:
        return self.place.superuser

    def application(self, database: str = "dastern") -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=PORT, dbname=database, user="dastern_user", autocommit=True,
            password=(self.config / "app_password").read_text().strip(), options="-c search_path=public -c statement_timeout=0",
        )  # fmt: skip

    def careless(self, sql: str, database: str = "dastern", *options: str) -> str:
        """`sql` as the superuser, with all that the database gives its sessions; gives what psql said. Errors are no matter."""
        command = ["exec", "-i", "-u", "postgres", NAME, "psql", "-XqAt", *options, "-d", f"dbname='{database}'"]
        done = docker(*command, stdin=sql, check=False)
        return done.stdout + done.stderr

    def shell(self, script: str, *words: str) -> str:
        return docker("exec", "-u", "postgres", NAME, "sh", "-c", script, "sh", *words, check=False).stdout

    def sprung(self) -> set[str]:
        """The tags of what ran with a superuser's rights since this was last asked."""
        found = self.shell(f"ls /tmp; rm -f {MARKER}*").split("\n")
        return {name.removeprefix("sprung-") for name in found if name.startswith("sprung-")}

    def superusers(self) -> list[str]:
        return sorted(
            self.superuser.run("SELECT rolname FROM pg_roles WHERE rolsuper OR rolcreaterole OR rolreplication").split()
        )

    def make(self, name: str) -> None:
        """A new, empty database of the application's."""
        self.superuser.drop_database(name)
        self.superuser.run(f'CREATE DATABASE "{name}" OWNER dastern_user TEMPLATE template0')

    def with_(self, spec: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        defaults = {name: option.get("default") for name, option in (spec or {}).items()}
        return {**defaults, **self.params, **changes}

    def take(self, kind: str) -> Record:
        told = backup_run.take(self.with_(backup_run.ARGUMENT_SPEC, wait=60, backup_type=kind), say=lambda _: None)
        return self.place.find(told["label"])


@dataclass
class Struck:
    """What came of everything that enters the attacked database."""

    server: Server
    careless: set[str] = field(default_factory=set)
    """Tags of what a careless superuser springs."""
    restored: set[str] = field(default_factory=set)
    """Tags of what a careless superuser springs by a restore."""
    sprung: dict[str, set[str]] = field(default_factory=dict)
    """The same of each verb."""
    results: dict[str, Any] = field(default_factory=dict)
    """What a verb gave, or the refusal that it raised."""
    around: dict[str, dict[str, bool]] = field(default_factory=dict)
    """What can be reached from the throwaway server of each kind of drill."""
    settings: list[str] = field(default_factory=list)
    """Settings that the application gave its database and its role."""
    seconds: dict[str, float] = field(default_factory=dict)

    def verb(self, name: str, call: Callable[[], Any]) -> None:
        began = time.monotonic()
        try:
            self.results[name] = call()
        except DasTernError as refusal:
            self.results[name] = refusal
        self.seconds[name] = round(time.monotonic() - began, 1)
        self.sprung[name] = self.server.sprung()


@pytest.fixture(scope="session")
def server(
    play: Callable[..., Any],  # noqa: F811
    image: dict[str, str],  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    remove_instance(NAME)
    folder = tmp_path_factory.mktemp("security")
    variables = {**image, **instance_variables(NAME, PORT, folder / "config"), "postgres_wal_archive": True}
    made = play("- hosts: dastern\n  gather_facts: false\n  roles:\n    - postgres\n", variables)
    assert made.rc == 0, made.stdout
    conf = folder / "config" / "pgbackrest" / "pgbackrest.conf"
    conf.write_text(pgbackrest.configuration(1, 1, "", {}))
    os.chown(conf, 999, 999)
    own = Server(
        {
            "endpoint": image["docker_engine_endpoint"], "container": NAME, "database": "dastern", "volume": f"{NAME}-data",
            "image": image["postgres_image_id"], "config_dir": str(folder / "config"),
            "backup_dir": variables["postgres_backup_dir"], "wait": 60,
        },
        variables,
        folder,
    )  # fmt: skip
    keeper = {"config_dir": str(folder / "config"), "network": f"{NAME}-net", "cpus": 0}
    Keeper(keeper, own.place, conf.read_text()).ensure(check_mode=False)
    PgBackRest(own.place.containers, own.place.keeper).run("stanza-create")
    yield own
    docker("rm", "-f", "-v", f"{NAME}-restore", check=False)
    docker("volume", "rm", "-f", f"{NAME}-restore-data", check=False)
    remove_instance(NAME)


@pytest.fixture(scope="session")
def struck(server: Server) -> Struck:
    """The database with everything planted, seen by a careless superuser and by everything that we have."""
    own = Struck(server)
    migrations = Database(_instance(server), "dastern", server.folder / "migrations")
    migrations.folder.mkdir()
    migrations.write(_1_begin='CREATE TABLE "first" (id int PRIMARY KEY);')
    migrations.write(_2_second='CREATE TABLE "second" (id int PRIMARY KEY);')
    migrations.migrate()
    with server.application() as connection:
        planter = Planter(connection)
        connection.execute(SPRING)
        plant_code(connection)
        planter.same()
        connection.execute(f"ALTER DATABASE dastern SET search_path = {PATH}")
        own.restored = _carelessly_restored(server)
        _scratch_verbs(own, migrations)
        planter.nearer()
        plant_names(connection)
        plant_ledger(connection)
    server.careless(";\n".join(planter.calls) + ";")
    server.careless("".join(f"BEGIN; {spring}; ROLLBACK;" for _, spring in CODE.values()))
    own.careless = server.sprung()
    with server.application("postgres") as connection:
        own.settings = hostile_settings(connection, "dastern")
    with pytest.MonkeyPatch.context() as patch:
        pages = drill_module._check_pages
        patch.setattr(drill_module, "_check_pages", lambda site, name: (_look_around(own, site), pages(site, name)))
        _neutral_verbs(own)
    return own


def _instance(server: Server) -> Instance:
    return Instance(NAME, "127.0.0.1", PORT, "dastern", "dastern_user", server.config / "app_password", server.config,
                    server.params["endpoint"], server.variables)  # fmt: skip


def _carelessly_restored(server: Server) -> set[str]:
    """What runs with a superuser's rights where one restores."""
    server.make("weak")
    server.shell(
        "pg_dump -Fc -U postgres -d dastern -n trap -n evil | pg_restore -U postgres --no-owner -d weak;"
        "psql -XqU postgres -d weak -c ANALYZE"
    )
    server.superuser.drop_database("weak")
    return server.sprung()


def _alone(place: Place, call: Callable[[], Any]) -> Any:
    with place.alone(60, "an attack"):
        return call()


def _scratch_verbs(own: Struck, migrations: Database) -> None:
    """What makes scratch databases, for which the superuser does what the application can't."""
    server, place, verb = own.server, own.server.place, own.verb
    migrations.write(_3_next='CREATE TABLE "third" (id int PRIMARY KEY);\nSELECT public.of_superuser();')
    server.superuser.run(
        "CREATE FUNCTION public.of_superuser() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT'", "dastern"
    )

    def with_(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
        known = {**migrations.params(), **server.params, **changes}
        return {name: known.get(name, option.get("default")) for name, option in spec.items()}

    downs = [{"name": file.name, "sql": file.sql, "down": 'DROP TABLE "second";'} for file in migrations.files()[:2]]
    # Its code replaces that function in the copy, before it is given away.
    verb("rehearsal with a superuser's function", lambda: rehearsal.rehearse(with_(rehearsal.ARGUMENT_SPEC)))
    server.superuser.run("DROP FUNCTION public.of_superuser()", "dastern")
    verb("drift", lambda: drift_run.drift(with_(drift_run.ARGUMENT_SPEC)))
    verb("baseline", lambda: baseline.baseline(with_(baseline.ARGUMENT_SPEC), check_mode=True))
    verb("rollback", lambda: rollback.rollback(
        with_(rollback.ARGUMENT_SPEC, to="1_begin", migrations=downs, confirm="dastern"), check_mode=True))  # fmt: skip
    verb("backup for a rehearsal", lambda: _alone(place, lambda: logical.take(place, "dastern", "", "", "10s")))
    migrations.write(_3_next='CREATE TABLE "third" (id int PRIMARY KEY);')
    verb("rehearsal", lambda: rehearsal.rehearse(with_(rehearsal.ARGUMENT_SPEC)))
    verb("rehearsal of a backup", lambda: rehearsal.rehearse(with_(rehearsal.ARGUMENT_SPEC, source="backup")))


def _neutral_verbs(own: Struck) -> None:
    """All that has to come out as if the application had planted nothing."""
    server, place, verb = own.server, own.server.place, own.verb
    restoring = server.with_(request.ARGUMENT_SPEC)
    command = json.loads(docker("inspect", "-f", "{{json .Config.Cmd}}", NAME).stdout)
    verb(
        "status",
        lambda: status.collect(
            {**server.params, "host": "127.0.0.1", "listen_address": "127.0.0.1", "port": PORT}, command
        )["postgres"],
    )
    verb("settings read back", lambda: read_back.read_back({
        **server.params, "command": command, "hba_path": str(server.config / "server" / "pg_hba.conf"), "reload": False}))  # fmt: skip
    verb("count", lambda: census.count(server.superuser, "dastern"))
    verb("count at a point", lambda: census.count_at(server.superuser, "dastern", "sprung"))
    verb("logical backup", lambda: _alone(place, lambda: logical.take(place, "dastern", "", "", "10s")))
    verb("physical backup", lambda: server.take("full"))
    verb("list", lambda: backup_run.listed(server.with_(backup_run.ARGUMENT_SPEC)))
    verb("verification", lambda: backup_run.verify(server.with_(backup_run.VERIFY_SPEC, nice=10), say=lambda _: None))
    plain = server.folder / "plain.sql"
    verb("plain SQL out", lambda: plain_sql.write(place, plain))
    verb("plain SQL in", lambda: plain_sql.read(place, plain, "of_plain"))
    for kind in ("logical", "physical"):
        target = {**restoring, "target": getattr(own.results[f"{kind} backup"], "label", "")}
        verb(f"{kind} drill", lambda target=target: drill_module.drill(target))
        verb(f"{kind} restore", lambda target=target, kind=kind: restore_run.restore(
            {**target, "what": "database", "into": f"of_{kind}"}))  # fmt: skip
        verb(f"{kind} restore of a table", lambda target=target, kind=kind: restore_run.restore(
            {**target, "what": "table", "table": "trap.by_check", "into": f"table_of_{kind}"}))  # fmt: skip
    tables = [name for name in CODE if name not in ("cast", "policy")]
    owner = server.superuser.as_owner("dastern_user")
    owner.run("".join(f"DELETE FROM trap.by_{name} WHERE id = 2;" for name in tables), "dastern")
    counted = own.results["logical backup"].census["tables"]
    for name in tables:
        verb(f"rows put back, {name}", lambda name=name: database_copy.put_back(
            server.superuser, "of_logical", "dastern", f"trap.by_{name}", counted[f"trap.by_{name}"]))  # fmt: skip
    verb("logical restore over the live one", lambda: restore_run.restore(
        {**restoring, "target": getattr(own.results["logical backup"], "label", ""), "what": "database", "confirm": "dastern"}))  # fmt: skip
    verb("roles and privileges", lambda: access_files.keep(_access(server)))


def _access(server: Server) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in access_files.ARGUMENT_SPEC.items()}
    return {
        **defaults, "endpoint": server.params["endpoint"], "container": NAME, "database": "dastern", "app_user": "dastern_user",
        "app_createdb": True, "readonly_user": "dastern_readonly", "config_dir": str(server.config), "environment": "development",
    }  # fmt: skip


def _look_around(own: Struck, site: Site) -> None:
    """What whoever is the superuser of a throwaway server can reach: programs run there as the server's user."""
    words = _words(own.server)
    kind = "physical" if "logical drill" in own.results else "logical"
    around = {}
    for name, script in {**REACHED, SPRUNG: f"ls {MARKER}*"}.items():
        around[name] = site.containers.execute(site.helper, ["bash", "-c", script, "bash", *words]).rc == 0
    own.around[kind] = around


def _words(server: Server) -> list[str]:
    server.shell("touch /var/lib/postgresql/data/of-the-live-one")
    return [docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", NAME).stdout.strip()]


@pytest.fixture(scope="session")
def careless_container(server: Server) -> Iterator[dict[str, bool]]:
    """What the same programs reach in a container that somebody ran as comes first to mind."""
    words = _words(server)
    network = docker("inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}", NAME).stdout.strip()
    name = f"{NAME}-careless"
    docker("rm", "-f", name, check=False)
    docker(
        "run", "-d", "--name", name, "--network", network, "--user", "root", "-v", f"{NAME}-data:/var/lib/postgresql/data",
        "-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", f"{server.config}:/etc/das-tern", "-v", f"{server.place.folder}:/backups", "--entrypoint", "sleep",
        server.params["image"], "infinity",
    )  # fmt: skip
    yield {
        one: docker("exec", name, "bash", "-c", script, "bash", *words, check=False).returncode == 0
        for one, script in REACHED.items()
    }
    docker("rm", "-f", name, check=False)
