//! What differs between the major versions of PostgreSQL. Nothing else in the crate asks for a version.

use crate::raw::elements;
use pgrx::pg_sys;

/// One relation that a statement wants to use: which one, for what, and as whom.
#[derive(Clone, Copy)]
pub struct RelationUse {
    pub relation: pg_sys::Oid,
    pub required: pg_sys::AclMode,
    /// The role whose rights count (the owner of a view), or invalid for the current role.
    pub check_as: pg_sys::Oid,
}

/// The argument list of `ExecutorCheckPerms_hook`, which PostgreSQL 16 changed.
#[cfg(feature = "pg15")]
macro_rules! check_perms_hook {
    ($name:ident, $check:path) => {
        #[pgrx::pg_guard]
        unsafe extern "C-unwind" fn $name(list: *mut pgrx::pg_sys::List, report: bool) -> bool {
            // SAFETY: the executor passes its range table, and the previous hook the same.
            unsafe {
                if let Some(previous) = PREVIOUS_CHECK_PERMS.get()
                    && !pgrx::pg_sys::ffi::pg_guard_ffi_boundary(|| previous(list, report))
                {
                    return false;
                }
                $check(list, list, report)
            }
        }
    };
}
#[cfg(not(feature = "pg15"))]
macro_rules! check_perms_hook {
    ($name:ident, $check:path) => {
        #[pgrx::pg_guard]
        unsafe extern "C-unwind" fn $name(
            range_table: *mut pgrx::pg_sys::List,
            list: *mut pgrx::pg_sys::List,
            report: bool,
        ) -> bool {
            // SAFETY: the executor passes its permission list, and the previous hook the same.
            unsafe {
                if let Some(previous) = PREVIOUS_CHECK_PERMS.get()
                    && !pgrx::pg_sys::ffi::pg_guard_ffi_boundary(|| previous(range_table, list, report))
                {
                    return false;
                }
                $check(range_table, list, report)
            }
        }
    };
}
pub(crate) use check_perms_hook;

/// A hook of the executor's runs that calls `$look` and hands on. The frame has no destructor and no boundary, so an ERROR of a user's
/// statement passes with every field. PostgreSQL 18 took an argument away.
#[cfg(not(feature = "pg18"))]
macro_rules! executor_run_hook {
    ($name:ident, $previous:path, $look:path) => {
        unsafe extern "C-unwind" fn $name(
            query: *mut pgrx::pg_sys::QueryDesc,
            direction: pgrx::pg_sys::ScanDirection::Type,
            count: pgrx::pg_sys::uint64,
            once: bool,
        ) {
            unsafe extern "C-unwind" {
                fn standard_ExecutorRun(
                    query: *mut pgrx::pg_sys::QueryDesc,
                    direction: pgrx::pg_sys::ScanDirection::Type,
                    count: pgrx::pg_sys::uint64,
                    once: bool,
                );
            }
            $look();
            // SAFETY: the arguments that PostgreSQL passed, handed on.
            unsafe {
                match $previous.get() {
                    Some(previous) => previous(query, direction, count, once),
                    None => standard_ExecutorRun(query, direction, count, once),
                }
            }
        }
    };
}
#[cfg(feature = "pg18")]
macro_rules! executor_run_hook {
    ($name:ident, $previous:path, $look:path) => {
        unsafe extern "C-unwind" fn $name(
            query: *mut pgrx::pg_sys::QueryDesc,
            direction: pgrx::pg_sys::ScanDirection::Type,
            count: pgrx::pg_sys::uint64,
        ) {
            unsafe extern "C-unwind" {
                fn standard_ExecutorRun(
                    query: *mut pgrx::pg_sys::QueryDesc,
                    direction: pgrx::pg_sys::ScanDirection::Type,
                    count: pgrx::pg_sys::uint64,
                );
            }
            $look();
            // SAFETY: the arguments that PostgreSQL passed, handed on.
            unsafe {
                match $previous.get() {
                    Some(previous) => previous(query, direction, count),
                    None => standard_ExecutorRun(query, direction, count),
                }
            }
        }
    };
}
pub(crate) use executor_run_hook;

/// Declares PostgreSQL's walkers of queries and expressions as they are; PostgreSQL 16 made macros of their names.
macro_rules! expression_walkers {
    () => {
        type Walker = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut std::ffi::c_void) -> bool;

        #[allow(dead_code)]
        unsafe extern "C-unwind" {
            #[allow(dead_code, reason = "some walk expressions only")]
            #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
            fn query_tree_walker(
                query: *mut pg_sys::Query,
                walker: Walker,
                context: *mut std::ffi::c_void,
                flags: std::ffi::c_int,
            ) -> bool;
            #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
            fn expression_tree_walker(node: *mut pg_sys::Node, walker: Walker, context: *mut std::ffi::c_void) -> bool;
        }
    };
}
pub(crate) use expression_walkers;

