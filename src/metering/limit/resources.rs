//! The resources that tables are limited by, each with a version: counters of an older one are void.
//!
//! Which tables count a resource is in their triggers. This is what a backend has to know at every write, and remembers.

use crate::changes;
use crate::error::{Error, Result};
use crate::guard::lock::{Mode, Subject};
use crate::raw::fallible_function;
use crate::scan::{Key, Table};
use crate::store;
use pgrx::{FromDatum, IntoDatum, pg_sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Column numbers of `tenancy.limited_resources`; sql/metering/limit.sql keeps them.
const RESOURCE: i16 = 1;
const VERSION: i16 = 2;
const IS_COUNTED: i16 = 3;

/// Resources that tables can be limited by in a database.
const MAX_RESOURCES: usize = 100;

static LIMITED_RESOURCES: Table = Table::by(c"limited_resources", c"limited_resources_pkey");

/// What is remembered of them.
#[derive(Default)]
struct Known {
    generation: u64,
    counted: Rc<[String]>,
    versions: HashMap<String, i64>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

fn read() -> Result<Known> {
    let generation = changes::generation();
    let (rows, announced) = LIMITED_RESOURCES.all_and_announced::<MAX_RESOURCES>(&[])?;
    let versions = rows.iter().map(|row| Ok((row.must(RESOURCE)?, row.must(VERSION)?))).collect::<Result<_>>()?;
    let counted = rows.iter().filter(|row| row.get(IS_COUNTED) == Some(true));
    let counted: Vec<String> = counted.map(|row| row.must(RESOURCE)).collect::<Result<_>>()?;
    let is_lasting = announced && changes::generation() == generation;
    Ok(Known { generation: if is_lasting { generation } else { 0 }, counted: counted.into(), versions })
}

fn with<T>(look: impl FnOnce(&Known) -> T) -> Result<T> {
    let generation = changes::generation();
    if KNOWN.with_borrow(|known| known.generation != generation) {
        let known = read()?;
        KNOWN.set(known);
    }
    Ok(KNOWN.with_borrow(look))
}

/// The resources that some table is limited by.
pub fn counted() -> Result<Rc<[String]>> {
    with(|known| Rc::clone(&known.counted))
}

/// The version of a resource now, as of the latest commit and the caller's own changes.
pub fn version(resource: &str) -> Result<i64> {
    with(|known| known.versions.get(resource).copied().unwrap_or(0))
}

/// Gives a resource a new version: every counter of it is void when this transaction has committed, and for itself now.
pub fn renew(resource: &str) -> Result<()> {
    put(resource, None)
}

/// The same for one that tables are limited by from now on, or are no more.
pub fn renew_as(resource: &str, is_counted: bool) -> Result<()> {
    put(resource, Some(is_counted))
}

fn put(resource: &str, is_counted: Option<bool>) -> Result<()> {
    step(resource).lock(Mode::Exclusive);
    let found = LIMITED_RESOURCES.last(&[Key::text(RESOURCE, resource)?])?;
    if found.is_none() && LIMITED_RESOURCES.all::<MAX_RESOURCES>(&[], |_| true)?.len() >= MAX_RESOURCES {
        return Err(Error::State(format!("{MAX_RESOURCES} resources have been counted in tables already"), ""));
    }
    let (version, was_counted) = match &found {
        Some((row, _)) => (row.must::<i64>(VERSION)? + 1, row.must(IS_COUNTED)?),
        None => (1, true),
    };
    let values = [resource.into_datum(), version.into_datum(), is_counted.unwrap_or(was_counted).into_datum()];
    match found {
        Some((_, place)) => store::update(&LIMITED_RESOURCES, place, values)?,
        None => store::insert(&LIMITED_RESOURCES, values)?,
    }
    announce()
}

fallible_function! {
    /// Takes over a resource that comes from a dump, where a trigger that counts it may have come first.
    pg_tenancy_keep_resource, pg_finfo_pg_tenancy_keep_resource, keep
}

/// # Safety
/// `fcinfo` is the record of the running call.
unsafe fn keep(fcinfo: pg_sys::FunctionCallInfo) -> Result<pg_sys::Datum> {
    // SAFETY: a trigger is called with a TriggerData; one before an INSERT gives the row that is to be inserted. No row instead of it leaves it
    // out.
    unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            return Err(Error::Unsupported("tenancy.keep_resource() is a trigger".to_owned()));
        }
        let trigger = context.cast::<pg_sys::TriggerData>();
        let row = (*trigger).tg_trigtuple;
        let mut is_null = false;
        let resource = pg_sys::heap_getattr(row, RESOURCE.into(), (*(*trigger).tg_relation).rd_att, &mut is_null);
        let resource = String::from_datum(resource, is_null).unwrap_or_default();
        step(&resource).lock(Mode::Exclusive);
        if LIMITED_RESOURCES.last(&[Key::text(RESOURCE, &resource)?])?.is_none() {
            return Ok(pg_sys::Datum::from(row));
        }
        renew(&resource)?;
    }
    Ok(pg_sys::Datum::null())
}

fn step(resource: &str) -> Subject {
    Subject::step(&format!("limit {resource}"))
}

/// Every backend hears of it when this transaction commits, our own now.
fn announce() -> Result<()> {
    let generation = changes::generation();
    // SAFETY: the table's oid; the message is sent with the commit, and taken in by this backend at once.
    let announced = unsafe {
        LIMITED_RESOURCES.look_up(generation).map(|(table, _)| {
            pg_sys::CacheInvalidateRelcacheByRelid(table);
            pg_sys::CommandCounterIncrement();
        })
    };
    announced.ok_or_else(|| Error::Internal("schema tenancy is not complete".to_owned()))
}
