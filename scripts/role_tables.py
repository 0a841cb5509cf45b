#!/usr/bin/env python3
"""Write the tables of variables into the READMEs, from the roles' argument specifications.

Usage: scripts/role_tables.py [--check]

Between `<!-- variables -->` and `<!-- /variables -->` a role's README gets its own table, the README at the top the
tables of all roles. With --check nothing is written and the exit code is 1 if a table is not current.
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
BEGIN, END = "<!-- variables -->\n", "<!-- /variables -->"


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


def main() -> int:
    roles = [ROOT / "roles" / name for name in ORDER]
    wanted = {role / "README.md": table(role) for role in roles}
    wanted[ROOT / "README.md"] = "\n".join(f"### {role.name}\n\n{table(role)}" for role in roles)
    stale = []
    for path, text in wanted.items():
        before = path.read_text("utf-8")
        head, _, rest = before.partition(BEGIN)
        _, _, tail = rest.partition(END)
        after = f"{head}{BEGIN}\n{text}\n{END}{tail}"
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
