CREATE TABLE tenancy.templates (
    template name PRIMARY KEY,
    schema_name name NOT NULL CONSTRAINT templates_schema_name_key UNIQUE,
    data_tables text[] NOT NULL DEFAULT '{}',
    tenant_schema text NOT NULL,
    shared_schema name,
    registered_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.templates', '');
COMMENT ON TABLE tenancy.templates IS
    'Templates that tenants'' schemas are made from: the schema, the tables whose rows every clone receives, and how tenants'' schemas are named ({id} and {slug} stand for the tenant''s); shared_schema is where the shared tables are that the template''s correspond to by name, for move_tenant(). Kept by register_template() and derive_template(). Level operator.';

-- tenant_id is NULL for the template itself.
CREATE TABLE tenancy.applied_migrations (
    template name NOT NULL,
    tenant_id uuid,
    version text COLLATE "C" NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT applied_migrations_key UNIQUE NULLS NOT DISTINCT (template, tenant_id, version)
);
CREATE INDEX applied_migrations_tenant_id_idx ON tenancy.applied_migrations (tenant_id);
SELECT pg_catalog.pg_extension_config_dump('tenancy.applied_migrations', '');
COMMENT ON TABLE tenancy.applied_migrations IS
    'Which migrations the schema of each tenant has; tenant_id is NULL for the template itself. Level operator.';

CREATE TABLE tenancy.allowed_drift (
    tenant_id uuid NOT NULL,
    object text NOT NULL,
    reason text NOT NULL,
    allowed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT allowed_drift_pkey PRIMARY KEY (tenant_id, object)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.allowed_drift', '');
COMMENT ON TABLE tenancy.allowed_drift IS
    'Objects of tenants'' schemas that are meant to differ from the template, and why. Kept by allow_schema_drift() and disallow_schema_drift(). Level operator.';

CREATE VIEW tenancy.schema_drift AS
    SELECT template, tenant_id, slug, schema_name, kind, object, difference, expected, found FROM tenancy.differences();
COMMENT ON VIEW tenancy.schema_drift IS
    'Where the schemas of tenants are not what their templates are: each object that is missing, extra or different, with its definition in the template (expected) and in the tenant''s schema (found). Reads every schema, some ten milliseconds each; tenancy.differences(tenant) reads one. Level operator.';

CREATE EVENT TRIGGER tenancy_schema_change ON ddl_command_end WHEN TAG IN ('ALTER SCHEMA', 'SECURITY LABEL')
    EXECUTE FUNCTION tenancy.on_schema_change();
COMMENT ON EVENT TRIGGER tenancy_schema_change IS 'pg_tenancy: the registry follows schemas of tenants and templates that are renamed or restored';
CREATE EVENT TRIGGER tenancy_schema_drop ON sql_drop WHEN TAG IN ('DROP SCHEMA', 'DROP OWNED') EXECUTE FUNCTION tenancy.on_schema_drop();
COMMENT ON EVENT TRIGGER tenancy_schema_drop IS 'pg_tenancy: the registry forgets schemas of tenants that are dropped by hand';

COMMENT ON FUNCTION register_template(name, name, text[], text, name) IS
    'Registers a schema as the template that tenants'' schemas are exact copies of, and closes it to all but its owner''s roles. data_tables are tables whose rows every copy receives; tenant_schema is how copies are named, with {id} and {slug} for the tenant''s; shared_schema is the schema of the shared tables that the template''s correspond to by name, so that tenants can be moved between them. Call it again to change these. Errors: P0002 unknown schema or table; 0A000 something in it cannot be copied, by name; 22023 reserved schema or malformed pattern; 55000 another schema while tenants use the template. Level admin. Example: SELECT register_template(''crm'', ''crm_template'', ''{deal_stages}'', ''tenant_{slug}'');';
COMMENT ON FUNCTION derive_template(name, name, name) IS
    'Makes a template of the tables that tenants share in a schema and registers it, as register_template() does with that as its shared_schema: an exact copy in a new schema (called as the template, with _template behind it, unless it is named) less policies and row security of pg_tenancy and foreign keys to tenancy.tenants. The tenant column stays with its default, so that statements are the same everywhere. Tables of the schema that are not protected are no tenant''s: their rows come along, a notice names them. Returns the new schema''s name. Errors: P0002 unknown schema; 23505 the template or the schema exists; 0A000 something cannot be copied, by name; 22023 a schema that is a tenant''s, a template''s or reserved; 55000 no protected table. Level admin. Example: SELECT derive_template(''grown'', ''shop'');';
COMMENT ON FUNCTION create_tenant_schema(uuid, name, name) IS
    'Makes a schema for a tenant that has none, as an exact copy of a template, and returns its name. schema_name overrides the template''s way of naming. Errors: P0002 unknown tenant or template; 23505 the tenant has a schema, or the name is taken; 55000 the tenant is deleted or has rows in protected tables; 0A000 something in the template cannot be copied; 53200 more locks than the server has (max_locks_per_transaction). Level operator. Example: SELECT create_tenant_schema(find_tenant(''acme''), ''crm'');';
COMMENT ON FUNCTION clone_tenant_schema(uuid, uuid, boolean) IS
    'Makes a schema for the destination, which has none, as an exact copy of the source''s: with its rows and positions of sequences, all of one moment, while others go on writing; or without. Returns its name. Errors as create_tenant_schema(). Level admin. Example: SELECT clone_tenant_schema(find_tenant(''acme''), find_tenant(''acme-test''));';
COMMENT ON FUNCTION delete_tenant_schema(uuid) IS
    'Drops a tenant''s schema with everything in it at once; false when it has none. delete_tenant() keeps it for the retention. Errors: P0002; 2BP01 objects outside depend on it. Level admin. Example: SELECT delete_tenant_schema(find_tenant(''acme-test''));';
COMMENT ON FUNCTION tenant_statistics(boolean) IS
    'Every table in the schemas of tenants: rows as PostgreSQL estimates them or, where exact, counted (NULL where the owner cannot); rows to be vacuumed; bytes of the table and of its indexes; scans of either kind since statistics were reset; indexes without a scan that are not unique; when it was vacuumed and analyzed last. Level monitor. Example: SELECT slug, sum(row_count), pg_size_pretty(sum(table_bytes + index_bytes)) FROM tenant_statistics() GROUP BY slug;';
COMMENT ON FUNCTION maintenance_commands(text, uuid) IS
    'A command for each table in the schemas of tenants, or of one: VACUUM, VACUUM (ANALYZE), VACUUM (FREEZE), ANALYZE, REINDEX or REINDEX CONCURRENTLY. Run them by psql''s \gexec, as a role that may. Errors: 22023 another command; P0002 unknown tenant. Level monitor. Example: SELECT maintenance_commands(''ANALYZE'');';
COMMENT ON FUNCTION tenancy.differences(uuid) IS
    'Where the schema of a tenant (NULL: of each) is not what its template is, as tenancy.schema_drift shows it. Level operator. Example: SELECT kind, object, difference FROM tenancy.differences(find_tenant(''acme''));';
COMMENT ON FUNCTION allow_schema_drift(uuid, text, text) IS
    'Declares that an object of a tenant''s schema, named as column object of tenancy.schema_drift names it, is meant to differ from the template: an index of its own, say. Give the reason. Errors: P0002 unknown tenant; 22023 no object or reason. Level admin. Example: SELECT allow_schema_drift(find_tenant(''acme''), ''deals_by_region'', ''their report'');';
COMMENT ON FUNCTION disallow_schema_drift(uuid, text) IS
    'Takes a declaration of allow_schema_drift() back; false when there was none. Errors: P0002. Level admin. Example: SELECT disallow_schema_drift(find_tenant(''acme''), ''deals_by_region'');';
COMMENT ON FUNCTION tenancy.on_schema_change() IS 'Internal: event trigger.';
COMMENT ON FUNCTION tenancy.on_schema_drop() IS 'Internal: event trigger.';
