\connect - :operator

\echo
\echo '== 15. The subscription: the trial ends, the first paid period begins'
\echo
\set ECHO queries
SELECT set_subscription(:'acme', 'active', date_bin('15 minutes', now(), '2000-01-01Z'), date_bin('15 minutes', now(), '2000-01-01Z') + interval '1 month') \g /dev/null
\set ECHO none
\connect - :client
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
SELECT status, period_start > now() - interval '1 hour' AS has_just_begun FROM subscription();
INSERT INTO sessions (agent_id) SELECT id FROM agents WHERE name = 'Scout';
SELECT * FROM check_limit('agent_minutes');
\set ECHO none
SELECT remaining >= 988 AS holds FROM check_limit('agent_minutes') \gset
UPDATE sessions SET status = 'closed' WHERE status = 'open';
COMMIT;
\set claim 'a new period, new minutes' \ir ../../shared/claim.sql
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
\echo
\echo 'The history is there:'
\echo
\set ECHO queries
SELECT bucket_start::date AS day, quantity, events FROM usage_series('agent_minutes', 'day', now() - interval '20 days', now() + interval '15 minutes') ORDER BY 1;
\set ECHO none
SELECT sum(quantity) >= 1700 AS holds FROM usage_series('agent_minutes', 'day', now() - interval '20 days', now() + interval '15 minutes') \gset
COMMIT;
\set claim 'no counter was set back, nothing is lost' \ir ../../shared/claim.sql
\connect - :operator
\echo
\echo 'The period on trial has ended with it:'
\echo
\set ECHO queries
SELECT metric, kind, quantity, max_value, period_start::date, period_end::date FROM close_billing_period(:'acme');
\set ECHO none
SELECT sum(quantity) + (SELECT quantity FROM tenant_usage(:'acme') WHERE metric = 'agent_minutes') = 1720
   AND (SELECT count(*) = 0 FROM pending_adjustments(:'acme')) AS holds
FROM tenancy.billing_lines WHERE tenant_id = :'acme' \gset
\set claim 'every minute is on one bill, or in the running period; so are the 20 that came late' \ir ../../shared/claim.sql
\connect - :operator
\echo
\echo 'A payment fails:'
\echo
\set ECHO queries
SELECT set_subscription(:'acme', 'past_due', grace => '7 days') \g /dev/null
SELECT apply_subscription_grace() AS made_read_only;
\set ECHO none
\connect - :client
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
UPDATE agents SET status = 'running' WHERE name = 'Scout' RETURNING name, status;
SELECT status FROM subscription();
COMMIT;
\set ECHO none
\set holds true
\set claim 'for seven days, nothing changes' \ir ../../shared/claim.sql
\echo
\echo 'The DBA makes it eight days:'
\echo
\connect - :dba
UPDATE tenancy.subscriptions SET grace_until = now() - interval '1 day' WHERE tenant_id = :'acme';
\connect - :operator
\set ECHO queries
SELECT apply_subscription_grace() >= 0 AS applied;   -- as the workers do every minute
SELECT slug, status, status_reason FROM tenancy.tenants ORDER BY slug;
\set ECHO none
SELECT status = 'read_only' AS holds FROM tenancy.tenants WHERE slug = 'acme' \gset
\set claim 'Acme is read-only' \ir ../../shared/claim.sql
\connect - :client
\set ON_ERROR_ROLLBACK on
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
SELECT count(*) AS agents FROM agents;
SELECT quantity > 0 AS usage_is_there FROM usage() WHERE metric = 'agent_minutes';
\set ON_ERROR_STOP off
INSERT INTO sessions (agent_id) SELECT id FROM agents WHERE name = 'Scout';
\set ON_ERROR_STOP on
\set must_be 25006 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
\connect - :operator
\echo 'The card is renewed. The billing system may say so twice, and in any order:'
\echo
\set ECHO queries
SELECT set_subscription(:'acme', 'active') \g /dev/null
SELECT set_subscription(:'acme', 'active') \g /dev/null
\set ECHO none
\connect - :client
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
UPDATE agents SET status = 'idle' WHERE name = 'Scout' RETURNING name, status;
COMMIT;
\set ECHO none
\set holds true
\set claim 'Acme writes again, without anybody resuming it' \ir ../../shared/claim.sql
\connect - :operator
\echo
\echo 'Canceled, it is served until the period ends that was paid for:'
\echo
\set ECHO queries
SELECT set_subscription(:'acme', 'canceled', grace => '0') \g /dev/null
SELECT apply_subscription_grace() AS made_read_only;
SELECT t.status, s.status AS subscription FROM tenancy.tenants AS t JOIN tenancy.subscriptions AS s ON s.tenant_id = t.id WHERE slug = 'acme';
\set ECHO none
SELECT t.status = 'active' AND s.grace_until = s.current_period_end AS holds
FROM tenancy.tenants AS t JOIN tenancy.subscriptions AS s ON s.tenant_id = t.id WHERE slug = 'acme' \gset
\set claim 'Acme is active until then' \ir ../../shared/claim.sql
