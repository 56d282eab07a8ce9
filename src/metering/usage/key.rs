//! Idempotency keys: what was recorded under one is not recorded again.
//!
//! The row of a key commits with its event. Two sessions with one key wait for each other at the index; who comes second finds the row of the
//! first, or, where that was rolled back, makes it.

use super::event::{Event, first_16};
use super::settings;
use crate::audit::{self, Entry};
use crate::error::{Error, Result, SqlResult};
use crate::json::Object;
use crate::metering::time;
use crate::query;
use crate::role;
use crate::text;
use aws_lc_rs::digest;
use pgrx::Uuid;
use pgrx::prelude::*;

const CLAIM: &str = "INSERT INTO tenancy.usage_keys (tenant_id, key_hash, payload_hash, recorded_at)
    VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
const FIND: &str = "SELECT payload_hash FROM tenancy.usage_keys WHERE tenant_id = $1 AND key_hash = $2";
const TRIM: &str = "DELETE FROM tenancy.usage_keys
    WHERE recorded_at < pg_catalog.now() - pg_catalog.make_interval(days => $1)";

/// How often a key that is found taken may have gone by the time that it is looked at.
const ATTEMPTS: usize = 3;

/// What is stored of a key.
pub fn hash(key: &str) -> Result<[u8; 16]> {
    let key = text::check_idempotency_key(key)?;
    Ok(first_16(&digest::digest(&digest::SHA256, key.as_bytes())))
}

/// Takes the key for an event: false when the same event was recorded under it before.
pub fn claim(tenant: &[u8; 16], key: [u8; 16], event: &Event) -> Result<bool> {
    let [tenant, key, payload] = [*tenant, key, event.hash()?].map(Uuid::from_bytes);
    let now = TimestampWithTimeZone::try_from(time::now())
        .map_err(|_| Error::Internal("the clock is out of range".to_owned()))?;
    role::as_extension_owner(|| {
        for _ in 0..ATTEMPTS {
            if query::run(CLAIM, &[tenant.into(), key.into(), payload.into(), now.into()])? == 1 {
                return Ok(true);
            }
            match query::current_rows(FIND, &[tenant.into(), key.into()], |row| row.must::<Uuid>(1))?.first() {
                Some(found) if *found == payload => return Ok(false),
                Some(_) => return Err(Error::KeyReused),
                None => {}
            }
        }
        Err(Error::Serialization)
    })
}

/// Forgets the keys that are old enough.
pub fn trim() -> Result<(u64, bool)> {
    Ok((query::run(TRIM, &[settings::idempotency_days().into()])?, false))
}

/// Forgets the keys that are older than tenancy.idempotency_days; how many.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn trim_usage_keys() -> SqlResult<i64> {
    let (removed, _) = trim()?;
    if removed > 0 {
        audit::record(&Entry {
            action: "usage.trim_keys",
            after: Some(Object::new().number("removed", removed).finish()),
            ..Entry::default()
        })?;
    }
    Ok(removed.cast_signed())
}
