"""Callback: when each task began, as JSON, for the table of where the time goes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_times
type: aggregate
short_description: Writes when each task began
description:
  - Writes a list of C([seconds since the epoch, what began]) to the file that DASTERN_TASK_TIMES names.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[float, str]] = []

    def _began(self, what: str) -> None:
        self._events.append((time.time(), what))

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._began("playbook")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._began("play: " + play.get_name())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._began(task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._began("end")
        Path(os.environ["DASTERN_TASK_TIMES"]).write_text(json.dumps(self._events), "utf-8")
