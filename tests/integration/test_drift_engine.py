"""Two scratch databases compared: what the server itself says of a difference, and what a scaffolded migration leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.catalogue import scratch
from ansible.module_utils.dastern.catalogue.census import schema_of
from ansible.module_utils.dastern.catalogue.drift import compare
from ansible.module_utils.dastern.catalogue.objects import read_catalogue
from ansible.module_utils.dastern.catalogue.schema_dump import OPTIONS, load, normalised
from ansible.module_utils.dastern.catalogue.schema_text import ARGUMENT_SPEC as SCHEMA_SPEC
from ansible.module_utils.dastern.catalogue.schema_text import snapshot
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.migrations import drift as drift_run
from ansible.module_utils.dastern.server.psql import Psql

Compared = Callable[..., dict[str, Any]]
Connection = psycopg.Connection[Any]


@pytest.fixture
def params(instance: Any) -> dict[str, Any]:
    return {
        **{name: option.get("default") for name, option in drift_run.ARGUMENT_SPEC.items()},
        "host": instance.host, "port": instance.port, "database": instance.database, "user": instance.app_user,
        "password_file": str(instance.password_file), "endpoint": instance.endpoint, "container": instance.container,
        "folder": "migrations", "migrations": [], "fail": False, "readonly_user": "dastern_readonly",
    }  # fmt: skip


@pytest.fixture
def empty(params: dict[str, Any]) -> Callable[[], Any]:
    @contextmanager
    def database() -> Iterator[Connection]:
        with psycopg.connect(
            host=params["host"], port=params["port"], dbname=params["database"], user=params["user"],
            password=Path(params["password_file"]).read_text().strip(), autocommit=True,
        ) as connection, scratch.scratch_database(
            connection, params, declared=drift_run._declared(params), settings={"search_path": "public"}
        ) as own:  # fmt: skip
            yield own

    return database


@pytest.fixture
def superuser(params: dict[str, Any]) -> Psql:
    return Psql(Containers(params["endpoint"]), params["container"])


@pytest.fixture
def compared(params: dict[str, Any], empty: Callable[[], Any]) -> Compared:
    """`compared(migrations, change, rows="", works="", **changes)`: what drift says where `change` was made behind `migrations`.

    What is written is applied to a third database, which has `rows` as well, and there `works` has to run.
    """

    def run(migrations: str, change: str, rows: str = "", works: str = "", **changes: Any) -> dict[str, Any]:
        with empty() as live, empty() as own, empty() as third:
            for database in (live, own, third):
                database.execute(migrations)
            third.execute(rows or "SELECT 1")
            live.execute(change)
            plan: Any = SimpleNamespace(pending_names=[], failed=[])
            result = drift_run._compared(live, own, {**params, "write_migration": "x", **changes}, plan, ["1_made"], [])
            if result["migration"] and not result["by_hand"] and not result["left"]:
                assert "-- This file is complete" in result["migration"]
                third.execute(result["migration"])
                others = ["auth"]
                rest = compare(read_catalogue(third, "public", others), read_catalogue(live, "public", others))
                assert [row.item.key for row in rest if not row.weak and row.item.key not in result["exempt"]] == []
                third.execute(works or "SELECT 1")
            return result

    return run


def found(result: dict[str, Any]) -> list[str]:
    return [f"{row['what']} {row['kind']} {row['object']}" for row in result["differences"] if not row["weak"]]


# --- steps: what was renamed, detached, attached

COUNTED = "CREATE TABLE d (id serial PRIMARY KEY, v text)"
ROWS = "INSERT INTO d (v) SELECT g::text FROM generate_series(1, 50) g"
GOES_ON = "INSERT INTO d (v) VALUES ('next'); DO $$ BEGIN IF (SELECT max(id) FROM d) <> 51 THEN RAISE 'not 51'; END IF; END $$"


@pytest.mark.parametrize(
    ("migrations", "change", "told", "statement"),
    [
        (COUNTED, "ALTER SEQUENCE d_id_seq RENAME TO d_seq", "renamed sequence d_seq", "ALTER SEQUENCE d_id_seq RENAME TO d_seq"),
        (
            "CREATE TABLE d (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)",
            'ALTER SEQUENCE d_id_seq RENAME TO "D seq"', "renamed identity d.id", 'ALTER SEQUENCE d_id_seq RENAME TO "D seq"',
        ),
        (
            "CREATE SEQUENCE counter; CREATE TABLE d (id int PRIMARY KEY DEFAULT nextval('counter'), v text)",
            "ALTER SEQUENCE counter RENAME TO counter_of_d", "renamed sequence counter_of_d", "ALTER SEQUENCE counter RENAME TO counter_of_d",
        ),
        (
            'CREATE SCHEMA auth; CREATE TABLE auth.e (id serial); CREATE TABLE d (id serial, v text)',
            "ALTER SEQUENCE auth.e_id_seq RENAME TO e_seq", "renamed sequence auth.e_seq", "ALTER SEQUENCE auth.e_id_seq RENAME TO e_seq",
        ),
    ],
)  # fmt: skip
def test_a_renamed_sequence_goes_on_counting(
    compared: Compared, migrations: str, change: str, told: str, statement: str
) -> None:
    result = compared(migrations, change, ROWS, GOES_ON)
    assert (found(result), result["statements"], result["left"]) == ([told], [statement], [])


def test_a_new_sequence_goes_on_behind_the_rows(compared: Compared) -> None:
    change = "CREATE SEQUENCE other; ALTER TABLE d ALTER COLUMN id SET DEFAULT nextval('other')"
    result = compared(COUNTED, change, ROWS, GOES_ON)
    assert "SELECT setval('other', max(id)) FROM d WHERE id BETWEEN 1 AND 9223372036854775807" in result["statements"]
    assert (result["by_hand"], result["left"]) == ([], [])
    plain = "CREATE TABLE d (id int PRIMARY KEY, v text)"
    rows = "INSERT INTO d (id, v) SELECT g, '' FROM generate_series(1, 50) g"
    result = compared(plain, "ALTER TABLE d ALTER id ADD GENERATED ALWAYS AS IDENTITY", rows, GOES_ON)
    assert found(result) == ["unexpected identity d.id"]
    down = "ALTER TABLE d ALTER id ADD GENERATED ALWAYS AS IDENTITY (INCREMENT -1)"
    assert (
        "SELECT setval('d_id_seq', min(id)) FROM d WHERE id BETWEEN -2147483648 AND -1"
        in compared(plain, down)["statements"]
    )


def test_what_a_new_sequence_cannot_know_is_said(compared: Compared) -> None:
    result = compared("CREATE TABLE t (id text)", "CREATE SEQUENCE free; CREATE SEQUENCE named; "
                      "ALTER TABLE t ALTER id SET DEFAULT 'n' || nextval('named')")  # fmt: skip
    notes = [line for line in result["migration"].splitlines() if line.startswith("-- Note: ")]
    assert [re.findall(r"sequence (\w+)", line) for line in notes] == [["free"], ["named"]]
    assert (result["by_hand"], result["left"]) == ([], [])


PARTED = """
CREATE TABLE h (id int DEFAULT 1, at date NOT NULL, CHECK (id > 0)) PARTITION BY RANGE (at);
CREATE INDEX h_id ON h (id);
CREATE TABLE h1 PARTITION OF h FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE h2 (id int DEFAULT 1, at date NOT NULL, CONSTRAINT h_id_check CHECK (id > 0));
CREATE TABLE other (id int, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE elders (a int, b int); CREATE TABLE heirs (c int) INHERITS (elders); CREATE TABLE strangers (a int, b int);
"""
FEBRUARY = "FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"


@pytest.mark.parametrize(
    ("change", "told", "statements"),
    [
        ("ALTER TABLE h DETACH PARTITION h1", ["detached table h1"], ["ALTER TABLE h DETACH PARTITION h1"]),
        (
            f"ALTER TABLE h ATTACH PARTITION h2 {FEBRUARY}", ["attached table h2"],
            [f"ALTER TABLE h ATTACH PARTITION h2 {FEBRUARY}"],
        ),
        (
            f"ALTER TABLE h DETACH PARTITION h1; ALTER TABLE h ATTACH PARTITION h1 {FEBRUARY}", ["attached table h1"],
            ["ALTER TABLE h DETACH PARTITION h1", f"ALTER TABLE h ATTACH PARTITION h1 {FEBRUARY}"],
        ),
        (
            f"ALTER TABLE h DETACH PARTITION h1; ALTER TABLE other ATTACH PARTITION h1 {FEBRUARY}", ["attached table h1"],
            ["ALTER TABLE h DETACH PARTITION h1", f"ALTER TABLE other ATTACH PARTITION h1 {FEBRUARY}"],
        ),
        (
            "ALTER TABLE h DETACH PARTITION h1; CREATE INDEX h1_at ON h1 (at)", ["detached table h1", "unexpected index h1_at"],
            ["ALTER TABLE h DETACH PARTITION h1", "CREATE INDEX h1_at ON h1 USING btree (at)"],
        ),
        ("ALTER TABLE heirs NO INHERIT elders", ["differs table heirs"], ["ALTER TABLE heirs NO INHERIT elders"]),
        ("ALTER TABLE strangers INHERIT elders", ["differs table strangers"], ["ALTER TABLE strangers INHERIT elders"]),
    ],
)  # fmt: skip
def test_a_partition_is_detached_and_attached(
    compared: Compared, change: str, told: list[str], statements: list[str]
) -> None:
    result = compared(PARTED, change)
    assert (found(result), result["statements"], result["by_hand"], result["left"]) == (told, statements, [], [])


# --- two texts of one meaning

RESTORED = """
CREATE TABLE m (id int PRIMARY KEY, status varchar(20) NOT NULL DEFAULT 'a' CHECK (status IN ('a', 'b')), k text CHECK (k IN ('x', 'y')),
  at timestamp CHECK (at > '2020-01-01'), n numeric(6, 2) DEFAULT 0 CHECK (n BETWEEN 0 AND 10),
  is_a boolean GENERATED ALWAYS AS (status IN ('a', 'c')) STORED, EXCLUDE USING btree (status WITH =) WHERE (status IN ('x', 'y')));
CREATE INDEX m_open ON m (id) WHERE status IN ('a', 'b');
CREATE VIEW v AS SELECT id FROM m WHERE status IN ('a', 'b') AND status::text || 'x' <> 'y';
CREATE VIEW on_it AS SELECT id FROM v;
CREATE MATERIALIZED VIEW kept AS SELECT id FROM m WHERE status IN ('a', 'b'); CREATE UNIQUE INDEX ON kept (id);
CREATE VIEW on_kept AS SELECT id FROM kept;
CREATE DOMAIN state AS varchar CHECK (VALUE IN ('a', 'b')); CREATE TABLE stated (s state);
CREATE DOMAIN kind AS varchar CHECK (VALUE IN ('a', 'b')); CREATE TABLE kinds (s kind);
ALTER DOMAIN kind ADD CONSTRAINT "not yet" CHECK (VALUE IN ('a', 'c')) NOT VALID;
CREATE FUNCTION f(s varchar) RETURNS boolean LANGUAGE sql BEGIN ATOMIC SELECT s IN ('a', 'b'); END;
CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER w BEFORE UPDATE ON m FOR EACH ROW WHEN (NEW.status IN ('a', 'b')) EXECUTE FUNCTION t();
CREATE POLICY p ON m USING (status IN ('a', 'b'));
CREATE RULE r AS ON INSERT TO stated WHERE new.s::varchar IN ('a', 'b') DO INSTEAD NOTHING;
CREATE STATISTICS s ON (status IN ('a', 'b')), n FROM m;
"""


def test_what_a_restore_writes_otherwise_is_no_drift(
    params: dict[str, Any], empty: Callable[[], Any], superuser: Psql
) -> None:
    plan: Any = SimpleNamespace(pending_names=[], failed=[])
    with empty() as own, empty() as live:
        own.execute(RESTORED)
        assert load(live, normalised(schema_of(superuser, own.info.dbname, *OPTIONS), "dastern_readonly")) == []
        live.execute("RESET ALL")
        written = {row.item.kind for row in compare(read_catalogue(own, "public"), read_catalogue(live, "public"))}
        # Otherwise this says nothing.
        assert written >= {
            "constraint",
            "index",
            "view",
            "materialized view",
            "domain",
            "function",
            "trigger",
            "policy",
            "rule",
            "column",
        }
        before = read_catalogue(own, "public")
        result = drift_run._compared(live, own, params, plan, [], [])
        assert (found(result), result["drifted"]) == ([], False)
        assert compare(before, read_catalogue(own, "public")) == []  # the scratch database is as it was
        live.execute("ALTER TABLE m DROP CONSTRAINT m_status_check, ADD CHECK (status IN ('a', 'c'))")
        live.execute("CREATE OR REPLACE VIEW v AS SELECT id FROM m WHERE status IN ('a', 'b', 'c')")
        live.execute("DROP INDEX m_open; CREATE INDEX m_open ON m (id) WHERE status IN ('b', 'a')")
        result = drift_run._compared(live, own, params, plan, [], [])
        assert found(result) == ["differs index m_open", "differs constraint m.m_status_check", "differs view v"]


BODY = "CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE sql AS $b$SELECT\r\n'a'\r\n$b$"


def test_line_ends_of_a_body_are_alike_and_what_cannot_be_seen_is_shown(compared: Compared) -> None:
    made = BODY.replace("\r\n", "\n")
    assert found(compared(BODY, made)) == []
    assert found(compared(made, BODY)) == []
    for change, shown in (("'a'\t\n", "\\t"), ("'a'\u00a0\n", "\\xa0"), ("'a\u200b'\n", "\\u200b"), ("'a' \n", "'a' ")):
        result = compared(made, made.replace("'a'\n", change))
        assert found(result) == ["differs function f()"]
        [expected, live] = result["lines"]
        assert shown in live
        assert shown not in expected


# --- other schemas, partitions made at run time

AUTH = """
CREATE SCHEMA auth; CREATE TYPE auth.mood AS ENUM ('well', 'ill');
CREATE TABLE auth."user" (id int PRIMARY KEY, secret text, mood auth.mood DEFAULT 'well', n serial);
CREATE FUNCTION auth.me() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT USAGE ON SCHEMA auth TO dastern_readonly;
CREATE VIEW auth.known AS SELECT id FROM auth."user"; CREATE INDEX user_n ON auth."user" (n);
ALTER DEFAULT PRIVILEGES IN SCHEMA auth GRANT INSERT ON TABLES TO PUBLIC;
CREATE TABLE post (id int PRIMARY KEY, author int REFERENCES auth."user");
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("SELECT 1", []),
        ('ALTER TABLE auth."user" ADD COLUMN more text', ['unexpected column auth."user".more']),
        ("CREATE TABLE auth.vault (id serial PRIMARY KEY); REVOKE ALL ON auth.vault FROM PUBLIC", ["unexpected sequence auth.vault_id_seq", "unexpected table auth.vault"]),
        ("DROP FUNCTION auth.me()", ["missing function auth.me()"]),
        ("DROP INDEX auth.user_n", ["missing index auth.user_n"]),
        ("COMMENT ON INDEX auth.user_pkey IS 'key'", ["unexpected comment index auth.user_pkey"]),
        ("COMMENT ON SCHEMA auth IS 'who'", ["unexpected comment schema auth"]),
        ("REVOKE USAGE ON SCHEMA auth FROM dastern_readonly", ["missing grant schema auth to dastern_readonly"]),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA auth REVOKE INSERT ON TABLES FROM PUBLIC", ["missing default privileges of dastern_user on TABLES in schema auth to PUBLIC"]),
        ("CREATE OR REPLACE VIEW auth.known AS SELECT id FROM auth.\"user\" WHERE id > 1", ["differs view auth.known"]),
        ("CREATE TABLE clash (id int PRIMARY KEY); CREATE TABLE auth.clash (id int PRIMARY KEY)", ["unexpected table auth.clash", "unexpected table clash"]),
    ],
)  # fmt: skip
def test_a_schema_that_migrations_make_is_compared(compared: Compared, change: str, told: list[str]) -> None:
    result = compared(AUTH, change)
    assert (found(result), result["by_hand"], result["left"], result["not_compared"]) == (told, [], [], [])


