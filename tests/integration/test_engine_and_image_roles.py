"""The roles docker_engine and postgres_image: every source, every refusal, and a second run that changes nothing."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import shlex
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.quantities import amount
from ansible.module_utils.dastern.docker.image_extend import extend
from conftest import INVENTORY, REPOSITORY, Play, docker

ENGINE = "- hosts: dastern\n  gather_facts: false\n  roles:\n    - docker_engine\n"
# One entry point, after the names that it takes for granted.
PERMISSION = (
    "- hosts: dastern\n  gather_facts: false\n  vars: {{postgres_backup_dir: {folder}, postgres_config_dir: {folder}-config}}\n  tasks:\n"
    "    - ansible.builtin.import_role: {{name: postgres, tasks_from: connection}}\n"
    "    - ansible.builtin.import_role: {{name: {role}, tasks_from: {tasks}}}\n"
)
BOTH = f"{ENGINE}    - postgres_image\n"
SAVE = (
    "- hosts: dastern\n  gather_facts: false\n  tasks:\n"
    "    - ansible.builtin.import_role: {name: docker_engine}\n"
    "    - ansible.builtin.import_role: {name: postgres_image, tasks_from: save}\n"
)
# No image of these names, and nobody listens there.
NOWHERE = {"postgres_image_name": "127.0.0.1:25801/nowhere", "postgres_image_local": "das-tern-test/none:17"}
Runner = Callable[..., Play]
# Ids of the images that a test made.
MADE: set[str] = set()


def image_id(name: str) -> str:
    return docker("image", "inspect", "-f", "{{.Id}}", name, check=False).stdout.strip()


def tiny(tag: str, major: str = "17", content: bytes = b"tiny") -> str:
    """An image with one file that says it is PostgreSQL `major`; its id."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        member = tarfile.TarInfo("content")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    changes = ["-c", f"ENV PG_MAJOR={major}", "-c", f"ENV PG_VERSION={major}.1"] if major else []
    done = subprocess.run(["docker", "import", *changes, "-", tag], input=layer.getvalue(), capture_output=True)
    assert done.returncode == 0, done.stderr
    MADE.add(image_id(tag))
    return image_id(tag)


@pytest.fixture(autouse=True)
def no_test_images_left() -> Iterator[None]:
    yield
    names = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    mine = [name for name in names if name.startswith(("das-tern-test/", "127.0.0.1:558"))]
    # Also the one whose tag went over to another; the engine refuses what is in use.
    if mine or MADE:
        docker("image", "rm", "-f", *mine, *MADE, check=False)
    MADE.clear()


# --- the engine ------------------------------------------------------------------------------------------------------


def shielded(
    path: Path, playbook: str, *args: str, binds: dict[str, str] | None = None, user: int | None = None
) -> tuple[int, str, dict[str, Any]]:
    """A play in a mount namespace of its own, where files can be hidden under others; the host doesn't notice."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a mount namespace")
    (path / "play.yml").write_text(playbook)
    (path / "hosts.yml").write_text(INVENTORY)
    report = path / "report.json"
    steps = [f"mount --bind {shlex.quote(over)} {shlex.quote(hidden)}" for hidden, over in (binds or {}).items()]
    command = shlex.join(
        [
            *([] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]),
            str(Path(sys.executable).parent / "ansible-playbook"),
            # The tests' own interpreter may lie where another user can't go.
            *([] if user is None else ["-e", "ansible_python_interpreter=/usr/bin/python3"]),
            *("-i", str(path / "hosts.yml"), "-e", f"report_file={report}", *args, str(path / "play.yml")),
        ]
    )
    if user is not None:
        readable = ["setpriv", f"--reuid={user}", "--clear-groups", "test", "-r", str(REPOSITORY / "ansible.cfg")]
        if subprocess.run(readable).returncode:
            pytest.skip("another user can't read this checkout")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "; ".join([*steps, f"exec {command}"])],
        cwd=REPOSITORY,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")},
            "HOME": str(path),
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(path / "remote"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
    )
    sections = {}
    if report.exists():
        (host,) = json.loads(report.read_text())["hosts"].values()
        sections = host["sections"]
    return done.returncode, " ".join((done.stdout + done.stderr).split()), sections


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user reaches; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="dastern-test-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def no_socket(open_path: Path) -> dict[str, str]:
    """The engine's socket hidden under a file that nobody serves."""
    (open_path / "nothing").touch()
    (open_path / "nothing").chmod(0o666)
    return {"/var/run/docker.sock": str(open_path / "nothing")}


