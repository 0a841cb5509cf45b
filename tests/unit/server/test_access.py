"""The plan for roles, database and privileges, from what is declared and what is found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.module_utils.dastern.common import scram
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.sql_values import identifier, literal
from ansible.module_utils.dastern.server import hba
from ansible.module_utils.dastern.server.access import Declared, apply, plan
from ansible.module_utils.dastern.server.survey import check_zero_loss

PASSWORDS = {"app": "application-password", "ro": "read-only-password"}
DECLARED = Declared("db", "app", "ro", "development", False, PASSWORDS)


def role(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "rolcanlogin": True, "rolsuper": False, "rolcreaterole": False, "rolcreatedb": False, "rolreplication": False,
        "rolbypassrls": False, "rolinherit": True, "rolconnlimit": -1, "rolvaliduntil": None, "memberof": [],
        "config": ["default_transaction_read_only=on"] if name == "ro" else [],
        "rolpassword": scram.verifier(PASSWORDS[name], iterations=2), **changes,
    }  # fmt: skip


FOUND: dict[str, Any] = {
    "roles": {"app": role("app"), "ro": role("ro"), "postgres": {"rolpassword": None}},
    "database": {
        "owner": "app", "owner_is_superuser": False, "encoding": "UTF8", "provider": "b", "locale": "C.UTF-8",
        "public": [], "readonly": ["CONNECT"], "config": ["dastern.environment=development"],
    },
    "inside": {
        "schema": {"public": ["USAGE"], "readonly": ["USAGE"]}, "unreadable": [], "writable": [], "default": ["SELECT"],
    },
}  # fmt: skip


def found(**changes: Any) -> dict[str, Any]:
    """FOUND with values at paths such as `database__owner`."""
    result = copy.deepcopy(FOUND)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = result
        for step in way:
            place = place[step]
        place[last] = value
    return result


def test_nothing_is_done_where_nothing_differs() -> None:
    assert plan(DECLARED, FOUND) == []


def test_everything_is_made_on_an_empty_server() -> None:
    empty = {"roles": {"postgres": {"rolpassword": None}}, "database": None, "inside": None}
    steps = plan(DECLARED, empty)
    assert [step.where for step in steps if step.attribute == "state"] == ["server", "server", "create"]
    text = "; ".join(step.sql for step in steps)
    assert 'CREATE DATABASE "db" OWNER "app" TEMPLATE template0' in text
    assert 'REVOKE ALL ON DATABASE "db" FROM PUBLIC' in text
    for password in PASSWORDS.values():
        assert password not in text


@pytest.mark.parametrize(
    ("changes", "sql"),
    [
        ({"roles__app__rolsuper": True}, 'ALTER ROLE "app" NOSUPERUSER'),
        ({"roles__app__rolcanlogin": False}, 'ALTER ROLE "app" LOGIN'),
        ({"roles__app__rolcreatedb": True}, 'ALTER ROLE "app" NOCREATEDB'),
        ({"roles__ro__rolbypassrls": True}, 'ALTER ROLE "ro" NOBYPASSRLS'),
        ({"roles__app__rolconnlimit": 3}, 'ALTER ROLE "app" CONNECTION LIMIT -1'),
        ({"roles__app__rolvaliduntil": "2020-01-01"}, "ALTER ROLE \"app\" VALID UNTIL 'infinity'"),
        ({"roles__ro__memberof": [["app", "dba"]]}, 'REVOKE "app" FROM "ro" GRANTED BY "dba" CASCADE'),
        ({"roles__ro__config": []}, 'ALTER ROLE "ro" SET default_transaction_read_only = on'),
        ({"roles__postgres__rolpassword": "md5"}, 'ALTER ROLE "postgres" PASSWORD NULL'),
        ({"database__owner": "postgres", "database__owner_is_superuser": True}, 'ALTER DATABASE "db" OWNER TO "app"'),
        ({"database__public": ["CONNECT"]}, 'REVOKE ALL ON DATABASE "db" FROM PUBLIC'),
        ({"database__readonly": ["CONNECT", "CREATE"]}, 'REVOKE ALL ON DATABASE "db" FROM "ro"; GRANT CONNECT'),
        ({"database__config": []}, "SET dastern.environment = 'development'"),
        ({"inside__schema": None}, "CREATE SCHEMA public"),
        ({"inside__schema__public": ["CREATE", "USAGE"]}, "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        ({"inside__schema__readonly": []}, 'GRANT USAGE ON SCHEMA public TO "ro"'),
        ({"inside__unreadable": ["t"]}, 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "ro"'),
        ({"inside__writable": ["t"]}, "REVOKE INSERT"),
        ({"inside__default": []}, 'ALTER DEFAULT PRIVILEGES FOR ROLE "app"'),
    ],
)
def test_each_drift_is_brought_back_by_its_statement(changes: dict[str, Any], sql: str) -> None:
    steps = plan(DECLARED, found(**changes))
    assert sql in "; ".join(step.sql for step in steps)
    assert len(steps) == (2 if changes == {"inside__schema": None} else 1)


def test_a_password_that_differs_is_set_as_a_verifier_and_named_without_its_value() -> None:
    (step,) = plan(DECLARED, found(roles__app__rolpassword=scram.verifier("another-password", iterations=2)))
    assert step.words == "role app: password differs -> set"
    assert scram.matches(PASSWORDS["app"], step.sql.split("'")[1])


@pytest.mark.parametrize(
    ("declared", "changes", "message"),
    [
        (DECLARED, {"database__encoding": "LATIN1"}, "Database db has encoding LATIN1"),
        (DECLARED, {"database__owner": "other"}, 'ALTER DATABASE "db" OWNER TO "app"'),
        (DECLARED, {"database__config": ["dastern.environment=production"]}, "is marked as production"),
    ],
)
def test_what_must_not_be_changed_is_refused(declared: Declared, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DasTernError) as refusal:
        plan(declared, found(**changes))
    assert message in refusal.value.message


def test_a_renamed_role_is_refused_with_the_way_to_rename_it() -> None:
    known = found(database__owner="old")
    del known["roles"]["app"]
    with pytest.raises(DasTernError, match='ALTER ROLE "old" RENAME TO "app"'):
        plan(DECLARED, known)


def test_quoting() -> None:
    assert identifier('a"b') == '"a""b"'
    assert literal("it's") == "'it''s'"
    assert literal("a\\'b") == " E'a\\\\''b'"
    assert identifier("all") == '"all"'


@pytest.mark.parametrize("name", ["db", 'a "b" c', "ក"])
@pytest.mark.parametrize("createdb", [True, False])
def test_the_rules_say_which_database_they_are_for(name: str, createdb: bool) -> None:
    extra = ['host "other" "someone" all scram-sha-256']
    assert hba.database_of(hba.content("postgres", name, "app", "ro", extra, createdb=createdb)) == name
    assert hba.database_of("host all all all scram-sha-256\n") is None


def test_hba_lines_go_between_the_superusers_refusal_and_the_application() -> None:
    lines = hba.content("postgres", "db", "app", "ro", ["host all m 10.0.0.0/8 scram-sha-256"], createdb=False)
    assert [line for line in lines.splitlines() if not line.startswith("#")] == [
        'local all "postgres" peer',
        "local all all peer map=das_tern",
        'host all "postgres" all reject',
        "host replication das_tern_receiver samenet scram-sha-256",
        "host postgres das_tern_backup samenet scram-sha-256",
        "host all m 10.0.0.0/8 scram-sha-256",
        'host "db","/^db_scratch_[0-9a-f]{16}$" "app" all scram-sha-256',
        'host "db" "ro" all scram-sha-256',
        "host all all all reject",
    ]
    with pytest.raises(DasTernError, match="isn't one line of pg_hba.conf"):
        hba.content("postgres", "db", "app", "ro", ["a\nb"], createdb=False)


def test_what_zero_loss_cant_be_with_is_refused_before_anything_is_touched() -> None:
    check_zero_loss(True, True, {"max_connections": "20"})
    check_zero_loss(False, False, {"synchronous_standby_names": "other"})
    with pytest.raises(DasTernError, match="`postgres_wal_archive` is false"):
        check_zero_loss(True, False, {})
    with pytest.raises(DasTernError, match="sets synchronous_standby_names to `other`.*Take it out"):
        check_zero_loss(True, True, {"synchronous_standby_names": "other"})


class Server:
    """A server that keeps what it is sent, by database."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def run(self, sql: str, database: str = "postgres") -> str:
        self.sent.append((database, sql))
        return ""


