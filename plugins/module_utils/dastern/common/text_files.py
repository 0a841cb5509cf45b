"""Text files of ours: what is there, and their replacement as a whole, with the difference to show."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from .errors import DasTernError
from .files import write


def current(path: Path, mend: str = "") -> str:
    """The text that is there; '' if there is no file. `mend` ends a refusal."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DasTernError(f"{path} can't be read: {error}.{mend}") from None


def replace(path: Path, text: str, *, check_mode: bool = False) -> dict[str, Any] | None:
    """Write `text` where the file has another; the entry for Ansible's `diff`, None where nothing differs."""
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


def given(path: Path, text: str, owner: int, mend: str) -> bool:
    """Return whether `path` holds `text` for a container's user: 0600 and that user's if `owner` is one, else 0644 and root's."""
    if current(path, mend) != text:
        return False
    found = path.stat()
    return (found.st_uid, stat.S_IMODE(found.st_mode)) == ((owner, 0o600) if owner else (os.geteuid(), 0o644))


def give(path: Path, text: str, owner: int) -> None:
    """Write `path` as `given` wants it; its folder is root's, and made if need be. Raises `OSError`."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    write(path, text.encode(), 0o600 if owner else 0o644, (owner, owner) if owner else None)
