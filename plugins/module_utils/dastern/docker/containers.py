"""Inspects containers, runs commands in them, and runs containers for one command, over the engine's HTTP interface.

No command line of this host is involved: a command gets its input over its standard input, where neither `ps` nor the
engine's own log shows it. Source of the calls: the Docker Engine API 1.41.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, urlencode, urlsplit

from ..common.errors import DasTernError
from .engine import Endpoint, Engine, denied

ROLE_LABEL = "org.dastern.role"
"""Label that marks this project's containers; its value is the role's name."""

_ENDED = "das-tern-exit:"
_HEAD = struct.Struct(">BxxxL")
"""Head of a frame: the stream's number, three zeros, and the number of bytes that follow."""
_CHUNK = 1 << 20


class Readable(Protocol):
    """A source of a command's standard input."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Output:
    """A command's exit code, output and error output."""

    rc: int
    out: str
    err: str

    @property
    def outside(self) -> dict[str, int]:
        """Return a refusal's facts: `status` 0, as for a silent engine, if the command was ended from outside."""
        return {"status": 0} if self.rc in (137, 143, -1) else {}

    @property
    def last_words(self) -> str:
        """Return the last lines of the error output, else of the output, as one paragraph."""
        lines = [line.strip() for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return " / ".join(lines[-6:])


class Containers(Engine):
    """The engine at `endpoint` (a URL)."""

    def __init__(self, endpoint: str, timeout: float = 60.0) -> None:
        super().__init__(Endpoint(endpoint, "docker_engine_endpoint"), timeout)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        """Return the parsed answer, None if it is empty.

        Raise `DasTernError` with the fact `status` if the engine refuses or doesn't answer.
        """
        if query:
            path += "?" + urlencode(query)
        with self._answering():
            if body is None:
                response = self.request(method, path)
            else:
                response = self.request(method, path, [json.dumps(body).encode()], {"Content-Type": "application/json"})
            text = response.read()
        return json.loads(text) if text.strip() else None

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise `DasTernError` if the engine is or goes away, or if this user may not ask it (fact `denied`)."""
        try:
            yield
        except PermissionError as error:
            raise DasTernError(denied(self.endpoint) or str(error), status=403, denied=True) from None
        except (OSError, http.client.HTTPException) as error:
            raise DasTernError(
                f"The Docker Engine at {self.endpoint.url} doesn't answer: {error}. See `systemctl status docker`.",
                status=0,
            ) from None

    def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the engine's facts on a container, volume, network or image (`kind`), None if it doesn't exist."""
        paths = {
            "container": f"/containers/{quote(name)}/json",
            "volume": f"/volumes/{quote(name)}",
            "network": f"/networks/{quote(name)}",
            "image": f"/images/{quote(name, safe='/:@')}/json",
        }
        try:
            return dict(self.call("GET", paths[kind]))
        except DasTernError as refusal:
            if refusal.facts.get("status") == 404:
                return None
            raise

    def runs(self, name: str) -> bool:
        """Return whether the container `name` exists, is running and isn't paused."""
        container = self.inspect("container", name)
        return bool(container and container["State"]["Running"] and not container["State"]["Paused"])

    def listed(self, **filters: list[str]) -> list[dict[str, Any]]:
        """Return the containers, including stopped ones, that match all `filters`."""
        return list(self.call("GET", "/containers/json", all=1, filters=json.dumps(filters)))

    def logs(self, name: str, lines: int = 15) -> str:
        """Return the last `lines` lines that the container wrote."""
        path = f"/containers/{quote(name)}/logs?" + urlencode({"stdout": 1, "stderr": 1, "tail": lines})
        with self._answering():
            out, err = _demultiplexed(self.request("GET", path).read())
        return (out + err).strip()

    def execute(
        self,
        container: str,
        command: Sequence[str],
        stdin: str | Readable = "",
        user: str = "postgres",
        silence: float = 0,
        into: BinaryIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Output:
        """Run `command` in a running container; its output goes `into` a file if given, else into the result.

        Raise `DasTernError` after `silence` seconds in which no byte went either way; 0 stands for the engine's own timeout.
        Raise `OSError` if `into` can't be written.
        """
        made = self.call("POST", f"/containers/{quote(container)}/exec", {
            "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "User": user, "Cmd": list(command),
            "Env": [f"{name}={value}" for name, value in (environment or {}).items()],
        })  # fmt: skip
        stream = self._hijack(f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})
        out, err = stream.talk(stdin, silence or self.timeout, into)
        ended = self.call("GET", f"/exec/{made['Id']}/json")
        return Output(int(ended["ExitCode"] if ended["ExitCode"] is not None else -1), out, err)

    def run_once(
        self,
        image: str,
        script: str,
        arguments: Sequence[str] = (),
        *,
        stdin: str = "",
        user: str = "postgres",
        name: str = "",
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        host_config: Mapping[str, Any] | None = None,
        silence: float = 900,
    ) -> Output:
        """Run a shell script in a container of its own, which has no network, no capability and a read-only root.

        The engine removes it when it ends, even if this process is killed meanwhile. Raise `DasTernError` after `silence`
        seconds in which no byte went either way.
        """
        wrapped = f'( {script}\n)\ncode=$?\nprintf "\\n{_ENDED}%s\\n" "$code"\nexit "$code"'
        body = {
            "Image": image,
            "User": user,
            "Entrypoint": ["/bin/sh", "-c", wrapped, "sh"],
            "Cmd": list(arguments),
            "Labels": dict(labels or {}),
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": {
                "AutoRemove": True,
                "NetworkMode": "none",
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"],
                **(host_config or {}),
            },
        }
        made = self.call("POST", "/containers/create", body, **({"name": name} if name else {}))["Id"]
        try:
            stream = self._hijack(f"/containers/{made}/attach?stream=1&stdin=1&stdout=1&stderr=1", {})
            self.call("POST", f"/containers/{made}/start")
        except BaseException:
            self.remove(made)
            raise
        out, err = stream.talk(stdin, silence)
        out, marked, ended = out.rpartition(f"\n{_ENDED}")
        if not marked or not ended.strip().isdecimal():
            return Output(-1, "", f"{err} the container was ended from outside (memory limit?)")
        return Output(int(ended), out, err)

    def remove(self, name: str) -> None:
        """Ensure that the container is gone, with its anonymous volumes."""
        try:
            self.call("DELETE", f"/containers/{quote(name)}", v=1, force=1)
        except DasTernError as refusal:
            # 409 means that it is being removed already.
            if refusal.facts.get("status") not in (404, 409):
                raise

    def wait_until_gone(self, name: str, seconds: float) -> bool:
        """Return whether the container was gone within `seconds`. A container that isn't running is removed."""
        end = time.monotonic() + seconds
        while (container := self.inspect("container", name)) is not None:
            if container["State"]["Status"] not in ("running", "restarting", "removing"):
                self.remove(name)
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def _hijack(self, path: str, body: Mapping[str, Any]) -> _Stream:
        """Open a connection that the engine turns into the command's standard streams."""
        with self._answering():
            return self._upgraded(path, body)

    def _upgraded(self, path: str, body: Mapping[str, Any]) -> _Stream:
        connection: socket.socket
        if self.endpoint.path is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self.timeout)
            connection.connect(self.endpoint.path)
        else:
            parts = urlsplit(self.endpoint.url)
            connection = socket.create_connection((parts.hostname or "", parts.port or 2375), self.timeout)
        content = json.dumps(body).encode()
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        response = http.client.HTTPResponse(connection)
        response.begin()
        if response.status != 101:
            text = response.read().decode(errors="replace")
            connection.close()
            raise DasTernError(f"Docker Engine at {self.endpoint.url}: {text.strip()}", status=response.status)
        connection.setblocking(False)
        received = response.fp.peek()  # bytes that came behind the answer's own lines
        response.close()
        return _Stream(connection, received)


