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
    'Limits the rows of a protected table, with all its partitions, or of tenancy.memberships: what a tenant''s plan allows of the resource in total bounds how many of its rows there are for which the condition (an immutable SQL expression over the row that names its functions and types with their schemas, NULL for every row) is true, in all tables of that resource together. Returns false when the table was limited so before. Waits for the table''s writers. Errors: 22023 a condition that is not immutable; 55000 a table that is not protected. Level admin. Example: SELECT limit_table(''public.orders'', ''orders'');';
COMMENT ON FUNCTION unlimit_table(regclass, text) IS
    'Takes a limit of limit_table() off a table; false when there was none. Errors as limit_table(). Level admin. Example: SELECT unlimit_table(''public.orders'', ''orders'');';
