\connect - :app

\echo
\echo '== 5. Four people sign up, two of them get a workspace'
\echo
\echo 'An e-mail address is one account, in however many workspaces. sign_up() is the application''s: it stores a bcrypt hash'
\echo 'of the password (the password itself is a parameter, of course; here it is left out).'
\echo
\echo 'SELECT sign_up(''Ada@example.com'', ''Ada'', $1);   -- and so on'
SELECT sign_up('Ada@example.com', 'Ada', 'correct horse battery') AS ada,
       sign_up('bob@example.com', 'Bob', 'hunter2 hunter2 hunter2') AS bob,
       sign_up('vera@example.com', 'Vera', 'only here to look around') AS vera,
       sign_up('mallory@example.com', 'Mallory', 'let me in, let me in') AS mallory \gset

\set ON_ERROR_STOP off
SELECT sign_up('ADA@example.com', 'Another Ada', 'correct horse battery');
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT sign_up('eve@example.com', 'Eve', 'short');
\set ON_ERROR_STOP on
\set must_be 23514 \ir ../../shared/refused.sql

\connect - :operator
\set ECHO queries
SELECT create_tenant('Acme', slug => 'acme', plan => 'pro', owner => :'ada') AS acme,
       create_tenant('Globex', slug => 'globex', plan => 'starter', owner => :'mallory') AS globex \gset
SELECT t.slug AS workspace, t.plan, m.email, m.role
FROM tenancy.members AS m JOIN tenancy.tenants AS t ON t.id = m.tenant_id ORDER BY 1;
\set ECHO none

\connect - :app
\echo 'Mallory asks Ada to look after a task in Globex, so Ada is in two workspaces, with another role in each:'
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex', :'mallory') AS globex;
SELECT add_member(:'ada', 'viewer') AS ada;
COMMIT;
SELECT slug, name, role FROM user_tenants(:'ada');
\set ECHO none
SELECT array_agg(slug || ' ' || role) = '{acme owner,globex viewer}' AS holds FROM user_tenants(:'ada') \gset
\set claim 'one user, two workspaces, two roles' \ir ../../shared/claim.sql
