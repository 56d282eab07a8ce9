//! Roles that hold a level, and what would let them step around it.

use crate::error::{Error, Result};
use crate::level::Level;
use crate::query::{self, Row};
use pgrx::pg_sys;

/// What lets a role step around a level, and the statement that takes it away. `$1` is the role, `$2` whether the level is client.
///
/// A role counts as what it is and what it could become by SET ROLE, so memberships are followed whatever INHERIT says, and owning counts
/// as holding the right, since an owner can grant itself what was revoked. `via` is the role's own membership through which it
/// reaches another; the one that no REVOKE ends is the database owner's, in pg_database_owner.
const UNSAFE: &str = "WITH RECURSIVE memberships(member, roleid, granted) AS (
        SELECT member, roleid, true FROM pg_catalog.pg_auth_members
        UNION ALL SELECT datdba, 'pg_database_owner'::pg_catalog.regrole::oid, false
            FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    ), closure(oid, via, granted) AS (
        SELECT $1, NULL::oid, true
        UNION SELECT m.roleid, coalesce(c.via, m.roleid), CASE WHEN c.via IS NULL THEN m.granted ELSE c.granted END
            FROM memberships m JOIN closure c ON m.member = c.oid
    ), roles AS (
        SELECT r.*, pg_catalog.quote_ident(r.rolname) AS name, via IS NULL AS is_self, pg_catalog.quote_ident(s.rolname) AS subject,
               CASE WHEN via IS NULL THEN NULL
                    WHEN granted THEN pg_catalog.format('REVOKE %s FROM %I;', via::pg_catalog.regrole, s.rolname)
                    ELSE pg_catalog.format('ALTER DATABASE %I OWNER TO another_role;', pg_catalog.current_database()) END AS leave
        FROM closure JOIN pg_catalog.pg_roles r USING (oid) JOIN pg_catalog.pg_roles s ON s.oid = $1
    ), grants(privilege, object, grantee, owner, client_only) AS (
        SELECT a.privilege_type, pg_catalog.format('DATABASE %I', d.datname), a.grantee, d.datdba, true
        FROM pg_catalog.pg_database d, pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
        WHERE d.datname = pg_catalog.current_database() AND a.privilege_type IN ('TEMPORARY', 'CREATE')
        UNION ALL
        SELECT a.privilege_type, pg_catalog.format('SCHEMA %I', n.nspname), a.grantee, n.nspowner, true
        FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND a.privilege_type = 'CREATE'
        UNION ALL
        SELECT 'CREATE', pg_catalog.format('DATABASE %I', datname), datdba, datdba, true
        FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
        UNION ALL
        SELECT 'CREATE', pg_catalog.format('SCHEMA %I', nspname), nspowner, nspowner, true
        FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        UNION ALL
        SELECT a.privilege_type, 'PARAMETER ' || p.parname, a.grantee, 0, false
        FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) a
        WHERE p.parname LIKE 'tenancy.%' AND a.privilege_type = 'SET'
    ), schemas AS (
        SELECT n.* FROM pg_catalog.pg_seclabel s JOIN pg_catalog.pg_namespace n ON n.oid = s.objoid
        WHERE s.provider = 'pg_tenancy' AND s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
    ), owned(owner, object) AS (
        SELECT nspowner, pg_catalog.quote_ident(nspname) FROM schemas
        UNION ALL SELECT c.relowner, pg_catalog.format('%I.%I', s.nspname, c.relname) FROM pg_catalog.pg_class c JOIN schemas s ON s.oid = c.relnamespace
        UNION ALL SELECT p.proowner, pg_catalog.format('%I.%I', s.nspname, p.proname) FROM pg_catalog.pg_proc p JOIN schemas s ON s.oid = p.pronamespace
    )
    SELECT DISTINCT CASE WHEN is_self THEN 'it ' ELSE 'it is a member of ' || name || ', which ' END || reason, coalesce(leave, remedy)
    FROM roles, LATERAL (VALUES
        (rolsuper, 'is a superuser', pg_catalog.format('ALTER ROLE %s NOSUPERUSER;', name)),
        (rolbypassrls, 'has BYPASSRLS', pg_catalog.format('ALTER ROLE %s NOBYPASSRLS;', name)),
        (rolcreaterole, 'has CREATEROLE', pg_catalog.format('ALTER ROLE %s NOCREATEROLE;', name)),
        (rolreplication, 'has REPLICATION', pg_catalog.format('ALTER ROLE %s NOREPLICATION;', name)),
        (rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'), 'reaches the server''s files', NULL)
    ) AS attribute (holds, reason, remedy)
    WHERE holds
    UNION ALL
    SELECT DISTINCT CASE WHEN is_self THEN 'it owns' ELSE 'it is a member of ' || name || ', which owns' END || ' protected table '
               || c.oid::pg_catalog.regclass::text,
           coalesce(leave, pg_catalog.format('ALTER TABLE %s OWNER TO another_role;', c.oid::pg_catalog.regclass))
    FROM roles JOIN pg_catalog.pg_class c ON c.relowner = roles.oid
    WHERE c.oid IN (SELECT table_name::oid FROM tenancy.protected_tables)
    UNION ALL
    SELECT CASE WHEN is_self THEN 'it owns' ELSE 'it is a member of ' || name || ', which owns' END || ' what is in schemas of tenants: '
               || min(object) || CASE WHEN count(*) > 1 THEN pg_catalog.format(' and %s more', count(*) - 1) ELSE '' END,
           coalesce(leave, pg_catalog.format('REASSIGN OWNED BY %s TO another_role;', name))
    FROM roles JOIN owned ON owner = roles.oid GROUP BY is_self, name, leave
    UNION ALL
    SELECT DISTINCT CASE WHEN grantee = 0 THEN 'it, like everyone, ' WHEN is_self THEN 'it ' ELSE 'it is a member of ' || name || ', which ' END
               || CASE privilege WHEN 'TEMPORARY' THEN 'may create temporary tables, which a pooled session keeps for the next tenant'
                                 WHEN 'SET' THEN 'may set ' || object
                                 ELSE CASE WHEN object LIKE 'DATABASE %' THEN 'may create schemas in ' ELSE 'may create objects in ' END || object END,
           CASE WHEN grantee = 0 THEN pg_catalog.format('REVOKE %s ON %s FROM PUBLIC;', privilege, object)
                WHEN is_self AND owner = roles.oid THEN pg_catalog.format('ALTER %s OWNER TO another_role;', object)
                ELSE coalesce(leave, pg_catalog.format('REVOKE %s ON %s FROM %s;', privilege, object, name)) END
    FROM grants JOIN roles ON grantee = roles.oid OR grantee = 0 AND is_self
    WHERE ($2 OR NOT client_only) AND NOT rolsuper
    UNION ALL
    SELECT DISTINCT pg_catalog.format('it is a member of %s, which has level %s', name, a.level), leave
    FROM roles JOIN tenancy.access a ON a.role_oid = roles.oid
    WHERE $2 AND NOT is_self AND a.level <> 'client'";

/// Roles that hold client or app.
const HOLDERS: &str = "SELECT role_oid, pg_catalog.quote_ident(role), level FROM tenancy.access WHERE level IN ('client', 'app') AND role_oid <> 0";

/// Fails when `role` could step around `level`: a superuser, an owner of a protected table or of a tenant's schema, and so on.
pub fn refuse_unsafe(role: pg_sys::Oid, name: &str, level: Level) -> Result<()> {
    if !matches!(level, Level::Client | Level::App) {
        return Ok(());
    }
    let map = |row: &Row| Ok((row.must(1)?, row.get::<String>(2)?));
    let found: Vec<(String, Option<String>)> =
        query::rows(UNSAFE, &[role.into(), (level == Level::Client).into()], map)?;
    if found.is_empty() {
        return Ok(());
    }
    let (reasons, remedies): (Vec<String>, Vec<Option<String>>) = found.into_iter().unzip();
    let mut remedies: Vec<String> = remedies.into_iter().flatten().collect();
    remedies.dedup();
    Err(Error::UnsafeRole { role: name.to_owned(), level: level.name().to_owned(), reasons, remedies })
}

/// Fails when a role that holds client or app could step around it, now that another table is protected or another schema is a tenant's.
pub fn refuse_all_unsafe() -> Result<()> {
    let holders: Vec<(pg_sys::Oid, String, String)> =
        query::rows(HOLDERS, &[], |row| Ok((row.must(1)?, row.must(2)?, row.must(3)?)))?;
    for (role, name, held) in holders {
        if let Some(level) = Level::from_name(&held) {
            refuse_unsafe(role, &name, level)?;
        }
    }
    Ok(())
}
