#!/usr/bin/env python3
"""Lint all migrations of a folder: print file:line:column and message of each finding; exit with 1 on danger.

Usage: scripts/lint_migrations.py [FOLDER]        (default: files/sql/migrations)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from dastern.common.errors import DasTernError  # noqa: E402
from dastern.lint.lint import lint_folder  # noqa: E402


def main() -> int:
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        return 2
    folder = Path(sys.argv[1]) if len(sys.argv) == 2 else ROOT / "files" / "sql" / "migrations"
    try:
        findings = lint_folder(os.path.relpath(folder))
    except DasTernError as error:
        print(error.message, file=sys.stderr)
        return 1
    for finding in findings:
        print(finding)
    dangers = sum(finding.severity == "danger" for finding in findings)
    print(f"{folder}: {dangers} of class danger, {len(findings) - dangers} of class warning")
    return 1 if dangers else 0


if __name__ == "__main__":
    sys.exit(main())
