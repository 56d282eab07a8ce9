-- Rows of every tenant. Only a role that bypasses row security gets this answer.
SELECT t.slug, t.status,
       (SELECT count(*) FROM users AS u WHERE u.tenant_id = t.id) AS users,
       (SELECT count(*) FROM agents AS a WHERE a.tenant_id = t.id) AS agents,
       (SELECT count(*) FROM workflows AS w WHERE w.tenant_id = t.id) AS workflows,
       (SELECT count(*) FROM workflow_executions AS e WHERE e.tenant_id = t.id) AS executions
FROM tenancy.tenants AS t
ORDER BY t.slug;
