"""Roles, database and privileges: their declared and their current state, and the SQL that turns one into the other.

`plan` is pure; `read` asks the server once outside and once inside the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..common import scram
from ..common.errors import DasTernError
from ..common.sql_values import identifier, literal
from .blockers import in_the_way
from .psql import Psql

PRODUCTION = "production"
ENVIRONMENT = "dastern.environment"

# Key of the lock that is held while roles are changed, so that two runs don't create the same role. Any number will do.
_LOCK = 17050817
BEGIN = (
    "BEGIN READ WRITE",
    # With zero loss and its receiver away, the commit would wait for the receiver that this same play brings back.
    "SET LOCAL synchronous_commit = local",
    # A verifier isn't the password, but it can be attacked offline: it is always kept out of the server's log.
    "SET LOCAL log_statement = 'none'",
    "SET LOCAL log_min_duration_statement = -1",
    "SET LOCAL log_min_error_statement = 'panic'",
)
"""First statements of a transaction that changes roles."""
_LOCK_TIMEOUT = "10s"

_ATTRIBUTES = {
    "rolcanlogin": ("LOGIN", "NOLOGIN"),
    "rolsuper": ("SUPERUSER", "NOSUPERUSER"),
    "rolcreaterole": ("CREATEROLE", "NOCREATEROLE"),
    "rolcreatedb": ("CREATEDB", "NOCREATEDB"),
    "rolreplication": ("REPLICATION", "NOREPLICATION"),
    "rolbypassrls": ("BYPASSRLS", "NOBYPASSRLS"),
    "rolinherit": ("INHERIT", "NOINHERIT"),
}


@dataclass(frozen=True)
class Declared:
    """The state declared by the inventory; passwords are plain text and stay in this process."""

    database: str
    app_user: str
    readonly_user: str
    environment: str
    createdb: bool
    passwords: Mapping[str, str]
    superuser: str = "postgres"


@dataclass(frozen=True)
class Step:
    """One change: `thing` and `attribute` in words, the values before and after, and the statement.

    `where` is `server` (run in any database), `create` (outside a transaction) or `database` (inside the declared one).
    """

    where: str
    thing: str
    attribute: str
    before: str
    after: str
    sql: str

    @property
    def words(self) -> str:
        return f"{self.thing}: {self.attribute} {self.before} -> {self.after}"


def read(psql: Psql, declared: Declared) -> dict[str, Any]:
    """Return `roles` by name, `database` (None if it doesn't exist), and `inside`, the facts within the database."""
    roles = ", ".join(literal(name) for name in (declared.app_user, declared.readonly_user, declared.superuser))
    state = psql.value(f"""
SELECT json_build_object(
  'roles', (SELECT coalesce(json_object_agg(a.rolname, json_build_object(
      {", ".join(f"'{name}', a.{name}" for name in _ATTRIBUTES)},
      'rolconnlimit', a.rolconnlimit, 'rolvaliduntil', a.rolvaliduntil::text, 'rolpassword', a.rolpassword,
      'memberof', (SELECT coalesce(json_agg(json_build_array(g.rolname, pg_get_userbyid(m.grantor))), '[]') FROM pg_auth_members m
                   JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = a.oid),
      'config', (SELECT coalesce(to_json(s.setconfig), '[]') FROM (SELECT 1) one LEFT JOIN pg_db_role_setting s
                 ON s.setrole = a.oid AND s.setdatabase = 0))), '{{}}')
    FROM pg_authid a WHERE a.rolname IN ({roles})),
  'database', (SELECT json_build_object(
      'owner', pg_get_userbyid(d.datdba), 'owner_is_superuser', (SELECT rolsuper FROM pg_roles WHERE oid = d.datdba),
      'encoding', pg_encoding_to_char(d.encoding), 'provider', d.datlocprovider, 'locale', d.datlocale,
      'public', (SELECT coalesce(json_agg(x.privilege_type ORDER BY 1), '[]')
                 FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x WHERE x.grantee = 0),
      'readonly', (SELECT coalesce(json_agg(x.privilege_type ORDER BY 1), '[]')
                   FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
                   JOIN pg_roles r ON r.oid = x.grantee WHERE r.rolname = {literal(declared.readonly_user)}),
      'config', (SELECT coalesce(to_json(s.setconfig), '[]') FROM (SELECT 1) one LEFT JOIN pg_db_role_setting s
                 ON s.setdatabase = d.oid AND s.setrole = 0))
    FROM pg_database d WHERE d.datname = {literal(declared.database)}))
""")
    state["inside"] = _inside(psql, declared) if state["database"] else None
    return dict(state)


def _inside(psql: Psql, declared: Declared) -> dict[str, Any]:
    readonly = literal(declared.readonly_user)
    return dict(
        psql.value(
            f"""
SELECT pg_catalog.json_build_object(
  'schema', (SELECT pg_catalog.json_build_object(
      'public', (SELECT coalesce(pg_catalog.json_agg(x.privilege_type ORDER BY 1), '[]')
                 FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) x WHERE x.grantee = 0),
      'readonly', (SELECT coalesce(pg_catalog.json_agg(x.privilege_type ORDER BY 1), '[]')
                   FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) x
                   JOIN pg_catalog.pg_roles r ON r.oid = x.grantee WHERE r.rolname = {readonly}))
    FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public'),
  'unreadable', (SELECT coalesce(pg_catalog.json_agg(c.relname ORDER BY 1), '[]') FROM pg_catalog.pg_class c
    WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) x JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
                    WHERE r.rolname = {readonly} AND x.privilege_type = 'SELECT')),
  'writable', (SELECT coalesce(pg_catalog.json_agg(DISTINCT c.relname), '[]') FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x, pg_catalog.pg_roles r
    WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND r.oid = x.grantee AND r.rolname = {readonly} AND x.privilege_type <> 'SELECT'),
  'default', (SELECT coalesce(pg_catalog.json_agg(x.privilege_type), '[]') FROM pg_catalog.pg_default_acl d, pg_catalog.aclexplode(d.defaclacl) x,
    pg_catalog.pg_roles r WHERE d.defaclobjtype = 'r' AND d.defaclnamespace = 0
    AND pg_catalog.pg_get_userbyid(d.defaclrole) = {literal(declared.app_user)} AND r.oid = x.grantee AND r.rolname = {readonly}))
""",
            declared.database,
        )
    )


def plan(declared: Declared, current: Mapping[str, Any]) -> list[Step]:
    """Return the steps from the `current` state (of `read`) to the declared one; none if they agree.

    Raise `DasTernError` for differences that can't or mustn't be changed.
    """
    _refuse(declared, current)
    steps: list[Step] = []
    for name, createdb in ((declared.app_user, declared.createdb), (declared.readonly_user, False)):
        steps += _role(name, current["roles"].get(name), createdb, declared.passwords[name])
    steps += _readonly_role(declared.readonly_user, current["roles"].get(declared.readonly_user))
    superuser = current["roles"].get(declared.superuser)
    if superuser and superuser["rolpassword"] is not None:
        sql = f"ALTER ROLE {identifier(declared.superuser)} PASSWORD NULL"
        steps.append(Step("server", f"role {declared.superuser}", "password", "set", "none", sql))
    steps += _database(declared, current["database"])
    steps += _within(declared, current["inside"])
    return steps


def _refuse(declared: Declared, current: Mapping[str, Any]) -> None:
    database = current["database"]
    if not database:
        return
    name, owner = declared.database, database["owner"]
    if database["encoding"] != "UTF8":
        raise DasTernError(
            f"Database {name} has encoding {database['encoding']}, expected UTF8; this can't be changed afterwards. Dump it "
            "with pg_dump, drop it, run again, and restore the dump."
        )
    if owner != declared.app_user and not database["owner_is_superuser"]:
        if declared.app_user in current["roles"]:
            fix = f"ALTER DATABASE {identifier(name)} OWNER TO {identifier(declared.app_user)}"
        else:
            fix = f"ALTER ROLE {identifier(owner)} RENAME TO {identifier(declared.app_user)}"
        raise DasTernError(
            f"Database {name} belongs to role {owner}, the inventory says {declared.app_user} (postgres_app_user). Only you "
            "know whether the role was renamed or the database belongs to another application. If the role was renamed, run "
            f"as superuser: `{fix}`."
        )
    environment = dict(item.split("=", 1) for item in database["config"]).get(ENVIRONMENT)
    if environment == PRODUCTION and declared.environment != PRODUCTION:
        raise DasTernError(
            f"Database {name} is marked as {PRODUCTION} ({ENVIRONMENT}), the inventory says {declared.environment} "
            "(dastern_environment). Run with the inventory of production. If this database really changed its environment, run "
            f"as superuser: `ALTER DATABASE {identifier(name)} SET {ENVIRONMENT} = '{declared.environment}'`."
        )


def _role(name: str, role: Mapping[str, Any] | None, createdb: bool, password: str) -> list[Step]:
    thing, quoted = f"role {name}", identifier(name)
    expected = dict.fromkeys(_ATTRIBUTES, False)
    expected |= {"rolcanlogin": True, "rolinherit": True, "rolcreatedb": createdb}
    if role is None:
        words = " ".join(_ATTRIBUTES[attribute][0 if value else 1] for attribute, value in expected.items())
        sql = f"CREATE ROLE {quoted} {words} PASSWORD {literal(scram.verifier(password))}"
        return [Step("server", thing, "state", "absent", "present", sql)]
    steps = []
    for attribute, value in expected.items():
        if role[attribute] != value:
            before, after = (_ATTRIBUTES[attribute][0 if flag else 1] for flag in (role[attribute], value))
            steps.append(Step("server", thing, "attribute", before, after, f"ALTER ROLE {quoted} {after}"))
    if role["rolconnlimit"] != -1:
        sql = f"ALTER ROLE {quoted} CONNECTION LIMIT -1"
        steps.append(Step("server", thing, "connection limit", str(role["rolconnlimit"]), "none", sql))
    if role["rolvaliduntil"] not in (None, "infinity"):
        sql = f"ALTER ROLE {quoted} VALID UNTIL 'infinity'"
        steps.append(Step("server", thing, "valid until", role["rolvaliduntil"], "infinity", sql))
    for group, grantor in role["memberof"]:
        # Without GRANTED BY only grants by the superuser would be revoked.
        sql = f"REVOKE {identifier(group)} FROM {quoted} GRANTED BY {identifier(grantor)} CASCADE"
        steps.append(Step("server", thing, "member of", group, "nothing", sql))
    if not scram.matches(password, role["rolpassword"]):
        sql = f"ALTER ROLE {quoted} PASSWORD {literal(scram.verifier(password))}"
        steps.append(Step("server", thing, "password", "differs", "set", sql))
    return steps


def login(name: str, rights: str, password: str, role: Mapping[str, Any] | None) -> str:
    """Return the statement that gives one of our roles its `rights` and `password`; '' if it has both.

    `role` holds the current `verifier`, and whether the rights are `right`; it is None if there is no such role.
    """
    if role and role["right"] and scram.matches(password, role["verifier"]):
        return ""
    return (
        f"{'ALTER' if role else 'CREATE'} ROLE {identifier(name)} {rights} PASSWORD {literal(scram.verifier(password))}"
    )


def _readonly_role(name: str, role: Mapping[str, Any] | None) -> list[Step]:
    if role and "default_transaction_read_only=on" in role["config"]:
        return []
    sql = f"ALTER ROLE {identifier(name)} SET default_transaction_read_only = on"
    return [Step("server", f"role {name}", "default_transaction_read_only", "not set", "on", sql)]


def _database(declared: Declared, database: Mapping[str, Any] | None) -> list[Step]:
    thing, quoted = f"database {declared.database}", identifier(declared.database)
    steps = []
    if database is None:
        sql = (
            f"CREATE DATABASE {quoted} OWNER {identifier(declared.app_user)} TEMPLATE template0 ENCODING 'UTF8' "
            "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'"
        )
        steps.append(Step("create", thing, "state", "absent", "present", sql))
        database = {"owner": declared.app_user, "public": ["CONNECT", "TEMPORARY"], "readonly": [], "config": []}
    elif database["owner"] != declared.app_user:
        sql = f"ALTER DATABASE {quoted} OWNER TO {identifier(declared.app_user)}"
        steps.append(Step("server", thing, "owner", database["owner"], declared.app_user, sql))
    if database["public"]:
        steps.append(Step("database", thing, "PUBLIC", ", ".join(database["public"]), "nothing",
                          f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC"))  # fmt: skip
    readonly = identifier(declared.readonly_user)
    if database["readonly"] != ["CONNECT"]:
        sql = f"REVOKE ALL ON DATABASE {quoted} FROM {readonly}; GRANT CONNECT ON DATABASE {quoted} TO {readonly}"
        steps.append(Step("database", thing, declared.readonly_user, _words(database["readonly"]), "CONNECT", sql))
    environment = dict(item.split("=", 1) for item in database["config"]).get(ENVIRONMENT)
    if environment != declared.environment:
        sql = f"ALTER DATABASE {quoted} SET {ENVIRONMENT} = {literal(declared.environment)}"
        steps.append(Step("database", thing, ENVIRONMENT, environment or "not set", declared.environment, sql))
    return steps


def _within(declared: Declared, inside: Mapping[str, Any] | None) -> list[Step]:
    readonly, app = identifier(declared.readonly_user), identifier(declared.app_user)
    steps: list[Step] = []
    new = inside is None
    inside = inside or {
        "schema": {"public": ["USAGE"], "readonly": []},
        "unreadable": [],
        "writable": [],
        "default": [],
    }
    schema, thing = inside["schema"], "schema public"
    if schema is None:
        sql = "CREATE SCHEMA public AUTHORIZATION pg_database_owner; GRANT USAGE ON SCHEMA public TO PUBLIC"
        steps.append(Step("database", thing, "state", "absent", "present", sql))
        schema = {"public": ["USAGE"], "readonly": []}
    if "CREATE" in schema["public"]:
        sql = "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        steps.append(Step("database", thing, "PUBLIC", "CREATE", "no CREATE", sql))
    if schema["readonly"] != ["USAGE"]:
        sql = f"REVOKE ALL ON SCHEMA public FROM {readonly}; GRANT USAGE ON SCHEMA public TO {readonly}"
        steps.append(Step("database", thing, declared.readonly_user, _words(schema["readonly"]), "USAGE", sql))
    if inside["writable"]:
        sql = f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN ON ALL TABLES IN SCHEMA public FROM {readonly}"
        before = f"may change {', '.join(inside['writable'])}"
        steps.append(Step("database", "tables in public", declared.readonly_user, before, "SELECT", sql))
    if inside["unreadable"]:
        sql = f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {readonly}"
        before = f"can't read {', '.join(inside['unreadable'][:5])}" + (" and more" if inside["unreadable"][5:] else "")
        steps.append(Step("database", "tables in public", declared.readonly_user, before, "SELECT", sql))
    if inside["default"] != ["SELECT"]:
        # The privileges are for the whole database, not the schema: those within a schema are lost when `prisma migrate
        # reset` drops it.
        alter = f"ALTER DEFAULT PRIVILEGES FOR ROLE {app}"
        sql = f"{alter} REVOKE ALL ON TABLES FROM {readonly}; {alter} GRANT SELECT ON TABLES TO {readonly}"
        thing = f"future tables of {declared.app_user}"
        steps.append(Step("database", thing, declared.readonly_user, _words(inside["default"]), "SELECT", sql))
    return steps if not new else [step for step in steps if step.before != step.after]


def of_new_database(declared: Declared) -> list[Step]:
    """Return the steps that a new database's owner may take to make it like a provisioned one: all but the setting."""
    steps = [*_database(declared, None), *_within(declared, None)]
    return [step for step in steps if step.where == "database" and step.attribute != ENVIRONMENT]


def _words(privileges: Sequence[str]) -> str:
    return ", ".join(privileges) or "nothing"


def apply(psql: Psql, declared: Declared, steps: Sequence[Step]) -> None:
    """Run the steps in one transaction, or, if the database has yet to be created, in one before that and one after."""
    try:
        _apply(psql, declared, steps)
    except DasTernError as refusal:
        if refusal.facts.get("sqlstate") != "55P03":
            raise
        raise DasTernError([
            f"Roles and privileges of database {declared.database} can't be set: {refusal.message} Another session holds a lock that they "
            f"need for longer than {_LOCK_TIMEOUT}. Nothing was changed. Run again when that session is done.",
            *in_the_way(psql, declared.database),
        ]) from None  # fmt: skip


def _apply(psql: Psql, declared: Declared, steps: Sequence[Step]) -> None:
    created = [step for step in steps if step.where == "create"]
    outside = [step for step in steps if step.where == "server"]
    within = [step for step in steps if step.where == "database"]
    if created:
        if outside:
            psql.run(_transaction(outside))
        for step in created:
            psql.run(step.sql + ";")
        if within:
            psql.run(_transaction(within), declared.database)
    elif steps:
        psql.run(_transaction([*outside, *within]), declared.database)


def _transaction(steps: Sequence[Step]) -> str:
    head = [
        *BEGIN,
        "SET LOCAL client_min_messages = 'warning'",
        # The application's queries would queue behind a waiting GRANT.
        f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
        f"DO $$BEGIN PERFORM pg_advisory_xact_lock({_LOCK}); END$$",
    ]
    return ";\n".join([*head, *(step.sql for step in steps), "COMMIT"]) + ";"
