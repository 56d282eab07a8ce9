\connect - :dba

\echo
\echo '== 15. Agent-minutes: rounded up, in the transaction that ends the task'
\echo
\echo 'The DBA makes it four minutes and a half since "Sleep" began:'
\echo
\set ECHO queries
UPDATE tasks SET started_at = started_at - interval '270 seconds' WHERE title = 'Sleep';
\set ECHO none
\connect - :client
\set credential :bobcat_token \set whose 'Bob, in Bobcat' \ir ../request.sql
SELECT quantity AS minutes_before FROM usage() WHERE metric = 'agent_minutes' \gset
UPDATE tasks SET status = 'failed' WHERE title = 'Sleep' RETURNING ended_at - started_at > interval '270 seconds' AS ran;
SELECT * FROM usage();
\set ECHO none
SELECT quantity = :minutes_before + 5 AND remaining = 1000 - quantity AS holds FROM usage() WHERE metric = 'agent_minutes' \gset
COMMIT;
\set claim 'five minutes are charged, of a thousand' \ir ../../shared/claim.sql

\echo
\echo 'Work of known length takes its minutes before, all or none:'
\echo
\set ON_ERROR_ROLLBACK on
\set credential :bobcat_token \set whose 'Bob, in Bobcat' \ir ../request.sql
\set ON_ERROR_STOP off
SELECT take_minutes(1000);
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
SELECT take_minutes(remaining::int) AS remains FROM usage() WHERE metric = 'agent_minutes';
\set ON_ERROR_STOP off
INSERT INTO tasks (agent_id, title, status) SELECT id, 'Climb', 'running' FROM agents;   -- no minute is left
\set said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
\set ECHO none
SELECT quantity = 1000 AND remaining = 0 AND :'said' = 'limit reached for agent_minutes (1000)' AS holds FROM usage() WHERE metric = 'agent_minutes' \gset
\set claim 'the month''s thousand are used, and not one more' \ir ../../shared/claim.sql
\set ECHO queries
\set ON_ERROR_STOP off
SELECT record_usage('agent_minutes', 0);   -- usage is the log-in service's to write
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
\set credential :mallory_token \set whose 'Mallory, in Globex' \ir ../request.sql
\set ECHO none
SELECT count(*) FILTER (WHERE metric = 'agent_minutes' AND quantity > 0) = 0 AS holds FROM usage() \gset
COMMIT;
\set claim 'nothing of it is in Globex' \ir ../../shared/claim.sql

\connect - :operator
\echo
\echo 'Bob upgrades:'
\echo
\set ECHO queries
SELECT change_plan(:'bobcat', 'starter');
\set ECHO none
\connect - :app
SELECT accept_invitation(:'vera_to_bobcat', :'vera') = :'bobcat' AS holds \gset
\set claim 'Vera''s invitation is still good, and there is room for her' \ir ../../shared/claim.sql
\connect - :client
\set credential :bobcat_token \set whose 'Bob, in Bobcat' \ir ../request.sql
INSERT INTO tasks (agent_id, title, status) SELECT id, 'Climb ' || n, 'running' FROM agents, generate_series(1, 5) AS n;
\set ECHO none
SELECT bool_and(allowed) = false AND max(used) = 5 AS holds FROM check_limit('concurrent_tasks') \gset
COMMIT;
\set claim 'five tasks run, for which there are minutes again' \ir ../../shared/claim.sql
