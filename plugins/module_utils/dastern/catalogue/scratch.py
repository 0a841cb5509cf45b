"""A scratch database beside the live one, on the same server, for as long as a `with` lasts.

It is empty, and like the live one in encoding, locale, owner and provisioned privileges. Its name tells its live database and
its time of creation: `<database>_scratch_<16 hex digits>`, of which the first eight are seconds since 1970. So the next run
recognises a database that a killed run left behind, even where that run died before it wrote the comment.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from ..common.errors import DasTernError
from ..common.migration_files import SCRIPT, MigrationFile
from ..common.sql_text import Statement, each_statement, literal_value, tokens
from ..common.sql_values import identifier, literal, name_pattern, scratch_stem
from ..server.access import Declared, of_new_database
from ..server.connection import connect
from ..server.psql import SUPERUSER, Psql

try:
    import psycopg
    from psycopg import pq
except ImportError:  # `connect` reports it
    pass

APPLICATION = "das-tern scratch"
MARK = "das-tern scratch database of "
LEFTOVER_AFTER = 3600.0
"""Seconds after which a scratch database that nobody is connected to counts as left behind."""

_LIKE_LIVE = """
SELECT pg_encoding_to_char(d.encoding), d.datlocprovider, d.datcollate, d.datctype, d.datlocale, d.daticurules,
  r.rolcreatedb OR r.rolsuper, current_user, extract(epoch FROM clock_timestamp())::bigint,
  to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = current_user
"""
_LEFTOVERS = """
SELECT d.datname, shobj_description(d.oid, 'pg_database'), extract(epoch FROM clock_timestamp())::bigint
FROM pg_database d WHERE d.datdba = current_user::regrole AND d.datname LIKE '%\\_scratch\\_%'
  AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)
"""
# What databases of a server share: to run once more what changes it would change the live server.
_SHARED = {"DATABASE", "ROLE", "USER", "GROUP", "SYSTEM", "TABLESPACE", "SUBSCRIPTION", "PARAMETER"}
_MAYBE_SHARED = {noun.lower() for noun in _SHARED} | {"owned", "grant", "revoke"}
_MAY_CHANGE_SHARED = {"ALTER", "CREATE", "DROP", "COMMENT", "GRANT", "REVOKE", "REASSIGN", "DO"}
"""First words of statements that may, themselves or in their body, match `_changes_shared`."""
_GIVES_SETTING = re.compile(r"\b(?:SET|RESET)\b", re.IGNORECASE)
_EXTENSION = re.compile(r'CREATE\s+EXTENSION\s+IF\s+NOT\s+EXISTS\s+("(?:[^"]|"")+"|[\w$]+)', re.IGNORECASE)


@contextmanager
def scratch_database(
    connection: psycopg.Connection[Any],
    params: Mapping[str, Any],
    *,
    declared: Declared | None = None,
    superuser: Psql | None = None,
    settings: Mapping[str, str | int] | None = None,
    files: Sequence[MigrationFile] = (),
    extensions: Sequence[tuple[str, str]] = (),
    leftover_after: float = LEFTOVER_AFTER,
) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection, in autocommit mode, to a new database that is dropped however the block ends.

    `connection` leads to the live database and stays usable; `params` are the parameters that it was made with. A role that
    may not create databases needs `superuser`. With `declared` the new database gets the privileges that provisioning gives.
    Extensions that only a superuser can create are created in advance: those that `files`, to be replayed there, ask for, and
    `extensions`, each with its schema. Leftovers of killed runs older than `leftover_after` seconds are dropped first. Raise
    `DasTernError`.
    """
    _drop_leftovers(connection, str(params["database"]), leftover_after)
    name = _create(connection, params, superuser)
    try:
        if superuser is not None:
            _make_extensions(connection, name, files, superuser)
            for extension, schema in extensions:
                superuser.create_extension(name, extension, schema, str(params["user"]))
        own = connect({**params, "database": name}, APPLICATION, settings)
        with own:
            own.prepare_threshold = None  # the caller may send DISCARD ALL, which psycopg doesn't notice
            for step in of_new_database(_renamed(declared, name)) if declared is not None else ():
                _provision(own, step.sql, params)
            yield own
    finally:
        _drop(connection, name, superuser)


