//! Statistics of protected tables and of tables in other tenants' schemas. The planner passes their most common values to the selectivity estimator of the statement's operators,
//! which may be a user's, before the permission check refuses a statement that comes through a bypassing owner's view. So a guarded
//! session plans such a statement without them. Where row security applies, PostgreSQL itself asks for leakproof operators.

use super::schema::{self, Place};
use super::session_is_guarded;
use crate::backend::BackendStatic;
use crate::namespace;
use crate::raw;
use crate::relation;
use pgrx::{pg_guard, pg_sys};
use std::ffi::CStr;

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

/// Whether the session is to know nothing of the values in this table, which row security covers or not.
fn is_hidden(table: pg_sys::Oid, is_covered: bool) -> bool {
    is_in_foreign_schema(table)
        || !is_covered && !raw::InNoForceRLSOperation() && session_is_guarded() && relation::is_protected(table)
}

fn is_in_foreign_schema(table: pg_sys::Oid) -> bool {
    namespace::are_used() && matches!(schema::place_of_relation(table), Place::Foreign(_))
}

/// PostgreSQL's views of values from every schema: statistics, and the last numbers of sequences.
const SHOW_ALL: [&CStr; 4] = [c"pg_stats", c"pg_stats_ext", c"pg_stats_ext_exprs", c"pg_sequences"];

/// Their oids, which a database keeps, once somebody has looked them up.
static SHOWING_ALL: BackendStatic<Option<[pg_sys::Oid; 4]>> = BackendStatic::new(None);

/// Whether this is one of PostgreSQL's views that show values of every schema, and the session must not see those.
#[inline]
pub fn shows_all_schemas(view: pg_sys::Oid) -> bool {
    view.to_u32() < pg_sys::FirstNormalObjectId
        && SHOWING_ALL.get().unwrap_or_else(look_up_views).contains(&view)
        && (schema::is_worked_on() || session_is_guarded())
}

#[cold]
fn look_up_views() -> [pg_sys::Oid; 4] {
    let catalog = pg_sys::Oid::from_u32(pg_sys::PG_CATALOG_NAMESPACE);
    // SAFETY: syscache look-ups by C strings.
    let found = SHOW_ALL.map(|name| unsafe { pg_sys::get_relname_relid(name.as_ptr(), catalog) });
    SHOWING_ALL.set(Some(found));
    found
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
        if is_hidden((*entry).relid, !(*entry).securityQuals.is_null()) {
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
            if is_hidden((*entry).relid, !(*entry).securityQuals.is_null()) {
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
            if !entry.is_null() && is_hidden(table, !(*entry).securityQuals.is_null()) {
                (*relation).statlist = std::ptr::null_mut();
            }
        }
    }
}
