//! The SQL function of advice.

use super::plan;
use super::scope::Scope;
use crate::sqltype::RegClass;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// What reaches across tenants and what cannot be searched, with the statements that mend it.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn protection_advice(
    table_name: default!(Option<RegClass>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(step, i32),
            name!(table_name, String),
            name!(kind, String),
            name!(object, String),
            name!(problem, String),
            name!(statement, Option<String>),
            name!(run_as, Option<String>),
            name!(lock, Option<String>),
            name!(duration, Option<String>),
            name!(note, String),
        ),
    >,
    ErrorReport,
> {
    let steps = plan::make(&Scope::find(table_name.map(|RegClass(oid)| oid))?)?;
    Ok(TableIterator::new(steps.into_iter().enumerate().map(|(number, step)| {
        (
            number as i32 + 1,
            step.table_name,
            step.problem.kind.to_owned(),
            step.problem.object,
            step.problem.text,
            step.statement,
            step.run_as,
            step.lock.map(str::to_owned),
            step.duration.map(str::to_owned),
            step.note,
        )
    })))
}
