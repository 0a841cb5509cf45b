"""What may not run in a scratch database, because it would change the live server."""

from __future__ import annotations

import pytest
from ansible.module_utils.dastern.catalogue import scratch
from ansible.module_utils.dastern.catalogue.scratch import refuse_outside, without_shared
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from fake_session import Rows, Session


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("ALTER DATABASE d SET work_mem = '7MB'", 1),
        ("SELECT 1;\n\nDROP ROLE r;", 3),
        ("ALTER SYSTEM SET work_mem = '7MB'", 1),
        ("DROP OWNED BY r", 1),
        ("REASSIGN OWNED BY r TO s", 1),
        ("COMMENT ON DATABASE d IS 'x'", 1),
        ("COMMENT ON ROLE r IS 'x'", 1),
        ("GRANT pg_read_all_data TO x", 1),
        ("GRANT r TO x WITH INHERIT TRUE", 1),
        ("REVOKE ADMIN OPTION FOR r FROM x", 1),
        ("REVOKE CONNECT ON DATABASE d FROM PUBLIC", 1),
        ("GRANT CREATE ON TABLESPACE t TO x", 1),
        ("DO $$ BEGIN\n  EXECUTE 'ALTER DATABASE d SET temp_buffers = ''9MB''';\nEND $$", 2),
        ("DO LANGUAGE plpgsql 'BEGIN EXECUTE ''DROP ROLE r''; END'", 1),
        ("DO $$ BEGIN\nIF true THEN\n  ALTER ROLE r NOLOGIN;\nEND IF; END $$", 3),
        ("DO $$ BEGIN EXECUTE 'ALTER ' || 'DATABASE d RESET ALL'; END $$", 1),
        ("DO $$ BEGIN EXECUTE format('GRANT %I TO %I', a, b); END $$", 1),
        ("DO $$ BEGIN EXECUTE $x$ DO $y$ BEGIN DROP USER u; END $y$ $x$; END $$", 1),
        ("CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE sql AS $$\n  ALTER DATABASE d RESET ALL $$", 2),
        (
            "DO $$ BEGIN FOR r IN SELECT format('ALTER ROLE %I NOLOGIN', n) q FROM t LOOP EXECUTE r.q; END LOOP; END $$",
            1,
        ),
        ("DO $$ BEGIN SELECT 'DROP ROLE r' INTO q; EXECUTE q; END $$", 1),
        ("DO $$ DECLARE q text DEFAULT 'DROP ROLE r'; BEGIN EXECUTE q; END $$", 1),
        ("DO $$ BEGIN q = 'DROP ROLE r'; EXECUTE q; END $$", 1),
        ("DO $$ BEGIN FOREACH q IN ARRAY ARRAY['DROP ROLE r'] LOOP EXECUTE q; END LOOP; END $$", 1),
        ("DO $$ BEGIN EXECUTE CASE WHEN a THEN 'ALTER DATABASE d SET x = 1' ELSE 'SELECT 1' END; END $$", 1),
        ("DO $$ BEGIN q := CASE WHEN a THEN 'ALTER DATABASE d SET x = 1' ELSE 'SELECT 1' END; EXECUTE q; END $$", 1),
        ("DO $$ DECLARE s text := 'DROP ROLE r';\nBEGIN EXECUTE s; END $$", 1),
        ("DO $$ BEGIN\nIF true THEN EXECUTE format('DROP ROLE %I', r); END IF; END $$", 2),
        ("CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'x'; EXECUTE 'DROP ROLE r'; END $$", 1),
    ],
)
def test_what_all_databases_share_is_refused(sql: str, line: int) -> None:
    with pytest.raises(
        DasTernError, match=f"1_a changes objects that all databases .* at the/path, line {line}\\. .*; mend it"
    ):
        refuse_outside(MigrationFile("1_a", sql), "the/path", "mend it")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO permissions VALUES ('create user'), ('ALTER DATABASE d SET work_mem = 1')",
        "SELECT 'GRANT r TO x'",
        "-- ALTER DATABASE d\nSELECT 1",
        "ALTER TABLE t DROP role",
        'CREATE TABLE "user" (role text)',
        "COMMENT ON TABLE database IS 'x'",
        "CREATE USER MAPPING FOR x SERVER s",
        "GRANT SELECT (a) ON t TO x WITH GRANT OPTION",
        "REVOKE GRANT OPTION FOR SELECT ON ALL TABLES IN SCHEMA s FROM x",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO x",
        "DO $$ BEGIN GRANT SELECT ON t TO x WITH GRANT OPTION; PERFORM 1 FROM t; END $$",
        "DO $$ BEGIN EXECUTE 'GRANT SELECT ON ' || t || ' TO ' || r; END $$",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'create user first'; END $$",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (CASE TG_OP WHEN 'INSERT' "
        "THEN 'create user' ELSE 'alter user' END); RETURN NEW; END $$",
        "DO $$ BEGIN INSERT INTO permission(label) VALUES ('Create role'), ('Grant access to doctor'); END $$",
        "DO $$ BEGIN EXECUTE 'SELECT 1'; INSERT INTO permission VALUES ('drop role'); END $$",
        "DO $$ BEGIN EXECUTE 'SELECT 1'; INSERT INTO p SELECT CASE WHEN a THEN 'drop role' ELSE 'create role' END; END $$",
        "DO $$ BEGIN GRANT",
    ],
)
def test_what_stays_in_the_database_passes(sql: str) -> None:
    refuse_outside(MigrationFile("1_a", sql), "the/path")


