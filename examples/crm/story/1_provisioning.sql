\connect - :operator

\echo
\echo '== 3. Provisioning: subdomain, registry, schema, first user, all or nothing'
\echo
\echo 'A subdomain that is none leaves nothing behind:'
\echo
\set ON_ERROR_STOP off
\set ECHO queries
SELECT create_tenant('Acme Ltd', slug => 'acme_ltd!', isolation => 'schema', template => 'crm');
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 22023 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
\set ECHO queries
SELECT create_tenant('Acme Ltd', slug => repeat('a', 64), isolation => 'schema', template => 'crm');
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 22023 \ir ../../shared/refused.sql

\echo 'Nor does a first user who cannot be (provision.sql is the one transaction that makes a tenant):'
\echo
\set name 'Acme Ltd' \set subdomain acme \set metadata '{}' \set email 'no address' \set password 'correct horse' \set first Ada \set last Almeida
\set ON_ERROR_STOP off
\set ECHO queries
\ir ../provision.sql
\set ECHO none
\set ON_ERROR_STOP on
SELECT count(*) = 0 AS holds
FROM (SELECT slug FROM tenancy.tenants UNION ALL SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant\_%') AS left_behind (name) \gset
\set claim 'no tenant is registered, and no schema of one is there' \ir ../../shared/claim.sql

\echo
\echo 'Three that work, of which Initech is for trying things out:'
\echo
\set email ada@acme.example \ir ../provision.sql
SELECT :'tenant' AS acme \gset
\set name Globex \set subdomain globex \set metadata '{"region": "us"}' \set email gus@globex.example \set first Gus \set last Garcia
\ir ../provision.sql
SELECT :'tenant' AS globex \gset
\set name Initech \set subdomain initech \set metadata '{"stage": "staging"}' \set email ines@initech.example \set first Ines \set last Ivanova
\ir ../provision.sql
SELECT :'tenant' AS initech \gset

\set ON_ERROR_STOP off
\set ECHO queries
SELECT create_tenant('Another Acme', slug => 'acme', isolation => 'schema', template => 'crm');
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql

\set ECHO queries
SELECT name, slug AS subdomain, schema_name, template, status FROM tenancy.tenants ORDER BY slug;
\set ECHO none
SELECT array_agg(schema_name::text ORDER BY slug) = '{tenant_acme,tenant_globex,tenant_initech}' AS holds
FROM tenancy.tenants JOIN pg_namespace ON nspname = schema_name \gset
\set claim 'three tenants, three schemas' \ir ../../shared/claim.sql

\connect - :app
\echo
\echo 'The first user of Acme logs in; the operator can add one, but reads nobody''s password:'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('acme') AS acme;
SELECT id, email, first_name, role FROM users WHERE password_hash = crypt('correct horse', password_hash);
\set ECHO none
SELECT count(*) = 1 AND bool_and(id = 1 AND role = 'admin' AND email = 'ada@acme.example') AS holds FROM users \gset
COMMIT;
\set claim 'exactly one user: the administrator' \ir ../../shared/claim.sql
\connect - :operator
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
\set ON_ERROR_STOP off
SELECT password_hash FROM users;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
ROLLBACK;

\connect - :app
\set subdomain acme    \set companies 40 \set contacts 600 \set deals 120
\ir ../load.sql
\set subdomain globex  \set companies 24 \set contacts 300 \set deals 60
\ir ../load.sql
\set subdomain initech \set companies 8  \set contacts 40  \set deals 10
\ir ../load.sql
\echo 'Sample data is loaded by load.sql, as the backend, a transaction for each tenant.'
