-- What everything.sql stands on and does not contain: roles, and objects of the schema "shared" that a clone goes on referring to.
-- As a superuser, in a database whose encoding is UTF8. Roles belong to the whole cluster: they may be there already, or be made by
-- another session at this moment.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['template_owner', 'other_owner', 'grantee', 'granter', 'Gr''ant "ee'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$$;

CREATE SCHEMA shared;
GRANT USAGE ON SCHEMA shared TO PUBLIC;

CREATE EXTENSION IF NOT EXISTS btree_gist SCHEMA shared;
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA shared;

CREATE TABLE shared.countries (
    code text PRIMARY KEY,
    name text NOT NULL UNIQUE
);
INSERT INTO shared.countries VALUES ('CH', 'Switzerland'), ('NO', 'Norway'), ('JP', 'Japan');
GRANT SELECT, REFERENCES ON shared.countries TO PUBLIC;

CREATE TYPE shared.severity AS ENUM ('low', 'high');
CREATE SEQUENCE shared.numbers;
GRANT USAGE ON SEQUENCE shared.numbers TO PUBLIC;

CREATE FUNCTION shared.slug(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN pg_catalog.lower(pg_catalog.replace($1, ' ', '-'));

CREATE FUNCTION shared.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;

CREATE COLLATION shared.plain (provider = libc, locale = 'C');
