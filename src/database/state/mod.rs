//! What a tenant's own database knows of its tenant: a copy of the control database's rows, which [`note`] keeps anyone from changing there.
//!
//! In the control database [`note`] queues every change of such rows, with the transaction that makes it. A worker, or whoever calls
//! sync_tenant_databases(), then tells each database that it concerns ([`tell`]) all that is so now ([`contents`]), and that database makes its
//! rows the same ([`receive`]). Telling twice does no harm, and what was queued is removed only when it has been told: nothing is lost by a crash.

mod contents;
mod note;
mod receive;
mod sync;
mod tell;

pub use note::refuse_at_home;
pub use tell::tell;

use crate::erased::{self, Erased};
use crate::error::Result;
use crate::level::Level;
use crate::worker::errand::Errand;
use crate::worker::task::{Task, Work};
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] =
    &[(Level::Admin, "sync_tenant_databases"), (Level::Internal, "tenancy.note_change")];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Operator, "tenancy.database_state")];

/// What workers do in a control database.
pub const TASKS: &[Task] = &[
    Task { name: "state of tenants' databases", every_s: 2, work: Work::Batch(sync::batch) },
    Task { name: "sweep of tenants' databases", every_s: 300, work: Work::Batch(sync::sweep) },
];

/// What a tenant's own database is asked to do.
pub const ERRANDS: &[Errand] = &[Errand { name: tell::ERRAND, run: receive::run }];

const ERASE: [&str; 2] = [
    "DELETE FROM tenancy.database_changes WHERE tenant_id = $1",
    "DELETE FROM tenancy.told_states WHERE tenant_id = $1",
];

/// Forgets what a tenant's own database was told.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&ERASE, tenant, erased)
}

extension_sql_file!(
    "../../../sql/database_state.sql",
    name = "database_state",
    requires = [
        "bootstrap",
        "tenant",
        "access",
        "schema",
        "fleet",
        "metering_plan",
        "metering_usage",
        "metering_limit",
        "metering_billing",
        "metering_rate_limit",
        "database_report",
        sync_tenant_databases
    ]
);
