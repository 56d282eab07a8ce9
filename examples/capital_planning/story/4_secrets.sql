\connect - :app

\echo
\echo '== 7. Credentials of the tenant''s other systems'
\echo
\echo 'The backend seals them by AES-256-GCM under a key that it holds; with the tenant''s id as associated data, so that a'
\echo 'ciphertext copied into another tenant''s table does not open there. What it sends is this:'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('demo-works') AS demo;
INSERT INTO api_credentials (name, key_id, nonce, ciphertext)
VALUES ('erp', 'kms-2026-01', '\x6f1d0c53a6b04c0f1e9d2a77', '\x8d4c1d7b52f7f0a3c99a1be0ff2d6a5d09e5b1f7c1f5a84fd3b1c7f2a0e6d4b85e');
SELECT name, key_id, octet_length(ciphertext) AS bytes FROM api_credentials;
COMMIT;
BEGIN;
SELECT set_tenant_by_slug('demo-works') AS demo;
\set ON_ERROR_STOP off
INSERT INTO api_credentials (name, key_id, nonce, ciphertext) VALUES ('crm', 'kms-2026-01', 'in the clear', 'secret');
\set ON_ERROR_STOP on
\set must_be 23514 \ir ../../shared/refused.sql
ROLLBACK;
BEGIN;
SELECT set_tenant_by_slug('demo-works') AS demo;
\set ON_ERROR_STOP off
INSERT INTO api_credentials (name, key_id, nonce, ciphertext)
VALUES ('crm', 'kms-2026-01', '\x6f1d0c53a6b04c0f1e9d2a77', '\x8d4c1d7b52f7f0a3c99a1be0ff2d6a5d09e5b1f7c1f5a84fd3b1c7f2a0e6d4b85e');   -- a nonce twice
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
ROLLBACK;
\set ECHO none
