CREATE TABLE tenancy.adoptions (
    table_name regclass PRIMARY KEY,
    tenant_id uuid NOT NULL,
    tenant_column name NOT NULL,
    keys text NOT NULL,
    steps integer NOT NULL,
    steps_done integer NOT NULL DEFAULT 0,
    statement text,
    rows_filled bigint NOT NULL DEFAULT 0,
    failure text,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE INDEX adoptions_tenant_id_idx ON tenancy.adoptions (tenant_id);
SELECT pg_catalog.pg_extension_config_dump('tenancy.adoptions', '');
COMMENT ON TABLE tenancy.adoptions IS
    'Tables that adopt_table() and adopt_schema() have adopted or are adopting: the tenant that their rows became, the steps of the last call and how many of them are done, the statement at work, and the rows that were filled in by batches. finished_at is NULL until the last step; call again to finish. Level monitor.';

COMMENT ON FUNCTION adoption_plan(name, uuid, name, text, text[]) IS
    'What CALL adopt_schema() with the same arguments would do, in its order: each statement, the strongest lock that it takes (ACCESS EXCLUSIVE, SHARE ROW EXCLUSIVE and SHARE keep writers waiting, the others nobody), how long it takes (a moment; reads every row; writes every row without a tenant; builds an index), and why. Changes nothing. Errors as adopt_schema(). Level admin. Example: SELECT step, table_name, statement, lock, duration FROM adoption_plan(''shop'') ORDER BY step;';
COMMENT ON PROCEDURE adopt_table(regclass, uuid, name, text, boolean, integer) IS
    'adopt_schema() for one table and what inherits from it. Its foreign keys to and from protected tables become composite. Errors as adopt_schema(). Level admin. Example: CALL adopt_table(''public.invoices'', ''8e3f5a60-0000-4000-8000-000000000001'');';
COMMENT ON PROCEDURE adopt_schema(name, uuid, name, text, text[], boolean, integer) IS
    'Makes the tables of a single-tenant application tables that tenants share, while it goes on writing: the existing rows become the tenant''s, foreign keys and indexes get the tenant column, and protect_table() comes last (protect => false leaves it out). keys: natural makes every unique and primary key one of each tenant but generated ones (identity, serial, random uuid); all makes every one; none makes none. shared_tables are left alone. A tenant column that is there already is filled in batches of batch_size rows. Steps that writers wait for take a moment each and give way when they cannot have their lock within 0.1 seconds. Cannot run in a transaction block; call it again after a failure. Errors: 25001; P0002 unknown tenant, schema or table; 22023; 55000 something that cannot be kept, found before anything is changed; 42501 a role of level client or app owns a table, or a materialized view reads it; 53400 no room for a background worker. Level admin. Example: CALL adopt_schema(''shop'', ''8e3f5a60-0000-4000-8000-000000000001'');';
