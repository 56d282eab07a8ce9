//! What a trigger counts by, remembered by each backend until PostgreSQL says that the table, or a function, has changed.

use super::condition;
use crate::error::{Error, Result};
use crate::label::Use;
use crate::namespace;
use crate::relation;
use crate::role;
use crate::scan::{Key, Table};
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int};

/// Column numbers of `tenancy.protected_tables`; sql/isolation.sql keeps them.
const TABLE_NAME: i16 = 1;
const TENANT_COLUMN: i16 = 3;
const TENANT_TYPE: i16 = 4;

static PROTECTED_TABLES: Table = Table::by(c"protected_tables", c"protected_tables_pkey");

/// Triggers that a backend remembers before it forgets them all.
const REMEMBERED: usize = 1024;

/// Whose the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenant {
    /// The tenant in this column, uuid or text.
    Column { number: i16, is_uuid: bool },
    /// The tenant of the schema.
    Of([u8; 16]),
    /// Nobody's: a template's.
    Nobody,
    /// Nobody knows: the table is not protected any more.
    Unknown,
}

/// How one call of a trigger counts: plain values and what lies in the memory context of the call.
#[derive(Clone, Copy)]
pub struct Plan {
    pub tenant: Tenant,
    /// The condition's expression, or null.
    pub condition: *mut pg_sys::Node,
    /// As whom the condition is evaluated, and the `search_path`: None where PostgreSQL's own functions are all that it calls.
    pub owner: Option<(pg_sys::Oid, *const std::ffi::c_char)>,
}

/// What is remembered of a trigger.
struct Known {
    table: pg_sys::Oid,
    column: Tenant,
    condition: *mut pg_sys::Node,
    path: Option<CString>,
    memory: pg_sys::MemoryContext,
    is_valid: bool,
}

thread_local! {
    static KNOWN: RefCell<HashMap<pg_sys::Oid, Known>> = RefCell::default();
    static LISTENS: RefCell<bool> = const { RefCell::new(false) };
}

/// How the running trigger counts.
///
/// # Safety
/// The data of a trigger that runs, on an open relation.
pub unsafe fn plan(trigger: *mut pg_sys::TriggerData) -> Result<Plan> {
    listen();
    // SAFETY: the caller's promise.
    unsafe {
        let id = (*(*trigger).tg_trigger).tgoid;
        let found = KNOWN.with_borrow(|known| known.get(&id).is_some_and(|known| known.is_valid));
        if !found {
            let stale = KNOWN.with_borrow_mut(|known| known.remove(&id));
            if let Some(stale) = stale {
                forget(&stale);
            }
            // Before the look-ups: a change that comes meanwhile makes it invalid.
            let table = (*(*trigger).tg_relation).rd_id;
            make_room();
            KNOWN.with_borrow_mut(|known| known.insert(id, Known::empty(table)));
            let read = Known::read(trigger)?;
            KNOWN.with_borrow_mut(|known| {
                let is_valid = known.get(&id).is_some_and(|known| known.is_valid);
                known.insert(id, Known { is_valid, ..read });
            });
        }
        let (column, condition, path) = KNOWN.with_borrow(|known| {
            known.get(&id).map_or((Tenant::Unknown, std::ptr::null_mut(), None), |known| {
                (known.column, known.condition, known.path.as_ref().map(|path| path.as_ptr()))
            })
        });
        let relation = (*(*trigger).tg_relation).rd_rel;
        // Copied, because users' code may run while it is used, and make us forget it.
        let owner = path.map(|path| ((*relation).relowner, pg_sys::pstrdup(path).cast_const()));
        let condition = if condition.is_null() { condition } else { pg_sys::copyObjectImpl(condition.cast()).cast() };
        let tenant = match namespace::usage((*relation).relnamespace) {
            _ if column != Tenant::Unknown => column,
            Some(Use::Tenant(tenant)) => Tenant::Of(tenant),
            Some(Use::Template | Use::Moved(_)) => Tenant::Nobody,
            None if relation::is_protected((*(*trigger).tg_relation).rd_id) => {
                let table = relation::name((*(*trigger).tg_relation).rd_id);
                return Err(Error::Unprotectable(
                    format!("the tenant column of {table} is not known, so that its rows cannot be counted"),
                    "Its event triggers were disabled when it was renamed: call protect_table() again.".to_owned(),
                ));
            }
            None => Tenant::Unknown,
        };
        Ok(Plan { tenant, condition, owner })
    }
}

impl Known {
    fn empty(table: pg_sys::Oid) -> Self {
        Self {
            table,
            column: Tenant::Unknown,
            condition: std::ptr::null_mut(),
            path: None,
            memory: std::ptr::null_mut(),
            is_valid: true,
        }
    }

