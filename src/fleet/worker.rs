//! A worker of a run: takes one schema after the other until nothing is left that it could do.

use super::apply::{Outcome, Task};
use super::run::{self, Run};
use super::target::{self, Phase, Target};
use crate::error::{Error, Result, raise};
use crate::guard::lock::{Mode, Subject};
use crate::query;
use crate::role;
use crate::worker::process::{self, Failure};
use pgrx::datum::DatumWithOid;
use pgrx::{Uuid, pg_guard, pg_sys};
use std::collections::HashSet;
use std::ffi::CStr;

/// The function below, as the library exports it.
pub const FUNCTION: &CStr = c"pg_tenancy_migration_worker";

/// Characters of an error's message that are kept.
const MAX_MESSAGE: usize = 4000;

const RECORD_FAILURE: &str = "INSERT INTO tenancy.failed_migrations AS f
        (template, tenant_id, version, direction, run_id, attempts, sqlstate, message, detail, failed_at)
    VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, pg_catalog.clock_timestamp())
    ON CONFLICT ON CONSTRAINT failed_migrations_key DO UPDATE SET
        direction = excluded.direction, run_id = excluded.run_id, sqlstate = excluded.sqlstate, message = excluded.message,
        detail = excluded.detail, failed_at = excluded.failed_at,
        attempts = CASE WHEN f.run_id = excluded.run_id THEN f.attempts + 1 ELSE 1 END";

/// What a worker is told: which of how many it is, of which run and phase.
pub struct Orders {
    pub run: Uuid,
    pub phase: Phase,
    pub number: usize,
    pub of: usize,
}

impl Orders {
    pub fn write(&self) -> String {
        format!("{} {} {} {}", self.run, self.phase.name(), self.number, self.of)
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let run = crate::uuid::parse(words.next()?.as_bytes()).map(Uuid::from_bytes)?;
        let phase = Phase::from_name(words.next()?)?;
        let number = words.next()?.parse().ok()?;
        let of = words.next()?.parse().ok()?;
        Some(Self { run, phase, number, of })
    }
}

/// Where the postmaster starts a worker.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_tenancy_migration_worker(argument: pg_sys::Datum) {
    // SAFETY: the main function of a worker, which begins so.
    let orders = unsafe { process::begin(argument) };
    let result = match Orders::read(&orders) {
        Some(orders) => work(&orders),
        None => Err(Error::Internal(format!("a worker does not understand \"{orders}\""))),
    };
    if let Err(error) = result {
        raise(error);
    }
}

fn work(orders: &Orders) -> Result<()> {
    let Some(run) = read(|| run::find(orders.run))? else { return Ok(()) };
    let mut busy = HashSet::new();
    while is_current(&run)? {
        let mut left = read(|| target::pending(&run, orders.phase))?;
        left.retain(|target| target.attempts < run.max_attempts);
        if !work_through(&run, orders, &left, &mut busy) {
            break;
        }
    }
    Ok(())
}

/// Does a share of what is left, or, when all of it has been tried before, all; false when there was nothing that this worker could do.
fn work_through(run: &Run, orders: &Orders, left: &[Target], busy: &mut HashSet<[u8; 16]>) -> bool {
    let key = |target: &Target| target.tenant.map_or([0; 16], |tenant| *tenant.as_bytes());
    let fresh: Vec<Target> =
        left.iter().filter(|target| target.attempts == 0 && !busy.contains(&key(target))).copied().collect();
    let patient = fresh.is_empty();
    let list = if patient { left } else { &fresh };
    let share = list.len().div_ceil(orders.of.max(1));
    let start = list.len() * orders.number / orders.of.max(1);
    let mut served = 0;
    for target in list.iter().cycle().skip(start).take(list.len()) {
        process::breathe();
        if served == share || leader_is_gone(run) {
            break;
        }
        match serve(Task { run, tenant: target.tenant, attempts: target.attempts, patient }) {
            Served::ByOther => {}
            Served::Busy => {
                busy.insert(key(target));
                served += 1;
            }
            Served::Done => served += 1,
        }
    }
    served > 0
}

enum Served {
    Done,
    /// Another worker of the run has it.
    ByOther,
    /// Someone else has its lock.
    Busy,
}

/// Does everything that is to do to a schema, or as much as succeeds.
fn serve(mut task: Task) -> Served {
    let claim = task.tenant.map(Subject::claim);
    loop {
        if claim.is_some_and(|claim| !claim.try_lock_session(Mode::Exclusive)) {
            return Served::ByOther;
        }
        let mut version = None;
        let outcome = process::attempt(|| task.step(&mut version));
        if let Err(failure) = &outcome {
            record(&task, version, failure).unwrap_or_else(|error| raise(error));
        }
        if let Ok(Outcome::Nothing | Outcome::Busy) = outcome {
            if let Some(claim) = claim {
                claim.unlock_session(Mode::Exclusive);
            }
        } else {
            // The claim, too.
            process::forget().unwrap_or_else(|error| raise(error));
        }
        match outcome {
            Ok(Outcome::More) => task.attempts = 0,
            Ok(Outcome::Nothing | Outcome::Last) | Err(_) => return Served::Done,
            Ok(Outcome::Busy) => return Served::Busy,
        }
    }
}

/// Writes a failure down; one that came before the version was known is of the one that comes next.
fn record(task: &Task, version: Option<String>, failure: &Failure) -> Result<()> {
    let cut = |text: &str| text.chars().take(MAX_MESSAGE).collect::<String>();
    read(|| {
        let version = match version.clone() {
            Some(version) => version,
            None => match target::next(task.run, task.tenant)? {
                Some(step) => step.version,
                None => return Ok(()),
            },
        };
        let args: [DatumWithOid; 8] = [
            task.run.template.clone().into(),
            task.tenant.into(),
            version.into(),
            task.run.direction.name().into(),
            task.run.id.into(),
            failure.sqlstate.as_str().into(),
            cut(&failure.message).into(),
            failure.detail.as_deref().map(cut).into(),
        ];
        query::run(RECORD_FAILURE, &args).map(drop)
    })
}

/// Runs `work` on the product's tables in a transaction of its own.
fn read<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    process::transaction(|| true, || role::as_extension_owner(&work))?
        .ok_or_else(|| Error::Internal("a transaction without locks was not begun".to_owned()))
}

/// Whether the run goes on: its leader is there, and no other has taken its place.
fn is_current(run: &Run) -> Result<bool> {
    Ok(!leader_is_gone(run) && read(|| run::is_unfinished(run.id))?)
}

/// A leader holds the lock of the run as long as it lives.
fn leader_is_gone(run: &Run) -> bool {
    let lock = Subject::run(&run.template.0);
    let gone = lock.try_lock_session(Mode::Share);
    if gone {
        lock.unlock_session(Mode::Share);
    }
    gone
}
