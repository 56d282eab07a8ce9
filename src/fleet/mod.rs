//! Migrations of a fleet: what changes in a template changes in the schema of every tenant that was made from it.
//!
//! [`registry`] keeps the migrations, whose SQL is a [`script`]. A [`run`] is led by the session that calls for it ([`lead`]), which starts
//! workers and waits; each [`worker`] takes [`target`]s, tenants' schemas or the template's, and lets [`apply`] do one migration after the other,
//! in a tenant's own database through [`remote`], whom it gives an [`answer`].

mod answer;
mod apply;
mod lead;
mod registry;
mod remote;
mod run;
mod script;
mod target;
mod worker;

use crate::erased::{self, Erased};
use crate::error::Result;
use crate::level::Level;
use crate::worker::errand::Errand;
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::Admin, "add_migration"),
    (Level::Admin, "remove_migration"),
    (Level::Admin, "unregister_template"),
    (Level::Admin, "migrate_tenants"),
    (Level::Admin, "rollback_tenants"),
];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::Operator, "tenancy.migrations"),
    (Level::Operator, "tenancy.migration_runs"),
    (Level::Operator, "tenancy.failed_migrations"),
    (Level::Operator, "tenancy.migration_status"),
];

/// What a tenant's own database is asked to do.
pub const ERRANDS: &[Errand] = &[Errand { name: remote::ERRAND, run: answer::answer }];

const FORGET: &str = "DELETE FROM tenancy.failed_migrations WHERE tenant_id = $1";

/// Removes what is known of a tenant's failures, whose messages may quote its rows.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&[FORGET], tenant, erased)
}

extension_sql_file!(
    "../../sql/fleet.sql",
    name = "fleet",
    requires =
        ["schema", "audit", add_migration, remove_migration, unregister_template, migrate_tenants, rollback_tenants]
);
