#!/usr/bin/env python3
"""Break important lines one by one, each in a copy of the tree, and print the mutations that no unit test notices.

Usage: scripts/mutants.py [WORD]        (only mutations whose file or text contains WORD)

A mutation whose old text isn't in its file exactly once is refused before anything runs: the line was rewritten. Copy the
new wording into `MUTATIONS`, as short as it stays unique.
"""

from __future__ import annotations

import difflib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CODE = Path("plugins/module_utils/dastern")
TESTS = Path("tests/unit")
AT_ONCE = 2
LONGEST = 300
"""Seconds for the tests of one mutation; a mutation that makes them hang counts as noticed."""
LEFT_OUT = (".*", "__pycache__", "integration", "security", "faults", "benchmarks")


class Mutation(NamedTuple):
    """A change of one line that a unit test has to notice."""

    file: str
    """Path below `CODE`."""
    old: str
    new: str
    tests: str
    """Path below `TESTS`."""

    def __str__(self) -> str:
        return f"{CODE / self.file}: `{self.old}` -> `{self.new}`"


MUTATIONS = [
    Mutation(*words) for words in (
        # Migrations
        ("migrations/run.py", 'if held != "true"', "if False", "migrations/test_migration_runner.py"),
        ("migrations/run.py", '("25001", "2D000")', '("25001",)', "migrations/test_migration_runner.py"),
        ("migrations/run.py", "valid is True if", "valid is not None if", "migrations/test_migration_runner.py"),
        ("migrations/run.py", "else valid is None:", "else valid is False:", "migrations/test_migration_runner.py"),
        ("migrations/run.py", "if not self._ledger.commit_applied(", "if None is self._ledger.commit_applied(", "migrations/test_migration_runner.py"),
        ("migrations/run.py", 'if row != ("committed",)', "if row is None", "migrations/test_migration_runner.py"),
        ("migrations/run.py", "if committed is None", "if committed", "migrations/test_migration_runner.py"),
        ("migrations/migrate.py", "if problems and not locked", "if False", "migrations/test_migrate.py"),
        ("migrations/migrate.py", "or failure.remains or", "or", "migrations/test_migrate.py"),
        ("migrations/migrate.py", "if plan.failed and holder is None", "if False", "migrations/test_migrate.py"),
        ("migrations/migrate.py", "ledger, files, locked=True", "ledger, files, locked=False", "migrations/test_migrate.py"),
        ("migrations/ledger.py", "AND {self.lock.again}", "", "migrations/test_ledger.py"),
        ("migrations/ledger.py", "AND NOT EXISTS (SELECT", "AND EXISTS (SELECT", "migrations/test_ledger.py"),
        ("migrations/plan.py", "if not file.matches(applied", "if file.matches(applied", "migrations/test_migration_plan.py"),
        ("migrations/guards.py", "else now >= first or now < last", "else True", "migrations/test_migration_guards.py"),
        ("migrations/reset.py", 'if environment != "development"', 'if environment == "production"', "migrations/test_reset.py"),
        ("migrations/rollback.py", "if loss.count and loss.table not in", "if loss is None and loss.table not in", "migrations/test_rollback.py"),
        ("migrations/rollback.py", "now_deleted > deleted", "now_deleted < deleted", "migrations/test_rollback.py"),
        # Backups
        ("backups/physical.py", "if record is None or not record.good", "if record is None", "backups/test_physical.py"),
        ("backups/physical.py", 'if checksum != record.files[MANIFEST[0]]["sha256"]', "if False", "backups/test_physical.py"),
        ("backups/physical.py", "if name not in present", "if False", "backups/test_physical.py"),
        ("backups/physical.py", "if not check.ok and not", "if False and not", "backups/test_physical.py"),
        ("backups/physical.py", "if label not in spared", "", "backups/test_physical.py"),
        ("backups/retention.py", 'if not beyond or (at - began).total_seconds() <= limits["days"] * 86400', "if not beyond", "backups/test_backup_retention.py"),
        ("backups/retention.py", "(record.kind, database, pages) in newest", "True", "backups/test_backup_retention.py"),
        ("backups/records.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH", "backups/test_records.py"),
        ("backups/records.py", 'fields.pop("sha256") != _digest(fields)', 'fields.pop("sha256") == ""', "backups/test_records.py"),
        ("backups/logical.py", "if free < size", "if False", "backups/test_backup_logical.py"),
        ("backups/logical.py", "os.fsync(file.fileno())", "pass", "backups/test_backup_logical.py"),
        ("backups/kept.py", "if self.pending else overdue", "if False else overdue", "backups/test_physical.py"),
        ("backups/zero_loss.py", 'state["names"] not in ("", RECEIVER)', "False", "backups/test_zero_loss.py"),
        ("backups/retention.py", "name != newest and", "", "backups/test_received.py"),
        ("common/files.py", "os.fsync(file.fileno())", "pass", "common/test_files.py"),
        ("common/files.py", "sync_folder(path.parent)", "pass", "common/test_files.py"),
        # Restores
        ("restores/run.py", "confirmed = bool(into) or is_confirmed(params, run.database)", "confirmed = True", "restores/test_restore_run.py"),
        ("restores/target.py", 'end is None or position(backup["lsn"]["stop"]) <= end', "True", "restores/test_restore_target.py"),
        ("restores/target.py", "if number < end // SEGMENT", "if number <= end // SEGMENT", "restores/test_restore_target.py"),
        ("restores/target.py", 'candidate["label"] not in faults', "True", "restores/test_restore_target.py"),
        ("restores/plan.py", "if free < needs", "if False", "restores/test_restore_run.py"),
        ("restores/drill.py", "if free < needed", "if False", "restores/test_drill.py"),
        ("common/confirmation.py", 'instance.startswith("development/")', "True", "restores/test_restore_run.py"),
        # The server, its catalogue and its rows
        ("server/access.py", "SET LOCAL log_statement = 'none'", "SET LOCAL log_statement = 'all'", "server/test_access.py"),
        ("server/connection.py", "if int(process) != connection.info.backend_pid", "if False", "server/test_connection.py"),
        ("server/backup_folders.py", "status.st_nlink != 1:", "False:", "server/test_backup_folders.py"),
        ("catalogue/objects.py", "sorted(usual - actual)", "[]", "catalogue/test_privileges.py"),
        ("catalogue/objects.py", "if actual != usual", "if actual - usual", "catalogue/test_privileges.py"),
        ("catalogue/scratch.py", "int(name[-16:-8], 16) >= older_than", "int(name[-16:-8], 16) >= 0", "catalogue/test_scratch.py"),
        ("catalogue/scratch.py", "if not pattern.match(name) or not (", "if not (", "catalogue/test_scratch.py"),
        ("seeds/run.py", 'count["inserted"] += len', 'count["inserted"] = len', "seeds/test_seed_run.py"),
        ("seeds/run.py", 'count["unchanged"] += plan', 'count["unchanged"] = plan', "seeds/test_seed_run.py"),
        ("seeds/plan.py", "if count != len(changes)", "if False", "seeds/test_seed_run.py"),
        ("seeds/run.py", ".strip().lower() == declared", "", "seeds/test_seed_run.py"),
    )
]  # fmt: skip


