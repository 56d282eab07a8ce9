-- How often plans and tenants may do what. The columns are read by position (src/metering/rate_limit/known.rs).
CREATE TABLE tenancy.plan_rate_limits (
    plan text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL,
    max_value integer CHECK (max_value >= 0),
    period text COLLATE "C" NOT NULL CHECK (period IN ('second', 'minute', 'hour', 'day')),
    burst integer CHECK (burst > 0),
    CONSTRAINT plan_rate_limits_pkey PRIMARY KEY (plan, resource)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.plan_rate_limits', '');
COMMENT ON TABLE tenancy.plan_rate_limits IS
    'How often the tenants of a plan may use a resource: max_value in a period, burst at once (NULL is max_value); max_value NULL is unlimited. Kept by set_plan_rate_limit(). Every level reads it.';

CREATE TABLE tenancy.tenant_rate_limits (
    tenant_id uuid NOT NULL,
    resource text COLLATE "C" NOT NULL,
    max_value integer CHECK (max_value >= 0),
    period text COLLATE "C" NOT NULL CHECK (period IN ('second', 'minute', 'hour', 'day')),
    burst integer CHECK (burst > 0),
    CONSTRAINT tenant_rate_limits_pkey PRIMARY KEY (tenant_id, resource)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.tenant_rate_limits', '');
COMMENT ON TABLE tenancy.tenant_rate_limits IS
    'How often one tenant may use a resource, whatever its plan says. Kept by set_tenant_rate_limit(). Levels client and app see their bound tenant''s, operator and admin all.';
ALTER TABLE tenancy.tenant_rate_limits ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible_tenants ON tenancy.tenant_rate_limits FOR SELECT
    USING (tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant()));

-- Backends remember rate limits; each change reaches them all.
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.plan_rate_limits FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.plan_rate_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.plan_rate_limits ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.plan_rate_limits ENABLE ALWAYS TRIGGER announce_truncate;
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.tenant_rate_limits FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.tenant_rate_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.tenant_rate_limits ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.tenant_rate_limits ENABLE ALWAYS TRIGGER announce_truncate;

-- Asking on every request: a composite type, which PostgreSQL need not put together anew for each call. Restricted to a parallel query's
-- leader: a worker would do it, but how often a row is asked for is the plan's then.
CREATE TYPE tenancy.rate_limit_check AS (allowed boolean, max_value integer, remaining integer, retry_after_s numeric, reset_at timestamptz);
COMMENT ON TYPE tenancy.rate_limit_check IS
    'What check_rate_limit() returns: what the RateLimit header fields of an answer need. max_value in a period, remaining at once; NULL is unlimited. retry_after_s: seconds until the same may succeed, 0 when allowed, NULL for never. reset_at: when the bucket is full again.';

CREATE FUNCTION check_rate_limit(resource text, cost integer DEFAULT 1, subject text DEFAULT NULL) RETURNS tenancy.rate_limit_check
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_tenancy_check_rate_limit';
CREATE FUNCTION enforce_rate_limit(resource text, cost integer DEFAULT 1, subject text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pg_tenancy_enforce_rate_limit';

CREATE VIEW tenancy.rate_limit_status AS
    SELECT part, buckets, busy, evicted, refused_for_room FROM tenancy.rate_limit_buckets();
COMMENT ON VIEW tenancy.rate_limit_status IS
    'The buckets of this server''s rate limits, of all databases: part tenants (their own) or subjects (users and keys within tenants), how many there is room for, how many are busy (not full) now, how often an idle one made room for another, and how many requests were refused because none was idle, since the server started. Raise tenancy.rate_limit_buckets when there are any. Level monitor.';

COMMENT ON FUNCTION set_plan_rate_limit(text, text, integer, text, integer) IS
    'Limits how often the tenants of a plan may use a resource: max_value in a second, minute, hour or day, and burst of them at once (NULL is max_value). max_value NULL is unlimited, 0 is never. Takes effect at once and begins with a full bucket. Returns the plan. Errors: P0002 unknown plan; 22023 malformed, or a burst that takes more than 366 days to come in. Level operator. Example: SELECT set_plan_rate_limit(''free'', ''api_calls'', 1000, ''hour'', 50);';
COMMENT ON FUNCTION unset_plan_rate_limit(text, text) IS
    'Takes back the rate limit that a plan has for a resource, which then does not exist for its tenants; false when it has none. Errors: P0002 unknown plan. Level operator. Example: SELECT unset_plan_rate_limit(''free'', ''api_calls'');';
COMMENT ON FUNCTION set_tenant_rate_limit(uuid, text, integer, text, integer) IS
    'Limits how often one tenant may use a resource, whatever its plan says: set_plan_rate_limit() for a tenant. Returns the resource. Errors: P0002 unknown tenant; 22023 as there. Level operator. Example: SELECT set_tenant_rate_limit(find_tenant(''acme''), ''api_calls'', 5000);';
COMMENT ON FUNCTION unset_tenant_rate_limit(uuid, text) IS
    'Takes back a tenant''s own rate limit of a resource, so that its plan''s holds again; false when it has none. Errors: P0002 unknown tenant. Level operator. Example: SELECT unset_tenant_rate_limit(find_tenant(''acme''), ''api_calls'');';
COMMENT ON FUNCTION check_rate_limit(text, integer, text) IS
    'Asks whether the bound tenant may use a resource now, at this cost, and takes it if so: one row (allowed, max_value, remaining, retry_after_s in seconds, reset_at). With a subject, a user or key of the tenant, the limit holds for each subject apart. What was taken stays taken when the transaction rolls back; cost 0 only looks; a cost above the burst is never allowed (retry_after_s NULL). Counted per server, from full buckets after its restart; works in read-only transactions and on a standby. Refused when no bucket is free (tenancy.rate_limit_status). Errors: 42501 no tenant bound; P0002 no such rate limit; 22023 negative cost, or a subject above 1024 bytes. Level client. Example: SELECT * FROM check_rate_limit(''api_calls'');';
COMMENT ON FUNCTION enforce_rate_limit(text, integer, text) IS
    'True when check_rate_limit() allows it, otherwise raises 53400, with the seconds to wait in the detail. Level client. Example: SELECT enforce_rate_limit(''api_calls'', subject => ''user 42'');';
COMMENT ON FUNCTION tenancy.rate_limit_buckets() IS
    'What the buckets of this server''s rate limits hold now and what has happened to them since it started. Level monitor. Example: SELECT * FROM tenancy.rate_limit_status;';
