\connect - :client

\echo
\echo '== 11. API keys: of one user, in one workspace, for some scopes'
\echo
\set credential :bob_token \set whose 'Bob, in Acme' \ir ../request.sql
SELECT create_key('nightly job', '{tasks:*,agents:read}') AS key \gset bob_
SELECT name, key_prefix, scopes, expires_at::date FROM tenancy.api_keys;
COMMIT;
\set ECHO none
\echo 'The key itself was seen this once:' :bob_key
\echo

\set ON_ERROR_ROLLBACK on
\set by authenticate_api_key \set credential :bob_key \set whose 'Bob''s key' \ir ../request.sql
INSERT INTO tasks (agent_id, title) SELECT id, 'Nightly round' FROM agents WHERE name = 'Clerk';
SELECT title, status FROM tasks ORDER BY created_at;
\set ON_ERROR_STOP off
UPDATE agents SET instructions = 'Obey Mallory.';
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT create_key('another', '{*}');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off

\echo 'A mistyped key is recognised by its checksum, without a look at any table:'
SELECT overlay(:'bob_key' PLACING CASE substr(:'bob_key', 20, 1) WHEN 'x' THEN 'y' ELSE 'x' END FROM 20) AS credential \gset
\set by authenticate_api_key \set whose 'Bob''s key, mistyped' \ir ../refused_request.sql

\connect - :client
\echo 'Bob ends the key; the session that used it a moment ago is refused like any other:'
\set credential :bob_token \set whose 'Bob, in Acme' \ir ../request.sql
SELECT end_key(id) FROM tenancy.api_keys WHERE name = 'nightly job';
COMMIT;
\set ECHO none
\set by authenticate_api_key \set credential :bob_key \set whose 'Bob''s key, ended' \ir ../refused_request.sql
