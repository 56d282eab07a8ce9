\connect - :operator

\echo
\echo '== 16. What the operator sees of all this'
\echo

\set ECHO queries
SELECT slug, plan, status, isolation, created_at::date FROM tenancy.tenant_overview ORDER BY slug;

SELECT coalesce(t.slug, r.tenant_id::text) AS tenant, r.refused_binds, r.tenant_mismatches, r.guard_refusals
FROM tenancy.refusals AS r LEFT JOIN tenancy.tenants AS t ON t.id = r.tenant_id
ORDER BY t.slug;

SELECT to_char(at, 'HH24:MI:SS') AS at, session_user_name AS who, action, target
FROM tenancy.audit_log WHERE tenant_id = :'initech' ORDER BY at, id;
\set ECHO none
SELECT bool_and(n > 0) AS holds FROM (
    SELECT count(*) AS n FROM tenancy.audit_log WHERE tenant_id = :'initech' AND action = 'tenant.purged'
    UNION ALL
    SELECT coalesce(sum(tenant_mismatches), 0) FROM tenancy.refusals WHERE tenant_id = :'globex') AS kept \gset
\set claim 'the purge is on record, and so are Globex''s attempts to write into Acme' \ir ../../shared/claim.sql

\connect - :app
\echo
\echo 'A tenant reads its own part of the log:'
\echo
\set ECHO queries
BEGIN;
SELECT set_tenant_by_slug('globex') AS globex;
SELECT to_char(at, 'HH24:MI:SS') AS at, action, after ->> 'status' AS status
FROM tenancy.audit_log ORDER BY at, id;
\set ECHO none
SELECT bool_and(tenant_id = :'globex') AND count(*) >= 5 AS holds FROM tenancy.audit_log \gset
COMMIT;
\set claim 'Globex finds only Globex there' \ir ../../shared/claim.sql
