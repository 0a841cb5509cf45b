"""The examples of lint, run at a server: what it refuses the owner of a database, what it rewrites, reads and locks."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("DASTERN_TEST_IMAGE", "das-tern/postgres:17")
NAME = "dastern-test-lint"
SECTIONS: dict[str, list[dict[str, Any]]] = yaml.safe_load((ROOT / "docs" / "lint_statements.yml").read_text("utf-8"))
# What sends or ends something that psql itself looks after.
LEFT = ("COPY t FROM STDIN", "COPY t (id, b) TO STDOUT")
EXAMPLES = [
    one for section, all_ in SECTIONS.items() if section != "Transactions" for one in all_ if one["sql"] not in LEFT
]
START = """
export PATH=$PATH:/usr/lib/postgresql/17/bin
initdb --pgdata /tmp/data --username postgres --auth trust >/tmp/initdb.log
pg_ctl --pgdata /tmp/data --log /tmp/log --wait start \
  --options "-k /tmp -c listen_addresses='' -c wal_level=logical -c fsync=off"
"""
SERVER = """
CREATE ROLE app LOGIN CREATEDB;
CREATE ROLE reader;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE tsp LOCATION '';
CREATE DATABASE app OWNER app;
"""
OF_SUPERUSER = """
CREATE FOREIGN DATA WRAPPER wrap;
GRANT USAGE ON FOREIGN DATA WRAPPER wrap TO app;
CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION seen();
CREATE ACCESS METHOD am TYPE TABLE HANDLER heap_tableam_handler;
CREATE TEXT SEARCH PARSER tp (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE TEXT SEARCH TEMPLATE tt (LEXIZE = dsimple_lexize);
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal));
CREATE SUBSCRIPTION sub CONNECTION 'host=h' PUBLICATION p WITH (connect = false);
CREATE TYPE base;
CREATE FUNCTION base_in(cstring) RETURNS base LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION base_out(base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE base (INPUT = base_in, OUTPUT = base_out, LIKE = text);
CREATE OPERATOR FAMILY opf USING btree;
CREATE OPERATOR CLASS opc FOR TYPE int USING btree FAMILY opf AS OPERATOR 1 <;
ALTER OPERATOR FAMILY opf USING btree OWNER TO app;
ALTER OPERATOR CLASS opc USING btree OWNER TO app;
"""
BEFORE = """
SET client_min_messages = error;
CREATE TEMPORARY TABLE before AS SELECT oid, pg_relation_filenode(oid) AS file FROM pg_class
WHERE relkind IN ('r', 'm', 'i') AND relnamespace = 'public'::regnamespace;
"""
# Of each table: whether it was rewritten, whether it was read whole, and the strongest lock on it.
AFTER = """
SELECT '#', c.relname, b.file <> pg_relation_filenode(c.oid), coalesce(s.seq_tup_read, 0) > 0,
  bool_or(l.mode = 'AccessExclusiveLock'),
  bool_or(l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
FROM pg_class c JOIN before b USING (oid) LEFT JOIN pg_stat_xact_user_tables s ON s.relid = c.oid
JOIN pg_locks l ON l.relation = c.oid AND l.pid = pg_backend_pid() WHERE c.relkind IN ('r', 'm') GROUP BY 2, 3, 4;
"""


@dataclass
class Done:
    """What came of an example: SQLSTATE, and of each table whether rewritten, read, without readers, without writers."""

    sqlstate: str
    tables: dict[str, tuple[bool, bool, bool, bool]]


def psql(user: str, database: str, sql: str) -> str:
    command = ["docker", "exec", "-i", "-u", "postgres", NAME, "psql", "--no-psqlrc", "--quiet", "-At", "-h", "/tmp"]
    done = subprocess.run(
        [*command, "-U", user, "-d", database], input=sql, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    subprocess.run(["docker", "rm", "--force", NAME], capture_output=True, check=True)
    run = ["docker", "run", "--detach", "--name", NAME, "--network", "none", "--entrypoint", "sleep", IMAGE, "900"]
    subprocess.run(run, capture_output=True, check=True)
    try:
        inside = ["docker", "exec", "-u", "postgres", NAME, "bash", "-euc", START]
        subprocess.run(inside, stdout=subprocess.DEVNULL, check=True)
        stop = "\\set ON_ERROR_STOP on\n"
        psql("postgres", "postgres", stop + SERVER)
        psql("postgres", "app", stop + OF_SUPERUSER)
        psql("app", "app", stop + (ROOT / "tests" / "integration" / "lint_objects.sql").read_text())
        yield
    finally:
        subprocess.run(["docker", "rm", "--force", NAME], capture_output=True, check=True)


@pytest.fixture(scope="module")
def done(server: None) -> dict[str, Done]:
    """All examples, each in a transaction that is rolled back; what refuses one, in a copy of the database."""
    script = BEFORE + "".join(
        f"BEGIN;\n{one['sql']}\n;\n\\echo @{number} :SQLSTATE\n{AFTER}ROLLBACK;\nRESET ALL;\nSELECT pg_stat_force_next_flush();\n"
        for number, one in enumerate(EXAMPLES)
    )
    found: dict[str, Done] = {}
    told = re.split(r"^@(\d+) (\S+)\n", psql("app", "app", script), flags=re.MULTILINE)
    for number, sqlstate, rows in zip(told[1::3], told[2::3], told[3::3], strict=True):
        tables = {
            name: (rewritten == "t", read == "t", reads == "t", writes == "t")
            for name, rewritten, read, reads, writes in re.findall(
                r"^#\|(\w+)\|(.*)\|(.)\|(.)\|(.)$", rows, re.MULTILINE
            )
        }
        found[EXAMPLES[int(number)]["sql"]] = Done(sqlstate, tables)
    for one in EXAMPLES:
        if found[one["sql"]].sqlstate == "25001":
            psql("postgres", "postgres", "DROP DATABASE IF EXISTS copy;\nCREATE DATABASE copy TEMPLATE app OWNER app;")
            sql = one["sql"].replace("DATABASE app", "DATABASE copy")
            found[one["sql"]].sqlstate = psql("app", "copy", f"{sql}\n;\n\\echo @ :SQLSTATE").rsplit("@ ", 1)[1].strip()
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=[one["sql"][:60] for one in EXAMPLES])
def test_example(example: dict[str, Any], done: dict[str, Done]) -> None:
    came = done[example["sql"]]
    finds: dict[str, str] = example.get("finds", {})
    assert came.sqlstate == example.get("sqlstate", "00000")
    if "needs-superuser" in finds:
        assert came.sqlstate == "42501"
    elif came.sqlstate == "42501":
        assert "danger" in finds.values()
    for name, (rewritten, read, without_readers, without_writers) in came.tables.items():
        if rewritten or (read and without_readers):
            assert "danger" in finds.values(), f"nobody can read {name} meanwhile"
        if read and without_writers and name != "m":  # nobody writes into a materialized view
            assert finds, f"nobody can write into {name} meanwhile"
