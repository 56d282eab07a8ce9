//! `pg_stat_activity`: sessions of one role see each other's statements. PostgreSQL shows a statement when it arrives, so a credential
//! written into one is covered as soon as it is parsed, and again when the execution of a prepared one starts. One that is passed as a
//! parameter is never shown.

use super::{client_statement, pattern};
use crate::backend::BackendStatic;
use crate::raw::{self, process_utility_hook};
use crate::version::executor_run_hook;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_void};

static PREVIOUS_ANALYZE: BackendStatic<pg_sys::post_parse_analyze_hook_type> = BackendStatic::new(None);
static PREVIOUS_RUN: BackendStatic<pg_sys::ExecutorRun_hook_type> = BackendStatic::new(None);
static PREVIOUS_UTILITY: BackendStatic<pg_sys::ProcessUtility_hook_type> = BackendStatic::new(None);

/// The statement that was looked at last and when it started: a function's inner statements need no second look.
static SEEN: BackendStatic<(usize, pg_sys::TimestampTz)> = BackendStatic::new((0, 0));

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs.
    unsafe {
        PREVIOUS_ANALYZE.set(pg_sys::post_parse_analyze_hook);
        pg_sys::post_parse_analyze_hook = Some(after_analysis);
        PREVIOUS_RUN.set(pg_sys::ExecutorRun_hook);
        pg_sys::ExecutorRun_hook = Some(run);
        PREVIOUS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(utility);
        // Inherited by every backend.
        pg_sys::RegisterXactCallback(Some(after_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(after_subtransaction), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_analysis(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    if let Some(previous) = PREVIOUS_ANALYZE.get() {
        // SAFETY: the arguments that PostgreSQL passed, handed on; an ERROR unwinds through the boundary.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous(state, query, jumble)) };
    }
    look();
    // SAFETY: a query that was just analysed.
    look_at_execute(unsafe { (*query).utilityStmt });
}

executor_run_hook!(run, PREVIOUS_RUN, look);

process_utility_hook!(utility, PREVIOUS_UTILITY, before_utility, |()| {});

/// # Safety
/// `statement` is a utility statement of PostgreSQL's.
unsafe fn before_utility(statement: *mut pg_sys::PlannedStmt) {
    look();
    // SAFETY: the caller's promise.
    look_at_execute(unsafe { (*statement).utilityStmt });
}

/// Covers what the client's statement shows, once per statement and message of the protocol.
#[inline]
fn look() {
    // SAFETY: a plain read.
    let seen = (unsafe { pg_sys::debug_query_string } as usize, raw::GetCurrentStatementStartTimestamp());
    if SEEN.get() != seen {
        SEEN.set(seen);
        look_closely();
    }
}

#[pg_guard]
extern "C-unwind" fn look_closely() {
    if let Some(statement) = client_statement()
        && pattern::is_in(statement.to_bytes())
    {
        show_covered(statement, false);
    }
}

/// EXECUTE of a prepared statement that stores a secret: the secret is among its parameters.
fn look_at_execute(utility: *mut pg_sys::Node) {
    // SAFETY: a null or valid node; the look-up by name finds a prepared statement of this session or null.
    unsafe {
        if !utility.is_null() && (*utility).type_ == pg_sys::NodeTag::T_ExecuteStmt {
            let execute = utility.cast::<pg_sys::ExecuteStmt>();
            let prepared = pg_sys::FetchPreparedStatement((*execute).name, false);
            let text = if prepared.is_null() { std::ptr::null() } else { (*(*prepared).plansource).query_string };
            if !text.is_null() && pattern::stores_secret(CStr::from_ptr(text).to_bytes()) {
                cover(true);
            }
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        cover_shown();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        cover_shown();
    }
}

/// Covers what is shown of a statement that failed: it may not have been parsed, and PostgreSQL keeps it no more.
fn cover_shown() {
    // SAFETY: this backend's own entry, null in a process that has none.
    unsafe {
        let entry = pg_sys::MyBEEntry;
        if entry.is_null() || (*entry).st_activity_raw.is_null() {
            return;
        }
        let shown = CStr::from_ptr((*entry).st_activity_raw).to_owned();
        if pattern::is_in(shown.to_bytes()) {
            show_covered(&shown, false);
        }
    }
}

/// Covers what the client's statement shows; with `all_values` all its literals.
pub fn cover(all_values: bool) {
    if let Some(statement) = client_statement() {
        show_covered(statement, all_values);
    }
}

#[cold]
fn show_covered(statement: &CStr, all_values: bool) {
    let mut text = statement.to_bytes().to_vec();
    pattern::cover(&mut text, all_values);
    let Ok(text) = CString::new(text) else { return };
    // SAFETY: copies the C string into this backend's own entry.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()) };
}
