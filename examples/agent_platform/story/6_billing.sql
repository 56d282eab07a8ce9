\connect - :app

\echo
\echo '== 12. Billing: last month is closed, and what comes later is billed with the next one'
\echo
SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month', 'YYYY-MM') AS last_month,
       (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '10 days') AT TIME ZONE 'UTC' AS that_day \gset
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;
SELECT record_usage_batch(jsonb_agg(jsonb_build_object('metric', 'agent_minutes', 'quantity', 5, 'occurred_at', :'that_day', 'idempotency_key', 'run ' || n)))
FROM generate_series(1, 40) AS n;
COMMIT;
\set ECHO none
\connect - :operator
\set ECHO queries
SELECT set_subscription(:'globex', 'active', stripe_customer_id => 'cus_Gl0b3x', stripe_subscription_id => 'sub_9') \g /dev/null
SELECT metric, unit, kind, quantity, events, period_start::date FROM close_billing_period(:'globex', :'last_month');
\set ECHO none
SELECT array_agg(metric || ' ' || kind || ' ' || trim_scale(quantity)) = '{agent_minutes usage 200}' AS holds FROM close_billing_period(:'globex', :'last_month') \gset
\set claim 'closed again, it is the same lines' \ir ../../shared/claim.sql
\connect - :app
\echo
\echo 'A worker that was offline reports a run of that month:'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;
SELECT record_usage('agent_minutes', 7, 'run 41', occurred_at => :'that_day');
COMMIT;
\set ECHO none
\connect - :operator
\set ECHO queries
SELECT metric, quantity FROM pending_adjustments(:'globex');
SELECT external_id, stripe_customer_id, metric, quantity, period_start::date FROM export_billing_period(:'globex', :'last_month');
\set ECHO none
SELECT (SELECT quantity = 7 FROM pending_adjustments(:'globex')) AND array_agg(trim_scale(quantity)) = '{200}' AND count(DISTINCT idempotency_key) = 1 AS holds
FROM export_billing_period(:'globex', :'last_month') \gset
\set claim 'the closed figure stays, the difference waits for the next bill' \ir ../../shared/claim.sql
