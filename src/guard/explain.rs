//! EXPLAIN ANALYZE of a protected table counts the rows that a search has passed over, and so says whether another tenant has a value: refused where
//! the tenant was bound by a credential, and whoever brought that has no business with other tenants. A backend that chooses the tenant may
//! read them all.

use super::session_is_guarded;
use crate::backend::BackendStatic;
use crate::context::{self, Source};
use crate::raw::{elements, process_utility_hook};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_int, c_void};

static PREVIOUS_UTILITY: BackendStatic<pg_sys::ProcessUtility_hook_type> = BackendStatic::new(None);

/// How deep in subtransactions the outermost EXPLAIN ANALYZE that runs began; 0 when none does. A subtransaction that fails meanwhile, in a function that is
/// evaluated for the plan, does not end it.
static DEPTH: BackendStatic<c_int> = BackendStatic::new(0);

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs; every backend inherits the callbacks.
    unsafe {
        PREVIOUS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(utility);
        pg_sys::RegisterXactCallback(Some(after_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(after_subtransaction), std::ptr::null_mut());
    }
}

/// Whether counts of rows are about to be shown to somebody who may know of one tenant only. Where no tenant is bound yet, the statement itself may present
/// a credential before it reads the table.
pub fn would_tell() -> bool {
    DEPTH.get() != 0
        && context::bound()
            .map_or_else(session_is_guarded, |context| matches!(context.source, Source::ApiKey | Source::Jwt))
}

process_utility_hook!(utility, PREVIOUS_UTILITY, before_utility, after_utility);

/// Marks the time of an EXPLAIN ANALYZE; gives the mark of the statement around.
unsafe fn before_utility(statement: *mut pg_sys::PlannedStmt) -> c_int {
    let before = DEPTH.get();
    // SAFETY: a utility statement of PostgreSQL's.
    unsafe {
        let utility = (*statement).utilityStmt;
        if before == 0 && (*utility).type_ == pg_sys::NodeTag::T_ExplainStmt && analyzes(utility.cast()) {
            DEPTH.set(pg_sys::GetCurrentTransactionNestLevel());
        }
    }
    before
}

fn after_utility(before: c_int) {
    DEPTH.set(before);
}

/// Whether the option is there, whatever it is set to: the guard of who has written `ANALYZE false` costs nobody anything.
///
/// # Safety
/// A statement of PostgreSQL's.
unsafe fn analyzes(explain: *mut pg_sys::ExplainStmt) -> bool {
    // SAFETY: the caller's promise: a list of options with names.
    unsafe {
        elements::<pg_sys::DefElem>((*explain).options).any(|option| CStr::from_ptr((*option).defname) == c"analyze")
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        DEPTH.set(0);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    // SAFETY: a plain read. The subtransaction that fails is still the current one.
    let depth = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB && DEPTH.get() >= depth {
        DEPTH.set(0);
    }
}
