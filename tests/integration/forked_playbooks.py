"""Runs ansible-playbook again and again, each in a fork of this process, which has imported Ansible.

Half of what a short play costs is the import of Ansible. Each line of standard input is a JSON list: a file for the output,
then the arguments of ansible-playbook. Each line of standard output is an exit code. Code of this project isn't imported here,
so that every run finds it by itself, as it does in a process of its own.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import psycopg  # noqa: F401 - the import alone
from ansible.cli.playbook import PlaybookCLI


def run(output: str, arguments: list[str]) -> int:
    """Run one playbook in this process; return its exit code."""
    with open(os.devnull) as nothing, open(output, "w") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [str(Path(sys.executable).parent / "ansible-playbook"), *arguments]
    try:
        PlaybookCLI.cli_executor(sys.argv)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        else:
            code = 250  # as Ansible says of an unexpected exception
            try:
                code = run(output, arguments)
            finally:
                os._exit(code)  # the folder that Ansible keeps its temporary files in serves the next run, too


if __name__ == "__main__":
    main()
