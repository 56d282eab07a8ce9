//! What the schemas of this database are used for, as their labels say: remembered by each backend until PostgreSQL tells it that a schema,
//! or a label of one, has changed.

use crate::backend::BackendStatic;
use crate::label::{self, PROVIDER, Use};
use crate::scan::{self, Key};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{c_char, c_int, c_void};

/// PostgreSQL's functions as they are, called from frames without a destructor: an ERROR may leave them anywhere.
mod unguarded {
    use super::*;

    unsafe extern "C-unwind" {
        pub fn get_rel_namespace(relation: pg_sys::Oid) -> pg_sys::Oid;
        pub fn get_func_namespace(function: pg_sys::Oid) -> pg_sys::Oid;
        pub fn AcceptInvalidationMessages();
        pub fn assign_search_path(value: *const c_char, extra: *mut c_void);
    }
}

/// Column numbers of pg_seclabel.
const CLASS: i16 = pg_sys::Anum_pg_seclabel_classoid as i16;
const LABELLER: i16 = pg_sys::Anum_pg_seclabel_provider as i16;

/// Schemas that a backend remembers, in memory that is touched as it is used; two that share a place take turns.
const REMEMBERED: usize = 1024;

#[derive(Clone, Copy)]
struct Known {
    generation: u64,
    namespace: pg_sys::Oid,
    usage: Option<Use>,
}

const NOTHING: Known = Known { generation: 0, namespace: pg_sys::InvalidOid, usage: None };

/// Counts the changes of schemas and their labels; 0 before anything is remembered.
static GENERATION: BackendStatic<u64> = BackendStatic::new(0);
static KNOWN: BackendStatic<[Known; REMEMBERED]> = BackendStatic::new([NOTHING; REMEMBERED]);
/// Whether any schema has a label of ours; None until someone asks.
static ANY: BackendStatic<Option<bool>> = BackendStatic::new(None);

/// The generation now: what was read of schemas is true for as long as it lasts.
pub fn generation() -> u64 {
    if GENERATION.get() == 0 {
        let note = Some(note_change as unsafe extern "C-unwind" fn(pg_sys::Datum, c_int, u32));
        // SAFETY: registers a callback, once per backend, of the signature that PostgreSQL asks for.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::NAMESPACEOID as _,
                note,
                pg_sys::Datum::null(),
            );
        }
        GENERATION.set(1);
    }
    GENERATION.get()
}

#[pg_guard]
unsafe extern "C-unwind" fn note_change(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    GENERATION.set(GENERATION.get() + 1);
    ANY.set(None);
}

/// Whether any schema here is a tenant's or a template's, as far as it is known: None when it must be asked.
#[inline]
pub fn known_to_be_used() -> Option<bool> {
    ANY.get()
}

/// Whether any schema here is a tenant's or a template's.
#[inline]
pub fn are_used() -> bool {
    ANY.get().unwrap_or_else(look_for_labels)
}

/// The same after everything that other sessions have committed until now is taken note of.
#[inline]
pub fn are_used_by_now() -> bool {
    // SAFETY: takes in the pending messages; nothing here has a destructor.
    unsafe { unguarded::AcceptInvalidationMessages() };
    are_used()
}

#[cold]
#[inline(never)]
fn look_for_labels() -> bool {
    // SAFETY: a plain read.
    if !unsafe { pg_sys::IsTransactionState() } {
        // Nobody can look now; whoever asks takes care.
        return true;
    }
    let generation = self::generation();
    let Ok(provider) = Key::text(LABELLER, PROVIDER) else { return true };
    let keys = [Key::oid(CLASS, pg_sys::NamespaceRelationId), provider];
    let found = scan::catalog_row(pg_sys::SecLabelRelationId, None, &keys).is_some();
    if GENERATION.get() == generation {
        ANY.set(Some(found));
    }
    found
}

/// What the schema is used for; None for an ordinary one.
#[inline]
pub fn usage(namespace: pg_sys::Oid) -> Option<Use> {
    if namespace.to_u32() < pg_sys::FirstNormalObjectId || !are_used() {
        return None;
    }
    let place = namespace.to_u32() as usize % REMEMBERED;
    // SAFETY: one thread; the entry is copied.
    let known = unsafe { (*KNOWN.as_ptr())[place] };
    if known.namespace == namespace && known.generation == GENERATION.get() {
        known.usage
    } else {
        read(namespace, place)
    }
}

#[cold]
#[inline(never)]
fn read(namespace: pg_sys::Oid, place: usize) -> Option<Use> {
    let generation = self::generation();
    let usage = label::of_schema(namespace);
    if GENERATION.get() == generation {
        // SAFETY: one thread.
        unsafe { (*KNOWN.as_ptr())[place] = Known { generation, namespace, usage } };
    }
    usage
}

/// The schema of a relation, or invalid.
#[inline]
pub fn of_relation(relation: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a syscache look-up; nothing here has a destructor.
    unsafe { unguarded::get_rel_namespace(relation) }
}

/// The schema of a function, or invalid.
#[inline]
pub fn of_function(function: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: as in of_relation.
    unsafe { unguarded::get_func_namespace(function) }
}

/// Whether PostgreSQL has met a tenant's or template's schema in `search_path` since it was last told to look again.
static ON_SEARCH_PATH: BackendStatic<bool> = BackendStatic::new(false);

/// Called when PostgreSQL asks whether such a schema, which `search_path` names, may be used now. It remembers the answer.
pub fn note_on_search_path() {
    ON_SEARCH_PATH.set(true);
}

/// Makes PostgreSQL ask again when it next needs `search_path`, because what may be used has changed. Also called while a transaction ends; it
/// only sets a mark.
#[inline]
pub fn look_up_search_path_again() {
    if ON_SEARCH_PATH.get() {
        ON_SEARCH_PATH.set(false);
        // SAFETY: the assign hook of search_path, which ignores its arguments.
        unsafe { unguarded::assign_search_path(std::ptr::null(), std::ptr::null_mut()) };
    }
}

/// Whether the session's role has the rights of the schema's owner.
pub fn is_owned_by_session(namespace: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up whose tuple is released after its field is copied, then one of memberships.
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::NAMESPACEOID as _, pg_sys::Datum::from(namespace));
        if tuple.is_null() {
            return false;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
        pg_sys::ReleaseSysCache(tuple);
        pg_sys::has_privs_of_role(pg_sys::GetOuterUserId(), owner)
    }
}

/// The schema's name.
pub fn name(namespace: pg_sys::Oid) -> String {
    // SAFETY: a look-up by oid that returns null or a palloc'd C string.
    unsafe {
        let name = pg_sys::get_namespace_name(namespace);
        if name.is_null() {
            namespace.to_string()
        } else {
            std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

/// The schema of this name.
pub fn oid(name: &str) -> Option<pg_sys::Oid> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a look-up by a C string.
    let found = unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) };
    (found != pg_sys::InvalidOid).then_some(found)
}
