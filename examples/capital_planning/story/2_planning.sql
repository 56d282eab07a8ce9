\connect - :dba
\ir ../../shared/explained.sql
\connect - :app

\echo
\echo '== 5. Planning, as the demo tenant: no statement names a tenant or a schema'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('demo-works') AS demo;
SELECT company, month, dso, dio, dpo, ccc, change FROM cash_conversion ORDER BY month DESC, company LIMIT 3;
SELECT p.sku, i.on_hand, i.reserved, i.available, reorder_quantity(p.id) AS reorder
FROM products AS p JOIN inventory AS i ON i.product_id = p.id ORDER BY i.available LIMIT 3;
\set ECHO none
SELECT bool_and(ccc = dso + dio - dpo) AND (SELECT bool_and(available = on_hand - reserved) FROM inventory) AS holds FROM working_capital_metrics \gset
\set claim 'available stock and the cash conversion cycle are generated' \ir ../../shared/claim.sql
SELECT count(*) = 30000 AND count(DISTINCT tableoid) = 3 AND bool_and(tableoid::regclass::text LIKE 'sales\_%') AS holds FROM sales \gset
\set claim 'sales lie in the copy''s own partitions, by year' \ir ../../shared/claim.sql
\echo
\set ON_ERROR_ROLLBACK on
\set ECHO queries
\set ON_ERROR_STOP off
UPDATE inventory SET reserved = on_hand + 1;
\set ON_ERROR_STOP on
\set must_be 23514 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
INSERT INTO scenarios (name, is_baseline) VALUES ('Another baseline', true);
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
INSERT INTO scenarios (name, based_on, assumptions) SELECT 'Steel +10 %', id, '{"steel": 1.1}' FROM scenarios WHERE is_baseline RETURNING name, assumptions;
SELECT refresh_monthly_sales() AS months;
\set ECHO none
\set ON_ERROR_ROLLBACK off
COMMIT;

\echo
\echo 'The queries of its dashboard, timed by EXPLAIN ANALYZE, the best of three:'
\echo
SELECT $$SELECT p.sku, sum(s.quantity), sum(s.revenue) FROM products AS p JOIN sales AS s ON s.product_id = p.id
WHERE s.sold_on >= date '2025-10-01' GROUP BY p.sku ORDER BY 3 DESC LIMIT 10$$ AS sellers,
       $$SELECT p.sku, reorder_quantity(p.id) FROM products AS p WHERE p.is_active$$ AS reorders,
       $$SELECT f.month, sum(f.quantity * p.unit_cost) FROM forecasts AS f JOIN products AS p ON p.id = f.product_id GROUP BY 1 ORDER BY 1$$ AS needs,
       $$SELECT * FROM cash_conversion WHERE company = 'Works' ORDER BY month$$ AS cycle \gset
BEGIN;
SELECT set_tenant_by_slug('demo-works') \g /dev/null
SELECT query, min(ms) AS best_ms
FROM (VALUES ('best sellers', :'sellers'), ('what to reorder', :'reorders'), ('capital needed', :'needs'), ('cash conversion', :'cycle')) AS dashboard (query, statement),
     generate_series(1, 3) AS run,
     LATERAL (SELECT substring(line FROM 'Execution Time: ([0-9.]+) ms')::numeric AS ms
              FROM explained(format('%s -- run %s', statement, run), 'ANALYZE, TIMING off, SUMMARY on') AS line WHERE line LIKE 'Execution Time%') AS timed
GROUP BY query ORDER BY query;
SELECT max(best) < 100 AS holds
FROM (SELECT min(substring(line FROM 'Execution Time: ([0-9.]+) ms')::numeric) AS best
      FROM (VALUES (:'sellers'), (:'reorders'), (:'needs'), (:'cycle')) AS dashboard (statement), generate_series(1, 3) AS run,
           LATERAL explained(format('%s -- run %s', statement, run), 'ANALYZE, TIMING off, SUMMARY on') AS line
      WHERE line LIKE 'Execution Time%' GROUP BY statement) AS timed \gset
COMMIT;
\set claim 'each takes less than 100 ms' \ir ../../shared/claim.sql