def test_a_schema_that_went_is_one_difference_and_one_that_came_is_named(compared: Compared) -> None:
    gone = compared(AUTH, "DROP SCHEMA auth CASCADE")
    assert found(gone) == ["missing schema auth", "missing constraint post.post_author_fkey"]
    assert gone["left"] == ["schema auth is still there"]
    assert gone["statements"] == ["ALTER TABLE post DROP CONSTRAINT post_author_fkey"]
    came = compared("SELECT 1", "CREATE SCHEMA queue CREATE TABLE jobs (id int)")
    assert (found(came), came["not_compared"], came["drifted"]) == ([], ["queue"], False)
    assert came["lines"] == ["not compared: schema queue: no applied migration creates it or puts anything into it"]


EVENTS = """
CREATE TABLE ev (id bigint DEFAULT 1, at timestamptz NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE INDEX ev_note ON ev (note); GRANT INSERT ON ev TO PUBLIC;
"""
MARCH = "FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')"


def test_partitions_made_at_run_time_are_no_drift(compared: Compared) -> None:
    result = compared(
        EVENTS,
        f"""
        CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE ev_2 (LIKE ev INCLUDING DEFAULTS); ALTER TABLE ev ATTACH PARTITION ev_2 {FEBRUARY};
        CREATE TABLE ev_3 PARTITION OF ev {MARCH} PARTITION BY HASH (id);
        CREATE TABLE ev_3a PARTITION OF ev_3 FOR VALUES WITH (MODULUS 2, REMAINDER 0)""",
    )
    assert (found(result), result["drifted"], len(result["exempt"])) == ([], False, 4)
    assert result["lines"] == [
        "exempt: 3 objects made at run time, like other partitions of table ev",
        "exempt: 1 object made at run time, like other partitions of table ev_3",
    ]


