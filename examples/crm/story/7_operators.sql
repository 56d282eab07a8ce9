\connect - :operator
\echo
\echo '== 9. What operators see over all tenants: numbers, no rows'
\echo
\set ECHO queries
SELECT slug, max(row_count) FILTER (WHERE table_name = 'users') AS users, max(row_count) FILTER (WHERE table_name = 'contacts') AS contacts,
       max(row_count) FILTER (WHERE table_name = 'deals') AS deals, pg_size_pretty(sum(table_bytes)) AS tables, pg_size_pretty(sum(index_bytes)) AS indexes
FROM tenant_statistics(exact => true) GROUP BY slug ORDER BY slug;
SELECT table_name, sum(row_count) AS rows FROM tenant_statistics(exact => true) WHERE table_name IN ('users', 'contacts', 'deals') GROUP BY 1 ORDER BY 1;
\set ECHO none
SELECT sum(row_count) FILTER (WHERE table_name = 'users') = 16 AND sum(row_count) FILTER (WHERE table_name = 'contacts') = 940
   AND sum(row_count) FILTER (WHERE table_name = 'deals') = 190 AND sum(row_count) FILTER (WHERE table_name = 'deals' AND slug = 'acme') = 120
   AND bool_and(table_bytes >= 0 AND index_bytes >= 0) AND count(DISTINCT slug) = 4 AS holds
FROM tenant_statistics(exact => true) \gset
\set claim 'users, contacts and deals of each tenant, and their totals' \ir ../../shared/claim.sql
\set ON_ERROR_STOP off
\set ECHO queries
SELECT full_name FROM tenant_acme.contacts;
\set ECHO none
\set ON_ERROR_STOP on
\set must_be 42501 \ir ../../shared/refused.sql
\set ECHO queries
SELECT table_name, sequential_scans, index_scans FROM tenant_statistics() WHERE slug = 'acme' AND table_name IN ('contacts', 'deals') ORDER BY 1;
SELECT * FROM maintenance_commands('REINDEX', :'globex') LIMIT 2;
\set ECHO none
