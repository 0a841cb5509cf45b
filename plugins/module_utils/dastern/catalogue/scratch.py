"""A database of its own beside the live one, on the same server, for as long as a `with` lasts.

It is like the live one in encoding, locale, owner and provisioned privileges, and empty. Its name says whose it is and
when it was made, `<database>_scratch_<16 hex digits>`, the first eight digits being seconds since 1970: what a killed
run leaves behind is recognised by the next one, even where the run died before the comment was written.
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
except ImportError:  # `connect` says so in words
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
"""What a statement begins with that says, itself or in its body, what `_changes_shared` looks for."""
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
    """A connection, in autocommit mode, to a new database that is dropped when the block ends, however it ends.

    `connection` leads to the live database and stays usable; `params` are those that it was made with. A role that may
    not create databases needs `superuser`. With `declared` the new database gets the privileges that provisioning
    gives. What `files`, which will be replayed there, want of extensions is made beforehand as far as only a superuser can, and so
    are `extensions`, each with its schema. Leftovers of killed runs older than `leftover_after` seconds are dropped first. Raises `DasTernError`.
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
            own.prepare_threshold = None  # the caller may send DISCARD ALL, of which psycopg doesn't know
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
            f"The privileges that {params['database']} is to have can't be given to a scratch database: {_words(error)}. "
            "`ansible-playbook playbooks/provision.yml` makes the roles."
        ) from None


def _create(connection: psycopg.Connection[Any], params: Mapping[str, Any], superuser: Psql | None) -> str:
    row = connection.execute(_LIKE_LIVE).fetchone()
    assert row is not None
    encoding, provider, collate, ctype, locale, rules, may_create, owner, now, written = row
    name = f"{scratch_stem(str(params['database']))}_scratch_{now & 0xFFFFFFFF:08x}{secrets.token_hex(4)}"
    like = f"ENCODING {literal(encoding)} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)} LOCALE_PROVIDER "
    like += {"b": "builtin", "i": "icu"}.get(provider, "libc")
    if provider in ("b", "i"):
        like += f" {'BUILTIN_LOCALE' if provider == 'b' else 'ICU_LOCALE'} {literal(locale)}"
    like += f" ICU_RULES {literal(rules)}" if rules else ""
    mark = literal(f"{MARK}{params['database']}, made {written}")
    made = [
        f"CREATE DATABASE {identifier(name)} OWNER {identifier(owner)} TEMPLATE template0 STRATEGY wal_log {like}",
        f"COMMENT ON DATABASE {identifier(name)} IS {mark}",
        f"REVOKE ALL ON DATABASE {identifier(name)} FROM PUBLIC",
    ]
    if not may_create and superuser is None:
        raise DasTernError(
            f"A scratch database is needed, and role {owner} may not create one (postgres_app_createdb is false). The "
            "superuser in its container can: name the container (postgres_container_name)."
        )
    try:
        if may_create:
            for statement in made:
                connection.execute(statement)  # type: ignore[arg-type]
        elif superuser is not None:
            superuser.run(";\n".join(made) + ";")
    except psycopg.Error as error:
        raise DasTernError(f"No scratch database {name} could be made: {_words(error)}.") from None
    return name


