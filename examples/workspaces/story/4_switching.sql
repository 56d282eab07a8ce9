\connect - :app

\echo
\echo '== 8. Switching: Ada goes to Globex, then to a workspace that is not hers'
\echo
\echo 'The log-in service takes the token that Ada has, offers her workspaces, and hands out another token.'
\echo
\set credential :ada_token \set whose 'Ada, in Acme' \ir ../request.sql
SELECT slug, role FROM user_tenants(current_user_id());
COMMIT;

BEGIN;
SELECT set_tenant_by_slug('globex', :'ada') AS globex;
SELECT issue_jwt(:'ada', '15 minutes', scopes => '{*}') AS token \gset ada_globex_
COMMIT;
\set ECHO none

\connect - :client
\set credential :ada_globex_token \set whose 'Ada, in Globex' \ir ../request.sql
SELECT count(*) AS agents FROM agents;
\set ECHO none
SELECT (SELECT count(*) FROM agents) = 0 AND current_member_role() = 'viewer' AS holds \gset
COMMIT;
\set claim 'there Ada is a viewer, and nothing of Acme has come along' \ir ../../shared/claim.sql

\connect - :app
\echo
\echo 'Mallory asks for Acme:'
\set ECHO queries
BEGIN;
\set ON_ERROR_STOP off
SELECT set_tenant_by_slug('acme', :'mallory');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
ROLLBACK;
\set ECHO none
