\connect - :app

\echo
\echo '== 9. Forging the context'
\echo
\echo 'The backend''s own role, say through SQL injected into it, tries to become Acme:'
\echo

\set ECHO queries
\set ON_ERROR_STOP off
SET tenancy.context = :'acme';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT set_config('tenancy.context', :'acme', true);
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
ALTER ROLE :"app" SET tenancy.context = :'acme';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ECHO none
\echo 'Within a transaction the first bind wins, whatever is cleared or reset:'
\echo
\set ON_ERROR_ROLLBACK on
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;

\set ON_ERROR_STOP off
SELECT set_tenant(:'acme');
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql

SELECT clear_tenant();
\set ON_ERROR_STOP off
SELECT set_tenant(:'acme');
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql

RESET ALL;
\set ON_ERROR_STOP off
SELECT set_tenant(:'acme');
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql
COMMIT;
\set ON_ERROR_ROLLBACK off

\set ECHO none
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
COMMIT;
SELECT current_tenant_or_null() IS NULL AS holds \gset
\set claim 'after COMMIT the next request on this connection finds no tenant' \ir ../../shared/claim.sql

\connect - :client
\echo
\echo 'A role of level client cannot choose at all:'
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT set_tenant(:'acme');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
