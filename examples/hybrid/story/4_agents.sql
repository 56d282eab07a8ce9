\connect - :client

\echo
\echo '== 10. Five agents'
\echo
\set ON_ERROR_ROLLBACK on
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
\set ON_ERROR_STOP off
INSERT INTO agents (name) SELECT 'Worker ' || n FROM generate_series(1, 4) AS n;   -- with the two that are there, six
\set said :LAST_ERROR_MESSAGE
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
INSERT INTO agents (name) SELECT 'Worker ' || n FROM generate_series(1, 3) AS n;
\set ON_ERROR_STOP off
INSERT INTO agents (name) VALUES ('Worker 4') ON CONFLICT (organization_id, name) DO UPDATE SET status = 'idle';
\set ON_ERROR_STOP on
\set must_be 54000 \ir ../../shared/refused.sql
INSERT INTO agents (name) VALUES ('Worker 3') ON CONFLICT (organization_id, name) DO UPDATE SET status = 'idle';   -- that one is there
SELECT * FROM check_limit('agents');
\set ECHO none
SELECT max_value = 5 AND used = 5 AND remaining = 0 AND NOT allowed AND :'said' = 'limit reached for agents (5)' AS holds FROM check_limit('agents') \gset
COMMIT;
\set ON_ERROR_ROLLBACK off
\set claim 'five agents, and an error that says so' \ir ../../shared/claim.sql
\set header :mia_session \set whose 'Mia, in the first one, on pro' \ir ../request.sql
INSERT INTO agents (name) SELECT 'Worker ' || n FROM generate_series(1, 20) AS n;
SELECT * FROM check_limit('agents');
COMMIT;
\set ECHO none
\connect - :operator
\echo
\echo 'Acme may have one more, for the time being:'
\echo
\set ECHO queries
SELECT set_tenant_limit(:'acme', 'agents', 6);
\set ECHO none
\connect - :client
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
INSERT INTO agents (name) VALUES ('Worker 4');
DELETE FROM agents WHERE name = 'Worker 4';
COMMIT;
\set ECHO none
\connect - :operator
\set ECHO queries
SELECT unset_tenant_limit(:'acme', 'agents');
\set ECHO none
