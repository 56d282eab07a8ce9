\connect - :operator

\echo
\echo '== 14. Billing: the period before is closed and exported'
\echo
SELECT to_char((date_trunc('day', now()) - interval '10 days') AT TIME ZONE 'UTC' - interval '1 month', 'YYYY-MM') AS month \gset
\set ECHO queries
SELECT metric, unit, kind, quantity, period_start::date, period_end::date FROM close_billing_period(:'acme', :'month');
\set ECHO none
SELECT array_agg(kind || ' ' || trim_scale(quantity)) = '{usage 700}' AND min(period_end) = date_trunc('day', now()) - interval '10 days' AS holds
FROM close_billing_period(:'acme', :'month') \gset
\set claim 'what was used then, up to the day on which the running period began' \ir ../../shared/claim.sql
\connect - :app
\echo
\echo 'A session of that period is reported late:'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('acme') AS acme;
SELECT record_usage('agent_minutes', 20, 'late session', occurred_at => now() - interval '15 days');
COMMIT;
\set ECHO none
\connect - :operator
\set ECHO queries
SELECT metric, quantity, period_end::date FROM pending_adjustments(:'acme');
SELECT stripe_customer_id, stripe_subscription_id, metric, quantity, length(idempotency_key) > 0 AS has_key FROM export_billing_period(:'acme', :'month');
\set ECHO none
SELECT array_agg(trim_scale(quantity)) = '{700}' AND (SELECT array_agg(trim_scale(quantity)) = '{20}' FROM pending_adjustments(:'acme')) AS holds
FROM export_billing_period(:'acme', :'month') \gset
\set claim 'the closed figures stay, and the 20 minutes wait for the next bill' \ir ../../shared/claim.sql
