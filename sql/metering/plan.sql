-- plan and settings are read by position (src/context/plan.rs).
CREATE TABLE tenancy.plans (
    plan text COLLATE "C" PRIMARY KEY CHECK (plan ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    isolation text NOT NULL DEFAULT 'row' CHECK (isolation IN ('row', 'schema', 'database')),
    settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    features text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.plans', '');
COMMENT ON TABLE tenancy.plans IS
    'Plans that a tenant can be on, with the isolation that new tenants of the plan get. Kept by create_plan(). Every level reads it.';

-- What plans and tenants are limited to. The first four columns are read by position (src/metering/plan/known.rs).
CREATE TABLE tenancy.plan_limits (
    plan text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL CHECK (period IN ('total', 'hour', 'day', 'month')),
    max_value numeric,
    CONSTRAINT plan_limits_pkey PRIMARY KEY (plan, resource, period)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.plan_limits', '');
COMMENT ON TABLE tenancy.plan_limits IS
    'How much of a resource the tenants of a plan may have (period total) or use (hour, day, month); max_value NULL is unlimited. Kept by set_plan_limit(). Every level reads it.';

CREATE TABLE tenancy.tenant_limits (
    tenant_id uuid NOT NULL,
    resource text COLLATE "C" NOT NULL,
    period text COLLATE "C" NOT NULL CHECK (period IN ('total', 'hour', 'day', 'month')),
    max_value numeric,
    CONSTRAINT tenant_limits_pkey PRIMARY KEY (tenant_id, resource, period)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.tenant_limits', '');
COMMENT ON TABLE tenancy.tenant_limits IS
    'What one tenant may have or use, whatever its plan says of the same resource and period. Kept by set_tenant_limit(). Levels client and app see their bound tenant''s, operator and admin all.';
ALTER TABLE tenancy.tenant_limits ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible_tenants ON tenancy.tenant_limits FOR SELECT
    USING (tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant()));

-- Backends remember plans and limits; each change reaches them all.
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.plans FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.plans FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.plans ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.plans ENABLE ALWAYS TRIGGER announce_truncate;
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.plan_limits FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.plan_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.plan_limits ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.plan_limits ENABLE ALWAYS TRIGGER announce_truncate;
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.tenant_limits FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.tenant_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.tenant_limits ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.tenant_limits ENABLE ALWAYS TRIGGER announce_truncate;

COMMENT ON FUNCTION create_plan(text, text, jsonb, text[]) IS
    'Creates a plan, or replaces the isolation, settings and features of an existing one. Plan free exists by itself. Settings named like statement_timeout, lock_timeout, idle_in_transaction_session_timeout, transaction_timeout, work_mem, hash_mem_multiplier, maintenance_work_mem, max_parallel_workers_per_gather and temp_file_limit hold in transactions of its tenants from the bind on; max_concurrent_transactions caps how many a tenant may have at once on a server. Errors: 22023 malformed name or settings, a server setting that plans do not have, or a value that it cannot have; 0A000 an isolation that this version does not have. Level operator. Example: SELECT create_plan(''pro'', features => ''{sso}'');';
COMMENT ON FUNCTION set_plan_limit(text, text, numeric, text) IS
    'Limits how much of a resource the tenants of a plan may have (period total) or use in an hour, day or month; max_value NULL is unlimited. A resource with an hour, day or month becomes a metric (a sum) if it is none. Takes effect at once, for open transactions too; a tenant that has more keeps it and gets no more. Returns the plan. Errors: P0002 unknown plan; 22023 malformed. Level operator. Example: SELECT set_plan_limit(''free'', ''agents'', 10);';
COMMENT ON FUNCTION unset_plan_limit(text, text) IS
    'Takes back all that a plan says of a resource, which then does not exist for its tenants; false when it says nothing. Errors: P0002 unknown plan. Level operator. Example: SELECT unset_plan_limit(''free'', ''agents'');';
COMMENT ON FUNCTION set_tenant_limit(uuid, text, numeric, text) IS
    'Limits a resource for one tenant, whatever its plan says of the same resource and period; max_value NULL is unlimited; a resource with an hour, day or month becomes a metric. Returns the resource. Errors: P0002 unknown tenant; 22023 malformed. Level operator. Example: SELECT set_tenant_limit(find_tenant(''acme''), ''agents'', 25);';
COMMENT ON FUNCTION unset_tenant_limit(uuid, text) IS
    'Takes back a tenant''s own limits of a resource, so that its plan''s hold again; false when it has none. Errors: P0002 unknown tenant. Level operator. Example: SELECT unset_tenant_limit(find_tenant(''acme''), ''agents'');';
COMMENT ON FUNCTION has_feature(text) IS
    'Whether the bound tenant''s plan has a feature, as create_plan() named it. Errors: 42501 no tenant bound; 22023 NULL. Level client. Example: SELECT has_feature(''sso'');';
