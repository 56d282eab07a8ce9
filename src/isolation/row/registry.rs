//! Which tables are protected, and by which column.

use super::inspect::TenantType;
use crate::error::Result;
use crate::query;
use pgrx::pg_sys;

const REGISTERED: &str =
    "SELECT root::oid, tenant_column::text, tenant_type FROM tenancy.protected_tables WHERE table_name = $1";

/// How a registered table is protected.
#[derive(Clone)]
pub struct Protection {
    pub root: pg_sys::Oid,
    pub column: String,
    pub tenant_type: TenantType,
}

/// The protection of a table, if it has one.
pub fn registered(table: pg_sys::Oid) -> Result<Option<Protection>> {
    query::first(REGISTERED, &[table.into()], |row| {
        Ok(Protection {
            root: row.must(1)?,
            column: row.must(2)?,
            tenant_type: TenantType::from_name(&row.must::<String>(3)?)?,
        })
    })
}
