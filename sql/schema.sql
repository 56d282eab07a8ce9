CREATE TABLE tenancy.templates (
    template name PRIMARY KEY,
    schema_name name NOT NULL CONSTRAINT templates_schema_name_key UNIQUE,
    data_tables text[] NOT NULL DEFAULT '{}',
    tenant_schema text NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.templates', '');
COMMENT ON TABLE tenancy.templates IS
    'Templates that tenants'' schemas are made from: the schema, the tables whose rows every clone receives, and how tenants'' schemas are named ({id} and {slug} stand for the tenant''s). Kept by register_template(). Level operator.';

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
