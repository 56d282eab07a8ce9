-- What the migration brought: notes, priorities, and a table for bulk loads.
BEGIN;
SELECT set_tenant_by_slug('globex') \g /dev/null
INSERT INTO notes (workflow_id, body) SELECT id, 'globex: seen' FROM workflows;
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
INSERT INTO notes (workflow_id, body) SELECT id, 'acme: seen' FROM workflows;
SELECT string_agg(body, ', ') = 'acme: seen' AND bool_and(priority = 3) AS holds
FROM notes AS n JOIN workflows AS w ON w.id = n.workflow_id \gset
COMMIT;
\set claim 'a migration adds a protected table and a column with a value for every tenant' \ir ../../shared/claim.sql

BEGIN;
SELECT set_tenant_by_slug('acme') \g /dev/null
\copy agents_import FROM PROGRAM 'seq -f "acme: bulk %g" 1000'
WITH moved AS (DELETE FROM agents_import RETURNING name)
INSERT INTO agents (name) SELECT name FROM moved;
SELECT count(*) = 1000 AND (SELECT count(*) FROM agents_import) = 0 AS holds FROM agents WHERE name LIKE 'acme: bulk %' \gset
COMMIT;
\set claim '1 000 rows come by COPY and a staging table' \ir ../../shared/claim.sql
