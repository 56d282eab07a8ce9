-- Resources that tables are limited by. Which tables is in their triggers. Columns are read by position (src/metering/limit/resources.rs).
CREATE TABLE tenancy.limited_resources (
    resource text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    is_counted boolean NOT NULL,
    CONSTRAINT limited_resources_pkey PRIMARY KEY (resource)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.limited_resources', '');
COMMENT ON TABLE tenancy.limited_resources IS
    'Internal: resources that tables are limited by, each with a version that makes every counter of an older one void. Kept by limit_table() and unlimit_table().';

CREATE TABLE tenancy.limited_memberships (
    resource text COLLATE "C" NOT NULL,
    CONSTRAINT limited_memberships_pkey PRIMARY KEY (resource)
);
SELECT pg_catalog.pg_extension_config_dump('tenancy.limited_memberships', '');
COMMENT ON TABLE tenancy.limited_memberships IS
    'Internal: resources that members of a tenant are counted as. Kept by limit_table(''tenancy.memberships'', ...).';

-- A cache: what is not there is counted again, so that it is not dumped. Columns are read by position (src/metering/limit/counter.rs). The era lets
-- the newest version of a row be found first, where a long transaction keeps the old ones; the rest of a page is for new versions.
CREATE TABLE tenancy.row_counters (
    tenant_id uuid NOT NULL,
    resource text COLLATE "C" NOT NULL,
    era bigint NOT NULL,
    used bigint NOT NULL,
    changes bigint NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT row_counters_pkey PRIMARY KEY (tenant_id, resource, era)
) WITH (fillfactor = 50);
COMMENT ON TABLE tenancy.row_counters IS
    'Internal: how many live rows of a limited resource a tenant has, as far as that has been counted. Not in dumps.';

CREATE FUNCTION tenancy.keep_resource() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'pg_tenancy_keep_resource';
COMMENT ON FUNCTION tenancy.keep_resource() IS 'Internal: trigger that leaves out a row of a dump whose resource is known already, and has its rows counted anew.';
CREATE TRIGGER keep_resource BEFORE INSERT ON tenancy.limited_resources FOR EACH ROW EXECUTE FUNCTION tenancy.keep_resource();
ALTER TABLE tenancy.limited_resources ENABLE ALWAYS TRIGGER keep_resource;
CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON tenancy.limited_resources FOR EACH ROW EXECUTE FUNCTION tenancy.announce_change();
CREATE TRIGGER announce_truncate AFTER TRUNCATE ON tenancy.limited_resources FOR EACH STATEMENT EXECUTE FUNCTION tenancy.announce_change();
ALTER TABLE tenancy.limited_resources ENABLE ALWAYS TRIGGER announce_change;
ALTER TABLE tenancy.limited_resources ENABLE ALWAYS TRIGGER announce_truncate;

CREATE FUNCTION tenancy.count_rows() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'pg_tenancy_count_rows';
COMMENT ON FUNCTION tenancy.count_rows() IS
    'Internal: the trigger of limited tables, with the resource and the condition as arguments.';

-- Always there, because a dump has no triggers of an extension's own tables: they count what tenancy.limited_memberships says.
CREATE TRIGGER count_inserted AFTER INSERT ON tenancy.memberships REFERENCING NEW TABLE AS tenancy_new
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy.count_rows();
CREATE TRIGGER count_updated AFTER UPDATE ON tenancy.memberships REFERENCING OLD TABLE AS tenancy_old NEW TABLE AS tenancy_new
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy.count_rows();
CREATE TRIGGER count_deleted AFTER DELETE ON tenancy.memberships REFERENCING OLD TABLE AS tenancy_old
    FOR EACH STATEMENT EXECUTE FUNCTION tenancy.count_rows();
CREATE TRIGGER count_truncated AFTER TRUNCATE ON tenancy.memberships FOR EACH STATEMENT EXECUTE FUNCTION tenancy.count_rows();
ALTER TABLE tenancy.memberships ENABLE ALWAYS TRIGGER count_inserted;
ALTER TABLE tenancy.memberships ENABLE ALWAYS TRIGGER count_updated;
ALTER TABLE tenancy.memberships ENABLE ALWAYS TRIGGER count_deleted;
ALTER TABLE tenancy.memberships ENABLE ALWAYS TRIGGER count_truncated;

-- They write nothing, and may be asked on a standby; the limit may change between two calls in one statement.
CREATE FUNCTION check_limit(resource text, amount numeric DEFAULT 1, OUT allowed boolean, OUT max_value numeric, OUT used numeric, OUT remaining numeric)
    RETURNS SETOF record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'pg_tenancy_check_limit' ROWS 1;
COMMENT ON FUNCTION check_limit(text, numeric) IS
    'Whether the bound tenant may have or use this much more of a resource, with the limit, what is used of it and what remains (NULL and NULL for unlimited): of the periods that are limited, the one that leaves the least. What is used is the live rows of tables that are limited by the resource, or else what was recorded of the metric. One row. The answer is of now: only the triggers of limit_table() and consume_quota() decide and take at once. Errors: 42501 no tenant bound; P0002 unknown resource; 22023 NULL or a negative amount. Level client. Example: SELECT * FROM check_limit(''agents'');';
CREATE FUNCTION enforce_limit(resource text, amount numeric DEFAULT 1) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'pg_tenancy_enforce_limit';
COMMENT ON FUNCTION enforce_limit(text, numeric) IS
    'check_limit() as an assertion: true, or 54000 where the tenant may not. Other errors as check_limit(). Level client. Example: SELECT enforce_limit(''agents'', 5);';

CREATE FUNCTION tenancy.forget_counts() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'pg_tenancy_forget_counts';
COMMENT ON FUNCTION tenancy.forget_counts() IS 'Internal: the trigger of tenancy.tenants and tenancy.protected_tables by which a tenant with another schema, or a table that is protected or no more, is counted anew.';
CREATE TRIGGER forget_counts AFTER UPDATE OF schema_name ON tenancy.tenants FOR EACH ROW
    WHEN (OLD.schema_name IS DISTINCT FROM NEW.schema_name) EXECUTE FUNCTION tenancy.forget_counts();
CREATE TRIGGER forget_counts AFTER INSERT OR DELETE ON tenancy.protected_tables FOR EACH ROW EXECUTE FUNCTION tenancy.forget_counts('table');

-- By name after tenancy_ddl_command_end, which protects a new partition first.
CREATE EVENT TRIGGER tenancy_limited_change ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'CREATE SCHEMA', 'CREATE TRIGGER',
                 'ALTER TYPE', 'ALTER DOMAIN', 'ALTER FUNCTION', 'ALTER ROUTINE', 'ALTER OPERATOR', 'ALTER COLLATION')
    EXECUTE FUNCTION tenancy.on_limited_change();
