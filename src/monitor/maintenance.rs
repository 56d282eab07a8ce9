//! What the launcher of background workers and everyone else tell each other.

use super::shared::{Atomic, Region};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// Visits of databases that can be under way at once.
pub const VISITS: usize = 64;
/// Databases that can have announced a use between two looks of the launcher; more, and all are taken to have.
const ANNOUNCED: usize = 1024;
/// Places of those that are tried.
const PROBES: usize = 8;

/// The oid of a database, 0 for none.
#[repr(C)]
pub struct Database(AtomicU32);

// SAFETY: an atomic only.
unsafe impl Atomic for Database {}

/// What a visit reports.
#[repr(C)]
pub struct Visit {
    /// 0 until it has ended well.
    outcome: AtomicU32,
    /// Milliseconds until the next one is due.
    next_ms: AtomicU64,
}

// SAFETY: atomics only.
unsafe impl Atomic for Visit {}

/// The process that starts the others.
#[repr(C)]
pub struct Launcher {
    /// 0 while none runs.
    pid: AtomicI32,
    /// 1 when more databases were announced than there is room for.
    all_announced: AtomicU32,
}

// SAFETY: atomics only.
unsafe impl Atomic for Launcher {}

static DATABASES: Region<Database> = Region::new(c"pg_tenancy announced databases", || ANNOUNCED);
static REPORTS: Region<Visit> = Region::new(c"pg_tenancy visits", || VISITS);
static LAUNCHER: Region<Launcher> = Region::new(c"pg_tenancy launcher", || 1);

pub fn request() {
    DATABASES.request();
    REPORTS.request();
    LAUNCHER.request();
}

pub fn attach() {
    DATABASES.attach();
    REPORTS.attach();
    LAUNCHER.attach();
}

/// Says that there is something to do in this database: a worker comes soon. Costs a read of shared memory where it has been said before.
pub fn announce() {
    // SAFETY: a plain read.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let places = DATABASES.elements();
    if places.is_empty() || database == 0 {
        return;
    }
    for probe in 0..PROBES {
        let place = &places[(database as usize).wrapping_add(probe) % places.len()].0;
        let found = place.load(Ordering::Relaxed);
        if found == database {
            return;
        }
        if found == 0 {
            match place.compare_exchange(0, database, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) if other == database => return,
                Err(_) => {}
            }
        }
    }
    if let Some(launcher) = LAUNCHER.elements().first() {
        launcher.all_announced.store(1, Ordering::Release);
    }
}

/// The databases in which there is something to do.
pub enum Announced {
    These(Vec<pg_sys::Oid>),
    All,
}

/// What was announced since this was asked last; for the launcher.
pub fn announced() -> Announced {
    let all =
        LAUNCHER.elements().first().is_some_and(|launcher| launcher.all_announced.swap(0, Ordering::Acquire) == 1);
    let these = DATABASES.elements().iter().filter(|place| place.0.load(Ordering::Relaxed) != 0);
    let these = these.map(|place| place.0.swap(0, Ordering::Acquire)).filter(|oid| *oid != 0).map(pg_sys::Oid::from);
    let these = these.collect();
    if all { Announced::All } else { Announced::These(these) }
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It did not say.
    Nothing,
    /// The database has not the extension.
    NoExtension,
    /// The next one is due in so many milliseconds.
    NextIn(u64),
}

/// Where the visit of this number reports.
pub fn visit(number: usize) -> Option<&'static Visit> {
    REPORTS.elements().get(number)
}

impl Visit {
    pub fn begin(&self) {
        self.outcome.store(0, Ordering::Release);
    }

    pub fn end(&self, report: Report) {
        let (outcome, next) = match report {
            Report::Nothing => (0, 0),
            Report::NoExtension => (1, 0),
            Report::NextIn(milliseconds) => (2, milliseconds),
        };
        self.next_ms.store(next, Ordering::Relaxed);
        self.outcome.store(outcome, Ordering::Release);
    }

    pub fn report(&self) -> Report {
        match self.outcome.load(Ordering::Acquire) {
            1 => Report::NoExtension,
            2 => Report::NextIn(self.next_ms.load(Ordering::Relaxed)),
            _ => Report::Nothing,
        }
    }
}

/// Says that this process is the launcher, or, with 0, that there is none.
pub fn set_launcher(pid: i32) {
    if let Some(launcher) = LAUNCHER.elements().first() {
        launcher.pid.store(pid, Ordering::Relaxed);
    }
}

/// The launcher's process, if it runs.
pub fn launcher() -> Option<i32> {
    LAUNCHER.elements().first().map(|launcher| launcher.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
}
