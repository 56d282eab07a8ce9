//! The one way to run SQL from Rust. Every query is a `const`; its plan is prepared once per backend and kept.

use crate::error::{Error, Result};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiHeapTupleData};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

thread_local! {
    static ACTIVE_PLANS: RefCell<HashMap<&'static str, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
    static PLANS: RefCell<HashMap<&'static str, &'static OwnedPreparedStatement>> = RefCell::new(HashMap::new());
}

/// The kept plan of `sql`. Plans live as long as the backend: there are as many as there are constants.
fn plan(sql: &'static str, args: &[DatumWithOid]) -> Result<&'static OwnedPreparedStatement> {
    if let Some(plan) = PLANS.with(|plans| plans.borrow().get(sql).copied()) {
        return Ok(plan);
    }
    let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
    let plan: &'static OwnedPreparedStatement =
        Spi::connect(|client| Ok::<_, Error>(Box::leak(Box::new(client.prepare(sql, &types)?.keep()))))?;
    PLANS.with(|plans| plans.borrow_mut().insert(sql, plan));
    Ok(plan)
}

/// Reads: runs `sql` and maps each row. Takes no transaction id, so it works on a standby.
pub fn rows<T>(sql: &'static str, args: &[DatumWithOid], map: impl Fn(&Row) -> Result<T>) -> Result<Vec<T>> {
    let plan = plan(sql, args)?;
    Spi::connect(|client| client.select(plan, None, args)?.map(|tuple| map(&Row(tuple))).collect())
}

/// Fails where a snapshot from before our locks would hide rows that were committed while we waited for them.
pub fn refuse_old_snapshot(what: &str) -> Result<()> {
    // SAFETY: a plain read.
    if unsafe { pg_sys::XactIsoLevel } > pg_sys::XACT_READ_COMMITTED as i32 {
        return Err(Error::State(
            format!("{what} in a transaction of this isolation level"),
            "Use READ COMMITTED: the rows must be seen as they are once they are locked.",
        ));
    }
    Ok(())
}

/// Fails on a standby as PostgreSQL's own writes do.
fn refuse_during_recovery() {
    // SAFETY: raises 25006 during recovery; the name is a constant C string.
    unsafe { pg_sys::PreventCommandDuringRecovery(c"this function".as_ptr()) }
}

/// Like [`rows`], with a snapshot of its own: sees what was committed while we waited for a lock.
pub fn current_rows<T>(sql: &'static str, args: &[DatumWithOid], map: impl Fn(&Row) -> Result<T>) -> Result<Vec<T>> {
    let plan = plan(sql, args)?;
    refuse_during_recovery();
    Spi::connect_mut(|client| client.update(plan, None, args)?.map(|tuple| map(&Row(tuple))).collect())
}

/// Runs `work`, whose reads see what is committed now, and what this transaction has done: on a standby, too.
pub fn as_of_now<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the commands of this transaction so far become visible; the snapshot is popped when `work` is done, or by PostgreSQL after an ERROR.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
    }
    let result = work();
    // SAFETY: pops what was pushed.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// The arguments of a statement as SPI takes them.
struct Arguments {
    types: Vec<pg_sys::Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<u8>,
}

impl Arguments {
    fn new(args: &[DatumWithOid]) -> Self {
        Self {
            types: args.iter().map(DatumWithOid::oid).collect(),
            values: args
                .iter()
                .map(|arg| arg.datum().map_or(pg_sys::Datum::null(), |datum| datum.sans_lifetime()))
                .collect(),
            nulls: args.iter().map(|arg| if arg.datum().is_some() { b' ' } else { b'n' }).collect(),
        }
    }
}

