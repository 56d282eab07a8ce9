\connect - :operator
\echo
\echo '== 12. Renamed, suspended, deleted, restored, purged'
\echo
\set ECHO queries
SELECT update_tenant(:'acme', name => 'Acme Holding', slug => 'acme-holding');
SELECT name, slug, schema_name FROM tenancy.tenants WHERE id = :'acme';
\set ECHO none
SELECT schema_name = 'tenant_acme' AND slug = 'acme-holding' AS holds FROM tenancy.tenants WHERE id = :'acme' \gset
\connect - :app
\set claim 'another name and subdomain, the same schema' \ir ../../shared/claim.sql
BEGIN;
SELECT set_tenant_by_slug('acme-holding') \g /dev/null
SELECT count(*) = 120 AS holds FROM deals \gset
COMMIT;
\set claim 'in which everything still is' \ir ../../shared/claim.sql

\connect - :operator
\echo
\set ECHO queries
SELECT suspend_tenant(:'globex', 'invoice 1042 is 30 days overdue');
\set ECHO none
\connect - :app
\set ECHO queries
\set ON_ERROR_STOP off
SELECT set_tenant_by_slug('globex');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
\connect - :operator
\set ECHO queries
SELECT resume_tenant(:'globex');
SELECT suspend_tenant(:'globex', 'invoice 1042 is 30 days overdue', mode => 'read_only');
\set ECHO none
\connect - :app
\set subdomain globex
\ir ../request.sql
\set ECHO queries
\set ON_ERROR_STOP off
UPDATE deals SET value = value + 1;
\set ON_ERROR_STOP on
\set must_be 25006 \ir ../../shared/refused.sql
ROLLBACK;
\set ECHO none

\connect - :operator
\echo 'Deleted, Globex keeps its schema for 30 days:'
\echo
\set ECHO queries
SELECT resume_tenant(:'globex');
SELECT delete_tenant(:'globex')::date - current_date AS days;
\set ECHO none
\connect - :app
\set ON_ERROR_STOP off
\set ECHO queries
SELECT set_tenant_by_slug('globex');
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\connect - :operator
SELECT to_regnamespace('tenant_globex') IS NOT NULL AS holds \gset
\set claim 'the schema is there' \ir ../../shared/claim.sql
\set ECHO queries
SELECT restore_tenant(:'globex');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
SELECT count(*) = 60 AS holds FROM deals \gset
COMMIT;
\set claim 'restored, it has every deal' \ir ../../shared/claim.sql

\connect - :operator
\echo
\set ECHO queries
SELECT delete_tenant(:'globex') > now() AS later;
\set ECHO none
\connect - :admin
\set ECHO queries
\set ON_ERROR_STOP off
CALL purge_tenant(:'globex');
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql
CALL purge_tenant(:'globex', force => true);
\set ECHO none
\connect - :dba
SELECT to_regnamespace('tenant_globex') IS NULL AND NOT EXISTS (SELECT FROM tenancy.tenants WHERE id = :'globex')
   AND (SELECT count(*) FROM tenant_acme.deals) = 120 AND (SELECT count(*) FROM tenant_initech.deals) = 10
   AND to_regnamespace('tenant_hooli') IS NOT NULL AS holds \gset
\set claim 'purged, its schema is gone, and no other' \ir ../../shared/claim.sql
\set ECHO queries
SELECT to_char(at, 'HH24:MI:SS') AS at, session_user_name AS who, action, target FROM tenancy.audit_log WHERE tenant_id = :'globex' ORDER BY at, id;
\set ECHO none
SELECT count(*) > 6 AND count(*) FILTER (WHERE action = 'tenant.purged') = 1 AS holds FROM tenancy.audit_log WHERE tenant_id = :'globex' \gset
\set claim 'and all of this is on record' \ir ../../shared/claim.sql
