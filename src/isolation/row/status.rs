//! Whether a protected table is still as `protect_table` left it: its owner may have changed it.

use super::inspect;
use super::{policy, protect};
use crate::error::{Error, SqlResult};
use crate::query;
use crate::sqltype::RegClass;
use pgrx::prelude::*;

const IS_FORCED: &str = "SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = $1";

/// Whether the table has forced row security, both policies as they were made, and a NOT NULL tenant column.
#[pg_extern(schema = "tenancy", security_definer, stable)]
#[search_path(pg_catalog, pg_temp)]
fn is_intact(table_name: Option<RegClass>) -> SqlResult<bool> {
    let RegClass(oid) = table_name.ok_or(Error::Null("table_name"))?;
    let Some(protection) = protect::registered(oid)? else { return Ok(false) };
    if query::value::<bool>(IS_FORCED, &[oid.into()])? != Some(true) {
        return Ok(false);
    }
    let Some(column) = inspect::column(oid, &protection.column, protection.tenant_type.is_key())? else {
        return Ok(false);
    };
    let policies = policy::is_intact(oid, &protection.column, &column.type_name, protection.tenant_type)?;
    Ok(column.not_null && policies)
}
