//! Keeps credentials out of what others read: the server's log and `pg_stat_activity`.
//!
//! - [`form`]: what keys and invitation tokens look like.
//! - [`pattern`]: what is a credential in a text.
//! - [`log`]: covers them in every message that goes to the log, and leaves out the statement that holds one.
//! - [`activity`]: covers them in the statement that other sessions see.
//! - [`prefix`]: the setting that says how this installation's keys begin.

mod activity;
mod form;
mod log;
mod pattern;
mod prefix;

pub use form::{BASE62, CHECKSUM_LENGTH, SECRET_LENGTH, SHOWN, checksum, has_valid_checksum};
pub use prefix::{INVITATION_PREFIX, api_key_prefix, ends_with_known};

use pgrx::pg_sys;
use std::ffi::CStr;

/// Registers the setting and the hooks.
pub fn init() {
    prefix::init();
    log::init();
    activity::init();
}

/// The statement that the client sent, as the log and `pg_stat_activity` show it.
fn client_statement() -> Option<&'static CStr> {
    // SAFETY: null or a C string that lives while the statement runs.
    unsafe {
        let statement = pg_sys::debug_query_string;
        (!statement.is_null()).then(|| CStr::from_ptr(statement))
    }
}