/// The rows of the query that SPI has just run.
fn results<T>(done: i32, map: impl Fn(&Row) -> Result<T>) -> Result<Vec<T>> {
    // SAFETY: what the query has left, until SPI is left.
    let (table, rows) = unsafe { (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize) };
    if done != pg_sys::SPI_OK_SELECT as i32 || table.is_null() {
        return Err(Error::Internal(format!("SPI: a query gave {done}")));
    }
    (0..rows)
        .map(|index| {
            // SAFETY: there are so many rows.
            let tuple = unsafe { SpiHeapTupleData::new((*table).tupdesc, *(*table).vals.add(index)) }?;
            map(&Row(tuple.ok_or_else(|| Error::Internal("SPI: no row".to_owned()))?))
        })
        .collect()
}

fn c_text(sql: &str) -> Result<CString> {
    CString::new(sql).map_err(|_| Error::Internal("a query has a zero byte".to_owned()))
}

/// Reads with the snapshot that is active: inside [`as_of_now`] what is committed now, whatever the transaction has written and at any
/// isolation level ([`rows`] has the transaction's own snapshot there, once it has written).
pub fn active_rows<T>(sql: &'static str, args: &[DatumWithOid], map: impl Fn(&Row) -> Result<T>) -> Result<Vec<T>> {
    let text = c_text(sql)?;
    let mut arguments = Arguments::new(args);
    Spi::connect(|_| {
        // SAFETY: connected; the plan is kept for the life of the backend. A read-only statement uses the snapshot that is active.
        let done = unsafe {
            let mut plan = ACTIVE_PLANS.with_borrow(|plans| plans.get(sql).copied()).unwrap_or(std::ptr::null_mut());
            if plan.is_null() {
                plan = pg_sys::SPI_prepare(text.as_ptr(), args.len() as i32, arguments.types.as_mut_ptr());
                if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                    return Err(Error::Internal("SPI: a query was not prepared".to_owned()));
                }
                ACTIVE_PLANS.with_borrow_mut(|plans| plans.insert(sql, plan));
            }
            pg_sys::SPI_execute_plan(plan, arguments.values.as_mut_ptr(), arguments.nulls.as_ptr().cast(), true, 0)
        };
        results(done, map)
    })
}

/// Reads by a statement that names objects, with the snapshot that is active.
pub fn active_statement<T>(sql: &str, args: &[DatumWithOid], map: impl Fn(&Row) -> Result<T>) -> Result<Vec<T>> {
    let text = c_text(sql)?;
    let mut arguments = Arguments::new(args);
    Spi::connect(|_| {
        // SAFETY: connected; a read-only statement uses the snapshot that is active.
        let done = unsafe {
            pg_sys::SPI_execute_with_args(
                text.as_ptr(),
                args.len() as i32,
                arguments.types.as_mut_ptr(),
                arguments.values.as_mut_ptr(),
                arguments.nulls.as_ptr().cast(),
                true,
                0,
            )
        };
        results(done, map)
    })
}

/// Memory that is given back between batches.
struct BatchMemory(pg_sys::MemoryContext);

impl BatchMemory {
    fn new() -> Self {
        // SAFETY: a context below the one in use, with the sizes that PostgreSQL calls default.
        Self(unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                c"pg_tenancy batch".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Runs `work`, whose result keeps nothing of what it takes from PostgreSQL.
    fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives as long as this; an ERROR leaves it to the transaction's end.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.0);
            let result = work();
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::MemoryContextReset(self.0);
            result
        }
    }
}

/// Reads by a statement that names objects, with the snapshot that is active, a batch at a time: no more than that is in memory.
pub fn active_batches<T>(
    sql: &str,
    args: &[DatumWithOid],
    size: i64,
    map: impl Fn(&Row) -> Result<T>,
    mut each: impl FnMut(Vec<T>) -> Result<()>,
) -> Result<()> {
    let text = c_text(sql)?;
    let mut arguments = Arguments::new(args);
    Spi::connect(|_| {
        let memory = BatchMemory::new();
        // SAFETY: connected; a read-only cursor uses the snapshot that is active, and is closed below or with the transaction on an ERROR.
        unsafe {
            let cursor = pg_sys::SPI_cursor_open_with_args(
                std::ptr::null(),
                text.as_ptr(),
                args.len() as i32,
                arguments.types.as_mut_ptr(),
                arguments.values.as_mut_ptr(),
                arguments.nulls.as_ptr().cast(),
                true,
                0,
            );
            let mut result = Ok(());
            while result.is_ok() {
                pg_sys::SPI_cursor_fetch(cursor, true, size as _);
                let (table, count) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed);
                let batch = memory.within(|| results(pg_sys::SPI_OK_SELECT as i32, &map));
                pg_sys::SPI_freetuptable(table);
                if count == 0 {
                    break;
                }
                result = batch.and_then(&mut each);
            }
            pg_sys::SPI_cursor_close(cursor);
            result
        }
    })
}

