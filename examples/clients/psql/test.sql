-- A test: one transaction, two tenants, rolled back. The tester may bind one after another.
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
INSERT INTO agents (name) VALUES ('acme: under test');
SELECT set_tenant_by_slug('globex') \g /dev/null
SELECT count(*) = 0 AS unseen FROM agents WHERE name = 'acme: under test' \gset
SELECT set_tenant_by_slug('acme') \g /dev/null
SELECT :'unseen'::boolean AND count(*) = 1 AS holds FROM agents WHERE name = 'acme: under test' \gset
ROLLBACK;
\set claim 'a test binds two tenants in one transaction, and leaves nothing' \ir ../../shared/claim.sql
