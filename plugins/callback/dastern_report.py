"""Callback: the short summary at the end of a play, and the same as JSON.

The sections come from the statistics that roles and modules leave under `dastern_report`
(`ansible.builtin.set_stats`, or `ansible_stats` in a module's result). They are collected here as they come, because
Ansible's own merge drops a dictionary if an earlier one was templated and this one was not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError
from ansible.module_utils.dastern import VERSION
from ansible.module_utils.dastern.common.commands import near
from ansible.module_utils.dastern.common.text import shown, shown_json
from ansible.module_utils.dastern.controller.command_line import CommandLine
from ansible.module_utils.dastern.controller.failures import Messages, is_own, is_rescued, withheld
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: dastern_report
type: aggregate
short_description: Summary of a play in a few lines, and as JSON
description:
  - Prints the state, the changes, the duration, each failure in full, and the next commands; hosts that failed come last. A
    playbook of another project gets a summary if a role of this project reported something, or if I(report_file) is given;
    without I(report_file) only the output of its tasks shows its failures.
  - C(-e report_file=PATH) also writes the summary to that file on the controller as JSON. Its folder has to exist, else the play
    ends before its first task.
"""


ROOT = Path(__file__).resolve().parents[2]

SECTIONS = (
    "engine",
    "image",
    "postgres",
    "backend_env",
    "restore",
    "drill",
    "reset",
    "rehearsal",
    "migrations",
    "drift",
    "schema",
    "seed",
    "backup",
    "zero_loss",
    "verification",
    "backups",
    "plain_sql",
    "schedule",
)


