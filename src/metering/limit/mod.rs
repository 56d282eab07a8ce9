//! Counting a tenant's live rows, so that a limit holds whatever happens at once.
//!
//! [`table`] gives a table its triggers, and [`events`] keeps them on all of its partitions. [`trigger`] runs after each statement and sums up what it
//! changed ([`totals`]), by a [`condition`] that is remembered ([`known`]); [`counter`] decides. [`recount`] counts from scratch, [`resources`]
//! says which counts are void, [`statement`] which statement is being looked at, and [`memberships`] that members can be limited too; [`upkeep`] checks and renews counters, [`check`] answers questions before the fact.

mod check;
mod condition;
mod counter;
mod events;
mod known;
mod memberships;
mod recount;
mod resources;
mod statement;
mod table;
mod totals;
mod trigger;
mod upkeep;

use crate::error::Result;
use crate::level::Level;
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Admin, "limit_table"),
    (Level::Admin, "unlimit_table"),
    (Level::Client, "check_limit"),
    (Level::Client, "enforce_limit"),
    (Level::Operator, "recount_limits"),
    (Level::Admin, "verify_limits"),
    (Level::Internal, "tenancy.count_rows"),
    (Level::Internal, "tenancy.keep_resource"),
    (Level::Internal, "tenancy.forget_counts"),
    (Level::Internal, "tenancy.on_limited_change"),
    (Level::Internal, "tenancy.on_limited_drop"),
];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Monitor, "tenancy.limited_tables")];

/// Registers the hook.
pub fn init() {
    statement::init();
}

/// Removes what is kept of a purged tenant.
pub fn erase(tenant: Uuid) -> Result<()> {
    counter::erase(tenant).map(drop)
}

/// How many live rows of the resource the tenant has; None where no table is limited by it. Reads only, on a standby too.
pub fn live_rows(tenant: Uuid, resource: &str) -> Result<Option<i64>> {
    match counter::used(tenant, resource)? {
        Some(used) => Ok(Some(used)),
        None => recount::rows_if_counted(tenant, resource),
    }
}

/// Has members counted as what they are said to be limited by, where that was not said by limit_table().
pub fn follow_memberships() -> Result<()> {
    for resource in memberships::resources()? {
        if !resources::counted()?.contains(&resource) {
            resources::renew_as(&resource, true)?;
        }
    }
    Ok(())
}

/// How many live rows a tenant has of each resource that it is limited in.
pub fn counted(tenant: Uuid) -> Result<Vec<(String, i64)>> {
    let mut counted = Vec::new();
    for resource in resources::counted()?.iter() {
        if counter::is_limited(tenant, resource)?
            && let Some(used) = live_rows(tenant, resource)?
        {
            counted.push((resource.clone(), used));
        }
    }
    Ok(counted)
}

extension_sql_file!(
    "../../../sql/metering/limit.sql",
    name = "metering_limit",
    requires = [
        "bootstrap",
        "context",
        "authority",
        "tenant",
        "access",
        "isolation",
        "metering_plan",
        limit_table,
        unlimit_table,
        recount_limits,
        verify_limits,
        on_limited_change,
        on_limited_drop
    ]
);
