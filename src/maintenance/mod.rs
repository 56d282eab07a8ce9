//! What the server does by itself in each database that has the extension: one [`launcher`] starts short-lived workers, at most
//! `tenancy.max_workers` at a time, each of which pays one database a [`visit`] and does what is due there, as autovacuum does. No process
//! stays in a database, so that it can be dropped, and a thousand databases cost no more processes than one.
//!
//! Each domain names its own steps ([`crate::worker::task`]); a step is also a function or procedure that can be called.

mod errand;
mod launcher;
mod runs;
mod settings;
mod status;
mod visit;

pub use launcher::init;

use crate::level::Level;
use crate::worker::task::Task;
use crate::{access, database, home, metering, tenant, transfer};
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[(Level::Monitor, "tenancy.worker_tasks")];
pub const RELATIONS: &[(Level, &str)] =
    &[(Level::Monitor, "tenancy.worker_runs"), (Level::Monitor, "tenancy.worker_status")];

/// Every step of this database, in the order in which a visit does them. A tenant's own database uses things up, and reports; what is done to
/// tenants is done where they are kept.
fn tasks() -> Vec<&'static Task> {
    let tasks: &[&[&'static [Task]]] = match home::here() {
        Some(_) => &[&[metering::usage::TASKS, database::TASKS_AT_HOME]],
        None => {
            &[database::TASKS, &[metering::usage::TASKS, access::TASKS], &tenant::TASKS, &[transfer::moving::TASKS]]
        }
    };
    tasks.iter().copied().flatten().copied().flatten().collect()
}

extension_sql_file!(
    "../../sql/maintenance.sql",
    name = "maintenance",
    requires = ["bootstrap", "authority", worker_tasks]
);
