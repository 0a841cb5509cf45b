"""Callback: the short summary at the end of a play, and the same as JSON.

What the sections say comes from the statistics that roles and modules leave under `dastern_report`
(`ansible.builtin.set_stats`, or `ansible_stats` in a module's result). They are collected here as they come, because
Ansible's own merge drops a dictionary when an earlier one was templated and this one was not.
"""

from __future__ import annotations

import json
import os
import time
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
  - Prints what was, what changed, how long it took, why it failed, in all its lines, and what to run next; hosts that failed come
    last. A playbook that isn't this project's gets a summary where a role of this project spoke, or where I(report_file) is given;
    without that its failures stand in the output of its tasks only.
  - With C(-e report_file=PATH) the same is written to that file on the controller as JSON. Its folder has to be there, else
    the play ends before its first task.
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
    """Why the report can't be written, before anything is done; "" if it can or isn't wanted."""
    if not report_file:
        return ""
    path = Path(str(report_file)).expanduser()
    if path.is_dir():
        return (
            f"`report_file` is {path}, a directory; wanted is a file, such as {path / 'report.json'}. Nothing was done."
        )
    if not path.parent.is_dir():
        return (
            f"`report_file` is {path}, and there is no folder {path.parent}; wanted is a file in a folder that is there. Nothing "
            f"was done. `mkdir -p {quote(str(path.parent))}`, or correct the path."
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"`report_file` is {path}, and this user may not write to {path.parent}. Nothing was done. Name another folder."
    return ""


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
        """End a run of which a play would find no host: Ansible itself skips it and succeeds."""
        for play in plays:
            inventory = play.get_variable_manager()._inventory
            try:
                if inventory.get_hosts(play.hosts):
                    continue
            except AnsibleError:
                pass  # the pattern is none of its groups or hosts
            sources = " and ".join(near(str(one), os.getcwd()) for one in context.CLIARGS.get("inventory") or ())
            wanted = ":".join(play.hosts) if isinstance(play.hosts, list) else play.hosts
            limit = f", limited to `{subset}`," if (subset := context.CLIARGS.get("subset")) else ""
            inventory.subset(None)
            hosts = ", ".join(sorted(host.name for host in inventory.get_hosts("all"))) or "none"
            groups = ", ".join(sorted(set(inventory.groups) - {"all", "ungrouped"})) or "none"
            self._display.error(
                f"No host of {sources} matches `{wanted}`{limit} as {self._playbook} wants. Nothing was done. Its hosts: "
                f"{hosts}; its groups: {groups}."
            )
            raise SystemExit(1)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        extra = play.get_variable_manager().extra_vars
        self._report_file = extra.get("report_file")
        self._command_line = CommandLine(ROOT, extra)
        if wrong := unwritable(self._report_file):
            self._display.error(shown(wrong))  # its command can be copied
            # An exception of another kind would be a warning. Nothing was started yet; Ansible's own clean-up still runs.
            raise SystemExit(1)

    def v2_runner_on_ok(self, result: Any) -> None:
        stats = result.result.get("ansible_stats") or {}
        sections = self._command_line.complete((stats.get("data") or {}).get("dastern_report") or {})
        of_host = self._sections.setdefault(result.host.get_name(), {})
        for name, section in sections.items():
            of_host[name] = {**of_host.get(name, {}), **section}

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.v2_runner_on_ok(result)
        words = self._messages.of(result)
        if not ignore_errors and not is_rescued(result.task):
            self._failed(result, words)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._messages.add_item(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        words = self._messages.of(result)
        if not result.task.ignore_unreachable:
            self._failed(result, words)

    def _failed(self, result: Any, words: str) -> None:
        words = self._command_line.complete(words)
        self._failures.append({"host": result.host.get_name(), "task": result.task.get_name(), "message": words})

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
            # Ansible itself knows no code for these. Its own clean-up still runs: it stands in `finally` clauses.
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
        # The roles' own sections have the first line of a failure; it is shown whole below them.
        repeated = {f"failed: {words.partition(chr(10))[0]}" for words in messages}
        for name in sorted(summary["sections"], key=lambda one: (*SECTIONS, one).index(one)):
            lines = [line for line in summary["sections"][name].get("lines", []) if line not in repeated]
            self._section(name.replace("_", " "), lines)
        if self._ours or self._report_file:
            for words in messages:
                self._section("failed", words.expandtabs().split("\n"), color=color)
        self._section("next", summary["next"])

    def _section(self, name: str, lines: list[str], color: str | None = None) -> None:
        for number, line in enumerate(lines):
            self._line(f"  {'' if number else name:<12} {line}", color=color)

    def _next(self, summary: dict[str, Any]) -> list[str]:
        """The commands that make sense now; what was only checked, or lacks a confirmation, is done by this one again."""
        sections = summary["sections"].values()
        if word := next((section["confirm"] for section in sections if section.get("confirm")), ""):
            return [self._command_line.again(word)]
        refused = any(section.get("refused") for section in sections)
        if self._check and summary["changed"] and not summary["failed"] and not refused:
            return [self._command_line.again()]
        # Sections come in the order in which they are shown; each command once.
        ordered = sorted(summary["sections"], key=lambda one: (*SECTIONS, one).index(one))
        return list(dict.fromkeys(one for name in ordered for one in summary["sections"][name].get("next", [])))

    def _line(self, words: str, color: str | None = None) -> None:
        """Show one line, whatever names and server's words are in it."""
        self._display.display(shown(words), color=color)

    def _write(self, path: Path, report: dict[str, Any]) -> None:
        path = path.expanduser()
        # The folder was there when the play began: it is not made, lest a mistyped name makes one.
        partial = path.with_name(path.name + ".partial")
        try:
            text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
            partial.write_text(shown_json(text), "utf-8")
            partial.replace(path)
        except OSError as error:
            self._display.error(f"`report_file` {path} can't be written: {error}")
