//! Statistics of protected tables. The planner passes their most common values to the selectivity estimator of the statement's operators,
//! which may be a user's, before the permission check refuses a statement that comes through a bypassing owner's view. So a guarded
//! session plans such a statement without them. Where row security applies, PostgreSQL itself asks for leakproof operators.

use super::session_is_guarded;
use crate::backend::BackendStatic;
use crate::raw;
use crate::relation;
use pgrx::{pg_guard, pg_sys};

static PREVIOUS_RELATION: BackendStatic<pg_sys::get_relation_stats_hook_type> = BackendStatic::new(None);
static PREVIOUS_INDEX: BackendStatic<pg_sys::get_index_stats_hook_type> = BackendStatic::new(None);
static PREVIOUS_INFO: BackendStatic<pg_sys::get_relation_info_hook_type> = BackendStatic::new(None);

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query is planned.
    unsafe {
        PREVIOUS_RELATION.set(pg_sys::get_relation_stats_hook);
        pg_sys::get_relation_stats_hook = Some(relation_hook);
        PREVIOUS_INDEX.set(pg_sys::get_index_stats_hook);
        pg_sys::get_index_stats_hook = Some(index_hook);
        PREVIOUS_INFO.set(pg_sys::get_relation_info_hook);
        pg_sys::get_relation_info_hook = Some(info_hook);
    }
}

/// Whether a guarded session reads this protected table without row security.
fn is_hidden(table: pg_sys::Oid) -> bool {
    !raw::InNoForceRLSOperation() && session_is_guarded() && relation::is_protected(table)
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_hook(
    root: *mut pg_sys::PlannerInfo,
    entry: *mut pg_sys::RangeTblEntry,
    column: pg_sys::AttrNumber,
    data: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: the planner passes a relation's range table entry and a result to fill; no tuple means no statistics.
    unsafe {
        if (*entry).securityQuals.is_null() && is_hidden((*entry).relid) {
            (*data).statsTuple = std::ptr::null_mut();
            return true;
        }
        match PREVIOUS_RELATION.get() {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, entry, column, data)),
            None => false,
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn index_hook(
    root: *mut pg_sys::PlannerInfo,
    index: pg_sys::Oid,
    column: pg_sys::AttrNumber,
    data: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: as in relation_hook; the variable's relation, where there is one, is a base relation of the planner's array.
    unsafe {
        let relation = (*data).rel;
        if !relation.is_null() && (*relation).relid > 0 {
            let entry = *(*root).simple_rte_array.add((*relation).relid as usize);
            if (*entry).securityQuals.is_null() && is_hidden((*entry).relid) {
                (*data).statsTuple = std::ptr::null_mut();
                return true;
            }
        }
        match PREVIOUS_INDEX.get() {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, index, column, data)),
            None => false,
        }
    }
}

/// Takes extended statistics off a relation that is planned.
#[pg_guard]
unsafe extern "C-unwind" fn info_hook(
    root: *mut pg_sys::PlannerInfo,
    table: pg_sys::Oid,
    is_parent: bool,
    relation: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: the planner passes the relation that it has just described, which is in its array.
    unsafe {
        if let Some(previous) = PREVIOUS_INFO.get() {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, table, is_parent, relation));
        }
        if !(*relation).statlist.is_null() && !(*root).simple_rte_array.is_null() {
            let entry = *(*root).simple_rte_array.add((*relation).relid as usize);
            if !entry.is_null() && (*entry).securityQuals.is_null() && is_hidden(table) {
                (*relation).statlist = std::ptr::null_mut();
            }
        }
    }
}
