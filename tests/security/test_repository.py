"""A server that was taken over: what it can do to the backups, to the host, and to the container that has the repository.

Everything here is done by the user of the server's own container, who may write its data as it likes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups.pgbackrest import PgBackRest
from ansible.module_utils.dastern.common.errors import DasTernError
from conftest import Server
from integration.conftest import docker
from migrating import wait_until

WAL = "/var/lib/postgresql/data/pgdata/pg_wal"
AGAINST = {
    "delete the repository": "test -e /backups/repository/backup && rm -rf /backups/repository/backup && test ! -e /backups/repository/backup",
    "overwrite the repository": "echo forged > /backups/repository/backup/dastern/backup.info",
    "delete a logical backup": "rm -rf /backups/logical/* && test -z \"$(ls /backups/logical)\"",
    "alter a logical backup": "for f in /backups/logical/*/toc.dat; do echo forged > \"$f\" || exit 1; done",
    "forge a record": "echo '{}' > /backups/records/20260101-000000F.json",
    "forge what a restore kept": "echo '{}' > /backups/restore.json",
    "have root follow a link in the place of the lock": "ln -sfn /etc/victim /backups/.lock",
    "have root delete through a link in the place of a folder": "mv /backups/logical /backups/moved && ln -s /srv /backups/logical",
    "read the passwords of the repositories": "cat /etc/pgbackrest/pgbackrest.conf",
    "read the backups of others": "ls /backups/repository/backup",
    "use pgBackRest on the repository": "pgbackrest --stanza=dastern --log-level-console=off repo-ls backup/dastern | grep -q F",
    "say that a segment is archived": "echo forged > /run/das-tern/0000000100000000000000FF",
    "exchange what archives": "echo exit 0 > /etc/das-tern/server/pgbackrest-archive",
    "exchange who may log in": "echo 'local all all trust' > /etc/das-tern/server/pg_hba.conf",
    "exchange what the healthcheck runs": "echo exit 0 > /etc/das-tern/server/zero-loss",
}  # fmt: skip


@pytest.fixture(scope="module")
def taken(server: Server) -> dict[str, str]:
    """A physical and a logical backup, of before the server was taken over."""
    return {kind: server.take(kind).label for kind in ("full", "logical")}


@pytest.fixture(scope="module")
def careless(server: Server, taken: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container that sees copies of all the folders and may write them, as it did in earlier versions."""
    copy = tmp_path_factory.mktemp("careless")
    name = f"{server.place.container}-careless-server"
    docker("rm", "-f", name, check=False)
    docker("run", "--rm", "-u", "0", "-v", f"{server.place.folder}:/from:ro", "-v", f"{server.config}:/config:ro", "-v", f"{copy}:/to",
           "--entrypoint", "sh", server.params["image"], "-c",
           "mkdir /to/backups /to/conf /to/said /to/server && cp -a /from/. /to/backups && cp -a /config/pgbackrest/. /to/conf && chown -R 999:999 /to")  # fmt: skip
    docker(
        "run", "-d", "--name", name, "-v", f"{copy}/backups:/backups", "-v", f"{copy}/conf:/etc/pgbackrest", "-v",
        f"{copy}/said:/run/das-tern", "-v", f"{copy}/server:/etc/das-tern/server", "-u", "postgres", "--entrypoint", "sleep",
        server.params["image"], "infinity",
    )  # fmt: skip
    yield name
    docker("rm", "-f", name, check=False)


@pytest.mark.parametrize("what", sorted(AGAINST, key=lambda one: ("delete" in one or "folder" in one, one)))
def test_the_servers_container_has_nothing_of_the_backups(
    server: Server, careless: str, taken: dict[str, str], what: str
) -> None:
    """Each program ends well where it reaches what it is after; those that delete come last."""
    assert docker("exec", careless, "sh", "-c", AGAINST[what], check=False).returncode == 0
    done = docker("exec", "-u", "postgres", server.place.container, "sh", "-c", AGAINST[what], check=False)
    assert done.returncode != 0, done.stdout
    assert {one.label for one in server.place.records()} >= set(taken.values())


def test_all_of_it_is_as_it_was(server: Server, taken: dict[str, str]) -> None:
    told = backup_run.verify(server.with_(backup_run.VERIFY_SPEC, nice=10), say=lambda _: None)
    assert {label: check["ok"] for label, check in told["checks"].items() if label in taken.values()} == dict.fromkeys(
        taken.values(), True
    )


