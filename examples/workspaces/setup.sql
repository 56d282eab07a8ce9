-- As a superuser: the extensions, the login roles and what each may do.

\echo
\echo '== 1. Install: the extensions, and a login role per duty'
\echo

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY[:'owner', :'app', :'client', :'operator', :'admin']) AS role
WHERE to_regrole(quote_ident(role)) IS NULL \gexec

-- A temporary table left behind in a pooled session would shadow the next workspace's table.
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
CREATE SCHEMA workspaces AUTHORIZATION :"owner";
GRANT USAGE ON SCHEMA workspaces TO :"app", :"client", :"admin";
ALTER DATABASE :"DBNAME" SET search_path = workspaces, public;

\set ECHO queries
CREATE EXTENSION IF NOT EXISTS pg_tenancy;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
SELECT grant_access(:'app', 'app') AS app,
       grant_access(:'client', 'client') AS client,
       grant_access(:'operator', 'operator') AS operator,
       grant_access(:'admin', 'admin') AS admin;
\set ECHO none
\echo 'client: the API server. It has no right to choose a workspace: each request brings a token or a key.'
\echo 'app: the log-in service. It checks passwords, looks up memberships and hands out tokens.'
\echo 'operator: makes workspaces. admin: protects tables, keeps the keys that sign tokens.'
