"""A Docker Engine that may be killed without harm to anyone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def unmounted(folder: Path) -> None:
    """Unmount everything below `folder`, the innermost first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


class Engine:
    """A Docker Engine of the tests' own, which may be killed without harm to anyone.

    It lives in a network namespace, because an engine that starts tidies up the bridges of others. `name` is the
    namespace's and the folder's.
    """

    def __init__(self, name: str) -> None:
        # A path of its own, because the path of a socket must be short.
        self.folder = Path(f"/var/lib/{name}-engine")
        self.namespace = Path("/run/netns", name)
        self.endpoint = f"unix://{self.folder}/docker.sock"
        self.environment = {"DOCKER_HOST": self.endpoint}
        self.inside = ("nsenter", f"--net={self.namespace}")
        self.process: subprocess.Popen[bytes] | None = None

    def make(self, image: str) -> None:
        """Start it with nothing but an image of the machine's own engine."""
        unmounted(self.folder)  # what a run that was killed left behind
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.start()
        archive = self.folder / "image.tar"
        subprocess.run(["docker", "save", "-o", str(archive), image], check=True)
        assert self.docker("load", "-i", str(archive)).returncode == 0
        archive.unlink()

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "-H", self.endpoint, *arguments], capture_output=True, text=True, timeout=120, check=False
        )

    def start(self) -> None:
        if not self.namespace.exists():
            subprocess.run(["ip", "netns", "add", self.namespace.name], check=True)
            subprocess.run(["ip", "-n", self.namespace.name, "link", "set", "lo", "up"], check=True)
        # A killed engine leaves these, and takes a number that is in use again for itself.
        for left in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.folder / left).unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.inside, "dockerd", "--host", self.endpoint, "--data-root", str(self.folder / "data"),
                    "--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "docker.pid"),
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: self.docker("version").returncode == 0, "the engine")

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        if self.docker("version").returncode:
            self.start()
        names = self.docker("ps", "-aq").stdout.split()
        self.docker("rm", "-f", "-v", *names)
        for network in self.docker("network", "ls", "-q", "-f", "type=custom").stdout.split():
            self.docker("network", "rm", network)
        assert self.process is not None
        self.process.terminate()
        self.process.wait(timeout=60)
        unmounted(self.folder)
        subprocess.run(["ip", "netns", "delete", self.namespace.name], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)
