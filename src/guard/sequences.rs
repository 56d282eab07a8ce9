//! Sequences by oid. `nextval` and `setval` take a sequence's oid, which no look-up of a name and no permission check of the executor sees.
//!
//! So a statement is planned with the functions of this module in their place ([`hook`]), which look at the sequence when they are called. Only
//! the plan changes; definitions stay as they are. Where no plan is made (parameters of EXECUTE, the protocol's function calls, operators that
//! a user puts on them) the levels client and app are refused; but COPY fills columns of a table with the sequences that their defaults name.

use super::schema::{self, Place};
use super::{exemption, lock, refuse, session_is_guarded};
use crate::backend::BackendStatic;
use crate::error::Error;
use crate::extension;
use crate::namespace;
use crate::raw::{elements, process_utility_hook, raw_function};
use crate::version::expression_walkers;
use crate::{context, relation, routine};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_char, c_int, c_void};

static PREVIOUS_PLANNER: BackendStatic<pg_sys::planner_hook_type> = BackendStatic::new(None);
static PREVIOUS_UTILITY: BackendStatic<pg_sys::ProcessUtility_hook_type> = BackendStatic::new(None);

/// Whether a COPY FROM runs whose table takes numbers from sequences that the session may use.
static COPYING: BackendStatic<bool> = BackendStatic::new(false);

/// PostgreSQL's functions as they are, called from frames without a destructor, so that users' errors pass whole.
mod unguarded {
    use super::*;

