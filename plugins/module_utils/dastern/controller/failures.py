"""Failed tasks: what they say, and which of the two callbacks says it, so that it is shown once and never hidden."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DETAILS = (
    "cmd",
    "rc",
    "stdout",
    "stderr",
    "module_stdout",
    "module_stderr",
    "assertion",
    "evaluated_to",
    "failed_when_result",
)
"""Keys in which modules of other people say more than in `msg`; this project's say everything there."""

withheld: list[tuple[str, str]] = []
"""Host and message of each failure that the output of the tasks has left to the summary, which empties this list."""


def is_own(playbook: str, root: Path) -> bool:
    """Return whether an operator calls this playbook of the project, so that its run ends with a summary.

    The playbooks with which molecule prepares a host are not among them.
    """
    return Path(playbook).resolve().parent in (root, root / "playbooks")


def is_rescued(task: Any) -> bool:
    """Return whether a `rescue` around the task takes its failure. Unreachable hosts are never rescued."""
    within, parent = {task._uuid}, task._parent
    while parent:
        if getattr(parent, "rescue", None) and any(child._uuid in within for child in parent.block):
            return True
        within.add(parent._uuid)
        parent = parent._parent
    return False


class Messages:
    """All that failed tasks say, in lines; of a loop, what each failed item says."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], list[str]] = {}

    def add_item(self, result: Any) -> None:
        """Keep what a failed item says until its task has ended. The task's own result doesn't say in all releases which failed."""
        line = f"{result.result.get('_ansible_item_label')}: {_text(result.result)}"
        self._items.setdefault((result.host.get_name(), result.task._uuid), []).append(line)

    def of(self, result: Any) -> str:
        values, task = result.result, result.task
        items = self._items.pop((result.host.get_name(), task._uuid), [])
        if values.get("censored"):
            return f"hidden by no_log, in the task `{task.get_name()}`"
        text = "\n".join(items) or _text(values)
        # Ansible's own words for a task that it couldn't run don't say where the task is.
        where = f"\nat {task.get_path()}" if text.startswith(("Task failed: ", "Unexpected ")) else ""
        return text if values.get("unreachable") else text + where


def _text(values: Mapping[str, Any]) -> str:
    if values.get("_ansible_no_log") or values.get("censored"):
        return "hidden by no_log"
    details = {name: values[name] for name in _DETAILS if values.get(name) not in (None, "")}
    lines = [
        f"{name}: {' '.join(map(str, value)) if isinstance(value, list) else str(value).strip()}"
        for name, value in details.items()
    ]
    text = "\n".join(filter(None, [str(values.get("msg") or values.get("reason") or "").strip(), *lines]))
    return text or "no reason given; `-v` shows the result"
