"""A file in somebody else's folder that root reads and replaces without being led to another file.

Each part of the path is opened relative to the folder before it, and every checked part stays open, so that exchanging a
link or folder meanwhile has no effect. Only links that root or the owner of their target has set are followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import secrets
import stat
from pathlib import Path
from shlex import quote
from types import TracebackType

from .errors import DasTernError

_LINKS = 40  # as many as Linux follows


class GuardedFile:
    """The file at `path`, which the variable `option` names. Close it, or use it as a context.

    The attribute `path` is the file's real path, `found` its status (None if there is no file yet), and `content` its bytes.
    """

    def __init__(self, option: str, path: Path) -> None:
        self._label = f"{option} {path}"
        self._open: list[int] = []
        self.found: os.stat_result | None = None
        self.content = b""
        try:
            self._folder, self.name, self.path = self._reach(path)
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GuardedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    @property
    def loose(self) -> bool:
        """Return whether anybody but its owner may read or write the file."""
        return self.found is not None and bool(self.found.st_mode & 0o077)

    @property
    def mode(self) -> int:
        """Return the mode for a file with a secret: the owner's rights stay, others have none."""
        return 0o600 if self.found is None else self.found.st_mode & 0o700

    def replace(self, content: bytes) -> None:
        """Replace the content in one step; it is on disk afterwards. Owner and group stay, others can't read it."""
        temporary = f".{self.name}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if self.found and (self.found.st_uid, self.found.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), self.found.st_uid, self.found.st_gid)
                os.fchmod(file.fileno(), self.mode)
                os.fsync(file.fileno())
            os.replace(temporary, self.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._folder)
            raise
        with contextlib.suppress(PermissionError):  # the folder can be written but not read
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _kept_open(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def _reach(self, path: Path) -> tuple[int, str, Path]:
        """Return the descriptor of the file's folder, the file's name there, and its path."""
        folder, at = self._kept_open(os.open("/", os.O_PATH | os.O_CLOEXEC)), Path("/")
        # A pair is a link's path and owner. It follows the parts of the link's target and is checked once these are reached.
        todo: list[str | tuple[Path, int]] = list(reversed(path.parts[1:]))
        links, name = 0, ""
        while todo:
            part = todo.pop()
            if isinstance(part, tuple):
                self._check_link(part, folder, name)
                continue
            if name:
                raise self._refusal(f"{at / name} isn't a directory. Create one, or correct the path")
            try:
                descriptor = self._kept_open(os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder))
            except FileNotFoundError:
                if any(isinstance(other, str) for other in todo):
                    raise self._refusal(f"{at} has no directory {part}. Create it, or correct the path") from None
                if todo:
                    raise self._refusal(f"it is a link to {at / part}, which doesn't exist. Correct the link") from None
                name = part
                continue
            except OSError as error:
                raise self._refusal(f"{at / part}: {error.strerror}. Correct the path") from None
            status = os.fstat(descriptor)
            self._check_maker(os.fstat(folder), status, at / part)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _LINKS:
                    raise self._refusal("it is a link that leads only to itself. Correct the link")
                target = os.readlink("", dir_fd=descriptor)
                todo.append((at / part, status.st_uid))
                if target.startswith("/"):
                    folder, at = self._open[0], Path("/")
                todo += [other for other in reversed(target.split("/")) if other not in ("", ".")]
            elif stat.S_ISDIR(status.st_mode):
                folder, at = descriptor, at.parent if part == ".." else at / part
            else:
                name = part
        if not name:
            raise self._refusal(f"it is a directory. Name the file, such as {at / '.env'}")
        return folder, name, at / name

    def _check_maker(self, folder: os.stat_result, entry: os.stat_result, path: Path) -> None:
        """Refuse an entry that anybody may have put there, to read the secret or to lead the writer elsewhere."""
        if not folder.st_mode & 0o002:
            return
        if not folder.st_mode & stat.S_ISVTX:
            raise self._refusal(
                f"everybody may write to {path.parent}, and so exchange {path}. Correct that: `chmod o-w {quote(str(path.parent))}`"
            )
        if entry.st_uid not in (0, os.geteuid(), folder.st_uid):
            raise self._refusal(
                f"everybody may write to {path.parent}, and {user(entry.st_uid)} put {path} there. Name a file in a folder that "
                "belongs to the file's reader"
            )

    def _check_link(self, link: tuple[Path, int], folder: int, name: str) -> None:
        path, owner = link
        reached = os.stat(name, dir_fd=folder, follow_symlinks=False) if name else os.fstat(folder)
        if owner not in (0, reached.st_uid):
            raise self._refusal(
                f"{path} is a link that {user(owner)} set, and its target belongs to {user(reached.st_uid)}; expected a "
                f"link of root or of {user(reached.st_uid)}. Name the file itself, or correct the link's owner: "
                f"`chown -h {user(reached.st_uid)} {quote(str(path))}`"
            )

    def _read(self) -> None:
        writable = os.access(".", os.W_OK | os.X_OK, dir_fd=self._folder)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(self.name, flags, dir_fd=self._folder)
        except FileNotFoundError:
            descriptor = None
        except PermissionError:
            writable, descriptor = False, None
        except OSError as error:
            # The name is a socket, or a link that was put there since the path was walked.
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            raise self._refusal(f"{self.path} isn't a file. Name the file") from None
        if not writable:
            raise self._refusal(
                f"this user can't write it. Run the play as its owner, or correct the mode of {self.path.parent}"
            )
        if descriptor is None:
            return
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise self._refusal(f"{self.path} isn't a file. Name the file")
            self._check_maker(os.fstat(self._folder), status, self.path)
            self.found, self.content = status, file.read()

    def _refusal(self, words: str) -> DasTernError:
        return DasTernError(f"{self._label}: {words}. Nothing was written.")


def user(uid: int) -> str:
    """Return the name of a user of this host, or the number if the user has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
