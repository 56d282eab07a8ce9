//! The server's log, at any setting: `log_statement`, durations, parameters, errors with their statement, plans.

use super::{activity, client_statement, pattern};
use crate::backend::BackendStatic;
use crate::error;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char};

static PREVIOUS: BackendStatic<pg_sys::emit_log_hook_type> = BackendStatic::new(None);

pub fn init() {
    // SAFETY: called once, from _PG_init.
    unsafe {
        PREVIOUS.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(hook);
    }
}

/// The text of a field that PostgreSQL has allocated for this report.
///
/// # Safety
/// `field` is null or a C string that nothing else refers to.
unsafe fn text<'a>(field: *mut c_char) -> Option<&'a mut [u8]> {
    // SAFETY: the caller's promise.
    unsafe {
        let length = (!field.is_null()).then(|| CStr::from_ptr(field).count_bytes())?;
        Some(std::slice::from_raw_parts_mut(field.cast(), length))
    }
}

/// # Safety
/// `report` is a report of PostgreSQL's.
unsafe fn is_ours(report: *const pg_sys::ErrorData) -> bool {
    // SAFETY: the caller's promise; the name of a function is null or a C string.
    unsafe { !(*report).funcname.is_null() && CStr::from_ptr((*report).funcname) == error::REPORTER }
}

/// Called for each report that goes to the log, before it is written and before it is sent to the client.
#[pg_guard]
unsafe extern "C-unwind" fn hook(report: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes the report, whose texts are its own.
    unsafe {
        // What people wrote; and what PostgreSQL quotes, and cuts.
        let written = [(*report).message, (*report).internalquery];
        let quoted = [(*report).detail, (*report).detail_log, (*report).context];
        let fields = || written.into_iter().chain(quoted).filter_map(|field| text(field));
        let statement = client_statement().map(CStr::to_bytes).unwrap_or_default();
        let stores_secret = pattern::stores_secret(statement) || fields().any(|text| pattern::stores_secret(text));
        let is_secret = stores_secret || pattern::is_in(statement);
        for text in written.into_iter().filter_map(|field| text(field)) {
            // Our own messages name what they are about, and never a secret.
            pattern::cover_report(text, is_secret, stores_secret && !is_ours(report));
        }
        for text in quoted.into_iter().filter_map(|field| text(field)) {
            pattern::cover_report(text, is_secret, stores_secret);
            pattern::cover_cut(text);
        }
        if let Some(hint) = text((*report).hint) {
            pattern::cover_credentials(hint);
        }
        if is_secret {
            (*report).hide_stmt = true;
            activity::cover(stores_secret);
        }
        if let Some(previous) = PREVIOUS.get() {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(report));
        }
    }
}
