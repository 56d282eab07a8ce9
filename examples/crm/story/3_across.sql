SELECT 'tenant_acme.deals_id_seq'::regclass::oid AS acme_sequence \gset
\connect - :app

\echo
\echo '== 5. Globex reaches for Acme''s schema'
\echo
\echo 'The database''s own privileges let the backend into every schema; the bound tenant decides (after each refusal psql goes back'
\echo 'to a savepoint).'
\echo
\echo 'A statement that was prepared for Acme, in the same session:'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('acme') AS acme;
PREPARE revenue AS SELECT name, annual_revenue FROM tenant_acme.companies ORDER BY annual_revenue DESC LIMIT 1;
EXECUTE revenue;
COMMIT;

\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;

\set ON_ERROR_STOP off
EXECUTE revenue;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT full_name, email FROM tenant_acme.contacts;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT c.full_name FROM contacts AS c WHERE EXISTS (SELECT FROM tenant_acme.deals);
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT * FROM tenant_acme.pipeline;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
INSERT INTO tenant_acme.users (email, password_hash, first_name, last_name, role) VALUES ('mole@globex.example', '$2a$', 'M', 'M', 'admin');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
UPDATE tenant_acme.users SET role = 'admin';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
DELETE FROM tenant_acme.activities;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
TRUNCATE tenant_acme.activities;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
LOCK TABLE tenant_acme.deals IN ACCESS EXCLUSIVE MODE;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
COPY tenant_acme.contacts TO STDOUT;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
EXPLAIN SELECT * FROM tenant_acme.contacts WHERE last_name = 'Berg';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT nextval('tenant_acme.deals_id_seq');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT nextval(:acme_sequence::oid::regclass);  -- by its number
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT most_common_vals FROM pg_stats WHERE schemaname = 'tenant_acme' AND tablename = 'contacts';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT 'admin'::tenant_acme.user_role;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
CREATE TABLE tenant_acme.mole (a integer);
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT * FROM crm_template.users;  -- nor the template's
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

SET LOCAL search_path = tenant_acme, public;  -- an injected one
\set ON_ERROR_STOP off
SELECT full_name FROM contacts;
\set ON_ERROR_STOP on
\set must_be 42P01 \ir ../../shared/refused.sql
ROLLBACK;
\set ON_ERROR_ROLLBACK off

\set ECHO none
\echo 'Bound to nobody, the backend is a stranger to all of them:'
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT full_name FROM tenant_acme.contacts;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
SELECT count(*) = 5 AND count(*) FILTER (WHERE role = 'admin') = 1 AND (SELECT count(*) FROM activities) = 240 AS holds FROM users \gset
COMMIT;
\set claim 'Acme is as it was' \ir ../../shared/claim.sql
