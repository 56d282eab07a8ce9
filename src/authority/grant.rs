//! Giving and taking levels.

use super::{functions, relations};
use crate::audit::{self, Entry};
use crate::database::state;
use crate::error::{Error, Result, SqlResult};
use crate::extension;
use crate::holder;
use crate::json::Object;
use crate::level::Level;
use crate::query;
use crate::sqltype::RegRole;
use pgrx::pg_sys;
use pgrx::prelude::*;

const ROLE_NAME: &str = "SELECT pg_catalog.quote_ident(rolname) FROM pg_catalog.pg_roles WHERE oid = $1";
const LEVELS_OF: &str = "SELECT level FROM tenancy.access WHERE role_oid = $1";

fn level(name: Option<&str>) -> Result<Level> {
    let name = name.ok_or(Error::Null("level"))?;
    Level::from_name(name).ok_or_else(|| {
        Error::invalid(format!("\"{name}\" is not a level"), "Levels are client, app, monitor, operator and admin.")
    })
}

fn role_name(role: Option<RegRole>) -> Result<(pg_sys::Oid, String)> {
    let RegRole(oid) = role.ok_or(Error::Null("role"))?;
    let name = query::value(ROLE_NAME, &[oid.into()])?.ok_or_else(|| Error::Unknown("role", oid.to_string()))?;
    Ok((oid, name))
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
    state::refuse_at_home()?;
    holder::refuse_unsafe(role, &name, level)?;
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
    state::refuse_at_home()?;
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