def _drop(connection: psycopg.Connection[Any], name: str, superuser: Psql | None) -> None:
    """Drop it although a statement may still run in it.

    FORCE is refused where autovacuum is at work there; a plain DROP sends autovacuum away and waits for it. Where the
    superuser itself is at work there, or `connection` is lost, only the superuser can.
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
            f"The scratch database {name} could not be dropped: {_words(error)}. Nothing else uses it: a later run drops it, "
            f"or `{drop} WITH (FORCE)`."
        ) from None


def _drop_leftovers(connection: psycopg.Connection[Any], database: str, older_than: float) -> None:
    """Drop what killed runs left: ours by name, with our comment or none, old enough, and used by nobody."""
    pattern = re.compile(name_pattern(database))
    for name, comment, now in connection.execute(_LEFTOVERS).fetchall():
        if not pattern.match(name) or not (comment is None or comment.startswith(MARK + database + ",")):
            continue
        if now - int(name[-16:-8], 16) >= older_than:
            try:
                connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")  # type: ignore[arg-type]
            except psycopg.errors.ObjectInUse:
                pass  # somebody just went in: it isn't left behind


def replay(connection: psycopg.Connection[Any], files: Sequence[MigrationFile], folder: str) -> list[str]:
    """Run whole migrations in a scratch database, without a ledger; return what was left out of them, in words.

    Each file is one simple query, as Prisma sends it: a transaction, unless it says otherwise itself. Raises
    `DasTernError` that names the file which doesn't run, or would reach beyond the database by its code.
    """
    left_out: list[str] = []
    for file in files:
        path = f"{folder}/{file.name}/{SCRIPT}"
        own, left = without_shared(file, path)
        left_out += left
        try:
            connection.execute(own.sql)  # type: ignore[arg-type]
            if connection.info.transaction_status != pq.TransactionStatus.IDLE:
                raise DasTernError(f"Migration {file.name} begins a transaction that it doesn't end: {path}.")
            connection.execute("DISCARD ALL")
        except psycopg.Error as error:
            words = (
                "What only a superuser may create (an extension that isn't trusted) has to be written `CREATE EXTENSION IF "
                "NOT EXISTS`: then it is made beforehand where the container can be reached."
                if error.sqlstate == "42501"
                else "It was applied to the live database in another state than the migrations before it give, or with another "
                "content: `ansible-playbook playbooks/status.yml` shows what the ledger says."
            )
            raise DasTernError(
                f"Migration {file.name} is applied, but can't be run again in an empty scratch database: {_words(error)} "
                f"({path}). {words}",
                sqlstate=error.sqlstate or "",
            ) from None
    return left_out


def without_shared(
    file: MigrationFile, path: str, mend: str = "compare by hand", *, settings_only: bool = False
) -> tuple[MigrationFile, list[str]]:
    """Return a file without its statements that change what all databases of the server share, and these in words.

    With `settings_only` only such as give a role or a database a setting are left out: others may fail where they really run, or
    something may need what they make. Blanks stand in their place, so that lines stay where they are. Raises `DasTernError`
    for code that would change it, as what else that does isn't known, and for DROP OWNED and REASSIGN OWNED, which change this
    database as well.
    """
    if not _MAYBE_SHARED & file.words:
        return file, []
    own, left = file, []
    if any(_is_left_out(one, settings_only) for one in each_statement(file.outline.text)):
        sql, parts, end = file.sql, [], 0
        for one in each_statement(sql):
            if _is_left_out(one, settings_only):
                parts += [sql[end : one.start], re.sub(r"[^\n]", " ", one.text)]
                end = one.end
                text = " ".join(one.text.split())[:120]
                left.append(
                    f"left out: `{text}` at {path}, line {one.line}, which changes what all databases of the server share"
                )
        own = MigrationFile(file.name, "".join([*parts, sql[end:]]))
    refuse_outside(own, path, mend)
    return own, left


def _is_left_out(one: Statement, settings_only: bool) -> bool:
    if one.first not in _MAY_CHANGE_SHARED or _has_body(one) or "OWNED" in one.words[:2]:
        return False
    if settings_only and not (one.first == "ALTER" and _GIVES_SETTING.search(one.text)):
        return False
    return _changes_shared([word for word, _ in islice(_said(one.text, one.line, body=False), 200)])


def refuse_outside(file: MigrationFile, path: str, mend: str = "compare by hand") -> None:
    """Refuse a file that says that it would change more than the database that it runs in.

    Looks at statements, and at the words in the body of a DO block or a function, where what is in quotes counts as far as
    it is executed or kept for that. What is put together of smaller pieces, or done by a function that is called, isn't seen.
    """
    if not _MAYBE_SHARED & file.words:
        return
    for one in each_statement(file.outline.text):
        if one.first not in _MAY_CHANGE_SHARED:
            continue
        body = _has_body(one)
        said = list(_said(one.text, one.line, body=body))
        words = [word for word, _ in said]
        for number in range(len(words) if body else 1):
            if _changes_shared(words[number : number + 200]):
                line = said[number][1]
                text = " ".join((file.sql.split("\n")[line - 1] if body else one.text).split())[:120]
                raise DasTernError(
                    f"Migration {file.name} changes what all databases of the server share: `{text}` at {path}, line {line}. "
                    f"It can't be run in a scratch database without doing that to the live server; {mend}."
                )


def _has_body(one: Statement) -> bool:
    return one.words[:1] == ("DO",) or bool(one.words[:1] == ("CREATE",) and {"FUNCTION", "PROCEDURE"} & set(one.words))


def _said(sql: str, line: int, *, body: bool, inside: bool = False) -> Iterator[tuple[str, int]]:
    """The words of a statement, each with its line; of a `body` those in quotes, too, as if it were all one text.

    Where nothing is executed `inside` the body, its strings are data, and so are always those of INSERT, UPDATE and RAISE.
    """
    counted, raised, begins, cases, before = 0, False, "", 0, ""
    executes = not inside or any(token.upper() in ("EXECUTE", "DO") for _, token, _ in tokens(sql))
    for kind, token, start in tokens(sql):
        line += sql.count("\n", counted, start)
        counted = start
        if kind in ("string", "escape", "dollar"):
            if body and not raised and executes and begins not in ("INSERT", "UPDATE"):
                yield from _said(literal_value(token), line, body=True, inside=True)
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
    """Whether a statement that begins with these words changes what isn't in one database alone."""
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
            # Without ON it is a role that is granted.
            return "ON" not in words[:end] or words[words.index("ON") + 1] in _SHARED
    return False


def _make_extensions(
    connection: psycopg.Connection[Any], name: str, files: Sequence[MigrationFile], superuser: Psql
) -> None:
    """Make those extensions in database `name` that its role may not, where the files ask for them.

    Only such as the live database has: a superuser accepted them there. In a database that is still empty their scripts
    meet nothing of the application's.
    """
    asked = {
        found.strip('"') if found.startswith('"') else found.lower()
        for file in files for found in _EXTENSION.findall(file.outline.text)
    }  # fmt: skip
    query = (
        "SELECT x.extname FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_available_extension_versions v "
        "ON v.name = x.extname AND v.version = x.extversion WHERE x.extname = ANY(%s) AND v.superuser AND NOT v.trusted"
    )
    for (extension,) in connection.execute(query, (sorted(asked),)).fetchall() if asked else ():
        superuser.create_extension(name, extension, "public", SUPERUSER)


def _words(error: psycopg.Error) -> str:
    return f"{error.sqlstate or 'connection lost'}: {' '.join(str(error).split())}"