def _renamed(declared: Declared, name: str) -> Declared:
    return Declared(
        database=name,
        app_user=declared.app_user,
        readonly_user=declared.readonly_user,
        environment=declared.environment,
        createdb=declared.createdb,
        passwords={},
    )


def _provision(connection: psycopg.Connection[Any], sql: str, params: Mapping[str, Any]) -> None:
    try:
        connection.execute(sql)  # type: ignore[arg-type]
    except psycopg.Error as error:
        raise DasTernError(
            f"The declared privileges of {params['database']} can't be granted in a scratch database: {_message(error)}. "
            "`ansible-playbook playbooks/provision.yml` creates the roles."
        ) from None


def _create(connection: psycopg.Connection[Any], params: Mapping[str, Any], superuser: Psql | None) -> str:
    facts = connection.execute(_LIKE_LIVE).fetchone()
    assert facts is not None
    encoding, provider, collate, ctype, locale, rules, may_create, owner, now, written = facts
    name = f"{scratch_stem(str(params['database']))}_scratch_{now & 0xFFFFFFFF:08x}{secrets.token_hex(4)}"
    like = f"ENCODING {literal(encoding)} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)} LOCALE_PROVIDER "
    like += {"b": "builtin", "i": "icu"}.get(provider, "libc")
    if provider in ("b", "i"):
        like += f" {'BUILTIN_LOCALE' if provider == 'b' else 'ICU_LOCALE'} {literal(locale)}"
    like += f" ICU_RULES {literal(rules)}" if rules else ""
    mark = literal(f"{MARK}{params['database']}, made {written}")
    statements = [
        f"CREATE DATABASE {identifier(name)} OWNER {identifier(owner)} TEMPLATE template0 STRATEGY wal_log {like}",
        f"COMMENT ON DATABASE {identifier(name)} IS {mark}",
        f"REVOKE ALL ON DATABASE {identifier(name)} FROM PUBLIC",
    ]
    if not may_create and superuser is None:
        raise DasTernError(
            f"A scratch database is needed, and role {owner} may not create one (postgres_app_createdb is false). The "
            "superuser in the server's container can: name the container (postgres_container_name)."
        )
    try:
        if may_create:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]
        elif superuser is not None:
            superuser.run(";\n".join(statements) + ";")
    except psycopg.Error as error:
        raise DasTernError(f"The scratch database {name} can't be created: {_message(error)}.") from None
    return name


def _drop(connection: psycopg.Connection[Any], name: str, superuser: Psql | None) -> None:
    """Drop database `name` even while a statement runs in it.

    FORCE is refused while autovacuum works there; a plain DROP cancels autovacuum and waits for it. While the superuser
    itself works there, or after `connection` is lost, only the superuser can drop the database.
    """
    drop = f"DROP DATABASE IF EXISTS {identifier(name)}"
    try:
        try:
            connection.execute(f"{drop} WITH (FORCE)")  # type: ignore[arg-type]
        except psycopg.errors.InsufficientPrivilege:
            connection.execute(drop)  # type: ignore[arg-type]
    except psycopg.Error as error:
        if superuser is not None:
            superuser.run(f"{drop} WITH (FORCE);")
            return
        raise DasTernError(
            f"The scratch database {name} can't be dropped: {_message(error)}. Nothing else uses it: a later run drops it, "
            f"or `{drop} WITH (FORCE)`."
        ) from None


def _drop_leftovers(connection: psycopg.Connection[Any], database: str, older_than: float) -> None:
    """Drop leftovers of killed runs: databases with our kind of name, our comment or none, old enough, and unused."""
    pattern = re.compile(name_pattern(database))
    for name, comment, now in connection.execute(_LEFTOVERS).fetchall():
        if not pattern.match(name) or not (comment is None or comment.startswith(MARK + database + ",")):
            continue
        if now - int(name[-16:-8], 16) >= older_than:
            try:
                connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")  # type: ignore[arg-type]
            except psycopg.errors.ObjectInUse:
                pass  # somebody has just connected: it isn't left behind


