"""A migrations folder as Prisma reads it: which directories are migrations, their order and their checksums.

Source of the rules: Prisma's schema engine (`migration_directory.rs`, `checksum.rs`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

from .commands import variable
from .errors import DasTernError
from .sql_text import Outline, Places, Statement, each_statement, outline, psql_commands, tokens

SCRIPT = "migration.sql"
DOWN = "down.sql"
LOCK_FILE = "migration_lock.toml"
LEDGER = "_prisma_migrations"
"""Name of the table in which Prisma Migrate records the applied migrations."""
ADVISORY_LOCK = 72707369
"""Key of the advisory lock that Prisma Migrate and this project hold while they migrate."""
_CONTROL = {"begin", "start", "commit", "end", "rollback", "abort", "prepare"}
_SHOWN = 20
"""Largest number of wrong directories that a refusal names."""
ARGUMENT_SPEC: dict[str, Any] = {
    "folder": {"type": "str", "required": True},
    "migrations": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "sql": {"type": "str", "required": True},
            "down": {"type": "str"},
        },
    },
    "schema": {"type": "str", "default": "public"},
}
"""The options of every module that works on a folder of migrations; the action plugins fill `migrations`."""


@dataclass(frozen=True, init=False)
class MigrationFile:
    """One migration: the name of its directory and its `migration.sql` with unchanged line endings.

    The file is held once, as the bytes that are sent. Otherwise a big file would take several times its size.
    """

    name: str
    content: bytes = field(repr=False)
    down: str | None = field(repr=False)
    """Text of its `down.sql`; None if the migration has none or it wasn't read."""

    def __init__(self, name: str, sql: str | bytes, down: str | None = None) -> None:
        content = sql.encode("utf-8") if isinstance(sql, str) else sql
        for attribute, value in (("name", name), ("content", content), ("down", down)):
            object.__setattr__(self, attribute, value)

    @property
    def sql(self) -> str:
        """Return the file's text."""
        return self.content.decode("utf-8")

    @cached_property
    def checksum(self) -> str:
        """Return the SHA-256 of the file's bytes as 64 lower-case hex digits."""
        return _sha256(self.content)

    @cached_property
    def outline(self) -> Outline:
        """Return the text by which the file is judged. Lines and columns are those of the file, offsets aren't."""
        return outline(self.sql)

    @cached_property
    def places(self) -> Places:
        """Return the lines and columns of the outline."""
        return Places(self.outline.text)

    @cached_property
    def words(self) -> frozenset[str]:
        """Return all words of the outline in lower case, including those in comments and strings.

        A file that lacks a word has no statement with it, so that a thousand files needn't be read token by token.
        """
        return frozenset(match[0] for match in re.finditer(r"\w+", self.outline.text.lower()))

    @cached_property
    def control(self) -> list[Statement]:
        """Return the statements that begin and end transactions."""
        if not _CONTROL & self.words:
            return []
        return [statement for statement in each_statement(self.outline.text) if statement.transaction_control]

    @cached_property
    def psql(self) -> list[tuple[int, str]]:
        """Return psql's commands, which begin with a backslash outside of quotes: offset in the outline, and text."""
        return list(psql_commands(self.outline.text))

    @cached_property
    def empty(self) -> bool:
        """Return whether the file holds no statement, only comments and blanks."""
        return all(token == ";" for _, token, _ in tokens(self.outline.text))

    def as_option(self) -> dict[str, str]:
        """Return the file in the form of a module's option."""
        return {"name": self.name, "sql": self.sql, **({} if self.down is None else {"down": self.down})}

    def matches(self, checksum: str) -> bool:
        """Return whether `checksum` is that of this file in any form (git may change line endings to LF or CRLF)."""
        if checksum == self.checksum:
            return True
        unix = self.content.replace(b"\r\n", b"\n")
        return checksum in (_sha256(unix), _sha256(unix.replace(b"\n", b"\r\n")))


def folder_of(given: str, root: Path) -> Path:
    """Return the folder that `migrations_dir` names. A relative path starts at `root`, the project's folder."""
    if not given.strip():
        raise DasTernError("`migrations_dir` is empty; expected a folder, such as files/sql/migrations.")
    return root / os.path.expanduser(given)


def read_into(params: dict[str, Any], root: Path, *, down: bool = False) -> list[MigrationFile]:
    """Put the files of the folder into a module's options; `down` includes each `down.sql`."""
    folder = folder_of(params["folder"], root)
    files = read_folder(folder)
    if down:
        files = [MigrationFile(file.name, file.content, read_down(folder, file.name)) for file in files]
    params["folder"] = str(folder)
    params["migrations"] = files
    return files


