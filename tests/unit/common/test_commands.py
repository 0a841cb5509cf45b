"""Printed commands, read back as the shell and Ansible read them."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.dastern.backups.records import Record
from ansible.module_utils.dastern.common.commands import (
    again,
    completed,
    of_one_run,
    playbook,
    target_options,
    variable,
)
from ansible.module_utils.dastern.common.confirmation import is_confirmed, wanted, word
from ansible.module_utils.dastern.migrations import guards
from ansible.module_utils.dastern.migrations import run as migration_run
from ansible.module_utils.dastern.restores import request
from ansible.parsing.splitter import parse_kv

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = [
    "users of monday",
    'public."User"',
    "$(touch x)",
    "it's",
    "a;b",
    "`x`",
    "-x",
    "{{ x }}",
    "ថ្នាំ",
    "a\\b",
    "x #y",
]


def given(command: str) -> dict[str, Any]:
    """The variables of a command line, as Ansible has them."""
    words = shlex.split(command)
    found: dict[str, Any] = {}
    for option, value in itertools.pairwise(words):
        if option == "-e":
            found |= yaml.load(value, Loader=Data) if value.startswith("{") else parse_kv(value)
    return found


class Data(yaml.SafeLoader):
    """YAML in which `!unsafe` marks a text that is no template."""


Data.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


def commands(text: str) -> list[str]:
    return re.findall(r"`(ansible-playbook [^`]*)`", text)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_arrives_as_it_is(value: str) -> None:
    assert given(playbook("restore", what="table", table=value)) == {"what": "table", "table": value}
    assert shlex.split(playbook("restore", into=value))[:2] == ["ansible-playbook", "playbooks/restore.yml"]


def test_values_that_are_no_text() -> None:
    assert variable("a", True) == "-e a=true"
    assert variable("a", 5) == "-e a=5"
    assert given(variable("a", {"b": ["c d", 1]})) == {"a": {"b": ["c d", 1]}}
    assert playbook("migrate", x=None, y="") == "ansible-playbook migrate.yml"


@pytest.mark.parametrize("value", [value for value in HOSTILE if "`" not in value])
def test_what_modules_interpolate_is_quoted(value: str) -> None:
    params = {"target": value, "what": "table", "table": value, "into": value, "repository": 2, "timeline": 3}
    told = {**params, "repository": "2", "timeline": "3", "confirm": value}
    assert given(request.restore_command({**params, "accept_differences": False, "as_superuser": False}, value)) == told
    record = Record(
        "20260101-000000L", "logical", "logical", value, "1", "17.2", "pg_dump", "2026-01-01", 1.0, 1, 1, {}, True
    )
    assert given(record.restore_command)["into"] == f"{value}_restored"
    (first, second) = commands(migration_run.resolve_words(value))
    assert (given(first), given(second)) == ({"rolled_back": value}, {"applied": value})
    off = {"window": "", "require_approval": True, "approved": "", "require_rehearsal": False, "password_file": "/x/y"}
    (found,) = guards.rollback_refusals({**off, "to": value}, [value], None)  # type: ignore[arg-type]
    assert given(commands(found)[-1])["to"] == value


COMMAND = re.compile(
    r"(ansible-playbook|docker (exec|rm|rename|logs|start|restart|volume|network|image)|\bchmod|\bmkdir -p|\brm) [^`\n]*$"
)
"""The beginning of a command in a message, up to what is put into it."""
QUOTED = {"quote", "playbook", "variable"}
OURS = {"SCRIPT", "PGDATA", "STANZA", "MOUNT", "DOWN"}
"""Constants of the code, plain words."""
PLAIN = {"others[0][0]", "command"}
"""The number of a process; one of two playbooks that are named beside it."""


def interpolated(path: Path) -> list[str]:
    """What a source puts unquoted into a command that is shown, each with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        before = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            code = ast.unparse(part.value)
            # In backticks, or the whole of an entry of `next`.
            inside = COMMAND.search(before.rpartition("`")[2]) if before.count("`") % 2 else None
            inside = inside or ("`" not in before and COMMAND.match(before))
            call = part.value.func if isinstance(part.value, ast.Call) else None
            safe = isinstance(call, ast.Name) and call.id in QUOTED
            if inside and not safe and code not in OURS:
                found.append(f"{path.name}:{node.lineno}: {code}")
            before += "x"
    return found


def test_no_source_puts_a_value_unquoted_into_a_command() -> None:
    found = [
        one
        for path in sorted((ROOT / "plugins").glob("**/*.py"))
        if path.name != "commands.py"
        for one in interpolated(path)
    ]
    assert [one for one in found if one.rpartition(": ")[2] not in PLAIN] == []


def test_the_check_of_the_sources_finds_an_unquoted_value(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        'f"Run `docker rm {name}`, or `rm {quote(path)}` at {place}."\nf"`ansible-playbook x.yml -e a={b}`"\n'
    )
    assert interpolated(source) == ["x.py:1: name", "x.py:2: b"]


def test_no_task_puts_a_value_unquoted_into_a_command() -> None:
    inside = re.compile(r"`(?:docker (?:exec|rm|volume|network|image)|rm|mkdir|chmod)\b[^`]*\{\{([^}]*)\}\}[^`]*`")
    values = [one for path in (ROOT / "roles").glob("*/tasks/*.yml") for one in inside.findall(path.read_text())]
    assert values
    assert [one for one in values if not one.rstrip().endswith("| quote")] == []