class TestEngine:
    def test_a_working_engine_is_left_alone(self, play: Runner) -> None:
        result = play(ENGINE)
        assert (result.rc, result.changed) == (0, 0)
        section = result.section("engine")
        assert section["endpoint"].startswith("unix://")
        assert section["version"]
        assert section["absent"] is False

    @pytest.mark.parametrize("host", ["tcp://192.0.2.1:2375", "ssh://root@192.0.2.1"])
    def test_another_machine_is_refused(self, play: Runner, host: str) -> None:
        result = play(ENGINE, env={"DOCKER_HOST": host})
        assert result.rc != 0
        assert result.changed == 0
        assert f"{host} (from DOCKER_HOST), which is another machine" in result.flat
        assert "unset DOCKER_HOST" in result.flat

    def test_a_chosen_engine_that_does_not_answer_is_refused(self, play: Runner, tmp_path: Path) -> None:
        result = play(ENGINE, env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
        assert result.rc != 0
        assert "doesn't answer: no such socket" in result.flat.replace("''", "'")

    def test_no_permission_is_not_no_engine(self, open_path: Path) -> None:
        code, output, _ = shielded(open_path, ENGINE, user=65534)
        assert code != 0
        assert "User nobody may not open the Docker Engine's socket /var/run/docker.sock" in output.replace("''", "'")
        assert "sudo usermod -aG docker nobody" in output

    @pytest.mark.parametrize("entry", ["docker_engine.look", "backup.take", "backup.list", "backup.verify"])
    def test_no_permission_is_named_everywhere(self, open_path: Path, entry: str) -> None:
        role, _, tasks = entry.partition(".")
        # Folders that aren't there, where nobody can make them: others would be refused first.
        playbook = PERMISSION.format(role=role, tasks=tasks, folder="/var/dastern-test-backups")
        code, output, _ = shielded(open_path, playbook, user=65534)
        assert code != 0
        assert "User nobody may not open the Docker Engine's socket /var/run/docker.sock" in output.replace("''", "'")
        assert "docker start" not in output

    def test_check_mode_on_a_machine_without_engine(self, open_path: Path, no_socket: dict[str, str]) -> None:
        code, output, sections = shielded(open_path, BOTH, "--check", binds=no_socket)
        assert code == 0, output
        assert sections["engine"]["lines"][0].startswith("would install docker.io")
        assert sections["engine"]["absent"] is True
        assert sections["image"]["lines"] == ["would pull postgres:17, or else build das-tern/postgres:17"]
        assert sections["image"]["id"] == ""

    def test_without_root_nothing_is_installed(self, open_path: Path, no_socket: dict[str, str]) -> None:
        code, output, _ = shielded(open_path, ENGINE, binds=no_socket, user=65534)
        assert code != 0
        assert "user nobody can't install one" in output.replace("''", "'")
        assert "ansible_become=true" in output

    def test_an_unknown_distribution_is_refused(self, open_path: Path, no_socket: dict[str, str]) -> None:
        (open_path / "os-release").write_text('ID=hannah\nPRETTY_NAME="Hannah Montana Linux"\n')
        binds = {**no_socket, "/etc/os-release": str(open_path / "os-release")}
        code, output, _ = shielded(open_path, ENGINE, binds=binds)
        assert code != 0
        assert "runs Hannah Montana Linux; this role installs on debian and ubuntu only" in output

    def test_installation_can_be_forbidden(self, open_path: Path, no_socket: dict[str, str]) -> None:
        code, output, _ = shielded(open_path, ENGINE, "-e", "docker_engine_install=false", binds=no_socket)
        assert code != 0
        assert "docker_engine_install is false" in output


class TestBareMachine:
    """A Debian without systemd and without engine, as a container; its engine runs inside it."""

    NAME = "dastern-test-bare"
    IMAGE = "das-tern-test/debian:bare"

    @pytest.fixture
    def bare(self, tmp_path: Path) -> Iterator[Path]:
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        if os.geteuid() != 0 or release["ID"] != "debian":
            pytest.skip("makes its machine from the host's Debian, as root")
        code = release["VERSION_CODENAME"]
        targets = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        mirror = next(line.split()[0] for line in targets if line.split()[1] == code)
        root = tmp_path / "root.tar"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3", "--aptopt=Acquire::Check-Valid-Until \"false\"",
             code, str(root), mirror],
            check=True,
        )  # fmt: skip
        docker("import", "-c", 'CMD ["sleep", "infinity"]', str(root), self.IMAGE)
        root.unlink()
        docker("rm", "-f", "-v", self.NAME, check=False)
        docker(
            "run", "-d", "--name", self.NAME, "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--tmpfs", "/run",
            "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--security-opt", "systempaths=unconfined", "-v", "/sys/fs/cgroup:/sys/fs/cgroup", "-v", "/var/lib/docker",
            self.IMAGE,
        )  # fmt: skip
        inventory = tmp_path / "bare.yml"
        inventory.write_text(
            "dastern:\n  hosts:\n    bare:\n      ansible_connection: community.docker.docker\n"
            f"      ansible_host: {self.NAME}\n      ansible_python_interpreter: /usr/bin/python3\n"
        )
        yield inventory
        docker("rm", "-f", "-v", self.NAME, check=False)

    def test_check_install_again_check_and_a_broken_start(self, play: Runner, bare: Path) -> None:
        args = ("-i", str(bare), "--limit", "bare")
        assert play(ENGINE, {}, *args, "--check").section("engine")["absent"] is True
        made = play(ENGINE, {}, *args)
        assert made.rc == 0, made.stdout
        assert made.section("engine")["lines"][0].endswith("(installed and started)")
        again = play(ENGINE, {}, *args)
        assert (again.rc, again.changed) == (0, 0)
        assert play(ENGINE, {}, *args, "--check").changed == 0

        stop = "kill $(cat /var/run/docker.pid); while [ -e /var/run/docker.sock ]; do sleep 0.1; done"
        docker("exec", self.NAME, "timeout", "30", "sh", "-c", stop)
        docker("exec", self.NAME, "sh", "-c", "mkdir -p /etc/docker; echo '{ broken' >/etc/docker/daemon.json")
        broken = play(ENGINE, {}, *args)
        assert broken.rc != 0
        assert "unable to configure the Docker daemon with file /etc/docker/daemon.json" in broken.flat
        docker("exec", self.NAME, "rm", "/etc/docker/daemon.json")
        mended = play(ENGINE, {}, *args)
        assert mended.rc == 0, mended.stdout
        assert mended.section("engine")["lines"][0].endswith("(started)")


