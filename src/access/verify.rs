//! Using an API key: who it is. Read by index scans at the latest commit, so that a revocation counts for every session at once, on a standby
//! too, whatever the caller's snapshot, search_path or rights.

use super::api_key::column;
use super::credential::{self, uuid_datum};
use super::secret::Secret;
use crate::context::registry::{self, Tenant};
use crate::context::{Grants, Principal, Source};
use crate::error::{Error, Result};
use crate::monitor::{self, Kind, Reason};
use crate::one_row;
use crate::query;
use crate::raw::fallible_function;
use crate::role;
use crate::scan::{Hash, Key, Row, Table};
use pgrx::{Uuid, pg_sys};

static STORED_API_KEYS: Table = Table::by(c"stored_api_keys", c"stored_api_keys_key_hash_key");
static API_KEY_USAGE: Table = Table::whole(c"api_key_usage");

/// Waits for nobody: a row that is locked was marked by whoever holds it.
const MARK_USED: &str = "UPDATE tenancy.api_key_usage SET last_used_at = pg_catalog.clock_timestamp()
    WHERE ctid = (SELECT ctid FROM tenancy.api_key_usage WHERE key_id = $1
        AND (last_used_at IS NULL OR last_used_at < pg_catalog.clock_timestamp() - '1 minute'::pg_catalog.interval)
        FOR NO KEY UPDATE SKIP LOCKED)";

/// A key that authenticates.
struct Verified {
    id: Uuid,
    tenant: Tenant,
    user: Option<Uuid>,
    role: Option<String>,
    row: Row,
}

/// Why a key does not authenticate, and what may be shown of it.
struct Refused<'a>(Reason, &'a str);

fn find(hash: &Hash) -> Result<Option<Row>> {
    STORED_API_KEYS.first(&[Key::hash(column::KEY_HASH, hash)])
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
    let Some(row) = find_either(&secret)? else { return Ok(Err(Refused(Reason::Unknown, secret.known_prefix()))) };
    let refused = |reason| Ok(Err(Refused(reason, secret.shown())));
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    if row.get::<i64>(column::REVOKED_AT).is_some() {
        return refused(Reason::Revoked);
    }
    if row.get::<i64>(column::EXPIRES_AT).is_some_and(|expires_at| expires_at <= now) {
        return refused(Reason::Expired);
    }
    let Some(tenant) = registry::find(row.must(column::TENANT)?)? else { return refused(Reason::Tenant) };
    match tenant.admit(false) {
        Err(Error::TenantClosed { .. }) => return refused(Reason::Tenant),
        admitted => admitted?,
    }
    let user = row.uuid(column::USER);
    let role = match user {
        Some(user) => registry::member_role(tenant.id.as_bytes(), &user)?,
        None => None,
    };
    if user.is_some() && role.is_none() {
        return refused(Reason::Member);
    }
    let id: Uuid = row.must(column::ID)?;
    mark_used(id, now)?;
    Ok(Ok(Verified { id, tenant, user: user.map(Uuid::from_bytes), role, row }))
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
    if cannot_write || !monitor::is_due(id.as_bytes(), now) || !API_KEY_USAGE.lock_for_writing_if_free()? {
        return Ok(());
    }
    role::as_extension_owner(|| query::run(MARK_USED, &[id.into()]).map(drop))
}

fn count(refused: &Refused) {
    monitor::count_attempt(Kind::ApiKey, refused.1, refused.0);
}

/// # Safety
/// `fcinfo` is the record of a call of verify_api_key().
unsafe fn answer(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise; the columns are those of tenancy.verified_api_key.
    unsafe {
        let found = verify(credential::argument(fcinfo))?.inspect_err(count).ok();
        let row = found.as_ref().map(|key| {
            let user = key.user.as_ref().map(|user| uuid_datum(user.as_bytes()));
            let [tenant, id] = [&key.tenant.id, &key.id].map(|id| Some(uuid_datum(id.as_bytes())));
            [tenant, id, user, key.row.datum(column::SCOPES)]
        });
        one_row::answer(fcinfo, row)
    }
}

/// # Safety
/// `fcinfo` is the record of a call of authenticate_api_key().
unsafe fn authenticate(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: the caller's promise.
    unsafe {
        let Verified { id, tenant, user, role, row } = verify(credential::argument(fcinfo))?.map_err(|refused| {
            count(&refused);
            Error::InvalidCredential("API key")
        })?;
        let grants = Grants { role, api_key: Some(*id.as_bytes()), scopes: Some(row.must(column::SCOPES)?) };
        credential::bind_and_answer(fcinfo, &Principal { tenant, user, source: Source::ApiKey, grants })
    }
}

fallible_function! {
    /// Who an API key is: one row, or none.
    pg_tenancy_verify_api_key, pg_finfo_pg_tenancy_verify_api_key, answer
}

fallible_function! {
    /// Binds the transaction to the tenant of an API key.
    pg_tenancy_authenticate_api_key, pg_finfo_pg_tenancy_authenticate_api_key, authenticate
}
