//! Which rows of a table count: an immutable condition over one row, kept as text in the arguments of the table's triggers.
//!
//! It is read under a pinned `search_path`, and evaluated as the table's owner where it calls anything that is not PostgreSQL's own.

use crate::error::{Error, Result};
use crate::label::Use;
use crate::namespace;
use crate::query::{self, ident};
use crate::role;
use crate::version::expression_walkers;
use pgrx::{PgRelation, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};

const HAS_VIRTUAL: &str =
    "SELECT true FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum = ANY ($2) AND attgenerated = 'v'";

/// Bytes that a condition may have.
const MAX_LENGTH: usize = 8192;

expression_walkers!();

unsafe extern "C-unwind" {
    fn transformWhereClause(
        state: *mut pg_sys::ParseState,
        clause: *mut pg_sys::Node,
        kind: pg_sys::ParseExprKind::Type,
        construct: *const c_char,
    ) -> *mut pg_sys::Node;
}

/// What the text of a condition is written and read by, whatever the session has.
const SETTINGS: [(&str, &str); 11] = [
    ("standard_conforming_strings", "on"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("array_nulls", "on"),
    ("xmloption", "content"),
    ("transform_null_equals", "off"),
    ("quote_all_identifiers", "off"),
    ("lc_monetary", "C"),
];

/// The settings that a condition is written and read by, with the `search_path` of its table.
pub fn settings(path: &str) -> impl Iterator<Item = (&str, &str)> {
    SETTINGS.into_iter().chain([("search_path", path)])
}

/// The `search_path` that names in a condition on a table of this schema are found by: a tenant's has the names of its template.
pub fn search_path(namespace: pg_sys::Oid) -> String {
    match namespace::usage(namespace) {
        Some(Use::Tenant(_) | Use::Moved(_) | Use::Template) => {
            format!("{}, pg_catalog, pg_temp", ident(&namespace::name(namespace)))
        }
        None => "pg_catalog, pg_temp".to_owned(),
    }
}

/// The condition as PostgreSQL prints it back, which means the same whenever it is read.
pub fn canonical(table: pg_sys::Oid, owner: pg_sys::Oid, text: &str) -> Result<String> {
    if text.trim().is_empty() || text.len() > MAX_LENGTH {
        return Err(Error::invalid("a condition is an expression of at most 8192 bytes, or NULL for every row", ""));
    }
    // SAFETY: opens a table, or raises.
    let relation = unsafe { PgRelation::with_lock(table, pg_sys::AccessShareLock as _) };
    let path = search_path(relation.namespace_oid());
    role::as_owner(owner, || {
        role::with_settings(settings(&path), || {
            // SAFETY: the relation is open and locked.
            unsafe {
                let node = parse(relation.as_ptr(), text)?;
                check(table, node)?;
                let context = pg_sys::deparse_context_for((*(*relation.as_ptr()).rd_rel).relname.data.as_ptr(), table);
                let text = pg_sys::deparse_expression(node, context, false, false);
                Ok(CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        })
    })
}

/// Has PostgreSQL know what the condition of a trigger uses, so that it refuses to drop that.
pub fn depend(table: pg_sys::Oid, owner: pg_sys::Oid, trigger: pg_sys::Oid, text: &str) -> Result<()> {
    // SAFETY: opens a table, or raises.
    let relation = unsafe { PgRelation::with_lock(table, pg_sys::AccessShareLock as _) };
    let path = search_path(relation.namespace_oid());
    let node = role::as_owner(owner, || {
        // SAFETY: the relation is open and locked.
        role::with_settings(settings(&path), || unsafe { parse(relation.as_ptr(), text) })
    })?;
    let depender = pg_sys::ObjectAddress { classId: pg_sys::TriggerRelationId, objectId: trigger, objectSubId: 0 };
    let normal = pg_sys::DependencyType::DEPENDENCY_NORMAL;
    // SAFETY: an expression over the one relation that is named.
    unsafe { pg_sys::recordDependencyOnSingleRelExpr(&depender, node, table, normal, normal, false) };
    Ok(())
}

/// Fails unless the condition looks at columns of its row alone and always answers the same.
fn check(table: pg_sys::Oid, node: *mut pg_sys::Node) -> Result<()> {
    let mut columns = Vec::new();
    // SAFETY: an expression over one relation; the set is read to its end.
    let is_mutable = unsafe {
        let mut set: *mut pg_sys::Bitmapset = std::ptr::null_mut();
        pg_sys::pull_varattnos(node, 1, &mut set);
        let mut member = pg_sys::bms_next_member(set, -1);
        while member >= 0 {
            columns.push((member + pg_sys::FirstLowInvalidHeapAttributeNumber) as i16);
            member = pg_sys::bms_next_member(set, member);
        }
        pg_sys::contain_mutable_functions(node)
    };
    if is_mutable {
        return Err(Error::invalid(
            "a condition must be immutable: it looks at its row and at nothing else",
            "Functions of time, of settings and of other tables change their answer while the row stays.",
        ));
    }
    let of_row = columns.iter().all(|number| *number > 0);
    if !of_row || query::value::<bool>(HAS_VIRTUAL, &[table.into(), columns.into()])?.is_some() {
        return Err(Error::Unsupported(
            "a condition cannot use a system column, a virtual column or the row as a whole".to_owned(),
        ));
    }
    Ok(())
}

/// Whether this is `*`, which a list of results can have and an expression cannot.
///
/// # Safety
/// A node of the parser's, or null.
unsafe fn is_star(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller's promise; the fields of a reference are nodes.
    unsafe {
        !node.is_null()
            && (*node).type_ == pg_sys::NodeTag::T_ColumnRef
            && first::<pg_sys::Node>((*node.cast::<pg_sys::ColumnRef>()).fields)
                .is_some_and(|field| (*field).type_ == pg_sys::NodeTag::T_A_Star)
    }
}

/// The expression of a condition, in the current memory context.
///
/// # Safety
/// The relation is open and locked; `search_path` is that of its schema, and the role its owner.
pub unsafe fn parse(relation: pg_sys::Relation, text: &str) -> Result<*mut pg_sys::Node> {
    let malformed = || Error::invalid("a condition is one expression over the columns of the table", "");
    let text = CString::new(text).map_err(|_| malformed())?;
    // SAFETY: the caller's promise; PostgreSQL's parser makes lists and nodes of the kinds that are looked at.
    unsafe {
        let statements = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR);
        let select = (*first::<pg_sys::RawStmt>(statements).ok_or_else(malformed)?).stmt.cast::<pg_sys::SelectStmt>();
        let target = first::<pg_sys::ResTarget>((*select).targetList).ok_or_else(malformed)?;
        let is_bare = (*target).name.is_null()
            && (*target).indirection.is_null()
            && [
                (*select).distinctClause,
                (*select).fromClause,
                (*select).groupClause,
                (*select).windowClause,
                (*select).sortClause,
                (*select).lockingClause,
            ]
            .iter()
            .all(|list| list.is_null())
            && [(*select).whereClause, (*select).havingClause, (*select).limitCount, (*select).limitOffset]
                .iter()
                .all(|node| node.is_null());
        if !is_bare || is_star((*target).val) {
            return Err(malformed());
        }
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*state).p_sourcetext = text.as_ptr();
        let lock = pg_sys::AccessShareLock as _;
        let item = pg_sys::addRangeTableEntryForRelation(state, relation, lock, std::ptr::null_mut(), false, true);
        pg_sys::addNSItemToQuery(state, item, true, true, true);
        let kind = pg_sys::ParseExprKind::EXPR_KIND_CHECK_CONSTRAINT;
        let node = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            transformWhereClause(state, (*target).val, kind, c"condition".as_ptr())
        });
        pg_sys::assign_expr_collations(state, node);
        (*state).p_sourcetext = std::ptr::null();
        pg_sys::free_parsestate(state);
        Ok(node)
    }
}

