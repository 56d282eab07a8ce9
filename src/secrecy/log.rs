//! The server's log, at any setting: `log_statement`, durations, parameters, errors with their statement, plans.

use super::{activity, client_statement, pattern};
use crate::backend::BackendStatic;
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

/// Called for each report that goes to the log, before it is written and before it is sent to the client.
#[pg_guard]
unsafe extern "C-unwind" fn hook(report: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes the report, whose texts are its own.
    unsafe {
        let fields =
            [(*report).message, (*report).detail, (*report).detail_log, (*report).context, (*report).internalquery];
        let statement = client_statement().map(CStr::to_bytes).unwrap_or_default();
        let stores_secret = pattern::stores_secret(statement)
            || fields.into_iter().any(|field| text(field).is_some_and(|text| pattern::stores_secret(text)));
        for field in fields {
            if let Some(text) = text(field) {
                pattern::cover_report(text, stores_secret);
            }
        }
        if stores_secret || pattern::is_in(statement) {
            (*report).hide_stmt = true;
            activity::cover(stores_secret);
        }
        if let Some(previous) = PREVIOUS.get() {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(report));
        }
    }
}
