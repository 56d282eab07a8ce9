//! Writing rows of the product's own tables without SPI: at once, whatever snapshot the transaction has, and at the cost of the row and its index
//! entries alone. Such a table has plain indexes; its triggers and constraints (but for unique ones) are not looked at.
//!
//! What is written is seen by the reads that follow in the same command. Whoever changes a row holds a lock that keeps others from it.

use crate::changes;
use crate::error::{Error, Result};
use crate::scan::Table;
use pgrx::pg_sys;
use std::ffi::CStr;

/// PostgreSQL's functions as they are: each function below runs whole inside one boundary.
mod unguarded {
    use pgrx::pg_sys::*;
    use std::ffi::c_char;

    unsafe extern "C-unwind" {
        pub fn table_open(relation: Oid, mode: LOCKMODE) -> Relation;
        pub fn table_close(relation: Relation, mode: LOCKMODE);
        pub fn heap_form_tuple(descriptor: TupleDesc, values: *const Datum, nulls: *const bool) -> HeapTuple;
        pub fn heap_freetuple(tuple: HeapTuple);
        pub fn CatalogTupleInsert(relation: Relation, tuple: HeapTuple);
        pub fn CatalogTupleUpdate(relation: Relation, place: ItemPointer, tuple: HeapTuple);
        pub fn CatalogTupleDelete(relation: Relation, place: ItemPointer);
        pub fn CommandCounterIncrement();
        pub fn PreventCommandIfReadOnly(name: *const c_char);
        pub fn PreventCommandDuringRecovery(name: *const c_char);
        pub fn PreventCommandIfParallelMode(name: *const c_char);
    }
}

/// Where a row is.
pub type Place = pg_sys::ItemPointerData;

fn missing() -> Error {
    Error::Internal("schema tenancy is not complete".to_owned())
}

/// Fails in a transaction that may not write, as PostgreSQL's own writes do: 25006, naming the function.
pub fn refuse_if_read_only(function: &'static CStr) {
    // SAFETY: raises, or does nothing; the name is a C string.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            unguarded::PreventCommandIfReadOnly(function.as_ptr());
            unguarded::PreventCommandDuringRecovery(function.as_ptr());
            unguarded::PreventCommandIfParallelMode(function.as_ptr());
        });
    }
}

/// What is done to a row.
enum Change {
    Insert,
    Update(Place),
    Delete(Place),
}

/// Adds a row: the columns in their order, each a datum of its type or NULL.
pub fn insert<const COLUMNS: usize>(table: &Table, values: [Option<pg_sys::Datum>; COLUMNS]) -> Result<()> {
    change(table, Change::Insert, values)
}

/// Puts other values in the row that is there. The caller has kept others from changing it since it was read.
pub fn update<const COLUMNS: usize>(
    table: &Table,
    place: Place,
    values: [Option<pg_sys::Datum>; COLUMNS],
) -> Result<()> {
    change(table, Change::Update(place), values)
}

/// Removes the row that is there. The caller has kept others from changing it since it was read.
pub fn delete(table: &Table, place: Place) -> Result<()> {
    change(table, Change::Delete(place), [])
}

fn change<const COLUMNS: usize>(table: &Table, change: Change, values: [Option<pg_sys::Datum>; COLUMNS]) -> Result<()> {
    let generation = changes::generation();
    let nulls = values.map(|value| value.is_none());
    let values = values.map(|value| value.unwrap_or(pg_sys::Datum::null()));
    // SAFETY: nothing in here has a destructor, so an ERROR may leave it anywhere; the table is one of ours, with these columns, and its lock is
    // kept until the transaction ends.
    let done = unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            use unguarded::*;
            let (oid, _) = table.look_up(generation)?;
            let relation = table_open(oid, pg_sys::RowExclusiveLock as _);
            if !matches!(change, Change::Delete(_)) && (*(*relation).rd_att).natts as usize != COLUMNS {
                table_close(relation, pg_sys::NoLock as _);
                return None;
            }
            let form = || heap_form_tuple((*relation).rd_att, values.as_ptr(), nulls.as_ptr());
            match change {
                Change::Insert => {
                    let tuple = form();
                    CatalogTupleInsert(relation, tuple);
                    heap_freetuple(tuple);
                }
                Change::Update(mut place) => {
                    let tuple = form();
                    CatalogTupleUpdate(relation, &mut place, tuple);
                    heap_freetuple(tuple);
                }
                Change::Delete(mut place) => CatalogTupleDelete(relation, &mut place),
            }
            table_close(relation, pg_sys::NoLock as _);
            CommandCounterIncrement();
            Some(())
        })
    };
    done.ok_or_else(missing)
}
