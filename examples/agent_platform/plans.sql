-- As an operator: what the plans allow. A change of that holds from the next statement on.

\connect - :operator

\echo
\echo '== 3. Plans: what a tenant may have and use'
\echo
\set ECHO queries
SELECT load_plans('agent_platform') AS plans;
SELECT create_metric('workflow_started'), create_metric('task_completed'), create_metric('agent_minutes', 'minutes'), create_metric('api_calls', 'calls') \g /dev/null
SELECT resource, period, max(max_value) FILTER (WHERE plan = 'free') AS free, max(max_value) FILTER (WHERE plan = 'starter') AS starter,
       max(max_value) FILTER (WHERE plan = 'pro') AS pro, max(max_value) FILTER (WHERE plan = 'enterprise') AS enterprise
FROM tenancy.plan_limits GROUP BY resource, period ORDER BY resource;
\set ECHO none
\echo 'No value is unlimited. agents and concurrent_workflows are counted in tables, tasks are used up month by month.'