def as_sent(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a module's options in the form that its process on the host takes."""
    files = {"migrations": [file.as_option() for file in params["migrations"]]} if "migrations" in params else {}
    return {name: value for name, value in {**params, **files}.items() if value is not None}


def of_params(params: Mapping[str, Any]) -> list[MigrationFile]:
    """Return the files in a module's options. Files that this process has read keep their cached properties."""
    return [
        item if isinstance(item, MigrationFile) else MigrationFile(item["name"], item["sql"], item.get("down"))
        for item in params["migrations"]
    ]


def read_folder(path: str | os.PathLike[str]) -> list[MigrationFile]:
    """Return all migrations under `path`, in the byte order of their names.

    Raise `DasTernError` for a folder or a file that can't be read, or can't be sent to the server unchanged.
    """
    folder = Path(path)
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        raise DasTernError(
            f"The migrations folder {folder} does not exist. Set `migrations_dir` to the folder that holds the "
            "directories `<YYYYMMDDHHMMSS>_<name>`, for a Prisma backend its `prisma/migrations`."
        ) from None
    except NotADirectoryError:
        raise DasTernError(f"`migrations_dir` is {folder}, which is not a folder.") from None
    except PermissionError:
        raise DasTernError(
            f"The migrations folder {folder} can't be read by this user: `chmod -R u+rX {quote(str(folder))}`, run as its owner, fixes it."
        ) from None
    except OSError as error:
        raise DasTernError(f"The migrations folder {folder} can't be read: {error.strerror}.") from None
    _check_provider(folder / LOCK_FILE)
    names = sorted((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), key=os.fsencode)
    files, refusals = [], []
    for name in names:
        try:
            files.append(_read(folder, name))
        except DasTernError as refusal:
            refusals.append(refusal.message)
    if refusals:
        more = [f"{len(refusals) - _SHOWN} more directories are refused, too."] if len(refusals) > _SHOWN else []
        raise DasTernError([*refusals[:_SHOWN], *more])
    return files


def read_down(folder: Path, name: str) -> str | None:
    """Return the text of the migration's `down.sql`, which reverts it; None if there is none."""
    path = folder / name / DOWN
    try:
        return decoded(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DasTernError(f"{path} can't be read: {error.strerror}.") from None


def links(path: str | os.PathLike[str]) -> list[str]:
    """Return the symbolic links to migrations. They are ignored, as in Prisma."""
    return sorted(entry.name for entry in os.scandir(path) if entry.is_symlink() and Path(entry.path, SCRIPT).is_file())


def look_alikes(names: list[str]) -> list[list[str]]:
    """Return the groups of names that differ only in case or punctuation.

    Versions of Prisma order such names differently.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"[\W_]", "", name).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _read(folder: Path, name: str) -> MigrationFile:
    path = folder / name / SCRIPT
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise DasTernError(
            f"The directory {folder / name} holds no file {SCRIPT} (P3015). {_instead(folder / name)}"
        ) from None
    except PermissionError:
        raise DasTernError(
            f"{path} can't be read by this user: `chmod -R u+rX {quote(str(folder))}`, run as its owner, fixes it."
        ) from None
    except OSError as error:
        raise DasTernError(f"{path} can't be read: {error.strerror}. Put a plain file there.") from None
    decoded(content, path)  # refuses content that can't be sent unchanged
    return MigrationFile(_checked_name(folder, name), content)


def _instead(directory: Path) -> str:
    """Return the advice on a directory without a migration; following it loses nothing that the directory holds."""
    if nested := sorted(path.parent.name for path in directory.glob(f"*/{SCRIPT}")):
        return (
            f"It holds {len(nested)} directories that have one ({', '.join(nested[:3])}{', ...' if nested[3:] else ''}). If these are the "
            f"migrations, add `{variable('migrations_dir', str(directory))}`; otherwise move them to the other migrations."
        )
    if any(directory.iterdir()):
        return f"Write one, or move the directory away if it is no migration: `mv {quote(str(directory))} ELSEWHERE`."
    return f"Write one, or remove the empty directory: `rmdir {quote(str(directory))}`."


def _checked_name(folder: Path, name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DasTernError(
            f"The directory {os.fsencode(folder / name)!r} has a name that is not UTF-8: rename it."
        ) from None
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise DasTernError(f"The directory {str(folder / name)!r} has a name with control characters: rename it.")
    if len(name) > 255:
        raise DasTernError(f"The name of {folder / name} has {len(name)} characters; the ledger keeps 255 at most.")
    return name


def decoded(content: bytes, path: str | os.PathLike[str]) -> str:
    """Return `content` as text. Refuse content that PostgreSQL would refuse or Prisma would silently alter."""
    if content.startswith(b"\xef\xbb\xbf"):
        raise DasTernError(
            f"{path} begins with a byte order mark (EF BB BF), which PostgreSQL reports as a syntax error. "
            f"`sed -i '1s/^\\xEF\\xBB\\xBF//' {quote(str(path))}` removes it."
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DasTernError(
            f"{path} is UTF-16; expected UTF-8 without a byte order mark. "
            f"`iconv -f UTF-16 -t UTF-8 {quote(str(path))}` prints the converted text: write that to another file and move it here."
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DasTernError(
            f"{path}, line {line}: byte 0x{content[error.start]:02X} at offset {error.start} is not UTF-8. "
            f"Save the file as UTF-8, e.g. `iconv -f WINDOWS-1252 -t UTF-8 {quote(str(path))}` if it came from Windows."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DasTernError(f"{path}, line {line}: a NUL byte, which PostgreSQL can't store. Remove it.")
    return text


def _check_provider(path: Path) -> None:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise DasTernError(f"{path} can't be read: {error}.") from None
    line = next((line.strip() for line in text.splitlines() if re.match(r"\s*provider\b", line)), "no provider line")
    if line != 'provider = "postgresql"':
        raise DasTernError(
            f'{path} says `{line}`; expected `provider = "postgresql"` (P3019). These migrations are for another '
            "database: set `migrations_dir` to the right folder."
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
