-- As the application, which binds; as the API server, which may not; as the operator.
\getenv app_url APP_URL
\getenv client_url CLIENT_URL
\getenv operator_url OPERATOR_URL

-- Bind
\set script fill.sql
\set tenant acme
\ir request.sql
\set tenant globex
\ir request.sql

-- Create, read, update, delete: no statement names the tenant.
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
INSERT INTO agents (name) VALUES ('acme: Reader') RETURNING id AS reader \gset
UPDATE agents SET config = '{"tools": ["search"]}' WHERE id = :'reader';
SELECT config ->> 'tools' = '["search"]' AS holds FROM agents WHERE id = :'reader' \gset
DELETE FROM agents WHERE id = :'reader';
SELECT :'holds'::boolean AND count(*) = 0 AS holds FROM agents \gset
COMMIT;
\set claim 'a row is written, read, changed and deleted' \ir ../../shared/claim.sql

-- Upsert: the key begins with the tenant column, which the statement names as an arbiter only.
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
INSERT INTO agents (name, config) VALUES ('acme: Writer', '{"version": 1}'), ('acme: Caller', '{"version": 1}');
INSERT INTO agents (name, config) VALUES ('acme: Writer', '{"version": 2}')
ON CONFLICT (tenant_id, name) DO UPDATE SET config = excluded.config;
SELECT string_agg(config ->> 'version', ' ' ORDER BY name) = '1 2' AS holds FROM agents \gset
COMMIT;
\set claim 'an upsert changes the row that is there' \ir ../../shared/claim.sql

-- Join
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
SELECT jsonb_agg(jsonb_build_array(w.name, u.name, e.runs)) = '[["globex: Triage", "globex: Ada", 3]]' AS holds
FROM workflows AS w
JOIN users AS u ON u.id = w.created_by
CROSS JOIN LATERAL (SELECT count(*) FROM workflow_executions WHERE workflow_id = w.id) AS e (runs) \gset
COMMIT;
\set claim 'a join by the ids alone stays in the tenant' \ir ../../shared/claim.sql

-- Errors: psql has them in SQLSTATE and LAST_ERROR_MESSAGE.
\set ON_ERROR_STOP off

\echo 'A statement without a tenant:'
SELECT name FROM workflows;
\set must_be 42501 \ir ../../shared/refused.sql

\echo 'An explicit NULL defeats the column''s default:'
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
INSERT INTO agents (tenant_id, name) VALUES (NULL, 'acme: Nobody''s');
\set must_be 42501 \ir ../../shared/refused.sql
ROLLBACK;

\echo 'The third active workflow of the free plan:'
BEGIN;
SELECT set_tenant_by_slug('hooli') \g /dev/null
INSERT INTO workflows (created_by, name, status) SELECT id, 'hooli: ' || n, 'active' FROM users, generate_series(1, 2) AS n;
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('hooli') \g /dev/null
INSERT INTO workflows (created_by, name, status) SELECT id, 'hooli: 3', 'active' FROM users;
\set said :LAST_ERROR_MESSAGE
\set must_be 54000 \ir ../../shared/refused.sql
ROLLBACK;
\set ON_ERROR_STOP on
SELECT :'said' = 'limit reached for concurrent_workflows (2)' AS holds \gset
\set claim 'the message names resource and limit' \ir ../../shared/claim.sql

\echo 'A suspended tenant:'
\connect :operator_url
SELECT suspend_tenant(find_tenant('globex'), 'invoice overdue') \g /dev/null
\connect :app_url
\set ON_ERROR_STOP off
BEGIN;
SELECT set_tenant_by_slug('globex');
\set must_be 42501 \ir ../../shared/refused.sql
ROLLBACK;
\set ON_ERROR_STOP on
\connect :operator_url
SELECT resume_tenant(find_tenant('globex')) \g /dev/null
\connect :app_url
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
SELECT count(*) = 1 AS holds FROM workflows \gset
COMMIT;
\set claim 'resumed, it works again' \ir ../../shared/claim.sql

-- Raw SQL without a filter; with one of somebody else's, too.
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
SELECT count(*) = 1 AS holds FROM (SELECT name FROM workflows WHERE true OR tenant_id IS NOT NULL) AS w \gset
COMMIT;
\set claim 'a query that forgets the filter finds the tenant''s own rows' \ir ../../shared/claim.sql

-- API keys: the role of the API server cannot choose a tenant.
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
SELECT api_key FROM create_api_key('psql') \gset
COMMIT;
\connect :client_url
BEGIN;
SELECT scopes FROM authenticate_api_key(:'api_key') \g /dev/null
SELECT count(*) = 1 AS holds FROM workflows \gset
COMMIT;
\set claim 'an API key binds its tenant' \ir ../../shared/claim.sql
\set ON_ERROR_STOP off
\echo 'A key that is none:'
BEGIN;
SELECT scopes FROM authenticate_api_key('ptk_noise');
\set must_be 28000 \ir ../../shared/refused.sql
ROLLBACK;
