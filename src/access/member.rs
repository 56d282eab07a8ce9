//! Who belongs to the bound tenant, and as what.

use super::actor::{self, Members};
use super::{api_key, role};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::query;
use pgrx::Uuid;
use pgrx::prelude::*;

const USER: &str = "SELECT tenant_id FROM tenancy.users WHERE id = $1 FOR KEY SHARE";
const INSERT: &str =
    "INSERT INTO tenancy.memberships (tenant_id, user_id, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const UPDATE: &str =
    "UPDATE tenancy.memberships SET role = $3, updated_at = pg_catalog.now() WHERE tenant_id = $1 AND user_id = $2";
const DELETE: &str = "DELETE FROM tenancy.memberships WHERE tenant_id = $1 AND user_id = $2";

/// Keeps a user there, if there is such a user, until the transaction ends; the user's home tenant. Everywhere users are locked before members,
/// and members before invitations and keys, so that nobody waits in a circle.
pub fn keep_user(user: Uuid) -> Result<Option<Option<Uuid>>> {
    query::returning(USER, &[user.into()], |row| row.get::<Uuid>(1))
}

/// Makes a user a member. One at home in another tenant does not exist for this one.
pub fn insert(tenant: Uuid, user: Uuid, role: &str) -> Result<()> {
    let home = keep_user(user)?;
    if home.is_none_or(|home| home.is_some_and(|home| home != tenant)) {
        return Err(Error::Unknown("user", user.to_string()));
    }
    if query::run(INSERT, &[tenant.into(), user.into(), role.into()])? == 0 {
        return Err(Error::Duplicate("member", user.to_string()));
    }
    let user = user.to_string();
    audit::record(&Entry {
        action: "member.add",
        tenant: Some(tenant),
        target: Some(&user),
        after: Some(Object::new().text("role", role).finish()),
        ..Entry::default()
    })
}

/// Makes a user a member of the bound tenant.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn add_member(user_id: Option<Uuid>, role: default!(Option<&str>, "'member'")) -> SqlResult<Uuid> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    let (role, rank) = role::check_and_keep(role)?;
    let tenant = actor::tenant_for_writing()?;
    keep_user(user)?;
    let members = Members::keep(tenant, &[])?;
    members.may_give(role, rank)?;
    insert(members.tenant(), user, role)?;
    Ok(user)
}

/// Gives a member of the bound tenant another role; false when they have it already.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn change_role(user_id: Option<Uuid>, role: Option<&str>) -> SqlResult<bool> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    let (role, rank) = role::check_and_keep(role)?;
    let members = Members::lock(actor::tenant_for_writing()?, &[user])?;
    let before = members.role(user).ok_or_else(|| Error::Unknown("member", user.to_string()))?;
    members.may_change(user)?;
    members.may_give(role, rank)?;
    if before == role {
        return Ok(false);
    }
    members.keep_an_owner_besides(user)?;
    query::run(UPDATE, &[members.tenant().into(), user.into(), role.into()])?;
    let target = user.to_string();
    audit::record(&Entry {
        action: "member.change_role",
        tenant: Some(members.tenant()),
        target: Some(&target),
        before: Some(Object::new().text("role", before).finish()),
        after: Some(Object::new().text("role", role).finish()),
    })?;
    Ok(true)
}

/// Ends a membership of the bound tenant, and the member's API keys with it; false when there was none.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn remove_member(user_id: Option<Uuid>) -> SqlResult<bool> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    let members = Members::lock(actor::tenant_for_writing()?, &[user])?;
    let Some(before) = members.role(user) else { return Ok(false) };
    members.may_change(user)?;
    members.keep_an_owner_besides(user)?;
    remove(members.tenant(), user, before)?;
    Ok(true)
}

/// Ends a membership; the caller has checked that it may.
pub fn remove(tenant: Uuid, user: Uuid, role: &str) -> Result<()> {
    query::run(DELETE, &[tenant.into(), user.into()])?;
    let revoked = api_key::revoke_all_of(tenant, user)?;
    let target = user.to_string();
    audit::record(&Entry {
        action: "member.remove",
        tenant: Some(tenant),
        target: Some(&target),
        before: Some(Object::new().text("role", role).number("revoked_api_keys", revoked).finish()),
        ..Entry::default()
    })
}
