-- The schema of tables, views and internal functions. Public functions go where CREATE EXTENSION … SCHEMA says.
CREATE SCHEMA tenancy;
COMMENT ON SCHEMA tenancy IS 'pg_tenancy: registry, audit log, statistics and internal functions';
