"""The zoo (tests/zoo.sql): it holds every kind of object, and this is what PostgreSQL's own dump and restore make of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.backups import logical
from ansible.module_utils.dastern.backups.records import Place, Record
from ansible.module_utils.dastern.restores.drill import drill
from ansible.module_utils.dastern.restores.request import ARGUMENT_SPEC as RESTORE_SPEC
from ansible.module_utils.dastern.restores.run import restore
from conftest import docker
from migrating import ROOT, Database

LEAST = 150
# What `pg_dump` 17 calls its entries (`.description` in pg_dump.c) and what the owner of a database can make.
KINDS = {
    "ACL", "AGGREGATE", "BLOB METADATA", "BLOBS", "CAST", "CHECK CONSTRAINT", "COLLATION", "COMMENT", "CONSTRAINT", "CONVERSION",
    "DATABASE", "DATABASE PROPERTIES", "DEFAULT", "DEFAULT ACL", "DOMAIN", "EXTENSION", "FK CONSTRAINT", "FUNCTION", "INDEX",
    "INDEX ATTACH", "MATERIALIZED VIEW", "MATERIALIZED VIEW DATA", "OPERATOR", "POLICY", "PROCEDURE", "PUBLICATION",
    "PUBLICATION TABLE", "ROW SECURITY", "RULE", "SCHEMA", "SEQUENCE", "SEQUENCE OWNED BY", "SEQUENCE SET", "STATISTICS", "TABLE",
    "TABLE ATTACH", "TABLE DATA", "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TRIGGER", "TYPE", "VIEW",
}  # fmt: skip
# Data, properties and links of other entries: no objects by themselves.
NO_OBJECTS = {
    "ACL", "BLOBS", "COMMENT", "DATABASE", "DATABASE PROPERTIES", "INDEX ATTACH", "MATERIALIZED VIEW DATA", "PUBLICATION TABLE",
    "ROW SECURITY", "SEQUENCE OWNED BY", "SEQUENCE SET", "TABLE ATTACH", "TABLE DATA",
}  # fmt: skip
# What the owner can't make: the statement, and the SQLSTATE with which the server refuses it. Not here: ENCODING, STDSTRINGS and
# SEARCHPATH, which no list shows, and SUBSCRIPTION TABLE, which only pg_upgrade asks for.
LEFT_OUT = {
    "ACCESS METHOD": ("CREATE ACCESS METHOD x TYPE TABLE HANDLER heap_tableam_handler", "42501"),
    "EVENT TRIGGER": ("CREATE EVENT TRIGGER x ON ddl_command_end EXECUTE FUNCTION zoo.triggered()", "42501"),
    "FOREIGN DATA WRAPPER": ("CREATE FOREIGN DATA WRAPPER x", "42501"),
    "SERVER (and with it FOREIGN TABLE, USER MAPPING)": ("CREATE EXTENSION postgres_fdw", "42501"),
    "OPERATOR CLASS": ("CREATE OPERATOR CLASS x FOR TYPE zoo.pair USING hash AS OPERATOR 1 zoo.===", "42501"),
    "OPERATOR FAMILY": ("CREATE OPERATOR FAMILY x USING btree", "42501"),
    "PROCEDURAL LANGUAGE": ("CREATE LANGUAGE x HANDLER plpgsql_call_handler", "42501"),
    "PUBLICATION TABLES IN SCHEMA": ("CREATE PUBLICATION x FOR TABLES IN SCHEMA zoo", "42501"),
    "SECURITY LABEL": ("SECURITY LABEL ON TABLE zoo.parent IS 'x'", "22023"),
    "SHELL TYPE": ("CREATE TYPE x", "42501"),
    "SUBSCRIPTION": ("CREATE SUBSCRIPTION x CONNECTION '' PUBLICATION y WITH (connect = false)", "42501"),
    "TEXT SEARCH PARSER": ("CREATE TEXT SEARCH PARSER x (START = prsd_start)", "42501"),
    "TEXT SEARCH TEMPLATE": ("CREATE TEXT SEARCH TEMPLATE x (LEXIZE = dsimple_lexize)", "42501"),
    "TRANSFORM": (
        "CREATE TRANSFORM FOR zoo.pair LANGUAGE sql (TO SQL WITH FUNCTION pg_catalog.array_recv(internal, oid, int))",
        "42501",
    ),
}
LINE = re.compile(rf"\d+; \d+ \d+ ({'|'.join(sorted(KINDS, key=len, reverse=True))}) (.*) \S*")
# What a restore changes in the schema: a varchar's IN list gets its casts elsewhere, and a child's inherited columns come first.
CHANGED = [
    "-CONSTRAINT word_check CHECK (((VALUE)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying, 'ថ្នាំ'::character varying])::text[])));",
    "+CONSTRAINT word_check CHECK (((VALUE)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text, ('ថ្នាំ'::character varying)::text])));",
    "-CONSTRAINT checks_kind_check CHECK (((kind)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))),",
    "+CONSTRAINT checks_kind_check CHECK (((kind)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text]))),",
    "-fins integer,",
    "+fins integer,",
]
REORDERED = {"zoo.fish": 1, "zoo.duck": 1, 'zoo."Rubber Duck"': 1}
"""Tables whose columns come back in another order, with their rows."""
# What pg_restore says about zoo_incomplete.sql, entry by entry.
FAILS = [
    'COPY failed for table "a_checked"',
    'COPY failed for table "b_checked"',
    'COPY failed for table "computed"',
    'COPY failed for table "grown"',
    'COPY failed for table "lax"',
    "CREATE INDEX priced_amount",
    "REFRESH MATERIALIZED VIEW part.a_reads",
    "REFRESH MATERIALIZED VIEW part.unqualified",
]


def load(database: Database, file: str) -> None:
    """Run a file of tests/ as the owner of the database; the first error ends it."""
    as_owner(database, f"psql -Xq -v ON_ERROR_STOP=1 -d {database.name}", (ROOT / "tests" / file).read_text())


def as_owner(database: Database, command: str, stdin: str = "", *, check: bool = True) -> str:
    """A shell command in the server's container in which PG* variables lead to the server as the owner; its standard error."""
    instance = database.instance
    environment = {"PGHOST": "127.0.0.1", "PGUSER": instance.app_user, "PGPASSWORD": instance.password}
    words = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    done = docker(
        "exec", "-i", "-u", "postgres", *words, instance.container, "bash", "-c", command, stdin=stdin, check=check
    )
    return done.stderr


