//! What a tenant's own database tells the control database: usage, so that tenant_usage() and billing are answered there; how much there is of
//! what is limited; and when keys and people were seen last.
//!
//! [`send`] runs in the tenant's own database, a moment after something was used there, [`receive`] in the control database. What has been
//! reported is kept in the tenant's own database, and each part of it replaces what was reported before: a report that is repeated, or was
//! lost, does no harm.

mod drain;
mod receive;
mod send;
mod uses;

pub use drain::drain;
pub use send::report_all;

use crate::erased::{self, Erased};
use crate::error::Result;
use crate::level::Level;
use crate::worker::errand::Errand;
use crate::worker::task::{Task, Work};
use pgrx::Uuid;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[];
pub const RELATIONS: &[(Level, &str)] = &[(Level::Operator, "tenancy.database_limits")];

/// What workers do in a tenant's own database.
pub const TASKS: &[Task] =
    &[Task { name: "report to the control database", every_s: 5, work: Work::Batch(send::batch) }];

/// What the control database is asked to do, and a tenant's own.
pub const ERRANDS: &[Errand] =
    &[Errand { name: send::ERRAND, run: receive::run }, Errand { name: drain::ERRAND, run: drain::answer }];

const ERASE: [&str; 2] = [
    "DELETE FROM tenancy.database_reports WHERE tenant_id = $1",
    "DELETE FROM tenancy.database_limits WHERE tenant_id = $1",
];

/// Forgets what a tenant's own database has reported, beside usage.
pub fn erase(tenant: Uuid, erased: &mut Erased) -> Result<()> {
    erased::run(&ERASE, tenant, erased)
}

extension_sql_file!(
    "../../../sql/database_report.sql",
    name = "database_report",
    requires = ["bootstrap", "tenant", "access", "metering_usage"]
);
