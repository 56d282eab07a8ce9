\connect - :client

\echo
\echo '== 8. Access by session token or API key'
\echo
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
SELECT 'Key ' || create_key('the robots', '{agents:read,sessions:*}') AS robots_key \gset
SELECT name, key_prefix, scopes, expires_at::date FROM tenancy.api_keys;
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK on
\set header :robots_key \set whose 'Key ..., of Acme' \ir ../request.sql
SELECT name, status FROM agents;
\set ON_ERROR_STOP off
INSERT INTO agents (name) VALUES ('Robot');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
\echo 'What is no key of theirs, or was tampered with, is refused, whatever the reason:'
\echo
SELECT overlay(:'robots_key' PLACING CASE substr(:'robots_key', 30, 1) WHEN 'x' THEN 'y' ELSE 'x' END FROM 30) AS header \gset
\set whose 'the key, a character changed' \ir ../refused_request.sql
SELECT replace(:'robots_key', 'Key ', 'Bearer ') AS header \gset
\set whose 'the key, as if it were a token' \ir ../refused_request.sql
SELECT left(:'ada_session', -2) AS header \gset
\set whose 'the token, cut short' \ir ../refused_request.sql
\set header '' \set whose 'nothing' \ir ../refused_request.sql
\connect - :dba
SELECT count(*) = 1 AND bool_and(octet_length(key_hash) = 32) AND bool_and(k::text NOT LIKE '%' || substr(:'robots_key', 20) || '%') AS holds
FROM tenancy.stored_api_keys AS k \gset
\set claim 'of the key there is a hash of 256 bits, by which it is looked up, and not the key' \ir ../../shared/claim.sql
\connect - :client
\set header :ada_session \set whose 'Ada, in Acme' \ir ../request.sql
SELECT end_key(id) FROM tenancy.api_keys;
COMMIT;
\set ECHO none
\set header :robots_key \set whose 'the key, ended' \ir ../refused_request.sql
