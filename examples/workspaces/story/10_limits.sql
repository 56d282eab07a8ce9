\connect - :operator

\echo
\echo '== 14. A workspace of Bob''s own, on the free plan: one member, one task at a time'
\echo
\set ECHO queries
SELECT create_tenant('Bobcat', slug => 'bobcat', owner => :'bob') AS bobcat \gset
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('bobcat', :'bob') \g /dev/null
SELECT issue_jwt(:'bob', scopes => '{*}') AS token \gset bobcat_
COMMIT;

\connect - :client
\set ON_ERROR_ROLLBACK on
\set credential :bobcat_token \set whose 'Bob, in Bobcat' \ir ../request.sql
INSERT INTO agents (name) VALUES ('Lynx');
INSERT INTO tasks (agent_id, title) SELECT id, title FROM agents, (VALUES ('Hunt'), ('Sleep')) AS t (title);
UPDATE tasks SET status = 'running' WHERE title = 'Hunt';
\set ON_ERROR_STOP off
UPDATE tasks SET status = 'running' WHERE title = 'Sleep';
\set said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
INSERT INTO tasks (agent_id, title, status) SELECT id, 'Climb', 'running' FROM agents;
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
UPDATE tasks SET status = 'completed' WHERE title = 'Hunt';
UPDATE tasks SET status = 'running' WHERE title = 'Sleep';
SELECT resource, max_value, used, remaining FROM (VALUES ('concurrent_tasks'), ('members')) AS r (resource), check_limit(resource);
SELECT invite('vera@example.com') AS vera_to_bobcat \gset
\set ECHO none
SELECT bool_and(max_value = 1 AND used = 1) AND :'said' = 'limit reached for concurrent_tasks (1)' AS holds
FROM (VALUES ('concurrent_tasks'), ('members')) AS r (resource), check_limit(resource) \gset
COMMIT;
\set ON_ERROR_ROLLBACK off
\set claim 'one task runs, one member is there' \ir ../../shared/claim.sql

\connect - :app
\echo
\echo 'Vera accepts, but the workspace is full:'
\echo
\echo 'SELECT accept_invitation($1, $2);'
\set ON_ERROR_STOP off
SELECT accept_invitation(:'vera_to_bobcat', :'vera');
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
