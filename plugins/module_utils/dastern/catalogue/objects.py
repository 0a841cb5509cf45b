"""Read the objects of schemas from the server's catalogue: one `Item` per object, each with its definition as text.

Definitions come from PostgreSQL's own functions (`pg_get_constraintdef` and the like) in one read-only transaction whose
search path is the first schema, so that names in it are written without a schema, all others with theirs, and two
databases, or two servers, give equal texts. Left out are the ledger, members of an extension (the extension stands for
them), versions of extensions (the image decides them), whether a materialized view is filled, and the current value of a
sequence. Kinds without a query of their own here (operators, text search and the like) are listed by name; only their
existence and owner-independent identity are compared. docs/roles/migrations.md lists the kinds that are ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..common.errors import DasTernError
from ..common.migration_files import LEDGER
from ..common.sql_values import identifier, literal

if TYPE_CHECKING:
    import psycopg

Address = tuple[int, int, int]
"""The address of an object in pg_depend: catalogue, oid, column number or 0."""

_DATABASE = "DATABASE :database"
"""The database in a definition, because its name isn't compared. Such an item has the fact `of_database`."""

Privileges = Mapping[str, Set[tuple[str, bool]]]
"""By role, as SQL writes it: each privilege, and whether the role may grant it to others."""

KINDS_BY_DEFAULT = {
    "table": "TABLES", "foreign table": "TABLES", "view": "TABLES", "materialized view": "TABLES",
    "sequence": "SEQUENCES", "identity": "SEQUENCES",
    "function": "FUNCTIONS", "procedure": "FUNCTIONS", "aggregate": "FUNCTIONS",
    "enum": "TYPES", "composite type": "TYPES", "domain": "TYPES", "range type": "TYPES",
}  # fmt: skip
"""The name of a kind of objects in ALTER DEFAULT PRIVILEGES. Such an item has the facts `acl`, its actual privileges, and
`usual`, those that the server gives without default privileges."""

_IN_A_SCHEMA = ("pg_class", "pg_type", "pg_proc", "pg_collation", "pg_statistic_ext")
WEAK = ("column order",)
"""Kinds that make no difference to a program that names its columns: reported, but not drift."""

_BEGIN = """
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL search_path = {schema};
SET LOCAL quote_all_identifiers = off;
SET LOCAL standard_conforming_strings = on;
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL extra_float_digits = 1;
SET LOCAL bytea_output = 'hex'
"""
_CLASSES = """
SELECT relname, oid FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relname IN ('pg_class',
  'pg_attrdef', 'pg_constraint', 'pg_type', 'pg_proc', 'pg_trigger', 'pg_policy', 'pg_rewrite', 'pg_extension',
  'pg_namespace', 'pg_statistic_ext', 'pg_collation', 'pg_default_acl', 'pg_database', 'pg_cast')
"""
_SCHEMA = """
SELECT n.oid, quote_ident(n.nspname),
  CASE n.nspowner WHEN 'pg_database_owner'::regrole THEN pg_get_userbyid(d.datdba) ELSE pg_get_userbyid(n.nspowner) END,
  d.oid, pg_get_userbyid(d.datdba)
FROM pg_namespace n, pg_database d WHERE n.nspname = %s AND d.datname = current_database()
"""
# Schemas that somebody created or put something into, except by an extension.
_SCHEMAS = """
SELECT n.nspname FROM pg_catalog.pg_namespace n
WHERE n.nspname <> %(schema)s AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND objid = n.oid AND deptype = 'e')
  AND (n.nspname <> 'public' OR EXISTS (
    SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = n.oid AND d.deptype = 'n'
      AND d.classid <> 'pg_catalog.pg_default_acl'::pg_catalog.regclass AND d.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE (e.classid, e.objid) = (d.classid, d.objid) AND e.deptype = 'e')))
ORDER BY 1
"""
_RELATIONS = """
SELECT c.oid, c.relkind, quote_ident(c.relname), c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
  c.relreplident, pg_get_userbyid(c.relowner),
  c.reloptions || ARRAY(SELECT 'toast.' || o FROM pg_class t, unnest(t.reloptions) o WHERE t.oid = c.reltoastrelid),
  c.relname = %(ledger)s AS is_ledger, c.reltype,
  CASE WHEN am.amname <> 'heap' THEN quote_ident(am.amname) END, quote_ident(ts.spcname),
  pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid),
  ARRAY(SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno),
  CASE WHEN c.reloftype <> 0 THEN c.reloftype::regtype::text END,
  CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
  (SELECT format('SERVER %%I', s.srvname) || coalesce(' OPTIONS (' || (
     SELECT string_agg(format('%%I %%L', o.option_name, o.option_value), ', ') FROM pg_options_to_table(f.ftoptions) o) || ')', '')
   FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
  EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhdetachpending)
FROM pg_class c LEFT JOIN pg_am am ON am.oid = c.relam AND c.relkind IN ('r', 'm')
LEFT JOIN pg_tablespace ts ON ts.oid = c.reltablespace
WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
# The columns of a typed table belong to its type, as those of a partition belong to the partitioned table. A column without
# a default may inherit from a column with one, however far above: a partition was attached, or ALTER TABLE ONLY was used.
# Only the two options of a column that the manual names are read (ALTER TABLE, "per-attribute options"): a server may keep
# others there for itself, such as a `pg_attver` that differs for every table ever created.
_COLUMNS = """
WITH RECURSIVE above (child, parent) AS (
  SELECT inhrelid, inhparent FROM pg_inherits
  UNION SELECT a.child, i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.parent
), defaulted AS (
  SELECT DISTINCT a.child, p.attname FROM above a JOIN pg_attribute p ON p.attrelid = a.parent AND p.attgenerated = ''
  JOIN pg_attrdef e ON e.adrelid = p.attrelid AND e.adnum = p.attnum
)
SELECT a.attrelid, a.attnum, a.attname, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
  CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END,
  a.attnotnull, a.attidentity, a.attgenerated,
  a.attislocal AND c.reloftype = 0 AND c.relkind NOT IN ('v', 'm'), c.relhassubclass, d.oid,
  CASE WHEN d.oid IS NOT NULL THEN pg_get_expr(d.adbin, d.adrelid) WHEN a.attinhcount > 0 AND u.child IS NOT NULL THEN 'NULL' END,
  CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage END, a.attcompression, coalesce(a.attstattarget, -1),
  ARRAY(SELECT o FROM unnest(a.attoptions) o WHERE split_part(o, '=', 1) IN ('n_distinct', 'n_distinct_inherited'))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN defaulted u ON u.child = a.attrelid AND u.attname = a.attname
