//! Users: people, once for all tenants or at home in one.

use super::actor::{self, Members};
use super::{invitation, member};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock;
use crate::json::{Jsonb, Object};
use crate::monitor::{self, Refusal};
use crate::query;
use crate::text;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

const INSERT: &str = "INSERT INTO tenancy.users (id, tenant_id, email, name, external_id) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";
const TAKEN: &str = "SELECT id = $1, email = $3 FROM tenancy.users
    WHERE id = $1 OR (tenant_id IS NOT DISTINCT FROM $2 AND (email = $3 OR external_id = $4))
    ORDER BY id = $1 DESC, email = $3 DESC LIMIT 1";
const KEEP_TENANT: &str = "SELECT true FROM tenancy.tenants WHERE id = $1 FOR KEY SHARE";
const FIND: &str = "SELECT id FROM tenancy.users
    WHERE (email = $1 OR external_id = $2) AND (tenant_id = $3 OR tenant_id IS NULL) ORDER BY tenant_id NULLS LAST LIMIT 1";
const LOCK: &str = "SELECT tenant_id, email, name, external_id FROM tenancy.users WHERE id = $1 FOR UPDATE";
const UPDATE: &str =
    "UPDATE tenancy.users SET email = $2, name = $3, external_id = $4, updated_at = pg_catalog.now() WHERE id = $1";
const OTHER_WITH_EMAIL: &str =
    "SELECT true FROM tenancy.users WHERE email = $3 AND tenant_id IS NOT DISTINCT FROM $2 AND id <> $1";
const OTHER_WITH_EXTERNAL_ID: &str =
    "SELECT true FROM tenancy.users WHERE external_id = $3 AND tenant_id IS NOT DISTINCT FROM $2 AND id <> $1";
const LOCK_OWNERS: &str = "SELECT tenant_id, user_id FROM tenancy.memberships
    WHERE user_id = $1
       OR (role = 'owner' AND tenant_id IN (SELECT tenant_id FROM tenancy.memberships WHERE user_id = $1 AND role = 'owner'))
    ORDER BY tenant_id, user_id FOR UPDATE";
const MEMBERSHIPS: &str = "SELECT tenant_id, role FROM tenancy.memberships WHERE user_id = $1 ORDER BY tenant_id";
const DELETE: &str = "DELETE FROM tenancy.users WHERE id = $1";
const TENANTS: &str = "SELECT t.id, t.slug, t.name, m.role, t.status FROM tenancy.memberships m JOIN tenancy.tenants t ON t.id = m.tenant_id
    JOIN tenancy.users u ON u.id = m.user_id AND ($2 IS NULL OR u.tenant_id IS NULL OR u.tenant_id = $2)
    WHERE m.user_id = $1 AND t.status NOT IN ('cancelled', 'deleted') ORDER BY t.slug";
const LOGIN: &str = "UPDATE tenancy.users SET last_login_at = pg_catalog.clock_timestamp()
    WHERE id = $1 AND ($2 IS NULL OR tenant_id IS NULL OR tenant_id = $2) RETURNING last_login_at";
const REVOKE: &str =
    "UPDATE tenancy.users SET tokens_not_before = pg_catalog.clock_timestamp() WHERE id = $1 RETURNING true";

fn unknown(user: Uuid) -> Error {
    Error::Unknown("user", user.to_string())
}

/// Fails when an argument names another tenant than the one that is bound.
fn check_bound(tenant: Option<Uuid>) -> Result<()> {
    match (tenant, actor::tenant()) {
        (Some(tenant), Ok(bound)) if bound != tenant => {
            monitor::count(Some(bound.as_bytes()), Refusal::Mismatch);
            Err(Error::TenantMismatch(Some(tenant.to_string())))
        }
        _ => Ok(()),
    }
}

/// The tenant that a new user is to be at home in.
fn check_home(tenant: Option<Uuid>) -> Result<Option<Uuid>> {
    let Some(tenant) = tenant else { return Ok(None) };
    check_bound(Some(tenant))?;
    lock::admit_writer_of(tenant)?;
    query::returning(KEEP_TENANT, &[tenant.into()], |row| row.must::<bool>(1))?
        .ok_or_else(|| Error::unknown_tenant(tenant))?;
    Ok(Some(tenant))
}

