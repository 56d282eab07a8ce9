-- As a superuser: the extension, the login roles and what each may do.

\echo
\echo '== 1. Install: the extension, and a login role per duty'
\echo

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY[:'owner', :'app', :'client', :'operator', :'admin']) AS role
WHERE to_regrole(quote_ident(role)) IS NULL \gexec

-- A temporary table left behind in a pooled session would shadow the next organization's table.
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
CREATE SCHEMA hybrid AUTHORIZATION :"owner";
GRANT USAGE ON SCHEMA hybrid TO :"app", :"client", :"admin";
ALTER DATABASE :"DBNAME" SET search_path = hybrid, hybrid_api, public;

\set ECHO queries
CREATE EXTENSION IF NOT EXISTS pg_tenancy;
SELECT grant_access(:'app', 'app') AS app,
       grant_access(:'client', 'client') AS client,
       grant_access(:'operator', 'operator') AS operator,
       grant_access(:'admin', 'admin') AS admin;
\set ECHO none
\echo 'client: the API server. It has no right to choose an organization: each request brings a session token or a key.'
\echo 'app: the log-in service. It looks up memberships and hands out tokens; usage is recorded with its rights.'
\echo 'operator: organizations, plans, and what the billing system says. admin: protects tables, keeps the keys that sign tokens.'