def misplaced(mutation: Mutation) -> str:
    """Return why a mutation can't be applied, with the line most like its old text; '' if it can be applied."""
    path = ROOT / CODE / mutation.file
    if not path.exists():
        return f"{mutation}\n  The file doesn't exist."
    if not (ROOT / TESTS / mutation.tests).exists():
        return f"{mutation}\n  {TESTS / mutation.tests} doesn't exist."
    text = path.read_text("utf-8")
    if (count := text.count(mutation.old)) == 1:
        return ""
    like = difflib.get_close_matches(mutation.old, map(str.strip, text.splitlines()), 1, 0.3)
    hint = f" Most like it: `{like[0]}`" if like and not count else ""
    return f"{mutation}\n  The old text occurs {count} times instead of once.{hint}"


def fails(tree: Path, tests: str) -> str:
    """Run unit tests in a copy of the tree; return their output if they fail, '' if they pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS / tests)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return "they hang"
    if done.returncode not in (0, 1):  # nothing was tested
        raise SystemExit(f"{TESTS / tests} can't be run:\n{done.stdout}{done.stderr}")
    return done.stdout if done.returncode else ""


def survives(tree: Path, mutation: Mutation) -> bool:
    """Return whether the unit tests of a copy of the tree pass with a mutation, which is undone afterwards."""
    path = tree / CODE / mutation.file
    before = path.read_text("utf-8")
    try:
        path.write_text(before.replace(mutation.old, mutation.new), "utf-8")
        return not fails(tree, mutation.tests)
    finally:
        path.write_text(before, "utf-8")


def survivors(mutations: Sequence[Mutation]) -> list[Mutation]:
    """Return the mutations that no unit test notices. Refuse unit tests that fail without a mutation."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(AT_ONCE) as workers:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(AT_ONCE):
            trees.put(shutil.copytree(ROOT, Path(folder, str(number)), ignore=shutil.ignore_patterns(*LEFT_OUT)))

        def survived(mutation: Mutation) -> bool:
            tree = trees.get()
            try:
                survivor = survives(tree, mutation)
            finally:
                trees.put(tree)
            print(f"{'SURVIVED' if survivor else 'noticed '} {mutation}", flush=True)
            return survivor

        def unchanged(tests: str) -> str:
            tree = trees.get()
            try:
                return fails(tree, tests)
            finally:
                trees.put(tree)

        for output in workers.map(unchanged, sorted({mutation.tests for mutation in mutations})):
            if output:
                raise SystemExit(f"Unit tests fail without a mutation:\n{output}")
        results = list(workers.map(survived, mutations))
    return [mutation for mutation, survivor in zip(mutations, results, strict=True) if survivor]


def main() -> int:
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        return 2
    word = "".join(sys.argv[1:])
    mutations = [mutation for mutation in MUTATIONS if word in str(mutation)]
    if problems := list(filter(None, map(misplaced, mutations))):
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    survived = survivors(mutations)
    print(f"{len(mutations)} mutations, {len(survived)} survived", *survived, sep="\n  ")
    return 1 if survived or not mutations else 0


if __name__ == "__main__":
    sys.exit(main())
