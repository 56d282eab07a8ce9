//! Plans: a name, the isolation of its tenants, settings and features, and what plans and tenants are limited to.

mod feature;
mod functions;
mod known;
mod owner;
mod period;
mod registry;

pub use functions::set_plan_limit;
pub use known::{Limit, limits_of, monthly_limit};
pub use owner::Owner;
pub use period::Period;
pub use registry::{check_isolation, create_plan, isolation_of};

use crate::erased::{self, Erased};
use crate::error::{Error, Result};
use crate::level::Level;
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Client, "has_feature"),
    (Level::Operator, "create_plan"),
    (Level::Operator, "set_plan_limit"),
    (Level::Operator, "unset_plan_limit"),
    (Level::Operator, "set_tenant_limit"),
    (Level::Operator, "unset_tenant_limit"),
];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::Client, "tenancy.plans"),
    (Level::Monitor, "tenancy.plans"),
    (Level::Client, "tenancy.plan_limits"),
    (Level::Monitor, "tenancy.plan_limits"),
    (Level::Client, "tenancy.tenant_limits"),
    (Level::Operator, "tenancy.tenant_limits"),
];

const ERASE: &str = "DELETE FROM tenancy.tenant_limits WHERE tenant_id = $1";

/// Characters that the name of a resource or metric may have.
const MAX_NAME: usize = 63;

/// The name of a resource or metric, if it is well-formed: `what` says which in the error.
pub fn check_name<'a>(what: &'static str, name: &'a str) -> Result<&'a str> {
    let well_formed = name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-'));
    if well_formed {
        return Ok(name);
    }
    Err(Error::invalid(
        format!("{what} \"{}\" is malformed", name.chars().take(MAX_NAME + 1).collect::<String>()),
        "It begins with a lower-case letter; lower-case letters, digits, underscores, dots and hyphens follow, at most 63 characters.",
    ))
}

/// Forgets a purged tenant's own limits.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&[ERASE], tenant, erased)
}

extension_sql_file!(
    "../../../sql/metering/plan.sql",
    name = "metering_plan",
    requires = [
        "bootstrap",
        "context",
        "authority",
        "tenant",
        has_feature,
        set_plan_limit,
        unset_plan_limit,
        set_tenant_limit,
        unset_tenant_limit
    ]
);
