//! Giving and taking levels, and the reasons to refuse a role.

use super::{functions, relations};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::extension;
use crate::json::Object;
use crate::level::Level;
use crate::query::{self, Row};
use crate::sqltype::RegRole;
use pgrx::pg_sys;
use pgrx::prelude::*;

const ROLE_NAME: &str = "SELECT pg_catalog.quote_ident(rolname) FROM pg_catalog.pg_roles WHERE oid = $1";
const LEVELS_OF: &str = "SELECT level FROM tenancy.access WHERE role_oid = $1";

/// What lets a role step around a level, and the statement that takes it away. `$1` is the role, `$2` whether the level is client.
///
/// A role counts as what it is and what it could become by SET ROLE, so memberships are followed whatever INHERIT says.
const UNSAFE: &str = "WITH RECURSIVE memberships(member, roleid) AS (
        SELECT member, roleid FROM pg_catalog.pg_auth_members
        UNION ALL SELECT datdba, 'pg_database_owner'::pg_catalog.regrole::oid
            FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    ), closure(oid) AS (
        SELECT $1 UNION SELECT m.roleid FROM memberships m JOIN closure c ON m.member = c.oid
    ), roles AS (
        SELECT r.*, pg_catalog.quote_ident(r.rolname) AS name, r.oid = $1 AS is_self,
               (SELECT pg_catalog.quote_ident(s.rolname) FROM pg_catalog.pg_roles s WHERE s.oid = $1) AS subject
        FROM closure JOIN pg_catalog.pg_roles r USING (oid)
    )
    SELECT CASE WHEN is_self THEN 'it ' ELSE 'it is a member of ' || name || ', which ' END || reason,
           CASE WHEN is_self THEN remedy ELSE pg_catalog.format('REVOKE %s FROM %s;', name, subject) END
    FROM roles, LATERAL (VALUES
        (rolsuper, 'is a superuser', pg_catalog.format('ALTER ROLE %s NOSUPERUSER;', name)),
        (rolbypassrls, 'has BYPASSRLS', pg_catalog.format('ALTER ROLE %s NOBYPASSRLS;', name)),
        (rolcreaterole, 'has CREATEROLE', pg_catalog.format('ALTER ROLE %s NOCREATEROLE;', name)),
        (rolreplication, 'has REPLICATION', pg_catalog.format('ALTER ROLE %s NOREPLICATION;', name)),
        (rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'), 'reaches the server''s files', NULL)
    ) AS attribute (holds, reason, remedy)
    WHERE holds
    UNION ALL
    SELECT pg_catalog.format('it %s protected table %s', CASE WHEN is_self THEN 'owns' ELSE 'is a member of ' || name || ', the owner of' END, c.oid::pg_catalog.regclass),
           CASE WHEN is_self THEN pg_catalog.format('ALTER TABLE %s OWNER TO another_role;', c.oid::pg_catalog.regclass)
                ELSE pg_catalog.format('REVOKE %s FROM %s;', name, subject) END
    FROM roles JOIN pg_catalog.pg_class c ON c.relowner = roles.oid
    WHERE c.oid IN (SELECT table_name::oid FROM tenancy.protected_tables)
    UNION ALL
    SELECT pg_catalog.format('it may set %I', parname), pg_catalog.format('REVOKE ALL ON PARAMETER %s FROM PUBLIC, %s;', parname, subject)
    FROM roles, pg_catalog.pg_parameter_acl
    WHERE is_self AND NOT rolsuper AND parname LIKE 'tenancy.%' AND pg_catalog.has_parameter_privilege($1, parname, 'SET')
    UNION ALL
    SELECT 'it may create temporary tables, which a pooled session keeps for the next tenant',
           pg_catalog.format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC, %s;', pg_catalog.current_database(), subject)
    FROM roles WHERE is_self AND $2 AND pg_catalog.has_database_privilege($1, pg_catalog.current_database(), 'TEMPORARY')
    UNION ALL
    SELECT pg_catalog.format('it may create objects in schema %I', n.nspname),
           pg_catalog.format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %s;', n.nspname, subject)
    FROM roles, pg_catalog.pg_namespace n
    WHERE is_self AND $2 AND n.nspname !~ '^pg_' AND pg_catalog.has_schema_privilege($1, n.oid, 'CREATE')
      AND NOT rolsuper";

/// Roles that hold client or app.
const HOLDERS: &str = "SELECT role_oid, level FROM tenancy.access WHERE level IN ('client', 'app') AND role_oid <> 0";

fn level(name: Option<&str>) -> Result<Level> {
    let name = name.ok_or(Error::Null("level"))?;
    Level::GRANTABLE.into_iter().find(|level| level.name() == name).ok_or_else(|| {
        Error::invalid(format!("\"{name}\" is not a level"), "Levels are client, app, monitor, operator and admin.")
    })
}

fn role_name(role: Option<RegRole>) -> Result<(pg_sys::Oid, String)> {
    let RegRole(oid) = role.ok_or(Error::Null("role"))?;
    let name = query::value(ROLE_NAME, &[oid.into()])?.ok_or_else(|| Error::Unknown("role", oid.to_string()))?;
    Ok((oid, name))
}

/// Fails when `role` could step around `level`: a superuser, an owner of a protected table, and so on.
fn refuse_unsafe(role: pg_sys::Oid, name: &str, level: Level) -> Result<()> {
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

/// Fails when a role that holds client or app could step around it, now that another table is protected.
pub fn refuse_unsafe_holders() -> Result<()> {
    let holders: Vec<(pg_sys::Oid, String)> = query::rows(HOLDERS, &[], |row| Ok((row.must(1)?, row.must(2)?)))?;
    for (role, held) in holders {
        let (role, name) = role_name(Some(RegRole(role)))?;
        refuse_unsafe(role, &name, level(Some(&held))?)?;
    }
    Ok(())
}

/// GRANT or REVOKE, for every function and relation that `wanted` picks.
fn change_grants(verb: &str, preposition: &str, role: &str, wanted: impl Fn(Level) -> bool) -> Result<()> {
    let wanted_name = |name: &str| functions().any(|(level, known)| known == name && wanted(level));
    for function in extension::functions()?.into_iter().filter(|function| wanted_name(&function.name)) {
        query::statement(&format!("{verb} EXECUTE ON {} {preposition} {role}", function.object), &[])?;
    }
    for (_, relation) in relations().filter(|(level, _)| wanted(*level)) {
        query::statement(&format!("{verb} SELECT ON {relation} {preposition} {role}"), &[])?;
    }
    query::statement(&format!("{verb} USAGE ON SCHEMA tenancy {preposition} {role}"), &[])?;
    let schema = extension::schema()?;
    if schema != "public" {
        query::statement(&format!("{verb} USAGE ON SCHEMA {schema} {preposition} {role}"), &[])?;
    }
    Ok(())
}

/// Gives a role a level of authority.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn grant_access(role: Option<RegRole>, level: Option<&str>) -> SqlResult<bool> {
    let level = self::level(level)?;
    let (role, name) = role_name(role)?;
    refuse_unsafe(role, &name, level)?;
    change_grants("GRANT", "TO", &name, |wanted| level.includes(wanted))?;
    audit::record(&Entry {
        action: "access.grant",
        target: Some(&name),
        after: Some(Object::new().text("level", level.name()).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Takes every level from a role; false when it held none.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_access(role: Option<RegRole>) -> SqlResult<bool> {
    let (role, name) = role_name(role)?;
    let held: Vec<String> = query::rows(LEVELS_OF, &[role.into()], |row| row.must(1))?;
    change_grants("REVOKE", "FROM", &name, |level| Level::Admin.includes(level))?;
    if held.is_empty() {
        return Ok(false);
    }
    audit::record(&Entry {
        action: "access.revoke",
        target: Some(&name),
        before: Some(Object::new().texts("levels", held.iter().map(String::as_str)).finish()),
        ..Entry::default()
    })?;
    Ok(true)
}