    unsafe extern "C-unwind" {
        pub fn standard_planner(
            query: *mut pg_sys::Query,
            text: *const c_char,
            options: c_int,
            parameters: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
        pub fn nextval_oid(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
        pub fn setval_oid(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
        pub fn setval3_oid(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
    }
}
expression_walkers!();

pub fn init() {
    // SAFETY: called once, from _PG_init, before any query runs; every backend inherits the callbacks.
    unsafe {
        PREVIOUS_PLANNER.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(hook);
        PREVIOUS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(utility);
        pg_sys::RegisterXactCallback(Some(after_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(after_subtransaction), std::ptr::null_mut());
    }
}

/// A function of PostgreSQL's that takes a sequence's oid first, and ours that stands in for it.
struct Function {
    oid: u32,
    name: &'static CStr,
    arguments: &'static [pg_sys::Oid],
}

const REPLACED: [Function; 3] = [
    Function { oid: pg_sys::F_NEXTVAL, name: c"nextval", arguments: &[pg_sys::REGCLASSOID] },
    Function {
        oid: pg_sys::F_SETVAL_REGCLASS_INT8,
        name: c"setval",
        arguments: &[pg_sys::REGCLASSOID, pg_sys::INT8OID],
    },
    Function {
        oid: pg_sys::F_SETVAL_REGCLASS_INT8_BOOL,
        name: c"setval",
        arguments: &[pg_sys::REGCLASSOID, pg_sys::INT8OID, pg_sys::BOOLOID],
    },
];

fn replaced(function: pg_sys::Oid) -> Option<&'static Function> {
    REPLACED.iter().find(|known| known.oid == function.to_u32())
}

/// Whether PostgreSQL's function of this oid is one of those that [`check_call`] is to see.
#[inline]
pub fn is_of_sequences(function: pg_sys::Oid) -> bool {
    matches!(
        function.to_u32(),
        pg_sys::F_NEXTVAL
            | pg_sys::F_SETVAL_REGCLASS_INT8
            | pg_sys::F_SETVAL_REGCLASS_INT8_BOOL
            | pg_sys::F_CURRVAL
            | pg_sys::F_LASTVAL
            | pg_sys::F_PG_SEQUENCE_LAST_VALUE
    )
}

/// Looks at a call of PostgreSQL's own function, which no plan of ours replaced.
pub fn check_call(function: pg_sys::Oid) {
    if !namespace::are_used() || !session_is_guarded() {
        return;
    }
    let name = match function.to_u32() {
        pg_sys::F_CURRVAL | pg_sys::F_LASTVAL => return context::forget_unbound_sequences(),
        pg_sys::F_NEXTVAL => "nextval",
        pg_sys::F_PG_SEQUENCE_LAST_VALUE => "pg_sequence_last_value",
        _ => "setval",
    };
    if !COPYING.get() && !schema::is_worked_on() && !exemption::function_is_exempt() && extension::confines_session() {
        refuse(Error::SequenceUnseen(name));
    }
}

/// Plans with our functions in place of PostgreSQL's.
unsafe extern "C-unwind" fn hook(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let mut options = options;
    // SAFETY: the arguments that PostgreSQL passed, looked at and handed on; no frame here has a destructor.
    unsafe {
        if namespace::known_to_be_used() != Some(false) && is_enforced() {
            walk(query.cast(), std::ptr::null_mut());
            if schema::is_worked_on() {
                // Parallel workers do not know what is being worked on.
                options &= !(pg_sys::CURSOR_OPT_PARALLEL_OK as c_int);
            }
        }
        match PREVIOUS_PLANNER.get() {
            Some(previous) => previous(query, text, options, parameters),
            None => unguarded::standard_planner(query, text, options, parameters),
        }
    }
}

/// Whether the guard of schemas has a say in what the session does.
#[pg_guard]
extern "C-unwind" fn is_enforced() -> bool {
    schema::is_enforced()
}

/// Visits an expression, a query and everything in them.
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: PostgreSQL passes null or a valid node of a query that is about to be planned, which it lets us change.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_Query {
            return query_tree_walker(node.cast(), walk, context, 0);
        }
        if (*node).type_ == pg_sys::NodeTag::T_FuncExpr {
            let call = node.cast::<pg_sys::FuncExpr>();
            if replaced((*call).funcid).is_some() {
                (*call).funcid = replacement((*call).funcid);
            }
        }
        expression_tree_walker(node, walk, context)
    }
}

/// Our function for one of PostgreSQL's; that one itself where the extension was dropped, for [`check_call`] to refuse.
#[pg_guard]
extern "C-unwind" fn replacement(function: pg_sys::Oid) -> pg_sys::Oid {
    let ours = replaced(function).and_then(|known| extension::internal_function(known.name, known.arguments));
    ours.unwrap_or(function)
}

raw_function! {
    /// nextval(regclass) of a sequence that the session may use.
    pg_tenancy_nextval, pg_finfo_pg_tenancy_nextval, |fcinfo| {
        // SAFETY: PostgreSQL passes a valid call record with the arguments of nextval_oid.
        unsafe { admit(fcinfo); unguarded::nextval_oid(fcinfo) }
    }
}

raw_function! {
    /// setval(regclass, bigint) of a sequence that the session may use.
    pg_tenancy_setval, pg_finfo_pg_tenancy_setval, |fcinfo| {
        // SAFETY: as for nextval.
        unsafe { admit(fcinfo); unguarded::setval_oid(fcinfo) }
    }
}

raw_function! {
    /// setval(regclass, bigint, boolean) of a sequence that the session may use.
    pg_tenancy_setval3, pg_finfo_pg_tenancy_setval3, |fcinfo| {
        // SAFETY: as for nextval.
        unsafe { admit(fcinfo); unguarded::setval3_oid(fcinfo) }
    }
}

/// # Safety
/// `fcinfo` is the record of a call whose first argument is a regclass; the functions are strict.
#[pg_guard]
unsafe extern "C-unwind" fn admit(fcinfo: pg_sys::FunctionCallInfo) {
    // SAFETY: the caller's promise.
    let sequence = unsafe { (*(*fcinfo).args.as_ptr()).value };
    match schema::place_of_relation(pg_sys::Oid::from(sequence.value() as u32)) {
        Place::Foreign(namespace) if schema::is_worked_on() || !exemption::function_is_exempt() => {
            refuse(schema::foreign(namespace));
        }
        Place::Own => lock::admit_writer(),
        _ => {}
    }
}

process_utility_hook!(utility, PREVIOUS_UTILITY, before_utility, after_utility);

/// Marks the time of a COPY FROM; gives the mark of the statement around.
unsafe fn before_utility(statement: *mut pg_sys::PlannedStmt) -> bool {
    let before = COPYING.get();
    // SAFETY: a utility statement of PostgreSQL's.
    let may_copy = unsafe {
        let utility = (*statement).utilityStmt;
        namespace::known_to_be_used() != Some(false)
            && (*utility).type_ == pg_sys::NodeTag::T_CopyStmt
            && takes_numbers_of_own(utility.cast())
    };
    COPYING.set(may_copy);
    before
}

fn after_utility(before: bool) {
    COPYING.set(before);
}

#[pg_guard]
unsafe extern "C-unwind" fn after_transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        COPYING.set(false);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        COPYING.set(false);
    }
}

