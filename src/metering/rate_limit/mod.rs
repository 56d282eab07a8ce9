//! How often: token buckets in shared memory, whose rates are of the plan or the tenant.
//!
//! - [`rate`]: what a limit is, and the arithmetic of it.
//! - [`functions`]: saying what plans and tenants are limited to; [`known`]: what a backend remembers of that.
//! - [`check`]: asking, on every request.
//!
//! The buckets themselves are [`crate::monitor`]'s. They are of this server alone and lost when it restarts; a transaction that rolls back has
//! taken what it has taken.

mod check;
mod functions;
mod known;
mod rate;

pub use functions::set_plan_rate_limit;

use crate::erased::{self, Erased};
use crate::error::Result;
use crate::level::Level;
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Operator, "set_plan_rate_limit"),
    (Level::Operator, "unset_plan_rate_limit"),
    (Level::Operator, "set_tenant_rate_limit"),
    (Level::Operator, "unset_tenant_rate_limit"),
    (Level::Client, "check_rate_limit"),
    (Level::Client, "enforce_rate_limit"),
    (Level::Monitor, "tenancy.rate_limit_buckets"),
];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::Client, "tenancy.plan_rate_limits"),
    (Level::Monitor, "tenancy.plan_rate_limits"),
    (Level::Client, "tenancy.tenant_rate_limits"),
    (Level::Operator, "tenancy.tenant_rate_limits"),
    (Level::Monitor, "tenancy.rate_limit_status"),
];

const ERASE: &str = "DELETE FROM tenancy.tenant_rate_limits WHERE tenant_id = $1";

/// Forgets a purged tenant's own rate limits; its buckets are idle soon.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&[ERASE], tenant, erased)
}

extension_sql_file!(
    "../../../sql/metering/rate_limit.sql",
    name = "metering_rate_limit",
    requires = [
        "metering_plan",
        set_plan_rate_limit,
        unset_plan_rate_limit,
        set_tenant_rate_limit,
        unset_tenant_rate_limit,
        rate_limit_buckets
    ]
);
