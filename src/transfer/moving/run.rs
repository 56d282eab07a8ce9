//! `move_tenant`, `clean_move` and `resume_moves`: from the order to the end.

use super::held::{Held, hold};
use super::order::Order;
use super::record::{self, Isolation, Moved};
use super::resume::{resume, settle};
use super::start::start;
use super::undo::undo;
use super::{clean, from_database, to_database, to_rows, to_schema};
use crate::database;
use crate::error::{Error, Result, SqlResult};
use crate::monitor;
use crate::procedure::{self, Procedure};
use crate::role;
use crate::sqltype::Name;
use crate::worker::task;
use pgrx::prelude::*;
use pgrx::{Uuid, pg_sys};

/// Does what a move is for. Inside a database that is all of it or nothing; where another is made or read, what was made is removed by
/// [`undo`] when it fails.
fn perform(procedure: &Procedure, order: &Order) -> Result<Moved> {
    match (order.from, order.to) {
        (_, Isolation::Database) => to_database::perform(procedure, order),
        (Isolation::Database, _) => from_database::perform(procedure, order),
        (_, Isolation::Schema) => procedure::caught_all(|| role::as_extension_owner(|| to_schema::perform(order))),
        (_, Isolation::Row) => procedure::caught_all(|| role::as_extension_owner(|| to_rows::perform(order))),
    }
}

/// Moves a tenant, committing as it goes.
fn run(procedure: &Procedure, tenant: Uuid, to: Isolation, template: Option<String>, clean: bool) -> Result<()> {
    let _held = hold(tenant)?;
    settle(procedure, tenant)?;
    let order = role::as_extension_owner(|| start(tenant, to, template, clean))?;
    procedure.commit();
    let moved = match perform(procedure, &order) {
        Ok(moved) => moved,
        Err(error) => {
            let error = order.name_table(error.into_raised());
            let Error::Elsewhere { sqlstate, message, .. } = &error else { return Err(error) };
            if let Some(unfinished) = role::as_extension_owner(|| record::unfinished(tenant))? {
                undo(procedure, &unfinished, sqlstate, message)?;
            }
            return Err(error);
        }
    };
    procedure.commit();
    for (table, rows) in moved.rows.iter().filter(|(_, rows)| *rows > 0) {
        notice!("moved {rows} rows of {table}");
    }
    notice!("tenant \"{tenant}\" has isolation {} now", to.name());
    if to == Isolation::Database {
        // Where it is now it knows already; what else has changed it is told now, or by a worker.
        if let Err(message) = procedure::attempt(|| role::as_extension_owner(|| database::state::tell(tenant, false))) {
            warning!("{message}");
        }
        procedure.commit();
    }
    match role::as_extension_owner(|| record::unfinished(tenant))? {
        Some(unfinished) if clean => clean::finish(procedure, &unfinished),
        _ => Ok(()),
    }
}

/// Moves a tenant to another isolation.
#[pg_extern(
    sql = "CREATE PROCEDURE move_tenant(tenant uuid, to_isolation text, template name DEFAULT NULL, clean boolean DEFAULT true)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';"
)]
fn move_tenant(
    tenant: Option<Uuid>,
    to_isolation: Option<&str>,
    template: Option<Name>,
    clean: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "move_tenant") }?;
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let to = to_isolation.ok_or(Error::Null("to_isolation"))?;
    let clean = clean.ok_or(Error::Null("clean"))?;
    let to = Isolation::from_name(to).ok_or_else(|| {
        let given: String = to.chars().take(63).collect();
        Error::invalid(format!("\"{given}\" is no isolation"), "Isolations are row, schema and database.")
    })?;
    Ok(run(&procedure, tenant, to, template.map(|Name(name)| name), clean)?)
}

/// Removes what a move has left at the old place.
#[pg_extern(sql = "CREATE PROCEDURE clean_move(tenant uuid)
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn clean_move(tenant: Option<Uuid>, fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "clean_move") }?;
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let _held = hold(tenant)?;
    let unfinished = role::as_extension_owner(|| record::unfinished(tenant))?;
    let Some(unfinished) = unfinished.filter(|found| found.is_switched) else {
        return Err(Error::State(format!("no move of tenant \"{tenant}\" has left anything"), "").into());
    };
    Ok(clean::finish(&procedure, &unfinished)?)
}

/// Does what is left of all moves that nobody works at.
#[pg_extern(sql = "CREATE PROCEDURE resume_moves()
    LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';")]
fn resume_moves(fcinfo: pg_sys::FunctionCallInfo) -> SqlResult<()> {
    // SAFETY: PostgreSQL is calling this procedure with this record.
    let procedure = unsafe { Procedure::begin(fcinfo, "resume_moves") }?;
    let tenants = role::as_extension_owner(record::tenants_to_resume)?;
    if !tenants.is_empty() {
        // Whoever works at one may end, and who is waited for.
        monitor::announce();
    }
    for tenant in tenants {
        let Some(_held) = Held::take(tenant) else { continue };
        match resume(&procedure, tenant) {
            Ok(()) => task::note_done(1),
            Err(message) => {
                let message = format!("what is left of the move of tenant \"{tenant}\" was not done: {message}");
                task::note_failure(&message);
                warning!("{message}");
            }
        }
        if task::time_is_up() {
            break;
        }
    }
    Ok(())
}
