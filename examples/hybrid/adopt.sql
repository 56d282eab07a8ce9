-- The application becomes that of many organizations, and what it has the first one's. It goes on writing meanwhile.

\connect - :operator
SELECT create_tenant('The first one', slug => 'default', plan => 'pro') AS first \gset

\echo
\echo '== 4. Adoption: what there is becomes the first organization''s'
\echo
\connect - :admin
SET client_min_messages = warning;
\set ECHO queries
SELECT lock, duration, count(*) AS statements FROM adoption_plan('hybrid', tenant_column => 'organization_id') GROUP BY lock, duration ORDER BY lock, duration;
CALL adopt_schema('hybrid', :'first', 'organization_id', protect => false);
\set ECHO none
SELECT count(*) = 0 AS holds FROM adoption_plan('hybrid', :'first', 'organization_id') WHERE statement LIKE 'UPDATE%' \gset
\set claim 'nothing is left to be filled' \ir ../shared/claim.sql

\connect - :owner
\echo
\echo 'The application as it was goes on, and its rows are the first organization''s, too:'
\echo
\set ECHO queries
INSERT INTO agents (name) VALUES ('Latecomer');
INSERT INTO tasks (agent_id, title) SELECT id, 'As ever' FROM agents WHERE name = 'Latecomer';
\set ECHO none

\connect - :admin
SET client_min_messages = warning;
\echo
\echo 'Taught to bind, it is closed:'
\echo
\set ECHO queries
CALL adopt_schema('hybrid', :'first', 'organization_id');
\set ECHO none

\connect - :dba
SELECT (SELECT bool_and(organization_id = :'first') AND count(*) = 5 FROM agents) AND (SELECT bool_and(organization_id = :'first') AND count(*) = 401 FROM tasks)
   AND (SELECT bool_and(organization_id = :'first') AND count(*) = 800 FROM messages) AND (SELECT count(*) = 400 FROM activity_log) AS holds \gset
\set claim 'every row is the first organization''s, and none is missing' \ir ../shared/claim.sql
SELECT count(*) = 5 AND bool_and(array_length(conkey, 1) = 2) AND bool_or(pg_get_constraintdef(oid) LIKE '%ON DELETE SET NULL (agent_id)') AS holds
FROM pg_constraint WHERE contype = 'f' AND connamespace = 'hybrid'::regnamespace \gset
\set claim 'every reference stays in its organization' \ir ../shared/claim.sql
SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'agents'::regclass AND contype = 'u' AND pg_get_constraintdef(oid) = 'UNIQUE (organization_id, name)')
   AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'agents'::regclass AND pg_get_constraintdef(oid) = 'UNIQUE (name)') AS holds \gset
\set claim 'a name is unique in its organization, and no more than that' \ir ../shared/claim.sql
SELECT count(DISTINCT tablename) = 6 AS holds FROM pg_indexes WHERE schemaname = 'hybrid' AND indexdef LIKE '%(organization_id, status)%' OR schemaname = 'hybrid' AND indexdef LIKE '%(organization_id, %' \gset
\set claim 'and the indexes are led by it' \ir ../shared/claim.sql
