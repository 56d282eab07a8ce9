-- A schema that has every feature which a clone must carry, as nastily as possible.
--
--     psql -1 -f prelude.sql -f everything.sql      as a superuser, in an empty database whose encoding is UTF8
--
-- How the schema's name in a text (a function's body, a string literal in an expression) is to be read:
--
--   * followed by a dot and the name of an object of the schema it is a reference: a clone has its own name there, quoted or not as it
--     was, also in dynamic SQL and in literals; so it is before the placeholder of a format(), in a search_path, and as a literal of its
--     own that is given to format(), cast to regnamespace or compared with a schema's name;
--   * anything else is a column, an alias, a value or a word and stays, also as any other literal of its own ('everything'). What would
--     look like a reference is called "kept_..." here;
--   * in comments of a body, which here all say "either way", it may be read as one likes.

-- Owned by a superuser, who alone can hold what takes one to make (functions in C, LEAKPROOF) and give it to other roles.
CREATE SCHEMA everything;
COMMENT ON SCHEMA everything IS 'Every feature; it''s "quoted", ünïcödé and has
two lines.';

SET search_path = everything;
SET client_min_messages = warning;
SET check_function_bodies = off;  -- some read tables whose columns need them

------------------------------------------------------------------------------------------------------------------------------------
-- Types
------------------------------------------------------------------------------------------------------------------------------------

CREATE TYPE mood AS ENUM ('sad', 'meh', 'ok', 'it''s "great"', 'ünïcödé', 'gone');
ALTER TYPE mood ADD VALUE 'in between' BEFORE 'ok';
ALTER TYPE mood RENAME VALUE 'gone' TO 'left';
CREATE TYPE "Mixed Case.Enum" AS ENUM ('A', 'a', ' ');
CREATE TYPE no_values AS ENUM ();

CREATE TYPE pair AS (a integer, b text COLLATE "C");
CREATE TYPE nested AS (inner_pair pair, pairs pair[], "Mood" mood, "d.o.t" numeric(7,3));
ALTER TYPE nested ADD ATTRIBUTE dropped integer;
ALTER TYPE nested ADD ATTRIBUTE later timestamptz(3);
ALTER TYPE nested DROP ATTRIBUTE dropped;
CREATE TYPE "select" AS ("from" integer, "where" "Mixed Case.Enum"[]);
CREATE TYPE row_of_a_typed_table AS (id integer, label text, amount numeric(12,2));
CREATE TYPE nothing_at_all AS ();