def test_statements_of_what_is_shared_are_left_out_and_named() -> None:
    """Lines stay where they are; what a block does can't be taken out of it."""
    sql = "CREATE TABLE z ();\nALTER ROLE dastern_user\n  SET timezone = 'UTC';\nCREATE TABLE y ();"
    own, left = without_shared(MigrationFile("1_a", sql), "the/path")
    assert own.sql.split("\n") == ["CREATE TABLE z ();", " " * 23, " " * 22 + ";", "CREATE TABLE y ();"]
    (words,) = left
    assert "`ALTER ROLE dastern_user SET timezone = 'UTC'` at the/path, line 2" in words
    with pytest.raises(DasTernError, match="line 1"):
        without_shared(MigrationFile("1_a", "DO $$ BEGIN EXECUTE 'DROP ROLE r'; END $$"), "the/path")
    for owned in ("DROP OWNED BY r", "REASSIGN OWNED BY r TO s"):
        with pytest.raises(DasTernError):
            without_shared(MigrationFile("1_a", owned), "the/path")
    with pytest.raises(DasTernError, match="CREATE ROLE"):
        without_shared(MigrationFile("1_a", "CREATE ROLE r"), "the/path", settings_only=True)
    setting = MigrationFile("1_a", "ALTER ROLE CURRENT_USER SET work_mem = 1; ALTER DATABASE d RESET work_mem")
    assert len(without_shared(setting, "the/path", settings_only=True)[1]) == 2
    plain = MigrationFile("1_a", "SELECT 1")
    assert without_shared(plain, "the/path") == (plain, [])


def test_rows_of_a_big_file_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as rows, and not where an expression stands among them; what is behind them is, on its own line."""
    rows = "".join(f"INSERT INTO \"User\" (id, role) VALUES ({number}, 'grant {number}');\n" for number in range(1000))
    computed = 'INSERT INTO "User" (id) VALUES (1 + 1);\n'
    read = []
    said = scratch._words_of
    monkeypatch.setattr(
        scratch, "_words_of", lambda sql, *more, **named: (read.append(sql), said(sql, *more, **named))[1]
    )
    role = "ALTER ROLE r\n  SET work_mem = 1"
    file = MigrationFile("1_a", f"{rows}{computed}{role};\n{rows}")
    own, left = without_shared(file, "the/path")
    assert set(read) == {role}
    assert own.sql == f"{rows}{computed}{' ' * 12}\n{' ' * 18};\n{rows}"
    assert "line 1002," in left[0]
    assert without_shared(MigrationFile("1_a", rows + computed), "the/path")[0].sql == rows + computed
    with pytest.raises(DasTernError, match="line 1002\\."):
        refuse_outside(MigrationFile("1_a", f"{rows}{computed}DO $$ BEGIN EXECUTE 'DROP ROLE r'; END $$"), "the/path")


NOW = 1_800_000_000
LIKE_LIVE = ("UTF8", "b", "C.UTF-8", "C.UTF-8", "C.UTF-8", None, True, "app", NOW, "2027-01-15T08:00:00Z")
MARKED = f"{scratch.MARK}d, made 2027-01-15T07:00:00Z"


def name_of(age: int, database: str = "d", digits: str = "0badcafe") -> str:
    return f"{database}_scratch_{NOW - age:08x}{digits}"


def made(monkeypatch: pytest.MonkeyPatch, *there: tuple[str, str | None]) -> list[str]:
    """What is sent while a scratch database is made and dropped, beside databases with their comments."""

    def answer(query: str) -> Rows:
        if "shobj_description" in query:
            return [(name, comment, NOW) for name, comment in there]
        return [LIKE_LIVE] if "daticurules" in query else []

    live = Session(answer=answer)
    monkeypatch.setattr(scratch, "connect", lambda *_: Session())
    with scratch.scratch_database(live, {"database": "d", "user": "app"}):  # type: ignore[arg-type]
        live.sent.append("used")
    return [one for one in live.sent if one == "used" or " DATABASE " in one]


def test_a_scratch_database_is_dropped_whatever_is_at_work_there(monkeypatch: pytest.MonkeyPatch) -> None:
    create, comment, revoke, used, drop = made(monkeypatch)
    name = create.split()[2]
    assert create.startswith(f'CREATE DATABASE {name} OWNER "app" TEMPLATE template0')
    assert comment.startswith(f"COMMENT ON DATABASE {name} IS '{scratch.MARK}d, made ")
    assert revoke == f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"
    assert (used, drop) == ("used", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.mark.parametrize(
    ("name", "comment", "dropped"),
    [
        (name_of(3600), MARKED, True), (name_of(9999), None, True), (name_of(3599), MARKED, False), (name_of(-9999), MARKED, False),
        (name_of(9999), "mine", False), (name_of(9999), f"{scratch.MARK}d2, made 2027-01-15T07:00:00Z", False),
        (name_of(9999, "d2"), None, False), (name_of(9999, digits="0BADCAFE"), None, False), (f"{name_of(9999)}_kept", None, False),
    ],
)  # fmt: skip
def test_only_what_killed_runs_left_is_dropped(
    monkeypatch: pytest.MonkeyPatch, name: str, comment: str | None, dropped: bool
) -> None:
    """Ours by name, with our comment or none, and an hour old."""
    first = made(monkeypatch, (name, comment))[0]
    assert (first == f'DROP DATABASE IF EXISTS "{name}"') is dropped
    assert dropped or first.startswith("CREATE DATABASE")