WHERE c.relnamespace = %(schema)s AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""
_CONSTRAINTS = """
WITH RECURSIVE disabled (oid) AS (
  SELECT tgconstraint FROM pg_trigger WHERE tgisinternal AND tgenabled <> 'O' AND tgconstraint <> 0
  UNION SELECT k.conparentid FROM disabled JOIN pg_constraint k USING (oid) WHERE k.conparentid <> 0
)
SELECT c.oid, c.conrelid, c.conindid, c.conname, quote_ident(c.conname), c.contype, pg_get_constraintdef(c.oid),
  ARRAY(SELECT a.attname FROM unnest(c.conkey) WITH ORDINALITY k (n, place)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n ORDER BY place), c.confrelid,
  c.oid IN (SELECT oid FROM disabled),
  EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.conindid AND c.contype <> 'f'
    AND NOT (i.indisvalid AND i.indisready AND i.indislive))
FROM pg_constraint c
WHERE c.connamespace = %(schema)s AND c.conrelid <> 0 AND c.contype IN ('c', 'f', 'p', 'u', 'x') AND c.conislocal
  AND c.conparentid = 0
"""
_INDEXES = """
SELECT i.indexrelid, i.indrelid, quote_ident(c.relname), pg_get_indexdef(i.indexrelid, 0, true), quote_ident(ts.spcname),
  i.indisvalid AND i.indisready AND i.indislive, i.indisreplident, i.indisclustered,
  EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')),
  i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL,
  ARRAY(SELECT a.attname FROM unnest(i.indkey[:i.indnkeyatts - 1]) WITH ORDINALITY k (n, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n ORDER BY place),
  c.reloptions, ARRAY(SELECT ARRAY[a.attnum::integer, a.attstattarget] FROM pg_attribute a
    WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0 ORDER BY a.attnum)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_tablespace ts ON ts.oid = c.reltablespace
WHERE c.relnamespace = %(schema)s AND NOT c.relispartition
"""
_SEQUENCES = """
SELECT c.oid, quote_ident(c.relname), c.relpersistence, pg_get_userbyid(c.relowner), format_type(s.seqtypid, NULL),
  format('INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s START WITH %%s CACHE %%s %%sCYCLE', s.seqincrement, s.seqmin, s.seqmax,
    s.seqstart, s.seqcache, CASE WHEN s.seqcycle THEN '' ELSE 'NO ' END), d.deptype, d.refobjid, d.refobjsubid,
  ARRAY[s.seqincrement, s.seqmin, s.seqmax]
FROM pg_class c JOIN pg_sequence s ON s.seqrelid = c.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
  AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
WHERE c.relnamespace = %(schema)s AND c.relkind = 'S'
"""
_TYPES = """
SELECT t.oid, t.typtype, quote_ident(t.typname), pg_get_userbyid(t.typowner), t.typarray, t.typrelid,
  CASE WHEN t.typtype = 'e' THEN ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) END,
  CASE t.typtype
    WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod)
      || CASE WHEN t.typcollation <> b.typcollation THEN ' COLLATE ' || t.typcollation::regcollation::text ELSE '' END
      || coalesce(' DEFAULT ' || t.typdefault, '') || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
      || coalesce((SELECT string_agg(format(' CONSTRAINT %%I %%s', k.conname, pg_get_constraintdef(k.oid)), '' ORDER BY k.conname)
                   FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c' AND k.convalidated), '')
    WHEN 'c' THEN '(' || coalesce((SELECT string_agg(format('%%I %%s', a.attname, format_type(a.atttypid, a.atttypmod))
        || CASE WHEN a.attcollation <> y.typcollation THEN ' COLLATE ' || a.attcollation::regcollation::text ELSE '' END, ', ' ORDER BY a.attnum)
      FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
      WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), '') || ')'
    WHEN 'r' THEN (SELECT format('(SUBTYPE = %%s, SUBTYPE_OPCLASS = %%I%%s%%s%%s, MULTIRANGE_TYPE_NAME = %%s)', r.rngsubtype::regtype,
        o.opcname, CASE WHEN r.rngcollation <> 0 THEN ', COLLATION = ' || r.rngcollation::regcollation::text END,
        CASE WHEN r.rngcanonical <> 0 THEN ', CANONICAL = ' || r.rngcanonical::regproc::text END,
        CASE WHEN r.rngsubdiff <> 0 THEN ', SUBTYPE_DIFF = ' || r.rngsubdiff::regproc::text END, r.rngmultitypid::regtype)
      FROM pg_range r JOIN pg_opclass o ON o.oid = r.rngsubopc WHERE r.rngtypid = t.oid)
    ELSE '' END,
  ARRAY(SELECT format('%%I %%s', k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k
    WHERE k.contypid = t.oid AND k.contype = 'c' AND NOT k.convalidated ORDER BY k.conname)
FROM pg_type t LEFT JOIN pg_type b ON b.oid = t.typbasetype LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = %(schema)s AND t.typtype IN ('b', 'e', 'd', 'c', 'r') AND (t.typtype <> 'c' OR c.relkind = 'c')
  AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
"""
# The constructors of a range type are created with it, and left out.
_FUNCTIONS = """
SELECT p.oid, p.prokind, quote_ident(p.proname), pg_get_function_identity_arguments(p.oid), oidvectortypes(p.proargtypes),
  pg_get_userbyid(p.proowner), CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END,
  (SELECT concat_ws(', ', 'SFUNC = ' || a.aggtransfn::regproc, 'STYPE = ' || format_type(a.aggtranstype, NULL),
     'SSPACE = ' || nullif(a.aggtransspace, 0), 'FINALFUNC = ' || nullif(a.aggfinalfn, 0)::regproc,
     CASE WHEN a.aggfinalextra THEN 'FINALFUNC_EXTRA' END,
     'FINALFUNC_MODIFY = ' || CASE WHEN a.aggfinalfn <> 0 AND a.aggfinalmodify <> k.usual THEN k.words ->> a.aggfinalmodify::text END,
     'COMBINEFUNC = ' || nullif(a.aggcombinefn, 0)::regproc, 'SERIALFUNC = ' || nullif(a.aggserialfn, 0)::regproc,
     'DESERIALFUNC = ' || nullif(a.aggdeserialfn, 0)::regproc, 'INITCOND = ' || quote_literal(a.agginitval),
     'MSFUNC = ' || nullif(a.aggmtransfn, 0)::regproc, 'MINVFUNC = ' || nullif(a.aggminvtransfn, 0)::regproc,
     'MSTYPE = ' || CASE WHEN a.aggmtranstype <> 0 THEN format_type(a.aggmtranstype, NULL) END,
     'MSSPACE = ' || nullif(a.aggmtransspace, 0), 'MFINALFUNC = ' || nullif(a.aggmfinalfn, 0)::regproc,
     CASE WHEN a.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END,
     'MFINALFUNC_MODIFY = ' || CASE WHEN a.aggmfinalfn <> 0 AND a.aggmfinalmodify <> k.usual THEN k.words ->> a.aggmfinalmodify::text END,
     'MINITCOND = ' || quote_literal(a.aggminitval),
     (SELECT format('SORTOP = OPERATOR(%%I.%%s)', n.nspname, o.oprname) FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
      WHERE o.oid = a.aggsortop),
     CASE WHEN a.aggkind = 'h' THEN 'HYPOTHETICAL' END,
     CASE p.proparallel WHEN 's' THEN 'PARALLEL = SAFE' WHEN 'r' THEN 'PARALLEL = RESTRICTED' END)
   FROM pg_aggregate a, LATERAL (SELECT CASE a.aggkind WHEN 'n' THEN 'r' ELSE 'w' END::"char" AS usual,
     '{"r": "READ_ONLY", "s": "SHAREABLE", "w": "READ_WRITE"}'::jsonb AS words) k WHERE a.aggfnoid = p.oid)
FROM pg_proc p WHERE p.pronamespace = %(schema)s
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
"""
# A partition's copy of a trigger has a higher oid than its original.
_TRIGGERS = """
SELECT g.oid, g.tgrelid, quote_ident(g.tgname), pg_get_triggerdef(g.oid, true), g.tgenabled, p.oid, p.tgenabled
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid LEFT JOIN pg_trigger p ON p.oid = g.tgparentid
WHERE c.relnamespace = %(schema)s AND NOT g.tgisinternal ORDER BY g.oid
"""
_POLICIES = """
SELECT p.oid, p.polrelid, quote_ident(p.polname), format('AS %%s FOR %%s TO %%s',
    CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE p.polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' ELSE 'DELETE' END,
    (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ' ORDER BY r) FROM unnest(p.polroles) r))
  || coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
  || coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = %(schema)s
"""
_RULES = """
SELECT r.oid, r.ev_class, r.rulename, quote_ident(r.rulename), pg_get_ruledef(r.oid, true), r.ev_enabled
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = %(schema)s
"""
_STATISTICS = """
SELECT s.oid, s.stxrelid, quote_ident(s.stxname), pg_get_statisticsobjdef(s.oid), coalesce(s.stxstattarget, -1), pg_get_userbyid(s.stxowner)
FROM pg_statistic_ext s WHERE s.stxnamespace = %(schema)s
"""
_COLLATIONS = """
SELECT c.oid, quote_ident(c.collname), pg_get_userbyid(c.collowner), 'PROVIDER = '
  || CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END
  || coalesce(', LOCALE = ' || quote_literal(c.colllocale), '') || coalesce(', LC_COLLATE = ' || quote_literal(c.collcollate), '')
  || coalesce(', LC_CTYPE = ' || quote_literal(c.collctype), '') || coalesce(', RULES = ' || quote_literal(c.collicurules), '')
  || CASE WHEN c.collisdeterministic THEN '' ELSE ', DETERMINISTIC = false' END
FROM pg_collation c WHERE c.collnamespace = %(schema)s
"""
# A cast is in no schema. Read are casts of the schema's types and functions, and those between the server's own types. The
# cast from a range type to its multirange is created with the type, and left out.
_CASTS = """
SELECT k.oid, format('(%%s AS %%s)', format_type(k.castsource, NULL), format_type(k.casttarget, NULL)),
  CASE k.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || k.castfunc::regprocedure WHEN 'i' THEN 'WITH INOUT'
    ELSE 'WITHOUT FUNCTION' END || CASE k.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' ELSE '' END
FROM pg_cast k JOIN pg_type s ON s.oid = k.castsource JOIN pg_type t ON t.oid = k.casttarget
LEFT JOIN pg_proc f ON f.oid = k.castfunc
WHERE k.oid >= 16384 AND (%(schema)s IN (s.typnamespace, t.typnamespace, f.pronamespace)
  OR (s.typnamespace, t.typnamespace) = ('pg_catalog'::regnamespace, 'pg_catalog'::regnamespace))
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'i')
"""
_EXTENSIONS = """
SELECT e.oid, quote_ident(e.extname), CASE WHEN n.nspname <> 'pg_catalog' THEN quote_ident(n.nspname) END
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
"""
_DATABASE_WIDE = """
SELECT 'event trigger', quote_ident(evtname), concat_ws(' ', evtevent, evtfoid::regproc, evttags, evtenabled) FROM pg_event_trigger
UNION ALL SELECT 'publication', quote_ident(p.pubname), concat_ws(' ', p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
  CASE WHEN p.pubviaroot THEN 'via root' END,
  (SELECT string_agg(concat_ws(' ', t.schemaname, t.tablename, t.attnames, t.rowfilter), ', ' ORDER BY 1)
   FROM pg_publication_tables t WHERE t.pubname = p.pubname)) FROM pg_publication p
UNION ALL SELECT 'setting', 'database' || coalesce(' for ' || quote_ident(r.rolname), '') || ' ' || split_part(c, '=', 1),
  substr(c, strpos(c, '=') + 1)
FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_OTHERS = """
SELECT i.type, i.identity FROM pg_depend d, pg_identify_object(d.classid, d.objid, 0) i
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = %(schema)s AND d.deptype = 'n' AND d.classid NOT IN (
  'pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass, 'pg_collation'::regclass, 'pg_statistic_ext'::regclass,
  'pg_default_acl'::regclass, 'pg_extension'::regclass, 'pg_publication_namespace'::regclass)
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
"""
# Only where privileges were ever granted or revoked: the actual privileges beside the default ones.
_PRIVILEGES = """
SELECT o.classid, o.objid, o.sub, quote_ident(o.part), x.of_default,
  CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, x.privilege_type, x.is_grantable,
  x.grantee = o.owner
