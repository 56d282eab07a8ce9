//! Using an API key: who it is. Read by index scans at the latest commit, so that a revocation counts for every session at once, on a standby
//! too, whatever the caller's snapshot, search_path or rights.

use super::secret::Secret;
use crate::context::registry::{self, Tenant};
use crate::context::{self, Grants, Principal, Source};
use crate::error::{Error, Result};
use crate::monitor::{self, Kind, Reason};
use crate::query;
use crate::role;
use crate::scan::{self, Hash, Key, Row};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// Column numbers of `tenancy.stored_api_keys`; sql/access.sql keeps them.
const ID: i16 = 1;
const KEY_HASH: i16 = 2;
const TENANT: i16 = 3;
const USER: i16 = 4;
const SCOPES: i16 = 5;
const EXPIRES_AT: i16 = 6;
const REVOKED_AT: i16 = 7;

/// Waits for nobody: a row that is locked was marked by whoever holds it.
const MARK_USED: &str = "UPDATE tenancy.api_key_usage SET last_used_at = pg_catalog.clock_timestamp()
    WHERE key_id = (SELECT key_id FROM tenancy.api_key_usage WHERE key_id = $1
        AND (last_used_at IS NULL OR last_used_at < pg_catalog.clock_timestamp() - '1 minute'::pg_catalog.interval)
        FOR NO KEY UPDATE SKIP LOCKED)";

/// A key that authenticates.
struct Verified {
    id: Uuid,
    tenant: Tenant,
    user: Option<Uuid>,
    role: Option<String>,
    scopes: Vec<String>,
}

/// Why a key does not authenticate, and what may be shown of it.
struct Refused<'a>(Reason, &'a str);

fn find(hash: &Hash) -> Result<Option<Row>> {
    scan::first(c"stored_api_keys", c"stored_api_keys_key_hash_key", &[Key::hash(KEY_HASH, hash)])
}

fn find_either(secret: &Secret) -> Result<Option<Row>> {
    if let Some(row) = find(&secret.hash())? {
        return Ok(Some(row));
    }
    match secret.older_hash() {
        Some(older) => find(&older),
        None => Ok(None),
    }
}

/// Who the key is, if anyone.
fn verify(text: &str) -> Result<std::result::Result<Verified, Refused<'_>>> {
    let secret = match Secret::parse(text) {
        Ok(secret) => secret,
        Err(reason) => return Ok(Err(Refused(reason, ""))),
    };
    // One that is not known is counted by its kind alone: made-up keys shall not fill the counters.
    let Some(row) = find_either(&secret)? else { return Ok(Err(Refused(Reason::Unknown, secret.prefix()))) };
    let refused = |reason| Ok(Err(Refused(reason, secret.shown())));
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    if row.get::<i64>(REVOKED_AT).is_some() {
        return refused(Reason::Revoked);
    }
    if row.get::<i64>(EXPIRES_AT).is_some_and(|expires_at| expires_at <= now) {
        return refused(Reason::Expired);
    }
    let Some(tenant) = registry::find(row.must(TENANT)?)? else { return refused(Reason::Tenant) };
    match tenant.admit(false) {
        Err(Error::TenantClosed { .. }) => return refused(Reason::Tenant),
        admitted => admitted?,
    }
    let user = row.uuid(USER);
    let role = match user {
        Some(user) => registry::member_role(tenant.id.as_bytes(), &user)?,
        None => None,
    };
    if user.is_some() && role.is_none() {
        return refused(Reason::Member);
    }
    let id: Uuid = row.must(ID)?;
    mark_used(id, now)?;
    Ok(Ok(Verified { id, tenant, user: user.map(Uuid::from_bytes), role, scopes: row.must(SCOPES)? }))
}

/// Notes that the key was used, at most once a minute, and where that neither waits nor fails: not in a read-only transaction, on a standby,
/// or under a snapshot that another session's mark would break.
fn mark_used(id: Uuid, now: i64) -> Result<()> {
    // SAFETY: plain reads of the transaction's properties.
    let cannot_write = unsafe {
        pg_sys::XactReadOnly
            || pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32
            || pg_sys::RecoveryInProgress()
    };
    if cannot_write || !monitor::is_due(id.as_bytes(), now) {
        return Ok(());
    }
    role::as_extension_owner(|| query::run(MARK_USED, &[id.into()]).map(drop))
}

fn count(refused: &Refused) {
    monitor::count_attempt(Kind::ApiKey, refused.1, refused.0);
}

/// Who an API key is: one row, or none.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn verify_api_key(
    api_key: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (name!(tenant_id, Uuid), name!(key_id, Uuid), name!(user_id, Option<Uuid>), name!(scopes, Vec<String>)),
    >,
    ErrorReport,
> {
    let found = verify(api_key.unwrap_or_default())?.inspect_err(count).ok();
    Ok(TableIterator::new(found.map(|key| (key.tenant.id, key.id, key.user, key.scopes))))
}

/// Binds the transaction to the tenant of an API key.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn authenticate_api_key(
    api_key: Option<&str>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(tenant_id, Uuid),
            name!(user_id, Option<Uuid>),
            name!(role, Option<String>),
            name!(api_key_id, Option<Uuid>),
            name!(scopes, Option<Vec<String>>),
        ),
    >,
    ErrorReport,
> {
    let key = verify(api_key.unwrap_or_default())?.map_err(|refused| {
        count(&refused);
        Error::InvalidCredential("API key")
    })?;
    let grants = Grants { role: key.role, api_key: Some(*key.id.as_bytes()), scopes: Some(key.scopes) };
    let principal = Principal { tenant: key.tenant, user: key.user, source: Source::ApiKey, grants };
    context::bind(&principal)?;
    let Grants { role, scopes, .. } = principal.grants;
    Ok(TableIterator::once((key.tenant.id, key.user, role, Some(key.id), scopes)))
}
