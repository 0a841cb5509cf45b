"""Statements that a migration can't run, or that reach beyond its database.

The owner of the database runs a migration: no superuser (`postgres_app_user`), over one connection without a client that
sends or receives rows. Each refusal was seen with PostgreSQL 17; tests/integration/test_lint_statements.py makes the server
repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from ..common.migration_files import ADVISORY_LOCK
from ..common.sql_code import Read
from ..common.sql_reader import Reader, Token, outside, upper
from ..common.sql_text import Statement, tokens
from .dangers import BUT_SAY, Problem

RULES = ("beyond-the-database", "cant-succeed", "gives-lock-away", "needs-superuser")
_VERBS = {
    "ALTER", "CHECKPOINT", "COMMENT", "COPY", "CREATE", "DISCARD", "DROP", "GRANT", "IMPORT", "LOAD", "PERFORM", "REVOKE", "SECURITY",
    "SELECT", "SET",
}  # fmt: skip
_ROLES = {"ROLE", "USER", "GROUP"}
_SELF = {"CURRENT_USER", "CURRENT_ROLE", "SESSION_USER"}
_SET = {"SET", "RESET"}
# Kinds that belong to a superuser, or that only a superuser may create, alter or drop.
_OF_SUPERUSER = {
    ("SUBSCRIPTION",), ("TABLESPACE",), ("SYSTEM",), ("TRANSFORM",), ("EVENT", "TRIGGER"), ("ACCESS", "METHOD"),
    ("FOREIGN", "DATA"), ("SEARCH", "PARSER"), ("SEARCH", "TEMPLATE"),
}  # fmt: skip
_OFF = {"OFF", "FALSE", "NO", "0", "DEFAULT"}
_TRUSTED_LANGUAGES = {"plpgsql", "plperl", "pltcl"}
# Untrusted extensions of PostgreSQL 17; its others are trusted, and foreign ones are unknown.
_UNTRUSTED = {
    "amcheck", "autoinc", "bloom", "dblink", "dict_xsyn", "earthdistance", "file_fdw", "hstore_plpython3u", "insert_username",
    "intagg", "jsonb_plpython3u", "ltree_plpython3u", "moddatetime", "pageinspect", "pg_buffercache", "pg_freespacemap",
    "pg_prewarm", "pg_stat_statements", "pg_surgery", "pg_visibility", "pg_walinspect", "pgrowlocks", "pgstattuple",
    "plperlu", "plpython3u", "pltclu", "postgres_fdw", "refint", "sslinfo", "xml2",
}  # fmt: skip


def server(read: Read) -> Iterator[Problem]:
    """Yield the problems that this module's rules find in the statements of a file and in the code that it runs."""
    for top, code in read:
        for statement in (top, *code):
            if statement.first in _VERBS:
                yield from _of_statement(statement, list(tokens(statement.text)))


def _of_statement(statement: Statement, parts: list[Token]) -> Iterator[Problem]:
    words = upper(parts)
    if reason := _refused(words, parts):
        yield (
            statement.start, "cant-succeed", "danger", f"`{statement.short}` fails: {reason}.",
            f"Leave it out; or {BUT_SAY}",
        )  # fmt: skip
    elif (severity := _of_extension(words, parts)) or _needs_superuser(words, parts):
        yield (
            statement.start, "needs-superuser", severity or "danger",
            f"`{statement.short}` needs rights that the owner of a database doesn't have (42501).",
            f"Leave it to provisioning, or let a superuser run it; or {BUT_SAY}",
        )  # fmt: skip
    elif severity := _beyond(words):
        yield (
            statement.start, "beyond-the-database", severity,
            f"`{statement.short}` reaches beyond the rows and tables of this database, and means something else in another environment.",
            f"Leave it to provisioning; or {BUT_SAY}",
        )  # fmt: skip
    if words[:2] == ["DISCARD", "ALL"] or (words[0] in ("SELECT", "PERFORM") and _unlocks(words)):
        yield (
            statement.start, "gives-lock-away", "warning",
            f"`{statement.short}` releases the lock of the run: another run may begin before this one is done.", "Leave it out.",
        )  # fmt: skip