def replay(connection: psycopg.Connection[Any], files: Sequence[MigrationFile], folder: str) -> list[str]:
    """Run whole migrations in a scratch database, without a ledger; return a description of each statement left out.

    Each file is one simple query, as Prisma sends it: a transaction, unless it controls transactions itself. Raise
    `DasTernError` that names the file which fails, or whose code would reach beyond the database.
    """
    left_out: list[str] = []
    for file in files:
        path = f"{folder}/{file.name}/{SCRIPT}"
        rest, omitted = without_shared(file, path)
        left_out += omitted
        try:
            connection.execute(rest.sql)  # type: ignore[arg-type]
            if connection.info.transaction_status != pq.TransactionStatus.IDLE:
                raise DasTernError(f"Migration {file.name} begins a transaction and doesn't end it: {path}.")
            connection.execute("DISCARD ALL")
        except psycopg.Error as error:
            advice = (
                "An extension that only a superuser may create, because it isn't trusted, has to be written `CREATE EXTENSION "
                "IF NOT EXISTS`: then it is created in advance where the container can be reached."
                if error.sqlstate == "42501"
                else "When it was applied, the live database was in another state than the earlier migrations produce, or the file "
                "had other contents: `ansible-playbook playbooks/status.yml` shows the ledger."
            )
            raise DasTernError(
                f"Migration {file.name} is applied, but can't be run again in an empty scratch database: {_message(error)} "
                f"({path}). {advice}",
                sqlstate=error.sqlstate or "",
            ) from None
    return left_out


def without_shared(
    file: MigrationFile, path: str, advice: str = "compare by hand", *, settings_only: bool = False
) -> tuple[MigrationFile, list[str]]:
    """Return a file without statements that change objects shared by all databases of the server, and their descriptions.

    With `settings_only`, only statements that give a role or a database a setting are left out: others may fail in the real
    run, or later statements may need them. Blanks replace them, so that lines keep their numbers. Raise `DasTernError`,
    with `advice`, for code that would change shared objects, because its other effects aren't known, and for DROP
    OWNED and REASSIGN OWNED, which change this database as well.
    """
    if not _MAYBE_SHARED & file.words:
        return file, []
    rest, left = file, []
    if any(_is_left_out(statement, settings_only) for statement in each_statement(file.outline.text)):
        sql, parts, end = file.sql, [], 0
        for statement in each_statement(sql):
            if _is_left_out(statement, settings_only):
                parts += [sql[end : statement.start], re.sub(r"[^\n]", " ", statement.text)]
                end = statement.end
                text = " ".join(statement.text.split())[:120]
                left.append(
                    f"left out: `{text}` at {path}, line {statement.line}, which changes objects that all databases of the server share"
                )
        rest = MigrationFile(file.name, "".join([*parts, sql[end:]]))
    refuse_outside(rest, path, advice)
    return rest, left


def _is_left_out(statement: Statement, settings_only: bool) -> bool:
    if statement.first not in _MAY_CHANGE_SHARED or _has_body(statement) or "OWNED" in statement.words[:2]:
        return False
    if settings_only and not (statement.first == "ALTER" and _GIVES_SETTING.search(statement.text)):
        return False
    return _changes_shared([word for word, _ in islice(_words_of(statement.text, statement.line, body=False), 200)])


