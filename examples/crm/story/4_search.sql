\connect - :dba
\ir ../../shared/explained.sql

\echo
\echo '== 6. Search: no row security is in the way, and every index serves as it would for one tenant'
\echo
\set ECHO queries
SELECT * FROM maintenance_commands('ANALYZE', :'acme') LIMIT 3;
\set ECHO none
\echo 'So for all tenants, by psql''s gexec:'
\echo
SELECT * FROM maintenance_commands('ANALYZE') \gexec

\connect - :app
\set subdomain acme
\ir ../request.sql
\set ECHO queries
SELECT full_name, email FROM contacts
WHERE to_tsvector('simple', first_name || ' ' || last_name || ' ' || coalesce(email::text, '')) @@ to_tsquery('simple', 'ivanova & ma:*')
ORDER BY id;
EXPLAIN (COSTS off) SELECT full_name, email FROM contacts
WHERE to_tsvector('simple', first_name || ' ' || last_name || ' ' || coalesce(email::text, '')) @@ to_tsquery('simple', 'ivanova & ma:*');
\set ECHO none
SELECT string_agg(line, ' ') LIKE '%Bitmap Index Scan on contacts_search_idx%' AS holds FROM explained($$
    SELECT full_name FROM contacts
    WHERE to_tsvector('simple', first_name || ' ' || last_name || ' ' || coalesce(email::text, '')) @@ to_tsquery('simple', 'ivanova & ma:*')
$$) AS line \gset
\set claim 'full-text search goes by its index' \ir ../../shared/claim.sql
SELECT string_agg(line, ' ') LIKE '%contacts_last_name_idx%' AS holds
FROM explained($$SELECT full_name FROM contacts WHERE last_name LIKE 'Ivan%'$$) AS line \gset
\set claim 'so does LIKE' \ir ../../shared/claim.sql
SELECT string_agg(line, ' ') LIKE '%contacts_custom_fields_idx%' AS holds
FROM explained($$SELECT full_name FROM contacts WHERE custom_fields @> '{"customer number": 1007}'$$) AS line \gset
\set claim 'and jsonb' \ir ../../shared/claim.sql
SELECT string_agg(line, ' ') NOT LIKE '%current_tenant%' AND string_agg(line, ' ') NOT LIKE '%Filter%' AS holds
FROM explained($$SELECT sum(value) FROM deals$$) AS line \gset
\set claim 'no plan has a filter that the query does not have' \ir ../../shared/claim.sql
COMMIT;