def _unlocks(words: list[str]) -> bool:
    """Return whether a statement releases all advisory locks of the session, or the run's lock."""
    return "PG_ADVISORY_UNLOCK_ALL" in words or ("PG_ADVISORY_UNLOCK" in words and str(ADVISORY_LOCK) in "".join(words))


def _refused(words: list[str], parts: list[Token]) -> str:
    """Return why the server refuses a statement from everybody, or in every migration; '' where it may accept it."""
    match words:
        case ["COPY", *_]:
            plain = upper(outside(parts))
            if any(word in ("STDIN", "STDOUT") for word in plain[2:]):
                return "a migration has no client that sends or receives rows"
        case ["CREATE", "ASSERTION", *_]:
            return "PostgreSQL has no assertions"
        case ["ALTER", "TYPE", *rest] if ("DROP", "VALUE") in pairwise(rest):
            return "PostgreSQL can't remove a value from an enum"
        case ["SECURITY", "LABEL", *_]:
            return "no module for labels is loaded"
        case ["SET", "TRANSACTION", *rest] if "ONLY" in rest or "SNAPSHOT" in rest:
            return "the ledger is written in the same transaction"
        case ["SET", *rest] if "TRANSACTION_READ_ONLY" in rest and rest[-1].strip("'").upper() not in _OFF:
            return "the ledger is written in the same transaction"
    return ""


def _needs_superuser(words: list[str], parts: list[Token]) -> bool:
    verb, *rest = words
    if verb == "COPY":
        # The source is a name or stands in parentheses; a string after TO or FROM is a file or a program.
        plain = outside(parts)
        at = next(
            (place for place, word in enumerate(upper(plain)) if place > 0 and word in ("FROM", "TO")), len(plain)
        )
        return any(kind in ("string", "escape", "dollar") for kind, _, _ in plain[at + 1 : at + 3])
    if verb in ("LOAD", "CHECKPOINT"):
        return verb == "CHECKPOINT" or len(parts) == 2
    if verb == "SET":
        rest = rest[1:] if rest[:2] in (["SESSION", "SESSION"], ["LOCAL", "SESSION"]) else rest
        return rest[:2] == ["SESSION", "AUTHORIZATION"] and rest[2:] != ["DEFAULT"]
    if verb in ("GRANT", "REVOKE"):
        end = next((at for at, word in enumerate(words) if word in ("TO", "FROM")), len(words))
        on = words[words.index("ON") + 1 :][:1] if "ON" in words[:end] else []
        return on in ([], ["PARAMETER"], ["TABLESPACE"])
    if verb == "COMMENT":
        kind, named = rest[1:2], rest[2:3]
        return (
            kind in (["ROLE"], ["TABLESPACE"], ["SUBSCRIPTION"], ["LANGUAGE"])
            or rest[1:3] in (["EVENT", "TRIGGER"], ["ACCESS", "METHOD"], ["FOREIGN", "DATA"])
            or (kind == ["EXTENSION"] and named == ["PLPGSQL"])
        )
    if verb not in ("CREATE", "ALTER", "DROP"):
        return False
    return _of_object(verb, rest[2:] if rest[:2] == ["OR", "REPLACE"] else rest, parts)


