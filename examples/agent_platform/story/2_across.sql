SELECT id AS acme_workflow FROM workflows WHERE tenant_id = :'acme' ORDER BY name LIMIT 1 \gset

\connect - :app

\echo
\echo '== 7. Globex reaches for Acme''s rows'
\echo
\echo 'Acme is' :acme '(after each refusal psql goes back to a savepoint).'
\echo

\set ON_ERROR_ROLLBACK on
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;

SELECT count(*) AS acme_rows_read FROM workflow_executions WHERE tenant_id = :'acme';
\set ECHO none
SELECT count(*) = 0 AS holds FROM workflow_executions WHERE tenant_id = :'acme' \gset
\set claim 'none of Acme''s executions can be read' \ir ../../shared/claim.sql
\echo
\set ECHO queries

UPDATE workflows SET status = 'archived' WHERE tenant_id = :'acme';
\set changed :ROW_COUNT
DELETE FROM workflow_executions WHERE tenant_id <> current_tenant();
\set deleted :ROW_COUNT
\set ECHO none
SELECT :changed = 0 AND :deleted = 0 AS holds \gset
\set claim 'no row changed, none deleted' \ir ../../shared/claim.sql
\echo
\set ECHO queries

\set ON_ERROR_STOP off
INSERT INTO users (tenant_id, external_auth_id, email, name)
VALUES (:'acme', 'user_mole', 'mole@globex.example', 'Mole');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
UPDATE users SET tenant_id = :'acme' WHERE role = 'owner';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
INSERT INTO workflow_executions (workflow_id) VALUES (:'acme_workflow');  -- a workflow of Acme's
\set ON_ERROR_STOP on
\set must_be 23503 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
SELECT assert_tenant(:'acme');  -- what a careful handler calls with the id from its URL
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ON_ERROR_ROLLBACK off

\set ECHO none
\echo
\echo '== 8. No tenant bound: an error, never all rows'
\echo
\set ECHO queries

\set ON_ERROR_STOP off
SELECT count(*) FROM workflow_executions;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ON_ERROR_STOP off
DELETE FROM workflow_executions;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql

\set ECHO none
\echo 'A view that a superuser owns would read past row security; it is refused too:'
\connect - :dba
\set ECHO queries
CREATE VIEW all_executions AS SELECT * FROM workflow_executions;
\set ECHO none
GRANT SELECT ON all_executions TO :"app";
\connect - :app
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;
\set ON_ERROR_STOP off
SELECT count(*) FROM all_executions;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
ROLLBACK;
\connect - :dba
DROP VIEW all_executions;
