-- As an operator: what the plans allow.

\connect - :operator

\echo
\echo '== 4. Plans'
\echo
\set ECHO queries
SELECT load_plans('workspaces') AS plans;
SELECT create_metric('agent_minutes', 'minutes'), create_metric('api_calls', 'calls') \g /dev/null
SELECT resource, period, max(max_value) FILTER (WHERE plan = 'free') AS free, max(max_value) FILTER (WHERE plan = 'starter') AS starter,
       max(max_value) FILTER (WHERE plan = 'pro') AS pro, max(max_value) FILTER (WHERE plan = 'enterprise') AS enterprise
FROM (SELECT plan, resource, 'in a ' || period, max_value FROM tenancy.plan_limits WHERE period <> 'total' UNION ALL
      SELECT plan, resource, 'at once', max_value FROM tenancy.plan_limits WHERE period = 'total' UNION ALL
      SELECT plan, resource, 'rate per ' || period, max_value FROM tenancy.plan_rate_limits) AS limits (plan, resource, period, max_value)
GROUP BY resource, period ORDER BY resource;
\set ECHO none
\echo 'No value is unlimited.'
