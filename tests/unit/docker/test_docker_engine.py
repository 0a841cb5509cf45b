"""Which endpoint is meant, whose it is, and what a probe makes of what it finds there."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils.dastern.backups import records
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker import engine
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.docker.engine import Endpoint, probe, resolve
from ansible.module_utils.dastern.restores import restored_server
from ansible.module_utils.dastern.server import status


def write_context(home: Path, name: str, host: str, *, current: bool) -> None:
    meta = home / ".docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))
    if current:
        (home / ".docker" / "config.json").write_text(json.dumps({"currentContext": name}))


class TestResolve:
    def test_default(self, tmp_path: Path) -> None:
        assert resolve({}, str(tmp_path), 0) == Endpoint("unix:///var/run/docker.sock", "default")

    def test_docker_host_comes_before_a_context(self, tmp_path: Path) -> None:
        write_context(tmp_path, "other", "unix:///context.sock", current=True)
        found = resolve({"DOCKER_HOST": "unix:///host.sock", "DOCKER_CONTEXT": "other"}, str(tmp_path), 0)
        assert found == Endpoint("unix:///host.sock", "DOCKER_HOST")

    def test_the_inventory_comes_before_everything(self, tmp_path: Path) -> None:
        found = resolve({"DOCKER_HOST": "unix:///host.sock"}, str(tmp_path), 0, "/given.sock")
        assert found == Endpoint("unix:///given.sock", "docker_engine_host")

    def test_current_context(self, tmp_path: Path) -> None:
        write_context(tmp_path, "other", "unix:///context.sock", current=True)
        assert resolve({}, str(tmp_path), 0).url == "unix:///context.sock"

    def test_context_of_the_environment(self, tmp_path: Path) -> None:
        write_context(tmp_path, "other", "ssh://host", current=False)
        found = resolve({"DOCKER_CONTEXT": "other"}, str(tmp_path), 0)
        assert found.url == "ssh://host"
        assert not found.local

    def test_a_context_that_is_not_there_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(DasTernError, match=r"Docker context 'gone' .*docker context use default"):
            resolve({"DOCKER_CONTEXT": "gone"}, str(tmp_path), 0)

    @pytest.mark.parametrize("text", ["{", "[]", '{"currentContext": null}', '{"currentContext": "default"}'])
    def test_a_configuration_without_context(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        assert resolve({"DOCKER_CONFIG": str(tmp_path)}, str(tmp_path), 0).origin == "default"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("unix:///var/run/docker.sock", True),
        ("tcp://127.0.0.1:2375", True),
        ("tcp://localhost:2375", True),
        ("tcp://[::1]:2375", True),
        ("tcp://127.example.org:2375", False),
        ("tcp://10.0.0.1:2375", False),
        ("tcp://database.example.org:2376", False),
        ("ssh://root@localhost", False),
        ("", False),
    ],
)
def test_local(url: str, local: bool) -> None:
    assert Endpoint(url, "DOCKER_HOST").local is local


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """`answering(bytes)`: a socket whose every client gets these bytes; its URL."""
    servers = []

    def serve(answer: bytes) -> str:
        path = tmp_path / "engine.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        servers.append(server)

        def loop() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                client.recv(4096)
                client.sendall(answer)
                client.close()

        threading.Thread(target=loop, daemon=True).start()
        return f"unix://{path}"

    yield serve
    for server in servers:
        server.close()


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class TestProbe:
    def test_nothing_at_the_default_place(self, tmp_path: Path) -> None:
        state, reason, _ = probe(Endpoint(f"unix://{tmp_path}/none.sock", "default"))
        assert (state, reason) == (engine.ABSENT, "no such socket")

    def test_a_socket_that_nobody_serves_any_more(self, tmp_path: Path) -> None:
        path = tmp_path / "stale.sock"
        socket.socket(socket.AF_UNIX).bind(str(path))
        state, reason, _ = probe(Endpoint(f"unix://{path}", "default"))
        assert (state, reason) == (engine.ABSENT, "connection refused")

    def test_a_chosen_endpoint_is_never_replaced(self, tmp_path: Path) -> None:
        assert probe(Endpoint(f"unix://{tmp_path}/none.sock", "DOCKER_HOST"))[0] == engine.SILENT

    def test_another_machine_is_not_even_asked(self) -> None:
        assert probe(Endpoint("tcp://192.0.2.1:2375", "DOCKER_HOST"), timeout=0.01)[0] == engine.REMOTE

    def test_working(self, answering: Callable[[bytes], str]) -> None:
        url = answering(http('{"Version": "27.0", "ApiVersion": "1.46"}'))
        state, _, version = probe(Endpoint(url, "default"))
        assert (state, version["Version"]) == (engine.WORKING, "27.0")

    @pytest.mark.parametrize(
        "answer", [b"SSH-2.0-OpenSSH\r\n", b"", http("hello"), http("[]"), http('{"message": "no"}', "503 Busy")]
    )
    def test_something_else_listens(self, answering: Callable[[bytes], str], answer: bytes) -> None:
        assert probe(Endpoint(answering(answer), "DOCKER_HOST"))[0] == engine.SILENT

    def test_a_socket_that_hangs_is_no_reason_to_install(self, tmp_path: Path) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "hangs.sock"))
        server.listen()
        state, reason, _ = probe(Endpoint(f"unix://{tmp_path}/hangs.sock", "default"), timeout=0.05)
        assert (state, reason) == (engine.SILENT, "no answer within 0.05 s")
        server.close()


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ('Get "https://registry/v2/": dial tcp 192.0.2.1:443: connect: connection refused', True),
        ('Get "https://registry/v2/": dial tcp: lookup registry: no such host', True),
        ("net/http: request canceled while waiting for connection (Client.Timeout exceeded)", True),
        ("manifest unknown: manifest unknown", False),
        ("unauthorized: authentication required", False),
    ],
)
def test_which_failures_mean_no_network(text: str, network: bool) -> None:
    assert bool(engine.NETWORK.search(text)) is network


def test_image_facts() -> None:
    facts = engine.image_facts(
        {"Id": "sha256:1", "Size": 5, "RepoTags": None, "Config": {"Env": ["PG_MAJOR=17", "ODD"], "Labels": None}}
    )
    assert (facts["pg_major"], facts["pg_version"], facts["tags"], facts["labels"]) == ("17", "", [], {})


def as_nobody(do: Callable[[], object]) -> object:
    """What `do` gives or raises (a refusal's message and facts) in a process of the user nobody."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            try:
                told = do()
            except DasTernError as refusal:
                told = [refusal.message, refusal.facts]
            os.write(writing, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told)


@pytest.fixture
def closed() -> Iterator[Path]:
    """A socket of group daemon that others may not open, in a folder that they reach; pytest's own are closed."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="dastern-test-") as name:
        folder, path = Path(name), Path(name, "docker.sock")
        folder.chmod(0o755)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        path.chmod(0o660)
        os.chown(path, 0, 1)
        (folder / "backups").mkdir()
        yield path
        server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
class TestDenied:
    def test_the_permission_is_named_with_its_fix(self, closed: Path) -> None:
        state, reason, _ = as_nobody(lambda: probe(Endpoint(f"unix://{closed}", "default")))  # type: ignore[misc]
        assert state == engine.DENIED
        assert reason.startswith(
            f"User nobody may not open the Docker Engine's socket {closed}, which belongs to root:daemon, mode 0660."
        )
        assert "`-b`" in reason
        assert "`sudo usermod -aG daemon nobody`" in reason
        os.chown(closed, 0, 0)
        reason = as_nobody(lambda: probe(Endpoint(f"unix://{closed}", "default")))[1]  # type: ignore[index]
        assert "usermod" not in reason, "nobody is let into root's own group"
        closed.parent.chmod(0o700)
        reason = as_nobody(lambda: probe(Endpoint(f"unix://{closed}", "default")))[1]  # type: ignore[index]
        assert "can't be seen by that user" in reason

    @pytest.mark.parametrize("what", ["status", "take", "take in check mode", "list", "verify", "drill", "exec"])
    def test_every_command_names_the_same_fix(self, closed: Path, what: str) -> None:
        url = f"unix://{closed}"
        params = {name: option.get("default") for name, option in backup_run.ARGUMENT_SPEC.items()}
        params |= {"endpoint": url, "container": "pg", "database": "d", "backup_dir": str(closed.parent / "backups")}
        calls: dict[str, Callable[[], object]] = {
            "status": lambda: status.collect({"endpoint": url}, []),
            "take": lambda: backup_run.take(params),
            "take in check mode": lambda: backup_run.take(params, check_mode=True),
            "list": lambda: backup_run.listed(params),
            "verify": lambda: backup_run.verify(params),
            "drill": lambda: restored_server.Site(
                {**params, "volume": "v", "config_dir": "/c", "image": ""}, records.Place(params)
            ),
            "exec": lambda: Containers(url).execute("pg", ["true"]),
        }
        message, facts = as_nobody(calls[what])  # type: ignore[misc]
        assert message == as_nobody(lambda: probe(Endpoint(url, "default")))[1]  # type: ignore[index]
        assert facts == {"status": 403, "denied": True}, "it isn't an engine that is away"


def test_an_engine_that_is_away_is_no_container_that_is_stopped(tmp_path: Path) -> None:
    params = {name: option.get("default") for name, option in backup_run.ARGUMENT_SPEC.items()}
    params |= {
        "endpoint": f"unix://{tmp_path}/none.sock",
        "container": "pg",
        "database": "d",
        "backup_dir": str(tmp_path),
    }
    for check_mode in (False, True):
        with pytest.raises(DasTernError, match=r"doesn't answer.*systemctl status docker") as refused:
            backup_run.take(params, check_mode=check_mode)
        assert refused.value.facts["status"] == 0
    assert any("doesn't answer" in line for line in backup_run.listed(params)["lines"])
