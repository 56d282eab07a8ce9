-- As a superuser, in an empty database: what every client's story begins with. The application of ../agent_platform with three
-- tenants, a user in each, a role that runs migrations, and one that test suites have.

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET client_min_messages = warning;

\if :{?owner}    \else \set owner    platform_owner    \endif
\if :{?app}      \else \set app      platform_app      \endif
\if :{?client}   \else \set client   platform_client   \endif
\if :{?operator} \else \set operator platform_operator \endif
\if :{?admin}    \else \set admin    platform_admin    \endif
\if :{?migrator} \else \set migrator platform_migrator \endif
\if :{?tester}   \else \set tester   platform_tester   \endif
\set dba :USER

\ir ../agent_platform/setup.sql
\ir ../agent_platform/schema.sql
\ir ../agent_platform/plans.sql

\connect - :operator
\echo
\echo '== 4. Three tenants on three plans, a user in each, and roles for migrations and tests'
\echo
\set ECHO queries
SELECT create_tenant(initcap(slug), slug => slug, plan => plan) IS NOT NULL AS created, slug, plan
FROM (VALUES ('acme', 'enterprise'), ('globex', 'pro'), ('hooli', 'free')) AS tenants (slug, plan);
\set ECHO none

\connect - :app
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
INSERT INTO users (external_auth_id, email, name, role) VALUES ('ada', 'ada@acme.example', 'acme: Ada', 'owner');
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
INSERT INTO users (external_auth_id, email, name, role) VALUES ('ada', 'ada@globex.example', 'globex: Ada', 'owner');
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('hooli') \g /dev/null
INSERT INTO users (external_auth_id, email, name, role) VALUES ('ada', 'ada@hooli.example', 'hooli: Ada', 'owner');
COMMIT;

-- The migrator makes databases for test suites, and may let them bind one tenant after another. The tester is the backend that
-- may do so anywhere: in production there is none.
\connect - :dba
\set ECHO queries
SELECT format('CREATE ROLE %I LOGIN BYPASSRLS CREATEDB IN ROLE %I', :'migrator', :'owner')
WHERE to_regrole(quote_ident(:'migrator')) IS NULL \gexec
SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', :'tester', :'app')
WHERE to_regrole(quote_ident(:'tester')) IS NULL \gexec
ALTER ROLE :"tester" SET tenancy.allow_rebind = on;
GRANT SET ON PARAMETER tenancy.allow_rebind TO :"migrator";
\set ECHO none
