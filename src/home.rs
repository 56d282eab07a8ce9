//! Whether this database is a tenant's own, as its label says: remembered by each backend until PostgreSQL tells it that a database, or a label of
//! one, has changed.

use crate::label::{self, Home};
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::c_int;

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
