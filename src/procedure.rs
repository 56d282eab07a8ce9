//! Procedures that commit as they go: what a C procedure must do to be one.

use crate::error::{Error, Result};
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

/// Runs `work` in a subtransaction: on an ERROR it is undone, and the message returned. A cancellation is for the caller's caller.
pub fn attempt<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    in_subtransaction(
        work,
        |error| pg_sys::panic::ErrorReport::from(error).message().to_owned(),
        |caught| report(caught).message().to_owned(),
    )
}

/// The same with the error whole.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let whole = |caught: &pg_sys::panic::CaughtError| {
        let report = report(caught);
        let [message, detail, hint] = [Some(report.message()), report.detail(), report.hint()];
        Error::Elsewhere {
            sqlstate: crate::error::sqlstate_of(report.sql_error_code()),
            message: message.unwrap_or_default().to_owned(),
            detail: detail.map(str::to_owned),
            hint: hint.map(str::to_owned),
        }
    };
    in_subtransaction(work, |error| error, whole)
}

fn in_subtransaction<T, E>(
    work: impl FnOnce() -> Result<T>,
    ours: impl Fn(Error) -> E,
    theirs: impl Fn(&pg_sys::panic::CaughtError) -> E,
) -> std::result::Result<T, E> {
    // SAFETY: a subtransaction is begun, and ended below on either way out; the memory context and resource owner are put back,
    // as PL/pgSQL does for an exception block.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let (ours, theirs) = (AssertUnwindSafe(ours), AssertUnwindSafe(theirs));
        let result = pgrx::PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(|error| ours(error))))
            .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| error.rethrow())
            .catch_others(|error| Err(theirs(&error)))
            .catch_rust_panic(|error| Err(theirs(&error)))
            .execute();
        match result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// Runs `work` in a subtransaction; None where it was undone because a lock was not to be had in time, or by a deadlock.
pub fn unless_locked<T>(work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    // SAFETY: as in attempt; an error that is not ours to handle is raised again once the subtransaction is undone.
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
        match result {
            Ok(result) => result.map(Some),
            Err(error) if is_for_want_of_a_lock(&error) => Ok(None),
            Err(error) => error.rethrow(),
        }
    }
}

fn is_for_want_of_a_lock(error: &pg_sys::panic::CaughtError) -> bool {
    use PgSqlErrorCode::{ERRCODE_LOCK_NOT_AVAILABLE, ERRCODE_T_R_DEADLOCK_DETECTED};
    matches!(report(error).sql_error_code(), ERRCODE_LOCK_NOT_AVAILABLE | ERRCODE_T_R_DEADLOCK_DETECTED)
}

fn report(error: &pg_sys::panic::CaughtError) -> &pg_sys::panic::ErrorReportWithLevel {
    use pg_sys::panic::CaughtError::{ErrorReport, PostgresError, RustPanic};
    match error {
        PostgresError(report) | ErrorReport(report) | RustPanic { ereport: report, .. } => report,
    }
}
