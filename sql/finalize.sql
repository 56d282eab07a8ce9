-- The levels that roles hold, read off the EXECUTE rights themselves: the function named is the marker of its level.
CREATE VIEW tenancy.access AS
    WITH held AS (
        SELECT acl.grantee AS role_oid, coalesce(r.rolname, 'public') AS role, marker.level
        FROM (VALUES
                ('client', 'clear_tenant()'::regprocedure::oid),
                ('app', 'set_tenant(uuid, uuid)'::regprocedure::oid),
                ('monitor', 'tenancy.refused()'::regprocedure::oid),
                ('operator', 'update_tenant(uuid, text, text, text, jsonb)'::regprocedure::oid),
                ('admin', 'grant_access(regrole, text)'::regprocedure::oid)
             ) AS marker (level, function)
        JOIN pg_catalog.pg_proc p ON p.oid = marker.function
        CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) acl
        LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee
        WHERE acl.grantee <> p.proowner AND acl.privilege_type = 'EXECUTE'
    )
    SELECT role_oid, role, level FROM held
    WHERE NOT EXISTS (
        SELECT FROM held AS wider
        JOIN (VALUES ('client', 'app'), ('client', 'admin'), ('app', 'admin'),
                     ('monitor', 'operator'), ('monitor', 'admin'), ('operator', 'admin')) AS includes (narrow, wide)
          ON includes.wide = wider.level AND includes.narrow = held.level
        WHERE wider.role_oid = held.role_oid);
COMMENT ON VIEW tenancy.access IS
    'Which role holds which level; a level that another one of the role''s includes is not listed. Level admin.';

SELECT tenancy.seal();
