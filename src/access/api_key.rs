//! API keys: making, rotating and revoking them. [`super::verify`] is where they are used.

use super::actor::{self, Members};
use super::scope;
use super::secret::{self, Secret};
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::json::{Jsonb, Object};
use crate::query;
use crate::scan::{Key, Table};
use crate::secrecy;
use crate::text;
use pgrx::Uuid;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

const IN_FUTURE: &str = "SELECT $1 > pg_catalog.clock_timestamp()";
const NOT_NEGATIVE: &str = "SELECT $1 >= '0'::pg_catalog.interval";
const INSERT: &str = "WITH made AS (
        INSERT INTO tenancy.stored_api_keys (key_hash, tenant_id, user_id, scopes, expires_at, name, key_prefix, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id)
    INSERT INTO tenancy.api_key_usage (key_id) SELECT id FROM made RETURNING key_id";
const LOCK: &str =
    "SELECT user_id, name, scopes, expires_at, revoked_at IS NOT NULL OR expires_at <= pg_catalog.clock_timestamp(),
        replaced_by IS NOT NULL
    FROM tenancy.stored_api_keys WHERE id = $1 AND tenant_id = $2 FOR UPDATE";
/// A grace of nothing revokes at once; no grace outlives the key's own expiry.
const REPLACE: &str = "UPDATE tenancy.stored_api_keys
    SET replaced_by = $2,
        revoked_at = CASE WHEN $3 = '0'::pg_catalog.interval THEN pg_catalog.clock_timestamp() END,
        expires_at = CASE WHEN $3 = '0'::pg_catalog.interval THEN expires_at
                          ELSE LEAST(expires_at, pg_catalog.clock_timestamp() + $3) END
    WHERE id = $1 RETURNING expires_at::text";
const REVOKE: &str =
    "UPDATE tenancy.stored_api_keys SET revoked_at = pg_catalog.clock_timestamp() WHERE id = $1 AND revoked_at IS NULL";
const REVOKE_ALL_OF: &str = "UPDATE tenancy.stored_api_keys SET revoked_at = pg_catalog.clock_timestamp()
    WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL";

/// Column numbers of `tenancy.stored_api_keys`; sql/access.sql keeps them.
pub mod column {
    pub const ID: i16 = 1;
    pub const KEY_HASH: i16 = 2;
    pub const TENANT: i16 = 3;
    pub const USER: i16 = 4;
    pub const SCOPES: i16 = 5;
    pub const EXPIRES_AT: i16 = 6;
    pub const REVOKED_AT: i16 = 7;
}

static KEYS_BY_USER: Table = Table::by(c"stored_api_keys", c"stored_api_keys_tenant_id_idx");

type Made = TableIterator<'static, (name!(key_id, Uuid), name!(api_key, String), name!(key_prefix, String))>;

/// A key to be, or one that is.
struct ApiKey<'a> {
    tenant: Uuid,
    user: Option<Uuid>,
    name: &'a str,
    scopes: &'a [String],
    expires_at: Option<TimestampWithTimeZone>,
}

impl ApiKey<'_> {
    /// Stores a new key's hash; its id and text.
    fn make(&self, created_by: Option<Uuid>) -> Result<(Uuid, String, String)> {
        let text = secret::generate(&secrecy::api_key_prefix())?;
        let secret = Secret::parse(&text).map_err(|_| Error::Internal("a new key has no valid form".to_owned()))?;
        let shown = secret.shown().to_owned();
        let args = [
            secret.hash().bytes().to_vec().into(),
            self.tenant.into(),
            self.user.into(),
            self.scopes.to_vec().into(),
            self.expires_at.into(),
            self.name.into(),
            shown.as_str().into(),
            created_by.into(),
        ];
        let id = query::returning(INSERT, &args, |row| row.must(1))?
            .ok_or_else(|| Error::Internal("an API key was not stored".to_owned()))?;
        Ok((id, text, shown))
    }

    fn to_json(&self, shown: &str) -> Jsonb {
        Object::new()
            .text("name", self.name)
            .text("key_prefix", shown)
            .optional("user_id", self.user.map(|user| user.to_string()).as_deref())
            .texts("scopes", self.scopes.iter().map(String::as_str))
            .finish()
    }
}

fn check_expiry(expires_at: Option<TimestampWithTimeZone>) -> Result<Option<TimestampWithTimeZone>> {
    if let Some(expires_at) = expires_at
        && query::value::<bool>(IN_FUTURE, &[expires_at.into()])? != Some(true)
    {
        return Err(Error::invalid("expires_at is in the past", ""));
    }
    Ok(expires_at)
}

/// Fails unless the actor may have a key of `user` in their tenant.
fn check_user(members: &Members, user: Option<Uuid>) -> Result<()> {
    let Some(user) = user else { return members.may_speak_for_tenant() };
    if members.role(user).is_none() {
        return Err(Error::Unknown("member", user.to_string()));
    }
    members.may_impersonate(user)
}

/// Makes an API key of the bound tenant.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn create_api_key(
    name: Option<&str>,
    scopes: default!(Option<Vec<Option<String>>>, "'{}'"),
    expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
    user_id: default!(Option<Uuid>, "NULL"),
) -> std::result::Result<
    TableIterator<'static, (name!(key_id, Uuid), name!(api_key, String), name!(key_prefix, String))>,
    ErrorReport,
