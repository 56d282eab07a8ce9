\connect - :app
\set subdomain globex
\ir ../request.sql
UPDATE companies SET website = 'globex' WHERE id = 1;
COMMIT;

\connect - :admin
\echo
\echo '== 7. A change of the template reaches every tenant'
\echo
\echo 'First the template, then Initech, whose metadata say staging, then the others, each in a transaction of its own.'
\echo
\set ECHO queries
SELECT add_migration('crm', '002', $$
    ALTER TABLE contacts ADD COLUMN lifecycle text NOT NULL DEFAULT 'lead' CHECK (lifecycle IN ('lead', 'customer', 'former'));
    UPDATE contacts SET lifecycle = 'customer' WHERE id IN (SELECT contact_id FROM deals WHERE stage = 'won');
    INSERT INTO schema_migrations (version) VALUES ('002');
$$, 'lifecycle of contacts',
    down_sql => $$ALTER TABLE contacts DROP COLUMN lifecycle; DELETE FROM schema_migrations WHERE version = '002'$$,
    verify_sql => $$SELECT NOT EXISTS (SELECT FROM contacts AS c JOIN deals AS d ON d.contact_id = c.id WHERE d.stage = 'won' AND c.lifecycle = 'lead')$$);
SELECT add_migration('crm', '003', $$
    ALTER TABLE companies ADD CONSTRAINT companies_website_check CHECK (website ~ '^https?://');
    INSERT INTO schema_migrations (version) VALUES ('003');
$$, 'websites are addresses');
CALL migrate_tenants('crm', canary => '{"stage": "staging"}');
\connect - :operator
\set ECHO queries
SELECT coalesce(slug, 'the template') AS tenant, version, status, attempts, sqlstate FROM tenancy.migration_status WHERE template = 'crm' ORDER BY slug NULLS FIRST, version;
\set ECHO none
SELECT count(*) FILTER (WHERE status = 'applied') = 7 AND count(*) = 8
       AND bool_and(slug = 'globex' AND version = '003' AND sqlstate = '23514' AND attempts >= 1) FILTER (WHERE status = 'failed') AS holds
FROM tenancy.migration_status WHERE template = 'crm' \gset
\set claim 'Globex has a website that is none, is told so and stays as it was; the others have gone on' \ir ../../shared/claim.sql

\connect - :app
\echo
\echo 'The backend finds what is wrong, and puts it right; the second call does what is left:'
\echo
\set subdomain globex
\ir ../request.sql
\set ECHO queries
UPDATE companies SET website = 'https://' || website || '.example' WHERE website !~ '^https?://' RETURNING id, website;
COMMIT;
\set ECHO none
\connect - :admin
\set ECHO queries
CALL migrate_tenants('crm');
\set ECHO none
\connect - :operator
SELECT count(*) = 8 AND bool_and(status = 'applied') AS holds FROM tenancy.migration_status WHERE template = 'crm' \gset
\set claim 'every tenant has every migration' \ir ../../shared/claim.sql
\connect - :app
\ir ../request.sql
\set ECHO queries
SELECT lifecycle, count(*) FROM contacts GROUP BY lifecycle ORDER BY lifecycle;
SELECT version FROM schema_migrations ORDER BY version;
\set ECHO none
SELECT array_agg(version ORDER BY version) = '{001,002,003}' AS holds FROM schema_migrations \gset
COMMIT;
\set claim 'the application''s own table of versions says the same' \ir ../../shared/claim.sql

\connect - :admin
\echo
\echo 'What has been applied is not edited; and a tenant that comes later begins where the template is:'
\echo
\set ON_ERROR_STOP off
\set ECHO queries
SELECT add_migration('crm', '002', 'ALTER TABLE contacts ADD COLUMN lifecycle integer');
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 55000 \ir ../../shared/refused.sql
\connect - :operator
\set name Hooli \set subdomain hooli \set metadata '{}' \set email hedda@hooli.example \set first Hedda \set last Haddad
\ir ../provision.sql
SELECT :'tenant' AS hooli \gset
\connect - :app
\set subdomain hooli
\ir ../request.sql
SELECT (SELECT count(*) FROM contacts WHERE lifecycle = 'lead') = 0 AND array_agg(version ORDER BY version) = '{001,002,003}' AS holds FROM schema_migrations \gset
COMMIT;
\set claim 'Hooli is born with version 003' \ir ../../shared/claim.sql
\connect - :admin
\set ECHO queries
CALL migrate_tenants('crm');   -- nothing to do
\set ECHO none
