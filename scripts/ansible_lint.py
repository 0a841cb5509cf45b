#!/usr/bin/env python
"""Run ansible-lint so that its rule `args`, which imports the modules that tasks name, finds this project's Python."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "plugins" / "module_utils"))

if __name__ == "__main__":
    sys.argv[0] = "ansible-lint"
    runpy.run_module("ansiblelint", run_name="__main__")