    /// # Safety
    /// As for [`plan`].
    unsafe fn read(trigger: *mut pg_sys::TriggerData) -> Result<Self> {
        // SAFETY: the caller's promise; the expression is copied to a memory context that is its own.
        unsafe {
            let relation = (*trigger).tg_relation;
            let mut known = Self::empty((*relation).rd_id);
            known.column = column(relation)?;
            let Some(text) = argument(trigger, 1) else { return Ok(known) };
            let (owner, schema) = ((*(*relation).rd_rel).relowner, (*(*relation).rd_rel).relnamespace);
            let path = condition::search_path(schema);
            let node = role::as_owner(owner, || {
                role::with_settings(condition::settings(&path), || condition::parse(relation, &text))
            })?;
            known.memory = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CacheMemoryContext,
                c"pg_tenancy condition".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            let before = pg_sys::MemoryContextSwitchTo(known.memory);
            known.condition = pg_sys::copyObjectImpl(node.cast()).cast();
            pg_sys::MemoryContextSwitchTo(before);
            known.path = if condition::has_users_code(node) {
                Some(CString::new(path).map_err(|_| Error::Internal("a schema's name has a zero byte".to_owned()))?)
            } else {
                None
            };
            Ok(known)
        }
    }
}

fn forget(known: &Known) {
    if !known.memory.is_null() {
        // SAFETY: nothing refers to what is remembered: calls have copies.
        unsafe { pg_sys::MemoryContextDelete(known.memory) };
    }
}

fn make_room() {
    let all =
        KNOWN.with_borrow_mut(|known| if known.len() < REMEMBERED { HashMap::new() } else { std::mem::take(known) });
    all.values().for_each(forget);
}

/// The argument of the running trigger at this place, if it has one.
///
/// # Safety
/// The data of a trigger that runs.
pub unsafe fn argument(trigger: *mut pg_sys::TriggerData, place: usize) -> Option<String> {
    // SAFETY: the caller's promise; arguments are C strings.
    unsafe {
        let trigger = (*trigger).tg_trigger;
        let is_there = place < usize::try_from((*trigger).tgnargs).unwrap_or(0);
        is_there.then(|| CStr::from_ptr(*(*trigger).tgargs.add(place)).to_string_lossy().into_owned())
    }
}

/// The column that says whose a row is.
///
/// # Safety
/// An open relation.
unsafe fn column(relation: pg_sys::Relation) -> Result<Tenant> {
    // SAFETY: the caller's promise.
    let table = unsafe { (*relation).rd_id };
    if table == super::memberships::table() {
        return Ok(Tenant::Column { number: 1, is_uuid: true });
    }
    let Some(row) = PROTECTED_TABLES.first(&[Key::oid(TABLE_NAME, table)])? else { return Ok(Tenant::Unknown) };
    let name = row.name(TENANT_COLUMN).and_then(|name| CString::new(name).ok()).unwrap_or_default();
    // SAFETY: a syscache look-up by a C string.
    let number = unsafe { pg_sys::get_attnum(table, name.as_ptr()) };
    let is_uuid = row.must::<&str>(TENANT_TYPE)? == "uuid";
    Ok(if number > 0 { Tenant::Column { number, is_uuid } } else { Tenant::Unknown })
}

/// Has PostgreSQL tell us of changes, once per backend.
fn listen() {
    if LISTENS.replace(true) {
        return;
    }
    // SAFETY: registers callbacks of the signatures that PostgreSQL asks for.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(note_table), pg_sys::Datum::null());
        let cache = pg_sys::SysCacheIdentifier::PROCOID as c_int;
        pg_sys::CacheRegisterSyscacheCallback(cache, Some(note_function), pg_sys::Datum::null());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn note_table(_argument: pg_sys::Datum, table: pg_sys::Oid) {
    invalidate(|known| table == pg_sys::InvalidOid || known.table == table);
}

#[pg_guard]
unsafe extern "C-unwind" fn note_function(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
    invalidate(|known| !known.condition.is_null());
}

fn invalidate(changed: impl Fn(&Known) -> bool) {
    KNOWN.with_borrow_mut(|known| {
        known.values_mut().filter(|known| changed(known)).for_each(|known| known.is_valid = false)
    });
}

/// The tenant that a datum of a tenant column names: None for NULL, and for a text that is no tenant.
///
/// # Safety
/// A datum of the column's type. In a frame without a boundary: an ERROR may pass.
pub unsafe fn tenant_of(datum: pg_sys::Datum, is_null: bool, is_uuid: bool) -> Option<[u8; 16]> {
    unsafe extern "C-unwind" {
        fn pg_detoast_datum_packed(datum: *mut pg_sys::varlena) -> *mut pg_sys::varlena;
    }
    if is_null {
        return None;
    }
    // SAFETY: the caller's promise: a uuid is 16 bytes; a text has a header that says its length.
    unsafe {
        if is_uuid {
            return Some(*datum.cast_mut_ptr::<[u8; 16]>());
        }
        let text = pg_detoast_datum_packed(datum.cast_mut_ptr());
        let (start, length) = (pgrx::varlena::vardata_any(text), pgrx::varlena::varsize_any_exhdr(text));
        crate::uuid::parse(std::slice::from_raw_parts(start.cast(), length))
    }
}
