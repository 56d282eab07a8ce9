\connect - :operator

\echo
\echo '== 4. Tenants: by their plan, or in two steps'
\echo
\set ECHO queries
SELECT create_tenant('Demo Manufacturing', slug => 'demo-works', plan => 'professional', external_id => 'org_demo', metadata => '{"stage": "staging"}') AS demo,
       create_tenant('Borealis Pumps', slug => 'borealis', plan => 'enterprise', external_id => 'org_borealis') AS borealis \gset
\set ECHO none
\echo 'Registered now, for example by the web site; its schema follows:'
\echo
\set ECHO queries
SELECT create_tenant('Cascade Valves', slug => 'cascade', plan => 'starter', isolation => 'row') AS cascade \gset
SELECT create_tenant_schema(:'cascade');
SELECT set_subscription(:'borealis', 'active', stripe_customer_id => 'cus_B0r3al1s', stripe_subscription_id => 'sub_1'),
       set_subscription(:'cascade', 'trialing', stripe_customer_id => 'cus_Ca5cad3', stripe_subscription_id => 'sub_2') \g /dev/null
SELECT t.name, t.plan AS tier, s.status AS subscription, t.external_id AS organisation, t.schema_name
FROM tenancy.tenants AS t LEFT JOIN tenancy.subscriptions AS s ON s.tenant_id = t.id ORDER BY t.slug;
\set ECHO none
SELECT count(*) = 3 AND bool_and(isolation = 'schema' AND replace(schema_name, '_', '-') = 'tenant-' || id AND to_regnamespace(quote_ident(schema_name)) IS NOT NULL) AS holds
FROM tenancy.tenants \gset
\set claim 'three tenants, each with a schema that is named by its id' \ir ../../shared/claim.sql
\set ON_ERROR_STOP off
\set ECHO queries
SELECT create_tenant_schema(:'cascade');   -- it has one
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
\set ECHO queries
SELECT create_tenant_schema(gen_random_uuid());
\set ECHO none
\set ON_ERROR_STOP on
\set must_be P0002 \ir ../../shared/refused.sql
SELECT schema_name AS demo_schema FROM tenancy.tenants WHERE id = :'demo' \gset
SELECT schema_name AS borealis_schema FROM tenancy.tenants WHERE id = :'borealis' \gset

\connect - :app
\set tenant :demo     \set products 60 \set days 500
\ir ../load.sql
\set tenant :borealis \set products 20 \set days 100
\ir ../load.sql
\echo 'The demo tenant has sample data, written by load.sql as the backend: 30 000 sales of 60 products.'
\connect - :dba
SELECT * FROM maintenance_commands('ANALYZE') \gexec
