//! Indexes under row security.
//!
//! PostgreSQL evaluates a condition of a statement after the policies, unless its function is marked LEAKPROOF, and so does not search an index
//! for it: LIKE, `@@`, `@>`, trigrams and comparisons of numeric read all that the tenant has. Marking the functions is no remedy: LIKE, for one,
//! fails on a pattern that ends with a backslash, but only at a row that matches up to there, and EXPLAIN ANALYZE counts the rows that were found and
//! are of others.
//!
//! Here no function is taken for leakproof. An index whose first column is the tenant's has the rows of a tenant apart: [`hook`] lets the planner
//! search such an index for any condition, provided that the same search has the policy's own condition, which comes first. Then
//!
//! - the statement's functions and operators see only rows that the index has found for the bound tenant, since the index is exact for its first
//!   column; where a row has to be looked at again (bitmaps that are too large for `work_mem`, indexes that only narrow down), the conditions of
//!   the search are evaluated in the order of the columns;
//! - other tenants' values are seen by the index alone. A btree compares a column only where those before it are equal. GIN and GiST also compare keys
//!   of several tenants, by the support functions of the operator class: for those that are known ([`operator_class`]) these can neither fail nor tell.
//!
//! Policies of a user's own beside ours would have to come before the statement's conditions too: where there are such, all is as PostgreSQL does it.

use super::operator_class;
use crate::backend::BackendStatic;
use crate::raw::elements;
use crate::relation;
use pgrx::pg_sys::NodeTag;
use pgrx::{PgList, pg_guard, pg_sys};

static PREVIOUS: BackendStatic<pg_sys::set_rel_pathlist_hook_type> = BackendStatic::new(None);

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query is planned.
    unsafe {
        PREVIOUS.set(pg_sys::set_rel_pathlist_hook);
        pg_sys::set_rel_pathlist_hook = Some(hook);
    }
}

/// Called for each table of a statement when its paths are there. Nothing is asked of the catalogs before a condition of the statement has to
/// wait for the policies.
unsafe extern "C-unwind" fn hook(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    index: pg_sys::Index,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the planner's own structures.
    if unsafe { is_searched_under_policies(root, rel, entry) } || PREVIOUS.get().is_some() {
        // SAFETY: the arguments that PostgreSQL passed, handed on.
        unsafe { offer(root, rel, index, entry) }
    }
}

/// Whether this is a table with indexes, in a statement with policies; parents of partitions and children are none by themselves.
///
/// # Safety
/// The planner's own structures.
#[inline]
unsafe fn is_searched_under_policies(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    entry: *mut pg_sys::RangeTblEntry,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        (*root).qual_security_level > 0
            && (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
            && !(*entry).inh
            && (*entry).tablesample.is_null()
            && !(*rel).indexlist.is_null()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn offer(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    index: pg_sys::Index,
    entry: *mut pg_sys::RangeTblEntry,
) {
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: as in hook; an ERROR unwinds through the boundary.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous(root, rel, index, entry)) }
    }
    // SAFETY: the planner's own structures, which live as long as the statement is planned; the relation is locked by it.
    unsafe {
        if !is_searched_under_policies(root, rel, entry) {
            return;
        }
        let mut waiting = Vec::new();
        collect_waiting((*rel).baserestrictinfo, (*root).qual_security_level, &mut waiting);
        collect_waiting((*rel).joininfo, (*root).qual_security_level, &mut waiting);
        if waiting.is_empty() {
            return;
        }
        let Some(guard) = Guard::of(root, rel) else { return };
        let asked_for = columns_of_conditions(root, rel);
        let mut leading = PgList::<pg_sys::IndexOptInfo>::new();
        for candidate in elements::<pg_sys::IndexOptInfo>((*rel).indexlist) {
            if guard.leads(candidate, asked_for) {
                leading.push(candidate);
            }
        }
        if leading.is_empty() || !relation::is_protected((*entry).relid) {
            return;
        }
        guard.add_paths(root, rel, leading.into_pg(), &waiting);
    }
}

/// What the policies ask of a table's rows: one condition on one column.
struct Guard {
    condition: *mut pg_sys::RestrictInfo,
    column: pg_sys::AttrNumber,
}

