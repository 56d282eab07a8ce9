//! Authority: which role may call what, and the sealing of the extension's own functions.

mod grant;
mod seal;

use crate::level::Level;
use crate::{
    access, audit, context, database, fleet, guard, isolation, maintenance, metering, monitor, tenant, transfer,
};
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Admin, "grant_access"),
    (Level::Admin, "revoke_access"),
    (Level::Public, "tenancy.sees_all_tenants"),
    (Level::Public, "tenancy.first_visible_tenant"),
    (Level::Public, "tenancy.last_visible_tenant"),
    (Level::Internal, "tenancy.seal"),
];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Admin, "tenancy.access")];

/// Every function with the level that may call it.
fn functions() -> impl Iterator<Item = (Level, &'static str)> {
    [
        context::FUNCTIONS,
        guard::FUNCTIONS,
        monitor::FUNCTIONS,
        audit::FUNCTIONS,
        FUNCTIONS,
        access::FUNCTIONS,
        tenant::FUNCTIONS,
        isolation::row::FUNCTIONS,
        isolation::adopt::FUNCTIONS,
        isolation::schema::FUNCTIONS,
        fleet::FUNCTIONS,
        metering::plan::FUNCTIONS,
        metering::presets::FUNCTIONS,
        maintenance::FUNCTIONS,
        metering::usage::FUNCTIONS,
        metering::billing::FUNCTIONS,
        metering::rate_limit::FUNCTIONS,
        metering::limit::FUNCTIONS,
        database::FUNCTIONS,
        database::state::FUNCTIONS,
        database::report::FUNCTIONS,
        transfer::FUNCTIONS,
        transfer::moving::FUNCTIONS,
    ]
    .concat()
    .into_iter()
}

/// Every relation with the level that may read it.
fn relations() -> impl Iterator<Item = (Level, &'static str)> {
    [
        guard::RELATIONS,
        monitor::RELATIONS,
        audit::RELATIONS,
        RELATIONS,
        access::RELATIONS,
        tenant::RELATIONS,
        isolation::row::RELATIONS,
        isolation::adopt::RELATIONS,
        isolation::schema::RELATIONS,
        fleet::RELATIONS,
        metering::plan::RELATIONS,
        maintenance::RELATIONS,
        metering::usage::RELATIONS,
        metering::billing::RELATIONS,
        metering::rate_limit::RELATIONS,
        metering::limit::RELATIONS,
        database::RELATIONS,
        database::state::RELATIONS,
        database::report::RELATIONS,
        transfer::moving::RELATIONS,
    ]
    .concat()
    .into_iter()
}

/// The function whose EXECUTE right says that a role holds this level.
const fn marker(level: Level) -> &'static str {
    match level {
        Level::Client => "clear_tenant()",
        Level::App => "set_tenant(uuid, uuid)",
        Level::Monitor => "tenancy.refused()",
        Level::Operator => "update_tenant(uuid, text, text, text, jsonb)",
        Level::Public | Level::Admin | Level::Internal => "grant_access(regrole, text)",
    }
}

extension_sql_file!(
    "../../sql/authority.sql",
    name = "authority",
    requires =
        ["bootstrap", grant_access, revoke_access, sees_all_tenants, first_visible_tenant, last_visible_tenant, seal]
);
extension_sql_file!("../../sql/finalize.sql", name = "finalize", finalize);