def dumped(database: Database, options: str) -> str:
    """What pg_dump writes as superuser, whom FORCE ROW LEVEL SECURITY doesn't stop; without its random key."""
    command = f"set -o pipefail; pg_dump {options} -d {database.name}"
    done = docker(
        "exec",
        "-u",
        "postgres",
        database.instance.container,
        "bash",
        "-c",
        f"{command} | grep -v '^.\\(un\\)\\?restrict '",
    )
    return done.stdout


def entries(database: Database) -> list[tuple[str, str]]:
    """The archive's entries, as description and name; an unknown description fails."""
    command = f"set -o pipefail; pg_dump -Fc --create -d {database.name} | {{ pg_restore --create --list && cat >/dev/null; }}"
    lines = docker("exec", "-u", "postgres", database.instance.container, "bash", "-c", command).stdout.splitlines()
    lines = [line for line in lines if not line.startswith(";")]
    found = [LINE.fullmatch(line) for line in lines]
    assert [line for line, match in zip(lines, found, strict=True) if match is None] == []
    return [(match[1], match[2]) for match in found if match]


def copy(source: Database, target: Database, *, check: bool = True) -> str:
    """Dump `source` and restore it into the empty `target` as its owner, by PostgreSQL's programs; what pg_restore says."""
    dump = f"env -u PGHOST -u PGPASSWORD PGUSER=postgres pg_dump -Fc -d {source.name}"
    return as_owner(source, f"set -o pipefail; {dump} | pg_restore -d {target.name}", check=check)


def made(instance: Any, name: str, folder: Any) -> Iterator[Database]:
    own = Database(instance, name, folder)
    own.create()
    yield own
    own.drop()