@pytest.mark.parametrize(
    "more",
    [
        "ALTER TABLE ev_3 ADD CHECK (id > 0)", "CREATE INDEX ON ev_3 (at)", "ALTER TABLE ev_3 ALTER id SET DEFAULT 2",
        "ALTER TABLE ev_3 ALTER note SET NOT NULL", "GRANT UPDATE ON ev_3 TO PUBLIC", "ALTER TABLE ev_3 ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE ev_3 SET UNLOGGED", "ALTER TABLE ev_3 ALTER note SET STORAGE PLAIN", "COMMENT ON TABLE ev_3 IS 'why'",
    ],
)  # fmt: skip
def test_a_partition_of_another_shape_is_drift_unless_it_is_listed(compared: Compared, more: str) -> None:
    change = f"CREATE TABLE ev_3 PARTITION OF ev {MARCH}; {more}"
    assert found(compared(EVENTS, change)) == ["unexpected table ev_3"]
    listed = compared(EVENTS, change, ignore=["view *", "table ev_[0-9]"])
    assert (found(listed), listed["exempt"]) == ([], ["table ev_3"])
    assert listed["lines"] == ["exempt: 1 object listed in migrations_drift_ignore (table ev_[0-9])"]


def test_a_partition_that_the_migrations_made_is_missed(compared: Compared) -> None:
    made = f"{EVENTS} CREATE TABLE ev_3 PARTITION OF ev {MARCH};"
    assert found(compared(made, "DROP TABLE ev_3")) == ["missing table ev_3"]
    assert found(compared(made, "DROP TABLE ev_3", ignore=["table ev_*"])) == []


