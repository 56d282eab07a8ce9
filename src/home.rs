//! Whether this database is a tenant's own, as its label says: remembered by each backend until PostgreSQL tells it that a database, or a label of
//! one, has changed.

use crate::error::{Error, Result};
use crate::label::{self, Home};
use pgrx::{Uuid, pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int};

/// What is known: nothing before it was asked, and after every change of a database.
#[derive(Default)]
struct Known {
    watched: bool,
    home: Option<Option<Home>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

#[pg_guard]
unsafe extern "C-unwind" fn note_change(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    KNOWN.with_borrow_mut(|known| known.home = None);
}

/// What this database is; None for one that is no tenant's.
pub fn here() -> Option<Home> {
    // SAFETY: takes in what other sessions have committed, and calls note_change for it.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    if let Some(home) = KNOWN.with_borrow(|known| known.home.clone()) {
        return home;
    }
    let first = KNOWN.with_borrow_mut(|known| !std::mem::replace(&mut known.watched, true));
    if first {
        let note = Some(note_change as unsafe extern "C-unwind" fn(pg_sys::Datum, c_int, u32));
        // SAFETY: registers a callback, once per backend, of the signature that PostgreSQL asks for.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::DATABASEOID as _,
                note,
                pg_sys::Datum::null(),
            );
        }
    }
    // Set before it is read: a change that is noted meanwhile takes it back.
    KNOWN.with_borrow_mut(|known| known.home = Some(None));
    // SAFETY: a plain read.
    let home = label::of_database(unsafe { pg_sys::MyDatabaseId });
    KNOWN.with_borrow_mut(|known| {
        if known.home.is_some() {
            known.home = Some(home.clone());
        }
    });
    home
}

/// Whether this database is this tenant's own.
pub fn is_of(tenant: &[u8; 16]) -> bool {
    here().is_some_and(|home| home.tenant == *tenant)
}

/// Whether this tenant can be one of this database: only the one that it belongs to, if it belongs to one.
pub fn admits(tenant: &[u8; 16]) -> bool {
    here().is_none_or(|home| home.tenant == *tenant)
}

/// The database of this name, if there is one.
pub fn database(name: &str) -> Result<pg_sys::Oid> {
    let c_name = CString::new(name).map_err(|_| Error::Internal("a name has a zero byte".to_owned()))?;
    // SAFETY: a look-up by a C string.
    let database = unsafe { pg_sys::get_database_oid(c_name.as_ptr(), true) };
    if database == pg_sys::InvalidOid { Err(Error::Unknown("database", name.to_owned())) } else { Ok(database) }
}

/// The name of a database, as it is now; None where there is none.
pub fn name_of(database: pg_sys::Oid) -> Option<String> {
    // SAFETY: a look-up by oid that gives null or a palloc'd C string.
    unsafe {
        let name = pg_sys::get_database_name(database);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The name of this database.
pub fn this() -> String {
    // SAFETY: a plain read.
    name_of(unsafe { pg_sys::MyDatabaseId }).unwrap_or_default()
}

/// What the label of a database says, if it is this tenant's, and this database the one that keeps its registry: a copy of a control database knows the
/// same tenants, and must not touch their databases.
pub fn of(tenant: Uuid, database: pg_sys::Oid) -> Option<Home> {
    label::of_database(database).filter(|home| home.tenant == *tenant.as_bytes() && home.control == this())
}

/// The database of this name, which must be the tenant's own by its label: no mistake in the registry reaches into another.
pub fn find(tenant: Uuid, name: &str) -> Result<pg_sys::Oid> {
    let database = database(name)?;
    match of(tenant, database) {
        Some(_) => Ok(database),
        None => Err(Error::State(
            format!("database \"{name}\" is not that of tenant \"{tenant}\" here"),
            "The label of a database says whose it is, and of which control database.",
        )),
    }
}
