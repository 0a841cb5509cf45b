"""The directory and the files of a new migration."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

from ..common.errors import DasTernError
from ..common.migration_files import DOWN, SCRIPT, read_folder

ARGUMENT_SPEC: dict[str, Any] = {
    "folder": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "down": {"type": "bool", "default": False},
}
STAMP = "%Y%m%d%H%M%S"
LONGEST = 200
"""Prisma's limit of a name's length, without the timestamp."""
# Words that say nothing about what a migration changes.
EMPTY_WORDS = frozenset(
    [
        "a",
        "another",
        "bar",
        "baz",
        "change",
        "changes",
        "database",
        "db",
        "fix",
        "fixes",
        "foo",
        "migrate",
        "migration",
        "migrations",
        "misc",
        "my",
        "new",
        "schema",
        "some",
        "sql",
        "stuff",
        "temp",
        "test",
        "the",
        "tmp",
        "update",
        "updates",
        "wip",
    ]
)
EXAMPLE = "such as add_user_avatar_field"

UP_TEXT = """\
-- {name}
--
-- Statements that bring the schema forward. Once this file is applied anywhere, it must not change any more.
--
-- * The whole file and its row in the ledger are one transaction: leave out BEGIN and COMMIT. If anything fails, nothing
--   of it remains.
-- * CREATE INDEX CONCURRENTLY, DROP INDEX CONCURRENTLY, REINDEX CONCURRENTLY and VACUUM refuse a transaction: each of
--   them needs a migration of its own, with nothing else in it.
-- * A value that ALTER TYPE ... ADD VALUE adds can be used from the next migration on.
-- * A new index on a table with rows stops its writes while it is built; CONCURRENTLY doesn't.
-- * A new column: nullable, or with a constant DEFAULT; both are instant.
-- * A new foreign key or check: ADD CONSTRAINT ... NOT VALID here, VALIDATE CONSTRAINT in the next migration. An index on
--   the columns of a foreign key.
-- * Dropping and renaming breaks the application that still runs: let it stop using the old name first.
--
-- ansible-playbook migrate.yml --check --diff   shows what would run, and what lint finds in it

"""
DOWN_TEXT = """\
-- Rolls back {name}
--
-- Statements that undo {script} beside this file, in the opposite order; only rollback.yml runs them. One run rolls
-- everything back in one transaction: leave out BEGIN and COMMIT, and write DROP INDEX and the like without CONCURRENTLY.
-- Deleted data doesn't come back: say here what is lost.

