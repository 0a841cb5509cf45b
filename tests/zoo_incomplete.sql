-- What PostgreSQL's own pg_dump and pg_restore (17) bring back only in part. Load it as the owner of an empty database.
-- Each group says what fails; tests/integration/test_zoo.py holds pg_restore's messages and what is missing afterwards.
CREATE SCHEMA part;
SET search_path = part;
SET client_min_messages = error;

-- A restore has an empty search_path, and this function reads by an unqualified name: the REFRESH fails, the view is there but
-- isn't populated. PostgreSQL 17 refuses it at once; it comes from older servers, or the function has changed since.
CREATE TABLE price (id int PRIMARY KEY, amount int);
INSERT INTO price VALUES (1, 5), (2, 7);
CREATE FUNCTION all_prices() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT sum(amount) FROM part.price); END';
CREATE MATERIALIZED VIEW unqualified AS SELECT all_prices() AS total;
CREATE OR REPLACE FUNCTION all_prices() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT sum(amount) FROM price); END';

-- The same in an index: it isn't made. The function says that it is immutable, and it isn't.
CREATE FUNCTION price_of(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN (SELECT amount FROM part.price WHERE id = $1); END';
CREATE TABLE priced (id int);
INSERT INTO priced VALUES (1), (2);
CREATE INDEX priced_amount ON priced (price_of(id));
CREATE OR REPLACE FUNCTION price_of(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN (SELECT amount FROM price WHERE id = $1); END';

-- The same in a generated column: the rows aren't loaded.
CREATE TABLE computed (id int, amount int GENERATED ALWAYS AS (price_of(id)) STORED);
INSERT INTO computed VALUES (1), (2);

-- The check reads a table whose rows are loaded later: the rows aren't loaded.
CREATE TABLE z_allowed (id int);
INSERT INTO z_allowed VALUES (1);
CREATE FUNCTION allowed(int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM part.z_allowed WHERE id = $1)';
CREATE TABLE a_checked (id int CHECK (allowed(id)));
INSERT INTO a_checked VALUES (1);

-- The same in a domain.
CREATE DOMAIN allowed_id AS int CHECK (allowed(VALUE));
CREATE TABLE b_checked (id allowed_id);
INSERT INTO b_checked VALUES (1);

-- The function of the check has changed since, and the rows don't pass it any more: they aren't loaded.
CREATE FUNCTION small(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 100';
CREATE TABLE grown (id int CHECK (small(id)));
INSERT INTO grown VALUES (50);
CREATE OR REPLACE FUNCTION small(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 10';

-- A view reads another through a function, which pg_dump can't see: it is refreshed first, while the other isn't populated.
CREATE MATERIALIZED VIEW z_kept AS SELECT 1 AS x;
CREATE FUNCTION kept() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM part.z_kept';
CREATE MATERIALIZED VIEW a_reads AS SELECT kept() AS n;

-- A child's column may be NULL where its parent's may not. A restore makes the child with its parent's NOT NULL: the rows with
-- NULL aren't loaded, and the constraint is new.
CREATE TABLE strict (id int);
CREATE TABLE lax () INHERITS (strict);
ALTER TABLE ONLY strict ALTER id SET NOT NULL;
INSERT INTO lax VALUES (NULL);

-- A table that was added to an extension isn't dumped at all, nor are its rows.
CREATE EXTENSION citext;
CREATE TABLE swallowed (id int);
INSERT INTO swallowed VALUES (1);
ALTER EXTENSION citext ADD TABLE swallowed;

-- The hash of an enum depends on the OIDs of its labels: all rows come back, but in other partitions than before. No message.
CREATE TYPE shade AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
CREATE TABLE by_shade (shade shade) PARTITION BY HASH (shade);
CREATE TABLE by_shade_0 PARTITION OF by_shade FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_shade_1 PARTITION OF by_shade FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_shade SELECT unnest(enum_range(NULL::shade)) FROM generate_series(1, 3);

RESET client_min_messages;
RESET search_path;
