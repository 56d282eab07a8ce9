//! The end of a move that has not come to the switch.

use super::record::{self, Isolation, Move};
use super::state::{Registry, set_status};
use crate::audit::{self, Entry};
use crate::context::registry::Status;
use crate::database;
use crate::error::Result;
use crate::isolation::schema::version;
use crate::json::Object;
use crate::procedure::{self, Procedure};
use crate::role;

/// Puts a tenant back whose move has not come to the switch.
fn take_back(unfinished: &Move, sqlstate: &str, message: &str) -> Result<()> {
    let registry = Registry::read(unfinished.tenant)?;
    if registry.status == Status::Moving {
        set_status(unfinished.tenant, unfinished.former)?;
    }
    record::failed(unfinished.id, sqlstate, message)?;
    if unfinished.to != Isolation::Database {
        record::finished(unfinished.id)?;
    }
    audit::record(&Entry {
        action: "tenant.move_failed",
        tenant: Some(unfinished.tenant),
        target: Some(&registry.slug),
        after: Some(Object::new().text("to", unfinished.to.name()).text("sqlstate", sqlstate).finish()),
        ..Entry::default()
    })
}

/// Takes back a move that has not come to the switch: the tenant is where it was at once, and what was made of a database is removed then. Commits.
pub fn undo(procedure: &Procedure, unfinished: &Move, sqlstate: &str, message: &str) -> Result<()> {
    if !unfinished.has_failed {
        procedure::caught(|| role::as_extension_owner(|| take_back(unfinished, sqlstate, message)))?;
        procedure.commit();
    }
    if unfinished.to == Isolation::Database {
        database::demolish(procedure, unfinished.tenant)?;
        procedure::caught(|| {
            role::as_extension_owner(|| {
                if unfinished.from == Isolation::Row {
                    version::remove(unfinished.tenant)?;
                }
                record::finished(unfinished.id)
            })
        })?;
        procedure.commit();
    }
    Ok(())
}
