//! Which keys were marked as used in the last minute, so that marking one costs a write at most once a minute, in all sessions together.

use super::shared::{Atomic, Region};
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys that are remembered; two that share a place take turns.
const REMEMBERED: usize = 8_192;
const MINUTE: i64 = 60_000_000;

/// The minute in the upper half, a part of the key's id in the lower.
#[repr(C)]
pub struct Touch(AtomicU64);

// SAFETY: an atomic only.
unsafe impl Atomic for Touch {}

pub static TOUCHES: Region<Touch> = Region::new(c"pg_tenancy touches", || REMEMBERED);

/// Whether the key is to be marked now, at `now` in PostgreSQL's microseconds; then the caller does it, and nobody else for a minute.
pub fn is_due(key: &[u8; 16], now: i64) -> bool {
    let number = u128::from_be_bytes(*key);
    let places = TOUCHES.elements();
    let Some(Touch(place)) = places.get((number as usize) % places.len().max(1)) else { return true };
    let mark = (((now / MINUTE) as u64) << 32) | (number >> 96) as u64 & 0xffff_ffff;
    let before = place.load(Ordering::Relaxed);
    before != mark && place.compare_exchange(before, mark, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}
