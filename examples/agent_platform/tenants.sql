-- As an operator: three tenants on three plans. As the backend: each tenant's data, bound to that tenant.

\connect - :operator

\echo
\echo '== 4. Three tenants, created by an operator'
\echo

\set ECHO queries
SELECT create_tenant('Acme Robotics', slug => 'acme', plan => 'enterprise', external_id => 'org_2aCmE') AS acme,
       create_tenant('Globex Logistics', slug => 'globex', plan => 'pro', external_id => 'org_2gLbX') AS globex,
       create_tenant('Initech', plan => 'starter', metadata => '{"region": "eu-north"}') AS initech \gset
SELECT name, slug, plan, status, external_id FROM tenancy.tenants ORDER BY slug;
\set ECHO none

\connect - :app

\echo
\echo '== 5. A sample of their data, written by the backend'
\echo
\echo 'Per tenant one transaction of load.sql; no statement in it names a tenant:'
\echo '   BEGIN;  SELECT set_tenant_by_slug(...);  INSERT INTO users (email, name, ...) SELECT ...;  ...  COMMIT;'
\echo

\set slug acme    \set users 240 \set agents 80 \set workflows 120 \set executions 42000
\ir load.sql
\set slug globex  \set users 90  \set agents 40 \set workflows 60  \set executions 15000
\ir load.sql
\set slug initech \set users 12  \set agents 12 \set workflows 8   \set executions 3000
\ir load.sql

\connect - :dba
ANALYZE users, workflows, workflow_executions;
\echo 'Counted by the DBA, whom row security does not bind:'
\ir count.sql
SELECT sum(rows) >= 50000 AS holds
FROM (SELECT count(*) FROM users UNION ALL
      SELECT count(*) FROM workflows UNION ALL
      SELECT count(*) FROM workflow_executions) AS tables (rows) \gset
\set claim 'at least 50 000 rows are loaded' \ir ../shared/claim.sql
