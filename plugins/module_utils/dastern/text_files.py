"""Files of the project that a playbook writes on the controller: text, replaced whole, with the difference to show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import DasTernError
from .files import write
from .migration_files import SCRIPT, MigrationFile

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def current(path: Path) -> str:
    """The text that is there; '' if there is no file."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DasTernError(f"{path} can't be read: {error}.") from None


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


def checked_name(name: str) -> str:
    """A migration's name as an operator gives it."""
    if not _NAME.fullmatch(name):
        raise DasTernError(
            f"`write_migration` is {name!r}; wanted is a name of small letters, digits and underscores that begins with a "
            "letter, such as `add_email_index`."
        )
    return name


def scaffold_file(
    folder: Path,
    name: str,
    text: str,
    files: Sequence[MigrationFile],
    pending: Sequence[str],
    now: datetime,
    check_mode: bool,
) -> dict[str, Any]:
    """Write `<UTC stamp>_<name>/migration.sql`; `now` is in UTC.

    Returns `path`, `changed` and perhaps `diff`. The same text pending under the same name is left as it is; another
    text under it is refused.
    """
    for file in files:
        if file.name in pending and re.fullmatch(rf"\d{{14}}_{name}", file.name):
            path = folder / file.name / SCRIPT
            if file.sql == text:
                return {"path": str(path), "changed": False}
            raise DasTernError(
                f"A pending migration {file.name} is there already and says something else. Choose another name, or remove it "
                f"(`rm -r {path.parent}`) to have it written anew."
            )
    stamp = now.strftime("%Y%m%d%H%M%S")
    newest = max((file.name for file in files), default="")
    if newest > f"{stamp}_{name}":
        raise DasTernError(
            f"The newest migration is {newest}, and {stamp}_{name} would stand before it. Is the clock of this machine right?"
        )
    path = folder / f"{stamp}_{name}" / SCRIPT
    diff = replace(path, text, check_mode=check_mode)
    return {"path": str(path), "changed": True, "diff": [diff] if diff else []}