def _of_object(verb: str, rest: list[str], parts: list[Token]) -> bool:
    """Return whether a CREATE, ALTER or DROP needs a superuser; `rest` are the words after it."""
    plain = upper(outside(parts))
    match rest:
        case ["USER", "MAPPING", *_]:
            return False
        case [kind, *behind] if kind in _ROLES:
            return verb != "ALTER" or not behind or behind[0] not in _SELF
        case ["TEXT", "SEARCH", kind, *_]:
            # They have no owner: the owner of the schema may drop them.
            return verb != "DROP" and ("SEARCH", kind) in _OF_SUPERUSER
        case ["OPERATOR", "CLASS" | "FAMILY", *_]:
            return verb == "CREATE" or (verb == "ALTER" and bool({"ADD", "DROP"} & set(plain)))
        case ["TRUSTED" | "PROCEDURAL" | "LANGUAGE", *_]:
            named = next((word.lower() for word in rest if word not in ("TRUSTED", "PROCEDURAL", "LANGUAGE")), "")
            return verb != "CREATE" or "HANDLER" in rest or named.strip('"') not in _TRUSTED_LANGUAGES
        case ["CAST", *_]:
            return verb == "CREATE" and ("WITHOUT", "FUNCTION") in pairwise(plain)
        case ["TYPE", *_]:
            reader = Reader(parts[2:])
            reader.path()
            if verb == "CREATE":
                # A base type: nothing follows the name, or a list of functions.
                return reader.done or reader.rest[0][1] == "("
            return verb == "ALTER" and reader.take("SET") and not reader.done and reader.rest[0][1] == "("
        case ["FUNCTION" | "PROCEDURE" | "ROUTINE", *_] if verb != "DROP":
            pairs = list(pairwise(plain))
            return (
                any(
                    word == "LANGUAGE" and language.strip("'\"").upper() in ("C", "INTERNAL")
                    for word, language in pairs
                )
                or any(word == "LEAKPROOF" and before != "NOT" for before, word in pairs)
                or "SUPPORT" in plain
            )
        case ["PUBLICATION", _, *behind] if verb in ("CREATE", "ALTER"):
            text = " ".join(behind)
            return re.match(r"(?:FOR|ADD|SET) (?:ALL TABLES|TABLES IN SCHEMA)\b", text) is not None
        case ["ALTER", *_]:
            return False
    return tuple(rest[:1]) in _OF_SUPERUSER or tuple(rest[:2]) in _OF_SUPERUSER


def _of_extension(words: list[str], parts: list[Token]) -> str:
    """Return the severity of a CREATE EXTENSION that only a superuser may run; '' for others."""
    reader = Reader(parts)
    if not reader.take("CREATE", "EXTENSION"):
        return ""
    if_not_exists = reader.take("IF", "NOT", "EXISTS")
    return ("warning" if if_not_exists else "danger") if reader.name() in _UNTRUSTED else ""


def _beyond(words: list[str]) -> str:
    """Return the severity of a statement that reaches beyond the database; '' for others."""
    match words:
        case ["CREATE", "DATABASE", *_]:
            return "danger"
        case ["ALTER", "DATABASE", _, *rest]:
            if rest[:1] in (["SET"], ["RESET"]) and rest[1:2] != ["TABLESPACE"]:
                return "warning"
            # Other rules cover its owner and the version of its collation.
            return "" if rest[:1] in (["OWNER"], ["REFRESH"]) else "danger"
        case ["CREATE" | "ALTER", "USER", "MAPPING", *_]:
            return "warning"
        case ["ALTER", "ROLE" | "USER", _, *rest]:
            return "warning" if _SET & set(rest[:1] + rest[3:4]) else "danger"
        case ["COMMENT", "ON", "DATABASE", *_] | ["IMPORT", "FOREIGN", *_]:
            return "warning"
        case ["GRANT" | "REVOKE", *rest] if ("ON", "DATABASE") in pairwise(rest):
            return "warning"
        case ["CREATE" | "ALTER", "SERVER", *rest]:
            return "" if {"OWNER", "RENAME"} & set(rest) else "warning"
        case ["ALTER", "FOREIGN", "TABLE", *rest] if "OPTIONS" in rest and not {"ALTER", "ADD"} & set(
            rest[: rest.index("OPTIONS")]
        ):
            return "warning"
    return ""
