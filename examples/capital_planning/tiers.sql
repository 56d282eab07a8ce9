-- As an operator: the tiers.

\connect - :operator

\echo
\echo '== 3. Tiers, each with a schema per tenant'
\echo
\set ECHO queries
SELECT load_plans('capital_planning') AS plans;
SELECT p.plan, p.isolation, max(l.max_value) FILTER (WHERE resource = 'users') AS users, max(l.max_value) FILTER (WHERE resource = 'skus') AS skus,
       max(l.max_value) FILTER (WHERE resource = 'storage_gb') AS storage_gb
FROM tenancy.plans AS p JOIN tenancy.plan_limits AS l ON l.plan = p.plan GROUP BY p.plan, p.isolation ORDER BY users, p.plan;
\set ECHO none
\echo 'No value is unlimited.'