FROM (
  SELECT 'pg_class'::regclass::oid AS classid, oid AS objid, 0 AS sub, NULL::name AS part, relacl AS acl,
    acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner) AS usual, relowner AS owner
    FROM pg_class WHERE relnamespace = %(schema)s
  UNION ALL SELECT 'pg_class'::regclass, a.attrelid, a.attnum, a.attname, a.attacl, NULL, c.relowner FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = %(schema)s AND NOT a.attisdropped
  UNION ALL SELECT 'pg_proc'::regclass, oid, 0, NULL, proacl, acldefault('f', proowner), proowner
    FROM pg_proc WHERE pronamespace = %(schema)s
  UNION ALL SELECT 'pg_type'::regclass, oid, 0, NULL, typacl, acldefault('T', typowner), typowner
    FROM pg_type WHERE typnamespace = %(schema)s
  UNION ALL SELECT 'pg_namespace'::regclass, oid, 0, NULL, nspacl, acldefault('n', nspowner), nspowner
    FROM pg_namespace WHERE oid = %(schema)s
  UNION ALL SELECT 'pg_database'::regclass, oid, 0, NULL, datacl, acldefault('d', datdba), datdba
    FROM pg_database WHERE datname = current_database()
) o, LATERAL (SELECT false AS of_default, e.* FROM aclexplode(o.acl) e UNION ALL SELECT true, e.* FROM aclexplode(o.usual) e) x
WHERE o.acl IS NOT NULL
"""
# The privileges of a new object of the database's owner without default privileges.
_USUAL_PRIVILEGES = """
SELECT k.kind, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, x.privilege_type, x.is_grantable
FROM pg_database d, (VALUES ('TABLES', 'r'), ('SEQUENCES', 's'), ('FUNCTIONS', 'f'), ('TYPES', 'T')) k (kind, letter),
  aclexplode(acldefault(k.letter::"char", d.datdba)) x WHERE d.datname = current_database()
"""
_DEFAULT_PRIVILEGES = """
SELECT quote_ident(pg_get_userbyid(d.defaclrole)), CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
    WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END,
  (SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE n.oid = d.defaclnamespace), x.of_default,
  CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, x.privilege_type, x.is_grantable,
  d.defaclrole = (SELECT datdba FROM pg_database WHERE datname = current_database())
FROM pg_default_acl d, LATERAL (SELECT false AS of_default, e.* FROM aclexplode(d.defaclacl) e
  UNION ALL SELECT true, e.* FROM aclexplode(CASE d.defaclnamespace WHEN 0 THEN acldefault(
    CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END, d.defaclrole) END) e) x
