-- As a superuser: the extension, the login roles and what each may do.

\echo
\echo '== 1. Install: the extension, and a login role per duty'
\echo

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY[:'owner', :'app', :'client', :'operator', :'admin']) AS role
WHERE to_regrole(quote_ident(role)) IS NULL \gexec

-- A temporary table left behind in a pooled session would shadow the next tenant's table.
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
CREATE SCHEMA agent_platform AUTHORIZATION :"owner";
GRANT USAGE ON SCHEMA agent_platform TO :"app", :"client", :"admin";
ALTER DATABASE :"DBNAME" SET search_path = agent_platform, public;

\set ECHO queries
CREATE EXTENSION IF NOT EXISTS pg_tenancy;
SELECT grant_access(:'app', 'app') AS app,
       grant_access(:'client', 'client') AS client,
       grant_access(:'operator', 'operator') AS operator,
       grant_access(:'admin', 'admin') AS admin;
\set ECHO none
\echo 'app: the trusted backend, binds a tenant per transaction. client: may not choose a tenant.'
\echo 'operator: runs the tenants'' lifecycle. admin: protects tables, purges.'
