//! Whether a protected table is still as `protect_table` left it.

use super::inspect;
use super::policy;
use super::registry::{self, Protection};
use crate::error::{Error, Result, SqlResult};
use crate::query;
use crate::sqltype::RegClass;
use pgrx::pg_sys;
use pgrx::prelude::*;

const IS_FORCED: &str = "SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = $1";

/// Whether the guard of a protected table is there: forced row security, and both policies as they were made.
pub fn is_closed(table: pg_sys::Oid, protection: &Protection) -> Result<bool> {
    if query::value::<bool>(IS_FORCED, &[table.into()])? != Some(true) {
        return Ok(false);
    }
    match inspect::column(table, &protection.column, protection.tenant_type.is_key())? {
        Some(column) => policy::is_intact(table, &protection.column, &column.type_name, protection.tenant_type),
        None => Ok(false),
    }
}

/// Whether the table has forced row security, both policies as they were made, and a NOT NULL tenant column.
#[pg_extern(schema = "tenancy", security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
fn is_intact(table_name: Option<RegClass>) -> SqlResult<bool> {
    let RegClass(oid) = table_name.ok_or(Error::Null("table_name"))?;
    let Some(protection) = registry::registered(oid)? else { return Ok(false) };
    let column = inspect::column(oid, &protection.column, protection.tenant_type.is_key())?;
    Ok(column.is_some_and(|column| column.not_null) && is_closed(oid, &protection)?)
}
