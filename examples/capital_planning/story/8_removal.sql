\connect - :operator
\echo
\echo '== 11. Cascade leaves, and comes back within 30 days'
\echo
\set ECHO queries
SELECT schema_name AS cascade_schema FROM tenancy.tenants WHERE id = :'cascade' \gset
SELECT delete_tenant(:'cascade')::date - current_date AS days;
\set ECHO none
SELECT to_regnamespace(quote_ident(:'cascade_schema')) IS NOT NULL AND purge_after BETWEEN now() + interval '29 days' AND now() + interval '31 days' AS holds
FROM tenancy.tenants WHERE id = :'cascade' \gset
\set claim 'its schema is kept for 30 days' \ir ../../shared/claim.sql
\connect - :app
\set ON_ERROR_STOP off
\set ECHO queries
SELECT set_tenant_by_slug('cascade');
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\connect - :operator
\set ECHO queries
SELECT restore_tenant(:'cascade');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('cascade') \g /dev/null
SELECT count(*) = 1 AS holds FROM scenarios \gset
COMMIT;
\set claim 'restored, it goes on' \ir ../../shared/claim.sql
\connect - :admin
\echo
\echo 'delete_tenant_schema() does not wait:'
\echo
\set ECHO queries
SELECT delete_tenant_schema(:'cascade');
\set ECHO none
SELECT to_regnamespace(quote_ident(:'cascade_schema')) IS NULL AND schema_name IS NULL AS holds FROM tenancy.tenants WHERE id = :'cascade' \gset
\set claim 'schema and registration of it are gone, the others are there' \ir ../../shared/claim.sql
