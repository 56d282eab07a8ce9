\connect - :operator
\echo
\echo '== 9. A copy of the demo tenant with all its data, to try things out'
\echo
\set ECHO queries
SELECT create_tenant('Demo, copied', slug => 'demo-copy', plan => 'professional', isolation => 'row', metadata => '{"stage": "staging"}') AS copy \gset
\set ECHO none
\connect - :admin
\set ECHO queries
SELECT clone_tenant_schema(:'demo', :'copy');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('demo-works') \g /dev/null
SELECT md5(string_agg(s::text, ',' ORDER BY s.id)) AS demo_sales, max(id) AS demo_last FROM sales AS s \gset
SELECT md5(string_agg(p::text, ',' ORDER BY p.id)) AS demo_products FROM products AS p \gset
SELECT count(*) AS demo_months FROM monthly_sales \gset
COMMIT;
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('demo-copy') AS copy;
SELECT (SELECT count(*) FROM products) AS products, (SELECT count(*) FROM sales) AS sales, (SELECT count(*) FROM monthly_sales) AS months;
INSERT INTO sales (product_id, sold_on, quantity, unit_price) SELECT min(id), '2026-04-01', 1, 1 FROM products RETURNING id, tableoid::regclass;
\set ECHO none
SELECT md5(string_agg(s::text, ',' ORDER BY s.id)) = :'demo_sales' AND (SELECT md5(string_agg(p::text, ',' ORDER BY p.id)) FROM products AS p) = :'demo_products'
   AND (SELECT count(*) FROM monthly_sales) = :demo_months AS holds FROM sales AS s WHERE id <= :demo_last \gset
\set claim 'row by row the same, the materialized view filled' \ir ../../shared/claim.sql
SELECT max(id) = :demo_last + 1 AS holds FROM sales \gset
\set claim 'and its numbers go on where the original''s were' \ir ../../shared/claim.sql
DELETE FROM sales;
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('demo-works') \g /dev/null
SELECT count(*) = 30000 AS holds FROM sales \gset
COMMIT;
\set claim 'emptied, the copy leaves the original as it was' \ir ../../shared/claim.sql
\connect - :admin
\set ON_ERROR_STOP off
\set ECHO queries
SELECT clone_tenant_schema(:'borealis', :'copy');   -- it has a schema
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
\echo 'Done with it, the schema goes at once, and nothing of it is left in the registry but the tenant:'
\echo
\set ECHO queries
SELECT delete_tenant_schema(:'copy');
SELECT delete_tenant_schema(:'copy') AS again;
\set ECHO none
SELECT count(*) = 1 AND bool_and(schema_name IS NULL) AND (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant\_%') = 3 AS holds
FROM tenancy.tenants WHERE id = :'copy' \gset
\set claim 'the copy is gone' \ir ../../shared/claim.sql
