//! Token buckets in shared memory, each a key and one number: the moment when it will be full again (the theoretical arrival time of the
//! generic cell rate algorithm, ITU-T I.371). One that is full is idle, and the same as none: its place can be given to another key.
//!
//! A key has its place in one small set. Whoever takes from a bucket finds it by key and raises the number by compare-and-swap, without a
//! lock. A place changes hands under its set's lock: the number is swapped for [`CHANGING`], the key replaced, the new number stored.
//!
//! What makes this exact: **the number of a place only ever grows, from key to key too.** Taking raises it; a place is given away only when
//! its number is not above now, and its next one is. So a number that was read before the key was compared, and is still there when it is
//! swapped, was that key's all along.

use super::locks::Locks;
use super::shared::{Atomic, Region};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places that a key may be in.
const SET: usize = 32;
/// Places of one set that the subjects of one tenant may have, so that one that invents them leaves the others room. It reuses its own then.
const SHARE: usize = SET / 4;
/// The number of a place that changes hands.
const CHANGING: u64 = u64::MAX;
/// Numbers stay below this; it is 292 years of nanoseconds.
const END_OF_TIME: u64 = CHANGING >> 1;

const DEFAULT_BUCKETS: i32 = 524_288;
const MIN_BUCKETS: i32 = 2_048;
const MAX_BUCKETS: i32 = 67_108_864;

static NUMBER: GucSetting<i32> = GucSetting::<i32>::new(DEFAULT_BUCKETS);

/// Which part of the table: that of tenants themselves, or that of their subjects, who can be as many as someone likes to invent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Tenants,
    Subjects,
}

impl Part {
    pub const ALL: [Self; 2] = [Self::Tenants, Self::Subjects];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::Subjects => "subjects",
        }
    }
}

/// Whose bucket, and which: hashes under the server's [`secret`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub tenant: u64,
    pub bucket: u64,
}

#[repr(C)]
pub struct Bucket {
    full_at: AtomicU64,
    tenant: AtomicU64,
    bucket: AtomicU64,
}

// SAFETY: atomics only.
unsafe impl Atomic for Bucket {}

/// What happened in a part since the server started.
#[repr(C)]
struct Counters {
    /// Places that changed hands.
    evicted: AtomicU64,
    /// Requests refused for want of a place.
    refused: AtomicU64,
}

#[repr(C)]
pub struct Head {
    secret: [AtomicU64; 2],
    counters: [Counters; 2],
}

// SAFETY: atomics only.
unsafe impl Atomic for Head {}

pub static BUCKETS: Region<Bucket> = Region::new(c"pg_tenancy rate limit buckets", || {
    let sets = usize::try_from(NUMBER.get()).unwrap_or(0) / (Part::ALL.len() * SET);
    sets * Part::ALL.len() * SET
});
pub static HEAD: Region<Head> = Region::new(c"pg_tenancy rate limits", || 1);
pub static LOCKS: Locks = Locks::new(c"pg_tenancy rate limits", 128);

pub fn define_settings() {
    GucRegistry::define_int_guc(
        c"tenancy.rate_limit_buckets",
        c"How many rate limits can be in use at once on this server.",
        c"Half of them for tenants, half for subjects within tenants; each takes 24 bytes of shared memory.",
        &NUMBER,
        MIN_BUCKETS,
        MAX_BUCKETS,
        GucContext::Postmaster,
        GucFlags::default(),
    );
}

/// A secret of this server until it restarts, so that nobody can choose names whose hashes collide.
pub fn secret() -> [u64; 2] {
    HEAD.elements().first().map_or([0; 2], |head| head.secret.each_ref().map(secret_word))
}

/// The word, made by whoever needs it first.
fn secret_word(word: &AtomicU64) -> u64 {
    let known = word.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let mut random = [0; 8];
    // SAFETY: fills the bytes; where the machine has no randomness they stay as they are.
    unsafe { pg_sys::pg_strong_random(random.as_mut_ptr().cast(), random.len()) };
    let random = u64::from_ne_bytes(random) | 1;
    word.compare_exchange(0, random, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(random)
}

/// The clock of the buckets, in nanoseconds: the same in every process of the machine, and never set back.
#[inline]
pub fn clock() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What is asked of a bucket, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Ask {
    /// How long it takes to fill up with what is to be taken.
    pub need: u64,
    /// How long it takes to fill the empty bucket; not less than `need`.
    pub room: u64,
}

/// What came of it: at which moment, and when the bucket will be full.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub now: u64,
    pub full_at: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Taken,
    /// The bucket has not enough; it will in so many nanoseconds.
    Short(u64),
    /// There is no place for the bucket; there may be one in so many nanoseconds.
    NoPlace(u64),
}

impl Ask {
    /// When a bucket that is full at `full_at` will be full after this; or how long it lacks something.
    fn after(&self, full_at: u64, now: u64) -> std::result::Result<u64, u64> {
        let after = full_at.max(now).saturating_add(self.need).min(END_OF_TIME);
        match (after - now).saturating_sub(self.room) {
            0 if after < END_OF_TIME => Ok(after),
            wait => Err(wait),
        }
    }
}

/// The places that a key may be in, from its preferred one on.
struct Set {
    places: &'static [Bucket],
    first: usize,
    /// Its number, by which it is locked.
    number: usize,
}

