-- A row says that a tenant is to have a database, or has it. The oid is chosen before the database is made, and stands here by then: what a crash
-- leaves of it can be told from everything else.
CREATE TABLE tenancy.tenant_databases (
    tenant_id uuid CONSTRAINT tenant_databases_pkey PRIMARY KEY,
    database_name name NOT NULL,
    database_oid oid,
    template name,
    schema_name name NOT NULL,
    control_oid oid,
    phase text COLLATE "C" NOT NULL DEFAULT 'requested',
    attempts integer NOT NULL DEFAULT 0,
    requested_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    last_failed_at timestamptz,
    last_sqlstate text,
    last_error text,
    CONSTRAINT tenant_databases_phase_check
        CHECK (phase IN ('requested', 'creating', 'installing', 'filling', 'filled', 'ready', 'dropping'))
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.tenant_databases', '');
COMMENT ON TABLE tenancy.tenant_databases IS
    'The databases of tenants that have one of their own, made or to be made: which database and schema, from what template, how far, how often that was tried and what stood against it last. control_oid is the database that keeps it, which no copy of that database is. tenancy.provisioning shows it. Only functions reach it.';

CREATE VIEW tenancy.provisioning AS
    SELECT d.tenant_id, t.slug, t.status, d.phase, d.database_name, d.schema_name, d.template, b.oid AS database_oid,
           CASE WHEN d.phase = 'ready' AND b.oid IS NULL THEN 'missing'
                WHEN d.phase = 'ready' AND NOT b.datallowconn THEN 'closed'
                WHEN d.phase = 'ready' AND b.datname <> d.database_name THEN 'renamed' END AS problem,
           b.datname AS found_as, d.attempts, d.requested_at, d.updated_at,
           CASE WHEN d.phase <> 'ready' THEN d.next_attempt_at END AS next_attempt_at, d.last_failed_at, d.last_sqlstate, d.last_error
    FROM tenancy.tenant_databases d
    LEFT JOIN tenancy.tenants t ON t.id = d.tenant_id
    LEFT JOIN pg_catalog.pg_database b ON b.oid = d.database_oid
         AND EXISTS (SELECT FROM pg_catalog.pg_shseclabel l
                     WHERE l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.objoid = b.oid AND l.provider = 'pg_tenancy'
                       AND pg_catalog.starts_with(l.label, 'tenant: ' || d.tenant_id::pg_catalog.text || ' '));
COMMENT ON VIEW tenancy.provisioning IS
    'The databases of tenants: how far each is (phase requested, creating, installing, filling, filled, ready or dropping), how often it was tried, what stood against it last and when it is tried again. problem says of one that is ready that it is missing (dropped by hand), renamed (found_as says to what; the registry follows within a minute) or closed (ALLOW_CONNECTIONS false). Level operator.';

COMMENT ON PROCEDURE provision_tenants() IS
    'Makes the databases of tenants that are to have one and have not: what a background worker does as soon as create_tenant() has committed. One that fails is reported, cleaned up and tried again later; the others go on. Errors: 25001 inside a transaction block. Level admin. Example: CALL provision_tenants();';
COMMENT ON FUNCTION wait_for_tenant(uuid, numeric) IS
    'Waits until a tenant is neither provisioning nor moving, for at most so many seconds, and returns its state, which may then still be one of these. Sees what is committed meanwhile. Errors: P0002; 22023 a timeout that is negative or more than a day; 55000 the tenant was registered in this transaction, which has to end first. Level operator. Example: SELECT wait_for_tenant(find_tenant(''acme''), 10);';
COMMENT ON FUNCTION tenant_location(text) IS
    'Where a tenant is: its isolation, the database to connect to, the schema of its tables there, NULL for shared ones; host and port are NULL for this server. Errors: P0002; 22023. Level app or operator. Example: SELECT database_name, schema_name FROM tenant_location(''acme'');';
COMMENT ON FUNCTION pgbouncer_databases(text) IS
    'A line of PgBouncer''s [databases] section for each tenant with a database that is ready, by the name of the database (one that someone has renamed to what PgBouncer cannot write, by tenant_ and the tenant''s id): pool_size is that of the tenant''s plan, its setting pool_size or else max_concurrent_transactions; without either PgBouncer''s default holds. connection says how PgBouncer reaches this server, as key=value pairs, and stands in each line. Errors: 22023 a connection of several lines. Level monitor. Example: SELECT pgbouncer_databases(''host=10.0.0.5 port=5432'');';
