//! Background workers that a process starts for one piece of work.
//!
//! [`Worker`] and [`Workers`] are the starter's side: they start them, tell when they have ended, and end them when they are dropped or when
//! the process itself ends. [`process`] is the worker's: how it begins, and how it does one thing after another so that one's failure stays its
//! own. [`errand`] is what one database has done in another, [`task`] what the server's own workers do.

pub mod errand;
pub mod process;
pub mod task;

use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char, c_int};

/// As many as one process can have at a time.
pub const MAX: usize = 64;

type Handle = *mut pg_sys::BackgroundWorkerHandle;

/// The workers of this process that may still run: one that is terminated unwinds nothing.
static RUNNING: BackendStatic<[Handle; MAX]> = BackendStatic::new([std::ptr::null_mut(); MAX]);
static ENDS_WITH_US: BackendStatic<bool> = BackendStatic::new(false);

/// What workers are to do.
pub struct Job<'a> {
    /// The exported function that they run.
    pub function: &'static CStr,
    /// What pg_stat_activity calls their kind, and the log each of them.
    pub name: &'a str,
    /// The database that they work in.
    pub database: pg_sys::Oid,
}

/// A worker of this process, which ends with it or with this.
pub struct Worker(Handle);

impl Worker {
    /// Starts a worker whose function is told `argument`, at most 127 bytes; None when the server has no room for one.
    pub fn start(job: &Job, argument: &str) -> Option<Self> {
        end_with_process();
        let handle = register(job, argument)?;
        remember(std::ptr::null_mut(), handle);
        Some(Self(handle))
    }

    /// Whether it has ended. Reads shared memory only, so that it can be asked without a snapshot.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: a handle of ours, which lives until drop.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        matches!(status, pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        remember(self.0, std::ptr::null_mut());
        // SAFETY: a handle of ours, allocated by PostgreSQL; ending a worker that has ended does nothing.
        unsafe {
            pg_sys::TerminateBackgroundWorker(self.0);
            pg_sys::pfree(self.0.cast());
        }
    }
}

/// Workers for one piece of work together.
pub struct Workers(Vec<Worker>);

impl Workers {
    /// Starts `wanted` workers, or as many as the server has room for, each told the argument of its number; an error when that is none.
    pub fn start(job: &Job, wanted: usize, argument: impl Fn(usize) -> String) -> Result<Self> {
        let workers: Vec<_> = (0..wanted.min(MAX)).map_while(|number| Worker::start(job, &argument(number))).collect();
        if workers.is_empty() { Err(Error::NoWorkers) } else { Ok(Self(workers)) }
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn have_ended(&self) -> bool {
        self.0.iter().all(Worker::has_ended)
    }
}

fn remember(old: Handle, new: Handle) {
    let mut running = RUNNING.get();
    if let Some(place) = running.iter_mut().find(|place| **place == old) {
        *place = new;
    }
    RUNNING.set(running);
}

/// Asks the postmaster for a worker; None when it has no room.
fn register(job: &Job, argument: &str) -> Option<Handle> {
    let mut worker = entry(job.function, job.name);
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    copy(&mut worker.bgw_type, "pg_tenancy worker");
    copy(&mut worker.bgw_extra, argument);
    // SAFETY: plain reads; the handle is allocated where it outlives transactions, and the worker is copied.
    unsafe {
        worker.bgw_main_arg = pg_sys::Datum::from(job.database);
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let mut handle = std::ptr::null_mut();
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(context);
        registered.then_some(handle)
    }
}

/// Has the postmaster keep a process that runs `function`, from _PG_init: it is started again when it has ended.
pub fn keep(function: &CStr, name: &str) {
    const PAUSE_S: c_int = 5;
    let mut worker = entry(function, name);
    worker.bgw_restart_time = PAUSE_S;
    copy(&mut worker.bgw_type, name);
    // SAFETY: the worker is copied.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut worker) };
}

fn entry(function: &CStr, name: &str) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        ..Default::default()
    };
    copy(&mut worker.bgw_name, name);
    copy(&mut worker.bgw_library_name, "pg_tenancy");
    copy(&mut worker.bgw_function_name, &function.to_string_lossy());
    worker
}

/// Copies a text into an array of C, cut to fit, with the zero at its end.
fn copy(target: &mut [c_char], text: &str) {
    let mut end = text.len().min(target.len() - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    target.fill(0);
    for (place, byte) in target.iter_mut().zip(text[..end].bytes()) {
        *place = byte as c_char;
    }
}

fn end_with_process() {
    if !ENDS_WITH_US.get() {
        // SAFETY: a static function, registered once.
        unsafe { pg_sys::before_shmem_exit(Some(end_running), pg_sys::Datum::null()) };
        ENDS_WITH_US.set(true);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end_running(_code: c_int, _argument: pg_sys::Datum) {
    for handle in RUNNING.get() {
        if !handle.is_null() {
            // SAFETY: a handle whose Worker has not been dropped.
            unsafe { pg_sys::TerminateBackgroundWorker(handle) };
        }
    }
}
