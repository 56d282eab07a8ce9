//! Events in the business transaction, and their sums.

mod read;

pub use read::{Figure, figures, total_in_period};

use crate::error::Result;
use crate::level::Level;
use pgrx::Uuid;
use pgrx::prelude::*;

pub const RELATIONS: &[(Level, &str)] = &[(Level::Client, "tenancy.metrics"), (Level::Monitor, "tenancy.metrics")];

/// Removes what is kept of a purged tenant.
pub fn erase(_tenant: Uuid) -> Result<()> {
    Ok(())
}

extension_sql_file!("../../../sql/metering/usage.sql", name = "metering_usage", requires = ["metering_plan"]);
