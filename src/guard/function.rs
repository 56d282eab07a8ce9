//! Functions that run inside a referential action, or that the guard of sequences must see as functions.
//!
//! PostgreSQL runs a foreign key's action (ON DELETE CASCADE and its kin) as the owner of the referencing table with FORCE ROW LEVEL SECURITY
//! suspended, and a BEFORE trigger on that table runs inside: its statements would see every tenant's rows. So a function that is
//! called while FORCE is suspended runs with FORCE in force again; the action itself does not call functions of users.

use super::sequences;
use crate::backend::BackendStatic;
use crate::namespace;
use crate::raw;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::c_int;

static PREVIOUS_NEEDS: BackendStatic<pg_sys::needs_fmgr_hook_type> = BackendStatic::new(None);
static PREVIOUS_HOOK: BackendStatic<pg_sys::fmgr_hook_type> = BackendStatic::new(None);

thread_local! {
    /// What each running function that was hooked put aside, the innermost last.
    static SUSPENDED: RefCell<Vec<Option<(pg_sys::Oid, c_int)>>> = const { RefCell::new(Vec::new()) };
}

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs.
    unsafe {
        PREVIOUS_NEEDS.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(needs_hook);
        PREVIOUS_HOOK.set(pg_sys::fmgr_hook);
        pg_sys::fmgr_hook = Some(hook);
    }
}

/// Asked once when a statement prepares to call a function that is not built in.
unsafe extern "C-unwind" fn needs_hook(function: pg_sys::Oid) -> bool {
    if raw::InNoForceRLSOperation() {
        return true;
    }
    if namespace::known_to_be_used() != Some(false)
        && function.to_u32() >= pg_sys::FirstNormalObjectId
        && must_not_be_inlined(function)
    {
        return true;
    }
    match PREVIOUS_NEEDS.get() {
        // SAFETY: the argument that PostgreSQL passed, handed on from a frame that holds nothing.
        Some(previous) => unsafe { previous(function) },
        None => false,
    }
}

#[pg_guard]
extern "C-unwind" fn must_not_be_inlined(function: pg_sys::Oid) -> bool {
    sequences::must_not_be_inlined(function)
}

/// Called when such a function starts, and when it ends either way.
#[pg_guard]
unsafe extern "C-unwind" fn hook(
    event: pg_sys::FmgrHookEventType::Type,
    info: *mut pg_sys::FmgrInfo,
    argument: *mut pg_sys::Datum,
) {
    if event == pg_sys::FmgrHookEventType::FHET_START {
        SUSPENDED.with_borrow_mut(|suspended| suspended.push(enforce()));
    } else if let Some(Some((role, context))) = SUSPENDED.with_borrow_mut(Vec::pop) {
        // SAFETY: puts back what enforce found.
        unsafe { pg_sys::SetUserIdAndSecContext(role, context) };
    }
    if let Some(previous) = PREVIOUS_HOOK.get() {
        // SAFETY: the arguments that PostgreSQL passed, handed on; an ERROR unwinds through the boundary.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous(event, info, argument)) };
    }
}

/// Puts FORCE back in force; what to restore, if it was suspended.
fn enforce() -> Option<(pg_sys::Oid, c_int)> {
    let (mut role, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: reads into two locals, then sets the same role with one flag less.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut role, &mut context);
        let suspended = context & pg_sys::SECURITY_NOFORCE_RLS as c_int != 0;
        suspended.then(|| {
            pg_sys::SetUserIdAndSecContext(role, context & !(pg_sys::SECURITY_NOFORCE_RLS as c_int));
            (role, context)
        })
    }
}