# --- the image -------------------------------------------------------------------------------------------------------


class TestPresent:
    def test_nothing_to_do(self, play: Runner, image: dict[str, str]) -> None:
        result = play(BOTH)
        assert (result.rc, result.changed) == (0, 0)
        assert result.section("image")["id"] == image["postgres_image_id"]
        # The size in the words of `status.yml`.
        size = amount(int(docker("image", "inspect", "-f", "{{.Size}}", image["postgres_image_id"]).stdout))
        assert result.section("image")["lines"][0].endswith(f", {size}): present")

    def test_not_there(self, play: Runner) -> None:
        result = play(BOTH, {**NOWHERE, "postgres_image_source": "present"})
        assert (result.rc != 0, result.changed) == (True, 0)
        assert "has none of these images: das-tern-test/none:17, 127.0.0.1:25801/nowhere:17" in result.flat

    @pytest.mark.parametrize(("major", "words"), [("16", "holds PostgreSQL 16"), ("", "unknown version (no PG_MAJOR")])
    def test_another_major_version(self, play: Runner, major: str, words: str) -> None:
        tiny("das-tern-test/other:17", major)
        result = play(BOTH, {**NOWHERE, "postgres_image_local": "das-tern-test/other:17"})
        assert (result.rc != 0, result.changed) == (True, 0)
        assert words in result.flat
        assert "Expected: 17" in result.flat

    def test_wrong_source(self, play: Runner) -> None:
        result = play(BOTH, {"postgres_image_source": "bogus"})
        assert result.rc != 0
        assert "value of postgres_image_source must be one of: auto, present, pull, archive, build" in result.flat