class _Stream:
    """A command's standard streams over one connection, in the engine's framing."""

    def __init__(self, connection: socket.socket, received: bytes) -> None:
        self._connection = connection
        self._received = bytearray(received)
        """Bytes that have come and aren't a whole frame yet."""

    def talk(self, stdin: str | Readable, silence: float, into: BinaryIO | None = None) -> tuple[str, str]:
        """Send all of `stdin`, and return standard output, unless it goes `into` a file, and error output.

        Sending and reading take turns: a command that writes much before it has read all its input waits until its output is
        read. Raise `DasTernError` after `silence` seconds in which no byte went either way.
        """
        source: Readable = io.BytesIO(stdin.encode()) if isinstance(stdin, str) else stdin
        unsent = memoryview(b"")
        parts: dict[int, list[bytes]] = {1: [], 2: []}
        self._connection.setblocking(False)
        with self._connection, selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while True:
                for stream, content in self._frames():
                    if stream == 1 and into is not None:
                        into.write(content)
                    else:
                        parts.setdefault(stream, []).append(content)
                ready = sum(events for _, events in selector.select(silence))
                if not ready:
                    raise _broken(TimeoutError(f"no byte was sent or received for {silence:g} s"))
                if ready & selectors.EVENT_READ and not self._receive():
                    break
                if ready & selectors.EVENT_WRITE:
                    unsent = unsent or memoryview(source.read(_CHUNK))
                    sent = self._send(unsent)
                    unsent = unsent[sent:]
                    if not sent:
                        selector.modify(self._connection, selectors.EVENT_READ)
        return b"".join(parts[1]).decode(errors="replace"), b"".join(parts[2]).decode(errors="replace")

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield stream number and content of each whole frame that has come, and drop these frames from the buffer."""
        position = 0
        while len(self._received) >= position + _HEAD.size:
            stream, length = _HEAD.unpack_from(self._received, position)
            end = position + _HEAD.size + length
            if len(self._received) < end:
                break
            yield stream, bytes(self._received[position + _HEAD.size : end])
            position = end
        del self._received[:position]

    def _receive(self) -> bool:
        """Read the bytes that have come. Return False at the end of the stream."""
        try:
            content = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return True
        except (
            ConnectionError
        ):  # the command ended with input unread; the caller learns how from the engine or the output
            return False
        except OSError as error:
            raise _broken(error) from None
        self._received += content
        return bool(content)

    def _send(self, content: memoryview) -> int:
        """Send `content`, and return how many bytes went: 0 at the end of the input, or if the command ended early."""
        try:
            if content:
                return self._connection.send(content)
            self._connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        except OSError as error:
            raise _broken(error) from None
        return 0


def _broken(error: Exception) -> DasTernError:
    return DasTernError(f"The Docker Engine broke the connection to a command: {error}.", status=0)


def _demultiplexed(data: bytes) -> tuple[str, str]:
    """Return standard output and error output from data in the engine's framing."""
    parts: dict[int, list[bytes]] = {1: [], 2: []}
    position = 0
    while position + _HEAD.size <= len(data):
        stream, length = _HEAD.unpack_from(data, position)
        parts.setdefault(stream, []).append(data[position + _HEAD.size : position + _HEAD.size + length])
        position += _HEAD.size + length
    return b"".join(parts[1]).decode(errors="replace"), b"".join(parts[2]).decode(errors="replace")
