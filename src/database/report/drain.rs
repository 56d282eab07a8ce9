//! Having a tenant's own database report now.

use super::send;
use crate::error::Result;
use crate::metering::usage;
use crate::procedure::Procedure;
use crate::worker::errand;
use pgrx::pg_sys;
use serde_json::{Value, json};

pub const ERRAND: &str = "database.drain";

/// Has this database, a tenant's own, report all that is committed there, and waits until that is taken over here. Commits: what is reported
/// changes rows that the caller must not hold.
pub fn drain(procedure: &Procedure, database: pg_sys::Oid) -> Result<()> {
    errand::send(database, ERRAND, &json!({}))?.wait_in(procedure).map(drop)
}

/// The errand.
pub fn answer(_request: &Value) -> Result<Value> {
    errand::transaction(usage::roll_up)?;
    errand::transaction(send::report_all)?;
    Ok(json!({}))
}
