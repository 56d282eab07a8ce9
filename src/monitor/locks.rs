//! Short locks beside shared memory, for what cannot be one atomic step.

use crate::backend::BackendStatic;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// Lightweight locks of one name, as wait events show it; a key always has the same one.
pub struct Locks {
    name: &'static CStr,
    number: usize,
    first: BackendStatic<*mut pg_sys::LWLockPadded>,
}

impl Locks {
    pub const fn new(name: &'static CStr, number: usize) -> Self {
        Self { name, number, first: BackendStatic::new(std::ptr::null_mut()) }
    }

    pub fn request(&self) {
        // SAFETY: called from shmem_request_hook.
        unsafe { pg_sys::RequestNamedLWLockTranche(self.name.as_ptr(), self.number as c_int) }
    }

    pub fn attach(&self) {
        // SAFETY: called from shmem_startup_hook, after the request.
        self.first.set(unsafe { pg_sys::GetNamedLWLockTranche(self.name.as_ptr()) });
    }

    /// Does `work`, which neither raises nor waits, while nobody else does any for a key of the same lock.
    pub fn alone<T>(&self, key: u64, work: impl FnOnce() -> T) -> T {
        let first = self.first.get();
        if first.is_null() {
            return work();
        }
        // SAFETY: one of the locks that the tranche has; interrupts are held until it is released.
        unsafe {
            let lock = &raw mut (*first.add(key as usize % self.number)).lock;
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            let result = work();
            pg_sys::LWLockRelease(lock);
            result
        }
    }
}
