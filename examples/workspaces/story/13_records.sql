\connect - :operator

\echo
\echo '== 17. What the operator sees of all this'
\echo
\set ECHO queries
SELECT credential, prefix, reason, attempts FROM tenancy.failed_attempts ORDER BY 1, 2 NULLS FIRST, 3;

SELECT to_char(a.at, 'HH24:MI:SS') AS at, u.email AS who, a.action, a.after ->> 'role' AS role
FROM tenancy.audit_log AS a LEFT JOIN tenancy.users AS u ON u.id = (a.principal ->> 'user_id')::uuid
WHERE a.tenant_id = :'acme' AND a.action LIKE 'member.%' ORDER BY a.at, a.id;
\set ECHO none
SELECT count(*) FILTER (WHERE action = 'invitation.accept') = 2 AND count(*) FILTER (WHERE action = 'api_key.create') = 2
       AND bool_and(coalesce(a::text, '') NOT LIKE '%' || :'bob_key' || '%') AS holds
FROM tenancy.audit_log AS a WHERE tenant_id = :'acme' \gset
\set claim 'who did what is on record, without a credential in it' \ir ../../shared/claim.sql
