"""Text files of ours: what is there, and their replacement as a whole, with the difference to show."""

from __future__ import annotations

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
