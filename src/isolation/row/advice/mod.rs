//! What protection cannot do by itself: keys that reach across tenants, and indexes that row security keeps from being searched, each with the
//! statements that mend it.
//!
//! [`scope`] is what is looked at; [`plan`] puts the steps in an order in which they can be run, from what [`unique`], [`reference`] and [`index`]
//! find. `protect_table` tells of the problems, and [`functions`] of the steps.

mod functions;
mod index;
mod parts;
mod plan;
mod reference;
mod scope;
mod search;
mod step;
mod unique;

use super::inspect::Table;
use crate::error::Result;
use crate::query::literal;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Tells of each problem of the table, and of what belongs to it, once.
pub fn report(root: &Table) -> Result<()> {
    let mut told: Vec<String> = Vec::new();
    for step in plan::make(&scope::Scope::find(Some(root.oid))?)? {
        if told.contains(&step.problem.text) {
            continue;
        }
        told.push(step.problem.text.clone());
        let remedy = format!("SELECT * FROM protection_advice({}) ORDER BY step;", literal(&root.name));
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, step.problem.text, "protect_table")
            .set_hint(remedy)
            .report(PgLogLevel::NOTICE);
    }
    Ok(())
}
