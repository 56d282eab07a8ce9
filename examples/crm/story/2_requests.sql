\connect - :app

\echo
\echo '== 4. A request: the subdomain names the tenant, the SQL names none'
\echo
\set subdomain acme
\set ECHO queries
\ir ../request.sql
SHOW search_path;
SELECT stage, deals, value, weighted_value FROM pipeline ORDER BY position;
\set ECHO none
SELECT sum(deals) = 120 AND count(*) = 6 AS holds FROM pipeline \gset
\set claim 'Acme sees its 120 deals, in the six stages that came with the template' \ir ../../shared/claim.sql
\echo
\set ON_ERROR_ROLLBACK on
\echo 'Foreign keys, checks, generated columns, triggers and sequences are the copy''s own:'
\echo
\set ECHO queries
SELECT pg_get_serial_sequence('deals', 'id') AS deals, pg_get_serial_sequence('activities', 'id') AS activities;
INSERT INTO deals (title, value, probability, stage, contact_id, owner_id) VALUES ('Big one', 10000, 75, 'negotiation', 1, 2) RETURNING id, weighted_value;
\set ON_ERROR_STOP off
INSERT INTO deals (title, contact_id) VALUES ('Of nobody', 601);
\set ON_ERROR_STOP on
\set must_be 23503 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
UPDATE deals SET probability = 101 WHERE title = 'Big one';
\set ON_ERROR_STOP on
\set must_be 23514 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
INSERT INTO deal_contacts (deal_id, contact_id) SELECT deal_id, contact_id FROM deal_contacts LIMIT 1;
\set ON_ERROR_STOP on
\set must_be 23505 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
UPDATE deals SET stage = 'wishful thinking' WHERE title = 'Big one';
\set ON_ERROR_STOP on
\set must_be 23503 \ir ../../shared/refused.sql
DELETE FROM users WHERE id = 2;
\set ECHO none
SELECT id = 121 AND weighted_value = 7500.00 AND owner_id IS NULL AND updated_at = now() AND created_at = now() AS holds
FROM deals WHERE title = 'Big one' \gset
\set claim 'the deal is the 121st of Acme alone, and lost its owner with the user' \ir ../../shared/claim.sql
SELECT pg_get_serial_sequence('deals', 'id') = 'tenant_acme.deals_id_seq'
   AND pg_get_serial_sequence('activities', 'id') = 'tenant_acme.activities_id_seq' AS holds \gset
\set claim 'its numbers come from sequences of Acme''s schema' \ir ../../shared/claim.sql
ROLLBACK;
\set ON_ERROR_ROLLBACK off

\echo
\echo 'The same text as Globex, which has 60:'
\echo
\set subdomain globex
\ir ../request.sql
\set ECHO queries
SELECT stage, deals, value, weighted_value FROM pipeline ORDER BY position;
\set ECHO none
SELECT sum(deals) = 60 AND (SELECT max(id) FROM deals) = 60 AS holds FROM pipeline \gset
COMMIT;
\set claim 'another answer, and numbers that begin at 1' \ir ../../shared/claim.sql

\connect - :dba
SELECT bool_and(NOT EXISTS (SELECT FROM crm_template.users) AND is_called = false) AS holds FROM crm_template.deals_id_seq \gset
\set claim 'the template has been used for nothing but copying' \ir ../../shared/claim.sql
