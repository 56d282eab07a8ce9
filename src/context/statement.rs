//! The statement that a change of tenant runs in.

use crate::error::{Error, Result};
use crate::relation;
use pgrx::pg_sys;

/// Fails when the running statement uses a protected table: it would go on with another tenant's rows.
pub fn refuse_mixing() -> Result<()> {
    // SAFETY: a portal that is running has a list of planned statements, each with a list of range table entries or none.
    let mixes = unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && elements::<pg_sys::PlannedStmt>((*portal).stmts)
                .flat_map(|statement| elements::<pg_sys::RangeTblEntry>((*statement).rtable))
                .any(|entry| {
                    (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION && relation::is_protected((*entry).relid)
                })
    };
    if mixes { Err(Error::MixingStatement) } else { Ok(()) }
}

/// # Safety
/// `list` is null or a list of pointers to `T`.
unsafe fn elements<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: the caller's promise.
    let length = if list.is_null() { 0 } else { unsafe { (*list).length } };
    (0..length as usize).map(move |index| {
        // SAFETY: the caller's promise; the index is below the length.
        unsafe { (*(*list).elements.add(index)).ptr_value.cast() }
    })
}
