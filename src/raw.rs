//! What passes by pgrx's wrappers, where they would cost more than the work itself.

use pgrx::pg_sys::{self, Oid, TimestampTz};
use std::ffi::c_int;

// Functions of PostgreSQL that cannot raise, without pgrx's boundary, which costs a `sigsetjmp` per call: for the hooks that every query
// passes.
unsafe extern "C" {
    /// The role whose rights count now.
    pub safe fn GetUserId() -> Oid;
    /// The session's role (SET ROLE counts), whatever definer functions run.
    pub safe fn GetOuterUserId() -> Oid;
    /// Whether FORCE ROW LEVEL SECURITY is suspended, as it is in referential integrity's own statements.
    pub safe fn InNoForceRLSOperation() -> bool;
    /// When the client's message arrived that is being worked on.
    pub safe fn GetCurrentStatementStartTimestamp() -> TimestampTz;
    /// The time.
    pub safe fn GetCurrentTimestamp() -> TimestampTz;
    /// The setting max_prepared_transactions, which the server was started with.
    pub safe static max_prepared_xacts: c_int;
}

/// The elements of a list of pointers.
///
/// # Safety
/// `list` is null or a list of pointers to `T`.
#[inline]
pub unsafe fn elements<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: the caller's promise.
    let length = if list.is_null() { 0 } else { unsafe { (*list).length } };
    (0..length as usize).map(move |index| {
        // SAFETY: the caller's promise; the index is below the length.
        unsafe { (*(*list).elements.add(index)).ptr_value.cast() }
    })
}

/// Declares `name(fcinfo)` and its info record, which PostgreSQL asks for, for a function that an SQL file
/// creates: one that is called once per row or per request, and takes no detour through a wrapper of its arguments.
macro_rules! raw_function {
    ($(#[$doc:meta])* $name:ident, $info:ident, $body:expr) => {
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }

        $(#[$doc])*
        ///
        /// # Safety
        /// Called by PostgreSQL only.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
            let body: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum = $body;
            // SAFETY: PostgreSQL passes a valid call record.
            unsafe { body(fcinfo) }
        }
    };
}
pub(crate) use raw_function;

/// The same for a function whose body returns a Result: an error of ours and one of PostgreSQL's are raised alike.
macro_rules! fallible_function {
    ($(#[$doc:meta])* $name:ident, $info:ident, $body:path) => {
        $crate::raw::raw_function! {
            $(#[$doc])*
            $name, $info, |fcinfo| {
                // SAFETY: PostgreSQL passes a valid call record.
                let answer = || unsafe { $body(fcinfo) }.unwrap_or_else(|error| $crate::error::raise(error));
                // SAFETY: the guard of every function that PostgreSQL calls; nothing of ours is left when it raises.
                unsafe { pg_sys::panic::pgrx_extern_c_guard(answer) }
            }
        }
    };
}
pub(crate) use fallible_function;

/// A hook of utility statements that calls `$before` with the statement, hands on, and calls `$after` with what that gave unless the statement
/// failed. The frame has no destructor and no boundary, so an ERROR of a user's statement passes with every field.
macro_rules! process_utility_hook {
    ($name:ident, $previous:path, $before:path, $after:expr) => {
        #[allow(clippy::too_many_arguments)]
        unsafe extern "C-unwind" fn $name(
            statement: *mut pgrx::pg_sys::PlannedStmt,
            text: *const std::ffi::c_char,
            read_only: bool,
            context: pgrx::pg_sys::ProcessUtilityContext::Type,
            parameters: pgrx::pg_sys::ParamListInfo,
            environment: *mut pgrx::pg_sys::QueryEnvironment,
            destination: *mut pgrx::pg_sys::DestReceiver,
            completion: *mut pgrx::pg_sys::QueryCompletion,
        ) {
            unsafe extern "C-unwind" {
                fn standard_ProcessUtility(
                    statement: *mut pgrx::pg_sys::PlannedStmt,
                    text: *const std::ffi::c_char,
                    read_only: bool,
                    context: pgrx::pg_sys::ProcessUtilityContext::Type,
                    parameters: pgrx::pg_sys::ParamListInfo,
                    environment: *mut pgrx::pg_sys::QueryEnvironment,
                    destination: *mut pgrx::pg_sys::DestReceiver,
                    completion: *mut pgrx::pg_sys::QueryCompletion,
                );
            }
            // SAFETY: the arguments that PostgreSQL passed, handed on.
            unsafe {
                let kept = $before(statement);
                let next = $previous.get().unwrap_or(standard_ProcessUtility);
                next(statement, text, read_only, context, parameters, environment, destination, completion);
                $after(kept);
            }
        }
    };
}
pub(crate) use process_utility_hook;
