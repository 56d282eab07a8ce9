\echo
\echo '== 12. Secrets at rest'
\echo
\echo 'What an agent logs in with elsewhere is encrypted under a key that the API server holds and passes as a parameter.'
\echo
SELECT encode(gen_random_bytes(32), 'base64') AS vault_key \gset
\connect - :client
\set credential :bob_token \set whose 'Bob, in Acme' \ir ../request.sql
\set ECHO none
\echo 'UPDATE agents SET credential = pgp_sym_encrypt($1, $2) WHERE name = ''Scout'';   -- the secret, the key'
UPDATE agents SET credential = pgp_sym_encrypt('sk-live-of-the-news-agency', :'vault_key') WHERE name = 'Scout';
\set ECHO queries
SELECT name, left(credential::text, 40) || '...' AS credential FROM agents WHERE name = 'Scout';
\set ECHO none
\echo 'SELECT pgp_sym_decrypt(credential, $1) FROM agents WHERE name = ''Scout'';'
SELECT pgp_sym_decrypt(credential, :'vault_key') = 'sk-live-of-the-news-agency' AS holds FROM agents WHERE name = 'Scout' \gset
COMMIT;
\set claim 'the secret comes back with the key' \ir ../../shared/claim.sql
\echo
\connect - :dba
\echo 'The DBA reads neither that, nor the passwords, nor the API keys:'
\set ECHO queries
SELECT u.email, left(p.password_hash, 20) || '...' AS password_hash FROM passwords AS p JOIN tenancy.users AS u ON u.id = p.user_id ORDER BY 1;
SELECT name, key_prefix, left(encode(key_hash, 'hex'), 16) || '...' AS key_hash FROM tenancy.stored_api_keys;
\set ON_ERROR_STOP off
SELECT pgp_sym_decrypt(credential, 'a guess') FROM agents WHERE name = 'Scout';
\set ON_ERROR_STOP on
\set must_be 39000 \ir ../../shared/refused.sql
\set ECHO none
