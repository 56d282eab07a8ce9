//! The lock of a key that the application's own tables know a tenant by. A transaction that looks for rows by its tenant's key shares the lock
//! until it ends, and then makes sure that the tenant still has the key; whoever gives a tenant a key takes it alone. So nobody who is bound to a
//! tenant that had the key before, and was purged, sees a row of the next one.

use super::registry;
use super::state::{STATE, Source};
use crate::error::{Error, Result, raise};
use crate::lock_tag::{self, Class};
use pgrx::{Uuid, pg_guard, pg_sys};

fn acquire(key: &str, mode: u32) {
    // SAFETY: takes a lock that the transaction's end releases, and waits as any lock does.
    unsafe {
        let tag = lock_tag::of(pg_sys::MyDatabaseId, lock_tag::key_of(key), Class::Key);
        pg_sys::LockAcquire(&tag, mode as pg_sys::LOCKMODE, false, false);
    }
}

/// Waits until no transaction looks for rows by this key, nor will until ours ends.
pub fn take_alone(key: &str) {
    acquire(key, pg_sys::ExclusiveLock);
}

/// Puts the resource owner back when dropped, an ERROR that unwinds included.
struct Owner(pg_sys::ResourceOwner);

impl Owner {
    /// What is acquired now is the transaction's: the end of a subtransaction does not release it.
    fn transaction() -> Self {
        // SAFETY: inside a transaction, which has an owner.
        unsafe {
            let before = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            Self(before)
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: what it was before.
        unsafe { pg_sys::CurrentResourceOwner = self.0 }
    }
}

fn share() -> Result<()> {
    // SAFETY: one thread.
    let context = unsafe { (*STATE.as_ptr()).context };
    let Some(key) = context.key else { return Ok(()) };
    // The product itself holds whatever it needs.
    if !matches!(context.source, Source::Maintenance | Source::Migration) {
        let tenant = Uuid::from_bytes(context.tenant);
        let owner = Owner::transaction();
        acquire(key.as_str(), pg_sys::ShareLock);
        drop(owner);
        if registry::key_of(tenant)? != Some(key) {
            return Err(Error::unknown_tenant(tenant));
        }
    }
    // SAFETY: one thread.
    unsafe { (*STATE.as_ptr()).key_is_held = true };
    Ok(())
}

/// Shares the lock of the bound tenant's key, once for each binding. Apart, so that what is called for each row stays small.
#[cold]
#[inline(never)]
#[pg_guard]
pub extern "C-unwind" fn hold() {
    if let Err(error) = share() {
        raise(error)
    }
}