CREATE FUNCTION is_code(value text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT $1 ~ '^[A-Z]{2,8}$' $$;

CREATE DOMAIN code AS text COLLATE "C" DEFAULT 'AB'
    CONSTRAINT "it's a code" CHECK (is_code(VALUE))
    CHECK (VALUE <> 'everything'::text);
ALTER DOMAIN code ADD CONSTRAINT code_is_not_zz CHECK (VALUE <> 'ZZ') NOT VALID;
CREATE DOMAIN codes AS code[] NOT NULL DEFAULT '{}' CHECK (cardinality(VALUE) < 10);
CREATE DOMAIN short_code AS code CHECK (length(VALUE) = 2);
CREATE DOMAIN positive_pair AS pair CHECK ((VALUE).a > 0);
CREATE DOMAIN moods AS mood[] CHECK (array_position(VALUE, 'sad'::mood) IS NULL);
CREATE DOMAIN "text" AS pg_catalog.text CHECK (octet_length(VALUE) < 1000);
CREATE DOMAIN money_amount AS numeric(14,2) NOT NULL DEFAULT 0;

CREATE FUNCTION float8_gap(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 - $2';
CREATE TYPE float8_span AS RANGE (subtype = float8, subtype_diff = float8_gap, multirange_type_name = "Spans of float8");
CREATE TYPE text_span AS RANGE (subtype = pg_catalog.text, subtype_opclass = text_pattern_ops, collation = "C");
CREATE TYPE mood_span AS RANGE (subtype = mood);
CREATE TYPE span_of_spans AS RANGE (subtype = float8_span);
CREATE DOMAIN ordinary_span AS float8_span CHECK (NOT isempty(VALUE));

------------------------------------------------------------------------------------------------------------------------------------
-- Sequences that belong to nobody
------------------------------------------------------------------------------------------------------------------------------------

CREATE SEQUENCE lone AS smallint INCREMENT BY 5 MINVALUE -100 MAXVALUE 1000 START WITH 10 CACHE 7 CYCLE;
CREATE SEQUENCE descending INCREMENT BY -3 MINVALUE -1000 MAXVALUE -1 START WITH -1 NO CYCLE;
CREATE SEQUENCE shared_numbers AS integer START WITH 1000;
CREATE SEQUENCE late_numbers;
CREATE UNLOGGED SEQUENCE unlogged_numbers INCREMENT BY 2;
CREATE SEQUENCE "Seq ""of"" it's. own" MAXVALUE 9223372036854775806;

------------------------------------------------------------------------------------------------------------------------------------
-- Tables: columns
------------------------------------------------------------------------------------------------------------------------------------

-- Reads a table whose default it is.
CREATE FUNCTION next_label() RETURNS text LANGUAGE sql STABLE
AS $$ SELECT 'label ' || (count(*) + 1) FROM everything.columns $$;

CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT pg_catalog.now() $$;  -- shadowed by pg_catalog's

CREATE TABLE columns (
    dropped_first      integer,
    id                 bigint GENERATED ALWAYS AS IDENTITY (START WITH 100 INCREMENT BY 10 MINVALUE 5 MAXVALUE 1000000 CACHE 3 CYCLE),
    by_default         smallint GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME "Identity's sequence" START WITH 7),
    small_number       smallserial,
    number             serial,
    big_number         bigserial,
    shared_number      integer NOT NULL DEFAULT nextval('shared_numbers'),
    late_number        bigint DEFAULT nextval('everything.late_numbers'::text),
    outside_number     bigint DEFAULT nextval('shared.numbers'),
    "Seq's number"     bigint DEFAULT nextval('"Seq ""of"" it''s. own"'),
    dropped_in_between text COLLATE "C" DEFAULT 'x',
    label              text DEFAULT next_label(),
    qualified_now      timestamptz DEFAULT everything.now(),
    word               text DEFAULT 'everything'::text,
    everything         text DEFAULT 'kept'::text,
    net                numeric(12,2) NOT NULL DEFAULT 0,
    gross              numeric(14,4) GENERATED ALWAYS AS (net * 1.081) STORED,
    is_a_code          boolean GENERATED ALWAYS AS (is_code(word)) STORED,
    in_c               text COLLATE "C",
    in_posix           varchar(20) COLLATE "POSIX",
    in_shared          text COLLATE shared.plain,
    in_icu             text COLLATE "en-x-icu",
    how                mood NOT NULL DEFAULT 'ok',
    hows               mood[] DEFAULT ARRAY['ok'::mood, 'it''s "great"'::mood],
    c                  code,
    cs                 codes,
    p                  pair DEFAULT ROW(1, 'b')::pair,
    n                  nested,
    ps                 positive_pair[],
    span               float8_span DEFAULT float8_span(0, 1),
    spans              "Spans of float8",
    own_text           everything."text" DEFAULT 'own',
    own_select         "select",
    outside            shared.severity DEFAULT 'low',
    outside_slug       text DEFAULT shared.slug('A B'),
    whole_table        regclass DEFAULT 'everything.columns'::regclass,
    a_function         regprocedure DEFAULT 'everything.is_code(text)'::regprocedure,
    a_type             regtype DEFAULT 'everything.mood'::regtype,
    "user"             name DEFAULT CURRENT_USER,
    "quo""ted"         char(3),
    "with 'single' and space" bit varying(5) DEFAULT B'101',
    "with.dot"         interval hour to second(2) DEFAULT '1:02:03.45',
    "ünïcödé"          time(3) with time zone,
    doc                jsonb NOT NULL DEFAULT '{"a": ["b"]}',
    matrix             integer[3][3],
    bytes              bytea DEFAULT '\x00ff',
    main_storage       text,
    plain_storage      text,
    compressed         text COMPRESSION lz4,
    compressed_pglz    text COMPRESSION pglz,
    counted            integer,
    self               oid
);
ALTER TABLE columns DROP COLUMN dropped_first, DROP COLUMN dropped_in_between;
ALTER TABLE columns ALTER COLUMN main_storage SET STORAGE MAIN, ALTER COLUMN plain_storage SET STORAGE PLAIN,
    ALTER COLUMN doc SET STORAGE EXTERNAL, ALTER COLUMN in_c SET STORAGE EXTENDED;
ALTER TABLE columns ALTER COLUMN counted SET STATISTICS 321, ALTER COLUMN net SET STATISTICS 0,
    ALTER COLUMN counted SET (n_distinct = -0.25, n_distinct_inherited = 17);
ALTER TABLE columns SET (fillfactor = 71, autovacuum_enabled = false, autovacuum_vacuum_scale_factor = 0.33, parallel_workers = 3,
    toast.autovacuum_enabled = false, toast.autovacuum_vacuum_threshold = 77, toast_tuple_target = 300);

CREATE TABLE second_user_of_shared_numbers (
    id    integer PRIMARY KEY DEFAULT nextval('everything.shared_numbers'),
    lone  smallint DEFAULT nextval('lone'),
    down  bigint DEFAULT nextval('descending'),
    twice bigint DEFAULT nextval('lone') + nextval('descending')
);
-- Owned, but by a column whose default does not use it; and used by another table's.
CREATE SEQUENCE owned_elsewhere OWNED BY second_user_of_shared_numbers.lone;
CREATE TABLE user_of_owned_elsewhere (id bigint DEFAULT nextval('owned_elsewhere') PRIMARY KEY);
-- A serial whose default was changed, and one whose sequence was renamed and altered.
CREATE TABLE changed_serials (a serial, b serial, c bigserial);
ALTER TABLE changed_serials ALTER COLUMN a SET DEFAULT 5, ALTER COLUMN b DROP DEFAULT;
ALTER SEQUENCE changed_serials_c_seq RENAME TO "Another name";
ALTER SEQUENCE "Another name" INCREMENT BY 100 CACHE 4 MAXVALUE 100000000;

CREATE UNLOGGED TABLE unlogged (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number bigint DEFAULT nextval('unlogged_numbers'));
CREATE TABLE no_columns ();
CREATE TABLE only_dropped_columns (a integer);
ALTER TABLE only_dropped_columns DROP COLUMN a;
CREATE TABLE typed OF row_of_a_typed_table (id WITH OPTIONS PRIMARY KEY, label DEFAULT 'typed', amount WITH OPTIONS NOT NULL CHECK (amount > 0));
COMMENT ON COLUMN typed.label IS 'A column of a typed table';

-- Rows older than a column have its default from the catalog.
CREATE TABLE columns_added_later (id integer PRIMARY KEY);
INSERT INTO columns_added_later SELECT generate_series(1, 5);
ALTER TABLE columns_added_later ADD COLUMN added text NOT NULL DEFAULT 'from the catalog', ADD COLUMN how mood DEFAULT 'ok';
ALTER TABLE columns_added_later ALTER COLUMN added SET DEFAULT 'another by now';

------------------------------------------------------------------------------------------------------------------------------------
-- Names
------------------------------------------------------------------------------------------------------------------------------------

CREATE TABLE everything (kept_1 integer PRIMARY KEY, kept_column text);
CREATE TABLE "everything.kept_in_a_name" ("everything.kept_id" serial PRIMARY KEY);
CREATE TABLE "Mixed ""Case"".Table's" ("Id" serial PRIMARY KEY, "Sp ace" text UNIQUE, "DESC" integer, CONSTRAINT "ch'eck ""x""" CHECK ("DESC" > 0));
CREATE TABLE "table" ("from" integer PRIMARY KEY, "order" text, "table" integer REFERENCES "table");
CREATE TABLE "user" (id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "all" boolean DEFAULT true);
CREATE TABLE pg_class (oid oid PRIMARY KEY, relname name);
CREATE TABLE "$dollar$$ %I %s {id} \x41 ""; --" ("\" text, "{slug}" text, "%1$s" text DEFAULT '$$ $body$ %I \');
CREATE TABLE "таблица_из_шестидесяти_трёх_байтов_а" (id serial PRIMARY KEY, "колонка" text UNIQUE);
CREATE TABLE "a name of 63 bytes, which is as long as an identifier can be ..." (
    "a column of 63 bytes, which is as long as an identifier can be." serial PRIMARY KEY,
    "a column of 63 bytes, which is as long as an identifier can be!" text UNIQUE
);
CREATE INDEX ON "a name of 63 bytes, which is as long as an identifier can be ..." ("a column of 63 bytes, which is as long as an identifier can be!" DESC);

------------------------------------------------------------------------------------------------------------------------------------
-- Constraints
------------------------------------------------------------------------------------------------------------------------------------

CREATE TABLE constrained (
    id        integer,
    tenant    integer,
    name      text,
    twin      text,
    extra     text,
    parent    integer,
    amount    numeric CONSTRAINT "amount isn't negative" CHECK (amount >= 0),
    starts    date,
    ends      date,
    room      integer,
    during    tstzrange,
    cancelled boolean DEFAULT false,
    circle    circle,
    country   text,
    how       mood,
    CONSTRAINT "Primary 'key'" PRIMARY KEY (tenant, id) INCLUDE (extra) WITH (fillfactor = 55),
    CONSTRAINT deferred_twin UNIQUE (twin) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT deferrable_name UNIQUE (tenant, name) DEFERRABLE,
    CONSTRAINT nulls_alike UNIQUE NULLS NOT DISTINCT (country, how),
    CONSTRAINT included UNIQUE (starts) INCLUDE (ends, extra) WITH (fillfactor = 60),
    CONSTRAINT ends_after_start CHECK (ends > starts),
    CONSTRAINT not_inherited CHECK (tenant > 0) NO INHERIT,
    CONSTRAINT whole_row CHECK (constrained IS NOT NULL OR true),
    CONSTRAINT by_function CHECK (country IS NULL OR is_code(country)),
    CONSTRAINT one_at_a_time EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (NOT cancelled AND how IS DISTINCT FROM 'left'::mood),
    CONSTRAINT circles_apart EXCLUDE USING gist (circle WITH &&) WITH (fillfactor = 70) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT expression_once EXCLUDE USING btree (lower(name) WITH =) WHERE (id > 1000),
    CONSTRAINT hashed EXCLUDE USING hash (extra WITH =)
);
ALTER TABLE constrained ADD CONSTRAINT not_valid CHECK (amount < 1000000) NOT VALID;
ALTER TABLE constrained ADD CONSTRAINT not_valid_no_inherit CHECK (amount <> 13) NO INHERIT NOT VALID;
ALTER TABLE constrained ADD CONSTRAINT self_reference FOREIGN KEY (tenant, parent) REFERENCES constrained (tenant, id)
    ON DELETE SET NULL (parent) ON UPDATE CASCADE;
ALTER TABLE constrained ADD CONSTRAINT to_outside FOREIGN KEY (country) REFERENCES shared.countries ON UPDATE CASCADE ON DELETE RESTRICT;
CREATE UNIQUE INDEX from_an_index ON constrained (ends) WITH (fillfactor = 44);
ALTER TABLE constrained ADD CONSTRAINT from_an_index UNIQUE USING INDEX from_an_index;

CREATE TABLE referring (
    id      integer PRIMARY KEY,
    tenant  integer,
    other   integer,
    starts  date REFERENCES constrained (starts) ON DELETE SET DEFAULT (starts) DEFERRABLE,
    CONSTRAINT "full" FOREIGN KEY (tenant, other) REFERENCES constrained (tenant, id) MATCH FULL ON DELETE CASCADE
);
ALTER TABLE referring ADD CONSTRAINT not_valid FOREIGN KEY (id) REFERENCES second_user_of_shared_numbers NOT VALID;

-- Each needs the other.
CREATE TABLE hen (id integer PRIMARY KEY, hatched_from integer NOT NULL);
CREATE TABLE egg (id integer PRIMARY KEY, laid_by integer NOT NULL REFERENCES hen DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hen ADD CONSTRAINT hen_from_egg FOREIGN KEY (hatched_from) REFERENCES egg DEFERRABLE INITIALLY IMMEDIATE;

ALTER TABLE columns ADD PRIMARY KEY (id);
CREATE TABLE identified_by_index (id integer NOT NULL, other integer NOT NULL);
CREATE UNIQUE INDEX identity_index ON identified_by_index (other, id);
ALTER TABLE identified_by_index REPLICA IDENTITY USING INDEX identity_index;
ALTER TABLE hen REPLICA IDENTITY FULL;
ALTER TABLE egg REPLICA IDENTITY NOTHING;
ALTER TABLE constrained CLUSTER ON from_an_index;

------------------------------------------------------------------------------------------------------------------------------------
-- Indexes
------------------------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION indexable(doc jsonb, key text DEFAULT 'a') RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT $1 ->> $2 $$;
CREATE FUNCTION always(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1 IS NOT NULL; END $$;

CREATE TABLE indexed (
    id      integer PRIMARY KEY,
    a       integer,
    b       text,
    c       text COLLATE "C",
    d       jsonb,
    v       tsvector,
    p       point,
    r       int4range,
    i       inet,
    numbers integer[],
    how     mood,
    at      timestamptz,
    gone    integer,
    code    code
);
ALTER TABLE indexed DROP COLUMN gone;
CREATE INDEX btree_mixed ON indexed USING btree (a DESC NULLS LAST, b COLLATE "C" text_pattern_ops DESC, c ASC NULLS FIRST) INCLUDE (id, how) WITH (fillfactor = 33, deduplicate_items = off);
CREATE UNIQUE INDEX btree_unique_nulls ON indexed (a, how) NULLS NOT DISTINCT WHERE how <> 'left'::mood AND a IS NOT NULL;
CREATE INDEX btree_expression ON indexed (lower(b), (a + 1) DESC, indexable(d), everything.indexable(d, 'k'::pg_catalog.text) COLLATE "C") WHERE always(a) AND b <> 'everything'::pg_catalog.text;
ALTER INDEX btree_expression ALTER COLUMN 2 SET STATISTICS 555;
ALTER INDEX btree_expression ALTER COLUMN 4 SET STATISTICS 44;
CREATE INDEX btree_enum ON indexed ((how = ANY (ARRAY['ok'::mood, 'meh'::mood])));
CREATE INDEX btree_like ON indexed (b varchar_pattern_ops, code);
CREATE INDEX hash_b ON indexed USING hash (b) WITH (fillfactor = 50);
CREATE INDEX gin_jsonb ON indexed USING gin (d jsonb_path_ops) WITH (fastupdate = off, gin_pending_list_limit = 128);
CREATE INDEX gin_fulltext ON indexed USING gin (to_tsvector('simple'::regconfig, coalesce(b, '') || ' ' || coalesce(c, '')), numbers, v);
CREATE INDEX gin_trigrams ON indexed USING gin (b shared.gin_trgm_ops);
CREATE INDEX gist_trigrams ON indexed USING gist (b shared.gist_trgm_ops (siglen = 32), r) WITH (buffering = on, fillfactor = 80);
CREATE INDEX gist_fulltext ON indexed USING gist (v tsvector_ops (siglen = 100));
CREATE INDEX gist_point ON indexed USING gist (p) INCLUDE (a);
CREATE INDEX spgist_point ON indexed USING spgist (p kd_point_ops) WITH (fillfactor = 77);
CREATE INDEX spgist_inet ON indexed USING spgist (i) WHERE i IS NOT NULL;
CREATE INDEX brin_at ON indexed USING brin (at timestamptz_minmax_multi_ops (values_per_range = 16), id) WITH (pages_per_range = 8, autosummarize = on);
CREATE INDEX brin_bloom ON indexed USING brin (a int4_bloom_ops (n_distinct_per_range = 100, false_positive_rate = 0.05));
CREATE INDEX "In.dex 'with' ""quotes""" ON indexed (id) WHERE false;
CREATE INDEX "everything.kept_index" ON indexed (((d -> 'everything'::pg_catalog.text)));
COMMENT ON INDEX btree_mixed IS 'An index; it''s commented';

CREATE STATISTICS indexed_a_b_stat ON a, b FROM indexed;
CREATE STATISTICS everything."stat's ndistinct" (ndistinct) ON a, how, b FROM indexed;
CREATE STATISTICS dependent (dependencies, mcv) ON b, a, code FROM indexed;
CREATE STATISTICS by_expression (ndistinct, dependencies, mcv) ON lower(b), (a % 10), indexable(d, 'everything'::pg_catalog.text), id FROM indexed;
CREATE STATISTICS one_expression ON (date_trunc('day', at AT TIME ZONE 'UTC')) FROM indexed;
ALTER STATISTICS dependent SET STATISTICS 42;
ALTER STATISTICS by_expression SET STATISTICS 0;
COMMENT ON STATISTICS dependent IS 'Extended statistics';

------------------------------------------------------------------------------------------------------------------------------------
-- Inheritance and partitions
------------------------------------------------------------------------------------------------------------------------------------

CREATE TABLE ancestor (id integer NOT NULL, gone text, name text DEFAULT 'ancestor', CONSTRAINT inherited_check CHECK (id > 0), CONSTRAINT own_check CHECK (id <> 7) NO INHERIT);
CREATE TABLE other_ancestor (id integer, weight numeric DEFAULT 1, how mood DEFAULT 'ok', CONSTRAINT inherited_check CHECK (id > 0));
CREATE TABLE heir (name text DEFAULT 'heir', own text, CONSTRAINT heir_check CHECK (weight >= 0)) INHERITS (ancestor, other_ancestor);
CREATE TABLE grandchild (local_too integer, CONSTRAINT inherited_check CHECK (id > 0)) INHERITS (heir);
ALTER TABLE heir ALTER COLUMN weight SET DEFAULT 2, ALTER COLUMN how DROP DEFAULT;
ALTER TABLE ancestor DROP COLUMN gone;
CREATE TABLE adopted (id integer NOT NULL, name text, own integer, CONSTRAINT inherited_check CHECK (id > 0));
ALTER TABLE adopted INHERIT ancestor;
CREATE INDEX ON heir (name);
ALTER TABLE grandchild ALTER COLUMN own SET NOT NULL, ALTER COLUMN own SET STORAGE EXTERNAL;

CREATE TABLE measured (
    id      bigint GENERATED BY DEFAULT AS IDENTITY,
    at      timestamptz NOT NULL,
    dropped integer,
    sensor  integer NOT NULL DEFAULT 1,
    value   numeric CHECK (value > -274),
    how     mood DEFAULT 'ok',
    doubled numeric GENERATED ALWAYS AS (value * 2) STORED,
    CONSTRAINT measured_pkey PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
ALTER TABLE measured DROP COLUMN dropped;
CREATE TABLE measured_2026_01 PARTITION OF measured (sensor DEFAULT 11, CONSTRAINT only_january CHECK (sensor < 1000)) FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00') WITH (fillfactor = 90);
CREATE TABLE measured_2026_02 (value numeric CONSTRAINT measured_value_check CHECK (value > -274), sensor integer NOT NULL DEFAULT 22, at timestamptz NOT NULL, how mood DEFAULT 'meh', id bigint NOT NULL, gone integer, doubled numeric GENERATED ALWAYS AS (value * 2) STORED);
ALTER TABLE measured_2026_02 DROP COLUMN gone;
ALTER TABLE measured ATTACH PARTITION measured_2026_02 FOR VALUES FROM ('2026-02-01 00:00+00') TO ('2026-03-01 00:00+00');
CREATE TABLE "measured 2026.03" PARTITION OF measured FOR VALUES FROM ('2026-03-01 00:00+00') TO (MAXVALUE) PARTITION BY RANGE (at, id);
CREATE TABLE measured_march PARTITION OF "measured 2026.03" FOR VALUES FROM ('2026-03-01 00:00+00', MINVALUE) TO ('2026-04-01 00:00+00', 1000000) PARTITION BY HASH (id);
CREATE TABLE measured_march_0 PARTITION OF measured_march FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE measured_march_1 PARTITION OF measured_march FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE measured_other PARTITION OF "measured 2026.03" DEFAULT;
CREATE TABLE measured_default PARTITION OF measured DEFAULT;
CREATE INDEX measured_by_sensor ON measured (sensor, at DESC) INCLUDE (value);
CREATE INDEX measured_by_how ON measured USING hash (how);
CREATE INDEX only_in_january ON measured_2026_01 (value);
-- An index of the parent that one partition had under a name of its own; and one that not every partition has.
CREATE INDEX february_values ON measured_2026_02 (value);
CREATE INDEX measured_by_value ON measured (value);
CREATE INDEX incomplete ON ONLY measured (how, id);
CREATE INDEX january_incomplete ON measured_2026_01 (how, id);
ALTER INDEX incomplete ATTACH PARTITION january_incomplete;
ALTER TABLE measured ADD CONSTRAINT unique_in_time UNIQUE (sensor, id, at) DEFERRABLE;
CREATE TABLE noted_measure (id integer PRIMARY KEY, measure bigint, at timestamptz,
    CONSTRAINT to_partitioned FOREIGN KEY (measure, at) REFERENCES measured ON DELETE CASCADE);
CREATE TABLE sensors (id integer PRIMARY KEY, name text);
INSERT INTO sensors VALUES (1, 'one'), (2, 'two'), (11, 'eleven'), (22, 'twenty-two');
ALTER TABLE measured ADD CONSTRAINT from_partitioned FOREIGN KEY (sensor) REFERENCES sensors ON UPDATE CASCADE;
ALTER TABLE measured_default ADD CONSTRAINT only_default_has_it FOREIGN KEY (sensor) REFERENCES sensors (id);

CREATE TABLE moody (how mood, n integer, UNIQUE (how, n)) PARTITION BY LIST (how);
CREATE TABLE moody_or_not PARTITION OF moody FOR VALUES IN ('ok', 'it''s "great"', NULL) PARTITION BY HASH (n);
CREATE TABLE "moody or not, 0" PARTITION OF moody_or_not FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE UNLOGGED TABLE "moody or not, 1" PARTITION OF moody_or_not FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE by_expression (a integer, d jsonb, p pair) PARTITION BY LIST (indexable(d));
CREATE TABLE by_expression_x PARTITION OF by_expression FOR VALUES IN ('x', 'it''s', 'everything');
CREATE TABLE by_expression_rest PARTITION OF by_expression DEFAULT;
CREATE TABLE many_columns (a integer, b text COLLATE "C", c date) PARTITION BY RANGE (a, lower(b) COLLATE "POSIX", c);
CREATE TABLE many_columns_1 PARTITION OF many_columns FOR VALUES FROM (1, MINVALUE, MINVALUE) TO (10, 'm', '2026-01-01');
CREATE TABLE empty_root (a integer) PARTITION BY HASH (a);

------------------------------------------------------------------------------------------------------------------------------------
-- Views
------------------------------------------------------------------------------------------------------------------------------------

CREATE VIEW plain AS SELECT id, net, how, 'everything'::pg_catalog.text AS word, how = 'ok'::mood AS fine, c::pg_catalog.text FROM columns;
CREATE VIEW barrier WITH (security_barrier = true, security_invoker = true) AS SELECT * FROM plain WHERE net >= 0;
CREATE VIEW checked WITH (check_option = cascaded) AS SELECT id, a, b FROM indexed WHERE a > 0;
CREATE VIEW checked_locally AS SELECT * FROM checked WHERE b IS NOT NULL WITH LOCAL CHECK OPTION;
CREATE VIEW "View.with 'quotes' ""too""" ("a ""b""", everything) AS SELECT everything.kept_1, everything.kept_column FROM everything AS everything;
ALTER VIEW checked ALTER COLUMN b SET DEFAULT 'from the view';
-- Lives on the primary key: without it, every column would have to be grouped by.
CREATE VIEW grouped AS SELECT s.id, s.name, count(m.id) AS measures, max(m.value) AS top FROM sensors AS s LEFT JOIN measured AS m ON m.sensor = s.id GROUP BY s.id;
CREATE VIEW over_grouped AS SELECT g.*, rank() OVER (PARTITION BY g.top > 1 ORDER BY g.measures DESC) FROM grouped AS g;
CREATE RECURSIVE VIEW numbered (n, path) AS
    SELECT 1, ARRAY[1] UNION ALL SELECT n + 1, path || n FROM numbered WHERE n < 10;
CREATE VIEW joined AS
    SELECT * FROM hen AS h JOIN LATERAL (SELECT e.id AS egg_id FROM egg AS e WHERE e.laid_by = h.id) AS laid ON true
    JOIN shared.countries AS land (country_code, country_name) ON country_code <> 'everything'
    NATURAL LEFT JOIN (VALUES (1, 'ok'::mood)) AS v (id, tag);
CREATE VIEW whole_rows AS SELECT l.n, (columns.p).a, columns.*::columns AS r, ROW(l.id)::pg_catalog.text AS t FROM columns LEFT JOIN LATERAL (SELECT columns.id, 1 AS n) AS l ON true;
ALTER VIEW whole_rows RENAME COLUMN t TO renamed;
CREATE TABLE to_be_renamed (old_name integer, gone integer);
CREATE VIEW over_renamed AS SELECT t.old_name, o.* FROM to_be_renamed AS t, to_be_renamed AS o (x);
ALTER TABLE to_be_renamed RENAME COLUMN old_name TO new_name;
ALTER TABLE to_be_renamed RENAME TO renamed;

CREATE MATERIALIZED VIEW summed WITH (fillfactor = 80, autovacuum_enabled = off) AS SELECT sensor, sum(value) AS total, 'everything'::pg_catalog.text AS word FROM measured GROUP BY sensor;
CREATE UNIQUE INDEX summed_sensor ON summed (sensor);
CREATE INDEX "summed's words" ON summed (lower(word)) WHERE total > 0;
ALTER MATERIALIZED VIEW summed CLUSTER ON summed_sensor;
ALTER MATERIALIZED VIEW summed ALTER COLUMN total SET STATISTICS 12;
CREATE MATERIALIZED VIEW summed_again AS SELECT count(*) AS n FROM summed WITH NO DATA;
CREATE MATERIALIZED VIEW top_sum AS SELECT max(total) AS top, is_code('AB') AS is_code FROM summed;
CREATE VIEW over_materialized AS SELECT * FROM top_sum, summed;
CREATE STATISTICS of_summed ON sensor, total FROM summed;

------------------------------------------------------------------------------------------------------------------------------------
-- Functions
------------------------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION add_up(integer, integer) RETURNS integer LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'int4pl';

CREATE FUNCTION atomic(which integer, VARIADIC moods mood[] DEFAULT ARRAY['ok'::mood]) RETURNS SETOF constrained
LANGUAGE sql STABLE ROWS 7 COST 13 BEGIN ATOMIC
    SELECT c.* FROM constrained AS c WHERE c.id = which AND c.how = ANY (moods);
    SELECT everything.* FROM constrained AS everything WHERE everything.id = which OR everything.name = 'everything';
END;

CREATE FUNCTION returned(a integer, INOUT b mood DEFAULT 'ok', OUT total numeric, OUT pairs pair[]) LANGUAGE sql BEGIN ATOMIC
    SELECT b, sum(net), ARRAY[ROW(1, 'x')::pair] FROM columns WHERE id > a;
END;

CREATE PROCEDURE atomic_procedure(IN amount numeric, INOUT done boolean DEFAULT false) LANGUAGE sql BEGIN ATOMIC
    INSERT INTO renamed (new_name) VALUES (nextval('shared_numbers'::regclass)::integer);
    UPDATE hen SET hatched_from = hatched_from WHERE id < amount;
    DELETE FROM renamed WHERE new_name < 0;
    SELECT true;
END;

CREATE FUNCTION rows_of(a integer DEFAULT 1, label "Mixed Case.Enum" DEFAULT 'A', which regclass DEFAULT 'everything.columns'::regclass,
                        number bigint DEFAULT nextval('everything.shared_numbers'::regclass), late bigint DEFAULT nextval('everything.late_numbers'::pg_catalog.text),
                        word text DEFAULT 'everything', code code DEFAULT 'XY', span float8_span DEFAULT '[1,2)', "quo""ted ' arg" pair DEFAULT '(1,b)')
RETURNS TABLE (id bigint, "T able" columns, "select" "select"[], mood mood) LANGUAGE plpgsql VOLATILE ROWS 3 AS $function$
DECLARE
    words text := 'everything is only a word here, and so is everything.';
    one everything.columns;
    other everything.columns%ROWTYPE;
    third "everything"."select"."from"%TYPE;
    moods everything . mood[] := '{}'::everything.mood[];
    number_of bigint;
BEGIN
    -- either way: everything.columns
    /* either way: SELECT * FROM everything.columns */
    SELECT * INTO one FROM everything.columns AS c WHERE c.id = a AND c.how = 'ok'::everything.mood;
    SELECT * INTO other FROM "everything"."columns" WHERE columns.id = a;
    SELECT everything.kept_column INTO words FROM everything.everything AS everything WHERE everything.kept_1 = a;
    PERFORM EVERYTHING.is_code('x'), Everything.add_up(1, 2), everything."now"();
    PERFORM everything."DESC" FROM everything."Mixed ""Case"".Table's" AS everything ORDER BY everything."DESC";
    EXECUTE 'SELECT count(*) FROM everything.columns WHERE word = ''everything else''';
    EXECUTE 'SELECT ' || quote_literal('everything') || ', everything.is_code(''everything.is_code'') FROM everything."Mixed ""Case"".Table''s"';
    EXECUTE format('SELECT %L, everything.%I(%L)', 'everything else', 'is_code', 'X');
    EXECUTE format('SELECT count(*) FROM %I.%I', 'everything', 'columns') INTO number_of;
    PERFORM oid, 'everything'::regnamespace FROM pg_namespace WHERE nspname = 'everything';
    EXECUTE format('SELECT count(*) FROM everything.%I', 'columns') INTO number_of;
    EXECUTE format('SELECT everything.kept_1, %L FROM everything.everything AS everything', 'all of everything');
    EXECUTE $dynamic$ SELECT "everything"."is_code"('X'), $$everything.columns$$::regclass, '"everything"."columns"'::regclass $dynamic$;
    EXECUTE E'SELECT \'everything else\', nextval(\'everything.shared_numbers\')';
    PERFORM nextval('everything.shared_numbers'), currval('"everything".shared_numbers'::regclass), to_regclass('everything.columns');
    PERFORM set_config('search_path', 'everything, pg_temp', true);
    PERFORM is_code('x'), moods;
    SET LOCAL search_path = everything, shared;
    PERFORM is_code('x');
    SET LOCAL search_path TO 'everything', "$user";
    PERFORM is_code('x');
    PERFORM 'everything.nothing_like_it', 'somewhere.everything.columns', 'everything-else', 'not_everything.columns', words || '.';
    RETURN QUERY SELECT r.id, r, NULL::everything."select"[], r.how FROM everything.columns AS r;
END
$function$;

CREATE FUNCTION with_settings(a integer) RETURNS integer LANGUAGE sql SECURITY DEFINER STRICT COST 0.5 PARALLEL RESTRICTED
SET search_path = everything, shared, pg_temp SET work_mem = '7MB' SET "plpgsql.check_asserts" = 'on' SET timezone = 'Europe/Zurich' SET application_name = 'it''s "ünï"' SET datestyle = ISO, DMY
AS $$ SELECT number FROM columns WHERE id = $1 $$;
CREATE FUNCTION with_one_path() RETURNS integer LANGUAGE sql SET search_path = everything AS 'SELECT 1';
CREATE FUNCTION with_quoted_path() RETURNS integer LANGUAGE sql SET search_path = "everything", "Quo,""ted", '' AS 'SELECT 1';
CREATE FUNCTION with_empty_path() RETURNS integer LANGUAGE sql SET search_path = '' AS 'SELECT 1 FROM everything.columns';

CREATE FUNCTION leaky(text, integer DEFAULT 1) RETURNS boolean LANGUAGE plpgsql IMMUTABLE LEAKPROOF CALLED ON NULL INPUT PARALLEL UNSAFE AS $$ BEGIN RETURN true; END $$;
CREATE FUNCTION poly(anyelement, anyarray DEFAULT '{}'::text[]) RETURNS anyarray LANGUAGE sql IMMUTABLE AS 'SELECT $2 || $1';
CREATE FUNCTION compatible(anycompatible, VARIADIC anycompatiblearray) RETURNS anycompatible LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION ranges(anyrange, OUT multi anymultirange) LANGUAGE sql AS 'SELECT $1::pg_catalog.text::int4multirange';
CREATE FUNCTION record_of(VARIADIC "any") RETURNS integer LANGUAGE internal STABLE AS 'pg_num_nonnulls';
CREATE FUNCTION set_of_enum() RETURNS SETOF mood LANGUAGE sql AS 'SELECT ''ok''::everything.mood';
CREATE FUNCTION set_of_view(columns, columns[]) RETURNS SETOF plain LANGUAGE sql STABLE AS 'SELECT * FROM everything.plain';
CREATE FUNCTION records() RETURNS SETOF record LANGUAGE sql AS 'SELECT 1, 2';
CREATE FUNCTION multi("Spans of float8", OUT text_span, OUT span_of_spans) LANGUAGE sql AS 'SELECT NULL, NULL';
CREATE FUNCTION "Func.tion 'with' ""quotes"""("Arg ""1""" integer = 1) RETURNS text LANGUAGE sql AS $_$ SELECT 'it''s $$ $1' $_$;
CREATE FUNCTION everything(everything everything) RETURNS text LANGUAGE sql RETURN everything.kept_column;
CREATE FUNCTION overloaded(integer) RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION overloaded(everything."text") RETURNS integer LANGUAGE sql RETURN 2;
CREATE FUNCTION overloaded(pg_catalog.text) RETURNS integer LANGUAGE sql RETURN 3;
CREATE FUNCTION overloaded(mood, mood[]) RETURNS integer LANGUAGE sql RETURN overloaded(4) + everything.overloaded('x'::pg_catalog.text);
CREATE FUNCTION overloaded(code) RETURNS integer LANGUAGE sql RETURN (SELECT count(*)::integer FROM plain WHERE plain.how = 'ok'::mood);
CREATE PROCEDURE procedure(IN a integer, OUT b mood, INOUT c numeric, VARIADIC d integer[] DEFAULT '{}') LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO everything.everything AS everything (kept_1) VALUES (a) ON CONFLICT (kept_1) DO UPDATE SET kept_column = everything.kept_column || 'everything else';
    COMMIT;
END
$$;
CREATE PROCEDURE definer() LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS '';
CREATE FUNCTION with_crlf() RETURNS integer LANGUAGE plpgsql AS E'BEGIN\r\n\tRETURN 1; -- either way\r\nEND';
CREATE VIEW by_functions AS SELECT f.*, everything.overloaded('ok'::mood, '{}') AS o FROM set_of_view(NULL, NULL) AS f WHERE f.fine;
ALTER TABLE columns ADD COLUMN overload integer;
ALTER TABLE columns ALTER COLUMN overload SET DEFAULT overloaded('ok'::mood, NULL);


------------------------------------------------------------------------------------------------------------------------------------
-- Aggregates
------------------------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION length_added(bigint, pg_catalog.text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT $1 + coalesce(length($2), 0)';
CREATE FUNCTION length_removed(bigint, pg_catalog.text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT $1 - coalesce(length($2), 0)';
CREATE FUNCTION lengths_combined(bigint, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT $1 + $2';
CREATE FUNCTION lengths_done(bigint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT $1::numeric';
CREATE AGGREGATE total_length(pg_catalog.text) (
    SFUNC = length_added, STYPE = bigint, SSPACE = 16, FINALFUNC = lengths_done, COMBINEFUNC = lengths_combined, INITCOND = '0',
    MSFUNC = length_added, MINVFUNC = length_removed, MSTYPE = bigint, MSSPACE = 8, MFINALFUNC = lengths_done, MINITCOND = '0', PARALLEL = SAFE);
CREATE FUNCTION pair_kept(pair, pair) RETURNS pair LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, $2)';
CREATE AGGREGATE first_pair(pair) (SFUNC = pair_kept, STYPE = pair, INITCOND = '(1,"it''s")');
CREATE FUNCTION moods_added(mood[], VARIADIC mood[]) RETURNS mood[] LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $2';
CREATE AGGREGATE "All.moods"(VARIADIC mood[]) (SFUNC = moods_added, STYPE = mood[], INITCOND = '{}');
CREATE AGGREGATE smallest(integer) (SFUNC = int4smaller, STYPE = integer, SORTOP = <);
CREATE AGGREGATE average(numeric) (
    SFUNC = numeric_avg_accum, STYPE = internal, SSPACE = 128, FINALFUNC = numeric_avg, FINALFUNC_MODIFY = SHAREABLE,
    COMBINEFUNC = numeric_avg_combine, SERIALFUNC = numeric_avg_serialize, DESERIALFUNC = numeric_avg_deserialize, PARALLEL = RESTRICTED);
CREATE AGGREGATE ordered(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE AGGREGATE hypothetical(VARIADIC "any" ORDER BY VARIADIC "any") (
    SFUNC = ordered_set_transition_multi, STYPE = internal, FINALFUNC = rank_final, FINALFUNC_EXTRA, HYPOTHETICAL);
CREATE AGGREGATE rows_counted(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
CREATE VIEW aggregated AS SELECT total_length(b) AS length, first_pair(ROW(a, b)::pair) AS p, everything."All.moods"(how) AS moods, rows_counted(*),
    ordered(0.5) WITHIN GROUP (ORDER BY a) FILTER (WHERE a > 0) AS middle FROM indexed GROUP BY c;
CREATE VIEW windowed AS SELECT total_length(b) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM indexed;

------------------------------------------------------------------------------------------------------------------------------------
-- Triggers, rules, policies
------------------------------------------------------------------------------------------------------------------------------------

CREATE TABLE events (id bigserial PRIMARY KEY, what text, old_row jsonb, new_row jsonb);
CREATE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO everything.events (what) VALUES (TG_NAME || ' ' || TG_OP || ' everything.' || TG_TABLE_NAME || coalesce(' ' || TG_ARGV[0], ''));
    RETURN coalesce(NEW, OLD);
END
$$;
CREATE FUNCTION note_many() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO everything.events (what) SELECT 'many' FROM everything.events LIMIT 0;
    RETURN NULL;
END
$$;
CREATE TABLE triggered (id integer PRIMARY KEY, a integer, b text, how mood DEFAULT 'ok', changed_at timestamptz);
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OF a, b ON triggered FOR EACH ROW WHEN (NEW.how = 'ok'::mood AND NEW.b IS DISTINCT FROM 'everything') EXECUTE FUNCTION note_event('all', 'it''s', 'everything.events', '');
CREATE TRIGGER before_delete BEFORE DELETE ON triggered FOR EACH ROW WHEN (is_code(OLD.b)) EXECUTE FUNCTION note_event();
CREATE TRIGGER "Trig.ger 'with' ""quotes""" AFTER UPDATE ON triggered FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION note_event();
CREATE TRIGGER statement_truncate BEFORE TRUNCATE ON triggered EXECUTE FUNCTION note_many();
CREATE TRIGGER transition_insert AFTER INSERT ON triggered REFERENCING NEW TABLE AS "New rows" FOR EACH STATEMENT EXECUTE FUNCTION note_many();
CREATE TRIGGER transition_update AFTER UPDATE ON triggered REFERENCING OLD TABLE AS was NEW TABLE AS "is" FOR EACH ROW EXECUTE FUNCTION note_event();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR DELETE ON triggered DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_event('deferred');
CREATE CONSTRAINT TRIGGER from_another AFTER UPDATE ON triggered FROM referring NOT DEFERRABLE FOR EACH ROW EXECUTE FUNCTION note_event();
CREATE TRIGGER disabled_trigger AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION note_event();
CREATE TRIGGER replica_trigger AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION note_event();
CREATE TRIGGER always_trigger AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION note_event();
CREATE TRIGGER outside_function BEFORE UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION shared.touch();
ALTER TABLE triggered DISABLE TRIGGER disabled_trigger;
ALTER TABLE triggered ENABLE REPLICA TRIGGER replica_trigger;
ALTER TABLE triggered ENABLE ALWAYS TRIGGER always_trigger;
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION note_event('view');
CREATE TRIGGER on_partitions AFTER INSERT OR UPDATE ON measured FOR EACH ROW WHEN (NEW.value > 100) EXECUTE FUNCTION note_event('partitioned');
CREATE TRIGGER on_root AFTER DELETE ON measured FOR EACH STATEMENT EXECUTE FUNCTION note_many();
CREATE TRIGGER only_on_february BEFORE INSERT ON measured_2026_02 FOR EACH ROW EXECUTE FUNCTION note_event();
ALTER TABLE measured_2026_01 DISABLE TRIGGER on_partitions;
ALTER TABLE measured_march_1 ENABLE ALWAYS TRIGGER on_partitions;
-- Checks that stay off, as one leaves them behind after an import.
CREATE TABLE unchecked (id integer PRIMARY KEY, hen integer REFERENCES hen);
ALTER TABLE unchecked DISABLE TRIGGER ALL;

CREATE TABLE ruled (id integer PRIMARY KEY, what text, n integer DEFAULT 0);
CREATE TABLE ruled_log (id integer, at timestamptz DEFAULT pg_catalog.now(), what text);
CREATE RULE log_insert AS ON INSERT TO ruled WHERE NEW.id > 10 DO ALSO INSERT INTO ruled_log (id, what) VALUES (NEW.id, 'everything');
CREATE RULE "no 'delete'" AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE RULE many_commands AS ON UPDATE TO ruled WHERE OLD.n IS DISTINCT FROM NEW.n AND is_code(NEW.what)
    DO ALSO (INSERT INTO ruled_log (id) VALUES (NEW.id); UPDATE sensors SET name = 'x' WHERE sensors.id = OLD.id);
CREATE RULE notified AS ON UPDATE TO ruled DO ALSO NOTIFY "Changed 'it'";
CREATE RULE disabled_rule AS ON INSERT TO ruled WHERE false DO INSTEAD NOTHING;
ALTER TABLE ruled DISABLE RULE disabled_rule;
CREATE RULE replica_rule AS ON UPDATE TO ruled WHERE false DO INSTEAD NOTHING;
ALTER TABLE ruled ENABLE REPLICA RULE replica_rule;
CREATE VIEW ruled_view AS SELECT id, what FROM ruled;
CREATE RULE insert_by_view AS ON INSERT TO ruled_view DO INSTEAD INSERT INTO ruled (id, what) VALUES (NEW.id, NEW.what) RETURNING ruled.id, ruled.what;
ALTER TABLE ruled ENABLE ALWAYS RULE log_insert;

CREATE TABLE guarded (id integer PRIMARY KEY, owner_name name DEFAULT CURRENT_USER, level mood DEFAULT 'ok', parent integer REFERENCES guarded);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON guarded USING (owner_name = CURRENT_USER) WITH CHECK (owner_name = CURRENT_USER AND level <> 'sad'::mood);
CREATE POLICY "Read 'some'" ON guarded AS PERMISSIVE FOR SELECT TO grantee, other_owner USING (EXISTS (SELECT FROM sensors AS s WHERE s.id = guarded.id AND is_code(s.name)));
CREATE POLICY restricted ON guarded AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (id > 0) WITH CHECK (id < (SELECT max(g.id) FROM guarded AS g));
CREATE POLICY insertable ON guarded FOR INSERT TO "Gr'ant ""ee" WITH CHECK (owner_name <> 'everything');
CREATE POLICY deletable ON guarded AS RESTRICTIVE FOR DELETE USING (false);
CREATE TABLE forced_only (id integer);
ALTER TABLE forced_only FORCE ROW LEVEL SECURITY;
CREATE POLICY unused ON forced_only USING (true);
ALTER TABLE measured ENABLE ROW LEVEL SECURITY;
CREATE POLICY on_partitioned ON measured USING (sensor > 0);
CREATE POLICY on_partition ON measured_2026_01 USING (sensor > 1);

------------------------------------------------------------------------------------------------------------------------------------
-- Comments
------------------------------------------------------------------------------------------------------------------------------------

COMMENT ON TABLE columns IS 'A table';
COMMENT ON COLUMN columns.label IS 'A column; it''s "labelled"';
COMMENT ON COLUMN columns."quo""ted" IS E'back\\slash and\nnewline';
COMMENT ON COLUMN plain.word IS 'A column of a view';
COMMENT ON COLUMN summed.total IS 'A column of a materialized view';
COMMENT ON COLUMN pair.a IS 'An attribute';
COMMENT ON VIEW plain IS 'A view';
COMMENT ON MATERIALIZED VIEW summed IS 'A materialized view';
COMMENT ON SEQUENCE lone IS 'A sequence';
COMMENT ON SEQUENCE columns_number_seq IS 'An owned sequence';
COMMENT ON SEQUENCE "Identity's sequence" IS 'The sequence of an identity';
COMMENT ON TYPE mood IS 'An enum';
COMMENT ON TYPE pair IS 'A composite type';
COMMENT ON TYPE float8_span IS 'A range type';
COMMENT ON DOMAIN code IS 'A domain';
COMMENT ON CONSTRAINT "it's a code" ON DOMAIN code IS 'A constraint of a domain';
COMMENT ON CONSTRAINT "Primary 'key'" ON constrained IS 'A primary key';
COMMENT ON CONSTRAINT self_reference ON constrained IS 'A foreign key';
COMMENT ON CONSTRAINT one_at_a_time ON constrained IS 'An exclusion';
COMMENT ON CONSTRAINT "amount isn't negative" ON constrained IS 'A check';
COMMENT ON INDEX "Primary 'key'" IS 'The index of a primary key';
COMMENT ON INDEX measured_by_sensor IS 'An index of a partitioned table';
COMMENT ON TABLE measured_2026_01 IS 'A partition';
COMMENT ON FUNCTION overloaded(mood, mood[]) IS 'A function';
COMMENT ON PROCEDURE procedure IS 'A procedure';
COMMENT ON AGGREGATE total_length(pg_catalog.text) IS 'An aggregate';
COMMENT ON AGGREGATE hypothetical(VARIADIC "any" ORDER BY VARIADIC "any") IS 'A hypothetical-set aggregate';
COMMENT ON TRIGGER before_row ON triggered IS 'A trigger';
COMMENT ON RULE log_insert ON ruled IS 'A rule';
COMMENT ON POLICY own_rows ON guarded IS 'A policy';

------------------------------------------------------------------------------------------------------------------------------------
-- Sample rows, and sequences somewhere in their course
------------------------------------------------------------------------------------------------------------------------------------

INSERT INTO columns (net, in_c, "quo""ted", doc, n, ps, spans, c, cs, own_select, compressed, "ünïcödé", "user")
SELECT i * 1.5, 'row ' || i, 'x' || i, jsonb_build_object('i', i), ROW(ROW(i, 'b'), ARRAY[ROW(i, 'c')::pair], 'ok', 1.5, '2026-01-01')::nested,
       ARRAY[ROW(i, 'p')::positive_pair], '{[1,2), [3,4)}', 'CODE', ARRAY['AB', 'CD']::code[], ROW(i, ARRAY['A', ' ']::"Mixed Case.Enum"[])::everything."select",
       repeat('long ', 1000), '12:00:00.123+01', 'somebody'
FROM generate_series(1, 5) AS i;
INSERT INTO second_user_of_shared_numbers (twice) SELECT 1 FROM generate_series(1, 3);
INSERT INTO user_of_owned_elsewhere DEFAULT VALUES;
INSERT INTO changed_serials (b, c) VALUES (1, DEFAULT), (2, DEFAULT);
INSERT INTO unlogged DEFAULT VALUES;
INSERT INTO typed VALUES (1, DEFAULT, 10), (2, 'two', 20.5);
INSERT INTO everything VALUES (1, 'one'), (2, 'everything');
INSERT INTO "everything.kept_in_a_name" DEFAULT VALUES;
INSERT INTO "Mixed ""Case"".Table's" ("Sp ace", "DESC") VALUES ('a', 1), ('b', 2);
INSERT INTO "table" VALUES (1, 'x', 1), (2, 'y', 1);
INSERT INTO "таблица_из_шестидесяти_трёх_байтов_а" ("колонка") VALUES ('строка'), (NULL);
INSERT INTO constrained (id, tenant, name, twin, extra, parent, amount, starts, ends, room, during, circle, country, how) VALUES
    (1, 1, 'One', 't1', 'e1', NULL, 5, '2026-01-01', '2026-01-02', 1, '[2026-01-01, 2026-01-02)', '<(0,0),1>', 'CH', 'ok'),
    (2, 1, 'Two', 't2', 'e2', 1, 6, '2026-02-01', '2026-02-02', 1, '[2026-01-02, 2026-01-03)', '<(5,5),1>', 'NO', 'meh');
INSERT INTO referring (id, tenant, other, starts) VALUES (1006, 1, 2, '2026-01-01');
INSERT INTO egg VALUES (1, 1), (2, 1);
INSERT INTO hen VALUES (1, 1);
INSERT INTO indexed (id, a, b, c, d, v, p, r, i, numbers, how, at, code)
SELECT i, i, 'b' || i, 'c' || i, jsonb_build_object('a', i, 'k', 'v'), to_tsvector('simple', 'word ' || i), point(i, i), int4range(i, i + 1), '10.0.0.1',
       ARRAY[i, i + 1], 'ok', '2026-01-01 00:00+00', 'AB' FROM generate_series(1, 20) AS i;
INSERT INTO ancestor (id) VALUES (1);
INSERT INTO heir (id, own) VALUES (2, 'own');
INSERT INTO grandchild (id, own) VALUES (3, 'own');
INSERT INTO adopted (id, own) VALUES (4, 4);
INSERT INTO measured (at, sensor, value, how) VALUES
    ('2026-01-05 12:00+00', 1, 20, 'ok'), ('2026-02-05 12:00+00', 2, 21, 'ok'), ('2026-03-05 12:00+00', 1, 22, 'ok'),
    ('2026-03-06 12:00+00', 2, 23, 'sad'), ('2025-03-06 12:00+00', 11, 24, 'meh'), ('2026-04-05 12:00+00', 22, 25, NULL);
INSERT INTO noted_measure VALUES (1, 1, '2026-01-05 12:00+00');
INSERT INTO by_expression VALUES (1, '{"a": "x"}', ROW(1, 'x')), (2, '{}', NULL);
INSERT INTO many_columns VALUES (2, 'B', '2025-01-01');
INSERT INTO triggered VALUES (1, 1, 'b');
INSERT INTO ruled VALUES (1, 'one'), (11, 'eleven');
INSERT INTO guarded (id, owner_name) VALUES (1, 'somebody'), (2, 'grantee');
INSERT INTO no_columns DEFAULT VALUES;
SET CONSTRAINTS ALL IMMEDIATE;
REFRESH MATERIALIZED VIEW summed;
REFRESH MATERIALIZED VIEW top_sum;
SELECT setval('late_numbers', 4711), setval('"Seq ""of"" it''s. own"', 99, false), setval('unlogged_numbers', 31) \g /dev/null

------------------------------------------------------------------------------------------------------------------------------------
-- Owners and privileges
------------------------------------------------------------------------------------------------------------------------------------

-- Everything is template_owner's but what is named here.
RESET client_min_messages;
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('ALTER %s %s OWNER TO template_owner', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass)
        FROM pg_catalog.pg_class AS c
        WHERE relnamespace = 'everything'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('a', 'i') AND relkind = 'S')
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO template_owner', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'everything'::regnamespace
        UNION ALL
        SELECT format('ALTER %s %s OWNER TO template_owner', CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, t.oid::regtype)
        FROM pg_type AS t WHERE typnamespace = 'everything'::regnamespace AND typtype IN ('c', 'd', 'e', 'r')
          AND (typrelid = 0 OR (SELECT relkind = 'c' FROM pg_catalog.pg_class WHERE oid = typrelid))
        UNION ALL
        SELECT format('ALTER STATISTICS everything.%I OWNER TO template_owner', stxname) FROM pg_statistic_ext WHERE stxnamespace = 'everything'::regnamespace
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
ALTER TABLE hen OWNER TO other_owner;
ALTER TABLE egg OWNER TO other_owner;
ALTER VIEW barrier OWNER TO other_owner;
ALTER MATERIALIZED VIEW summed_again OWNER TO other_owner;
ALTER SEQUENCE descending OWNER TO other_owner;
ALTER FUNCTION with_settings(integer) OWNER TO other_owner;
ALTER PROCEDURE definer() OWNER TO other_owner;
ALTER AGGREGATE smallest(integer) OWNER TO other_owner;
ALTER TYPE "Mixed Case.Enum" OWNER TO other_owner;
ALTER DOMAIN short_code OWNER TO other_owner;
ALTER TYPE nested OWNER TO other_owner;
ALTER STATISTICS dependent OWNER TO other_owner;

GRANT USAGE ON SCHEMA everything TO grantee, granter WITH GRANT OPTION;
GRANT CREATE, USAGE ON SCHEMA everything TO other_owner;
GRANT USAGE ON SCHEMA everything TO "Gr'ant ""ee", PUBLIC;
GRANT SELECT, INSERT ON columns TO grantee;
GRANT ALL ON columns TO other_owner WITH GRANT OPTION;
GRANT SELECT ON columns TO PUBLIC;
GRANT UPDATE (label, "quo""ted"), SELECT (id) ON columns TO "Gr'ant ""ee";
GRANT REFERENCES (id), INSERT (net, everything) ON columns TO grantee WITH GRANT OPTION;
GRANT TRIGGER, TRUNCATE, REFERENCES ON hen TO grantee;
REVOKE ALL ON egg FROM other_owner;
GRANT SELECT ON egg TO other_owner;
REVOKE INSERT ON sensors FROM template_owner;
REVOKE ALL ON forced_only FROM template_owner;
REVOKE UPDATE ON indexed FROM template_owner;
GRANT SELECT ON summed, plain, measured, "Mixed ""Case"".Table's" TO grantee;
GRANT SELECT (total) ON summed TO PUBLIC;
GRANT INSERT ON measured_2026_01 TO grantee;
GRANT USAGE, SELECT ON SEQUENCE lone, columns_number_seq, "Identity's sequence" TO grantee;
GRANT UPDATE ON SEQUENCE lone TO grantee WITH GRANT OPTION;
GRANT ALL ON SEQUENCE descending TO PUBLIC;
REVOKE EXECUTE ON FUNCTION is_code(text), atomic(integer, mood[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_code(text) TO grantee WITH GRANT OPTION;
REVOKE ALL ON FUNCTION with_settings(integer) FROM PUBLIC, other_owner;
REVOKE EXECUTE ON PROCEDURE definer() FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE definer() TO "Gr'ant ""ee";
GRANT EXECUTE ON FUNCTION total_length(pg_catalog.text) TO grantee;
REVOKE USAGE ON TYPE mood, pair, float8_span FROM PUBLIC;
GRANT USAGE ON TYPE mood TO grantee WITH GRANT OPTION;
REVOKE USAGE ON DOMAIN code FROM PUBLIC;
GRANT USAGE ON DOMAIN code TO other_owner;
-- Granted on by whoever was given the option.
GRANT SELECT, UPDATE ON referring TO granter WITH GRANT OPTION;
GRANT SELECT (id), UPDATE (id) ON typed TO granter WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION overloaded(integer) TO granter WITH GRANT OPTION;
GRANT USAGE ON SEQUENCE shared_numbers TO granter WITH GRANT OPTION;
GRANT USAGE ON TYPE span_of_spans TO granter WITH GRANT OPTION;
SET ROLE granter;
GRANT SELECT ON referring TO grantee;
GRANT UPDATE ON referring TO grantee WITH GRANT OPTION;
GRANT SELECT (id) ON typed TO grantee;
GRANT EXECUTE ON FUNCTION overloaded(integer) TO grantee;
GRANT USAGE ON SEQUENCE shared_numbers TO grantee, PUBLIC;
GRANT USAGE ON TYPE span_of_spans TO grantee;
GRANT USAGE ON SCHEMA everything TO "Gr'ant ""ee";
SET ROLE grantee;
GRANT UPDATE ON referring TO other_owner;
RESET ROLE;

-- What a clone makes before these are there must not have their effect twice, and the other way round.
ALTER DEFAULT PRIVILEGES FOR ROLE template_owner IN SCHEMA everything GRANT SELECT, INSERT ON TABLES TO grantee;
ALTER DEFAULT PRIVILEGES FOR ROLE template_owner IN SCHEMA everything GRANT USAGE ON SEQUENCES TO grantee WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE template_owner IN SCHEMA everything GRANT EXECUTE ON FUNCTIONS TO "Gr'ant ""ee";
ALTER DEFAULT PRIVILEGES FOR ROLE other_owner IN SCHEMA everything GRANT USAGE ON TYPES TO grantee;
ALTER DEFAULT PRIVILEGES FOR ROLE other_owner IN SCHEMA everything GRANT ALL ON TABLES TO PUBLIC;

RESET check_function_bodies;
RESET search_path;
