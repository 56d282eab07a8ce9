\connect - :operator

\echo
\echo '== 14. Suspension: an operator stops Globex, and lets it go on'
\echo

\set ECHO queries
SELECT suspend_tenant(:'globex', 'invoice 1042 is 30 days overdue');
\set ECHO none
\echo 'The backend, from now on:'
\connect - :app
\set ECHO queries
BEGIN;
\set ON_ERROR_STOP off
SELECT set_tenant_by_slug('globex') AS globex;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;

\connect - :operator
\echo 'Softer: Globex may read, but not write.'
\echo
\set ECHO queries
SELECT resume_tenant(:'globex');
SELECT suspend_tenant(:'globex', 'invoice 1042 is 30 days overdue', mode => 'read_only');
\set ECHO none
\connect - :app
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;
SELECT status, count(*) FROM workflows GROUP BY status ORDER BY status;
\set ON_ERROR_STOP off
UPDATE workflows SET status = 'paused' WHERE status = 'active';
\set ON_ERROR_STOP on
\set must_be 25006 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;

\connect - :operator
\echo 'Paid:'
\echo
\set ECHO queries
SELECT resume_tenant(:'globex');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
UPDATE workflows SET updated_at = now() WHERE status = 'active';
SELECT :ROW_COUNT > 0 AS holds \gset
COMMIT;
\set claim 'Globex reads and writes again' \ir ../../shared/claim.sql
