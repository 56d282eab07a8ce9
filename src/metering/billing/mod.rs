//! From usage to bills: periods are closed, what comes after is adjusted, and rows are handed to a billing system.
//!
//! The closed periods of a tenant do not overlap, and each event falls into one bucket of one period at most. What is billed of a period and
//! metric is the sum of its lines; each close of the tenant adds the difference to what the figure has become. So whatever comes when, late
//! events and transactions that commit after the close included, is billed once.

mod adjustment;
mod close;
mod export;
mod period;
mod subscription;

pub use subscription::months_from;

use crate::erased::{self, Erased};
use crate::error::Result;
use crate::level::Level;
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Operator, "close_billing_period"),
    (Level::Operator, "pending_adjustments"),
    (Level::Operator, "export_billing_period"),
];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::App, "tenancy.subscriptions"),
    (Level::Operator, "tenancy.subscriptions"),
    (Level::App, "tenancy.billing_periods"),
    (Level::Operator, "tenancy.billing_periods"),
    (Level::App, "tenancy.billing_lines"),
    (Level::Operator, "tenancy.billing_lines"),
    (Level::Operator, "tenancy.billing_adjustments"),
];

const ERASE: [&str; 3] = [
    "DELETE FROM tenancy.subscriptions WHERE tenant_id = $1",
    "DELETE FROM tenancy.billing_periods WHERE tenant_id = $1",
    "DELETE FROM tenancy.billing_lines WHERE tenant_id = $1",
];

/// Removes what is kept of a purged tenant.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&ERASE, tenant, erased)
}

extension_sql_file!(
    "../../../sql/metering/billing.sql",
    name = "metering_billing",
    requires = [
        "metering_usage",
        set_subscription,
        apply_subscription_grace,
        close_billing_period,
        pending_adjustments,
        export_billing_period
    ]
);
