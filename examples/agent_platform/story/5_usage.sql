\connect - :app

\echo
\echo '== 11. Usage, recorded in the transaction that makes it'
\echo
\echo 'start_run() takes the run''s tasks from the month''s quota; end_run() records its minutes, rounded up, and its tasks.'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
SELECT start_run(id, tasks => 12, at => now() - interval '150 seconds') AS run FROM workflows WHERE name = 'Audit' \gset
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
SELECT end_run(:'run') AS agent_minutes;
SELECT record_usage('api_calls', 3, 'request 71f0') AS recorded;
SELECT record_usage('api_calls', 3, 'request 71f0') AS recorded_again;
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
SELECT start_run(id, tasks => 100) FROM workflows WHERE name = 'Audit' \g /dev/null
ROLLBACK;
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
SELECT * FROM monthly_usage();
\set ECHO none
SELECT array_agg(metric || ' ' || trim_scale(quantity) ORDER BY metric) = '{agent_minutes 3,api_calls 3,task_completed 12,tasks 12,workflow_started 1}' AS holds
FROM monthly_usage() \gset
\set claim 'what was committed counts, once; what was rolled back does not' \ir ../../shared/claim.sql
\set ECHO queries
\set ON_ERROR_STOP off
SELECT record_usage('api_calls', 4, 'request 71f0');   -- another event under the same key
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;

\echo 'The month''s quota of tasks is 1 000 on the free plan:'
\echo
\set ON_ERROR_ROLLBACK on
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
SELECT start_run(id, tasks => 988) IS NOT NULL AS started FROM workflows WHERE name = 'Digest';
\set ON_ERROR_STOP off
SELECT start_run(id, tasks => 1) FROM workflows WHERE name = 'Digest';
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
BEGIN;
SELECT set_tenant_by_slug('hooli') \g /dev/null
SELECT quantity = 1000 AND remaining = 0 AND (SELECT count(*) FROM workflow_executions) = 2 AS holds FROM monthly_usage() WHERE metric = 'tasks' \gset
COMMIT;
\set claim 'exactly 1 000 were taken, and the run that was refused is not there' \ir ../../shared/claim.sql
\connect - :operator
\set ECHO queries
SELECT change_plan(:'hooli', 'starter');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('hooli') \g /dev/null
SELECT remaining = 9000 AS holds FROM monthly_usage() WHERE metric = 'tasks' \gset
COMMIT;
\set claim 'the upgrade leaves 9 000 more for the same month' \ir ../../shared/claim.sql

\connect - :admin
\echo
\echo 'Workers add events up and archive them by month; called by hand, it is the same. Figures are exact before and after:'
\echo
\set ECHO queries
SELECT rollup_usage() IS NOT NULL AS rolled_up;
\set ECHO none
\connect - :operator
\set ECHO queries
SELECT metric, quantity, events, max_value FROM tenant_usage(:'hooli');
\set ECHO none
SELECT array_agg(metric || ' ' || trim_scale(quantity) ORDER BY metric) = '{agent_minutes 3,api_calls 3,task_completed 12,tasks 1000,workflow_started 2}' AS holds
FROM tenant_usage(:'hooli') \gset
\set claim 'the operator reads the same figures after the rollup' \ir ../../shared/claim.sql
\connect - :dba
SELECT count(*) = 7 AND bool_and(tableoid::regclass::text LIKE 'tenancy_archive.usage_events_2%') AS holds FROM tenancy_archive.usage_events WHERE tenant_id = :'hooli' \gset
\set claim 'the events are archived in the partitions of their months' \ir ../../shared/claim.sql
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
SELECT coalesce(sum(events), 0) = 0 AS holds FROM monthly_usage() \gset
\set claim 'Globex sees none of it' \ir ../../shared/claim.sql
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT * FROM tenant_usage(:'hooli');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;