COMMENT ON EVENT TRIGGER tenancy_limited_change IS
    'pg_tenancy: limits new partitions and children of limited tables, and refuses changes after which the condition of a limit could not be read';
CREATE EVENT TRIGGER tenancy_limited_drop ON sql_drop EXECUTE FUNCTION tenancy.on_limited_drop();
COMMENT ON EVENT TRIGGER tenancy_limited_drop IS 'pg_tenancy: has tenants counted anew whose limited tables or partitions are dropped';
COMMENT ON FUNCTION tenancy.on_limited_change() IS 'Internal: event trigger.';
COMMENT ON FUNCTION tenancy.on_limited_drop() IS 'Internal: event trigger.';

CREATE VIEW tenancy.limited_tables AS
    SELECT t.tgrelid::regclass AS table_name,
           pg_catalog.convert_from(pg_catalog.substr(t.tgargs, 1, position('\x00'::bytea IN t.tgargs) - 1), 'UTF8') AS resource,
           CASE WHEN t.tgnargs = 2 THEN pg_catalog.convert_from(
               pg_catalog.substr(t.tgargs, position('\x00'::bytea IN t.tgargs) + 1, pg_catalog.length(t.tgargs) - position('\x00'::bytea IN t.tgargs) - 1),
               'UTF8') END AS condition,
           (SELECT pg_catalog.count(*) = 4 FROM pg_catalog.pg_trigger o
            WHERE o.tgrelid = t.tgrelid AND o.tgfoid = t.tgfoid AND o.tgargs = t.tgargs AND o.tgenabled = 'A') AS intact
    FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid = 'tenancy.count_rows()'::regprocedure AND t.tgtype = 4 AND t.tgnargs > 0
    UNION ALL
    SELECT 'tenancy.memberships'::regclass, resource, NULL, true FROM tenancy.limited_memberships;
COMMENT ON VIEW tenancy.limited_tables IS
    'Which tables, partitions and tables of tenants'' schemas are limited by which resource, which rows count (condition; NULL for all), and whether all triggers are there as limit_table() made them: an owner may disable or drop them. Level monitor.';

COMMENT ON FUNCTION limit_table(regclass, text, text) IS
    'Limits the rows of a protected table, with all its partitions, of a template''s table and all its tenants'' (whose name only those find who may use the template''s schema; others pass its oid), or of tenancy.memberships: what a tenant''s plan allows of the resource in total bounds how many of its rows there are for which the condition (an immutable SQL expression over the row that names its functions and types with their schemas, NULL for every row) is true, in all tables of that resource together. Returns false when the table was limited so before. Waits for the table''s writers. Errors: 22023 a condition that is not immutable; 55000 a table that is not protected, or more than 100 resources; 0A000 a condition on members. Level admin. Example: SELECT limit_table(''public.orders'', ''orders'');';
COMMENT ON FUNCTION unlimit_table(regclass, text) IS
    'Takes a limit of limit_table() off a table; false when there was none. Errors as limit_table(). Level admin. Example: SELECT unlimit_table(''public.orders'', ''orders'');';
COMMENT ON FUNCTION recount_limits(uuid) IS
    'Makes the counters of a tenant, or with NULL of all tenants, void: rows are counted anew when they next change, or are asked for. Returns how many counters there were. Needed only after logical replication or a disabled trigger has changed rows unseen. Errors: P0002 unknown tenant. Level operator. Example: SELECT recount_limits();';
COMMENT ON FUNCTION verify_limits() IS
    'Counts the rows behind every counter, in one snapshot, and returns the counters that differ (tenant_id, resource, counted, actual): none, unless rows were changed past the triggers. Level admin. Example: SELECT * FROM verify_limits();';
