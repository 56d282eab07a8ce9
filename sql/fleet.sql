CREATE TABLE tenancy.migrations (
    template name NOT NULL,
    version text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    sql text NOT NULL,
    down_sql text,
    verify_sql text,
    description text,
    transactional boolean NOT NULL,
    checksum text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT migrations_pkey PRIMARY KEY (template, version),
    CONSTRAINT migrations_position_key UNIQUE (template, position)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.migrations', '');
COMMENT ON TABLE tenancy.migrations IS
    'The migrations of each template, which are applied in the order of position, that in which they were added; version is a name. checksum is the SHA-256, in hexadecimal digits, of all that was given to add_migration(). Kept by add_migration() and remove_migration(). Level operator.';

CREATE TABLE tenancy.migration_runs (
    run_id uuid CONSTRAINT migration_runs_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    template name NOT NULL,
    direction text NOT NULL CHECK (direction IN ('up', 'down')),
    to_version text COLLATE "C",
    canary jsonb,
    workers integer NOT NULL,
    max_attempts integer NOT NULL,
    lock_timeout_s numeric NOT NULL,
    leader_pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    outcome text
);
CREATE INDEX migration_runs_template_idx ON tenancy.migration_runs (template, started_at);
SELECT pg_catalog.pg_extension_config_dump('tenancy.migration_runs', '');
COMMENT ON TABLE tenancy.migration_runs IS
    'Calls of migrate_tenants() (direction up) and rollback_tenants() (down) that had something to do. finished_at is NULL while one runs, and after a crash until the next one starts; outcome says in words how it ended. Level operator.';

-- tenant_id is NULL for the template itself.
CREATE TABLE tenancy.failed_migrations (
    template name NOT NULL,
    tenant_id uuid,
    version text COLLATE "C" NOT NULL,
    direction text NOT NULL,
    run_id uuid NOT NULL,
    attempts integer NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    detail text,
    failed_at timestamptz NOT NULL,
    CONSTRAINT failed_migrations_key UNIQUE NULLS NOT DISTINCT (template, tenant_id, version)
);
CREATE INDEX failed_migrations_tenant_id_idx ON tenancy.failed_migrations (tenant_id);
SELECT pg_catalog.pg_extension_config_dump('tenancy.failed_migrations', '');
COMMENT ON TABLE tenancy.failed_migrations IS
    'Migrations that failed for a schema and have not succeeded since, with the error and the attempts of the run that tried last; tenant_id is NULL for the template itself. tenancy.migration_status shows it beside what is applied. Level operator.';

CREATE VIEW tenancy.migration_status AS
    SELECT m.template, NULL::uuid AS tenant_id, NULL::text AS slug, p.schema_name, m.version,
           CASE WHEN f.version IS NOT NULL THEN 'failed' WHEN a.version IS NOT NULL THEN 'applied' ELSE 'pending' END AS status,
           coalesce(f.attempts, 0) AS attempts, f.sqlstate, f.message, coalesce(f.failed_at, a.applied_at) AS changed_at
    FROM tenancy.migrations m
    JOIN tenancy.templates p ON p.template = m.template
    LEFT JOIN tenancy.applied_migrations a ON a.template = m.template AND a.tenant_id IS NULL AND a.version = m.version
    LEFT JOIN tenancy.failed_migrations f ON f.template = m.template AND f.tenant_id IS NULL AND f.version = m.version
    UNION ALL
    SELECT m.template, t.id, t.slug, t.schema_name, m.version,
           CASE WHEN f.version IS NOT NULL THEN 'failed' WHEN a.version IS NOT NULL THEN 'applied' ELSE 'pending' END,
           coalesce(f.attempts, 0), f.sqlstate, f.message, coalesce(f.failed_at, a.applied_at)
    FROM tenancy.migrations m
    JOIN tenancy.tenants t ON t.template = m.template AND t.schema_name IS NOT NULL AND t.purge_started_at IS NULL
    LEFT JOIN tenancy.applied_migrations a ON a.template = m.template AND a.tenant_id = t.id AND a.version = m.version
    LEFT JOIN tenancy.failed_migrations f ON f.template = m.template AND f.tenant_id = t.id AND f.version = m.version;
COMMENT ON VIEW tenancy.migration_status IS
    'Each migration of each template for each schema: applied, pending or failed. tenant_id and slug are NULL for the template''s own schema; attempts, sqlstate and message tell of a failure. Live while migrate_tenants() runs. Level operator.';

COMMENT ON FUNCTION add_migration(name, text, text, text, text, text, boolean) IS
    'Adds a migration to a template, behind those that were added before: sql, one or more statements without transaction control, will run in the template''s schema and in that of each of its tenants by migrate_tenants(), with names found there first. verify_sql must return true afterwards, or the schema is left as it was; down_sql undoes it for rollback_tenants(). transactional => false is for one statement that cannot run in a transaction, such as CREATE INDEX CONCURRENTLY; it must be repeatable (IF NOT EXISTS), since what fails half-way is done again. Returns the version. Adding the same again does nothing; other content replaces it where it is applied nowhere. Errors: P0002 unknown template; 42601 syntax; 22023 malformed; 55000 applied already, or not READ COMMITTED. Level admin. Example: SELECT add_migration(''crm'', ''002'', ''ALTER TABLE contacts ADD COLUMN phone text'', down_sql => ''ALTER TABLE contacts DROP COLUMN phone'');';
COMMENT ON FUNCTION remove_migration(name, text) IS
    'Removes a migration that is applied nowhere; false when there is none. Errors: P0002 unknown template; 55000 applied. Level admin. Example: SELECT remove_migration(''crm'', ''002'');';
COMMENT ON PROCEDURE migrate_tenants(name, integer, jsonb, integer, numeric) IS
    'Applies what is pending: to the template first, then to tenants whose metadata contains canary, then to the rest, by as many background workers (1 to 64). Each schema and version is a transaction of its own, as the owner of the template''s schema and bound to the tenant. Waits at most lock_timeout_s seconds for each lock. What fails is tried max_attempts times and recorded, and the others go on, with a warning at the end; a failed template or canary stops the run. Call it again to go on after an error, a cancellation or a crash. A second call for one template waits for the first. tenancy.migration_status shows the progress. Errors: 25001 inside a transaction block; P0002; 22023; 55000 the template or a canary failed; 53400 no worker can be started. Level admin. Example: CALL migrate_tenants(''crm'', workers => 4, canary => ''{"ring": 0}'');';
COMMENT ON PROCEDURE rollback_tenants(name, text, integer, integer, numeric) IS
    'Undoes every migration that was added after to_version (NULL: all) by its down_sql, the latest first: for the tenants, then, when none has failed, for the template. Otherwise like migrate_tenants(). Errors: 25001 inside a transaction block; P0002 unknown template or version; 22023; 55000 a migration has no down_sql, or the template failed; 53400 no worker can be started. Level admin. Example: CALL rollback_tenants(''crm'', ''001'');';
COMMENT ON FUNCTION unregister_template(name) IS
    'Forgets a template that no tenant uses, with its migrations; the schema stays. False when there is none. Errors: 55000 tenants use it. Level admin. Example: SELECT unregister_template(''crm'');';
