//! Which backend serves which tenant, one slot per backend, written by that backend alone; and how many may serve one at once.

use super::locks::Locks;
use super::shared::{Atomic, AtomicUuid, Region, words};
use crate::backend::BackendStatic;
use crate::raw::GetCurrentStatementStartTimestamp;
use crate::version;
use pgrx::{Uuid, pg_guard, pg_sys};
use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering, fence};

/// A reader takes a slot's fields when `changes` is even and the same before and after.
#[repr(C)]
pub struct Slot {
    changes: AtomicU32,
    /// 0 while no tenant is bound.
    pid: AtomicI32,
    tenant: AtomicUuid,
    user: AtomicUuid,
    /// What of [`HAS_USER`] and [`COUNTS`] is so.
    flags: AtomicU32,
    database: AtomicU32,
    /// Where the transaction has the tenant's tables: a schema's oid, or one of [`SHARED`] and [`ELSEWHERE`].
    place: AtomicU32,
    since: AtomicI64,
}

/// The tables that tenants share.
pub const SHARED: u32 = 0;
/// Another database.
pub const ELSEWHERE: u32 = u32::MAX;

const HAS_USER: u32 = 1;
/// The transaction is one of the tenant's own, not of the product's work on it.
const COUNTS: u32 = 2;
/// The tenant is not bound any more, but the transaction goes on, and could come back to it: from a savepoint, without being bound anew.
const LEFT: u32 = 4;

impl Slot {
    fn write(&self, fields: impl FnOnce(&Self)) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        fields(self);
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn read(&self) -> Option<BoundBackend> {
        loop {
            let before = self.changes.load(Ordering::Acquire);
            let pid = self.pid.load(Ordering::Relaxed);
            let flags = self.flags.load(Ordering::Relaxed);
            let backend = BoundBackend {
                pid,
                database: self.database.load(Ordering::Relaxed),
                place: self.place.load(Ordering::Relaxed),
                counts: flags & COUNTS != 0,
                has_left: flags & LEFT != 0,
                tenant: Uuid::from_bytes(self.tenant.load()),
                user: (flags & HAS_USER != 0).then(|| Uuid::from_bytes(self.user.load())),
                since: self.since.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.changes.load(Ordering::Relaxed) == before {
                return (pid != 0).then_some(backend);
            }
            std::hint::spin_loop();
        }
    }
}

/// A backend that has a tenant bound.
pub struct BoundBackend {
    pub pid: i32,
    database: u32,
    place: u32,
    /// Whether the transaction is one of the tenant's own.
    counts: bool,
    has_left: bool,
    pub tenant: Uuid,
    pub user: Option<Uuid>,
    /// When it was bound, in PostgreSQL's microseconds.
    pub since: pg_sys::TimestampTz,
}

// SAFETY: atomics only.
unsafe impl Atomic for Slot {}

pub static SLOTS: Region<Slot> = Region::new(c"pg_tenancy activity", || {
    // SAFETY: PostgreSQL has computed MaxBackends before it asks for shared memory.
    unsafe { pg_sys::MaxBackends }.max(0) as usize
});

pub static LOCKS: Locks = Locks::new(c"pg_tenancy activity", 16);

fn own_slot() -> Option<&'static Slot> {
    SLOTS.elements().get(version::backend_slot()?)
}

/// Says that this backend serves `tenant` from now on, whose tables the transaction has at this place; `counts` when it is one of the tenant's own.
pub fn publish(tenant: &[u8; 16], user: Option<&[u8; 16]>, place: u32, counts: bool) {
    if let Some(slot) = own_slot() {
        // SAFETY: plain reads of this process's id and database.
        let (pid, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId.to_u32()) };
        let flags = if user.is_some() { HAS_USER } else { 0 } | if counts { COUNTS } else { 0 };
        slot.write(|slot| {
            slot.pid.store(pid, Ordering::Relaxed);
            slot.tenant.store(tenant);
            slot.user.store(user.unwrap_or(&[0; 16]));
            slot.flags.store(flags, Ordering::Relaxed);
            slot.database.store(database, Ordering::Relaxed);
            slot.place.store(place, Ordering::Relaxed);
            slot.since.store(GetCurrentStatementStartTimestamp(), Ordering::Relaxed);
        });
    }
}

