//! Events in the business transaction, and their sums.

mod read;

pub use read::{Figure, figures, total_in_period};

use crate::error::Result;
use crate::level::Level;
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::App, "usage_total"),
    (Level::App, "usage_series"),
    (Level::App, "monthly_usage"),
    (Level::App, "usage_period"),
    (Level::Operator, "tenant_usage"),
];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Client, "tenancy.metrics"), (Level::Monitor, "tenancy.metrics")];

/// Removes what is kept of a purged tenant.
pub fn erase(_tenant: Uuid) -> Result<()> {
    Ok(())
}

extension_sql_file!(
    "../../../sql/metering/usage.sql",
    name = "metering_usage",
    requires = ["metering_plan", usage_total, usage_series, monthly_usage, usage_period, tenant_usage]
);
