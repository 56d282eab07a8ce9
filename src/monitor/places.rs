//! Counters by key: an open-addressing table of atomics that only grows, and stays as it is when a transaction rolls back.

use super::shared::Atomic;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Places that are tried before a key is counted among the others.
const PROBES: usize = 64;

const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const READY: u64 = 2;

/// The counters of one key: `KINDS` of them, with the time of the last count of each.
#[repr(C)]
pub struct Place<const WORDS: usize, const KINDS: usize> {
    state: AtomicU64,
    key: [AtomicU64; WORDS],
    numbers: [AtomicU64; KINDS],
    last: [AtomicI64; KINDS],
}

// SAFETY: atomics only.
unsafe impl<const WORDS: usize, const KINDS: usize> Atomic for Place<WORDS, KINDS> {}

/// How often, and when last in PostgreSQL's microseconds.
#[derive(Clone, Copy)]
pub struct Counted {
    pub number: u64,
    pub last: pg_sys::TimestampTz,
}

impl<const WORDS: usize, const KINDS: usize> Place<WORDS, KINDS> {
    fn add(&self, kind: usize) {
        // SAFETY: reads the clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        if let (Some(number), Some(last)) = (self.numbers.get(kind), self.last.get(kind)) {
            number.fetch_add(1, Ordering::Relaxed);
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn read(&self) -> [Counted; KINDS] {
        std::array::from_fn(|kind| Counted {
            number: self.numbers[kind].load(Ordering::Relaxed),
            last: self.last[kind].load(Ordering::Relaxed),
        })
    }

    fn key(&self) -> [u64; WORDS] {
        std::array::from_fn(|word| self.key[word].load(Ordering::Relaxed))
    }

    /// Takes this place for `key`, or tells whether it has it.
    fn is_of(&self, key: &[u64; WORDS]) -> bool {
        match self.state.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                for (place, word) in self.key.iter().zip(key) {
                    place.store(*word, Ordering::Relaxed);
                }
                self.state.store(READY, Ordering::Release);
                true
            }
            Err(_) => {
                while self.state.load(Ordering::Acquire) == CLAIMED {
                    std::hint::spin_loop();
                }
                self.key() == *key
            }
        }
    }
}

/// A table of places: one for each key, and a last one for what has no key of its own, or no room.
pub struct Places<const WORDS: usize, const KINDS: usize>(pub &'static [Place<WORDS, KINDS>]);

impl<const WORDS: usize, const KINDS: usize> Places<WORDS, KINDS> {
    pub fn count(&self, key: Option<[u64; WORDS]>, kind: usize) {
        let Some((others, own)) = self.0.split_last() else { return };
        let place = key.and_then(|key| {
            let start = key.iter().fold(0, |hash: u64, word| (hash.rotate_left(23) ^ word).wrapping_mul(HASH)) as usize;
            (0..PROBES).map(|probe| &own[start.wrapping_add(probe) % own.len()]).find(|place| place.is_of(&key))
        });
        place.unwrap_or(others).add(kind);
    }

    /// The counters of each key that has any, and of the others under None.
    pub fn counts(&self) -> impl Iterator<Item = (Option<[u64; WORDS]>, [Counted; KINDS])> + use<WORDS, KINDS> {
        let (others, own) = match self.0.split_last() {
            Some((others, own)) => (Some(others), own),
            None => (None, &[][..]),
        };
        let ready = own.iter().filter(|place| place.state.load(Ordering::Acquire) == READY);
        ready
            .map(|place| (Some(place.key()), place.read()))
            .chain(others.map(|place| (None, place.read())))
            .filter(|(_, counts)| counts.iter().any(|count| count.number > 0))
    }
}

/// An odd multiplier that spreads the bits of a key (2^64 divided by the golden ratio).
const HASH: u64 = 0x9e37_79b9_7f4a_7c15;
