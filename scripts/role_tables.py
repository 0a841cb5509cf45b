#!/usr/bin/env python3
"""Write the tables of variables into the READMEs, from the roles' argument specifications, and those of lint.

Usage: scripts/role_tables.py [--check]

Between `<!-- variables -->` and `<!-- /variables -->` a role's README gets its own table, the README at the top the
tables of all roles. Between `<!-- statements -->` and `<!-- /statements -->` docs/lint.md gets what
docs/lint_statements.yml says. With --check nothing is written and the exit code is 1 if a table is not current.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("docker_engine", "postgres_image", "postgres", "migrations", "backup", "restore", "seed")
MARKUP = re.compile(r"\b[CVO]\(([^)]*)\)")


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of all entry points of a role, each once, in the order in which they are first named."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text("utf-8"))["argument_specs"]
    found: dict[str, dict[str, Any]] = {}
    for entry_point in specs.values():
        for name, option in entry_point.get("options", {}).items():
            found.setdefault(name, option)
    return found


def table(role: Path) -> str:
    """A Markdown table: name, type or choices, default, meaning."""
    rows = ["| Variable | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    for name, option in options(role).items():
        kind = ", ".join(f"`{choice}`" for choice in option["choices"]) if "choices" in option else option["type"]
        default = "required" if option.get("required") else f"`{shown(option.get('default'))}`"
        text = option["description"]
        meaning = " ".join((" ".join(text) if isinstance(text, list) else text).split()).replace("|", "\\|")
        meaning = MARKUP.sub(r"`\1`", meaning)
        rows.append(f"| `{name}` | {kind} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def shown(value: Any) -> str:
    """A default as one would write it in an inventory; long dictionaries are left to the role's defaults."""
    if isinstance(value, str):
        return value.replace("|", "\\|") or '""'
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else "see defaults/main.yml"


def lint_statements() -> str:
    """Markdown tables of all kinds of statements: example, kind in the grammar, class with its rules, and why."""
    sections = yaml.safe_load((ROOT / "docs" / "lint_statements.yml").read_text("utf-8"))
    rows = []
    for section, examples in sections.items():
        rows += [f"### {section}\n", "| Example | Kind | Finding | Why |", "| --- | --- | --- | --- |"]
        for one in examples:
            sql = " ".join(one["sql"].split()).replace("|", "\\|")
            found = ", ".join(f"{severity}: `{rule}`" for rule, severity in one.get("finds", {}).items())
            rows.append(f"| `{sql}` | {one['kind']} | {found or 'none'} | {one['why']} |")
        rows.append("")
    return "\n".join(rows)


def main() -> int:
    roles = [ROOT / "roles" / name for name in ORDER]
    wanted = [(role / "README.md", "variables", table(role)) for role in roles]
    wanted.append((ROOT / "README.md", "variables", "\n".join(f"### {role.name}\n\n{table(role)}" for role in roles)))
    wanted.append((ROOT / "docs" / "lint.md", "statements", lint_statements()))
    stale = []
    for path, name, text in wanted:
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