impl Guard {
    /// The policies' condition on the rows of the table; None where there is none, or more than one.
    ///
    /// # Safety
    /// The planner's structures of a table that it has paths for.
    unsafe fn of(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo) -> Option<Guard> {
        // SAFETY: the caller's promise.
        unsafe {
            // What is pseudoconstant is asked once, before the table is read at all.
            let mut of_rows = elements::<pg_sys::RestrictInfo>((*rel).baserestrictinfo).filter(|condition| {
                let condition = &**condition;
                condition.security_level < (*root).qual_security_level && !condition.pseudoconstant
            });
            let (condition, others) = (of_rows.next()?, of_rows.next());
            if others.is_some() || !pg_sys::restriction_is_securely_promotable(condition, rel) {
                return None;
            }
            let column = compared_column((*condition).clause, (*rel).relid)?;
            Some(Guard { condition, column })
        }
    }

    /// Whether an index has the rows of each tenant apart, its other columns tell nothing of them, and the statement asks for one of these or they are
    /// expressions: of what it does not ask for, the planner has all paths.
    ///
    /// # Safety
    /// An index of the table, and a set of its columns.
    unsafe fn leads(&self, index: *mut pg_sys::IndexOptInfo, asked_for: *mut pg_sys::Bitmapset) -> bool {
        // SAFETY: the caller's promise: arrays of as many key columns, and a target for each column.
        unsafe {
            let index = &*index;
            let keys = index.nkeycolumns.unsigned_abs() as usize;
            if keys < 2 || *index.indexkeys != i32::from(self.column) {
                return false;
            }
            let is_asked_for = |key| {
                let column = *index.indexkeys.add(key);
                column == 0 || pg_sys::bms_is_member(column - pg_sys::FirstLowInvalidHeapAttributeNumber, asked_for)
            };
            if !(1..keys).any(is_asked_for) {
                return false;
            }
            if index.relam == pg_sys::BTREE_AM_OID {
                return true;
            }
            if index.relam == pg_sys::GIN_AM_OID && pg_sys::GinFuzzySearchLimit != 0 {
                return false;
            }
            let targets = PgList::<pg_sys::TargetEntry>::from_pg(index.indextlist);
            (0..keys).all(|key| {
                targets.get_ptr(key).is_some_and(|target| {
                    operator_class::is_known(
                        index.relam,
                        *index.opfamily.add(key),
                        pg_sys::exprType((*target).expr.cast()),
                    )
                })
            })
        }
    }

    /// Offers the indexes for conditions that have to wait, and keeps the paths that search for the guard's first.
    ///
    /// # Safety
    /// The planner's structures of this table; `waiting` are conditions of theirs.
    unsafe fn add_paths(
        &self,
        root: *mut pg_sys::PlannerInfo,
        rel: *mut pg_sys::RelOptInfo,
        indexes: *mut pg_sys::List,
        waiting: &[*mut pg_sys::RestrictInfo],
    ) {
        // SAFETY: the caller's promise. What is changed of the planner's structures is put back before it goes on; after an error, nobody looks.
        unsafe {
            let mark = |is_free| waiting.iter().for_each(|condition| (**condition).leakproof = is_free);
            let whole = &mut *rel;
            let there = (whole.indexlist, whole.pathlist, whole.partial_pathlist);
            (whole.indexlist, whole.pathlist, whole.partial_pathlist) =
                (indexes, std::ptr::null_mut(), std::ptr::null_mut());
            mark(true);
            pg_sys::create_index_paths(root, rel);
            mark(false);
            let found = ((*rel).pathlist, (*rel).partial_pathlist);
            ((*rel).indexlist, (*rel).pathlist, (*rel).partial_pathlist) = there;
            for path in elements::<pg_sys::Path>(found.0).filter(|path| self.is_first(*path)) {
                pg_sys::add_path(rel, path);
            }
            for path in elements::<pg_sys::Path>(found.1).filter(|path| self.is_first(*path)) {
                pg_sys::add_partial_path(rel, path);
            }
        }
    }