/// Reads the first row, if there is one.
pub fn first<T>(sql: &'static str, args: &[DatumWithOid], map: impl Fn(&Row) -> Result<T>) -> Result<Option<T>> {
    Ok(rows(sql, args, map)?.into_iter().next())
}

/// Reads the first column of the first row; None for no row and for NULL.
pub fn value<T: FromDatum + IntoDatum>(sql: &'static str, args: &[DatumWithOid]) -> Result<Option<T>> {
    Ok(first(sql, args, |row| row.get(1))?.flatten())
}

/// Writes: runs `sql` and returns the number of rows it touched.
pub fn run(sql: &'static str, args: &[DatumWithOid]) -> Result<u64> {
    let plan = plan(sql, args)?;
    refuse_during_recovery();
    Spi::connect_mut(|client| Ok(client.update(plan, None, args)?.len() as u64))
}

/// Writes with a RETURNING clause, and maps the first row returned.
pub fn returning<T>(sql: &'static str, args: &[DatumWithOid], map: impl Fn(&Row) -> Result<T>) -> Result<Option<T>> {
    let plan = plan(sql, args)?;
    refuse_during_recovery();
    Spi::connect_mut(|client| client.update(plan, None, args)?.next().map(|tuple| map(&Row(tuple))).transpose())
}

/// Runs a statement that names objects, built by the caller from quoted identifiers; the number of rows it touched.
pub fn statement(sql: &str, args: &[DatumWithOid]) -> Result<u64> {
    refuse_during_recovery();
    Spi::connect_mut(|client| Ok(client.update(sql, None, args)?.len() as u64))
}

/// Reads by such a statement: the first column of each row it returns.
pub fn column<T: FromDatum + IntoDatum>(sql: &str) -> Result<Vec<Option<T>>> {
    Spi::connect(|client| client.select(sql, None, &[])?.map(|tuple| Row(tuple).get(1)).collect())
}

/// Runs such a statement, a write or a read, with a snapshot of its own: the first column of each row it returns.
pub fn current_column<T: FromDatum + IntoDatum>(sql: &str, args: &[DatumWithOid]) -> Result<Vec<Option<T>>> {
    refuse_during_recovery();
    Spi::connect_mut(|client| client.update(sql, None, args)?.map(|tuple| Row(tuple).get(1)).collect())
}

/// One row of a result.
pub struct Row<'conn>(SpiHeapTupleData<'conn>);

impl Row<'_> {
    /// The column at `ordinal` (from 1), None for NULL.
    pub fn get<T: FromDatum + IntoDatum>(&self, ordinal: usize) -> Result<Option<T>> {
        Ok(self.0.get(ordinal)?)
    }

    /// The column at `ordinal` (from 1), which the query never returns as NULL.
    pub fn must<T: FromDatum + IntoDatum>(&self, ordinal: usize) -> Result<T> {
        self.get(ordinal)?.ok_or_else(|| Error::Internal(format!("column {ordinal} of a catalog query is null")))
    }
}

/// `name` as an identifier in a statement.
pub fn ident(name: &str) -> String {
    pgrx::spi::quote_identifier(name)
}

/// `text` as a literal in a statement that takes no parameters.
pub fn literal(text: &str) -> String {
    pgrx::spi::quote_literal(text)
}
