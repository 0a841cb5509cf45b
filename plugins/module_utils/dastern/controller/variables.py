"""The known variables: those of the roles, and the short names that the playbooks read from the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, TemplateSyntaxError, nodes

FACTS = {"docker_engine_endpoint", "postgres_image_id", "postgres_image_reference"}
"""Facts that roles determine for later roles, and that may be given in advance instead."""
STATES = {
    "docker_engine_absent",
    "docker_engine_version",
    "migrations_emptied",
    "postgres_absent",
    "postgres_folders_pending",
    "postgres_stopped",
}
"""Further facts that roles determine. Given by `-e`, they would override the roles, and steps would be skipped silently."""
FOREIGN = "dastern_foreign_variables"
"""The variable that lists names (`*` stands for any text) of other people's variables, which `-e` may set all the same."""
EVERYWHERE = {"report_file", FOREIGN}
"""Variables that every playbook takes on the command line."""
_MODES = {"ansible_check_mode", "ansible_diff_mode", "ansible_verbosity"}
"""Variables that only `--check`, `--diff` and `-v` should set; given by `-e`, they would claim a mode that isn't on."""
_EXPRESSIONS = ("when", "that", "until", "changed_when", "failed_when", "loop")
_NEAREST = 0.6
"""Minimum similarity, from 0 to 1, of a proposed name."""


def role_names(root: Path) -> set[str]:
    """Return the options of every entry point of every role, and the facts that roles leave."""
    names = set(FACTS)
    for path in (root / "roles").glob("*/meta/argument_specs.yml"):
        for entry_point in _load(path)["argument_specs"].values():
            names.update(entry_point.get("options", {}))
    return names


def read_names(playbook: Path) -> set[str]:
    """Return the variables that the templates of a playbook and of its imported playbooks read."""
    names: set[str] = set()
    for play in _load(playbook) or []:
        if imported := play.get("ansible.builtin.import_playbook", play.get("import_playbook")):
            names |= read_names(playbook.parent / imported)
        for text in _templates(play):
            try:
                tree = Environment().parse(text)  # noqa: S701, nothing is rendered
            except TemplateSyntaxError:  # Ansible reports the error where the template is used
                continue
            names.update(node.name for node in tree.find_all(nodes.Name) if node.ctx == "load")
    return names


def short_names(playbooks: Iterable[Path], roles: set[str]) -> set[str]:
    """Return the variables that playbooks read and no role knows: an operator gives them on the command line."""
    read = set[str]().union(*(read_names(path) for path in playbooks))
    return {name for name in read - roles if not name.startswith("ansible_")}


def is_foreign(name: str, patterns: Any) -> bool:
    """Return whether `dastern_foreign_variables` (a list, or names with commas) covers `name`."""
    listed = patterns.split(",") if isinstance(patterns, str) else patterns or []
    return any(fnmatch(name, str(pattern).strip()) for pattern in listed)


def unknown(names: Iterable[str], known: set[str]) -> dict[str, str | None]:
    """Return those of `names` that are unknown, each with the nearest known name; Ansible's own variables pass."""
    return {
        name: next(iter(difflib.get_close_matches(name, sorted(known), 1, _NEAREST)), None)
        for name in sorted(names)
        if name not in known and (not name.startswith("ansible_") or name in _MODES)
    }


def near_misses(names: Iterable[str], known: set[str]) -> dict[str, str]:
    """Return those of `names` that are at most two letters from a known name, each with that name.

    A prefix of ours alone is no near miss: `postgres_exporter_port` and `backup_server` are other people's.
    """
    misses = {}
    for name in sorted(set(names) - known):
        distance, nearest = min((_distance(name, candidate), candidate) for candidate in sorted(known))
        if distance <= 2:
            misses[name] = nearest
    return misses


def _load(path: Path) -> Any:
    return yaml.load(path.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def _templates(part: Any, expression: bool = False) -> Iterator[str]:
    """Yield every template below a part of a playbook; values of `when` and the like are templates without braces."""
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


def _distance(name: str, candidate: str) -> int:
    """Return the number of letters added, dropped, replaced or swapped with their neighbour; 3 means more than two."""
    if abs(len(name) - len(candidate)) > 2:
        return 3
    rows = [list(range(len(candidate) + 1))]
    for i, letter in enumerate(name, 1):
        row = [i]
        for j, expected in enumerate(candidate, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != expected))
            if i > 1 and j > 1 and letter == candidate[j - 2] and name[i - 2] == expected:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return min(rows[-1][-1], 3)
