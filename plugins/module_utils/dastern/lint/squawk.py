"""The linter squawk (https://squawkhq.com): run once for all files, with the rules that help here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ALONE = "Write it with CONCURRENTLY, as the only statement of a migration of its own."
_NOT_VALID = "Add it with NOT VALID here and `VALIDATE CONSTRAINT` it in the next migration."
_TWO_STEPS = "Make the application stop using it first, then say in `lint.yml` why it may be dropped now."

# A danger loses data, breaks the running application, or locks out its reads for a time that grows with the table. Rules
# that aren't here are off; the pinned version of squawk has these besides:
# - prefer-robust-stmts: a migration is one transaction and is never run twice
# - prefer-text-field, prefer-bigint-over-int, prefer-bigint-over-smallint, prefer-identity: Prisma chooses the types
# - require-lock-timeout, require-statement-timeout: every session of `migrate.yml` sets both
# - transaction-nesting, ban-uncommitted-transaction, ban-concurrent-index-creation-in-transaction: own rules report more
# - require-enum-value-ordering: Prisma appends, and so does its schema
# - unused-ignore: says nothing about the database
# - ban-drop-view, -function, -type, -constraint and the other ban- rules on objects that code depends on: without CASCADE,
#   for which we have a rule, no rows are lost, and Prisma drops types and constraints in its everyday migrations
# - ban-create-domain-with-constraint: a new domain constrains no rows yet
RULES: dict[str, tuple[str, str]] = {
    # The contents are lost, and a rollback of the application doesn't find them.
    "ban-drop-table": ("danger", _TWO_STEPS),
    "ban-drop-column": ("danger", _TWO_STEPS),
    "ban-drop-schema": ("danger", _TWO_STEPS),
    "ban-drop-database": ("danger", "Leave it out: a migration works inside one database."),
    # Empties tables that the statement doesn't name.
    "ban-truncate-cascade": ("danger", "Name every table to empty, and leave CASCADE out."),
    # The running application uses the old name.
    "renaming-column": ("danger", "Add the new column, copy, change the application, then drop the old one."),
    "renaming-table": ("danger", "Leave a view with the old name, or rename in Prisma with `@@map` only."),
    "ban-set-schema": ("danger", "Leave a view with the old name in the old schema, or leave it where it is."),
    # Rewrites the table while nobody can read it.
    "changing-column-type": ("danger", "Add a column of the new type, copy in batches, then switch over."),
    "adding-field-with-default": ("danger", "Add the column without the default, fill it in batches, then set it."),
    "adding-serial-primary-key-field": (
        "danger", "Build a unique index CONCURRENTLY first, then `ADD PRIMARY KEY USING INDEX`.",
    ),
    "disallowed-unique-constraint": (
        "danger", "Build a unique index CONCURRENTLY first, then `ADD CONSTRAINT ... UNIQUE USING INDEX`.",
    ),
    # Fails as soon as the table holds a row.
    "adding-required-field": ("danger", "Give it a DEFAULT, or add it nullable, fill it, then `SET NOT NULL`."),
    # Reads the whole table under a lock that stops reads.
    "adding-not-nullable-field": (
        "danger",
        "Add `CHECK (column IS NOT NULL) NOT VALID`, validate it in the next migration, then `SET NOT NULL` is instant.",
    ),
    # Planning a query opens every index of its tables, and waits for an index that is being rebuilt.
    "require-concurrent-reindex": ("danger", _ALONE),
    # Writes wait while the table is read; reads go on. Prisma writes all of these every day.
    "adding-foreign-key-constraint": ("warning", _NOT_VALID),
    "constraint-missing-not-valid": ("warning", _NOT_VALID),
    "ban-alter-domain-with-add-constraint": (
        "warning", "Add it with NOT VALID here, and `VALIDATE CONSTRAINT` it while there are few writes: that blocks writes as well.",
    ),
    "require-concurrent-index-creation": ("warning", _ALONE),
    # The lock is short, but everything queues behind it.
    "require-concurrent-index-deletion": ("warning", _ALONE),
    "require-concurrent-partition-detach": ("warning", _ALONE),
    # The application may not expect the NULL.
    "ban-drop-not-null": ("warning", "Make sure that the application can handle NULL there."),
    # A dose at 08:00 without a zone is another moment after the server has moved.
    "prefer-timestamp-tz": ("warning", "Use timestamptz, in Prisma `@db.Timestamptz(3)`."),
    # The type pads with blanks.
    "ban-char-field": ("warning", "Use varchar or text."),
    # PostgreSQL truncates it, and two names may become the same.
    "identifier-too-long": ("warning", "Shorten it to 63 bytes."),
    # The server decides on syntax, and squawk's grammar may lag behind; but squawk's other rules didn't see this file.
    "syntax-error": ("danger", "Correct the statement; if the server accepts it, say in `lint.yml` what the file does."),
}  # fmt: skip
# Rules that matter only for a table with rows or readers.
ON_ROWS = (
    "ban-drop-table", "ban-drop-column", "renaming-column", "renaming-table", "ban-set-schema", "changing-column-type",
    "adding-field-with-default", "adding-serial-primary-key-field", "disallowed-unique-constraint",
    "adding-required-field", "adding-not-nullable-field", "ban-drop-not-null",
)  # fmt: skip
TIMEOUT = 60
_DIRECTIVE = re.compile(r"(squawk)-", re.IGNORECASE)
_ON_CONSTRAINTS = ("adding-foreign-key-constraint", "adding-serial-primary-key-field", "disallowed-unique-constraint")


@dataclass(frozen=True)
class Remark:
    """One remark of squawk: number of the text, line and column from 1, rule, severity, message and advice."""

    number: int
    line: int
    column: int
    rule: str
    severity: str
    message: str
    mend: str


class Unusable(Exception):
    """squawk is `missing`, or gave no answer."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