@pytest.mark.parametrize(
    "setting",
    ["log_statement = 'none'", "log_min_duration_statement = -1", "log_min_error_statement = 'panic'", "synchronous_commit = local"],
)  # fmt: skip
def test_a_verifier_is_sent_only_where_no_log_gets_it_and_no_receiver_is_waited_for(setting: str) -> None:
    server = Server()
    steps = plan(DECLARED, found(roles__app__rolpassword=None))
    apply(server, DECLARED, steps)  # type: ignore[arg-type]
    ((database, sent),) = server.sent
    before, verifier, _ = sent.partition("SCRAM-SHA-256$")
    assert (database, verifier) == ("db", "SCRAM-SHA-256$")
    assert before.startswith("BEGIN READ WRITE;")
    assert f"SET LOCAL {setting};" in before
    assert sent.endswith("COMMIT;")


def test_a_database_is_made_between_two_transactions() -> None:
    server = Server()
    empty = {"roles": {"postgres": {"rolpassword": None}}, "database": None, "inside": None}
    apply(server, DECLARED, plan(DECLARED, empty))  # type: ignore[arg-type]
    assert [database for database, _ in server.sent] == ["postgres", "postgres", "db"]
    roles, create, within = (sql for _, sql in server.sent)
    assert roles.count("CREATE ROLE") == 2
    assert create.startswith('CREATE DATABASE "db"')
    assert "REVOKE ALL ON DATABASE" in within
    for text in (roles, within):
        assert "SET LOCAL log_statement = 'none';" in text