/// Room for a transaction of a tenant that may have so many at once: given back unless it is [kept](Self::keep).
#[must_use]
pub struct Room(());

impl Room {
    /// From here on the binding gives it back.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        withdraw();
    }
}

/// Says that this backend serves `tenant` from now on, unless `most` others do; one that does already stays. Who asks at the same time waits
/// for the other, so that there are never more. A transaction that comes back to a tenant without being bound anew, from a savepoint in which
/// it was rebound, is not asked.
pub fn take_room(tenant: &[u8; 16], user: Option<&[u8; 16]>, place: u32, most: usize) -> Option<Room> {
    // SAFETY: a plain read.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let own = own_slot();
    let serves = |slot: &Slot| {
        slot.read().is_some_and(|backend| {
            backend.counts && backend.database == database && backend.tenant.as_bytes() == tenant
        })
    };
    let has_room = || {
        let others = SLOTS.elements().iter().filter(|slot| own.is_none_or(|own| !std::ptr::eq(*slot, own)));
        own.is_some_and(serves) || others.filter(|slot| serves(slot)).take(most).count() < most
    };
    let (high, low) = words(tenant);
    LOCKS.alone(high ^ low, || {
        has_room().then(|| {
            publish(tenant, user, place, true);
            Room(())
        })
    })
}

/// Says that this backend serves its tenant no more: for good when the transaction ends, until when it keeps its room.
pub fn leave() {
    // SAFETY: plain looks at the state of the transaction.
    let goes_on = unsafe { pg_sys::IsTransactionState() || pg_sys::GetCurrentTransactionNestLevel() > 1 };
    if !goes_on {
        withdraw();
    } else if let Some(slot) = own_slot()
        && slot.pid.load(Ordering::Relaxed) != 0
    {
        if !WATCHES.get() {
            // SAFETY: a static function of the signature that it asks for, registered once.
            unsafe { pg_sys::RegisterXactCallback(Some(end), std::ptr::null_mut()) };
            WATCHES.set(true);
        }
        slot.write(|slot| slot.flags.store(slot.flags.load(Ordering::Relaxed) | LEFT, Ordering::Relaxed));
    }
}

/// Whether this backend is told of the ends of its transactions.
static WATCHES: BackendStatic<bool> = BackendStatic::new(false);

/// Called before the settings of a transaction that ends are put back, and where none of them has to be.
#[pg_guard]
unsafe extern "C-unwind" fn end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        withdraw();
    }
}

/// Says that this backend serves no tenant any more.
fn withdraw() {
    if let Some(slot) = own_slot()
        && slot.pid.load(Ordering::Relaxed) != 0
    {
        slot.write(|slot| slot.pid.store(0, Ordering::Relaxed));
    }
}

/// The processes whose transactions have the tenant's tables at a place of this database, those included that have left it and may come back.
pub fn backends_at(tenant: Uuid, database: pg_sys::Oid, is_there: impl Fn(u32) -> bool) -> Vec<i32> {
    let backends = SLOTS.elements().iter().filter_map(Slot::read);
    let backends = backends.filter(|backend| backend.counts && backend.tenant == tenant);
    let backends = backends.filter(|backend| backend.database == database.to_u32() && is_there(backend.place));
    backends.map(|backend| backend.pid).collect()
}

/// All backends that serve a tenant now.
pub fn bound_backends() -> Vec<BoundBackend> {
    SLOTS.elements().iter().filter_map(Slot::read).filter(|backend| !backend.has_left).collect()
}
