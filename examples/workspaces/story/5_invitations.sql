\connect - :client

\echo
\echo '== 9. Ada invites Bob and Vera'
\echo
\set credential :ada_token \set whose 'Ada, in Acme' \ir ../request.sql
SELECT invite('bob@example.com') AS bob_invitation, invite('vera@example.com', 'viewer') AS vera_invitation \gset
SELECT email, role, status, expires_at::date FROM tenancy.invitations ORDER BY 1;
\set ON_ERROR_ROLLBACK on
\set ON_ERROR_STOP off
SELECT invite('Bob@example.com', 'owner');
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
COMMIT;
\set ON_ERROR_ROLLBACK off
\set ECHO none
\echo 'The tokens go out by e-mail; only their hashes stay. Bob logs in, brings his, and it serves once:'
\echo
\connect - :app
\echo 'SELECT accept_invitation($1, log_in(''bob@example.com'', $2));'
SELECT accept_invitation(:'bob_invitation', log_in('bob@example.com', 'hunter2 hunter2 hunter2')) = :'acme'
   AND accept_invitation(:'vera_invitation', log_in('vera@example.com', 'only here to look around')) = :'acme' AS holds \gset
\set claim 'Bob and Vera are members' \ir ../../shared/claim.sql
\set ON_ERROR_STOP off
SELECT accept_invitation(:'bob_invitation', :'mallory');
\set ON_ERROR_STOP on
\set must_be 28000 \ir ../../shared/refused.sql

BEGIN;
SELECT set_tenant_by_slug('acme', :'bob') \g /dev/null
SELECT issue_jwt(:'bob', scopes => '{*}') AS token \gset bob_
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('acme', :'vera') \g /dev/null
SELECT issue_jwt(:'vera', scopes => '{*}') AS token \gset vera_
COMMIT;