WHERE d.defaclnamespace IN (0, %(schema)s)
"""
_COMMENTS = """
SELECT d.classoid, d.objoid, d.objsubid, d.description, quote_ident(a.attname), k.contypid, quote_ident(k.conname)
FROM pg_description d
LEFT JOIN pg_attribute a ON d.classoid = 'pg_class'::regclass AND d.objsubid <> 0 AND a.attrelid = d.objoid AND a.attnum = d.objsubid
LEFT JOIN pg_constraint k ON d.classoid = 'pg_constraint'::regclass AND k.oid = d.objoid AND k.contypid <> 0
WHERE d.objoid >= 16384
"""
# A domain's constraints are part of its definition: the domain needs whatever they need.
_DOMAIN_CONSTRAINTS = """
SELECT k.oid, k.contypid FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid WHERE t.typnamespace = %(schema)s
"""
_MEMBERS = (
    "SELECT classid, objid, refobjid FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass"
)
_DEPENDENCIES = """
SELECT classid, objid, objsubid, refclassid, refobjid, refobjsubid FROM pg_depend
WHERE objid >= 16384 AND refobjid >= 16384 AND deptype IN ('n', 'a', 'i', 'P', 'S')
"""


@dataclass(frozen=True)
class Item:
    """One object of the schema.

    `definition` is shown and compared; `create` is the SQL that creates the object, `undo` the SQL that removes it again
    without losing rows, '' where a person has to decide. `target` is its name in SQL (`TABLE users`,
    `CONSTRAINT users_pkey ON users`). `parent` is the key of the object that it is dropped with. `needs` are keys of objects
    that have to exist before it. `broken` is a fault of the object in the database that its definition doesn't show, such as
    INVALID.
    """

    kind: str
    name: str
    definition: str
    create: str = field(default="", compare=False)
    undo: str = field(default="", compare=False)
    target: str = field(default="", compare=False)
    parent: str = ""
    needs: frozenset[str] = field(default=frozenset(), compare=False)
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    broken: str = ""

    @property
    def meaning(self) -> str:
        """Return the text to compare: line endings in a body don't count, because a checkout may change them."""
        return self.shown.replace("\r\n", "\n") if self.kind in ("function", "procedure", "comment") else self.shown

    @property
    def shown(self) -> str:
        return f"{self.definition} -- {self.broken}" if self.broken else self.definition

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"