/// What can be changed of a user.
struct Fields {
    home: Option<Uuid>,
    email: String,
    name: Option<String>,
    external_id: Option<String>,
}

impl Fields {
    fn to_json(&self) -> Jsonb {
        Object::new()
            .text("email", &self.email)
            .optional("name", self.name.as_deref())
            .optional("external_id", self.external_id.as_deref())
            .optional("tenant_id", self.home.map(|home| home.to_string()).as_deref())
            .finish()
    }

    /// The user's row, locked; fails where the principal may not change it.
    ///
    /// Whose e-mail address one can change, as whom one can log in. So a user of several tenants is nobody's to change but their own: one
    /// tenant's administrator would take over an account of another's. One at home in the tenant is theirs who rank above.
    fn lock(user: Uuid) -> Result<Self> {
        let fields = query::returning(LOCK, &[user.into()], |row| {
            Ok(Self { home: row.get(1)?, email: row.must(2)?, name: row.get(3)?, external_id: row.get(4)? })
        })?;
        let members = actor::tenant().ok().map(|tenant| Members::keep(tenant, &[user])).transpose()?;
        let fields = fields.ok_or_else(|| unknown(user))?;
        let Some(members) = members else { return Ok(fields) };
        match fields.home {
            Some(home) if home != members.tenant() => return Err(unknown(user)),
            Some(_) => members.may_impersonate(user)?,
            None if members.actor() == Some(user) => {}
            None => {
                return Err(Error::Forbidden(
                    format!("user \"{user}\" is not the bound tenant's own"),
                    "Users of several tenants are changed by themselves, or without a tenant bound.",
                ));
            }
        }
        Ok(fields)
    }
}

/// Creates a user.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn create_user(
    email: Option<&str>,
    name: default!(Option<&str>, "NULL"),
    external_id: default!(Option<&str>, "NULL"),
    tenant: default!(Option<Uuid>, "NULL"),
    id: default!(Option<Uuid>, "gen_random_uuid()"),
) -> SqlResult<Uuid> {
    let email = text::check_email(email.ok_or(Error::Null("email"))?)?;
    let name = name.map(text::check_name).transpose()?;
    let external_id = external_id.map(text::check_external_id).transpose()?;
    let id = id.ok_or(Error::Null("id"))?;
    let home = check_home(tenant)?;
    let args = [id.into(), home.into(), email.as_str().into(), name.into(), external_id.into()];
    if query::run(INSERT, &args)? == 0 {
        let args = [id.into(), home.into(), email.as_str().into(), external_id.into()];
        let taken = query::returning(TAKEN, &args, |row| Ok((row.must::<bool>(1)?, row.must::<bool>(2)?)))?;
        return Err(match taken {
            Some((true, _)) => Error::Duplicate("user", id.to_string()),
            Some((false, false)) => Error::Duplicate("external id", external_id.unwrap_or_default().to_owned()),
            _ => Error::Duplicate("e-mail address", email),
        }
        .into());
    }
    let fields = Fields { home, email, name: name.map(str::to_owned), external_id: external_id.map(str::to_owned) };
    record("user.create", id, home, None, Some(fields.to_json()))?;
    Ok(id)
}

fn record(action: &str, user: Uuid, tenant: Option<Uuid>, before: Option<Jsonb>, after: Option<Jsonb>) -> Result<()> {
    let target = user.to_string();
    audit::record(&Entry { action, tenant, target: Some(&target), before, after })
}

/// The user with this e-mail address or external id, or NULL.
#[pg_extern(stable, parallel_safe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn find_user(
    email: default!(Option<&str>, "NULL"),
    external_id: default!(Option<&str>, "NULL"),
    tenant: default!(Option<Uuid>, "NULL"),
) -> SqlResult<Option<Uuid>> {
    if email.is_some() == external_id.is_some() {
        return Err(Error::invalid("give either an e-mail address or an external id", "").into());
    }
    let email = email.map(str::to_lowercase);
    check_bound(tenant)?;
    Ok(query::value(FIND, &[email.into(), external_id.into(), tenant.or_else(|| actor::tenant().ok()).into()])?)
}

