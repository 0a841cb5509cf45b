-- A zoo: at least one object of every kind that pg_dump knows and that the owner of a database can make without being a
-- superuser, with odd names, odd shapes and a few rows. Load it as that owner into an empty database; the role
-- dastern_readonly has to exist. It has no psql commands, so that any client can load it, also in one transaction.
-- What PostgreSQL itself restores only in part is in zoo_incomplete.sql.

-- ── Schemas ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE SCHEMA zoo;
CREATE SCHEMA ext;
CREATE SCHEMA "Zoo Two";
CREATE SCHEMA "ឃ្លាំង";
CREATE SCHEMA "select";
CREATE SCHEMA "semi;colon
line";
CREATE SCHEMA empty;
SET search_path = zoo, ext;
SET client_min_messages = error;

-- ── Extensions: trusted ones, which the owner of the database may create ────────────────────────────────────────────────
CREATE EXTENSION btree_gist SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION ltree SCHEMA ext;
CREATE EXTENSION pg_trgm SCHEMA ext;
CREATE EXTENSION pgcrypto SCHEMA ext;
CREATE EXTENSION "uuid-ossp" SCHEMA ext;

-- ── Collations and conversions ──────────────────────────────────────────────────────────────────────────────────────────
CREATE COLLATION khmer (provider = icu, locale = 'km');
CREATE COLLATION "any Case" (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION plain FROM "C";
CREATE COLLATION builtin (provider = builtin, locale = 'C.UTF-8');
CREATE CONVERSION "latin to utf" FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;

-- ── Types: enum, composite, range with multirange ───────────────────────────────────────────────────────────────────────
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s', '', 'ថ្នាំ', 'with "quotes"', 'back\slash');
CREATE TYPE no_labels AS ENUM ();
CREATE TYPE "Upper Enum" AS ENUM ('B', 'a', 'C');
CREATE TYPE pair AS (a int, gone text, b text COLLATE khmer, "odd ""name""" numeric(7, 2)[]);
ALTER TYPE pair DROP ATTRIBUTE gone;
CREATE TYPE nothing AS ();
CREATE TYPE nested AS (one pair, many pair[], feeling mood);
CREATE FUNCTION difference(a float8, b float8) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN a - b;
CREATE TYPE float_range AS RANGE (subtype = float8, subtype_diff = zoo.difference, multirange_type_name = "float ranges");
CREATE TYPE text_range AS RANGE (subtype = text, collation = "C");

-- ── Domains: several checks, over each other, over arrays, composites and enums ─────────────────────────────────────────
CREATE DOMAIN percent AS numeric(5, 2) DEFAULT 0 CONSTRAINT "not negative" CHECK (VALUE >= 0) CONSTRAINT "at most 100" CHECK (VALUE <= 100);
CREATE DOMAIN "small percent" AS percent NOT NULL CHECK (VALUE < 10);
CREATE DOMAIN word AS varchar(20) COLLATE "C" CHECK (VALUE IN ('a', 'b', 'ថ្នាំ'));
CREATE DOMAIN percents AS percent[] CHECK (cardinality(VALUE) < 4);
CREATE DOMAIN good_pair AS pair CHECK ((VALUE).a > 0);
CREATE DOMAIN good_mood AS mood CHECK (VALUE <> 'sad');
CREATE DOMAIN late AS int;
ALTER DOMAIN late ADD CONSTRAINT "not yet" CHECK (VALUE <> 13) NOT VALID;

-- ── Sequences: owned, shared, of every option ───────────────────────────────────────────────────────────────────────────
CREATE SEQUENCE shared;
CREATE SEQUENCE "down;""quoted""" AS smallint INCREMENT BY -3 MINVALUE -300 MAXVALUE 300 START WITH 30 CACHE 5 CYCLE;
CREATE SEQUENCE big MINVALUE -9223372036854775808 START WITH -9223372036854775808;
CREATE UNLOGGED SEQUENCE quick;
CREATE SEQUENCE never_called;
SELECT nextval('shared'), nextval('big'), setval('quick', 77, false), setval('"down;""quoted"""', -9);

-- ── Functions that tables use ───────────────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN $1 * 2;
CREATE FUNCTION "is Short"(given text, most int DEFAULT 10) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
  $body$BEGIN RETURN pg_catalog.length(given) <= most; /* $$ ; $1 */ END$body$;
CREATE FUNCTION next_code() RETURNS text LANGUAGE sql VOLATILE AS $$SELECT 'C' || pg_catalog.nextval('zoo.shared')$$;

-- ── Tables: one column of each type ─────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE all_types (
  id serial PRIMARY KEY, b boolean, i2 smallint, i8 bigint, n numeric, n2 numeric(9, 3), f4 real, f8 double precision, m money,
  t text, vc varchar(10), c char(5), ch "char", nm name, by bytea, u uuid, d date, ti time(3), ttz timetz, ts timestamp, tstz timestamptz,
  iv interval, ivm interval day to second (3), j json, jb jsonb, jp jsonpath, x xml, bi bit(4), vb bit varying(8), ip inet, ci cidr, ma macaddr, ma8 macaddr8,
  pt point, ln line, ls lseg, bx box, pa path, po polygon, ce circle, tv tsvector, tq tsquery, o oid, rc regclass, lsn pg_lsn,
  ir int4range, nr numrange, tr tstzrange, mr int8multirange, fr float_range, frs "float ranges", ta text[], ia int[][], ja jsonb[],
  mo mood, gm good_mood, pr pair, prs pair[], ne nested, p percent, ps percents, w word, cit citext, hs hstore, lt ltree);
INSERT INTO all_types (t) VALUES (NULL);
INSERT INTO all_types VALUES (
  DEFAULT, true, -32768, 9223372036854775807, 'NaN', 123456.789, 'Infinity', '-Infinity', 12.34,
  'ភាសាខ្មែរ', '', 'ab', 'x', 'name', '\x00ff5c27', '00000000-0000-4000-8000-000000000001', 'infinity', '24:00', '12:00+07', '-infinity',
  '2026-02-08 12:00+07', '1 year -2 days 03:04:05.678901', '3 days 04:05:06.789', '{"a" :  1, "a": 2}', '{"ថ្នាំ": [1, null, "\"\\"]}', '$.a[*] ? (@ > 1)', '<a>b</a>',
  B'1010', B'1', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '(1,2)', '{1,2,3}', '[(1,2),(3,4)]', '(3,4),(1,2)', '[(1,2),(3,4)]', '((0,0),(1,1),(2,0))', '<(1,2),3>',
  'a:1 b:2A', 'a & !b', 4294967295, 'zoo.all_types', 'FF/1', 'empty', '(,5]', '["2026-01-01 00:00+07",)', '{[1,3),[5,)}',
  '[1.5,2)', '{[1,2),(3,4]}', '{"",NULL,"NULL","a,b","\"\\"}', '[2:3][0:1]={{1,2},{3,NULL}}', ARRAY['{}', 'null']::jsonb[],
  '', 'ok', ROW(1, 'ខ', '{1.50}'), ARRAY[ROW(NULL, '', NULL)::pair, NULL], ROW(ROW(1, NULL, NULL), NULL, 'ok'), 99.5, '{1,2}', 'ថ្នាំ', 'CiTeXt', 'a=>1, "b c"=>NULL', 'a.b.c');
INSERT INTO all_types (t, by) VALUES (repeat('ក', 100000), sha512('a') || decode(repeat('00', 9000), 'hex')), (E'\\.\n\ttab\r\\N', ''), ('$1 %s :x ; --', NULL);

-- ── Tables with odd names ───────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE "Upper Case" ("Id" int CONSTRAINT "PK of ""it""" PRIMARY KEY, "a b" text DEFAULT 'it''s', "select" text, "$1" int, "100%" int, "back\slash" text);
INSERT INTO "Upper Case" VALUES (1, DEFAULT, 'x', NULL, 100, '\'), (2, '', NULL, 1, 0, NULL);
CREATE TABLE "quo""te'd" ("""" int, "'" text, "$$" text);
INSERT INTO "quo""te'd" VALUES (1, '''', '$$');
CREATE TABLE "semi;colon
line" ("new
line; DROP TABLE x" int PRIMARY KEY, "tab	here" text);
INSERT INTO "semi;colon
line" VALUES (1, E'a\nb'), (2, NULL);
CREATE TABLE "ថ្នាំពេទ្យ" ("លេខ" int PRIMARY KEY, "ឈ្មោះ" text NOT NULL, "តម្លៃ" numeric(10, 2));
INSERT INTO "ថ្នាំពេទ្យ" VALUES (1, 'ប៉ារ៉ាសេតាម៉ុល', 1.50), (2, 'អាស្ពីរីន', NULL);
CREATE TABLE "កកកកកកកកកកកកកកកកកកកកក" ("ខខខខខខខខខខខខខខខខខខខខខ" int);
CREATE TABLE a23456789012345678901234567890123456789012345678901234567890123 (id serial, b23456789012345678901234567890123456789012345678901234567890123 text);
CREATE TABLE "1st" ("2nd" int);
CREATE TABLE "100%s" ("%I" int);
CREATE TABLE "back\slash\\n" (id int);
CREATE TABLE "$1" (id int);
CREATE TABLE "table" ("user" text, "order" int, "null" int, "true" boolean);
CREATE TABLE " blank " ("  " int);
CREATE TABLE "a.b" ("c.d" int);
CREATE TABLE "--comment" ("/*" int);
CREATE TABLE "Zoo Two"."semi;colon
line" (id int);
CREATE TABLE "select"."from" ("where" int DEFAULT 7);
CREATE TABLE "semi;colon
line"."'"  (id int);
CREATE TABLE "ឃ្លាំង"."table" (id int, note text);
CREATE TABLE public.orphan (id int);
INSERT INTO "1st" VALUES (1);
INSERT INTO "100%s" VALUES (NULL);
INSERT INTO "table" VALUES ('', 1, NULL, true);
INSERT INTO "ឃ្លាំង"."table" VALUES (1, 'ខ្មែរ'), (2, ''), (3, NULL);
INSERT INTO public.orphan VALUES (1);

-- ── Tables of odd shapes ────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE generated (id int PRIMARY KEY, double int GENERATED ALWAYS AS (zoo.twice(id)) STORED, name text, shout text GENERATED ALWAYS AS (upper(name) || '!') STORED);
INSERT INTO generated VALUES (1, DEFAULT, 'a'), (2, DEFAULT, NULL);
CREATE TABLE identity_always (id int GENERATED ALWAYS AS IDENTITY (START WITH 10 INCREMENT BY 5) PRIMARY KEY, note text);
INSERT INTO identity_always (note) VALUES ('a'), ('b');
CREATE TABLE identity_default (note text, "the Id" bigint GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME zoo."own name" CYCLE MAXVALUE 99));
INSERT INTO identity_default VALUES ('mine', 42), ('theirs', DEFAULT);
CREATE TABLE dropped (a int, gone int, b text DEFAULT 'b', "gone too" text, c int);
INSERT INTO dropped VALUES (1, 2, '3', '4', 5);
ALTER TABLE dropped DROP COLUMN gone, DROP COLUMN "gone too", ADD COLUMN d int DEFAULT 4 NOT NULL;
CREATE TABLE stored (plain text, ext text, main text COMPRESSION pglz, lz text COMPRESSION lz4, targeted int, spread int);
ALTER TABLE stored ALTER plain SET STORAGE PLAIN, ALTER ext SET STORAGE EXTERNAL, ALTER main SET STORAGE MAIN, ALTER targeted SET STATISTICS 777,
  ALTER spread SET (n_distinct = -0.5, n_distinct_inherited = 100);
INSERT INTO stored VALUES ('p', repeat('e', 3000), repeat('m', 3000), repeat('l', 30000), 1, 2);
CREATE TABLE tuned (id int, note text) WITH (fillfactor = 70, autovacuum_enabled = false, autovacuum_vacuum_scale_factor = 0.05,
  parallel_workers = 3, toast_tuple_target = 256, toast.autovacuum_enabled = false, toast.vacuum_truncate = false);
CREATE UNLOGGED TABLE unlogged (id serial PRIMARY KEY, note text);
INSERT INTO unlogged (note) VALUES ('lost after a crash');
CREATE TABLE typed OF pair (PRIMARY KEY (a), b WITH OPTIONS NOT NULL DEFAULT 'x');
INSERT INTO typed VALUES (1, 'x', '{1.25,NULL}');
CREATE TABLE "by shared sequence" (id int DEFAULT nextval('zoo.shared') PRIMARY KEY, code text DEFAULT zoo.next_code());
INSERT INTO "by shared sequence" DEFAULT VALUES;
CREATE TABLE owner_of_sequence (id int, n int DEFAULT nextval('zoo.big'));
ALTER SEQUENCE big OWNED BY owner_of_sequence.n;
ALTER SEQUENCE never_called OWNED BY owner_of_sequence.id;
CREATE TABLE row_column (id int, whole zoo."Upper Case", "all" zoo."Upper Case"[]);
INSERT INTO row_column VALUES (1, ROW(1, 'a', NULL, 2, 3, ''), '{}');
CREATE TABLE defaults (at timestamptz DEFAULT now(), day date DEFAULT CURRENT_DATE, who name DEFAULT CURRENT_USER, id uuid DEFAULT gen_random_uuid(),
  tags text[] DEFAULT '{}', doc jsonb DEFAULT '{"a": "b;"}', note text DEFAULT E'line\nnext', neg int DEFAULT -1, feeling mood DEFAULT 'ok', far late DEFAULT 1);
INSERT INTO defaults (at, day) VALUES ('2026-02-08 00:00+07', '2026-02-08');

-- ── Constraints: checks, keys, exclusions ───────────────────────────────────────────────────────────────────────────────
CREATE TABLE checks (
  kind varchar(9) CHECK (kind IN ('a', 'b')), code char(2) CONSTRAINT "code; of" CHECK (code NOT IN ('xx', 'yy')), n int CHECK (n BETWEEN 1 AND 9),
  low text CHECK (low = lower(low)) NO INHERIT, short text CHECK (zoo."is Short"(short)), a int, b int, CHECK (a < b OR b IS NULL), CONSTRAINT "ពិនិត្យ" CHECK (a <> 13));
INSERT INTO checks VALUES ('a', 'ab', 5, 'low', 'short', 1, 2), ('b', NULL, NULL, NULL, NULL, NULL, NULL), ('a', 'zz', 1, 'x', '', 77, NULL);
ALTER TABLE checks ADD CONSTRAINT "not valid" CHECK (a <> 77) NOT VALID;
CREATE TABLE keys (
  id int, a int, b int, c text, at tsrange, CONSTRAINT "key; deferred" PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED,
  UNIQUE (a, b) INCLUDE (c), CONSTRAINT "nulls equal" UNIQUE NULLS NOT DISTINCT (c), UNIQUE (b) WITH (fillfactor = 80) DEFERRABLE,
  CONSTRAINT "no overlap" EXCLUDE USING gist (a WITH =, at WITH &&) WHERE (a > 0) DEFERRABLE);
INSERT INTO keys VALUES (1, 1, 1, 'x', '[2026-01-01,2026-02-01)'), (2, 1, 2, NULL, '[2026-02-01,2026-03-01)'), (3, NULL, NULL, 'y', NULL);

-- ── Foreign keys: actions, to itself, in a circle, of several columns, not valid ────────────────────────────────────────
CREATE TABLE parent (id int PRIMARY KEY, tenant int, code text, UNIQUE (tenant, code));
CREATE TABLE child (
  id int GENERATED ALWAYS AS IDENTITY, cascaded int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, nulled int DEFAULT 1 REFERENCES parent ON DELETE SET NULL,
  defaulted int DEFAULT 1 REFERENCES parent ON DELETE SET DEFAULT, later int CONSTRAINT "later; on" REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
  tenant int, code text, up int, PRIMARY KEY (id), FOREIGN KEY (tenant, code) REFERENCES parent (tenant, code) MATCH FULL ON DELETE SET NULL (code),
  FOREIGN KEY (up) REFERENCES child ON DELETE RESTRICT);
INSERT INTO parent VALUES (1, 1, 'a'), (2, 1, 'ខ');
INSERT INTO child (cascaded, nulled, tenant, code, up) VALUES (1, 2, 1, 'ខ', 1), (NULL, NULL, NULL, NULL, 1);
CREATE TABLE egg (id int PRIMARY KEY, hen int);
CREATE TABLE hen (id int PRIMARY KEY, egg int NOT NULL REFERENCES egg);
INSERT INTO egg VALUES (1, 1);
INSERT INTO hen VALUES (1, 1);
ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen;
CREATE TABLE unsure (parent int);
INSERT INTO unsure VALUES (999);
ALTER TABLE unsure ADD CONSTRAINT "unsure; fk" FOREIGN KEY (parent) REFERENCES parent NOT VALID;

-- ── Partitions: range, list, hash, below each other, default, attached with other columns ───────────────────────────────
CREATE TABLE sale (id bigint GENERATED BY DEFAULT AS IDENTITY, day date NOT NULL, shop text, amount numeric CHECK (amount > 0), PRIMARY KEY (id, day, shop)) PARTITION BY RANGE (day);
CREATE TABLE sale_2025 PARTITION OF sale FOR VALUES FROM (MINVALUE) TO ('2026-01-01') WITH (fillfactor = 90);
CREATE TABLE "sale of 2026" (shop text NOT NULL, gone int, amount numeric DEFAULT 7 CONSTRAINT sale_amount_check CHECK (amount > 0) CHECK (amount < 1000), day date NOT NULL, id bigint NOT NULL) PARTITION BY LIST (shop);
ALTER TABLE "sale of 2026" DROP COLUMN gone;
ALTER TABLE sale ATTACH PARTITION "sale of 2026" FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE "sale; ក" PARTITION OF "sale of 2026" (shop DEFAULT 'ក', CONSTRAINT small CHECK (amount < 500)) FOR VALUES IN ('ក', 'it''s');
CREATE TABLE sale_rest PARTITION OF "sale of 2026" DEFAULT PARTITION BY HASH (day, id);
CREATE TABLE sale_rest_0 PARTITION OF sale_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE sale_rest_1 PARTITION OF sale_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE sale_other PARTITION OF sale DEFAULT;
ALTER TABLE sale ADD COLUMN seller int REFERENCES parent ON DELETE CASCADE;
INSERT INTO sale VALUES (1, '2025-05-01', 'x', 5, 1), (2, '2026-05-01', 'ក', 6, NULL), (3, '2026-05-01', 'it''s', 7, 2), (4, '2026-05-02', 'z', 8, 1), (5, '2026-05-03', 'y', 9, NULL), (6, '2030-01-01', '', 1, 2);
CREATE TABLE refund (sale bigint, day date, shop text, FOREIGN KEY (sale, day, shop) REFERENCES sale ON DELETE CASCADE);
INSERT INTO refund VALUES (2, '2026-05-01', 'ក'), (6, '2030-01-01', '');
CREATE INDEX sale_shop ON sale (shop) INCLUDE (amount);
CREATE INDEX "sale amount" ON ONLY sale (amount);
CREATE INDEX sale_2025_amount ON sale_2025 (amount);
ALTER INDEX "sale amount" ATTACH PARTITION sale_2025_amount;
CREATE UNIQUE INDEX ON "sale of 2026" (shop, day, id);
CREATE TABLE by_expression (name text, at timestamptz) PARTITION BY LIST (lower(name) COLLATE "C");
CREATE TABLE by_expression_a PARTITION OF by_expression FOR VALUES IN ('a', NULL);
INSERT INTO by_expression VALUES ('A', '2026-01-01 00:00+07');
CREATE TABLE by_two (a int, b text) PARTITION BY RANGE (a, b);
CREATE TABLE by_two_low PARTITION OF by_two FOR VALUES FROM (MINVALUE, MINVALUE) TO (1, 'm');
CREATE UNLOGGED TABLE by_two_high PARTITION OF by_two FOR VALUES FROM (1, 'm') TO (MAXVALUE, MAXVALUE);
CREATE TABLE no_partitions (id int) PARTITION BY HASH (id);

-- ── Inheritance: several parents, merged columns, an order that a restore changes ───────────────────────────────────────
CREATE TABLE animal (id int, name text NOT NULL DEFAULT 'nobody', CONSTRAINT "no 0" CHECK (id <> 0));
CREATE TABLE swimmer (depth int, name text, CONSTRAINT deep CHECK (depth > 0) NO INHERIT);
CREATE TABLE fish (fins int, id int, name text, scales int CHECK (scales > 0));
ALTER TABLE fish ADD CONSTRAINT "no 0" CHECK (id <> 0), ALTER name SET NOT NULL;
ALTER TABLE fish INHERIT animal;
CREATE TABLE duck (wings int DEFAULT 2) INHERITS (animal, swimmer);
ALTER TABLE duck ALTER name SET DEFAULT 'duck';
CREATE TABLE "Rubber Duck" () INHERITS (duck);
ALTER TABLE animal ADD COLUMN born date;
INSERT INTO animal VALUES (1, 'ដំរី', NULL);
INSERT INTO fish VALUES (2, 2, 'carp', 100, '2026-01-01');
INSERT INTO duck (id, depth, wings) VALUES (3, 1, 2);
INSERT INTO "Rubber Duck" (id, wings) VALUES (4, NULL);

-- ── Indexes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TABLE indexed (id int NOT NULL, a int NOT NULL, name text, doc jsonb, tags text[], at timestamptz, area box, spot point, words tsvector, path ltree);
INSERT INTO indexed SELECT i, i % 7, CASE WHEN i % 5 > 0 THEN 'ឈ្មោះ ' || i END, jsonb_build_object('i', i), ARRAY['t' || i % 3, NULL], '2026-01-01 00:00+07'::timestamptz + i * interval '1 hour',
  box(point(i, i), point(i + 1, i + 1)), point(i, -i), to_tsvector('simple', 'word' || i), ('a.b' || i)::ltree FROM generate_series(1, 100) AS i;
CREATE UNIQUE INDEX indexed_id ON indexed (id);
CREATE UNIQUE INDEX "unique; partial" ON indexed (a, id DESC NULLS LAST) NULLS NOT DISTINCT WHERE name IS NOT NULL AND a IN (1, 2);
CREATE INDEX ON indexed (lower(name) COLLATE khmer text_pattern_ops, (doc ->> 'i'), zoo.twice(a)) WITH (deduplicate_items = off, fillfactor = 50);
CREATE INDEX "Index of the ""name""" ON indexed (name COLLATE "C") INCLUDE (a, at) WHERE (name <> '' AND name NOT LIKE '%;%');
CREATE INDEX ON indexed USING hash (name) WITH (fillfactor = 60);
CREATE INDEX ON indexed USING gin (doc jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX ON indexed USING gin (tags, words);
CREATE INDEX indexed_trgm ON indexed USING gist (name gist_trgm_ops (siglen = 32));
CREATE INDEX ON indexed USING gist (area, a, path);
CREATE INDEX ON indexed USING spgist (spot);
CREATE INDEX ON indexed USING brin (at timestamptz_minmax_multi_ops (values_per_range = 16), id int4_bloom_ops) WITH (pages_per_range = 8, autosummarize = on);
CREATE INDEX indexed_sum ON indexed ((id + a));
ALTER INDEX indexed_sum ALTER COLUMN 1 SET STATISTICS 500;
CLUSTER indexed USING indexed_id;
ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_id;
ALTER TABLE keys REPLICA IDENTITY FULL;
ALTER TABLE unsure REPLICA IDENTITY NOTHING;

-- ── Extended statistics ─────────────────────────────────────────────────────────────────────────────────────────────────
CREATE STATISTICS indexed_all ON id, a, name FROM indexed;
CREATE STATISTICS "Some; statistics" (ndistinct, mcv) ON a, (id % 3), lower(name) FROM indexed;
CREATE STATISTICS "select".one ON (a * 2) FROM indexed;
ALTER STATISTICS indexed_all SET STATISTICS 300;

-- ── Views: options, columns with defaults, recursion, each on the other, on a primary key ───────────────────────────────
CREATE VIEW simple AS SELECT "Id", "a b" AS "A ""B""", "100%" FROM "Upper Case" WHERE "a b" IN ('x', 'it''s');
ALTER VIEW simple ALTER COLUMN "Id" SET DEFAULT 99;
CREATE VIEW checked WITH (security_barrier) AS SELECT * FROM parent WHERE tenant = 1 WITH CASCADED CHECK OPTION;
CREATE VIEW checked_locally AS SELECT * FROM checked WHERE id < 10 WITH LOCAL CHECK OPTION;
CREATE VIEW as_caller WITH (security_invoker = true, security_barrier = false) AS SELECT count(*) AS n FROM child;
CREATE RECURSIVE VIEW "count;down" (n) AS VALUES (3) UNION ALL SELECT n - 1 FROM "count;down" WHERE n > 0;
CREATE VIEW "ទិដ្ឋភាព" AS WITH one AS MATERIALIZED (SELECT "លេខ", "ឈ្មោះ" FROM "ថ្នាំពេទ្យ")
  SELECT o.*, row_number() OVER w AS "#", d.x FROM one AS o CROSS JOIN LATERAL (VALUES (1), (NULL)) AS d (x) WINDOW w AS (PARTITION BY d.x ORDER BY o."លេខ" DESC);
CREATE VIEW by_key AS SELECT p.id, p.code, count(c.id) AS children FROM parent AS p LEFT JOIN child AS c ON c.cascaded = p.id GROUP BY p.id;
CREATE VIEW on_view AS SELECT k.*, s."A ""B""" FROM by_key AS k LEFT JOIN simple AS s ON s."Id" = k.id;
CREATE VIEW no_columns_view AS SELECT FROM no_columns;
CREATE VIEW circle_a AS SELECT 1 AS x;
CREATE VIEW circle_b AS SELECT x FROM circle_a;
CREATE OR REPLACE VIEW circle_a AS SELECT x FROM circle_b;
CREATE VIEW "own row" AS SELECT 1 AS x;
CREATE FUNCTION of_row("own row") RETURNS int LANGUAGE sql STABLE AS 'SELECT $1.x';
CREATE OR REPLACE VIEW "own row" AS SELECT id AS x FROM parent WHERE zoo.of_row(NULL::"own row") IS NULL;

-- ── Materialised views: populated or not, on each other, on a primary key ───────────────────────────────────────────────
CREATE MATERIALIZED VIEW totals WITH (fillfactor = 75) AS SELECT shop, sum(amount) AS total FROM sale GROUP BY shop;
CREATE UNIQUE INDEX totals_shop ON totals (shop);
ALTER MATERIALIZED VIEW totals CLUSTER ON totals_shop;
CREATE MATERIALIZED VIEW "total; of all" AS SELECT sum(total) AS "Σ" FROM totals;
CREATE MATERIALIZED VIEW not_populated AS SELECT * FROM child WITH NO DATA;
CREATE MATERIALIZED VIEW by_key_kept AS SELECT id, code, count(*) FROM parent GROUP BY id;
CREATE MATERIALIZED VIEW on_view_kept AS SELECT id, children FROM on_view;

-- ── Rules ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE RULE "insert; instead" AS ON INSERT TO simple DO INSTEAD INSERT INTO zoo."Upper Case" ("Id", "a b") VALUES (new."Id", new."A ""B""") RETURNING "Id", "a b", "100%";
CREATE RULE nothing AS ON DELETE TO simple WHERE old."Id" = 1 DO INSTEAD NOTHING;
CREATE RULE also AS ON UPDATE TO tuned DO ALSO (INSERT INTO zoo."1st" VALUES (old.id); NOTIFY "tuned; changed");
CREATE RULE conditional AS ON INSERT TO tuned WHERE new.note IN ('a', 'b') DO ALSO DELETE FROM zoo."1st" WHERE "2nd" = new.id;
CREATE RULE off AS ON DELETE TO tuned DO ALSO SELECT 1;
ALTER TABLE tuned DISABLE RULE off;

-- ── Functions: languages, arguments, results, attributes, overloads, broken bodies ──────────────────────────────────────
CREATE FUNCTION atomic(a int, b int DEFAULT 2, OUT sum int, OUT product int) LANGUAGE sql BEGIN ATOMIC SELECT a + b; SELECT a + b, a * b; END;
CREATE FUNCTION atomic_by_key() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC SELECT code FROM zoo.parent GROUP BY id; END;
CREATE FUNCTION "all of ""them"""(VARIADIC "many; of" numeric[] DEFAULT '{}') RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT sum(x) FROM unnest($1) AS x';
CREATE FUNCTION rows_of(lowest int) RETURNS TABLE (id int, "the note" text) LANGUAGE plpgsql STABLE ROWS 10 COST 5000 AS
  $$BEGIN RETURN QUERY SELECT p.id, p.code FROM zoo.parent AS p WHERE p.id >= lowest; END;$$;
CREATE FUNCTION set_of() RETURNS SETOF zoo.parent LANGUAGE sql STABLE AS 'TABLE zoo.parent';
CREATE FUNCTION swap(INOUT a anyelement, INOUT b anyelement) LANGUAGE sql IMMUTABLE AS 'SELECT b, a';
CREATE FUNCTION first_of(anycompatiblearray, anycompatible) RETURNS anycompatible LANGUAGE sql IMMUTABLE PARALLEL RESTRICTED CALLED ON NULL INPUT AS 'SELECT coalesce($1[1], $2)';
CREATE FUNCTION overloaded(int) RETURNS text LANGUAGE sql AS $$SELECT 'int'$$;
CREATE FUNCTION overloaded(text) RETURNS text LANGUAGE sql AS $$SELECT 'text'$$;
CREATE FUNCTION overloaded("Zoo Two"."semi;colon
line") RETURNS text LANGUAGE sql AS $$SELECT 'row'$$;
CREATE FUNCTION secured() RETURNS name LANGUAGE plpgsql SECURITY DEFINER SET search_path = zoo, "Zoo Two", pg_temp SET work_mem = '7MB' SET timezone = 'Asia/Phnom_Penh' SET application_name = 'it''s; "so"' SET datestyle = 'ISO, DMY' AS
  $$BEGIN RETURN current_user; END$$;
CREATE FUNCTION "ទាំងអស់;
$1"() RETURNS text LANGUAGE plpgsql AS E'BEGIN\r\n  RETURN ''ខ្មែរ $$ $1 \\\\ "'';\r\nEND';
CREATE FUNCTION executes(name text) RETURNS void LANGUAGE plpgsql AS $outer$DECLARE q text := format($inner$SELECT %L; -- $$ $inner$, name); BEGIN EXECUTE q; END$outer$;
SET check_function_bodies = off;
CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS 'SELECT gone FROM nowhere.at_all';
CREATE FUNCTION more_broken() RETURNS int LANGUAGE plpgsql AS 'this isn''t plpgsql;';
RESET check_function_bodies;
CREATE PROCEDURE note(IN who text, INOUT n int DEFAULT 0) LANGUAGE plpgsql AS $$BEGIN n := n + 1; COMMIT; END$$;
CREATE PROCEDURE "atomic; too"(int) LANGUAGE sql BEGIN ATOMIC INSERT INTO zoo."1st" VALUES ($1); DELETE FROM zoo."1st" WHERE "2nd" = $1; END;
CREATE PROCEDURE defined(OUT a int) LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$BEGIN a := 1; END$$;

-- ── Aggregates: plain, (*), moving, ordered-set, variadic, parallel ─────────────────────────────────────────────────────
CREATE FUNCTION add_text(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN coalesce($1, '') || coalesce($2, '');
CREATE FUNCTION one_more(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN $1 + 1;
CREATE FUNCTION middle(numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN $1[(cardinality($1) + 1) / 2];
CREATE AGGREGATE together(text) (SFUNC = add_text, STYPE = text, INITCOND = '>; ''', COMBINEFUNC = add_text, PARALLEL = SAFE);
CREATE AGGREGATE "how many"(*) (SFUNC = one_more, STYPE = bigint, INITCOND = '0');
CREATE AGGREGATE moving(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = int, MINITCOND = '0', SSPACE = 64);
CREATE AGGREGATE middle_of(ORDER BY numeric) (SFUNC = array_append, STYPE = numeric[], FINALFUNC = middle, FINALFUNC_MODIFY = SHAREABLE);
CREATE AGGREGATE collected(anycompatible) (SFUNC = array_append, STYPE = anycompatiblearray, INITCOND = '{}');
CREATE AGGREGATE least_of(int) (SFUNC = int4smaller, STYPE = int, SORTOP = <);

-- ── Operators and casts ─────────────────────────────────────────────────────────────────────────────────────────────────
CREATE FUNCTION same(pair, pair) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN ($1).a = ($2).a;
CREATE FUNCTION other(pair, pair) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN NOT zoo.same($1, $2);
CREATE OPERATOR === (FUNCTION = same, LEFTARG = pair, RIGHTARG = pair, COMMUTATOR = ===, NEGATOR = !==, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
CREATE OPERATOR !== (FUNCTION = other, LEFTARG = pair, RIGHTARG = pair, COMMUTATOR = !==, NEGATOR = ===);
CREATE OPERATOR "Zoo Two".@#@ (FUNCTION = zoo.twice, RIGHTARG = int);
CREATE VIEW by_operator AS SELECT typed.b, OPERATOR("Zoo Two".@#@) a AS twice FROM typed WHERE ROW(a, b, NULL)::pair === ROW(1, '', NULL)::pair;
CREATE FUNCTION mood_number(mood) RETURNS int LANGUAGE sql IMMUTABLE STRICT RETURN length($1::text);
CREATE FUNCTION number_pair(bigint, int, boolean) RETURNS pair LANGUAGE sql IMMUTABLE RETURN ROW($1, 'x', NULL)::zoo.pair;
CREATE CAST (mood AS int) WITH FUNCTION mood_number(mood) AS ASSIGNMENT;
CREATE CAST (bigint AS pair) WITH FUNCTION number_pair(bigint, int, boolean);
CREATE CAST ("Upper Enum" AS mood) WITH INOUT AS IMPLICIT;

-- ── Text search ─────────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE TEXT SEARCH DICTIONARY "simple; own" (TEMPLATE = pg_catalog.simple, STOPWORDS = english, ACCEPT = false);
CREATE TEXT SEARCH DICTIONARY stems (TEMPLATE = snowball, LANGUAGE = 'french');
CREATE TEXT SEARCH CONFIGURATION "search ខ្មែរ" (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION "search ខ្មែរ" ALTER MAPPING FOR asciiword, word WITH "simple; own", stems, simple;
ALTER TEXT SEARCH CONFIGURATION "search ខ្មែរ" DROP MAPPING FOR url, host;
CREATE TEXT SEARCH CONFIGURATION unmapped (PARSER = "default");
CREATE TABLE searched (body text, found tsvector GENERATED ALWAYS AS (to_tsvector('zoo."search ខ្មែរ"'::regconfig, body)) STORED);
INSERT INTO searched VALUES ('les chevaux'), ('ខ្មែរ'), (NULL);

-- ── Triggers: row, statement, transition tables, constraint, instead of, disabled, on partitions ────────────────────────
CREATE FUNCTION triggered() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN coalesce(new, old); END$$;
CREATE TRIGGER "before; row" BEFORE INSERT OR UPDATE OF code, tenant ON parent FOR EACH ROW WHEN (new.code IS DISTINCT FROM 'it''s') EXECUTE FUNCTION triggered('a', 'it''s', '\', '', 'ខ');
CREATE TRIGGER moved AFTER UPDATE ON parent REFERENCING OLD TABLE AS "old; rows" NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION triggered();
CREATE TRIGGER emptied BEFORE TRUNCATE ON parent EXECUTE FUNCTION triggered();
CREATE CONSTRAINT TRIGGER "later; checked" AFTER INSERT ON child FROM parent DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION triggered();
CREATE TRIGGER disabled AFTER DELETE ON parent FOR EACH ROW EXECUTE FUNCTION triggered();
CREATE TRIGGER always AFTER DELETE ON parent FOR EACH ROW EXECUTE FUNCTION triggered();
CREATE TRIGGER on_replica AFTER DELETE ON parent FOR EACH ROW EXECUTE FUNCTION triggered();
ALTER TABLE parent DISABLE TRIGGER disabled, ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER on_replica;
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON on_view FOR EACH ROW EXECUTE FUNCTION triggered();
CREATE TRIGGER on_partitions AFTER INSERT ON sale FOR EACH ROW WHEN (new.amount > 1) EXECUTE FUNCTION triggered();
ALTER TABLE sale_2025 DISABLE TRIGGER on_partitions;
CREATE TRIGGER own BEFORE INSERT ON sale_other FOR EACH ROW EXECUTE FUNCTION triggered();
CREATE TRIGGER never BEFORE INSERT ON animal FOR EACH ROW WHEN (pg_trigger_depth() > 0) EXECUTE FUNCTION suppress_redundant_updates_trigger();
DROP TRIGGER never ON animal;
CREATE TRIGGER redundant BEFORE UPDATE ON animal FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();

-- Rows of the deferred keys are checked before their tables change.
SET CONSTRAINTS ALL IMMEDIATE;

-- ── Row security ────────────────────────────────────────────────────────────────────────────────────────────────────────
ALTER TABLE child ENABLE ROW LEVEL SECURITY;
ALTER TABLE keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE animal FORCE ROW LEVEL SECURITY;
CREATE POLICY "see; own" ON child FOR SELECT TO dastern_readonly, dastern_user USING (code IN ('a', 'ខ') OR EXISTS (SELECT FROM zoo.parent AS p WHERE p.id = child.cascaded));
CREATE POLICY add ON child FOR INSERT TO PUBLIC WITH CHECK (tenant > 0);
CREATE POLICY narrow ON child AS RESTRICTIVE FOR ALL TO CURRENT_USER USING (up IS NOT NULL) WITH CHECK (true);
CREATE POLICY "គោល" ON keys FOR UPDATE USING (c = current_setting('my.setting', true));
CREATE POLICY remove ON tuned FOR DELETE USING (false);

-- ── Large objects ───────────────────────────────────────────────────────────────────────────────────────────────────────
SELECT lo_from_bytea(424242, decode(repeat('00ff5c27', 3000), 'hex')), lo_from_bytea(424243, ''), lo_create(424244);
CREATE TABLE has_large (name text, content oid);
INSERT INTO has_large VALUES ('a', 424242), ('none', NULL);

-- ── Publications ────────────────────────────────────────────────────────────────────────────────────────────────────────
CREATE PUBLICATION "some; tables" FOR TABLE zoo.indexed (id, a, name), TABLE zoo.identity_always WHERE (id > 10 AND note <> ';'), TABLE ONLY zoo.animal
  WITH (publish = 'insert, delete', publish_via_partition_root = true);
CREATE PUBLICATION no_tables;

-- ── Comments on everything ──────────────────────────────────────────────────────────────────────────────────────────────
COMMENT ON SCHEMA "semi;colon
line" IS E'a schema''s "comment";\nDROP TABLE x; -- \\ $$ ខ្មែរ';
COMMENT ON SCHEMA public IS 'not what initdb wrote';
COMMENT ON EXTENSION hstore IS 'our hstore';
COMMENT ON COLLATION khmer IS 'ខ្មែរ';
COMMENT ON CONVERSION "latin to utf" IS 'conversion';
COMMENT ON TYPE mood IS 'enum';
COMMENT ON TYPE pair IS 'composite';
COMMENT ON COLUMN pair.a IS 'attribute';
COMMENT ON TYPE float_range IS 'range';
COMMENT ON DOMAIN percent IS 'domain';
COMMENT ON CONSTRAINT "at most 100" ON DOMAIN percent IS 'check of a domain';
COMMENT ON CONSTRAINT "not yet" ON DOMAIN late IS 'not valid check of a domain';
COMMENT ON SEQUENCE shared IS 'sequence';
COMMENT ON TABLE "Upper Case" IS 'table';
COMMENT ON COLUMN "Upper Case"."a b" IS 'column';
COMMENT ON TABLE "sale; ក" IS 'partition';
COMMENT ON CONSTRAINT "PK of ""it""" ON "Upper Case" IS 'primary key';
COMMENT ON CONSTRAINT "code; of" ON checks IS 'check';
COMMENT ON CONSTRAINT "not valid" ON checks IS 'not valid check';
COMMENT ON CONSTRAINT "later; on" ON child IS 'foreign key';
COMMENT ON CONSTRAINT "no overlap" ON keys IS 'exclusion';
COMMENT ON INDEX "Index of the ""name""" IS 'index';
COMMENT ON STATISTICS "Some; statistics" IS 'statistics';
COMMENT ON VIEW "count;down" IS 'view';
COMMENT ON COLUMN by_key.children IS 'column of a view';
COMMENT ON MATERIALIZED VIEW "total; of all" IS 'materialised view';
COMMENT ON COLUMN totals.total IS 'column of a materialised view';
COMMENT ON RULE "insert; instead" ON simple IS 'rule';
COMMENT ON FUNCTION overloaded(int) IS 'function';
COMMENT ON PROCEDURE "atomic; too"(int) IS 'procedure';
COMMENT ON AGGREGATE "how many"(*) IS 'aggregate';
COMMENT ON AGGREGATE middle_of(ORDER BY numeric) IS 'ordered-set aggregate';
COMMENT ON OPERATOR === (pair, pair) IS 'operator';
COMMENT ON OPERATOR "Zoo Two".@#@ (NONE, int) IS 'prefix operator';
COMMENT ON CAST (mood AS int) IS 'cast';
COMMENT ON TEXT SEARCH DICTIONARY stems IS 'dictionary';
COMMENT ON TEXT SEARCH CONFIGURATION "search ខ្មែរ" IS 'configuration';
COMMENT ON TRIGGER "before; row" ON parent IS 'trigger';
COMMENT ON POLICY "see; own" ON child IS 'policy';
COMMENT ON LARGE OBJECT 424242 IS 'large object';
COMMENT ON PUBLICATION no_tables IS 'publication';

-- ── Privileges: tables, columns, routines, types, with grant option, taken from PUBLIC and from the owner ───────────────
GRANT USAGE ON SCHEMA zoo, "Zoo Two", "ឃ្លាំង" TO dastern_readonly;
GRANT USAGE, CREATE ON SCHEMA public TO dastern_readonly;
GRANT ALL ON SCHEMA empty TO PUBLIC;
GRANT SELECT ON "Upper Case", "semi;colon
line", simple, totals, sale TO dastern_readonly WITH GRANT OPTION;
GRANT SELECT ("ឈ្មោះ"), UPDATE ("ឈ្មោះ", "តម្លៃ") ON "ថ្នាំពេទ្យ" TO dastern_readonly;
GRANT INSERT (note), REFERENCES (id) ON "ឃ្លាំង"."table" TO PUBLIC;
GRANT ALL ON child TO dastern_readonly;
REVOKE TRUNCATE, MAINTAIN ON child FROM dastern_readonly;
REVOKE INSERT, DELETE ON parent FROM dastern_user;
REVOKE ALL ON "1st" FROM dastern_user;
GRANT SELECT ON "1st" TO dastern_user;
GRANT USAGE, SELECT ON SEQUENCE shared, "own name" TO dastern_readonly;
REVOKE EXECUTE ON FUNCTION secured(), overloaded(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION secured() TO dastern_readonly WITH GRANT OPTION;
REVOKE EXECUTE ON PROCEDURE note(text, int) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION "how many"() FROM PUBLIC;
REVOKE USAGE ON TYPE mood FROM PUBLIC;
GRANT USAGE ON TYPE pair, float_range TO dastern_readonly;
REVOKE USAGE ON DOMAIN percent FROM PUBLIC;
GRANT SELECT ON LARGE OBJECT 424242 TO dastern_readonly;
GRANT SELECT, UPDATE ON LARGE OBJECT 424244 TO PUBLIC;

-- ── Default privileges ──────────────────────────────────────────────────────────────────────────────────────────────────
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO dastern_readonly;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO dastern_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA zoo GRANT USAGE, SELECT ON SEQUENCES TO dastern_readonly WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA "Zoo Two" GRANT ALL ON TYPES TO PUBLIC;

-- ── The database itself: settings, a comment, a privilege ───────────────────────────────────────────────────────────────
DO $$BEGIN
  EXECUTE format('ALTER DATABASE %I SET work_mem = ''7MB''', current_database());
  EXECUTE format('ALTER ROLE %I IN DATABASE %I SET lock_timeout = ''59s''', current_user, current_database());
  EXECUTE format('COMMENT ON DATABASE %I IS ''a zoo''''s; ខ្មែរ''', current_database());
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO dastern_readonly WITH GRANT OPTION', current_database());
END$$;

RESET search_path;
RESET client_min_messages;