class TestArchive:
    def test_save_remove_load(self, play: Runner, tmp_path: Path) -> None:
        name = "das-tern-test/tiny:17"
        made = tiny(name)
        path = tmp_path / "tiny.tar.gz"
        variables = {**NOWHERE, "postgres_image_local": name, "postgres_image_archive": str(path)}

        check = play(SAVE, variables, "--check")
        assert (check.rc, check.changed, path.exists()) == (0, 1, False)
        assert play(SAVE, variables).changed == 1
        stamp = path.stat().st_mtime_ns
        assert (play(SAVE, variables).changed, path.stat().st_mtime_ns) == (0, stamp)
        assert play(SAVE, variables, "--check").changed == 0
        assert [file.name for file in tmp_path.iterdir()] == ["tiny.tar.gz"]
        assert path.read_bytes()[:2] == b"\x1f\x8b"

        docker("image", "rm", name)
        variables["postgres_image_source"] = "archive"
        check = play(BOTH, variables, "--check")
        assert (check.rc, check.changed > 0, image_id(name)) == (0, True, "")
        loaded = play(BOTH, variables)
        assert (loaded.rc, loaded.changed, image_id(name)) == (0, 1, made)
        assert f"loaded from {path}" in loaded.section("image")["lines"][0]
        assert play(BOTH, variables).changed == 0
        assert play(BOTH, variables, "--check").changed == 0

    def test_an_archive_of_another_image_or_a_damaged_one_is_written_anew(self, play: Runner, tmp_path: Path) -> None:
        path = tmp_path / "tiny.tar"
        variables = {**NOWHERE, "postgres_image_local": "das-tern-test/tiny:17", "postgres_image_archive": str(path)}
        tiny("das-tern-test/tiny:17")
        assert play(SAVE, variables).changed == 1
        path.write_bytes(path.read_bytes()[:-5000])
        assert play(SAVE, variables).changed == 1
        tiny("das-tern-test/tiny:17", content=b"newer")
        assert play(SAVE, variables).changed == 1
        assert play(SAVE, variables).changed == 0

    @pytest.mark.parametrize(
        ("content", "words"),
        [(None, "There is no image archive"), (b"no archive", "can't be read as an image archive")],
        ids=["missing", "something else"],
    )
    @pytest.mark.parametrize("mode", [[], ["--check"]], ids=["run", "check"])
    def test_refused(self, play: Runner, tmp_path: Path, content: bytes | None, words: str, mode: list[str]) -> None:
        path = tmp_path / "image.tar"
        if content is not None:
            path.write_bytes(content)
        result = play(BOTH, {**NOWHERE, "postgres_image_source": "archive", "postgres_image_archive": str(path)}, *mode)
        assert (result.rc != 0, result.changed) == (True, 0)
        assert words in result.flat.replace("''", "'")

    def test_no_path(self, play: Runner) -> None:
        result = play(BOTH, {**NOWHERE, "postgres_image_source": "archive"})
        assert result.rc != 0
        assert "postgres_image_archive is empty" in result.flat
        result = play(SAVE, {"postgres_image_archive": ""})
        assert result.rc != 0
        assert "save_image.yml -e postgres_image_archive=" in result.flat

    def test_another_major_version_or_name_is_refused_before_it_is_loaded(self, play: Runner, tmp_path: Path) -> None:
        path = tmp_path / "image.tar"
        variables = {**NOWHERE, "postgres_image_source": "archive", "postgres_image_archive": str(path)}
        tiny("das-tern-test/none:17", "16")
        docker("save", "-o", str(path), "das-tern-test/none:17")
        docker("image", "rm", "das-tern-test/none:17")
        result = play(BOTH, variables)
        assert "holds PostgreSQL 16; expected: 17. Nothing was loaded." in result.flat
        assert (result.rc != 0, image_id("das-tern-test/none:17")) == (True, "")

        tiny("das-tern-test/elsewhere:17")
        docker("save", "-o", str(path), "das-tern-test/elsewhere:17")
        docker("image", "rm", "das-tern-test/elsewhere:17")
        result = play(BOTH, variables)
        assert "-e postgres_image_local=das-tern-test/elsewhere:17" in result.flat
        assert (result.rc != 0, image_id("das-tern-test/elsewhere:17")) == (True, "")

    def test_auto_says_why_the_archive_was_taken(self, play: Runner, tmp_path: Path) -> None:
        tiny("das-tern-test/none:17")
        docker("save", "-o", str(tmp_path / "image.tar"), "das-tern-test/none:17")
        docker("image", "rm", "das-tern-test/none:17")
        result = play(BOTH, {**NOWHERE, "postgres_image_archive": str(tmp_path / "image.tar")})
        assert result.rc == 0, result.stdout
        line = result.section("image")["lines"][0]
        assert "127.0.0.1:25801/nowhere:17 could not be pulled (" in line
        assert "connection refused" in line
        assert f"loaded from {tmp_path}/image.tar" in line
        assert result.seconds < 60


