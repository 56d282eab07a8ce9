CREATE TABLE tenancy.protected_tables (
    table_name regclass PRIMARY KEY,
    root regclass NOT NULL,
    tenant_column name NOT NULL,
    tenant_type text NOT NULL CHECK (tenant_type IN ('uuid', 'text', 'key_text', 'key_bigint')),
    had_row_security boolean NOT NULL,
    had_force boolean NOT NULL,
    protected_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX protected_tables_root_idx ON tenancy.protected_tables (root);
SELECT pg_catalog.pg_extension_config_dump('tenancy.protected_tables', '');
COMMENT ON TABLE tenancy.protected_tables IS
    'Tables under row isolation: those named to protect_table() (table_name = root), and their partitions and inheritance children. Kept by protect_table(), unprotect_table() and the event triggers. Level monitor.';

CREATE VIEW tenancy.protection_status AS
    SELECT p.table_name, p.root, p.tenant_column, tenancy.is_intact(p.table_name) AS intact, pg_catalog.pg_get_userbyid(c.relowner) AS owner
    FROM tenancy.protected_tables p LEFT JOIN pg_catalog.pg_class c ON c.oid = p.table_name;
COMMENT ON VIEW tenancy.protection_status IS
    'Whether each protected table still has its policies, forced row security and NOT NULL tenant column: an owner may remove them; protect_table() puts them back. Level monitor.';

CREATE EVENT TRIGGER tenancy_ddl_command_end ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA', 'CREATE SCHEMA',
                 'CREATE MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW', 'CREATE VIEW', 'CREATE RULE', 'SECURITY LABEL',
                 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER POLICY')
    EXECUTE FUNCTION tenancy.on_ddl_command_end();
COMMENT ON EVENT TRIGGER tenancy_ddl_command_end IS
    'pg_tenancy: protects partitions and children of protected tables as they appear, keeps their row security, refuses materialized views over them, and ends the exemption of a view that is replaced';
CREATE EVENT TRIGGER tenancy_sql_drop ON sql_drop EXECUTE FUNCTION tenancy.on_sql_drop();
COMMENT ON EVENT TRIGGER tenancy_sql_drop IS 'pg_tenancy: forgets protected tables that are dropped, and keeps the policies of those that are not';

COMMENT ON FUNCTION protect_table(regclass, name, boolean, boolean) IS
    'Puts a table and all its partitions and inheritance children under the guard: every statement sees and writes the bound tenant''s rows only. The column (uuid or text) is added when the table is empty; it gets NOT NULL, the bound tenant as default, and an index. foreign_key adds a reference to tenancy.tenants. external_id says that the column (text, bigint, integer or smallint) holds the application''s own keys, which are tenants'' external ids; such a table cannot be counted for limits. Idempotent: true when the table was not protected before. Takes ACCESS EXCLUSIVE on the table. Errors: 55000 rows without a known tenant, or a table that cannot be protected; 42501 a role with level client or app owns it, or a materialized view reads it. Level admin. Example: SELECT protect_table(''public.orders'');';
COMMENT ON FUNCTION unprotect_table(regclass) IS
    'Takes a table and its partitions out of the guard again: drops the policies and the column''s default, and leaves column, index and rows. False when it was not protected. Level admin. Example: SELECT unprotect_table(''public.orders'');';
COMMENT ON FUNCTION protection_advice(regclass) IS
    'What protect_table() leaves open, with the statements that mend it, to be run in the order of step, each by itself and as run_as (a role with BYPASSRLS where rows of all tenants are checked: a member of the one named). Of one protected table with all that belongs to it, or of every one. kind: unique_key, a unique key or exclusion constraint that spans all tenants, so that each learns what the others hold (generated keys tell nothing and may stay); foreign_key, one that a row of another tenant satisfies; index, one that row security keeps from being searched. lock is the strongest that the statement takes (ACCESS EXCLUSIVE, SHARE ROW EXCLUSIVE and SHARE keep writers waiting, the others nobody); duration as in adoption_plan(). statement is NULL where none mends it: note says what does. Changes nothing. Errors: 55000 not protected; P0002 no such table. Level admin. Example: SELECT step, problem, statement, run_as, lock FROM protection_advice(''public.orders'') ORDER BY step;';
COMMENT ON FUNCTION tenancy.is_intact(regclass) IS
    'Whether a protected table has forced row security, its two policies as protect_table() made them, and a NOT NULL tenant column. Level monitor. Example: SELECT * FROM tenancy.protection_status WHERE NOT intact;';
COMMENT ON FUNCTION tenancy.on_ddl_command_end() IS 'Internal: event trigger.';
COMMENT ON FUNCTION tenancy.on_sql_drop() IS 'Internal: event trigger.';