def test_a_partition_that_took_the_place_of_another_is_written_with_it(compared: Compared) -> None:
    """Without the new one the rows would find no partition."""
    made = f"{EVENTS} CREATE TABLE ev_3 PARTITION OF ev {MARCH};"
    change = f"ALTER TABLE ev DETACH PARTITION ev_3; CREATE TABLE ev_3b PARTITION OF ev {MARCH}"
    result = compared(made, change, works="INSERT INTO ev (at) VALUES ('2026-03-07')")
    assert found(result) == ["detached table ev_3", "unexpected table ev_3b"]
    assert (result["exempt"], result["by_hand"], result["left"]) == ([], [], [])


# --- what is there and doesn't hold


@pytest.mark.parametrize("kind", ["PRIMARY KEY", "UNIQUE"])
def test_a_constraint_without_the_indexes_of_the_partitions_is_invalid(compared: Compared, kind: str) -> None:
    made = f"""CREATE TABLE ev (id int, at date) PARTITION BY RANGE (at); CREATE TABLE ev_3 PARTITION OF ev {MARCH};
    ALTER TABLE ev ADD CONSTRAINT k {kind} (id, at);"""
    change = f"ALTER TABLE ev DROP CONSTRAINT k; ALTER TABLE ONLY ev ADD CONSTRAINT k {kind} (id, at)"
    result = compared(made, change)
    assert "differs constraint ev.k" in found(result)
    assert any("INVALID on the live database" in words for words in result["by_hand"])
    assert found(compared(made + change, "SELECT 1")) == []


