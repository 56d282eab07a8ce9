//! Counters of what was refused, per tenant: an open-addressing table of atomics that only grows.

use super::shared::{Atomic, AtomicUuid, Region, words};
use pgrx::{Uuid, pg_sys};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Tenants whose refusals are counted apart; later ones are counted together.
const COUNTED_TENANTS: usize = 16_384;
/// Places that are tried before a tenant is counted among the others.
const PROBES: usize = 64;

const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const READY: u64 = 2;

#[derive(Clone, Copy)]
pub enum Refusal {
    /// A tenant was not bound: its state, an unknown id, another one bound, a bypassing role.
    Bind = 0,
    /// A row or an argument named a tenant other than the bound one.
    Mismatch = 1,
    /// A hook refused: back door, TRUNCATE, read-only tenant, holdable cursor.
    Guard = 2,
}

#[repr(C)]
pub struct Counters {
    state: AtomicU64,
    tenant: AtomicUuid,
    refused: [AtomicU64; 3],
    last: AtomicI64,
}

/// One tenant's counters; `tenant` is None for those that have no tenant of their own.
pub struct Count {
    pub tenant: Option<Uuid>,
    pub refused: [u64; 3],
    pub last: pg_sys::TimestampTz,
}

impl Counters {
    fn add(&self, refusal: Refusal) {
        // SAFETY: reads the clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    fn read(&self, tenant: Option<Uuid>) -> Count {
        Count {
            tenant,
            refused: std::array::from_fn(|kind| self.refused[kind].load(Ordering::Relaxed)),
            last: self.last.load(Ordering::Relaxed),
        }
    }

    /// Takes this place for `tenant`, or tells whether it has it.
    fn is_of(&self, tenant: &[u8; 16]) -> bool {
        match self.state.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                self.tenant.store(tenant);
                self.state.store(READY, Ordering::Release);
                true
            }
            Err(_) => {
                while self.state.load(Ordering::Acquire) == CLAIMED {
                    std::hint::spin_loop();
                }
                self.tenant.load() == *tenant
            }
        }
    }
}

// SAFETY: atomics only.
unsafe impl Atomic for Counters {}

/// One place for each tenant, and a last one for refusals that have no tenant of their own: none bound, unknown, or no room.
pub static COUNTERS: Region<Counters> = Region::new(c"pg_tenancy refusals", || COUNTED_TENANTS + 1);

/// Counts a refusal for `tenant`. It stays counted when the transaction rolls back.
#[cold]
pub fn count(tenant: Option<&[u8; 16]>, refusal: Refusal) {
    let Some((others, own)) = COUNTERS.elements().split_last() else { return };
    let place = tenant.and_then(|tenant| {
        let (high, low) = words(tenant);
        let start = (high ^ low) as usize;
        (0..PROBES).map(|probe| &own[start.wrapping_add(probe) % own.len()]).find(|counters| counters.is_of(tenant))
    });
    place.unwrap_or(others).add(refusal);
}

/// The counters of every tenant that has any.
pub fn counts() -> Vec<Count> {
    let Some((others, own)) = COUNTERS.elements().split_last() else { return Vec::new() };
    let mut counts: Vec<Count> = own
        .iter()
        .filter(|counters| counters.state.load(Ordering::Acquire) == READY)
        .map(|counters| counters.read(Some(Uuid::from_bytes(counters.tenant.load()))))
        .collect();
    let others = others.read(None);
    if others.last != 0 {
        counts.push(others);
    }
    counts
}
