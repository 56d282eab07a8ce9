//! The segment of shared memory: one activity slot for each backend, then the table of refusal counters.

use super::{activity::Slot, refusals::Counters};
use crate::backend::BackendStatic;
use pgrx::{pg_guard, pg_sys};
use std::sync::atomic::{AtomicU64, Ordering};

/// Tenants whose refusals are counted apart; later ones are counted together.
pub const COUNTED_TENANTS: usize = 16_384;

#[derive(Clone, Copy)]
pub struct Segment {
    pub slots: &'static [Slot],
    pub counters: &'static [Counters; COUNTED_TENANTS],
    /// Refusals that have no tenant of their own: none bound, unknown, or no room.
    pub others: &'static Counters,
}

static SEGMENT: BackendStatic<Option<Segment>> = BackendStatic::new(None);
static PREVIOUS_REQUEST: BackendStatic<pg_sys::shmem_request_hook_type> = BackendStatic::new(None);
static PREVIOUS_STARTUP: BackendStatic<pg_sys::shmem_startup_hook_type> = BackendStatic::new(None);

/// The segment; None only in a process that is not attached to it.
#[inline]
pub fn segment() -> Option<Segment> {
    SEGMENT.get()
}

/// Asks for the segment when the server starts.
pub fn init() {
    // SAFETY: called once, from _PG_init, in the postmaster.
    unsafe {
        PREVIOUS_REQUEST.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

/// The layout: the alignment of every part is that of AtomicU64, and all zeroes is its initial state.
fn layout() -> (usize, usize) {
    // SAFETY: PostgreSQL has computed MaxBackends before it asks for shared memory.
    let backends = unsafe { pg_sys::MaxBackends }.max(0) as usize;
    let slots = backends * size_of::<Slot>();
    (backends, slots + (COUNTED_TENANTS + 1) * size_of::<Counters>())
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: the hook chain runs in the postmaster; MaxBackends is set by then.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST.get() {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(layout().1);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    const { assert!(align_of::<Slot>() == align_of::<AtomicU64>() && align_of::<Counters>() == align_of::<AtomicU64>()) };
    // SAFETY: ShmemInitStruct returns a region of the size asked for, aligned to a cache line, that is never freed; all of
    // its parts are atomics, for which any bits are valid, and a new region is zeroed here before anyone else sees it.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP.get() {
            previous();
        }
        let (backends, size) = layout();
        let mut found = false;
        let start = pg_sys::ShmemInitStruct(c"pg_tenancy".as_ptr(), size, &mut found).cast::<u8>();
        if !found {
            start.write_bytes(0, size);
        }
        let counters = start.add(backends * size_of::<Slot>());
        SEGMENT.set(Some(Segment {
            slots: std::slice::from_raw_parts(start.cast(), backends),
            counters: &*counters.cast(),
            others: &*counters.add(COUNTED_TENANTS * size_of::<Counters>()).cast(),
        }));
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
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&self.0[0].load(Ordering::Relaxed).to_be_bytes());
        uuid[8..].copy_from_slice(&self.0[1].load(Ordering::Relaxed).to_be_bytes());
        uuid
    }
}

/// The two halves of a uuid as numbers.
pub fn words(uuid: &[u8; 16]) -> (u64, u64) {
    let number = u128::from_be_bytes(*uuid);
    ((number >> 64) as u64, number as u64)
}
