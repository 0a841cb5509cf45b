"""Files, names and settings that strangers wrote: plain SQL, names of databases, lists of settings."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import logical
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.sql_values import identifier
from ansible.module_utils.dastern.restores import database_copy, plain_sql
from ansible.module_utils.dastern.restores.request import ARGUMENT_SPEC
from ansible.module_utils.dastern.restores.run import restore

FILE = "/tmp/sprung-file"
BACKDOOR = "CREATE ROLE backdoor SUPERUSER;"
FILES = {
    "COPY TO PROGRAM": f"COPY (SELECT 1) TO PROGRAM 'cat > {FILE}';",
    "COPY FROM PROGRAM": f"CREATE TABLE t (x text); COPY t FROM PROGRAM 'touch {FILE}';",
    "COPY to a file": f"COPY (SELECT 1) TO '{FILE}';",
    "COPY from a file": "CREATE TABLE t (x text); COPY t FROM '/etc/passwd';",
    "pg_read_file": "SELECT pg_read_file('/etc/passwd');",
    "pg_ls_dir": "SELECT pg_ls_dir('/etc/das-tern');",
    "lo_import": "SELECT lo_import('/etc/passwd');",
    "lo_export": f"SELECT lo_from_bytea(4711, 'x'); SELECT lo_export(4711, '{FILE}');",
    "shell": f"\\! touch {FILE}",
    "shell after unrestrict": f"\\unrestrict 0123456789abcdef\n\\unrestrict\n\\! touch {FILE}",
    "backtick": f"\\set x `touch {FILE}`",
    "pipe": f"\\o |touch {FILE}",
    "copy of psql": f"\\copy (SELECT 1) TO PROGRAM 'cat > {FILE}'",
    "gexec into a pipe": f"SELECT 1 \\g |touch {FILE}",
    "connect": f"\\connect postgres\n{BACKDOOR}",
    "include": "\\i /etc/passwd",
    "superuser": BACKDOOR,
    "superuser after COMMIT": f"COMMIT; {BACKDOOR}",
    "RESET ROLE": f"RESET ROLE; {BACKDOOR}",
    "SET ROLE": f"SET ROLE postgres; {BACKDOOR}",
    "RESET SESSION AUTHORIZATION": f"RESET SESSION AUTHORIZATION; {BACKDOOR}",
    "SET SESSION AUTHORIZATION": f"SET SESSION AUTHORIZATION postgres; {BACKDOOR}",
    "password of the superuser": "ALTER ROLE postgres PASSWORD 'x';",
    "membership": "GRANT pg_execute_server_program TO dastern_user;",
    "another's database": "COMMIT; DROP DATABASE decoy;",
    "settings of another's database": "ALTER DATABASE decoy SET work_mem = '1GB';",
    "untrusted extension": "CREATE EXTENSION file_fdw;",
    "event trigger": "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
    "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION e();",
}
"""Plain SQL that does harm where a superuser runs it."""
# What shows of the server, whatever the file was.
_SHOWN = """
SELECT json_build_object('backdoor', (SELECT count(*) FROM pg_roles WHERE rolname = 'backdoor'),
  'password', (SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'postgres'),
  'members', (SELECT count(*) FROM pg_auth_members WHERE member = 'dastern_user'::regrole),
  'decoy', (SELECT json_agg(setconfig) FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid WHERE datname = 'decoy'))
