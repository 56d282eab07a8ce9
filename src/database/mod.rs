//! Databases of tenants' own: what they are told of the control database's registry, and what they report to it.
//!
//! - [`state`]: people, keys, plans and limits go down, within seconds of a change.
//! - [`report`]: usage, counts and last uses come up, within a minute.

pub mod report;
pub mod state;

use crate::error::Result;
use crate::worker::task::Task;
use pgrx::Uuid;

/// What background workers do in a database that has tenants, and in one that is a tenant's own.
pub const TASKS: &[Task] = state::TASKS;
pub const TASKS_AT_HOME: &[Task] = report::TASKS;

/// Forgets what is kept of a purged tenant's database.
pub fn erase(tenant: Uuid) -> Result<()> {
    state::erase(tenant)?;
    report::erase(tenant)
}
