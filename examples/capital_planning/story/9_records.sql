\connect - :operator
\echo
\echo '== 12. All of this is on record'
\echo
\set ECHO queries
SELECT coalesce(t.slug, '-') AS tenant, to_char(a.at, 'HH24:MI:SS') AS at, a.session_user_name AS who, a.action, a.target
FROM tenancy.audit_log AS a LEFT JOIN tenancy.tenants AS t ON t.id = a.tenant_id
WHERE a.tenant_id IN (:'cascade', :'copy') ORDER BY a.at, a.id;
SELECT slug, count(*) AS tables, pg_size_pretty(sum(table_bytes + index_bytes)) AS size FROM tenant_statistics() GROUP BY slug ORDER BY slug;
\set ECHO none
SELECT count(*) FILTER (WHERE tenant_id = :'cascade') >= 5 AND count(*) FILTER (WHERE tenant_id = :'copy') >= 3
   AND count(*) FILTER (WHERE action = 'tenant.delete') = 1 AND count(*) FILTER (WHERE action = 'tenant.restore') = 1 AS holds
FROM tenancy.audit_log WHERE tenant_id IN (:'cascade', :'copy') \gset
\set claim 'created, deleted, restored, cloned, dropped: who, when, what' \ir ../../shared/claim.sql
