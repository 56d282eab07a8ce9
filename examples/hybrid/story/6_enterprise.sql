\connect - :dba
-- What Acme has, and what everybody else has, to compare with at the end.
SELECT (SELECT count(*) FROM agents WHERE organization_id = :'acme') AS agents_before, (SELECT count(*) FROM messages WHERE organization_id = :'acme') AS messages_before,
       (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM tasks AS t WHERE organization_id <> :'acme') AS others_before \gset
\connect - :client
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
SELECT 'Key ' || create_key('the robots', '{agents:*,sessions:*,tasks:read}') AS robots_key \gset
COMMIT;
\set ECHO none

\echo
\echo '== 12. Acme goes enterprise: it moves into a database of its own'
\echo
\connect - :operator
\set ECHO queries
SELECT change_plan(:'acme', 'enterprise') \g /dev/null
\set ECHO none
\connect - :admin
SET client_min_messages = warning;
\set ECHO queries
CALL move_tenant(:'acme', 'database', 'hybrid');
SELECT slug, plan, isolation, status FROM tenancy.tenants ORDER BY slug;
\set ECHO none
SELECT substr(:'ada_session', 8) AS ada_token, substr(:'robots_key', 5) AS robots \gset
\connect - :client
\echo 'The API server that asks in the old place is told where to go:'
\echo
\set ON_ERROR_ROLLBACK on
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
\set ON_ERROR_STOP off
SELECT count(*) FROM agents;
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
\connect - :app
\set ECHO queries
SELECT isolation, database_name FROM tenant_location('acme');
\set ECHO none
SELECT database_name AS acmes FROM tenant_location('acme') \gset

\connect :acmes :dba
SET client_min_messages = warning;
\ir ../api.sql
\connect :acmes :client
\echo
\echo 'The application brings its functions. There, the same session and the same key open the same door:'
\echo
\echo 'BEGIN;'
\echo 'SELECT role FROM authenticate_jwt($1);  -- Ada'
BEGIN;
SELECT role FROM authenticate_jwt(:'ada_token');
\set ECHO queries
SELECT name, status FROM agents ORDER BY name;
INSERT INTO agents (name) SELECT 'Enterprising ' || n FROM generate_series(1, 20) AS n;
SELECT * FROM check_limit('agents');
\set ECHO none
SELECT (SELECT count(*) FROM agents) = 20 + :agents_before AND (SELECT count(*) FROM messages) = :messages_before AS holds \gset
COMMIT;
\set claim 'its agents are all there, and there is no limit' \ir ../../shared/claim.sql
\echo 'BEGIN;'
\echo 'SELECT role FROM authenticate_api_key($1);  -- Key ...'
BEGIN;
SELECT role FROM authenticate_api_key(:'robots');
\set ECHO queries
INSERT INTO sessions (agent_id) SELECT id FROM agents WHERE name = 'Scout';   -- its minutes were used up
UPDATE sessions SET status = 'closed' WHERE status = 'open' RETURNING status;
COMMIT;
\set ECHO none
\set holds true
\set claim 'a session may open again: enterprise has no limit of minutes' \ir ../../shared/claim.sql
\connect :acmes :app
\set ON_ERROR_STOP off
SELECT set_tenant_by_slug('default');
\set ON_ERROR_STOP on
\set must_be P0002 \ir ../../shared/refused.sql
\echo 'Nobody else can be served here.'

\connect :control :operator
\echo
\echo '== 13. Acme goes back to free: it moves back, and keeps what it has'
\echo
\set ECHO queries
SELECT change_plan(:'acme', 'free') \g /dev/null
\set ECHO none
\connect - :admin
SET client_min_messages = warning;
\set ECHO queries
CALL move_tenant(:'acme', 'row');
SELECT from_isolation, to_isolation, phase FROM tenancy.moves WHERE tenant_id = :'acme' ORDER BY started_at;
\set ECHO none
\connect - :dba
SELECT (SELECT count(*) FROM agents WHERE organization_id = :'acme') = 20 + :agents_before
   AND (SELECT count(*) FROM messages WHERE organization_id = :'acme') = :messages_before
   AND (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM tasks AS t WHERE organization_id <> :'acme') = :'others_before'
   AND NOT EXISTS (SELECT FROM pg_database WHERE datname = :'acmes') AS holds \gset
\set claim 'every row came along, twice; others have what they had, and the database is gone' \ir ../../shared/claim.sql
\connect - :client
\set ON_ERROR_ROLLBACK on
\set header :robots_key \set whose 'Key ..., of Acme' \ir ../request.sql
SELECT * FROM check_limit('agents');
\set ON_ERROR_STOP off
INSERT INTO agents (name) VALUES ('One more');
\set said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
INSERT INTO sessions (agent_id) SELECT id FROM agents WHERE name = 'Scout';
\set also_said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
\set ECHO none
COMMIT;
\set ON_ERROR_ROLLBACK off
SELECT :'said' = 'limit reached for agents (5)' AND :'also_said' = 'limit reached for agent_minutes (1000)' AS holds \gset
\set claim 'what it has more than its plan allows stays, and it gets no more' \ir ../../shared/claim.sql
\connect - :operator
SELECT quantity >= 1000 AS holds FROM tenant_usage(:'acme') WHERE metric = 'agent_minutes' \gset
\set claim 'its usage came along, too' \ir ../../shared/claim.sql