def unwritable(report_file: Any) -> str:
    """Return why the report can't be written; "" if it can, or if none was asked for."""
    if not report_file:
        return ""
    path = Path(str(report_file)).expanduser()
    if path.is_dir():
        return (
            f"`report_file` is {path}, a directory; expected a file, such as {path / 'report.json'}. Nothing was done."
        )
    if not path.parent.is_dir():
        return (
            f"`report_file` is {path}, but the folder {path.parent} doesn't exist; expected a file in an existing folder. Nothing "
            f"was done. Create the folder with `mkdir -p {quote(str(path.parent))}`, or correct the path."
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"`report_file` is {path}, but this user may not write to {path.parent}. Nothing was done. Name another folder."
    return ""


def _ordered(sections: Iterable[str]) -> list[str]:
    """Return the names of sections in the order in which they are shown."""
    return sorted(sections, key=lambda name: (*SECTIONS, name).index(name))


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "dastern_report"

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._playbook = ""
        self._ours = False
        self._check = bool(context.CLIARGS.get("check", False))
        self._report_file: str | None = None
        self._command_line = CommandLine(ROOT, {})
        self._messages = Messages()
        self._failures: list[dict[str, str]] = []
        self._sections: dict[str, dict[str, Any]] = {}

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = os.path.relpath(playbook._file_name)
        if is_own(playbook._file_name, ROOT):
            self._ours = True
            self._refuse_without_hosts(playbook.get_plays())

    def _refuse_without_hosts(self, plays: list[Any]) -> None:
        """End the run if one of its plays matches no host: Ansible itself would skip the play and succeed."""
        for play in plays:
            inventory = play.get_variable_manager()._inventory
            try:
                if inventory.get_hosts(play.hosts):
                    continue
            except AnsibleError:
                pass  # the inventory has no such group or host
            sources = " and ".join(near(str(source), os.getcwd()) for source in context.CLIARGS.get("inventory") or ())
            pattern = ":".join(play.hosts) if isinstance(play.hosts, list) else play.hosts
            limit = f", limited to `{subset}`," if (subset := context.CLIARGS.get("subset")) else ","
            inventory.subset(None)
            hosts = ", ".join(sorted(host.name for host in inventory.get_hosts("all"))) or "none"
            groups = ", ".join(sorted(set(inventory.groups) - {"all", "ungrouped"})) or "none"
            self._display.error(
                f"No host of {sources} matches `{pattern}`{limit} which {self._playbook} needs. Nothing was done. Its hosts: "
                f"{hosts}; its groups: {groups}."
            )
            raise SystemExit(1)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        extra = play.get_variable_manager().extra_vars
        self._report_file = extra.get("report_file")
        self._command_line = CommandLine(ROOT, extra)
        if message := unwritable(self._report_file):
            self._display.error(shown(message))  # its command can be copied
            # Any other exception would only be a warning. Nothing was started yet, and Ansible's own clean-up still runs.
            raise SystemExit(1)

    def v2_runner_on_ok(self, result: Any) -> None:
        stats = result.result.get("ansible_stats") or {}
        sections = self._command_line.complete((stats.get("data") or {}).get("dastern_report") or {})
        of_host = self._sections.setdefault(result.host.get_name(), {})
        for name, section in sections.items():
            of_host[name] = {**of_host.get(name, {}), **section}

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.v2_runner_on_ok(result)
        message = self._messages.of(result)
        if not ignore_errors and not is_rescued(result.task):
            self._failed(result, message)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._messages.add_item(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        message = self._messages.of(result)
        if not result.task.ignore_unreachable:
            self._failed(result, message)

    def _failed(self, result: Any, message: str) -> None:
        message = self._command_line.complete(message)
        self._failures.append({"host": result.host.get_name(), "task": result.task.get_name(), "message": message})

    def v2_playbook_on_stats(self, stats: Any) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        hosts: dict[str, Any] = {}
        for host in sorted(stats.processed):
            totals = stats.summarize(host)
            hosts[host] = {
                "changed": totals["changed"],
                "failed": totals["failures"] + totals["unreachable"],
                "counts": totals,
                "sections": self._sections.get(host, {}),
            }
            hosts[host]["next"] = self._next(hosts[host])
        if not self._ours and not self._report_file and not any(host["sections"] for host in hosts.values()):
            return
        for host, summary in sorted(hosts.items(), key=lambda item: bool(item[1]["failed"])):
            self._show(host, summary, seconds)
        withheld.clear()
        if self._report_file:
            self._write(
                Path(str(self._report_file)),
                {
                    "version": VERSION,
                    "playbook": self._playbook,
                    "check": self._check,
                    "seconds": seconds,
                    "failures": self._failures,
                    "hosts": hosts,
                },
            )
        codes = [
            code
            for of_host in self._sections.values()
            for section in of_host.values()
            if (code := section.get("exit_code"))
        ]
        if codes and not any(host["failed"] for host in hosts.values()):
            # Ansible itself has no exit codes for these. Its own clean-up still runs, because it is in `finally` clauses.
            raise SystemExit(min(codes))

    def _show(self, host: str, summary: dict[str, Any], seconds: float) -> None:
        color = C.COLOR_ERROR if summary["failed"] else None
        outcomes = ["unreachable" if summary["counts"]["unreachable"] else "failed"] if summary["failed"] else []
        if summary["changed"] or not summary["failed"]:
            outcomes.append(f"{summary['changed']} changed")
        check = ", check mode: nothing was done" if self._check else ""
        self._line(
            f"Das Tern {VERSION} · {self._playbook} · {host} · {', '.join(outcomes)} · {seconds:.1f} s{check}",
            color=color,
        )
        messages = [failure["message"] for failure in self._failures if failure["host"] == host]
        # Sections repeat lines of a failure, such as its first one or a table; they are shown only in the failure.
        repeated = {f"failed: {message.partition(chr(10))[0]}" for message in messages}
        repeated |= {line.strip() for message in messages for line in message.split("\n")}
        for name in _ordered(summary["sections"]):
            lines = [line for line in summary["sections"][name].get("lines", []) if line.strip() not in repeated]
            self._section(name.replace("_", " "), lines)
        if self._ours or self._report_file:
            for message in messages:
                self._section("failed", message.expandtabs().split("\n"), color=color)
        self._section("next", summary["next"])

    def _section(self, name: str, lines: list[str], color: str | None = None) -> None:
        for number, line in enumerate(lines):
            self._line(f"  {'' if number else name:<12} {line}", color=color)

    def _next(self, summary: dict[str, Any]) -> list[str]:
        """Return the commands to run next: the same one again after a check, or if a confirmation is missing."""
        sections = summary["sections"].values()
        if word := next((section["confirm"] for section in sections if section.get("confirm")), ""):
            return [self._command_line.again(word)]
        refused = any(section.get("refused") for section in sections)
        if self._check and summary["changed"] and not summary["failed"] and not refused:
            return [self._command_line.again()]
        commands = [
            command for name in _ordered(summary["sections"]) for command in summary["sections"][name].get("next", [])
        ]
        return list(dict.fromkeys(commands))

    def _line(self, line: str, color: str | None = None) -> None:
        """Show one line, whatever names and server's messages are in it."""
        self._display.display(shown(line), color=color)

    def _write(self, path: Path, report: dict[str, Any]) -> None:
        path = path.expanduser()
        # The folder existed when the play began. It isn't created here, because a mistyped name would create one.
        partial = path.with_name(path.name + ".partial")
        try:
            text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
            partial.write_text(shown_json(text), "utf-8")
            partial.replace(path)
        except OSError as error:
            self._display.error(f"`report_file` {path} can't be written: {error}")
