//! Procedures that commit as they go: what a C procedure must do to be one.

use crate::error::{Error, Result};
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::panic::AssertUnwindSafe;

/// A running procedure that may end its transaction.
pub struct Procedure(());

impl Procedure {
    /// Fails when the caller has opened a transaction block, whose end is the caller's.
    ///
    /// # Safety
    /// `fcinfo` is the call record of a procedure that PostgreSQL is calling.
    pub unsafe fn begin(fcinfo: pg_sys::FunctionCallInfo, name: &'static str) -> Result<Self> {
        // SAFETY: the caller's promise; the context of a CALL is a CallContext.
        unsafe {
            let context = (*fcinfo).context;
            let atomic = context.is_null()
                || (*context).type_ != pg_sys::NodeTag::T_CallContext
                || (*context.cast::<pg_sys::CallContext>()).atomic;
            if atomic {
                return Err(Error::InTransactionBlock(name));
            }
            pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as _);
        }
        Ok(Self(()))
    }

    /// Commits, and opens the next transaction.
    pub fn commit(&self) {
        // SAFETY: connected non-atomically, with no inner connection open.
        unsafe {
            pg_sys::SPI_commit();
            pg_sys::EnsurePortalSnapshotExists();
        }
    }
}

impl Procedure {
    /// Commits, and waits until `done`, which is asked when another process wakes this one and every 100 ms, at the start of the next
    /// transaction and without a snapshot: nobody has to wait for this session meanwhile. `done` must take none either.
    pub fn wait_until(&self, mut done: impl FnMut() -> bool) {
        const EVENTS: u32 = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: as in commit; the latch is this process's own.
        unsafe {
            pg_sys::SPI_commit();
            while !done() {
                pg_sys::WaitLatch(pg_sys::MyLatch, EVENTS as _, 100, pg_sys::PG_WAIT_EXTENSION);
                pg_sys::ResetLatch(pg_sys::MyLatch);
                pgrx::check_for_interrupts!();
            }
            pg_sys::EnsurePortalSnapshotExists();
        }
    }
}

impl Drop for Procedure {
    fn drop(&mut self) {
        // SAFETY: ends the connection that begin made.
        unsafe {
            pg_sys::SPI_finish();
        }
    }
}

/// Runs `work` in a subtransaction, which is undone when it fails.
fn in_subtransaction<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<Result<T>, CaughtError> {
    // SAFETY: a subtransaction is begun, and ended below on either way out; the memory context and resource owner are put back,
    // as PL/pgSQL does for an exception block.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result =
            pgrx::PgTryBuilder::new(AssertUnwindSafe(|| Ok(work()))).catch_others(Err).catch_rust_panic(Err).execute();
        match result {
            Ok(Ok(_)) => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// Runs `work` in a subtransaction: on an ERROR it is undone, and the message returned. A cancellation is for the caller's caller.
pub fn attempt<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    match in_subtransaction(work) {
        Ok(result) => result.map_err(|error| pg_sys::panic::ErrorReport::from(error).message().to_owned()),
        // With the subtransaction ended: nobody else would end it, and the session would be left in it.
        Err(error) if report(&error).sql_error_code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED => error.rethrow(),
        Err(error) => Err(report(&error).message().to_owned()),
    }
}

/// The same with the error whole.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    match in_subtransaction(work) {
        Ok(result) => result,
        Err(error) if report(&error).sql_error_code() == PgSqlErrorCode::ERRCODE_QUERY_CANCELED => error.rethrow(),
        Err(error) => Err(Error::caught(report(&error))),
    }
}

/// The same, a cancellation too: for whoever has something to put back before it is raised.
pub fn caught_all<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    in_subtransaction(work).unwrap_or_else(|error| Err(Error::caught(report(&error))))
}

/// Runs `work` in a subtransaction; None where it was undone because a lock was not to be had in time, or by a deadlock.
pub fn unless_locked<T>(work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    use PgSqlErrorCode::{ERRCODE_LOCK_NOT_AVAILABLE, ERRCODE_T_R_DEADLOCK_DETECTED};
    match in_subtransaction(work) {
        Ok(result) => result.map(Some),
        Err(error) => match report(&error).sql_error_code() {
            ERRCODE_LOCK_NOT_AVAILABLE | ERRCODE_T_R_DEADLOCK_DETECTED => Ok(None),
            _ => error.rethrow(),
        },
    }
}

fn report(error: &CaughtError) -> &ErrorReportWithLevel {
    use CaughtError::{ErrorReport, PostgresError, RustPanic};
    match error {
        PostgresError(report) | ErrorReport(report) | RustPanic { ereport: report, .. } => report,
    }
}