def failed(server: Server, name: str) -> str:
    """What the backup container says of a file that it was to archive."""
    path = server.config / "archived" / f"{name}.failed"
    wait_until(path.exists, 30)
    return path.read_text()


def repository(server: Server) -> PgBackRest:
    return PgBackRest(server.place.containers, server.place.keeper)


@pytest.fixture
def ready(server: Server) -> Iterator[Any]:
    """Have a file of the log ready to be archived that `make` makes; nothing of it is left."""
    names = []

    def have(name: str, make: str) -> None:
        names.append(name)
        server.shell(f"cd {WAL} && {make} && touch archive_status/{name}.ready")

    yield have
    for name in names:
        server.shell(f"cd {WAL} && rm -f {name} archive_status/{name}.*")
        wait_until(lambda name=name: not list((server.config / "archived").glob(f"{name}*")), 30)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("000000F1.history", "ln -s /etc/pgbackrest/pgbackrest.conf 000000F1.history"),
        ("0000000100000000000000F1", "ln -s /backups/repository/backup/dastern/backup.info 0000000100000000000000F1"),
        ("000000F2.history", "mkfifo 000000F2.history"),
        ("000000F3.history", "mkdir 000000F3.history"),
    ],
)
def test_a_file_of_the_log_that_is_something_else_is_left_alone(
    server: Server, ready: Any, name: str, make: str
) -> None:
    ready(name, make)
    assert "isn't a plain file" in failed(server, name)
    info = repository(server).info()
    assert name not in repository(server).histories(info.archive)
    assert name not in repository(server).archived().get(info.archive, set())


def test_a_history_of_the_log_that_is_a_link_would_have_told_the_passwords(server: Server, ready: Any) -> None:
    """The positive control of the one above: pgBackRest itself follows it."""
    name = "000000F4.history"
    server.shell(f"cd {WAL} && ln -s /etc/pgbackrest/pgbackrest.conf {name}")
    try:
        repository(server).run("archive-push", f"{WAL}/{name}")
        archive = repository(server).info().archive
        told = repository(server).run("repo-get", f"archive/dastern/{archive}/{name}", "--log-level-console=off")
        assert "repo1-path" in told
    finally:
        server.shell(f"rm -f {WAL}/{name}")
        docker(
            "exec",
            "-u",
            "postgres",
            server.place.keeper,
            "sh",
            "-c",
            f"rm -f /backups/repository/archive/dastern/*/{name}",
        )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("000000F5.history", "nonsense"),
        ("000000F6.history", ""),
        ("000000F7.history", "1\\t0/3000000\\tfine\\n300\\t0/4000000\\tlater than itself\\n"),
        ("000000F8.history", "2\\t0/3000000\\tfine\\n1\\t0/4000000\\tbackwards\\n"),
    ],
)
def test_a_history_that_is_none_is_not_archived(server: Server, ready: Any, name: str, content: str) -> None:
    ready(name, f"printf '{content}' > {name}")
    assert "isn't a history of its timeline" in failed(server, name)
    assert name not in repository(server).histories(repository(server).info().archive)


def test_a_history_that_is_there_stays(server: Server, ready: Any) -> None:
    name, first = "000000F9.history", "1\\t0/3000000\\tthe first\\n"
    ready(name, f"printf '{first}' > {name}")
    archive = repository(server).info().archive
    wait_until(lambda: name in repository(server).histories(archive), 30)
    server.shell(f"cd {WAL} && printf '1\\t0/5000000\\tanother\\n' > {name}")
    assert "another 000000F9.history is in the repository already" in failed(server, name)
    told = repository(server).run("repo-get", f"archive/dastern/{archive}/{name}", "--log-level-console=off")
    assert told == "1\t0/3000000\tthe first\n"
    docker(
        "exec", "-u", "postgres", server.place.keeper, "sh", "-c", f"rm -f /backups/repository/archive/dastern/*/{name}"
    )


def test_the_log_of_a_timeline_to_come_waits_for_its_history(server: Server, ready: Any) -> None:
    """Else the next restore would take that timeline, and find its places in the archive taken."""
    name, history = "000000FA0000000000000001", "000000FA.history"
    ready(name, f"cp $(ls | grep '^00000001[0-9A-F]*$' | head -n 1) {name}")
    try:
        assert "has no history" in failed(server, name)
        archive = repository(server).info().archive
        assert name not in repository(server).archived().get(archive, set())
        server.shell(f"cd {WAL} && printf '1\\t0/3000000\\tfine\\n' > {history}")
        wait_until(lambda: name in repository(server).archived().get(archive, set()), 30)
        assert history in repository(server).histories(archive)
    finally:
        server.shell(f"rm -f {WAL}/{history} {WAL}/archive_status/{name}.ready")
        script = "rm -rf /backups/repository/archive/dastern/*/000000FA*"
        docker("exec", "-u", "postgres", server.place.keeper, "sh", "-c", script)