def refuse_outside(file: MigrationFile, path: str, advice: str = "compare by hand") -> None:
    """Refuse a file whose text shows that it would change more than the database that it runs in.

    Statements are searched, and the words in the body of a DO block or a function; quoted text there counts if it may be
    executed, now or later. Statements that code assembles from pieces, or that a called function runs, aren't noticed.
    """
    if not _MAYBE_SHARED & file.words:
        return
    for statement in each_statement(file.outline.text):
        if statement.first not in _MAY_CHANGE_SHARED:
            continue
        body = _has_body(statement)
        words_and_lines = list(_words_of(statement.text, statement.line, body=body))
        words = [word for word, _ in words_and_lines]
        for number in range(len(words) if body else 1):
            if _changes_shared(words[number : number + 200]):
                line = words_and_lines[number][1]
                text = " ".join((file.sql.split("\n")[line - 1] if body else statement.text).split())[:120]
                raise DasTernError(
                    f"Migration {file.name} changes objects that all databases of the server share: `{text}` at {path}, line {line}. "
                    f"In a scratch database it would change the live server, too; {advice}."
                )


def _has_body(statement: Statement) -> bool:
    return statement.words[:1] == ("DO",) or bool(
        statement.words[:1] == ("CREATE",) and {"FUNCTION", "PROCEDURE"} & set(statement.words)
    )


def _words_of(sql: str, line: int, *, body: bool, inside: bool = False) -> Iterator[tuple[str, int]]:
    """Yield the words of a statement, each with its line; in a `body`, quoted words as well, as if all were one text.

    `inside` a body that executes nothing, strings are data, as are always the strings of INSERT, UPDATE and RAISE.
    """
    counted, raised, begins, cases, before = 0, False, "", 0, ""
    executes = not inside or any(token.upper() in ("EXECUTE", "DO") for _, token, _ in tokens(sql))
    for kind, token, start in tokens(sql):
        line += sql.count("\n", counted, start)
        counted = start
        if kind in ("string", "escape", "dollar"):
            if body and not raised and executes and begins not in ("INSERT", "UPDATE"):
                yield from _words_of(literal_value(token), line, body=True, inside=True)
            raised = False  # only the first string of a RAISE is its message
        elif kind != "other":
            word = token.upper()
            raised = raised or word == "RAISE"
            cases += (word == "CASE" and before != "END") - (word == "END" and cases > 0)
            opens = word in ("BEGIN", "THEN", "ELSE", "LOOP") and not cases
            begins = "" if opens else begins or word
            before = word
            yield word, line
        else:
            if token == ";":
                begins, cases = "", 0
            if token != "|":
                yield token, line


def _changes_shared(words: list[str]) -> bool:
    """Return whether a statement that begins with these words changes objects that aren't in one database alone."""
    match words[:3]:
        case ["ALTER" | "CREATE" | "DROP", "USER", "MAPPING"]:
            return False
        case ["ALTER" | "CREATE" | "DROP", noun, *_] | ["COMMENT", "ON", noun]:
            return noun in _SHARED or (words[0], noun) == ("DROP", "OWNED")
        case ["REASSIGN", "OWNED", *_]:
            return True
        case ["GRANT" | "REVOKE", follows, *_] if follows != "OPTION":
            end = next((place for place, word in enumerate(words) if word in (";", "TO", "FROM")), None)
            if end is None:
                return False
            # Without ON, roles are granted.
            return "ON" not in words[:end] or words[words.index("ON") + 1] in _SHARED
    return False


def _make_extensions(
    connection: psycopg.Connection[Any], name: str, files: Sequence[MigrationFile], superuser: Psql
) -> None:
    """Create the extensions in database `name` that the files ask for and that its role may not create.

    Only extensions of the live database are created: a superuser accepted them there. In a database that is still empty
    their scripts meet no objects of the application.
    """
    asked = {
        extension.strip('"') if extension.startswith('"') else extension.lower()
        for file in files for extension in _EXTENSION.findall(file.outline.text)
    }  # fmt: skip
    query = (
        "SELECT x.extname FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_available_extension_versions v "
        "ON v.name = x.extname AND v.version = x.extversion WHERE x.extname = ANY(%s) AND v.superuser AND NOT v.trusted"
    )
    for (extension,) in connection.execute(query, (sorted(asked),)).fetchall() if asked else ():
        superuser.create_extension(name, extension, "public", SUPERUSER)


def _message(error: psycopg.Error) -> str:
    return f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}"