"""


def plan(params: dict[str, Any], now: datetime | None = None, text: str = "") -> tuple[Path, dict[str, str], list[str]]:
    """Return the directory, the texts by file name, and the notices of a new migration; write nothing.

    The keys of `params` are those of `ARGUMENT_SPEC`. `text` holds the migration's statements; without it a template is
    left for a person to fill in. Raises `DasTernError` for a name or folder that can't be used.
    """
    name, folder = slug(params["name"]), Path(params["folder"])
    existing = [file.name for file in read_folder(folder)]
    same = next((other for other in existing if re.sub(r"^\d+_", "", other).casefold() == name), None)
    if same is not None:
        raise DasTernError(
            f"A migration named {name} exists already: {folder / same}. Edit it if nobody applied it yet, or "
            "choose another name."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DasTernError(
            f"This user can't write the migrations folder {folder}. Run as the user who owns it, or `chmod u+w {quote(str(folder))}`."
        )
    stamp, notices = _stamp(existing, (now or datetime.now(UTC)).replace(microsecond=0, tzinfo=None))
    notices += _name_notices(params["name"], name)
    directory = folder / f"{stamp:{STAMP}}_{name}"
    newest = max(existing, key=os.fsencode, default="")
    if os.fsencode(directory.name) <= os.fsencode(newest):
        raise DasTernError(
            f"The newest migration, {folder / newest}, sorts after every timestamp of today ({directory.name}), so that a "
            "new one would run before it. Give it a name that begins with the 14 digits of its time, if nobody applied it yet."
        )
    texts = {SCRIPT: text or UP_TEXT.format(name=name)}
    if params["down"]:
        texts[DOWN] = DOWN_TEXT.format(name=name, script=SCRIPT)
    return directory, texts, notices


def write(directory: Path, texts: dict[str, str]) -> None:
    """Create the directory with its files, or nothing. Raises `DasTernError`."""
    written: list[Path] = []
    try:
        directory.mkdir()
        for name, text in texts.items():
            written.append(directory / name)
            written[-1].write_text(text, "utf-8")
    except FileExistsError:
        raise DasTernError(f"{directory} exists already: another run has just created it. Run again.") from None
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        if directory.is_dir():
            directory.rmdir()
        raise DasTernError(
            f"{directory} can't be written: {error.strerror}. Make room, or grant write permission on {directory.parent}."
        ) from None


def slug(given: str) -> str:
    """Return `given` as `prisma migrate dev --name` writes it: words in lower case, joined by underscores.

    Raises `DasTernError` for a text that can't name a migration.
    """
    if not given.strip():
        raise DasTernError(
            f"A new migration needs a name, {EXAMPLE}: `ansible-playbook playbooks/new_migration.yml -e "
            "migration_name=add_user_avatar_field`."
        )
    if forbidden := sorted(set(re.findall(r"[^A-Za-z0-9 _.-]", given))):
        raise DasTernError(
            f"The name {given!r} holds {', '.join(map(repr, forbidden))}. Expected: ASCII letters and digits, joined by "
            f"underscores, {EXAMPLE}."
        )
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", given)
    name = "_".join(re.findall(r"[a-z0-9]+", words.lower()))
    if not name:
        raise DasTernError(f"The name {given!r} holds no letter and no digit. Expected: a name that does, {EXAMPLE}.")
    if len(name) > LONGEST:
        raise DasTernError(f"The name has {len(name)} characters, and Prisma accepts {LONGEST}. Shorten it.")
    return name


def _name_notices(given: str, name: str) -> list[str]:
    notices = []
    if name != given:
        notices.append(f"The migration is called {name}, as Prisma would write the name {given!r}.")
    if all(word in EMPTY_WORDS or re.fullmatch(r"v?\d+", word) for word in name.split("_")):
        notices.append(f"The name {name!r} doesn't say what the migration changes. Choose one that does, {EXAMPLE}.")
    return notices


def why_empty(text: str) -> str:
    """Describe a file without a statement, in words that follow its name in a sentence."""
    unix = text.replace("\r\n", "\n")
    for template in (UP_TEXT, DOWN_TEXT):
        if template.format(name="", script=SCRIPT).partition("\n")[2].strip() in unix:
            return "is still the template that new_migration.yml wrote"
    if "-- This is an empty migration." in unix:
        return "is the empty file that `prisma migrate dev --create-only` writes if the schema didn't change"
    return "holds no statement"


def _stamp(existing: list[str], now: datetime) -> tuple[datetime, list[str]]:
    """Return the time to name the migration by: now, or a second after the newest one, so that it sorts last."""
    stamps = [stamp for other in existing if (stamp := _time(other)) is not None]
    if not stamps or max(stamps) < now:
        return now, []
    late = (max(stamps) - now).total_seconds()
    # Two migrations in one second are no fault of the clock.
    notice = (
        f"The newest migration is stamped {max(stamps):{STAMP}}, {late:.0f} s after this machine's clock ({now:{STAMP}} UTC). "
        "The new one is stamped a second later than that, so that it runs after it. Is the clock right?"
    )
    return max(stamps) + timedelta(seconds=1), [notice] if late > 1 else []


def _time(name: str) -> datetime | None:
    digits = re.match(r"(\d{14})_", name)
    try:
        return datetime.strptime(digits.group(1), STAMP) if digits else None
    except ValueError:
        return None