/// Changes what is given of a user.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn update_user(
    user_id: Option<Uuid>,
    email: default!(Option<&str>, "NULL"),
    name: default!(Option<&str>, "NULL"),
    external_id: default!(Option<&str>, "NULL"),
) -> SqlResult<Uuid> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    let email = email.map(text::check_email).transpose()?;
    let name = name.map(text::check_name).transpose()?;
    let external_id = external_id.map(text::check_external_id).transpose()?;
    let before = Fields::lock(user)?;
    let after = Fields {
        home: before.home,
        email: email.unwrap_or_else(|| before.email.clone()),
        name: name.map(str::to_owned).or_else(|| before.name.clone()),
        external_id: external_id.map(str::to_owned).or_else(|| before.external_id.clone()),
    };
    for (what, taken, value) in [
        ("e-mail address", OTHER_WITH_EMAIL, Some(&after.email)),
        ("external id", OTHER_WITH_EXTERNAL_ID, after.external_id.as_ref()),
    ] {
        if let Some(value) = value
            && query::value::<bool>(taken, &[user.into(), after.home.into(), value.as_str().into()])?.is_some()
        {
            return Err(Error::Duplicate(what, value.clone()).into());
        }
    }
    let args =
        [user.into(), after.email.as_str().into(), after.name.as_deref().into(), after.external_id.as_deref().into()];
    query::run(UPDATE, &args)?;
    record("user.update", user, after.home, Some(before.to_json()), Some(after.to_json()))?;
    Ok(user)
}

/// Removes a user with their memberships and keys, and what the audit log knows of them.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn delete_user(user_id: Option<Uuid>) -> SqlResult<bool> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    query::refuse_old_snapshot("a user cannot be deleted")?;
    // From here on nobody makes the user a member of anything.
    let person = query::returning(LOCK, &[user.into()], |row| Ok((row.get::<Uuid>(1)?, row.must::<String>(2)?)))?;
    let Some((home, email)) = person else { return Ok(false) };
    let owners =
        query::current_rows(LOCK_OWNERS, &[user.into()], |row| Ok((row.must::<Uuid>(1)?, row.must::<Uuid>(2)?)))?;
    let invitations = invitation::forget(user, &email, home)?;
    for (tenant, role) in
        query::current_rows(MEMBERSHIPS, &[user.into()], |row| Ok((row.must::<Uuid>(1)?, row.must::<String>(2)?)))?
    {
        if role == super::role::OWNER && !owners.iter().any(|(other, owner)| *other == tenant && *owner != user) {
            return Err(Error::LastOwner.into());
        }
        member::remove(tenant, user, &role)?;
    }
    query::run(DELETE, &[user.into()])?;
    audit::redact_person(user, &invitations)?;
    record("user.delete", user, home, None, None)?;
    Ok(true)
}

/// The tenants that a user is a member of, to choose from.
#[pg_extern(stable, parallel_safe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn user_tenants(
    user_id: Option<Uuid>,
) -> std::result::Result<
    TableIterator<
        'static,
        (name!(tenant_id, Uuid), name!(slug, String), name!(name, String), name!(role, String), name!(status, String)),
    >,
    ErrorReport,
> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    let rows = query::rows(TENANTS, &[user.into(), actor::tenant().ok().into()], |row| {
        Ok((row.must(1)?, row.must(2)?, row.must(3)?, row.must(4)?, row.must(5)?))
    })?;
    Ok(TableIterator::new(rows))
}

/// Notes that a user has logged in; when.
pub fn note_login(user: Uuid) -> Result<TimestampWithTimeZone> {
    query::returning(LOGIN, &[user.into(), actor::tenant().ok().into()], |row| row.must(1))?
        .ok_or_else(|| unknown(user))
}

/// Notes that a user has logged in.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn record_login(user_id: Option<Uuid>) -> SqlResult<TimestampWithTimeZone> {
    Ok(note_login(user_id.ok_or(Error::Null("user_id"))?)?)
}

/// Ends every signed token that was issued to a user until now.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_tokens(user_id: Option<Uuid>) -> SqlResult<bool> {
    let user = user_id.ok_or(Error::Null("user_id"))?;
    let fields = Fields::lock(user)?;
    query::returning(REVOKE, &[user.into()], |row| row.must::<bool>(1))?;
    record("token.revoke", user, fields.home, None, None)?;
    Ok(true)
}
