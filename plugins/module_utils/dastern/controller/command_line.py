"""The command line of this run of ansible-playbook, whose options the commands in its messages have to repeat."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

from ansible import constants, context
from ansible.cli.playbook import PlaybookCLI
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.splitter import parse_kv

from ..common.commands import again, all_completed, completed, near, of_one_run, repeated, target_options
from .variables import FOREIGN, is_foreign, role_names


class CommandLine:
    """The command line of this run; `root` is the project's folder, `extra` the variables of all `-e` together."""

    def __init__(self, root: Path, extra: Mapping[str, Any]) -> None:
        self._root, self._extra, self._here = root, extra, os.getcwd()

    def complete(self, value: Any) -> Any:
        """Return a text or report in which each command of a playbook acts on the target of this run."""
        return all_completed(value, lambda text: completed(text, self._options, self._located))

    def again(self, confirm: str = "") -> str:
        """Return this command line without `--check`, with the confirmation that it lacks."""
        return again(sys.argv[1:], _parsed, confirm)

    def _located(self, path: str) -> str:
        if not (self._root / path).is_file() or Path(self._here) == self._root:
            return path
        return os.path.relpath(self._root / path, self._here)

    @cached_property
    def _options(self) -> str:
        arguments = dict(context.CLIARGS)
        blank = PlaybookCLI(["ansible-playbook", "x"])
        blank.init_parser()
        defaults = vars(blank.parser.parse_args(["x"]))
        # An environment variable may have been set for this run alone.
        if "ANSIBLE_INVENTORY" not in os.environ:
            defaults["inventory"] = constants.DEFAULT_HOST_LIST
        options = target_options({**arguments, "inventory": _as_list(arguments.get("inventory"))}, defaults, self._here)
        return " ".join([*options, *self._variables(list(arguments.get("extra_vars") or []))])

    def _variables(self, arguments: list[str]) -> list[str]:
        """Return `-e` options: a file whole if all of it describes the instance, else its variables that do, one by one."""
        names = role_names(self._root) | {FOREIGN} if self._extra else set()

        def setting(name: str) -> bool:
            ours = name in names or name.startswith("ansible_") or is_foreign(name, self._extra.get(FOREIGN))
            return ours and not of_one_run(name)

        files: list[str] = []
        covered: set[str] = set()
        for word in arguments:
            if word.startswith("@") and (variables := _parsed(word)) and all(map(setting, variables)):
                files.append(f"-e {quote('@' + near(word[1:], self._here))}")
                covered |= variables.keys()
        single = {name: value for name, value in self._extra.items() if name not in covered}
        return [*files, *repeated(single, setting)]


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _parsed(word: str) -> dict[str, Any]:
    """Return the variables that one `-e` sets, as Ansible reads it; none for a file that can't be read a second time."""
    try:
        if word.startswith("@"):
            variables = DataLoader().load_from_file(word[1:])
        elif word[:1] in ("{", "["):
            variables = DataLoader().load(word)
        else:
            variables = parse_kv(word)
    except (AnsibleError, OSError):
        return {}
    return {str(name): value for name, value in variables.items()} if isinstance(variables, Mapping) else {}
