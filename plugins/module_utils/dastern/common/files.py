"""Files of the host: secrets, which are written whole or not at all, and the lock of a provisioning run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import IO

from . import scram
from .errors import DasTernError


def absolute(variable: str, path: str) -> None:
    """Refuse a relative path on the host, where nobody could say what it is relative to."""
    if not os.path.isabs(os.path.expanduser(path)):
        raise DasTernError(f"{variable} is `{path}`; expected an absolute path on the host, such as /srv/{path}.")


def write(path: Path, content: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Replace the file `path` in one step; it is on disk afterwards. A crash leaves the old content or the new."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), *owner)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Ensure that renames within the folder `path` are on disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_lock(path: Path) -> IO[str]:
    """Open the file of a lock, creating it if needed. Raise `OSError` for a link in its place."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "a+", encoding="utf-8")


@contextlib.contextmanager
def alone(folder: Path, seconds: float = 120) -> Iterator[None]:
    """Hold the lock that lets one run at a time provision from `folder`, waiting for another run.

    The folder is created if needed.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = open_lock(folder / ".lock")
    except OSError as error:
        raise DasTernError(f"{folder} can't be written: {error}. Run the play as its owner.") from None
    with lock:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise DasTernError(
                        f"Another run has been provisioning for {seconds:.0f} s: `fuser -v {quote(str(folder))}/.lock` "
                        "shows it. Run again when it is done."
                    ) from None
                time.sleep(0.1)
        yield


class Secret:
    """A password in a file of its own. `given` is the inventory's password, '' if it has none."""

    def __init__(self, path: Path, given: str) -> None:
        self.path = path
        try:
            stored = path.read_text("utf-8").removesuffix("\n")
        except FileNotFoundError:
            stored = ""
        except (OSError, UnicodeDecodeError) as error:
            raise DasTernError(f"The password file {path} can't be read: {error}. Run the play as its owner.") from None
        if stored and not given and not scram.acceptable(stored):
            raise DasTernError(
                f"The password file {path} doesn't hold printable ASCII of {scram.MINIMUM_LENGTH} characters or more. "
                f"Correct it, or delete it (`rm {quote(str(path))}`) to have a new password generated and set."
            )
        self.stored = stored
        self.generated = not given and not stored
        self.value = given or stored or secrets.token_urlsafe(32)

    @property
    def loose(self) -> bool:
        """Return whether anybody but its owner may read or write the file."""
        return self.path.exists() and self.path.stat().st_mode & 0o077 != 0

    @property
    def differs(self) -> bool:
        return self.value != self.stored or self.loose

    def save(self) -> None:
        """Write the file, and create its folder if needed."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self.path, f"{self.value}\n".encode())
