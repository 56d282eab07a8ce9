//! Events in the business transaction, and their sums.
//!
//! An event is a row of the inbox ([`inbox`]), written by [`record`] or [`batch`] in the caller's transaction, at most once for each
//! idempotency key ([`key`]). The [`rollup`] takes events out of the inbox, adds them to buckets of 15 minutes and puts them into the
//! [`archive`], all in one transaction. Whoever reads adds buckets and inbox in one statement ([`read`]), and so is exact in every snapshot.
//!
//! A tenant in a database of its own has its usage there, and the control database a copy of the buckets, by [`days`]; [`fetch`] brings it up
//! to date at once.

mod archive;
mod batch;
pub mod days;
mod event;
mod fetch;
mod inbox;
mod key;
mod metric;
mod quantity;
mod quota;
mod read;
mod record;
mod rollup;
mod settings;
mod stamp;

pub use archive::{prepare as prepare_archive, tables as archive_tables};
pub use fetch::fetch;
pub use metric::ensure as ensure_metric;
pub use read::{Figure, figures, total_in_period};
pub use settings::init;

use crate::erased::{self, Erased};
use crate::error::{Result, SqlResult};
use crate::level::Level;
use crate::query;
use crate::worker::errand::Errand;
use crate::worker::task::{Task, Work};
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::App, "consume_quota"),
    (Level::App, "usage_total"),
    (Level::App, "usage_series"),
    (Level::App, "monthly_usage"),
    (Level::App, "usage_period"),
    (Level::Operator, "tenant_usage"),
    (Level::Operator, "create_metric"),
    (Level::App, "record_usage"),
    (Level::App, "record_usage_batch"),
    (Level::App, "record_duration"),
    (Level::Admin, "rollup_usage"),
    (Level::Admin, "trim_usage_archive"),
    (Level::Admin, "trim_usage_keys"),
    (Level::Admin, "maintain_usage"),
    (Level::Internal, "tenancy.stamp_usage"),
];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Client, "tenancy.metrics"), (Level::Monitor, "tenancy.metrics")];

/// What the workers do of this domain.
pub const TASKS: &[Task] = &[
    Task { name: "usage rollup", every_s: 5, work: Work::Batch(rollup::batch) },
    Task { name: "usage sweep", every_s: 86_400, work: Work::Batch(rollup::sweep) },
    Task { name: "usage archive", every_s: 3_600, work: Work::Batch(archive::maintain) },
    Task { name: "usage keys", every_s: 3_600, work: Work::Batch(key::trim) },
    Task { name: "quota counters", every_s: 86_400, work: Work::Batch(trim_counters) },
];

/// What a tenant's own database is asked for.
pub const ERRANDS: &[Errand] = &[Errand { name: fetch::ERRAND, run: fetch::answer }];

const ERASE: [&str; 5] = [
    "DELETE FROM tenancy.usage_inbox WHERE tenant_id = $1",
    "DELETE FROM tenancy.usage_buckets WHERE tenant_id = $1",
    "DELETE FROM tenancy.usage_uniques WHERE tenant_id = $1",
    "DELETE FROM tenancy.usage_keys WHERE tenant_id = $1",
    "DELETE FROM tenancy.quota_counters WHERE tenant_id = $1",
];
/// Longer ago than any period lasts, so that nobody counts in it any more.
const TRIM_COUNTERS: &str = "DELETE FROM tenancy.quota_counters
    WHERE period <> 'total' AND period_start < pg_catalog.now() - '70 days'::pg_catalog.interval";

/// Rolls up what is committed now.
pub fn roll_up() -> Result<()> {
    rollup::take_what_is_there(false).map(drop)
}

/// Removes what is kept of a purged tenant, whose writers have all ended. No rollup runs meanwhile, which would put back what it has taken.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    rollup::lock();
    erased::run(&ERASE, tenant, erased)?;
    archive::erase(tenant, erased)
}

/// Removes the counters of periods that are over.
fn trim_counters() -> Result<(u64, bool)> {
    Ok((query::run(TRIM_COUNTERS, &[])?, false))
}

/// Does at once all that the workers do for usage; how many events, months, keys and counters that was.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn maintain_usage() -> SqlResult<i64> {
    let mut done = rollup::take_what_is_there(true)?;
    for step in [archive::maintain, key::trim, trim_counters] {
        done += step()?.0;
    }
    Ok(done.cast_signed())
}

extension_sql_file!(
    "../../../sql/metering/usage.sql",
    name = "metering_usage",
    requires = [
        "metering_plan",
        create_metric,
        record_usage_batch,
        consume_quota,
        usage_total,
        usage_series,
        monthly_usage,
        usage_period,
        tenant_usage,
        rollup_usage,
        trim_usage_archive,
        trim_usage_keys,
        maintain_usage
    ]
);
