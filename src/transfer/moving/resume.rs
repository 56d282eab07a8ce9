//! What an earlier call has left of a move: taken back where it has not come to the switch, and else finished.

use super::clean;
use super::record;
use super::undo::undo;
use crate::error::Result;
use crate::procedure::{self, Procedure};
use crate::role;
use pgrx::Uuid;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// What stands in the record of a move whose session has ended.
const INTERRUPTED: (&str, &str) = ("57P01", "interrupted");

/// Ends what an earlier call has left: takes a move back that was interrupted, or finishes one. The caller holds its lock.
pub fn settle(procedure: &Procedure, tenant: Uuid) -> Result<()> {
    let Some(unfinished) = role::as_extension_owner(|| record::unfinished(tenant))? else { return Ok(()) };
    if unfinished.is_switched {
        return clean::finish(procedure, &unfinished);
    }
    let (sqlstate, message) = INTERRUPTED;
    undo(procedure, &unfinished, sqlstate, message)?;
    notice!("took back an interrupted move of tenant \"{tenant}\"");
    Ok(())
}

/// The same by a worker, as far as nobody is to be waited for. The caller holds the move's lock.
pub fn resume(procedure: &Procedure, tenant: Uuid) -> std::result::Result<(), String> {
    let Some(unfinished) = procedure::attempt(|| role::as_extension_owner(|| record::unfinished(tenant)))? else {
        return Ok(());
    };
    if !unfinished.is_switched {
        let (sqlstate, message) = INTERRUPTED;
        return undo(procedure, &unfinished, sqlstate, message)
            .map_err(|error| pg_sys::panic::ErrorReport::from(error).message().to_owned());
    }
    if unfinished.clean { clean::finish_in_steps(procedure, &unfinished) } else { Ok(()) }
}
