//! How a statement changed the number of rows, by tenant: in PostgreSQL's memory, because an ERROR of users' code may end the sum anywhere.

use pgrx::pg_sys;

/// Tenants there is room for at first.
const ROOM: usize = 8;

#[derive(Clone, Copy)]
struct Entry {
    tenant: [u8; 16],
    change: i64,
    is_taken: bool,
}

/// A hash table with open addressing, which goes with the memory context that was current when it was made.
#[derive(Clone, Copy)]
pub struct Totals {
    entries: *mut Entry,
    /// A power of two.
    room: usize,
    taken: usize,
}

/// # Safety
/// Allocates in the current memory context, unguarded.
unsafe fn allocate(room: usize) -> *mut Entry {
    unsafe extern "C-unwind" {
        fn palloc0(size: usize) -> *mut std::ffi::c_void;
    }
    // SAFETY: the caller's promise; zeroes are an entry that is not taken.
    unsafe { palloc0(room * size_of::<Entry>()).cast() }
}

impl Totals {
    /// # Safety
    /// The current memory context outlives the table.
    pub unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        Self { entries: unsafe { allocate(ROOM) }, room: ROOM, taken: 0 }
    }

    /// Adds to the change of a tenant.
    ///
    /// # Safety
    /// The memory context of [`Self::new`] is current.
    pub unsafe fn add(&mut self, tenant: &[u8; 16], change: i64) {
        // SAFETY: the caller's promise; places are within the room, and one is always free.
        unsafe {
            let entry = self.place(tenant);
            if (*entry).is_taken {
                (*entry).change += change;
                return;
            }
            *entry = Entry { tenant: *tenant, change, is_taken: true };
            self.taken += 1;
            if self.taken * 2 > self.room {
                self.grow();
            }
        }
    }

    /// # Safety
    /// As for [`Self::add`].
    unsafe fn grow(&mut self) {
        // SAFETY: the caller's promise; every old entry is copied.
        unsafe {
            let (old, room) = (self.entries, self.room);
            (self.entries, self.room) = (allocate(room * 2), room * 2);
            for index in 0..room {
                let entry = old.add(index);
                if (*entry).is_taken {
                    *self.place(&(*entry).tenant) = *entry;
                }
            }
            pg_sys::pfree(old.cast());
        }
    }

    /// Where the tenant is, or would be.
    ///
    /// # Safety
    /// The table's memory is there.
    unsafe fn place(&self, tenant: &[u8; 16]) -> *mut Entry {
        let number = u128::from_ne_bytes(*tenant);
        let hash = ((number >> 64) as u64 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let mut index = hash as usize & (self.room - 1);
        // SAFETY: the caller's promise; the index stays below the room, and at most half of it is taken.
        unsafe {
            while (*self.entries.add(index)).is_taken && (*self.entries.add(index)).tenant != *tenant {
                index = (index + 1) & (self.room - 1);
            }
            self.entries.add(index)
        }
    }

    /// The changes, by tenant in the order of their ids.
    ///
    /// # Safety
    /// The table's memory is there.
    pub unsafe fn sorted(&self) -> Vec<([u8; 16], i64)> {
        // SAFETY: the caller's promise.
        let entries = (0..self.room).map(|index| unsafe { *self.entries.add(index) });
        let mut changes: Vec<_> =
            entries.filter(|entry| entry.is_taken).map(|entry| (entry.tenant, entry.change)).collect();
        changes.sort_unstable();
        changes
    }
}
