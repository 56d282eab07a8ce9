-- id, slug, status, plan, isolation, external_id, schema_name, database_name and moved_from are read by position (src/context/registry.rs), and texts compare bytewise there, hence the collations.
-- No foreign key to plans: a parallel pg_restore does not load the tables of an extension in the order that it would need.
CREATE TABLE tenancy.tenants (
    id uuid CONSTRAINT tenants_pkey PRIMARY KEY,
    slug text COLLATE "C" NOT NULL CONSTRAINT tenants_slug_key UNIQUE,
    status text COLLATE "C" NOT NULL DEFAULT 'active',
    name text NOT NULL,
    plan text COLLATE "C" NOT NULL,
    status_reason text,
    isolation text NOT NULL,
    external_id text COLLATE "C" CONSTRAINT tenants_external_id_key UNIQUE,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    status_since timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    purge_after timestamptz,
    purge_started_at timestamptz,
    purged_rows jsonb,
    schema_name name CONSTRAINT tenants_schema_name_key UNIQUE,
    template name,
    database_name name CONSTRAINT tenants_database_name_key UNIQUE,
    moved_from text COLLATE "C",
    CONSTRAINT tenants_status_check CHECK (
        CASE status WHEN 'deleted' THEN deleted_at IS NOT NULL AND purge_after IS NOT NULL
             ELSE status IN ('active', 'read_only', 'suspended', 'cancelled', 'provisioning', 'moving')
                  AND deleted_at IS NULL AND purge_after IS NULL AND purge_started_at IS NULL END)
);
CREATE INDEX tenants_template_idx ON tenancy.tenants (template) WHERE template IS NOT NULL;
CREATE INDEX tenants_purge_after_idx ON tenancy.tenants (purge_after) WHERE status = 'deleted';
SELECT pg_catalog.pg_extension_config_dump('tenancy.tenants', '');
COMMENT ON TABLE tenancy.tenants IS
    'The registry. Change it through create_tenant() and its kin, which keep the audit log and wait for writers. purge_after says when a deleted tenant may be purged; purge_started_at that this has begun, purged_rows how many rows of each table are gone. schema_name is the schema of a tenant under schema isolation, template what it was made from; database_name is the database of a tenant under database isolation. moved_from is the isolation that a tenant was moved out of while its rows there are not removed yet. Levels client and app see their bound tenant, operator and admin all.';

-- Backends remember the states of tenants that they have read (src/context/registry.rs); each change of a row reaches them all, whoever
-- makes it, logical replication included.
CREATE FUNCTION tenancy.announce_change() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'pg_tenancy_announce_change';
COMMENT ON FUNCTION tenancy.announce_change() IS 'Internal: the trigger that says to all sessions that a row of a table has changed whose state they remember.';
CREATE TRIGGER announce_change AFTER UPDATE OR DELETE ON tenancy.tenants FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.tenants FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.tenants ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.tenants ENABLE ALWAYS TRIGGER announce_truncate;

ALTER TABLE tenancy.tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible_tenants ON tenancy.tenants FOR SELECT
    USING (id BETWEEN (SELECT tenancy.first_visible_tenant()) AND (SELECT tenancy.last_visible_tenant()));

CREATE VIEW tenancy.tenant_overview AS
    SELECT t.id, t.slug, t.name, t.plan, t.isolation, t.status, t.status_reason, t.status_since, t.external_id, t.metadata,
           t.created_at, t.updated_at, t.deleted_at, t.purge_after, t.purge_started_at,
           coalesce(a.backends, 0) AS backends,
           coalesce(r.refused_binds, 0) AS refused_binds,
           coalesce(r.tenant_mismatches, 0) AS tenant_mismatches,
           coalesce(r.guard_refusals, 0) AS guard_refusals
    FROM tenancy.tenants t
    LEFT JOIN (SELECT tenant_id, count(*) AS backends FROM tenancy.backends() GROUP BY tenant_id) a ON a.tenant_id = t.id
    LEFT JOIN tenancy.refused() r ON r.tenant_id = t.id;
COMMENT ON VIEW tenancy.tenant_overview IS
    'Every tenant with its state, the backends that serve it now and what it was refused since the server started. Level operator.';

COMMENT ON FUNCTION create_tenant(text, text, text, text, jsonb, uuid, text, uuid, name, name) IS
    'Registers a tenant and returns its id. The slug (lower-case letters, digits, inner hyphens, at most 63) is derived from the name when not given; isolation comes from the plan when not given; owner is a user who becomes its first member. With isolation schema its schema is made in the same transaction, as create_tenant_schema() does, from the template named, else from the one called default or the only one; with isolation database a background worker makes its database after the commit, in which it has a schema like that, and the tenant is provisioning until then (wait_for_tenant() waits, tenancy.provisioning shows it). Errors: 22023 malformed or reserved slug; 23505 slug, id, external id or schema taken; P0002 unknown plan, user or template; 0A000 the template needs what a database of its own would lack, by name; those of create_tenant_schema(). Level operator. Example: SELECT create_tenant(''Acme Ltd'', plan => ''free'');';
