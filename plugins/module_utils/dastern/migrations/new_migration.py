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
"""Prisma's limit of a name, without the stamp."""
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
-- What brings the schema forward. Once it is applied anywhere, this file must not change any more.
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
-- Takes back {name}
--
-- What undoes {script} beside it, in the opposite order; run on purpose only, by rollback.yml. All that one run takes
-- back is one transaction: leave out BEGIN and COMMIT, and write DROP INDEX and the like without CONCURRENTLY.
-- What was deleted doesn't come back: say here what is lost.

"""


def plan(params: dict[str, Any], now: datetime | None = None, text: str = "") -> tuple[Path, dict[str, str], list[str]]:
    """Directory, texts by file name, and notices of a new migration; the keys of `params` are those of `ARGUMENT_SPEC`.

    `text` is what it is to do; without it that is left to a person. Writes nothing. Raises `DasTernError` for a name or
    folder that can't be used.
    """
    name, folder = slug(params["name"]), Path(params["folder"])
    existing = [file.name for file in read_folder(folder)]
    same = next((other for other in existing if re.sub(r"^\d+_", "", other).casefold() == name), None)
    if same is not None:
        raise DasTernError(
            f"A migration of the name {name} exists already: {folder / same}. Edit that one if nobody applied it yet, or "
            "choose another name."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DasTernError(
            f"The migrations folder {folder} can't be written by this user: run as the user who owns it, or `chmod u+w {quote(str(folder))}`."
        )
    stamp, notices = _stamp(existing, (now or datetime.now(UTC)).replace(microsecond=0, tzinfo=None))
    notices += _name_notices(params["name"], name)
    directory = folder / f"{stamp:{STAMP}}_{name}"
    newest = max(existing, key=os.fsencode, default="")
    if os.fsencode(directory.name) <= os.fsencode(newest):
        raise DasTernError(
            f"The newest migration, {folder / newest}, sorts behind every time stamp of today ({directory.name}), so that a "
            "new one would run before it. Give it a name that begins with the 14 digits of its time, if nobody applied it yet."
        )
    texts = {SCRIPT: text or UP_TEXT.format(name=name)}
    if params["down"]:
        texts[DOWN] = DOWN_TEXT.format(name=name, script=SCRIPT)
    return directory, texts, notices


def write(directory: Path, texts: dict[str, str]) -> None:
    """Make the directory with its files, or nothing. Raises `DasTernError`."""
    made: list[Path] = []
    try:
        directory.mkdir()
        for name, text in texts.items():
            made.append(directory / name)
            made[-1].write_text(text, "utf-8")
    except FileExistsError:
        raise DasTernError(f"{directory} exists already: another run made it at this moment. Run again.") from None
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        if directory.is_dir():
            directory.rmdir()
        raise DasTernError(
            f"{directory} can't be written: {error.strerror}. Make room or give the right to write in {directory.parent}."
        ) from None


def slug(given: str) -> str:
    """`given` as `prisma migrate dev --name` writes it: words in lower case, joined by underscores.

    Raises `DasTernError` for what doesn't name a migration.
    """
    if not given.strip():
        raise DasTernError(
            f"A new migration needs a name, {EXAMPLE}: `ansible-playbook playbooks/new_migration.yml -e "
            "migration_name=add_user_avatar_field`."
        )
    if wrong := sorted(set(re.findall(r"[^A-Za-z0-9 _.-]", given))):
        raise DasTernError(
            f"The name {given!r} holds {', '.join(map(repr, wrong))}; wanted are letters and digits of ASCII, joined by "
            f"underscores, {EXAMPLE}."
        )
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", given)
    name = "_".join(re.findall(r"[a-z0-9]+", words.lower()))
    if not name:
        raise DasTernError(f"The name {given!r} holds no letter and no digit; wanted is one that does, {EXAMPLE}.")
    if len(name) > LONGEST:
        raise DasTernError(f"The name has {len(name)} characters; {LONGEST} are what Prisma takes. Shorten it.")
    return name


def _name_notices(given: str, name: str) -> list[str]:
    notices = []
    if name != given:
        notices.append(f"The migration is called {name}: so Prisma, too, writes the name {given!r}.")
    if all(word in EMPTY_WORDS or re.fullmatch(r"v?\d+", word) for word in name.split("_")):
        notices.append(f"The name {name!r} doesn't say what the migration changes; one that does is {EXAMPLE}.")
    return notices


def why_empty(text: str) -> str:
    """What a file without a statement is, in words that go on after its name."""
    unix = text.replace("\r\n", "\n")
    for template in (UP_TEXT, DOWN_TEXT):
        if template.format(name="", script=SCRIPT).partition("\n")[2].strip() in unix:
            return "is still the template that new_migration.yml wrote"
    if "-- This is an empty migration." in unix:
        return "is what `prisma migrate dev --create-only` writes where the schema didn't change"
    return "holds no statement"


def _stamp(existing: list[str], now: datetime) -> tuple[datetime, list[str]]:
    """The time to name it by: now, or a second behind the newest where that is later (the order is what counts)."""
    found = [stamp for other in existing if (stamp := _time(other)) is not None]
    if not found or max(found) < now:
        return now, []
    late = (max(found) - now).total_seconds()
    # Two in one second are no fault of the clock.
    notice = (
        f"The newest migration is stamped {max(found):{STAMP}}, {late:.0f} s after this machine's clock ({now:{STAMP}} UTC): "
        "the new one is stamped a second later, so that it runs behind it. Is the clock right?"
    )
    return max(found) + timedelta(seconds=1), [notice] if late > 1 else []


def _time(name: str) -> datetime | None:
    digits = re.match(r"(\d{14})_", name)
    try:
        return datetime.strptime(digits.group(1), STAMP) if digits else None
    except ValueError:
        return None
