-- As a superuser: the extensions, the login roles and what each may do.

\echo
\echo '== 1. Install: the extensions, and a login role per duty'
\echo

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY[:'owner', :'app', :'operator', :'admin']) AS role
WHERE to_regrole(quote_ident(role)) IS NULL \gexec

-- A temporary table left behind in a pooled session would shadow the next tenant's table.
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
CREATE SCHEMA planning_template AUTHORIZATION :"owner";
GRANT USAGE ON SCHEMA planning_template TO :"app", :"admin";

\set ECHO queries
CREATE EXTENSION IF NOT EXISTS pg_tenancy;
SELECT grant_access(:'app', 'app') AS app,
       grant_access(:'operator', 'operator') AS operator,
       grant_access(:'admin', 'admin') AS admin;
\set ECHO none
\echo 'app: the backend, binds a tenant per transaction. operator: runs the tenants'' lifecycle and their tiers.'
\echo 'admin: the template, clones, migrations.'
