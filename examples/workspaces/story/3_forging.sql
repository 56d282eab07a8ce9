\connect - :app
BEGIN;
SELECT set_tenant_by_slug('globex', :'mallory') \g /dev/null
SELECT issue_jwt(:'mallory', scopes => '{*}') AS token \gset mallory_
COMMIT;

\connect - :client

\echo
\echo '== 7. Mallory forges tokens'
\echo
\echo 'Mallory has a token of Globex, and writes Acme and Ada into it. The API server does not say what was wrong with it.'
\echo
SELECT replace(replace(convert_from(decode(rpad(translate(part, '-_', '+/'), (length(part) + 3) / 4 * 4, '='), 'base64'), 'UTF8'),
                       :'globex', :'acme'), :'mallory', :'ada') AS forged
FROM split_part(:'mallory_token', '.', 2) AS part \gset
SELECT split_part(:'mallory_token', '.', 1) AS header,
       translate(encode(convert_to(:'forged', 'UTF8'), 'base64'), E'+/=\n', '-_') AS payload,
       translate(encode('{"alg":"none","kid":"workspaces-1"}', 'base64'), E'+/=\n', '-_') AS unsigned \gset
SELECT translate(encode(hmac(:'header' || '.' || :'payload', 'a secret that Mallory made up', 'sha256'), 'base64'), E'+/=\n', '-_') AS signature \gset
SELECT :'header' || '.' || :'payload' || '.' || split_part(:'mallory_token', '.', 3) AS credential \gset
\set whose 'the payload changed, the signature kept' \ir ../refused_request.sql
SELECT :'unsigned' || '.' || :'payload' || '.' AS credential \gset
\set whose 'the payload changed, no signature' \ir ../refused_request.sql
SELECT :'header' || '.' || :'payload' || '.' || :'signature' AS credential \gset
\set whose 'the payload changed, signed anew' \ir ../refused_request.sql
SELECT left(:'ada_token', -1) AS credential \gset
\set whose 'Ada''s token, cut short' \ir ../refused_request.sql

\echo 'With the true token of Globex, there is nothing of Acme''s, and no way to it:'
\set credential :mallory_token \set whose 'Mallory, in Globex' \ir ../request.sql
SELECT count(*) AS agents FROM agents WHERE workspace_id = :'acme';
\set ECHO none
SELECT count(*) = 0 AS holds FROM agents \gset
\set claim 'Mallory sees none of Acme''s agents' \ir ../../shared/claim.sql
\set ON_ERROR_ROLLBACK on
\set ECHO queries
\set ON_ERROR_STOP off
INSERT INTO agents (workspace_id, name) VALUES (:'acme', 'Mole');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
\echo 'SELECT role FROM authenticate_jwt($1);  -- even a stolen token of Ada''s does not serve in the same transaction'
\set ON_ERROR_STOP off
SELECT role FROM authenticate_jwt(:'ada_token');
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql
COMMIT;
\set ON_ERROR_ROLLBACK off