def test_a_name_that_is_none_of_postgresqls_is_never_read(server: Server, ready: Any) -> None:
    before = {path.name for path in (server.config / "archived").iterdir()}
    for name in ("'$(touch PWNED)'", "a; touch PWNED", "0000000100000000000000F1.x", "-rf", "000000F1.history.history"):
        server.shell('cd "$1" && touch -- "./$2" "archive_status/$2.ready"', WAL, name)
    time.sleep(2)
    try:
        assert {path.name for path in (server.config / "archived").iterdir()} - before <= {".new"}
        found = docker(
            "exec", server.place.keeper, "sh", "-c", "find / -xdev -name PWNED 2>/dev/null", check=False
        ).stdout
        assert found == ""
    finally:
        server.shell('cd "$1" && find . -newer archive_status -name "*F1.x*" -delete; rm -f -- ./-rf archive_status/-rf.ready ./a* archive_status/a* ./"\'"* archive_status/"\'"* ./000000F1.history.history* archive_status/000000F1.history.history* 0000000100000000000000F1.x* archive_status/0000000100000000000000F1.x*', WAL)  # fmt: skip


def test_a_link_in_the_data_makes_no_backup(server: Server, taken: dict[str, str]) -> None:
    """pgBackRest follows it, into the container that has the secrets."""
    server.shell("ln -s /etc/pgbackrest /var/lib/postgresql/data/pgdata/leak")
    before = server.place.records()
    try:
        with pytest.raises(DasTernError) as refusal:
            server.take("full")
        assert refusal.value.facts["links"] == ["leak -> /etc/pgbackrest"]
        assert server.place.records() == before
        left = repository(server).info().sets[-1]
        assert repository(server).links(left["label"]), "pgBackRest itself took it"
    finally:
        server.shell("rm /var/lib/postgresql/data/pgdata/leak")
    assert server.take("full").verified
    assert repository(server).info().set(left["label"]) is None


def test_nothing_is_said_to_be_archived_that_is_not_in_the_repository(server: Server) -> None:
    """While the container that archives is away, the log waits; then all of it comes."""
    archive = repository(server).info().archive
    docker("stop", "-t", "5", server.place.keeper)
    try:
        segment = server.superuser.run(
            "SELECT pg_create_restore_point('so that there is something in it') \\g /dev/null\nSELECT pg_walfile_name(pg_switch_wal());"
        ).strip()
        logs = ["logs", "--since", "2m", server.place.container]
        wait_until(lambda: "the backup container doesn't run" in docker(*logs).stderr, 90)
        assert (
            server.superuser.run(
                f"SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name = '{segment}.ready';"
            ).strip()
            == "1"
        )
    finally:
        docker("start", server.place.keeper)
    server.superuser.run("SELECT pg_reload_conf();")
    wait_until(lambda: segment in repository(server).archived().get(archive, set()), 60)


def test_a_marker_is_of_one_file_and_not_of_its_name(server: Server) -> None:
    """A cluster that was restored has other files of the same names."""
    name = "0000000100000000000000FE"
    marker = Path(server.config / "archived" / name)
    server.shell(
        f"cd {WAL} && dd if=/dev/zero of={name} bs=1M count=16 2>/dev/null && touch archive_status/{name}.ready"
    )
    form = server.shell(f"stat -c '%F %i %s %.9Y %.9Z' {WAL}/{name}").strip()
    ask = (
        f"cd /var/lib/postgresql/data/pgdata && timeout 8 bash /etc/das-tern/server/pgbackrest-archive {name}; echo $?"
    )
    try:
        docker("pause", server.place.keeper)
        marker.write_text(f"{form}\n")
        (server.config / "archived" / "alive").write_text("..")
        assert server.shell(ask).strip() == "0", "the positive control: this very file"
        server.shell(f"touch {WAL}/{name}")
        (server.config / "archived" / "alive").write_text("...")
        assert server.shell(ask).strip() != "0"
    finally:
        marker.unlink()
        server.shell(f"cd {WAL} && rm -f {name} archive_status/{name}.*")
        docker("unpause", server.place.keeper)
