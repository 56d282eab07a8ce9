//! What a backend may go on believing of tables that it has read.
//!
//! PostgreSQL tells every backend when a relation's definition changes; a trigger makes it tell of a row's change as well. Whoever keeps something
//! that was read keeps the [`generation`] with it, and believes it no longer than that lasts.

use crate::backend::BackendStatic;
use crate::error::{Error, Result};
use crate::raw::fallible_function;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::thread::LocalKey;

/// Tables that are watched for changes of their definition, or of what someone has read of them and kept.
const MAX_WATCHED: usize = 32;

/// Counts what has happened to watched tables; 0 before anything is watched. Whoever keeps something that was read keeps the number with it.
static GENERATION: BackendStatic<u64> = BackendStatic::new(0);
static WATCHED: BackendStatic<[pg_sys::Oid; MAX_WATCHED]> = BackendStatic::new([pg_sys::InvalidOid; MAX_WATCHED]);

/// Adds a table to those that are watched; false when there is no room.
pub fn watch(table: pg_sys::Oid) -> bool {
    let mut watched = WATCHED.get();
    let place = watched.iter_mut().find(|known| **known == table || **known == pg_sys::InvalidOid);
    let has_place = place.map(|place| *place = table).is_some();
    WATCHED.set(watched);
    has_place
}

/// The generation now, after everything that other sessions have committed until now is taken note of. What was read in one generation is
/// true for as long as that lasts, provided that the changes of its table are announced ([`announces`]).
pub fn generation() -> u64 {
    // SAFETY: registers a callback once per backend, of the signature that it asks for, and takes in the pending messages.
    unsafe {
        if GENERATION.get() == 0 {
            pg_sys::CacheRegisterRelcacheCallback(Some(note_change), pg_sys::Datum::null());
            GENERATION.set(1);
        }
        pg_sys::AcceptInvalidationMessages();
    }
    GENERATION.get()
}

/// What a backend remembers of rows that it has read, by the id of whom they are of and a name, as long as a generation lasts.
pub struct Remembered<V> {
    generation: u64,
    owners: HashMap<[u8; 16], HashMap<Box<str>, V>>,
    number: usize,
}

/// Values that are remembered before all are forgotten.
const MAX_REMEMBERED: usize = 4096;

impl<V> Default for Remembered<V> {
    fn default() -> Self {
        Self { generation: 0, owners: HashMap::new(), number: 0 }
    }
}

impl<V: Clone> Remembered<V> {
    /// The value that is remembered, or else what `read` gives, which says as well whether every change of it is announced.
    pub fn find(
        memory: &'static LocalKey<RefCell<Self>>,
        owner: &[u8; 16],
        name: &str,
        read: impl FnOnce() -> Result<(V, bool)>,
    ) -> Result<V> {
        let generation = generation();
        let known = memory.with_borrow(|memory| {
            if memory.generation == generation { memory.owners.get(owner)?.get(name).cloned() } else { None }
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let (value, is_announced) = read()?;
        if is_announced && self::generation() == generation {
            memory.with_borrow_mut(|memory| {
                if memory.generation != generation || memory.number >= MAX_REMEMBERED {
                    *memory = Self { generation, ..Self::default() };
                }
                memory.owners.entry(*owner).or_default().insert(name.into(), value.clone());
                memory.number += 1;
            });
        }
        Ok(value)
    }
}

/// Called for each relation that was changed, by another session or our own; 0 stands for all.
#[pg_guard]
unsafe extern "C-unwind" fn note_change(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid || WATCHED.get().contains(&relation) {
        GENERATION.set(GENERATION.get() + 1);
        WATCHED.set([pg_sys::InvalidOid; MAX_WATCHED]);
    }
}

/// Whether a table's triggers announce every change, of logical replication too. A restore of data alone may have left less.
///
/// # Safety
/// The description of an open relation's triggers, or null.
pub unsafe fn announces(triggers: *const pg_sys::TriggerDesc) -> bool {
    // SAFETY: the caller's promise; a trigger's name is a C string.
    unsafe {
        !triggers.is_null()
            && (0..(*triggers).numtriggers as usize).map(|index| &*(*triggers).triggers.add(index)).any(|trigger| {
                trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
                    && CStr::from_ptr(trigger.tgname) == c"announce_change"
            })
    }
}

fallible_function! {
    /// The trigger of a table whose rows are kept by those who read them: says that one has changed.
    pg_tenancy_announce_change, pg_finfo_pg_tenancy_announce_change, announce
}

/// Every session hears of it when this transaction commits, before its locks are released; our own at the next command, and again when it is
/// undone.
///
/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn announce(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: a trigger is called with a TriggerData.
    unsafe {
        let trigger = (*fcinfo).context;
        if trigger.is_null() || (*trigger).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(Error::Unsupported("tenancy.announce_change() is a trigger".to_owned()));
        }
        pg_sys::CacheInvalidateRelcache((*trigger.cast::<pg_sys::TriggerData>()).tg_relation);
    }
    Ok(pg_sys::Datum::null())
}
