CREATE TABLE tenancy.audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    session_user_name name NOT NULL,
    outer_user_name name,
    principal jsonb,
    tenant_id uuid,
    action text NOT NULL,
    target text,
    before jsonb,
    after jsonb
);
CREATE INDEX audit_log_tenant_id_at_idx ON tenancy.audit_log (tenant_id, at);
CREATE INDEX audit_log_at_idx ON tenancy.audit_log USING brin (at);
SELECT pg_catalog.pg_extension_config_dump('tenancy.audit_log', '');
SELECT pg_catalog.pg_extension_config_dump('tenancy.audit_log_id_seq', '');

ALTER TABLE tenancy.audit_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible_tenants ON tenancy.audit_log FOR SELECT
    USING (tenant_id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant()));
CREATE POLICY no_tenant ON tenancy.audit_log FOR SELECT USING (tenant_id IS NULL AND (SELECT tenancy.sees_all_tenants()));

COMMENT ON TABLE tenancy.audit_log IS
    'Append-only: every change of a tenant, plan, protection, level, user, member, role or credential, written in the transaction that made it. session_user_name logged in, outer_user_name is the role that called (after SET ROLE), principal the bound tenant, user and API key. Level app sees the rows of its bound tenant, operator and admin all.';
COMMENT ON FUNCTION trim_audit_log(interval) IS
    'Deletes the rows of tenancy.audit_log that are older than the given age, and returns how many. Level admin. Example: SELECT trim_audit_log(''400 days'');';
