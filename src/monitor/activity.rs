//! Which backend serves which tenant, one slot per backend, written by that backend alone.

use super::shared::{Atomic, AtomicUuid, Region};
use crate::version;
use pgrx::{Uuid, pg_sys};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// A reader takes a slot's fields when `changes` is even and the same before and after.
#[repr(C)]
pub struct Slot {
    changes: AtomicU32,
    /// 0 while no tenant is bound.
    pid: AtomicI32,
    tenant: AtomicUuid,
    user: AtomicUuid,
    has_user: AtomicU64,
    since: AtomicI64,
}

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
            let backend = BoundBackend {
                pid,
                tenant: Uuid::from_bytes(self.tenant.load()),
                user: (self.has_user.load(Ordering::Relaxed) == 1).then(|| Uuid::from_bytes(self.user.load())),
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

fn own_slot() -> Option<&'static Slot> {
    SLOTS.elements().get(version::backend_slot()?)
}

/// Says that this backend serves `tenant` from now on.
pub fn publish(tenant: &[u8; 16], user: Option<&[u8; 16]>) {
    if let Some(slot) = own_slot() {
        // SAFETY: plain reads of this process's id and the start of its statement.
        let (pid, now) = unsafe { (pg_sys::MyProcPid, pg_sys::GetCurrentStatementStartTimestamp()) };
        slot.write(|slot| {
            slot.pid.store(pid, Ordering::Relaxed);
            slot.tenant.store(tenant);
            slot.user.store(user.unwrap_or(&[0; 16]));
            slot.has_user.store(user.is_some().into(), Ordering::Relaxed);
            slot.since.store(now, Ordering::Relaxed);
        });
    }
}

/// Says that this backend serves no tenant any more.
pub fn withdraw() {
    if let Some(slot) = own_slot()
        && slot.pid.load(Ordering::Relaxed) != 0
    {
        slot.write(|slot| slot.pid.store(0, Ordering::Relaxed));
    }
}

/// All backends that serve a tenant now.
pub fn bound_backends() -> Vec<BoundBackend> {
    SLOTS.elements().iter().filter_map(Slot::read).collect()
}
