\connect - :client

\echo
\echo '== 13. Bob leaves Acme: his token and his keys end with the membership, at once'
\echo
\set credential :bob_token \set whose 'Bob, in Acme' \ir ../request.sql
SELECT create_key('for later', '{*}') AS key \gset bob_
COMMIT;
\set ECHO none
\set credential :ada_token \set whose 'Ada, in Acme' \ir ../request.sql
SELECT expel(:'bob');
SELECT email, role FROM tenancy.members ORDER BY 1;
COMMIT;
\set ECHO none
\set credential :bob_token \set whose 'Bob''s token' \ir ../refused_request.sql
\set by authenticate_api_key \set credential :bob_key \set whose 'Bob''s key' \ir ../refused_request.sql

\echo 'Ada has lost her laptop. Every token of hers ends, in all workspaces; she logs in anew.'
\connect - :app
\set ECHO queries
SELECT revoke_tokens(:'ada');
\set ECHO none
\connect - :client
\set credential :ada_token \set whose 'Ada''s token of Acme' \ir ../refused_request.sql
\set credential :ada_globex_token \set whose 'Ada''s token of Globex' \ir ../refused_request.sql
