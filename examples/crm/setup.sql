-- As a superuser: the extensions, the login roles and what each may do.

\echo
\echo '== 1. Install: the extensions, and a login role per duty'
\echo

SELECT format('CREATE ROLE %I LOGIN', role)
FROM unnest(ARRAY[:'owner', :'app', :'readonly', :'operator', :'admin']) AS role
WHERE to_regrole(quote_ident(role)) IS NULL \gexec
-- Dumps every tenant: it reads everything, and is bound to none.
SELECT format('CREATE ROLE %I LOGIN BYPASSRLS IN ROLE pg_read_all_data', :'backup')
WHERE to_regrole(quote_ident(:'backup')) IS NULL \gexec

-- A temporary table left behind in a pooled session would shadow the next tenant's table.
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
CREATE SCHEMA crm_template AUTHORIZATION :"owner";
GRANT USAGE ON SCHEMA crm_template TO :"app", :"readonly", :"operator", :"admin";

\set ECHO queries
CREATE EXTENSION IF NOT EXISTS pg_tenancy;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
SELECT grant_access(:'app', 'app') AS app,
       grant_access(:'readonly', 'app') AS readonly,
       grant_access(:'operator', 'operator') AND grant_access(:'operator', 'app') AS operator,
       grant_access(:'admin', 'admin') AS admin;
\set ECHO none
\echo 'app: the backend, binds a tenant per transaction. readonly: reports, likewise, but may only read.'
\echo 'operator: makes tenants with their first user. admin: templates, migrations, purges. backup: dumps.'