/// The relations of a statement: those of its permission list in its order, and those that it reads unasked, as the children of a table
/// are, with nothing required.
///
/// # Safety
/// Both are the lists that the executor handed to `ExecutorCheckPerms_hook`; up to PostgreSQL 15 the range table is both.
#[cfg(feature = "pg15")]
#[inline]
pub unsafe fn relation_uses(
    range_table: *mut pg_sys::List,
    _permissions: *mut pg_sys::List,
) -> impl Iterator<Item = RelationUse> {
    // SAFETY: the caller's promise.
    unsafe { elements::<pg_sys::RangeTblEntry>(range_table) }.filter_map(|entry| {
        // SAFETY: the caller's promise.
        let entry = unsafe { &*entry };
        (entry.rtekind == pg_sys::RTEKind::RTE_RELATION).then_some(RelationUse {
            relation: entry.relid,
            required: entry.requiredPerms,
            check_as: entry.checkAsUser,
        })
    })
}
#[cfg(not(feature = "pg15"))]
#[inline]
pub unsafe fn relation_uses(
    range_table: *mut pg_sys::List,
    permissions: *mut pg_sys::List,
) -> impl Iterator<Item = RelationUse> {
    // SAFETY: the caller's promise.
    let named = unsafe { elements::<pg_sys::RTEPermissionInfo>(permissions) }.map(|entry| {
        // SAFETY: the caller's promise.
        let entry = unsafe { &*entry };
        RelationUse { relation: entry.relid, required: entry.requiredPerms, check_as: entry.checkAsUser }
    });
    // SAFETY: the caller's promise.
    let unasked = unsafe { elements::<pg_sys::RangeTblEntry>(range_table) }.filter_map(|entry| {
        // SAFETY: the caller's promise.
        let entry = unsafe { &*entry };
        (entry.rtekind == pg_sys::RTEKind::RTE_RELATION && entry.perminfoindex == 0).then_some(RelationUse {
            relation: entry.relid,
            required: 0,
            check_as: pg_sys::InvalidOid,
        })
    });
    named.chain(unasked)
}

/// The server's record of one of its settings, or null.
#[cfg(feature = "pg15")]
pub fn setting(name: &std::ffi::CStr) -> *mut pg_sys::config_generic {
    // SAFETY: the server's array of its settings, each of which has a name.
    unsafe {
        let (settings, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        (0..count.unsigned_abs() as usize)
            .map(|index| *settings.add(index))
            .find(|setting| std::ffi::CStr::from_ptr((**setting).name) == name)
            .unwrap_or(std::ptr::null_mut())
    }
}
#[cfg(not(feature = "pg15"))]
pub fn setting(name: &std::ffi::CStr) -> *mut pg_sys::config_generic {
    // SAFETY: a look-up by a C string, which returns null where there is no such setting.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, pg_sys::DEBUG5 as std::ffi::c_int) }
}

/// The local id of the running transaction: unique among the transactions of this backend, also before it has an xid.
#[inline]
pub fn local_transaction_id() -> pg_sys::LocalTransactionId {
    // SAFETY: MyProc is set for the whole life of a backend that runs SQL.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        {
            (*pg_sys::MyProc).lxid
        }
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        {
            (*pg_sys::MyProc).vxid.lxid
        }
    }
}

/// This backend's place among the `MaxBackends` places of the server, from 0; None outside one.
#[inline]
pub fn backend_slot() -> Option<usize> {
    // SAFETY: plain reads of integers that are set before a backend runs SQL.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let slot = unsafe { pg_sys::MyBackendId } - 1;
    // SAFETY: as above.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    let slot = unsafe { pg_sys::MyProcNumber };
    usize::try_from(slot).ok()
}

/// Installs a handler of a signal, which PostgreSQL 18 calls by another name.
///
/// # Safety
/// The handler is one of PostgreSQL's, or as careful.
pub unsafe fn handle_signal(signal: std::ffi::c_int, handler: unsafe extern "C-unwind" fn(std::ffi::c_int)) {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Runs a portal to its end as a client's own statement, and throws its rows away. PostgreSQL 18 took an argument away.
///
/// # Safety
/// A portal that was started.
pub unsafe fn portal_run(portal: pg_sys::Portal) {
    // SAFETY: the caller's promise; the receiver that takes nothing is a constant of PostgreSQL's.
    unsafe {
        let nowhere = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone);
        #[cfg(not(feature = "pg18"))]
        pg_sys::PortalRun(portal, std::ffi::c_long::MAX, true, true, nowhere, nowhere, std::ptr::null_mut());
        #[cfg(feature = "pg18")]
        pg_sys::PortalRun(portal, std::ffi::c_long::MAX, true, nowhere, nowhere, std::ptr::null_mut());
    }
}

/// Begins to copy the rows of a query to a file.
///
/// # Safety
/// A parse state, a parsed statement and a C string that live as long as the copy.
#[cfg(feature = "pg15")]
pub unsafe fn begin_copy_to(
    parsing: *mut pg_sys::ParseState,
    statement: *mut pg_sys::RawStmt,
    path: *const std::ffi::c_char,
) -> pg_sys::CopyToState {
    let (relation, none, options) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller's promise.
    unsafe { pg_sys::BeginCopyTo(parsing, relation, statement, pg_sys::InvalidOid, path, false, none, options) }
}
#[cfg(not(feature = "pg15"))]
pub unsafe fn begin_copy_to(
    parsing: *mut pg_sys::ParseState,
    statement: *mut pg_sys::RawStmt,
    path: *const std::ffi::c_char,
) -> pg_sys::CopyToState {
    let (relation, none, options) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller's promise.
    unsafe { pg_sys::BeginCopyTo(parsing, relation, statement, pg_sys::InvalidOid, path, false, None, none, options) }
}
