\connect - :app
SELECT create_user('ada@example.com', 'Ada') AS ada, create_user('bob@example.com', 'Bob') AS bob, create_user('mia@example.com', 'Mia') AS mia \gset

\connect - :operator

\echo
\echo '== 7. Two organizations: the one that had the application for itself, and a new one on trial'
\echo
\set ECHO queries
SELECT create_tenant('Acme', slug => 'acme', owner => :'ada') AS acme \gset
SELECT set_subscription(:'first', 'active', stripe_customer_id => 'cus_F1rst', stripe_subscription_id => 'sub_1'),
       set_subscription(:'acme', 'trialing', date_trunc('day', now()) - interval '10 days', date_trunc('day', now()) + interval '20 days',
                        'cus_Acm3', 'sub_2', follows_period => true) \g /dev/null
SELECT t.slug, t.plan, t.isolation, s.status AS subscription, s.months_from IS NOT NULL AS months_follow_it
FROM tenancy.tenants AS t JOIN tenancy.subscriptions AS s ON s.tenant_id = t.id ORDER BY t.slug;
\set ECHO none

\connect - :app
BEGIN;
SELECT set_tenant_by_slug('default') \g /dev/null
SELECT add_member(:'mia', 'owner') \g /dev/null
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('acme', :'ada') \g /dev/null
SELECT 'Bearer ' || issue_jwt(:'ada', scopes => '{*}') AS ada_session \gset
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('default', :'mia') \g /dev/null
SELECT 'Bearer ' || issue_jwt(:'mia', scopes => '{*}') AS mia_session \gset
COMMIT;

\connect - :client
\set header :mia_session \set whose 'Mia, in the first one' \ir ../request.sql
INSERT INTO agents (name) VALUES ('Scout'), ('Clerk');
SELECT count(*) AS agents_that_were_there FROM agents WHERE name NOT IN ('Scout', 'Clerk');
INSERT INTO schedules (agent_id, every) SELECT id, '1 hour' FROM agents WHERE name = 'Scout' RETURNING every;
SELECT id AS firsts_scout FROM agents WHERE name = 'Scout' \gset
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK on
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
INSERT INTO agents (name) VALUES ('Scout');   -- a name is an organization's own
\set ON_ERROR_STOP off
INSERT INTO agents (name) VALUES ('Scout');
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
INSERT INTO tasks (agent_id, title) VALUES (:'firsts_scout', 'Work for us');
\set ON_ERROR_STOP on
\set must_be 23503 \ir ../../shared/refused.sql
INSERT INTO tasks (agent_id, title) SELECT id, 'Look around' FROM agents;
INSERT INTO messages (task_id, author, body) SELECT id, 'person', 'What is there?' FROM tasks;
INSERT INTO activity_log (agent_id, action) SELECT agent_id, 'task created' FROM tasks;
SELECT a.name, t.title, m.body, l.action
FROM agents AS a JOIN tasks AS t ON t.agent_id = a.id JOIN messages AS m ON m.task_id = t.id JOIN activity_log AS l ON l.agent_id = a.id;
\set ECHO none
SELECT (SELECT count(*) FROM agents) = 1 AND (SELECT count(*) FROM schedules) = 0
   AND (SELECT count(*) FROM agents WHERE id = :'firsts_scout') = 0 AS holds \gset
COMMIT;
\set ON_ERROR_ROLLBACK off
\set claim 'both have a Scout, and Acme sees its own; joins and sub-selects too' \ir ../../shared/claim.sql
