\connect - :app
\echo
\echo '== 11. Invitations reach across tenants: one person, two CRMs'
\echo
\set ON_ERROR_ROLLBACK on
\set subdomain acme
\ir ../request.sql
\set ECHO queries
SELECT token FROM create_invitation('ken@consultants.example', 'sales_rep', metadata => '{"territory": "EMEA"}') \gset acme_
SELECT email, role, status, expires_at::date, metadata FROM tenancy.invitations;
\set ON_ERROR_STOP off
SELECT create_invitation('Ken@consultants.example', 'manager');
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT create_invitation('eve@consultants.example', 'emperor');
\set ON_ERROR_STOP on
\set must_be 22023 \ir ../../shared/refused.sql
COMMIT;
\set ON_ERROR_ROLLBACK off
\set ECHO none
\set subdomain globex
\ir ../request.sql
SELECT token FROM create_invitation('ken@consultants.example', 'viewer') \gset globex_
SELECT count(*) = 1 AS holds FROM tenancy.invitations \gset
COMMIT;
\set claim 'one live invitation for each tenant and address; Globex sees only its own' \ir ../../shared/claim.sql
\echo
\echo 'Ken takes both. Membership is pg_tenancy''s; the row in the tenant''s users is the application''s:'
\echo
\set ECHO queries
SELECT create_user('ken@consultants.example', 'Ken Kowalski') AS ken \gset
\set ECHO none
\echo 'SELECT accept_invitation($1, ken);   -- the token'
SELECT accept_invitation(:'acme_token', :'ken') = :'acme' AND accept_invitation(:'globex_token', :'ken') = :'globex' AS holds \gset
\set claim 'both tenants have let him in' \ir ../../shared/claim.sql
\set ON_ERROR_STOP off
SELECT accept_invitation(:'acme_token', :'ken');
\set ON_ERROR_STOP on
\set must_be 28000 \ir ../../shared/refused.sql
\set ECHO queries
SELECT slug, role FROM user_tenants(:'ken');
BEGIN;
SELECT set_tenant_by_slug('acme', :'ken') AS acme;
INSERT INTO users (account_id, email, password_hash, first_name, last_name, role, email_verified)
VALUES (current_user_id(), 'ken@consultants.example', crypt('a password of his own', gen_salt('bf', 6)), 'Ken', 'Kowalski', current_member_role()::user_role, true)
RETURNING id, role;
COMMIT;
\set ECHO none
SELECT count(*) = 2 AND bool_and(role = CASE slug WHEN 'acme' THEN 'sales_rep' ELSE 'viewer' END) AS holds FROM user_tenants(:'ken') \gset
\set claim 'a sales representative in one, a viewer in the other' \ir ../../shared/claim.sql
\connect - :dba
SELECT (SELECT count(*) FROM tenant_acme.users WHERE account_id = :'ken') = 1 AND (SELECT count(*) FROM tenant_globex.users WHERE account_id = :'ken') = 0 AS holds \gset
\set claim 'his row is in Acme''s schema alone' \ir ../../shared/claim.sql
