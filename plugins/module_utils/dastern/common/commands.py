"""Commands shown to an operator: quoted for the shell, and complete, so that pasting one does what it says.

Modules write `ansible-playbook playbooks/backup.yml` with the variables of the step itself, by `playbook`. Only the
controller knows the options that select the target (inventory, limit, the instance's variables, the way to connect): the
callbacks add them with `completed`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from shlex import quote
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-]*")
"""A value that the shell and Ansible's `key=value` both take literally."""
_TEMPLATE = re.compile(r"\{[{%#]")
_SECRET = re.compile(r"pass|secret|token|private_key(?!_file)|repository_options|repository_files")
"""Names of variables whose value isn't shown. A path to a password file matches, too; hiding it does no harm."""
_PLAYBOOK = re.compile(r"ansible-playbook ((?:\.{0,2}/)?(?:[\w.-]+/)*(?!save_image)[\w-]+\.yml)\b")
"""A command without options before its playbook. A command that has some is complete, or means another target.

`save_image.yml` is left out because an image is always saved on another machine than the one that lacks it.
"""
_CHECK = re.compile(r"-[bkKJDvC]*C[bkKJDvC]*|--ch(e(c(k)?)?)?")
"""`--check` in all forms that argparse takes, also among other flags (`-DC`)."""
_OF_ONE_RUN = re.compile(
    r"restore_(?!keep_old_hours$|wait$)|\w+_confirm$|\w+_as_superuser$|postgres_remove_|postgres_image_(refresh|archive)$"
    r"|backup_(new_cluster|type|name|reason|schedule_state|exit_code)$"
    r"|migrations_(approved|exit_code|decision|repair_anyway|name|down|drift_(fail|name)|schema_check|baseline_|rollback_|rehearsal_(source|fail)|reset_)"
)
_TARGET_OPTIONS = {
    "inventory": "-i",
    "subset": "--limit",
    "remote_user": "--user",
    "private_key_file": "--private-key",
    "connection": "--connection",
    "ssh_common_args": "--ssh-common-args",
    "ssh_extra_args": "--ssh-extra-args",
    "sftp_extra_args": "--sftp-extra-args",
    "scp_extra_args": "--scp-extra-args",
    "ask_pass": "--ask-pass",
    "connection_password_file": "--connection-password-file",
    "become": "--become",
    "become_method": "--become-method",
    "become_user": "--become-user",
    "become_ask_pass": "--ask-become-pass",
    "become_password_file": "--become-password-file",
    "ask_vault_pass": "--ask-vault-pass",
    "vault_ids": "--vault-id",
    "vault_password_files": "--vault-password-file",
}
"""Spelling of each option on the command line, by Ansible's name of it."""


def variable(name: str, value: Any, *, own: bool = False) -> str:
    """Return `-e` for one variable so that the shell and Ansible read it back unchanged.

    It is JSON where `key=value` would lose something. Ansible evaluates templates in such a value. Unless it is the operator's
    `own`, a value that looks like a template is data, which YAML marks with `!unsafe`.
    """
    if isinstance(value, bool):
        value = str(value).lower()
    text = str(value)
    if isinstance(value, (str, int)) and _PLAIN.fullmatch(text):
        return f"-e {name}={text}"
    if own or not _TEMPLATE.search(text):
        return f"-e {quote(json.dumps({name: value}, ensure_ascii=False, default=str))}"
    return f"-e {quote(f'{{{json.dumps(name)}: {_as_data(value)}}}')}"


def _as_data(value: Any) -> str:
    """Return a value as YAML on one line, with its texts marked as no templates."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_as_data(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_as_data, value)) + "]"
    if isinstance(value, (bool, int, float)) or value is None:
        return json.dumps(value)
    return f"!unsafe {json.dumps(str(value), ensure_ascii=False)}"


def playbook(name: str, **variables: Any) -> str:
    """Return the command of one of the project's playbooks, without variables that are None or empty."""
    path = "migrate.yml" if name == "migrate" else f"playbooks/{name}.yml"
    given = [variable(key, value) for key, value in variables.items() if value not in (None, "")]
    return " ".join(["ansible-playbook", path, *given])


def completed(text: str, options: str, located: Callable[[str], str] = lambda path: path) -> str:
    """Return `text` with `options` added to each plain command; `located` gives the path of a command's playbook."""

    def complete(command: re.Match[str]) -> str:
        return " ".join(["ansible-playbook", *([options] if options else []), quote(located(command[1]))])

    return _PLAYBOOK.sub(complete, text)


def all_completed(value: Any, complete: Callable[[str], str]) -> Any:
    """Return a report's structure with `complete` applied to every text in it."""
    if isinstance(value, str):
        return complete(value)
    if isinstance(value, Mapping):
        return {key: all_completed(item, complete) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [all_completed(item, complete) for item in value]
    return value


def repeated(extra: Mapping[str, Any], settings: Callable[[str], bool]) -> list[str]:
    """Return `-e` for each extra variable that is one of the `settings`, which select or describe the instance."""
    return [shown(name, value) for name, value in extra.items() if settings(name)]


def of_one_run(name: str) -> bool:
    """Return whether a role's variable is about a single run and is never repeated in a command for another one."""
    return bool(_OF_ONE_RUN.match(name))


def shown(name: str, value: Any) -> str:
    """Return `-e` for one variable, without a secret: the shell refuses the command until its environment has it."""
    return f'-e {name}="${{{name.upper()}:?}}"' if is_secret(name) else variable(name, value, own=True)


def is_secret(name: str) -> bool:
    """Return whether a variable of this name may hold a secret."""
    return bool(_SECRET.search(name))


def target_options(given: Mapping[str, Any], defaults: Mapping[str, Any], folder: str) -> list[str]:
    """Return the options of a command line that say where it acts and how it connects.

    `given` and `defaults` are Ansible's parsed options with and without the operator's, `folder` is the working directory.
    """
    words = []
    for name, option in _TARGET_OPTIONS.items():
        value = given.get(name)
        if value in (None, False, [], ()) or value == defaults.get(name):
            continue
        if value is True:
            words.append(option)
            continue
        for item in value if isinstance(value, (list, tuple)) else [value]:
            text = quote(near(str(item), folder))
            words.append(f"{option}={text}" if text.startswith(("-", "'-")) else f"{option} {text}")
    return words


def near(path: str, folder: str) -> str:
    """Return an absolute path below `folder` relative to it, and anything else as it is."""
    return path.removeprefix(f"{folder.rstrip('/')}/") if path.startswith("/") else path


def again(arguments: Sequence[str], parsed: Callable[[str], Mapping[str, Any]], confirm: str = "") -> str:
    """Return the command line of this run without `--check` and with the confirmation that it lacks.

    `arguments` are the process's arguments without its name; `parsed` reads the argument of an `-e`.
    """
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if _CHECK.fullmatch(word):
            if not word.startswith("--") and (others := word.replace("C", "")) != "-":
                words.append(others)
            continue
        name, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if name != "-e" and not (len(name) > 3 and "--extra-vars".startswith(name)):
            words.append(quote(word))
            continue
        value = value or next(rest, "")
        variables = {} if value.startswith("@") else parsed(value)
        rewritten = {
            key: item for key, item in variables.items() if not (confirm and re.fullmatch(r"(\w+_)?confirm", key))
        }
        if rewritten == variables and not any(map(is_secret, variables)):
            words.append(f"-e {quote(value)}")
        else:
            words += [shown(key, item) for key, item in rewritten.items()]
    return " ".join(["ansible-playbook", *words, *([variable("confirm", confirm)] if confirm else [])])
