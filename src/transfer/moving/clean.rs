//! The old place, once the registry leads to the new one: it goes when no transaction is left that was bound to it.

use super::record::{self, Isolation, Move};
use super::references::{self, Event};
use super::tables::{self, Table};
use crate::context;
use crate::database;
use crate::erased::Erased;
use crate::error::{Error, Result};
use crate::isolation::row::erase::{self, Eraser};
use crate::isolation::schema;
use crate::metering;
use crate::monitor;
use crate::namespace;
use crate::procedure::{self, Procedure};
use crate::query;
use crate::role;
use crate::worker::task;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};
use std::time::Duration;

const SETTLED: &str = "UPDATE tenancy.tenants SET moved_from = NULL WHERE id = $1";
/// The transactions that sessions are in.
const TRANSACTIONS: &str =
    "SELECT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'virtualxid' AND granted AND pid = ANY ($1)";
const STILL_THERE: &str = "SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE locktype = 'virtualxid' AND granted AND virtualtransaction = ANY ($1)
    AND pid <> pg_catalog.pg_backend_pid() ORDER BY pid";

/// How often it is looked whether readers have ended.
const PATIENCE: Duration = Duration::from_millis(50);

/// Removes what the tenant has left, and ends the move. The caller holds its lock.
pub fn finish(procedure: &Procedure, unfinished: &Move) -> Result<()> {
    if !unfinished.clean {
        role::as_extension_owner(|| record::ask_clean(unfinished.id))?;
    }
    procedure.commit();
    wait_for_readers(procedure, unfinished)?;
    match unfinished.from {
        Isolation::Row => {
            let mut eraser = begin(unfinished)?;
            while batch(&mut eraser)? {
                procedure.commit();
            }
            procedure.commit();
        }
        Isolation::Schema => drop_schemas(unfinished.tenant)?,
        Isolation::Database => database::demolish(procedure, unfinished.tenant).map(drop)?,
    }
    role::as_extension_owner(|| end(unfinished))?;
    procedure.commit();
    notice!("removed what tenant \"{}\" has left", unfinished.tenant);
    Ok(())
}

/// The same as a worker does it, whose other work goes on when this fails: one step after the other in a subtransaction, and nothing while someone
/// reads there, whom another visit finds gone. The caller holds the move's lock.
pub fn finish_in_steps(procedure: &Procedure, unfinished: &Move) -> std::result::Result<(), String> {
    if !procedure::attempt(|| Ok(readers(unfinished)?.is_empty()))? {
        return Ok(());
    }
    match unfinished.from {
        Isolation::Row => {
            let mut eraser = procedure::attempt(|| begin(unfinished))?;
            while procedure::attempt(|| batch(&mut eraser))? {
                procedure.commit();
                if task::time_is_up() {
                    return Ok(());
                }
            }
            procedure.commit();
        }
        Isolation::Schema => procedure::attempt(|| drop_schemas(unfinished.tenant))?,
        Isolation::Database => database::demolish(procedure, unfinished.tenant).map(drop).map_err(message_of)?,
    }
    procedure::attempt(|| role::as_extension_owner(|| end(unfinished)))?;
    procedure.commit();
    Ok(())
}

/// The transactions that have the tenant's tables where they were.
fn readers(unfinished: &Move) -> Result<Vec<String>> {
    role::as_extension_owner(|| {
        // SAFETY: a plain read.
        let here = unsafe { pg_sys::MyDatabaseId };
        let tenant = unfinished.tenant;
        let schema = unfinished.schema.as_deref().and_then(namespace::oid).map(pg_sys::Oid::to_u32);
        let bound = match unfinished.from {
            Isolation::Row => monitor::backends_at(tenant, here, |place| place == monitor::SHARED),
            Isolation::Schema => monitor::backends_at(tenant, here, |place| Some(place) == schema),
            Isolation::Database => match database::oid_of(tenant)? {
                Some(own) => monitor::backends_at(tenant, own, |_| true),
                None => Vec::new(),
            },
        };
        query::current_rows(TRANSACTIONS, &[bound.into()], |row| row.must(1))
    })
}

fn message_of(error: Error) -> String {
    pg_sys::panic::ErrorReport::from(error).message().to_owned()
}

/// Waits until the transactions have ended that were bound to the old place: who reads there goes on to the end.
fn wait_for_readers(procedure: &Procedure, unfinished: &Move) -> Result<()> {
    let (tenant, transactions) = (unfinished.tenant, readers(unfinished)?);
    let mut told: Vec<i32> = Vec::new();
    loop {
        let still_there = || query::current_rows(STILL_THERE, &[transactions.clone().into()], |row| row.must(1));
        let waited: Vec<i32> = role::as_extension_owner(still_there)?;
        if waited.is_empty() {
            return Ok(());
        }
        if told != waited {
            let pids: Vec<String> = waited.iter().map(i32::to_string).collect();
            notice!(
                "waiting for transactions that were bound to tenant \"{tenant}\" before it was moved: processes {}",
                pids.join(", ")
            );
            told = waited;
        }
        let until = std::time::Instant::now() + PATIENCE;
        procedure.wait_until(|| std::time::Instant::now() >= until);
    }
}

/// What removes the tenant's rows from the shared tables, whose triggers and foreign keys have nothing to do with it: they are somewhere else now.
fn begin(unfinished: &Move) -> Result<Eraser> {
    let tenant = unfinished.tenant;
    // Before the check, so that it sees every table that this will empty.
    let eraser = Eraser::new(tenant)?;
    role::as_extension_owner(|| {
        let tables = tables::protected()?;
        context::while_making_schema(tenant, || refuse_rows_of_nowhere(unfinished, &tables))?;
        let tables: Vec<_> = tables.iter().collect();
        references::refuse_unstoppable(&tables, Event::Delete)?;
        context::while_making_schema(tenant, || references::refuse_foreign_references(&tables, tenant))
    })?;
    Ok(eraser)
}

/// Fails where the tenant has rows that were not moved: in a table that was protected since, or written by a role that bypasses row security.
fn refuse_rows_of_nowhere(unfinished: &Move, tables: &[Table]) -> Result<()> {
    for table in tables {
        let moved = record::moved_rows(unfinished.id, &table.schema, &table.name)?;
        let found = table.count(unfinished.tenant)?;
        if found > moved {
            return Err(Error::Unprotectable(
                format!("{} has {found} rows of the tenant, of which {moved} were moved", table.full_name),
                "The others are nowhere else. Bring them to where the tenant is and remove them here, then CALL clean_move()."
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

fn batch(eraser: &mut Eraser) -> Result<bool> {
    role::without_triggers(|| eraser.batch()).map(|(more, _)| more)
}

fn drop_schemas(tenant: Uuid) -> Result<()> {
    role::as_extension_owner(|| schema::drop_left(tenant).map(drop))
}

fn end(unfinished: &Move) -> Result<()> {
    if unfinished.from == Isolation::Row {
        erase::verify(unfinished.tenant)?;
    }
    query::run(SETTLED, &[unfinished.tenant.into()])?;
    if unfinished.from == Isolation::Database {
        database::erase(unfinished.tenant, &mut Erased::new())?;
    }
    metering::limit::erase(unfinished.tenant)?;
    record::done(unfinished.id)
}
