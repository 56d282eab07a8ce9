\connect - :dba
\echo
\echo '== 8. Drift: somebody made an index for Acme by hand'
\echo
\set ECHO queries
CREATE INDEX contacts_phone_idx ON tenant_acme.contacts (phone);
\set ECHO none
\connect - :operator
\set ECHO queries
SELECT slug, kind, object, difference FROM tenancy.schema_drift WHERE template = 'crm';
\set ECHO none
SELECT count(*) = 1 AND bool_and(slug = 'acme' AND difference = 'extra' AND object LIKE '%contacts_phone_idx%') AS holds FROM tenancy.schema_drift \gset
\set claim 'the index is reported, and nothing else' \ir ../../shared/claim.sql
\echo
SELECT object FROM tenancy.schema_drift \gset
\connect - :admin
\echo 'It was meant:'
\echo
\set ECHO queries
SELECT allow_schema_drift(:'acme', :'object', 'Acme looks contacts up by telephone');
\set ECHO none
\connect - :operator
SELECT count(*) = 0 AS holds FROM tenancy.schema_drift \gset
\set claim 'declared so, it is no drift' \ir ../../shared/claim.sql
