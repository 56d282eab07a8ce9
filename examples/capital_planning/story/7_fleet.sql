\connect - :admin
\echo
\echo '== 10. Migrations: staging tenants first, retried, taken back'
\echo
\set ECHO queries
SELECT add_migration('default', '2026.04-suppliers', $$
    CREATE TABLE suppliers (id bigserial PRIMARY KEY, name text NOT NULL UNIQUE, payment_days smallint NOT NULL DEFAULT 30);
    ALTER TABLE products ADD COLUMN supplier_id bigint REFERENCES suppliers;
$$, 'suppliers', down_sql => 'ALTER TABLE products DROP COLUMN supplier_id; DROP TABLE suppliers',
    verify_sql => $$SELECT to_regclass('suppliers') IS NOT NULL$$);
SELECT add_migration('default', '2026.05-skus', $$ALTER TABLE products ADD CONSTRAINT products_name_check CHECK (length(name) <= 12)$$,
    down_sql => 'ALTER TABLE products DROP CONSTRAINT products_name_check');
\set ECHO none
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('demo-works') \g /dev/null
UPDATE products SET name = 'A name that is longer than twelve' WHERE sku = 'GEAR-0002';
COMMIT;
\connect - :admin
\echo 'The demo tenant has a name that is too long. It goes first, and when it fails, no customer is touched:'
\echo
\set ON_ERROR_STOP off
\set ECHO queries
CALL migrate_tenants('default', canary => '{"stage": "staging"}');
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql
\connect - :operator
\set ECHO queries
SELECT coalesce(slug, 'the template') AS tenant, version, status, attempts, sqlstate FROM tenancy.migration_status ORDER BY slug NULLS FIRST, version;
\set ECHO none
SELECT bool_and(status = 'failed' AND sqlstate = '23514' AND attempts = 3) FILTER (WHERE slug = 'demo-works' AND version = '2026.05-skus')
   AND bool_and(status <> 'applied') FILTER (WHERE slug IN ('borealis', 'cascade') AND version = '2026.05-skus') AS holds FROM tenancy.migration_status \gset
\set claim 'three attempts, a reason, and nobody else has it' \ir ../../shared/claim.sql
\echo
\echo 'The name is put right, and the run called again:'
\echo
\connect - :app
BEGIN;
SELECT set_tenant_by_slug('demo-works') \g /dev/null
UPDATE products SET name = 'Gear 2' WHERE sku = 'GEAR-0002';
COMMIT;
\connect - :admin
\set ECHO queries
CALL migrate_tenants('default', canary => '{"stage": "staging"}');
\set ECHO none
\connect - :operator
SELECT bool_and(status = 'applied') AND count(*) = 8 AS holds FROM tenancy.migration_status \gset
\set claim 'every tenant has both' \ir ../../shared/claim.sql
SELECT count(*) = 0 AS holds FROM tenancy.schema_drift \gset
\set claim 'and no schema differs from the template' \ir ../../shared/claim.sql
\connect - :admin
\echo
\set ECHO queries
CALL rollback_tenants('default', '2026.04-suppliers');
\set ECHO none
\connect - :operator
SELECT bool_and(status = 'applied') FILTER (WHERE version = '2026.04-suppliers') AND bool_and(status = 'pending') FILTER (WHERE version = '2026.05-skus') AS holds
FROM tenancy.migration_status \gset
\set claim 'the last one is taken back everywhere' \ir ../../shared/claim.sql
