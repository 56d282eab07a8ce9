//! Background workers that a session starts for one piece of work and waits for.
//!
//! [`Workers`] is the session's side: it starts them, tells when they have ended, and ends them when it is dropped or when the session itself
//! ends. [`process`] is the worker's: how it begins, and how it does one thing after another so that one's failure stays its own.

pub mod process;
pub mod task;

use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char, c_int};

/// As many as one session can have at a time.
pub const MAX: usize = 64;

type Handle = *mut pg_sys::BackgroundWorkerHandle;

/// The workers of this session that may still run: a session that is terminated unwinds nothing.
static RUNNING: BackendStatic<[Handle; MAX]> = BackendStatic::new([std::ptr::null_mut(); MAX]);
static ENDS_WITH_US: BackendStatic<bool> = BackendStatic::new(false);

/// What workers are to do.
pub struct Job<'a> {
    /// The exported function that they run.
    pub function: &'static CStr,
    /// What pg_stat_activity calls their kind, and the log each of them.
    pub name: &'a str,
    /// What the function is told; at most 127 bytes.
    pub argument: &'a dyn Fn(usize) -> String,
}

/// Workers of this session, which end with it or with this.
pub struct Workers(Vec<Handle>);

impl Workers {
    /// Starts `wanted` workers, or as many as the server has room for; an error when that is none.
    pub fn start(job: &Job, wanted: usize) -> Result<Self> {
        end_with_session();
        let mut workers = Self(Vec::new());
        for number in 0..wanted.min(MAX) {
            let Some(handle) = register(job, &(job.argument)(number)) else { break };
            workers.0.push(handle);
            remember(std::ptr::null_mut(), handle);
        }
        if workers.0.is_empty() { Err(Error::NoWorkers) } else { Ok(workers) }
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether all have ended. Reads shared memory only, so that it can be asked without a snapshot.
    pub fn have_ended(&self) -> bool {
        self.0.iter().all(|handle| {
            let mut pid = 0;
            // SAFETY: a handle of ours, which lives until drop.
            let status = unsafe { pg_sys::GetBackgroundWorkerPid(*handle, &mut pid) };
            matches!(status, pg_sys::BgwHandleStatus::BGWH_STOPPED | pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED)
        })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for handle in self.0.drain(..) {
            remember(handle, std::ptr::null_mut());
            // SAFETY: a handle of ours, allocated by PostgreSQL; ending a worker that has ended does nothing.
            unsafe {
                pg_sys::TerminateBackgroundWorker(handle);
                pg_sys::pfree(handle.cast());
            }
        }
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
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        ..Default::default()
    };
    copy(&mut worker.bgw_name, job.name);
    copy(&mut worker.bgw_type, "pg_tenancy worker");
    copy(&mut worker.bgw_library_name, "pg_tenancy");
    copy(&mut worker.bgw_function_name, &job.function.to_string_lossy());
    copy(&mut worker.bgw_extra, argument);
    // SAFETY: plain reads; the handle is allocated where it outlives transactions, and the worker is copied.
    unsafe {
        worker.bgw_main_arg = pg_sys::Datum::from(pg_sys::MyDatabaseId);
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let mut handle = std::ptr::null_mut();
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(context);
        registered.then_some(handle)
    }
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

fn end_with_session() {
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
            // SAFETY: a handle whose Workers has not been dropped.
            unsafe { pg_sys::TerminateBackgroundWorker(handle) };
        }
    }
}
