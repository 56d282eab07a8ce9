//! The roles of members. A role is a rank: who has one has all below it.

use crate::audit::{self, Entry};
use crate::context;
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::query;
use crate::scan::{Key, Table};
use pgrx::prelude::*;

pub const OWNER: &str = "owner";
pub const ADMIN: &str = "admin";
pub const ADMIN_RANK: i32 = 80;

/// Roles that need no creating; sql/access.sql shows the same. A table's rows would collide with dumped ones at restore.
const BUILT_IN: [(&str, i32); 4] = [(OWNER, 100), (ADMIN, ADMIN_RANK), ("member", 60), ("viewer", 40)];

/// Ranks of added roles: below the owner's.
const RANKS: std::ops::RangeInclusive<i32> = 1..=99;
const MAX_NAME: usize = 63;

/// Column numbers of `tenancy.added_roles`; sql/access.sql keeps them.
const ROLE: i16 = 1;
const RANK: i16 = 2;

static ADDED_ROLES: Table = Table::by(c"added_roles", c"added_roles_pkey");

const KEEP: &str = "SELECT rank FROM tenancy.added_roles WHERE role = $1 FOR KEY SHARE";
const INSERT: &str = "INSERT INTO tenancy.added_roles (role, rank) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const LOCK: &str = "SELECT rank FROM tenancy.added_roles WHERE role = $1 FOR UPDATE";
const IN_USE: &str = "SELECT true FROM tenancy.memberships WHERE role = $1
    UNION ALL SELECT true FROM tenancy.stored_invitations WHERE role = $1 AND accepted_at IS NULL AND revoked_at IS NULL
        AND expires_at > pg_catalog.clock_timestamp() LIMIT 1";
const DELETE: &str = "DELETE FROM tenancy.added_roles WHERE role = $1";

/// The rank of a role; None when there is no such role.
pub fn rank(role: &str) -> Result<Option<i32>> {
    if let Some((_, rank)) = BUILT_IN.iter().find(|(name, _)| *name == role) {
        return Ok(Some(*rank));
    }
    ADDED_ROLES.first(&[Key::text(ROLE, role)?])?.map(|row| row.must(RANK)).transpose()
}

/// The rank of a role that an argument names.
pub fn check(role: Option<&str>) -> Result<(&str, i32)> {
    let role = role.ok_or(Error::Null("role"))?;
    let rank = rank(role)?.ok_or_else(|| {
        Error::invalid(format!("role \"{role}\" does not exist"), "tenancy.roles lists them; add_role() adds one.")
    })?;
    Ok((role, rank))
}

/// Like [`check`], for a role that is to be given: it stays until the transaction ends.
pub fn check_and_keep(role: Option<&str>) -> Result<(&str, i32)> {
    let (role, rank) = check(role)?;
    if BUILT_IN.iter().any(|(name, _)| *name == role) {
        return Ok((role, rank));
    }
    query::returning(KEEP, &[role.into()], |row| row.must::<i32>(1))?
        .map(|rank| (role, rank))
        .ok_or_else(|| Error::invalid(format!("role \"{role}\" does not exist"), "It has just been removed."))
}

/// Adds a role between the others.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn add_role(role: Option<&str>, rank: Option<i32>) -> SqlResult<String> {
    let role = role.ok_or(Error::Null("role"))?;
    let rank = rank.ok_or(Error::Null("rank"))?;
    let well_formed = role.len() <= MAX_NAME
        && role.starts_with(|first: char| first.is_ascii_lowercase())
        && role.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !well_formed {
        return Err(Error::invalid(
            format!("role \"{role}\" is malformed"),
            "A role's name begins with a lower-case letter and has lower-case letters, digits and underscores, at most 63.",
        )
        .into());
    }
    if !RANKS.contains(&rank) {
        return Err(Error::invalid("a rank is from 1 to 99", "An owner's is 100.").into());
    }
    if BUILT_IN.iter().any(|(name, _)| *name == role) || query::run(INSERT, &[role.into(), rank.into()])? == 0 {
        return Err(Error::Duplicate("role", role.to_owned()).into());
    }
    audit::record(&Entry {
        action: "role.add",
        target: Some(role),
        after: Some(Object::new().number("rank", rank.unsigned_abs().into()).finish()),
        ..Entry::default()
    })?;
    Ok(role.to_owned())
}

/// Removes a role that nobody has.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn remove_role(role: Option<&str>) -> SqlResult<bool> {
    let role = role.ok_or(Error::Null("role"))?;
    query::refuse_old_snapshot("a role cannot be removed")?;
    if query::returning(LOCK, &[role.into()], |row| row.must::<i32>(1))?.is_none() {
        return Err(Error::Unknown("added role", role.to_owned()).into());
    }
    if !query::current_rows(IN_USE, &[role.into()], |row| row.must::<bool>(1))?.is_empty() {
        return Err(Error::State(format!("role \"{role}\" is in use"), "Give its members another one first.").into());
    }
    query::run(DELETE, &[role.into()])?;
    audit::record(&Entry { action: "role.remove", target: Some(role), ..Entry::default() })?;
    Ok(true)
}

/// Whether the principal has this role or one above it.
fn holds(role: Option<&str>) -> Result<bool> {
    let (_, wanted) = check(role)?;
    let own = context::grants().role.as_deref().map(rank).transpose()?.flatten();
    Ok(own.is_some_and(|own| own >= wanted))
}

/// The role of the principal in the bound tenant, or NULL.
#[pg_extern(stable, parallel_safe)]
fn current_member_role() -> Option<String> {
    context::grants().role
}

/// Whether the principal has at least this role.
#[pg_extern(stable, parallel_safe)]
fn has_role(role: Option<&str>) -> SqlResult<bool> {
    Ok(holds(role)?)
}

/// True when the principal has at least this role; raises otherwise.
#[pg_extern(stable, parallel_safe)]
fn require_role(role: Option<&str>) -> SqlResult<bool> {
    if holds(role)? { Ok(true) } else { Err(Error::MissingRole(role.unwrap_or_default().to_owned()).into()) }
}
