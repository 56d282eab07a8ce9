//! A worker's visit of a database: what is due there, one step after the other, for no longer than a moment.

use super::runs::{self, Outcome};
use super::{settings, tasks};
use crate::error::{Error, Result};
use crate::extension;
use crate::guard::lock::{Mode, Subject};
use crate::monitor::{self, Report};
use crate::role;
use crate::worker::process::{self, Failure};
use crate::worker::task::{self, Task, Work};
use pgrx::{log, pg_guard, pg_sys};
use std::ffi::{CStr, CString};
use std::time::Duration;

/// The function below, as the library exports it.
pub const FUNCTION: &CStr = c"pg_tenancy_worker";

/// How long a visit lasts, but for the batch that is under way: DROP DATABASE waits for five seconds before it fails.
const LIMIT: Duration = Duration::from_secs(2);

/// Milliseconds until a database is visited again that is being restored.
const PATIENCE_MS: u64 = 5_000;

/// What a worker is told.
pub struct Orders {
    /// Where it reports.
    pub number: usize,
    /// Whether something was done in the database since the last visit.
    pub announced: bool,
}

impl Orders {
    pub fn write(&self) -> String {
        format!("{} {}", self.number, u8::from(self.announced))
    }

    fn read(text: &str) -> Option<Self> {
        let (number, announced) = text.split_once(' ')?;
        Some(Self { number: number.parse().ok()?, announced: announced == "1" })
    }
}

/// Where the postmaster starts a worker.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_tenancy_worker(argument: pg_sys::Datum) {
    // SAFETY: the main function of a worker, which begins so.
    let orders = unsafe { process::begin(argument) };
    let Some(orders) = Orders::read(&orders) else { return };
    let Some(place) = monitor::visit(orders.number) else { return };
    task::limit_time(LIMIT);
    match process::attempt(|| visit(orders.announced)) {
        Ok(report) => place.end(report),
        Err(_) if is_gone() => place.end(Report::NoExtension),
        Err(failure) => log!("pg_tenancy worker: {}", failure.message),
    }
}

/// Does what is due; what to report.
fn visit(announced: bool) -> Result<Report> {
    process::configure();
    if !own(|| Ok(runs::are_kept()))? {
        return Ok(Report::NoExtension);
    }
    let alone = Subject::step("visit");
    if !alone.try_lock_session(Mode::Exclusive) {
        // A worker of a launcher that has ended is still here.
        return Ok(Report::Nothing);
    }
    if own(runs::is_being_restored)? {
        return Ok(Report::NextIn(PATIENCE_MS));
    }
    let tasks = own(|| Ok(tasks()))?;
    for task in &tasks {
        process::breathe();
        if task::time_is_up() || !settings::enabled() {
            break;
        }
        if own(|| runs::is_due(task, announced))? {
            run(task)?;
        }
    }
    Ok(Report::NextIn(own(|| runs::next_in_ms(tasks.iter().copied()))?))
}

/// Whether the extension was dropped meanwhile: what failed for that reason is no failure.
fn is_gone() -> bool {
    process::attempt(|| own(|| Ok(runs::are_kept()))).is_ok_and(|are_kept| !are_kept)
}

/// Runs `work` on the product's own tables in a transaction.
fn own<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    process::transaction(|| true, work)?
        .ok_or_else(|| Error::Internal("a transaction without locks was not begun".to_owned()))
}

/// Does one step, and writes down how it went.
fn run(task: &Task) -> Result<()> {
    process::say(task.name);
    // SAFETY: reads the clock.
    let started = unsafe { pg_sys::GetCurrentTimestamp() };
    let mut outcome = Outcome { started, done: 0, has_more: false, failure: None };
    match task.work {
        Work::Batch(batch) => batches(batch, &mut outcome),
        Work::Call(call) => {
            outcome.failure = process::attempt(|| self::call(call)).err();
            outcome.has_more = task::time_is_up();
        }
    }
    if outcome.failure.is_some() && is_gone() {
        return Ok(());
    }
    let noted = task::take_noted();
    outcome.done += noted.done;
    if let Some(failure) = &outcome.failure {
        log!("pg_tenancy worker: {}: {}", task.name, failure.message);
    }
    outcome.failure = outcome.failure.or(noted.failure.map(Failure::noted));
    if outcome.failure.is_some() || matches!(task.work, Work::Call(_)) {
        process::configure();
    }
    own(|| runs::record(task, &outcome))
}

/// One batch after the other, while there may be more.
fn batches(batch: fn() -> Result<(u64, bool)>, outcome: &mut Outcome) {
    loop {
        match process::attempt(|| own(|| role::as_extension_owner(batch))) {
            Ok((done, more)) => {
                outcome.done += done;
                outcome.has_more = more;
            }
            Err(failure) => outcome.failure = Some(failure),
        }
        if outcome.failure.is_some() || !outcome.has_more || task::time_is_up() {
            return;
        }
        process::breathe();
    }
}

/// Calls a procedure that commits as it goes.
fn call(procedure: &str) -> Result<()> {
    let schema = own(extension::schema)?;
    let text = CString::new(format!("CALL {schema}.{procedure}"))
        .map_err(|_| Error::Internal("a procedure's name has a zero byte".to_owned()))?;
    // SAFETY: the worker is between transactions; an error leaves this one to attempt().
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        process::run_alone(&text);
        pg_sys::CommitTransactionCommand();
    }
    Ok(())
}
