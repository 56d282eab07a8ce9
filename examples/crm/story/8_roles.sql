\connect - :readonly
\echo
\echo '== 10. The other roles: reports may read, backups may read everything, neither writes'
\echo
\set ON_ERROR_ROLLBACK on
\set subdomain acme
\ir ../request.sql
\set ECHO queries
SELECT u.first_name, count(*) AS deals, sum(d.value) AS value FROM deals AS d JOIN users AS u ON u.id = d.owner_id GROUP BY 1 ORDER BY 3 DESC;
\set ON_ERROR_STOP off
UPDATE deals SET value = 0;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
INSERT INTO contacts (first_name, last_name) VALUES ('Mole', 'Mole');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT nextval('deals_id_seq');
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT password_hash FROM users;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ON_ERROR_STOP off
SELECT count(*) FROM tenant_globex.deals;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
COMMIT;
\set ECHO none
\set ON_ERROR_ROLLBACK off
\connect - :backup
\echo 'The backup role is bound to nobody: tools/tenant-backup.sh acme DIRECTORY works as it, and so do these:'
\echo
\set ECHO queries
SELECT (SELECT count(*) FROM tenant_acme.deals) AS acme, (SELECT count(*) FROM tenant_globex.deals) AS globex;
\set ON_ERROR_STOP off
DELETE FROM tenant_acme.deals;
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO none
SELECT (SELECT count(*) FROM tenant_acme.deals) = 120 AND (SELECT count(*) FROM tenant_globex.deals) = 60 AS holds \gset
\set claim 'all is there to be dumped' \ir ../../shared/claim.sql
