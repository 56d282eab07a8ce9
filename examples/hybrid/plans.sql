-- As an operator: what the plans allow, and where: free, starter and pro in shared tables, enterprise in a database of its own.

\connect - :operator

\echo
\echo '== 3. Plans'
\echo
\set ECHO queries
SELECT load_plans('hybrid') AS plans;
SELECT create_metric('agent_minutes', 'minutes') \g /dev/null
SELECT resource, period, max(max_value) FILTER (WHERE plan = 'free') AS free, max(max_value) FILTER (WHERE plan = 'starter') AS starter,
       max(max_value) FILTER (WHERE plan = 'pro') AS pro, max(max_value) FILTER (WHERE plan = 'enterprise') AS enterprise
FROM tenancy.plan_limits GROUP BY resource, period ORDER BY resource;
\set ECHO none
\echo 'No value is unlimited. A month is the subscription''s, where that says so.'
