-- What has changed of that which tenants' own databases have a copy of. A queue, of no use to another cluster, and so in no dump.
CREATE TABLE tenancy.database_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid,
    is_general boolean NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_tried boolean NOT NULL DEFAULT false
);
CREATE INDEX database_changes_tenant_id_idx ON tenancy.database_changes (tenant_id, id);
COMMENT ON TABLE tenancy.database_changes IS
    'Changes of tenants, people, keys, plans and levels that tenants'' own databases have not heard of yet: of one tenant, or of all (tenant_id NULL); is_general says that it concerned all, is_tried that the database could not be told of it yet. tenancy.database_state shows how many wait. Only functions reach it.';

-- What each of these databases was told last, and what went wrong since. Not dumped, so that a restored cluster tells them anew.
CREATE TABLE tenancy.told_states (
    tenant_id uuid CONSTRAINT told_states_pkey PRIMARY KEY,
    digest text,
    told_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_failed_at timestamptz,
    last_sqlstate text,
    last_error text
);
COMMENT ON TABLE tenancy.told_states IS
    'What the own database of each tenant was told last: its digest and when; attempts since that failed, and why. tenancy.database_state shows it. Only functions reach it.';

-- In a tenant's own database: what it was told last. One row at most, not dumped.
CREATE TABLE tenancy.received_state (
    version bigint NOT NULL,
    digest text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE tenancy.received_state IS
    'In a tenant''s own database: the digest of what the control database has told it last, and by which transaction of that database. Only functions reach it.';

CREATE FUNCTION tenancy.note_change() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'pg_tenancy_note_change';
COMMENT ON FUNCTION tenancy.note_change() IS
    'Internal: the trigger of tables that tenants'' own databases have a copy of: notes there what has changed, and refuses changes of the copy.';

-- Its argument says whom a row concerns: the tenant in a column, the tenants of a user, all (''*''), or nobody (''-'': the table is not copied,
-- and kept by the control database alone).
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.tenants FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.memberships FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('tenant_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.stored_api_keys FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('tenant_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.tenant_limits FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('tenant_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.tenant_rate_limits FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('tenant_id');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.subscriptions FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('tenant_id');
-- A login is noted where it happens, and reported.
CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE OF id, tenant_id, email, external_id, tokens_not_before, name, created_at, updated_at
    ON tenancy.users FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('user');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.plans FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.plan_limits FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.plan_rate_limits FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.metrics FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.added_roles FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.stored_jwt_keys FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.limited_memberships FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('*');
-- Levels are privileges, and which tables are limited is in their triggers: no row says so but this.
CREATE TRIGGER note_change AFTER INSERT ON tenancy.audit_log FOR EACH ROW
    WHEN (NEW.action IN ('access.grant', 'access.revoke', 'table.limit', 'table.unlimit')) EXECUTE FUNCTION tenancy.note_change('*');
ALTER TABLE tenancy.audit_log ENABLE ALWAYS TRIGGER note_change;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.stored_invitations FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.templates FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.migrations FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.billing_periods FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.billing_lines FOR EACH ROW EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.tenants FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.memberships FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.stored_api_keys FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.tenant_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.tenant_rate_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.subscriptions FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.users FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.plans FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.plan_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.plan_rate_limits FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.metrics FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.added_roles FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.stored_jwt_keys FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.limited_memberships FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('*');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.stored_invitations FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.templates FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.migrations FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.billing_periods FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('-');
CREATE TRIGGER note_truncate AFTER TRUNCATE ON tenancy.billing_lines FOR EACH STATEMENT EXECUTE FUNCTION tenancy.note_change('-');
ALTER TABLE tenancy.tenants ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.tenants ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.memberships ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.memberships ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.stored_api_keys ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.stored_api_keys ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.tenant_limits ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.tenant_limits ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.tenant_rate_limits ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.tenant_rate_limits ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.subscriptions ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.subscriptions ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.users ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.users ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.plans ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.plans ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.plan_limits ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.plan_limits ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.plan_rate_limits ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.plan_rate_limits ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.metrics ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.metrics ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.added_roles ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.added_roles ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.stored_jwt_keys ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.stored_jwt_keys ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.limited_memberships ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.limited_memberships ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.stored_invitations ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.stored_invitations ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.templates ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.templates ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.migrations ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.migrations ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.billing_periods ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.billing_periods ENABLE ALWAYS TRIGGER note_truncate;
ALTER TABLE tenancy.billing_lines ENABLE ALWAYS TRIGGER note_change;
ALTER TABLE tenancy.billing_lines ENABLE ALWAYS TRIGGER note_truncate;

CREATE VIEW tenancy.database_state AS
    SELECT t.id AS tenant_id, t.slug, t.database_name,
           (SELECT pg_catalog.count(*) FROM tenancy.database_changes c WHERE c.tenant_id = t.id OR c.tenant_id IS NULL) AS waiting_changes,
           (SELECT pg_catalog.min(c.changed_at) FROM tenancy.database_changes c WHERE c.tenant_id = t.id OR c.tenant_id IS NULL) AS waiting_since,
           s.told_at, coalesce(s.attempts, 0) AS attempts, s.next_attempt_at, s.last_failed_at, s.last_sqlstate, s.last_error,
           r.reported_at
    FROM tenancy.tenants t
    LEFT JOIN tenancy.told_states s ON s.tenant_id = t.id
    LEFT JOIN tenancy.database_reports r ON r.tenant_id = t.id
    WHERE t.isolation = 'database';
COMMENT ON VIEW tenancy.database_state IS
    'Each tenant with a database of its own: how many changes of its people, keys and plans that database has not heard of yet, and since when (NULL for none); when it was told last (told_at), what failed since, and when it has reported its usage last (reported_at). Level operator.';

COMMENT ON PROCEDURE sync_tenant_databases() IS
    'Tells the own database of each tenant all that concerns it (people, keys, plans, limits, levels), and has it report its usage; in a tenant''s own database, reports. Background workers do both by themselves, within seconds and a minute. One that fails is a WARNING, is shown in tenancy.database_state and tried again; the others go on. Errors: 25001 inside a transaction block. Level admin. Example: CALL sync_tenant_databases();';
