//! What can be seen of the workers.

use super::{settings, tasks};
use crate::monitor;
use pgrx::prelude::*;

/// Every step, with what holds for the whole server.
#[pg_extern(schema = "tenancy")]
#[allow(clippy::type_complexity)]
fn worker_tasks() -> TableIterator<
    'static,
    (name!(task, &'static str), name!(every_s, i32), name!(enabled, bool), name!(launcher_pid, Option<i32>)),
> {
    let (enabled, launcher) = (settings::enabled(), monitor::launcher());
    TableIterator::new(tasks().into_iter().map(move |task| (task.name, task.every_s.cast_signed(), enabled, launcher)))
}
