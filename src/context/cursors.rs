//! Cursors must not carry one tenant's rows to another: none stays open over a change of tenant, and none WITH HOLD is open or opened in
//! a transaction that is bound, since its rows would stay in the session, where a pooler leaves them for the next tenant.

use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use crate::query;
use crate::version;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

const OPEN: &str = "SELECT name FROM pg_catalog.pg_cursor()";
/// PostgreSQL's InvalidSubTransactionId: the portal was held over from an earlier transaction.
const INVALID_SUBTRANSACTION: pg_sys::SubTransactionId = 0;
const HOLDABLE: &str = "SELECT name FROM pg_catalog.pg_cursor() WHERE is_holdable";

/// The transaction that opened a cursor WITH HOLD last.
static SEEN: BackendStatic<Option<pg_sys::LocalTransactionId>> = BackendStatic::new(None);

/// Fails while a cursor other than the running statement is open.
pub fn refuse_open() -> Result<()> {
    let names = query::rows(OPEN, &[], |row| row.must::<String>(1))?;
    match names.into_iter().find(|name| !is_running(name)) {
        Some(name) => Err(Error::OpenCursor(name)),
        None => Ok(()),
    }
}

/// Fails while a cursor WITH HOLD of this transaction is open, running ones included: its rows are stored when the transaction commits. One
/// that is held over from an earlier transaction has its rows already.
pub fn refuse_holdable() -> Result<()> {
    if SEEN.get() != Some(version::local_transaction_id()) {
        return Ok(());
    }
    let names = query::rows(HOLDABLE, &[], |row| row.must::<String>(1))?;
    match names.into_iter().find(|name| is_of_this_transaction(name)) {
        Some(name) => Err(Error::OpenHoldableCursor(name)),
        None => Ok(()),
    }
}

/// Called for every statement that starts: remembers that this transaction has opened a cursor WITH HOLD, and fails where it is bound.
#[inline]
pub fn see_statement(bound: bool) -> Result<()> {
    // SAFETY: a portal that is running has options and a name.
    unsafe {
        let portal = pg_sys::ActivePortal;
        if portal.is_null() || (*portal).cursorOptions & pg_sys::CURSOR_OPT_HOLD as i32 == 0 {
            return Ok(());
        }
        SEEN.set(Some(version::local_transaction_id()));
        if !bound {
            return Ok(());
        }
        Err(Error::HoldableCursor(CStr::from_ptr((*portal).name).to_string_lossy().into_owned()))
    }
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

fn is_of_this_transaction(name: &str) -> bool {
    let portal = portal(name);
    // SAFETY: a portal that was just found.
    !portal.is_null() && unsafe { (*portal).createSubid } != INVALID_SUBTRANSACTION
}
