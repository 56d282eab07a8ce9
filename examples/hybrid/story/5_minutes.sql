\connect - :client

\echo
\echo '== 11. A thousand agent-minutes per billing period'
\echo
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
INSERT INTO sessions (agent_id) SELECT id FROM agents WHERE name = 'Scout';
SELECT plan, status, period_start::date, period_end::date FROM subscription();
\set ECHO none
SELECT period_start = date_trunc('day', now()) - interval '10 days' AS holds FROM subscription() \gset
COMMIT;
\set claim 'the period is the subscription''s, not the calendar''s' \ir ../../shared/claim.sql
\echo
\echo 'The DBA makes it eleven and a half minutes since that began. Meanwhile, work of other days is reported:'
\echo
\connect - :dba
UPDATE sessions SET started_at = started_at - interval '690 seconds';
\connect - :app
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('acme') AS acme;
SELECT record_usage('agent_minutes', 700, 'old session', occurred_at => now() - interval '15 days') AS before_the_period;
SELECT record_usage('agent_minutes', 500, 'a session', occurred_at => now() - interval '2 days') AS in_it;
COMMIT;
\set ECHO none
\connect - :client
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
UPDATE sessions SET status = 'closed' WHERE status = 'open' RETURNING status;
SELECT * FROM usage();
\set ECHO none
SELECT quantity = 512 AND remaining = 488 AS holds FROM usage() WHERE metric = 'agent_minutes' \gset
COMMIT;
\set claim 'what was before the period does not count, and minutes are rounded up' \ir ../../shared/claim.sql
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
SELECT record_usage('agent_minutes', 488, 'another session', occurred_at => now() - interval '1 day') \g /dev/null
COMMIT;
\connect - :client
\set ON_ERROR_ROLLBACK on
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
\set ON_ERROR_STOP off
INSERT INTO sessions (agent_id) SELECT id FROM agents WHERE name = 'Scout';
\set said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
\set ECHO none
COMMIT;
\set ON_ERROR_ROLLBACK off
SELECT :'said' = 'limit reached for agent_minutes (1000)' AS holds \gset
\set claim 'the error names the limit, its hint says what to do' \ir ../../shared/claim.sql
