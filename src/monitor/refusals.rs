//! Counters of what was refused, per tenant.

use super::places::{Place, Places};
use super::shared::{Region, uuid_of, words};
use pgrx::{Uuid, pg_sys};

/// Tenants whose refusals are counted apart; later ones are counted together.
const COUNTED_TENANTS: usize = 16_384;

#[derive(Clone, Copy)]
pub enum Refusal {
    /// A tenant was not bound: its state, an unknown id, another one bound, a bypassing role.
    Bind = 0,
    /// A row or an argument named a tenant other than the bound one.
    Mismatch = 1,
    /// A hook refused: back door, TRUNCATE, read-only tenant, holdable cursor.
    Guard = 2,
}

/// One tenant's counters; `tenant` is None for those that have no tenant of their own.
pub struct Count {
    pub tenant: Option<Uuid>,
    pub refused: [u64; 3],
    pub last: pg_sys::TimestampTz,
}

pub static COUNTERS: Region<Place<2, 3>> = Region::new(c"pg_tenancy refusals", || COUNTED_TENANTS + 1);

/// Counts a refusal for `tenant`. It stays counted when the transaction rolls back.
#[cold]
pub fn count(tenant: Option<&[u8; 16]>, refusal: Refusal) {
    let key = tenant.map(|tenant| {
        let (high, low) = words(tenant);
        [high, low]
    });
    Places(COUNTERS.elements()).count(key, refusal as usize);
}

/// The counters of every tenant that has any.
pub fn counts() -> Vec<Count> {
    Places(COUNTERS.elements())
        .counts()
        .map(|(key, counts)| Count {
            tenant: key.map(|[high, low]| Uuid::from_bytes(uuid_of(high, low))),
            refused: counts.map(|count| count.number),
            last: counts.map(|count| count.last).into_iter().max().unwrap_or_default(),
        })
        .collect()
}
