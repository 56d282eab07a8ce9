\connect - :operator

\echo
\echo '== 16. What the operator sees of all this'
\echo
\set ECHO queries
SELECT slug, plan, status, isolation FROM tenancy.tenant_overview ORDER BY slug;
SELECT to_char(at, 'HH24:MI:SS') AS at, session_user_name AS who, action, after ->> 'status' AS status
FROM tenancy.audit_log WHERE tenant_id = :'acme' AND action LIKE 'subscription.%' ORDER BY at, id;
\set ECHO none
SELECT count(*) >= 5 AS holds FROM tenancy.audit_log WHERE tenant_id = :'acme' AND action = 'subscription.set' \gset
\set claim 'what the billing system said is on record' \ir ../../shared/claim.sql
\connect - :admin
SELECT count(*) = 0 AS holds FROM verify_limits() \gset
\set claim 'and every counter is the number of rows' \ir ../../shared/claim.sql
