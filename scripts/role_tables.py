#!/usr/bin/env python3
"""Write the tables of variables into docs/roles/, from the roles' argument specifications, and the tables of docs/lint.md.

Usage: scripts/role_tables.py [--check]

The role's table stands in docs/roles/<role>.md between `<!-- variables -->` and `<!-- /variables -->`. The examples of
docs/lint_statements.yml stand in docs/lint.md between `<!-- statements -->` and `<!-- /statements -->`. With --check
nothing is written, and the exit code is 1 if a table isn't current.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
MARKUP = re.compile(r"\b[CVO]\(([^)]*)\)")


def options(role: Path) -> dict[str, dict[str, Any]]:
    """Return the options of all entry points of a role, each once, in the order in which they first appear."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text("utf-8"))["argument_specs"]
    collected: dict[str, dict[str, Any]] = {}
    for entry_point in specs.values():
        for name, option in entry_point.get("options", {}).items():
            collected.setdefault(name, option)
    return collected


def table(role: Path) -> str:
    """Return a Markdown table: name, type or choices, default, meaning."""
    rows = ["| Variable | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for name, option in options(role).items():
        kind = ", ".join(f"`{choice}`" for choice in option["choices"]) if "choices" in option else option["type"]
        default = "required" if option.get("required") else shown(option.get("default"), role)
        text = option["description"]
        meaning = " ".join((" ".join(text) if isinstance(text, list) else text).split()).replace("|", "\\|")
        meaning = MARKUP.sub(r"`\1`", meaning)
        rows.append(f"| `{name}` | {kind} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def shown(value: Any, role: Path) -> str:
    """Return a default as an inventory would write it; for a long dictionary, a link to the role's defaults."""
    if isinstance(value, str):
        text = value.replace("|", "\\|")
        return f"`{text}`" if text else '`""`'
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= 80 else f"[defaults](../../roles/{role.name}/defaults/main.yml)"


def lint_statements() -> str:
    """Return Markdown tables of all kinds of statements: example, kind in the grammar, findings, and why."""
    sections = yaml.safe_load((ROOT / "docs" / "lint_statements.yml").read_text("utf-8"))
    rows = []
    for section, examples in sections.items():
        rows += [f"### {section}\n", "| Example | Kind | Finding | Why |", "| --- | --- | --- | --- |"]
        for example in examples:
            sql = " ".join(example["sql"].split()).replace("|", "\\|")
            findings = ", ".join(f"{severity}: `{rule}`" for rule, severity in example.get("finds", {}).items())
            rows.append(f"| `{sql}` | {example['kind']} | {findings or 'none'} | {example['why']} |")
        rows.append("")
    return "\n".join(rows)


def main() -> int:
    roles = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
    tables = [(ROOT / "docs" / "roles" / f"{role.name}.md", "variables", table(role)) for role in roles]
    tables.append((ROOT / "docs" / "lint.md", "statements", lint_statements()))
    stale = []
    for path, name, text in tables:
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before = path.read_text("utf-8")
        head, _, rest = before.partition(begin)
        _, _, tail = rest.partition(end)
        after = f"{head}{begin}\n{text}\n{end}{tail}"
        if after == before:
            continue
        stale.append(path.relative_to(ROOT))
        if "--check" not in sys.argv:
            path.write_text(after, "utf-8")
    for path in stale:
        print(f"{path}: {'not current, run `make docs`' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
