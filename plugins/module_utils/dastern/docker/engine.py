"""Finds a host's Docker Engine and speaks its HTTP interface, with the standard library alone.

A socket is enough; the command line client needn't be installed. The rules for the endpoint are the client's own
(https://docs.docker.com/engine/manage-resources/contexts/): DOCKER_HOST, then DOCKER_CONTEXT, then the current
context of the configuration file, then the default socket.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import http.client
import json
import os
import pwd
import re
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ..common.errors import DasTernError
from ..common.text import shown

DEFAULT_SOCKET = "/var/run/docker.sock"

# The engine's words for a registry that didn't answer, in contrast to an answer that it didn't like.
NETWORK = re.compile(
    r"dial |lookup |no such host|timeout|Client\.Timeout|refused|unreachable|connection reset|EOF", re.I
)

# States that `probe` returns.
WORKING = "working"
ABSENT = "absent"  # nobody named an endpoint, and none of the usual ones answers
DENIED = "denied"  # the socket exists, and the user may not open it
SILENT = "silent"  # the endpoint that somebody named doesn't answer
REMOTE = "remote"  # the endpoint is on another machine


@dataclass(frozen=True)
class Endpoint:
    """An engine's address, and the setting that it came from."""

    url: str
    origin: str

    @property
    def chosen(self) -> bool:
        """Return whether somebody named the endpoint, so that no other engine may stand in for it."""
        return self.origin != "default"

    @property
    def path(self) -> str | None:
        """Return the socket's path, or None if the address isn't a socket's."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None

    @property
    def local(self) -> bool:
        """Return whether the endpoint is on the host itself: a socket, or on the loopback interface."""
        if self.path is not None:
            return True
        parts = urlsplit(self.url)
        name = parts.hostname or ""
        return parts.scheme in ("tcp", "http") and re.fullmatch(r"localhost|::1|127(\.\d+){3}", name) is not None


def _context_host(config: Path, name: str) -> str:
    """Return the engine address stored in context `name`. A context's folder is named by the SHA-256 of its name."""
    meta = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    try:
        return str(json.loads(meta.read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DasTernError(
            f"Docker context '{name}' is selected, but {meta} doesn't hold it. "
            "`docker context ls` shows the contexts, `docker context use default` selects another one."
        ) from None


def resolve(environ: Mapping[str, str], home: str, uid: int, given: str = "") -> Endpoint:
    """Return the endpoint that the docker client would use; `given`, the inventory's choice, beats everything else."""
    if given:
        return Endpoint(_normal(given), "docker_engine_host")
    if environ.get("DOCKER_HOST"):
        return Endpoint(_normal(environ["DOCKER_HOST"]), "DOCKER_HOST")
    config = Path(environ.get("DOCKER_CONFIG") or Path(home) / ".docker")
    name, origin = environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not name:
        origin = str(config / "config.json")
        try:
            name = str(json.loads((config / "config.json").read_text()).get("currentContext") or "")
        except (OSError, ValueError, AttributeError):
            name = ""
    if name and name != "default":
        return Endpoint(_normal(_context_host(config, name)), f"context {name} ({origin})")
    rootless = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}") / "docker.sock"
    if uid != 0 and not Path(DEFAULT_SOCKET).exists() and rootless.exists():
        return Endpoint(f"unix://{rootless}", "rootless")
    return Endpoint(f"unix://{DEFAULT_SOCKET}", "default")


def _normal(url: str) -> str:
    """Return an endpoint's URL. A bare path is a socket; anything else has to name its scheme."""
    return f"unix://{url}" if url.startswith("/") else url


class _SocketConnection(http.client.HTTPConnection):
    """An HTTP connection over a UNIX socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The few calls of the engine's interface that this project makes; `timeout` is in seconds without a byte."""

    def __init__(self, endpoint: Endpoint, timeout: float = 10.0) -> None:
        self.endpoint = endpoint
        self.timeout = timeout

    def request(
        self, method: str, path: str, body: Iterable[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Return the unread answer. Raise `OSError` if there is none, `DasTernError` if the engine refuses."""
        connection: http.client.HTTPConnection
        if self.endpoint.path is not None:
            connection = _SocketConnection(self.endpoint.path, self.timeout)
        else:
            parts = urlsplit(self.endpoint.url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 2375, timeout=self.timeout)
        chunked = body is not None
        connection.request(method, path, body=body, headers=dict(headers or {}), encode_chunked=chunked)
        response = connection.getresponse()
        if response.status >= 400:
            text = response.read().decode(errors="replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = str(json.loads(text)["message"])
            raise DasTernError(f"Docker Engine at {self.endpoint.url}: {text.strip()}", status=response.status)
        return response

    def version(self) -> dict[str, Any]:
        """Return the engine's `GET /version`. Raise `ValueError` if something other than an engine answers."""
        answer = json.loads(self.request("GET", "/version").read())
        if not isinstance(answer, dict) or "ApiVersion" not in answer:
            raise ValueError("the answer isn't a Docker Engine's")
        return answer

    def image(self, name: str) -> dict[str, Any] | None:
        """Return what `docker image inspect` shows, or None if there is no such image."""
        try:
            return dict(json.loads(self.request("GET", f"/images/{quote(name, safe='/:@')}/json").read()))
        except DasTernError as refusal:
            if refusal.facts.get("status") == 404:
                return None
            raise

    def registry_failure(self, name: str) -> str:
        """Return why the registry of image `name` can't be reached, "" if it can.

        The engine is asked for the image's manifest, so that its proxies and mirrors count, and the wait ends after `timeout`;
        a pull itself would wait as long as the engine likes. A registry that asks for a password counts as reached.
        """
        try:
            self.request("GET", f"/distribution/{quote(name, safe='/:@')}/json").read()
        except TimeoutError:
            return f"no answer from its registry within {self.timeout:g} s"
        except DasTernError as refusal:
            text = refusal.message.split(": ", 1)[1]
            return text if NETWORK.search(text) else ""
        return ""

    def messages(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        """Yield the messages of a progress stream. Raise `DasTernError` at the first error among them."""
        for line in response:
            if not line.strip():
                continue
            message = json.loads(line)
            if "error" in message:
                raise DasTernError(f"Docker Engine at {self.endpoint.url}: {message['error']}")
            yield message


def denied(endpoint: Endpoint) -> str:
    """Return the message for a user who may not open the engine's socket; "" if the endpoint isn't a socket."""
    if endpoint.path is None:
        return ""
    user, owner, group = _name(pwd.getpwuid, os.geteuid()), "can't be seen by that user", ""
    with contextlib.suppress(OSError):
        status = os.stat(endpoint.path)
        group = _name(grp.getgrgid, status.st_gid)
        owner = f"belongs to {_name(pwd.getpwuid, status.st_uid)}:{group}, mode {stat.S_IMODE(status.st_mode):04o}"
        if status.st_gid == 0 or status.st_mode & 0o060 != 0o060:
            group = ""
    joining = f"; or give {user} access: `sudo usermod -aG {group} {user}`, then log in again" if group else ""
    return (
        f"User {user} may not open the Docker Engine's socket {endpoint.path}, which {owner}. Run the play as root: `-b` (and `-K` "
        f"where sudo asks for a password){joining}."
    )


def _name(look_up: Callable[[int], Any], number: int) -> str:
    """Return the name of a user or group, or the number if it has none."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def probe(endpoint: Endpoint, timeout: float = 10.0) -> tuple[str, str, dict[str, Any]]:
    """Return the state (one of the constants above), the reason in words, and the engine's answer to `GET /version`."""
    if not endpoint.local:
        return REMOTE, "the endpoint is on another machine", {}
    missing = SILENT if endpoint.chosen else ABSENT
    try:
        return WORKING, "", Engine(endpoint, timeout).version()
    except PermissionError as error:
        return DENIED, denied(endpoint) or str(error), {}
    except OSError as error:
        if error.errno == errno.ENOENT:
            return missing, "no such socket", {}
        if isinstance(error, TimeoutError):
            # A process holds the socket and doesn't answer, which is no reason to install a second engine.
            return SILENT, f"no answer within {timeout:g} s", {}
        return missing, (error.strerror or str(error)).lower(), {}
    except (http.client.HTTPException, ValueError, DasTernError) as error:
        return SILENT, shown(str(error)) or "the answer isn't a Docker Engine's", {}


def image_facts(inspected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an inspected image by which the roles decide.

    PG_MAJOR, which the official image and ours set, gives the major version. An image without it doesn't keep the contract.
    """
    config = inspected.get("Config") or {}
    environment = dict(item.split("=", 1) for item in config.get("Env") or [] if "=" in item)
    return {
        "id": inspected["Id"],
        "tags": list(inspected.get("RepoTags") or []),
        "digests": list(inspected.get("RepoDigests") or []),
        "pg_major": environment.get("PG_MAJOR", ""),
        "pg_version": environment.get("PG_VERSION", ""),
        "labels": dict(config.get("Labels") or {}),
        "bytes": int(inspected.get("Size") or 0),
    }
