//! Cursors must not carry one tenant's rows to another: none stays open over a rebind, and none outlives its transaction.

use super::state;
use crate::error::{Error, Result, raise};
use crate::monitor::{self, Refusal};
use crate::query;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CString, c_void};

const OPEN_CURSORS: &str = "SELECT name FROM pg_catalog.pg_cursor()";
const HELD_CURSORS: &str =
    "SELECT name FROM pg_catalog.pg_cursor() WHERE is_holdable AND creation_time >= pg_catalog.transaction_timestamp()";

/// Registers the check at commit.
pub fn init() {
    // SAFETY: the callback is a static function that needs no argument.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

/// Fails while a cursor other than the running statement is open.
pub fn refuse_open() -> Result<()> {
    let names = query::rows(OPEN_CURSORS, &[], |row| row.must::<String>(1))?;
    match names.into_iter().find(|name| !is_running(name)) {
        Some(name) => Err(Error::OpenCursor(name)),
        None => Ok(()),
    }
}

/// Whether the portal of this name is the one that runs the current statement.
fn is_running(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: a hash lookup by a C string, and a comparison of addresses.
    unsafe { std::ptr::eq(pg_sys::GetPortalByName(name.as_ptr()), pg_sys::ActivePortal) }
}

/// Refuses to commit a cursor WITH HOLD of a transaction that was bound: by now PostgreSQL has stored its rows in the session,
/// where a pooler would leave them for the next tenant.
#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    if event != pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT {
        return;
    }
    let Some(tenant) = state::first_of_transaction() else { return };
    // SAFETY: walks the list of this session's portals.
    if unsafe { pg_sys::ThereAreNoReadyPortals() } {
        return;
    }
    match held_cursor() {
        Ok(None) => {}
        Ok(Some(name)) => {
            monitor::count(Some(&tenant), Refusal::Guard);
            raise(Error::HoldableCursor(name));
        }
        Err(error) => raise(error),
    }
}

fn held_cursor() -> Result<Option<String>> {
    // SAFETY: a transaction is running; the snapshot is popped when the query is done, or by the abort that an ERROR causes.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let held = query::value(HELD_CURSORS, &[]);
    // SAFETY: pops what was pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    held
}
