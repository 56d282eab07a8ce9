\connect - :app

\echo
\echo '== 8. What a tier allows: Cascade is a starter, with 100 SKUs and 5 users'
\echo
\set ON_ERROR_ROLLBACK on
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('cascade') AS cascade;
INSERT INTO companies (name) VALUES ('Cascade');
INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'VALVE-' || n, 'Valve ' || n, 10, 16 FROM companies, generate_series(1, 98) AS n;
\set ON_ERROR_STOP off
INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'SEAL-' || n, 'Seal ' || n, 1, 2 FROM companies, generate_series(1, 3) AS n;
\set said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'SEAL-' || n, 'Seal ' || n, 1, 2 FROM companies, generate_series(1, 2) AS n;
SELECT count(*) AS users FROM generate_series(1, 5) AS n, LATERAL add_member(create_user('planner' || n || '@cascade.example', 'Planner ' || n), 'member');
\set ON_ERROR_STOP off
SELECT add_member(create_user('planner6@cascade.example', 'Planner 6'), 'member');
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
\connect - :operator
SELECT round(sum(table_bytes + index_bytes) / 1073741824.0, 3) AS gb FROM tenant_statistics() WHERE slug = 'cascade' \gset
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('cascade') \g /dev/null
\set ECHO queries
SELECT resource, allowed, max_value, used FROM (VALUES ('skus', 1), ('users', 1), ('storage_gb', :gb)) AS r (resource, amount), check_limit(resource, amount);
\set ECHO none
SELECT array_agg(resource || ' ' || used || '/' || max_value || ' ' || allowed ORDER BY resource) = '{"skus 100/100 false","storage_gb 0/1 true","users 5/5 false"}'
   AND :'said' = 'limit reached for skus (100)' AND (SELECT count(*) FROM products) = 100 AS holds
FROM (VALUES ('skus', 1), ('users', 1), ('storage_gb', :gb)) AS r (resource, amount), check_limit(resource, amount) \gset
COMMIT;
\set claim '100 SKUs and 5 users are there, and the schema is smaller than a gigabyte' \ir ../../shared/claim.sql
\connect - :operator
\echo
\set ECHO queries
SELECT change_plan(:'cascade', 'professional');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('cascade') \g /dev/null
INSERT INTO products (company_id, sku, name, unit_cost, unit_price) SELECT id, 'SEAL-3', 'Seal 3', 1, 2 FROM companies;
SELECT used = 101 AND max_value = 500 AS holds FROM check_limit('skus') \gset
COMMIT;
\set claim 'upgraded to professional, it has room for 500' \ir ../../shared/claim.sql
\connect - :admin
SELECT count(*) = 0 AS holds FROM verify_limits() \gset
\set claim 'in every schema, the counter is the number of rows' \ir ../../shared/claim.sql
