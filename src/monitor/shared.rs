//! Arrays of atomics in shared memory, all zeroes when the server starts.

use crate::backend::BackendStatic;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// An array in shared memory that is allocated once, when the server starts.
pub struct Region<T: 'static> {
    name: &'static CStr,
    length: fn() -> usize,
    elements: BackendStatic<&'static [T]>,
}

/// Types for which any bits are valid and that may be shared: atomics, and structures of nothing else.
///
/// # Safety
/// The implementor is such a type, and aligned as [`AtomicU64`] at most.
pub unsafe trait Atomic: Sync {}

impl<T: Atomic> Region<T> {
    pub const fn new(name: &'static CStr, length: fn() -> usize) -> Self {
        Self { name, length, elements: BackendStatic::new(&[]) }
    }

    /// The array; empty in a process that is not attached to shared memory.
    #[inline]
    pub fn elements(&self) -> &'static [T] {
        self.elements.get()
    }

    fn size(&self) -> usize {
        (self.length)() * size_of::<T>()
    }

    /// Asks for the space, while PostgreSQL computes what it needs.
    pub fn request(&self) {
        // SAFETY: called from shmem_request_hook.
        unsafe { pg_sys::RequestAddinShmemSpace(self.size()) }
    }

    /// Allocates the array or finds it, once shared memory exists.
    pub fn attach(&self) {
        const { assert!(align_of::<T>() <= align_of::<AtomicU64>()) };
        // SAFETY: called from shmem_startup_hook; the region has the size asked for, is aligned to a cache line, never freed, and zeroed
        // before any other process exists; T is valid for any bits.
        unsafe {
            let mut found = false;
            let start = pg_sys::ShmemInitStruct(self.name.as_ptr(), self.size(), &mut found).cast::<u8>();
            if !found {
                start.write_bytes(0, self.size());
            }
            self.elements.set(std::slice::from_raw_parts(start.cast(), (self.length)()));
        }
    }
}

/// A uuid in two words that are read and written one by one.
#[derive(Default)]
pub struct AtomicUuid([AtomicU64; 2]);

impl AtomicUuid {
    pub fn store(&self, uuid: &[u8; 16]) {
        let (high, low) = words(uuid);
        self.0[0].store(high, Ordering::Relaxed);
        self.0[1].store(low, Ordering::Relaxed);
    }

    pub fn load(&self) -> [u8; 16] {
        uuid_of(self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed))
    }
}

/// The two halves of a uuid as numbers.
pub fn words(uuid: &[u8; 16]) -> (u64, u64) {
    let number = u128::from_be_bytes(*uuid);
    ((number >> 64) as u64, number as u64)
}

/// The uuid of these halves.
pub fn uuid_of(high: u64, low: u64) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}
