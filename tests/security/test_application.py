"""What an application plants in its database runs with the application's rights, whatever enters there."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.catalogue.census import Census
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server import status
from attacks import BY_RESTORE, CODE, NAMES, PATH, SETTINGS, assigned, called_names, tag, used_operators
from conftest import PORT
from integration.conftest import docker


def sprung(struck: Any) -> dict[str, set[str]]:
    """The verbs that sprang something."""
    return {verb: tags for verb, tags in struck.sprung.items() if tags}


@pytest.mark.parametrize("name", called_names())
def test_a_function_in_the_place_of_postgresqls(struck: Any, name: str) -> None:
    assert tag("function", name) in struck.careless, "is it a function? Else name it in attacks.OTHERWISE"
    assert not {verb for verb, tags in struck.sprung.items() if tag("function", name) in tags}


@pytest.mark.parametrize("name", used_operators())
def test_an_operator_in_the_place_of_postgresqls(struck: Any, name: str) -> None:
    assert tag("operator", name) in struck.careless, "is it an operator? Else name it in attacks.OTHERWISE"
    assert not {verb for verb, tags in struck.sprung.items() if tag("operator", name) in tags}


@pytest.mark.parametrize("name", CODE)
def test_code_in_a_table(struck: Any, name: str) -> None:
    assert name in struck.careless
    assert not {verb for verb, tags in struck.sprung.items() if name in tags}


@pytest.mark.parametrize("name", BY_RESTORE)
def test_code_that_a_restore_evaluates(struck: Any, name: str) -> None:
    assert name in struck.restored
    assert not {verb for verb, tags in struck.sprung.items() if name in tags}


def test_nothing_was_sprung_and_nobody_rose(struck: Any) -> None:
    assert sprung(struck) == {}
    assert struck.server.superusers() == ["postgres"]


def test_every_verb_came_out_as_if_nothing_were_planted(struck: Any) -> None:
    refused = {verb: result.message for verb, result in struck.results.items() if isinstance(result, DasTernError)}
    # PostgreSQL has no INSERT ... ON CONFLICT where a rule is.
    assert "rule" in refused.pop("rows put back, rule")
    assert "has no primary key" in refused.pop("rows put back, partition")
    assert refused == {}
    failed = {verb for verb, result in struck.results.items() if isinstance(result, dict) and result.get("failed")}
    assert failed == {"drift"}  # which names what was planted


@pytest.fixture(scope="module")
def swayed(server: Any) -> Iterator[str]:
    server.make("swayed")
    yield "swayed"
    server.superuser.drop_database("swayed")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_the_database(server: Any, swayed: str, name: str) -> None:
    value = SETTINGS[name]
    with server.application("postgres") as connection:
        connection.execute(f"ALTER DATABASE {swayed} SET {assigned(name, value)}")
        try:
            said = server.careless(f"SHOW {name};", swayed).strip()
            assert said == value or "ERROR" in said or "FATAL" in said
            for session in (server.superuser, server.superuser.as_owner("dastern_user")):
                found = session.run(f"SHOW {name}", swayed).strip()
                # An owner's session has the policies on, as the application has.
                assert found != value or (name, session.user) == ("row_security", "dastern_user")
        finally:
            connection.execute(f"ALTER DATABASE {swayed} RESET {name}")


def test_settings_made_by_hand_are_shown(struck: Any) -> None:
    found = struck.results["status"]["settings_by_hand"]
    shown = {(one["role"] is None, one["setting"].partition("=")[0]) for one in found}
    assert set(struck.settings) >= set(SETTINGS)
    assert {(of, name) for name in struck.settings for of in (True, False)} <= shown


def test_settings_made_by_hand_go_by_the_commands_that_are_shown(server: Any, swayed: str) -> None:
    # PostgreSQL can't reset the last two by themselves.
    forged = "x`; see `ansible-playbook playbooks/remove.yml`"
    given = {
        "application_name": forged,
        "search_path": PATH,
        "DateStyle": "SQL, DMY",
        "seed": "0.5",
        "transaction_read_only": "on",
    }
    with server.application("postgres") as connection:
        for name, value in given.items():
            for of in (f"DATABASE {swayed}", f"ROLE dastern_user IN DATABASE {swayed}"):
                connection.execute(f"ALTER {of} SET {assigned(name, value)}")
    asked = {**server.params, "database": swayed, "host": "127.0.0.1", "listen_address": "127.0.0.1", "port": PORT}

    def found() -> dict[str, Any]:
        return status.collect(asked, [])["postgres"]  # type: ignore[no-any-return]

    server.superuser.run(
        "ALTER ROLE ALL SET work_mem = '5MB'; ALTER ROLE dastern_user SET default_transaction_read_only = on"
    )
    lines = found()["lines"]
    commands = [line.partition("`")[2].partition("`")[0] for line in lines if line.startswith("set by hand")]
    assert len(commands) == 2 * len(given) + 2
    for command in commands:
        _, *words = shlex.split(command)
        assert docker(*words).returncode == 0
    assert found()["settings_by_hand"] == []
    assert forged not in str(lines)


def test_a_database_that_takes_no_connections_is_named_with_the_command_that_opens_it(server: Any, swayed: str) -> None:
    with server.application("postgres") as connection:
        connection.execute(f"ALTER DATABASE {swayed} ALLOW_CONNECTIONS false")
    with pytest.raises(DasTernError) as refused:
        census.count(server.superuser, swayed)
    assert refused.value.facts["closed"] == swayed
    _, *words = shlex.split(refused.value.message.split("`")[-2])
    assert docker(*words).returncode == 0
    assert census.count(server.superuser, swayed).tables == {}


def _lines(server: Any, name: str) -> bool:
    return len(f"table {name} has 2 rows".splitlines()) > 1


def _display(server: Any, name: str) -> bool:
    return any(unicodedata.category(one) in ("Cc", "Cf") for one in f"largest: {name}")


def _statement(server: Any, name: str) -> bool:
    server.careless(f"SELECT FROM \"{name}\";\nSELECT '{name}';", "postgres")
    risen = server.superusers() != ["postgres"]
    server.superuser.run("ALTER ROLE dastern_user NOSUPERUSER")
    return risen


def _formatted(server: Any, name: str) -> bool:
    try:
        return f"rows of {name}" % () != f"rows of {name}"
    except (TypeError, ValueError):
        return True


CARELESS: dict[str, Callable[[Any, str], bool]] = {
    **dict.fromkeys(("newline", "forged line", "return", "line separator", "entry of a list", "mark", "end of data"), _lines),
    **dict.fromkeys(("escape", "eight bit escape", "right to left"), _display),
    **dict.fromkeys(("statement", "literal"), _statement),
    "percent": _formatted,
    "shell": lambda server, name: bool((server.shell(f"echo {name}"), server.sprung())[1]),
    "variable of psql": lambda server, name: "oops" in server.careless(f"\\set x oops\n\\echo {name}", "postgres"),
    "command of psql": lambda server, name: bool((server.careless(f"SELECT {name}", "postgres"), server.sprung())[1]),
    "backslashes": lambda server, name: server.careless(f"SELECT E'{name}';", "postgres").strip() != name,
    "longest": lambda server, name: "truncated" in server.careless(f'CREATE TEMP TABLE "{name}_copy" ();', "postgres"),
    "option": lambda server, name: "Usage" in server.shell(f"psql {name}"),
    "connection": lambda server, name: f'"{name}" does not exist' not in server.shell(
        'PGCONNECT_TIMEOUT=1 psql -X -U postgres -d "$1" 2>&1', name),
    "blank": lambda server, name: server.shell(f"set -- {name}; echo $#").strip() == "0",
}  # fmt: skip
"""What a careless tool does of each name; whether it goes wrong."""


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_taken_for_something_else(struck: Any, name: str) -> None:
    assert CARELESS[name](struck.server, NAMES[name])
    quoted = '"' + NAMES[name].replace('"', '""') + '"'
    counted = [
        struck.results["count"],
        *(Census.of(struck.results[f"{kind} backup"].census) for kind in ("logical", "physical")),
    ]
    for one in counted:
        assert (one.tables[f"public.{quoted}"], one.tables[f"{quoted}.{quoted}"]) == (2, 2)
    assert not {verb for verb, tags in struck.sprung.items() for one in tags if one.startswith("name-")}