impl Set {
    fn of(part: Part, key: Key) -> Option<Self> {
        let all = BUCKETS.elements();
        let sets = all.len() / SET / Part::ALL.len();
        let within = ((u128::from(key.bucket) * sets as u128) >> 64) as usize;
        let number = part as usize * sets + within;
        let places = all.get(number * SET..(number + 1) * SET)?;
        Some(Self { places, first: key.bucket as usize % SET, number })
    }

    fn places(&self) -> impl Iterator<Item = &'static Bucket> + use<> {
        let (before, from) = self.places.split_at(self.first);
        from.iter().chain(before)
    }

    /// The key's bucket and its number.
    fn find(&self, key: Key) -> Option<(&'static Bucket, u64)> {
        self.places().find_map(|place| {
            let full_at = place.full_at();
            (full_at != CHANGING && place.key() == key).then_some((place, full_at))
        })
    }

    /// Gives the key a place whose bucket is idle, with its first number, which is above now; or says how long none is. Under the set's lock.
    fn insert(&self, part: Part, key: Key, now: u64, full_at: u64) -> std::result::Result<(), u64> {
        let is_own = |place: &&Bucket| place.tenant.load(Ordering::Relaxed) == key.tenant;
        // Idle ones count: they may be used again at any time.
        let has_share = part == Part::Subjects && self.places().filter(is_own).count() >= SHARE;
        let may_have = |place: &&Bucket| !has_share || is_own(place);
        for place in self.places().filter(may_have) {
            let before = place.full_at();
            // Fails when the bucket's own key has just taken from it.
            let is_given = before <= now
                && place.full_at.compare_exchange(before, CHANGING, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if is_given {
                place.tenant.store(key.tenant, Ordering::Relaxed);
                place.bucket.store(key.bucket, Ordering::Relaxed);
                place.full_at.store(full_at, Ordering::Release);
                if before != 0 {
                    count(part, |counters| &counters.evicted);
                }
                return Ok(());
            }
        }
        Err(shortest_wait(self.places().filter(may_have), now))
    }
}

/// How long until the first of these is idle.
fn shortest_wait(places: impl Iterator<Item = &'static Bucket>, now: u64) -> u64 {
    places.map(|place| place.full_at().saturating_sub(now)).min().unwrap_or(0)
}

impl Bucket {
    fn full_at(&self) -> u64 {
        self.full_at.load(Ordering::Acquire)
    }

    fn key(&self) -> Key {
        Key { tenant: self.tenant.load(Ordering::Relaxed), bucket: self.bucket.load(Ordering::Relaxed) }
    }
}

fn count(part: Part, which: fn(&Counters) -> &AtomicU64) {
    if let Some(head) = HEAD.elements().first() {
        which(&head.counters[part as usize]).fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes from the key's bucket if that has enough. Takes nothing, and says what there is, when nothing is needed.
pub fn take(part: Part, key: Key, ask: &Ask) -> Answer {
    let now = clock();
    let Some(set) = Set::of(part, key) else { return Answer { now, full_at: now, outcome: Outcome::NoPlace(0) } };
    loop {
        let Some((place, before)) = set.find(key) else {
            match take_first(&set, part, key, ask) {
                Some(answer) => return answer,
                None => continue,
            }
        };
        let after = match ask.after(before, now) {
            Ok(after) => after,
            Err(wait) => return Answer { now, full_at: before, outcome: Outcome::Short(wait) },
        };
        let is_done =
            ask.need == 0 || place.full_at.compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if is_done {
            return Answer { now, full_at: after, outcome: Outcome::Taken };
        }
    }
}

/// Takes from a bucket that was not found, so that it is full; None when another session has made it meanwhile. Reads the clock anew: at an
/// earlier moment the bucket may have had a place, and not been full.
#[cold]
fn take_first(set: &Set, part: Part, key: Key, ask: &Ask) -> Option<Answer> {
    LOCKS.alone(set.number as u64, || {
        if set.find(key).is_some() {
            return None;
        }
        let now = clock();
        let (full_at, outcome) = match ask.after(0, now) {
            Err(wait) => (now, Outcome::Short(wait)),
            Ok(after) if ask.need == 0 => (after, Outcome::Taken),
            Ok(after) => match set.insert(part, key, now, after) {
                Ok(()) => (after, Outcome::Taken),
                Err(wait) => {
                    count(part, |counters| &counters.refused);
                    (now, Outcome::NoPlace(wait))
                }
            },
        };
        Some(Answer { now, full_at, outcome })
    })
}

/// What a part of the table holds.
pub struct Status {
    pub part: Part,
    pub buckets: usize,
    /// Not full at the moment.
    pub busy: usize,
    pub evicted: u64,
    pub refused: u64,
}

/// What both parts hold now.
pub fn status() -> Vec<Status> {
    let now = clock();
    let all = BUCKETS.elements();
    let Some(head) = HEAD.elements().first() else { return Vec::new() };
    Part::ALL
        .into_iter()
        .zip(all.chunks(all.len() / Part::ALL.len()))
        .map(|(part, buckets)| {
            let counters = &head.counters[part as usize];
            Status {
                part,
                buckets: buckets.len(),
                busy: buckets.iter().filter(|bucket| bucket.full_at.load(Ordering::Relaxed) > now).count(),
                evicted: counters.evicted.load(Ordering::Relaxed),
                refused: counters.refused.load(Ordering::Relaxed),
            }
        })
        .collect()
}
