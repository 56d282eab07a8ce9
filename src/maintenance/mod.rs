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
use crate::{access, database, metering, tenant};
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[(Level::Monitor, "tenancy.worker_tasks")];
pub const RELATIONS: &[(Level, &str)] =
    &[(Level::Monitor, "tenancy.worker_runs"), (Level::Monitor, "tenancy.worker_status")];

/// Every step, in the order in which a visit does them.
fn tasks() -> impl Iterator<Item = &'static Task> {
    [database::TASKS, metering::usage::TASKS, access::TASKS].into_iter().chain(tenant::TASKS).flatten()
}

extension_sql_file!(
    "../../sql/maintenance.sql",
    name = "maintenance",
    requires = ["bootstrap", "authority", worker_tasks]
);