COMMENT ON FUNCTION update_tenant(uuid, text, text, text, jsonb) IS
    'Changes what is given; NULL leaves. Returns the tenant''s id. Errors: P0002, 22023, 23505 as create_tenant(). Level operator. Example: SELECT update_tenant(find_tenant(''acme''), name => ''Acme Inc.'');';
COMMENT ON FUNCTION find_tenant(text, text) IS
    'The id of the tenant with this slug or external id, NULL when there is none. Errors: 22023 unless exactly one is given. Level app or operator. Example: SELECT find_tenant(''acme'');';
COMMENT ON FUNCTION slug_available(text) IS
    'Whether a slug is well-formed, not reserved and not taken. Level app or operator. Example: SELECT slug_available(''acme'');';
COMMENT ON FUNCTION suspend_tenant(uuid, text, text, boolean) IS
    'Closes a tenant (mode blocked) or makes it read-only (mode read_only). Waits for transactions that have written for it; with terminate, ends every session that serves it first. Errors: P0002; 55000 illegal from this state; 22023 unknown mode. Level operator. Example: SELECT suspend_tenant(find_tenant(''acme''), ''unpaid'', ''read_only'');';
COMMENT ON FUNCTION resume_tenant(uuid) IS
    'Makes a suspended or read-only tenant active. Errors: P0002; 55000 illegal from this state. Level operator. Example: SELECT resume_tenant(find_tenant(''acme''));';
COMMENT ON FUNCTION cancel_tenant(uuid, text) IS
    'Closes a tenant whose subscription ended; restore_tenant() brings it back. Errors: P0002; 55000. Level operator. Example: SELECT cancel_tenant(find_tenant(''acme''), ''moved away'');';
COMMENT ON FUNCTION delete_tenant(uuid, interval) IS
    'Deletes a tenant softly: it is closed at once and kept until the retention has passed. Returns when it may be purged. Errors: P0002; 55000; 22023 negative retention. Level operator. Example: SELECT delete_tenant(find_tenant(''acme''), ''30 days'');';
COMMENT ON FUNCTION restore_tenant(uuid) IS
    'Makes a cancelled or deleted tenant active, unless its purge has begun. Errors: P0002; 55000. Level operator. Example: SELECT restore_tenant(find_tenant(''acme''));';
COMMENT ON FUNCTION change_plan(uuid, text) IS
    'Puts a tenant on another plan. Errors: P0002 unknown tenant or plan; 55000 deleted tenant. Level operator. Example: SELECT change_plan(find_tenant(''acme''), ''pro'');';
COMMENT ON PROCEDURE purge_tenant(uuid, boolean) IS
    'Removes a deleted tenant: its database with everyone connected to it, its schema, its rows from every protected table in foreign-key order, in batches, as the tables'' owners, then its registry row. Says what it removed. Can be called again after a failure or a crash. force ignores the retention. Errors: 25001 inside a transaction block; P0002; 55000 not deleted, or kept. Level admin. Example: CALL purge_tenant(''8e3f5a60-0000-4000-8000-000000000001'', force => true);';
COMMENT ON PROCEDURE purge_expired_tenants() IS
    'Purges every deleted tenant whose retention has passed; one that fails is reported and the others go on. Errors: 25001 inside a transaction block. Level admin. Example: CALL purge_expired_tenants();';

COMMENT ON PROCEDURE adopt_tenants(regclass, name, name, text, boolean) IS
    'For an application that has its own table of organisations: each row becomes a tenant of isolation row. Keys of type uuid are the tenants'' ids; those of type text (63 bytes at most), bigint, integer or smallint become their external ids. Then every table that refers to id_column by a foreign key of one column, and the table itself, are put under the guard by the key columns that they have (protect => false leaves that out; see protect_table()). Commits as it goes, cannot run in a transaction block, and can be called again: for new rows, or after a failure. Errors: 25001; P0002 unknown table, column or plan; 22023 a column that is no key or of another type; 55000 a key that cannot be one of a tenant, or rows without an organisation. Level admin. Example: CALL adopt_tenants(''public.organizations'', ''id'', ''name'');';
COMMENT ON PROCEDURE for_each_tenant(text, uuid[]) IS
    'Runs one or more statements for each active tenant (or those given), bound to it, each in a transaction of its own, as the calling role: in shared tables, or in the tenant''s schema. A failure is told as a WARNING, undone, and the rest goes on; tenants that are not active are left out and counted. Cannot run in a transaction block. The role must not bypass row security. Errors: 25001; 22023; P0002 unknown tenant. Level admin. Example: CALL for_each_tenant(''SELECT count(*) FROM public.notes'');';
