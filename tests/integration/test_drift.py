"""Drift and the schema's snapshot against a real PostgreSQL 17: what is seen, what isn't, what is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible.module_utils.dastern.catalogue import scratch
from ansible.module_utils.dastern.catalogue.census import schema_of
from ansible.module_utils.dastern.catalogue.drift import compare, scaffold
from ansible.module_utils.dastern.catalogue.objects import Item, read_catalogue
from ansible.module_utils.dastern.catalogue.schema_dump import OPTIONS, normalised
from ansible.module_utils.dastern.catalogue.schema_text import ARGUMENT_SPEC as SCHEMA_SPEC
from ansible.module_utils.dastern.catalogue.schema_text import snapshot
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile, read_folder
from ansible.module_utils.dastern.common.sql_text import statements
from ansible.module_utils.dastern.docker.containers import Containers
from ansible.module_utils.dastern.migrations import drift as drift_run
from ansible.module_utils.dastern.migrations.migrate import ARGUMENT_SPEC as MIGRATE_SPEC
from ansible.module_utils.dastern.migrations.migrate import migrate
from ansible.module_utils.dastern.server import access_files
from ansible.module_utils.dastern.server.psql import Psql
from conftest import REPOSITORY, descendants

LIVE = "drift_live"
MORE = """
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE DOMAIN phone AS text CONSTRAINT digits CHECK (VALUE ~ '^[0-9+ ]+$');
CREATE TYPE pair AS (a integer, b text);
CREATE TYPE span AS RANGE (SUBTYPE = integer);
CREATE COLLATION khmer (PROVIDER = icu, LOCALE = 'km');
CREATE SEQUENCE ticket AS integer INCREMENT BY 5;
CREATE FUNCTION note_of(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'note ' || n $$;
CREATE TABLE extras (
    id integer GENERATED ALWAYS AS IDENTITY (START WITH 10) PRIMARY KEY,
    number serial,
    note text COLLATE khmer DEFAULT note_of(1),
    twice integer GENERATED ALWAYS AS (number * 2) STORED,
    phone phone,
    couple pair,
    "when" timestamptz DEFAULT '2026-01-01 00:00:00+07',
    CONSTRAINT extras_note_check CHECK (note <> '')
) WITH (fillfactor = 70);
CREATE INDEX extras_note_trgm ON extras USING gin (note gin_trgm_ops);
CREATE INDEX extras_part_idx ON extras (number DESC NULLS LAST) INCLUDE (phone) WHERE note IS NOT NULL;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := NEW.note; RETURN NEW; END $$;
REVOKE EXECUTE ON FUNCTION touch() FROM PUBLIC;
CREATE TRIGGER touched BEFORE UPDATE ON extras FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION many() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM extras; END;
CREATE PROCEDURE tidy() LANGUAGE sql AS 'DELETE FROM extras';
CREATE AGGREGATE total (integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');
CREATE VIEW active_users WITH (security_barrier) AS SELECT id, email FROM users WHERE "accountStatus" = 'ACTIVE';
CREATE VIEW active_mails AS SELECT email FROM active_users;
CREATE MATERIALIZED VIEW roles AS SELECT role, count(*) AS n FROM users GROUP BY role;
CREATE UNIQUE INDEX roles_key ON roles (role);
CREATE RULE quiet AS ON DELETE TO extras WHERE old.id < 0 DO INSTEAD NOTHING;
CREATE STATISTICS extras_stats (dependencies) ON number, note FROM extras;
ALTER TABLE extras ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON extras FOR SELECT TO dastern_user USING (note = current_user);
ALTER TABLE extras ALTER COLUMN note SET STORAGE EXTERNAL, ALTER COLUMN note SET COMPRESSION pglz, ALTER COLUMN note SET STATISTICS 500,
  ALTER COLUMN number SET (n_distinct = -0.5);
ALTER TABLE extras REPLICA IDENTITY FULL;
COMMENT ON TABLE extras IS 'it''s an extra \\ table';
COMMENT ON COLUMN extras.note IS 'free';
COMMENT ON CONSTRAINT extras_note_check ON extras IS 'no empty note';
GRANT SELECT (email) ON users TO PUBLIC;
GRANT INSERT, INSERT (note) ON extras TO PUBLIC;
CREATE TABLE events (at date NOT NULL DEFAULT CURRENT_DATE, n integer) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX events_n_idx ON events (n);
ALTER TABLE events ALTER COLUMN n SET DEFAULT 1;
CREATE TABLE events_2025 (at date NOT NULL, n integer);
ALTER TABLE events ATTACH PARTITION events_2025 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE FUNCTION hush() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER hushed AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION hush();
ALTER TABLE events_2025 DISABLE TRIGGER hushed;
CREATE TYPE address AS (street text, phone phone);
CREATE TABLE typed OF address (street WITH OPTIONS NOT NULL DEFAULT '-', PRIMARY KEY (street));
CREATE TABLE elders (a integer DEFAULT 1, b integer DEFAULT 2, c integer);
CREATE TABLE heirs (a integer, d integer) INHERITS (elders);
ALTER TABLE heirs ALTER COLUMN a DROP DEFAULT, ALTER COLUMN b DROP DEFAULT;
ALTER TABLE ONLY elders ALTER COLUMN c SET DEFAULT length(note_of(3));
CREATE INDEX extras_upper ON extras (number, upper(note));
ALTER INDEX extras_upper ALTER COLUMN 2 SET STATISTICS 300;
ALTER INDEX extras_pkey SET (fillfactor = 60);
ALTER TABLE extras SET (toast.autovacuum_enabled = off);
CREATE MATERIALIZED VIEW themes AS SELECT theme, count(*) AS n FROM users GROUP BY theme;
ALTER MATERIALIZED VIEW themes ALTER COLUMN n SET STATISTICS 10;
CREATE TABLE visits ("user" uuid REFERENCES users, at date) PARTITION BY RANGE (at);
CREATE TABLE visits_2026 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY RANGE (at);
CREATE TABLE visits_may PARTITION OF visits_2026 FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
CREATE TRIGGER hushed AFTER INSERT ON visits FOR EACH ROW EXECUTE FUNCTION hush();
ALTER TABLE visits_2026 DISABLE TRIGGER hushed;
ALTER TABLE visits_may ENABLE ALWAYS TRIGGER hushed;
CREATE CAST (text AS pair) WITH INOUT AS ASSIGNMENT;
GRANT SELECT (n) ON themes TO PUBLIC;
GRANT SELECT (last_value) ON ticket TO PUBLIC;
GRANT SELECT (ctid) ON users TO PUBLIC;
GRANT UPDATE (street) ON typed TO PUBLIC;
COMMENT ON COLUMN themes.n IS 'how many';
COMMENT ON COLUMN typed.street IS 'with a number';
COMMENT ON COLUMN address.street IS 'text';
COMMENT ON CONSTRAINT digits ON DOMAIN phone IS 'no letters';
COMMENT ON INDEX extras_pkey IS 'index';
COMMENT ON CONSTRAINT extras_pkey ON extras IS 'constraint';
"""
MORE_NAME = "20260301000000_more"

# What is done to the live database (as superuser where it says so), what undoes it, what must be found, and whether the
# scaffold is complete.
CASES: dict[str, tuple[str, str, list[str], bool]] = {
    "extra table": (
        "CREATE TABLE strays (id int PRIMARY KEY, note text NOT NULL DEFAULT '', UNIQUE (note)); "
        "CREATE INDEX ON strays (note, id); COMMENT ON TABLE strays IS 'why'",
        "DROP TABLE strays", ["unexpected table strays"], True),
    "extra table, closed to the read-only role": (
        "CREATE TABLE vault (id integer PRIMARY KEY, pw text); REVOKE ALL ON vault FROM dastern_readonly",
        "DROP TABLE vault", ["unexpected table vault"], True),
    "materialized view, other query, closed to the read-only role": (
        "DROP MATERIALIZED VIEW roles; CREATE MATERIALIZED VIEW roles AS SELECT role, 1 AS n FROM users; "
        "CREATE UNIQUE INDEX roles_key ON roles (role); REVOKE ALL ON roles FROM dastern_readonly",
        "DROP MATERIALIZED VIEW roles; CREATE MATERIALIZED VIEW roles AS SELECT role, count(*) AS n FROM users GROUP BY role; "
        "CREATE UNIQUE INDEX roles_key ON roles (role)",
        ["differs materialized view roles", "missing grant materialized view roles to dastern_readonly"], True),
    "dropped table": ("DROP TABLE family_members", "{family_members}", ["missing table family_members"], False),
    "extra column, nullable": (
        "ALTER TABLE users ADD COLUMN nick text", "ALTER TABLE users DROP COLUMN nick",
        ["unexpected column users.nick"], True),
    "extra column with a default": (
        "ALTER TABLE users ADD COLUMN visits integer NOT NULL DEFAULT 0", "ALTER TABLE users DROP COLUMN visits",
        ["unexpected column users.visits"], True),
    "extra column that must be filled": (
        "ALTER TABLE users ADD COLUMN code integer NOT NULL", "ALTER TABLE users DROP COLUMN code",
        ["unexpected column users.code"], False),
    "dropped column": (
        'ALTER TABLE family_members DROP COLUMN "addedAt"',
        'ALTER TABLE family_members ADD COLUMN "addedAt" timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP',
        ['missing column family_members."addedAt"'], False),
    "renamed column": (
        "ALTER TABLE users RENAME COLUMN specialty TO speciality", "ALTER TABLE users RENAME COLUMN speciality TO specialty",
        ["missing column users.specialty", "unexpected column users.speciality"], False),
    "column type": (
        "ALTER TABLE users ALTER COLUMN specialty TYPE varchar(120)", "ALTER TABLE users ALTER COLUMN specialty TYPE varchar(100)",
        ["differs column users.specialty"], False),
    "default": (
        "ALTER TABLE users ALTER COLUMN language SET DEFAULT 'ENGLISH'", "ALTER TABLE users ALTER COLUMN language SET DEFAULT 'KHMER'",
        ["differs default users.language"], True),
    "default dropped": (
        "ALTER TABLE users ALTER COLUMN theme DROP DEFAULT", "ALTER TABLE users ALTER COLUMN theme SET DEFAULT 'LIGHT'",
        ["missing default users.theme"], True),
    "nullability, looser": (
        'ALTER TABLE users ALTER COLUMN "phoneNumber" DROP NOT NULL', 'ALTER TABLE users ALTER COLUMN "phoneNumber" SET NOT NULL',
        ['missing not null users."phoneNumber"'], True),
    "nullability, stricter": (
        "ALTER TABLE users ALTER COLUMN email SET NOT NULL", "ALTER TABLE users ALTER COLUMN email DROP NOT NULL",
        ["unexpected not null users.email"], True),
    "check constraint": (
        'ALTER TABLE prescriptions ADD CONSTRAINT old CHECK ("patientAge" >= 0)', "ALTER TABLE prescriptions DROP CONSTRAINT old",
        ["unexpected constraint prescriptions.old"], True),
    "check constraint, not valid": (
        'ALTER TABLE prescriptions ADD CONSTRAINT old CHECK ("patientAge" >= 0) NOT VALID', "ALTER TABLE prescriptions DROP CONSTRAINT old",
        ["unexpected constraint prescriptions.old"], True),
    "dropped constraint": (
        "ALTER TABLE extras DROP CONSTRAINT extras_note_check",
        "ALTER TABLE extras ADD CONSTRAINT extras_note_check CHECK (note <> ''); COMMENT ON CONSTRAINT extras_note_check ON extras IS 'no empty note'",
        ["missing constraint extras.extras_note_check"], True),
    "partial index": (
        "CREATE INDEX urgent ON prescriptions (id) WHERE \"isUrgent\"", "DROP INDEX urgent", ["unexpected index urgent"], True),
    "partial index, other condition": (
        "DROP INDEX extras_part_idx; CREATE INDEX extras_part_idx ON extras (number DESC NULLS LAST) INCLUDE (phone) WHERE note IS NULL",
        "DROP INDEX extras_part_idx; CREATE INDEX extras_part_idx ON extras (number DESC NULLS LAST) INCLUDE (phone) WHERE note IS NOT NULL",
        ["differs index extras_part_idx"], True),
    "expression index": (
        "CREATE UNIQUE INDEX users_lower ON users (lower(email))", "DROP INDEX users_lower", ["unexpected index users_lower"], True),
    "INVALID index": (
        "INSERT INTO extras (note) VALUES ('a'), ('a')\nCREATE UNIQUE INDEX CONCURRENTLY broken ON extras (note)",
        "DROP INDEX broken; DELETE FROM extras", ["unexpected index broken"], False),
    "dropped index": (
        "DROP INDEX users_role_idx", "CREATE INDEX users_role_idx ON users (role)", ["missing index users_role_idx"], True),
    "foreign key's delete rule": (
        'ALTER TABLE medications DROP CONSTRAINT "medications_prescriptionId_fkey"; ALTER TABLE medications ADD CONSTRAINT '
        '"medications_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES prescriptions ON UPDATE CASCADE ON DELETE RESTRICT',
        'ALTER TABLE medications DROP CONSTRAINT "medications_prescriptionId_fkey"; ALTER TABLE medications ADD CONSTRAINT '
        '"medications_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES prescriptions ON UPDATE CASCADE ON DELETE CASCADE',
        ['differs constraint medications."medications_prescriptionId_fkey"'], True),
    "foreign key switched off": (
        "superuser: ALTER TABLE medications DISABLE TRIGGER ALL", "superuser: ALTER TABLE medications ENABLE TRIGGER ALL",
        ['differs constraint dose_events."dose_events_medicationId_fkey"',
         'differs constraint medications."medications_prescriptionId_fkey"'], False),
    "foreign key switched off in one partition": (
        "superuser: ALTER TABLE visits_may DISABLE TRIGGER ALL",
        "superuser: ALTER TABLE visits_may ENABLE TRIGGER ALL; ALTER TABLE visits_may ENABLE ALWAYS TRIGGER hushed",
        ["differs constraint visits.visits_user_fkey", "missing trigger state visits_may.hushed"], False),
    "trigger of a partition in a partition": (
        "ALTER TABLE visits_2026 ENABLE TRIGGER hushed", "ALTER TABLE visits_2026 DISABLE TRIGGER hushed; ALTER TABLE visits_may ENABLE ALWAYS TRIGGER hushed",
        ["missing trigger state visits_2026.hushed"], True),
    "view": ("CREATE VIEW doctors AS SELECT id FROM users", "DROP VIEW doctors", ["unexpected view doctors"], True),
    "view, other query": (
        "CREATE OR REPLACE VIEW active_mails AS SELECT email FROM active_users WHERE email IS NOT NULL",
        "CREATE OR REPLACE VIEW active_mails AS SELECT email FROM active_users", ["differs view active_mails"], True),
    "view that another one uses": (
        "CREATE OR REPLACE VIEW active_users WITH (security_barrier) AS SELECT id, email FROM users",
        "CREATE OR REPLACE VIEW active_users WITH (security_barrier) AS SELECT id, email FROM users WHERE \"accountStatus\" = 'ACTIVE'",
        ["differs view active_users"], False),
    "materialized view": (
        "CREATE MATERIALIZED VIEW mails AS SELECT email FROM users; CREATE INDEX ON mails (email)", "DROP MATERIALIZED VIEW mails",
        ["unexpected materialized view mails"], True),
    "materialized view, other query": (
        "DROP MATERIALIZED VIEW roles; CREATE MATERIALIZED VIEW roles AS SELECT role, 1 AS n FROM users; CREATE UNIQUE INDEX roles_key ON roles (role)",
        "DROP MATERIALIZED VIEW roles; CREATE MATERIALIZED VIEW roles AS SELECT role, count(*) AS n FROM users GROUP BY role; "
        "CREATE UNIQUE INDEX roles_key ON roles (role)", ["differs materialized view roles"], True),
    "function": (
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION one()", ["unexpected function one()"], True),
    "function body": (
        "CREATE OR REPLACE FUNCTION note_of(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'other ' || n $$",
        "CREATE OR REPLACE FUNCTION note_of(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'note ' || n $$",
        ["differs function note_of(integer)"], True),
    "procedure": ("DROP PROCEDURE tidy()", "CREATE PROCEDURE tidy() LANGUAGE sql AS 'DELETE FROM extras'", ["missing procedure tidy()"], True),
    "trigger": (
        "CREATE TRIGGER again BEFORE INSERT ON extras FOR EACH ROW EXECUTE FUNCTION touch()", "DROP TRIGGER again ON extras",
        ["unexpected trigger extras.again"], True),
    "trigger disabled": (
        "ALTER TABLE extras DISABLE TRIGGER touched", "ALTER TABLE extras ENABLE TRIGGER touched", ["differs trigger extras.touched"], True),
    "trigger disabled in one partition": (
        "ALTER TABLE events_2026 DISABLE TRIGGER hushed", "ALTER TABLE events_2026 ENABLE TRIGGER hushed",
        ["unexpected trigger state events_2026.hushed"], True),
    "trigger enabled in one partition": (
        "ALTER TABLE events_2025 ENABLE TRIGGER hushed", "ALTER TABLE events_2025 DISABLE TRIGGER hushed",
        ["missing trigger state events_2025.hushed"], True),
    "trigger disabled in the partitioned table alone": (
        "ALTER TABLE ONLY events DISABLE TRIGGER hushed", "ALTER TABLE ONLY events ENABLE TRIGGER hushed",
        ["differs trigger events.hushed", "missing trigger state events_2025.hushed", "unexpected trigger state events_2026.hushed"], True),
    "policy": (
        "CREATE POLICY all_of_it ON extras USING (true)", "DROP POLICY all_of_it ON extras", ["unexpected policy extras.all_of_it"], True),
    "policy, other condition": (
        "ALTER POLICY own ON extras USING (true)", "ALTER POLICY own ON extras USING (note = current_user)", ["differs policy extras.own"], True),
    "row security on": (
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY", "ALTER TABLE users DISABLE ROW LEVEL SECURITY", ["unexpected row security users"], True),
    "row security off": (
        "ALTER TABLE extras DISABLE ROW LEVEL SECURITY", "ALTER TABLE extras ENABLE ROW LEVEL SECURITY", ["missing row security extras"], True),
    "grant": (
        "GRANT INSERT ON users TO dastern_readonly", "REVOKE INSERT ON users FROM dastern_readonly",
        ["differs grant table users to dastern_readonly"], True),
    "grant taken away": (
        "REVOKE SELECT ON users FROM dastern_readonly", "GRANT SELECT ON users TO dastern_readonly",
        ["missing grant table users to dastern_readonly"], True),
    "grant on a table taken away beside one on its column": (
        "REVOKE INSERT ON extras FROM PUBLIC; GRANT INSERT (note) ON extras TO PUBLIC", "GRANT INSERT ON extras TO PUBLIC",
        ["missing grant table extras to PUBLIC"], True),
    "grant on a column": (
        "GRANT SELECT (id) ON users TO PUBLIC", "REVOKE SELECT (id) ON users FROM PUBLIC", ["unexpected grant column users.id to PUBLIC"], True),
    "grant on a materialized view's column": (
        "GRANT SELECT (theme) ON themes TO PUBLIC", "REVOKE SELECT (theme) ON themes FROM PUBLIC",
        ["unexpected grant column themes.theme to PUBLIC"], True),
    "grant on a sequence's column": (
        "REVOKE SELECT (last_value) ON ticket FROM PUBLIC", "GRANT SELECT (last_value) ON ticket TO PUBLIC",
        ["missing grant column ticket.last_value to PUBLIC"], True),
    "grant on a typed table's column": (
        "GRANT SELECT (phone) ON typed TO PUBLIC", "REVOKE SELECT (phone) ON typed FROM PUBLIC",
        ["unexpected grant column typed.phone to PUBLIC"], True),
    "grant on a system column": (
        "GRANT SELECT (xmin) ON users TO PUBLIC", "REVOKE SELECT (xmin) ON users FROM PUBLIC",
        ["unexpected grant column users.xmin to PUBLIC"], True),
    "grant on a function": (
        "GRANT EXECUTE ON FUNCTION touch() TO PUBLIC", "REVOKE EXECUTE ON FUNCTION touch() FROM PUBLIC",
        ["missing grant function touch() to PUBLIC"], True),
    "grant on the schema": (
        "GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        ["unexpected grant schema public to PUBLIC"], True),
    "grant on the database": (
        f"GRANT CONNECT ON DATABASE {LIVE} TO PUBLIC", f"REVOKE CONNECT ON DATABASE {LIVE} FROM PUBLIC",
        ["differs grant database to PUBLIC"], False),
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT INSERT ON TABLES TO dastern_readonly",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE INSERT ON TABLES FROM dastern_readonly",
        ["unexpected default privileges of dastern_user on TABLES in the schema to dastern_readonly"], True),
    "comment": (
        "COMMENT ON TABLE extras IS 'other'", "COMMENT ON TABLE extras IS 'it''s an extra \\ table'", ["differs comment table extras"], True),
    "comment on an index": (
        "COMMENT ON INDEX users_role_idx IS 'why'", "COMMENT ON INDEX users_role_idx IS NULL", ["unexpected comment index users_role_idx"], True),
    "comment on a constraint's index": (
        "COMMENT ON INDEX users_pkey IS 'why'", "COMMENT ON INDEX users_pkey IS NULL", ["unexpected comment index users_pkey"], True),
    "comment on a constraint beside one on its index": (
        "COMMENT ON CONSTRAINT extras_pkey ON extras IS NULL", "COMMENT ON CONSTRAINT extras_pkey ON extras IS 'constraint'",
        ["missing comment constraint extras.extras_pkey"], True),
    "comment on a materialized view's column": (
        "COMMENT ON COLUMN themes.n IS NULL", "COMMENT ON COLUMN themes.n IS 'how many'", ["missing comment column themes.n"], True),
    "comment on a composite type's attribute": (
        "COMMENT ON COLUMN pair.a IS 'why'", "COMMENT ON COLUMN pair.a IS NULL", ["unexpected comment column pair.a"], True),
    "comment on a domain's constraint": (
        "COMMENT ON CONSTRAINT digits ON DOMAIN phone IS 'why'", "COMMENT ON CONSTRAINT digits ON DOMAIN phone IS 'no letters'",
        ["differs comment constraint phone.digits"], True),
    "cast": (
        'CREATE CAST (text AS "Theme") WITH INOUT AS IMPLICIT', 'DROP CAST (text AS "Theme")', ['unexpected cast (text AS "Theme")'], True),
    "cast, other context": (
        "DROP CAST (text AS pair); CREATE CAST (text AS pair) WITH INOUT", "DROP CAST (text AS pair); CREATE CAST (text AS pair) WITH INOUT AS ASSIGNMENT",
        ["differs cast (text AS pair)"], True),
    "typed table": (
        "CREATE TABLE streets OF pair (a WITH OPTIONS NOT NULL DEFAULT 1)", "DROP TABLE streets", ["unexpected table streets"], True),
    "typed table's default": (
        "ALTER TABLE typed ALTER COLUMN street DROP DEFAULT", "ALTER TABLE typed ALTER COLUMN street SET DEFAULT '-'",
        ["missing default typed.street"], True),
    "default of a partition alone": (
        "ALTER TABLE events_2026 ALTER COLUMN n DROP DEFAULT", "ALTER TABLE events_2026 ALTER COLUMN n SET DEFAULT 1",
        ["differs default events_2026.n"], True),
    "default of an attached partition": (
        "ALTER TABLE events_2025 ALTER COLUMN n SET DEFAULT 1", "ALTER TABLE events_2025 ALTER COLUMN n DROP DEFAULT",
        ["differs default events_2025.n"], True),
    "default of a partitioned table alone": (
        "ALTER TABLE ONLY events ALTER COLUMN n SET DEFAULT 2", "ALTER TABLE ONLY events ALTER COLUMN n SET DEFAULT 1",
        ["differs default events.n"], True),
    "attached partition without the default": (
        "CREATE TABLE events_2024 (at date NOT NULL, n integer); "
        "ALTER TABLE events ATTACH PARTITION events_2024 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        "DROP TABLE events_2024", ["unexpected table events_2024"], True),
    "sequence": (
        "CREATE SEQUENCE spare", "DROP SEQUENCE spare", ["unexpected sequence spare"], True),
    "sequence, other step": (
        "ALTER SEQUENCE ticket INCREMENT BY 7", "ALTER SEQUENCE ticket INCREMENT BY 5", ["differs sequence ticket"], True),
    "identity": (
        "ALTER TABLE extras ALTER COLUMN id SET GENERATED BY DEFAULT", "ALTER TABLE extras ALTER COLUMN id SET GENERATED ALWAYS",
        ["differs identity extras.id"], False),
    "extension": ("CREATE EXTENSION citext", "DROP EXTENSION citext", ["unexpected extension citext"], True),
    "domain": (
        "ALTER DOMAIN phone SET DEFAULT '0'", "ALTER DOMAIN phone DROP DEFAULT", ["differs domain phone"], False),
    "new domain": ("CREATE DOMAIN mail AS text", "DROP DOMAIN mail", ["unexpected domain mail"], True),
    "composite type": (
        "ALTER TYPE pair RENAME ATTRIBUTE b TO c", "ALTER TYPE pair RENAME ATTRIBUTE c TO b", ["differs composite type pair"], False),
    "owner": (
        "superuser: ALTER VIEW active_mails OWNER TO postgres", "superuser: ALTER VIEW active_mails OWNER TO dastern_user",
        ["unexpected owner of view active_mails"], False),
    "storage": (
        "ALTER TABLE users ALTER COLUMN email SET STORAGE PLAIN", "ALTER TABLE users ALTER COLUMN email SET STORAGE DEFAULT",
        ["unexpected column storage users.email"], True),
    "compression": (
        "ALTER TABLE extras ALTER COLUMN note SET COMPRESSION lz4", "ALTER TABLE extras ALTER COLUMN note SET COMPRESSION pglz",
        ["differs column compression extras.note"], True),
    "column statistics": (
        "ALTER TABLE extras ALTER COLUMN note SET STATISTICS 9", "ALTER TABLE extras ALTER COLUMN note SET STATISTICS 500",
        ["differs column statistics extras.note"], True),
    "column options": (
        "ALTER TABLE extras ALTER COLUMN number RESET (n_distinct)", "ALTER TABLE extras ALTER COLUMN number SET (n_distinct = -0.5)",
        ["missing column options extras.number"], True),
    "statistics of an index's expression": (
        "ALTER INDEX extras_upper ALTER COLUMN 2 SET STATISTICS 9", "ALTER INDEX extras_upper ALTER COLUMN 2 SET STATISTICS 300",
        ["differs column statistics extras_upper.2"], True),
    "statistics of a materialized view's column": (
        "ALTER MATERIALIZED VIEW themes ALTER COLUMN n SET STATISTICS -1", "ALTER MATERIALIZED VIEW themes ALTER COLUMN n SET STATISTICS 10",
        ["missing column statistics themes.n"], True),
    "storage parameters of a constraint's index": (
        "ALTER INDEX users_pkey SET (fillfactor = 50)", "ALTER INDEX users_pkey RESET (fillfactor)",
        ["unexpected storage parameters users_pkey"], True),
    "storage parameters of the TOAST table": (
        "ALTER TABLE users SET (toast.autovacuum_enabled = off)", "ALTER TABLE users RESET (toast.autovacuum_enabled)",
        ["unexpected storage parameters users"], True),
    "one of two storage parameters": (
        "ALTER TABLE extras RESET (toast.autovacuum_enabled)", "ALTER TABLE extras SET (toast.autovacuum_enabled = off)",
        ["differs storage parameters extras"], True),
    "storage parameters": (
        "ALTER TABLE users SET (autovacuum_enabled = off)", "ALTER TABLE users RESET (autovacuum_enabled)",
        ["unexpected storage parameters users"], True),
    "replica identity": (
        "ALTER TABLE extras REPLICA IDENTITY DEFAULT", "ALTER TABLE extras REPLICA IDENTITY FULL", ["missing replica identity extras"], True),
    "unlogged": ("ALTER TABLE events_2026 SET UNLOGGED", "ALTER TABLE events_2026 SET LOGGED", ["differs table events_2026"], False),
    "partition": (
        "CREATE TABLE events_2027 PARTITION OF events (CHECK (n > 0)) FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')", "DROP TABLE events_2027",
        ["unexpected table events_2027"], True),
    "rule": ("DROP RULE quiet ON extras", "CREATE RULE quiet AS ON DELETE TO extras WHERE old.id < 0 DO INSTEAD NOTHING",
             ["missing rule extras.quiet"], True),
    "statistics object": (
        "ALTER STATISTICS extras_stats SET STATISTICS 7", "ALTER STATISTICS extras_stats SET STATISTICS -1",
        ["differs statistics object extras_stats"], True),
    "collation": ("CREATE COLLATION other (PROVIDER = icu, LOCALE = 'km-x-icu')", "DROP COLLATION other", ["unexpected collation other"], True),
    "operator": (
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)", "DROP OPERATOR === (int, int)",
        ["unexpected operator public.===(integer,integer)"], False),
    "publication": ("CREATE PUBLICATION news FOR TABLE users", "DROP PUBLICATION news", ["unexpected publication news"], False),
    "setting": (
        f"ALTER DATABASE {LIVE} SET work_mem = '8MB'", f"ALTER DATABASE {LIVE} RESET work_mem", ["unexpected setting database work_mem"], False),
    "event trigger": (
        "superuser: CREATE FUNCTION eye() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
        "ALTER FUNCTION eye() OWNER TO dastern_user; CREATE EVENT TRIGGER spy ON ddl_command_end EXECUTE FUNCTION eye()",
        "superuser: DROP EVENT TRIGGER spy; DROP FUNCTION eye()", ["unexpected event trigger spy", "unexpected function eye()"], False),
    "column order": (
        'DROP TABLE family_members; CREATE TABLE family_members ("subscriptionId" uuid NOT NULL, id uuid NOT NULL, '
        '"memberId" uuid NOT NULL, "addedAt" timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP); {rest of family_members}',
        "DROP TABLE family_members; {family_members}", ["differs column order family_members"], True),
}  # fmt: skip


class Live:
    """A provisioned and migrated database of its own, and the folder that it was migrated from."""

    def __init__(self, instance: Any, folder: Path) -> None:
        self.instance, self.folder = instance, folder

    def params(self, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return {
            **{name: option.get("default") for name, option in spec.items()},
            "host": self.instance.host,
            "port": self.instance.port,
            "database": LIVE,
            "user": self.instance.app_user,
            "password_file": str(self.instance.password_file),
            "folder": str(self.folder),
            "migrations": [{"name": file.name, "sql": file.sql} for file in read_folder(self.folder)],
            "readonly_user": "dastern_readonly",
            "environment": "development",
            **changes,
        }

    @property
    def container(self) -> dict[str, str]:
        """What leads to the superuser, too."""
        return {"endpoint": self.instance.endpoint, "container": self.instance.container}

    def drift(self, leftover_after: float = scratch.LEFTOVER_AFTER, **changes: Any) -> dict[str, Any]:
        params = self.params(drift_run.ARGUMENT_SPEC, fail=False, **changes)
        return drift_run.drift(params, leftover_after)

    def catalogue(self) -> list[Item]:
        with self.connect() as connection:
            return read_catalogue(connection, "public")

    def findings(self, **changes: Any) -> list[str]:
        return found(self.drift(**changes))

    def connect(self, database: str = LIVE) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.instance.host, port=self.instance.port, dbname=database, user=self.instance.app_user,
            password=self.instance.password, autocommit=True,
        )  # fmt: skip

    def run(self, sql: str) -> None:
        """As the application's role, or as superuser; a line feed separates what can't be one message."""
        if sql.startswith("superuser: "):
            self.instance.sql(sql.removeprefix("superuser: "), LIVE)
            return
        with self.connect() as connection:
            for part in sql.split("\n"):
                if "CONCURRENTLY" in part:
                    with contextlib.suppress(psycopg.errors.UniqueViolation):
                        connection.execute(part)
                else:
                    connection.execute(part)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(sql).fetchall()

    def scratches(self) -> list[str]:
        return [
            name
            for (name,) in self.query(
                f"SELECT datname FROM pg_database WHERE datname LIKE '{LIVE}_scratch_%' ORDER BY 1"
            )
        ]

    def playbook(self, name: str, *arguments: str, **variables: Any) -> list[str]:
        values = {
            "dastern_environment": "development",
            "postgres_container_name": self.instance.container,
            "postgres_host": self.instance.host,
            "postgres_port": self.instance.port,
            "postgres_database": LIVE,
            "postgres_config_dir": str(self.instance.config_dir),
            "migrations_dir": str(self.folder),
            **variables,
        }
        extra = [word for key, value in values.items() for word in ("-e", f"{key}={value}")]
        return [str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{name}.yml", *extra, *arguments]

    def play(self, name: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.playbook(name, *arguments, **variables), cwd=REPOSITORY, capture_output=True, text=True, timeout=300
        )


def found(result: dict[str, Any]) -> list[str]:
    return [f"{row['what']} {row['kind']} {row['object']}" for row in result["differences"]]


@pytest.fixture(scope="module")
def live(instance: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("drift") / "migrations"
    shutil.copytree(REPOSITORY / "files/sql/migrations", folder)
    (folder / MORE_NAME).mkdir()
    (folder / MORE_NAME / "migration.sql").write_text(MORE)
    own = Live(instance, folder)
    left = instance.sql(f"SELECT datname FROM pg_database WHERE datname ~ '^{LIVE}(_scratch_|$)'", "postgres")
    for name in left.splitlines():  # of a run that was killed
        instance.sql(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")
    access_files.keep({
        "endpoint": instance.endpoint, "container": instance.container, "database": LIVE, "app_user": instance.app_user,
        "app_createdb": True, "app_password": "", "readonly_user": "dastern_readonly", "readonly_password": "",
        "config_dir": str(instance.config_dir), "environment": "development",
    })  # fmt: skip
    migrate(own.params(MIGRATE_SPEC))
    yield own
    instance.sql(f"DROP DATABASE {LIVE} WITH (FORCE)", "postgres")


@pytest.fixture
def whole(live: Live) -> Iterator[Live]:
    """The live database; after the test it must be as it was, and no scratch database be left."""
    before = live.catalogue()
    yield live
    assert [row.as_dict() for row in compare(before, live.catalogue())] == []
    assert live.scratches() == []


def statements_of(table: str) -> list[str]:
    """The statements of the repository's snapshot that are about one table."""
    text = (REPOSITORY / "files/sql/schema.sql").read_text()
    about = re.compile(rf"(TABLE|TABLE ONLY|ON) public\.{table}\b")
    return [f"{one.text};" for one in statements(text) if about.search(one.text)]


def filled(sql: str) -> str:
    whole = statements_of("family_members")
    sql = sql.replace("{family_members}", " ".join(whole)).replace("{rest of family_members}", " ".join(whole[1:]))
    return sql if "CONCURRENTLY" in sql else sql.replace("\n", " ")


# --- what is seen


def test_nothing_is_found_where_nobody_changed_anything(whole: Live) -> None:
    result = whole.drift()
    assert (result["drifted"], result["differences"], result["lines"]) == (False, [], [])
    assert result["applied"] == [file.name for file in read_folder(whole.folder)]
    assert (
        whole.query("SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'dastern_readonly'")[0][
            0
        ]
        >= 12
    )


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_change_is_found_and_nothing_else(whole: Live, case: str) -> None:
    change, undo, expected, complete = CASES[case]
    whole.run(filled(change))
    try:
        result = whole.drift(write_migration="x")
        assert sorted(found(result)) == sorted(expected)
        assert (result["by_hand"] == []) is complete, result["by_hand"]
        assert result["drifted"] is (case != "column order")
        assert len(result["lines"]) >= len(expected)
        if complete and result["drifted"]:
            assert result["left"] == []
            assert "-- This file is complete" in result["migration"]
            assert replayed(whole, result["migration"]) == []
    finally:
        whole.run(filled(undo))


def replayed(live: Live, more: str) -> list[str]:
    """What still differs from the live database where the migrations and one more are applied."""
    params = live.params(drift_run.ARGUMENT_SPEC)
    files = [*read_folder(live.folder), MigrationFile("one_more", more)]
    with live.connect() as connection, scratch.scratch_database(
        connection, params, declared=drift_run._declared(params)
    ) as own:  # fmt: skip
        scratch.replay(own, files, str(live.folder))
        expected, actual = read_catalogue(own, "public"), read_catalogue(connection, "public")
    # A new column of an inherited order, and the setting that only a superuser gives.
    return [row.item.key for row in compare(expected, actual) if not row.weak and row.item.kind != "setting"]


DEFAULTS = """
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE TRUNCATE ON TABLES FROM dastern_user;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO dastern_readonly WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT UPDATE, DELETE ON TABLES TO dastern_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO PUBLIC;
"""
# By default, with more, with less, and with nothing; of each kind that has default privileges.
OBJECTS = """
CREATE TABLE as_is (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial, t text);
CREATE TABLE vault (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial, pw text);
REVOKE ALL ON vault FROM dastern_readonly;
REVOKE ALL ON SEQUENCE vault_id_seq FROM dastern_readonly, PUBLIC;
REVOKE GRANT OPTION FOR USAGE ON SEQUENCE vault_n_seq FROM dastern_readonly;
GRANT SELECT (id) ON vault TO dastern_readonly;
CREATE TABLE shared (id integer);
REVOKE UPDATE ON shared FROM dastern_readonly;
GRANT TRUNCATE ON shared TO dastern_user;
GRANT INSERT ON shared TO dastern_readonly, PUBLIC;
CREATE TABLE nobody (id integer);
REVOKE ALL ON nobody FROM dastern_user, dastern_readonly;
CREATE VIEW looked AS SELECT id FROM as_is;
REVOKE ALL ON looked FROM dastern_readonly;
CREATE MATERIALIZED VIEW kept AS SELECT id FROM as_is;
REVOKE DELETE ON kept FROM dastern_readonly;
CREATE TABLE parts (id integer) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
REVOKE ALL ON parts_1 FROM dastern_readonly;
CREATE SEQUENCE counter;
REVOKE ALL ON SEQUENCE counter FROM dastern_readonly, PUBLIC;
GRANT UPDATE ON SEQUENCE counter TO dastern_readonly;
CREATE FUNCTION open_to_all() RETURNS int LANGUAGE sql AS 'SELECT 1';
GRANT EXECUTE ON FUNCTION open_to_all() TO PUBLIC;
CREATE FUNCTION closed() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION one_may() RETURNS int LANGUAGE sql AS 'SELECT 1';
GRANT EXECUTE ON FUNCTION one_may() TO dastern_readonly WITH GRANT OPTION;
CREATE PROCEDURE tidy() LANGUAGE sql AS 'SELECT 1';
GRANT EXECUTE ON PROCEDURE tidy() TO PUBLIC;
CREATE AGGREGATE total (integer) (SFUNC = int4pl, STYPE = integer);
GRANT EXECUTE ON FUNCTION total(integer) TO PUBLIC;
CREATE TYPE mood AS ENUM ('well', 'ill');
GRANT USAGE ON TYPE mood TO PUBLIC;
CREATE DOMAIN phone AS text;
CREATE TYPE pair AS (a integer);
GRANT USAGE ON TYPE pair TO dastern_readonly;
CREATE TYPE span AS RANGE (SUBTYPE = integer);
GRANT USAGE ON TYPE span TO PUBLIC;
"""
# Whether by the server's own default or written down makes no difference.
ACLS = """
SELECT what, ARRAY(SELECT a::text FROM unnest(acl) a ORDER BY 1) FROM (
  SELECT 'relation ' || oid::regclass AS what, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) acl
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL SELECT 'column ' || attrelid::regclass || '.' || attname, attacl FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid >= 16384
  UNION ALL SELECT 'function ' || oid::regprocedure, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
  UNION ALL SELECT 'type ' || t.oid::regtype, coalesce(typacl, acldefault('T', typowner)) FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
    WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd', 'c', 'r') AND coalesce(c.relkind, 'c') = 'c'
  UNION ALL SELECT format('default %s %s %s', defaclrole::regrole, defaclobjtype, defaclnamespace), defaclacl FROM pg_default_acl
) x ORDER BY 1
"""


@pytest.mark.parametrize("before", [DEFAULTS, "", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC"])
def test_new_objects_get_the_privileges_of_the_live_ones(live: Live, before: str) -> None:
    """Whatever default privileges the migrations made, or somebody by hand, a table isn't open that was closed."""
    params = live.params(drift_run.ARGUMENT_SPEC)

    def made(*scripts: str) -> tuple[list[Item], list[tuple[Any, ...]]]:
        with live.connect() as connection, scratch.scratch_database(
            connection, params, declared=drift_run._declared(params)
        ) as own:  # fmt: skip
            for script in scripts:
                own.execute(script)  # type: ignore[arg-type]
                own.execute("RESET ALL")
            return read_catalogue(own, "public"), own.execute(ACLS).fetchall()

    undone = before.replace("GRANT", "REVOKE").replace(" TO ", " FROM ") if "ALL" in before else ""
    expected, _ = made(before)
    wanted, acls = made(before, undone, "" if before == DEFAULTS else DEFAULTS, OBJECTS)
    assert ("relation vault", ["dastern_user=arwdxtm/dastern_user"]) in acls
    written = scaffold(compare(expected, wanted), expected, wanted)
    assert written.by_hand == []
    items, got = made(before, written.text([]))
    assert [row.item.key for row in compare(wanted, items) if not row.weak] == []
    assert got == acls


def test_the_snapshot_closes_what_is_closed_where_provisioning_has_been(live: Live) -> None:
    params = live.params(drift_run.ARGUMENT_SPEC)
    with live.connect() as connection, scratch.scratch_database(
        connection, params, declared=drift_run._declared(params)
    ) as own, scratch.scratch_database(
        connection, params, declared=drift_run._declared(params)
    ) as anew:  # fmt: skip
        for script in (DEFAULTS, OBJECTS):
            own.execute(script)  # type: ignore[arg-type]
        text = snapshot({**live.params(SCHEMA_SPEC, **live.container), "database": own.info.dbname})
        assert text["refused"] == []
        anew.execute(text["sql"])
        anew.execute("RESET ALL")
        assert anew.execute(ACLS).fetchall() == own.execute(ACLS).fetchall()


def test_new_enum_values_are_added_in_their_place(live: Live) -> None:
    live.run("ALTER TYPE \"Language\" ADD VALUE 'FRENCH' AFTER 'KHMER'\nALTER TYPE \"Language\" ADD VALUE 'THAI'")
    try:
        result = live.drift(write_migration="x")
        assert found(result) == ['differs enum "Language"']
        assert result["statements"] == [
            "ALTER TYPE \"Language\" ADD VALUE 'FRENCH' AFTER 'KHMER';\nALTER TYPE \"Language\" ADD VALUE 'THAI' AFTER 'ENGLISH'"
        ]
        assert replayed(live, result["migration"]) == []
        live.run("ALTER TABLE users ALTER COLUMN language SET DEFAULT 'THAI'")
        result = live.drift(write_migration="x")
        assert "into a later migration of its own" in result["by_hand"][0]
        assert "RAISE EXCEPTION" in result["migration"]
    finally:
        live.run(
            "ALTER TABLE users ALTER COLUMN language DROP DEFAULT; ALTER TABLE users ALTER COLUMN language TYPE text; "
            "DROP TYPE \"Language\"; CREATE TYPE \"Language\" AS ENUM ('KHMER', 'ENGLISH'); "
            'ALTER TABLE users ALTER COLUMN language TYPE "Language" USING language::"Language"; '
            "ALTER TABLE users ALTER COLUMN language SET DEFAULT 'KHMER'"
        )
    assert live.findings() == []


def test_an_enum_value_that_went_is_a_persons_matter(whole: Live) -> None:
    whole.run("ALTER TYPE \"Theme\" RENAME VALUE 'DARK' TO 'BLACK'")
    try:
        result = whole.drift()
        assert found(result) == ['differs enum "Theme"']
        assert result["statements"] == []
        assert "'BLACK'" in result["by_hand"][0]
    finally:
        whole.run("ALTER TYPE \"Theme\" RENAME VALUE 'BLACK' TO 'DARK'")


def test_many_changes_at_once_become_one_migration_that_explains_them(whole: Live, tmp_path: Path) -> None:
    names = [name for name, (change, _, _, complete) in CASES.items() if complete and "superuser" not in change]
    # Each of these is in the way of another one.
    skipped = ("column order", "check constraint, not valid", "comment on an index")
    names = [name for name in names if name not in skipped]
    done: list[str] = []
    try:
        for name in names:
            whole.run(filled(CASES[name][0]))
            done.append(name)
        result = whole.drift(write_migration="all_of_it")
        assert (result["by_hand"], result["left"]) == ([], [])
        assert len(result["differences"]) >= 35
        assert replayed(whole, result["migration"]) == []
    finally:
        for name in reversed(done):
            whole.run(filled(CASES[name][1]))


# --- the scratch database


def test_the_scratch_database_is_like_the_live_one_and_gone_afterwards(live: Live) -> None:
    query = (
        "SELECT encoding, datlocprovider, datcollate, datctype, datlocale, datdba, has_database_privilege('public', oid, 'CONNECT'),"
        " shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    )
    params = live.params(drift_run.ARGUMENT_SPEC)
    with live.connect() as connection, scratch.scratch_database(connection, params) as own:
        assert len(live.scratches()) == 1
        *mine, comment = own.execute(query).fetchone() or ()
        *theirs, _ = live.query(query)[0]
        assert mine == theirs
        assert mine[-1] is False
        assert comment.startswith(f"das-tern scratch database of {LIVE}, made 20")
        assert own.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").fetchone() == (
            0,
        )
    assert live.scratches() == []
    with (
        live.connect() as connection,
        pytest.raises(ZeroDivisionError),
        scratch.scratch_database(connection, params),
    ):
        raise ZeroDivisionError
    assert live.scratches() == []


def test_kill_9_leaves_a_scratch_database_that_a_later_run_drops(live: Live) -> None:
    slow = live.folder.parent / "slow"
    shutil.copytree(live.folder, slow)
    (slow / "20260302000000_slow").mkdir()
    (slow / "20260302000000_slow" / "migration.sql").write_text("SELECT pg_sleep(60);")
    live.run(
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at) SELECT 'slow', encode(sha256("
        "'SELECT pg_sleep(60);'), 'hex'), '20260302000000_slow', now()"
    )
    try:
        run = subprocess.Popen(
            live.playbook("drift", migrations_dir=str(slow)), cwd=REPOSITORY, stdout=subprocess.DEVNULL
        )
        wait_until(
            lambda: bool(
                live.query("SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND wait_event = 'PgSleep'")
            )
        )
        for pid in descendants(run.pid):
            os.kill(pid, signal.SIGKILL)
        run.wait()
    finally:
        live.run("DELETE FROM _prisma_migrations WHERE id = 'slow'")
    left = live.scratches()
    assert len(left) == 1
    free = partial(live.query, f"SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{left[0]}')")
    wait_until(lambda: bool(free()))  # the server notices within two seconds that the client is gone
    assert live.findings() == []
    assert live.scratches() == left  # too young to be called a leftover
    with live.connect(left[0]):
        assert live.drift(leftover_after=0)["drifted"] is False
        assert live.scratches() == left  # somebody works in it
    wait_until(lambda: bool(free()))
    live.drift(leftover_after=0)
    assert live.scratches() == []


def test_a_database_that_only_looks_like_a_leftover_stays(live: Live) -> None:
    names = [f"{LIVE}_scratch_0000000000000000", f"{LIVE}_scratch_mine", f"other_{LIVE}_scratch_0000000000000000"]
    with live.connect() as connection:
        for name in names:
            connection.execute(f'CREATE DATABASE "{name}"')
        connection.execute(f"COMMENT ON DATABASE \"{names[0]}\" IS 'mine'")
        try:
            live.drift(leftover_after=0)
            assert set(names[:2]) <= set(live.scratches())
            # Without a comment it is one whose run was killed before it could write it.
            connection.execute(f'COMMENT ON DATABASE "{names[0]}" IS NULL')
            live.drift(leftover_after=0)
            assert live.scratches() == [names[1]]
        finally:
            for name in names:
                connection.execute(f'DROP DATABASE IF EXISTS "{name}"')


def test_the_superuser_makes_it_where_the_role_may_not(live: Live) -> None:
    live.instance.sql("ALTER ROLE dastern_user NOCREATEDB")
    try:
        with pytest.raises(DasTernError, match="may not create one"):
            live.drift()
        assert live.findings(**live.container) == []
        assert live.scratches() == []
    finally:
        live.instance.sql("ALTER ROLE dastern_user CREATEDB")


def test_an_extension_that_only_a_superuser_may_create(live: Live) -> None:
    file = MigrationFile("1_ext", "CREATE EXTENSION IF NOT EXISTS pg_buffercache;")
    params = live.params(drift_run.ARGUMENT_SPEC)
    with live.connect() as connection:
        words = "1_ext is applied, but can't be run again.*42501.*IF NOT EXISTS"
        with pytest.raises(DasTernError, match=words), scratch.scratch_database(connection, params) as own:
            scratch.replay(own, [file], "folder")
        psql = Psql(Containers(live.instance.endpoint), live.instance.container)
        with (
            pytest.raises(DasTernError, match=words),  # the live database doesn't have it: nobody accepted it
            scratch.scratch_database(connection, params, superuser=psql, files=[file]) as own,
        ):
            scratch.replay(own, [file], "folder")
        live.instance.sql("CREATE EXTENSION pg_buffercache", LIVE)
        try:
            with scratch.scratch_database(connection, params, superuser=psql, files=[file]) as own:
                scratch.replay(own, [file], "folder")
                assert "extension pg_buffercache" in [item.key for item in read_catalogue(own, "public")]
        finally:
            live.instance.sql("DROP EXTENSION pg_buffercache", LIVE)
    assert live.scratches() == []


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)


# --- what is refused


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DO $$ BEGIN EXECUTE 'ALTER ROLE dastern_user SET work_mem = 1000'; END $$", "line 1"),
        ("BEGIN; CREATE TABLE t ()", "begins a transaction and doesn't end it"),
        ("SELECT 1/0", "22012"),
    ],
)
def test_migrations_that_cannot_be_replayed(whole: Live, sql: str, words: str) -> None:
    params = whole.params(drift_run.ARGUMENT_SPEC)
    with (
        whole.connect() as connection,
        pytest.raises(DasTernError) as refusal,
        scratch.scratch_database(connection, params) as own,
    ):
        scratch.replay(own, [MigrationFile("1_bad", sql)], "folder")
    assert words in refusal.value.message
    assert "1_bad" in refusal.value.message


def test_what_all_databases_share_is_left_out_of_a_replay(whole: Live) -> None:
    params = whole.params(drift_run.ARGUMENT_SPEC)
    sql = f"ALTER DATABASE {LIVE} SET work_mem = '1MB';\nALTER ROLE dastern_user SET work_mem = '1MB';\nCREATE TABLE t ();"
    with whole.connect() as connection, scratch.scratch_database(connection, params) as own:
        left = scratch.replay(own, [MigrationFile("1_shared", sql)], "folder")
        assert own.execute("SELECT to_regclass('t')").fetchone() == ("t",)
        assert connection.execute(
            "SELECT count(*) FROM pg_db_role_setting WHERE 'work_mem=1MB' = ANY (setconfig)"
        ).fetchone() == (0,)
    assert [f"folder/1_shared/migration.sql, line {line}" in words for line, words in enumerate(left, 1)] == [
        True,
        True,
    ]


def test_edited_and_missing_files_are_refused_by_name(whole: Live, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(whole.folder, folder)
    (folder / MORE_NAME / "migration.sql").write_text("SELECT 1;")
    shutil.rmtree(folder / "20260208074559_init")
    changed = [{"name": file.name, "sql": file.sql} for file in read_folder(folder)]
    with pytest.raises(DasTernError) as refusal:
        whole.drift(migrations=changed)
    assert f"{MORE_NAME} was edited" in refusal.value.message
    assert "20260208074559_init is applied in the database, but" in refusal.value.message


def test_pending_migrations_are_not_part_of_the_comparison(whole: Live) -> None:
    more = [*whole.params(drift_run.ARGUMENT_SPEC)["migrations"], {"name": "3_new", "sql": "CREATE TABLE t ();"}]
    result = whole.drift(migrations=more)
    assert (result["pending"], result["differences"]) == (["3_new"], [])


def test_a_running_migration_and_a_missing_ledger_are_refused(whole: Live) -> None:
    with whole.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(72707369)")
        with pytest.raises(DasTernError, match="A migration is running: pid"):
            whole.drift()
        connection.execute("SELECT pg_advisory_unlock(72707369)")
        connection.execute("ALTER TABLE _prisma_migrations RENAME TO elsewhere")
        try:
            with pytest.raises(DasTernError, match="P3005"):
                whole.drift()
        finally:
            connection.execute("ALTER TABLE elsewhere RENAME TO _prisma_migrations")


def test_who_keeps_a_table_locked_is_named(whole: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_run, "LOCK_TIMEOUT", "1s")
    with whole.connect() as other:
        other.execute("BEGIN; LOCK TABLE users")
        with pytest.raises(DasTernError) as failure:
            whole.drift()
        assert failure.value.facts["sqlstate"] == "55P03"
        assert [one["pid"] for one in failure.value.facts["blockers"]] == [other.info.backend_pid]


# --- the playbooks


@pytest.mark.parametrize("interpreter", [None, "another path to the same Python"])
def test_drift_playbook(whole: Live, tmp_path: Path, interpreter: str | None) -> None:
    variables: dict[str, Any] = {}
    if interpreter:
        (tmp_path / "environment").symlink_to(sys.prefix)
        variables["ansible_python_interpreter"] = tmp_path / "environment" / "bin" / "python"
    folder = tmp_path / "migrations"
    shutil.copytree(whole.folder, folder)
    variables["migrations_dir"] = folder
    clean = whole.play("drift", "-vvv", **variables)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert ("no drift: " in clean.stdout, "· 0 changed ·" in clean.stdout) == (True, True)
    assert whole.instance.password not in clean.stdout + clean.stderr
    whole.run('CREATE INDEX urgent ON prescriptions (id) WHERE "isUrgent"')
    try:
        bad = whole.play("drift", **variables)
        output = bad.stdout + bad.stderr
        assert bad.returncode == 2
        for words in (
            "1 object differs",
            "unexpected  index  urgent  CREATE INDEX urgent ON prescriptions",
            "write_migration=NAME",
        ):
            assert words in output, output
        assert "Traceback" not in output
        assert whole.play("drift", drift_fail="false", **variables).returncode == 0
        names = os.listdir(folder)
        check = whole.play("drift", "--check", "--diff", write_migration="add_urgent_index", **variables)
        assert (check.returncode, "+CREATE INDEX urgent ON prescriptions" in check.stdout) == (0, True), check.stdout
        assert os.listdir(folder) == names
        done = whole.play("drift", write_migration="add_urgent_index", **variables)
        assert (done.returncode, "· 1 changed ·" in done.stdout) == (0, True), done.stdout
        assert "complete: tried in a scratch database, it leaves no difference" in " ".join(done.stdout.split())
        [new] = set(os.listdir(folder)) - set(names)
        assert re.fullmatch(r"20\d{12}_add_urgent_index", new)
        text = (folder / new / "migration.sql").read_text()
        assert text.endswith('\n\nCREATE INDEX urgent ON prescriptions USING btree (id) WHERE "isUrgent";\n')
        again = whole.play("drift", write_migration="add_urgent_index", **variables)
        assert (again.returncode, "· 0 changed ·" in again.stdout) == (0, True), again.stdout
        # The names and stamps are those of new_migration.yml.
        (folder / new).rename(folder / "20991231235959_add_urgent_index")
        (folder / "20991231235959_add_urgent_index" / "migration.sql").write_text("SELECT 1;")
        for name, words in (("urgent;", "The name 'urgent;' holds ';'"), ("add_urgent_index", "exists already")):
            refused = whole.play("drift", write_migration=name, **variables)
            assert (refused.returncode, words in refused.stdout + refused.stderr) == (2, True), refused.stdout
        late = whole.play("drift", write_migration="index_what_is_urgent", **variables)
        assert late.returncode == 0, late.stdout
        assert "Is the clock right?" in " ".join(late.stderr.split())
        assert (folder / "21000101000000_index_what_is_urgent" / "migration.sql").read_text() == text
    finally:
        whole.run("DROP INDEX urgent")


def test_schema_playbook(whole: Live, tmp_path: Path) -> None:
    files = {
        "migrations_schema_file": tmp_path / "a" / "schema.sql",
        "migrations_schema_docs": tmp_path / "b" / "README.md",
    }
    check = whole.play("schema", "--check", "--diff", **files)
    assert (check.returncode, "· 1 changed ·" in check.stdout, "+CREATE TABLE public.extras (" in check.stdout) == (
        0,
        True,
        True,
    ), check.stdout
    assert list(tmp_path.iterdir()) == []
    stale = whole.play("schema", schema_check="true", **files)
    assert stale.returncode == 2
    assert " playbooks/schema.yml` writes them anew" in " ".join((stale.stdout + stale.stderr).split())
    assert list(tmp_path.iterdir()) == []
    done = whole.play("schema", **files)
    assert "· 1 changed ·" in done.stdout, done.stdout
    for arguments, variables in (((), {}), (("--check",), {}), ((), {"schema_check": "true"})):
        again = whole.play("schema", *arguments, **files, **variables)
        assert (again.returncode, "· 0 changed ·" in again.stdout) == (0, True), again.stdout


# What the snapshot has to make again, asked past the reader of catalogues: one that overlooks something overlooks it twice.
PROBES = (
    """SELECT a.attrelid::regclass::text, a.attname, a.atthasdef, a.attnotnull, a.attstattarget,
         CASE WHEN c.relkind NOT IN ('i', 'I') THEN concat(a.attstorage, a.attcompression) END, ARRAY(SELECT x::text FROM unnest(a.attacl) x ORDER BY 1)
       FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
       WHERE c.relnamespace = 'public'::regnamespace AND NOT a.attisdropped AND c.relname !~ '^_prisma' ORDER BY 1, 2""",
    """SELECT c.oid::regclass::text, ARRAY(SELECT x FROM unnest(c.reloptions) x ORDER BY 1), t.reloptions,
         ARRAY(SELECT x::text FROM unnest(c.relacl) x ORDER BY 1)
       FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
       WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ '^_prisma' ORDER BY 1""",
    "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
    "SELECT castsource::regtype::text, casttarget::regtype::text, castmethod, castcontext FROM pg_cast WHERE oid >= 16384 ORDER BY 1, 2",
    """SELECT pg_describe_object(classoid, objoid, objsubid), description FROM pg_description
       WHERE objoid >= 16384 AND classoid <> 'pg_extension'::regclass ORDER BY 1""",
)


# Where one table was attached and one column added later: what differs from how pg_dump makes it differs from itself, too.
ROUND_TRIP = """
CREATE TABLE rounds (id int PRIMARY KEY, status varchar(20) NOT NULL CHECK (status IN ('a', 'b')), at timestamp CHECK (at > '2020-01-01'));
CREATE INDEX rounds_open ON rounds (id) WHERE status IN ('a', 'b');
CREATE VIEW open_rounds AS SELECT id FROM rounds WHERE status IN ('a', 'b');
CREATE AGGREGATE how_many (*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0', SSPACE = 8, MSFUNC = int8inc, MINVFUNC = int8dec, MSTYPE = int8, MINITCOND = '0');
CREATE FUNCTION is_mail(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 LIKE '%@%' $$;
CREATE DOMAIN a_mail AS text CHECK (is_mail(VALUE));
CREATE TABLE parents (a int); CREATE TABLE children () INHERITS (parents);
ALTER TABLE parents ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
CREATE TABLE whole (id int DEFAULT 1, at date DEFAULT CURRENT_DATE, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE part PARTITION OF whole FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
ALTER TABLE part ALTER COLUMN id DROP DEFAULT, ALTER COLUMN at DROP DEFAULT;
CREATE SCHEMA "My auth"; CREATE TABLE "My auth"."user" (id int PRIMARY KEY); CREATE TABLE posts (author int REFERENCES "My auth"."user");
"""


def test_the_snapshot_makes_the_same_schema_anew(whole: Live) -> None:
    params = whole.params(drift_run.ARGUMENT_SPEC)
    superuser = Psql(Containers(whole.instance.endpoint), whole.instance.container)
    with whole.connect() as connection, scratch.scratch_database(
        connection, params, declared=drift_run._declared(params)
    ) as own, scratch.scratch_database(
        connection, params, declared=drift_run._declared(params)
    ) as anew:  # fmt: skip
        scratch.replay(own, read_folder(whole.folder), str(whole.folder))
        own.execute(ROUND_TRIP)
        text = snapshot({**whole.params(SCHEMA_SPEC, **whole.container), "database": own.info.dbname})
        assert text["refused"] == []
        anew.execute(text["sql"])
        anew.execute("RESET ALL")
        assert "\nGRANT SELECT(n) ON TABLE public.themes TO PUBLIC;" in text["sql"]
        for probe in PROBES:
            assert anew.execute(probe).fetchall() == own.execute(probe).fetchall()  # type: ignore[call-overload]
        # PostgreSQL's own word: of what was loaded it writes the same, and the same again.
        again = snapshot({**whole.params(SCHEMA_SPEC, **whole.container), "database": anew.info.dbname})
        assert (again["sql"], again["docs"]) == (text["sql"], text["docs"])
        assert normalised(schema_of(superuser, anew.info.dbname, *OPTIONS), "dastern_readonly") in text["sql"]


def test_what_only_a_superuser_loads_is_named_in_the_snapshot(whole: Live) -> None:
    whole.run(
        "superuser: CREATE FUNCTION eye() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
        "CREATE EVENT TRIGGER spy ON ddl_command_end EXECUTE FUNCTION eye(); CREATE EXTENSION pg_buffercache"
    )
    try:
        text = snapshot(whole.params(SCHEMA_SPEC, **whole.container))
        [refused] = text["refused"]
        assert refused.startswith("CREATE EVENT TRIGGER spy ON ddl_command_end")
        assert refused.endswith(': 42501: permission denied to create event trigger "spy"')
        assert f"-- The database's owner can't create: {refused}\n" in text["sql"]
        assert "\nCREATE EVENT TRIGGER spy ON ddl_command_end" in text["sql"]
        assert "\nCREATE EXTENSION IF NOT EXISTS pg_buffercache WITH SCHEMA public;\n" in text["sql"]
    finally:
        whole.run("superuser: DROP EVENT TRIGGER spy; DROP FUNCTION eye(); DROP EXTENSION pg_buffercache")


def test_the_snapshot_needs_the_servers_own_pg_dump(whole: Live) -> None:
    with pytest.raises(DasTernError, match="postgres_container_name"):
        snapshot(whole.params(SCHEMA_SPEC))


def test_the_snapshot_in_the_repository_is_current(live: Live, tmp_path: Path) -> None:
    params = live.params(drift_run.ARGUMENT_SPEC)
    with live.connect() as connection, scratch.scratch_database(
        connection, params, declared=drift_run._declared(params)
    ) as own:  # fmt: skip
        scratch.replay(own, read_folder(REPOSITORY / "files/sql/migrations"), "files/sql/migrations")
        text = snapshot({**live.params(SCHEMA_SPEC, **live.container), "database": own.info.dbname})
    assert (REPOSITORY / "files/sql/schema.sql").read_text() == text["sql"]
    assert (REPOSITORY / "docs/schema/README.md").read_text() == text["docs"]
