//! What a tenant may do and what it has used.
//!
//! - [`plan`]: what plans and tenants are limited to, and what backends remember of it.
//! - [`limit`]: counting a tenant's live rows, and the answer to "is there room".
//! - [`usage`]: events in the business transaction, their sums, and quotas.
//! - [`billing`]: subscriptions, closed periods and what came after them.
//! - [`rate_limit`]: how often, in shared memory.
//! - [`presets`]: plans of five kinds of application.
//! - [`time`]: hours, days and months.

pub mod billing;
pub mod limit;
pub mod plan;
pub mod presets;
pub mod rate_limit;
pub mod time;
pub mod usage;

use crate::erased::Erased;
use crate::error::Result;
use pgrx::Uuid;

/// Registers the settings, and what counts rows.
pub fn init() {
    time::init();
    usage::init();
    limit::init();
}

/// Removes what is kept of a tenant that is purged.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    plan::erase(tenant, erased)?;
    limit::erase(tenant)?;
    usage::erase(tenant, erased)?;
    rate_limit::erase(tenant, erased)?;
    billing::erase(tenant, erased)
}
