"""A tablespace inside the data volume: backed up, tried, restored beside the live one, taken back, and removed with its cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups.kept import State, expire_old
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.restores import plain_sql
from ansible.module_utils.dastern.restores.drill import drill
from conftest import docker
from test_restore import Server, served

NAME, PORT = "dastern-test-tablespaces", 25885
MOUNT = "/var/lib/postgresql/data"
MAKE = f"""
\\! mkdir {MOUNT}/spaces {MOUNT}/spaces/one
CREATE TABLESPACE one LOCATION '{MOUNT}/spaces/one';
GRANT CREATE ON TABLESPACE one TO dastern_user;
SET ROLE dastern_user;
CREATE TABLE noted (what text) TABLESPACE one;
INSERT INTO noted VALUES ('a');
"""
THERE = "SELECT string_agg(what, ',' ORDER BY what), pg_tablespace_location(reltablespace) FROM noted, pg_class WHERE relname = 'noted' GROUP BY 2"


@pytest.fixture(scope="module")
def server(
    play: Callable[..., Any], image: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with served(play, image, tmp_path_factory.mktemp("spaces"), NAME, PORT, MAKE) as own:
        yield own


def folders(server: Server) -> list[str]:
    """Of the data volume, without what comes and goes by a time, as which only its kind is told."""
    return sorted(name.partition("-")[0] for name in server.entries())


def test_there_and_back_again(server: Server) -> None:
    record = server.place.records()[-1]
    assert "failed" not in drill(server.with_(target=record.label))
    server.sql("INSERT INTO noted VALUES ('b')")
    restored = []
    for _ in range(2):  # the second beside one that is kept
        server.restore(target=record.label)
        rows, _, location = server.sql(THERE).partition("|")
        assert rows == "a"
        assert location.startswith(f"{MOUNT}/tablespaces-")
        restored.append(location)
    assert len(set(restored)) == 2
    assert folders(server) == ["pgdata", "replaced", "replaced", "spaces", "tablespaces", "tablespaces"]
    server.sql("INSERT INTO noted VALUES ('c')")
    assert server.take("incr").exact
    server.restore(undo=True)
    assert server.sql(THERE) == f"a|{restored[0]}"
    # What is kept goes with its own tablespaces, and with no other's.
    state = State(server.place)
    for one in state.kept:
        one["until"] = "2026-01-01T00:00:00+00:00"
    state.save()
    expire_old(server.place)
    assert folders(server) == ["pgdata", "tablespaces"]
    assert server.sql(THERE) == f"a|{restored[0]}"


def test_a_database_is_copied_with_it(server: Server) -> None:
    server.restore(what="database", into="copied", target=server.place.records()[-1].label)
    assert server.sql("SELECT string_agg(what, ',') FROM noted", "copied") == "a"
    server.place.superuser.drop_database("copied")


def test_a_logical_backup_of_it_is_drilled(server: Server) -> None:
    """The trial server has none of the live one's folders; the tablespace is there by its name."""
    told = drill(server.with_(target=server.take("logical").label))
    assert "failed" not in told
    assert told["differences"] == []


def test_plain_sql_of_it_is_read(server: Server, tmp_path: Path) -> None:
    plain_sql.write(server.place, tmp_path / "plain.sql")
    plain_sql.read(server.place, tmp_path / "plain.sql", "plain")
    there = "SELECT spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = reltablespace WHERE relname = 'noted'"
    assert server.sql(there, "plain") == "one"
    server.place.superuser.drop_database("plain")


def test_a_database_keeps_its_own_and_stays_a_template(server: Server) -> None:
    own = "SELECT spcname, datistemplate FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = "
    server.sql(
        "ALTER DATABASE dastern ALLOW_CONNECTIONS false; SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = 'dastern';"
        "ALTER DATABASE dastern ALLOW_CONNECTIONS true IS_TEMPLATE true",
        "postgres",
    )
    server.sql("DROP TABLE noted", "dastern")  # what is in it by name can't go where all of it goes
    server.sql("ALTER DATABASE dastern SET TABLESPACE one", "postgres")
    record = server.take("logical")
    assert drill(server.with_(target=record.label))["differences"] == []
    server.restore(what="database", target=record.label)
    assert server.sql(f"{own} 'dastern'") == "one|t"
    for kept in State(server.place).kept:
        if kept["what"] == "database":
            server.place.superuser.drop_database(kept["kept"])
    assert [name for name in server.databases() if "_before_" in name] == []


def test_a_tablespace_that_the_log_makes_touches_nothing_of_the_live_one(server: Server) -> None:
    """Its path is the live one's, at which a recovery beside it would make it."""
    record = server.take("full")
    docker("exec", "-u", "postgres", NAME, "mkdir", f"{MOUNT}/later")
    server.sql(f"CREATE TABLESPACE later LOCATION '{MOUNT}/later'", "postgres")
    server.sql("CREATE TABLE late (what text) TABLESPACE later; INSERT INTO late VALUES ('x')")
    before = docker("exec", NAME, "find", f"{MOUNT}/later", "-type", "f", "-printf", "%p %i %s %T@\n").stdout
    with pytest.raises(DasTernError) as refusal:
        server.restore(target="latest")
    assert refusal.value.facts == {"tablespace": f"{MOUNT}/later"}
    assert docker("exec", NAME, "find", f"{MOUNT}/later", "-type", "f", "-printf", "%p %i %s %T@\n").stdout == before
    assert server.left() == []
    server.take("full")
    server.restore(target="latest")
    assert server.sql("SELECT what FROM late") == "x"
    assert record.label


def test_one_whose_name_is_a_path_stays_beside_the_live_cluster(server: Server) -> None:
    docker("exec", "-u", "postgres", NAME, "mkdir", f"{MOUNT}/named")
    server.sql(f"CREATE TABLESPACE \"../pgdata/evil\" LOCATION '{MOUNT}/named'", "postgres")
    server.sql("CREATE TABLE evil (what text) TABLESPACE \"../pgdata/evil\"; INSERT INTO evil VALUES ('x')")
    record = server.take("full")
    server.restore(target=record.label)
    assert server.sql("SELECT what FROM evil") == "x"
    location = server.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = '../pgdata/evil'")
    assert location.startswith(f"{MOUNT}/tablespaces-")
    for entry in server.entries():
        if entry.partition("-")[0] in ("pgdata", "replaced"):
            assert "evil" not in docker("exec", NAME, "ls", f"{MOUNT}/{entry}").stdout
