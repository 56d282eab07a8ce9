\connect - :app

\echo
\echo '== 6. Logging in: password, workspaces, token'
\echo
\set ECHO queries
SELECT log_in('ada@example.com', 'correct horse') AS wrong_password, log_in('nobody@example.com', 'correct horse') AS no_such_user;
\set ECHO none
SELECT log_in('ada@example.com', 'correct horse') IS NULL AND log_in('nobody@example.com', 'correct horse') IS NULL
       AND log_in('ada@example.com', 'correct horse battery') = :'ada' AS holds \gset
\set claim 'only the right password names the user' \ir ../../shared/claim.sql

\echo
\echo 'The token holds user, workspace, role and end. Its scopes are all that the role allows; the plan is read where it is needed.'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('acme', :'ada') AS acme;
SELECT issue_jwt(:'ada', '15 minutes', scopes => '{*}') AS token \gset ada_
COMMIT;
\set ECHO none
SELECT convert_from(decode(rpad(translate(split_part(:'ada_token', '.', 2), '-_', '+/'), (length(split_part(:'ada_token', '.', 2)) + 3) / 4 * 4, '='),
                           'base64'), 'UTF8')::jsonb AS says \gset
\echo 'It says' :says
\echo

\connect - :client
\echo 'The API server binds each transaction by the token, and names no workspace anywhere:'
\set credential :ada_token \set whose 'Ada, in Acme' \ir ../request.sql
INSERT INTO agents (name, instructions) VALUES ('Scout', 'Read the news.'), ('Clerk', 'File what Scout finds.');
INSERT INTO tasks (agent_id, title, status) SELECT id, 'Morning round', 'running' FROM agents WHERE name = 'Scout';
INSERT INTO messages (task_id, author, body) SELECT id, 'person', 'What is new?' FROM tasks;
SELECT a.name AS agent, t.title, t.status, m.body FROM agents a JOIN tasks t ON t.agent_id = a.id JOIN messages m ON m.task_id = t.id;
SELECT slug, plan FROM tenancy.tenants;
COMMIT;
\set ECHO none

\echo 'Without a token, or with a workspace of its own choice, it gets nowhere:'
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT * FROM agents;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT set_tenant_by_slug('acme');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT * FROM passwords;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