def test_a_partition_that_is_being_detached_is_named(
    params: dict[str, Any], empty: Callable[[], Any], compared: Compared
) -> None:
    made = f"{EVENTS} CREATE TABLE ev_3 PARTITION OF ev {MARCH};"
    with empty() as live, empty() as own:
        for database in (live, own):
            database.execute(made)
        with psycopg.connect(live.info.dsn, password=live.info.password) as other:
            other.execute("SELECT FROM ev")
            live.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                live.execute("ALTER TABLE ev DETACH PARTITION ev_3 CONCURRENTLY")
        plan: Any = SimpleNamespace(pending_names=[], failed=[])
        result = drift_run._compared(live, own, {**params, "write_migration": "x"}, plan, ["1_made"], [])
    assert "differs table ev_3" in found(result)
    assert any("`ALTER TABLE ev DETACH PARTITION ev_3 FINALIZE`" in words for words in result["by_hand"])


def test_a_counter_of_an_identity_that_is_lost_in_a_crash_is_named(compared: Compared) -> None:
    made = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY);"
    change = "ALTER SEQUENCE t_id_seq SET UNLOGGED"
    result = compared(made, change)
    assert found(result) == ["differs identity t.id"]
    assert "`ALTER SEQUENCE t_id_seq SET LOGGED`" in result["by_hand"][0]
    assert found(compared(made + change, "SELECT 1")) == []
    assert found(compared("CREATE UNLOGGED TABLE t (id int GENERATED ALWAYS AS IDENTITY);", "SELECT 1")) == []


