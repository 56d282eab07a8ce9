//! The rate limits that hold for a tenant, remembered by each backend until one of the tables says that it has changed.

use super::rate::{Per, Rate};
use crate::changes::Remembered;
use crate::context::registry;
use crate::error::{Error, Result};
use crate::monitor::{self, BucketKey};
use crate::scan::{Key, Row, Table};
use pgrx::{Uuid, pg_sys};
use siphasher::sip::SipHasher24;
use std::cell::RefCell;
use std::hash::Hasher;

/// Column numbers of `tenancy.plan_rate_limits` and `tenancy.tenant_rate_limits`, which are alike but for the first;
/// sql/metering/rate_limit.sql keeps them.
const OWNER: i16 = 1;
const RESOURCE: i16 = 2;
const MAX_VALUE: i16 = 3;
const PERIOD: i16 = 4;
const BURST: i16 = 5;

static PLAN_RATE_LIMITS: Table = Table::by(c"plan_rate_limits", c"plan_rate_limits_pkey");
static TENANT_RATE_LIMITS: Table = Table::by(c"tenant_rate_limits", c"tenant_rate_limits_pkey");

/// How often a tenant may use a resource.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Unlimited,
    /// Never.
    Nothing,
    /// Counted in the tenant's bucket of this key.
    Rate(Rate, BucketKey),
}

thread_local! {
    static KNOWN: RefCell<Remembered<Limit>> = RefCell::default();
}

/// The limit of a resource that holds for a tenant: its own before that of its plan. As of the latest commit and the caller's own changes. An
/// error where neither names the resource.
pub fn limit_of(tenant: Uuid, resource: &str) -> Result<Limit> {
    Remembered::find(&KNOWN, tenant.as_bytes(), resource, || read(tenant, resource))
}

fn read(tenant: Uuid, resource: &str) -> Result<(Limit, bool)> {
    let named = Key::text(RESOURCE, resource)?;
    let (own, own_announced) = TENANT_RATE_LIMITS.first_and_announced(&[Key::uuid(OWNER, tenant.as_bytes()), named])?;
    if let Some(own) = own {
        return Ok((limit(tenant, resource, &own)?, own_announced));
    }
    let (plan, plan_announced) = registry::plan_of(tenant)?;
    let plan = plan.ok_or_else(|| Error::unknown_tenant(tenant))?;
    let (general, general_announced) = PLAN_RATE_LIMITS.first_and_announced(&[Key::text(OWNER, &plan)?, named])?;
    let general = general.ok_or_else(|| Error::NoRateLimit { resource: resource.to_owned(), plan })?;
    Ok((limit(tenant, resource, &general)?, own_announced && plan_announced && general_announced))
}

fn limit(tenant: Uuid, resource: &str, row: &Row) -> Result<Limit> {
    let Some(max_value) = row.get(MAX_VALUE) else { return Ok(Limit::Unlimited) };
    let rate = Rate::new(max_value, Per::from_name(row.must::<&str>(PERIOD)?)?, row.get(BURST));
    Ok(rate.map_or(Limit::Nothing, |rate| Limit::Rate(rate, bucket_key(tenant, resource, &rate))))
}

/// The rate is part of the key: what was taken at another one means nothing at this.
fn bucket_key(tenant: Uuid, resource: &str, rate: &Rate) -> BucketKey {
    let mut hasher = hasher();
    // SAFETY: a plain read.
    hasher.write_u32(unsafe { pg_sys::MyDatabaseId }.to_u32());
    hasher.write(tenant.as_bytes());
    let of_tenant = hasher.finish();
    hasher.write_u64(rate.interval);
    hasher.write_i32(rate.burst);
    hasher.write(resource.as_bytes());
    BucketKey { tenant: of_tenant, bucket: hasher.finish() }
}

/// The bucket of one subject of the tenant that has this one.
pub fn subject_key(key: BucketKey, subject: &str) -> BucketKey {
    let mut hasher = hasher();
    hasher.write_u64(key.tenant);
    hasher.write_u64(key.bucket);
    hasher.write(subject.as_bytes());
    BucketKey { bucket: hasher.finish(), ..key }
}

fn hasher() -> SipHasher24 {
    let [first, second] = monitor::secret();
    SipHasher24::new_with_keys(first, second)
}
