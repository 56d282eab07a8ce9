\connect - :operator

\echo
\echo '== 10. The limits of a plan: Hooli is on the free one'
\echo
\set ECHO queries
SELECT create_tenant('Hooli', slug => 'hooli', external_id => 'org_2h00L1') AS hooli \gset
\set ECHO none
\connect - :app
\set ON_ERROR_ROLLBACK on
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
INSERT INTO users (external_auth_id, email, name, role) VALUES ('user_gavin', 'gavin@hooli.example', 'Gavin', 'owner');
INSERT INTO workflows (created_by, name, status)
SELECT id, w.name, w.status FROM users, (VALUES ('Digest', 'active'), ('Forecast', 'active'), ('Audit', 'draft')) AS w (name, status);

\set ON_ERROR_STOP off
INSERT INTO workflows (created_by, name, status) SELECT id, 'Report', 'active' FROM users;   -- a third one
\set said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
UPDATE workflows SET status = 'active' WHERE name = 'Audit';
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
UPDATE workflows SET status = 'paused' WHERE name = 'Digest';
UPDATE workflows SET status = 'active' WHERE name = 'Audit';   -- there is room now
SELECT * FROM check_limit('concurrent_workflows');

\set ON_ERROR_STOP off
INSERT INTO agents (name) SELECT 'Agent ' || n FROM generate_series(1, 11) AS n;   -- a statement counts whole
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
INSERT INTO agents (name) SELECT 'Agent ' || n FROM generate_series(1, 10) AS n;
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
SELECT :'said' = 'limit reached for concurrent_workflows (2)' AS holds \gset
\set claim 'the message names resource and limit' \ir ../../shared/claim.sql
BEGIN;
SELECT set_tenant_by_slug('hooli') \g /dev/null
SELECT (SELECT count(*) FROM agents) = 10 AND count(*) FILTER (WHERE status = 'active') = 2 AND count(*) = 3 AS holds FROM workflows \gset
COMMIT;
\set claim 'ten agents and two active workflows are there, as the plan says' \ir ../../shared/claim.sql

\connect - :operator
\echo
\echo 'Hooli upgrades. That holds at once; nothing is recounted:'
\echo
\set ECHO queries
SELECT change_plan(:'hooli', 'starter');
\set ECHO none
\connect - :app
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
UPDATE workflows SET status = 'active';
INSERT INTO agents (name) VALUES ('Agent 11');
SELECT resource, allowed, max_value, used, remaining FROM (VALUES ('agents'), ('concurrent_workflows')) AS r (resource), check_limit(resource);
\set ECHO none
SELECT bool_and(allowed) AND array_agg(used ORDER BY resource) = '{11,3}' AND array_agg(max_value ORDER BY resource) = '{50,10}' AS holds
FROM (VALUES ('agents'), ('concurrent_workflows')) AS r (resource), check_limit(resource) \gset
COMMIT;
\set claim 'the upgrade lifts both limits' \ir ../../shared/claim.sql

\connect - :operator
\echo
\echo 'It goes back: what it has stays, more it does not get.'
\echo
\set ECHO queries
SELECT change_plan(:'hooli', 'free');
\set ECHO none
\connect - :app
\set ON_ERROR_ROLLBACK on
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('hooli') AS hooli;
UPDATE workflows SET updated_at = now() WHERE status = 'active';
\set ON_ERROR_STOP off
INSERT INTO agents (name) VALUES ('Agent 12');
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
DELETE FROM agents WHERE name = 'Agent 11';
\set ON_ERROR_STOP off
SELECT enforce_limit('agents');   -- asked before the work, instead of by the insert
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
\set ECHO none
\set ON_ERROR_ROLLBACK off
COMMIT;
\connect - :admin
SELECT count(*) = 0 AS holds FROM verify_limits() \gset
\set claim 'every counter is the number of rows' \ir ../../shared/claim.sql
