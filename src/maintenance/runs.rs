//! What each step did last in this database, and when it is due again: `tenancy.worker_runs`.

use crate::error::{Error, Result};
use crate::query;
use crate::role;
use crate::worker::process::Failure;
use crate::worker::task::Task;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Seconds after which a step that a use of the database calls for is done without one.
const IDLE_S: u32 = 60;
/// Seconds after which a step is tried again that has failed, if not sooner by its own measure; twice as long after each further failure, up to
/// an hour.
const RETRY_S: u32 = 60;
const MAX_RETRY_S: u32 = 3600;
/// Characters of an error's message that are kept.
const MAX_MESSAGE: usize = 1000;

/// A session that has been idle for some seconds does not restore.
const RESTORED: &str = "SELECT EXISTS (
    SELECT FROM pg_catalog.pg_stat_get_activity(NULL) a
    LEFT JOIN tenancy.installation i ON i.pid = a.pid AND i.backend_start = a.backend_start
    WHERE a.datid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = a.usesysid AND (r.rolsuper
            OR pg_catalog.pg_has_role(r.oid, (SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), 'MEMBER')))
      AND (a.application_name = 'pg_restore'
           OR (i.pid IS NOT NULL AND a.application_name = 'psql' AND (a.state <> 'idle' OR a.state_change > pg_catalog.clock_timestamp() - '5 s'::pg_catalog.interval))))";
const DUE: &str =
    "SELECT next_due_at <= pg_catalog.clock_timestamp() OR last_finished_at > pg_catalog.clock_timestamp()
        OR ($2 AND failures_in_row = 0)
    FROM tenancy.worker_runs WHERE task = $1";
const NEXT: &str =
    "SELECT pg_catalog.ceil(1000 * EXTRACT(epoch FROM next_due_at - pg_catalog.clock_timestamp()))::bigint
    FROM tenancy.worker_runs WHERE task = $1";
const RECORD: &str = "INSERT INTO tenancy.worker_runs AS r
        (task, runs, done, failures, failures_in_row, last_started_at, last_finished_at, next_due_at, last_failed_at, last_sqlstate, last_error)
    SELECT $1, 1, $2, failed, failed, $3, now, now + pg_catalog.make_interval(secs => $4), CASE failed WHEN 1 THEN now END, $5, $6
    FROM (SELECT ($5 IS NOT NULL)::integer AS failed, pg_catalog.clock_timestamp() AS now) AS this
    ON CONFLICT (task) DO UPDATE SET
        runs = r.runs + 1, done = r.done + excluded.done, failures = r.failures + excluded.failures,
        failures_in_row = CASE excluded.failures WHEN 0 THEN 0 ELSE r.failures_in_row + 1 END,
        last_started_at = excluded.last_started_at, last_finished_at = excluded.last_finished_at,
        next_due_at = CASE excluded.failures WHEN 0 THEN excluded.next_due_at ELSE excluded.last_finished_at
            + pg_catalog.make_interval(secs => LEAST($4 * pg_catalog.power(2, LEAST(r.failures_in_row, 20)), $7)) END,
        last_failed_at = COALESCE(excluded.last_failed_at, r.last_failed_at),
        last_sqlstate = COALESCE(excluded.last_sqlstate, r.last_sqlstate),
        last_error = COALESCE(excluded.last_error, r.last_error)";

/// How a step went.
pub struct Outcome {
    pub started: pg_sys::TimestampTz,
    pub done: u64,
    /// Whether there may be more to do at once.
    pub has_more: bool,
    pub failure: Option<Failure>,
}

/// Whether this database has the table, and so the extension.
pub fn are_kept() -> bool {
    // SAFETY: syscache look-ups by C strings.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"tenancy".as_ptr(), true);
        schema != pg_sys::InvalidOid && pg_sys::get_relname_relid(c"worker_runs".as_ptr(), schema) != pg_sys::InvalidOid
    }
}

/// Whether someone who could seems to restore a dump here: half of it must not be worked on, as if it were all. That is so while `pg_restore` is
/// connected, and while the psql that made the extension is busy, as a superuser or as the database's owner.
pub fn is_being_restored() -> Result<bool> {
    Ok(role::as_extension_owner(|| query::value(RESTORED, &[]))?.unwrap_or(false))
}

/// Whether the step is to be done now; `announced` says that something was done in the database.
pub fn is_due(task: &Task, announced: bool) -> Result<bool> {
    let follows_use = task.every_s < IDLE_S;
    let due: Option<bool> =
        role::as_extension_owner(|| query::value(DUE, &[task.name.into(), (announced && follows_use).into()]))?;
    Ok(due.unwrap_or(true))
}

/// Milliseconds until one of the steps is due.
pub fn next_in_ms<'a>(tasks: impl Iterator<Item = &'a Task>) -> Result<u64> {
    let mut next = u64::from(IDLE_S) * 1000;
    for task in tasks {
        let wait: Option<i64> = role::as_extension_owner(|| query::value(NEXT, &[task.name.into()]))?;
        next = next.min(wait.unwrap_or(0).max(0).cast_unsigned());
    }
    Ok(next)
}

/// Writes down how a step went, and when it is due again.
pub fn record(task: &Task, outcome: &Outcome) -> Result<()> {
    let started: TimestampWithTimeZone =
        outcome.started.try_into().map_err(|_| Error::Internal("the clock is out of range".to_owned()))?;
    let wait = match outcome {
        Outcome { failure: Some(_), .. } => task.every_s.min(RETRY_S),
        Outcome { has_more: true, .. } => 0,
        _ => task.every_s.max(IDLE_S),
    };
    let cut = |text: &str| text.chars().take(MAX_MESSAGE).collect::<String>();
    let args = [
        task.name.into(),
        outcome.done.cast_signed().into(),
        started.into(),
        f64::from(wait).into(),
        outcome.failure.as_ref().map(|failure| failure.sqlstate.as_str()).into(),
        outcome.failure.as_ref().map(|failure| cut(&failure.message)).into(),
        f64::from(MAX_RETRY_S).into(),
    ];
    role::as_extension_owner(|| query::run(RECORD, &args)).map(drop)
}
