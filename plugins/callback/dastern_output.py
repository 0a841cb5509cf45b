"""Callback: Ansible's usual output, reduced to the lines that matter while a playbook runs.

Unchanged and skipped tasks print nothing, a changed one prints a line. A failure that the summary will show in full, with
complete commands, prints a line here; every other failure is shown here. `-v` brings the usual output back.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.module_utils.dastern.common.quantities import cut
from ansible.module_utils.dastern.common.text import presentable, shown
from ansible.module_utils.dastern.controller.command_line import CommandLine
from ansible.module_utils.dastern.controller.failures import Messages, is_own, is_rescued, withheld
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: dastern_output
type: stdout
short_description: The changes, line by line, and each failure once
description:
  - Unchanged and skipped tasks print nothing; a changed one prints a line with its host and name. C(-v) brings Ansible's usual output
    back.
  - If the summary of C(dastern_report) shows a failure, this output names only its task. All other failures are shown here, ignored
    and rescued ones too.
  - Adds inventory, limit, the instance's variables and the way to connect to the commands in the message of a failed task.
extends_documentation_fragment: [default_callback, result_format_callback]
"""


ROOT = Path(__file__).resolve().parents[2]

_ITEMS = 10
"""Number of items that the line of a changed loop names."""


class Whole(Default):  # type: ignore[misc]
    """Ansible's usual output, with complete commands."""

    def __init__(self) -> None:
        super().__init__()
        self._command_line = CommandLine(ROOT, {})

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._command_line = CommandLine(ROOT, play.get_variable_manager().extra_vars)
        super().v2_playbook_on_play_start(play)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._complete(result)
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._complete(result)
        super().v2_runner_item_on_failed(result)

    def _complete(self, result: Any) -> None:
        values = result.result
        values.pop("ansible_stats", None)  # the summary shows it
        for name in values.keys() & {"msg", "preflight"}:
            complete = self._command_line.complete(values[name])
            if name == "msg" and complete != values[name]:
                # It would be printed as well, with the commands as they were.
                values.pop("exception", None)
            values[name] = complete

    def _get_diff(self, difflist: Any) -> Any:
        return super()._get_diff(presentable({"diff": difflist})["diff"])


class Short(Whole):
    """The changes and the failures."""

    def __init__(self) -> None:
        super().__init__()
        self._summarised = False
        self._messages = Messages()
        self._diffs: dict[tuple[str, str], str] = {}
        self._pid = os.getpid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, self._cut_short(number))

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._summarised |= is_own(playbook._file_name, ROOT)
        super().v2_playbook_on_start(playbook)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        extra = play.get_variable_manager().extra_vars
        self._command_line = CommandLine(ROOT, extra)
        self._summarised |= bool(extra.get("report_file"))
        self._play = play
        check = " [CHECK MODE]" if play.check_mode and self.get_option("check_mode_markers") else ""
        self._display.display(f"PLAY [{shown(play.get_name().strip())}]{check}")

    def _print_task_banner(self, task: Any) -> None:
        pass

    def v2_playbook_on_include(self, included_file: Any) -> None:
        pass

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        pass

    def v2_on_file_diff(self, result: Any) -> None:
        # It is shown below the name of the task, which comes next.
        # Ansible calls this for a loop as a whole, or for each of its items, by release and kind of task.
        parts = [part for part in _parts(result) if part.get("diff") and part.get("changed", False)]
        shown_before = self._diffs.get(_of(result), "")
        self._diffs[_of(result)] = shown_before + "".join(self._get_diff(part["diff"]) for part in parts)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._handle_warnings(result.result)
        if isinstance(result.task, TaskInclude):
            return
        if result.result.get("changed", False):
            self._line("changed", result, self._changed_items(result), color=C.COLOR_CHANGED)
        if diff := self._diffs.pop(_of(result), ""):
            self._display.display(diff.rstrip("\n"))
        if not result.task.loop:
            self._show_debug(result)

    def _changed_items(self, result: Any) -> str:
        if not result.task.loop or "censored" in result.result:
            return ""
        labels = [self._get_item_label(part) for part in _parts(result) if part.get("changed", False)]
        named = all(isinstance(label, (str, int)) for label in labels)
        return f" ({', '.join(cut(list(map(str, labels)), _ITEMS)) if named else f'{len(labels)} items'})"

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._handle_warnings(result.result)
        self._show_debug(result)

    def _show_debug(self, result: Any) -> None:
        """Show the message of a `debug` task."""
        if result.task.action not in C._ACTION_DEBUG:
            return
        self._clean_results(result.result, result.task.action)
        message = result.result.get("msg")
        self._line("ok", result, color=C.COLOR_OK)
        self._lines(message if isinstance(message, str) else self._dump_results(result.result).strip("\n"))

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._handle_warnings(result.result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._handle_warnings(result.result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        outcome = "ignored" if ignore_errors else "rescued" if is_rescued(result.task) else "failed"
        self._failed(outcome, result, final=outcome == "failed", color=C.COLOR_ERROR)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._handle_warnings(result.result)
        self._messages.add_item(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        ignored = result.task.ignore_unreachable
        outcome = "unreachable, ignored" if ignored else "unreachable"
        self._failed(outcome, result, final=not ignored, color=C.COLOR_UNREACHABLE)

    def _failed(self, outcome: str, result: Any, *, final: bool, color: str) -> None:
        self._handle_warnings(result.result)
        stderr = self.get_option("display_failed_stderr")
        self._line(outcome, result, color=color, stderr=stderr)
        message = self._command_line.complete(self._messages.of(result))
        if not (final and self._summarised):
            self._lines(message, color=color, stderr=stderr)
            return
        if not withheld:
            atexit.register(self._show_withheld)
        withheld.append((self.host_label(result), message))

    def _cut_short(self, number: signal.Signals) -> Callable[[int, Any], None]:
        """Return a handler that shows the withheld failures, as no clean-up of Python's runs at that signal."""
        before = signal.getsignal(number)

        def end(_: int, frame: Any) -> None:
            if os.getpid() == self._pid:  # and not in a worker
                self._show_withheld()
                withheld.clear()
            if callable(before):
                before(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        return end

    def _show_withheld(self) -> None:
        """Show the failures that the summary didn't, because the run was cut short."""
        for host, message in withheld:
            self._display.display(shown(f"failed: [{host}]"), color=C.COLOR_ERROR)
            self._lines(message, color=C.COLOR_ERROR)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self._summarised or self.get_option("show_custom_stats"):
            super().v2_playbook_on_stats(stats)
        else:
            self._display.display("")

    def _line(self, outcome: str, result: Any, items: str = "", **how: Any) -> None:
        name = self._last_task_name or result.task.get_name().strip()
        self._display.display(shown(f"{outcome}: [{self.host_label(result)}] {name}{items}"), **how)

    def _lines(self, message: str, **how: Any) -> None:
        """Show a task's message below its name."""
        for line in message.expandtabs().split("\n"):
            self._display.display(f"    {shown(line)}", **how)


def _of(result: Any) -> tuple[str, str]:
    """Return what tells the results of a host's task from others."""
    return result.host.get_name(), result.task._uuid


def _parts(result: Any) -> list[dict[str, Any]]:
    """Return the results of a loop's items, or the one result."""
    if not result.task.loop or "results" not in result.result:
        return [result.result]
    return [item for item in result.result["results"] if isinstance(item, dict)]


_Chosen: Any = Whole if Display().verbosity else Short


# Ansible finds a plugin's options by the name of its class.
class CallbackModule(_Chosen):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "dastern_output"