def fingerprint(items: Iterable[Item]) -> str:
    """Return the SHA-256 of kind, name and definition of all items, sorted so that equal schemas give equal digests."""
    lines = sorted(json.dumps([item.kind, item.name, item.meaning], ensure_ascii=False) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_catalogue(connection: psycopg.Connection[Any], schema: str, others: Iterable[str] = ()) -> list[Item]:
    """Return all items in `schema` and in those of `others` that exist, and the items of the database as a whole.

    The connection is in autocommit mode and outside a transaction. Raise `DasTernError` if `schema` doesn't exist.
    """
    reader = _Reader(connection, schema, others)
    connection.execute(_BEGIN.format(schema=identifier(schema)))  # type: ignore[arg-type]
    try:
        return reader.read()
    finally:
        connection.execute("ROLLBACK")


def read_catalogue_within(connection: psycopg.Connection[Any], schema: str, others: Iterable[str] = ()) -> list[Item]:
    """Return the same items as the open transaction of `connection` sees them, and leave the transaction as it was."""
    begin = _BEGIN.replace("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SAVEPOINT catalogue")
    connection.execute(begin.format(schema=identifier(schema)))  # type: ignore[arg-type]
    items = _Reader(connection, schema, others).read()
    connection.execute("ROLLBACK TO SAVEPOINT catalogue; RELEASE SAVEPOINT catalogue")
    return items


def schemas_besides(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    """Return the schemas besides `schema` that somebody created or put something into, except by an extension."""
    return [name for (name,) in connection.execute(_SCHEMAS, {"schema": schema}).fetchall()]


@dataclass(frozen=True)
class _Space:
    """A schema: its name as SQL writes it, the prefix of names in it, and the key of their parent."""

    oid: int
    name: str
    prefix: str
    parent: str


class _Reader:
    """Reader that collects items; children name their parent by its oid, which may become known only later."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, others: Iterable[str]) -> None:
        self._connection, self._schema, self._others = connection, schema, list(others)
        self._found: dict[str, dict[str, Any]] = {}
        self._keys: dict[Address, str] = {}
        self._needs: dict[str, set[str]] = {}
        self._class: dict[str, int] = {}
        self._owner = ""
        self._spaces: list[_Space] = []
        self._space = _Space(0, "", "", "")
        self._relations: dict[int, str] = {}
        self._columns: dict[tuple[int, int], tuple[str, str]] = {}
        self._triggers: dict[int, str] = {}

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        values = {"schema": self._space.oid, "ledger": LEDGER} if "%(" in query else None
        return self._connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def _rows_of_each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of each schema in turn, which is `self._space` meanwhile."""
        for space in self._spaces:
            self._space = space
            yield from self._rows(query)

    def read(self) -> list[Item]:
        self._class = dict(self._rows(_CLASSES))
        rows = self._connection.execute(_SCHEMA, (self._schema,)).fetchall()
        if not rows:
            raise DasTernError(
                f"Schema {self._schema} doesn't exist in this database: correct `migrations_schema`, or create it "
                f"(`CREATE SCHEMA {identifier(self._schema)}`)."
            )
        for name in self._others:
            rows += self._connection.execute(_SCHEMA, (name,)).fetchall()
        for number, row in enumerate(rows):
            self._a_schema(*row, is_first=number == 0)
        for row in self._rows(_EXTENSIONS):
            self._extension(*row)
        # Each kind is read in all schemas before the next kind, so that references to other schemas can be resolved.
        for query, add in (
            (_RELATIONS, self._relation), (_COLUMNS, self._column), (_TYPES, self._type), (_FUNCTIONS, self._function),
            (_CASTS, self._cast), (_SEQUENCES, self._sequence), (_COLLATIONS, self._collation),
            (_CONSTRAINTS, self._constraint), (_INDEXES, self._index), (_TRIGGERS, self._trigger),
            (_POLICIES, self._policy), (_RULES, self._rule), (_STATISTICS, self._statistics), (_OTHERS, self._other),
            (_DOMAIN_CONSTRAINTS, self._domain_constraint),
        ):  # fmt: skip
            for row in self._rows_of_each(query):
                add(*row)
        for row in self._rows(_DATABASE_WIDE):
            self._plain(*row)
        members = {(classid, objid): extension for classid, objid, extension in self._rows(_MEMBERS)}
        for classid, objid in members:
            self._found.pop(self._keys.get((classid, objid, 0), ""), None)
        self._column_order()
        self._privileges()
        for classid, objid, sub, *rest in self._rows(_COMMENTS):
            self._comment((classid, objid, sub), *rest)
        for (classid, objid), extension in members.items():
            self._keys[(classid, objid, 0)] = self._keys[(self._class["pg_extension"], extension, 0)]
        self._depend()
        return self._items()

    def _add(
        self,
        kind: str,
        name: str,
        definition: str,
        address: tuple[str, int, int] | None = None,
        needs: Iterable[str] = (),
        **more: Any,
    ) -> str:
        key = f"{kind} {name}"
        if address is not None and address[0] in _IN_A_SCHEMA and not more.get("parent"):
            more["parent"] = self._space.parent
        self._found[key] = {"kind": kind, "name": name, "definition": definition, **more}
        if address is not None:
            self._keys[(self._class[address[0]], *address[1:])] = key
        self._needs[key] = {*needs, *([more["parent"]] if more.get("parent") else [])}
        return key

    def _owned(self, target: str, owner: str, parent: str) -> None:
        """Add an owner other than the database's owner, who is the rule and gets no item."""
        if owner != self._owner:
            shown = f"ALTER {target} OWNER TO {identifier(owner)}"
            self._add(
                "owner", f"of {parent}", shown, undo=f"ALTER {target} OWNER TO {identifier(self._owner)}", parent=parent
            )

    def _a_schema(self, oid: int, name: str, owner: str, database: int, of_database: str, *, is_first: bool) -> None:
        self._owner = of_database
        key = self._add("schema", name, f"CREATE SCHEMA {name}", ("pg_namespace", oid, 0), target=f"SCHEMA {name}",
                        facts={"first": is_first})  # fmt: skip
        self._spaces.append(_Space(oid, name, "" if is_first else f"{name}.", "" if is_first else key))
        self._owned(f"SCHEMA {name}", owner, key)
        self._keys[(self._class["pg_database"], database, 0)] = "database"

    def _extension(self, oid: int, name: str, schema: str | None) -> None:
        text = f"CREATE EXTENSION {name}" + (f" WITH SCHEMA {schema}" if schema else "")
        self._add("extension", name, text, ("pg_extension", oid, 0),
                  create=text.replace("EXTENSION", "EXTENSION IF NOT EXISTS", 1), target=f"EXTENSION {name}")  # fmt: skip

    def _relation(
        self, oid: int, relkind: str, name: str, persistence: str, secured: bool, forced: bool, identity: str, owner: str,
        options: list[str] | None, is_ledger: bool, row_type: int, method: str | None, tablespace: str | None,
        bound: str | None, partition_key: str | None, parents: list[str], of_type: str | None, view: str | None,
        server: str | None, is_being_detached: bool,
    ) -> None:  # fmt: skip
        if is_ledger:
            return
        self._relations[oid] = name = self._space.prefix + name
        kind = {"v": "view", "m": "materialized view", "f": "foreign table"}.get(relkind, "table")
        target = f"{kind.upper()} {name}"
        settings = f" WITH ({_options(options)})" if options else ""
        facts: dict[str, Any] = {"prefix": self._space.prefix, "persistence": persistence}
        if view is not None:
            using = f" USING {method}" if method else ""
            using += settings + (f" TABLESPACE {tablespace}" if tablespace else "")
            text = f"CREATE {target}{using} AS\n{view.strip().removesuffix(';')}"
            undo = f"DROP {target}"
        else:
            undo = ""
            head = f"CREATE {'UNLOGGED ' if persistence == 'u' else ''}{target}"
            tail = ""
            if bound is not None:
                head += f" PARTITION OF {parents[0]} {bound}"
                facts |= {"partition_of": parents[0], "bound": bound}
            elif of_type:
                head += f" OF {of_type}"
            else:
                facts["head"] = head
                facts["inherits"] = parents
                tail += f" INHERITS ({', '.join(parents)})" if parents else ""
            facts["is_partitioned"] = partition_key is not None
            facts["is_plain"] = persistence == "p" and not (method or tablespace or server)
            tail += f" PARTITION BY {partition_key}" if partition_key else ""
            tail += f" {server}" if server else ""
            tail += f" USING {method}" if method else ""
            tail += f" TABLESPACE {tablespace}" if tablespace else ""
            facts["tail"] = tail
            text = head + (" (...)" if "head" in facts else "") + tail
        key = self._add(kind, name, text, ("pg_class", oid, 0), undo=undo, target=target, facts=facts,
                        broken="being DETACHED" if is_being_detached else "")  # fmt: skip
        self._keys[(self._class["pg_type"], row_type, 0)] = key
        self._owned(target, owner, key)
        if options and view is None:
            self._alter("storage parameters", name, key, f"SET ({_options(options)})",
                        f"RESET ({', '.join(option.partition('=')[0] for option in options)})")  # fmt: skip
        if secured or forced:
            clauses = [
                word
                for word, on in (("ENABLE ROW LEVEL SECURITY", secured), ("FORCE ROW LEVEL SECURITY", forced))
                if on
            ]
            self._alter(
                "row security", name, key, ", ".join(clauses), "DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
            )
        if identity in ("f", "n") and kind == "table":
            word = {"f": "FULL", "n": "NOTHING"}[identity]
            self._alter("replica identity", name, key, f"REPLICA IDENTITY {word}", "REPLICA IDENTITY DEFAULT")

    def _alter(
        self, kind: str, name: str, parent: str, action: str, undo: str, definition: str = "", only: bool = False, **more: Any
    ) -> str:  # fmt: skip
        """Add an attribute of a relation, which `ALTER TABLE ... action` creates."""
        table = f"ALTER TABLE {'ONLY ' if only else ''}{self._table_of(parent)}"
        return self._add(kind, name, definition or action, create=f"{table} {action}", undo=f"{table} {undo}" if undo else "",
                         parent=parent, **more)  # fmt: skip

    def _table_of(self, key: str) -> str:
        item = self._found[key]
        return str(item["name"] if item["kind"] != "column" else item["facts"]["table"])

    def _column(
        self, relation: int, number: int, raw: str, name: str, kind: str, collation: str | None, required: bool,
        identity: str, generated: str, is_own: bool, has_children: bool, default_oid: int | None, default: str | None,
        storage: str | None, compression: str, target: int, options: list[str] | None,
    ) -> None:  # fmt: skip
        if relation not in self._relations:
            return
        table = self._relations[relation]
        full, parent = f"{table}.{name}", self._keys[(self._class["pg_class"], relation, 0)]
        self._columns[(relation, number)] = (full, raw)
        key = parent
        if is_own:
            shown = kind + (f" COLLATE {collation}" if collation else "")
            shown += f" GENERATED ALWAYS AS ({default}) STORED" if generated else ""
            key = self._alter("column", full, parent, f"ADD COLUMN {name} {shown}", "", shown,
                              address=("pg_class", relation, number), target=f"COLUMN {full}",
                              facts={"table": table, "column": raw, "quoted": name, "type": kind, "number": number,
                                     "identity": identity})  # fmt: skip
            if generated and default is not None:
                self._found[key]["facts"]["generated"] = default
            if generated and default_oid:
                self._keys[(self._class["pg_attrdef"], default_oid, 0)] = key
        which = f"ALTER COLUMN {name}"
        if default is not None and not generated:
            # Each child table has its own default or none.
            self._alter("default", full, key, f"{which} SET DEFAULT {default}" if default_oid else f"{which} DROP DEFAULT",
                        f"{which} DROP DEFAULT", default, only=has_children,
                        address=("pg_attrdef", default_oid, 0) if default_oid else None)  # fmt: skip
        if required:
            self._alter("not null", full, key, f"{which} SET NOT NULL", f"{which} DROP NOT NULL", "NOT NULL")
        if storage:
            word = {"p": "PLAIN", "e": "EXTERNAL", "x": "EXTENDED", "m": "MAIN"}[storage]
            self._alter(
                "column storage", full, key, f"{which} SET STORAGE {word}", f"{which} SET STORAGE DEFAULT", word
            )
        if compression:
            word = {"p": "pglz", "l": "lz4"}[compression]
            self._alter(
                "column compression",
                full,
                key,
                f"{which} SET COMPRESSION {word}",
                f"{which} SET COMPRESSION default",
                word,
            )
        if target != -1:
            self._alter(
                "column statistics",
                full,
                key,
                f"{which} SET STATISTICS {target}",
                f"{which} SET STATISTICS -1",
                str(target),
            )
        if options:
            names = ", ".join(option.partition("=")[0] for option in options)
            self._alter(
                "column options",
                full,
                key,
                f"{which} SET ({_options(options)})",
                f"{which} RESET ({names})",
                _options(options),
            )

    def _type(
        self, oid: int, typtype: str, name: str, owner: str, array: int, relation: int, labels: list[str] | None,
        text: str, not_valid: list[str],
    ) -> None:  # fmt: skip
        name = self._space.prefix + name
        kind = {"e": "enum", "d": "domain", "c": "composite type", "r": "range type"}.get(typtype, "type")
        target = f"{'DOMAIN' if kind == 'domain' else 'TYPE'} {name}"
        facts: dict[str, Any] = {"prefix": self._space.prefix}
        if labels is not None:
            text = f"ENUM ({', '.join(literal(label) for label in labels)})"
            facts["labels"] = labels
        definition = f"CREATE {target} AS {'RANGE ' if typtype == 'r' else ''}{text}"
        definition += "".join(
            f";\nALTER {target} ADD CONSTRAINT {constraint}" for constraint in not_valid
        )  # CREATE DOMAIN doesn't take NOT VALID
        undo = f"DROP {target}" if kind != "type" else ""
        key = self._add(kind, name, definition, ("pg_type", oid, 0), target=target, undo=undo, facts=facts)
        if array:
            self._keys[(self._class["pg_type"], array, 0)] = key
        if relation:  # to which dependencies and comments of a composite type's attributes refer
            self._keys[(self._class["pg_class"], relation, 0)] = key
        self._owned(target, owner, key)

    def _domain_constraint(self, oid: int, domain: int) -> None:
        self._keys[(self._class["pg_constraint"], oid, 0)] = self._keys[(self._class["pg_type"], domain, 0)]

    def _function(
        self,
        oid: int,
        prokind: str,
        name: str,
        identity: str,
        types: str,
        owner: str,
        text: str | None,
        aggregate: str | None,
    ) -> None:
        kind = {"p": "procedure", "a": "aggregate"}.get(prokind, "function")
        name = self._space.prefix + name
        target = f"{kind.upper()} {name}({types})"
        facts = {}
        if text is not None:
            text = self._unqualified(text).rstrip()
        else:
            facts["granted"] = f"FUNCTION {name}({types})"
            target = f"AGGREGATE {name}({identity or '*'})"
            text = f"CREATE {target} ({aggregate})"
        key = self._add(kind, f"{name}({types})", text, ("pg_proc", oid, 0), target=target, undo=f"DROP {target}",
                        facts=facts)  # fmt: skip
        self._owned(target, owner, key)

    def _unqualified(self, text: str) -> str:
        """Return a definition, in which PostgreSQL always qualifies the object's own name, with `self._space.prefix` instead."""
        return text if self._space.prefix else text.replace(f" {self._space.name}.", " ", 1)

    def _cast(self, oid: int, name: str, how: str) -> None:
        target = f"CAST {name}"
        self._add("cast", name, f"CREATE {target} {how}", ("pg_cast", oid, 0), target=target, undo=f"DROP {target}")

    def _sequence(
        self, oid: int, name: str, persistence: str, owner: str, kind: str, options: str, dependence: str | None,
        relation: int | None, number: int | None, bounds: list[int],
    ) -> None:  # fmt: skip
        column = self._columns.get((relation or 0, number or 0))
        name = self._space.prefix + name
        if dependence == "i":
            parent = f"column {column[0]}" if column else ""
            if column is None or parent not in self._found:
                return
            full = column[0]
            always = self._found[parent]["facts"]["identity"] == "a"
            words = f"GENERATED {'ALWAYS' if always else 'BY DEFAULT'} AS IDENTITY (SEQUENCE NAME {name} {options})"
            quoted = self._found[parent]["facts"]["quoted"]
            table = self._found[self._keys[(self._class["pg_class"], relation or 0, 0)]]
            logged = "UNLOGGED" if persistence == "u" else "LOGGED"
            self._alter("identity", full, parent, f"ALTER COLUMN {quoted} ADD {words}",
                        f"ALTER COLUMN {quoted} DROP IDENTITY", words, address=("pg_class", oid, 0), target=f"SEQUENCE {name}",
                        facts={"sequence": name, "prefix": self._space.prefix, "range": bounds},
                        broken="" if persistence == table["facts"]["persistence"] else f"its sequence is {logged}")  # fmt: skip
            return
        target = f"SEQUENCE {name}"
        text = f"CREATE {'UNLOGGED ' if persistence == 'u' else ''}{target} AS {kind} {options}"
        of_column = column[0] if dependence == "a" and column is not None else ""
        key = self._add("sequence", name, text, ("pg_class", oid, 0), target=target,
                        facts={"sequence": name, "prefix": self._space.prefix, "range": bounds, "of_column": of_column})  # fmt: skip
        self._owned(target, owner, key)
        if dependence == "a" and column is not None:
            self._add("sequence owner", name, f"ALTER {target} OWNED BY {column[0]}", parent=key,
                      undo=f"ALTER {target} OWNED BY NONE", needs=[f"column {column[0]}"])  # fmt: skip

    def _collation(self, oid: int, name: str, owner: str, text: str) -> None:
        name = self._space.prefix + name
        target = f"COLLATION {name}"
        key = self._add(
            "collation",
            name,
            f"CREATE {target} ({text})",
            ("pg_collation", oid, 0),
            target=target,
            undo=f"DROP {target}",
        )
        self._owned(target, owner, key)

    def _constraint(
        self, oid: int, relation: int, index: int, raw: str, name: str, contype: str, text: str, columns: list[str],
        references: int, disabled: bool, invalid: bool,
    ) -> None:  # fmt: skip
        if relation not in self._relations:
            return
        table = self._relations[relation]
        key = self._alter(
            "constraint", f"{table}.{name}", self._keys[(self._class["pg_class"], relation, 0)],
            f"ADD CONSTRAINT {name} {text}", f"DROP CONSTRAINT {name}", text, broken="its triggers are DISABLED" if disabled else "INVALID" if invalid else "", address=("pg_constraint", oid, 0),
            target=f"CONSTRAINT {name} ON {table}",
            facts={"type": contype, "table": table, "columns": columns, "name": raw, "quoted": name, "prefix": self._space.prefix,
                   "references": self._relations.get(references, "")},
        )  # fmt: skip
        if index and contype != "f":
            self._keys[(self._class["pg_class"], index, 0)] = key

    def _index(
        self, oid: int, relation: int, name: str, text: str, tablespace: str | None, valid: bool, replica: bool,
        clustered: bool, of_constraint: bool, unique: bool, columns: list[str], options: list[str] | None,
        targets: list[list[int]],
    ) -> None:  # fmt: skip
        if relation not in self._relations:
            return
        name = self._space.prefix + (plain := name)
        parent = self._keys[(self._class["pg_class"], relation, 0)]
        own = self._keys.get((self._class["pg_class"], oid, 0), "")
        if not of_constraint:
            # PostgreSQL writes ONLY for a partitioned table's index; without it the partitions get theirs as well.
            text = text.replace(" ON ONLY ", " ON ", 1)
            text += f" TABLESPACE {tablespace}" if tablespace else ""
            own = self._add("index", name, text, ("pg_class", oid, 0), parent=parent, broken="" if valid else "INVALID",
                            create=text, undo=f"DROP INDEX {name}", target=f"INDEX {name}",
                            facts={"table": self._relations[relation], "columns": columns if unique else []})  # fmt: skip
        elif options:
            names = ", ".join(option.partition("=")[0] for option in options)
            self._add("storage parameters", name, f"ALTER INDEX {name} SET ({_options(options)})",
                      undo=f"ALTER INDEX {name} RESET ({names})", parent=own)  # fmt: skip
        for number, amount in targets:
            alter = f"ALTER INDEX {name} ALTER COLUMN {number} SET STATISTICS"
            self._add("column statistics", f"{name}.{number}", f"{alter} {amount}", undo=f"{alter} -1", parent=own)
        table = self._relations[relation]
        if replica:
            self._alter(
                "replica identity",
                table,
                parent,
                f"REPLICA IDENTITY USING INDEX {plain}",
                "REPLICA IDENTITY DEFAULT",
                needs=[own],
            )
        if clustered:
            self._alter("clustered on", table, parent, f"CLUSTER ON {plain}", "SET WITHOUT CLUSTER", needs=[own])

    def _trigger(
        self, oid: int, relation: int, name: str, text: str, enabled: str, copy_of: int | None, above: str | None
    ) -> None:
        if relation not in self._relations:
            return
        table = self._relations[relation]
        parent = self._keys[(self._class["pg_class"], relation, 0)]
        words = {"O": "ENABLE", "D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
        state = f"ALTER TABLE {table} {words[enabled]} TRIGGER {name}"
        if copy_of is not None and above is not None:
            # The trigger of the partitioned table creates it; only its enabled state is its own.
            self._triggers[oid] = trigger = self._triggers.get(copy_of, parent)
            if enabled != above:
                self._triggers[oid] = self._add(
                    "trigger state", f"{table}.{name}", state, parent=trigger, needs=[parent],
                    undo=f"ALTER TABLE {table} {words[above]} TRIGGER {name}",
                )  # fmt: skip
            return
        text += f";\n{state}" if enabled != "O" else ""
        target = f"TRIGGER {name} ON {table}"
        self._triggers[oid] = self._add("trigger", f"{table}.{name}", text, ("pg_trigger", oid, 0), target=target,
                                        undo=f"DROP {target}", parent=parent)  # fmt: skip

    def _policy(self, oid: int, relation: int, name: str, text: str) -> None:
        if relation not in self._relations:
            return
        table = self._relations[relation]
        target = f"POLICY {name} ON {table}"
        self._add("policy", f"{table}.{name}", f"CREATE {target} {text}", ("pg_policy", oid, 0), target=target,
                  undo=f"DROP {target}", parent=self._keys[(self._class["pg_class"], relation, 0)])  # fmt: skip

    def _rule(self, oid: int, relation: int, raw: str, name: str, text: str, enabled: str) -> None:
        if relation not in self._relations:
            return
        parent = self._keys[(self._class["pg_class"], relation, 0)]
        if raw == "_RETURN":  # the query of a view, to which the view's dependencies refer
            self._keys[(self._class["pg_rewrite"], oid, 0)] = parent
            return
        table = self._relations[relation]
        word = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}.get(enabled)
        text = text.rstrip().removesuffix(";") + (f";\nALTER TABLE {table} {word} RULE {name}" if word else "")
        target = f"RULE {name} ON {table}"
        self._add(
            "rule", f"{table}.{name}", text, ("pg_rewrite", oid, 0), target=target, undo=f"DROP {target}", parent=parent
        )

    def _statistics(self, oid: int, relation: int, name: str, text: str, amount: int, owner: str) -> None:
        text, name = self._unqualified(text), self._space.prefix + name
        text += f";\nALTER STATISTICS {name} SET STATISTICS {amount}" if amount != -1 else ""
        target = f"STATISTICS {name}"
        parent = self._keys.get((self._class["pg_class"], relation, 0), "")
        key = self._add(
            "statistics object",
            name,
            text,
            ("pg_statistic_ext", oid, 0),
            target=target,
            undo=f"DROP {target}",
            parent=parent,
        )
        self._owned(target, owner, key)

    def _other(self, kind: str, name: str) -> None:
        """Add an object that is compared by its name alone."""
        self._add(kind, name, name, parent=self._space.parent)

    def _plain(self, kind: str, name: str, definition: str) -> None:
        """Add an object that is compared, but created by a person."""
        self._add(kind, name, definition)

    def _column_order(self) -> None:
        tables: dict[int, list[str]] = {}
        for (relation, _), (full, _) in self._columns.items():
            if f"column {full}" in self._found:
                tables.setdefault(relation, []).append(self._found[f"column {full}"]["facts"]["quoted"])
        for relation, names in tables.items():
            self._add("column order", self._relations[relation], ", ".join(names),
                      parent=self._keys[(self._class["pg_class"], relation, 0)])  # fmt: skip

    def _privileges(self) -> None:
        by_object: dict[tuple[Address, str | None], _Grants] = {}
        for classid, objid, sub, part, *row, of_owner in self._rows_of_each(_PRIVILEGES):
            by_object.setdefault(((classid, objid, sub), part), _Grants()).add(*row, of_owner=of_owner)
        self._privileges_by_default(by_object)
        for (address, column), grants in by_object.items():
            self._grants(address, column, grants)
        defaults: dict[tuple[str, str, str, bool], _Grants] = {}
        for role, kind, within, *row, of_owner in self._rows_of_each(_DEFAULT_PRIVILEGES):
            defaults.setdefault((role, kind, within or "", of_owner), _Grants()).add(*row)
        for (role, kind, within, of_owner), grants in defaults.items():
            head = f"ALTER DEFAULT PRIVILEGES FOR ROLE {role}" + (f" IN SCHEMA {within}" if within else "")
            for grantee, more, less in grants.differences():
                where = (
                    "" if not within else " in the schema" if within == self._spaces[0].name else f" in schema {within}"
                )
                name = f"of {role} on {kind}{where} to {grantee}"
                do, back = _statements(f"ON {kind}", grantee, more, less, head + " ")
                facts = {"on": kind, "within": within, "grantee": grantee, "more": more, "less": less}
                space = next((space for space in self._spaces if space.name == within), self._spaces[0])
                self._add(
                    "default privileges", name, do, undo=back, parent=space.parent, facts=facts if of_owner else {}
                )

    def _privileges_by_default(self, by_object: Mapping[tuple[Address, str | None], _Grants]) -> None:
        """Note at each object of a kind with default privileges its actual privileges and those it would have without defaults."""
        usual: dict[str, dict[str, set[tuple[str, bool]]]] = {}
        for kind, grantee, privilege, grantable in self._rows(_USUAL_PRIVILEGES):
            usual.setdefault(kind, {}).setdefault(grantee, set()).add((privilege, grantable))
        # A table's row type and a composite type's relation lead to the same item.
        catalogue = {"FUNCTIONS": self._class["pg_proc"], "TYPES": self._class["pg_type"]}
        actual: dict[str, Privileges] = {}
        for (address, column), grants in by_object.items():
            kind = KINDS_BY_DEFAULT.get(self._found.get(key := self._keys.get(address, ""), {}).get("kind", ""))
            if column is None and kind and address[0] == catalogue.get(kind, self._class["pg_class"]):
                actual[key] = grants.of_a_new_one(self._owner)
        for key, item in self._found.items():
            if kind := KINDS_BY_DEFAULT.get(item["kind"]):
                item["facts"] = {**item.get("facts", {}), "acl": actual.get(key, usual[kind]), "usual": usual[kind]}
                item["facts"]["schema"] = self._schema_of(item)

    def _schema_of(self, item: Mapping[str, Any]) -> str:
        """Return the schema of an item, as SQL writes it."""
        while item.get("parent"):
            item = self._found.get(item["parent"]) or {}
        return str(item["name"]) if item.get("kind") == "schema" else self._spaces[0].name

    def _grants(self, address: Address, column: str | None, grants: _Grants) -> None:
        """Add one item for each role whose privileges on the object differ from the default."""
        key = self._keys.get(address) or self._keys.get((*address[:2], 0), "")
        whole = self._keys.get((*address[:2], 0), "")
        if whole == "database":
            label, noun, parent = whole, _DATABASE, ""
        elif whole not in self._found:
            return
        else:
            label, noun, parent = key, granted(self._found[whole]["target"], self._found[whole].get("facts", {})), key
        # GRANT takes columns only after a table's name.
        if column is not None:
            noun = re.sub(r"^SEQUENCE ", "TABLE ", noun)
            label = f"column {noun.removeprefix('TABLE ')}.{column}"
        for grantee, more, less in grants.differences():
            if noun == f"SCHEMA {self._spaces[0].name}" and grantee == "PUBLIC":
                # USAGE for everyone makes no difference where nobody else may connect, and `prisma migrate reset` recreates
                # the schema without it.
                more = [privilege for privilege in more if privilege != ("USAGE", False)]
            if column is not None:
                more = [(f"{privilege} ({column})", grantable) for privilege, grantable in more]
            if more or less:
                do, back = _statements(f"ON {noun}", grantee, more, less)
                facts = {"of_database": True} if whole == "database" else {}
                self._add("grant", f"{label} to {grantee}", do, undo=back, parent=parent, facts=facts)

    def _comment(
        self, address: Address, text: str, column: str | None, domain: int | None, constraint: str | None
    ) -> None:
        key = self._keys.get(address, "")
        whole = self._keys.get((self._class["pg_type"], domain, 0) if domain else (*address[:2], 0), "")
        item = self._found.get(whole)
        # The first schema's comment comes from the template, and an extension's comment from the extension.
        if item is None or not item.get("target") or item["kind"] == "extension" or item.get("facts", {}).get("first"):
            return
        if column is not None:
            label = f"column {item['name']}.{column}"
            target, key = f"COLUMN {item['name']}.{column}", key or whole
        elif domain:
            label = f"constraint {item['name']}.{constraint}"
            target, key = f"CONSTRAINT {constraint} ON {item['target']}", whole
        elif item["kind"] == "constraint" and address[0] == self._class["pg_class"]:
            index = item["facts"]["prefix"] + item["facts"]["quoted"]
            target, label = f"INDEX {index}", f"index {index}"
        else:
            target, label = item["target"], key
        self._add(
            "comment", label, f"COMMENT ON {target} IS {literal(text)}", undo=f"COMMENT ON {target} IS NULL", parent=key
        )

    def _depend(self) -> None:
        for row in self._rows(_DEPENDENCIES):
            dependent = self._keys.get(row[:3]) or self._keys.get((row[0], row[1], 0))
            needed = self._keys.get(row[3:]) or self._keys.get((row[3], row[4], 0))
            if not dependent or not needed or dependent == needed or dependent not in self._needs:
                continue
            if dependent.startswith("sequence ") and row[5]:
                continue  # `sequence owner` covers the column that owns a sequence
            self._needs[dependent].add(needed)

    def _items(self) -> list[Item]:
        # Members of an extension were removed: remove their children, too.
        while gone := [
            key for key, item in self._found.items() if item.get("parent") and item["parent"] not in self._found
        ]:
            for key in gone:
                del self._found[key]
        return [
            Item(**{**item, "create": item.get("create") or item["definition"]},
                 needs=frozenset(self._needs[key] & self._found.keys() - {key}))
            for key, item in sorted(self._found.items())
        ]  # fmt: skip


class _Grants:
    """The actual and the default privileges on one object."""

    def __init__(self) -> None:
        self._actual: dict[str, set[tuple[str, bool]]] = {}
        self._usual: dict[str, set[tuple[str, bool]]] = {}
        self._owner = ""

    def add(self, usual: bool, grantee: str, privilege: str, grantable: bool, *, of_owner: bool | None = False) -> None:
        (self._usual if usual else self._actual).setdefault(grantee, set()).add((privilege, grantable))
        if of_owner:
            self._owner = grantee

    def of_a_new_one(self, owner: str) -> Privileges:
        """Return the actual privileges with the role `owner` in place of the object's owner: whoever recreates it owns it first."""
        new_owner = owner if re.fullmatch(r"[a-z_][a-z0-9_]*", owner) else identifier(owner)
        return {
            new_owner if grantee == self._owner else grantee: privileges for grantee, privileges in self._actual.items()
        }

    def differences(self) -> list[tuple[str, list[tuple[str, bool]], list[tuple[str, bool]]]]:
        """Return each grantee with the privileges that it has beyond the default and those that it lacks."""
        rows = []
        for grantee in sorted(self._actual.keys() | self._usual.keys()):
            actual, usual = self._actual.get(grantee, set()), self._usual.get(grantee, set())
            if actual != usual:
                rows.append((grantee, sorted(actual - usual), sorted(usual - actual)))
        return rows


def _statements(
    on: str, grantee: str, more: Sequence[tuple[str, bool]], less: Sequence[tuple[str, bool]], head: str = ""
) -> tuple[str, str]:
    """Return the statements that grant `more` and revoke `less`, and the statements that undo these."""
    do: list[str] = []
    back: list[str] = []
    for grantable in (False, True):
        option = " WITH GRANT OPTION" if grantable else ""
        privileges = ", ".join(privilege for privilege, flag in more if flag is grantable)
        if privileges:
            do.append(f"{head}GRANT {privileges} {on} TO {grantee}{option}")
            back.insert(0, f"{head}REVOKE {privileges} {on} FROM {grantee}")
    taken = ", ".join(privilege for privilege, _ in less)
    if taken:
        do.insert(0, f"{head}REVOKE {taken} {on} FROM {grantee}")
        back.append(f"{head}GRANT {taken} {on} TO {grantee}")
    return ";\n".join(do), ";\n".join(back)


def granted(target: str, facts: Mapping[str, Any]) -> str:
    """Return the name of an object in GRANT, where views and foreign tables are tables and an aggregate is a function."""
    return str(facts.get("granted") or re.sub(r"^(MATERIALIZED VIEW|FOREIGN TABLE|VIEW) ", "TABLE ", target))


def _options(options: Sequence[str]) -> str:
    """Return `reloptions` as SQL: values quoted, in the order of their names."""
    pairs = sorted(option.partition("=")[::2] for option in options)
    return ", ".join(f"{name} = {literal(value)}" for name, value in pairs)
