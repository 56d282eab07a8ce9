\connect - :app

\echo
\echo '== 6. Borealis reaches for the demo tenant''s schema, whose name is no secret'
\echo
\set ON_ERROR_ROLLBACK on
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('borealis') AS borealis;
SELECT count(*) AS own_products FROM products;

\set ON_ERROR_STOP off
SELECT * FROM :"demo_schema".products;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
UPDATE :"demo_schema".inventory SET on_hand = 0;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT * FROM :"demo_schema".sales_2025;   -- a partition
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT * FROM :"demo_schema".monthly_sales;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT :"demo_schema".refresh_monthly_sales();   -- runs as the schema's owner
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
INSERT INTO sales (product_id, sold_on, quantity, unit_price) SELECT id, current_date, 1, 1 FROM :"demo_schema".products;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

SELECT stripe_customer_id, status FROM tenancy.subscriptions;   -- its own
\set ECHO none
SELECT bool_and(tenant_id = :'borealis') AND count(*) = 1 AS holds FROM tenancy.subscriptions \gset
\set claim 'of what tenants pay, Borealis sees its own' \ir ../../shared/claim.sql
\set ECHO queries
COMMIT;
\set ON_ERROR_ROLLBACK off
\set ECHO none
\connect - :owner
\echo 'The tables'' owner, who makes them all, is bound to no tenant either:'
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT * FROM :"demo_schema".products;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