def test_that_an_identity_goes_with_its_counter_is_said(compared: Compared) -> None:
    made = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY);"
    change = """ALTER TABLE t ALTER id DROP IDENTITY; CREATE SEQUENCE t_id_seq OWNED BY t.id;
    ALTER TABLE t ALTER id SET DEFAULT nextval('t_id_seq')"""
    assert "-- Note: identity t.id is dropped with its counter" in compared(made, change)["migration"]


def test_an_object_with_brackets_is_listed_as_it_is_shown(compared: Compared) -> None:
    change = "CREATE FUNCTION f(text[]) RETURNS int LANGUAGE sql AS 'SELECT 1'"
    assert found(compared("SELECT 1", change)) == ["unexpected function f(text[])"]
    assert found(compared("SELECT 1", change, ignore=["function f(text[])"])) == []


# --- what is written is tried

ODD = """
CREATE AGGREGATE how_many (*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0', SSPACE = 8, MSFUNC = int8inc, MINVFUNC = int8dec, MSTYPE = int8, MINITCOND = '0');
CREATE FUNCTION times(int, float8) RETURNS float8 LANGUAGE sql AS 'SELECT $1 * $2';
CREATE AGGREGATE share (float8 ORDER BY int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', FINALFUNC = times, FINALFUNC_MODIFY = SHAREABLE);
CREATE AGGREGATE least_of (int) (SFUNC = int4smaller, STYPE = int, SORTOP = <, COMBINEFUNC = int4smaller, PARALLEL = SAFE);
GRANT EXECUTE ON FUNCTION how_many() TO PUBLIC; REVOKE EXECUTE ON FUNCTION how_many() FROM PUBLIC; COMMENT ON AGGREGATE how_many (*) IS 'all';
COMMENT ON AGGREGATE share (float8 ORDER BY int) IS 'of all'; REVOKE EXECUTE ON FUNCTION share FROM PUBLIC;
CREATE FUNCTION is_mail(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 LIKE '%@%' $$;
CREATE DOMAIN a_mail AS text CHECK (is_mail(VALUE));
CREATE DOMAIN late AS text CHECK (VALUE <> 'a'); ALTER DOMAIN late ADD CONSTRAINT "not yet" CHECK (VALUE <> 'b') NOT VALID;
CREATE TABLE parents (a int); CREATE TABLE children () INHERITS (parents);
ALTER TABLE parents ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
CREATE TABLE whole (id int DEFAULT 1, at date DEFAULT CURRENT_DATE, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE part PARTITION OF whole FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE part ALTER COLUMN id DROP DEFAULT, ALTER COLUMN at DROP DEFAULT;
CREATE TABLE deep PARTITION OF whole FOR VALUES FROM ('2027-01-01') TO ('2028-01-01') PARTITION BY LIST (id);
CREATE TABLE deeper PARTITION OF deep FOR VALUES IN (1); ALTER TABLE deep ALTER COLUMN id DROP DEFAULT;
CREATE TABLE "a(...)" (id int CHECK (id <> 1), "-- and more" text DEFAULT 'DATABASE :database');
CREATE TABLE zebra (id int); CREATE FUNCTION about_zebras() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM zebra';
"""