"""
_UNDONE = """
DROP ROLE IF EXISTS backdoor; ALTER ROLE postgres PASSWORD NULL; REVOKE pg_execute_server_program FROM dastern_user;
SELECT 'CREATE DATABASE decoy TEMPLATE template0' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'decoy') \\gexec
ALTER DATABASE decoy RESET ALL;
"""


@pytest.fixture
def decoy(server: Any) -> Iterator[None]:
    server.careless(_UNDONE, "postgres")
    server.sprung()
    yield
    server.careless(_UNDONE, "postgres")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_plain_sql(server: Any, decoy: None, tmp_path: Path, name: str) -> None:
    path = tmp_path / "strange.sql"
    path.write_text(FILES[name] + "\n")
    before = server.superuser.value(_SHOWN)
    server.make("strange")
    said = server.careless(FILES[name] + "\n\\echo came through", "strange", "-o", "/dev/null")
    harm = server.sprung() or server.superuser.value(_SHOWN) != before or "root:x:" in said or "ERROR" not in said
    assert harm, said
    server.careless(_UNDONE, "postgres")
    server.superuser.drop_database("strange")

    try:
        plain_sql.read(server.place, path, "strange")
    except DasTernError:
        assert not server.superuser.has_database("strange")
    assert server.superuser.value(_SHOWN) == before
    assert server.sprung() == set()
    server.superuser.drop_database("strange")


PLACES = (
    "host=192.0.2.1", "dbname=postgres user=postgres", "postgresql://192.0.2.1/x", "postgres://192.0.2.1/x", "postgres", "template1",
    "template0", "a\nb", "a\x1b[2Jb", "a\rb", "", "ថ្នាំ" * 9,
)  # fmt: skip
"""Names for a new database that lead elsewhere, or aren't what they look like."""


@pytest.mark.parametrize("name", PLACES)
def test_a_name_for_a_new_database(server: Any, tmp_path: Path, name: str) -> None:
    # A program that takes the name as it comes isn't told that there is no database of that name.
    script = 'PGCONNECT_TIMEOUT=1 psql -X -U postgres -d "$1" -c "SELECT 1" 2>&1'
    taken = f'database "{name}" does not exist' not in server.shell(script, name)
    assert taken or any(unicodedata.category(one) == "Cc" for one in name)
    path = tmp_path / "plain.sql"
    path.write_text("SELECT 1;\n")
    before = server.superuser.run("SELECT datname FROM pg_database ORDER BY 1")
    with pytest.raises(DasTernError):
        plain_sql.read(server.place, path, name)
    if name:  # without one it is the live database that is restored, which wants a confirmation
        with pytest.raises(DasTernError):
            restore(server.with_(ARGUMENT_SPEC, what="database", into=name))
    assert server.superuser.run("SELECT datname FROM pg_database ORDER BY 1") == before


LISTS = (
    "public;ALTER/**/ROLE/**/lowly/**/SUPERUSER",
    "public;ALTER/**/ROLE/**/lowly/**/SUPERUSER;SELECT",
    "a;ALTER/**/ROLE/**/lowly/**/SUPERUSER;--",
)
"""What PostgreSQL takes as a search path of one or two odd names, and a superuser's `SET` as a statement."""


@pytest.fixture
def lowly(server: Any) -> Iterator[None]:
    server.superuser.run("CREATE ROLE lowly")
    server.make("listed")
    yield
    for name in ("listed", "listed_copy"):
        server.superuser.drop_database(name)
    server.superuser.run("DROP ROLE lowly")


def _from_current(server: Any, value: str) -> None:
    with server.application("listed") as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (value,))
        connection.execute("ALTER DATABASE listed SET search_path FROM CURRENT")
        connection.execute("ALTER ROLE dastern_user IN DATABASE listed SET search_path FROM CURRENT")


def _meant(settings: Any) -> Any:
    return [[census.parts(one) for one in entries] for entries in settings]


def _settings(server: Any, database: str) -> Any:
    return server.superuser.value(
        "SELECT json_agg(setconfig ORDER BY setrole) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase "
        f"WHERE datname = '{database}'"
    )


def _risen(server: Any) -> bool:
    """Whether the lowly role became a superuser; it isn't any more."""
    risen = server.superuser.value("SELECT to_json(rolsuper) FROM pg_roles WHERE rolname = 'lowly'")
    server.superuser.run("ALTER ROLE lowly NOSUPERUSER")
    return bool(risen)


