//! Cursors must not carry one tenant's rows to another: none stays open over a change of tenant, and none outlives its transaction.

use super::state;
use crate::error::{Error, Result, raise};
use crate::monitor::{self, Refusal};
use crate::query;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CString, c_void};

const OPEN: &str = "SELECT name FROM pg_catalog.pg_cursor()";
const HOLDABLE: &str = "SELECT name FROM pg_catalog.pg_cursor() WHERE is_holdable";

/// Registers the check at commit.
pub fn init() {
    // SAFETY: the callback is a static function that needs no argument.
    unsafe { pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut()) };
}

/// Fails while a cursor other than the running statement is open.
pub fn refuse_open() -> Result<()> {
    let names = query::rows(OPEN, &[], |row| row.must::<String>(1))?;
    match names.into_iter().find(|name| !is_running(name)) {
        Some(name) => Err(Error::OpenCursor(name)),
        None => Ok(()),
    }
}

/// Fails while a cursor WITH HOLD is open: at the end of the transaction nothing would tell it from one that holds the tenant's rows.
pub fn refuse_holdable() -> Result<()> {
    if no_cursors() {
        return Ok(());
    }
    match holdable()?.into_iter().next() {
        Some(name) => Err(Error::OpenHoldableCursor(name)),
        None => Ok(()),
    }
}

fn no_cursors() -> bool {
    // SAFETY: walks the list of this session's portals.
    unsafe { pg_sys::ThereAreNoReadyPortals() }
}

fn holdable() -> Result<Vec<String>> {
    query::rows(HOLDABLE, &[], |row| row.must(1))
}

fn portal(name: &str) -> pg_sys::Portal {
    match CString::new(name) {
        // SAFETY: a hash lookup by a C string.
        Ok(name) => unsafe { pg_sys::GetPortalByName(name.as_ptr()) },
        Err(_) => std::ptr::null_mut(),
    }
}

/// Whether the portal of this name is the one that runs the current statement.
fn is_running(name: &str) -> bool {
    // SAFETY: a plain read.
    std::ptr::eq(portal(name), unsafe { pg_sys::ActivePortal })
}

/// Refuses to commit a cursor WITH HOLD of a transaction that was bound, where a pooler would leave its rows for the next tenant. By
/// now PostgreSQL has stored them in the session, beyond the reach of the rollback that follows, so they are dropped here.
#[pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    if event != pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT {
        return;
    }
    let Some(tenant) = state::first_of_transaction() else { return };
    if no_cursors() {
        return;
    }
    // SAFETY: a transaction is running; the snapshot is popped when the query is done, or by the abort that an ERROR causes.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let held = holdable().unwrap_or_else(|error| raise(error));
    // SAFETY: pops what was pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    for name in &held {
        let portal = portal(name);
        if !portal.is_null() {
            // SAFETY: a portal that is not running; PostgreSQL frees what it holds.
            unsafe { pg_sys::PortalDrop(portal, false) };
        }
    }
    if let Some(name) = held.into_iter().next() {
        monitor::count(Some(&tenant), Refusal::Guard);
        raise(Error::HoldableCursor(name));
    }
}
