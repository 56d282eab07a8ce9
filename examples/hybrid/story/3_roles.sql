\connect - :client

\echo
\echo '== 9. Owner, admin, member'
\echo
\set header :ada_session \set whose 'Ada, the owner' \ir ../request.sql
SELECT invite('bob@example.com') AS invitation \gset
COMMIT;
\set ECHO none
\connect - :app
\echo 'SELECT accept_invitation($1, $2);  -- Bob'
SELECT accept_invitation(:'invitation', :'bob') \g /dev/null
BEGIN;
SELECT set_tenant_by_slug('acme', :'bob') \g /dev/null
SELECT 'Bearer ' || issue_jwt(:'bob', scopes => '{*}') AS bob_session \gset
COMMIT;
\connect - :client
\set ON_ERROR_ROLLBACK on
\set header :bob_session \set whose 'Bob, a member' \ir ../request.sql
INSERT INTO agents (name) VALUES ('Clerk'), ('Courier');
\set ON_ERROR_STOP off
DELETE FROM agents WHERE name = 'Clerk';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT invite('mia@example.com');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
COMMIT;
\set ON_ERROR_ROLLBACK off
\set header :ada_session \set whose 'Ada, the owner' \ir ../request.sql
DELETE FROM agents WHERE name = 'Clerk';
SELECT count(*) AS agents FROM agents;
\set ECHO none
SELECT count(*) = 2 AS holds FROM agents \gset
COMMIT;
\set claim 'members write, owners and admins delete' \ir ../../shared/claim.sql
