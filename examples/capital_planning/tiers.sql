-- As an operator: the tiers.

\connect - :operator

\echo
\echo '== 3. Tiers, each with a schema per tenant'
\echo
\set ECHO queries
SELECT create_plan('starter',      isolation => 'schema', settings => '{"users": 5,    "skus": 100,  "storage_gb": 1}') AS plan UNION ALL
SELECT create_plan('professional', isolation => 'schema', settings => '{"users": 20,   "skus": 500,  "storage_gb": 10}') UNION ALL
SELECT create_plan('enterprise',   isolation => 'schema', settings => '{"users": null, "skus": null, "storage_gb": 100}');
\set ECHO none
