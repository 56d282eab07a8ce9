\connect - :operator

\echo
\echo '== 15. Deletion, a change of mind, and purge: Initech'
\echo

\set ECHO queries
SELECT cancel_tenant(:'initech', 'moved to a competitor');
SELECT delete_tenant(:'initech', retention => '30 days') AS may_be_purged_from;
\set ECHO none
\connect - :app
\set ECHO queries
BEGIN;
\set ON_ERROR_STOP off
SELECT set_tenant(:'initech');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;

\connect - :operator
\echo 'They come back within the retention:'
\echo
\set ECHO queries
SELECT restore_tenant(:'initech');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant(:'initech') \g /dev/null
SELECT count(*) = :initech_sees AS holds FROM workflow_executions \gset
SELECT start_run(id, tasks => 5), record_usage('api_calls', 1, 'the last request') FROM workflows WHERE status = 'active' LIMIT 1 \g /dev/null
SELECT count(*) AS initech_sees FROM workflow_executions \gset
COMMIT;
\set claim 'every row is still there' \ir ../../shared/claim.sql
\echo

\echo 'They leave for good. A purge is an admin''s, and does not run ahead of the retention unless forced:'
\echo
\connect - :operator
\set ECHO queries
SELECT delete_tenant(:'initech') AS may_be_purged_from;
\set ECHO none
\connect - :dba
\echo 'Before:'
\ir ../count.sql
SELECT (SELECT count(*) FROM users) AS users_before,
       (SELECT count(*) FROM workflows) AS workflows_before,
       (SELECT count(*) FROM workflow_executions) AS executions_before \gset
SELECT (SELECT count(*) FROM users WHERE tenant_id = :'initech') AS initech_users,
       (SELECT count(*) FROM workflows WHERE tenant_id = :'initech') AS initech_workflows,
       (SELECT count(*) FROM workflow_executions WHERE tenant_id = :'initech') AS initech_executions \gset

\connect - :admin
\set ECHO queries
\set ON_ERROR_STOP off
CALL purge_tenant(:'initech');
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql

CALL purge_tenant(:'initech', force => true);
\set ECHO none

\connect - :dba
\echo
\echo 'After:'
\ir ../count.sql
SELECT (SELECT count(*) FROM users) = :users_before - :initech_users
   AND (SELECT count(*) FROM workflows) = :workflows_before - :initech_workflows
   AND (SELECT count(*) FROM workflow_executions) = :executions_before - :initech_executions
   AND NOT EXISTS (SELECT FROM users WHERE tenant_id = :'initech')
   AND NOT EXISTS (SELECT FROM workflows WHERE tenant_id = :'initech')
   AND NOT EXISTS (SELECT FROM workflow_executions WHERE tenant_id = :'initech')
   AND NOT EXISTS (SELECT FROM tenancy.tenants WHERE id = :'initech') AS holds \gset
\set claim 'exactly Initech''s rows are gone, the others'' are all there' \ir ../../shared/claim.sql
SELECT NOT EXISTS (SELECT FROM tenancy.usage_inbox WHERE tenant_id = :'initech' UNION ALL
                   SELECT FROM tenancy.usage_buckets WHERE tenant_id = :'initech' UNION ALL
                   SELECT FROM tenancy.usage_keys WHERE tenant_id = :'initech' UNION ALL
                   SELECT FROM tenancy_archive.usage_events WHERE tenant_id = :'initech' UNION ALL
                   SELECT FROM tenancy.row_counters WHERE tenant_id = :'initech') AS holds \gset
\set claim 'and so is what it had used' \ir ../../shared/claim.sql
\echo

\connect - :app
\set ECHO queries
BEGIN;
\set ON_ERROR_STOP off
SELECT set_tenant(:'initech');
\set ON_ERROR_STOP on
\set must_be P0002 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;
