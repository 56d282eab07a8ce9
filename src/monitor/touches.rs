//! Which keys were marked as used in the last minute, so that marking one costs a write at most once a minute, in all sessions together.

use super::shared::{Atomic, Region};
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys that are remembered. One has its place in a small set; where more keys of a set are in use in one minute than it has places, they
/// are marked more often.
const REMEMBERED: usize = 65_536;
const SET: usize = 8;
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
    let id = (number >> 96) as u32;
    let mark = ((now / MINUTE) as u64) << 32 | u64::from(id);
    let start = number as usize % (REMEMBERED / SET) * SET;
    let Some(set) = TOUCHES.elements().get(start..start + SET) else { return true };
    let values: [u64; SET] = std::array::from_fn(|place| set[place].0.load(Ordering::Relaxed));
    if values.contains(&mark) {
        return false;
    }
    // Its own place of an earlier minute, or the one that was not used for longest.
    let own = values.iter().position(|value| *value as u32 == id && *value != 0);
    let oldest = (0..SET).min_by_key(|place| values[*place] >> 32);
    let Some(place) = own.or(oldest) else { return true };
    set[place].0.compare_exchange(values[place], mark, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}