def find() -> Path | None:
    """Return the path of squawk: beside this Python, where scripts/setup installs it, or else on the PATH."""
    beside = Path(sys.executable).with_name("squawk")
    path = str(beside) if beside.exists() else shutil.which("squawk")
    return Path(path) if path else None


def run(program: Path | None, texts: Sequence[tuple[str, bool]], pg_version: int) -> list[Remark]:
    """Return squawk's remarks about `texts`, each given with whether it will run in a transaction. Raise `Unusable`."""
    if program is None:
        raise Unusable("the program squawk is not installed", missing=True)
    # In memory where possible: a thousand small files cost a disk half a second.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a directory of its own within
    with tempfile.TemporaryDirectory(prefix="dastern-lint-", dir=memory) as folder:
        for number, (text, in_transaction) in enumerate(texts):
            # A comment for squawk would switch off rules without a reason in lint.yml. The replacement has the same length.
            if "squawk" in text.lower():
                text = _DIRECTIVE.sub(r"\1_", text)
            # Appended, so that the lines keep their numbers.
            directive = "" if in_transaction else "\n-- squawk-disable-assume-in-transaction\n"
            Path(folder, f"{number}.sql").write_bytes((text + directive).encode("utf-8"))
        command = [
            str(program), "--config", "/dev/null", "--reporter", "json", "--pg-version", str(pg_version),
            "--assume-in-transaction", "*.sql",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unusable(f"squawk gave no answer within {TIMEOUT} s") from None
        except OSError as error:
            raise Unusable(f"{program} can't be run: {error.strerror}", missing=True) from None
    try:
        return _remarks(json.loads(done.stdout), [text for text, _ in texts])
    except (ValueError, KeyError, TypeError, IndexError):
        words = " ".join((done.stderr or done.stdout).split())[:300]
        raise Unusable(f"squawk ended with {done.returncode}: {words or 'no message'}") from None


def _remarks(items: list[dict[str, Any]], texts: list[str]) -> list[Remark]:
    """Return squawk's answer without the rules that are off; squawk counts lines and bytes from 0."""
    relevant = [item for item in items if item["rule_name"] in RULES and not _is_repeated(item, items)]
    lines: dict[int, list[bytes]] = {}
    remarks = []
    for item in relevant:
        number = int(item["file"].removesuffix(".sql"))
        if number not in lines:
            lines[number] = texts[number].encode("utf-8").split(b"\n")
        line = min(item["line"], len(lines[number]) - 1)
        before = lines[number][line][: item["column"]]
        severity, mend = RULES[item["rule_name"]]
        remarks.append(
            Remark(
                number=number,
                line=line + 1,
                column=len(before.decode("utf-8", "ignore")) + 1,
                rule=item["rule_name"],
                severity=severity,
                message=" ".join(item["message"].split()),
                mend=mend,
            )
        )
    return remarks


def _is_repeated(item: dict[str, Any], items: list[dict[str, Any]]) -> bool:
    """Return whether the NOT VALID rule repeats a rule on this very kind of constraint (an index can't have NOT VALID)."""
    if item["rule_name"] != "constraint-missing-not-valid":
        return False
    begin, end = (item["line"], item["column"]), (item["line_end"], item["column_end"])
    return any(
        other["rule_name"] in _ON_CONSTRAINTS
        and other["file"] == item["file"]
        and begin <= (other["line"], other["column"]) <= end
        for other in items
    )
