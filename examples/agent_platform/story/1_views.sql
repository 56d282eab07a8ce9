\connect - :app

\echo
\echo '== 6. One query, three tenants'
\echo
\echo 'The backend sends the same text each time; the bound tenant decides what it reads.'
\echo

\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('acme') AS acme;
\ir ../report.sql
\set ECHO none
SELECT count(*) AS acme_sees FROM workflow_executions \gset
COMMIT;

\echo 'The same as Globex:'
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
\ir ../report.sql
SELECT count(*) AS globex_sees FROM workflow_executions \gset
COMMIT;

\echo 'The same as Initech:'
BEGIN;
SELECT set_tenant_by_slug('initech') \g /dev/null
\ir ../report.sql
SELECT count(*) AS initech_sees FROM workflow_executions \gset
COMMIT;

\connect - :dba
SELECT (count(*) FILTER (WHERE tenant_id = :'acme'), count(*) FILTER (WHERE tenant_id = :'globex'),
        count(*) FILTER (WHERE tenant_id = :'initech'))
       = (:acme_sees::bigint, :globex_sees::bigint, :initech_sees::bigint) AS holds
FROM workflow_executions \gset
\set claim 'each tenant saw all of its own executions, and nothing else' \ir ../../shared/claim.sql