/// The only element of a list.
///
/// # Safety
/// Null or a list of pointers to `T`.
unsafe fn first<T>(list: *mut pg_sys::List) -> Option<*mut T> {
    // SAFETY: the caller's promise.
    unsafe { (!list.is_null() && (*list).length == 1).then(|| (*(*list).elements).ptr_value.cast()) }
}

/// Whether evaluating the expression calls anything but PostgreSQL's own functions.
///
/// # Safety
/// An expression that was parsed.
pub unsafe fn has_users_code(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the caller's promise; the walker has this signature.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| calls_users_code(node, std::ptr::null_mut())) }
}

unsafe extern "C-unwind" fn is_users(function: pg_sys::Oid, _context: *mut c_void) -> bool {
    function.to_u32() >= pg_sys::FirstNormalObjectId
}

unsafe extern "C-unwind" fn calls_users_code(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    unsafe extern "C-unwind" {
        fn check_functions_in_node(
            node: *mut pg_sys::Node,
            checker: unsafe extern "C-unwind" fn(pg_sys::Oid, *mut c_void) -> bool,
            context: *mut c_void,
        ) -> bool;
    }
    // SAFETY: a walker is called with nodes of the expression, or null. A domain's checks are its owner's.
    unsafe {
        !node.is_null()
            && ((*node).type_ == pg_sys::NodeTag::T_CoerceToDomain
                || check_functions_in_node(node, is_users, context)
                || expression_tree_walker(node, calls_users_code, context))
    }
}