def test_a_complete_command_stays_as_it_is() -> None:
    plain = "Run `ansible-playbook migrate.yml -e x=1`, or ansible-playbook playbooks/seed.yml."
    once = completed(plain, "-i a -e 'b=\\1'")
    assert once == (
        "Run `ansible-playbook -i a -e 'b=\\1' migrate.yml -e x=1`, or ansible-playbook -i a -e 'b=\\1' playbooks/seed.yml."
    )
    assert completed(once, "-i a -e 'b=\\1'") == once
    assert completed(plain, "") == plain
    assert completed(
        "`ansible-playbook playbooks/restore.yml -e what=table`", "-i x", lambda path: f"../my repo/{path}"
    ) == ("`ansible-playbook -i x '../my repo/playbooks/restore.yml' -e what=table`")
    assert (
        completed("`ansible-playbook playbooks/restore.yml`", "", lambda _: "restore.yml")
        == "`ansible-playbook restore.yml`"
    )
    other = "ansible-playbook -i inventories/development playbooks/seed.yml"
    assert completed(other, "-i a") == other
    # Saved where there is a network, and not on the host of this run.
    elsewhere = "ansible-playbook playbooks/save_image.yml -e postgres_image_archive=PATH"
    assert completed(elsewhere, "-i a") == elsewhere


def test_options_that_choose_the_target() -> None:
    options = {
        "inventory": ["/here/inventories/a b", "/else/where"], "subset": "x:!y", "remote_user": "deploy", "become": True,
        "become_user": None, "connection": "ssh", "ssh_common_args": "-o A=b", "vault_ids": ["prod@/here/p"],
        "vault_password_files": ["/here/secret"], "ask_pass": False,
    }  # fmt: skip
    words = target_options(options, {"connection": "ssh", "remote_user": None}, "/here")
    assert shlex.split(" ".join(words)) == [
        "-i", "inventories/a b", "-i", "/else/where", "--limit", "x:!y", "--user", "deploy", "--ssh-common-args=-o A=b",
        "--become", "--vault-id", "prod@/here/p", "--vault-password-file", "secret",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("-C a.yml", "a.yml"),
        ("--check --diff a.yml", "--diff a.yml"),
        ("-vCD a.yml --chec", "-vD a.yml"),
        ("-i 'a b' a.yml -C -e 'x=$(y)'", "-i 'a b' a.yml -e 'x=$(y)'"),
        ("a.yml -ex=1 --extra-vars=y=2 --extra-var z=3 -e @f.yml", "a.yml -e x=1 -e y=2 -e z=3 -e @f.yml"),
        ("-l CC --tags C a.yml", "-l CC --tags C a.yml"),
    ],
)
def test_the_same_command_without_check(line: str, wanted: str) -> None:
    assert again(shlex.split(line), parse_kv) == f"ansible-playbook {wanted}"


def test_what_one_run_does_is_never_repeated() -> None:
    """What a playbook's own variables set, and what says yes to something."""
    set_by_playbooks: set[str] = set()
    for path in (ROOT / "playbooks").glob("*.yml"):
        for play in yaml.safe_load(path.read_text()):
            set_by_playbooks |= (play.get("vars") or {}).keys()
    assert {name for name in set_by_playbooks if not of_one_run(name)} == set()
    for name in (
        "backup_new_cluster",
        "backup_type",
        "postgres_remove_volume",
        "migrations_approved",
        "restore_confirm",
    ):
        assert of_one_run(name), name
    for name in (
        "postgres_port",
        "migrations_dir",
        "migrations_drift_ignore",
        "restore_wait",
        "backup_compress_level",
        "postgres_image_name",
    ):
        assert not of_one_run(name), name


@pytest.mark.parametrize(
    ("instance", "confirms", "refused"),
    [
        ("development/here", ["d", "development/here/d"], ["", "development/d", "production/here/d", "here/d"]),
        (
            "production/a",
            ["production/a/d"],
            ["", "d", "production/d", "staging/a/d", "production/b/d", "production/a/e"],
        ),
        ("", ["d"], ["", "e"]),
    ],
)
def test_a_confirmation_names_environment_host_and_database(
    instance: str, confirms: list[str], refused: list[str]
) -> None:
    for given_word in [*confirms, *refused]:
        params = {"confirm": given_word, "instance": instance}
        assert is_confirmed(params, "d") is (given_word in confirms), given_word
        assert word(params, "d") == confirms[0]
        assert wanted(params, "d") == f"`confirm` is {given_word!r}, expected {confirms[0]!r}."


@pytest.mark.parametrize(
    "value",
    ['20260401_x{{ lookup("pipe","touch {marker}") }}', "{% set a = 1 %}'\"$(touch {marker})`", "{# x #}\n- a: b"],
)
def test_what_others_wrote_is_no_template(tmp_path: Path, value: str) -> None:
    """Pasted, the command gives Ansible the very text: nothing of it is evaluated, by the shell or by Ansible."""
    value = value.replace("{marker}", str(tmp_path / "sprung"))
    command = (
        f"ansible localhost -i localhost, -c local -m ansible.builtin.debug -a var=given {variable('given', value)}"
    )
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout.partition("=>")[2])["given"] == value
    assert not (tmp_path / "sprung").exists()
    assert variable("name", "{{ inventory_hostname }}", own=True) == '-e \'{"name": "{{ inventory_hostname }}"}\''