/// Whether the statement copies into a lasting table whose defaults name only sequences that the session may use. A temporary one may be the
/// session's own, with defaults of its choice.
#[pg_guard]
unsafe extern "C-unwind" fn takes_numbers_of_own(copy: *mut pg_sys::CopyStmt) -> bool {
    // SAFETY: the statement is PostgreSQL's; the look-up finds a relation or none, whose cache entry is released again.
    unsafe {
        if !(*copy).is_from || (*copy).relation.is_null() {
            return false;
        }
        let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
        let none = std::ptr::null_mut();
        let table = pg_sys::RangeVarGetRelidExtended((*copy).relation, pg_sys::NoLock as _, missing_ok, None, none);
        relation::is_lasting(table)
            && relation::defaults(table).into_iter().all(|default| is_of_known_sequences(&default))
    }
}

/// Whether a default, as the catalog holds it, names the sequences that it uses, and all may be used.
unsafe fn is_of_known_sequences(default: &CStr) -> bool {
    // SAFETY: the text is a node as PostgreSQL wrote it.
    unsafe {
        let node = pg_sys::stringToNode(default.as_ptr());
        !pg_sys::ffi::pg_guard_ffi_boundary(|| find_unknown(node.cast(), std::ptr::null_mut()))
    }
}

unsafe extern "C-unwind" fn find_unknown(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: null or a valid node.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_FuncExpr {
            let call = node.cast::<pg_sys::FuncExpr>();
            if replaced((*call).funcid).is_some() && !names_known_sequence((*call).args) {
                return true;
            }
        }
        expression_tree_walker(node, find_unknown, context)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn names_known_sequence(arguments: *mut pg_sys::List) -> bool {
    // SAFETY: the arguments of a call, the first of which is of type regclass.
    unsafe {
        elements::<pg_sys::Node>(arguments).next().is_some_and(|node| {
            (*node).type_ == pg_sys::NodeTag::T_Const && {
                let sequence = (*node.cast::<pg_sys::Const>()).constvalue.value() as u32;
                !matches!(schema::place_of_relation(pg_sys::Oid::from(sequence)), Place::Foreign(_))
            }
        })
    }
}

/// How a function's body can name one of [`REPLACED`]: plainly, with Unicode escapes, or parsed.
const MENTIONS: [&str; 3] = ["nextval", "setval", "u&"];

/// Whether the planner must not put the body of a function in its place: it would be planned with PostgreSQL's functions.
pub fn must_not_be_inlined(function: pg_sys::Oid) -> bool {
    if !schema::is_enforced() {
        return false;
    }
    if matches!(schema::place_of(namespace::of_function(function)), Place::Foreign(_)) {
        return true;
    }
    let Some((source, parsed)) = routine::sql_body(function) else { return false };
    let source = source.to_ascii_lowercase();
    MENTIONS.iter().any(|mention| source.contains(mention))
        || parsed.is_some_and(|parsed| REPLACED.iter().any(|known| parsed.contains(&format!(":funcid {} ", known.oid))))
}
