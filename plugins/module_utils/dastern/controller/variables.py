"""Which variables there are: those of the roles, and the short names that the playbooks read from the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, TemplateSyntaxError, nodes

FACTS = {"docker_engine_endpoint", "postgres_image_id", "postgres_image_reference"}
"""What roles find out and leave as facts for the roles behind them, and what may be said beforehand instead."""
STATES = {
    "docker_engine_absent",
    "docker_engine_version",
    "migrations_emptied",
    "postgres_absent",
    "postgres_folders_pending",
    "postgres_stopped",
}
"""What roles find out, too. Given by `-e`, it would beat what they find, and steps would be left out without a word."""
FOREIGN = "dastern_foreign_variables"
"""Names (`*` stands for any text) of variables that belong to somebody else, and that `-e` may set all the same."""
EVERYWHERE = {"report_file", FOREIGN}
"""What every playbook takes on the command line."""
_MODES = {"ansible_check_mode", "ansible_diff_mode", "ansible_verbosity"}
"""What Ansible sets by `--check`, `--diff` and `-v` alone; given by `-e` it would say so and not be so."""
_EXPRESSIONS = ("when", "that", "until", "changed_when", "failed_when", "loop")
_NEAREST = 0.6
"""How alike the name that is proposed has to be, of 1."""


def role_names(root: Path) -> set[str]:
    """The options of every entry point of every role, and the facts that roles leave."""
    names = set(FACTS)
    for path in (root / "roles").glob("*/meta/argument_specs.yml"):
        for entry_point in _load(path)["argument_specs"].values():
            names.update(entry_point.get("options", {}))
    return names


def read_names(playbook: Path) -> set[str]:
    """The variables that the templates of a playbook read, and of those that it imports."""
    names: set[str] = set()
    for play in _load(playbook) or []:
        if imported := play.get("ansible.builtin.import_playbook", play.get("import_playbook")):
            names |= read_names(playbook.parent / imported)
        for text in _templates(play):
            try:
                tree = Environment().parse(text)  # noqa: S701, nothing is rendered
            except TemplateSyntaxError:  # Ansible says so where it is used
                continue
            names.update(node.name for node in tree.find_all(nodes.Name) if node.ctx == "load")
    return names


def short_names(playbooks: Iterable[Path], roles: set[str]) -> set[str]:
    """What these playbooks read that no role knows: what an operator gives on the command line."""
    read = set[str]().union(*(read_names(path) for path in playbooks))
    return {name for name in read - roles if not name.startswith("ansible_")}


def is_foreign(name: str, patterns: Any) -> bool:
    """Return whether `dastern_foreign_variables` (a list, or names with commas) has `name`."""
    listed = patterns.split(",") if isinstance(patterns, str) else patterns or []
    return any(fnmatch(name, str(pattern).strip()) for pattern in listed)


def unknown(names: Iterable[str], known: set[str]) -> dict[str, str | None]:
    """Those of `names` that nothing knows, each with the nearest known name; Ansible's own pass."""
    return {
        name: next(iter(difflib.get_close_matches(name, sorted(known), 1, _NEAREST)), None)
        for name in sorted(names)
        if name not in known and (not name.startswith("ansible_") or name in _MODES)
    }


def near_misses(names: Iterable[str], known: set[str]) -> dict[str, str]:
    """Those of `names` that are at most two letters from a known one, which is named.

    Names with one of our prefixes alone aren't: `postgres_exporter_port` and `backup_server` are other people's.
    """
    found = {}
    for name in sorted(set(names) - known):
        distance, nearest = min((_distance(name, one), one) for one in sorted(known))
        if distance <= 2:
            found[name] = nearest
    return found


def _load(path: Path) -> Any:
    return yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def _templates(part: Any, expression: bool = False) -> Iterator[str]:
    """Every template below a part of a playbook; what stands behind `when` and its like is one without braces."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _templates(value, key in _EXPRESSIONS)
    elif isinstance(part, list):
        for value in part:
            yield from _templates(value, expression)
    elif isinstance(part, str):
        if "{{" in part or "{%" in part:
            yield part
        elif expression:
            yield f"{{{{ {part} }}}}"


def _distance(one: str, other: str) -> int:
    """Letters added, dropped, replaced or swapped with their neighbour; 3 stands for more than two."""
    if abs(len(one) - len(other)) > 2:
        return 3
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return min(rows[-1][-1], 3)