@pytest.fixture(scope="module")
def zoo(instance: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The database of tests/zoo.sql. Tests don't change it."""
    for own in made(instance, "zoo", tmp_path_factory.mktemp("zoo")):
        load(own, "zoo.sql")
        yield own


@pytest.fixture(scope="module")
def zoo_incomplete(instance: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The database of tests/zoo_incomplete.sql. Tests don't change it."""
    for own in made(instance, "zoo_incomplete", tmp_path_factory.mktemp("zoo_incomplete")):
        load(own, "zoo_incomplete.sql")
        yield own


@pytest.fixture
def empty(instance: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An empty database to restore into."""
    yield from made(instance, "zoo_restored", tmp_path_factory.mktemp("zoo_restored"))


def test_the_zoo_is_large_and_holds_every_kind(zoo: Database) -> None:
    found = entries(zoo)
    assert {kind for kind, _ in found} == KINDS
    objects = {(kind, name) for kind, name in found if kind not in NO_OBJECTS}
    assert len(objects) >= LEAST


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_an_owner_cannot_make_the_kinds_left_out(zoo: Database, kind: str) -> None:
    statement, sqlstate = LEFT_OUT[kind]
    with pytest.raises(psycopg.Error) as refusal:
        zoo.query(f"BEGIN; {statement}; ROLLBACK")
    assert refusal.value.sqlstate == sqlstate, refusal.value


def test_postgresql_restores_the_zoo_as_it_was_but_for_two_known_things(zoo: Database, empty: Database) -> None:
    assert copy(zoo, empty) == ""
    before, after = (dumped(one, "--schema-only").splitlines() for one in (zoo, empty))
    assert sorted(differences(before, after)) == sorted(CHANGED)
    before, after = (dumped(one, "--data-only --column-inserts").splitlines() for one in (zoo, empty))
    inserts = [
        line.split(" (")[0].removeprefix("-INSERT INTO ") for line in differences(before, after) if line[0] == "-"
    ]
    assert {name: inserts.count(name) for name in inserts} == REORDERED


def differences(before: list[str], after: list[str]) -> list[str]:
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return [line[0] + line[1:].strip() for line in list(lines)[2:] if not line.startswith("@@")]


def test_postgresql_restores_the_incomplete_zoo_in_part(zoo_incomplete: Database, empty: Database) -> None:
    said = copy(zoo_incomplete, empty, check=False)
    assert f"errors ignored on restore: {len(FAILS)}" in said
    assert [words for words in FAILS if words not in said] == []
    tables = ("a_checked", "b_checked", "computed", "grown", "lax")
    counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM part.{name}" for name in tables)
    assert all(count > 0 for _, count in zoo_incomplete.query(counts))
    assert empty.query(counts) == [(name, 0) for name in tables]
    populated = "SELECT matviewname FROM pg_matviews WHERE ispopulated ORDER BY 1"
    assert zoo_incomplete.query(populated) == [("a_reads",), ("unqualified",), ("z_kept",)]
    assert empty.query(populated) == [("z_kept",)]
    objects = "SELECT to_regclass('part.priced_amount') IS NOT NULL, to_regclass('part.swallowed') IS NOT NULL"
    assert zoo_incomplete.query(objects) == [(True, True)]
    assert empty.query(objects) == [(False, False)]
    strict = "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'part.lax'::regclass AND attname = 'id'"
    assert (zoo_incomplete.query(strict), empty.query(strict)) == ([(False,)], [(True,)])
    shades = "SELECT count(*) FROM part.by_shade"
    assert zoo_incomplete.query(shades) == empty.query(shades) == [(24,)]


def asked(database: Database, **changes: Any) -> dict[str, Any]:
    """The options of a restore for this database."""
    instance = database.instance
    defaults = {name: option.get("default") for name, option in RESTORE_SPEC.items()}
    return {
        **defaults, "container": instance.container, "database": database.name, "volume": f"{instance.container}-data",
        "config_dir": str(instance.config_dir), "backup_dir": instance.variables["postgres_backup_dir"], **changes,
    }  # fmt: skip


def backed_up(database: Database) -> Record:
    place = Place(asked(database))
    with place.alone(60, "a test"):
        return logical.take(place, database.name, "", "", "10s")


def test_a_logical_backup_of_the_zoo_comes_back(zoo: Database) -> None:
    record = backed_up(zoo)
    told = drill(asked(zoo, target=record.label))
    assert ("failed" not in told, told["differences"]) == (True, [])
    told = restore(asked(zoo, target=record.label, what="database", into="zoo_copy"))
    try:
        assert told["differences"] == []
        (line,) = (line for line in told["lines"] if line.startswith("harmless: "))
        assert "table zoo.fish" in line
    finally:
        Database(zoo.instance, "zoo_copy", zoo.folder).drop()


def test_a_logical_backup_of_the_incomplete_zoo_comes_back_in_part(zoo_incomplete: Database) -> None:
    """What came too early is tried again; what remains is named, in the drill and in the restore alike."""
    record = backed_up(zoo_incomplete)
    drilled = drill(asked(zoo_incomplete, target=record.label))
    told = restore(asked(zoo_incomplete, target=record.label, what="database", into="zoo_copy"))
    copy = Database(zoo_incomplete.instance, "zoo_copy", zoo_incomplete.folder)
    try:
        assert "failed" not in drilled, drilled["msg"]
        place = Place(asked(zoo_incomplete))
        assert logical.left_out(place, zoo_incomplete.name) == ["part.swallowed (extension citext)"]
        assert drilled["differences"] == told["differences"]
        for words in ("the rows of computed: ", "the rows of grown: ", "the rows of lax: ", "CREATE INDEX priced_amount",
                      "MATERIALIZED VIEW part.unqualified", "table part.grown has 0 rows instead of 1"):  # fmt: skip
            assert [one for one in told["differences"] if words in one] != [], words
        assert copy.query("SELECT (SELECT count(*) FROM part.a_checked), (SELECT count(*) FROM part.b_checked)") == [
            (1, 1)
        ]
        assert copy.query("SELECT count(*) FROM part.by_shade") == [(24,)]
        populated = "SELECT matviewname FROM pg_matviews WHERE ispopulated ORDER BY 1"
        assert copy.query(populated) == [("a_reads",), ("z_kept",)]
    finally:
        copy.drop()