@pytest.fixture
def registry() -> Iterator[tuple[str, str]]:
    """A registry on the loopback interface that holds one image under tag 17: its name, and its digest."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("content"), io.BytesIO())

    def digest(data: bytes) -> str:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    data = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PG_MAJOR=17", "PG_VERSION=17.1"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(data)]},
        }
    ).encode()
    media = "application/vnd.docker"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{media}.distribution.manifest.v2+json",
            "config": {"mediaType": f"{media}.container.image.v1+json", "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": f"{media}.image.rootfs.diff.tar", "size": len(data), "digest": digest(data)}],
        }
    ).encode()
    manifest_type = f"{media}.distribution.manifest.v2+json"
    answers = {
        "/v2/": (b"{}", "application/json"),
        "/v2/pg/manifests/17": (manifest, manifest_type),
        f"/v2/pg/manifests/{digest(manifest)}": (manifest, manifest_type),
        f"/v2/pg/blobs/{digest(config)}": (config, "application/octet-stream"),
        f"/v2/pg/blobs/{digest(data)}": (data, "application/octet-stream"),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, kind = answers.get(self.path, (b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "none"}]}', ""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind or "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 25802), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    docker("image", "rm", "-f", "127.0.0.1:25802/pg:17", check=False)
    yield "127.0.0.1:25802/pg", digest(manifest)
    docker("image", "rm", "-f", "127.0.0.1:25802/pg:17", check=False)
    server.shutdown()
    server.server_close()


class TestPull:
    def test_by_tag(self, play: Runner, registry: tuple[str, str]) -> None:
        name, _ = registry
        variables = {**NOWHERE, "postgres_image_name": name}
        check = play(BOTH, variables, "--check")
        assert (check.rc, check.changed > 0, image_id(f"{name}:17")) == (0, True, "")
        assert check.section("image")["lines"][0].startswith(f"would pull {name}:17")
        pulled = play(BOTH, variables)
        assert pulled.rc == 0, pulled.stdout
        assert (pulled.section("image")["reference"], pulled.section("image")["id"]) == (
            f"{name}:17",
            image_id(f"{name}:17"),
        )
        assert pulled.section("image")["lines"][0].endswith(": pulled")
        assert play(BOTH, variables).changed == 0
        assert play(BOTH, variables, "--check").changed == 0

    def test_by_digest_then_saved_by_tag(self, play: Runner, registry: tuple[str, str], tmp_path: Path) -> None:
        name, digest = registry
        variables = {**NOWHERE, "postgres_image_name": name, "postgres_image_digest": digest}
        pulled = play(BOTH, {**variables, "postgres_image_source": "pull"})
        assert pulled.rc == 0, pulled.stdout
        assert pulled.section("image")["reference"] == f"{name}@{digest}"
        assert play(BOTH, variables).changed == 0
        saved = play(SAVE, {**variables, "postgres_image_archive": str(tmp_path / "pg.tar.gz")})
        assert saved.rc == 0, saved.stdout
        docker("image", "rm", "-f", image_id(f"{name}:17"))
        source = {"postgres_image_source": "archive", "postgres_image_archive": str(tmp_path / "pg.tar.gz")}
        assert play(BOTH, {**variables, **source}).section("image")["reference"] == f"{name}:17"

    def test_a_tag_that_the_registry_does_not_have(self, play: Runner, registry: tuple[str, str]) -> None:
        variables = {**NOWHERE, "postgres_image_name": registry[0], "postgres_image_tag": "99"}
        result = play(BOTH, {**variables, "postgres_image_source": "pull"})
        assert (result.rc != 0, result.changed) == (True, 0)
        assert f"{registry[0]}:99 can't be pulled" in result.flat.replace("''", "'")

    def test_a_registry_that_never_answers_holds_nobody_up(self, play: Runner) -> None:
        with socket.create_server(("127.0.0.1", 25803)):
            began = time.monotonic()
            variables = {**NOWHERE, "postgres_image_name": "127.0.0.1:25803/none", "postgres_image_pull_timeout": 2}
            result = play(BOTH, {**variables, "postgres_image_source": "pull"})
            assert time.monotonic() - began < 30
        assert result.rc != 0
        assert "no answer from its registry within 2 s" in result.flat


class TestExtend:
    """The official image, played by ours without pgBackRest and with an apt-get that brings it back."""

    NAME = "das-tern-test/official:17"
    INTO = "das-tern-test/extended:17"
    APT = "#!/bin/sh\ncase $1 in install) mv /opt/pgbackrest /usr/bin/ ;; esac\n"

    @pytest.fixture
    def official(self, image: dict[str, str]) -> Iterator[str]:
        script = "mv /usr/bin/pgbackrest /opt/ && cat > /usr/bin/apt-get && chmod +x /usr/bin/apt-get"
        made = docker(
            "create", "-i", "-u", "0:0", "--entrypoint", "sh", image["postgres_image_reference"], "-c", script
        ).stdout.strip()  # fmt: skip
        docker("start", "-ai", made, stdin=self.APT)
        plain = ['ENTRYPOINT ["docker-entrypoint.sh"]', 'CMD ["postgres"]', "LABEL org.dastern.pgbackrest="]
        docker("commit", *(word for one in plain for word in ("--change", one)), made, self.NAME)
        docker("rm", "-v", made)
        yield self.NAME
        docker("image", "rm", "-f", self.INTO, self.NAME, check=False)

    def test_check_extend_again_check_and_no_apt(self, official: str) -> None:
        endpoint = "unix:///var/run/docker.sock"
        planned = extend(endpoint, official, self.INTO, "pgbackrest", check_mode=True)
        assert (planned["changed"], image_id(self.INTO)) == (True, "")
        done = extend(endpoint, official, self.INTO, "pgbackrest")
        assert done["changed"] is True
        assert "pgBackRest" in docker("run", "--rm", "--entrypoint", "pgbackrest", self.INTO, "version").stdout
        before, after = (json.loads(docker("inspect", one).stdout)[0]["Config"] for one in (official, self.INTO))
        for part in ("Entrypoint", "Cmd", "User", "Env", "StopSignal", "Volumes"):
            assert after[part] == before[part]
        assert after["Labels"]["org.dastern.base"] == image_id(official)
        for check_mode in (False, True):
            assert extend(endpoint, official, self.INTO, "pgbackrest", check_mode=check_mode) == {
                **done,
                "changed": False,
            }
        with pytest.raises(DasTernError, match="pgbackrest can't be installed in image .*postgres_wal_archive=false"):
            extend(endpoint, self.INTO, official, "pgbackrest")  # there is nothing to move any more
        assert "pgBackRest" not in docker("run", "--rm", "--entrypoint", "ls", official, "/usr/bin").stdout
        assert docker("ps", "-aq", "--filter", "label=org.dastern.role=image-extend").stdout == ""

    def test_in_the_role(self, play: Runner, official: str) -> None:
        variables = {
            "postgres_image_source": "pull", "postgres_image_name": official.partition(":")[0],
            "postgres_image_local": self.INTO, "postgres_image_pgbackrest": True,
        }  # fmt: skip
        for arguments, changed in ((["--check"], 1), ([], 1), ([], 0), (["--check"], 0)):
            result = play(BOTH, variables, *arguments)
            assert (result.rc, result.changed) == (0, changed), result.stdout
            assert result.section("image")["reference"] == self.INTO
            assert result.section("image")["lines"][0].endswith(f"; pgBackRest added to {official}")
        assert play(BOTH, {**variables, "postgres_image_pgbackrest": False}).section("image")["reference"] == official


class TestBuild:
    def test_check_build_again_check(self, play: Runner, tmp_path: Path) -> None:
        name = "das-tern-test/built:17"
        variables = {
            **NOWHERE,
            "postgres_image_local": name,
            "postgres_image_source": "build",
            "postgres_image_build_dir": str(tmp_path),
        }
        check = play(BOTH, variables, "--check")
        assert (check.rc, image_id(name)) == (0, "")
        assert check.section("image")["lines"] == [f"would build {name}"]
        built = play(BOTH, variables)
        assert built.rc == 0, built.stdout
        assert "built from" in built.section("image")["lines"][0]
        assert list(tmp_path.iterdir()) == []
        assert play(BOTH, variables).changed == 0
        assert play(BOTH, variables, "--check").changed == 0

    @pytest.mark.parametrize(
        ("variables", "words"),
        [
            ({"postgres_image_mirror": "bogus"}, "postgres_image_mirror is 'bogus'. Expected: a URI"),
            ({"postgres_image_major": 16}, "no Debian release is known here that ships PostgreSQL 16"),
            ({"postgres_image_packages": ["no-such-package"]}, "no-such-package"),
        ],
    )
    def test_a_failed_build_leaves_nothing(
        self, play: Runner, tmp_path: Path, variables: dict[str, Any], words: str
    ) -> None:
        result = play(
            BOTH, {**NOWHERE, "postgres_image_source": "build", "postgres_image_build_dir": str(tmp_path), **variables}
        )
        assert result.rc != 0
        assert words in result.flat.replace("''", "'")
        assert list(tmp_path.iterdir()) == []
        assert image_id("das-tern-test/none:17") == ""

    def test_no_space_is_refused_first(self, play: Runner) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root to mount a small file system")
        small = Path("/var/tmp/das-tern-test-small")
        small.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", str(small)], check=True)
        try:
            result = play(BOTH, {**NOWHERE, "postgres_image_source": "build", "postgres_image_build_dir": str(small)})
        finally:
            subprocess.run(["umount", str(small)], check=True)
            small.rmdir()
        assert result.rc != 0
        assert "MB are free in" in result.flat