    /// Whether each search of an index in this path has the guard's condition, exactly and before all others.
    ///
    /// # Safety
    /// A path over indexes.
    unsafe fn is_first(&self, path: *mut pg_sys::Path) -> bool {
        // SAFETY: the caller's promise; a node's tag says what it is.
        unsafe {
            match (*path).type_ {
                NodeTag::T_IndexPath => {
                    elements::<pg_sys::IndexClause>((*path.cast::<pg_sys::IndexPath>()).indexclauses)
                        .next()
                        .is_some_and(|first| {
                            (*first).rinfo == self.condition && !(*first).lossy && (*first).indexcol == 0
                        })
                }
                NodeTag::T_BitmapHeapPath => self.is_first((*path.cast::<pg_sys::BitmapHeapPath>()).bitmapqual),
                NodeTag::T_BitmapAndPath => elements((*path.cast::<pg_sys::BitmapAndPath>()).bitmapquals)
                    .all(|part: *mut pg_sys::Path| self.is_first(part)),
                NodeTag::T_BitmapOrPath => elements((*path.cast::<pg_sys::BitmapOrPath>()).bitmapquals)
                    .all(|part: *mut pg_sys::Path| self.is_first(part)),
                _ => false,
            }
        }
    }
}

/// The columns of the table in the statement's own conditions, as a set of PostgreSQL's.
///
/// # Safety
/// The planner's structures of a table that it has paths for.
unsafe fn columns_of_conditions(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
) -> *mut pg_sys::Bitmapset {
    let mut columns = std::ptr::null_mut();
    // SAFETY: the caller's promise; the set is the planner's memory.
    unsafe {
        for conditions in [(*rel).baserestrictinfo, (*rel).joininfo] {
            for condition in elements::<pg_sys::RestrictInfo>(conditions) {
                if (*condition).security_level >= (*root).qual_security_level {
                    pg_sys::pull_varattnos((*condition).clause.cast(), (*rel).relid, &raw mut columns);
                }
            }
        }
    }
    columns
}

/// The column of the table that `column = something else` compares.
///
/// # Safety
/// An expression of the planner's.
unsafe fn compared_column(clause: *mut pg_sys::Expr, table: pg_sys::Index) -> Option<pg_sys::AttrNumber> {
    // SAFETY: the caller's promise; a node's tag says what it is.
    unsafe {
        if (*clause).type_ != NodeTag::T_OpExpr {
            return None;
        }
        let sides = elements::<pg_sys::Node>((*clause.cast::<pg_sys::OpExpr>()).args);
        let mut columns = sides.filter_map(|side| column_of(side, table));
        match (columns.next(), columns.next()) {
            (Some(column), None) if column > 0 => Some(column),
            _ => None,
        }
    }
}

/// # Safety
/// An expression of the planner's.
unsafe fn column_of(mut side: *mut pg_sys::Node, table: pg_sys::Index) -> Option<pg_sys::AttrNumber> {
    // SAFETY: the caller's promise; a node's tag says what it is.
    unsafe {
        if (*side).type_ == NodeTag::T_RelabelType {
            side = (*side.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        let column = side.cast::<pg_sys::Var>();
        let is_own = (*side).type_ == NodeTag::T_Var && (*column).varno as pg_sys::Index == table;
        (is_own && (*column).varlevelsup == 0).then(|| (*column).varattno)
    }
}

/// The conditions in the list, and in their alternatives, that have to wait for the policies.
///
/// # Safety
/// A list of the planner's conditions, or of an OR's parts: conditions, and ANDs of them.
unsafe fn collect_waiting(
    parts: *mut pg_sys::List,
    level: pg_sys::Index,
    waiting: &mut Vec<*mut pg_sys::RestrictInfo>,
) {
    // SAFETY: the caller's promise; a node's tag says what it is.
    unsafe {
        for part in elements::<pg_sys::Node>(parts) {
            if (*part).type_ == NodeTag::T_BoolExpr {
                collect_waiting((*part.cast::<pg_sys::BoolExpr>()).args, level, waiting);
            } else if (*part).type_ == NodeTag::T_RestrictInfo {
                let condition = part.cast::<pg_sys::RestrictInfo>();
                if (*condition).security_level >= level && !(*condition).leakproof {
                    waiting.push(condition);
                }
                if !(*condition).orclause.is_null() {
                    collect_waiting((*(*condition).orclause.cast::<pg_sys::BoolExpr>()).args, level, waiting);
                }
            }
        }
    }
}
