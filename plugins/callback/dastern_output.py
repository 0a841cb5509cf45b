"""Callback: Ansible's usual output, in which the commands that a failure names are complete.

A module says `ansible-playbook playbooks/provision.yml`; which inventory, limit and instance it means is known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.controller.command_line import CommandLine
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = r"""
name: dastern_output
type: stdout
short_description: The usual output with complete commands
description:
  - Adds inventory, limit, the instance's variables and the way to connect to the commands in the message of a failed task.
extends_documentation_fragment: [default_callback, result_format_callback]
"""


ROOT = Path(__file__).resolve().parents[2]


class CallbackModule(Default):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "dastern_output"

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
        told = result.result
        # What the summary says anyway.
        told.pop("ansible_stats", None)
        for name in told.keys() & {"msg", "preflight"}:
            whole = self._command_line.complete(told[name])
            if name == "msg" and whole != told[name]:
                # It would be printed as well, with the commands as they were.
                told.pop("exception", None)
            told[name] = whole
