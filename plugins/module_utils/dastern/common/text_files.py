"""Text files that this project writes: their current text, and their replacement as a whole, with a diff to show."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from .errors import DasTernError
from .files import write


def current(path: Path, fix: str = "") -> str:
    """Return the file's text; '' if there is no file. `fix` ends a refusal."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DasTernError(f"{path} can't be read: {error}.{fix}") from None


def replace(path: Path, text: str, *, check_mode: bool = False) -> dict[str, Any] | None:
    """Write `text` if the file's text differs. Return the entry for Ansible's `diff`; None if nothing differs."""
    before = current(path)
    if before == text:
        return None
    if not check_mode:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, text.encode(), 0o644)
        except OSError as error:
            raise DasTernError(f"{path} can't be written: {error.strerror}. Run the play as its owner.") from None
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": text}


def given(path: Path, text: str, owner: int, fix: str) -> bool:
    """Return whether `path` holds `text` with the right owner and mode for a container to read it.

    With an `owner`, a container's user, these are that user and 0600; without, they are root and 0644.
    """
    if current(path, fix) != text:
        return False
    status = path.stat()
    return (status.st_uid, stat.S_IMODE(status.st_mode)) == ((owner, 0o600) if owner else (os.geteuid(), 0o644))


def give(path: Path, text: str, owner: int) -> None:
    """Write `path` as `given` expects it, creating its folder for root if needed. Raise `OSError` on failure."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    write(path, text.encode(), 0o600 if owner else 0o644, (owner, owner) if owner else None)