> {
    let name = text::check_name(name.ok_or(Error::Null("name"))?)?;
    let scopes = scope::check_all(scopes.ok_or(Error::Null("scopes"))?)?;
    let expires_at = check_expiry(expires_at)?;
    let users: Vec<Uuid> = user_id.into_iter().collect();
    let members = Members::keep(actor::tenant_for_writing()?, &users)?;
    check_user(&members, user_id)?;
    scope::refuse_more_than_own(&scopes)?;
    let key = ApiKey { tenant: members.tenant(), user: user_id, name, scopes: &scopes, expires_at };
    let (id, text, shown) = key.make(members.actor())?;
    let target = id.to_string();
    audit::record(&Entry {
        action: "api_key.create",
        tenant: Some(key.tenant),
        target: Some(&target),
        after: Some(key.to_json(&shown)),
        ..Entry::default()
    })?;
    Ok(Made::once((id, text, shown)))
}

/// What is stored of a key.
struct Stored {
    user: Option<Uuid>,
    name: String,
    scopes: Vec<String>,
    expires_at: Option<TimestampWithTimeZone>,
    ended: bool,
    replaced: bool,
}

impl Stored {
    fn lock(tenant: Uuid, id: Uuid) -> Result<Self> {
        query::returning(LOCK, &[id.into(), tenant.into()], |row| {
            Ok(Self {
                user: row.get(1)?,
                name: row.must(2)?,
                scopes: row.must(3)?,
                expires_at: row.get(4)?,
                ended: row.get(5)?.unwrap_or_default(),
                replaced: row.must(6)?,
            })
        })?
        .ok_or_else(|| Error::Unknown("API key", id.to_string()))
    }
}

/// Whose key this is, before its row is locked: members are locked before keys, everywhere.
const USER_OF: &str =
    "SELECT user_id FROM tenancy.stored_api_keys WHERE id = $1 AND tenant_id = $2 AND user_id IS NOT NULL";

fn keep_members_of(tenant: Uuid, id: Uuid) -> Result<Members> {
    let user: Vec<Uuid> = query::current_rows(USER_OF, &[id.into(), tenant.into()], |row| row.must(1))?;
    Members::keep(tenant, &user)
}

/// Replaces an API key of the bound tenant with a new one of the same name, user and scopes.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_api_key(
    key_id: Option<Uuid>,
    grace: default!(Option<Interval>, "'0'"),
    expires_at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> std::result::Result<
    TableIterator<'static, (name!(key_id, Uuid), name!(api_key, String), name!(key_prefix, String))>,
    ErrorReport,
> {
    let id = key_id.ok_or(Error::Null("key_id"))?;
    let grace = grace.ok_or(Error::Null("grace"))?;
    if query::value::<bool>(NOT_NEGATIVE, &[grace.into()])? != Some(true) {
        return Err(Error::invalid("grace must not be negative", "").into());
    }
    let expires_at = check_expiry(expires_at)?;
    let tenant = actor::tenant_for_writing()?;
    let members = keep_members_of(tenant, id)?;
    let old = Stored::lock(tenant, id)?;
    check_user(&members, old.user)?;
    scope::refuse_more_than_own(&old.scopes)?;
    if old.ended || old.replaced {
        return Err(
            Error::State("the API key was revoked, rotated or has expired".to_owned(), "Create another one.").into()
        );
    }
    let new = ApiKey {
        tenant,
        user: old.user,
        name: &old.name,
        scopes: &old.scopes,
        expires_at: expires_at.or(old.expires_at),
    };
    let (new_id, text, shown) = new.make(members.actor())?;
    let until = query::returning(REPLACE, &[id.into(), new_id.into(), grace.into()], |row| row.get::<String>(1))?;
    let (target, replacement) = (id.to_string(), new_id.to_string());
    audit::record(&Entry {
        action: "api_key.rotate",
        tenant: Some(tenant),
        target: Some(&target),
        after: Some(
            Object::new()
                .text("replaced_by", &replacement)
                .text("key_prefix", &shown)
                .optional("valid_until", until.flatten().as_deref())
                .finish(),
        ),
        ..Entry::default()
    })?;
    Ok(Made::once((new_id, text, shown)))
}

/// Ends an API key of the bound tenant; false when it was revoked before.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_api_key(key_id: Option<Uuid>) -> SqlResult<bool> {
    let id = key_id.ok_or(Error::Null("key_id"))?;
    let tenant = actor::tenant_for_writing()?;
    let members = keep_members_of(tenant, id)?;
    let old = Stored::lock(tenant, id)?;
    match old.user {
        Some(user) => members.may_change(user)?,
        None => members.may_speak_for_tenant()?,
    }
    if query::run(REVOKE, &[id.into()])? == 0 {
        return Ok(false);
    }
    let target = id.to_string();
    audit::record(&Entry {
        action: "api_key.revoke",
        tenant: Some(tenant),
        target: Some(&target),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Ends every key of a user in a tenant; how many. One that a snapshot of ours does not show is a reason to begin anew.
pub fn revoke_all_of(tenant: Uuid, user: Uuid) -> Result<u64> {
    let revoked = query::run(REVOKE_ALL_OF, &[tenant.into(), user.into()])?;
    let keys = [Key::uuid(column::TENANT, tenant.as_bytes()), Key::uuid(column::USER, user.as_bytes())];
    let left = KEYS_BY_USER.all::<1>(&keys, |row| row.get::<i64>(column::REVOKED_AT).is_none())?;
    if left.is_empty() { Ok(revoked) } else { Err(Error::Serialization) }
}
