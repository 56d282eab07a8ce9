CREATE VIEW tenancy.activity AS
    SELECT pid, tenant_id, user_id, role, state, state_since, bound_since FROM tenancy.backends();
COMMENT ON VIEW tenancy.activity IS
    'Backends that have a tenant bound now: session role, user id, PostgreSQL''s state and since when, and when the tenant was bound. Level monitor.';

CREATE VIEW tenancy.refusals AS
    SELECT tenant_id, refused_binds, tenant_mismatches, guard_refusals, last_refusal_at FROM tenancy.refused();
COMMENT ON VIEW tenancy.refusals IS
    'What was refused since the server started, per tenant; tenant_id NULL counts what has no tenant. Reads that row security filters cannot be counted. Level monitor.';

CREATE VIEW tenancy.failed_attempts AS
    SELECT credential, prefix, reason, attempts, last_attempt_at FROM tenancy.failed();
COMMENT ON VIEW tenancy.failed_attempts IS
    'Credentials that were refused in this database since the server started: credential api_key, jwt or invitation; prefix is what may be shown of it (a key''s key_prefix, a token''s kid), NULL for noise; reason malformed, checksum, unknown, expired, revoked, tenant, member, kid, signature, algorithm, not_yet_valid, issuer, audience or claims. Level monitor.';

COMMENT ON FUNCTION tenancy.backends() IS
    'Backends that have a tenant bound, read from shared memory. Level monitor. Example: SELECT * FROM tenancy.activity;';
COMMENT ON FUNCTION tenancy.refused() IS
    'Refused binds, tenant mismatches and guard refusals per tenant since the server started, also of transactions that rolled back. Level monitor. Example: SELECT * FROM tenancy.refusals;';
COMMENT ON FUNCTION tenancy.failed() IS
    'Credentials refused in this database by prefix and reason since the server started, also of transactions that rolled back. Level monitor. Example: SELECT * FROM tenancy.failed_attempts;';
