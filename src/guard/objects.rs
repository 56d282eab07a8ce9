//! Access to objects that no permission check of the executor sees: TRUNCATE, names of schemas wherever PostgreSQL looks one up, calls of
//! functions, and changes of definitions.

use super::schema::{self, Place};
use super::{exemption, lock, refuse, sequences, session_is_guarded};
use crate::backend::BackendStatic;
use crate::error::Error;
use crate::namespace;
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
    use pg_sys::ObjectAccessType::{OAT_FUNCTION_EXECUTE, OAT_NAMESPACE_SEARCH, OAT_TRUNCATE};
    let concerns_us = match access {
        OAT_TRUNCATE => true,
        _ if namespace::known_to_be_used() == Some(false) => false,
        OAT_FUNCTION_EXECUTE => is_users(object) || sequences::is_of_sequences(object),
        OAT_NAMESPACE_SEARCH => is_users(object),
        _ => true,
    };
    if concerns_us || PREVIOUS_OBJECT_ACCESS.get().is_some() {
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
    use pg_sys::ObjectAccessType::*;
    if let Some(previous) = PREVIOUS_OBJECT_ACCESS.get() {
        // SAFETY: as in hook; an ERROR unwinds through the boundary.
        unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous(access, class, object, sub_object, argument));
        }
    }
    match access {
        OAT_TRUNCATE => check_truncate(object),
        OAT_FUNCTION_EXECUTE if is_users(object) => check_use(namespace::of_function(object)),
        OAT_FUNCTION_EXECUTE => sequences::check_call(object),
        // SAFETY: what PostgreSQL passes with this access.
        OAT_NAMESPACE_SEARCH => unsafe { check_search(object, argument.cast()) },
        OAT_POST_CREATE | OAT_DROP | OAT_POST_ALTER => check_change(namespace_of(access, class, object)),
        _ => {}
    }
}

/// Whether the object is none of those that every database has.
fn is_users(object: pg_sys::Oid) -> bool {
    object.to_u32() >= pg_sys::FirstNormalObjectId
}

fn check_truncate(relation: pg_sys::Oid) {
    match schema::place_of_relation(relation) {
        Place::Foreign(namespace) if !is_exempt() => refuse(schema::foreign(namespace)),
        Place::Own => lock::admit_writer(),
        _ => {}
    }
    if relation::is_protected(relation) && session_is_guarded() && !exemption::function_is_exempt() {
        refuse(Error::Truncate(relation::name(relation)));
    }
}

/// A schema that a statement names is refused; one of `search_path` is left out of it.
///
/// # Safety
/// `search` is what PostgreSQL passes with OAT_NAMESPACE_SEARCH.
unsafe fn check_search(namespace: pg_sys::Oid, search: *mut pg_sys::ObjectAccessNamespaceSearch) {
    // SAFETY: the caller's promise.
    let search = unsafe { &mut *search };
    let is_foreign = matches!(schema::place_of(namespace), Place::Foreign(_));
    if search.ereport_on_violation {
        if is_foreign && !is_exempt() {
            refuse(schema::foreign(namespace));
        }
    } else if namespace::usage(namespace).is_some() {
        namespace::note_on_search_path();
        // Even for an exempt function: PostgreSQL would remember the path for whoever comes after it.
        search.result &= !is_foreign;
    }
}

/// Refuses the use of something in this schema.
fn check_use(namespace: pg_sys::Oid) {
    if let Place::Foreign(namespace) = schema::place_of(namespace)
        && !is_exempt()
    {
        refuse(schema::foreign(namespace));
    }
}

/// A definition is changed by who may write: CREATE TABLE AS has rows, and what is made or changed in a schema that the tenant leaves would go
/// with that.
fn check_change(namespace: pg_sys::Oid) {
    check_use(namespace);
    if schema::place_of(namespace) == Place::Own {
        lock::admit_writer();
    }
}

fn is_exempt() -> bool {
    exemption::function_is_exempt() && !schema::is_worked_on()
}

/// The schema of an object whose definition is made, changed or dropped: invalid for one that is found only through another that is guarded.
fn namespace_of(access: pg_sys::ObjectAccessType::Type, class: pg_sys::Oid, object: pg_sys::Oid) -> pg_sys::Oid {
    match class {
        // A new relation is not in the catalogs yet, but open.
        pg_sys::RelationRelationId if access == pg_sys::ObjectAccessType::OAT_POST_CREATE => {
            relation::namespace(object)
        }
        pg_sys::RelationRelationId => namespace::of_relation(object),
        pg_sys::ProcedureRelationId => namespace::of_function(object),
        pg_sys::NamespaceRelationId => object,
        _ => pg_sys::InvalidOid,
    }
}