@pytest.mark.parametrize("value", LISTS)
def test_sql_in_a_list_of_a_setting(server: Any, lowly: None, value: str) -> None:
    _from_current(server, value)
    (setting,) = _settings(server, "listed")[0]
    server.careless(f"ALTER DATABASE listed SET search_path TO {setting.partition('=')[2]};", "postgres")
    assert _risen(server)
    _from_current(server, value)
    server.superuser.run(
        f"CREATE DATABASE listed_copy; ALTER DATABASE listed_copy SET {database_copy.assignment(setting)}"
    )
    assert _meant(_settings(server, "listed_copy")) == [[census.parts(setting)]]
    assert not _risen(server)


def test_sql_in_a_list_through_a_backup(server: Any, lowly: None) -> None:
    _from_current(server, LISTS[0])
    given = _settings(server, "listed")
    server.careless(
        "".join(f"ALTER DATABASE listed SET search_path TO {one.partition('=')[2]};" for (one,) in given), "postgres"
    )
    assert _risen(server)
    _from_current(server, LISTS[0])
    with server.place.alone(60, "an attack"):
        record = logical.take(server.place, "listed", "", "", "10s")
        database_copy.from_logical(server.place, record, "listed_copy", "", "")
    assert _meant(_settings(server, "listed_copy")) == _meant(given)
    server.superuser.drop_database("listed_copy")
    server.make("listed_copy")
    # The file that says the same to whoever restores by hand.
    server.careless(f"\\i /backups/logical/{record.label}/database.sql", "postgres", "-v", "database=listed_copy")
    assert _meant(_settings(server, "listed_copy")) == _meant(given)
    assert not _risen(server)


def test_a_view_in_the_place_of_a_table(server: Any) -> None:
    """What was a table when a statement was put together is a view when it runs."""
    server.make("swapped")
    try:
        with server.application("swapped") as connection:
            connection.execute(
                "CREATE TABLE public.swapped (x int); CREATE FUNCTION public.spring() RETURNS int LANGUAGE plpgsql AS "
                f"$$ BEGIN COPY (SELECT 1) TO PROGRAM 'cat > {FILE}'; RETURN 1; END $$"
            )
            connection.execute(
                "DROP TABLE public.swapped; CREATE VIEW public.swapped AS SELECT public.spring() OFFSET 0"
            )
        server.careless("SELECT * FROM ONLY public.swapped;", "swapped")
        assert server.sprung() == {"file"}
        with pytest.raises(DasTernError):
            server.superuser.run("COPY public.swapped TO STDOUT;", "swapped")
        with pytest.raises(DasTernError):
            server.superuser.run("SELECT * FROM ONLY public.swapped;", "swapped")
        assert server.sprung() == set()
    finally:
        server.superuser.drop_database("swapped")


@pytest.mark.parametrize("event", ["login", "ddl_command_start", "ddl_command_end"])
def test_an_event_trigger_whose_function_is_the_applications(server: Any, event: str) -> None:
    """A superuser made the trigger; what it calls, the application can replace."""
    server.make("eventful")
    try:
        with server.application("eventful") as connection:
            connection.execute(
                "CREATE TABLE t (x int); CREATE FUNCTION public.e() RETURNS event_trigger LANGUAGE plpgsql AS "
                "$$ BEGIN IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN "
                f"COPY (SELECT 1) TO PROGRAM 'cat > {FILE}'; END IF; END $$"
            )
        server.superuser.run(
            f"CREATE EVENT TRIGGER e ON {event} EXECUTE FUNCTION public.e(); ALTER EVENT TRIGGER e ENABLE ALWAYS",
            "eventful",
        )
        server.careless("CREATE TABLE by_hand (); DROP TABLE by_hand;", "eventful")
        assert server.sprung() == {"file"}
        assert census.count(server.superuser, "eventful").tables == {"public.t": 0}
        server.superuser.run(
            f"GRANT SELECT ON public.t TO dastern_readonly; COMMENT ON DATABASE {identifier('eventful')} IS 'x'",
            "eventful",
        )
        with server.place.alone(60, "an attack"):
            logical.take(server.place, "eventful", "", "", "10s")
        assert server.sprung() == set()
    finally:
        server.superuser.drop_database("eventful")
