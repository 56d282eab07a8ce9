//! Access to objects that no permission check of the executor sees.

use super::{exemption, refuse, session_is_guarded};
use crate::backend::BackendStatic;
use crate::error::Error;
use crate::relation;
use pgrx::{pg_guard, pg_sys};
use std::ffi::{c_int, c_void};

static PREVIOUS_OBJECT_ACCESS: BackendStatic<pg_sys::object_access_hook_type> = BackendStatic::new(None);

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs.
    unsafe {
        PREVIOUS_OBJECT_ACCESS.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(hook);
    }
}

/// PostgreSQL calls this for every function that a query uses, so the common case returns before anything costs time.
unsafe extern "C-unwind" fn hook(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: c_int,
    argument: *mut c_void,
) {
    if access == pg_sys::ObjectAccessType::OAT_TRUNCATE || PREVIOUS_OBJECT_ACCESS.get().is_some() {
        // SAFETY: the arguments that PostgreSQL passed, handed on.
        unsafe { check(access, class, object, sub_object, argument) }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn check(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_object: c_int,
    argument: *mut c_void,
) {
    if let Some(previous) = PREVIOUS_OBJECT_ACCESS.get() {
        // SAFETY: as in hook; an ERROR unwinds through the boundary.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(access, class, object, sub_object, argument));
        }
    }
    if access == pg_sys::ObjectAccessType::OAT_TRUNCATE
        && relation::is_protected(object)
        && session_is_guarded()
        && !exemption::function_is_exempt()
    {
        refuse(Error::Truncate(relation::name(object)));
    }
}