def test_odd_objects_are_scaffolded_whole(compared: Compared) -> None:
    result = compared("SELECT 1", ODD)
    assert (result["by_hand"], result["left"]) == ([], [])
    # The server says that the function has to wait for the table.
    texts = [one.split("(")[0] for one in result["statements"]]
    assert texts.index("CREATE TABLE zebra ") < texts.index("CREATE OR REPLACE FUNCTION about_zebras")


def test_what_the_server_refuses_and_what_is_left_is_named(compared: Compared) -> None:
    """A function about a table that is there no more can't be made again."""
    change = "CREATE TABLE t (id int); CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t'; DROP TABLE t; CREATE TABLE fine (id int)"
    result = compared("SELECT 1", change)
    assert result["left"] == ["function f() is not created"]
    [words] = result["by_hand"]
    assert words.startswith(
        'The server refuses this statement (42P01: relation "t" does not exist):\nCREATE OR REPLACE FUNCTION f()'
    )
    text = result["migration"]
    assert "-- Not complete: " in text
    assert "\n--   function f() is not created\n" in text
    assert text.index("RAISE EXCEPTION") < text.index("CREATE TABLE fine")
    assert "\nCREATE OR REPLACE FUNCTION" not in text


def test_what_a_person_writes_is_named_as_left(compared: Compared) -> None:
    result = compared(
        "CREATE TABLE t (a int, b int)",
        "ALTER TABLE t DROP COLUMN a, ALTER COLUMN b TYPE text; CREATE INDEX i ON t (b)",
    )
    assert (len(result["by_hand"]), result["left"]) == (
        2,
        ["column t.a is still there", "column t.b is not as in the live database"],
    )


# --- the schema as text, and back


ZOO = Path(__file__).resolve().parents[1] / "zoo.sql"
SCHEMAS = {"parted": PARTED, "restored": RESTORED, "auth": AUTH, "events": EVENTS, "odd": ODD, "zoo": ZOO.read_text()}


@pytest.mark.parametrize("sql", SCHEMAS.values(), ids=SCHEMAS)
def test_the_schema_as_text_is_a_migration_that_makes_the_schema(
    params: dict[str, Any], empty: Callable[[], Any], superuser: Psql, sql: str
) -> None:
    def text_of(database: Connection) -> str:
        told = snapshot(
            {
                **{name: option.get("default") for name, option in SCHEMA_SPEC.items()},
                **params,
                "database": database.info.dbname,
            }
        )
        assert told["refused"] == []
        return str(told["sql"])

    def dumped(database: Connection) -> str:
        return normalised(schema_of(superuser, database.info.dbname, "--no-owner"), "dastern_readonly")

    plan: Any = SimpleNamespace(pending_names=[], failed=[])
    with empty() as live, empty() as own, empty() as again:
        live.execute(sql)
        text = text_of(live)
        for database in (own, again):
            database.execute(text if database is own else text_of(own))
            database.execute("RESET ALL; SET search_path = public")
        assert dumped(own) == dumped(again)
        left = found(drift_run._compared(live, own, params, plan, [], []))
        # These belong to an environment.
        assert [
            one for one in left if not re.match(r"unexpected (publication|setting) |differs grant database ", one)
        ] == []
